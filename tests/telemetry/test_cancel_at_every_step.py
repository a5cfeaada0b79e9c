"""A conversation with retries and tools, cancelled at each step: what begins ends, once."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from opentelemetry import trace

from anyio_writer import StreamObserver, function_tool, open_conversation
from anyio_writer.telemetry import (
    ConversationEnded,
    ConversationStarted,
    RequestPrepared,
    StreamEnded,
    ToolEnded,
    ToolStarted,
)
from tests.lifetimes.lifetime_helpers import HANGS, WAYS, cancelled_at
from tests.streaming.helpers import REQUEST, Body, client_for
from tests.telemetry.conftest import SDK
from tests.telemetry.endings import WHOLE
from tests.telemetry.tour import calling


class Pairs(StreamObserver):
    """Writes down what has begun and what has ended."""

    def __init__(self) -> None:
        self.begun: Counter[Any] = Counter()
        self.ended: Counter[Any] = Counter()

    def request_prepared(self, observed: RequestPrepared) -> None:
        assert not self.ended[observed.stream]
        self.begun[observed.stream] = 1

    def stream_ended(self, observed: StreamEnded) -> None:
        self.ended[observed.stream] += 1

    def tool_started(self, observed: ToolStarted) -> None:
        self.begun[id(observed.call)] += 1

    def tool_ended(self, observed: ToolEnded) -> None:
        self.ended[id(observed.call)] += 1

    def conversation_started(self, observed: ConversationStarted) -> None:
        self.begun[observed.conversation] += 1

    def conversation_ended(self, observed: ConversationEnded) -> None:
        self.ended[observed.conversation] += 1


@function_tool
async def slow() -> str:
    for _ in range(3):
        await checkpoint()
    return "done"


@function_tool
def threaded() -> str:
    return "done"


async def test_what_begins_ends_once_whenever_it_is_cancelled(
    anyio_backend_name: str, sdk: SDK, caplog: pytest.LogCaptureFixture
) -> None:
    otel = sdk.observer()
    pairs = Pairs()

    async def scenario() -> None:
        async with client_for(calling("slow"), Body(*WHOLE)) as client:
            async with open_conversation(
                client=client, tools=[slow, threaded], observer=[otel, pairs], **REQUEST
            ) as conversation:
                await conversation.until_done()

    for way in WAYS[anyio_backend_name]:
        for step in itertools.count(1):
            pairs.begun.clear()
            pairs.ended.clear()
            sdk.exporter.clear()
            with anyio.fail_after(HANGS):
                got_through = await cancelled_at(step, way, scenario)
            assert not trace.get_current_span().is_recording()
            assert set(pairs.ended.values()) <= {1}
            assert pairs.begun.keys() <= pairs.ended.keys()
            kept = [each for each in vars(otel).values() if isinstance(each, dict)]
            assert kept == [{}, {}, {}]
            assert len(sdk.spans()) == len(pairs.begun)
            if got_through:
                break
        assert step > 15, "the scenario is not cancelled anywhere"
        assert len(sdk.spans()) == 4
    assert "detach" not in caplog.text
