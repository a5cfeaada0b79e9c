"""httpcore's network on asyncio and uvloop, made of the event loop's own transports.

Addresses, TLS, flow control and the watching of sockets are the event loop's. How such a backend is
plugged in: https://www.encode.io/httpcore/network-backends/. httpcore's own, on anyio's streams,
allocates 256 KiB and takes two rounds of the event loop for each read.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

import anyio
import httpcore
from anyio.lowlevel import cancel_shielded_checkpoint

_BUFFER_SIZE: Final = 64 * 1024
"""Bytes of one read, and how much may be received and not yet read before reading is paused."""

_TLS_BUFFER_SIZE: Final = 320 * 1024
"""As much as TLS can hold at once: 256 KiB of one read, and a record that was incomplete.

asyncio and uvloop forget what they could not deliver by the time when the other side closes.
"""

_NEXT_ADDRESS: Final = 0.25
"""Seconds that an address has for itself before the next one is tried too (RFC 8305, 5)."""

_EXTRA_INFO: Final = {
    "ssl_object": "ssl_object",
    "socket": "socket",
    "client_addr": "sockname",
    "server_addr": "peername",
}

# One buffer serves all connections of an event loop: the loop fills what ``get_buffer`` returned
# and calls ``buffer_updated`` before it does anything else. So an idle connection needs none.
_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


class SocketStream(httpcore.AsyncNetworkStream, asyncio.BufferedProtocol):
    """One connection: the stream that httpcore reads, and the protocol that asyncio feeds.

    One task may read while another one writes. A cancelled read loses nothing.
    """

    _transport: asyncio.Transport
    _tcp: asyncio.Transport
    """The same, but below TLS. Reading is paused here, so TLS holds nothing back."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buffer = _shared_buffer(loop, _BUFFER_SIZE)
        self._received: list[bytes] = []  # and not read yet
        self._size = 0  # of all that
        self._is_paused = False
        self._can_write = True
        self._is_ended = False
        self._is_closed = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    # What httpcore calls.

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes; empty at the end.

        Raises:
            ReadError: The connection broke, or was closed by this side.
            ReadTimeout: Nothing came in time.
        """
        received = self._received
        while not received:
            if self._is_closed:
                raise httpcore.ReadError("closed by this side")
            if self._error is not None:
                raise httpcore.ReadError(_text_of(self._error)) from self._error
            if self._is_ended:
                return b""
            if self._reader is not None:
                raise anyio.BusyResourceError("reading from")
            self._reader = self._loop.create_future()
            try:
                if timeout is None:  # the hot path
                    await self._reader
                else:
                    with _mapped(httpcore.ReadError, httpcore.ReadTimeout, timeout):
                        await self._reader
            finally:
                self._reader = None
        data = received[0] if len(received) == 1 else b"".join(received)
        received.clear()
        if len(data) > max_bytes:
            received.append(data[max_bytes:])
            data = data[:max_bytes]
        self._size -= len(data)
        if self._is_paused and self._size <= _BUFFER_SIZE // 2:
            self._is_paused = False
            self._tcp.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it. Returns when no more than the transport's buffer is still to be sent.

        Raises:
            WriteError: The connection broke, or was closed by this side.
            WriteTimeout: It was not taken in time; a part of it may have been.
        """
        if not buffer:  # httpcore's end of a request
            return
        self._check_writable()
        self._transport.write(buffer)
        if self._can_write:
            return
        with _mapped(httpcore.WriteError, httpcore.WriteTimeout, timeout):
            while not self._can_write:
                self._writer = self._loop.create_future()
                try:
                    await self._writer
                finally:
                    self._writer = None
        self._check_writable()

    async def aclose(self) -> None:
        """Close the connection at once; a task that waits for it gets an error.

        TLS is not ended in good order: HTTP does not need it, and it could take long.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if running_loop() is self._loop:
            self._transport.abort()
            _wake(self._reader)
            self.resume_writing()
            await cancel_shielded_checkpoint()  # the event loop closes the socket in its next round
            return
        try:
            self._loop.call_soon_threadsafe(self._transport.abort)
        except RuntimeError:  # that loop is closed, so only the peer is notified
            with suppress(Exception):  # uvloop has closed the socket, and cannot shut it down
                self._transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """The same connection, encrypted. The wire above closes it if that fails.

        Raises:
            ConnectError: The other side is not to be trusted, or does not speak TLS.
            ConnectTimeout: It took too long.
        """
        with _mapped(httpcore.ConnectError, httpcore.ConnectTimeout, timeout):
            if self._received:  # it must not be taken for what TLS protects
                raise ConnectionError("the server sent something before the TLS handshake")
            self._buffer = _shared_buffer(self._loop, _TLS_BUFFER_SIZE)
            transport = await self._loop.start_tls(
                self._transport, self, ssl_context, server_hostname=server_hostname
            )
            if transport is None:  # it was lost right behind the handshake
                raise ConnectionError("closed by the other side")
        self._transport = transport
        return self

    def get_extra_info(self, info: str) -> Any:
        """What httpcore's own streams answer to the same names."""
        if info == "is_readable":  # asked of an idle connection: is it over?
            is_over = self._is_ended or running_loop() is not self._loop
            return is_over or bool(self._received)
        name = _EXTRA_INFO.get(info)
        return None if name is None else self._transport.get_extra_info(name)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a connection."""
        self._transport = self._tcp = cast("asyncio.Transport", transport)  # asyncio says less

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the event loop is to put what it reads."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes are in the buffer."""
        self._received.append(bytes(self._buffer[:nbytes]))
        self._size += nbytes
        if self._size > _BUFFER_SIZE and not self._is_paused:
            self._is_paused = True
            self._tcp.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> bool:
        """The other side sends no more; without TLS this side still may."""
        self._is_ended = True
        _wake(self._reader)
        return self._transport.get_extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, by an error or because this side closed it."""
        self._is_ended = True
        self._error = exc
        _wake(self._reader)
        self.resume_writing()

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._can_write = False

    def resume_writing(self) -> None:
        """It is not any more."""
        self._can_write = True
        _wake(self._writer)

    def _check_writable(self) -> None:
        if self._is_closed:
            raise httpcore.WriteError("closed by this side")
        if self._error is not None:
            raise httpcore.WriteError(_text_of(self._error)) from self._error
        if self._transport.is_closing():
            raise httpcore.WriteError("closed by the other side")


def _shared_buffer(loop: asyncio.AbstractEventLoop, size: int) -> memoryview:
    if len(_buffers.get(loop, b"")) < size:
        _buffers[loop] = memoryview(bytearray(size))
    return _buffers[loop][:size]


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of asyncio that runs in this thread; None if it is trio's, or none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class AsyncioBackend(httpcore.AsyncNetworkBackend):
    """Connects over TCP and Unix sockets."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address of the host that answers.

        Raises:
            ConnectError: None did, or the host has none.
            ConnectTimeout: None did in time.
        """
        options = {} if local_address is None else {"local_addr": (local_address, 0)}
        with _mapped(httpcore.ConnectError, httpcore.ConnectTimeout, timeout):
            addresses = await _resolve(host, port)
            return await _set(await _connect_first(addresses, port, options), socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to a Unix socket.

        Raises:
            ConnectError: Nobody listens there.
            ConnectTimeout: It took too long.
        """
        loop = asyncio.get_running_loop()
        with _mapped(httpcore.ConnectError, httpcore.ConnectTimeout, timeout):
            _, stream = await loop.create_unix_connection(partial(SocketStream, loop), path)
            return await _set(stream, socket_options)


async def _resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order in which to try them."""
    try:  # asks nobody, so it does not wait
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )
    except socket.gaierror:  # a name
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # The system's order, but the second one of the other family: where one of them leads nowhere,
    # nearly always both addresses of it do (RFC 8305, 4).
    for position, address in enumerate(found):
        if address[0] != found[0][0]:
            found.insert(1, found.pop(position))
            break
    return [_with_scope(*address) for *_, address in found]


def _with_scope(host: Any, _port: Any, _flow: Any = 0, scope: Any = 0) -> str:
    """An address as one text; only those of IPv6 can have a scope."""
    return f"{host}%{scope}" if scope else str(host)


async def _connect_first(addresses: list[str], port: int, options: dict[str, Any]) -> SocketStream:
    """Try one address after the other, each with a head start, and keep what connects first.

    asyncio can do that, but would lose a connection if it is cancelled just when one is made; and
    uvloop cannot.
    """
    loop = asyncio.get_running_loop()
    connected: list[SocketStream] = []
    # Why the others did not. Not the exceptions, whose tracebacks refer to this frame.
    said: dict[str, None] = {}

    async def connect(address: str) -> None:
        _, stream = await loop.create_connection(
            partial(SocketStream, loop), address, port, **options
        )
        connected.append(stream)

    async def attempt(address: str, failed: anyio.Event) -> None:
        try:
            await connect(address)
        except OSError as exc:
            said[str(exc)] = None
            failed.set()
        else:
            attempts.cancel_scope.cancel()

    if len(addresses) == 1:
        await connect(addresses[0])
        return connected[0]
    try:
        async with anyio.create_task_group() as attempts:
            for address in addresses:
                failed = anyio.Event()
                attempts.start_soon(attempt, address, failed)
                with anyio.move_on_after(_NEXT_ADDRESS):
                    await failed.wait()
        if not connected:
            raise OSError("; ".join(said) or "the name has no address")
        return connected.pop(0)
    finally:
        for late in connected:
            await late.aclose()


async def _set(stream: SocketStream, options: Iterable[Any] | None) -> SocketStream:
    """Set the options of a connection's socket."""
    try:
        for option in options or ():
            stream.get_extra_info("socket").setsockopt(*option)
    except BaseException:
        await stream.aclose()
        raise
    return stream


@contextmanager
def _mapped(
    failed: type[Exception], timed_out: type[Exception], timeout: float | None
) -> Generator[None]:
    """Bound what is done in time, and raise what httpcore calls it if it fails."""
    try:
        with anyio.fail_after(timeout):
            yield
    except (OSError, UnicodeError) as exc:  # ssl.SSLError is the one, a bad host name the other
        ran_out = isinstance(exc, TimeoutError) and exc.errno is None  # ours, not the system's
        raise (timed_out if ran_out else failed)(_text_of(exc)) from exc


def _text_of(exc: Exception) -> str:
    return str(exc) or type(exc).__name__


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
