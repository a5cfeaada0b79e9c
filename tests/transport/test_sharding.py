"""Many small pools that look like one large one."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from anyio_writer import AsyncWriter
from anyio_writer.testing import ChatServer, Hold, Reply, sse_event, text_reply, writer_chunks
from anyio_writer.transport.sharding import POOL_SIZE, ShardedTransport
from tests.streaming.helpers import REQUEST, Body, chunk


class Pool(httpx.AsyncBaseTransport):
    """Counts what is open in it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.active = 0
        self.closed = False
        self.fail = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.active += 1
        await anyio.lowlevel.checkpoint()
        if self.fail:
            self.active -= 1
            raise httpx.ConnectError("refused")
        pool = self

        class Stream(Body):
            async def aclose(self) -> None:
                await super().aclose()
                pool.active -= 1

        return httpx.Response(200, stream=Stream(chunk("a", "stop")))

    async def aclose(self) -> None:
        self.closed = True


def sharded(max_connections: int) -> tuple[list[Pool], ShardedTransport]:
    pools: list[Pool] = []

    def make(size: int) -> Pool:
        pools.append(Pool(size))
        return pools[-1]

    return pools, ShardedTransport(make, max_connections=max_connections)


async def test_pools_are_made_as_needed_and_filled_in_order() -> None:
    pools, transport = sharded(25)
    async with httpx.AsyncClient(transport=transport) as client:
        request = client.build_request("GET", "http://test")
        responses = [await client.send(request, stream=True) for _ in range(25)]
        assert [pool.size for pool in pools] == [10, 10, 5]
        assert [pool.active for pool in pools] == [10, 10, 5]
        # What is free in the first pool is used before anything else.
        await responses[0].aclose()
        await responses[0].aclose()
        await responses[24].aclose()
        assert [pool.active for pool in pools] == [9, 10, 4]
        again = await client.send(request, stream=True)
        assert [pool.active for pool in pools] == [10, 10, 4]
        for response in [*responses, again]:
            await response.aclose()
        assert [pool.active for pool in pools] == [0, 0, 0]
        await (await client.send(request, stream=True)).aclose()
        assert len(pools) == 3
    assert all(pool.closed for pool in pools)


async def test_a_request_that_fails_gives_its_slot_back() -> None:
    pools, transport = sharded(2)
    async with httpx.AsyncClient(transport=transport) as client:
        await client.get("http://test")
        pools[0].fail = True
        for _ in range(5):
            with pytest.raises(httpx.ConnectError):
                await client.get("http://test")
        pools[0].fail = False
        held = [
            await client.send(client.build_request("GET", "http://test"), stream=True)
            for _ in range(3)  # one more than there are slots: it waits in the first pool
        ]
        assert [pool.active for pool in pools] == [3]
        for response in held:
            await response.aclose()
        assert [pool.active for pool in pools] == [0]
        await client.get("http://test")
        assert pools[0].active == 0


async def test_no_pool_gets_more_than_it_holds() -> None:
    """Slots are freed and taken in an order of their own."""
    pools, transport = sharded(2 * POOL_SIZE)
    async with httpx.AsyncClient(transport=transport) as client:
        request = client.build_request("GET", "http://test")
        responses = [await client.send(request, stream=True) for _ in range(POOL_SIZE + 2)]
        for response in responses[:3]:
            await response.aclose()
        responses += [await client.send(request, stream=True) for _ in range(POOL_SIZE + 1)]
        assert [pool.active for pool in pools] == [POOL_SIZE, POOL_SIZE]
        for response in responses:
            await response.aclose()


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


async def test_one_ssl_context_serves_all_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    from anyio_writer.transport import client as http

    http._make_ssl_context.cache_clear()
    made: list[Any] = []
    original = httpx.create_ssl_context

    def counting(*args: Any, **kwargs: Any) -> Any:
        made.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr("httpx.create_ssl_context", counting)
    for size in (1, 1000):
        async with http.make_client(max_connections=size):
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
