"""The network below the HTTP library: sockets, read when the event loop says that they can be.

A chunk of a paced stream is one wait and one read, so what lies between the socket and httpcore is
part of the hot path. anyio's own socket streams are made for all uses: on asyncio each of their
reads sets aside 256 KiB and takes two turns of the event loop. Those here ask for what is wanted,
once. httpcore documents how such a backend is plugged in:
https://www.encode.io/httpcore/network-backends/
"""

# ruff: noqa: ASYNC109 - the time limits are httpcore's

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio
import httpcore
from anyio.abc import ByteStream
from anyio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    current_token,
)
from anyio.streams.tls import TLSAttribute, TLSStream

from ..streaming.waiting import asyncio_loop, cancellation_point

if TYPE_CHECKING:
    import asyncio

_Address: TypeAlias = tuple[int, int, int, str, Any]  # as ``socket.getaddrinfo`` gives them

_ERROR: Final = (socket.SOL_SOCKET, socket.SO_ERROR)
_HEAD_SIZE: Final = 4096
"""Bytes of one read while the head of a response is awaited: most fit, with little else."""

_LONGEST_HEAD: Final = 65536
"""Bytes of what is overheard. Interim responses may go before a head, without end."""

_NEXT_ATTEMPT: Final = 0.25
"""Seconds that an address has for itself before the next one is tried too (RFC 8305, 5)."""


class SocketStream(ByteStream):
    """A connected TCP socket, not blocking. One task may read while another one writes."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket: Final = connected
        self._closed = False
        self._has_more = False  # as far as one can know without asking
        self._token = current_token()
        backend = self._token.backend_class  # of anyio's: to look for it takes as long as its work
        self._turn = backend.checkpoint
        self._wait_readable = backend.wait_readable

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The next bytes, between one and ``max_bytes`` of them.

        Raises:
            EndOfStream: The other side has ended.
            BrokenResourceError: The connection broke.
            ClosedResourceError: This side has closed it.
        """
        # To set up a wait takes trio as long as others take with what they were just handed, so
        # they go first. They run in its next turn, which may begin with this task: hence two.
        await self._turn()
        if not self._has_more:
            await self._turn()
        while True:
            if self._closed:
                raise anyio.ClosedResourceError
            if not self._has_more:
                await self._wait_readable(self.socket)
            try:
                data = self.socket.recv(max_bytes)
                break
            except BlockingIOError:  # woken for nothing
                self._has_more = False
            except OSError as exc:
                raise self._failure(exc) from exc
        if not data:
            raise anyio.EndOfStream
        # What did not fill the buffer was all there was: asking again would be a call in vain.
        self._has_more = len(data) == max_bytes
        return data

    async def send(self, item: bytes) -> None:
        """Send all of it.

        Raises:
            BrokenResourceError: The connection broke.
            ClosedResourceError: This side has closed it.
        """
        await checkpoint_if_cancelled()
        rest = memoryview(item)
        while rest:
            try:
                rest = rest[self.socket.send(rest) :]
            except BlockingIOError:
                if self._closed:
                    raise anyio.ClosedResourceError from None
                await anyio.wait_writable(self.socket)
            except OSError as exc:
                raise self._failure(exc) from exc

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        await checkpoint_if_cancelled()
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise self._failure(exc) from exc

    async def aclose(self) -> None:
        """Close it; who waits for it is woken."""
        if self._closed:
            return
        self._closed = True
        anyio.notify_closing(self.socket)
        try:
            # On asyncio anyio keeps its waits by the number of the socket, and a task that was
            # woken has yet to strike out its own. Were the number another socket's by then, that
            # one's wait would be struck out, and never end.
            await cancel_shielded_checkpoint()
        finally:
            self.socket.close()

    @property
    def is_readable(self) -> bool:
        """Whether a read would not wait. An idle connection that can be read has been ended.

        It counts as that, too, when the event loop that it belongs to is not this one.
        """
        if current_token() != self._token:
            return True
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _failure(self, exc: OSError) -> Exception:
        if self._closed:
            return anyio.ClosedResourceError()
        return anyio.BrokenResourceError(str(exc))


class AsyncioSocketStream(SocketStream):
    """The same, but what comes is taken by the event loop, on its way to wake the reader.

    ``anyio.wait_readable`` has asyncio begin to watch the socket, and end it, for each wait: two
    system calls and sixty of Python's. Here the loop watches until something comes that nobody
    waits for. It has to read, too: by the time that a woken task does, the loop would have found
    the socket readable once more.
    """

    def __init__(self, connected: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(connected)
        from asyncio import SelectorEventLoop  # noqa: PLC0415 - not on trio

        self._loop = loop
        # uvloop's stops watching when it finds an error, even behind data, and says so to nobody.
        self._stops_at_errors = not isinstance(loop, SelectorEventLoop)
        self._is_watched = False
        self._let_cancel = cancellation_point()
        self._reader: asyncio.Future[None] | None = None  # who waits
        self._wanted = 0  # bytes, at most
        self._arrived: list[bytes | OSError] = []  # not taken yet; no bytes are the end

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The next bytes, between one and ``max_bytes`` of them.

        Raises:
            EndOfStream: The other side has ended.
            BrokenResourceError: The connection broke.
            ClosedResourceError: This side has closed it.
        """
        if self._reader is not None:
            raise anyio.BusyResourceError("reading from")
        await self._let_cancel()  # what has come ends the wait before a cancellation does
        if not self._arrived and not self._closed:
            self._wanted = max_bytes
            if not self._is_watched:
                self._loop.add_reader(self.socket, self._on_readable)
                self._is_watched = True
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self._closed:
            raise anyio.ClosedResourceError
        arrived = self._arrived.pop(0)
        if not arrived:
            raise anyio.EndOfStream
        if isinstance(arrived, OSError):
            raise self._failure(arrived) from arrived
        if len(arrived) > max_bytes:  # it was for a read that wanted more, and was cancelled
            self._arrived.insert(0, arrived[max_bytes:])
            return arrived[:max_bytes]
        return arrived

    async def aclose(self) -> None:
        """Close it; who waits for it is woken."""
        self._unwatch()
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        await super().aclose()

    @property
    def is_readable(self) -> bool:
        """Whether a read would not wait. An idle connection that can be read has been ended."""
        return bool(self._arrived) or super().is_readable

    def _on_readable(self) -> None:
        reader = self._reader
        if reader is None or reader.done():
            self._unwatch()  # it would be found readable over and over
            return
        try:
            self._arrived.append(self.socket.recv(self._wanted))
        except BlockingIOError:  # woken for nothing
            return
        except OSError as exc:
            self._unwatch()
            self._arrived.append(exc)
        else:
            if self._stops_at_errors and (error := self.socket.getsockopt(*_ERROR)):
                self._unwatch()
                self._take_the_rest()
                self._arrived.append(OSError(error, os.strerror(error)))
        reader.set_result(None)

    def _take_the_rest(self) -> None:
        """All that came before an error, which is to be told last."""
        with suppress(OSError):
            while rest := self.socket.recv(self._wanted):
                self._arrived.append(rest)

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self.socket)


def socket_stream(connected: socket.socket) -> SocketStream:
    """A socket as a stream, in the way that suits this event loop."""
    loop = asyncio_loop()
    return SocketStream(connected) if loop is None else AsyncioSocketStream(connected, loop)


class NetworkStream(httpcore.AsyncNetworkStream):
    """A connection as httpcore wants it, in clear or encrypted."""

    def __init__(self, connection: SocketStream, stream: ByteStream | None = None) -> None:
        self._connection = connection
        self._stream: ByteStream = connection if stream is None else stream
        self._overheard: bytes | None = None
        self._pushed_back = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes; empty at the end.

        Raises:
            ReadError: The connection broke, or was closed by this side.
            ReadTimeout: Nothing came in time.
        """
        if data := self._pushed_back:
            self._pushed_back = data[max_bytes:]
            return data[:max_bytes]
        if self._overheard is not None:
            max_bytes = min(max_bytes, _HEAD_SIZE)
        try:
            if timeout is None:  # the hot path
                data = await self._stream.receive(max_bytes)
            else:
                with anyio.fail_after(timeout):
                    data = await self._stream.receive(max_bytes)
        except anyio.EndOfStream:
            return b""
        except Exception as exc:
            _READING.translate(exc)
            raise
        if self._overheard is not None:
            self._overheard += data
            if len(self._overheard) > _LONGEST_HEAD:
                self._overheard = None
        return data

    def take_overheard(self) -> bytes:
        """What was read since the last write, which is the head of a response and little more.

        From now on it is not kept.
        """
        overheard, self._overheard = self._overheard or b"", None
        return overheard

    def push_back(self, data: bytes) -> None:
        """Let the next reads give this, and then what comes."""
        self._pushed_back = data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it.

        Raises:
            WriteError: The connection broke, or was closed by this side.
            WriteTimeout: It was not taken in time; a part of it may have been.
        """
        if not buffer:  # httpcore's end of a request; to OpenSSL this is not nothing
            return
        self._overheard = b""
        with _WRITING, _limit(timeout):
            await self._stream.send(buffer)

    async def aclose(self) -> None:
        """Close the connection; TLS is not ended in good order, as HTTP does not need it."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """The same connection, encrypted; closed if that fails.

        Raises:
            ConnectError: The other side is not to be trusted, or speaks no TLS.
            ConnectTimeout: It took too long.
        """
        try:
            with _CONNECTING, _limit(timeout):
                encrypted = await TLSStream.wrap(
                    self._stream,
                    server_side=False,
                    hostname=server_hostname,
                    ssl_context=ssl_context,
                    standard_compatible=False,
                )
        except BaseException:
            await self.aclose()
            raise
        return await _unless_cancelled(NetworkStream(self._connection, encrypted))

    def get_extra_info(self, info: str) -> Any:
        """What httpcore's own streams answer to the same names."""
        if info == "is_readable":  # asked of every idle connection before each request
            return bool(self._pushed_back) or self._connection.is_readable
        if info == "ssl_object":
            return self._stream.extra(TLSAttribute.ssl_object, None)  # noqa: S610 - no query
        ask = _OF_SOCKETS.get(info)
        return None if ask is None else ask(self._connection.socket)


_OF_SOCKETS: Final[dict[str, Callable[[socket.socket], Any]]] = {
    "client_addr": socket.socket.getsockname,
    "server_addr": socket.socket.getpeername,
    "socket": lambda connected: connected,
}


class NetworkBackend(httpcore.AsyncNetworkBackend):
    """Connects over TCP; nothing here asks for Unix sockets."""

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
        # Tokens go out as they come, as from every other HTTP client.
        options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *(socket_options or ())]
        with _CONNECTING, _limit(timeout):
            addresses = await _resolve(host, port)
            if len(addresses) == 1:  # no race: that is a task group and a task of its own
                connected = await _connect(addresses[0], options, local_address)
            else:
                connected = await _connect_first(addresses, options, local_address)
        return await _unless_cancelled(NetworkStream(socket_stream(connected)))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)


async def _unless_cancelled(made: NetworkStream) -> NetworkStream:
    """Let a cancellation in that came after the last wait: httpcore would lose the connection."""
    try:
        await checkpoint_if_cancelled()
    except BaseException:
        await made.aclose()
        raise
    return made


async def _resolve(host: str, port: int) -> list[_Address]:
    """The addresses of a host, in the order in which to try them."""
    try:
        found = _parse(host, port)
    except socket.gaierror:  # a name
        # anyio has the scope of an IPv6 address in the text; ``connect`` wants it as a number.
        found = [
            address
            for *_, (text, _) in await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for address in _parse(text, port)
        ]
    # The system's order, but the second one of the other family: where one of them leads nowhere,
    # nearly always both addresses of it do (RFC 8305, 4).
    for place, address in enumerate(found):
        if address[0] != found[0][0]:
            found.insert(1, found.pop(place))
            break
    return found


def _parse(host: str, port: int) -> list[_Address]:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV  # asks nobody, so it does not wait
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))


async def _connect_first(
    addresses: list[_Address], options: Iterable[Any], local_address: str | None
) -> socket.socket:
    """Try one address after the other, each with a head start, and keep what connects first."""
    connected: list[socket.socket] = []
    # Why the others did not, each reason once. Not the exceptions: they know this frame by their
    # tracebacks, and would be a reference cycle.
    said: dict[str, None] = {}

    async def attempt(address: _Address, failed: anyio.Event) -> None:
        try:
            connected.append(await _connect(address, options, local_address))
        except OSError as exc:
            said[str(exc)] = None
            failed.set()
        else:
            attempts.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as attempts:
            for address in addresses:
                failed = anyio.Event()
                attempts.start_soon(attempt, address, failed)
                with anyio.move_on_after(_NEXT_ATTEMPT):
                    await failed.wait()
    except BaseException:
        for late in connected:
            late.close()
        raise
    if not connected:
        raise OSError("; ".join(said) or "the name has no address")
    first, *late_ones = connected  # two may have connected in the same turn
    for late in late_ones:
        late.close()
    return first


async def _connect(
    address: _Address, options: Iterable[Any], local_address: str | None
) -> socket.socket:
    family, kind, protocol, _, target = address
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)  # noqa: FBT003 - it has no other form
        for option in options:
            connection.setsockopt(*option)
        if local_address is not None:
            connection.bind((local_address, 0))
        with suppress(BlockingIOError, InterruptedError):  # it goes on by itself
            connection.connect(target)
        await anyio.wait_writable(connection)
        if error := connection.getsockopt(*_ERROR):
            raise OSError(error, os.strerror(error))  # noqa: TRY301
    except BaseException:
        connection.close()
        raise
    return connection


def _limit(timeout: float | None) -> AbstractContextManager[object]:
    """``fail_after``, which takes as long as a read, only where there is a limit."""
    return _NO_LIMIT if timeout is None else anyio.fail_after(timeout)


_NO_LIMIT: Final = nullcontext()


class _Errors:
    """Turns what goes wrong with a connection into what httpcore calls it."""

    def __init__(self, failed: type[Exception], timed_out: type[Exception]) -> None:
        self._failed = failed
        self._timed_out = timed_out

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            self.translate(exc)

    def translate(self, exc: BaseException) -> None:
        """Raise what httpcore calls it, if it has a name for it."""
        if isinstance(exc, TimeoutError) and exc.errno is None:  # ours, not the system's
            raise self._timed_out(str(exc)) from exc
        if isinstance(exc, _FAILURES):
            raise self._failed(str(exc) or _UNSAID.get(type(exc), type(exc).__name__)) from exc


_FAILURES: Final = (
    OSError,  # ssl.SSLError is one
    UnicodeError,  # a name that cannot be one: a label is empty or too long
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
)
_UNSAID: Final[dict[type[BaseException], str]] = {
    anyio.ClosedResourceError: "closed by this side",
    anyio.EndOfStream: "closed by the other side",  # in the middle of a handshake
}
_READING: Final = _Errors(httpcore.ReadError, httpcore.ReadTimeout)
_WRITING: Final = _Errors(httpcore.WriteError, httpcore.WriteTimeout)
_CONNECTING: Final = _Errors(httpcore.ConnectError, httpcore.ConnectTimeout)
