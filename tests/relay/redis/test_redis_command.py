"""The command ``relay``: what one process publishes, others read, stop and look up."""

from __future__ import annotations

import json
import os
import pty
import socket

import anyio
import pytest

from anyio_writer.cli.exits import Exit
from anyio_writer.relay import RedisRelay
from anyio_writer.testing import ChatServer, Hold, chunks_reply, writer_chunks
from tests.cli.cli_helpers import (
    errors_of,
    output_of,
    run_command,
    started,
    terminal_output,
)
from tests.relay.redis.redis_server import RedisServer
from tests.relay.relay_helpers import HANGS, hello, publish

OPENING, *WORDS, LAST = writer_chunks("One two three")
BACKENDS = ["asyncio", "trio"]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The commands bring their own."""
    return "asyncio"


async def test_an_answer_is_read_and_stopped_elsewhere(redis: RedisServer) -> None:
    place = ("answer", "--redis", redis.url)
    body = [OPENING, *WORDS[:2], Hold(anyio.Event()), LAST]
    async with ChatServer(chunks_reply(body)) as server:
        asked = ("relay", "publish", *place, "Hi", "--base-url", server.url, "--backend", "trio")
        async with started(*asked) as publishing:
            async with started("relay", "read", *place, "--wait", "30") as reading:
                assert await output_of(reading, b"One two") == b"One two"
                found = await run_command("relay", "status", *place, "--json")
                assert json.loads(found.stdout)["state"] == "running"
                assert (await run_command("relay", "stop", *place)).returncode == Exit.OK
                assert await reading.wait() == Exit.BROKEN_ANSWER
                assert b"stopped by Relay.stop()" in await errors_of(reading)
            assert await publishing.wait() == Exit.OK
            assert (await output_of(publishing, b"\n")).split()[:2] == [b"state", b"stopped"]
        with anyio.fail_after(HANGS):
            await server.wait_disconnect()
    found = await run_command("relay", "status", *place, "--json")
    assert json.loads(found.stdout)["state"] == "stopped"
    assert (await run_command("relay", "stop", *place)).returncode == Exit.NO_ANSWER


async def test_a_terminal_shows_that_it_still_tries_to_connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    master, slave = pty.openpty()
    place = ("answer", "--redis", f"redis://127.0.0.1:{port}")
    try:
        async with started("relay", "status", *place, stdout=slave, stderr=slave) as process:
            os.close(slave)
            assert b"connecting to Redis" in await terminal_output(master, until=b"Redis")
            process.terminate()
            await terminal_output(master)
            assert await process.wait() == Exit.TERMINATED
    finally:
        os.close(master)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_ctrl_c_stops_the_answer(redis: RedisServer, backend: str) -> None:
    place = ("answer", "--redis", redis.url)
    async with ChatServer(chunks_reply([OPENING, WORDS[0], Hold(anyio.Event()), LAST])) as server:
        asked = ("relay", "publish", *place, "Hi", "--base-url", server.url, "--backend", backend)
        async with started(*asked) as publishing:
            async with started("relay", "read", *place, "--wait", "30") as reading:
                await output_of(reading, b"One")
                publishing.terminate()
                assert await reading.wait() == Exit.BROKEN_ANSWER
                assert b"stopped by its producer" in await errors_of(reading)
            assert await publishing.wait() == Exit.TERMINATED


async def test_who_goes_on_reading_names_the_answer(redis: RedisServer) -> None:
    place = ("answer", "--redis", redis.url)
    async with RedisRelay(redis.url) as relay:
        await publish(relay, "answer", hello())
        status = await run_command("relay", "status", *place, "--json")
        asked = ("relay", "read", *place, "--skip", "4", "--generation")
        generation = str(json.loads(status.stdout)["generation"])
        ended = await run_command(*asked, generation)
        assert (ended.returncode, ended.stdout) == (Exit.OK, b"world\n")
        await relay.expire("answer")
        await publish(relay, "answer", hello())
        ended = await run_command(*asked, generation)
        assert (ended.returncode, ended.stdout) == (Exit.BROKEN_ANSWER, b"")


async def test_a_password_is_not_shown(redis: RedisServer) -> None:
    for url in (f"redis://nobody:a-password@127.0.0.1:{redis.port}", "redis//:a-password@host"):
        ended = await run_command("relay", "status", "answer", REDIS_URL=url)
        assert ended.returncode in {Exit.CONNECTION, Exit.USAGE}
        assert b"a-password" not in ended.stdout + ended.stderr
