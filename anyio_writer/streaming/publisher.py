"""What a stream and a conversation have in common: one task publishes events, others subscribe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import (
    Any,
    ClassVar,
    Final,
    Generic,
    Self,
    TypeVar,
    TypeVarTuple,
    Unpack,
    get_args,
    get_origin,
    overload,
)

import anyio

from ..config import Limits
from ..errors import InvalidParameterError, StreamClosedError, WriterError
from ..numbers import check_count
from ..protocol.completion import ParsedChatCompletion
from ..telemetry.observer import Outcome
from ..telemetry.recorder import outcome_of
from ..uncopied import Uncopied
from .channel import DEFAULT_MAX_BUFFER, Channel, OnFull, location_of_caller
from .fanout import Fanout
from .lifetime import Lifetime, Stage
from .subscription import Steps, Subscription, SubscriptionOptions

Ev = TypeVar("Ev")
E = TypeVar("E")
E2 = TypeVar("E2")
E3 = TypeVar("E3")
E4 = TypeVar("E4")
Args = TypeVarTuple("Args")

_ON_FULL: Final = get_args(OnFull)


class Publisher(Uncopied, ABC, Generic[Ev]):
    """A task group whose one task publishes events, and the subscribers that read them.

    It is entered with ``async with``, once; docs/lifetimes.md says what its end means to whom.
    """

    _copy_instead = "What has come can be: its completions, its events."
    _kind: ClassVar[str]  # as messages call it
    _event_types: ClassVar[frozenset[type]]

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._fanout = Fanout(limits.slow_consumer_time)
        self._lifetime: Lifetime | None = None
        self._own: Subscription[Ev] | None = None
        self._own_reader: int | None = None  # the task that last began to iterate it

    # What each kind has of its own.

    @abstractmethod
    def _enter_work(self) -> anyio.CancelScope:
        """It is being entered; returns what the task will run in, which stops it when cancelled."""

    @abstractmethod
    async def _bring_events(self, lifetime: Lifetime) -> None:
        """Open what it reads from, wait for the first demand, publish until the end, ``_end``."""

    @abstractmethod
    def _outcome(self) -> Exception | None:
        """What it ends with if it is stopped now."""

    @abstractmethod
    def _outcome_of_stop(self) -> Exception | None:
        """The same if its own scope was cancelled, which may be a time limit."""

    def _complete(self, error: Exception | None) -> None:
        """It ends with this: add to the error what is known."""

    def _report_end(self, error: Exception | None, outcome: Outcome) -> None:
        """It has ended: notify the observers."""

    async def _clean_up(self) -> None:
        """Close what it reads from."""

    def _cancel_tools(self) -> None:
        """It is being closed: cancel the tools that it runs."""

    @abstractmethod
    def _freeze_snapshot(self) -> Callable[[], ParsedChatCompletion[Any]]:
        """A function that returns the completion as it stands now, however late it is called."""

    # Lifetime.

    async def __aenter__(self) -> Self:
        if self._lifetime is not None:
            raise WriterError(f"A {self._kind} can be entered only once; open another one.")
        work = self._enter_work()
        self._lifetime = Lifetime(self._kind, work, self._limits.cleanup_time)
        await self._lifetime.enter(self._run)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        lifetime = self._entered()
        if lifetime.is_left:
            return None  # with a block around it, which has raised WrongOrderError
        await lifetime.check_exit(self._stop)
        interrupted: BaseException | None = None
        if exc is None:
            if lifetime.has_children and (own := self._own_of_this_task()) is not None:
                # Left by a break. Its full buffer would keep the stream from going on for them.
                lifetime.start_tool(partial(_discard, own), f"anyio_writer {self._kind}, rest")
            try:
                await lifetime.wait_for_children()
            except BaseException as other:  # raised again below
                exc = interrupted = other
        self._stop()
        swallowed = await lifetime.leave(exc)
        if interrupted is not None and not swallowed:
            try:
                raise interrupted
            finally:
                del exc, interrupted  # its traceback has this frame
        if exc is None and not lifetime.error_was_raised:
            left_by_choice = self._own is not None or self._fanout.was_left
            if not left_by_choice and not isinstance(lifetime.error, StreamClosedError):
                await lifetime.raise_end()
        return swallowed

    def start_soon(
        self,
        fn: Callable[[*Args], Awaitable[Any]],
        *args: *Args,
        name: object = None,
    ) -> None:
        """Start a task that ends with the block.

        A block that ends normally waits for these tasks. An exception or a cancellation that leaves
        the block cancels them. A task that fails cancels the block and the other tasks. As in every
        anyio task group, the errors are then raised in an exception group, together with the
        block's own. The stream's own error is raised once and unwrapped, however many tasks
        raised it.

        Args:
            fn: An async function.
            args: Its arguments.
            name: A name for the task, for debuggers.

        Raises:
            InvalidParameterError: ``fn`` cannot be called.
            WriterError: The block has not begun, or has ended.
        """
        lifetime = self._open_lifetime()
        if not callable(fn):
            raise InvalidParameterError(
                "start_soon() takes an async function and what to call it with, "
                f"start_soon(fn, argument), not {fn!r}."
            )
        lifetime.start_child(fn, args, name)

    async def close(self) -> None:
        """End it now, from any task. Returns when everything is cleaned up.

        The code in the block goes on. Subscribers get ``StreamClosedError``, unless the answer was
        already complete. Tools that are running are cancelled. Closing again, or after the end,
        does nothing.
        """
        lifetime = self._entered()
        self._cancel_tools()
        self._stop()
        await lifetime.reach(Stage.FINISHED)

    async def aclose(self) -> None:
        """The same as ``close()``, for ``contextlib.aclosing()`` and the like."""
        await self.close()

    def _entered(self) -> Lifetime:
        if self._lifetime is None:
            raise WriterError(f"The {self._kind} is not open: enter it with 'async with' first.")
        return self._lifetime

    def _open_lifetime(self) -> Lifetime:
        lifetime = self._entered()
        if lifetime.is_left:
            raise WriterError(
                f"The {self._kind}'s block has ended: no more tasks can be started in it."
            )
        return lifetime

    def _stop(self) -> None:
        self._entered().stop()

    async def _run(self) -> None:
        """The task. It raises nothing: how it ended is recorded."""
        lifetime = self._entered()
        try:
            with lifetime.work:
                await self._bring_events(lifetime)
            if not lifetime.has_ended:  # its own scope was cancelled
                self._end(self._outcome_of_stop())
        except Exception as exc:  # whatever it is, the subscribers must hear of it
            self._end(exc)
        finally:
            try:
                if not lifetime.has_ended:
                    self._end(self._outcome(), is_cancelled=True)  # from outside
            finally:  # an observer may raise what ends the process
                try:
                    await self._clean_up()
                finally:
                    lifetime.advance(Stage.FINISHED)

    def _end(self, error: Exception | None, *, is_cancelled: bool = False) -> None:
        """Record how it ended, then wake everybody. The first record stays."""
        lifetime = self._entered()
        if lifetime.has_ended:
            return
        self._complete(error)
        lifetime.error = error
        self._fanout.end()
        lifetime.advance(Stage.ENDED)
        self._report_end(error, outcome_of(error, is_cancelled=is_cancelled))

    # Subscribing.

    def __aiter__(self) -> AsyncIterator[Ev]:
        return self._own_subscription()

    async def __anext__(self) -> Ev:
        return await anext(self._own_subscription())

    def batches(self) -> Steps[list[Ev]]:
        """The same events in lists. Each list has everything that is buffered; none is empty."""
        return self._own_subscription().batches()

    async def until_done(self) -> Self:
        """Wait for the end, and discard the remaining events of the stream's own iteration.

        You can call it several times, from several tasks, and after the block. Subscriptions keep
        their events.
        """
        await self._until_ended(self._own)
        return self

    async def _until_ended(self, own: Subscription[Ev] | None) -> None:
        """Wait for the end, and raise it if it is an error.

        Args:
            own: Whose events are discarded until then.
        """
        lifetime = self._entered()
        if own is not None and not own.is_closed:
            async for _ in own.batches():
                pass
        # Not only what is discarded has to end: somebody may have closed it before.
        lifetime.demand()
        await lifetime.reach(Stage.ENDED)
        await lifetime.raise_end()

    def _own_subscription(self) -> Subscription[Ev]:
        if self._own is None or (self._own.is_closed and not self._entered().has_ended):
            self._own = self.subscribe()
        with suppress(anyio.NoEventLoopError):  # asked for by a thread outside
            self._own_reader = anyio.get_current_task().id
        return self._own

    def _own_of_this_task(self) -> Subscription[Ev] | None:
        """The stream's own iteration, if this task is the last that began it."""
        return self._own if self._own_reader == anyio.get_current_task().id else None

    @overload
    def subscribe(self, /, **options: Unpack[SubscriptionOptions]) -> Subscription[Ev]: ...

    @overload
    def subscribe(
        self, event_type: type[E], /, **options: Unpack[SubscriptionOptions]
    ) -> Subscription[E]: ...

    @overload
    def subscribe(
        self, event_type: type[E], second: type[E2], /, **options: Unpack[SubscriptionOptions]
    ) -> Subscription[E | E2]: ...

    @overload
    def subscribe(
        self,
        event_type: type[E],
        second: type[E2],
        third: type[E3],
        /,
        **options: Unpack[SubscriptionOptions],
    ) -> Subscription[E | E2 | E3]: ...

    @overload
    def subscribe(
        self,
        event_type: type[E],
        second: type[E2],
        third: type[E3],
        fourth: type[E4],
        /,
        **options: Unpack[SubscriptionOptions],
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
        **options: Unpack[SubscriptionOptions],
    ) -> Subscription[Any]: ...

    @overload
    def subscribe(
        self, /, *event_types: type[E], **options: Unpack[SubscriptionOptions]
    ) -> Subscription[E]: ...

    def subscribe(
        self,
        /,
        *event_types: type[Any],
        max_buffer: int = DEFAULT_MAX_BUFFER,
        on_full: OnFull = "wait",
        name: str = "",
    ) -> Subscription[Any]:
        """Add a subscriber, which gets every event from now on, in order.

        Made before reading has started, it gets all events. Made later, its ``snapshot`` has what
        it missed. Made after the end, its iteration ends at once, or raises the stream's error.

        Args:
            event_types: Deliver only events of these classes; all events if there are none. For a
                generic event, give the bare class: ``ContentDoneEvent``.
            max_buffer: How many events may be buffered for the subscriber.
            on_full: What happens when its buffer is full. "wait" makes the stream wait until there
                is space. "drop_oldest" drops the oldest events, and counts them in ``dropped``.
                "fail" ends this subscriber with ``ConsumerLagError``. The last two never slow
                the stream down.
            name: A name for the subscriber in log messages and errors.

        Raises:
            InvalidParameterError: An argument is invalid.
            WriterError: The stream has not been entered.
        """
        lifetime = self._entered()
        # At run time no event knows what its class was filled in with.
        classes: list[Any] = [get_origin(event_type) or event_type for event_type in event_types]
        for event_type, cls in zip(event_types, classes, strict=True):
            if not isinstance(cls, type) or cls not in self._event_types:
                raise InvalidParameterError(
                    "subscribe() takes classes of events, one by one, such as ContentDeltaEvent, "
                    f"not {event_type!r}."
                )
        check_count("max_buffer", max_buffer, InvalidParameterError)
        if on_full not in _ON_FULL:
            raise InvalidParameterError(
                f'on_full must be "wait", "drop_oldest" or "fail", not {on_full!r}.'
            )
        if not isinstance(name, str):
            raise InvalidParameterError(f"name must be a string, not {name!r}.")
        channel = Channel(
            types=frozenset(classes) or None,
            max_buffer=max_buffer,
            on_full=on_full,
            name=name,
            created_at=location_of_caller(),
        )
        self._fanout.add(channel)
        return Subscription(lifetime, channel, self._freeze_snapshot())


async def _discard(events: Subscription[Any]) -> None:
    """Discard events until the stream has ended, however it ends."""
    with suppress(Exception):
        async for _ in events.batches():
            pass
