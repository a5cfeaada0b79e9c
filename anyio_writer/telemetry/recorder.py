"""What a stream notes while it runs: written by its source and its pump, read as ``Timings``."""

from __future__ import annotations

import time

import anyio

from ..protocol.state import ChatCompletionStreamState
from .timings import Timings


class Recorder:
    """The times and counts of one stream. All is noted in the stream's own task."""

    __slots__ = (
        "_content_at",
        "_origin",
        "attempts",
        "ended",
        "first_chunk",
        "first_content",
        "headers",
        "last_content",
        "request_sent",
        "started_at",
    )

    def __init__(self) -> None:
        self.started_at: float | None = None
        self.attempts: int = 0
        self.request_sent: float | None = None
        self.headers: float | None = None
        self.first_chunk: float | None = None
        self.first_content: float | None = None
        self.last_content: float | None = None
        self.ended: float | None = None
        self._origin: float | None = None  # of these, by the event loop's clock
        self._content_at = 0  # the state's, when content was last noted

    def timings(
        self, *, chunk_count: int, bytes_received: int, completion_tokens: int | None
    ) -> Timings:
        """What is known by now."""
        return Timings(
            started_at=self.started_at,
            request_sent=self.request_sent,
            headers=self.headers,
            first_chunk=self.first_chunk,
            first_content=self.first_content,
            last_content=self.last_content,
            ended=self.ended,
            attempts=self.attempts,
            chunk_count=chunk_count,
            bytes_received=bytes_received,
            completion_tokens=completion_tokens,
        )

    def opened(self) -> None:
        """There is something to read, without a request."""
        self._elapsed()

    def request_prepared(self) -> None:
        """A request goes out, perhaps again."""
        self.request_sent = self._elapsed()
        self.headers = None
        self.attempts += 1

    def headers_received(self) -> None:
        """A response has come, whatever its status."""
        self.headers = self._elapsed()

    def chunks_received(self, state: ChatCompletionStreamState[object], now: float) -> None:
        """Chunks were parsed.

        Args:
            state: What they have been added to.
            now: When they came, by the event loop's clock.
        """
        now -= self._origin or 0.0
        if self.first_chunk is None:
            self.first_chunk = now
        if state.content_at != self._content_at:
            self._content_at = state.content_at
            self.last_content = now
            if self.first_content is None:
                self.first_content = now

    def stream_ended(self) -> None:
        """It is known how the stream ended."""
        if self._origin is not None:
            self.ended = self._elapsed()

    def _elapsed(self) -> float:
        now = anyio.current_time()
        if self._origin is None:
            self._origin = now
            self.started_at = time.time()
        return now - self._origin
