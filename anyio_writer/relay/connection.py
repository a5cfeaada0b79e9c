"""One connection to Redis or Valkey: hiredis, which speaks the protocol, over a socket.

It has no task of its own. Commands are sent by those who ask them, and whoever waits for a reply
while nobody reads the socket reads it for all.
"""

from __future__ import annotations

import ssl
from collections import deque
from typing import Any, Final, TypeAlias

import anyio
import hiredis
import httpcore

from ..transport.wire import network_backend
from .server_url import ServerURL

Address: TypeAlias = tuple[str, int]

# Its stub does not say what it returns.
_pack: Final[Any] = hiredis.pack_command  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

_READ_SIZE: Final = 64 * 1024
_NOTHING: Final = object()
"""What hiredis returns where the next reply is not there, or not all of it."""


class _Question:
    """A command that was sent, and its reply."""

    def __init__(self) -> None:
        self.reply: Any = _NOTHING
        self.changed: anyio.Event | None = None
        """Set when there is a reply, or when whoever waits for it shall read the socket."""

    def notify(self) -> None:
        """Wake who waits for this reply."""
        if self.changed is not None:
            self.changed.set()


class Connection:
    """A connection that several tasks may use at the same time. Made by ``connect()``.

    Replies come in the order of the commands. So the reply to one whose task was cancelled is read
    and dropped, and a command that makes the server wait keeps all others waiting.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._replies = hiredis.Reader(notEnoughData=_NOTHING)
        self._questions: deque[_Question] = deque()  # without a reply
        self._writing = anyio.Lock(fast_acquire=True)
        self._is_read = False  # by one of those who wait
        self._is_closed = False

    @property
    def is_usable(self) -> bool:
        """Whether it is open, as far as is known here."""
        if self._is_closed:
            return False
        # Redis says nothing unasked, so what there is to read then is the connection's end.
        return bool(self._questions) or not self._stream.get_extra_info("is_readable")

    async def ask(self, *command: Any) -> Any:
        """Send a command, and wait for its reply.

        Args:
            command: Its words: bytes, text or whole numbers.

        Raises:
            hiredis.ReplyError: The server refuses.
            hiredis.ProtocolError: What it sends is not Redis's protocol.
            httpcore.NetworkError: The connection broke, or was closed.
        """
        question = _Question()
        try:
            async with self._writing:
                self._questions.append(question)
                await self._write(_pack(command))
            while question.reply is _NOTHING and self._is_read:
                question.changed = anyio.Event()
                await question.changed.wait()
            if question.reply is _NOTHING:
                await self._read_until_answered(question)
        finally:
            question.changed = None
            if not self._is_read:
                self._wake_next()
        if isinstance(question.reply, Exception):
            raise question.reply
        return question.reply

    async def aclose(self) -> None:
        """Close it, at once; who still waits gets an error."""
        self._is_closed = True
        await _close(self._stream)
        self._wake_next()

    async def _write(self, data: bytes) -> None:
        is_sent = False
        try:
            await self._stream.write(data)
            is_sent = True
        finally:
            if not is_sent:  # or only a part of it
                await self.aclose()

    async def _read_until_answered(self, question: _Question) -> None:
        self._is_read = True
        try:
            while question.reply is _NOTHING:
                self._take(b"" if self._is_closed else await self._stream.read(_READ_SIZE))
        except Exception:  # a connection that broke, or other bytes than Redis's
            self._is_closed = True
            raise
        finally:
            self._is_read = False

    def _take(self, data: bytes) -> None:
        if not data:
            raise httpcore.ReadError("The connection was closed.")
        self._replies.feed(data)
        while (reply := self._replies.gets()) is not _NOTHING and self._questions:
            question = self._questions.popleft()
            question.reply = reply
            question.notify()

    def _wake_next(self) -> None:
        """Let the first one who waits read the socket: its reply is next, or it learns the end."""
        for question in self._questions:
            if question.changed is not None:
                question.notify()
                break


async def connect(
    address: Address, url: ServerURL, ssl_context: ssl.SSLContext | None
) -> Connection:
    """Connect, and introduce this client to the server.

    Raises:
        hiredis.ReplyError: The server refuses.
        httpcore.NetworkError: It cannot be reached.
    """
    host, port = address
    stream = await network_backend().connect_tcp(host, port)
    try:
        if ssl_context is not None:
            stream = await stream.start_tls(ssl_context, server_hostname=host)
        connection = Connection(stream)
        if url.username or url.password:
            user = [url.username] if url.username else []
            await connection.ask("AUTH", *user, url.password or "")
        if url.database:
            await connection.ask("SELECT", url.database)
    except BaseException:
        await _close(stream)
        raise
    return connection


async def _close(stream: httpcore.AsyncNetworkStream) -> None:
    """Close a connection without a word to the server, for which TLS would wait."""
    with anyio.CancelScope(shield=True) as scope:
        scope.cancel()
        await stream.aclose()
