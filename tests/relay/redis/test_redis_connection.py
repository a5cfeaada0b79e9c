"""One connection that many tasks use, and that some of them leave amid a question."""

from __future__ import annotations

from functools import partial

import anyio
import hiredis
import httpcore
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyio_writer.relay.connection import Connection, connect
from anyio_writer.relay.server_url import parse_url
from tests.relay.redis.proxy import Proxy
from tests.relay.redis.redis_server import RedisServer
from tests.relay.relay_helpers import HANGS


async def connected(port: int) -> Connection:
    return await connect(("127.0.0.1", port), parse_url(f"redis://127.0.0.1:{port}"), None)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    tasks=st.lists(
        st.tuples(
            st.integers(0, 3),  # after so many checkpoints it asks
            st.none() | st.integers(0, 6),  # after so many more it is cancelled
            st.sampled_from([1, 1000, 200_000]),  # bytes, there and back
        ),
        max_size=12,
    )
)
async def test_everybody_gets_the_reply_to_his_own_question(
    redis: RedisServer, tasks: list[tuple[int, int | None, int]]
) -> None:
    connection = await connected(redis.port)
    ends: dict[int, str] = {}

    async def ask(number: int, start: int, end: int | None, size: int) -> None:
        for _ in range(start):
            await checkpoint()
        word = b"%d:" % number + b"x" * size
        ends[number] = "cancelled"
        with anyio.CancelScope() as scope:
            if end is not None:
                tg.start_soon(cancel, scope, end)
            try:
                assert await connection.ask("ECHO", word) == word
                ends[number] = "answered"
            except httpcore.NetworkError:
                ends[number] = "broken"

    async def cancel(scope: anyio.CancelScope, checkpoints: int) -> None:
        for _ in range(checkpoints):
            await checkpoint()
        scope.cancel()

    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tg:
            for number, task in enumerate(tasks):
                tg.start_soon(partial(ask, number, *task))
        if connection.is_usable:
            assert "broken" not in ends.values()
            assert await connection.ask("ECHO", "after") == b"after"
        else:  # one was cancelled when a part of its command was sent
            assert "cancelled" in ends.values()
    for number, (_, end, _) in enumerate(tasks):
        assert end is not None or ends[number] != "cancelled"
    await connection.aclose()


async def test_whoever_reads_is_cancelled(redis: RedisServer) -> None:
    """The next one of those who wait reads then, and the reply that nobody wants is dropped."""
    async with Proxy(redis.port).run() as proxy:
        connection = await connected(proxy.port)
        got: list[bytes] = []

        async def ask(word: bytes, scope: anyio.CancelScope) -> None:
            with scope:
                got.append(await connection.ask("ECHO", word))

        scopes = [anyio.CancelScope() for _ in range(3)]
        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tg:
                proxy.stall()
                for word, scope in zip((b"one", b"two", b"three"), scopes, strict=True):
                    tg.start_soon(ask, word, scope)
                    await anyio.wait_all_tasks_blocked()
                scopes[0].cancel()
                await anyio.wait_all_tasks_blocked()
                proxy.flow()
        assert got == [b"two", b"three"]
        await connection.aclose()


@pytest.mark.parametrize("by_server", [True, False])
async def test_all_who_wait_learn_that_it_broke(redis: RedisServer, by_server: bool) -> None:
    async with Proxy(redis.port).run() as proxy:
        connection = await connected(proxy.port)
        ends: list[str] = []

        async def ask() -> None:
            with pytest.raises(httpcore.NetworkError):
                await connection.ask("PING")
            ends.append("broken")

        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tg:
                proxy.stall()
                for _ in range(5):
                    tg.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                if by_server:
                    proxy.cut()
                else:
                    await connection.aclose()
        assert len(ends) == 5
        assert not connection.is_usable
        with pytest.raises(httpcore.NetworkError):
            await connection.ask("PING")
        await connection.aclose()


async def test_an_error_is_one_of_the_command_alone(redis: RedisServer) -> None:
    connection = await connected(redis.port)
    with pytest.raises(hiredis.ReplyError, match="ERR"):
        await connection.ask("NONSENSE")
    assert await connection.ask("PING") == b"PONG"
    await connection.aclose()


async def test_the_end_of_an_idle_connection_is_seen(redis: RedisServer) -> None:
    async with Proxy(redis.port).run() as proxy:
        connection = await connected(proxy.port)
        assert await connection.ask("PING") == b"PONG"
        assert connection.is_usable
        proxy.cut()
        with anyio.fail_after(HANGS):
            while connection.is_usable:  # noqa: ASYNC110 - the system says so
                await anyio.sleep(0.001)
        await connection.aclose()


async def test_what_is_no_redis(redis: RedisServer) -> None:
    """Bytes of another protocol are an error, and the connection is of no use then."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:

        async def serve(client: anyio.abc.SocketStream) -> None:
            async with client:
                await client.receive()
                await client.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                await anyio.sleep_forever()

        async with anyio.create_task_group() as tg:
            tg.start_soon(listener.serve, serve)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - not Django's
            connection = await connected(port)
            with anyio.fail_after(HANGS), pytest.raises(hiredis.ProtocolError):
                await connection.ask("PING")
            assert not connection.is_usable
            await connection.aclose()
            tg.cancel_scope.cancel()
