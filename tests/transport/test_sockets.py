"""The network below the HTTP library, on real sockets of this machine."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpcore
import pytest
import trustme
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_writer.transport.wire import Network
from tests.transport.network_helpers import HANGS, Ends, connected, outcome_of

MUCH = bytes(range(256)) * 40_000  # more than the buffers of two sockets


@pytest.fixture
async def ends() -> AsyncGenerator[Ends]:
    async with connected() as ends:
        yield ends


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def port_of(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await checkpoint()


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


async def test_the_end_is_empty_and_stays(ends: Ends) -> None:
    ends.theirs.sendall(b"last")
    ends.theirs.shutdown(socket.SHUT_WR)
    assert await ends.stream.read(4) == b"last"
    assert await ends.stream.read(4) == b""
    assert await ends.stream.read(4) == b""
    await ends.stream.write(b"the other direction is open")
    assert await ends.received(27) == b"the other direction is open"


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
    assert os.strerror(errno.ECONNRESET) in str(error.__cause__)


@pytest.mark.parametrize("size", [100, 4096, 65536])
async def test_what_came_before_a_reset_comes_first(ends: Ends, size: int) -> None:
    sent = MUCH[:50_000]
    ends.theirs.sendall(sent)
    ends.reset()
    got = b""
    with anyio.fail_after(HANGS), pytest.raises(httpcore.ReadError):
        while True:
            got += await ends.stream.read(size)
    assert got == sent


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
            await turns(number // 2 % 5)
            tasks.cancel_scope.cancel()
        got += b"".join(pieces)
    while len(got) < len(sent):
        got += await ends.stream.read(4, timeout=HANGS)
    assert got == sent


async def test_a_read_that_takes_too_long(ends: Ends) -> None:
    with pytest.raises(httpcore.ReadTimeout):
        await ends.stream.read(100, timeout=0)
    ends.theirs.sendall(b"late")
    assert await ends.stream.read(100, timeout=HANGS) == b"late"


@pytest.mark.parametrize("end", ["shut down", "closed"])
async def test_more_than_is_buffered_comes_whole_and_then_the_end(ends: Ends, end: str) -> None:
    """Nothing is read ahead without bound, and the end does not overtake what is left."""

    def send() -> None:
        ends.theirs.setblocking(True)
        ends.theirs.sendall(MUCH)
        if end == "closed":
            ends.theirs.close()
        else:
            ends.theirs.shutdown(socket.SHUT_WR)

    got = bytearray()
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, send)
            await ends.stream.read(1)
            got += b"\0"
            await turns(100)
            while data := await ends.stream.read(60_000):
                got += data
                await checkpoint()
    assert got == MUCH


async def test_only_one_task_may_wait_for_data(ends: Ends) -> None:
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, ends.stream.read(100), got := [])
            await wait_all_tasks_blocked()
            with pytest.raises(Exception, match=r"(?i)already|another task"):
                await ends.stream.read(100)
            ends.theirs.sendall(b"whole")
    assert got == [b"whole"]


# Writing.


async def test_what_is_written_arrives(ends: Ends) -> None:
    await ends.stream.write(b"one")
    await ends.stream.write(b"", timeout=HANGS)  # httpcore's end of a request
    await ends.stream.write(b"two", timeout=HANGS)
    assert await ends.received(6) == b"onetwo"


async def test_much_is_written_to_a_slow_reader(ends: Ends) -> None:
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, ends.stream.write(MUCH), written := [])
            await wait_all_tasks_blocked()
            assert not written
            assert await ends.received(len(MUCH)) == MUCH
    assert written == [None]


async def test_a_write_that_takes_too_long(ends: Ends) -> None:
    with anyio.fail_after(HANGS), pytest.raises(httpcore.WriteTimeout):
        await ends.stream.write(MUCH, timeout=0.01)


async def test_a_write_is_cancelled_while_nobody_reads(ends: Ends) -> None:
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ends.stream.write, MUCH)
            await wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()


async def test_a_write_after_a_reset(ends: Ends) -> None:
    ends.reset()
    with anyio.fail_after(HANGS), pytest.raises(httpcore.WriteError):
        while True:
            await ends.stream.write(b"x")
            await turns()


async def test_a_write_that_waits_learns_of_a_reset(ends: Ends) -> None:
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, ends.stream.write(MUCH), got := [])
            await wait_all_tasks_blocked()
            ends.reset()
    (error,) = got
    assert isinstance(error, httpcore.WriteError)


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
    ends: Ends, action: Callable[[Any], Awaitable[Any]], expected: type[Exception]
) -> None:
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, action(ends.stream), got := [])
            await wait_all_tasks_blocked()
            await ends.stream.aclose()
    (error,) = got
    assert isinstance(error, expected)


async def test_a_closed_connection_stays_closed(ends: Ends) -> None:
    ends.theirs.sendall(b"x")
    await ends.stream.aclose()
    await ends.stream.aclose()
    assert ends.stream.get_extra_info("is_readable") is True
    with pytest.raises(httpcore.ReadError):
        await ends.stream.read(100)
        await ends.stream.read(100)
    with pytest.raises(httpcore.WriteError):
        await ends.stream.write(b"x")


async def test_closing_does_not_wait_for_what_is_not_sent(ends: Ends) -> None:
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome_of, ends.stream.write(MUCH), [])
            await wait_all_tasks_blocked()
            await ends.stream.aclose()
        with suppress(ConnectionResetError):
            assert len(await ends.received(len(MUCH))) < len(MUCH)


async def test_a_cancelled_task_closes_nonetheless(ends: Ends) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await ends.stream.aclose()
    assert await ends.received() == b""


# Connecting.


async def test_a_connection_goes_both_ways(listener: socket.socket) -> None:
    stream = await Network().connect_tcp("localhost", port_of(listener), timeout=HANGS)
    with listener.accept()[0] as theirs:
        theirs.setblocking(False)
        await stream.write(b"ping")
        ends = Ends(stream, theirs)  # type: ignore[arg-type]
        assert await ends.received(4) == b"ping"
        theirs.sendall(b"pong")
        assert await stream.read(100) == b"pong"
        await stream.aclose()
        assert await ends.received() == b""


async def test_an_ipv6_address() -> None:
    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:  # a machine without IPv6: then nothing can be reached there, and it says so
        with pytest.raises(httpcore.ConnectError):
            await Network().connect_tcp("::1", 1)
        return
    with listening:
        stream = await Network().connect_tcp("::1", port_of(listening))
        assert stream.get_extra_info("server_addr")[:2] == listening.getsockname()[:2]
        await stream.aclose()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
async def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with pytest.raises(httpcore.ConnectError):
        await Network().connect_unix_socket(path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        stream = await Network().connect_unix_socket(path, timeout=HANGS)
        with listening.accept()[0] as theirs:
            await stream.write(b"ping")
            assert theirs.recv(100) == b"ping"
            theirs.sendall(b"pong")
            assert await stream.read(100, timeout=HANGS) == b"pong"
            await stream.aclose()


async def test_options_are_set(listener: socket.socket) -> None:
    stream = await Network().connect_tcp(
        "127.0.0.1",
        port_of(listener),
        socket_options=[(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)],
    )
    raw = stream.get_extra_info("socket")
    assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await stream.aclose()


async def test_a_local_address(listener: socket.socket) -> None:
    connect = Network().connect_tcp
    stream = await connect("127.0.0.1", port_of(listener), local_address="127.0.0.1")
    assert stream.get_extra_info("client_addr")[0] == "127.0.0.1"
    await stream.aclose()
    # One of nobody's (RFC 5737): it is asked for, and not left to the system.
    with pytest.raises(httpcore.ConnectError):
        await connect("127.0.0.1", port_of(listener), local_address="192.0.2.1")


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


async def test_nobody_listens() -> None:
    with refusing() as port, pytest.raises(httpcore.ConnectError):
        await Network().connect_tcp("127.0.0.1", port)


async def test_a_name_that_is_unknown() -> None:
    with pytest.raises(httpcore.ConnectError):
        await Network().connect_tcp("name.invalid", 1)


async def test_connecting_takes_too_long() -> None:
    with hanging() as port, anyio.fail_after(HANGS):
        with pytest.raises(httpcore.ConnectTimeout):
            await Network().connect_tcp("127.0.0.1", port, timeout=0.01)


@pytest.mark.parametrize("number", range(12))
async def test_cancelled_at_any_moment(listener: socket.socket, number: int) -> None:
    """Either there is a connection, or nothing is left of it."""
    made: list[Any] = []
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            connecting = Network().connect_tcp("127.0.0.1", port_of(listener))
            tasks.start_soon(outcome_of, connecting, made)
            await turns(number)
            tasks.cancel_scope.cancel()
        for each in made:
            await each.aclose()
        await turns()
        listener.setblocking(False)
        try:
            theirs, _ = listener.accept()
        except BlockingIOError:
            assert not made
            return
        with theirs:
            theirs.setblocking(False)
            assert await Ends(None, theirs).received() == b""  # type: ignore[arg-type]


# What one can ask.


async def test_what_a_connection_says_of_itself(ends: Ends) -> None:
    asked = ends.stream.get_extra_info
    assert asked("socket").fileno() > 0
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
    with anyio.fail_after(HANGS):
        while not ends.stream.get_extra_info("is_readable"):
            await checkpoint()
    if ending == "data":
        assert await ends.stream.read(100, timeout=HANGS) == b"x"  # only looked at


async def test_sleep() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await Network().sleep(HANGS)
    assert scope.cancelled_caught


# TLS.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    authority.configure_trust(context)
    return context


@asynccontextmanager
async def encrypted(
    ends: Ends, client: ssl.SSLContext, server: ssl.SSLContext
) -> AsyncGenerator[tuple[Any, ssl.SSLSocket]]:
    """The same connection after ``start_tls``: our stream, and their socket, which blocks."""
    made: list[Any] = []
    ends.theirs.setblocking(True)

    def accept() -> None:
        made.append(server.wrap_socket(ends.theirs, server_side=True))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, accept)
        stream = await ends.stream.start_tls(client, "localhost", timeout=HANGS)
    with made[0] as theirs, anyio.fail_after(HANGS):
        yield stream, theirs
        await stream.aclose()


async def test_encrypted_both_ways(
    ends: Ends, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with encrypted(ends, client_context, server_context) as (stream, theirs):
        assert stream.get_extra_info("ssl_object").version() == theirs.version()
        assert stream.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert stream.get_extra_info("server_addr") == theirs.getsockname()
        await stream.write(b"")
        await stream.write(b"ping", timeout=HANGS)
        assert await anyio.to_thread.run_sync(theirs.recv, 100) == b"ping"
        theirs.sendall(b"pong")
        assert await stream.read(100, timeout=HANGS) == b"pong"
        assert stream.get_extra_info("is_readable") is False
        with pytest.raises(httpcore.ReadTimeout):
            await stream.read(100, timeout=0)
        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, theirs.sendall, MUCH)
                got = bytearray()
                while len(got) < len(MUCH):
                    got += await stream.read(50_000)
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
async def test_much_and_then_the_end_of_an_encrypted_connection(
    ends: Ends, client_context: ssl.SSLContext, server_context: ssl.SSLContext, ragged: bool
) -> None:
    """asyncio's TLS and uvloop's forget what they still hold when the other side closes."""

    async with encrypted(ends, client_context, server_context) as (stream, theirs):

        def send() -> None:
            theirs.sendall(MUCH)
            if not ragged:
                theirs.setblocking(False)
                with pytest.raises(ssl.SSLWantReadError):
                    theirs.unwrap()
            theirs.close()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, send)
            got = bytearray()
            while data := await stream.read(60_000):
                got += data
                await turns(2)
        assert got == MUCH


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
        assert await stream.read(100) == b""
        while ragged and not stream.get_extra_info("is_readable"):
            await checkpoint()


@pytest.mark.parametrize("pieces", [[b"onetwo"], [b"one", b"two"]])
async def test_an_idle_encrypted_connection_that_can_be_read(
    ends: Ends, client_context: ssl.SSLContext, server_context: ssl.SSLContext, pieces: list[bytes]
) -> None:
    """What TLS has already taken from the socket counts, too, and is not lost."""
    async with encrypted(ends, client_context, server_context) as (stream, theirs):
        for piece in pieces:
            theirs.sendall(piece)
        assert await stream.read(3) == b"one"
        assert stream.get_extra_info("is_readable") is True
        assert stream.get_extra_info("is_readable") is True
        rest = b""
        while len(rest) < 3:
            rest += await stream.read(100)
        assert rest == b"two"
        assert stream.get_extra_info("is_readable") is False
        await stream.write(b"next")
        assert await anyio.to_thread.run_sync(theirs.recv, 100) == b"next"


async def test_a_reset_of_an_encrypted_connection(
    ends: Ends, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with encrypted(ends, client_context, server_context) as (stream, theirs):
        ends.theirs = theirs
        ends.reset()
        with pytest.raises(httpcore.ReadError):
            await stream.read(100)


async def test_closing_wakes_who_reads_encrypted(
    ends: Ends, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with encrypted(ends, client_context, server_context) as (stream, theirs):
        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(outcome_of, stream.read(100), got := [])
                await wait_all_tasks_blocked()
                await stream.aclose()
            assert await anyio.to_thread.run_sync(theirs.recv, 100) == b""
    (error,) = got
    assert isinstance(error, httpcore.ReadError)


async def test_tls_within_tls(
    ends: Ends, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    """As through a proxy that is spoken to by TLS."""
    async with encrypted(ends, client_context, server_context) as (outer, theirs):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        inner_theirs = server_context.wrap_bio(incoming, outgoing, server_side=True)

        def until(step: Callable[[], Any]) -> Any:
            while True:
                try:
                    result = step()
                except ssl.SSLWantReadError:
                    theirs.sendall(outgoing.read())
                    incoming.write(theirs.recv(65536))
                else:
                    theirs.sendall(outgoing.read())
                    return result

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, until, inner_theirs.do_handshake)
            inner = await outer.start_tls(client_context, "localhost", timeout=HANGS)
        await inner.write(b"ping")
        assert await anyio.to_thread.run_sync(until, lambda: inner_theirs.read(100)) == b"ping"
        await anyio.to_thread.run_sync(until, lambda: inner_theirs.write(b"pong"))
        assert await inner.read(100, timeout=HANGS) == b"pong"
        await inner.aclose()


async def test_a_certificate_of_somebody_else(ends: Ends, server_context: ssl.SSLContext) -> None:
    ends.theirs.setblocking(True)

    def accept() -> None:
        with pytest.raises((ssl.SSLError, OSError)):
            server_context.wrap_socket(ends.theirs, server_side=True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, accept)
        with pytest.raises(httpcore.ConnectError) as caught:
            await ends.stream.start_tls(ssl.create_default_context(), "localhost", timeout=HANGS)
    causes: BaseException | None = caught.value
    while causes is not None and "certificate verify failed" not in str(causes):
        causes = causes.__cause__
    assert causes is not None


async def test_a_server_that_speaks_no_tls(ends: Ends, client_context: ssl.SSLContext) -> None:
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            handshake = ends.stream.start_tls(client_context, "localhost")
            tasks.start_soon(outcome_of, handshake, got := [])
            await ends.received()
            ends.theirs.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert isinstance(got[0], httpcore.ConnectError)
    assert ends.stream.get_extra_info("is_readable") is True


async def test_a_server_that_leaves_during_the_handshake(
    ends: Ends, client_context: ssl.SSLContext
) -> None:
    ends.theirs.shutdown(socket.SHUT_WR)
    with anyio.fail_after(HANGS), pytest.raises(httpcore.ConnectError):
        await ends.stream.start_tls(client_context, "localhost")
    assert ends.stream.get_extra_info("is_readable") is True


async def test_a_handshake_that_takes_too_long(ends: Ends, client_context: ssl.SSLContext) -> None:
    with anyio.fail_after(HANGS), pytest.raises(httpcore.ConnectTimeout):
        await ends.stream.start_tls(client_context, "localhost", timeout=0)
    assert ends.stream.get_extra_info("is_readable") is True


async def test_a_handshake_is_cancelled(ends: Ends, client_context: ssl.SSLContext) -> None:
    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ends.stream.start_tls, client_context, "localhost")
            await wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        while await ends.received():
            pass
