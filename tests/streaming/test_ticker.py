"""Whatever subscribers do, the event loop is never blocked: a 10 ms ticker beside them ticks."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread
import pytest

from anyio_writer import ChatCompletionStream, StreamClosedError, chat_stream_from
from tests.streaming.helpers import chunk

TICK = 0.01
LATE = 0.1
"""Seconds: far more than a batch takes, far less than a full collection of the heap below."""

PIECES = [chunk("word ") for _ in range(400)]


@pytest.fixture(scope="module")
def heap() -> Iterator[list[Any]]:
    """A process that holds much, as services do: a full collection takes hundreds of ms."""
    objects: list[Any] = [[{}] for _ in range(700_000)]
    yield objects
    objects.clear()
    gc.collect()


async def slow(stream: ChatCompletionStream[Any]) -> None:
    async for _ in stream.subscribe(max_buffer=4):
        await anyio.sleep(0.002)


async def fast(stream: ChatCompletionStream[Any]) -> None:
    async for _ in stream.subscribe():
        pass


async def lossy(stream: ChatCompletionStream[Any]) -> None:
    async for _ in stream.subscribe(max_buffer=4, on_full="drop_oldest"):
        await anyio.sleep(0.01)


async def dropped(stream: ChatCompletionStream[Any]) -> None:
    for _ in range(10):
        subscription: Any = stream.subscribe(max_buffer=1)
        cycle: list[Any] = [subscription]
        cycle.append(cycle)
        await anyio.sleep(0.01)


async def dropped_in_a_thread(stream: ChatCompletionStream[Any]) -> None:
    for _ in range(5):
        kept = [stream.subscribe(max_buffer=1)]
        await anyio.sleep(0.01)
        await anyio.to_thread.run_sync(kept.clear)


async def source() -> AsyncIterator[bytes]:
    yield b"".join(PIECES * 20)
    for piece in PIECES:
        yield piece
    yield chunk(None, "stop")


@pytest.mark.usefixtures("heap")
@pytest.mark.parametrize("reader", [slow, fast, lossy, dropped, dropped_in_a_thread])
async def test_a_ticker_keeps_ticking(reader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    collections: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda *_: collections.append(1))
    late: list[float] = []

    async def tick(scope: anyio.CancelScope) -> None:
        with scope:
            while True:
                due = anyio.current_time() + TICK
                await anyio.sleep(TICK)
                late.append(anyio.current_time() - due)

    async def read(stream: ChatCompletionStream[Any]) -> None:
        with suppress(StreamClosedError):  # by the time that this has, on a slow machine
            await reader(stream)

    gc.disable()  # Python's own collections are not what is measured here
    try:
        with anyio.move_on_after(5):
            async with chat_stream_from(source()) as stream:
                ticking = anyio.CancelScope()
                stream.start_soon(tick, ticking)
                stream.start_soon(read, stream)
                with anyio.move_on_after(1):
                    await stream.until_done()
                ticking.cancel()
                await stream.close()
    finally:
        gc.enable()
    assert collections == []  # the library never runs the collector
    assert late
    # One tick in a while may be late for reasons of the machine's own.
    assert sorted(late)[-2:][0] < LATE, late
