"""The network on asyncio, where the event loop watches the sockets and reads them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import anyio
import httpcore
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_writer.transport.network import AsyncioSocketStream, SocketStream, socket_stream
from tests.transport.network_helpers import HANGS, Ends, connected, outcome_of


@pytest.fixture(
    scope="module", params=["asyncio", ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


class WatchingLoop:
    """The event loop, and how often it was told to watch a socket, and to leave it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.create_future = self._loop.create_future
        self.told: list[str] = []

    def add_reader(self, *arguments: Any) -> None:
        self.told.append("watch")
        self._loop.add_reader(*arguments)

    def remove_reader(self, sock: socket.socket) -> None:
        self.told.append("leave")
        assert self._loop.remove_reader(sock) is not False, "it was not watched"


@dataclass
class Watched:
    ends: Ends
    connection: AsyncioSocketStream
    told: list[str]


@pytest.fixture
async def watched() -> AsyncGenerator[Watched]:
    loop: Any = WatchingLoop()
    made: list[AsyncioSocketStream] = []

    def make(sock: socket.socket) -> SocketStream:
        made.append(AsyncioSocketStream(sock, asyncio.get_running_loop()))
        made[0]._loop = loop
        return made[0]

    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with connected(listener, make) as ends:
            yield Watched(ends, made[0], loop.told)


async def test_this_is_what_asyncio_gets(watched: Watched) -> None:
    assert type(socket_stream(watched.ends.ours)) is AsyncioSocketStream


async def test_who_reads_on_has_the_socket_watched_once(watched: Watched) -> None:
    ends = watched.ends
    for piece in (b"one", b"two", b"six"):
        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(outcome_of, ends.stream.read(100), got := [])
                await wait_all_tasks_blocked()
                ends.theirs.sendall(piece)
        assert got == [piece]
    assert watched.told == ["watch"]
    assert ends.ours.recvs == 3


async def test_what_nobody_waits_for_is_left_to_tcp(watched: Watched) -> None:
    """Else the event loop would come back to it in every turn, or memory would fill."""
    ends = watched.ends
    ends.theirs.sendall(b"one")
    assert await ends.stream.read(100) == b"one"
    ends.theirs.sendall(b"two")
    for _ in range(10):
        await checkpoint()
    assert watched.told == ["watch", "leave"]
    assert ends.ours.recvs == 1
    assert await ends.stream.read(100) == b"two"
    assert watched.told == ["watch", "leave", "watch"]


@pytest.mark.parametrize("turns", range(4))
async def test_a_read_that_was_cancelled_wanted_more(watched: Watched, turns: int) -> None:
    """What had come for it is there for the next, however little that one takes."""
    ends = watched.ends
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, ends.stream.read(100), first := [])
            await wait_all_tasks_blocked()
            ends.theirs.sendall(b"onetwosix")
            for _ in range(turns):
                await checkpoint()
            tasks.cancel_scope.cancel()
        got = b"".join(first)
        assert ends.stream.get_extra_info("is_readable") is not bool(got)
        while len(got) < 9:
            piece = await ends.stream.read(3)
            assert len(piece) <= 3
            got += piece
    assert got == b"onetwosix"


async def test_asyncio_s_own_cancellation_loses_nothing(watched: Watched) -> None:
    ends = watched.ends
    reading = asyncio.ensure_future(watched.connection.receive(100))
    await wait_all_tasks_blocked()
    ends.theirs.sendall(b"one")
    while not ends.ours.recvs:
        await checkpoint()
    reading.cancel()  # it is about to be woken
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert ends.ours.recvs == 1
    assert ends.stream.get_extra_info("is_readable") is True
    # The next may want less.
    assert await ends.stream.read(2, timeout=HANGS) == b"on"
    assert await ends.stream.read(100, timeout=HANGS) == b"e"
    assert ends.ours.recvs == 1


async def test_being_woken_for_nothing(watched: Watched) -> None:
    ends = watched.ends
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, ends.stream.read(100), got := [])
            await wait_all_tasks_blocked()
            watched.connection._on_readable()  # as some systems do
            await wait_all_tasks_blocked()
            assert not got
            ends.theirs.sendall(b"now")
    assert got == [b"now"]
    assert ends.ours.recvs == 2


@pytest.mark.parametrize("turns", range(4))
async def test_a_reset_behind_data(watched: Watched, turns: int) -> None:
    """The loop may find both at once. uvloop's then stops watching, and does not say so."""
    ends = watched.ends
    ends.theirs.sendall(b"one")
    assert await ends.stream.read(100) == b"one"
    ends.theirs.sendall(b"two")
    for _ in range(turns):
        await checkpoint()
    ends.reset()
    with anyio.fail_after(HANGS), pytest.raises(httpcore.ReadError, match="reset by peer"):
        assert await ends.stream.read(100) == b"two"
        await ends.stream.read(100)


async def test_a_closed_socket_is_watched_no_more(watched: Watched) -> None:
    ends = watched.ends
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, ends.stream.read(100), [])
            await wait_all_tasks_blocked()
            await ends.stream.aclose()
    await ends.stream.aclose()
    assert watched.told == ["watch", "leave"]


async def test_a_socket_that_nobody_read_was_never_watched(watched: Watched) -> None:
    await watched.ends.stream.write(b"x")
    await watched.ends.stream.aclose()
    assert watched.told == []
