"""Whoever cancels stops paying: the server sees the connection close at once."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

import anyio
import pytest

from anyio_writer import AsyncWriter
from anyio_writer.testing import ChatServer, RecordedRequest, Reply, sse_event, writer_chunks
from tests.lifetimes.lifetime_helpers import HANGS, new_seed, seeded, tasks_of_clients

PIECES = [sse_event(each) for each in writer_chunks("word " * 200)]
CANCELS = 60
LIMIT = 0.3

REPLIES = {
    "headers pending": lambda: Reply(headers_hold=anyio.Event()),
    "mid-answer": lambda: Reply(body=PIECES, pace=0.001),
    "anywhere": lambda: Reply(body=PIECES, pace=0.001, headers_delay=0.01),
}


@pytest.mark.parametrize("at_a_time", [1, 20])
@pytest.mark.parametrize("where", REPLIES)
async def test_it_is_seen_at_once(where: str, at_a_time: int, anyio_backend: Any) -> None:
    # Debug mode records a stack for each callback, which takes several times as long.
    limit = 5 * LIMIT if anyio_backend == ("asyncio", {"debug": True}) else LIMIT
    seed = new_seed()
    rng = seeded(seed)
    tasks = tasks_of_clients()
    arrived: dict[str, anyio.Event] = {}
    cancelled_at: dict[str, float] = {}

    def reply(request: RecordedRequest) -> Reply:
        arrived[name_of(request)].set()
        return REPLIES[where]()

    async def stream(name: str) -> None:
        messages: Any = [{"role": "user", "content": name}]
        async with writer.chat.stream(model="m", messages=messages) as stream:
            await stream.until_done()

    async def open_and_cancel(name: str) -> None:
        arrived[name] = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(stream, name)
            await arrived[name].wait()
            await anyio.sleep(rng.uniform(0, 0.02))
            cancelled_at[name] = anyio.current_time()
            group.cancel_scope.cancel()

    async with (
        ChatServer(default=reply) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
    ):
        with anyio.fail_after(HANGS):
            for start in range(0, CANCELS, at_a_time):
                async with anyio.create_task_group() as group:
                    for number in range(start, start + at_a_time):
                        group.start_soon(open_and_cancel, str(number))
                assert tasks_of_clients() == tasks
            for number in range(CANCELS):
                await server.wait_disconnect(number)
        delays = [
            (each.peer_left or math.inf) - cancelled_at[name_of(each)] for each in server.requests
        ]
        assert len(delays) == CANCELS
        assert not any(each.answered for each in server.requests)
        assert median(delays) < limit, f"seed {seed}: {delays}"
        assert max(delays) < 10 * limit, f"seed {seed}: {delays}"


def name_of(request: RecordedRequest) -> str:
    return str(request.json()["messages"][0]["content"])
