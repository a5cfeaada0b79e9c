"""The time limits of a stream: one cancel scope whose deadline moves with what is awaited."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum
from typing import Final

import anyio

from ..config import Timeouts
from ..errors import (
    APITimeoutError,
    FirstContentTimeoutError,
    IdleTimeoutError,
    TotalTimeoutError,
)


class Wait(Enum):
    """What the stream's task is waiting for."""

    OPENING = "opening"  # a slot, a pause before a retry: only the total limit runs
    FIRST_CONTENT = "first content"
    NEXT_CHUNK = "next chunk"
    END = "end"  # the answer is complete; usage may still come
    SUBSCRIBER = "subscriber"  # somebody here is slow, or does not read yet
    DRAIN = "drain"


_ERRORS: Final[dict[Wait, tuple[type[APITimeoutError], str]]] = {
    Wait.FIRST_CONTENT: (
        FirstContentTimeoutError,
        "No content came within {timeouts.first_content} s (Timeouts.first_content).",
    ),
    Wait.NEXT_CHUNK: (
        IdleTimeoutError,
        "No chunk came for {timeouts.idle} s (Timeouts.idle).",
    ),
}
_TOTAL: Final = (
    TotalTimeoutError,
    "The stream was not complete within {timeouts.total} s (Timeouts.total).",
)

_IDLE_TOLERANCE: Final = 1 / 64
"""How much longer than ``idle`` a silence may last, as a part of it.

Moving a deadline costs more than reading a chunk, so it is not moved for each chunk.
"""

_ENDS_WELL: Final = frozenset({Wait.END, Wait.DRAIN})
"""The answer is complete, so that running out of time costs nothing."""


class Deadlines:
    """Keeps the deadline of ``scope`` at the limit that runs out first."""

    __slots__ = (
        "_by_total",
        "_deadline",
        "_first_content",
        "_timeouts",
        "_total",
        "_wait",
        "scope",
    )

    def __init__(self, timeouts: Timeouts) -> None:
        self.scope: Final = anyio.CancelScope()
        self._timeouts = timeouts
        self._total = _after(timeouts.total)
        self._first_content = math.inf
        self._wait = Wait.OPENING
        self._by_total = False
        self._deadline = math.inf  # of the scope, which takes longer to tell
        self._set(Wait.OPENING, math.inf)

    def opening(self) -> None:
        """A slot or a pause is awaited."""
        self._set(Wait.OPENING, math.inf)

    def request_sent(self) -> None:
        """A request goes out: its clock starts."""
        self._first_content = _after(self._timeouts.first_content)
        self._set(Wait.FIRST_CONTENT, self._first_content)

    @contextmanager
    def subscriber(self, *, is_complete: bool = False) -> Generator[None]:
        """Only this side is being waited for: a time that is not the server's.

        Args:
            is_complete: Whether the answer is complete, so that ``total`` is over.
        """
        self._set(Wait.SUBSCRIBER, math.inf, total=math.inf if is_complete else self._total)
        since = anyio.current_time()
        yield
        self._first_content += anyio.current_time() - since

    def first_content(self) -> None:
        """Content is awaited, for the first time."""
        self._set(Wait.FIRST_CONTENT, self._first_content)

    def next_chunk(self, since: float) -> None:
        """The next chunk is awaited; the last came at ``since``."""
        idle = math.inf if self._timeouts.idle is None else self._timeouts.idle
        tolerance = idle * _IDLE_TOLERANCE
        if self._wait is Wait.NEXT_CHUNK and 0 <= self._deadline - since - idle <= tolerance:
            return
        self._set(Wait.NEXT_CHUNK, since + idle + tolerance)

    def end(self, deadline: float) -> None:
        """The answer is complete; only the end of the response is awaited."""
        self._set(Wait.END, deadline)

    def drain(self, seconds: float) -> None:
        """The answer is complete; the rest of the body is read, but not for long."""
        self._set(Wait.DRAIN, anyio.current_time() + seconds, total=math.inf)

    def error(self) -> APITimeoutError | None:
        """The error of the limit that ran out, or None if none did that makes one."""
        if anyio.current_time() < self.scope.deadline or self._wait in _ENDS_WELL:
            return None
        found = _TOTAL if self._by_total else _ERRORS.get(self._wait)
        if found is None:
            return None
        cls, message = found
        return cls(message.format(timeouts=self._timeouts))

    def _set(self, wait: Wait, deadline: float, *, total: float | None = None) -> None:
        if self._wait is Wait.DRAIN and wait is not Wait.DRAIN:
            return  # whatever still comes, it is being ended
        self._wait = wait
        total = self._total if total is None else total
        self._by_total = total < deadline
        deadline = min(total, deadline)
        if deadline != self._deadline:
            self.scope.deadline = self._deadline = deadline


def _after(seconds: float | None) -> float:
    return math.inf if seconds is None else anyio.current_time() + seconds
