"""``stream.timings``: when what happened, on clocks that jump."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from anyio_writer import (
    APIStatusError,
    FirstContentTimeoutError,
    StreamClosedError,
    StreamTruncatedError,
    Timeouts,
    Timings,
    chat_stream_from,
    function_tool,
    open_chat_stream,
    open_conversation,
)
from anyio_writer.transport import retries
from tests.streaming.helpers import DONE, QUESTION, REQUEST, STALL, USAGE, Body, chunk
from tests.streaming.jumping_clock import BACKENDS


@pytest.fixture(scope="module", params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return BACKENDS[request.param]


class Paced(Body):
    """A body that sleeps where its script holds a number of seconds."""

    async def _play(self) -> AsyncIterator[bytes]:
        for item in self.script:
            if isinstance(item, int | float):
                await anyio.sleep(item)
            elif item is STALL:
                await anyio.sleep_forever()
            else:
                yield item


class SlowAnswers(httpx.AsyncBaseTransport):
    """Answers each request with the next response, after a number of seconds."""

    def __init__(self, *answers: tuple[float, httpx.Response]) -> None:
        self.answers = list(answers)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        pause, response = self.answers.pop(0)
        await anyio.sleep(pause)
        return response


def ok(*script: Any) -> httpx.Response:
    return httpx.Response(200, stream=Paced(*script))


EMPTY = chunk("", role="assistant")


def test_nothing_has_happened_before_a_stream_is_entered() -> None:
    assert open_chat_stream(**REQUEST).timings == Timings()
    assert Timings().tokens_per_second() is None


async def test_each_time_is_when_it_happened() -> None:
    before = time.time()
    answer = ok(1, EMPTY, 2, chunk("a"), 4, chunk("b"), 8, chunk(None, "stop"), 16, USAGE, DONE)
    async with httpx.AsyncClient(transport=SlowAnswers((3, answer))) as client:
        stream = open_chat_stream(client=client, end_grace=20, **REQUEST)
        async with stream:
            timings = stream.timings
            assert timings.headers == pytest.approx(3)
            assert timings.ended is timings.first_chunk is timings.first_content is None
            await stream.until_done()
    timings = stream.timings
    assert timings.started_at is not None
    assert before <= timings.started_at <= time.time()
    assert timings.request_sent == 0
    assert timings.first_chunk == pytest.approx(3 + 1)
    assert timings.first_content == pytest.approx(3 + 1 + 2)
    assert timings.last_content == pytest.approx(3 + 1 + 2 + 4 + 8)  # a finish reason is content
    assert timings.ended == pytest.approx(3 + 1 + 2 + 4 + 8 + 16)
    assert timings.attempts == 1
    assert timings.chunk_count == stream.chunk_count == 5
    assert timings.bytes_received == stream.bytes_received
    assert timings.completion_tokens == 2
    assert timings.tokens_per_second() == pytest.approx(2 / (4 + 8))


async def test_each_kind_of_content_counts() -> None:
    call = chunk(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}])
    for content in (chunk("a"), chunk(reasoning_content="a"), chunk(refusal="a"), call):
        async with chat_stream_from(Paced(1, EMPTY, 1, content, 1, EMPTY, STALL)) as stream:
            await anext(stream)
            with anyio.move_on_after(5):
                await stream.until_done()
            assert stream.timings.first_content == pytest.approx(2)
            assert stream.timings.last_content == pytest.approx(2)
            assert stream.timings.first_chunk == pytest.approx(1)


async def test_content_after_a_finish_reason_is_the_last() -> None:
    source = Paced(chunk("a", "stop"), 1, chunk("b", "stop"), 2, chunk("c", "stop"), 4, USAGE, DONE)
    async with chat_stream_from(source) as stream:
        assert await stream.get_final_text() == "abc"
    assert stream.timings.last_content == pytest.approx(3)
    assert stream.timings.ended == pytest.approx(7)


async def test_a_block_without_its_blank_line_counts() -> None:
    source = Paced(1, chunk("a", "stop").rstrip())
    async with chat_stream_from(source) as stream:
        await stream.until_done()
    assert stream.timings.first_content == stream.timings.last_content == pytest.approx(1)
    assert stream.timings.tokens_per_second() is None


async def test_bytes_from_elsewhere_have_no_request() -> None:
    async with chat_stream_from(Paced(1, chunk("a", "stop"), DONE)) as stream:
        await stream.until_done()
    timings = stream.timings
    assert timings.request_sent is timings.headers is None
    assert timings.attempts == 0
    assert timings.ended == pytest.approx(1)
    assert timings.started_at is not None


async def test_a_slow_subscriber_does_not_change_when_content_came() -> None:
    events = [1, *(chunk("x") for _ in range(8)), chunk(None, "stop"), DONE]
    async with chat_stream_from(Paced(*events)) as stream:
        subscription = stream.subscribe(max_buffer=2)
        await anext(subscription)
        await anyio.sleep(100)
        assert stream.timings.first_content == pytest.approx(1)
        assert stream.timings.last_content == pytest.approx(1)
        async for _ in subscription:
            pass
    assert stream.timings.last_content == pytest.approx(101)  # read when there was capacity


async def test_a_request_that_was_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_JITTER", 0)
    busy = httpx.Response(503, headers={"retry-after": "7"})
    transport = SlowAnswers((1, busy), (2, ok(chunk("a", "stop"), DONE)))
    async with httpx.AsyncClient(transport=transport) as client:
        stream = open_chat_stream(client=client, **REQUEST)
        async with stream:
            await stream.until_done()
    assert stream.timings.attempts == 2
    assert stream.timings.request_sent == pytest.approx(1 + 7)
    assert stream.timings.headers == pytest.approx(1 + 7 + 2)


async def test_errors_say_when_what_happened() -> None:
    async with httpx.AsyncClient(transport=SlowAnswers((2, httpx.Response(401)))) as client:
        with pytest.raises(APIStatusError) as refused:
            async with open_chat_stream(client=client, **REQUEST):
                pass
    assert refused.value.timings is not None
    assert refused.value.timings.headers == refused.value.timings.ended == pytest.approx(2)
    assert refused.value.timings.first_chunk is None
    again = pickle.loads(pickle.dumps(copy.copy(refused.value)))  # noqa: S301 - our own
    assert again.timings == refused.value.timings

    with pytest.raises(FirstContentTimeoutError) as silent:
        async with chat_stream_from(Paced(STALL), timeouts=Timeouts(first_content=5)) as stream:
            await stream.until_done()
    assert silent.value.timings is not None
    assert silent.value.timings.ended == pytest.approx(5)

    with pytest.raises(StreamTruncatedError) as cut:
        async with chat_stream_from(Paced(1, chunk("a"), 1)) as stream:
            await stream.until_done()
    assert cut.value.timings == stream.timings
    assert cut.value.timings.chunk_count == 1

    async with chat_stream_from(Paced(1, chunk("a"), STALL)) as stream:
        async for _ in stream:
            break
    with pytest.raises(StreamClosedError) as left:
        await stream.until_done()
    assert left.value.timings == stream.timings
    assert left.value.timings is not None
    assert left.value.timings.first_content == pytest.approx(1)


async def test_a_conversation_has_the_timings_of_its_rounds() -> None:
    @function_tool
    async def double(number: int) -> int:
        await anyio.sleep(50)
        return 2 * number

    call = {"index": 0, "id": "c", "function": {"name": "double", "arguments": '{"number":1}'}}
    transport = SlowAnswers(
        (1, ok(2, chunk(tool_calls=[call]), chunk(None, "tool_calls"), DONE)),
        (3, ok(4, chunk("two", "stop"), DONE)),
    )
    async with httpx.AsyncClient(transport=transport) as client:
        conversation = open_conversation(client=client, api_key="key", tools=[double], **QUESTION)
        assert conversation.timings == [Timings()]
        async with conversation:
            assert [each.headers for each in conversation.timings] == [pytest.approx(1)]
            await conversation.until_done()
    first, second = conversation.timings
    assert first.first_content == pytest.approx(1 + 2)
    assert first.ended == pytest.approx(1 + 2)  # the tool's time is not the stream's
    assert second.first_content == second.ended == pytest.approx(3 + 4)
    assert second.started_at is not None
