"""Hundreds of requests, cancelled at random: afterwards every slot of the pool is free.

A request that is cancelled while it queues inside httpx's own pool keeps its slot for ever
(httpcore#1093), so these storms fail for whoever lets requests queue there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from anyio_writer import AsyncWriter
from anyio_writer.testing import ChatServer, Hold, RecordedRequest, Reply, sse_event, writer_chunks
from tests.lifetimes.lifetime_helpers import (
    HANGS,
    new_seed,
    nothing_is_left,
    seeded,
    tasks_of_clients,
)
from tests.plugins.thoroughness import examples
from tests.streaming.helpers import REQUEST

PIECES = [sse_event(each) for each in writer_chunks("one two three four five")]
REQUESTS = min(600, examples(600))
PATIENCE = (0.005, 0.05, 0.3, HANGS)
"""Seconds, at most: to be cancelled while queueing, while being answered, hardly ever, and never.

"Never" leaves some that are answered, however busy the machine is.
"""


def paced(rng: random.Random) -> Callable[[RecordedRequest], Reply]:
    def reply(request: RecordedRequest) -> Reply:
        return Reply(
            headers_delay=rng.choice([0.0, 0.005]), body=PIECES, pace=rng.choice([0.0, 0.002])
        )

    return reply


async def ask(writer: AsyncWriter) -> None:
    async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
        await stream.until_done()


async def cancelled(writer: AsyncWriter, after: float) -> None:
    with anyio.move_on_after(after):
        await ask(writer)


async def cancelled_natively_twice(writer: AsyncWriter, after: float) -> None:
    task = asyncio.create_task(ask(writer))
    with anyio.move_on_after(after):
        await asyncio.wait([task])
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def storm(
    writer: AsyncWriter, rng: random.Random, request: Any, *, requests: int, at_a_time: int
) -> None:
    left = requests

    async def one_after_the_other() -> None:
        nonlocal left
        while left:
            left -= 1
            await request(writer, rng.uniform(0, rng.choice(PATIENCE)))

    async with anyio.create_task_group() as group:
        for _ in range(at_a_time):
            group.start_soon(one_after_the_other)


async def every_slot_works(writer: AsyncWriter, server: ChatServer, slots: int) -> None:
    """As many streams as there are slots, all open at the same time."""
    everyone = anyio.Event()
    server.add(*[Reply(body=[PIECES[0], Hold(everyone), *PIECES[1:]])] * slots)
    begun = 0

    async def be_one_of_them() -> None:
        nonlocal begun
        async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
            await anext(stream)
            begun += 1
            if begun == slots:
                everyone.set()
            assert await stream.get_final_text() == "one two three four five"

    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            for _ in range(slots):
                group.start_soon(be_one_of_them)


CLIENTS: dict[str, Callable[[], Any]] = {
    "its own": lambda: None,
    "httpx": lambda: httpx.AsyncClient(limits=httpx.Limits(max_connections=5)),
    "httpx2": lambda: httpx2.AsyncClient(limits=httpx2.Limits(max_connections=5)),
}


async def run_storm(
    client: Any, request: Any, *, slots: int, requests: int = REQUESTS, at_a_time: int = 20
) -> None:
    seed = new_seed()
    rng = seeded(seed)
    tasks = tasks_of_clients()
    try:
        async with (
            ChatServer(default=paced(rng)) as server,
            AsyncWriter(
                api_key="key", base_url=server.url, client=client, max_connections=slots
            ) as writer,
        ):
            with anyio.fail_after(3 * HANGS):
                await storm(writer, rng, request, requests=requests, at_a_time=at_a_time)
            await nothing_is_left(writer, server, tasks)
            answered = sum(each.answered for each in server.requests)
            assert 0 < answered < requests
            await every_slot_works(writer, server, slots)
            await nothing_is_left(writer, server, tasks)
    except BaseException as exc:
        exc.add_note(f"the storm's seed: {seed}")
        raise
    finally:
        if client is not None:
            await client.aclose()


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_small_pool(kind: str) -> None:
    await run_storm(CLIENTS[kind](), cancelled, slots=5)


@pytest.mark.parametrize(  # only its tasks can be cancelled one by one, and repeatedly
    "anyio_backend", ["asyncio"], indirect=True
)
@pytest.mark.parametrize("kind", CLIENTS)
async def test_native_cancellations_that_come_in_twos(kind: str) -> None:
    await run_storm(CLIENTS[kind](), cancelled_natively_twice, slots=5)


async def test_the_spread_pools() -> None:
    await run_storm(None, cancelled, slots=30, at_a_time=60)
