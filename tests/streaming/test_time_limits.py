"""The time limits, on clocks that jump."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from anyio_writer import (
    APITimeoutError,
    AsyncWriter,
    ChunkEvent,
    ConnectTimeoutError,
    FirstContentTimeoutError,
    IdleTimeoutError,
    Limits,
    StreamTruncatedError,
    Timeouts,
    TotalTimeoutError,
    chat_stream_from,
    open_chat_stream,
)
from tests.streaming.helpers import DONE, QUESTION, REQUEST, STALL, USAGE, Body, chunk, client_for
from tests.streaming.jumping_clock import BACKENDS, work

ROUNDING = 1e-6  # the clock of uvloop counts whole milliseconds from an odd start
SLACK = 0.05  # a deadline is moved now and then, not with each chunk


@pytest.fixture(scope="module", params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return BACKENDS[request.param]


class Paced:
    """A body that says each thing after a pause."""

    def __init__(self, *script: tuple[float, Any]) -> None:
        self.script = script

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for pause, data in self.script:
            await anyio.sleep(pause)
            yield data
        await anyio.sleep_forever()


PING = b": ping\n\n"
EMPTY = chunk("", role="assistant")


async def expect(
    error: type[Exception], after: float, source: Any, **settings: Any
) -> APITimeoutError:
    start = anyio.current_time()
    with pytest.raises(error) as caught:
        async with chat_stream_from(source, **settings) as stream:
            await stream.until_done()
    took = anyio.current_time() - start
    assert after - ROUNDING <= took <= after + 3 * SLACK
    assert isinstance(caught.value, APITimeoutError)
    return caught.value


async def test_what_is_complete_is_not_late_while_it_is_drained() -> None:
    limits = Limits(drain_time=4)
    whole = Paced((0, chunk("Hello")), (0, chunk(None, "stop")))
    async with chat_stream_from(whole, timeouts=Timeouts(total=2), limits=limits) as stream:
        async for event in stream:
            if event.type == "content.done":
                break
        await anyio.wait_all_tasks_blocked()
    assert await stream.get_final_text() == "Hello"


@pytest.mark.parametrize("unread", [{"max_buffer": 4}, {"max_buffer": 2, "on_full": "fail"}])
async def test_what_is_complete_is_not_late_while_a_consumer_is_waited_for(unread: Any) -> None:
    source = Paced((0, chunk("Hello")), (0, chunk(None, "stop")), (3, USAGE))
    settings: Any = {"timeouts": Timeouts(total=2), "end_grace": 8}
    async with chat_stream_from(source, **settings) as stream:
        slow = stream.subscribe(**unread)

        async def read_late() -> None:
            await anyio.sleep(5)
            await slow.aclose()

        stream.start_soon(read_late)
        assert await stream.get_final_text() == "Hello"


async def test_first_content() -> None:
    timeouts = Timeouts(first_content=10)
    error = await expect(FirstContentTimeoutError, 10, Body(STALL), timeouts=timeouts)
    assert "first_content" in str(error)
    assert error.completion is None


async def test_keep_alives_and_empty_chunks_are_no_content() -> None:
    script = itertools.chain.from_iterable([(1, PING), (1, EMPTY)] for _ in range(50))
    timeouts = Timeouts(first_content=10.5, idle=3)
    await expect(FirstContentTimeoutError, 10.5, Paced(*script), timeouts=timeouts)


async def test_time_in_which_nobody_reads_does_not_count() -> None:
    body = Paced((1, chunk("a", "stop")))
    async with chat_stream_from(body, timeouts=Timeouts(first_content=3), end_grace=1) as stream:
        await anyio.sleep(10)
        assert await stream.get_final_text() == "a"


async def test_idle() -> None:
    body = Paced((1, chunk("a")), (1, chunk("b")), *[(1, PING)] * 50)
    timeouts = Timeouts(first_content=3, idle=5.5)
    error = await expect(IdleTimeoutError, 7.5, body, timeouts=timeouts)
    assert error.completion is not None
    assert error.completion.choices[0].message.content == "ab"


async def test_a_slow_consumer_is_not_an_idle_server() -> None:
    pieces = [(0.0, chunk("x")) for _ in range(1200)]
    body = Paced(*pieces, (2, chunk(None, "stop")))
    async with chat_stream_from(body, timeouts=Timeouts(idle=4), end_grace=1) as stream:
        await anext(stream)
        await anyio.sleep(20)
        assert len(await stream.get_final_text()) == 1200


async def test_total() -> None:
    body = Paced(*[(1, chunk("a"))] * 50)
    await expect(TotalTimeoutError, 7.5, body, timeouts=Timeouts(total=7.5))


async def test_total_counts_the_time_in_which_nobody_reads() -> None:
    with pytest.raises(TotalTimeoutError):
        async with chat_stream_from(Body(chunk("a", "stop")), timeouts=Timeouts(total=5)) as stream:
            await anyio.sleep(10)
            await stream.until_done()


async def test_total_counts_a_consumer_that_is_slow() -> None:
    pieces = [chunk("x") for _ in range(1200)]
    with pytest.raises(TotalTimeoutError):
        async with chat_stream_from(Body(*pieces), timeouts=Timeouts(total=5)) as stream:
            await anext(stream)
            await anyio.sleep(20)
            async for _ in stream:
                pass


async def test_no_limits() -> None:
    timeouts = Timeouts(first_content=None, idle=None)
    body = Paced((50, chunk("a")), (50, chunk("b", "stop")))
    async with chat_stream_from(body, timeouts=timeouts, end_grace=1) as stream:
        assert await stream.get_final_text() == "ab"


async def test_the_end_is_not_waited_for_longer_than_its_grace() -> None:
    start = anyio.current_time()
    timeouts = Timeouts(idle=1, total=20)
    body = Paced((0, chunk("a", "stop")), *[(1, PING)] * 50)
    async with chat_stream_from(body, timeouts=timeouts, end_grace=5) as stream:
        assert await stream.get_final_text() == "a"
    assert 5 <= anyio.current_time() - start <= 5 + SLACK


async def test_what_comes_within_the_grace_still_counts_and_does_not_extend_it() -> None:
    body = Paced((0, chunk("a", "stop")), (4, USAGE), (4, USAGE))
    start = anyio.current_time()
    async with chat_stream_from(body, end_grace=5) as stream:
        assert (await stream.get_final_completion()).usage is not None
    assert 5 <= anyio.current_time() - start <= 5 + SLACK


async def test_the_grace_begins_anew_with_the_end_of_another_choice() -> None:
    another = [(4, chunk("b", index=1)), (4, chunk(None, "stop", index=1))]
    body = Paced((0, chunk("a", "stop")), *another, (4, USAGE))
    start = anyio.current_time()
    async with chat_stream_from(body, end_grace=5) as stream:
        assert (await stream.get_final_completion()).usage is not None
    assert 13 <= anyio.current_time() - start <= 13 + SLACK


async def test_total_runs_while_a_connection_is_awaited() -> None:
    async with (
        client_for(Body(STALL)) as client,
        AsyncWriter(api_key="key", client=client, max_connections=1) as writer,
        writer.chat.stream(**QUESTION),
    ):
        start = anyio.current_time()
        with anyio.fail_after(10), pytest.raises(TotalTimeoutError):
            async with writer.with_options(timeouts=Timeouts(total=2)).chat.stream(**QUESTION):
                pass
        assert 2 - ROUNDING <= anyio.current_time() - start <= 2 + SLACK


async def test_total_does_not_spoil_a_complete_answer() -> None:
    body = Paced((0, chunk("a", "stop")))
    timeouts = Timeouts(total=2)
    async with chat_stream_from(body, timeouts=timeouts, end_grace=5) as stream:
        assert await stream.get_final_text() == "a"


class SlowTransport(httpx.AsyncBaseTransport):
    """Answers after a pause, with the given statuses in turn and then with a stream."""

    def __init__(self, pause: float, *statuses: int) -> None:
        self.pause = pause
        self.statuses = list(statuses)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anyio.sleep(self.pause)
        if self.statuses:
            return httpx.Response(self.statuses.pop(0))
        return httpx.Response(200, stream=Body(chunk("a", "stop")))


async def test_a_slow_subscriber_neither_uses_the_grace_up_nor_ends_it() -> None:
    body = Paced((0, chunk("a", "stop")), (1, USAGE), (1, USAGE))
    start = anyio.current_time()
    got: list[str] = []
    async with chat_stream_from(body, end_grace=5) as stream:
        slow = stream.subscribe(max_buffer=2)
        stream.start_soon(stream.until_done)
        await anyio.sleep(20)  # the usage has no room from 1 to 20
        async for event in slow:
            got.append(event.type)
        assert stream.usage is not None
    assert got.count("chunk") == 3
    assert 24 - ROUNDING <= anyio.current_time() - start <= 24 + SLACK


@pytest.mark.parametrize("on_full", ["fail", "drop_oldest"])
async def test_the_grace_may_end_while_a_lossy_subscriber_runs(on_full: Any) -> None:
    body = Paced((0, chunk("a", "stop")), (4, chunk("") * 10))
    async with chat_stream_from(body, end_grace=5) as stream:
        got = 0
        async for _ in stream.subscribe(ChunkEvent, max_buffer=8, on_full=on_full):
            got += 1
            if got == 2:
                work(2)
        assert await stream.get_final_text() == "a"
    assert got == 11


async def test_slow_headers_are_late_content() -> None:
    async with httpx.AsyncClient(transport=SlowTransport(10)) as client:
        with pytest.raises(FirstContentTimeoutError):
            async with open_chat_stream(
                **REQUEST, client=client, timeouts=Timeouts(first_content=5)
            ):
                pytest.fail("the block must not run")


async def test_each_attempt_has_its_own_first_content_limit() -> None:
    transport = SlowTransport(2, 503, 503)
    async with httpx.AsyncClient(transport=transport) as client:
        async with open_chat_stream(
            **REQUEST, client=client, timeouts=Timeouts(first_content=3)
        ) as stream:
            assert await stream.get_final_text() == "a"


async def test_total_bounds_retries_and_their_waits() -> None:
    transport = SlowTransport(1, *[503] * 20)
    start = anyio.current_time()
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(TotalTimeoutError):
            async with open_chat_stream(
                **REQUEST, client=client, max_retries=20, timeouts=Timeouts(total=6)
            ):
                pytest.fail("the block must not run")
    assert anyio.current_time() - start <= 6 + SLACK


async def test_connecting_has_a_limit_of_its_own() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        assert request.extensions["timeout"] == {
            "connect": 0.5,
            "read": None,
            "write": None,
            "pool": None,
        }
        raise httpx.ConnectTimeout("too slow", request=request)

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(ConnectTimeoutError, match="too slow"):
            async with open_chat_stream(
                **REQUEST, client=client, timeouts=Timeouts(connect=0.5), max_retries=0
            ):
                pytest.fail("the block must not run")


async def test_a_limit_that_ran_out_is_told_to_everybody() -> None:
    outcomes: list[Exception] = []

    async def read(stream: Any) -> None:
        try:
            async for _ in stream:
                pass
        except IdleTimeoutError as exc:
            outcomes.append(exc)

    body = Paced((0, chunk("a")))
    async with chat_stream_from(body, timeouts=Timeouts(idle=2)) as stream:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, stream)
            tasks.start_soon(read, stream)
        with pytest.raises(IdleTimeoutError):
            await stream.get_final_completion()
    assert len(outcomes) == 2


async def test_a_response_that_ends_in_time_is_truncated_and_not_late() -> None:
    async with client_for(Body(chunk("a"))) as client:
        with pytest.raises(StreamTruncatedError):
            async with open_chat_stream(**REQUEST, client=client) as stream:
                await stream.until_done()


async def test_leaving_is_bounded_though_the_server_goes_on() -> None:
    source = Paced((0, chunk("a", finish="stop")), *[(0.1, PING)] * 100)
    limits = Limits(drain_time=0.25)
    async with chat_stream_from(source, end_grace=50, limits=limits) as stream:
        async for event in stream:
            if event.type == "content.done":
                break
        await anyio.wait_all_tasks_blocked()
        start = anyio.current_time()
    assert anyio.current_time() - start <= 0.25 + SLACK
    assert (await stream.get_final_completion()).choices[0].finish_reason == "stop"


async def test_leaving_does_not_drain_while_a_subscriber_is_waited_for() -> None:
    source = Paced((0, chunk("a", finish="stop")), (50, DONE))
    async with chat_stream_from(source, limits=Limits(drain_time=4)) as stream:
        unread = stream.subscribe(max_buffer=1)
        await anext(stream.subscribe())
        await anyio.wait_all_tasks_blocked()
        start = anyio.current_time()
    assert anyio.current_time() - start <= SLACK
    assert unread.batch_nowait()


@pytest.mark.parametrize("how", ["the end is sent", "closed before"])
async def test_the_time_for_draining_begins_once(how: str) -> None:
    source = Paced((0, chunk("a", finish="stop")), (3, DONE))
    start = anyio.current_time()
    async with chat_stream_from(source, end_grace=50, limits=Limits(drain_time=4)) as stream:
        async for event in stream:
            if event.type == "content.delta":
                break
        if how == "closed before":
            with anyio.move_on_after(2):
                await stream.close()
    assert 4 <= anyio.current_time() - start <= 4 + SLACK
