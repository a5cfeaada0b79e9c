"""Awaiting something and being told when it really has to wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

R = TypeVar("R")


@coroutine
def notice_wait(awaitable: Awaitable[R], before_wait: Callable[[], None]) -> Generator[Any, Any, R]:
    """Await ``awaitable``; call ``before_wait`` right before it suspends this task, if it does.

    One network read brings dozens of chunks, which the HTTP library then gives out one by one
    without a wait. What is worth doing once a read (hand a batch on, move a deadline) is done when
    the next one begins to wait, and costs the others nothing.

    ``before_wait`` is called once at the most, runs in this task, and must not wait itself. What
    it does is seen before anything else runs. Apart from that call this is ``await``: what the
    event loop sends or throws is passed on (PEP 380 spells out the same for ``yield from``).
    """
    steps = awaitable.__await__()
    try:
        trap = steps.send(None)
        before_wait()
        while True:
            try:
                answer = yield trap
            except BaseException as exc:  # noqa: BLE001 - it is not for us
                go_on = partial(steps.throw, exc)
            else:
                go_on = partial(steps.send, answer)
            trap = go_on()
    except StopIteration as done:
        result: R = done.value
        return result
