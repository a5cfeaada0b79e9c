"""What a request may hold, and the check of it before anything is sent.

The fields are those of the chat completion API: https://dev.writer.com/api-reference/completion-api
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Required,
    TypeAlias,
    TypedDict,
)

import msgspec
from msgspec import Meta

from .config import SETTINGS, check_headers
from .errors import InvalidParameterError
from .protocol.completion import ParsedChatCompletionMessage


class TextFragment(TypedDict):
    """A piece of text in a message's content."""

    type: Literal["text"]
    text: str


class ImageURL(TypedDict):
    """Where an image is: an URL, ``data:`` included."""

    url: str


class ImageFragment(TypedDict):
    """An image in a message's content."""

    type: Literal["image_url"]
    image_url: ImageURL


ContentFragment: TypeAlias = TextFragment | ImageFragment


class FunctionCall(TypedDict):
    """A function call as it goes back to the model."""

    name: str
    arguments: str


class ToolCall(TypedDict, total=False):
    """A tool call of an earlier turn."""

    id: Required[str]
    type: Required[str]
    function: Required[FunctionCall]
    index: int


class Message(TypedDict, total=False):
    """One message of the conversation.

    A message of a completion (``completion.choices[0].message``) may stand in its place.
    """

    role: Required[Literal["user", "assistant", "system", "tool"]]
    content: str | Iterable[ContentFragment] | None
    name: str | None
    tool_call_id: str | None
    tool_calls: Iterable[ToolCall] | None
    graph_data: Mapping[str, Any] | None
    refusal: str | None


class FunctionDefinition(TypedDict, total=False):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    name: Required[str]
    description: str
    parameters: Mapping[str, Any]
    strict: bool


class FunctionTool(TypedDict):
    """A tool that the caller runs."""

    type: Literal["function"]
    function: FunctionDefinition


class BuiltInTool(TypedDict):
    """A tool that the server runs. At most one kind may stand in a request."""

    type: Literal["graph", "llm", "translation", "vision", "web_search"]
    function: Mapping[str, Any]


Tool: TypeAlias = FunctionTool | BuiltInTool


class NamedFunction(TypedDict):
    """A function by its name."""

    name: str


class NamedToolChoice(TypedDict):
    """Makes the model call one function."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedToolChoice | Mapping[str, Any]


class StreamOptionsParam(TypedDict):
    """``include_usage`` asks for a last chunk with the token counts."""

    include_usage: bool


class ResponseFormat(TypedDict):
    """The API's own form of a response format."""

    type: str
    json_schema: NotRequired[Mapping[str, Any]]


class ChatRequest(TypedDict, total=False):
    """The fields of a request, as keyword arguments. None leaves a field out.

    Attributes:
        messages: The conversation, at least one message. Messages of completions
            (``completion.choices[0].message``) may be among them.
        model: The model's name; any name is passed on.
        max_tokens: The most tokens to generate.
        temperature: 0 or more.
        top_p: 0 to 1.
        n: How many choices to generate.
        stop: Text, or several texts, at which to stop. What is given back ends with it.
        logprobs: Whether to send the tokens' log probabilities.
        tools: What the model may call; at most one kind of built-in tool.
        tool_choice: "auto", "none", "required", or one function.
        stream_options: ``{"include_usage": True}`` asks for the token counts.
        extra_headers: HTTP headers; they replace others of the same name, None takes one out.
        extra_query: Query parameters.
        extra_body: Fields that the API does not list, or that are to replace one.
    """

    messages: Required[Iterable[Message | ParsedChatCompletionMessage[Any]]]
    model: Required[str]
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    n: int | None
    stop: str | Iterable[str] | None
    logprobs: bool | None
    tools: Iterable[Tool] | None
    tool_choice: ToolChoice | None
    stream_options: StreamOptionsParam | None
    extra_headers: Mapping[str, str | None] | None
    extra_query: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None


REQUEST_FIELDS: Final = frozenset({*ChatRequest.__annotations__, "response_format"})
_NOT_IN_BODY: Final = frozenset({"extra_headers", "extra_query", "extra_body"})


# What the API's specification says of each field, in types that msgspec can check. Objects are
# checked for what they must hold and sent as they are: servers know more fields than this list.
_Text = Annotated[str, Meta(min_length=1)]
_Object: TypeAlias = dict[str, Any]


class _Fragment(msgspec.Struct):
    type: _Text


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system", "tool"]
    content: str | list[_Fragment] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[_Object] | None = None


class _Tool(msgspec.Struct):
    type: _Text
    function: _Object


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


# By the place of the mistake, list positions left out; else by the field.
_HINTS: Final = {
    "messages": "It is a list of messages such as {'role': 'user', 'content': 'Hello'}.",
    "messages.role": "It is 'user', 'assistant', 'system' or 'tool'.",
    "messages.content": "It is text, or a list such as [{'type': 'text', 'text': 'Hello'}].",
    "tools": "One is like {'type': 'function', 'function': {...}}; leave tools out to send none.",
    "response_format": "It is {'type': 'json_schema', 'json_schema': {...}} or {'type': 'text'}.",
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
        if name not in REQUEST_FIELDS:
            raise InvalidParameterError(_unknown(name))
    given = {
        name: _plain(value, name)
        for name, value in request.items()
        if value is not None and name not in _NOT_IN_BODY
    }
    try:
        msgspec.convert(given, _Request)
    except msgspec.ValidationError as exc:
        raise _explain(str(exc)) from None
    _check_tools(given.get("tools", ()))
    for name in _NOT_IN_BODY:
        value = request.get(name)
        if value is not None and not isinstance(value, Mapping):  # not shown: may hold a secret
            raise InvalidParameterError(f"{name} must be a mapping, not {type(value).__name__}.")
    check_headers("extra_headers", request.get("extra_headers"), InvalidParameterError)
    _check_query(request.get("extra_query") or {})
    return {**given, "stream": True, **_plain(request.get("extra_body") or {}, "extra_body")}


def encode_body(body: Mapping[str, Any]) -> bytes:
    """The JSON of a request.

    Raises:
        InvalidParameterError: Something has no JSON form; the message names the field.
    """
    fields: list[bytes] = []
    for name, value in body.items():
        try:  # not msgspec, which would send bytes as base64 and NaN as null without a word
            text = json.dumps(
                {name: value}, ensure_ascii=False, allow_nan=False, separators=(",", ":")
            )
            fields.append(text[1:-1].encode())
        except (TypeError, ValueError, RecursionError) as exc:
            raise InvalidParameterError(f"{name} cannot be sent as JSON: {exc}") from exc
    return b"{" + b",".join(fields) + b"}"


def _unknown(name: str) -> str:
    if name == "stream":
        return "There is no parameter stream: the answer is always streamed."
    if name in SETTINGS:
        return f"{name} is a setting of AsyncWriter, not a field of a request."
    matches = get_close_matches(name, sorted(REQUEST_FIELDS | SETTINGS), n=1)
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
    if isinstance(value, list | tuple):
        value = [_message_param(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    try:
        return msgspec.to_builtins(value, builtin_types=_BINARY, enc_hook=_encode_foreign)
    except RecursionError:
        raise InvalidParameterError(f"{name} is nested too deeply to be sent as JSON.") from None
    except (TypeError, ValueError) as exc:
        raise InvalidParameterError(f"{name} cannot be sent as JSON: {exc}") from exc


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


def _encode_foreign(value: Any) -> Any:
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
    raise TypeError(f"objects of type {type(value).__name__} are not supported")


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _check_tools(tools: Iterable[Mapping[str, Any]]) -> None:
    built_in = {str(tool["type"]) for tool in tools} - {"function"}
    if len(built_in) > 1:
        raise InvalidParameterError(
            f"tools holds several built-in tools ({', '.join(sorted(built_in))}); the API takes "
            "one kind per request."
        )


def _explain(reason: str) -> InvalidParameterError:
    what, _, where = reason.partition(" - at `$")
    place = where.rstrip("`").lstrip(".")
    if missing := _MISSING.fullmatch(what):
        said = f"{place} has no {missing[1]!r}" if place else f"{missing[1]} is missing"
        place = place or missing[1]
    else:
        types = _TYPES.sub(lambda found: _JSON_NAMES.get(found[0], found[0]), what)
        said = f"{place} is wrong: {types[0].lower()}{types[1:]}"
    named = re.sub(r"\[.*?\]", "", place)
    hint = _HINTS.get(named) or _HINTS.get(named.partition(".")[0], "")
    return InvalidParameterError(f"{said}. {hint}".rstrip())


_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_TYPES: Final = re.compile(r"(?<=[` ])(array|object|null)(?=[` ])")
_JSON_NAMES: Final = {"array": "list", "object": "dict", "null": "None"}
