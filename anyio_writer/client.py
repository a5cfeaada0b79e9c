"""``AsyncWriter``: the configuration once, then as many streams as you like."""

from __future__ import annotations

from typing import Any, Self, TypeVar, Unpack, overload

import anyio

from .config import DEFAULT_MAX_CONNECTIONS, Configuration, override, resolve
from .conversation import Conversation
from .errors import ConfigurationError
from .numbers import check_count
from .open import ConversationRequest, Opener
from .request.params import ChatRequest, ResponseFormat
from .signatures import shows_arguments_of
from .streaming.stream import ChatCompletionStream
from .transport.client import Client, http_module
from .transport.slots import Slots
from .uncopied import Uncopied

T = TypeVar("T")


class AsyncWriter(Uncopied):
    """A client for a chat completion API: one configuration, one pool of connections.

    ::

        async with AsyncWriter() as writer:
            async with writer.chat.stream(model="palmyra-x5", messages=[...]) as stream:
                ...

    Args:
        client: Your own ``httpx.AsyncClient`` or ``httpx2.AsyncClient``. It is never closed here,
            and serves one event loop at a time. Without one, the library makes a client for each
            event loop, and ``aclose()`` closes that of the current loop.
        max_connections: How many streams may be open at once in an event loop. Further streams wait
            in order of arrival. With a client of your own, give the size of its pool: httpx
            0.28 loses a slot of its pool for good when a request is cancelled while it waits there.
        configuration: Where requests go and how answers are read, see ``Configuration``.

    Attributes:
        chat: Opens streams and conversations, see ``Chat``.

    Raises:
        ConfigurationError: A setting is missing, invalid or unknown.
    """

    _copy_instead = "It holds connections and an API key: make one in each process."

    @shows_arguments_of(Configuration)
    def __init__(
        self,
        *,
        client: Client | None = None,
        max_connections: int = DEFAULT_MAX_CONNECTIONS,
        **configuration: Unpack[Configuration],
    ) -> None:
        endpoint, settings = resolve(configuration)
        check_count("max_connections", max_connections, ConfigurationError)
        if client is not None:
            http_module(client)
        slots = Slots(client, max_connections)
        self._set_up(slots, Opener(endpoint, settings, slots))

    def _set_up(self, slots: Slots, opener: Opener) -> None:
        self._slots = slots
        self._opener = opener
        self.chat: Chat = Chat(opener)

    def __repr__(self) -> str:
        url = self._opener.endpoint.url
        return f"AsyncWriter(url={url!r}, max_connections={self._slots.max_connections})"

    @shows_arguments_of(Configuration)
    def with_options(self, **options: Unpack[Configuration]) -> AsyncWriter:
        """Return an ``AsyncWriter`` with other settings over the same connections.

        ::

            async with writer.with_options(max_retries=0).chat.stream(...) as stream:
                ...

        It is cheap enough to make for a single call. Its streams count towards the same
        ``max_connections``. Closing it only stops it from opening further streams. Closing the
        ``AsyncWriter`` that it was made from closes it, too.

        Args:
            options: As for ``AsyncWriter``. Settings that you do not give stay as they are.
                ``headers`` are added to the earlier ones; None as a value removes one.

        Raises:
            ConfigurationError: A setting is invalid or unknown, or belongs to the connections
                (``client`` and ``max_connections``).
        """
        if shared := sorted(options.keys() & {"client", "max_connections"}):
            raise ConfigurationError(
                f"{shared[0]} belongs to the connections, which with_options() shares; make "
                "another AsyncWriter."
            )
        endpoint, settings = override(self._opener.endpoint, self._opener.settings, options)
        return _View(self._slots, Opener(endpoint, settings, self._slots))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, unless the client is your own.

        This takes ``Limits.cleanup_time`` at most. Streams that are still open fail. Connections of
        other event loops are closed when those loops end.
        """
        with anyio.move_on_after(self._opener.settings.limits.cleanup_time, shield=True):
            await self._slots.aclose()


class _View(AsyncWriter):
    """An ``AsyncWriter`` over the connections of another one."""

    def __init__(self, slots: Slots, opener: Opener) -> None:
        self._set_up(slots, opener)

    async def aclose(self) -> None:
        """Open no more streams. The AsyncWriter that made the connections closes them."""
        self._opener.is_closed = True


class Chat(Uncopied):
    """The chat completions of an ``AsyncWriter``."""

    _copy_instead = "It is part of an AsyncWriter: make one in each process."

    def __init__(self, opener: Opener) -> None:
        self._opener = opener

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

    @shows_arguments_of(ChatRequest)
    def stream(
        self, *, response_format: object = None, **request: Unpack[ChatRequest]
    ) -> ChatCompletionStream[Any]:
        """Request a chat completion and stream the answer, as ``open_chat_stream`` does.

        Args:
            response_format: The type of the answer, or the API's own dictionary.
            request: The fields of the request, see ``ChatRequest``.

        Raises:
            InvalidParameterError: A field of the request is missing, invalid or unknown.
            TypeError: The response format has no strict schema.
        """
        return self._opener.open_stream({**request, "response_format": response_format})

    @overload
    def conversation(
        self, *, response_format: type[T], **request: Unpack[ConversationRequest]
    ) -> Conversation[T]: ...

    @overload
    def conversation(
        self,
        *,
        response_format: ResponseFormat | None = None,
        **request: Unpack[ConversationRequest],
    ) -> Conversation[None]: ...

    @overload
    def conversation(
        self, *, response_format: object, **request: Unpack[ConversationRequest]
    ) -> Conversation[Any]: ...

    @shows_arguments_of(ConversationRequest)
    def conversation(
        self, *, response_format: object = None, **request: Unpack[ConversationRequest]
    ) -> Conversation[Any]:
        """Request answers and run tools in turn, as ``open_conversation`` does.

        Args:
            response_format: The type of the last answer, or the API's own dictionary.
            request: The fields of the request, see ``ChatRequest``, and ``ConversationOptions``.

        Raises:
            InvalidParameterError: A field of the request is missing, invalid or unknown.
            TypeError: The response format has no strict schema.
        """
        return self._opener.open_conversation({**request, "response_format": response_format})
