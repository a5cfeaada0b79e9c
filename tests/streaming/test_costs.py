"""What a chunk costs, in counts: they do not depend on how busy the machine is."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import trio
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_writer import AsyncWriter, ChatCompletionStream, chat_stream_from
from anyio_writer.protocol import machine, parsing
from anyio_writer.streaming.deadlines import Deadlines
from anyio_writer.testing import ChatServer, Hold, Reply, sse_event, writer_chunks
from anyio_writer.transport.chunked import SimpleChunks
from tests.streaming.helpers import QUESTION

TOKENS = 998
CHUNKS = TOKENS + 2
PER_READ = 20
READS = CHUNKS // PER_READ
BODY = [sse_event(chunk) for chunk in writer_chunks(" ".join(["token"] * TOKENS))]


class Reads:
    """A body that has a piece for each chunk, and has to wait for every ``PER_READ`` of them."""

    def __init__(self, pieces: list[bytes], per_read: int = PER_READ) -> None:
        self._pieces = iter(pieces)
        self._per_read = per_read
        self._count = 0
        self.waits = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._count % self._per_read == 0:
            self.waits += 1
            await checkpoint()
        self._count += 1
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


def count_calls(
    monkeypatch: pytest.MonkeyPatch, counts: Counter[str], owner: Any, name: str
) -> None:
    original = getattr(owner, name)

    def counted(*arguments: Any, **keywords: Any) -> Any:
        counts[name] += 1
        return original(*arguments, **keywords)

    monkeypatch.setattr(owner, name, counted)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often what costs time is called."""
    counted: Counter[str] = Counter()
    for owner, name in (
        (parsing, "_decode"),
        (parsing.ChunkParser, "_parse_slowly"),
        (machine, "ChunkEvent"),
        (machine, "ContentDeltaEvent"),
        (Deadlines, "next_bytes"),
        (Deadlines, "_set"),
    ):
        count_calls(monkeypatch, counted, owner, name)
    return counted


async def iterate(stream: ChatCompletionStream[None]) -> int:
    return len([event.type async for event in stream])


async def batches(stream: ChatCompletionStream[None]) -> int:
    return sum([len(batch) async for batch in stream.batches()])


async def nobody(stream: ChatCompletionStream[None]) -> int:
    await stream.get_final_completion()
    return 0


READERS = pytest.mark.parametrize("read", [iterate, batches, nobody])
EVENTS = CHUNKS + TOKENS + 1


@READERS
async def test_each_chunk_is_decoded_once(read: Any, counts: Counter[str]) -> None:
    async with chat_stream_from(Reads(BODY)) as stream:
        await read(stream)
    assert counts["_decode"] == CHUNKS
    assert counts["_parse_slowly"] == 0


@READERS
async def test_events_are_made_once_and_for_somebody(read: Any, counts: Counter[str]) -> None:
    async with chat_stream_from(Reads(BODY)) as stream:
        got = await read(stream)
    watched = read is not nobody
    assert got == (EVENTS if watched else 0)
    assert counts["ChunkEvent"] == (CHUNKS if watched else 0)
    assert counts["ContentDeltaEvent"] == (TOKENS if watched else 0)


async def test_more_consumers_make_no_more_events(counts: Counter[str]) -> None:
    got: list[int] = []

    async def count(consumer: Any) -> None:
        got.append(sum([len(batch) async for batch in consumer.batches()]))

    async with chat_stream_from(Reads(BODY)) as stream:
        for _ in range(7):
            stream.start_soon(count, stream.subscribe())
        await stream.until_done()
    assert got == [EVENTS] * 7
    assert counts["_decode"] == CHUNKS
    assert counts["ChunkEvent"] == CHUNKS


@READERS
async def test_deadlines_hardly_ever_move(read: Any, counts: Counter[str]) -> None:
    """Moving one costs more than reading a chunk."""
    async with chat_stream_from(Reads(BODY)) as stream:
        await read(stream)
    assert counts["next_bytes"] == CHUNKS + 1  # once a read
    # Opening, the request, the first demand, the first content, the next chunk, the end.
    assert counts["_set"] <= 8


class Steps(trio.abc.Instrument):
    """Counts how often the event loop runs some task, or whatever else it has."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: object) -> None:
        self.count += 1

    def start(self, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
        if backend == "trio":
            trio.lowlevel.add_instrument(self)
            return
        loop: Any = asyncio.get_running_loop()
        call_soon = loop.call_soon

        def counted(*arguments: Any, **keywords: Any) -> Any:
            self.count += 1
            return call_soon(*arguments, **keywords)

        monkeypatch.setattr(loop, "call_soon", counted)

    def stop(self, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
        if backend == "trio":
            trio.lowlevel.remove_instrument(self)
        else:
            monkeypatch.undo()


@READERS
@pytest.mark.parametrize("consumers", [0, 3])
async def test_tasks_are_woken_once_a_read(
    read: Any, consumers: int, anyio_backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps()
    async with chat_stream_from(Reads(BODY)) as stream:
        for _ in range(consumers):
            stream.start_soon(drain, stream.subscribe())
        steps.start(monkeypatch, anyio_backend_name)
        await read(stream)
    steps.stop(monkeypatch, anyio_backend_name)
    # The stream's task and whoever subscribes: once a wait of the body. All tasks also run after so
    # many reads without a wait, and a subscriber that reads one by one yields within a batch.
    tasks = 1 + consumers + (read is not nobody)
    waits = READS + CHUNKS // 64
    yields = EVENTS // 64 if read is iterate else 0
    assert steps.count <= waits * tasks + yields + 30


async def drain(consumer: Any) -> None:
    async for _ in consumer.batches():
        pass


@pytest.mark.parametrize("read", [iterate, batches])
async def test_consumed_events_leave_only_the_text_behind(read: Any) -> None:
    """A chunk is some 750 bytes, its events are dozens of objects; its token is one or two."""
    payload = len(BODY[1])
    kept: list[tuple[int, int]] = []

    async def pieces() -> AsyncIterator[bytes]:
        for number, piece in enumerate(BODY[:-1] * 4 + BODY[-1:]):
            if number % PER_READ == 0:
                await checkpoint()
            if number % (CHUNKS - 1) == PER_READ and number > CHUNKS:
                gc.collect()
                kept.append((sys.getallocatedblocks(), tracemalloc.get_traced_memory()[0]))
            yield bytes(bytearray(piece))  # a copy, as from a socket

    tracemalloc.start()
    try:
        async with chat_stream_from(pieces()) as stream:
            await count_only(stream, batches=read is batches)
    finally:
        tracemalloc.stop()
    (blocks, size), *_, (last_blocks, last_size) = kept
    rounds = (len(kept) - 1) * (CHUNKS - 1)
    assert (last_size - size) / rounds < payload / 2
    assert (last_blocks - blocks) / rounds < 5


async def count_only(stream: ChatCompletionStream[None], *, batches: bool) -> None:
    if batches:
        async for _ in stream.batches():
            pass
    else:
        async for _ in stream:
            pass


@pytest.mark.parametrize("rounds", [2, 8])
async def test_no_more_is_held_than_the_text_and_one_read(rounds: int) -> None:
    """While it runs: in the end the text is joined, once."""
    body = [BODY[0], *(BODY[1:-1] * rounds), BODY[-1]]
    left = TOKENS * rounds - 5 * PER_READ  # what is behind has not been read yet
    tracemalloc.start()
    try:
        async with chat_stream_from(Reads(body)) as stream:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            async for event in stream:
                left -= event.type == "content.delta"
                if not left:
                    held, peak = tracemalloc.get_traced_memory()
                    break
    finally:
        tracemalloc.stop()
    assert peak - held < 6 * PER_READ * len(BODY[1])
    assert (held - before) / len(body) < len(BODY[1]) / 2


class Handed:
    """Gives its pieces away, keeps none, and then has nothing more for long."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces[::-1]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await checkpoint()
        if not self._pieces:
            await anyio.sleep_forever()
        return self._pieces.pop()


def references(pieces: list[bytes]) -> list[int]:
    """How often each is referred to. The empty one is shared by everybody."""
    return [sys.getrefcount(piece) for piece in pieces if piece]


@asynccontextmanager
async def all_read(stream: ChatCompletionStream[None], size: int) -> AsyncGenerator[None]:
    """All that there is for now is consumed, and more is awaited."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(iterate, stream)
        while stream.bytes_received < size:
            await checkpoint()
        await wait_all_tasks_blocked()
        yield
        tasks.cancel_scope.cancel()


async def test_a_waiting_stream_keeps_no_piece_of_its_body() -> None:
    """Thousands may be open, and a model may think for minutes."""
    pieces = [b"".join(BODY[:3]), b"".join(BODY[3:6])]
    alone = references(pieces)
    async with chat_stream_from(Handed(pieces)) as stream:
        async with all_read(stream, sum(map(len, pieces))):
            assert references(pieces) == alone


async def test_a_waiting_response_keeps_none_either(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bytes] = []
    feed = SimpleChunks.feed

    def noted(chunks: SimpleChunks, received: bytes) -> bytes:
        taken.append(feed(chunks, received))
        return taken[-1]

    monkeypatch.setattr(SimpleChunks, "feed", noted)
    reply = Reply(body=[*BODY[:3], Hold(anyio.Event())])
    async with (
        ChatServer(reply) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
    ):
        async with writer.chat.stream(**QUESTION) as stream:
            async with all_read(stream, sum(map(len, BODY[:3]))):
                assert b"".join(taken) == b"".join(BODY[:3])
                assert {*references(taken)} == {*references([bytes(2)])}
