"""The ways to read a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from typing import Any

import anyio
import pytest
import trio.testing
from anyio import wait_all_tasks_blocked
from anyio.from_thread import start_blocking_portal

from anyio_writer import (
    AsyncWriter,
    ChatCompletionStream,
    ContentDeltaEvent,
    InvalidParameterError,
    StreamClosedError,
    StreamTruncatedError,
    WriterError,
    chat_stream_from,
    open_chat_stream,
)
from anyio_writer.testing import ChatServer, text_reply
from tests.streaming.helpers import DONE, STALL, USAGE, Body, chunk

TEXT = "The quick brown fox jumps over the lazy dog."


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with ChatServer(text_reply(TEXT)) as server:
        yield server


async def test_the_guide_printing_loop(
    server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    client = AsyncWriter(api_key="key", base_url=server.url)
    async with client.chat.stream(
        model="palmyra-x-004",
        messages=[{"role": "user", "content": "Say something."}],
    ) as stream:
        async for event in stream:
            if event.type == "content.delta":
                print(event.content, flush=True, end="")
    await client.aclose()
    assert capsys.readouterr().out == TEXT


async def test_the_guide_final_completion_after_the_block(server: ChatServer) -> None:
    async with AsyncWriter(api_key="key", base_url=server.url) as client:
        async with client.chat.stream(
            model="palmyra-x-004",
            messages=[{"role": "user", "content": "Say something."}],
        ) as stream:
            async for _ in stream:
                pass
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.content == TEXT
    assert completion.choices[0].finish_reason == "stop"


async def test_the_guide_until_done(server: ChatServer) -> None:
    async with AsyncWriter(api_key="key", base_url=server.url) as client:
        async with client.chat.stream(
            model="palmyra-x-004",
            messages=[{"role": "user", "content": "Say something."}],
        ) as stream:
            assert await stream.until_done() is stream
            assert stream.current_completion_snapshot.choices[0].message.content == TEXT


async def test_final_completion_without_iteration_builds_no_events(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setattr("anyio_writer.protocol.machine.ChunkEvent", made.append)
    monkeypatch.setattr("anyio_writer.protocol.machine.ContentDeltaEvent", made.append)
    async with open_chat_stream(
        api_key="key",
        base_url=server.url,
        model="m",
        messages=[{"role": "user", "content": "Hi"}],
        stream_options={"include_usage": True},
    ) as stream:
        assert await stream.get_final_text() == TEXT
    assert made == []
    assert stream.usage is not None
    assert stream.usage.completion_tokens > 0
    assert stream.request_id == "req-0"
    assert stream.response is not None
    assert stream.response.status_code == 200
    assert stream.response.is_closed


async def test_reading_starts_with_the_first_demand() -> None:
    body = Body(chunk("a"), chunk(None, "stop"))
    async with chat_stream_from(body) as stream:
        await wait_all_tasks_blocked()
        assert body.reads == 0
        assert await stream.get_final_text() == "a"


async def test_all_results_can_be_asked_for_again_and_again() -> None:
    async with chat_stream_from(Body(chunk("a"), chunk("b", "stop"), USAGE)) as stream:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(stream.until_done)
                tasks.start_soon(stream.get_final_completion)
        assert await stream.get_final_text() == "ab"
    await stream.until_done()
    assert [event async for event in stream] == []
    assert await stream.get_final_text() == "ab"
    assert await stream.get_final_text(choice_index=7) == ""


async def test_batches_hold_what_one_read_brought() -> None:
    body = Body(chunk("a") + chunk("b"), b": ping\n\n", chunk("c", "stop"))
    async with chat_stream_from(body) as stream:
        batches = [[event.type for event in batch] async for batch in stream.batches()]
    assert batches == [
        ["chunk", "content.delta", "chunk", "content.delta"],
        ["chunk", "content.delta", "content.done"],
    ]


async def test_batches_after_single_steps_give_the_rest() -> None:
    async with chat_stream_from(Body(chunk("a") + chunk("b", "stop"))) as stream:
        first = await anext(stream)
        assert first.type == "chunk"
        rest = [event.type async for event in _flat(stream)]
    assert rest == ["content.delta", "chunk", "content.delta", "content.done"]


async def _flat(stream: ChatCompletionStream[Any]) -> AsyncIterator[Any]:
    batches = stream.batches()
    async for batch in batches:
        assert batch
        for event in batch:
            yield event


async def test_text_deltas_are_those_of_one_choice() -> None:
    script = [chunk("a"), chunk("x", index=1), chunk("b", "stop"), chunk(None, "stop", index=1)]
    async with chat_stream_from(Body(*script), n=2) as stream:
        assert [text async for text in stream.text_deltas()] == ["a", "b"]
    async with chat_stream_from(Body(*script), n=2) as stream:
        assert [text async for text in stream.text_deltas(1)] == ["x"]


async def test_every_step_is_a_cancellation_point_also_with_events_in_hand() -> None:
    body = Body(b"".join(chunk(str(i)) for i in range(50)), STALL)
    async with chat_stream_from(body) as stream:
        await anext(stream)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(stream)
        assert scope.cancelled_caught
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(stream.batches())
        assert scope.cancelled_caught
        # and nothing was lost
        event = await anext(stream)
        assert isinstance(event, ContentDeltaEvent)
        assert event.delta == "0"


async def test_buffered_events_do_not_keep_others_from_running() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    many = 400
    body = Body(b"".join(chunk("x") for _ in range(many)), chunk(None, "stop"))
    async with anyio.create_task_group() as tasks, chat_stream_from(body) as stream:
        tasks.start_soon(count)
        seen = 0
        async for _ in stream:
            seen += 1
        assert seen == 2 * many + 2
        tasks.cancel_scope.cancel()
    assert turns >= 5


@pytest.mark.parametrize("iterate", [False, True])
async def test_a_source_that_never_waits_does_not_keep_others_from_running(
    iterate: bool,
) -> None:
    async def rushed() -> AsyncIterator[bytes]:
        for _ in range(2000):
            yield chunk("x")
        yield chunk(None, "stop")

    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks, chat_stream_from(rushed()) as stream:
        tasks.start_soon(count)
        if iterate:
            async for _ in stream.batches():
                pass
        else:
            await stream.until_done()
        tasks.cancel_scope.cancel()
    assert turns > 10


async def test_two_tasks_share_the_events_and_lose_none() -> None:
    pieces = [str(i) for i in range(300)]
    script = [chunk(piece) for piece in pieces]
    got: list[list[Any]] = [[], []]

    async def read(stream: ChatCompletionStream[Any], mine: list[Any]) -> None:
        async for event in stream:
            mine.append(event)
            await anyio.lowlevel.checkpoint()

    async with chat_stream_from(Body(*script, chunk(None, "stop"))) as stream:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, stream, got[0])
            tasks.start_soon(read, stream, got[1])
    deltas = [[each.delta for each in mine if each.type == "content.delta"] for mine in got]
    assert sorted(deltas[0] + deltas[1], key=int) == pieces
    assert all(got)
    for mine in deltas:
        assert mine == sorted(mine, key=int)


async def test_a_cancelled_task_takes_no_events_with_it() -> None:
    """Whatever arrives while a waiting reader is being cancelled goes to the next one."""
    gates = [anyio.Event() for _ in range(20)]
    script: list[Any] = []
    for number, gate in enumerate(gates):
        script += [gate, chunk(str(number))]
    texts: list[str] = []
    async with chat_stream_from(Body(*script, chunk(None, "stop"))) as stream:

        async def read(scope: anyio.CancelScope) -> None:
            with scope:
                async for event in stream:
                    if event.type == "content.delta":
                        texts.append(event.delta)

        for gate in gates:
            async with anyio.create_task_group() as tasks:
                scope = anyio.CancelScope()
                tasks.start_soon(read, scope)
                await wait_all_tasks_blocked()
                gate.set()
                await anyio.lowlevel.checkpoint()
                scope.cancel()
        async for event in stream:
            if event.type == "content.delta":
                texts.append(event.delta)
    assert texts == [str(number) for number in range(len(gates))]


async def test_until_done_shares_with_an_iterating_task() -> None:
    gate = anyio.Event()
    body = Body(chunk("a"), gate, *(chunk("x") for _ in range(50)), chunk(None, "stop"))
    ended = False

    async def read(stream: ChatCompletionStream[Any]) -> None:
        nonlocal ended
        async for _ in stream:
            pass
        ended = True

    async with chat_stream_from(body) as stream:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, stream)
            await wait_all_tasks_blocked()
            tasks.start_soon(stream.until_done)
            await wait_all_tasks_blocked()
            gate.set()
        assert ended
        assert await stream.get_final_text() == "a" + "x" * 50


async def test_until_done_waits_for_the_end_though_the_iteration_is_closed() -> None:
    gate = anyio.Event()
    body = Body(chunk("a"), gate, chunk("b"), chunk(None, "stop"))
    texts: list[str] = []

    async def wait(stream: ChatCompletionStream[Any]) -> None:
        texts.append(await stream.get_final_text())

    async with chat_stream_from(body) as stream, anyio.create_task_group() as tasks:
        async with aclosing(stream.text_deltas()) as pieces:
            assert await anext(pieces) == "a"
            tasks.start_soon(wait, stream)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert not texts
        gate.set()
    assert texts == ["ab"]


async def test_an_unread_iteration_holds_the_server_back() -> None:
    pieces = [chunk("x") for _ in range(2000)]
    body = Body(*pieces, chunk(None, "stop"))
    async with chat_stream_from(body) as stream:
        await anext(stream)
        await wait_all_tasks_blocked()
        assert body.reads < 600  # 1,024 events, two to a piece
        assert await stream.get_final_text() == "x" * 2000


async def test_breaking_out_and_asking_for_the_rest() -> None:
    body = Body(*(chunk(str(i)) for i in range(10)), chunk(None, "stop"))
    async with chat_stream_from(body) as stream:
        async for event in stream:
            if event.type == "content.delta":
                break
        assert await stream.get_final_text() == "0123456789"


async def test_a_stream_that_is_not_open_says_so() -> None:
    stream = chat_stream_from(Body())
    with pytest.raises(WriterError, match="async with"):
        await anext(stream)
    with pytest.raises(WriterError, match="async with"):
        await stream.until_done()
    with pytest.raises(WriterError, match="async with"):
        await stream.close()
    async with chat_stream_from(Body(chunk("a", "stop"))) as stream:
        await stream.until_done()
    with pytest.raises(WriterError, match="only once"):
        await stream.__aenter__()


async def test_after_an_early_exit_the_result_is_an_error_with_what_had_arrived() -> None:
    async with chat_stream_from(Body(chunk("a"), STALL)) as stream:
        async for event in stream:
            if event.type == "content.delta":
                break
    with pytest.raises(StreamClosedError) as caught:
        await stream.get_final_completion()
    assert caught.value.completion is not None
    assert caught.value.completion.choices[0].message.content == "a"
    with pytest.raises(StreamClosedError):
        await stream.until_done()
    with pytest.raises(StreamClosedError):
        await anext(stream)


async def test_an_error_comes_after_the_good_events_and_anew_for_each() -> None:
    async with chat_stream_from(Body(chunk("a"), chunk("b"))) as stream:
        texts = []
        with pytest.raises(StreamTruncatedError) as first:
            async for event in stream:
                if event.type == "content.delta":
                    texts.append(event.delta)
        assert texts == ["a", "b"]
        with pytest.raises(StreamTruncatedError) as second:
            await stream.get_final_completion()
    assert first.value is not second.value
    assert str(first.value) == str(second.value)
    assert first.value.completion is not None
    assert first.value.completion.choices[0].message.content == "ab"
    assert first.value.__context__ is None


async def test_snapshots_read_late_are_those_read_live(server: ChatServer) -> None:
    live, events = [], []
    async with open_chat_stream(
        api_key="key",
        base_url=server.url,
        model="m",
        messages=[{"role": "user", "content": "Hi"}],
    ) as stream:
        async for event in stream:
            events.append(event)
            live.append(getattr(event, "snapshot", None))
    assert [getattr(event, "snapshot", None) for event in events] == live
    assert stream.bytes_received > 0
    assert stream.chunk_count == sum(event.type == "chunk" for event in events)


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, type("Own", (bytes,), {})])
async def test_bytes_in_any_form(form: Any) -> None:
    async with chat_stream_from(Body(form(chunk("a", "stop")))) as stream:
        assert await stream.get_final_text() == "a"


@pytest.mark.parametrize("tail", [[], [DONE], [USAGE], [USAGE, DONE]])
async def test_usage_and_done_are_optional(tail: list[bytes]) -> None:
    async with chat_stream_from(Body(chunk("a", "stop"), *tail)) as stream:
        completion = await stream.get_final_completion()
    assert (completion.usage is not None) == (USAGE in tail)


@pytest.mark.parametrize("index", ["0", -1, 0.0, None])
async def test_a_choice_that_is_none(index: Any) -> None:
    async with chat_stream_from(Body(chunk("a", finish="stop"))) as stream:
        with pytest.raises(InvalidParameterError, match=r"^choice_index must be a whole number"):
            stream.text_deltas(index)
        with pytest.raises(InvalidParameterError, match=r"^choice_index must be a whole number"):
            await stream.get_final_text(index)
        assert await stream.get_final_text() == "a"


def test_trio_as_a_guest_of_asyncio() -> None:
    """Both loops run in one thread; what counts is whose task it is."""

    async def read() -> str:
        more = trio.Event()

        async def later() -> None:
            await trio.testing.wait_all_tasks_blocked()
            more.set()

        class Source:
            async def body(self) -> Any:
                yield chunk("a")
                await more.wait()
                yield chunk("b", "stop")

        async with chat_stream_from(Source().body()) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(later)
            return await stream.get_final_text()

    async def host() -> Any:
        done = asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            read,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=done.set_result,
        )
        return (await done).unwrap()

    assert asyncio.run(host()) == "ab"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_iterator_that_is_made_in_another_thread(backend: str) -> None:
    """A plain generator over a portal asks for its iterator outside of the event loop."""

    async def source() -> AsyncIterator[bytes]:
        yield chunk("a")
        yield chunk("b", "stop")

    def pieces() -> Iterator[str]:
        with (
            start_blocking_portal(backend) as portal,
            portal.wrap_async_context_manager(chat_stream_from(source())) as stream,
        ):
            iterator = stream.text_deltas()
            with suppress(StopAsyncIteration):
                while True:
                    yield portal.call(iterator.__anext__)

    assert list(pieces()) == ["a", "b"]


@pytest.mark.parametrize(
    "pick",
    [
        lambda stream: stream,
        lambda stream: stream.batches(),
        lambda stream: stream.text_deltas(),
        lambda stream: stream.subscribe(),
        lambda stream: stream.subscribe().batches(),
    ],
    ids=["stream", "batches", "texts", "subscription", "its batches"],
)
async def test_whatever_is_iterated_can_be_closed(pick: Any) -> None:
    async with chat_stream_from(Body(chunk("a"), chunk("b", "stop"))) as stream:
        async with aclosing(pick(stream)) as iterator:
            async for _ in iterator:
                break
        with suppress(StreamClosedError):  # which the stream itself raises then
            async for _ in iterator:
                pass
