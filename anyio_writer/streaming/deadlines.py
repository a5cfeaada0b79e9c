"""The time limits of a stream: one cancel scope whose deadline moves with what is awaited."""

from __future__ import annotations

import math
from collections.abc import Awaitable
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
    """What the stream's task waits for."""

    OPENING = "opening"  # a slot, a pause before a retry: only the total limit runs
    FIRST_CONTENT = "first content"
    NEXT_CHUNK = "next chunk"
    END = "end"  # the answer is complete; usage may still come
    SUBSCRIBER = "subscriber"  # a consumer is slow, or does not read yet
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
"""How much longer than ``idle`` a silence may last, as a fraction of it.

Moving a deadline costs more than reading a chunk, so it is not moved for each chunk.
"""

_ENDS_WELL: Final = frozenset({Wait.END, Wait.DRAIN})
"""The answer is complete, so that running out of time costs nothing."""


class Deadlines:
    """Keeps the deadline of ``scope`` at the limit that runs out first.

    All limits but ``total`` are for the server: time that subscribers take does not count.
    """

    __slots__ = (
        "_by_total",
        "_complete_since",
        "_deadline",
        "_end_grace",
        "_first_content",
        "_idle",
        "_last_bytes",
        "_last_chunk",
        "_paused",
        "_timeouts",
        "_tolerance",
        "_total",
        "_wait",
        "is_paused",
        "scope",
    )

    def __init__(self, timeouts: Timeouts, end_grace: float) -> None:
        self.scope: Final = anyio.CancelScope()
        self.is_paused: bool = False
        """Whether a subscriber is being waited for."""
        self._timeouts = timeouts
        self._end_grace = end_grace
        self._paused = 0.0  # seconds, in all
        # The limits for the server count from these, by the clock less what was paused.
        self._last_bytes = 0.0
        self._last_chunk = 0.0
        self._complete_since: float | None = None
        self._first_content = math.inf  # a deadline, by the same clock
        self._total = math.inf if timeouts.total is None else anyio.current_time() + timeouts.total
        self._idle = math.inf if timeouts.idle is None else timeouts.idle
        self._tolerance = self._idle * _IDLE_TOLERANCE
        self._wait = Wait.OPENING
        self._by_total = False
        self._deadline = math.inf  # of the scope, which takes longer to read
        self._set(Wait.OPENING, math.inf)

    # What has happened.

    def bytes_received(self, now: float) -> None:
        """The server has sent something."""
        self._last_bytes = now - self._paused

    def chunk_received(self) -> None:
        """There was a chunk in the last bytes."""
        self._last_chunk = self._last_bytes

    # What is awaited.

    def opening(self) -> None:
        """A slot or the time of a retry is awaited."""
        self._set(Wait.OPENING, math.inf)

    def request_sent(self) -> None:
        """A request goes out: its clock starts."""
        limit = self._timeouts.first_content
        now = anyio.current_time() - self._paused
        self._first_content = math.inf if limit is None else now + limit
        self._set(Wait.FIRST_CONTENT, self._first_content)

    async def pause(self, waiting: Awaitable[None], *, is_complete: bool = False) -> None:
        """Wait for a subscriber.

        Args:
            waiting: What to wait for.
            is_complete: Whether the answer is complete, so that ``total`` is over.
        """
        self.is_paused = True
        self._set(Wait.SUBSCRIBER, math.inf, total=math.inf if is_complete else self._total)
        since = anyio.current_time()
        await waiting
        self._paused += anyio.current_time() - since
        self.is_paused = False

    def next_bytes(self, *, has_content: bool, is_complete: bool) -> None:
        """The server is to send more.

        Args:
            has_content: Whether there was content already.
            is_complete: Whether the answer is complete, so that only the end is missing.
        """
        if is_complete:
            if self._complete_since is None:
                self._complete_since = self._last_bytes
            self._set(Wait.END, self._complete_since + self._end_grace)
            return
        self._complete_since = None
        if not has_content:
            self._set(Wait.FIRST_CONTENT, self._first_content)
            return
        limit = self._last_chunk + self._idle
        if self._wait is not Wait.NEXT_CHUNK or not (
            0 <= self._deadline - self._paused - limit <= self._tolerance
        ):
            self._set(Wait.NEXT_CHUNK, limit + self._tolerance)

    def drain(self, seconds: float) -> None:
        """The answer is complete; the rest of the body is read, but not for long."""
        now = anyio.current_time() - self._paused
        self._set(Wait.DRAIN, now + seconds, total=math.inf)

    def error(self) -> APITimeoutError | None:
        """The error of the limit that ran out, or None if none did that makes one."""
        if anyio.current_time() < self.scope.deadline or self._wait in _ENDS_WELL:
            return None
        cls, message = _TOTAL if self._by_total else _ERRORS[self._wait]
        return cls(message.format(timeouts=self._timeouts))

    def _set(self, wait: Wait, deadline: float, *, total: float | None = None) -> None:
        if self._wait is Wait.DRAIN:
            return  # the stream is being ended, whatever else happens, and once
        self._wait = wait
        deadline += self._paused
        total = self._total if total is None else total
        self._by_total = total < deadline
        deadline = min(total, deadline)
        if deadline != self._deadline:
            self.scope.deadline = self._deadline = deadline
