"""What a request may hold, and the check of it before anything is sent.

The fields are those of the chat completion API: https://dev.writer.com/api-reference/completion-api
"""

from __future__ import annotations

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


REQUEST_FIELDS: Final = frozenset(ChatRequest.__annotations__)
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


_HINTS: Final = {
    "messages": "It is a list of messages such as {'role': 'user', 'content': 'Hello'}.",
    "tools": "Leave tools out to send none.",
    "stream_options": "It is {'include_usage': True}.",
    "extra_body": "Fields that the API does not list go into extra_body.",
}


def build_body(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request's JSON object, checked.

    Args:
        request: ``ChatRequest``, and ``response_format`` in the API's own form.

    Raises:
        InvalidParameterError: A field is missing, wrong or unknown; the message names it.
    """
    for name in request:
        if name not in REQUEST_FIELDS and name != "response_format":
            raise InvalidParameterError(
                f"The request has no field {name}. {_closest(name)}{_HINTS['extra_body']}"
            )
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
        if not isinstance(request.get(name) or {}, Mapping):
            raise InvalidParameterError(f"{name} must be a mapping, not {request[name]!r}.")
    return {**given, "stream": True, **(request.get("extra_body") or {})}


def _closest(name: str) -> str:
    matches = get_close_matches(name, REQUEST_FIELDS, n=1)
    return f"Did you mean {matches[0]}? " if matches else ""


def _plain(value: Any, name: str) -> Any:
    """Messages, structs, pydantic models and iterables as the JSON types they stand for."""
    if _is_lazy(value):
        value = list(value)
    if isinstance(value, list | tuple):
        value = [_message_param(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    try:
        return msgspec.to_builtins(value, enc_hook=_encode_foreign)
    except (TypeError, ValueError) as exc:
        raise InvalidParameterError(f"{name} cannot be sent as JSON: {exc}") from exc


def _is_lazy(value: object) -> bool:
    """Whether it is an iterable that has to be read out: a generator, a view."""
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | Sequence)


def _message_param(item: Any) -> Any:
    """A message of a completion in the form in which the API wants it back."""
    return item.to_param() if isinstance(item, ParsedChatCompletionMessage) else item


def _encode_foreign(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)  # pydantic, and with it the official SDK's messages
    if dump is not None:
        return dump(exclude_none=True)
    if _is_mapping(value):
        return dict(value)
    if _is_lazy(value):
        return list(value)
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
    if not place:  # msgspec names a missing field in its sentence
        place = what.rpartition("field `")[2].rstrip("`")
        what = "it is missing"
    hint = _HINTS.get(place.split(".")[0].split("[")[0], "")
    return InvalidParameterError(f"The request's {place} is wrong: {what}. {hint}".rstrip())
