"""The slots of an ``AsyncWriter``: in each event loop a client, and a limit on its streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import anyio
from anyio.lowlevel import EventLoopToken, current_token

from ..errors import WriterError
from .client import Client, make_client


def closed_error() -> WriterError:
    """What is raised by an ``AsyncWriter`` that is closed."""
    return WriterError("This AsyncWriter is closed; make another one.")


@dataclass(eq=False, slots=True)
class Slot:
    """One event loop's client, and what limits how many streams are open in it.

    Attributes:
        client: The client.
        limiter: It has a token for each connection. A request that is cancelled while it waits
            inside httpx's pool would keep its connection.
        is_ours: Whether the library made the client.
        was_elsewhere: Whether another event loop has used it before.
        closer: What closes it, once it is used, unless it is the caller's.
    """

    client: Client
    limiter: anyio.CapacityLimiter
    is_ours: bool = True
    was_elsewhere: bool = False
    closer: AsyncGenerator[None] | None = None

    @property
    def is_used(self) -> bool:
        """Whether a stream is open."""
        return self.limiter.borrowed_tokens > 0

    def release(self, borrower: object) -> None:
        """Give a connection back."""
        self.limiter.release_on_behalf_of(borrower)


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
        token = current_token()
        slot = self._slots.get(token)
        if slot is None:
            slot = self._slots[token] = self._make_slot()
        if slot.is_ours and slot.closer is None:
            slot.closer = _close_at_the_end(slot.client)
            await anext(slot.closer)
        try:
            # Without the round through the event loop that the other one makes in any case.
            slot.limiter.acquire_on_behalf_of_nowait(borrower)
        except anyio.WouldBlock:
            await slot.limiter.acquire_on_behalf_of(borrower)
        if self.is_closed:
            slot.release(borrower)
            raise closed_error()
        return slot

    async def aclose(self) -> None:
        """Close this event loop's client; those of others are closed when their loops end."""
        self.is_closed = True
        slot = self._slots.pop(current_token(), None)
        if slot is not None and slot.closer is not None:
            await slot.closer.aclose()

    def _make_slot(self) -> Slot:
        limiter = anyio.CapacityLimiter(self.max_connections)
        if self._given is not None:
            if any(slot.is_used for slot in self._slots.values()):
                raise WriterError(
                    "The client that was given to this AsyncWriter is in use in another event "
                    "loop. Make an AsyncWriter with its own client for each event loop and thread."
                )
            was_elsewhere = bool(self._slots)
            self._slots.clear()
            return Slot(self._given, limiter, is_ours=False, was_elsewhere=was_elsewhere)
        for token in list(self._slots):  # of loops that were closed without closing generators
            if getattr(token.native_token, "is_closed", bool)():
                del self._slots[token]
        client, self._made = self._made, None
        if client is None:
            client = make_client(max_connections=self.max_connections)
        return Slot(client, limiter)
