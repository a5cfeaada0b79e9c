"""The slots of an ``AsyncWriter``: in each event loop some clients, and a limit on its streams.

httpx's pool looks at every connection it has whenever a request begins or ends, so a thousand
streams through one pool cost more than everything else together. So each client is small, and the
same work is done on a handful of connections.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final

import anyio
import msgspec
from anyio.lowlevel import EventLoopToken, current_token

from ..errors import WriterError
from .client import Client, client_maker

POOL_SIZE: Final = 10
"""Connections of one client, unless it is the caller's."""


def closed_error() -> WriterError:
    """What is raised by an ``AsyncWriter`` that is closed."""
    return WriterError("This AsyncWriter is closed; make another one.")


class Clients(msgspec.Struct, eq=False):
    """The clients of one event loop, and which connections of theirs are free.

    Attributes:
        limiter: It has a token for each connection. A request that is cancelled while it waits
            inside httpx's pool would keep its connection.
        all: Those that were needed so far.
        begun: How many connections were in use at once, at most.
        free: The number of its client for each of these that is free now, as a heap. The first
            clients come first: what is idle in them is used before a new connection is made.
        is_ours: Whether the library made them.
        was_elsewhere: Whether another event loop has used them before.
        closer: What closes them, once they are used, unless they are the caller's.
    """

    limiter: anyio.CapacityLimiter
    all: list[Client]
    begun: int = 0
    free: list[int] = []  # each has its own
    is_ours: bool = True
    was_elsewhere: bool = False
    closer: AsyncGenerator[None] | None = None

    @property
    def is_used(self) -> bool:
        """Whether a stream is open."""
        return self.limiter.borrowed_tokens > 0

    @property
    def are_closed(self) -> bool:
        """Whether the event loop has ended, and closed them."""
        return bool(self.all) and all(client.is_closed for client in self.all)


class Slot(msgspec.Struct, eq=False):
    """What a stream holds while it is open: one connection of a client.

    Attributes:
        client: The client.
        clients: Those to which it belongs.
        number: Which of them it is.
    """

    client: Client
    clients: Clients
    number: int

    def release(self, borrower: object) -> None:
        """Give it back."""
        heapq.heappush(self.clients.free, self.number)
        self.clients.limiter.release_on_behalf_of(borrower)


class Slots:
    """Slots for each event loop that asks: connections belong to the loop that made them.

    A client of the caller's serves one event loop at a time.
    """

    def __init__(self, client: Client | None, max_connections: int) -> None:
        self.max_connections = max_connections
        self._given = client
        self._size = POOL_SIZE if client is None else max_connections
        self._loops: dict[EventLoopToken, Clients] = {}
        self.is_closed: bool = False
        if client is None:
            self._make_client = client_maker()
            # What takes long about a client is done now, and not when a stream waits for it.
            self._made: list[Client] = [self._make_client(self._size_of(0))]

    async def acquire(self, borrower: object) -> Slot:
        """Wait for a free connection in this event loop.

        Raises:
            WriterError: The slots are closed, or the client is in use in another event loop.
        """
        self._check_open()
        token = current_token()
        clients = self._loops.get(token)
        if clients is None:
            clients = self._loops[token] = self._begin_loop()
        if clients.is_ours and clients.closer is None:
            clients.closer = _close_at_the_end(clients.all)
            await anext(clients.closer)
        try:
            # Without the round through the event loop that the other one makes in any case.
            clients.limiter.acquire_on_behalf_of_nowait(borrower)
        except anyio.WouldBlock:
            await clients.limiter.acquire_on_behalf_of(borrower)
        try:
            self._check_open()
            number = clients.free[0] if clients.free else clients.begun // self._size
            if number == len(clients.all):  # those before it are in use, so they are there
                clients.all.append(self._make_client(self._size_of(number)))
        except BaseException:
            clients.limiter.release_on_behalf_of(borrower)
            raise
        if clients.free:
            heapq.heappop(clients.free)
        else:
            clients.begun += 1
        return Slot(clients.all[number], clients, number)

    async def aclose(self) -> None:
        """Close this event loop's clients; those of others are closed when their loops end."""
        self.is_closed = True
        clients = self._loops.pop(current_token(), None)
        if clients is not None and clients.closer is not None:
            await clients.closer.aclose()

    def _check_open(self) -> None:
        if self.is_closed:
            raise closed_error()

    def _size_of(self, number: int) -> int:
        return min(self._size, self.max_connections - number * self._size)

    def _begin_loop(self) -> Clients:
        limiter = anyio.CapacityLimiter(self.max_connections)
        if self._given is not None:
            if any(clients.is_used for clients in self._loops.values()):
                raise WriterError(
                    "The client that was given to this AsyncWriter is in use in another event "
                    "loop. Make an AsyncWriter with its own client for each event loop and thread."
                )
            was_elsewhere = bool(self._loops)
            self._loops.clear()
            return Clients(limiter, [self._given], is_ours=False, was_elsewhere=was_elsewhere)
        for token, clients in list(self._loops.items()):
            # The second: loops that were closed without closing generators.
            if clients.are_closed or getattr(token.native_token, "is_closed", bool)():
                self._loops.pop(token, None)  # another thread may do the same
        clients = Clients(limiter, [])
        with suppress(IndexError):  # another loop, perhaps just now in another thread, has it
            clients.all.append(self._made.pop())
        return clients


async def _close_at_the_end(clients: list[Client]) -> AsyncGenerator[None]:
    """Close clients with this generator.

    An event loop that ends closes the generators that are left. So nothing is left open by an
    ``AsyncWriter`` that is used in one event loop after another and closed in the last.
    """
    try:
        yield
    finally:
        for client in clients:
            await client.aclose()
