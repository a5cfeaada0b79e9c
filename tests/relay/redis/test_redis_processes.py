"""Producers and readers in processes of their own, which are killed, frozen, and race."""

from __future__ import annotations

import json
import random
import signal
from typing import Any, Final

import anyio
import pytest

from anyio_writer import ProducerLostError
from anyio_writer.relay import RedisRelay
from tests.relay.redis.processes import worker
from tests.relay.redis.redis_server import RedisServer
from tests.relay.relay_helpers import Seen, follow, hello, in_time, publish, timed

LEASE: Final = 1.0


@pytest.fixture
def backend(anyio_backend_name: str) -> str:
    return anyio_backend_name


@timed
async def test_a_producer_that_is_killed(redis: RedisServer, backend: str) -> None:
    """Readers know it when its lease has run out; then another one begins anew."""
    async with (
        RedisRelay(redis.url, lease=LEASE) as relay,
        worker(backend, "produce", redis.url, "answer", LEASE, 1000, 0.01) as producer,
        worker(backend, "follow", redis.url, "answer", LEASE, 0, 0) as follower,
    ):
        reader = Seen()
        async with relay.open_stream("answer", wait=60) as stream:
            for _ in range(40):
                await anext(stream)
            while "event" not in await follower.hear():
                pass
            producer.signal(signal.SIGKILL)
            killed = anyio.current_time()
            await reader.watch(stream)
            in_time(killed, LEASE + 1, least=LEASE - 0.6)
        while "event" in (said := await follower.hear()):
            pass
        in_time(killed, LEASE + 1)
        assert said == {"error": "ProducerLostError"}
        assert type(reader.error) is ProducerLostError
        assert reader.completion["choices"][0]["message"]["content"].startswith("0 1 2 ")
        assert (await relay.status("answer")).state == "lost"
        async with relay.start_or_join("answer", hello) as stream:
            assert await stream.get_final_text() == "Hello world"


@timed
async def test_a_producer_that_is_frozen(redis: RedisServer, backend: str) -> None:
    """What it still wants to say when it wakes is refused."""
    async with (
        RedisRelay(redis.url, lease=LEASE) as relay,
        worker(backend, "produce", redis.url, "answer", LEASE, 1000, 0.01) as producer,
    ):
        reader = Seen()
        async with relay.open_stream("answer", wait=60) as stream:
            for _ in range(40):
                await anext(stream)
            producer.signal(signal.SIGSTOP)
            frozen = anyio.current_time()
            await reader.watch(stream)
            in_time(frozen, LEASE + 1)
        assert type(reader.error) is ProducerLostError
        entries = redis.ask("XLEN", redis.lines("KEYS", "*log:*")[0])
        producer.signal(signal.SIGCONT)
        assert (await producer.hear_all())[-1] == {"error": "LeaseLostError"}
        assert redis.ask("XLEN", redis.lines("KEYS", "*log:*")[0]) == entries
        assert (await relay.status("answer")).state == "lost"


async def test_a_frozen_producer_whose_key_was_taken_over(redis: RedisServer, backend: str) -> None:
    async with (
        RedisRelay(redis.url, lease=LEASE) as relay,
        worker(backend, "produce", redis.url, "answer", LEASE, 1000, 0.01) as producer,
    ):
        async with relay.open_stream("answer", wait=60) as stream:
            await anext(stream)
            producer.signal(signal.SIGSTOP)
            with pytest.raises(ProducerLostError):
                await stream.until_done()
        seen = await publish(relay, "answer", hello())
        producer.signal(signal.SIGCONT)
        assert (await producer.hear_all())[-1] == {"error": "LeaseLostError"}
        read = await follow(relay, "answer")
        assert read.events == seen.events
        assert read.error is None


async def test_a_producer_that_is_frozen_for_less_than_its_lease(
    redis: RedisServer, backend: str
) -> None:
    async with (
        RedisRelay(redis.url, lease=4) as relay,
        worker(backend, "produce", redis.url, "answer", 4, 30, 0.01) as producer,
    ):
        async with relay.open_stream("answer", wait=60) as stream:
            await anext(stream)
            producer.signal(signal.SIGSTOP)
            await anyio.sleep(1)
            producer.signal(signal.SIGCONT)
            assert await stream.get_final_text() == "".join(f"{n} " for n in range(30))


async def test_readers_that_are_killed_and_come_back(redis: RedisServer, backend: str) -> None:
    """Each goes on, in another process, behind the last event that it has seen."""
    async with (
        RedisRelay(redis.url) as relay,
        worker(backend, "produce", redis.url, "answer", 10, 60, 0.02),
        anyio.create_task_group() as tg,
    ):
        stories: list[list[Any]] = [[], []]

        async def read(story: list[Any], numbers: random.Random) -> None:
            while True:
                most = numbers.randint(10, 60)
                async with worker(
                    backend, "follow", redis.url, "answer", 10, len(story), 0
                ) as reader:
                    for _ in range(most):
                        said = await reader.hear()
                        if said is None or "error" in said:
                            assert said == {"error": None}
                            return
                        story.append(said["event"])
                    reader.signal(signal.SIGKILL)

        for number, story in enumerate(stories):
            tg.start_soon(read, story, random.Random(number))
        seen = await follow(relay, "answer", wait=60)
    expected = json.loads(json.dumps([{**event, "raw": None} for event in seen.events]))
    assert all(story == expected for story in stories)
    assert len(expected) > 100
