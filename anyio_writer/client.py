"""``AsyncWriter``: the configuration once, then as many streams as you like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import anyio

from .config import DEFAULT_MAX_CONNECTIONS, Configuration, StreamSettings, resolve
from .conversation import DEFAULT_MAX_ROUNDS, Conversation
from .errors import ConfigurationError, WriterError
from .numbers import check_count
from .open import make_conversation, make_stream
from .request.params import ChatRequest, ResponseFormat
from .streaming.stream import ChatCompletionStream
from .streaming.tool_runs import DEFAULT_LIMIT, OnError
from .transport.client import Client, http_module, make_client

T = TypeVar("T")


class AsyncWriter:
    """A client for a chat completion API: one configuration, one pool of connections.

    ::

        async with AsyncWriter() as writer:
            async with writer.chat.stream(model="palmyra-x5", messages=[...]) as stream:
                ...

    Args:
        client: Your own ``httpx.AsyncClient`` or ``httpx2.AsyncClient``, never closed here.
            Without one, a client is made with the first stream and closed by ``aclose()``.
        max_connections: How many streams may be open at once; further ones wait in the order in
            which they came. With a client of your own, give the size of its pool: httpx 0.28
            loses slots for good when requests are cancelled that wait inside its pool.
        configuration: Where requests go and how answers are read, see ``Configuration``.

    Raises:
        ConfigurationError: A setting is missing, wrong or unknown.
    """

    def __init__(
        self,
        *,
        client: Client | None = None,
        max_connections: int = DEFAULT_MAX_CONNECTIONS,
        **configuration: Unpack[Configuration],
    ) -> None:
        self._endpoint, self._settings = resolve(configuration)
        check_count("max_connections", max_connections, ConfigurationError)
        if client is not None:
            http_module(client)
        self._client = client
        self._owns_client = client is None
        self._max_connections = max_connections
        self._gate: anyio.CapacityLimiter | None = None
        self._closed = False
        self.chat = Chat(self._open, self._settings)

    def __repr__(self) -> str:
        url = self._endpoint.shown_url
        return f"AsyncWriter(url={url!r}, max_connections={self._max_connections})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, unless the client is your own. Bounded in time."""
        self._closed = True
        if self._client is not None and self._owns_client:
            with anyio.move_on_after(self._settings.limits.cleanup_time, shield=True):
                await self._client.aclose()

    def _open(self, request: Mapping[str, Any]) -> ChatCompletionStream[Any]:
        if self._closed:
            raise WriterError("This AsyncWriter is closed; make another one.")
        if self._client is None:
            self._client = make_client(max_connections=self._max_connections)
        if self._gate is None:
            self._gate = anyio.CapacityLimiter(self._max_connections)
        return make_stream(
            request,
            self._endpoint,
            self._settings,
            client=self._client,
            gate=self._gate,
        )


class Chat:
    """The chat completions of an ``AsyncWriter``."""

    def __init__(
        self,
        make_stream: Callable[[Mapping[str, Any]], ChatCompletionStream[Any]],
        settings: StreamSettings,
    ) -> None:
        self._make_stream = make_stream
        self._settings = settings

    @overload
    def stream(
        self, *, response_format: type[T], **request: Unpack[ChatRequest]
    ) -> ChatCompletionStream[T]: ...

    @overload
    def stream(
        self, *, response_format: ResponseFormat | None = None, **request: Unpack[ChatRequest]
    ) -> ChatCompletionStream[None]: ...

    @overload
    def stream(
        self, *, response_format: object, **request: Unpack[ChatRequest]
    ) -> ChatCompletionStream[Any]: ...

    def stream(
        self, *, response_format: object = None, **request: Unpack[ChatRequest]
    ) -> ChatCompletionStream[Any]:
        """Ask for a chat completion and stream the answer; as ``open_chat_stream``.

        Args:
            response_format: The type that the answer is to have, or the API's own dictionary.
            request: The request's fields, see ``ChatRequest``.

        Raises:
            InvalidParameterError: A field of the request is missing, wrong or unknown.
            TypeError: The response format cannot be told to the API.
        """
        return self._make_stream({**request, "response_format": response_format})

    @overload
    def conversation(
        self,
        *,
        response_format: type[T],
        max_rounds: int = DEFAULT_MAX_ROUNDS,
        total_time: float | None = None,
        tool_limit: int | None = DEFAULT_LIMIT,
        on_tool_error: OnError = "reply",
        **request: Unpack[ChatRequest],
    ) -> Conversation[T]: ...

    @overload
    def conversation(
        self,
        *,
        response_format: ResponseFormat | None = None,
        max_rounds: int = DEFAULT_MAX_ROUNDS,
        total_time: float | None = None,
        tool_limit: int | None = DEFAULT_LIMIT,
        on_tool_error: OnError = "reply",
        **request: Unpack[ChatRequest],
    ) -> Conversation[None]: ...

    @overload
    def conversation(
        self,
        *,
        response_format: object,
        max_rounds: int = DEFAULT_MAX_ROUNDS,
        total_time: float | None = None,
        tool_limit: int | None = DEFAULT_LIMIT,
        on_tool_error: OnError = "reply",
        **request: Unpack[ChatRequest],
    ) -> Conversation[Any]: ...

    def conversation(
        self,
        *,
        response_format: object = None,
        max_rounds: int = DEFAULT_MAX_ROUNDS,
        total_time: float | None = None,
        tool_limit: int | None = DEFAULT_LIMIT,
        on_tool_error: OnError = "reply",
        **request: Unpack[ChatRequest],
    ) -> Conversation[Any]:
        """Ask, run the functions that the model calls, and ask again; as ``open_conversation``.

        Args:
            response_format: The type that the last answer is to have.
            max_rounds: How many requests are sent at the most.
            total_time: How many seconds all of it may take, tools included; None is no limit.
            tool_limit: How many calls run at once; None is no limit.
            on_tool_error: "reply" tells the model what went wrong, "raise" ends the conversation.
            request: The request's fields, see ``ChatRequest``.

        Raises:
            InvalidParameterError: A field of the request is missing, wrong or unknown.
            TypeError: The response format cannot be told to the API.
        """
        return make_conversation(
            {**request, "response_format": response_format},
            self._make_stream,
            self._settings,
            max_rounds=max_rounds,
            total_time=total_time,
            tool_limit=tool_limit,
            on_tool_error=on_tool_error,
        )
