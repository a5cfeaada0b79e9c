"""What lies between httpcore and a network: connections that can be looked at and rewound.

On asyncio the network is ``sockets.py``, elsewhere httpcore's own. This is the same for all.
"""

from __future__ import annotations

import asyncio
import math
import re
import ssl
from time import monotonic
from typing import Any, Final, cast

import anyio
import httpcore
from anyio.lowlevel import checkpoint_if_cancelled

from .chunked import RewindableStream
from .retries import StaleConnection
from .sockets import AsyncioBackend, SocketStream, running_loop

_HEAD_SIZE: Final = 4096
"""Bytes of one read while the head of a response is awaited: most fit, with little else."""

_LONGEST_HEAD: Final = 64 * 1024
"""Bytes that are kept while the head of a response is awaited."""

_LONGEST_NOTICE: Final = 5.0
"""Seconds until it shows that a connection ended while it was idle. One that ends later had a
server at work on the request."""

_REQUEST: Final = re.compile(rb"[A-Z]+ [^ ]+ HTTP/1\.1\r\n")


class StaleConnectionError(httpcore.RemoteProtocolError, StaleConnection):
    """A kept-alive connection ended before anything of this response had come."""


class Wire(RewindableStream, httpcore.AsyncNetworkStream):
    """A connection that keeps the beginning of a response for the reader of its body."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, network: Network) -> None:
        self._stream = stream
        self._socket = _trio_socket_of(stream)
        self._network = network
        self._unsent = b""  # the head of a request, until its body begins
        self._pushed_back = b""
        self._head: bytes | None = None  # what was read since the request, until it is asked for
        self._count = 0  # bytes that were read since the request
        self._end: float = math.inf  # how many there should be
        self._has_served = False
        self._asked = 0.0  # when the request was written
        self._is_ended = False
        self._is_closed = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes; empty at the end.

        Raises:
            ReadError: The connection broke, or was closed by this side.
            ReadTimeout: Nothing came in time.
            StaleConnectionError: It ended while it was idle.
        """
        if data := self._pushed_back:
            self._pushed_back = data[max_bytes:]
            return data[:max_bytes]
        if self._is_ended:  # trio's TLS says so only once
            return b""
        if self._head is not None:  # what comes along with a head is work for h11
            max_bytes = min(max_bytes, _HEAD_SIZE)
        try:
            if self._socket is not None and timeout is None:
                data = await self._receive(max_bytes)
            else:
                data = await self._stream.read(max_bytes, timeout)
        except httpcore.ReadError as exc:
            if self._is_stale():
                raise StaleConnectionError(str(exc)) from exc
            raise
        if not data and self._is_stale():
            raise StaleConnectionError("Server disconnected without sending a response.")
        self._is_ended = not data
        self._count += len(data)
        if self._head is not None:
            self._head += data
            if len(self._head) > _LONGEST_HEAD:
                self._head = None
        return data

    def _is_stale(self) -> bool:
        is_unanswered = self._has_served and not self._count
        return is_unanswered and monotonic() - self._asked < _LONGEST_NOTICE

    async def _receive(self, max_bytes: int) -> bytes:
        """Read trio's socket past httpcore's stream.

        That one makes a deadline, an exception mapping and a check of its own for each read, which
        is a sixth of the work for a chunk of a paced stream.
        """
        try:
            data: bytes = await self._socket.recv(max_bytes)
        except Exception as exc:  # OSError, or trio's own for a socket that was closed
            raise httpcore.ReadError(str(exc)) from exc
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it.

        Raises:
            WriteError: The connection broke, or was closed by this side.
            WriteTimeout: It was not taken in time; a part of it may have been.
        """
        if not self._unsent and _REQUEST.match(buffer):  # a body may look like a head, too
            self._has_served = self._count > 0
            self._asked = monotonic()
            self._head, self._count, self._end = b"", 0, math.inf
            self._unsent = buffer  # httpcore writes at least once more; one packet can hold both
            return
        buffer, self._unsent = self._unsent + buffer, b""
        await self._stream.write(buffer, timeout)

    def begin_body(self, size: int | None) -> bytes | None:
        """What came of a body along with its head; None if that head was not read just now.

        Args:
            size: The body's bytes, if they are known. A connection that brought more is not used
                again: h11 would take them for the answer to the next request.
        """
        read, self._head = self._head or b"", None
        while True:
            head, end, read = read.partition(b"\r\n\r\n")
            # h11 lets a head end in other ways, too.
            if not end or head.count(b"\n") != head.count(b"\r\n"):
                self.retire()
                return None
            if not head.startswith(b"HTTP/1.1 1"):  # an interim response
                break
        if not head.startswith(b"HTTP/1.1 "):
            self.retire()
            return None
        if size is not None:
            self._end = self._count - len(read) + size
        return read

    def push_back(self, data: bytes) -> None:
        """Let the next reads give this, and then what comes."""
        self._pushed_back = data

    def retire(self) -> None:
        """Close the connection after this response instead of using it again."""
        self._end = -1

    async def aclose(self) -> None:
        """Close the connection."""
        self._is_closed = True
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """The same connection, encrypted; closed if that fails."""
        try:
            stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:  # httpcore's own stays open when it is cancelled
            with anyio.CancelScope(shield=True):
                await self.aclose()
            raise
        return await self._network.opened(stream)

    def get_extra_info(self, info: str) -> Any:
        """What httpcore's own streams answer to the same names."""
        if info == "is_readable" and (
            self._is_closed or self._count > self._end or self._has_read_ahead()
        ):
            return True  # httpcore then closes it instead of using it again
        return self._stream.get_extra_info(info)

    def _has_read_ahead(self) -> bool:
        """Whether TLS has more than was read; httpcore's own streams look at the socket alone."""
        tls = self._stream.get_extra_info("ssl_object")
        if tls is None or isinstance(self._stream, SocketStream):
            return False
        if not self._pushed_back:
            try:
                self._pushed_back = tls.read(1)
            except ssl.SSLWantReadError:
                return False
            except ssl.SSLError:
                return True
        return True  # data, or the end


class Network(httpcore.AsyncNetworkBackend):
    """Connects by what suits the event loop at hand."""

    def __init__(self) -> None:
        self.is_closed = False

    async def connect_tcp(self, *arguments: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        """A connection to the first address of the host that answers."""
        return await self.opened(await network_backend().connect_tcp(*arguments, **options))

    async def connect_unix_socket(
        self, *arguments: Any, **options: Any
    ) -> httpcore.AsyncNetworkStream:
        """A connection to a Unix socket."""
        return await self.opened(await network_backend().connect_unix_socket(*arguments, **options))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)

    async def opened(self, stream: httpcore.AsyncNetworkStream) -> Wire:
        """A connection that was just made; closed instead if nobody would ever close it.

        Raises:
            ConnectError: The pool was closed meanwhile.
        """
        try:
            # httpcore would lose the connection in a cancellation that came after the last wait.
            await checkpoint_if_cancelled()
            self._check_open()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await stream.aclose()
            raise
        return Wire(stream, self)

    def _check_open(self) -> None:
        if self.is_closed:
            raise httpcore.ConnectError("closed by this side")


def _trio_socket_of(stream: httpcore.AsyncNetworkStream) -> Any:
    """The socket of a connection, if it is trio's and carries no TLS; else None."""
    if running_loop() is not None or stream.get_extra_info("ssl_object") is not None:
        return None
    return stream.get_extra_info("socket")


def network_backend() -> httpcore.AsyncNetworkBackend:
    """The network of the event loop that runs."""
    loop = running_loop()
    backend: Any = AsyncioBackend()
    if loop is None:
        backend = httpcore.TrioBackend()
    # Windows' proactor reads into a buffer while other things happen, so none can be shared.
    elif isinstance(loop, getattr(asyncio, "ProactorEventLoop", ())):
        backend = httpcore.AnyIOBackend()
    return cast("httpcore.AsyncNetworkBackend", backend)
