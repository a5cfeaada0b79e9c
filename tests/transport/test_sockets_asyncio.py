"""The network on asyncio and uvloop: what is ours alone."""

from __future__ import annotations

import asyncio
import gc
import socket
import tracemalloc
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import anyio
import httpcore
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_writer.transport import sockets, wire
from anyio_writer.transport.wire import Network
from tests.transport.network_helpers import HANGS, Ends, connected, outcome_of


@pytest.fixture(
    scope="module", params=["asyncio", ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def ends() -> AsyncGenerator[Ends]:
    async with connected() as ends:
        yield ends


def stream_below(ends: Ends) -> sockets.SocketStream:
    stream = ends.stream._stream
    assert isinstance(stream, sockets.SocketStream)
    return stream


async def test_reading_is_paused_while_nobody_reads(ends: Ends) -> None:
    """The server is held back by TCP, and no more than two buffers are held here."""
    sent = 0
    stalled = 0
    while stalled < 50:
        try:
            sent += ends.theirs.send(bytes(65536))
            stalled = 0
        except BlockingIOError:
            stalled += 1
            await checkpoint()
    stream = stream_below(ends)
    assert stream._is_paused
    assert stream._size <= 2 * sockets._BUFFER_SIZE
    got = 0
    with anyio.fail_after(HANGS):
        while got < sent:
            got += len(await ends.stream.read(10_000))
    assert got == sent
    ends.theirs.sendall(b"goes on")
    assert await ends.stream.read(100, timeout=HANGS) == b"goes on"


async def test_a_reset_behind_what_is_paused(ends: Ends) -> None:
    with pytest.raises(BlockingIOError):
        while True:
            ends.theirs.send(bytes(65536))
    await wait_all_tasks_blocked()
    ends.reset()
    with anyio.fail_after(HANGS), pytest.raises(httpcore.ReadError):
        while await ends.stream.read(65536):
            pass


@pytest.mark.parametrize("turns", range(4))
async def test_asyncio_s_own_cancellation_loses_nothing(ends: Ends, turns: int) -> None:
    reading = asyncio.ensure_future(ends.stream.read(100))
    await wait_all_tasks_blocked()
    ends.theirs.sendall(b"one")
    for _ in range(turns):
        await checkpoint()
    reading.cancel()  # it may be about to be woken
    try:
        got = await reading
    except asyncio.CancelledError:
        got = b""
    while len(got) < 3:
        got += await ends.stream.read(2, timeout=HANGS)
    assert got == b"one"


@pytest.mark.parametrize("action", ["read", "write", "connect", "aclose", "start_tls"])
@pytest.mark.parametrize("turns", range(6))
async def test_asyncio_s_own_cancellation_anywhere(ends: Ends, action: str, turns: int) -> None:
    """Nothing is left waiting or open, and no callback fails."""
    import ssl

    with socket.create_server(("127.0.0.1", 0)) as listener:
        actions = {
            "read": lambda: ends.stream.read(1),
            "write": lambda: ends.stream.write(bytes(10_000_000)),
            "connect": lambda: Network().connect_tcp(*listener.getsockname()),
            "aclose": ends.stream.aclose,
            "start_tls": lambda: ends.stream.start_tls(ssl.create_default_context(), "localhost"),
        }
        task = asyncio.ensure_future(actions[action]())
        for _ in range(turns):
            await checkpoint()
        task.cancel()
        (made,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(made, wire.Wire):
            await made.aclose()
        with anyio.fail_after(HANGS):
            await ends.stream.aclose()
            while await ends.received(20_000_000):
                pass


async def test_one_buffer_serves_all_connections_of_a_loop() -> None:
    """An idle connection holds none."""
    async with connected() as one, connected() as two:
        assert stream_below(one)._buffer.obj is stream_below(two)._buffer.obj
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            async with connected(), connected(), connected(), connected():
                assert (tracemalloc.get_traced_memory()[0] - before) / 4 < 16_384
        finally:
            tracemalloc.stop()


async def test_a_buffer_goes_with_its_loop() -> None:
    async def use() -> None:
        async with connected():
            pass

    async def count() -> int:
        await checkpoint()
        gc.collect()
        return len(sockets._buffers)

    before = await count()
    await anyio.to_thread.run_sync(asyncio.run, use())
    assert await count() <= before + 1  # the last one may be kept by its thread


async def test_bytes_before_a_handshake_are_not_taken_for_encrypted(ends: Ends) -> None:
    import ssl

    ends.theirs.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    await wait_all_tasks_blocked()
    while not ends.stream.get_extra_info("is_readable"):
        await checkpoint()
    with pytest.raises(httpcore.ConnectError, match="before the TLS handshake"):
        await ends.stream.start_tls(ssl.create_default_context(), "localhost", timeout=HANGS)


# Addresses.


class Names:
    """Names that stand for addresses of this machine, where ports are what differs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[Any] = []
        self._monkeypatch = monkeypatch

    def stand_for(self, *addresses: str) -> None:
        async def resolve(host: str, port: int) -> list[str]:
            await checkpoint()
            return list(addresses)

        self._monkeypatch.setattr(sockets, "_resolve", resolve)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.fixture
def two_addresses() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket at 127.0.0.1, and one that listens at the same port of 127.0.0.2."""
    while True:
        with socket.create_server(("127.0.0.2", 0)) as listener, socket.socket() as first:
            try:
                first.bind(("127.0.0.1", listener.getsockname()[1]))
            except OSError:  # somebody else's port
                continue
            yield first, listener
            return


async def test_an_address_that_refuses_is_followed_by_the_next_at_once(
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
    two_addresses: tuple[socket.socket, socket.socket],
) -> None:
    monkeypatch.setattr(sockets, "_NEXT_ADDRESS", 10 * HANGS)
    _, listener = two_addresses
    names.stand_for("127.0.0.1", "127.0.0.2")
    with anyio.fail_after(HANGS):
        stream = await Network().connect_tcp("name", listener.getsockname()[1])
    assert stream.get_extra_info("server_addr") == listener.getsockname()
    await stream.aclose()


async def test_an_address_that_is_silent_is_given_up_for_the_next(
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
    two_addresses: tuple[socket.socket, socket.socket],
) -> None:
    monkeypatch.setattr(sockets, "_NEXT_ADDRESS", 0)
    waiting: list[socket.socket] = []
    silent, listener = two_addresses
    port = listener.getsockname()[1]
    silent.listen(0)
    for _ in range(4):  # how many fit is the system's own affair
        waiting.append(socket.socket())
        waiting[-1].setblocking(False)
        waiting[-1].connect_ex(("127.0.0.1", port))
    names.stand_for("127.0.0.1", "127.0.0.2")
    with anyio.fail_after(HANGS):
        stream = await Network().connect_tcp("name", port)
    assert stream.get_extra_info("server_addr") == listener.getsockname()
    await stream.aclose()
    for each in waiting:
        each.close()


@pytest.mark.parametrize("turns", range(12))
async def test_two_addresses_and_a_cancellation_at_any_moment(
    names: Names, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """One connection at the most is left, and none of what was cancelled."""
    monkeypatch.setattr(sockets, "_NEXT_ADDRESS", 0)
    names.stand_for("127.0.0.1", "127.0.0.1")
    made: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks:
            connecting = Network().connect_tcp("name", listener.getsockname()[1])
            tasks.start_soon(outcome_of, connecting, made)
            for _ in range(turns):
                await checkpoint()
            tasks.cancel_scope.cancel()
        for each in made:
            await each.aclose()
        for _ in range(5):
            await checkpoint()
        listener.setblocking(False)
        while True:
            try:
                theirs, _ = listener.accept()
            except BlockingIOError:
                break
            with theirs:
                theirs.setblocking(False)
                assert await Ends(None, theirs).received() == b""  # type: ignore[arg-type]


async def test_every_address_fails(names: Names) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        names.stand_for("127.0.0.1", "127.0.0.2", "127.0.0.1")
        with pytest.raises(httpcore.ConnectError, match=r"127\.0\.0\.1.*127\.0\.0\.2|refused"):
            await Network().connect_tcp("name", bound.getsockname()[1])


async def test_a_name_without_an_address(names: Names) -> None:
    names.stand_for()
    with pytest.raises(httpcore.ConnectError, match="the name has no address"):
        await Network().connect_tcp("name", 1)


@pytest.mark.parametrize(
    ("found", "order"),
    [
        ([], []),
        (["::1"], ["::1"]),
        (["::1", "127.0.0.1"], ["::1", "127.0.0.1"]),
        (["::1", "::2", "127.0.0.1", "127.0.0.2"], ["::1", "127.0.0.1", "::2", "127.0.0.2"]),
        (["127.0.0.1", "127.0.0.2", "::1"], ["127.0.0.1", "::1", "127.0.0.2"]),
        (["fe80::1"], ["fe80::1%3"]),
    ],
)
async def test_the_second_address_is_of_the_other_family(
    monkeypatch: pytest.MonkeyPatch, found: list[str], order: list[str]
) -> None:
    async def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        await checkpoint()
        scope = 3 if found == ["fe80::1"] else 0
        return [
            (10, 1, 6, "", (text, port, 0, scope)) if ":" in text else (2, 1, 6, "", (text, port))
            for text in found
        ]

    class Loop:
        def __init__(self) -> None:
            self.getaddrinfo = getaddrinfo

    monkeypatch.setattr(sockets.asyncio, "get_running_loop", Loop)
    try:
        addresses = await sockets._resolve("name", 80)
    finally:
        monkeypatch.undo()
    assert addresses == order


def test_a_proactor_gets_httpcore_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads into the buffer while other things happen, so none can be shared."""

    async def backend() -> str:
        await checkpoint()
        monkeypatch.setattr(
            asyncio, "ProactorEventLoop", type(asyncio.get_running_loop()), raising=False
        )
        return type(wire.network_backend()).__name__

    assert asyncio.run(backend()) == "AnyIOBackend"


# One event loop after the other, and two at once.

LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


@pytest.mark.parametrize("then", LOOPS)
@pytest.mark.parametrize("first", ["asyncio", "uvloop"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of what is not closed in its loop
def test_a_connection_of_another_event_loop_is_not_used_again(first: str, then: str) -> None:
    """It counts as ended, and can be closed."""

    async def use() -> Any:
        stream = await Network().connect_tcp(*listener.getsockname())
        theirs, _ = listener.accept()
        theirs.sendall(b"answer")
        assert await stream.read(100, timeout=HANGS) == b"answer"
        assert stream.get_extra_info("is_readable") is False
        return stream, theirs

    async def close(stream: Any) -> None:
        assert stream.get_extra_info("is_readable") is True
        await stream.aclose()

    def run(loop: str, *call: Any) -> Any:
        backend, options = LOOPS[loop]
        return anyio.run(*call, backend=backend, backend_options=options)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream, theirs = run(first, use)
        run(then, close, stream)
        with theirs:
            theirs.settimeout(HANGS)
            assert theirs.recv(100) == b""
        del stream
        gc.collect()


async def test_a_connection_is_closed_from_another_thread() -> None:
    async with connected() as ends:

        async def close() -> None:
            await ends.stream.aclose()

        await anyio.to_thread.run_sync(asyncio.run, close())
        assert await ends.received() == b""


# httpcore's own backend, on trio, loses the socket in the first case, and lets the error through in
# the second.


async def test_an_option_that_there_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(httpcore.ConnectError):
            await Network().connect_tcp(
                *listener.getsockname(), socket_options=[(socket.SOL_SOCKET, -1, 1)]
            )
        theirs, _ = listener.accept()
        with theirs:
            theirs.settimeout(HANGS)
            assert await anyio.to_thread.run_sync(theirs.recv, 1) == b""  # it was closed


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test"])
async def test_a_name_that_cannot_be_one(host: str) -> None:
    with pytest.raises(httpcore.ConnectError):
        await Network().connect_tcp(host, 1)
