"""Many processes want the same answer at the same time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from anyio_writer.testing import ChatServer, text_reply
from tests.relay.redis.processes import worker
from tests.relay.redis.redis_server import RedisServer


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One is enough here: the processes are on both."""
    return "asyncio"


async def test_a_race_of_many_processes(redis: RedisServer) -> None:
    """20 processes, 100 keys: each is asked for once, and all get the answer."""
    processes, keys = 20, 100
    async with (
        ChatServer(default=text_reply("once")) as server,
        anyio.create_task_group() as tg,
    ):
        heard: list[list[Any]] = []
        ready = [anyio.Event() for _ in range(processes)]
        go = anyio.Event()

        async def run(number: int) -> None:
            loop = ("asyncio", "trio")[number % 2]
            async with worker(loop, "race", redis.url, "answer", 30, keys, server.url) as racer:
                assert await racer.hear() == {"began": True}
                ready[number].set()
                await go.wait()
                assert racer.process.stdin is not None
                await racer.process.stdin.send(b"\n")
                heard.append(await racer.hear_all())

        for number in range(processes):
            tg.start_soon(run, number)
        for event in ready:
            await event.wait()
        go.set()
    assert [len(each) for each in heard] == [keys] * processes
    asked = [request.json()["messages"][0]["content"] for request in server.requests]
    assert sorted(asked, key=int) == [str(number) for number in range(keys)]
