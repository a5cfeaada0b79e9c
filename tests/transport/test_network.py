"""The network below the HTTP library, on real sockets of this machine."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpcore
import pytest
import trustme
from anyio import wait_all_tasks_blocked
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSListener

from anyio_writer import (
    APIConnectionError,
    AsyncWriter,
    ChatCompletionStream,
    ContentDeltaEvent,
    StreamTruncatedError,
)
from anyio_writer.testing import ChatServer, Cut, Hold, Reply, Reset, sse_event, writer_chunks
from anyio_writer.transport import client as http
from anyio_writer.transport import network
from anyio_writer.transport.network import (
    NetworkBackend,
    NetworkStream,
    SocketStream,
    socket_stream,
)
from tests.lifetimes.lifetime_helpers import WAYS, busy_slots, cancelled_at
from tests.transport.network_helpers import HANGS, Counted, Ends, connected, outcome_of

pytestmark = pytest.mark.uvloop

MUCH = bytes(range(256)) * 40_000  # more than the buffers of two sockets


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture(params=[socket_stream, SocketStream], ids=["this loop's way", "any loop's way"])
async def ends(listener: socket.socket, request: pytest.FixtureRequest) -> AsyncGenerator[Ends]:
    async with connected(listener, request.param) as ends:
        yield ends


@pytest.fixture
async def waiting_ends(listener: socket.socket) -> AsyncGenerator[Ends]:
    """With a stream that waits for each read, as on trio."""
    async with connected(listener, SocketStream) as ends:
        yield ends


def port_of(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port


async def drain(sock: socket.socket, size: int) -> bytes:
    """So many bytes, read while others run."""
    sock.setblocking(False)
    got = bytearray()
    while len(got) < size:
        await anyio.wait_readable(sock)
        got += sock.recv(1_000_000)
    return bytes(got)


# Reading.


async def test_what_has_come_is_read(ends: Ends) -> None:
    ends.theirs.sendall(b"one")
    assert await ends.stream.read(100) == b"one"
    ends.theirs.sendall(b"two, three")
    assert await ends.stream.read(3, timeout=HANGS) == b"two"
    assert await ends.stream.read(100) == b", three"


async def test_what_comes_later_wakes_a_read_that_waits(ends: Ends) -> None:
    got: list[object] = []
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, ends.stream.read(100), got)
            await wait_all_tasks_blocked()
            assert not got
            ends.theirs.sendall(b"late")
    assert got == [b"late"]


async def test_a_buffer_that_was_not_filled_is_followed_by_a_wait(ends: Ends) -> None:
    """Nothing is asked of a socket in vain, and no memory is set aside for what has not come."""
    ends.theirs.sendall(b"one")
    assert await ends.stream.read(100) == b"one"
    assert ends.ours.recvs == 1
    got: list[object] = []
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, ends.stream.read(100), got)
            await wait_all_tasks_blocked()
            assert ends.ours.recvs == 1
            ends.theirs.sendall(b"two")
    assert got == [b"two"]
    assert ends.ours.recvs == 2


async def test_a_buffer_that_was_filled_is_followed_by_a_read(waiting_ends: Ends) -> None:
    ends = waiting_ends
    connection = ends.stream._connection
    waits: list[object] = []
    turns: list[str] = []
    wait_readable = anyio.wait_readable

    def counted(sock: socket.socket) -> Awaitable[None]:
        waits.append(sock)
        return wait_readable(sock)

    async def other() -> None:
        turns.append("other")

    connection._wait_readable = counted  # type: ignore[assignment]
    ends.theirs.sendall(b"onetwosix")
    assert await ends.stream.read(3) == b"one"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        assert await ends.stream.read(3) == b"two"
        # trio may put the reader before the other task, but not twice.
        assert await ends.stream.read(3) == b"six"
        assert turns == ["other"]
        assert len(waits) == 1
        # Whether there is more cannot be known now: it is asked once, then waited for.
        tasks.start_soon(outcome_of, ends.stream.read(3), got := [])
        await wait_all_tasks_blocked()
        assert (ends.ours.recvs, len(waits)) == (4, 2)
        ends.theirs.sendall(b"ten")
    assert got == [b"ten"]


async def test_what_was_read_gets_to_its_consumer_before_the_next_wait(waiting_ends: Ends) -> None:
    """To set up a wait takes trio as long as the consumer, so that would double the time to it."""
    connection = waiting_ends.stream._connection
    wait_readable = anyio.wait_readable
    order: list[str] = []

    def noted(sock: socket.socket) -> Awaitable[None]:
        order.append("wait")
        return wait_readable(sock)

    connection._wait_readable = noted  # type: ignore[assignment]
    send, receive = anyio.create_memory_object_stream[bytes](1)

    async def consume() -> None:
        async for _ in receive:
            order.append("consumed")
            await wait_all_tasks_blocked()
            waiting_ends.theirs.sendall(b"token")

    with anyio.fail_after(HANGS), send, receive:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume)
            waiting_ends.theirs.sendall(b"token")
            for _ in range(30):
                send.send_nowait(await waiting_ends.stream.read(100))
            await waiting_ends.stream.read(100)
            send.close()
    assert order == ["wait", "consumed"] * 30 + ["wait"]


async def test_being_woken_for_nothing(waiting_ends: Ends) -> None:
    ends = waiting_ends
    connection = ends.stream._connection
    wait_readable = anyio.wait_readable

    async def hasty(sock: socket.socket) -> None:
        if ends.ours.recvs < 3:
            await checkpoint()
        else:
            await wait_readable(sock)

    connection._wait_readable = hasty  # type: ignore[assignment]
    got: list[object] = []
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, ends.stream.read(100), got)
            await wait_all_tasks_blocked()
            assert ends.ours.recvs == 3
            assert not got
            ends.theirs.sendall(b"now")
    assert got == [b"now"]


async def test_the_end_is_empty_and_stays(ends: Ends) -> None:
    ends.theirs.sendall(b"last")
    ends.theirs.shutdown(socket.SHUT_WR)
    assert await ends.stream.read(4) == b"last"
    assert await ends.stream.read(4) == b""
    assert await ends.stream.read(4) == b""
    await ends.stream.write(b"the other direction is open")
    assert ends.theirs.recv(100) == b"the other direction is open"


@pytest.mark.parametrize("waiting", [True, False])
async def test_a_reset(ends: Ends, waiting: bool) -> None:
    got: list[object] = []
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            if not waiting:
                ends.reset()
            tasks.start_soon(outcome_of, ends.stream.read(100), got)
            if waiting:
                await wait_all_tasks_blocked()
                ends.reset()
    (error,) = got
    assert isinstance(error, httpcore.ReadError)
    assert str(error) == f"[Errno {errno.ECONNRESET}] {os.strerror(errno.ECONNRESET)}"
    assert await ends.stream.read(100, timeout=HANGS) == b""


@pytest.mark.parametrize("size", [100, 4096, 65536])
async def test_what_came_before_a_reset_comes_first(ends: Ends, size: int) -> None:
    sent = MUCH[:50_000]
    ends.theirs.sendall(sent)
    ends.reset()
    got = b""
    with anyio.fail_after(HANGS):
        with pytest.raises(httpcore.ReadError, match=os.strerror(errno.ECONNRESET)):
            while True:
                got += await ends.stream.read(size)
        assert got == sent
        assert await ends.stream.read(size) == b""


async def test_a_connection_that_times_out_is_broken(ends: Ends) -> None:
    """TCP's own limit (nothing came back for keep-alive) is not that of the read."""

    class Forgotten(Counted):
        def recv(self, *arguments: Any) -> bytes:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    ends.theirs.sendall(b"never seen")
    with Forgotten(fileno=ends.ours.detach()) as ours:
        with pytest.raises(httpcore.ReadError, match=os.strerror(errno.ETIMEDOUT)):
            await NetworkStream(ends.make(ours)).read(100)


async def test_a_read_that_is_cancelled_loses_nothing(ends: Ends) -> None:
    sent = got = b""
    for number in range(20):
        piece = b"%04d" % number
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, ends.stream.read(4), pieces := [])
            if number % 2:
                await wait_all_tasks_blocked()
            ends.theirs.sendall(piece)
            sent += piece
            for _ in range(number // 2 % 5):
                await checkpoint()
            tasks.cancel_scope.cancel()
        got += b"".join(pieces)
    while len(got) < len(sent):
        got += await ends.stream.read(4, timeout=HANGS)
    assert got == sent


async def test_a_read_in_a_cancelled_scope_takes_nothing(ends: Ends) -> None:
    ends.theirs.sendall(b"onetwo")
    assert await ends.stream.read(3) == b"one"  # so that there may be more
    with anyio.CancelScope() as scope:
        scope.cancel()
        await ends.stream.read(3)
    assert scope.cancelled_caught
    assert await ends.stream.read(3) == b"two"


async def test_a_read_that_takes_too_long(ends: Ends) -> None:
    with pytest.raises(httpcore.ReadTimeout):
        await ends.stream.read(100, timeout=0)
    ends.theirs.sendall(b"late")
    assert await ends.stream.read(100, timeout=HANGS) == b"late"


async def test_only_one_task_may_wait_for_data(ends: Ends) -> None:
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, ends.stream.read(100), got := [])
            await wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await ends.stream.read(100)
            ends.theirs.sendall(b"whole")
    assert got == [b"whole"]


# Writing.


async def test_what_is_written_arrives(ends: Ends) -> None:
    await ends.stream.write(b"one")
    await ends.stream.write(b"", timeout=0)  # httpcore's end of a request
    await ends.stream.write(b"two", timeout=HANGS)
    assert ends.theirs.recv(100) == b"onetwo"
    assert ends.ours.sends == 2


async def test_much_is_written_in_parts_to_a_slow_reader(ends: Ends) -> None:
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, ends.stream.write(MUCH), written := [])
            await wait_all_tasks_blocked()
            assert not written
            assert await drain(ends.theirs, len(MUCH)) == MUCH
    assert written == [None]
    assert ends.ours.sends > 2


async def test_a_write_that_takes_too_long(ends: Ends) -> None:
    with pytest.raises(httpcore.WriteTimeout):
        await ends.stream.write(b"x", timeout=0)
    assert ends.ours.sends == 0


async def test_a_write_is_cancelled_while_nobody_reads(ends: Ends) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ends.stream.write, MUCH)
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert ends.ours.sends >= 2


async def test_a_write_after_a_reset(ends: Ends) -> None:
    ends.reset()
    with pytest.raises(httpcore.WriteError, match=r"\[Errno \d+\] [A-Z]"):
        await ends.stream.write(b"x")


async def test_a_write_that_waits_learns_of_a_reset(ends: Ends) -> None:
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, ends.stream.write(MUCH), got := [])
            await wait_all_tasks_blocked()
            ends.reset()
    (error,) = got
    assert isinstance(error, httpcore.WriteError)
    assert os.strerror(errno.ECONNRESET) in str(error)


async def test_the_end_of_what_is_sent(ends: Ends) -> None:
    stream = ends.stream._connection
    await stream.send_eof()
    assert ends.theirs.recv(100) == b""
    with pytest.raises(anyio.BrokenResourceError):
        await stream.send(b"x")
    ends.theirs.sendall(b"the other direction is open")
    assert await stream.receive() == b"the other direction is open"
    await stream.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await stream.send_eof()


# Closing.


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda stream: stream.read(100), httpcore.ReadError),
        (lambda stream: stream.write(MUCH), httpcore.WriteError),
    ],
    ids=["read", "write"],
)
async def test_closing_wakes_who_waits(
    ends: Ends, action: Callable[[NetworkStream], Awaitable[Any]], expected: type[Exception]
) -> None:
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, action(ends.stream), got := [])
            await wait_all_tasks_blocked()
            await ends.stream.aclose()
            assert ends.ours.fileno() == -1
    (error,) = got
    assert isinstance(error, expected)
    assert str(error) == "closed by this side"


async def test_a_write_that_begins_while_closing(ends: Ends) -> None:
    """The socket is still there for a turn, but nothing would wake who waits for it now."""
    async with anyio.create_task_group() as tasks:
        with pytest.raises(BlockingIOError):
            while True:
                ends.ours.send(MUCH)
        tasks.start_soon(ends.stream.aclose)
        while not ends.stream._connection._closed:
            await checkpoint()
        with anyio.fail_after(HANGS), pytest.raises(httpcore.WriteError, match="closed by this"):
            await ends.stream.write(b"x")


@pytest.mark.parametrize("filled", [True, False])
async def test_a_closed_connection_stays_closed(ends: Ends, filled: bool) -> None:
    ends.theirs.sendall(b"onetwo")
    await ends.stream.read(3 if filled else 100)
    await ends.stream.aclose()
    await ends.stream.aclose()
    with pytest.raises(httpcore.ReadError, match="closed by this side"):
        await ends.stream.read(3)
    with pytest.raises(httpcore.WriteError, match="closed by this side"):
        await ends.stream.write(b"x")
    assert ends.stream.get_extra_info("is_readable")


async def test_a_cancelled_task_closes_nonetheless(ends: Ends) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await ends.stream.aclose()
    assert not scope.cancelled_caught
    assert ends.ours.fileno() == -1


async def test_a_task_that_asyncio_cancels_closes_nonetheless(
    ends: Ends, anyio_backend_name: str
) -> None:
    if anyio_backend_name == "trio":
        return
    closing = asyncio.ensure_future(ends.stream.aclose())
    await checkpoint()
    assert ends.ours.fileno() != -1  # it waits for a turn
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert ends.ours.fileno() == -1


@pytest.mark.parametrize("turns", range(4))
async def test_a_socket_with_the_same_number_is_another_one(
    ends: Ends, listener: socket.socket, turns: int
) -> None:
    """Closing one connection while another is made: neither knows anything of the other."""
    made: list[Any] = []
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, ends.stream.write(MUCH), [])
            await wait_all_tasks_blocked()
            connecting = NetworkBackend().connect_tcp("127.0.0.1", port_of(listener))
            tasks.start_soon(outcome_of, connecting, made)
            for _ in range(turns):
                await checkpoint()
            await ends.stream.aclose()
    await made[0].aclose()


# Connecting.


async def test_a_connection_goes_both_ways(listener: socket.socket) -> None:
    stream = await NetworkBackend().connect_tcp("localhost", port_of(listener), timeout=HANGS)
    with listener.accept()[0] as theirs:
        await stream.write(b"ping")
        assert theirs.recv(100) == b"ping"
        theirs.sendall(b"pong")
        assert await stream.read(100) == b"pong"
        await stream.aclose()
        assert theirs.recv(100) == b""


async def test_an_ipv6_address() -> None:
    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:  # a machine without IPv6: then nothing can be reached there, and it says so
        with pytest.raises(httpcore.ConnectError, match="Errno"):
            await NetworkBackend().connect_tcp("::1", 1)
        return
    with listening:
        stream = await NetworkBackend().connect_tcp("::1", port_of(listening))
        assert stream.get_extra_info("server_addr")[:2] == listening.getsockname()[:2]
        await stream.aclose()


async def test_options_are_set(listener: socket.socket) -> None:
    stream = await NetworkBackend().connect_tcp(
        "127.0.0.1",
        port_of(listener),
        socket_options=[(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)],
    )
    raw = stream.get_extra_info("socket")
    assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await stream.aclose()


async def test_a_local_address(listener: socket.socket) -> None:
    connect = NetworkBackend().connect_tcp
    stream = await connect("127.0.0.1", port_of(listener), local_address="127.0.0.1")
    assert stream.get_extra_info("client_addr")[0] == "127.0.0.1"
    await stream.aclose()
    # One of nobody's (RFC 5737): it is asked for, and not left to the system.
    with pytest.raises(httpcore.ConnectError, match=os.strerror(errno.EADDRNOTAVAIL)):
        await connect("127.0.0.1", port_of(listener), local_address="192.0.2.1")
    with pytest.raises(httpcore.ConnectError):
        await connect("127.0.0.1", port_of(listener), local_address="::1")


@contextmanager
def refusing() -> Iterator[int]:
    """A port that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield port_of(bound)


@contextmanager
def hanging() -> Iterator[int]:
    """A port that lets connections wait: as many others wait already as may."""
    waiting: list[socket.socket] = []
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        try:
            for _ in range(4):  # how many fit is the system's own affair
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(listening.getsockname())
            yield port_of(listening)
        finally:
            for each in waiting:
                each.close()


@dataclass
class Names:
    """What names stand for, and the sockets that were made for them."""

    addresses: list[Any]
    made: list[socket.socket]

    def stand_for(self, *ports: int) -> None:
        for port in ports:
            target = ("127.0.0.1", port)
            self.addresses.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", target))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """All names stand for the same addresses, each with the port that was given for it."""
    known = Names([], [])

    class Known(Counted):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            known.made.append(self)

    async def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        await checkpoint()
        return known.addresses

    async def resolve(host: str, port: int) -> list[Any]:
        await checkpoint()
        return known.addresses

    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(network, "_resolve", resolve)
    monkeypatch.setattr(network, "socket", SimpleNamespace(**{**vars(socket), "socket": Known}))
    return known


def all_closed(sockets: list[socket.socket]) -> bool:
    return all(each.fileno() == -1 for each in sockets)


async def test_nobody_listens() -> None:
    with refusing() as port, pytest.raises(httpcore.ConnectError) as caught:
        await NetworkBackend().connect_tcp("127.0.0.1", port)
    assert os.strerror(errno.ECONNREFUSED) in str(caught.value)


@pytest.mark.parametrize(
    ("nowhere", "head_start"),
    # One that refuses has the next one tried at once, and not after the head start.
    [pytest.param(refusing, 10 * HANGS, id="refuses"), pytest.param(hanging, 0, id="is silent")],
)
async def test_the_first_address_leads_nowhere(
    nowhere: Callable[[], AbstractContextManager[int]],
    head_start: float,
    names: Names,
    listener: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "_NEXT_ATTEMPT", head_start)
    with nowhere() as port:
        names.stand_for(port, port_of(listener))
        with anyio.fail_after(HANGS):
            stream = await NetworkBackend().connect_tcp("name", 1)
    assert stream.get_extra_info("server_addr") == listener.getsockname()
    assert [each.fileno() == -1 for each in names.made] == [True, False]
    await stream.aclose()


async def test_two_addresses_connect_in_the_same_turn(
    names: Names, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = anyio.Event()
    wait_writable = anyio.wait_writable

    async def together(sock: socket.socket) -> None:
        await wait_writable(sock)
        await both.wait()

    monkeypatch.setattr(network, "_NEXT_ATTEMPT", 0)
    monkeypatch.setattr(anyio, "wait_writable", together)
    names.stand_for(port_of(listener), port_of(listener))
    made: list[Any] = []
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, NetworkBackend().connect_tcp("name", 1), made)
            await wait_all_tasks_blocked()
            assert [each.fileno() == -1 for each in names.made] == [False, False]
            both.set()
    assert sorted(each.fileno() == -1 for each in names.made) == [False, True]
    assert made[0].get_extra_info("socket").fileno() != -1
    await made[0].aclose()


async def test_every_address_fails(names: Names) -> None:
    """Each reason is given once."""
    with refusing() as port:
        names.stand_for(port, port, port)
        with pytest.raises(httpcore.ConnectError) as caught:
            await NetworkBackend().connect_tcp("name", 1)
    assert str(caught.value).count(os.strerror(errno.ECONNREFUSED)) == 1
    assert len(names.made) == 3
    assert all_closed(names.made)


async def test_a_name_without_an_address(names: Names) -> None:
    with pytest.raises(httpcore.ConnectError, match="the name has no address"):
        await NetworkBackend().connect_tcp("name", 1)


async def test_a_name_that_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*arguments: Any, **keywords: Any) -> list[Any]:
        await checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)
    with pytest.raises(httpcore.ConnectError, match="Name or service not known"):
        await NetworkBackend().connect_tcp("name", 1)


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test", ".test"])
async def test_a_name_that_cannot_be_one(host: str) -> None:
    with pytest.raises(httpcore.ConnectError, match="label"):
        await NetworkBackend().connect_tcp(host, 1)


async def test_the_system_gives_up_connecting(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's time limit is no ``ConnectTimeout``: that one is the caller's."""

    async def connect(*arguments: Any) -> socket.socket:
        await checkpoint()
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    monkeypatch.setattr(network, "_connect", connect)
    names.stand_for(1)
    with pytest.raises(httpcore.ConnectError, match=os.strerror(errno.ETIMEDOUT)):
        await NetworkBackend().connect_tcp("name", 1, timeout=HANGS)


async def test_connecting_takes_too_long(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_NEXT_ATTEMPT", 0)
    with hanging() as port:
        names.stand_for(port, port)
        with pytest.raises(httpcore.ConnectTimeout):
            await NetworkBackend().connect_tcp("name", 1, timeout=0)
        assert all_closed(names.made)


async def test_cancelled_while_connecting(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_NEXT_ATTEMPT", 0)
    with hanging() as port:
        names.stand_for(port, port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(NetworkBackend().connect_tcp, "name", 1)
            await wait_all_tasks_blocked()
            assert [each.fileno() == -1 for each in names.made] == [False, False]
            tasks.cancel_scope.cancel()
        assert all_closed(names.made)


@pytest.mark.parametrize("turns", range(12))
async def test_cancelled_at_any_moment(
    names: Names, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Either there is a connection, or nothing is left of it."""
    monkeypatch.setattr(network, "_NEXT_ATTEMPT", 0)
    names.stand_for(port_of(listener), port_of(listener))
    made: list[Any] = []
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, NetworkBackend().connect_tcp("name", 1), made)
            for _ in range(turns):
                await checkpoint()
            tasks.cancel_scope.cancel()
    for each in made:
        await each.aclose()
    assert all_closed(names.made)


@pytest.mark.parametrize(
    ("found", "order"),
    [
        ([], []),
        (["::1"], ["::1"]),
        (["::1", "127.0.0.1"], ["::1", "127.0.0.1"]),
        (["::1", "::2", "127.0.0.1", "127.0.0.2"], ["::1", "127.0.0.1", "::2", "127.0.0.2"]),
        (["127.0.0.1", "127.0.0.2", "::1"], ["127.0.0.1", "::1", "127.0.0.2"]),
    ],
)
async def test_the_second_address_is_of_the_other_family(
    monkeypatch: pytest.MonkeyPatch, found: list[str], order: list[str]
) -> None:
    async def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        await checkpoint()
        return [(0, 0, 0, "", (text, port)) for text in found]

    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)
    addresses = await network._resolve("name", 80)
    assert [target[0] for *_, target in addresses] == order
    assert {target[1] for *_, target in addresses} <= {80}


async def test_an_address_keeps_its_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """anyio writes it into the text, from where ``connect`` would not take it."""

    async def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        await checkpoint()
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%3", port))]

    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)
    ((family, _, _, _, target),) = await network._resolve("name", 80)
    assert family == socket.AF_INET6
    assert target == ("fe80::1", 80, 0, 3)


# What one can ask.


async def test_what_a_connection_says_of_itself(ends: Ends) -> None:
    asked = ends.stream.get_extra_info
    assert asked("socket") is ends.ours
    assert asked("client_addr") == ends.theirs.getpeername()
    assert asked("server_addr") == ends.theirs.getsockname()
    assert asked("ssl_object") is None
    assert asked("anything else") is None


@pytest.mark.parametrize("ending", ["data", "end", "reset"])
async def test_an_idle_connection_that_can_be_read(ends: Ends, ending: str) -> None:
    assert ends.stream.get_extra_info("is_readable") is False
    match ending:
        case "data":
            ends.theirs.sendall(b"x")
        case "end":
            ends.theirs.shutdown(socket.SHUT_WR)
        case _:
            ends.reset()
    assert ends.stream.get_extra_info("is_readable") is True
    if ending == "data":
        assert await ends.stream.read(100, timeout=HANGS) == b"x"  # only looked at


async def test_what_was_pushed_back_can_be_read(ends: Ends) -> None:
    """httpcore is not to use such a connection again."""
    ends.stream.push_back(b"junk")
    assert ends.stream.get_extra_info("is_readable") is True
    await ends.stream.read(100)
    assert ends.stream.get_extra_info("is_readable") is False


async def test_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await NetworkBackend().sleep(HANGS)
    assert scope.cancelled_caught


# TLS.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def trusted(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The environment names the authority, as it would one of a company's own."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    http._ssl_context.cache_clear()
    yield
    http._ssl_context.cache_clear()


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@asynccontextmanager
async def encrypted(
    ends: Ends, client: ssl.SSLContext, server: ssl.SSLContext
) -> AsyncGenerator[tuple[Any, ssl.SSLSocket]]:
    """The same connection after ``start_tls``: our stream, and their socket."""
    made: list[Any] = []

    def accept() -> None:
        made.append(server.wrap_socket(ends.theirs, server_side=True))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, accept)
        stream = await ends.stream.start_tls(client, "localhost", timeout=HANGS)
    with made[0] as theirs, anyio.fail_after(HANGS):
        yield stream, theirs
        await stream.aclose()
        assert ends.ours.fileno() == -1


async def test_encrypted_both_ways(
    ends: Ends, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with encrypted(ends, client_context, server_context) as (stream, theirs):
        assert stream.get_extra_info("ssl_object").version() == theirs.version()
        assert stream.get_extra_info("socket") is ends.ours
        assert stream.get_extra_info("server_addr") == theirs.getsockname()
        await stream.write(b"")
        await stream.write(b"ping", timeout=HANGS)
        assert theirs.recv(100) == b"ping"
        theirs.sendall(b"pong")
        assert await stream.read(100, timeout=HANGS) == b"pong"
        with pytest.raises(httpcore.ReadTimeout):
            await stream.read(100, timeout=0)
        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, theirs.sendall, MUCH)
                got = bytearray()
                while len(got) < len(MUCH):
                    got += await stream.read(1_000_000)
        assert got == MUCH
        received: list[bytes] = []

        def read_much() -> None:
            while sum(map(len, received)) < len(MUCH):
                received.append(theirs.recv(1_000_000))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, read_much)
            await stream.write(MUCH)
        assert b"".join(received) == MUCH


@pytest.mark.parametrize("ragged", [True, False])
async def test_the_end_of_an_encrypted_connection(
    ends: Ends, client_context: ssl.SSLContext, server_context: ssl.SSLContext, ragged: bool
) -> None:
    """HTTP knows by itself whether something is missing, so TLS need not end in good order."""
    async with encrypted(ends, client_context, server_context) as (stream, theirs):
        theirs.sendall(b"last")
        if ragged:
            theirs.close()
        else:
            theirs.setblocking(False)
            with pytest.raises(ssl.SSLWantReadError):
                theirs.unwrap()
        assert await stream.read(100) == b"last"
        assert await stream.read(100) == b""


async def test_a_reset_of_an_encrypted_connection(
    ends: Ends, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with encrypted(ends, client_context, server_context) as (stream, theirs):
        ends.theirs = theirs
        ends.reset()
        with pytest.raises(httpcore.ReadError, match=os.strerror(errno.ECONNRESET)):
            await stream.read(100)


async def test_closing_wakes_who_reads_encrypted(
    ends: Ends, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with encrypted(ends, client_context, server_context) as (stream, _):
        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(outcome_of, stream.read(100), got := [])
                await wait_all_tasks_blocked()
                await stream.aclose()
        (error,) = got
        assert isinstance(error, httpcore.ReadError)
        assert str(error) == "closed by this side"


async def test_a_server_that_speaks_no_tls(ends: Ends, client_context: ssl.SSLContext) -> None:
    ends.theirs.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(httpcore.ConnectError, match=r"(?i)wrong.version.number"):
        await ends.stream.start_tls(client_context, "localhost")
    assert ends.ours.fileno() == -1


async def test_a_server_that_leaves_during_the_handshake(
    ends: Ends, client_context: ssl.SSLContext
) -> None:
    ends.theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(httpcore.ConnectError, match="closed by the other side"):
        await ends.stream.start_tls(client_context, "localhost")
    assert ends.ours.fileno() == -1


async def test_a_handshake_that_takes_too_long(ends: Ends, client_context: ssl.SSLContext) -> None:
    with pytest.raises(httpcore.ConnectTimeout):
        await ends.stream.start_tls(client_context, "localhost", timeout=0)
    assert ends.ours.fileno() == -1


async def test_a_handshake_is_cancelled(ends: Ends, client_context: ssl.SSLContext) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ends.stream.start_tls, client_context, "localhost")
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert ends.ours.fileno() == -1


# Whole streams, in clear and encrypted.


@asynccontextmanager
async def behind_tls(port: int, context: ssl.SSLContext) -> AsyncGenerator[int]:
    """A port whose connections are decrypted and handed on to another one; ends do not wait."""

    async def pump(source: ByteStream, target: ByteStream, scope: anyio.CancelScope) -> None:
        try:
            async for data in source:
                await target.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            pass
        scope.cancel()

    async def hand_on(front: ByteStream) -> None:
        async with front, await anyio.connect_tcp("127.0.0.1", port) as back:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pump, front, back, tasks.cancel_scope)
                tasks.start_soon(pump, back, front, tasks.cancel_scope)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as plain:
        listening = TLSListener(plain, context, standard_compatible=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listening.serve, hand_on)
            yield plain.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - no query
            tasks.cancel_scope.cancel()


@pytest.fixture(params=["clear", "encrypted"])
def scheme(request: pytest.FixtureRequest, trusted: None) -> str:
    return {"clear": "http", "encrypted": "https"}[request.param]


@asynccontextmanager
async def serving(
    scheme: str, context: ssl.SSLContext, *replies: Reply, **options: Any
) -> AsyncGenerator[tuple[ChatServer, AsyncWriter]]:
    async with ChatServer(*replies, **options) as server:
        port = int(server.url.rpartition(":")[2])
        async with behind_tls(port, context) as encrypted_port:
            if scheme == "https":
                port = encrypted_port
            url = f"{scheme}://localhost:{port}"
            async with AsyncWriter(api_key="key", base_url=url, max_retries=0) as writer:
                with anyio.fail_after(HANGS):
                    yield server, writer


def stream_of(writer: AsyncWriter, content: str = "Hello") -> ChatCompletionStream[None]:
    return writer.chat.stream(model="m", messages=[{"role": "user", "content": content}])


TEXT = "The sky is blue."
PIECES = [*map(sse_event, writer_chunks(TEXT)), sse_event("[DONE]")]


async def test_whole_streams_share_a_connection(
    scheme: str, server_context: ssl.SSLContext
) -> None:
    async with serving(scheme, server_context, Reply(body=PIECES)) as (server, writer):
        for _ in range(3):
            async with stream_of(writer) as stream:
                assert await stream.get_final_text() == TEXT
        assert len(server.connections) == 1


async def test_a_large_request_and_a_large_answer(
    scheme: str, server_context: ssl.SSLContext
) -> None:
    said = "word " * 500
    reply = Reply(body=[*map(sse_event, writer_chunks(said))])
    async with serving(scheme, server_context, reply) as (server, writer):
        question = "x" * 5_000_000
        async with stream_of(writer, question) as stream:
            assert await stream.get_final_text() == said
        assert server.requests[0].json()["messages"][0]["content"] == question


async def test_cancelled_at_every_step_before_the_headers(
    scheme: str, authority: trustme.CA, anyio_backend_name: str
) -> None:
    """Also where a connection is just made, and httpcore has not begun to look after it."""
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.maximum_version = ssl.TLSVersion.TLSv1_2  # its handshake ends with a wait
    authority.issue_cert("localhost").configure_cert(server_context)
    reply = Reply(body=PIECES, headers={"connection": "close"})
    async with serving(scheme, server_context, default=reply) as (_, writer):

        async def enter() -> None:
            async with stream_of(writer):
                pass

        for way in WAYS[anyio_backend_name]:
            for step in itertools.count(1):
                got_through = await cancelled_at(step, way, enter)
                assert not busy_slots(writer._pool._client)
                if got_through:
                    break
            assert step > 5, "nothing was cancelled"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [(Cut(), StreamTruncatedError), (Reset(), APIConnectionError)],
    ids=["cut", "reset"],
)
async def test_a_connection_that_ends_in_mid_answer(
    scheme: str, server_context: ssl.SSLContext, fault: Cut | Reset, expected: type[Exception]
) -> None:
    seen = anyio.Event()
    reply = Reply(body=[*PIECES[:3], Hold(seen), fault])
    async with serving(scheme, server_context, reply) as (server, writer):
        with pytest.raises(expected) as caught:
            async with stream_of(writer) as stream:
                async for event in stream:
                    if isinstance(event, ContentDeltaEvent):
                        seen.set()
        assert isinstance(caught.value, APIConnectionError)
        assert caught.value.completion is not None
        assert TEXT.startswith(caught.value.completion.choices[0].message.content or "-")
        server.add(Reply(body=PIECES))
        async with stream_of(writer) as stream:
            assert await stream.get_final_text() == TEXT


async def test_an_idle_connection_that_the_server_ended_is_not_used_again(
    scheme: str, server_context: ssl.SSLContext
) -> None:
    end = anyio.Event()
    ending = Reply(body=[*PIECES, Hold(end), Cut()], framing="length")
    replies = (ending, Reply(body=PIECES))
    async with serving(scheme, server_context, *replies) as (server, writer):
        for _ in range(2):
            async with stream_of(writer) as stream:
                assert await stream.get_final_text() == TEXT
            end.set()
            await wait_all_tasks_blocked()
        assert len(server.connections) == 2


async def test_the_writer_is_closed_while_a_stream_reads(
    scheme: str, server_context: ssl.SSLContext
) -> None:
    reply = Reply(body=[*PIECES[:3], Hold(anyio.Event())])
    got: list[str] = []

    async def read() -> None:
        with pytest.raises(APIConnectionError, match="closed by this side") as caught:
            async with stream_of(writer) as stream:
                async for piece in stream.text_deltas():
                    got.append(piece)
        assert caught.value.completion is not None

    async with serving(scheme, server_context, reply) as (server, writer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await server.wait_request()
            await wait_all_tasks_blocked()
            assert got
            await writer.aclose()
        await server.wait_disconnect()


async def test_a_certificate_that_is_not_trusted(server_context: ssl.SSLContext) -> None:
    http._ssl_context.cache_clear()
    async with serving("https", server_context, Reply(body=PIECES)) as (server, writer):
        with pytest.raises(APIConnectionError, match="certificate verify failed"):
            async with stream_of(writer):
                pass
        assert not server.connections


@pytest.mark.usefixtures("trusted")
async def test_a_certificate_of_another_host(authority: trustme.CA) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.test").configure_cert(context)
    async with serving("https", context, Reply(body=PIECES)) as (server, writer):
        with pytest.raises(APIConnectionError, match=r"(?i)hostname mismatch"):
            async with stream_of(writer):
                pass
        assert not server.connections
