"""What every relay does, over whatever log: publish, open, start or join."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final, TypeVar, Unpack, overload

import anyio

from ..config import ReadingConfiguration, StreamSettings, Timeouts, resolve_reading
from ..conversation import Conversation
from ..errors import (
    ConfigurationError,
    InvalidParameterError,
    KeyTakenError,
    LeaseLostError,
    ProducerLostError,
    RelayedAnswerGoneError,
    RelayUnavailableError,
    UnknownKeyError,
    WriterError,
)
from ..numbers import check_count, check_positive
from ..open import reader_of
from ..request.tools import functions_by_name
from ..signatures import shows_arguments_of
from ..streaming.stream import ChatCompletionStream
from ..structured.tools import FunctionTool
from .block import Block
from .log import Election, Lease, check_key
from .producing import CLEANUP_TIME, Production, Published
from .reading import LogSource
from .records import Kind
from .replay import RelayedConversation, RelayedStream

T = TypeVar("T")


class ReaderOptions(ReadingConfiguration, total=False):
    """How a reader follows an answer, as keyword arguments.

    Attributes:
        tools: The functions that the model could call.
        skip: How many events to leave out at the start; 0 by default. Snapshots include them.
        generation: The answer to which ``skip`` refers, if the key has had several; any by default.
    """

    tools: Iterable[FunctionTool[..., Any]]
    skip: int
    generation: int | None


_NO_LIMITS: Final = Timeouts(first_content=None, idle=None)
"""A reader waits for as long as the producer does, which has limits of its own."""

_PAUSE: Final = 0.05
"""How many seconds lie between two elections for one key."""

_logger: Final = logging.getLogger("anyio_writer")


class Relay(Block):
    """Publishes answers for any number of readers, through a log. Enter it with ``async with``.

    A key identifies one answer. It has one producer at a time, which holds a lease on the key. An
    answer that has ended, for whatever reason, stays readable under its key until it expires.

    Leaving the block stops the answers that ``start_or_join`` has started here.

    Args:
        ttl: How many seconds an answer is kept after the last write to it.
        lease: After how many seconds without a sign of life a producer counts as lost. The relay's
            server may also be away for that long.
        flush: The minimum number of seconds between two writes of one answer. What arrives
            in between is written together. What arrives after a longer pause is written at once.
        flush_bytes: The maximum size of an entry, in bytes. Only a single chunk may exceed it.

    Raises:
        ConfigurationError: A setting is invalid.
    """

    def __init__(
        self,
        *,
        ttl: float = 3600.0,
        lease: float = 10.0,
        flush: float = 0.02,
        flush_bytes: int = 64 * 1024,
    ) -> None:
        super().__init__()
        check_positive("ttl", ttl, ConfigurationError)
        check_positive("lease", lease, ConfigurationError)
        check_positive("flush", flush, ConfigurationError)
        check_count("flush_bytes", flush_bytes, ConfigurationError)
        if ttl < lease:
            raise ConfigurationError(f"ttl ({ttl} s) must not be shorter than lease ({lease} s).")
        if flush > lease:
            raise ConfigurationError(
                f"flush ({flush} s) must not be longer than lease ({lease} s): an end is written "
                "no sooner than that."
            )
        self._ttl = ttl
        self._lease = lease
        self._flush = flush
        self._flush_bytes = flush_bytes

    # Producing.

    async def publish(
        self, key: str, stream: ChatCompletionStream[Any] | Conversation[Any]
    ) -> None:
        """Publish an answer until it ends, for whatever reason.

        ::

            async with writer.chat.stream(...) as stream:
                await relay.publish("answer:42", stream)

        This is one more subscriber of the stream, and has to be there before anything is read. So
        await it in the stream's block, and let other subscribers read in tasks: a task that
        publishes may start too late. It makes the stream wait only while the relay's server is
        away. It records how the stream ends, then returns or raises the stream's error. After
        ``stop()`` it closes the stream and returns.

        If it is cancelled, it publishes what was read, within 2 s, and records that the producer
        stopped.

        Args:
            key: The key of the answer.
            stream: An open stream or conversation.

        Raises:
            KeyTakenError: The key has a producer, or an answer that has ended.
            LeaseLostError: The lease ran out.
            RelayUnavailableError: The relay's server was away for longer than a lease lasts.
            WriterError: The stream has begun, so its first events cannot be published. Or the
                stream failed; then this is its error.
        """
        self._check_open()
        check_key(key)
        _check_stream("publish() takes", stream)
        if stream.has_begun:
            raise WriterError(
                "The stream has begun, so its first events cannot be published: await publish() "
                "before anything reads it, and not in a task, which may start later."
            )
        production = self._production(key)
        production.subscribe(stream)
        try:
            lease = await self._take(key)
        except BaseException:
            await production.unsubscribe()
            raise

        async def produce() -> None:
            await production.begin(stream)
            await production.follow()

        await production.run(lease, self._task_group(), produce)

    def _production(self, key: str) -> Production:
        return Production(
            self,
            key,
            lease_time=self._lease,
            flush=self._flush,
            flush_bytes=self._flush_bytes,
        )

    async def _elect(self, key: str) -> Election:
        """Try to become the producer of a key. What is cancelled half-way is taken back."""
        token = secrets.token_hex(16)
        try:
            election = await self.elect(key, token)
            self._check_open()  # it may have been left meanwhile
        except BaseException:
            with anyio.move_on_after(CLEANUP_TIME, shield=True):
                await self._withdraw(key, token)
            raise
        return election

    async def _take(self, key: str) -> Lease:
        """Become the producer of a key.

        Raises:
            KeyTakenError: Somebody else is, or was to the end.
        """
        lease, _ = await self._elect(key)
        if lease is None:
            raise KeyTakenError(
                f"The key {key!r} has a producer already, or an answer that has ended. Use "
                "another key, or expire() this one first."
            )
        return lease

    async def _withdraw(self, key: str, token: str) -> None:
        """Give up a lease that may have been won unnoticed."""
        with suppress(RelayUnavailableError):  # it runs out by itself
            await self.release(Lease(key=key, token=token, generation=0))

    # Reading.

    @overload
    def open_stream(
        self,
        key: str,
        *,
        response_format: type[T],
        wait: float = 0.0,
        **options: Unpack[ReaderOptions],
    ) -> RelayedStream[T]: ...

    @overload
    def open_stream(
        self,
        key: str,
        *,
        response_format: None = None,
        wait: float = 0.0,
        **options: Unpack[ReaderOptions],
    ) -> RelayedStream[None]: ...

    @overload
    def open_stream(
        self,
        key: str,
        *,
        response_format: object,
        wait: float = 0.0,
        **options: Unpack[ReaderOptions],
    ) -> RelayedStream[Any]: ...

    @shows_arguments_of(ReaderOptions)
    def open_stream(
        self,
        key: str,
        *,
        response_format: object = None,
        wait: float = 0.0,
        **options: Unpack[ReaderOptions],
    ) -> RelayedStream[Any]:
        """Read an answer from its start, while it runs or afterwards, as a stream like any other.

        ::

            async with relay.open_stream("answer:42") as stream:
                async for event in stream:
                    ...

        Entering it raises ``UnknownKeyError`` if there is no answer. Iteration raises the error of
        the producer's stream: the same class, message, status, body and request ID, with the
        ``completion`` that this reader has received.

        The events have the same numbers for all readers, from 1. All events count, even those that
        a subscription to some classes leaves out. So a reader that has seen ``n`` events can be
        continued anywhere, with ``skip=n`` and the ``generation`` of its stream.

        Args:
            key: The key of the answer.
            response_format: The type of the answer, as for ``open_chat_stream``.
            tools: The functions that the model could call.
            skip: How many events to leave out at the start. Snapshots include them.
            generation: The answer to which ``skip`` refers. If another producer has taken the key
                over since then, entering raises ``ProducerLostError``.
            wait: How many seconds to wait for an answer that has not started yet.
            options: These, and ``timeouts``, ``limits`` and ``observer``, see ``Configuration``.
                Without ``timeouts``, a reader waits for as long as the producer does.
                ``end_grace`` and ``require_finish`` have no effect, because the end of the answer
                is recorded.

        Raises:
            ConfigurationError: A setting is invalid or unknown.
            InvalidParameterError: The key, ``skip``, ``wait`` or one of the tools is invalid.
            TypeError: The response format is not a type that can be read.

        While reading, besides the error of the producer's stream:

        Raises:
            ProducerLostError: The producer died, froze or was cut off, or was replaced.
            ProducerStoppedError: The answer was stopped.
            RelayedAnswerGoneError: The stored answer expired, or was deleted or evicted.
            RelayUnavailableError: The relay's server was away for longer than a lease lasts.
            WrongKindError: The key holds a conversation.
        """
        skip, generation, functions, settings = _checked(key, options)
        if wait:
            check_positive("wait", wait, InvalidParameterError)
        return RelayedStream(
            self._source(key, generation, "stream", wait),
            settings,
            response_format=reader_of(response_format),
            tools=functions,
            skip=skip,
        )

    @overload
    def open_conversation(
        self,
        key: str,
        *,
        response_format: type[T],
        wait: float = 0.0,
        **options: Unpack[ReaderOptions],
    ) -> RelayedConversation[T]: ...

    @overload
    def open_conversation(
        self,
        key: str,
        *,
        response_format: None = None,
        wait: float = 0.0,
        **options: Unpack[ReaderOptions],
    ) -> RelayedConversation[None]: ...

    @overload
    def open_conversation(
        self,
        key: str,
        *,
        response_format: object,
        wait: float = 0.0,
        **options: Unpack[ReaderOptions],
    ) -> RelayedConversation[Any]: ...

    @shows_arguments_of(ReaderOptions)
    def open_conversation(
        self,
        key: str,
        *,
        response_format: object = None,
        wait: float = 0.0,
        **options: Unpack[ReaderOptions],
    ) -> RelayedConversation[Any]:
        """Read a conversation: all of its rounds, with the results of its tools.

        This sends no request and runs no tool, so ``observer`` is never called. Of ``timeouts``,
        only ``total`` has an effect. The other arguments and the errors are those of
        ``open_stream``.
        """
        skip, generation, functions, settings = _checked(key, options)
        if wait:
            check_positive("wait", wait, InvalidParameterError)
        return RelayedConversation(
            self._source(key, generation, "conversation", wait),
            settings,
            response_format=reader_of(response_format),
            tools=functions,
            skip=skip,
        )

    def _source(
        self, key: str, generation: int | None, kind: Kind | None, wait: float = 0.0
    ) -> LogSource:
        return LogSource(
            self, key, generation=generation, wait=wait, kind=kind, check=self._check_open
        )

    # Both.

    @overload
    def start_or_join(
        self,
        key: str,
        open_stream: Callable[[], ChatCompletionStream[Any]],
        *,
        response_format: type[T],
        **options: Unpack[ReaderOptions],
    ) -> AbstractAsyncContextManager[RelayedStream[T]]: ...

    @overload
    def start_or_join(
        self,
        key: str,
        open_stream: Callable[[], ChatCompletionStream[Any]],
        *,
        response_format: None = None,
        **options: Unpack[ReaderOptions],
    ) -> AbstractAsyncContextManager[RelayedStream[None]]: ...

    @overload
    def start_or_join(
        self,
        key: str,
        open_stream: Callable[[], ChatCompletionStream[Any]],
        *,
        response_format: object,
        **options: Unpack[ReaderOptions],
    ) -> AbstractAsyncContextManager[RelayedStream[Any]]: ...

    @overload
    def start_or_join(
        self,
        key: str,
        open_stream: Callable[[], Conversation[Any]],
        *,
        response_format: type[T],
        **options: Unpack[ReaderOptions],
    ) -> AbstractAsyncContextManager[RelayedConversation[T]]: ...

    @overload
    def start_or_join(
        self,
        key: str,
        open_stream: Callable[[], Conversation[Any]],
        *,
        response_format: None = None,
        **options: Unpack[ReaderOptions],
    ) -> AbstractAsyncContextManager[RelayedConversation[None]]: ...

    @overload
    def start_or_join(
        self,
        key: str,
        open_stream: Callable[[], Conversation[Any]],
        *,
        response_format: object,
        **options: Unpack[ReaderOptions],
    ) -> AbstractAsyncContextManager[RelayedConversation[Any]]: ...

    @shows_arguments_of(ReaderOptions)
    @asynccontextmanager
    async def start_or_join(  # pyright: ignore[reportInconsistentOverload] - what the log holds decides
        self,
        key: str,
        open_stream: Callable[[], Any],
        *,
        response_format: object = None,
        **options: Unpack[ReaderOptions],
    ) -> AsyncGenerator[Any]:
        """Start an answer, or read it if somebody on any machine has started it already.

        ::

            def ask() -> ChatCompletionStream[None]:
                return writer.chat.stream(...)

            async with relay.start_or_join("answer:42", ask) as stream:
                async for event in stream:
                    ...

        Of all callers with the same key, exactly one calls ``open_stream``, so the model gets one
        request. The task that publishes the answer belongs to the relay: it goes on after this
        block, until the answer or the relay's block ends. An answer that has ended, successfully
        or not, is read like one that is running; call ``expire(key)`` if you want another one.
        An answer whose producer was lost is started again.

        Args:
            key: The key of the answer.
            open_stream: Returns a stream or a conversation that has not been entered.
            response_format: As for ``open_stream()``.
            tools: As for ``open_stream()``.
            skip: As for ``open_stream()``.
            generation: The answer to which ``skip`` refers. If the key has another answer by now,
                it is delivered from its first event; compare ``stream.generation``.
            options: These, and others as for ``open_stream()``.

        Yields:
            A stream, or a conversation if ``open_stream`` returns one.

        Raises:
            ConfigurationError: A setting is invalid or unknown. Nothing was started, and the same
                goes for the next two errors.
            InvalidParameterError: The key, ``skip``, ``generation`` or one of the tools is
                invalid.
            TypeError: The response format is not a type that can be read.
            RelayUnavailableError: The relay's server cannot be reached.
            Exception: What ``open_stream`` raises, if it was called. What entering the stream
                raises is recorded, and raised to all readers while they iterate.
        """
        self._check_open()
        # What is invalid is refused before anything is started.
        skip, generation, functions, settings = _checked(key, options)
        value_reader = reader_of(response_format)
        while True:
            lease, elected = await self._elect(key)
            if lease is not None:
                await self._start(lease, open_stream)
            source = self._source(key, elected or None, None)
            try:
                kind = await source.read_kind()
                break
            except (ProducerLostError, UnknownKeyError):
                if lease is not None:
                    raise
                # Lost, or forgotten, since the election: there may be another one.
            except RelayedAnswerGoneError:
                # The same, unless the key still has this answer, and only its log is gone.
                if lease is not None or (await self.status(key)).generation == elected:
                    raise
            await anyio.sleep(_PAUSE)
        if generation not in (None, source.generation):
            skip = 0
        cls: type[Any] = RelayedStream if kind == "stream" else RelayedConversation
        async with cls(
            source, settings, response_format=value_reader, tools=functions, skip=skip
        ) as stream:
            yield stream

    async def _start(self, lease: Lease, open_stream: Callable[[], Published]) -> None:
        """Produce in a task of the relay's own."""
        try:
            stream = open_stream()
            _check_stream("open_stream must return", stream)
        except BaseException:
            with anyio.move_on_after(CLEANUP_TIME, shield=True), suppress(RelayUnavailableError):
                await self.release(lease)
            raise
        self._task_group().start_soon(self._produce, lease, stream, name=f"producer of {lease.key}")

    async def _produce(self, lease: Lease, stream: Published) -> None:
        """Produce to the end. Raises nothing: the log says how it ended."""
        production = self._production(lease.key)

        async def produce() -> None:
            await production.begin(stream)
            async with stream:
                production.subscribe(stream)
                await production.follow()

        try:
            await production.run(lease, self._task_group(), produce)
        except (LeaseLostError, RelayUnavailableError) as exc:
            _logger.warning("The producer of %r has stopped: %s", lease.key, exc)
        except WriterError:
            pass  # its readers get it
        except Exception:
            # Readers only learn its class.
            _logger.exception("The answer %r failed.", lease.key)


def _check_stream(what: str, stream: object) -> None:
    if not isinstance(stream, ChatCompletionStream | Conversation):
        raise InvalidParameterError(
            f"{what} a stream or a conversation, not {type(stream).__name__}."
        )
    if isinstance(stream, RelayedStream) and stream.skips:
        raise InvalidParameterError(
            "Only a whole answer can be published again: open the stream without skip=."
        )


def _checked(
    key: object, options: ReaderOptions
) -> tuple[int, int | None, Mapping[str, FunctionTool[..., Any]], StreamSettings]:
    """A reader's ``skip``, ``generation``, functions and settings."""
    check_key(key)
    skip = options.pop("skip", 0)
    check_count("skip", skip, InvalidParameterError, least=0)
    generation = options.pop("generation", None)
    check_count("generation", generation, InvalidParameterError, optional=True)
    functions = functions_by_name(options.pop("tools", ()))
    return skip, generation, functions, resolve_reading({"timeouts": _NO_LIMITS, **options})
