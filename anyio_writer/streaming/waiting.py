"""Waiting: being told when an await really has to, and signals that are cheap."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator
from types import coroutine
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import checkpoint, current_token

R = TypeVar("R")


@coroutine
def notice_waits(
    awaitable: Awaitable[R], before_wait: Callable[[], None]
) -> Generator[Any, Any, R]:
    """Await ``awaitable``; call ``before_wait`` right before each time that it suspends this task.

    One network read brings dozens of chunks, which the HTTP library then gives out one by one
    without a wait. What is worth doing once a read (hand a batch on, move a deadline) is done when
    the next one begins to wait, and costs the others nothing.

    ``before_wait`` runs in this task and must not wait itself. What it does is seen before
    anything else runs. Apart from that call this is ``await``: what the event loop sends or
    throws is passed on (PEP 380 spells out the same for ``yield from``).
    """
    steps = awaitable.__await__()
    resume: Callable[[Any], Any] = steps.send
    value: Any = None
    try:
        trap = resume(value)
        while True:
            before_wait()
            try:
                value = yield trap
            except BaseException as exc:  # noqa: BLE001 - it is not for us
                resume, value = steps.throw, exc
            else:
                resume = steps.send
            # Outside of the handler: what comes of this has not happened during another error.
            trap = resume(value)
    except StopIteration as done:
        result: R = done.value
        return result
    finally:
        del value  # an exception refers to this frame


def cancellation_point() -> Callable[[], Awaitable[None]]:
    """What lets a cancellation in and else costs least: for this event loop, so call it there.

    anyio's own function looks for the event loop each time, which costs as much as the rest of it.
    What it then calls is the same for all of a loop's tasks.
    """
    if (trio := _trio()) is not None:
        of_trio: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint_if_cancelled
        return of_trio
    return current_token().backend_class.checkpoint_if_cancelled


def clock() -> Callable[[], float]:
    """``anyio.current_time`` of this event loop, without the search for the event loop."""
    return current_token().backend_class.current_time


def _trio() -> Any:
    """The module, where this is one of its tasks."""
    trio: Any = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_run() else None


def asyncio_loop() -> Any:
    """The event loop, where this is a task of asyncio's, else None."""
    return _asyncio_loop() if _trio() is None else None


def _asyncio_loop() -> Any:
    """The same where it is known that this is no task of trio's, which may be asyncio's guest."""
    asyncio: Any = sys.modules.get("asyncio")
    try:
        return asyncio.get_running_loop()
    except (AttributeError, RuntimeError):
        return None


def _one_wait() -> tuple[Callable[[], object], Awaitable[object]]:
    """What wakes a task, once or more often, and what that task awaits.

    A future or a task to reschedule is all that the event loops themselves wait with. An event
    made of it costs twice as much, and holds a queue besides.
    """
    if (trio := _trio()) is not None:
        return _wait_on_trio(trio.lowlevel)
    if (loop := _asyncio_loop()) is not None:
        woken = loop.create_future()
        return lambda: woken.done() or woken.set_result(None), woken
    event = anyio.Event()  # another event loop altogether
    return event.set, event.wait()


def _wait_on_trio(lowlevel: Any) -> tuple[Callable[[], object], Awaitable[object]]:
    waiting = [lowlevel.current_task()]

    def wake() -> None:
        if waiting:
            lowlevel.reschedule(waiting.pop())

    def abort(_: object) -> Any:
        waiting.clear()
        return lowlevel.Abort.SUCCEEDED

    return wake, lowlevel.wait_task_rescheduled(abort)


class Signal:
    """An event that can be cleared, and is small while nobody waits for it.

    A stream has half a dozen of them, and most are never waited for; an event of the event loop's
    holds a queue of its own.
    """

    __slots__ = ("_wakers", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._wakers: list[Callable[[], object]] | None = None  # of those who wait

    def set(self) -> None:
        """Wake all who wait; who asks from now on does not wait."""
        self.is_set = True
        for wake in self._wakers or ():
            wake()

    def clear(self) -> None:
        """Who asks from now on waits for the next ``set``."""
        self.is_set = False

    async def wait(self) -> None:
        """Wait for ``set``; it may have been cleared again by the time this returns."""
        if self.is_set:
            await checkpoint()
            return
        wake, woken = _one_wait()
        if self._wakers is None:
            self._wakers = []
        self._wakers.append(wake)
        try:
            await woken
        finally:
            self._wakers.remove(wake)
