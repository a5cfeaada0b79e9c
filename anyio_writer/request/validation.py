"""The check of a request before anything is sent, and its JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, TypeGuard

import msgspec
from msgspec import Meta

from ..config import SETTINGS, check_headers
from ..errors import InvalidParameterError
from ..protocol.completion import ParsedChatCompletionMessage
from ..protocol.json import is_array

if TYPE_CHECKING:
    from ..structured.tools import FunctionTool

_NOT_IN_BODY: Final = frozenset({"extra_headers", "extra_query", "extra_body"})


# What the API's specification says of each field, in types that msgspec can check. Objects are
# checked for what they must hold and sent as they are: servers know more fields than this list.
_Text = Annotated[str, Meta(min_length=1)]
_Object: TypeAlias = dict[str, Any]


class _Fragment(msgspec.Struct):
    type: _Text


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system", "tool", "developer"]
    content: str | list[_Fragment] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[_Object] | None = None


class _Tool(msgspec.Struct):
    type: _Text
    function: _Object


class _Function(msgspec.Struct):
    name: _Text
    description: str | None = None
    parameters: _Object | None = None
    strict: bool | None = None


_Share = Annotated[float, Meta(ge=0, le=1)]


class _QueryConfig(msgspec.Struct):
    max_subquestions: Annotated[int, Meta(ge=1, le=10)] | None = None
    search_weight: Annotated[float, Meta(ge=0, le=100)] | None = None
    grounding_level: _Share | None = None
    max_snippets: Annotated[int, Meta(ge=1, le=60)] | None = None
    max_tokens: Annotated[int, Meta(ge=100, le=8000)] | None = None
    keyword_threshold: _Share | None = None
    semantic_threshold: _Share | None = None
    inline_citations: bool | None = None


class _Graph(msgspec.Struct):
    graph_ids: list[str]
    subqueries: bool
    description: str | None = None
    query_config: _QueryConfig | None = None


class _LLM(msgspec.Struct):
    description: str
    model: _Text


class _Translation(msgspec.Struct):
    model: _Text
    formality: bool
    length_control: bool
    mask_profanity: bool
    source_language_code: str | None = None
    target_language_code: str | None = None


class _Variable(msgspec.Struct):
    name: _Text
    file_id: _Text


class _Vision(msgspec.Struct):
    model: _Text
    variables: list[_Variable]


class _WebSearch(msgspec.Struct):
    include_domains: list[str] | None = None  # the specification requires both, its examples none
    exclude_domains: list[str] | None = None


# By the tool's type: what its function must be, and an example. Other types are passed on.
_FUNCTIONS: Final[dict[str, tuple[type[msgspec.Struct], str]]] = {
    "function": (_Function, "{'name': 'f', 'description': '...', 'parameters': {...}}"),
    "graph": (_Graph, "{'graph_ids': ['...'], 'subqueries': True}"),
    "llm": (_LLM, "{'description': '...', 'model': 'palmyra-x5'}"),
    "translation": (
        _Translation,
        "{'model': '...', 'formality': False, 'length_control': False, 'mask_profanity': False}",
    ),
    "vision": (
        _Vision,
        "{'model': 'palmyra-vision', 'variables': [{'name': '...', 'file_id': '...'}]}",
    ),
    "web_search": (_WebSearch, "{'include_domains': ['...']}"),
}


class _Name(msgspec.Struct):
    name: _Text


class _NamedToolChoice(msgspec.Struct):
    type: _Text
    function: _Name


class _StreamOptions(msgspec.Struct):
    include_usage: bool


class _ResponseFormat(msgspec.Struct):
    type: _Text
    json_schema: _Object | None = None


class _Request(msgspec.Struct):
    model: _Text
    messages: Annotated[list[_Message], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    stream_options: _StreamOptions | None = None
    tools: Annotated[list[_Tool], Meta(min_length=1)] | None = None
    tool_choice: str | _Object | None = None
    response_format: _ResponseFormat | None = None


_FIELDS: Final = _NOT_IN_BODY.union(_Request.__struct_fields__)

# By the place of the mistake, list positions left out; else by the field.
_HINTS: Final = {
    "messages": "It is a list of messages such as {'role': 'user', 'content': 'Hello'}.",
    "messages.role": (
        "It is 'user', 'assistant', 'system' or 'tool'; other servers also know 'developer'."
    ),
    "messages.content": "It is text, or a list such as [{'type': 'text', 'text': 'Hello'}].",
    "tools": (
        "It is a list of what function_tool(f) makes, or of {'type': 'function', 'function': "
        "{...}}; leave tools out to send none."
    ),
    "tool_choice": (
        "It is 'auto', 'none', 'required', or {'type': 'function', 'function': {'name': ...}}."
    ),
    "response_format": (
        "It is a type, such as a dataclass, or {'type': 'json_schema', 'json_schema': {...}}."
    ),
    "stream_options": "It is {'include_usage': True}.",
}


def build_body(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request's JSON object, checked.

    Args:
        request: ``ChatRequest``, and ``response_format`` in the API's own form.

    Raises:
        InvalidParameterError: A field is missing, wrong or unknown; the message names it.
    """
    for name in request:
        if name not in _FIELDS:
            raise InvalidParameterError(_unknown(name))
    given = {
        name: _plain(value, name)
        for name, value in request.items()
        if value is not None and name not in _NOT_IN_BODY
    }
    _check(given, _Request)
    extra_body = request.get("extra_body")
    _check_tools(given.get("tools", ()))
    if not (isinstance(extra_body, Mapping) and "tools" in extra_body):
        _check_tool_choice(given.get("tool_choice"), given.get("tools", ()))
    for name in _NOT_IN_BODY:
        value = request.get(name)
        if value is not None and not isinstance(value, Mapping):  # not shown: may hold a secret
            raise InvalidParameterError(f"{name} must be a mapping, not {type(value).__name__}.")
    check_headers("extra_headers", request.get("extra_headers"), InvalidParameterError)
    _check_query(request.get("extra_query") or {})
    return {**given, "stream": True, **_plain(extra_body or {}, "extra_body")}


def encode_body(body: Mapping[str, Any]) -> bytes:
    """The JSON of a request.

    Raises:
        InvalidParameterError: Something has no JSON form; the message names the field.
    """
    fields: list[bytes] = []
    for name, value in body.items():
        try:
            fields.append(_encode({name: value})[1:-1])
        except _NO_JSON as exc:
            place = _place_of_failure(name, value, _encode)
            raise InvalidParameterError(f"{place} cannot be sent as JSON: {exc}") from exc
    return b"{" + b",".join(fields) + b"}"


_NO_JSON: Final = (TypeError, ValueError, RecursionError)


def _encode(value: Any) -> bytes:
    # Not msgspec, which would send bytes as base64 and NaN as null without a word.
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _place_of_failure(name: str, value: Any, encode: Callable[[Any], object]) -> str:
    """The field, with the position if it is a list, whose value cannot be encoded."""
    for position, item in enumerate(value if is_array(value) else ()):
        try:
            encode(item)
        except _NO_JSON:
            return f"{name}[{position}]"
    return name


_OF_CONVERSATIONS: Final = "it is a parameter of open_conversation() and chat.conversation()"
_ELSEWHERE: Final = {
    "max_rounds": _OF_CONVERSATIONS,
    "total_time": f"{_OF_CONVERSATIONS}; a stream has timeouts=Timeouts(total=...)",
    "tool_limit": f"{_OF_CONVERSATIONS}; a stream has run_tools(limit=...)",
    "on_tool_error": f"{_OF_CONVERSATIONS}; a stream has run_tools(on_error=...)",
    "limit": "it is a parameter of run_tools(); a conversation has tool_limit",
    "on_error": "it is a parameter of run_tools(); a conversation has on_tool_error",
    "max_completion_tokens": "here it is max_tokens",
}


def _unknown(name: str) -> str:
    if name == "stream":
        return "There is no parameter stream: the answer is always streamed."
    if name in SETTINGS:
        return f"{name} is a setting of AsyncWriter, not a field of a request."
    if name in _ELSEWHERE:
        return f"{name} is no field of a request: {_ELSEWHERE[name]}."
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake needs it

    known = sorted(_FIELDS | SETTINGS | _ELSEWHERE.keys())
    matches = get_close_matches(name, known, n=1)
    suggestion = f" Did you mean {matches[0]}?" if matches else ""
    return (
        f"There is no parameter {name}.{suggestion} "
        "Fields that the API does not list go into extra_body."
    )


def _check_query(query: Mapping[str, Any]) -> None:
    for name, value in query.items():
        if not all(isinstance(each, str | int | float | None) for each in _several(value)):
            raise InvalidParameterError(
                f"extra_query[{name!r}] must be text, a number or a list of these, "
                f"not {type(value).__name__}."
            )


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)  # pyright: ignore[reportUnknownVariableType]


def _plain(value: Any, name: str) -> Any:
    """Messages, structs, pydantic models and iterables as the JSON types they stand for."""
    if _is_lazy(value):
        value = list(value)
    if name == "tools":
        _refuse_functions(value)
    if isinstance(value, list | tuple):
        value = [_message_param(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    try:
        return _builtins(value)
    except RecursionError:
        raise InvalidParameterError(f"{name} is nested too deeply to be sent as JSON.") from None
    except (TypeError, ValueError) as exc:
        place = _place_of_failure(name, value, _builtins)
        hint = _HINTS.get(name)
        raise InvalidParameterError(
            f"{place} cannot be sent as JSON: {exc}" + (f". {hint}" if hint else "")
        ) from exc


def _builtins(value: Any) -> Any:
    return msgspec.to_builtins(value, builtin_types=_BINARY, enc_hook=encode_foreign)


# Left as they are, which makes them errors: there is more than one way to write them in JSON.
_BINARY: Final = (bytes, bytearray, memoryview)


def _is_lazy(value: Any) -> bool:
    """Whether it is an iterable that has to be read out: a generator, a view, a deque."""
    if isinstance(value, (str, Mapping, list, tuple, *_BINARY)):
        return False
    return not hasattr(value, "model_dump") and isinstance(value, Iterable)


def _message_param(item: Any) -> Any:
    """A message of a completion in the form in which the API wants it back."""
    return item.to_param() if isinstance(item, ParsedChatCompletionMessage) else item


def _refuse_functions(tools: Any) -> None:
    """A function is made a tool once, not at each request, and whoever calls it needs the tool."""
    is_list = isinstance(tools, list | tuple)
    if not is_list and is_function_tool(tools):
        raise InvalidParameterError("tools is one tool; put it into a list: tools=[...].")
    for position, tool in enumerate(tools if is_list else [tools]):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        place = f"tools[{position}]" if is_list else "tools"
        if isinstance(tool, type):
            raise InvalidParameterError(
                f"{place} is the class {tool.__name__}; a tool is made of a function. The type "
                "that an answer is to have goes into response_format."
            )
        if callable(tool) and not is_function_tool(tool):
            own = getattr(tool, "__name__", "")  # none: a partial, or an object with __call__
            name = own or type(tool).__name__
            made = f"function_tool({own if own.isidentifier() else '...'})"
            raise InvalidParameterError(
                f"{place} is {name} itself; make it a tool: {made if is_list else f'[{made}]'}."
            )


def is_function_tool(value: object) -> TypeGuard[FunctionTool[..., Any]]:
    """Whether something was made by ``function_tool``."""
    # Not at the top: without tools nobody has to know how one is made.
    from ..structured.tools import FunctionTool  # noqa: PLC0415

    return isinstance(value, FunctionTool)


def functions_by_name(tools: Any) -> dict[str, FunctionTool[..., Any]]:
    """Tools of ``function_tool``, by their names.

    Raises:
        InvalidParameterError: Something else is among them, or two have the same name.
    """
    tools = list(tools) if _is_lazy(tools) else tools
    _refuse_functions(tools)
    found: dict[str, FunctionTool[..., Any]] = {}
    for position, tool in enumerate(_several(tools)):
        if not is_function_tool(tool):
            raise InvalidParameterError(
                f"tools[{position}] is no function ({type(tool).__name__}); only what "
                "function_tool made can be run and read here."
            )
        if tool.name in found:
            raise InvalidParameterError(
                f"tools holds several functions named {tool.name!r}; nothing could tell them apart."
            )
        found[tool.name] = tool
    return found


def encode_foreign(value: Any) -> Any:
    """What msgspec does not know, as something that it does: an ``enc_hook``.

    Raises:
        TypeError: Nothing is known to do with it.
    """
    dump = getattr(value, "model_dump", None)  # pydantic, and with it the official SDK's messages
    if dump is not None:
        return dump(exclude_none=True, by_alias=True)
    if _is_mapping(value):
        return dict(value)
    if _is_lazy(value):
        return list(value)
    for plain in (str, int, float):  # msgspec takes no subclasses of these
        if isinstance(value, plain):
            return plain(value)
    if is_function_tool(value):
        return value.to_param()
    raise TypeError(f"objects of type {type(value).__name__} are not supported")


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _check_tools(tools: Sequence[Mapping[str, Any]]) -> None:
    built_in = {str(tool["type"]) for tool in tools} - {"function"}
    if len(built_in) > 1:
        raise InvalidParameterError(
            f"tools holds several built-in tools ({', '.join(sorted(built_in))}); the API takes "
            "one kind per request."
        )
    for position, tool in enumerate(tools):
        if tool["type"] in _FUNCTIONS:
            expected, example = _FUNCTIONS[tool["type"]]
            hint = f"For {tool['type']!r} it is like {example}."
            _check(tool["function"], expected, f"tools[{position}].function", hint)
    twice = [name for name, times in Counter(_function_names(tools)).items() if times > 1]
    if twice:
        raise InvalidParameterError(
            f"tools holds several functions named {twice[0]!r}; nothing could tell them apart."
        )


def _check_tool_choice(choice: str | _Object | None, tools: Sequence[Mapping[str, Any]]) -> None:
    # With "value" it has the form of the specification, which no example uses; it is passed on.
    if choice is None or (not isinstance(choice, str) and "value" in choice):
        return
    if not tools:
        raise InvalidParameterError("tool_choice needs tools to choose from; there are none.")
    if isinstance(choice, str) or choice.get("type", "function") != "function":
        return
    _check(choice, _NamedToolChoice, "tool_choice")
    name, names = choice["function"]["name"], _function_names(tools)
    if name not in names:
        among = f"they are {', '.join(map(repr, names))}" if names else "there are none"
        raise InvalidParameterError(
            f"tool_choice names {name!r}, which is not among the functions in tools; {among}."
        )


def _function_names(tools: Iterable[Mapping[str, Any]]) -> list[str]:
    return [tool["function"]["name"] for tool in tools if tool["type"] == "function"]


def _check(
    value: _Object, expected: type[msgspec.Struct], place: str = "", hint: str | None = None
) -> None:
    try:
        msgspec.convert(value, expected)
    except msgspec.ValidationError as exc:
        raise _explain(str(exc), place, hint) from None


def _explain(reason: str, place: str, hint: str | None) -> InvalidParameterError:
    what, _, where = reason.partition(" - at ")
    is_key = where.startswith(_AT_KEY)
    place = (place + where.removeprefix(_AT_KEY).strip("`").removeprefix("$")).lstrip(".")
    if missing := re.fullmatch(_MISSING, what):
        said = f"{place} has no {missing[1]!r}" if place else f"{missing[1]} is missing"
        place = place or missing[1]
    else:
        types = re.sub(_TYPES, lambda found: _JSON_NAMES.get(found[0], found[0]), what)
        subject = f"a key of {place}" if is_key else place
        said = f"{subject} is wrong: {types[0].lower()}{types[1:]}"
    named = re.sub(r"\[.*?\]", "", place)
    hint = hint or _HINTS.get(named) or _HINTS.get(named.partition(".")[0], "")
    return InvalidParameterError(f"{said}. {hint}".rstrip())


_AT_KEY: Final = "`key` in "
_MISSING: Final = r"Object missing required field `(.*)`"
_TYPES: Final = r"(?<=[` ])(array|object|null)(?=[` ])"
_JSON_NAMES: Final = {"array": "list", "object": "dict", "null": "None"}
