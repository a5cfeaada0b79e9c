"""A relay on Redis or Valkey: each answer is a stream there, and each change of it one script."""

from __future__ import annotations

import math
import ssl
from typing import TYPE_CHECKING, Any, Final

import anyio

from ..errors import ConfigurationError, RelayUnavailableError
from .base import Relay
from .log import (
    Election,
    EndState,
    Entry,
    Lease,
    Receipt,
    RelayStatus,
    State,
    check_after,
    check_key,
    lease_lost_error,
)
from .scripts import APPEND, ELECT, EXPIRE, FINISH, RELEASE, STATUS, STOP, Script
from .server_url import parse_url
from .sharing import SharedWaits

if TYPE_CHECKING:
    from .connections import Connections

_ENTRIES_AT_ONCE: Final = 16
"""How many entries one read brings at most.

Each is ``flush_bytes`` or a single chunk, so by default a reply has at most 1 MiB. It must arrive
within a third of a lease, and other replies wait behind it: those to producers, too.
"""

_READS_AT_ONCE: Final = 4
"""How many such replies are on their way at most, on the connection that all commands share.

With one for each reader, many readers of large answers would have all commands time out. Reading
the records takes longer than most networks, so a few keep it busy.
"""

_FIELD: Final = b"d"
"""The name of an entry's only field."""

_LOST: Final = -1
"""What scripts return in place of a length if the lease has run out."""


class RedisRelay(Relay):
    """A relay on Redis (6.2 or later) or Valkey, on a single server or a cluster.

    It needs the extra ``relay``. Entering it connects. It uses one connection for commands that
    are answered at once, and one for each answer whose readers wait for its next entry.

    Args:
        url: ``redis://user:password@host:port/database``. ``rediss`` uses TLS; ``valkey`` and
            ``valkeys`` mean the same. For a cluster, give any node.
        prefix: The names in Redis begin with ``{prefix:key}:``.
        ttl: How many seconds an answer is kept after the last write to it.
        lease: After how many seconds without a sign of life a producer counts as lost. Redis may
            also be away for that long.
        flush: The minimum number of seconds between two writes of one answer.
        flush_bytes: The maximum size of an entry, in bytes. Only a single chunk may exceed it.
        ssl_context: For TLS. The default checks the server's certificate and name.

    Raises:
        ConfigurationError: A setting is invalid. On entry: the extra is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "anyio-writer",
        ttl: float = 3600.0,
        lease: float = 10.0,
        flush: float = 0.02,
        flush_bytes: int = 64 * 1024,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(ttl=ttl, lease=lease, flush=flush, flush_bytes=flush_bytes)
        if not isinstance(prefix, str) or "{" in prefix or "}" in prefix:
            raise ConfigurationError(f"prefix must be a text without braces, not {prefix!r}.")
        if math.inf in (lease, ttl):
            raise ConfigurationError(
                "Everything in Redis expires: ttl and lease must be finite numbers of seconds."
            )
        self._url = parse_url(url)
        self._ssl_context = ssl_context
        self._prefix = prefix
        self._lease_ms = _milliseconds(lease)
        self._ttl_ms = _milliseconds(ttl)
        self._open_connections: Connections | None = None
        self._waits: SharedWaits[Any] = SharedWaits()
        self._reads = anyio.Semaphore(_READS_AT_ONCE)

    # Lifetime.

    async def _connect(self) -> None:
        try:
            # The client takes half a second to import, and is part of an extra.
            from .connections import Connections
        except ModuleNotFoundError as exc:
            raise ConfigurationError(
                f"A RedisRelay needs {exc.name}: pip install 'anyio-writer[relay]'."
            ) from exc
        self._open_connections = Connections(
            self._url, self._io_tasks(), retry_time=self._lease, ssl_context=self._ssl_context
        )
        await self._open_connections.call(b"", lambda c: c.create_request(b"PING"))

    def _disconnect(self) -> None:
        connections, self._open_connections = self._open_connections, None
        if connections is not None:
            connections.close()

    @property
    def _connections(self) -> Connections:
        if self._open_connections is None:
            raise RelayUnavailableError("The relay is not open, so it takes no commands.")
        self._check_loop()
        return self._open_connections

    # Producers.

    async def elect(self, key: str, token: str) -> Election:
        names = self._names(key)[:2]
        won, generation = await self._run(ELECT, names, token, self._lease_ms, self._ttl_ms)
        lease = Lease(key=key, token=token, generation=generation) if won else None
        return Election(lease, generation)

    async def append(self, lease: Lease, number: int, data: bytes, events: int) -> Receipt:
        return await self._write(APPEND, lease, number, data, events)

    async def finish(
        self, lease: Lease, number: int, data: bytes, events: int, state: EndState
    ) -> Receipt:
        return await self._write(FINISH, lease, number, data, events, state)

    async def _write(
        self, script: Script, lease: Lease, number: int, data: bytes, events: int, *more: str
    ) -> Receipt:
        entries, stop_wanted = await self._run(
            script,
            self._names(lease.key, lease.generation),
            lease.token,
            self._lease_ms,
            self._ttl_ms,
            number,
            events,
            data,
            *more,
        )
        if entries == _LOST:
            raise lease_lost_error(lease)
        return Receipt(entries, bool(stop_wanted))

    async def release(self, lease: Lease) -> None:
        await self._run(RELEASE, self._names(lease.key)[1:2], lease.token)

    # Readers.

    async def read(self, key: str, generation: int, after: int, wait: float) -> list[Entry]:
        name = self._names(key, generation)[2]
        tail = (b"STREAMS", name, b"%d-0" % after)
        if wait <= 0:

            async def ask(connection: Any) -> Any:
                # In here, since nobody may hold the others up while it connects anew.
                async with self._reads:
                    return await connection.create_request(
                        b"XREAD", b"COUNT", _ENTRIES_AT_ONCE, *tail
                    )

            reply = await self._connections.call(name, ask)
        else:
            reply = await self._waits.ask(
                (name, after),
                wait,
                lambda seconds: self._connections.wait(
                    name,
                    seconds,
                    lambda c, block, timeout: c.create_request(
                        b"XREAD",
                        b"COUNT",
                        _ENTRIES_AT_ONCE,
                        b"BLOCK",
                        block,
                        *tail,
                        timeout=timeout,
                        disconnect_on_cancellation=True,
                    ),
                ),
            )
        if not reply:
            return []
        # A map of streams to lists of an ID, "number-0", and a list of a field and its value.
        (entries,) = reply.values()
        return [Entry(int(number.partition(b"-")[0]), fields[1]) for number, fields in entries]

    async def status(self, key: str) -> RelayStatus:
        generation, state, started, ended, events, lease_left = await self._run(
            STATUS, self._names(key)[:2]
        )
        if not generation:
            return RelayStatus(key=key)
        shown: State = state.decode()
        return RelayStatus(
            key=key,
            state=shown,
            generation=generation,
            started_at=started / 1e6,
            ended_at=ended / 1e6 if ended else None,
            events=events,
            lease_left=max(lease_left, 0) / 1000,
        )

    async def stop(self, key: str) -> bool:
        return bool(await self._run(STOP, self._names(key)[:2]))

    async def expire(self, key: str, after: float = 0.0) -> bool:
        check_after(after)
        generation = (await self.status(key)).generation
        if not generation:
            return False
        names = self._names(key, generation)
        return bool(await self._run(EXPIRE, names, generation, _milliseconds(after)))

    # Asking.

    def _names(self, key: str, generation: int = 0) -> list[bytes]:
        """The keys that hold an answer. All have one hash tag, so that a node has all of them."""
        check_key(key)
        tag = f"{{{self._prefix}:{key}}}:".encode(errors="surrogatepass")
        return [tag + b"meta", tag + b"lease", tag + b"log:%d" % generation]

    async def _run(self, script: Script, names: list[bytes], *args: Any) -> Any:
        """Run a script; see ``scripts.py`` for what each takes and returns."""
        connections = self._connections
        return await connections.call(
            names[0], lambda c: connections.run_script(c, script, names, args)
        )


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 0)
