"""A scripted chat server on a real socket."""

import contextlib
import socket
from collections import deque
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Final, Self, TypeAlias

import anyio
import anyio.abc
import anyio.lowlevel
import h11

from .connection import Connection, PeerLeftError
from .frames import writer_error
from .groups import lone_error
from .records import DEFAULT_MAX_BODY_BYTES, KeptBodies, RecordedConnection, RecordedRequest
from .replies import error_reply, refusal_of, text_reply
from .script import Reply

AnyReply: TypeAlias = Reply | Callable[[RecordedRequest], Reply]
"""A reply, or a function that makes it from the request."""

_BACKLOG: Final = 1024  # connections not yet accepted; tests like to open hundreds at once
_ACCEPT_PAUSE: Final = 0.1  # seconds until accept() is tried again after it failed


class ChatServer:
    """A server that answers chat requests as it is told to.

    An async context manager, to be entered once; the server runs inside its body::

        async with ChatServer(text_reply("Hello"), error_reply(503)) as server:
            ...  # send POST requests to server.url

    Each POST, whatever its path, takes the next reply; when none is left, ``default`` or
    else the last one is used again. Other methods get a 404 in the API's shape.

    Leaving the body ends everything at once and closes every socket. What the body
    raises comes out as it is. What peers do wrong is never raised; what a reply's
    function or body raises is, as it is a fault of the script, and it ends the server's
    body by cancellation. Only if both fail, an ExceptionGroup holds the errors.

    Args:
        *replies: The first replies.
        default: The reply for when none is left.
        host: The address to listen on.
        port: The port to listen on; 0 lets the system choose.
        strict: Whether requests that the API would refuse (no key, no JSON, no model, no
            messages) get its 401 or 422 instead of a reply.
        max_body_bytes: The most bytes of request bodies that the server keeps, 64 MiB unless
            given. A longer body gets a 413, and the oldest bodies are forgotten to make space
            for new ones.

    Attributes:
        requests: The whole requests, in order of arrival.
        connections: The accepted connections, likewise.
    """

    def __init__(
        self,
        *replies: AnyReply,
        default: AnyReply | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        strict: bool = False,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    ) -> None:
        self.requests: list[RecordedRequest] = []
        self.connections: list[RecordedConnection] = []
        self._replies = deque(replies)
        self._default = default
        self._last: AnyReply = text_reply()
        self._host = host
        self._port = port
        self._strict = strict
        self._bodies = KeptBodies(max_body_bytes)
        self._url: str | None = None
        self._changed = anyio.Event()
        self._running = self._run()

    @property
    def url(self) -> str:
        """Such as ``http://127.0.0.1:40123``, once the body has been entered.

        Raises:
            RuntimeError: It has not.
        """
        if self._url is None:
            raise RuntimeError("the server has not been started")
        return self._url

    def add(self, *replies: AnyReply) -> None:
        """Queue more replies."""
        self._replies.extend(replies)

    async def wait_request(self, index: int = 0) -> RecordedRequest:
        """Wait until so many requests have arrived that ``requests[index]`` is there.

        Returns:
            That request.
        """
        while len(self.requests) <= index:
            await self._changed.wait()
        return self.requests[index]

    async def wait_disconnect(self, index: int = 0) -> RecordedRequest:
        """Wait until the connection of ``requests[index]`` is over.

        That is when its peer has left, or when the server has reset it.

        Returns:
            That request.
        """
        request = await self.wait_request(index)
        while not request.connection.closed:
            await self._changed.wait()
        return request

    async def __aenter__(self) -> Self:
        await self._running.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._running.__aexit__(exc_type, exc, traceback)

    @contextlib.asynccontextmanager
    async def _run(self) -> AsyncGenerator[None]:
        found = await anyio.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        family, *_, address = found[0]
        with socket.create_server(address[:2], family=family, backlog=_BACKLOG) as listener:
            listener.settimeout(0)
            host = f"[{self._host}]" if ":" in self._host else self._host
            self._url = f"http://{host}:{listener.getsockname()[1]}"
            with lone_error():
                async with anyio.create_task_group() as tg:
                    tg.start_soon(self._accept, listener, tg)
                    yield
                    tg.cancel_scope.cancel()

    async def _accept(self, listener: socket.socket, tg: anyio.abc.TaskGroup) -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, ConnectionError):  # nobody, or somebody who left again
                await anyio.wait_readable(listener)
            except OSError:
                # There is no file descriptor left, or no memory for the socket. The peer waits
                # in the backlog, so the listener stays readable: only time helps.
                await anyio.sleep(_ACCEPT_PAUSE)
            else:
                tg.start_soon(self._serve, sock)

    async def _serve(self, sock: socket.socket) -> None:
        record = RecordedConnection()
        self.connections.append(record)
        try:
            sock.settimeout(0)
            with contextlib.suppress(OSError):  # some systems: not once the peer has left
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(PeerLeftError):
                await self._converse(Connection(sock, record, self._bodies.max_bytes))
        finally:
            sock.close()
            record.closed_at = anyio.current_time()
            self._notify()

    async def _converse(self, connection: Connection) -> None:
        reuse = True
        while reuse:
            try:
                request = await connection.receive()
            except h11.RemoteProtocolError as exc:
                status = exc.error_status_hint
                refusal = error_reply(status, writer_error(status, str(exc)))
                reuse = await connection.refuse(refusal)
            else:
                request_id = f"req-{len(self.requests)}"
                self._bodies.add(request)
                self.requests.append(request)
                self._notify()
                reply = self._reply_to(request)
                reuse = await connection.answer(request, reply, request_id=request_id)

    def _reply_to(self, request: RecordedRequest) -> Reply:
        if request.method != "POST":
            return error_reply(404)
        if self._strict and (refusal := refusal_of(request)):
            return refusal
        if self._replies:
            reply = self._last = self._replies.popleft()
        else:
            reply = self._last if self._default is None else self._default
        return reply(request) if callable(reply) else reply

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
