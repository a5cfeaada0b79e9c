"""One subscriber of a stream: iteration, batches, and the snapshot from when it joined."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, NoReturn, Self, TypedDict, TypeVar

from anyio.lowlevel import checkpoint, current_token

from ..errors import ConsumerLagError
from ..protocol.completion import ParsedChatCompletion
from ..uncopied import Uncopied
from .channel import YIELD_EVERY, Channel, OnFull
from .lifetime import Lifetime

E = TypeVar("E")


class SubscriptionOptions(TypedDict, total=False):
    """How events are buffered for a subscriber, see ``subscribe()``."""

    max_buffer: int
    on_full: OnFull
    name: str


class Subscription(Uncopied, Generic[E]):
    """A subscriber of a stream: an iterator over its events.

    Made by ``ChatCompletionStream.subscribe()``. Close it when you no longer want it, or use it as
    an ``async with`` block. If you merely drop it, it blocks the stream until Python finalises it.

    Several tasks may iterate over it. Each event goes to exactly one of them, and cancelling a task
    loses none. When the stream has ended, iteration yields the events that are still buffered. Then
    it ends, or raises the stream's error (see ``ChatCompletionStream``).

    Raises:
        ConsumerLagError: The subscriber was too slow, and was made with ``on_full="fail"``.
    """

    _copy_instead = "Its events can be, and subscribe() makes another one."

    def __init__(
        self,
        lifetime: Lifetime,
        channel: Channel,
        snapshot: Callable[[], ParsedChatCompletion[Any]],
    ) -> None:
        self._lifetime = lifetime
        self._channel = channel
        self._read_snapshot = snapshot
        self._events: list[E] = []  # received and not yet given out, the oldest last
        self._checkpoint_if_cancelled: Callable[[], Awaitable[None]] | None = None
        # A finaliser may run in any thread and amid anything. The channel outlives this object,
        # so that it can close itself; left open in a reference cycle, it would warn.
        weakref.finalize(self, channel.close_unnoticed)

    def __repr__(self) -> str:
        return f"<{str(self._channel).capitalize()}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop subscribing. Later steps of an iteration end it at once."""
        self._events.clear()
        self._channel.close()
        await checkpoint()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed with ``aclose()``."""
        return self._channel.is_closed

    @property
    def snapshot(self) -> ParsedChatCompletion[Any]:
        """The completion as it stood when this subscriber joined.

        Together with the events from then on it is the whole completion.
        """
        return self._read_snapshot()

    @property
    def dropped(self) -> int:
        """How many events were dropped because this subscriber was slow ("drop_oldest")."""
        return self._channel.dropped

    def __aiter__(self) -> AsyncIterator[E]:
        return self

    async def __anext__(self) -> E:
        # Each path awaits before it takes an event, so that no cancellation can lose one.
        events = self._events
        if len(events) % YIELD_EVERY and self._checkpoint_if_cancelled is not None:
            await self._checkpoint_if_cancelled()
        elif events:
            await checkpoint()
        if not events:  # or another task has taken the last one meanwhile
            await self._receive()
        return events.pop()

    def batches(self) -> Steps[list[E]]:
        """The same events in lists: each time everything that is buffered. No list is empty."""
        return Steps(self._next_batch, self.aclose)

    async def _next_batch(self) -> list[E]:
        if self._events:
            await checkpoint()
        await self._receive()
        batch = self._events[::-1]
        self._events.clear()
        return batch

    def batch_nowait(self) -> list[E]:
        """All that is buffered now; empty if nothing is, whether or not more will come."""
        batch = self._events[::-1]
        self._events.clear()
        if self._channel.buffered:
            batch += self._channel.receive_nowait()
        return batch

    async def _receive(self) -> None:
        """Take all that is buffered into ``_events`` if it is empty; waits until there is some.

        Raises:
            StopAsyncIteration: The stream has ended well, or this subscriber is closed.
        """
        if self._checkpoint_if_cancelled is None:
            self._lifetime.demand()
            # anyio's own function looks for the event loop at each call, which costs as much as
            # the rest of it. What it then calls is the same for all tasks of a loop.
            self._checkpoint_if_cancelled = current_token().backend_class.checkpoint_if_cancelled
        channel = self._channel
        has_waited = False
        while not self._events:
            if channel.buffered:
                if not has_waited:
                    await self._checkpoint_if_cancelled()
                self._events += reversed(channel.receive_nowait())
            elif channel.has_ended:
                await self._raise_end()
            else:
                await channel.wait_for_change()
            has_waited = True

    async def _raise_end(self) -> NoReturn:
        channel = self._channel
        if channel.is_lagging:
            raise ConsumerLagError(
                f"This {channel} was more than {channel.max_buffer} events behind its stream and "
                "has lost the rest."
            )
        if not channel.is_closed:
            await self._lifetime.raise_end()
        raise StopAsyncIteration


class Steps(Uncopied, Generic[E]):
    """Iterates a subscription in another form: batch by batch, or text by text."""

    _copy_instead = "The events can be."

    def __init__(
        self, step: Callable[[], Awaitable[E]], aclose: Callable[[], Awaitable[None]]
    ) -> None:
        self._step = step
        self._aclose = aclose

    def __aiter__(self) -> AsyncIterator[E]:
        return self

    def __anext__(self) -> Awaitable[E]:
        return self._step()

    async def aclose(self) -> None:
        """Stop subscribing."""
        await self._aclose()
