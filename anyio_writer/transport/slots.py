"""The slots of an ``AsyncWriter``: in each event loop a client, and a limit on its streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import anyio
from anyio.lowlevel import EventLoopToken, current_token

from ..errors import WriterError
from .client import Client, make_client


def closed_error() -> WriterError:
    """What is raised by an ``AsyncWriter`` that is closed."""
    return WriterError("This AsyncWriter is closed; make another one.")


class Slot:
    """One event loop's client, and what limits how many streams are open in it.

    Attributes:
        client: The client.
        is_ours: Whether the library made it.
        was_elsewhere: Whether another event loop has used it before.
    """

    def __init__(
        self, client: Client, max_connections: int, *, is_ours: bool, was_elsewhere: bool = False
    ) -> None:
        self.client = client
        self.is_ours = is_ours
        self.was_elsewhere = was_elsewhere
        self._limiter = anyio.CapacityLimiter(max_connections)
        self._closer: AsyncGenerator[None] | None = None

    @property
    def is_used(self) -> bool:
        """Whether a stream is open."""
        return self._limiter.borrowed_tokens > 0

    async def acquire(self, borrower: object) -> None:
        """Wait for a free connection.

        A request that is cancelled while it waits inside httpx's pool would keep its connection.
        """
        if self.is_ours and self._closer is None:
            self._closer = _close_at_the_end(self.client)
            await anext(self._closer)
        try:
            # Without the round through the event loop that the other one makes in any case.
            self._limiter.acquire_on_behalf_of_nowait(borrower)
        except anyio.WouldBlock:
            await self._limiter.acquire_on_behalf_of(borrower)

    def release(self, borrower: object) -> None:
        """Give it back."""
        self._limiter.release_on_behalf_of(borrower)

    async def aclose(self) -> None:
        """Close the client."""
        if self._closer is not None:
            await self._closer.aclose()


async def _close_at_the_end(client: Client) -> AsyncGenerator[None]:
    """Close a client with this generator.

    An event loop that ends closes the generators that are left. So nothing is left open by a
    client that is used in one event loop after another and closed in the last.
    """
    try:
        yield
    finally:
        await client.aclose()


class Slots:
    """A slot for each event loop that asks: connections belong to the loop that made them.

    A client of the caller's serves one event loop at a time.
    """

    def __init__(self, client: Client | None, max_connections: int) -> None:
        self.max_connections = max_connections
        self._given = client
        # What takes long about a client is done now, and not when a stream waits for it.
        self._made = make_client(max_connections=max_connections) if client is None else None
        self._slots: dict[EventLoopToken, Slot] = {}
        self.is_closed: bool = False

    async def acquire(self, borrower: object) -> Slot:
        """Wait for a free connection in this event loop.

        Raises:
            WriterError: The slots are closed, or the client is in use in another event loop.
        """
        if self.is_closed:
            raise closed_error()
        slot = self._slot()
        await slot.acquire(borrower)
        if self.is_closed:
            slot.release(borrower)
            raise closed_error()
        return slot

    async def aclose(self) -> None:
        """Close this event loop's client; those of others are closed when their loops end."""
        self.is_closed = True
        slot = self._slots.pop(current_token(), None)
        if slot is not None:
            await slot.aclose()

    def _slot(self) -> Slot:
        token = current_token()
        slot = self._slots.get(token)
        if slot is None:
            slot = self._slots[token] = self._make_slot()
        return slot

    def _make_slot(self) -> Slot:
        if self._given is not None:
            if any(slot.is_used for slot in self._slots.values()):
                raise WriterError(
                    "The client that was given to this AsyncWriter is in use in another event "
                    "loop. Make an AsyncWriter with its own client for each event loop and thread."
                )
            was_elsewhere = bool(self._slots)
            self._slots.clear()
            return Slot(
                self._given, self.max_connections, is_ours=False, was_elsewhere=was_elsewhere
            )
        for token in list(self._slots):  # of loops that were closed without closing generators
            if getattr(token.native_token, "is_closed", bool)():
                del self._slots[token]
        client, self._made = self._made, None
        if client is None:
            client = make_client(max_connections=self.max_connections)
        return Slot(client, self.max_connections, is_ours=True)
