"""Whatever one event holds, the event loop goes on: a ticker beside the stream ticks."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator
from typing import Final

import anyio
import pytest

from anyio_writer import APIError, chat_stream_from
from tests.protocol.hostile import SHAPES, SIZE, allowed_seconds
from tests.streaming.helpers import chunk

TICK: Final = 0.01  # seconds


async def source(body: bytes) -> AsyncIterator[bytes]:
    yield chunk("a")
    for start in range(0, len(body), 16_384):
        yield body[start : start + 16_384]
        await anyio.lowlevel.checkpoint()
    yield chunk("b", "stop")


async def longest_stall(body: bytes) -> float:
    """The CPU seconds that passed at most between two ticks beside this body.

    Measured in CPU time, because other programs on the machine make ticks late, too.
    """
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.process_time()
            await anyio.sleep(TICK)
            longest = max(longest, time.process_time() - before)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        try:
            async with chat_stream_from(source(body)) as stream:
                async for _ in stream:
                    pass
        except APIError:
            pass  # to refuse it is as good, if it is quick
        await anyio.sleep(2 * TICK)  # the tick that was due meanwhile
        tasks.cancel_scope.cancel()
    return longest


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_ticker_ticks_beside_a_hostile_event(shape: str) -> None:
    body = SHAPES[shape]()
    assert SIZE / 2 < len(body) < 2 * SIZE
    gc.collect()
    gc.disable()  # Python's own collections are not what is measured here
    try:
        allowed = allowed_seconds(len(body))
        stall = await longest_stall(body)
        if stall > allowed:
            stall = await longest_stall(body)
    finally:
        gc.enable()
    assert stall <= allowed
