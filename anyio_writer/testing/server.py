"""A scripted chat server on a real socket."""

import contextlib
import socket
from collections import deque
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Final, NoReturn, Self, SupportsIndex, TypeAlias

import anyio
import anyio.lowlevel
import h11
from anyio.abc import TaskGroup, TaskStatus
from anyio.from_thread import start_blocking_portal

from .connection import Connection, PeerLeftError
from .frames import writer_error
from .groups import lone_error
from .records import DEFAULT_MAX_BODY_BYTES, KeptBodies, RecordedConnection, RecordedRequest
from .replies import error_reply, refusal_of, text_reply
from .script import Reply
from .threadsafe import ThreadsafeEvent

AnyReply: TypeAlias = Reply | Callable[[RecordedRequest], Reply]
"""A reply, or a function that makes it from the request."""

_BACKLOG: Final = 1024  # connections not yet accepted; tests like to open hundreds at once
_ACCEPT_PAUSE: Final = 0.1  # seconds until accept() is tried again after it failed


class ChatServer:
    """A server that answers chat requests with scripted replies.

    Enter it once, with ``async with``. The server runs as long as the block::

        async with ChatServer(text_reply("Hello"), error_reply(503)) as server:
            ...  # send POST requests to server.url

    A plain ``with`` runs the server in a thread, with an event loop of its own. Use it in fixtures
    of any test framework, in notebooks, and in scripts::

        with ChatServer(text_reply("Hello")) as server:
            anyio.run(main, server.url)

    Each POST, whatever its path, gets the next reply. When none is left, it gets ``default``, or
    else the last reply again. Other methods get a 404.

    Leaving the block stops the server at once and closes every socket. Exceptions of the block are
    not changed. Errors of clients are never raised. If the function or the body of a reply raises
    an error, the server stops:

    - ``async with``: The block is cancelled, and the error is raised at its end. If the block fails
      too, an exception group contains both errors.
    - ``with``: The block runs in another thread, so it cannot be cancelled. New connections are
      refused, and the error is raised at the end of the block. It replaces an exception of the
      block, which becomes its ``__context__``.

    Args:
        *replies: The first replies.
        default: The reply to use when none is left.
        host: The address to listen on.
        port: The port to listen on; 0 lets the system choose.
        strict: Whether requests that the API would refuse (no key, no JSON, no model, no
            messages) get its 401 or 422 instead of a reply.
        max_body_bytes: The maximum number of bytes of request bodies that the server keeps. A
            longer body gets a 413. The oldest bodies are dropped to make space for new ones.

    Attributes:
        requests: The complete requests, in order of arrival.
        connections: The accepted connections, in order of arrival.
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
        self._changed = ThreadsafeEvent()
        self._has_begun = False
        self._has_ended = False
        self._running = self._run()
        self._thread = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """The address of the server, such as ``http://127.0.0.1:40123``.

        Raises:
            RuntimeError: The server has not been entered.
        """
        if self._url is None:
            raise RuntimeError(
                "the server has no URL until it is entered: use 'with' or 'async with'"
            )
        return self._url

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        raise TypeError(
            "A ChatServer cannot be pickled or copied: it has a socket. Hand its url to others."
        )

    def add(self, *replies: AnyReply) -> None:
        """Add replies after those that are left."""
        self._replies.extend(replies)

    async def wait_request(self, index: int = 0) -> RecordedRequest:
        """Wait until ``requests[index]`` has arrived.

        You can call this from any event loop, even in another thread.

        Returns:
            That request.

        Raises:
            RuntimeError: The server has stopped, so the request will not arrive.
        """
        await self._wait_until(lambda: len(self.requests) > index, f"request {index} arrived")
        return self.requests[index]

    async def wait_disconnect(self, index: int = 0) -> RecordedRequest:
        """Wait until the connection of ``requests[index]`` has ended.

        It has ended when the client has closed it, or when the server has reset it.

        Returns:
            That request.

        Raises:
            RuntimeError: The server has ended, and that request has not come.
        """
        request = await self.wait_request(index)
        await self._wait_until(
            lambda: request.connection.closed, f"the connection of request {index} was over"
        )
        return request

    async def __aenter__(self) -> Self:
        if self._has_begun:
            raise RuntimeError("a ChatServer can be entered only once: make another one")
        self._has_begun = True
        await self._running.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._running.__aexit__(exc_type, exc, traceback)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(name="anyio_writer.ChatServer"))
            over, stop = portal.start_task(self._run_until_stopped)
            stack.callback(over.result)  # raises what went wrong
            stack.callback(portal.call, stop.set)
            self._thread = stack.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._thread.close()  # the body's exception stays in this thread
        except Exception as failure:
            failure.__context__ = exc  # instead of the cancellation in the other thread
            raise

    async def _run_until_stopped(self, *, task_status: TaskStatus[anyio.Event]) -> None:
        stop = anyio.Event()
        async with self:
            task_status.started(stop)
            await stop.wait()

    @contextlib.asynccontextmanager
    async def _run(self) -> AsyncGenerator[None]:
        found = await anyio.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        family, *_, address = found[0]
        with socket.create_server(address[:2], family=family, backlog=_BACKLOG) as listener:
            listener.settimeout(0)
            host = f"[{self._host}]" if ":" in self._host else self._host
            self._url = f"http://{host}:{listener.getsockname()[1]}"
            try:
                with lone_error():
                    async with anyio.create_task_group() as tg:
                        tg.start_soon(self._accept, listener, tg)
                        yield
                        tg.cancel_scope.cancel()
            finally:
                self._has_ended = True
                self._notify()

    async def _accept(self, listener: socket.socket, tg: TaskGroup) -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, ConnectionError):  # no peer, or one that has left again
                await anyio.wait_readable(listener)
            except OSError:
                # There is no file descriptor left, or no memory for the socket. The peer waits
                # in the backlog, so the listener stays readable: try again later.
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
        changed, self._changed = self._changed, ThreadsafeEvent()
        changed.set()

    async def _wait_until(self, is_so: Callable[[], bool], what: str) -> None:
        while True:
            changed = self._changed  # taken before looking, or a change in between would be missed
            has_ended = self._has_ended
            if is_so():
                return
            if has_ended:
                raise RuntimeError(f"the server ended before {what}")
            await changed.wait()
