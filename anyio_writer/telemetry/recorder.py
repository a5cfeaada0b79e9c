"""What a stream notes while it runs: times for its users, calls to observers, lines in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from ..errors import APITimeoutError, StreamClosedError, StreamTruncatedError
from ..protocol.state import StreamState
from . import logs
from .observer import (
    AttemptFailed,
    BatchReceived,
    ContentStarted,
    HeadersReceived,
    Observers,
    Outcome,
    RequestPrepared,
    StreamEnded,
)
from .timings import Timings

if TYPE_CHECKING:
    from ..streaming.stream import ChatCompletionStream


class Recorder:
    """The record of one stream. The source and the pump write to it, all in the stream's own task.

    Args:
        observers: Whom to notify.
    """

    __slots__ = (
        "_attempts",
        "_content_at",
        "_ended",
        "_first_chunk",
        "_first_content",
        "_headers",
        "_is_in_flight",
        "_last_content",
        "_observers",
        "_origin",
        "_request_sent",
        "_started_at",
        "_stream",
    )

    def __init__(self, observers: Observers | None) -> None:
        self._observers = observers
        self._stream: Any = None  # whom observers hear of, while it runs
        self._origin: float | None = None  # of these times, by the event loop's clock
        self._started_at: float | None = None
        self._attempts = 0
        self._is_in_flight = False
        self._request_sent: float | None = None
        self._headers: float | None = None
        self._first_chunk: float | None = None
        self._first_content: float | None = None
        self._last_content: float | None = None
        self._ended: float | None = None
        self._content_at = 0  # the state's, when content was last noted

    def timings(
        self, *, chunk_count: int, bytes_received: int, completion_tokens: int | None
    ) -> Timings:
        """What is known by now."""
        return Timings(
            started_at=self._started_at,
            request_sent=self._request_sent,
            headers=self._headers,
            first_chunk=self._first_chunk,
            first_content=self._first_content,
            last_content=self._last_content,
            ended=self._ended,
            attempts=self._attempts,
            chunk_count=chunk_count,
            bytes_received=bytes_received,
            completion_tokens=completion_tokens,
        )

    def begin(self, stream: ChatCompletionStream[Any]) -> None:
        """The stream runs from now on."""
        if self._observers is not None:
            self._stream = stream

    def opened(self) -> None:
        """There is something to read, without a request."""
        self._elapsed()

    def request_prepared(self, url: str, content: bytes) -> Mapping[str, str]:
        """A request goes out, perhaps again; returns the headers to add to it."""
        self._request_sent = self._elapsed()
        self._headers = None
        self._attempts += 1
        self._is_in_flight = True
        logs.log_request(self._attempts, url)
        headers: dict[str, str] = {}
        if self._observers is not None and self._observers.wants(RequestPrepared):
            self._observers.notify(
                RequestPrepared(
                    stream=self._stream,
                    attempt=self._attempts,
                    url=url,
                    content=content,
                    headers=headers,
                )
            )
        return headers

    def headers_received(self, response: Any) -> None:
        """A response has come, whatever its status."""
        self._headers = self._elapsed()
        if self._observers is not None:
            self._observers.notify(HeadersReceived(stream=self._stream, response=response))

    def attempt_failed(self, error: Exception, wait: float | None) -> None:
        """A request failed, and will be sent again after ``wait`` seconds unless that is None."""
        if not self._is_in_flight:
            return  # it never went out
        self._is_in_flight = False
        logs.log_failure(self._attempts, error, wait)
        if self._observers is not None:
            self._observers.notify(
                AttemptFailed(stream=self._stream, attempt=self._attempts, error=error, wait=wait)
            )

    def chunks_received(
        self,
        state: StreamState[Any],
        now: float,
        chunk_count: int,
        events: Sequence[Any] | None,
    ) -> None:
        """Chunks were parsed.

        Args:
            state: What they have been added to.
            now: When they came, by the event loop's clock.
            chunk_count: How many they are.
            events: Their events, unless nobody wants any.
        """
        now -= self._origin or 0.0
        if self._first_chunk is None:
            self._first_chunk = now
        if state.content_at != self._content_at:
            self._content_at = state.content_at
            self._last_content = now
            if self._first_content is None:
                self._first_content = now
                if self._observers is not None:
                    self._observers.notify(ContentStarted(stream=self._stream, seconds=now))
        if self._observers is not None and self._observers.wants(BatchReceived):
            self._observers.notify(
                BatchReceived(
                    stream=self._stream,
                    seconds=now,
                    chunk_count=chunk_count,
                    events=tuple(events or ()),
                )
            )

    def ended(self) -> None:
        """It is known how the stream ended."""
        if self._origin is not None:
            self._ended = self._elapsed()

    def report_end(
        self, stream: ChatCompletionStream[Any], error: Exception | None, outcome: Outcome
    ) -> None:
        """Log how it ended, and notify the observers."""
        self._stream = None
        if self._observers is None and not logs.logger.isEnabledFor(logging.INFO):
            return
        timings = stream.timings
        logs.log_end(
            outcome,
            error,
            response=stream.response,
            request_id=stream.request_id,
            timings=timings,
        )
        if self._observers is not None:
            self._observers.notify(
                StreamEnded(stream=stream, outcome=outcome, error=error, timings=timings)
            )

    def _elapsed(self) -> float:
        now = anyio.current_time()
        if self._origin is None:
            self._origin = now
            self._started_at = time.time()
        return now - self._origin


def outcome_of(error: Exception | None, *, is_cancelled: bool = False) -> Outcome:
    """How something ended that ended with this error."""
    if error is None:
        return "complete"
    if isinstance(error, StreamClosedError):
        return "cancelled" if is_cancelled else "closed"
    if isinstance(error, StreamTruncatedError):
        return "truncated"
    return "timeout" if isinstance(error, APITimeoutError) else "failed"
