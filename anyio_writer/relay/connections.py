"""Connections to Redis or Valkey: made when needed, made again when lost, and asked until it works.

They are coredis's, each as a task of the relay's. Its pool is not used: it loses a connection's
place for good whenever a task is cancelled while it connects.
"""

from __future__ import annotations

import binascii
import math
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

import anyio
from anyio.abc import ByteStream, TaskGroup, TaskStatus
from coredis.connection import BaseConnection, TCPLocation
from coredis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - coredis's own
    MovedError,
    NoScriptError,
    ReadOnlyError,
    TryAgainError,
    UnblockedError,
)
from coredis.typing import RedisError

from ..errors import RelayUnavailableError, printable
from .scripts import Script
from .server_url import ServerURL

Address: TypeAlias = tuple[str, int]
Ask: TypeAlias = Callable[[Any], Awaitable[Any]]
AskBlocking: TypeAlias = Callable[[Any, int, float], Awaitable[Any]]

_SLOTS: Final = 16384  # of a cluster

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.5
"""How long to wait between two tries, in seconds."""

_KEPT_IDLE: Final = 10.0
"""For how many seconds a connection is kept at least that no reader waits on; twice as long at
most."""

_PASSING: Final = (
    ConnectionError,
    BusyLoadingError,
    ReadOnlyError,
    ClusterDownError,
    TryAgainError,
    AskError,
    UnblockedError,
    anyio.BrokenResourceError,
    anyio.EndOfStream,
    OSError,
    TimeoutError,
)
"""Errors that time or another connection may cure."""

_PASSING_CODES: Final = re.compile(r"\b(OOM|MASTERDOWN|MISCONF|NOREPLICAS|BUSY|READONLY)\b")
"""The same, of errors that have no class of their own."""


class Connections:
    """All connections of one relay.

    Args:
        url: The server, or one node of a cluster.
        tasks: Where they run.
        retry_time: For how many seconds an operation is tried again.
        ssl_context: For TLS.
    """

    def __init__(
        self,
        url: ServerURL,
        tasks: TaskGroup,
        *,
        retry_time: float,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._url = url
        self._ssl_context = (ssl_context or ssl.create_default_context()) if url.tls else None
        self._retry_time = retry_time
        self._reply_time = retry_time / 3  # for a reply that needs no waiting
        self._tasks = tasks
        self._shared: dict[Address, BaseConnection] = {}
        self._connecting = anyio.Lock()
        self._idle: dict[Address, deque[tuple[float, BaseConnection]]] = {}
        self._is_ending_idle = False
        self._home: Address = url.host, url.port
        self._nodes: dict[int, Address] = {}  # of a cluster, by slot
        self._is_closed = False

    def close(self) -> None:
        """End all connections. Who still waits on one gets an error."""
        self._is_closed = True
        for connection in self._shared.values():
            connection.invalidate()
        for idle in self._idle.values():
            for _, connection in idle:
                connection.invalidate()
        self._shared.clear()
        self._idle.clear()

    # Operations.

    async def call(self, name: bytes, ask: Ask) -> Any:
        """Ask what is answered at once.

        Args:
            name: A key that it is about: in a cluster, that tells the node.
            ask: Asks a connection.

        Raises:
            RelayUnavailableError: It did not work for as long as ``retry_time``, or never will.
        """

        async def attempt(address: Address) -> Any:
            connection = await self._shared_connection(address)
            try:
                return await ask(connection)
            except Exception as exc:
                if _is_unusable(exc):
                    connection.invalidate()
                raise

        return await self._persist(name, attempt)

    async def wait(self, name: bytes, seconds: float, ask: AskBlocking) -> Any:
        """Ask what the server may answer only after a while, on a connection of its own.

        A wait is cut into parts, so that a connection that has died is noticed.

        Args:
            name: A key that it is about.
            seconds: How long to wait at most. It may be less.
            ask: Asks a connection to wait for so many milliseconds, and gives up after so many
                seconds.

        Raises:
            RelayUnavailableError: It did not work for as long as ``retry_time``, or never will.
        """
        block = min(seconds, self._reply_time)

        async def attempt(address: Address) -> Any:
            connection = await self._waiting_connection(address)
            try:
                reply = await ask(connection, max(round(block * 1000), 1), block + self._reply_time)
            except BaseException:
                # Also a cancellation: its reply would be taken for that to the next question.
                connection.invalidate()
                raise
            self._keep(address, connection)
            return reply

        return await self._persist(name, attempt)

    async def run_script(
        self, connection: Any, script: Script, names: Sequence[bytes], args: Sequence[Any]
    ) -> Any:
        """Run a script, which the server may not know yet."""
        rest = (len(names), *names, *args)
        try:
            return await connection.create_request(b"EVALSHA", script.sha, *rest)
        except NoScriptError:
            return await connection.create_request(b"EVAL", script.text, *rest)

    async def _persist(self, name: bytes, attempt: Callable[[Address], Awaitable[Any]]) -> Any:
        deadline = math.inf
        pause = _FIRST_PAUSE
        while True:
            address = self._address_of(name)
            try:
                return await attempt(address)
            except MovedError as exc:
                self._nodes[exc.slot_id] = exc.host or address[0], exc.port
                if deadline == math.inf:
                    deadline = anyio.current_time() + self._retry_time
                    continue
                error: Exception = exc
            except Exception as exc:
                if self._is_closed:
                    raise RelayUnavailableError("The relay was left.") from exc
                if not _is_passing(exc):
                    raise _refused(exc) from exc
                error = exc
                self._forget(address)
            now = anyio.current_time()
            deadline = min(deadline, now + self._retry_time)
            if now >= deadline:
                raise _unavailable(error, self._retry_time) from error
            await anyio.sleep(min(pause, deadline - now))
            pause = min(2 * pause, _LONGEST_PAUSE)

    # Connections.

    async def _shared_connection(self, address: Address) -> BaseConnection:
        connection = self._shared.get(address)
        if connection is not None and connection.usable:
            return connection
        with anyio.fail_after(self._reply_time):  # for the tries of others, too
            async with self._connecting:
                connection = self._shared.get(address)
                if connection is None or not connection.usable:
                    connection = self._shared[address] = await self._make(address)
        return connection

    async def _waiting_connection(self, address: Address) -> BaseConnection:
        idle = self._idle.get(address)
        while idle:
            _, connection = idle.pop()
            if connection.usable:
                return connection
        return await self._make(address)

    def _keep(self, address: Address, connection: BaseConnection) -> None:
        """A connection that nobody waits on any more: for the next one who does."""
        if self._is_closed:
            connection.invalidate()
            return
        self._idle.setdefault(address, deque()).append((anyio.current_time(), connection))
        if not self._is_ending_idle:
            self._is_ending_idle = True
            self._tasks.start_soon(self._end_idle, name="end of connections without readers")

    async def _end_idle(self) -> None:
        """End connections that no reader has waited on for a while, until there are none."""
        while any(self._idle.values()):
            await anyio.sleep(_KEPT_IDLE)
            kept_since = anyio.current_time() - _KEPT_IDLE
            for idle in self._idle.values():
                while idle and idle[0][0] <= kept_since:
                    idle.popleft()[1].invalidate()
        self._is_ending_idle = False

    async def _make(self, address: Address) -> BaseConnection:
        if self._is_closed:
            raise RelayUnavailableError("The relay was left.")
        with anyio.fail_after(self._reply_time):
            connection: BaseConnection = await self._tasks.start(self._run, address)
        return connection

    async def _run(self, address: Address, *, task_status: TaskStatus[BaseConnection]) -> None:
        """Run a connection to its end, whatever that is: whoever uses it gets the error."""
        if self._ssl_context is None:
            stream: ByteStream = await anyio.connect_tcp(*address)
        else:
            stream = await anyio.connect_tcp(
                *address, ssl_context=self._ssl_context, tls_standard_compatible=False
            )
        url = self._url
        connection = _Connection(
            TCPLocation(*address),
            stream_timeout=self._reply_time,
            username=url.username,
            password=url.password,
            db=url.database,
        )
        connection.given = stream
        status = _Status(connection, task_status)
        try:
            await connection.run(task_status=status)
        except Exception:
            if not status.has_started:
                raise

    # Clusters.

    def _address_of(self, name: bytes) -> Address:
        return self._nodes.get(slot_of(name), self._home) if self._nodes else self._home

    def _forget(self, address: Address) -> None:
        """A node may be gone for good: any other one knows where its slots went."""
        for slot in [slot for slot, node in self._nodes.items() if node == address]:
            del self._nodes[slot]
        if self._nodes and address == self._home:
            self._home = next(iter(self._nodes.values()))


_UNUSABLE: Final = (ConnectionError, ReadOnlyError, OSError, TimeoutError)


def _is_unusable(error: Exception) -> bool:
    """Whether a connection is of no use after this: it may lead to what was the primary once."""
    # Before Redis 7, the code of an error in a script stood behind a sentence about the script.
    return isinstance(error, _UNUSABLE) or (
        isinstance(error, RedisError) and "-READONLY" in str(error)
    )


class _Connection(BaseConnection):
    """A connection over bytes that flow already.

    Were coredis to connect it, a failure would leave memory streams behind that warn.
    """

    given: ByteStream

    async def _connect(self) -> ByteStream:
        return self.given

    def describe(self) -> str:
        return f"Connection<{self.location}>"


class _Status:
    """Hands over a connection when it has introduced itself to the server."""

    def __init__(self, connection: BaseConnection, task_status: TaskStatus[BaseConnection]) -> None:
        self.has_started = False
        self._connection = connection
        self._task_status = task_status

    def started(self, value: None = None) -> None:  # noqa: ARG002 - as the protocol has it
        self.has_started = True
        self._task_status.started(self._connection)


def slot_of(name: bytes) -> int:
    """The slot of a key, by its hash tag (the Redis Cluster specification, "Key distribution")."""
    start = name.find(b"{")
    end = name.find(b"}", start + 1)
    if 0 <= start < end - 1:
        name = name[start + 1 : end]
    return binascii.crc_hqx(name, 0) % _SLOTS


def _is_passing(error: Exception) -> bool:
    if isinstance(error, RelayUnavailableError | ssl.SSLCertVerificationError):
        return False
    if isinstance(error, _PASSING):
        return True
    return isinstance(error, RedisError) and bool(_PASSING_CODES.search(str(error)))


def _unavailable(error: Exception, seconds: float) -> RelayUnavailableError:
    return RelayUnavailableError(
        f"The relay's server could not be used for {seconds:g} s (the lease): {_said(error)}"
    )


def _refused(error: Exception) -> RelayUnavailableError:
    if isinstance(error, RelayUnavailableError):
        return error
    return RelayUnavailableError(f"The relay's server refused a command: {_said(error)}")


def _said(error: Exception) -> str:
    return printable(f"{type(error).__name__}: {error}".rstrip(": "), 300)
