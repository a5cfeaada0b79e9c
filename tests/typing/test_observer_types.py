"""What type checkers see of timings and observers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_type

from anyio_writer import (
    AsyncWriter,
    ChatCompletionStream,
    StreamObserver,
    Timings,
    chat_stream_from,
    open_chat_stream,
)
from anyio_writer.telemetry import (
    BatchReceived,
    OpenTelemetryObserver,
    Outcome,
    RequestPrepared,
    StreamEnded,
)
from tests.streaming.helpers import REQUEST, Body


class Mine(StreamObserver):
    """Only some of the methods."""

    def request_prepared(self, observed: RequestPrepared) -> None:
        assert_type(observed.headers, dict[str, str])
        assert_type(observed.stream, ChatCompletionStream[Any])

    def batch_received(self, observed: BatchReceived) -> None:
        assert_type(observed.seconds, float)

    def stream_ended(self, observed: StreamEnded) -> None:
        assert_type(observed.outcome, Outcome)
        assert_type(observed.error, Exception | None)
        assert_type(observed.timings, Timings)
        assert_type(observed.timings.tokens_per_second(), float | None)


def test_observers_may_be_given_in_these_ways() -> None:
    several: Sequence[StreamObserver] = [Mine(), OpenTelemetryObserver()]
    writer = AsyncWriter(api_key="key", observer=Mine())
    writer.with_options(observer=several)
    writer.with_options(observer=None)
    assert_type(chat_stream_from(Body(), observer=[Mine()]).timings, Timings)
    assert_type(open_chat_stream(observer=OpenTelemetryObserver(), **REQUEST).timings, Timings)
