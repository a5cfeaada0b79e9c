"""Many small clients that look like one with a large pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from anyio import wait_all_tasks_blocked

from anyio_writer import AsyncWriter, ConfigurationError
from anyio_writer.testing import ChatServer, Hold, Reply, sse_event, text_reply, writer_chunks
from anyio_writer.transport import slots
from anyio_writer.transport.slots import POOL_SIZE, Slot, Slots
from tests.streaming.helpers import REQUEST


class Client:
    """Is made and closed, and may not be made."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.is_closed = False

    async def aclose(self) -> None:
        self.is_closed = True


class Made(list[Any]):
    """The clients that were made, in order."""

    fails = False

    def make(self, size: int) -> Any:
        if self.fails:
            raise ConfigurationError("the proxy has gone")
        self.append(Client(size))
        return self[-1]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()

    def maker() -> Callable[[int], Any]:
        return made.make

    monkeypatch.setattr(slots, "client_maker", maker)
    return made


def use_of(made: Made, held: list[Slot]) -> list[int]:
    return [sum(slot.client is client for slot in held) for client in made]


async def test_clients_are_made_as_needed_and_filled_in_order(made: Made) -> None:
    several = Slots(None, 25)
    assert [client.size for client in made] == [10]  # the first one takes long
    held = [await several.acquire(number) for number in range(25)]
    assert [client.size for client in made] == [10, 10, 5]
    assert use_of(made, held) == [10, 10, 5]
    # What is free in the first client is used before anything else.
    held.pop().release(24)
    held.pop(0).release(0)
    assert use_of(made, held) == [9, 10, 4]
    held.append(await several.acquire(25))
    assert use_of(made, held) == [10, 10, 4]
    for number, slot in enumerate(held, start=1):
        slot.release(number if number < 24 else 25)
    await several.acquire(26)
    assert len(made) == 3
    await several.aclose()
    assert all(client.is_closed for client in made)


async def test_one_more_than_there_are_slots_waits(made: Made) -> None:
    several = Slots(None, 2)
    held = [await several.acquire(number) for number in range(2)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(several.acquire, 2)
        await wait_all_tasks_blocked()
        assert held[0].clients.limiter.statistics().tasks_waiting == 1
        held[0].release(0)
    assert use_of(made, held) == [2]
    await several.aclose()


async def test_a_client_that_cannot_be_made_costs_no_slot(made: Made) -> None:
    several = Slots(None, POOL_SIZE + 1)
    for number in range(POOL_SIZE):
        await several.acquire(number)
    made.fails = True
    for number in range(3):
        with pytest.raises(ConfigurationError):
            await several.acquire(POOL_SIZE + number)
    made.fails = False
    assert (await several.acquire(99)).client is made[1]
    await several.aclose()


@pytest.mark.parametrize("given", [None, Client(0)])
async def test_so_many_connections_that_there_is_no_limit(made: Made, given: Any) -> None:
    several = Slots(given, 10**12)
    for number in range(POOL_SIZE + 1):
        await several.acquire(number)
    assert [client.size for client in made] == ([] if given else [POOL_SIZE, POOL_SIZE])
    await several.aclose()


async def test_no_client_gets_more_than_it_holds(made: Made) -> None:
    """Slots are freed and taken in an order of their own."""
    several = Slots(None, 2 * POOL_SIZE)
    held = [await several.acquire(number) for number in range(POOL_SIZE + 2)]
    for number in range(3):
        held.pop(0).release(number)
    held += [await several.acquire(100 + number) for number in range(POOL_SIZE + 1)]
    assert use_of(made, held) == [POOL_SIZE, POOL_SIZE]
    await several.aclose()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_event_loops_that_have_ended_are_forgotten(made: Made, backend: str) -> None:
    several = Slots(None, 1)

    async def use() -> None:
        (await several.acquire(1)).release(1)

    for _ in range(3):
        anyio.run(use, backend=backend)
    assert len(several._loops) == 1
    assert [client.is_closed for client in made] == [True] * 3


async def test_the_limit_and_the_reuse_are_exact() -> None:
    """Over the network: never more connections than allowed, and none made needlessly."""
    limit = 2 * POOL_SIZE + 3
    gate = anyio.Event()
    first = sse_event(writer_chunks("Hello")[1])
    rest = b"".join(sse_event(c) for c in writer_chunks("Hello")[2:])
    reply = Reply(body=[first, Hold(gate), rest])
    begun = 0

    async def run(writer: AsyncWriter) -> None:
        nonlocal begun
        async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
            async for _ in stream:
                begun += 1
                break
            if begun == limit:
                gate.set()
            await stream.until_done()

    async with (
        ChatServer(default=reply) as server,
        AsyncWriter(api_key="key", base_url=server.url, max_connections=limit) as writer,
    ):
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for _ in range(limit + 10):
                    tasks.start_soon(run, writer)
            assert len(server.connections) == limit
            async with anyio.create_task_group() as tasks:
                for _ in range(limit):
                    tasks.start_soon(run, writer)
        assert len(server.connections) == limit


async def test_one_ssl_context_serves_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    from anyio_writer.transport import client as http

    http._make_ssl_context.cache_clear()
    made: list[Any] = []
    original = httpx.create_ssl_context

    def counting(*args: Any, **kwargs: Any) -> Any:
        made.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr("httpx.create_ssl_context", counting)
    for _ in range(2):
        make = http.client_maker()
        async with make(1), make(10):
            assert len(made) == 1


async def test_ten_streams_one_after_the_other_share_a_connection() -> None:
    async with (
        ChatServer(text_reply("Hi")) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
    ):
        for _ in range(10):
            async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
                await stream.until_done()
        assert len(server.connections) == 1
