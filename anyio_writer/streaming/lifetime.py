"""How a block is entered, left and closed: a task group around one task that brings the events."""

from __future__ import annotations

import copy
import inspect
import math
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from enum import IntEnum
from sys import intern
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint

from ..errors import StreamClosedError, WriterError, WrongOrderError, WrongTaskError
from .changing import Changing

# By the id of a task: what it has entered and not left, the innermost last.
_entered_by: Final[dict[int, list[Lifetime]]] = {}


class Stage(IntEnum):
    """How far a stream or a conversation has come."""

    OPENING = 0
    OPEN = 1  # what it reads from is there
    ENDED = 2  # it is known how it ended, be it before it was open
    FINISHED = 3  # everything is cleaned up


class Lifetime(Changing):
    """What exists while a stream or a conversation is open, and how it ended.

    The task that brings the events runs in ``work`` and raises nothing: it records the outcome as
    ``error``, then cleans up.
    """

    __slots__ = (
        "_children",
        "_cleanup_time",
        "_host_id",
        "_is_broken_off",
        "_kind",
        "_raised",
        "_tasks",
        "_tools",
        "error",
        "error_was_raised",
        "is_demanded",
        "is_left",
        "stage",
        "work",
    )

    def __init__(self, kind: str, work: anyio.CancelScope, cleanup_time: float) -> None:
        super().__init__()
        self.work: Final = work
        """What the task runs in."""
        self.stage: Stage = Stage.OPENING
        self.is_demanded: bool = False
        """Whether somebody wants events."""
        self.is_left: bool = False
        """Whether the block has ended."""
        self.error: Exception | None = None
        """What it ended with, unless it ended well."""
        self.error_was_raised: bool = False
        """Whether somebody has got that error."""
        self._kind = kind  # as messages call it
        self._cleanup_time = cleanup_time
        self._host_id = anyio.get_current_task().id
        self._tasks = anyio.create_task_group()
        self._raised: weakref.WeakSet[WriterError] | None = None  # copies of that error
        self._children = 0
        self._tools = 0
        self._is_broken_off = False  # the block was left by an exception

    # The block.

    async def enter(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start the task, and wait until it has opened what it reads from.

        Raises:
            WriterError: It could not be opened.
        """
        await self._tasks.__aenter__()
        _entered_by.setdefault(self._host_id, []).append(self)
        self._tasks.start_soon(run, name=intern(f"anyio_writer {self._kind}"))
        try:
            await self.reach(Stage.OPEN)
            await self.raise_end()
        except BaseException as exc:
            self.work.cancel()
            await self.leave(exc)
            raise

    async def check_exit(self, stop: Callable[[], None]) -> None:
        """Refuse to be left where a task group cannot be left, but clean up all the same.

        Raises:
            WrongTaskError: By another task than the one that entered it.
            WrongOrderError: Before a block that was entered later.
        """
        if anyio.get_current_task().id != self._host_id:
            stop()
            self._forget()
            with anyio.move_on_after(self._cleanup_time, shield=True):
                await self.reach(Stage.FINISHED)
            raise WrongTaskError(
                f"A {self._kind} must be left by the task that entered it: its 'async with' was "
                f"entered in another one. The {self._kind} was closed. To end it from elsewhere, "
                "await close(). If an async generator holds it open, iterate over that with "
                "contextlib.aclosing()."
            )
        entered = _entered_by.get(self._host_id, [])
        if self in entered and entered[-1] is not self:
            error: BaseException = WrongOrderError(
                f"This {self._kind} was left before a stream or conversation that the same task "
                "entered after it, but blocks must be nested. All of them were closed. Enter them "
                "with an AsyncExitStack, which leaves them in the right order, or each in a task "
                "of its own."
            )
            for each in reversed(entered[entered.index(self) :]):
                each.stop()
                try:
                    await each.leave(error)
                except BaseException as exc:  # goes on through those around it, as from any block
                    error = exc
            raise error

    async def leave(self, exc: BaseException | None) -> bool:
        """Wait for all tasks and leave the task group; an exception cancels the caller's tasks.

        The block's exception never meets the task group, which would wrap it: it goes on by
        itself. The exception is a cancellation that the task group itself caused, because one of
        the caller's tasks failed.

        Args:
            exc: What is on its way out of the block.

        Returns:
            Whether ``exc`` was the task group's own cancellation and goes no further.
        """
        self.is_left = True
        self._is_broken_off = exc is not None
        self._forget()
        cancelled = anyio.get_cancelled_exc_class()
        own = isinstance(exc, cancelled) and self._tasks.cancel_scope.cancel_called
        if exc is not None and (self._children or self._tools):
            self._tasks.cancel_scope.cancel()
        error: BaseException | None = None
        try:
            if own and exc is not None:
                return bool(await self._tasks.__aexit__(type(exc), exc, exc.__traceback__))
            await self._tasks.__aexit__(None, None, None)
        except cancelled:
            # A cancel scope's comes again by itself where it is still wanted, and ``exc`` goes on.
            # Not so asyncio's own, which like everywhere wins over what it interrupts.
            if exc is None or anyio.current_effective_deadline() > -math.inf:
                raise
        except BaseExceptionGroup as group:
            error = self._error_of_tasks(group, exc, is_own_cancellation=own)
        if error is not None:  # raised out here, since it may be a member of the group
            try:
                raise error from None
            finally:
                del error  # its traceback has this frame
        return False

    def _error_of_tasks(
        self,
        group: BaseExceptionGroup[Any],
        exc: BaseException | None,
        *,
        is_own_cancellation: bool,
    ) -> BaseException | None:
        """What to raise for tasks of the caller's that failed; None if ``exc`` says all of it.

        The stream's own error counts once, however many tasks it came out of, and gives way to
        what the block itself raises.
        """

        def is_own(error: BaseException) -> bool:
            return self._is_own_error(error)

        # Ctrl-C hits whatever task runs just then; everybody expects it bare.
        interrupts = group.subgroup(KeyboardInterrupt)
        while interrupts is not None:
            first: BaseException = interrupts.exceptions[0]
            if not isinstance(first, BaseExceptionGroup):
                return first
            interrupts = first
        own, others = group.split(is_own)
        if others is None:
            if exc is None or is_own_cancellation:
                self._raise_error()
            return None
        cancelled = anyio.get_cancelled_exc_class()
        if exc is not None and not isinstance(exc, cancelled):
            return BaseExceptionGroup(
                f"the block of a {self._kind} and tasks started in it failed",
                [exc, *others.exceptions],
            )
        # A cancellation, which on trio may be in the group, says enough.
        if own is not None and self.error is not None and others.subgroup(cancelled) is None:
            others = others.derive([*others.exceptions, self.error])
        return others

    def _is_own_error(self, error: BaseException) -> bool:
        """Whether this is what the stream ended with, as it was raised for somebody."""
        own: Any = self.error
        if isinstance(own, ExceptionGroup):  # of which each got a group of its own
            return _members(error) == _members(own)
        return error is own or (self._raised is not None and error in self._raised)

    def _forget(self) -> None:
        """Take this one out of the list of those that its task has entered."""
        entered = _entered_by.get(self._host_id, [])
        if self in entered:
            entered.remove(self)
            if not entered:
                del _entered_by[self._host_id]

    # The caller's tasks.

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
                self.notify()

        self._tasks.start_soon(run, name=name or fn)
        self._children += 1

    def start_tool(self, tool: Callable[[], Awaitable[None]], name: str) -> None:
        """Run a tool or the like: the block waits for its end, but the stream need not go on."""

        async def run() -> None:
            try:
                await tool()
            finally:
                self._tools -= 1

        self._tasks.start_soon(run, name=name)
        self._tools += 1
        if self._is_broken_off:
            # Its call stood in the little that is still read behind a complete answer.
            self._tasks.cancel_scope.cancel()

    @property
    def has_children(self) -> bool:
        """Whether a task of the caller's runs."""
        return self._children > 0

    async def wait_for_children(self) -> None:
        """Wait until no task of the caller's runs."""
        while self.has_children:
            await self.wait_for_change()

    # Its stages, and the outcome.

    @property
    def has_ended(self) -> bool:
        """Whether it is known how it ended."""
        return self.stage >= Stage.ENDED

    def advance(self, stage: Stage) -> None:
        """This stage is reached, and with it those before."""
        self.stage = stage
        self.notify()

    async def reach(self, stage: Stage) -> None:
        """Wait until this stage is reached, or one after it."""
        if self.stage >= stage:
            await checkpoint()
        while self.stage < stage:
            await self.wait_for_change()

    def demand(self) -> None:
        """Somebody wants events: reading may start."""
        if not self.is_demanded:
            self.is_demanded = True
            self.notify()

    async def wait_for_demand(self) -> None:
        """Wait until somebody wants events."""
        while not self.is_demanded:
            await self.wait_for_change()

    def stop(self) -> None:
        """Cancel the task, unless it is only cleaning up."""
        if not self.has_ended:
            self.work.cancel()

    async def raise_end(self) -> None:
        """Raise what it ended with, anew for each who asks; return if it ended well."""
        if isinstance(self.error, StreamClosedError):
            # It may have been cancelled together with the task that asks; then that comes out.
            await checkpoint()
        self._raise_error()

    def _raise_error(self) -> None:
        error = self.error
        if error is None:
            return
        self.error_was_raised = True
        if isinstance(error, ExceptionGroup):
            raise _again(error)
        if not isinstance(error, WriterError):
            raise error
        # A copy has a traceback and a context of its own; the cause is the same.
        raised = copy.copy(error)
        if self._raised is None:
            self._raised = weakref.WeakSet()
        self._raised.add(raised)
        try:
            raise raised from error.__cause__
        finally:
            del raised  # its traceback has this frame


def _members(group: Any) -> tuple[Any, ...]:
    return getattr(group, "exceptions", ())


def _again(group: Any) -> Exception:
    """A group of the same errors, with a traceback of its own."""
    again: Exception = group.derive(group.exceptions)
    return again
