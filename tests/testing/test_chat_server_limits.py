"""The server outlives what its peers, and the machine's limits, do to it."""

import os
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketStream

from anyio_writer.testing import ChatServer, Reply, Stall, text_reply

resource = pytest.importorskip("resource", reason="this system has no limit on descriptors")

HANGS = 10  # seconds; a net under a hang, not an assertion


def post(body: bytes, *, close: bool = False) -> bytes:
    head = f"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {len(body)}\r\n"
    return (head + "connection: close\r\n" * close + "\r\n").encode() + body


@asynccontextmanager
async def connected(server: ChatServer) -> AsyncGenerator[SocketStream]:
    parts = urlsplit(server.url)
    with anyio.fail_after(HANGS):
        async with await anyio.connect_tcp(parts.hostname or "", parts.port or 0) as stream:
            yield stream


async def exchange(server: ChatServer, request: bytes) -> bytes:
    async with connected(server) as stream:
        await stream.send(request)
        return b"".join([data async for data in stream])


@contextmanager
def no_descriptors() -> Generator[None]:
    """Let the process open no file and no socket more than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_the_server_waits_until_there_are_descriptors_again() -> None:
    async with ChatServer(text_reply("Hello")) as server:
        parts = urlsplit(server.url)
        # The system completes the connection, the server has yet to accept it.
        with socket.create_connection((parts.hostname, parts.port)):
            with no_descriptors():
                for _ in range(20):  # more than a waiting listener needs to wake up
                    await anyio.lowlevel.checkpoint()
                assert server.connections == []
            assert b"Hello" in await exchange(server, post(b"{}", close=True))
    assert len(server.connections) == 2


async def test_a_body_that_is_too_long_gets_a_413() -> None:
    async with ChatServer(text_reply("Hello"), max_body_bytes=1000) as server:
        assert b"HTTP/1.1 413 " in await exchange(server, post(bytes(1001)))
        assert b"HTTP/1.1 200 " in await exchange(server, post(bytes(1000), close=True))
    assert [len(request.body) for request in server.requests] == [1000]


async def test_the_oldest_bodies_are_forgotten() -> None:
    bodies = [b"[%d]" % number + b" " * 397 for number in range(5)]
    async with ChatServer(text_reply("Hello"), max_body_bytes=1000) as server:
        for body in bodies:
            await exchange(server, post(body, close=True))
    assert [request.body for request in server.requests] == [b"", b"", b"", *bodies[3:]]
    assert [request.body_kept for request in server.requests] == [False] * 3 + [True] * 2
    assert server.requests[3].json() == [3]
    with pytest.raises(ValueError, match="max_body_bytes"):
        server.requests[0].json()


async def test_what_is_sent_during_an_answer_is_bounded() -> None:
    async with (
        ChatServer(Reply(body=[b"a", Stall()]), max_body_bytes=1000) as server,
        connected(server) as stream,
    ):
        await stream.send(post(b"{}"))
        with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
            while True:
                await stream.send(bytes(65_536))
