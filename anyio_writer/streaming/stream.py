"""One chat stream: a task group whose one task reads the response and feeds the consumers."""

from __future__ import annotations

import copy
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Self,
    TypeVar,
    TypeVarTuple,
    get_args,
    overload,
)

import anyio
from anyio.lowlevel import checkpoint

from ..config import StreamSettings
from ..errors import (
    APIError,
    InvalidParameterError,
    StreamClosedError,
    WriterError,
    WrongTaskError,
)
from ..protocol.chunks import Usage
from ..protocol.completion import ParsedChatCompletion
from ..protocol.events import EVENT_TYPES, ChatCompletionStreamEvent, ContentDeltaEvent
from ..protocol.state import ChatCompletionStreamState
from ..protocol.values import ValueReader
from .connection import ByteSource, request_id_of
from .deadlines import Deadlines
from .fanout import DEFAULT_MAX_BUFFER, Fanout, Inbox, OnFull, Subscription
from .pump import Pump

if TYPE_CHECKING:
    import httpx

    from ..structured.tools import FunctionTool

T = TypeVar("T")
E = TypeVar("E")
Args = TypeVarTuple("Args")

_SLICE: Final = 128
"""How many server-sent events are handled before all other tasks get a turn."""


class ChatCompletionStream(Generic[T]):
    """A streamed completion. Enter it with ``async with``; nothing is sent before.

    Inside the block ``async for event in stream`` gives the events. When the block ends, for
    whatever reason, the response is closed and the task that read it is gone. What the stream
    has learned stays readable.

    Reading starts with the first demand: a step of an iteration, ``until_done()`` or
    ``get_final_completion()``. Until then TCP holds the server back.

    Iteration, ``until_done()`` and ``get_final_completion()`` raise what the stream ended with,
    after the last good event:

    Raises:
        StreamTruncatedError: The response ended before the answer did.
        APIConnectionError: The connection broke; ``APITimeoutError``: a time limit ran out.
        APIStreamError: The server reported an error inside the stream.
        APIResponseValidationError: The server sent what cannot be understood.
        StreamClosedError: The stream was left or closed before the answer was complete.
        ContentParseError: The answer does not fit the response format.
        LengthFinishReasonError: ``max_tokens`` cut off what had to be parsed;
            ``ContentFilterFinishReasonError``: the server's content filter did.
    """

    def __init__(
        self,
        source: ByteSource,
        settings: StreamSettings,
        *,
        n: int | None = None,
        response_format: ValueReader[T] | None = None,
        tools: Mapping[str, FunctionTool[..., Any]] | None = None,
    ) -> None:
        self._source = source
        self._settings = settings
        self._state: ChatCompletionStreamState[T] = ChatCompletionStreamState(
            n=n,
            require_finish=settings.require_finish,
            max_depth=settings.limits.max_depth,
            response_format=response_format,
            tools=tools,
        )
        self._tools: Mapping[str, FunctionTool[..., Any]] = tools or {}
        self._fanout = Fanout(settings.limits.slow_consumer_time)
        self._own: Subscription[ChatCompletionStreamEvent[T]] | None = None
        self._scope: _Scope | None = None
        self._pump = Pump(source, self._state, self._fanout, settings)
        # How it ended. Recorded before anybody is woken; the first record stays.
        self._is_ended = False
        self._error: Exception | None = None
        self._error_was_told = False

    # Lifetime.

    async def __aenter__(self) -> Self:
        """Send the request and wait for the response's headers.

        Raises:
            APIStatusError: The status is not 2xx; the error's body is on the exception.
            APIConnectionError: There was no response, or not in time.
        """
        if self._scope is not None:
            raise WriterError("A stream can be entered only once; open another one.")
        scope = self._scope = _Scope(Deadlines(self._settings.timeouts))
        await scope.tasks.__aenter__()
        scope.tasks.start_soon(self._run, scope, name="anyio_writer stream")
        try:
            await scope.opened.wait()
            if isinstance(self._error, StreamClosedError):
                # Perhaps only because both tasks are being cancelled; then that comes out.
                await checkpoint()
        except BaseException as exc:
            scope.deadlines.scope.cancel()
            await scope.leave(exc)
            raise
        if self._error is not None:
            await scope.leave(self._error)
            self._error_was_told = True
            raise self._error
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        scope = self._entered()
        if anyio.get_current_task().id != scope.host_id:
            self._stop(scope)
            with anyio.move_on_after(self._settings.limits.cleanup_time, shield=True):
                await scope.finished.wait()
            raise WrongTaskError(
                "A stream must be left by the task that entered it: its 'async with' was entered "
                "in another one. The stream was closed. To end it from elsewhere, await close()."
            )
        interrupted: BaseException | None = None
        if exc is None:
            try:
                await scope.wait_for_children()
            except BaseException as other:  # noqa: BLE001 - raised again below
                exc = interrupted = other
        self._stop(scope)
        swallowed = await scope.leave(exc)
        if interrupted is not None and not swallowed:
            raise interrupted
        if exc is None and self._error is not None and not self._error_was_told:
            left_by_choice = self._own is not None or self._fanout.was_left
            if not left_by_choice and not isinstance(self._error, StreamClosedError):
                self.raise_end()
        return swallowed

    def start_soon(
        self,
        fn: Callable[[*Args], Awaitable[Any]],
        *args: *Args,
        name: object = None,
    ) -> None:
        """Start a task inside the stream's own task group.

        A block that ends normally waits for these tasks; one that is left by an exception or a
        cancellation cancels them. A task that fails cancels the block and the others; as in
        every anyio task group, the errors then come out in an exception group, together with
        the block's own if it failed too.

        Raises:
            WriterError: The stream is not open.
        """
        scope = self._entered()
        if scope.is_left:
            raise WriterError("The stream's block has ended: no more tasks can be started in it.")
        scope.start_child(fn, args, name)

    async def close(self) -> None:
        """End the stream now, from any task, and return when everything is cleaned up.

        The block goes on; a consumer that waits gets ``StreamClosedError`` unless the answer was
        already complete. Closing twice, or after the end, does nothing.
        """
        scope = self._entered()
        self._stop(scope)
        await scope.finished.wait()

    def _entered(self) -> _Scope:
        if self._scope is None:
            raise WriterError("The stream is not open: enter it with 'async with' first.")
        return self._scope

    def _stop(self, scope: _Scope) -> None:
        if self._state.complete and self._pump.is_waiting:
            # Only the end of the response is missing: a moment's patience saves the connection.
            scope.deadlines.drain(self._settings.limits.drain_time)
        elif not self._is_ended:
            scope.deadlines.scope.cancel()

    # Consuming.

    def __aiter__(self) -> AsyncIterator[ChatCompletionStreamEvent[T]]:
        return self._own_consumer()

    async def __anext__(self) -> ChatCompletionStreamEvent[T]:
        return await anext(self._own_consumer())

    def batches(self) -> AsyncIterator[list[ChatCompletionStreamEvent[T]]]:
        """The same events in lists, one list per read of the response, never empty."""
        return self._own_consumer().batches()

    def text_deltas(self, choice_index: int = 0) -> AsyncIterator[str]:
        """Just the text of one choice, piece by piece."""
        return _TextDeltas(self._own_consumer(), choice_index)

    async def until_done(self) -> Self:
        """Take what is left of the stream's own events, drop it, and return at the end.

        May be called again and again, from several tasks, and after the block.
        """
        if self._own is not None:
            await self._own.discard_all()
        else:
            self.demand()
            await self._entered().ended.wait()
            await checkpoint()
            self.raise_end()
        return self

    async def get_final_completion(self) -> ParsedChatCompletion[T]:
        """The whole completion: waits for the end, and drops the events until then."""
        await self.until_done()
        return self.current_completion_snapshot

    async def get_final_text(self, choice_index: int = 0) -> str:
        """The whole text of one choice; "" if it has none."""
        completion = await self.get_final_completion()
        for choice in completion.choices:
            if choice.index == choice_index:
                return choice.message.content or ""
        return ""

    def _own_consumer(self) -> Subscription[ChatCompletionStreamEvent[T]]:
        if self._own is None:
            self._own = self.subscribe()
        return self._own

    @overload
    def subscribe(
        self, /, *, max_buffer: int = DEFAULT_MAX_BUFFER, on_full: OnFull = "wait"
    ) -> Subscription[ChatCompletionStreamEvent[T]]: ...

    @overload
    def subscribe(
        self,
        /,
        *event_types: type[E],
        max_buffer: int = DEFAULT_MAX_BUFFER,
        on_full: OnFull = "wait",
    ) -> Subscription[E]: ...

    def subscribe(
        self,
        /,
        *event_types: type[Any],
        max_buffer: int = DEFAULT_MAX_BUFFER,
        on_full: OnFull = "wait",
    ) -> Subscription[Any]:
        """Another consumer: it gets every event from now on, in order.

        Made before reading started, it gets all of them; made later, its ``snapshot`` says what
        it missed. Made after the end, its iteration ends at once, or raises what the stream ended
        with.

        Args:
            event_types: Only events of these classes; all if there are none.
            max_buffer: How many events may wait for it.
            on_full: What happens when that many wait: "wait" holds the stream back until there is
                room; "drop_oldest" drops, and counts in ``dropped``; "fail" ends this consumer
                with ``ConsumerLagError``. The latter two never slow anybody.

        Raises:
            InvalidParameterError: One of these is wrong.
            WriterError: The stream was not entered.
        """
        self._entered()
        for event_type in event_types:
            if event_type not in EVENT_TYPES:
                raise InvalidParameterError(
                    "subscribe() takes classes of events such as ContentDeltaEvent, "
                    f"not {event_type!r}."
                )
        if isinstance(max_buffer, bool) or not isinstance(max_buffer, int) or max_buffer < 1:
            raise InvalidParameterError(f"max_buffer must be 1 or more, not {max_buffer!r}.")
        if on_full not in get_args(OnFull):
            raise InvalidParameterError(
                f'on_full must be "wait", "drop_oldest" or "fail", not {on_full!r}.'
            )
        inbox = Inbox(
            types=frozenset(event_types) or None,
            max_buffer=max_buffer,
            on_full=on_full,
            place=_place_of_caller(),
            left=self._fanout.remove,
        )
        self._fanout.add(inbox)
        return Subscription(self, inbox, self._state.remember())

    # What it knows.

    @property
    def current_completion_snapshot(self) -> ParsedChatCompletion[T]:
        """The completion so far; without choices before the first chunk."""
        return self._state.current_completion_snapshot

    @property
    def usage(self) -> Usage | None:
        """The token counts, or None while they are unknown."""
        return self._state.usage

    @property
    def response(self) -> httpx.Response | None:
        """The response: status and headers. None for a stream that is not from HTTP."""
        return self._source.response

    @property
    def request_id(self) -> str | None:
        """The server's name for the request, if it gave one."""
        return request_id_of(self._source.response)

    @property
    def bytes_received(self) -> int:
        """How many bytes of the body have been read."""
        return self._pump.bytes_received

    @property
    def chunk_count(self) -> int:
        """How many chunks have come."""
        return self._state.chunk_count

    # The side of the consumers (see fanout.Feeder).

    def demand(self) -> None:
        """Somebody wants events: reading may start."""
        self._entered().demanded.set()

    def raise_end(self) -> None:
        """Raise what the stream ended with, anew for each who asks; return if it ended well."""
        if self._error is None:
            return
        self._error_was_told = True
        if not isinstance(self._error, WriterError):
            raise self._error
        # A copy has a traceback and a context of its own; the cause is the same.
        error = copy.copy(self._error)
        raise error from self._error.__cause__

    # The side of the response: everything below runs in the stream's own task.

    async def _run(self, scope: _Scope) -> None:
        deadlines = scope.deadlines
        try:
            with deadlines.scope:
                await self._source.open(deadlines)
                scope.opened.set()
                with deadlines.consumer():
                    await scope.demanded.wait()
                await self._pump.run(deadlines)
                self._end(scope, self._state.parse_error)
                if self._state.done_received:
                    await self._pump.drain(deadlines)
            if deadlines.scope.cancelled_caught:
                if self._state.complete:
                    self._pump.finish_complete()
                self._end(scope, deadlines.error() or self._outcome())
        except Exception as exc:  # noqa: BLE001 - whatever it is, the consumers must hear of it
            self._end(scope, exc)
        finally:
            # Cancelled from outside, the stream has not ended yet.
            self._end(scope, self._outcome())
            with anyio.move_on_after(self._settings.limits.cleanup_time, shield=True):
                await self._source.aclose()
            scope.opened.set()
            scope.finished.set()

    def _outcome(self) -> WriterError | None:
        """What is to be said of a stream that was stopped."""
        if self._state.complete and not self._pump.has_lost_events:
            return self._state.parse_error
        return StreamClosedError("The stream was closed before its answer was complete.")

    def _end(self, scope: _Scope, error: Exception | None) -> None:
        """Record how the stream ended, then wake everybody."""
        if self._is_ended:
            return
        self._is_ended = True
        self._error = error
        if isinstance(error, APIError):
            error.message = self._source.redact(error.message)
            error.args = (error.message,)
            error.body = self._source.redact(error.body)
            error.request = error.request or self._source.request
            error.response = error.response or self._source.response
            error.request_id = error.request_id or self.request_id
        if isinstance(error, APIError | StreamClosedError) and self._state.chunk_count:
            error.completion = self.current_completion_snapshot
        self._fanout.end()
        scope.ended.set()


AsyncChatCompletionStream = ChatCompletionStream
"""The official SDK's name for it."""


class _Scope:
    """What exists while a stream is open."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.deadlines = deadlines
        self.host_id = anyio.get_current_task().id
        self.tasks = anyio.create_task_group()
        self.opened = anyio.Event()  # the response is there, or will never be
        self.demanded = anyio.Event()  # somebody wants events
        self.ended = anyio.Event()  # it is known how the stream ended
        self.finished = anyio.Event()  # everything is cleaned up
        self.is_left = False
        self._children = 0
        self._no_children = anyio.Event()

    def start_child(
        self, fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...], name: object
    ) -> None:
        """Run a task of the caller's."""

        async def run() -> None:
            try:
                await fn(*args)
            finally:
                self._children -= 1
                if not self._children:
                    self._no_children.set()

        self.tasks.start_soon(run, name=name or fn)
        self._children += 1

    async def wait_for_children(self) -> None:
        """Wait until no task of the caller's runs."""
        while self._children:
            self._no_children = anyio.Event()
            await self._no_children.wait()

    async def leave(self, exc: BaseException | None) -> bool:
        """Wait for all tasks and leave the task group; an exception cancels the caller's tasks.

        The block's exception never meets the task group, which would wrap it: it goes on by
        itself. The exceptions are a cancellation that the task group itself caused, because one
        of the caller's tasks failed, and failures of both, which come out together.

        Args:
            exc: What is on its way out of the block.

        Returns:
            Whether ``exc`` was the task group's own cancellation and goes no further.
        """
        self.is_left = True
        cancelled = anyio.get_cancelled_exc_class()
        own = isinstance(exc, cancelled) and self.tasks.cancel_scope.cancel_called
        if exc is not None and self._children:
            self.tasks.cancel_scope.cancel()
        try:
            if own and exc is not None:
                return bool(await self.tasks.__aexit__(type(exc), exc, exc.__traceback__))
            await self.tasks.__aexit__(None, None, None)
        except cancelled:
            # It comes again by itself where it is still wanted.
            if exc is None:
                raise
        except BaseExceptionGroup as group:
            if exc is None or isinstance(exc, cancelled):
                raise
            raise BaseExceptionGroup(
                "the block of a stream and tasks started in it failed", [exc, *group.exceptions]
            ) from None
        return False


class _TextDeltas:
    def __init__(self, events: AsyncIterator[Any], choice_index: int) -> None:
        self._events = events
        self._choice_index = choice_index

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        while True:
            event = await anext(self._events)
            if isinstance(event, ContentDeltaEvent) and event.choice_index == self._choice_index:
                return event.delta


def _place_of_caller() -> str:
    """File and line of the code that called into this library."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "?"


_PACKAGE: Final = __name__.partition(".")[0] + "."
