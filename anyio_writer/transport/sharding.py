"""Many small connection pools that look like one large one.

httpx's pool looks at every connection it has whenever a request begins or ends, so a thousand
streams through one pool cost more than everything else together. Spread over small pools the
same work is done on a handful of connections.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import httpx

POOL_SIZE: Final = 10
"""Connections in one pool."""


class ShardedTransport(httpx.AsyncBaseTransport):
    """Spreads requests over pools of at most ``POOL_SIZE`` connections each.

    A request goes to the first pool with a free slot. That keeps the limit exact, and it keeps
    connections in use: the pools that were filled last are the first to fall idle, and what is
    idle in the first ones is used before a new connection is made in a later one.

    Args:
        make_pool: Makes the transport for so many connections; called at once for the first one,
            and for each of the others when it is needed.
        max_connections: The limit for all pools together. A request beyond it waits inside the
            first pool; an ``AsyncWriter`` lets none get that far.
    """

    def __init__(
        self, make_pool: Callable[[int], httpx.AsyncBaseTransport], *, max_connections: int
    ) -> None:
        self._make_pool = make_pool
        self._sizes = [
            min(POOL_SIZE, max_connections - start)
            for start in range(0, max_connections, POOL_SIZE)
        ]
        self._pools = [make_pool(self._sizes[0])]
        self._free = list(self._sizes)  # slots of each pool
        self._open = list(range(len(self._sizes)))  # a heap of the pools with free slots

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request through the first pool with a free connection."""
        number = self._take_slot()
        try:
            response = await self._pool(number).handle_async_request(request)
        except BaseException:
            self.give_back(number)
            raise
        response.stream = _SlotStream(response.stream, self, number)
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.aclose()

    def _pool(self, number: int) -> httpx.AsyncBaseTransport:
        while len(self._pools) <= number:
            self._pools.append(self._make_pool(self._sizes[len(self._pools)]))
        return self._pools[number]

    def _take_slot(self) -> int:
        number = self._open[0] if self._open else 0
        self._free[number] -= 1
        if self._open and not self._free[number]:
            heapq.heappop(self._open)
        return number

    def give_back(self, number: int) -> None:
        """A request that had a slot of this pool is over."""
        self._free[number] += 1
        if self._free[number] == 1:
            heapq.heappush(self._open, number)


class _SlotStream(httpx.AsyncByteStream):
    """A response's body that gives its slot back when it is closed."""

    def __init__(self, stream: Any, transport: ShardedTransport, number: int) -> None:
        self._stream = stream
        self._transport: ShardedTransport | None = transport
        self._number = number

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)  # no generator of its own

    async def aclose(self) -> None:
        """Close the body, then give the slot back, once."""
        transport, self._transport = self._transport, None
        try:
            await self._stream.aclose()
        finally:
            if transport is not None:
                transport.give_back(self._number)
