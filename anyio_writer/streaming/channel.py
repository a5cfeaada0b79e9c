"""The channel to one subscriber: a memory object stream of batches, bounded in events."""

from __future__ import annotations

import inspect
import math
from sys import intern
from typing import Any, Final, Literal, TypeAlias

import anyio

from .changing import Changing

OnFull: TypeAlias = Literal["wait", "drop_oldest", "fail"]
Batch: TypeAlias = list[Any]

_PACKAGE: Final = __name__.partition(".")[0] + "."

DEFAULT_MAX_BUFFER: Final = 1024
"""How many events may be buffered for one subscriber."""

YIELD_EVERY: Final = 64
"""After how many buffered events a subscriber lets all other tasks run."""


class Channel(Changing):
    """Buffers the events that one subscriber has not read yet.

    The items of the memory object stream are batches. Its own bound counts items, so it is left
    unbounded, and the bound in events is kept beside it.

    No task waits in ``receive()``: an item that is handed over there is lost if the task is
    cancelled natively before it runs. A task that has to wait waits for a change, then tries again.
    """

    __slots__ = (
        "_oldest",
        "_receive_stream",
        "_send_stream",
        "buffered",
        "created_at",
        "dropped",
        "has_ended",
        "is_closed",
        "is_lagging",
        "is_lossy",
        "is_reported",
        "max_buffer",
        "name",
        "on_full",
        "types",
    )

    def __init__(
        self,
        *,
        types: frozenset[type] | None = None,
        max_buffer: int = DEFAULT_MAX_BUFFER,
        on_full: OnFull = "wait",
        name: str = "",
        created_at: str = "",
    ) -> None:
        super().__init__()
        self._send_stream, self._receive_stream = anyio.create_memory_object_stream[Batch](math.inf)
        self._oldest: Batch = []  # what dropping has left of the oldest batch
        self.types: Final = types
        """Only events of these classes; all events if None."""
        self.max_buffer: Final = max_buffer
        self.on_full: Final = on_full
        self.is_lossy: Final = on_full != "wait"
        """Whether the publisher goes on when there is no capacity."""
        self.name: Final = name
        self.created_at: Final = created_at
        """File and line of the code that subscribed."""
        self.buffered: int = 0
        """Events that are buffered now."""
        self.dropped: int = 0
        """Events that were dropped because the subscriber was slow ("drop_oldest")."""
        self.has_ended: bool = False
        """Whether nothing more will be sent."""
        self.is_closed: bool = False
        """Whether the subscriber has left."""
        self.is_lagging: bool = False
        """Whether the channel ended because the subscriber was slow ("fail")."""
        self.is_reported: bool = False
        """Whether the log has named this subscriber as the one that blocks its stream."""

    def __str__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"subscription{name} created at {self.created_at}"

    # The publisher's side.

    def send_nowait(self, events: Batch) -> Batch:
        """Buffer events; returns those for which there is no capacity, which a lossy one never has.

        Events for a subscriber that has left or lags are discarded.
        """
        if self.is_closed or self.is_lagging:
            return []
        free = self.max_buffer - self.buffered
        unsent: Batch = []
        try:
            if len(events) > free:
                if self.on_full == "wait":
                    events, unsent = events[:free], events[free:]
                elif self.on_full == "fail":
                    self.is_lagging = True
                    self.end()
                    return unsent
                else:
                    events = self._drop_oldest(events)
            if events:
                self._send_stream.send_nowait(events)
                self.buffered += len(events)
                self.notify()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return []  # a finaliser has closed it just now
        return unsent

    def _drop_oldest(self, events: Batch) -> Batch:
        """Drop what is necessary for the newest events; returns those of ``events`` that fit."""
        surplus = self.buffered + len(events) - self.max_buffer
        self.dropped += surplus
        while self.buffered and surplus:
            oldest = self._oldest or self._receive_stream.receive_nowait()
            self._oldest = oldest[surplus:]
            gone = len(oldest) - len(self._oldest)
            self.buffered -= gone
            surplus -= gone
        return events[surplus:]

    def end(self) -> None:
        """Nothing more will be sent; what is buffered can still be received."""
        self.has_ended = True
        self._send_stream.close()
        self.notify()

    # The subscriber's side.

    def receive_nowait(self) -> Batch:
        """All that is buffered, in a list of its own; empty if nothing is."""
        events, self._oldest = self._oldest, []
        while len(events) < self.buffered:
            events += self._receive_stream.receive_nowait()
        self.buffered = 0
        self.notify()
        return events

    def close(self) -> None:
        """Leave: what is buffered is discarded, and all tasks that wait here check again."""
        self.close_unnoticed()
        self.notify()

    def close_unnoticed(self) -> None:
        """Leave without waking anybody, which is safe in any thread and in any finaliser.

        A publisher notices with the next events, or when it next checks.
        """
        self.is_closed = self.has_ended = True
        self.buffered = 0
        self._receive_stream.close()
        self._send_stream.close()


def location_of_caller() -> str:
    """File and line of the code that called into this library."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        frame = frame.f_back
    # Thousands of streams are read at the same line.
    return intern(f"{frame.f_code.co_filename}:{frame.f_lineno}") if frame is not None else "?"
