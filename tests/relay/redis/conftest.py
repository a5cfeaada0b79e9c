"""Servers for the tests here, and the check that they leave nothing there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from anyio_writer.relay import RedisRelay, Relay
from tests.relay.redis.redis_server import PROGRAM, RedisServer
from tests.relay.relay_helpers import Machine


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if PROGRAM is None:
        pytest.skip("Debian's redis-server is not installed")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis(shared_server: RedisServer) -> Iterator[RedisServer]:
    """A server that is empty, and must hold nothing that does not expire in the end."""
    shared_server.ask("FLUSHALL")
    yield shared_server
    assert shared_server.keys_without_expiry() == []


@pytest.fixture
def machine(redis: RedisServer) -> Machine:
    @asynccontextmanager
    async def enter(**options: Any) -> AsyncIterator[Relay]:
        async with RedisRelay(redis.url, **options) as relay:
            yield relay

    return enter
