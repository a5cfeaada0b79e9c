"""Many small connection pools that look like one large one.

httpx's pool looks at every connection it has whenever a request begins or ends, so a thousand
streams through one pool cost more than everything else together. Spread over small pools the
same work is done on a handful of connections.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable
from functools import partial
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
        self._max_connections = max_connections
        self._pools: list[httpx.AsyncBaseTransport] = []
        # The number of its pool for each free slot, as a heap: sorted, to begin with.
        self._free = [slot // POOL_SIZE for slot in range(max_connections)]
        self._pool(0)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request through the first pool with a free connection."""
        number = heapq.heappop(self._free) if self._free else None
        try:
            response = await self._pool(number or 0).handle_async_request(request)
        except BaseException:
            self.give_back(number)
            raise
        response.stream = _SlotStream(response.stream, partial(self.give_back, number))
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.aclose()

    def _pool(self, number: int) -> httpx.AsyncBaseTransport:
        if number == len(self._pools):  # those before it were full, so they are there
            size = min(POOL_SIZE, self._max_connections - number * POOL_SIZE)
            self._pools.append(self._make_pool(size))
        return self._pools[number]

    def give_back(self, number: int | None) -> None:
        """A request that had a slot of this pool is over; None is one that had none."""
        if number is not None:
            heapq.heappush(self._free, number)


class _SlotStream(httpx.AsyncByteStream):
    """A response's body that gives its slot back when it is closed."""

    def __init__(self, stream: Any, give_back: Callable[[], None]) -> None:
        self._stream = stream
        self._give_back: Callable[[], None] | None = give_back

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)  # no generator of its own

    async def aclose(self) -> None:
        """Close the body, then give the slot back, once."""
        give_back, self._give_back = self._give_back, None
        try:
            await self._stream.aclose()
        finally:
            if give_back is not None:
                give_back()
