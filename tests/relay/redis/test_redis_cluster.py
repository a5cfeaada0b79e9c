"""A cluster: any node may be asked, and slots move."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from anyio_writer.relay import RedisRelay
from anyio_writer.relay.connections import slot_of
from tests.relay.redis.redis_server import RedisServer, free_port
from tests.relay.relay_helpers import HANGS, Seen, follow, hello, publish

HALF = 8192


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Two nodes with half of the slots each."""
    folder: Path = tmp_path_factory.mktemp("cluster")
    first, second = (
        RedisServer(folder / name, "cluster-enabled yes", f"cluster-port {free_port()}")
        for name in ("first", "second")
    )
    bus = second.options[1].partition(" ")[2]
    first.start()
    second.start()
    first.ask("CLUSTER", "ADDSLOTSRANGE", "0", str(HALF - 1))
    second.ask("CLUSTER", "ADDSLOTSRANGE", str(HALF), "16383")
    second.ask("CLUSTER", "SET-CONFIG-EPOCH", "2")
    first.ask("CLUSTER", "MEET", "127.0.0.1", str(second.port), bus)
    yield first, second
    first.kill()
    second.kill()


@pytest.fixture
async def cluster(nodes: tuple[RedisServer, RedisServer]) -> tuple[RedisServer, RedisServer]:
    with anyio.fail_after(HANGS):
        for node in nodes:
            while b"cluster_state:ok" not in node.ask("CLUSTER", "INFO"):  # noqa: ASYNC110
                await anyio.sleep(0.05)
            node.ask("FLUSHALL")
    return nodes


def test_slots(nodes: tuple[RedisServer, RedisServer]) -> None:
    """As the server computes them."""
    for name in (
        "a",
        "{a}b",
        "{}a",
        "a{b}c{d}",
        "a{b",
        "{a",
        "}{a}",
        "{anyio-writer:é}:meta",
        "a}",
    ):
        assert nodes[0].ask("CLUSTER", "KEYSLOT", name) == b":%d\r\n" % slot_of(name.encode())


async def test_answers_on_both_nodes(cluster: tuple[RedisServer, RedisServer]) -> None:
    async with RedisRelay(cluster[0].url) as one, RedisRelay(cluster[1].url) as two:
        for number in range(8):
            key, reader = f"answer:{number}", Seen()
            async with anyio.create_task_group() as tg:

                async def read(key: str = key, reader: Seen = reader) -> None:
                    await follow(two, key, reader, wait=5)

                tg.start_soon(read)
                seen = await publish(one, key, hello())
            assert seen.error is None
            assert reader.events == seen.events
            assert await two.stop(key) is False
            async with two.start_or_join(key, hello) as stream:
                assert await stream.get_final_text() == "Hello world"
    for node in cluster:
        assert len(node.lines("KEYS", "*")) >= 2
        assert node.keys_without_expiry() == []
