"""Servers that crash, freeze, fail over, refuse, run out of memory, or forget."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from anyio_writer import (
    LeaseLostError,
    ProducerLostError,
    RelayedAnswerGoneError,
    RelayUnavailableError,
    UnknownKeyError,
    WriterError,
    chat_stream_from,
)
from anyio_writer.relay import RedisRelay
from tests.relay.redis.proxy import Proxy
from tests.relay.redis.redis_server import RedisServer, free_port
from tests.relay.relay_helpers import (
    HANGS,
    HELLO,
    LEASE,
    Seen,
    follow,
    hello,
    in_time,
    publish,
    timed,
)
from tests.streaming.helpers import STALL, Body, chunk
from tests.tools.tools_helpers import STOP


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Any]:
    """Starts servers of the test's own."""
    servers: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        server = RedisServer(tmp_path / str(len(servers)), *options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.kill()


class Interrupted:
    """An answer that waits, half-way, for something to happen to the server."""

    def __init__(self, relay: RedisRelay, other: RedisRelay, key: str = "answer") -> None:
        self.relay, self.other, self.key = relay, other, key
        self.go_on = anyio.Event()
        self.reader = Seen()
        self.seen = Seen()

    async def run(self, interrupt: Any) -> None:
        """Publish and follow; ``interrupt`` is called when half of it was read."""
        body = Body(*HELLO[:2], self.go_on, *HELLO[2:])

        async def interrupted() -> None:
            await self.reader.until(4)
            await interrupt()
            self.go_on.set()

        async with anyio.create_task_group() as tg:
            tg.start_soon(partial(follow, self.other, self.key, self.reader, wait=10))
            tg.start_soon(interrupted)
            self.seen = await publish(self.relay, self.key, chat_stream_from(body))


async def test_a_server_that_is_killed_and_comes_back(own: Any) -> None:
    """With what it had written down, nothing is lost; and the status survives, too."""
    server = own("appendonly yes", "appendfsync always")
    async with RedisRelay(server.url, lease=8) as one, RedisRelay(server.url, lease=8) as two:

        async def restart() -> None:
            server.kill()
            await anyio.sleep(0.3)
            await anyio.to_thread.run_sync(server.start)

        answer = Interrupted(one, two)
        await answer.run(restart)
        assert answer.seen.error is None
        assert len(answer.seen.events) == 12
        assert answer.reader.events == answer.seen.events
        assert answer.reader.error is None
        assert (await two.status("answer")).state == "complete"
        assert server.keys_without_expiry() == []


@timed
async def test_a_server_that_comes_back_empty(own: Any) -> None:
    server = own()
    async with RedisRelay(server.url, lease=2) as one, RedisRelay(server.url, lease=2) as two:

        async def restart() -> None:
            server.kill()
            await anyio.to_thread.run_sync(server.start)

        answer = Interrupted(one, two)
        started = anyio.current_time()
        await answer.run(restart)
        in_time(started, 2 + 1)
        assert type(answer.reader.error) is RelayedAnswerGoneError
        assert answer.reader.completion["choices"][0]["message"]["content"] == "Hello "
        # The stream beside it went on to its end; it is publish() that failed.
        assert len(answer.seen.events) == 12
        assert isinstance(answer.seen.error, LeaseLostError)
        assert (await two.status("answer")).state == "unknown"
        # And the key can be used again, through the same relays.
        assert (await publish(two, "answer", hello())).error is None
        assert len((await follow(one, "answer")).events) == 12


@pytest.mark.parametrize("seconds", [0.5, 1.6])
async def test_a_server_that_is_frozen(own: Any, seconds: float) -> None:
    """For less than a lease nothing happens. For longer, the lease is gone when it wakes."""
    server = own()
    lease = 1.2
    async with (
        RedisRelay(server.url, lease=lease) as one,
        RedisRelay(server.url, lease=lease) as two,
    ):

        async def freeze() -> None:
            server.freeze()
            await anyio.sleep(seconds)
            server.thaw()

        answer = Interrupted(one, two)
        await answer.run(freeze)
        if seconds < lease:
            assert answer.seen.error is None
            assert answer.reader.events == answer.seen.events
        else:
            for error in (answer.seen.error, answer.reader.error):
                assert isinstance(error, LeaseLostError | ProducerLostError | RelayUnavailableError)
            assert answer.reader.events == answer.seen.events[:4]


async def test_a_failover_that_loses_the_newest_entries(own: Any) -> None:
    """The producer sends them again; who has read them goes on behind them."""
    first, second = own(), own()
    second.ask("REPLICAOF", "127.0.0.1", str(first.port))
    with anyio.fail_after(HANGS):
        while b"_link_status:up" not in second.ask("INFO", "replication"):  # noqa: ASYNC110
            await anyio.sleep(0.02)
    go_on = [anyio.Event(), anyio.Event()]
    body = Body(*HELLO[:2], go_on[0], *HELLO[2:4], go_on[1], *HELLO[4:])
    early, late = Seen(), Seen()
    async with (
        Proxy(first.port).run() as proxy,
        RedisRelay(proxy.url, flush=1e-6) as one,
        RedisRelay(proxy.url) as two,
        anyio.create_task_group() as tg,
    ):
        tg.start_soon(partial(follow, two, "answer", early, wait=10))

        async def fail_over() -> None:
            await early.until(4)
            (log,) = first.lines("KEYS", "*log:*")
            while second.ask("XLEN", log) != first.ask("XLEN", log):  # noqa: ASYNC110
                await anyio.sleep(0.02)
            second.ask("REPLICAOF", "NO", "ONE")  # it gets nothing more
            go_on[0].set()
            await early.until(8)
            first.kill()
            proxy.upstream = second.port
            proxy.cut()
            tg.start_soon(partial(follow, two, "answer", late))
            go_on[1].set()

        tg.start_soon(fail_over)
        seen = await publish(one, "answer", chat_stream_from(body))
    assert seen.error is None
    assert len(seen.events) == 12
    assert early.events == late.events == seen.events
    assert early.error is late.error is None


async def test_a_replica_refuses_until_it_is_promoted(own: Any) -> None:
    """As a demoted primary does, to which connections are still open."""
    primary, replica = own(), own()
    replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))
    async with RedisRelay(replica.url, lease=8) as relay, anyio.create_task_group() as tg:

        async def promote() -> None:
            await anyio.sleep(0.3)
            replica.ask("REPLICAOF", "NO", "ONE")

        tg.start_soon(promote)
        assert (await publish(relay, "answer", hello())).error is None
        assert len((await follow(relay, "answer")).events) == 12


def as_before_redis_7(data: bytes) -> bytes:
    """An error in a script is one of the script then, and says the rest in its text."""
    return re.sub(
        rb"-READONLY (.*?\.) script: .*?\r\n",
        rb"-ERR Error running script (call to f_0): @user_script: 9: -READONLY \1\r\n",
        data,
    )


@pytest.mark.parametrize("rewrite", [bytes, as_before_redis_7])
async def test_a_name_that_leads_to_another_primary(own: Any, rewrite: Any) -> None:
    """Connections to the old one are still open, and it refuses to write."""
    first, second = own(), own()
    second.ask("REPLICAOF", "127.0.0.1", str(first.port))
    with anyio.fail_after(HANGS):
        while b"_link_status:up" not in second.ask("INFO", "replication"):  # noqa: ASYNC110
            await anyio.sleep(0.02)
    async with Proxy(first.port).run() as proxy:
        proxy.rewrite = rewrite
        async with RedisRelay(proxy.url, lease=4) as one, RedisRelay(proxy.url, lease=4) as two:
            answer = Interrupted(one, two)

            async def fail_over() -> None:
                (log,) = first.lines("KEYS", "*log:*")
                while second.ask("XLEN", log) != first.ask("XLEN", log):  # noqa: ASYNC110
                    await anyio.sleep(0.02)
                proxy.upstream = second.port
                second.ask("REPLICAOF", "NO", "ONE")
                first.ask("REPLICAOF", "127.0.0.1", str(second.port))

            with anyio.fail_after(HANGS):
                await answer.run(fail_over)
    assert answer.seen.error is answer.reader.error is None
    assert answer.reader.events == answer.seen.events
    assert len(answer.seen.events) == 12


async def test_a_primary_that_is_demoted_while_readers_wait(own: Any) -> None:
    """It sends them away with an error, and serves them again when it is the primary again."""
    server = own()

    async with RedisRelay(server.url, lease=3) as one, RedisRelay(server.url, lease=3) as two:
        answer = Interrupted(one, two)

        async def demote() -> None:
            await server.until_blocked(1)
            server.ask("REPLICAOF", "127.0.0.1", str(free_port()))
            await anyio.sleep(0.2)
            server.ask("REPLICAOF", "NO", "ONE")

        with anyio.fail_after(HANGS):
            await answer.run(demote)
    assert answer.reader.error is None
    assert answer.reader.events == answer.seen.events


@timed
async def test_out_of_memory(own: Any) -> None:
    """One typed error on each side, with what arrived; and it works again when there is room."""
    server = own("maxmemory-policy noeviction")
    async with (
        RedisRelay(server.url, lease=LEASE) as one,
        RedisRelay(server.url, lease=LEASE) as two,
    ):

        async def fill() -> None:
            server.ask("CONFIG", "SET", "maxmemory", "1mb")

        answer = Interrupted(one, two)
        started = anyio.current_time()
        await answer.run(fill)
        in_time(started, 2 * LEASE + 1)
        assert type(answer.seen.error) is RelayUnavailableError
        assert "OOM" in str(answer.seen.error)
        assert type(answer.reader.error) is ProducerLostError
        assert answer.reader.events == answer.seen.events[:4]
        assert (await two.status("answer")).state == "lost"
        with pytest.raises(RelayUnavailableError, match="OOM"):
            async with two.start_or_join("other", hello):
                raise AssertionError
        server.ask("CONFIG", "SET", "maxmemory", "0")
        async with two.start_or_join("answer", hello) as stream:
            assert await stream.get_final_text() == "Hello world"
        assert server.keys_without_expiry() == []


async def test_memory_that_is_short_for_a_while(own: Any) -> None:
    server = own("maxmemory-policy noeviction")
    async with RedisRelay(server.url, lease=3) as one, RedisRelay(server.url, lease=3) as two:

        async def fill() -> None:
            server.ask("CONFIG", "SET", "maxmemory", "1mb")
            tg.start_soon(free)

        async def free() -> None:
            await anyio.sleep(0.5)
            server.ask("CONFIG", "SET", "maxmemory", "0")

        async with anyio.create_task_group() as tg:
            answer = Interrupted(one, two)
            await answer.run(fill)
        assert answer.seen.error is None
        assert answer.reader.events == answer.seen.events


async def test_stop_works_without_memory(own: Any) -> None:
    server = own("maxmemory-policy noeviction")
    async with RedisRelay(server.url) as relay, anyio.create_task_group() as tg:
        reader = Seen()
        tg.start_soon(partial(follow, relay, "answer", reader, wait=5))
        tg.start_soon(publish, relay, "answer", chat_stream_from(Body(chunk("Hel"), STALL)))
        await reader.until(2)
        server.ask("CONFIG", "SET", "maxmemory", "1mb")
        assert await relay.stop("answer")
        with anyio.fail_after(HANGS):
            while (await relay.status("answer")).state == "running":  # noqa: ASYNC110
                await anyio.sleep(0.05)
        assert (await relay.status("answer")).state == "stopped"
    assert reader.error is not None


WRONG = ["mistaken", "", None]


@pytest.mark.parametrize("password", WRONG)
async def test_a_wrong_password(own: Any, password: str | None) -> None:
    """It is told at once, without the password."""
    server = own("requirepass right")
    login = "" if password is None else f":{password}@"
    with anyio.fail_after(5), pytest.raises(RelayUnavailableError) as caught:
        async with RedisRelay(f"redis://{login}127.0.0.1:{server.port}"):
            raise AssertionError
    assert "right" not in str(caught.value)
    if password:
        assert password not in str(caught.value)
    async with RedisRelay(f"redis://:right@127.0.0.1:{server.port}") as relay:
        assert (await publish(relay, "answer", hello())).error is None


async def test_a_password_that_is_changed(own: Any) -> None:
    server = own()
    async with RedisRelay(server.url) as one, RedisRelay(server.url) as two:

        async def change() -> None:
            server.ask("CONFIG", "SET", "requirepass", "new")
            server.ask("CLIENT", "KILL", "TYPE", "normal", password="new")

        answer = Interrupted(one, two)
        with anyio.fail_after(5):
            await answer.run(change)
        assert type(answer.seen.error) is RelayUnavailableError
        assert type(answer.reader.error) is RelayUnavailableError
        assert "refused" in str(answer.reader.error)


@pytest.mark.parametrize("which", ["meta", "lease", "log:*"])
@timed
async def test_a_key_that_is_evicted_amid_the_answer(redis: RedisServer, which: str) -> None:
    """Whichever of an answer's keys it is, everybody gets the whole answer or a typed error."""
    async with RedisRelay(redis.url, lease=LEASE) as one, RedisRelay(redis.url, lease=LEASE) as two:

        async def evict() -> None:
            (key,) = redis.lines("KEYS", f"*{which}")
            redis.ask("DEL", key)

        answer = Interrupted(one, two)
        started = anyio.current_time()
        await answer.run(evict)
        in_time(started, 2 * LEASE + 1)
        late = Seen()
        try:
            late = await follow(two, "answer")
        except UnknownKeyError as exc:
            late.error = exc
        for seen in (answer.seen, answer.reader, late):
            if seen.error is None:
                assert seen.events == answer.seen.events
            else:
                assert isinstance(seen.error, WriterError)
                assert seen.events == answer.seen.events[: len(seen.events)]
        if which == "log:*":  # what was lost is sent again
            assert answer.reader.error is None
            assert late.error is None


async def test_an_answer_that_is_evicted_after_its_end(redis: RedisServer) -> None:
    async with RedisRelay(redis.url) as relay:
        await publish(relay, "answer", hello())
        (log,) = redis.lines("KEYS", "*log:*")
        redis.ask("XDEL", log, "2-0")
        seen = await follow(relay, "answer")
        assert type(seen.error) is RelayedAnswerGoneError
        redis.ask("DEL", log)
        seen = await follow(relay, "answer")
        assert type(seen.error) is RelayedAnswerGoneError
        with pytest.raises(RelayedAnswerGoneError):
            async with relay.start_or_join("answer", hello):
                raise AssertionError
        assert await relay.expire("answer")
        async with relay.start_or_join("answer", hello) as stream:
            assert await stream.get_final_text() == "Hello world"


async def test_everything_expires(redis: RedisServer) -> None:
    """From the first write on, again and again."""

    async def ticking() -> AsyncIterator[bytes]:
        for number in range(20):
            await anyio.sleep(0.02)
            assert redis.keys_without_expiry() == []
            yield chunk(str(number))
        yield STOP

    async with RedisRelay(redis.url, ttl=50, lease=20) as relay:
        await publish(relay, "answer", chat_stream_from(ticking()))
        keys = redis.lines("KEYS", "*")
        assert sorted(key.partition("}:")[2][:4] for key in keys) == ["log:", "meta"]
        assert all(key.startswith("{anyio-writer:answer}:") for key in keys)
        for key in keys:
            assert 45 <= int(redis.ask("TTL", key)[1:]) <= 50


async def test_other_data_under_our_names(redis: RedisServer) -> None:
    redis.ask("SET", "{anyio-writer:answer}:meta", "theirs", "EX", "100")
    async with RedisRelay(redis.url, lease=math.pi) as relay:
        with pytest.raises(RelayUnavailableError, match="refused"):
            await relay.status("answer")
        with pytest.raises(RelayUnavailableError, match="refused"):
            async with hello() as stream:
                await relay.publish("answer", stream)


async def test_prefixes_keep_services_apart(redis: RedisServer) -> None:
    async with RedisRelay(redis.url, prefix="a") as one, RedisRelay(redis.url, prefix="b") as two:
        await publish(one, "answer", hello())
        assert (await two.status("answer")).state == "unknown"
        for key in ("}", "{", "{}", "a}b{c", "é", "\ud800"):
            assert (await publish(two, key, hello())).error is None
            assert len((await follow(two, key)).events) == 12
