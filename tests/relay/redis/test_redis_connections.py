"""Connections that are cut, stalled or refused at every point: nothing is lost or doubled."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import anyio
import pytest

from anyio_writer import (
    ConfigurationError,
    LeaseLostError,
    ProducerLostError,
    ProducerStoppedError,
    RelayUnavailableError,
    chat_stream_from,
)
from anyio_writer.relay import RedisRelay, connections
from tests.relay.redis.proxy import Proxy
from tests.relay.redis.redis_server import RedisServer, free_port
from tests.relay.relay_helpers import (
    HANGS,
    HELLO,
    Seen,
    TooLate,
    follow,
    hello,
    in_time,
    publish,
    timed,
)
from tests.streaming.helpers import STALL, Body, chunk

QUICK: dict[str, Any] = {"flush": 1e-6, "lease": 3}


async def through(
    proxy: Proxy, cut_at: int | None, *, producer: bool, name: str = ""
) -> tuple[Seen, Seen, int]:
    """Publish and follow an answer, one of the two through a proxy that cuts once."""
    direct = f"redis://127.0.0.1:{proxy.upstream}/0"
    urls = (proxy.url, direct) if producer else (direct, proxy.url)
    reader = Seen()
    before = proxy.passed
    proxy.cut_at = None if cut_at is None else before + cut_at
    async with (
        RedisRelay(urls[0], **QUICK) as one,
        RedisRelay(urls[1], **QUICK) as two,
        anyio.create_task_group() as tg,
    ):
        key = f"answer:{producer}:{cut_at}:{name}"
        gates = [anyio.Event() for _ in HELLO]
        body = Body(*(each for pair in zip(gates, HELLO, strict=True) for each in pair))

        async def open_gates() -> None:
            """Let each chunk be read before the next one comes."""
            for number, gate in enumerate(gates):
                gate.set()
                await reader.until(2 * number if number < 4 else 0)

        tg.start_soon(partial(follow, two, key, reader, wait=10))
        tg.start_soon(open_gates)
        seen = await publish(one, key, chat_stream_from(body))
    return seen, reader, proxy.passed - before


@pytest.mark.parametrize("producer", [True, False])
async def test_a_cut_at_every_piece(redis: RedisServer, producer: bool) -> None:
    """Whichever request or reply is lost, each event comes once."""
    async with Proxy(redis.port).run() as proxy:
        seen, reader, count = await through(proxy, None, producer=producer)
        assert reader.events == seen.events
        assert count > 8
        for cut_at in range(1, count + 1):
            seen, reader, _ = await through(proxy, cut_at, producer=producer)
            assert seen.error is None
            assert reader.error is None
            assert len(seen.events) == 12
            assert reader.events == seen.events


@pytest.mark.parametrize("producer", [True, False])
async def test_a_stall_at_every_piece(redis: RedisServer, producer: bool) -> None:
    """Whichever request or reply never arrives, each event comes once. All at the same time."""
    ends: list[tuple[Seen, Seen]] = []

    async def stall(at: int) -> None:
        async with Proxy(redis.port).run() as proxy:
            proxy.stall_at = at
            seen, reader, _ = await through(proxy, None, producer=producer, name=f"{at}")
            assert proxy.stall_at is None or at > proxy.passed
            ends.append((seen, reader))

    async with anyio.create_task_group() as tg:
        for at in range(1, 28):
            tg.start_soon(stall, at)
    assert len(ends) == 27
    for seen, reader in ends:
        assert seen.error is None
        assert reader.error is None
        assert len(seen.events) == 12
        assert reader.events == seen.events


async def interrupt(proxy: Proxy, is_silent: bool, reader: Seen, go_on: anyio.Event) -> None:
    """Take the server away for 1.2 s, amid an answer."""
    await reader.until(4)
    if is_silent:
        proxy.stall()
    else:
        proxy.is_refusing = True
        proxy.cut()
    go_on.set()
    await anyio.sleep(1.2)
    proxy.is_refusing = False
    proxy.flow()


async def test_a_server_that_is_away_for_less_than_a_lease(redis: RedisServer) -> None:
    """It refuses, or says nothing at all; both sides go on when it is back."""
    for is_silent in (False, True):
        async with (
            Proxy(redis.port).run() as proxy,
            RedisRelay(proxy.url, lease=3) as one,
            RedisRelay(proxy.url, lease=3) as two,
            anyio.create_task_group() as tg,
        ):
            key = f"answer:{is_silent}"
            reader, go_on = Seen(), anyio.Event()
            body = Body(*HELLO[:2], go_on, *HELLO[2:])
            tg.start_soon(partial(follow, two, key, reader, wait=5))

            async def interrupt(
                proxy: Proxy, is_silent: bool, reader: Seen, go_on: anyio.Event
            ) -> None:
                await reader.until(4)
                if is_silent:
                    proxy.stall()
                else:
                    proxy.is_refusing = True
                    proxy.cut()
                go_on.set()
                await anyio.sleep(1.2)
                proxy.is_refusing = False
                proxy.flow()

            tg.start_soon(interrupt, proxy, is_silent, reader, go_on)
            seen = await publish(one, key, chat_stream_from(body))
            with anyio.fail_after(HANGS):
                await reader.until(12)
        assert seen.error is None
        assert reader.events == seen.events
        assert reader.error is None


@timed
async def test_a_server_that_is_away_for_longer(redis: RedisServer) -> None:
    """Then both sides get a typed error, within a lease and the time of one attempt."""
    lease = 0.6
    async with (
        Proxy(redis.port).run() as proxy,
        RedisRelay(proxy.url, lease=lease) as one,
        RedisRelay(proxy.url, lease=lease) as two,
        anyio.create_task_group() as tg,
    ):
        reader = Seen()
        times: list[float] = []

        async def read() -> None:
            await follow(two, "answer", reader, wait=5)
            times.append(anyio.current_time())

        tg.start_soon(read)

        async def interrupt() -> None:
            await reader.until(2)
            proxy.is_refusing = True
            proxy.cut()
            times.append(anyio.current_time())

        tg.start_soon(interrupt)
        stream = chat_stream_from(Body(chunk("Hel"), STALL))
        seen = Seen()
        async with stream:
            stream.start_soon(seen.watch, stream.subscribe())
            with anyio.fail_after(HANGS), pytest.raises(RelayUnavailableError, match="lease"):
                await one.publish("answer", stream)
            times.append(anyio.current_time())
            await stream.close()
        proxy.is_refusing = False
        assert len(seen.events) == 2
    assert type(reader.error) is RelayUnavailableError
    assert reader.completion["choices"][0]["message"]["content"] == "Hel"
    if max(times) - min(times) >= lease * 4 / 3 + 1:
        raise TooLate(times)


@timed
async def test_many_who_wait_for_a_server_that_says_nothing(redis: RedisServer) -> None:
    """Nobody waits for the tries of the others, one after another."""
    lease = 0.6
    async with Proxy(redis.port).run() as proxy, RedisRelay(proxy.url, lease=lease) as relay:
        proxy.stall()
        proxy.cut()
        ends: list[float] = []

        async def ask(key: str) -> None:
            with pytest.raises(RelayUnavailableError):
                await relay.status(key)
            ends.append(anyio.current_time())

        started = anyio.current_time()
        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tg:
                for number in range(20):
                    tg.start_soon(ask, str(number))
        in_time(started, lease * 4 / 3 + 1)
        assert len(ends) == 20
        proxy.flow()


@timed
async def test_a_producer_that_is_cut_off(redis: RedisServer) -> None:
    """Readers that reach the server learn that its lease has run out."""
    lease = 0.6
    async with (
        Proxy(redis.port).run() as proxy,
        RedisRelay(proxy.url, lease=lease) as one,
        RedisRelay(redis.url, lease=lease) as two,
        anyio.create_task_group() as tg,
    ):
        reader = Seen()

        async def produce() -> None:
            with pytest.raises((RelayUnavailableError, LeaseLostError)):
                async with chat_stream_from(Body(chunk("Hel"), STALL)) as stream:
                    await one.publish("answer", stream)

        tg.start_soon(produce)
        async with two.open_stream("answer", wait=5) as stream:
            await anext(stream)
            proxy.stall()
            started = anyio.current_time()
            await reader.watch(stream)
            in_time(started, lease + 1)
        assert type(reader.error) is ProducerLostError
        # Somebody else can take the key over at once.
        seen = await publish(two, "answer", hello())
        assert seen.error is None
        proxy.flow()


async def test_no_server() -> None:
    relay = RedisRelay(f"redis://user:secret@127.0.0.1:{free_port()}", lease=0.2)
    with anyio.fail_after(HANGS), pytest.raises(RelayUnavailableError) as caught:
        async with relay:
            raise AssertionError
    assert "secret" not in repr(caught.value)
    assert "secret" not in repr(relay)


@pytest.mark.parametrize(
    "wrong", ["", "localhost", "http://localhost", "redis://", "redis://h:port:secret", None, 1]
)
def test_wrong_urls(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="url") as caught:
        RedisRelay(wrong)
    assert "secret" not in str(caught.value)


def test_wrong_options() -> None:
    for name, wrong in {
        "prefix": "{a}",
        "ttl": 0,
        "lease": -1,
        "flush": "a",
        "flush_bytes": 1.5,
    }.items():
        options: dict[str, Any] = {name: wrong}
        with pytest.raises(ConfigurationError, match=name):
            RedisRelay("valkey://localhost", **options)
    with pytest.raises(ConfigurationError, match="ttl"):
        RedisRelay("valkeys://localhost", ttl=1, lease=2)
    with pytest.raises(ConfigurationError, match="flush"):
        RedisRelay("valkeys://localhost", lease=1, flush=2)
    for endless in ({"ttl": math.inf}, {"ttl": math.inf, "lease": math.inf}):
        with pytest.raises(ConfigurationError, match="expires"):
            RedisRelay("valkeys://localhost", **endless)


@pytest.mark.parametrize("starts", [True, False])
async def test_a_relay_that_is_cancelled_records_the_end(redis: RedisServer, starts: bool) -> None:
    """As when a program is ended by a signal: the cancellation reaches all there is at once."""
    reader = Seen()
    async with RedisRelay(redis.url) as other, anyio.create_task_group() as tg:
        tg.start_soon(partial(follow, other, "answer", reader, wait=5))

        async def produce() -> None:
            with scope:
                async with RedisRelay(redis.url) as relay:
                    if starts:
                        async with relay.start_or_join("answer", lambda: stream):
                            await anyio.sleep_forever()
                    else:
                        async with stream:
                            await relay.publish("answer", stream)

        scope = anyio.CancelScope()
        stream = chat_stream_from(Body(chunk("Hel"), STALL))
        tg.start_soon(produce)
        await reader.until(2)
        scope.cancel()
    assert type(reader.error) is ProducerStoppedError
    assert reader.error.by == "producer"
    assert len(reader.events) == 2
    await redis.until_connections(0)


async def test_cancelled_readers_leave_no_connection(redis: RedisServer) -> None:
    async with RedisRelay(redis.url) as relay, anyio.create_task_group() as tg:
        async with chat_stream_from(Body(chunk("Hel"), STALL)) as stream:
            tg.start_soon(relay.publish, "answer", stream)
            for delay in (0.001, 0.003, 0.01, 0.03, 0.1):
                with anyio.move_on_after(delay):
                    async with anyio.create_task_group() as readers:
                        for _ in range(10):
                            readers.start_soon(partial(follow, relay, "answer", wait=5))
            await redis.until_connections(1)
            tg.cancel_scope.cancel()
    await redis.until_connections(0)


async def test_readers_of_one_answer_share_a_connection(redis: RedisServer) -> None:
    """They wait for the same entry, so it is asked for once, also when the one that asks leaves."""
    seen = [Seen() for _ in range(20)]
    go_on = anyio.Event()
    body = Body(*HELLO[:2], go_on, *HELLO[2:])
    async with RedisRelay(redis.url) as one, RedisRelay(redis.url) as other:
        before = redis.connections()
        async with anyio.create_task_group() as tg, anyio.create_task_group() as leaving:
            leaving.start_soon(partial(follow, other, "answer", wait=5))
            for each in seen:
                tg.start_soon(partial(follow, other, "answer", each, wait=5))
            tg.start_soon(publish, one, "answer", chat_stream_from(body))
            for each in seen:
                await each.until(4)
            assert redis.connections() - before <= 2
            leaving.cancel_scope.cancel()
            go_on.set()
    for each in seen:
        assert each.error is None
        assert each.events == seen[0].events
        assert len(each.events) == 12


async def test_many_readers_share_few_connections(redis: RedisServer) -> None:
    """Readers of an answer that has ended do not wait, so they need none of their own."""
    async with RedisRelay(redis.url) as relay:
        await publish(relay, "answer", hello())
        async with anyio.create_task_group() as tg:
            for _ in range(50):
                tg.start_soon(follow, relay, "answer")
        assert redis.connections() <= 2


async def test_few_replies_are_on_their_way_at_once(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replies to readers may be large, and all others wait behind them until they time out."""
    now = most = 0
    original: Any = connections._Connection

    class Counting(original):
        def create_request(self, command: bytes, *args: Any, **options: Any) -> Any:
            request = super().create_request(command, *args, **options)
            return counted(request) if command == b"XREAD" else request

    async def counted(request: Any) -> Any:
        nonlocal now, most
        now += 1
        most = max(now, most)
        try:
            return await request
        finally:
            now -= 1

    monkeypatch.setattr(connections, "_Connection", Counting)
    async with RedisRelay(redis.url) as relay:
        seen = await publish(relay, "answer", hello())
        readers = [Seen() for _ in range(50)]
        async with anyio.create_task_group() as tg, anyio.create_task_group() as leaving:
            for reader in readers:
                tg.start_soon(follow, relay, "answer", reader)
                leaving.start_soon(follow, relay, "answer")
            await readers[0].until(1)
            leaving.cancel_scope.cancel()
    assert all(reader.events == seen.events for reader in readers)
    assert 1 < most <= 4


async def test_connections_of_readers_that_are_gone_end(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_KEPT_IDLE", 0.1)
    async with RedisRelay(redis.url) as relay:
        for key in ("one", "two"):  # it works again after there were none
            end = anyio.Event()
            stream = chat_stream_from(Body(chunk("Hello"), end, chunk(None, "stop")))
            readers = [Seen() for _ in range(5)]
            async with stream, anyio.create_task_group() as tg:
                tg.start_soon(relay.publish, key, stream)
                for reader in readers:
                    tg.start_soon(partial(follow, relay, key, reader, wait=5))
                for reader in readers:
                    await reader.until(2)
                end.set()
            assert all(reader.error is None for reader in readers)
            await redis.until_connections(1)
