"""Connections to Redis or Valkey: made when needed, made again when lost, and asked until it works.

Each belongs to nobody's task, so it outlasts the cancellation of those who use it.
"""

from __future__ import annotations

import binascii
import math
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import anyio
import hiredis
import httpcore
from anyio.abc import TaskGroup

from ..errors import RelayUnavailableError, printable
from .connection import Address, Connection, connect
from .scripts import Script
from .server_url import ServerURL

Ask: TypeAlias = Callable[[Connection], Awaitable[Any]]

_SLOTS: Final = 16384  # of a cluster

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.5
"""How long to wait between two tries, in seconds."""

_KEPT_IDLE: Final = 10.0
"""For how many seconds a connection is kept at least that no reader waits on; twice as long at
most."""

_BROKEN: Final = (httpcore.NetworkError, httpcore.TimeoutException, OSError)
"""Errors of a connection: another one may work."""

_PASSING_CODES: Final = re.compile(
    r"\b(LOADING|READONLY|CLUSTERDOWN|TRYAGAIN|ASK|OOM|MASTERDOWN|MISCONF|NOREPLICAS|BUSY|UNBLOCKED)\b"
)
"""What the server says and time may cure, or another server behind the same name.

Older servers put the code of an error in a script behind a sentence about the script.
"""


class Connections:
    """All connections of one relay.

    Args:
        url: The server, or one node of a cluster.
        tasks: Where a task ends connections that are no longer needed.
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
        self._shared: dict[Address, Connection] = {}
        self._connecting = anyio.Lock()
        self._waiting: set[Connection] = set()
        self._idle: dict[Address, deque[tuple[float, Connection]]] = {}
        self._is_ending_idle = False
        self._home: Address = url.host, url.port
        self._nodes: dict[int, Address] = {}  # of a cluster, by slot
        self._is_closed = False

    async def aclose(self) -> None:
        """End all connections. Who still waits on one gets an error."""
        self._is_closed = True
        idle = [connection for each in self._idle.values() for _, connection in each]
        for connection in (*self._shared.values(), *self._waiting, *idle):
            await connection.aclose()

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
            connection: Connection | None = None
            try:
                with anyio.fail_after(self._reply_time):
                    connection = await self._shared_connection(address)
                    return await ask(connection)
            except Exception as exc:
                if connection is not None and _is_unusable(exc):
                    await connection.aclose()
                raise

        return await self._persist(name, attempt)

    async def wait(
        self, name: bytes, seconds: float, ask: Callable[[Connection, int], Awaitable[Any]]
    ) -> Any:
        """Ask what the server may answer only after a while, on a connection of its own.

        A wait is cut into parts, so that a connection that has died is noticed.

        Args:
            name: A key that it is about.
            seconds: How long to wait at most. It may be less.
            ask: Asks a connection to wait for so many milliseconds.

        Raises:
            RelayUnavailableError: It did not work for as long as ``retry_time``, or never will.
        """
        block = min(seconds, self._reply_time)
        milliseconds = max(round(block * 1000), 1)

        async def attempt(address: Address) -> Any:
            connection = await self._waiting_connection(address)
            self._waiting.add(connection)
            try:
                with anyio.fail_after(block + self._reply_time):
                    reply = await ask(connection, milliseconds)
            except BaseException:
                # Also a cancellation: nobody else could use it before the server's reply.
                await connection.aclose()
                raise
            finally:
                self._waiting.discard(connection)
            self._keep(address, connection)
            return reply

        return await self._persist(name, attempt)

    async def run_script(
        self, connection: Connection, script: Script, names: Sequence[bytes], args: Sequence[Any]
    ) -> Any:
        """Run a script, which the server may not know yet."""
        rest = (len(names), *names, *args)
        try:
            return await connection.ask("EVALSHA", script.sha, *rest)
        except hiredis.ReplyError as exc:
            if _code_of(exc) != "NOSCRIPT":
                raise
            return await connection.ask("EVAL", script.text, *rest)

    async def _persist(self, name: bytes, attempt: Callable[[Address], Awaitable[Any]]) -> Any:
        deadline = math.inf
        pause = _FIRST_PAUSE
        while True:
            address = self._address_of(name)
            try:
                return await attempt(address)
            except Exception as exc:
                if self._is_closed:
                    raise RelayUnavailableError("The relay was left.") from exc
                if _code_of(exc) == "MOVED":
                    self._note_move(exc, address)
                    if deadline == math.inf:
                        deadline = anyio.current_time() + self._retry_time
                        continue
                elif not _is_passing(exc):
                    raise _refused(exc) from exc
                else:
                    self._forget(address)
                error = exc
            now = anyio.current_time()
            deadline = min(deadline, now + self._retry_time)
            if now >= deadline:
                raise _unavailable(error, self._retry_time) from error
            await anyio.sleep(min(pause, deadline - now))
            pause = min(2 * pause, _LONGEST_PAUSE)

    # Connections.

    async def _shared_connection(self, address: Address) -> Connection:
        connection = self._shared.get(address)
        if connection is not None and connection.is_usable:
            return connection
        async with self._connecting:
            connection = self._shared.get(address)
            if connection is None or not connection.is_usable:
                if connection is not None:
                    await connection.aclose()
                connection = self._shared[address] = await self._make(address)
            return connection

    async def _waiting_connection(self, address: Address) -> Connection:
        idle = self._idle.get(address)
        while idle:
            _, connection = idle.pop()
            if connection.is_usable:
                return connection
            await connection.aclose()
        return await self._make(address)

    def _keep(self, address: Address, connection: Connection) -> None:
        """A connection that nobody waits on any more: for the next one who does."""
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
                    _, connection = idle.popleft()
                    await connection.aclose()
        self._is_ending_idle = False

    async def _make(self, address: Address) -> Connection:
        with anyio.fail_after(self._reply_time):
            connection = await connect(address, self._url, self._ssl_context)
        if self._is_closed:
            await connection.aclose()
            raise RelayUnavailableError("The relay was left.")
        return connection

    # Clusters.

    def _address_of(self, name: bytes) -> Address:
        return self._nodes.get(slot_of(name), self._home) if self._nodes else self._home

    def _note_move(self, error: Exception, asked: Address) -> None:
        """Another node has a slot now: "MOVED slot host:port", without a host if it is the same."""
        _, slot, place = str(error).split(" ")
        host, _, port = place.rpartition(":")
        self._nodes[int(slot)] = host or asked[0], int(port)

    def _forget(self, address: Address) -> None:
        """A node may be gone for good: any other one knows where its slots went."""
        for slot in [slot for slot, node in self._nodes.items() if node == address]:
            del self._nodes[slot]
        if self._nodes and address == self._home:
            self._home = next(iter(self._nodes.values()))


def slot_of(name: bytes) -> int:
    """The slot of a key, by its hash tag (the Redis Cluster specification, "Key distribution")."""
    start = name.find(b"{")
    end = name.find(b"}", start + 1)
    if 0 <= start < end - 1:
        name = name[start + 1 : end]
    return binascii.crc_hqx(name, 0) % _SLOTS


def _code_of(error: Exception) -> str:
    """The first word of what the server says; "" if it was not the server."""
    return str(error).partition(" ")[0] if isinstance(error, hiredis.ReplyError) else ""


def _is_unusable(error: Exception) -> bool:
    """Whether the connection is of no use after this. A replica may have a primary's name."""
    return isinstance(error, (*_BROKEN, hiredis.ProtocolError)) or _code_of(error) == "READONLY"


def _is_passing(error: Exception) -> bool:
    if isinstance(error, hiredis.ReplyError):
        return bool(_PASSING_CODES.search(str(error)))
    return isinstance(error, _BROKEN) and not any(
        isinstance(each, ssl.SSLCertVerificationError) for each in _causes_of(error)
    )


def _causes_of(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _unavailable(error: Exception, seconds: float) -> RelayUnavailableError:
    return RelayUnavailableError(
        f"The relay's server could not be used for {seconds:g} s (the lease): {_said(error)}"
    )


def _refused(error: Exception) -> RelayUnavailableError:
    if isinstance(error, RelayUnavailableError):
        return error
    return RelayUnavailableError(f"The relay's server refused what it was asked: {_said(error)}")


def _said(error: Exception) -> str:
    return printable(f"{type(error).__name__}: {error}".rstrip(": "), 300)
