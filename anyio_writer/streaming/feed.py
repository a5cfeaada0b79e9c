"""What a stream and a conversation have in common: one task brings events, others take them."""

from __future__ import annotations

import copy
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from sys import intern
from types import TracebackType
from typing import (
    Any,
    ClassVar,
    Final,
    Generic,
    Self,
    TypeVar,
    TypeVarTuple,
    get_args,
    get_origin,
    overload,
)

import anyio
from anyio.lowlevel import checkpoint

from ..config import Limits
from ..errors import InvalidParameterError, StreamClosedError, WriterError, WrongTaskError
from ..numbers import check_count
from ..protocol.completion import ParsedChatCompletion
from .fanout import DEFAULT_MAX_BUFFER, Fanout, Inbox, OnFull, Subscription
from .waiting import Signal

Ev = TypeVar("Ev")
E = TypeVar("E")
E2 = TypeVar("E2")
E3 = TypeVar("E3")
E4 = TypeVar("E4")
Args = TypeVarTuple("Args")


class Feed(ABC, Generic[Ev]):
    """A task group whose one task brings events, and the consumers that take them.

    It is entered with ``async with``, once; docs/lifetimes.md says what its end means to whom.
    """

    _kind: ClassVar[str]  # as messages call it
    _event_types: ClassVar[frozenset[type]]

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._fanout = Fanout(limits.slow_consumer_time)
        self._own: Subscription[Ev] | None = None
        self._own_reader: int | None = None  # the task that last began to iterate it
        self._scope: Scope | None = None
        # How it ended. Recorded before anybody is woken; the first record stays.
        self._is_ended = False
        self._error: Exception | None = None
        self._error_was_told = False

    # What each kind has of its own.

    @abstractmethod
    def _begin(self) -> anyio.CancelScope:
        """It is being entered; returns what the task will run in, which stops it when cancelled."""

    @abstractmethod
    async def _run(self, scope: Scope) -> None:
        """The task: sets ``opened``, waits for ``demanded``, records the end, sets ``finished``."""

    @abstractmethod
    def remember(self) -> Callable[[], ParsedChatCompletion[Any]]:
        """A function that returns the completion as it stands now, however late it is called."""

    # Lifetime.

    async def __aenter__(self) -> Self:
        if self._scope is not None:
            raise WriterError(f"A {self._kind} can be entered only once; open another one.")
        scope = self._scope = Scope(self._kind, self._begin())
        await scope.tasks.__aenter__()
        scope.tasks.start_soon(self._run, scope, name=intern(f"anyio_writer {self._kind}"))
        try:
            await scope.opened.wait()
            if isinstance(self._error, StreamClosedError):
                # Perhaps only because both tasks are being cancelled; then that comes out.
                await checkpoint()
        except BaseException as exc:
            scope.work.cancel()
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
            with anyio.move_on_after(self._limits.cleanup_time, shield=True):
                await scope.finished.wait()
            raise WrongTaskError(
                f"A {self._kind} must be left by the task that entered it: its 'async with' was "
                f"entered in another one. The {self._kind} was closed. To end it from elsewhere, "
                "await close()."
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
        """Start a task inside its own task group.

        A block that ends normally waits for these tasks; one that is left by an exception or a
        cancellation cancels them. A task that fails cancels the block and the others; as in
        every anyio task group, the errors then come out in an exception group, together with
        the block's own if it failed too.

        Raises:
            InvalidParameterError: ``fn`` cannot be called.
            WriterError: It is not open.
        """
        scope = self._open_scope()
        if not callable(fn):
            raise InvalidParameterError(
                "start_soon() takes an async function and what to call it with, "
                f"start_soon(fn, argument), not {fn!r}."
            )
        scope.start_child(fn, args, name)

    async def close(self) -> None:
        """End it now, from any task, and return when everything is cleaned up.

        The block goes on; a consumer that waits gets ``StreamClosedError`` unless the answer was
        already complete. Closing twice, or after the end, does nothing.
        """
        scope = self._entered()
        self._stop(scope)
        await scope.finished.wait()

    def _entered(self) -> Scope:
        if self._scope is None:
            raise WriterError(f"The {self._kind} is not open: enter it with 'async with' first.")
        return self._scope

    def _open_scope(self) -> Scope:
        scope = self._entered()
        if scope.is_left:
            raise WriterError(
                f"The {self._kind}'s block has ended: no more tasks can be started in it."
            )
        return scope

    def _stop(self, scope: Scope) -> None:
        if not self._is_ended:
            scope.work.cancel()

    # Consuming.

    def __aiter__(self) -> AsyncIterator[Ev]:
        return self._own_consumer()

    async def __anext__(self) -> Ev:
        return await anext(self._own_consumer())

    def batches(self) -> AsyncIterator[list[Ev]]:
        """The same events in lists, one list per read of the response, never empty.

        A read that was begun one by one may end in two lists.
        """
        return self._own_consumer().batches()

    async def until_done(self) -> Self:
        """Take what is left of its own events, drop it, and return at the end.

        May be called again and again, from several tasks, and after the block.
        """
        await self._until_ended(self._own)
        return self

    async def _until_ended(self, own: Subscription[Ev] | None) -> None:
        """Wait for the end, and raise what it is.

        Args:
            own: Whose events are dropped until then.
        """
        if own is not None:
            await own.discard_all()
        else:
            self.demand()
            await self._entered().ended.wait()
            await checkpoint()
            self.raise_end()

    def _own_consumer(self) -> Subscription[Ev]:
        if self._own is None:
            self._own = self.subscribe()
        self._own_reader = anyio.get_current_task().id
        return self._own

    @overload
    def subscribe(
        self, /, *, max_buffer: int = DEFAULT_MAX_BUFFER, on_full: OnFull = "wait"
    ) -> Subscription[Ev]: ...

    @overload
    def subscribe(
        self,
        event_type: type[E],
        /,
        *,
        max_buffer: int = DEFAULT_MAX_BUFFER,
        on_full: OnFull = "wait",
    ) -> Subscription[E]: ...

    @overload
    def subscribe(
        self,
        event_type: type[E],
        second: type[E2],
        /,
        *,
        max_buffer: int = DEFAULT_MAX_BUFFER,
        on_full: OnFull = "wait",
    ) -> Subscription[E | E2]: ...

    @overload
    def subscribe(
        self,
        event_type: type[E],
        second: type[E2],
        third: type[E3],
        /,
        *,
        max_buffer: int = DEFAULT_MAX_BUFFER,
        on_full: OnFull = "wait",
    ) -> Subscription[E | E2 | E3]: ...

    @overload
    def subscribe(
        self,
        event_type: type[E],
        second: type[E2],
        third: type[E3],
        fourth: type[E4],
        /,
        *,
        max_buffer: int = DEFAULT_MAX_BUFFER,
        on_full: OnFull = "wait",
    ) -> Subscription[E | E2 | E3 | E4]: ...

    @overload
    def subscribe(
        self,
        event_type: type[Any],
        second: type[Any],
        third: type[Any],
        fourth: type[Any],
        fifth: type[Any],
        /,
        *others: type[Any],
        max_buffer: int = DEFAULT_MAX_BUFFER,
        on_full: OnFull = "wait",
    ) -> Subscription[Any]: ...

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
            event_types: Only events of these classes; all if there are none. That of
                ``ContentDoneEvent[Person]`` is ``ContentDoneEvent``.
            max_buffer: How many events may wait for it.
            on_full: What happens when that many wait: "wait" holds the stream back until there is
                room; "drop_oldest" drops, and counts in ``dropped``; "fail" ends this consumer
                with ``ConsumerLagError``. The latter two never slow anybody.

        Raises:
            InvalidParameterError: One of these is wrong.
            WriterError: The stream was not entered.
        """
        self._entered()
        # At run time no event knows what its class was filled in with.
        classes: list[Any] = [get_origin(event_type) or event_type for event_type in event_types]
        for event_type, cls in zip(event_types, classes, strict=True):
            if not isinstance(cls, type) or cls not in self._event_types:
                raise InvalidParameterError(
                    "subscribe() takes classes of events, one by one, such as ContentDeltaEvent, "
                    f"not {event_type!r}."
                )
        check_count("max_buffer", max_buffer, InvalidParameterError)
        if on_full not in get_args(OnFull):
            raise InvalidParameterError(
                f'on_full must be "wait", "drop_oldest" or "fail", not {on_full!r}.'
            )
        inbox = Inbox(
            types=frozenset(classes) or None,
            max_buffer=max_buffer,
            on_full=on_full,
            place=_place_of_caller(),
            left=self._fanout.remove,
        )
        self._fanout.add(inbox)
        return Subscription(self, inbox, self.remember())

    # The side of the consumers (see fanout.Feeder).

    def demand(self) -> None:
        """Somebody wants events: reading may start."""
        self._entered().demanded.set()

    def raise_end(self) -> None:
        """Raise what it ended with, anew for each who asks; return if it ended well."""
        if self._error is None:
            return
        self._error_was_told = True
        error: Any = self._error
        if isinstance(error, ExceptionGroup):
            raise error.derive(error.exceptions)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        if not isinstance(error, WriterError):
            raise error
        # A copy has a traceback and a context of its own; the cause is the same.
        raise copy.copy(error) from error.__cause__

    # The side of the task.

    def _end(self, scope: Scope, error: Exception | None) -> None:
        """Record how it ended, then wake everybody."""
        if self._is_ended:
            return
        self._is_ended = True
        self._error = error
        self._fanout.end()
        scope.ended.set()


class Scope:
    """What exists while a stream or a conversation is open."""

    __slots__ = (
        *("_children", "_kind", "_no_children", "_tools", "_was_broken_off", "demanded", "ended"),
        *("finished", "host_id", "is_left", "opened", "tasks", "work"),
    )

    def __init__(self, kind: str, work: anyio.CancelScope) -> None:
        self.work = work  # the task that brings the events
        self.host_id = anyio.get_current_task().id
        self.tasks = anyio.create_task_group()
        self.opened = Signal()  # the response is there, or will never be
        self.demanded = Signal()  # somebody wants events
        self.ended = Signal()  # it is known how it ended
        self.finished = Signal()  # everything is cleaned up
        self.is_left = False
        self._kind = kind
        self._children = 0
        self._no_children: Signal | None = None  # of a block that has had to wait for that
        self._tools = 0
        self._was_broken_off = False  # the block was left by an exception

    def start_child(
        self, fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...], name: object
    ) -> None:
        """Run a task of the caller's: a block that ends normally goes on until it has ended."""

        async def run() -> None:
            try:
                awaitable: object = fn(*args)
                if not inspect.isawaitable(awaitable):
                    raise TypeError(
                        f"start_soon() takes an async function; {fn!r} gave "
                        f"{type(awaitable).__name__}, which cannot be awaited."
                    )
                await awaitable
            finally:
                self._children -= 1
                if not self._children and self._no_children is not None:
                    self._no_children.set()

        self.tasks.start_soon(run, name=name or fn)
        self._children += 1

    def start_tool(self, fn: Callable[[E], Awaitable[None]], call: E, name: str) -> None:
        """Run a tool: the block waits for its end, but does not let the stream go on for it."""

        async def run() -> None:
            try:
                await fn(call)
            finally:
                self._tools -= 1

        self.tasks.start_soon(run, name=name)
        self._tools += 1
        if self._was_broken_off:
            # Its call stood in the little that is still read behind a complete answer.
            self.tasks.cancel_scope.cancel()

    async def wait_for_children(self) -> None:
        """Wait until no task of the caller's runs."""
        while self._children:
            self._no_children = Signal()
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
        self._was_broken_off = exc is not None
        cancelled = anyio.get_cancelled_exc_class()
        own = isinstance(exc, cancelled) and self.tasks.cancel_scope.cancel_called
        if exc is not None and (self._children or self._tools):
            self.tasks.cancel_scope.cancel()
        try:
            if own and exc is not None:
                return bool(await self.tasks.__aexit__(type(exc), exc, exc.__traceback__))
            await self.tasks.__aexit__(None, None, None)
        except cancelled:
            # A cancel scope's comes again by itself where it is still wanted, and ``exc`` goes on.
            # Not so asyncio's own, which like everywhere wins over what it interrupts.
            if exc is None or anyio.current_effective_deadline() > -math.inf:
                raise
        except BaseExceptionGroup as group:
            if exc is None or isinstance(exc, cancelled):
                raise
            raise BaseExceptionGroup(
                f"the block of a {self._kind} and tasks started in it failed",
                [exc, *group.exceptions],
            ) from None
        return False


def _place_of_caller() -> str:
    """File and line of the code that called into this library."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        frame = frame.f_back
    # Thousands of streams are read in the same place.
    return intern(f"{frame.f_code.co_filename}:{frame.f_lineno}") if frame is not None else "?"


_PACKAGE: Final = __name__.partition(".")[0] + "."
