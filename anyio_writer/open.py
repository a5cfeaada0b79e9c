"""The ways to a stream: a request, or bytes from anywhere."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, TypeVar, Unpack, cast, overload

from .config import (
    Configuration,
    Endpoint,
    ReadingConfiguration,
    StreamSettings,
    resolve,
    resolve_reading,
)
from .conversation import DEFAULT_MAX_ROUNDS, Conversation, ConversationOptions
from .errors import ConfigurationError, InvalidParameterError
from .request.encoding import is_lazy, is_sequence
from .request.params import ChatRequest, ResponseFormat
from .request.tools import functions_by_name, read_tools
from .request.validation import build_body
from .signatures import shows_arguments_of
from .streaming.stream import ChatCompletionStream
from .streaming.tool_runs import DEFAULT_LIMIT, check_tool_options
from .structured.response_format import ResponseType, response_type_of
from .structured.tools import FunctionTool
from .transport.client import Client, http_module
from .transport.slots import Slots, closed_error
from .transport.source import HTTPSource, IterableSource

T = TypeVar("T")


class OpenArguments(ChatRequest, Configuration, total=False):
    """A request and where it goes, as keyword arguments."""

    client: Client | None


class ConversationRequest(ChatRequest, ConversationOptions, total=False):
    """The first request of a conversation, and how far that goes, as keyword arguments."""


class ConversationArguments(OpenArguments, ConversationOptions, total=False):
    """The first request of a conversation, where it goes, and how far, as keyword arguments."""


@overload
def open_chat_stream(
    *, response_format: type[T], **arguments: Unpack[OpenArguments]
) -> ChatCompletionStream[T]: ...


@overload
def open_chat_stream(
    *, response_format: ResponseFormat | None = None, **arguments: Unpack[OpenArguments]
) -> ChatCompletionStream[None]: ...


@overload
def open_chat_stream(
    *,
    response_format: object,  # a union, and whatever else is a type but no class
    **arguments: Unpack[OpenArguments],
) -> ChatCompletionStream[Any]: ...


@shows_arguments_of(OpenArguments)
def open_chat_stream(
    *, response_format: object = None, **arguments: Unpack[OpenArguments]
) -> ChatCompletionStream[Any]:
    """Request a chat completion and stream the answer.

    ::

        async with open_chat_stream(model="palmyra-x5", messages=[...]) as stream:
            async for event in stream:
                if event.type == "content.delta":
                    print(event.content, end="", flush=True)

    The arguments are checked here. The request is sent when you enter the stream.

    Args:
        client: Your own ``httpx.AsyncClient`` or ``httpx2.AsyncClient``. It is never closed here.
            Without one, the stream makes its own and closes it. If you open many streams, use an
            ``AsyncWriter``, which keeps connections open.
        response_format: The type of the answer: a ``msgspec.Struct``, a dataclass, an attrs class,
            a ``TypedDict``, a ``NamedTuple``, a pydantic model, or any other type that msgspec can
            decode. ``message.parsed`` is then a value of that type. You can also pass the API's own
            dictionary. It is sent as it is, and nothing is parsed.
        arguments: The fields of the request, see ``ChatRequest``; where it goes and how the
            answer is read, see ``Configuration``.

    Raises:
        InvalidParameterError: A field of the request is missing, invalid or unknown.
        ConfigurationError: A setting is missing or invalid; for example, there is no API key.
        TypeError: The response format has no strict schema; the message names the field.
    """
    request, opener = _sort_out(arguments)
    return opener.open_stream({**request, "response_format": response_format})


@overload
def open_conversation(
    *, response_format: type[T], **arguments: Unpack[ConversationArguments]
) -> Conversation[T]: ...


@overload
def open_conversation(
    *, response_format: ResponseFormat | None = None, **arguments: Unpack[ConversationArguments]
) -> Conversation[None]: ...


@overload
def open_conversation(
    *, response_format: object, **arguments: Unpack[ConversationArguments]
) -> Conversation[Any]: ...


@shows_arguments_of(ConversationArguments)
def open_conversation(
    *, response_format: object = None, **arguments: Unpack[ConversationArguments]
) -> Conversation[Any]:
    """Send a request, run the functions that the model calls, and repeat until it answers.

    ::

        async with open_conversation(
            model="palmyra-x5", messages=[...], tools=[weather]
        ) as conversation:
            async for event in conversation:
                ...

    Args:
        response_format: The type of the last answer, as for ``open_chat_stream``.
        arguments: As for ``open_chat_stream``, and ``ConversationOptions``. Without a ``client``,
            each round makes its own.

    Raises:
        InvalidParameterError, ConfigurationError, TypeError: As ``open_chat_stream``.
    """
    request, opener = _sort_out(arguments)
    return opener.open_conversation({**request, "response_format": response_format})


def _sort_out(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], Opener]:
    """Separate the request from the configuration."""
    request = dict(arguments)  # what is neither is reported as an unknown field of it
    client = request.pop("client", None)
    if client is not None:
        http_module(client)  # an invalid client is an error now, not when it is used
    return request, Opener(*resolve(_take(request, Configuration)), client)


def _take(arguments: dict[str, Any], names: Any) -> dict[str, Any]:
    """Move the arguments that a TypedDict names into a dictionary of their own."""
    return {name: arguments.pop(name) for name in names.__annotations__.keys() & arguments.keys()}


@overload
def chat_stream_from(
    source: AsyncIterable[bytes],
    *,
    n: int | None = None,
    response_format: type[T],
    tools: Iterable[FunctionTool[..., Any]] = (),
    **reading: Unpack[ReadingConfiguration],
) -> ChatCompletionStream[T]: ...


@overload
def chat_stream_from(
    source: AsyncIterable[bytes],
    *,
    n: int | None = None,
    response_format: None = None,
    tools: Iterable[FunctionTool[..., Any]] = (),
    **reading: Unpack[ReadingConfiguration],
) -> ChatCompletionStream[None]: ...


@overload
def chat_stream_from(
    source: AsyncIterable[bytes],
    *,
    n: int | None = None,
    response_format: object,
    tools: Iterable[FunctionTool[..., Any]] = (),
    **reading: Unpack[ReadingConfiguration],
) -> ChatCompletionStream[Any]: ...


@shows_arguments_of(ReadingConfiguration)
def chat_stream_from(
    source: AsyncIterable[bytes],
    *,
    n: int | None = None,
    response_format: object = None,
    tools: Iterable[FunctionTool[..., Any]] = (),
    **reading: Unpack[ReadingConfiguration],
) -> ChatCompletionStream[Any]:
    """Make the same stream from bytes of any source: a recording, a proxy, another client.

    Args:
        source: The body of a response, cut anywhere. A generator is closed at the end. Other
            iterables are not closed.
        n: How many choices the request asked for, if known.
        response_format: The type of the answer, as for ``open_chat_stream``.
        tools: The functions that the model could call.
        reading: How the answer is read: ``timeouts``, ``limits``, ``end_grace``,
            ``require_finish``, ``observer``. See ``Configuration``.

    Raises:
        ConfigurationError: A setting is invalid or unknown.
        InvalidParameterError: One of the tools is not a tool.
        TypeError: The response format is not a type that can be read.
    """
    given: object = source
    if not isinstance(given, AsyncIterable):
        raise ConfigurationError(
            f"source must be an asynchronous iterable of bytes, not {type(source).__name__}."
        )
    if isinstance(response_format, str):
        raise TypeError(f"response_format must be a type, not {response_format!r}.")
    return ChatCompletionStream(
        IterableSource(source),
        resolve_reading(reading),
        n=n,
        response_format=reader_of(response_format),
        tools=functions_by_name(tools),
    )


class Opener:
    """Opens streams and conversations with one configuration.

    Args:
        endpoint: Where requests go.
        settings: How answers are read.
        client: What sends the requests; None is a client of its own for each.
    """

    def __init__(
        self, endpoint: Endpoint, settings: StreamSettings, client: Client | Slots | None
    ) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self.client = client
        self.is_closed: bool = False

    def open_stream(self, request: Mapping[str, Any]) -> ChatCompletionStream[Any]:
        """A stream for a request: checked, and not yet sent."""
        if self.is_closed or (isinstance(self.client, Slots) and self.client.is_closed):
            raise closed_error()
        tools = read_tools(request.get("tools"))
        reader = reader_of(request.get("response_format"))
        format_param = request.get("response_format") if reader is None else reader.param
        body = build_body({**request, "tools": tools, "response_format": format_param})
        source = HTTPSource(
            self.endpoint,
            self.settings,
            body,
            client=self.client,
            extra_headers=request.get("extra_headers") or {},
            extra_query=request.get("extra_query"),
        )
        return ChatCompletionStream(
            source,
            self.settings,
            n=body.get("n"),
            response_format=reader,
            tools=tools.functions,
        )

    def open_conversation(self, request: Mapping[str, Any]) -> Conversation[Any]:
        """A conversation that begins with a request, whose options are those of both."""
        request = dict(request)
        options: ConversationOptions = cast("Any", _take(request, ConversationOptions))
        limit = options.get("tool_limit", DEFAULT_LIMIT)
        on_error = options.get("on_tool_error", "reply")
        check_tool_options(limit, on_error, names=("tool_limit", "on_tool_error"))
        # Each round reads these again.
        tools = read_tools(request.get("tools"))
        for position, tool in enumerate(tools.params):
            if tool["type"] == "function" and tool["function"]["name"] not in tools.functions:
                raise InvalidParameterError(
                    f"tools[{position}] is a dictionary, which cannot be run; a conversation runs "
                    "what the model calls: make the function a tool with function_tool(...)."
                )
        request["tools"] = tools
        messages = request.get("messages")
        if not (is_lazy(messages) or is_sequence(messages)):
            self.open_stream(request)  # raises what is invalid
            messages = ()
        return Conversation(
            lambda messages: self.open_stream({**request, "messages": messages}),
            messages,
            max_rounds=options.get("max_rounds", DEFAULT_MAX_ROUNDS),
            total_time=options.get("total_time"),
            limit=limit,
            on_error=on_error,
            n=request.get("n"),
            limits=self.settings.limits,
            observers=self.settings.observer,
        )


def reader_of(response_format: object) -> ResponseType[Any] | None:
    """What the answer is read with; None where nothing is to be parsed."""
    if response_format is None or isinstance(response_format, Mapping | str):
        return None  # the API's own form, or what is refused for not having it
    return response_type_of(response_format)
