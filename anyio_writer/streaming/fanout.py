"""Consumers and their channels: one batch of events goes to all of them before the next is read."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, suppress
from time import monotonic
from types import TracebackType
from typing import Any, Final, Generic, Literal, Protocol, Self, TypeAlias, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from ..errors import ConsumerLagError
from ..protocol.completion import ParsedChatCompletion
from .waiting import Signal, cancellation_point

E = TypeVar("E")

OnFull: TypeAlias = Literal["wait", "drop_oldest", "fail"]
Batch: TypeAlias = list[Any]

DEFAULT_MAX_BUFFER: Final = 1024
"""How many events may wait for one consumer."""

_MOST_AT_ONCE: Final = 1024
"""How many events are gathered at the most before they are handed on."""

_FAIR_SHARE: Final = 64
"""After how many buffered events all other tasks get a turn, and how many are taken at once."""

_SOON: Final = 0.1
"""After how many seconds of waiting for a consumer one looks whether it is garbage."""

_COLLECTING_SHARE: Final = 0.05
"""How much of its time a process may spend on such looks."""

_logger: Final = logging.getLogger("anyio_writer")


class Feeder(Protocol):
    """What a consumer needs of its stream."""

    def demand(self) -> None:
        """Somebody wants events: reading may start."""

    def raise_end(self) -> None:
        """Raise what the stream ended with, anew; return if it ended well."""


class Inbox:
    """The channel to one consumer, bounded in events.

    Waiting is for ``ready``, and taking is without a wait, so that no cancellation can lose a
    batch that was handed over. That, and that a consumer may be dropped unclosed, is why it is
    not one of anyio's memory object streams; see docs/architecture.md, "Consumers".
    """

    __slots__ = (
        *("_batches", "_left", "_ready", "_room", "_waiting", "dropped", "is_ended", "is_open"),
        *("lagged", "max_buffer", "on_full", "place", "types", "was_named"),
    )

    def __init__(
        self,
        *,
        types: frozenset[type] | None = None,
        max_buffer: int = DEFAULT_MAX_BUFFER,
        on_full: OnFull = "wait",
        place: str = "",
        left: Callable[[Inbox], None],
    ) -> None:
        # Bounded by the number of events in it, and mostly empty: a deque takes 600 bytes for that.
        self._batches: list[Batch] = []
        self.types: Final = types
        self.max_buffer: Final = max_buffer
        self.on_full: Final = on_full
        self._left = left
        self.place: Final = place
        """Where in the caller's code the consumer was made."""
        self.is_open = True
        """Whether the consumer is still there."""
        self.is_ended = False
        """Whether nothing more will come."""
        self.lagged = False
        """Whether it ended because the consumer was too slow."""
        self.dropped = 0
        """How many events the consumer will never see."""
        self.was_named = False
        """Whether the log has named it as the one that holds the stream back."""
        self._waiting = 0  # events in them
        self._ready = Signal()
        self._room: Signal | None = None  # of a stream that has had to wait for it

    # The stream's side.

    @property
    def is_waited_for(self) -> bool:
        """Whether the stream waits until there is room."""
        return self.on_full == "wait"

    @property
    def room(self) -> int:
        """How many events ``put`` takes without a wait."""
        return self.max_buffer - self._waiting if self.is_waited_for else _MOST_AT_ONCE

    @property
    def share(self) -> int:
        """How many events should come between two turns of a consumer that is not waited for.

        If it does nothing but read, it loses nothing then: the event loop may begin a round with
        either task, so up to three shares wait at times, and the last chunk of each may bring
        several events. One with more than that before it is busy, and holds nobody up.
        """
        if self._waiting > self.max_buffer // 2 or self.is_ended:
            return _MOST_AT_ONCE
        return max(1, min(self.max_buffer // 8, _MOST_AT_ONCE))

    @property
    def most_taken(self) -> int | None:
        """How many events are taken at once, one by one, before others get a turn."""
        # As much as comes between two turns, where nobody waits for the consumer.
        return _FAIR_SHARE if self.is_waited_for else None

    def put_all(self, batch: Batch) -> None:
        """``put`` for a batch of any size."""
        for part in self.cut(batch):
            self.put(part)

    def cut(self, batch: Batch) -> Iterable[Batch]:
        """The batch in parts that fit into the empty channel."""
        return in_parts(batch, self.max_buffer)

    def put(self, batch: Batch) -> None:
        """Hand a batch over, by the consumer's own rule if there is no room for it."""
        if not self.is_open or self.is_ended:
            return  # it left, or lagged, meanwhile
        surplus = self._waiting + len(batch) - self.max_buffer
        if surplus > 0:
            if self.on_full == "fail":
                self.lagged = True
                self.end()
                return
            self._drop(surplus)
        self._batches.append(batch)
        self._waiting += len(batch)
        self._ready.set()

    def _drop(self, count: int) -> None:
        """Drop the oldest events."""
        self.dropped += count
        self._waiting -= count
        gone = 0
        for batch in self._batches:
            if len(batch) > count:
                break
            count -= len(batch)
            gone += 1
        del self._batches[:gone]
        if count:
            self._batches[0] = self._batches[0][count:]

    async def wait_for_room(self, count: int) -> None:
        """Wait until ``count`` more events fit or the consumer has left."""
        while self.is_open and count > self.room:
            self._room = Signal()
            await self._room.wait()

    def end(self) -> None:
        """Nothing more will come; what is in the channel can still be taken."""
        self.is_ended = True
        self._ready.set()

    # The consumer's side.

    @property
    def is_ready(self) -> bool:
        """Whether there is a batch to take."""
        return self._waiting > 0

    def take(self, most: int | None = None) -> Batch:
        """The oldest batch, or the first ``most`` events of it; only when there is one."""
        batch = self._batches[0]
        if most is None or len(batch) <= most:
            del self._batches[0]
        else:
            self._batches[0] = batch[most:]  # other channels have the same one
            batch = batch[:most]
        self._waiting -= len(batch)
        if self._room is not None:
            self._room.set()
        return batch

    def wait_ready(self) -> Awaitable[None]:
        """Wait until there is a batch or the end; may wake for nothing."""
        self._ready.clear()
        return self._ready.wait()

    def close(self) -> None:
        """The consumer leaves; what is in the channel is dropped."""
        if not self.is_open:
            return
        self.is_open = False
        self._left(self)  # tells the fanout
        self._waiting = 0
        self._batches.clear()
        self._ready.set()
        if self._room is not None:
            self._room.set()


class Subscription(Generic[E]):
    """One consumer of a stream: an iterator over its events, from when it was made.

    Made by ``ChatCompletionStream.subscribe()``. It may be used as it is or with ``async with``;
    one that is no longer wanted is closed, or dropped, and never holds up the others.

    Several tasks may iterate it; each event goes to exactly one of them and none is lost, also
    when one of them is cancelled. When the stream has ended, iteration gives what is still
    buffered and then ends, or raises what the stream ended with (see ``ChatCompletionStream``).

    Raises:
        ConsumerLagError: This consumer was too slow, and was made with ``on_full="fail"``.
    """

    def __init__(
        self,
        feeder: Feeder,
        inbox: Inbox,
        snapshot: Callable[[], ParsedChatCompletion[Any]],
    ) -> None:
        self._feeder = feeder
        self._inbox = inbox
        self._read_snapshot = snapshot
        self._batch: list[E] = []  # taken from the channel, not yet given out; the oldest last
        self._taken = 0  # events since all other tasks last had a turn
        self._let_cancel = cancellation_point()

    def __repr__(self) -> str:
        return f"<Subscription made at {self._inbox.place}>"

    def __del__(self) -> None:
        # The last reference may go in a thread, where nobody can be woken; they look now and then.
        with suppress(RuntimeError):
            self._inbox.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop consuming. Later steps of an iteration end it at once."""
        self._batch.clear()
        self._inbox.close()
        await checkpoint()

    @property
    def snapshot(self) -> ParsedChatCompletion[Any]:
        """The completion as it stood when this consumer joined.

        What it says and what the events from then on add is the whole completion.
        """
        return self._read_snapshot()

    @property
    def dropped(self) -> int:
        """How many events were dropped because this consumer was slow ("drop_oldest")."""
        return self._inbox.dropped

    def __aiter__(self) -> AsyncIterator[E]:
        return self

    async def __anext__(self) -> E:
        # In each way through here the one await comes before the events are taken, so that no
        # cancellation can lose any.
        batch = self._batch
        while batch:
            await self._let_cancel()
            if batch:  # another task may have taken the last one meanwhile
                return batch.pop()
        # While this task waited, another may have taken a batch: an older one.
        batch[:0] = (await self._next_batch(self._inbox.most_taken))[::-1]
        return batch.pop()

    def batches(self) -> AsyncIterator[list[E]]:
        """The same events in lists, one list per read of the response, never empty.

        A read that was begun one by one may end in two lists.
        """
        return Batches(self)

    async def next_batch(self) -> list[E]:
        """The next events as a list, never empty."""
        while self._batch:
            await self._pause()
            if batch := self._take_left():
                return batch
        batch = await self._next_batch()
        # While this task waited, another may have taken an older one. The sum is a new list:
        # other consumers have the same batch.
        return self._take_left() + batch

    async def discard_all(self) -> None:
        """Take and drop what comes until the stream ends; sharing it with who else reads."""
        self._batch.clear()
        with suppress(StopAsyncIteration):
            while True:
                await self._next_batch()

    async def _next_batch(self, most: int | None = None) -> list[E]:
        inbox = self._inbox
        self._feeder.demand()
        waited = False
        while True:
            if inbox.is_ready:
                if waited:
                    batch = inbox.take(most)
                    self._taken += len(batch)
                    return batch
                await self._pause()
                waited = True
            elif inbox.is_ended or not inbox.is_open:
                await checkpoint()
                if batch := self._take_left():
                    return batch
                self._raise_end()
            else:
                await inbox.wait_ready()
                self._taken = 0
                waited = True

    def _take_left(self) -> list[E]:
        """What a task has taken from the channel and not given out, the oldest first."""
        left = self._batch[::-1]
        self._batch.clear()
        return left

    def _raise_end(self) -> None:
        inbox = self._inbox
        if inbox.lagged:
            raise ConsumerLagError(
                f"This consumer (made at {inbox.place}) was more than {inbox.max_buffer} events "
                "behind its stream and has lost the rest."
            )
        if inbox.is_open:
            self._feeder.raise_end()
        raise StopAsyncIteration

    async def _pause(self) -> None:
        """Let a cancellation in; now and then give all other tasks a turn."""
        if self._taken < _FAIR_SHARE:
            await self._let_cancel()
        else:
            self._taken = 0
            await checkpoint()


class Batches(Generic[E]):
    """Iterates a consumer in lists, one list per read."""

    def __init__(self, consumer: Subscription[E]) -> None:
        self._consumer = consumer

    def __aiter__(self) -> AsyncIterator[list[E]]:
        return self

    async def __anext__(self) -> list[E]:
        return await self._consumer.next_batch()


class Fanout:
    """All consumers of one stream."""

    __slots__ = ("_is_ended", "_not_waited_for", "_slow_consumer_time", "recipients", "was_left")

    def __init__(self, slow_consumer_time: float) -> None:
        self.recipients: tuple[Inbox, ...] = ()
        """Who is to get what is read next. Those who join later find it in their snapshot."""
        self._not_waited_for: tuple[Inbox, ...] = ()
        self.was_left = False
        """Whether a consumer has left before the end."""
        self._is_ended = False
        self._slow_consumer_time = slow_consumer_time

    def add(self, inbox: Inbox) -> None:
        """From now on this one gets everything."""
        if self._is_ended:
            inbox.end()
        else:
            self._set_recipients((*self.recipients, inbox))

    def remove(self, inbox: Inbox) -> None:
        """It has left."""
        self.was_left = self.was_left or not self._is_ended
        self._set_recipients(tuple(other for other in self.recipients if other is not inbox))

    def _set_recipients(self, recipients: tuple[Inbox, ...]) -> None:
        self.recipients = recipients
        self._not_waited_for = tuple(inbox for inbox in recipients if not inbox.is_waited_for)

    @property
    def share(self) -> int:
        """How many events should come before all consumers get a turn."""
        if not self._not_waited_for:  # nearly always, and asked with every read
            return _MOST_AT_ONCE
        return min(inbox.share for inbox in self._not_waited_for)

    @property
    def room(self) -> int:
        """How many events every consumer can take at once, by its own rule."""
        least: int | None = None
        for inbox in self.recipients:  # no min(): its generator is most of the work
            room = inbox.room
            if least is None or room < least:
                least = room
        return _MOST_AT_ONCE if least is None else least

    def put_nowait(self, events: Batch, recipients: Iterable[Inbox]) -> None:
        """Hand events to recipients that all have room for them."""
        sorter = _Sorter(events)
        for inbox in recipients:
            if inbox.types is None and len(events) <= inbox.max_buffer:
                inbox.put(events)
            elif batch := sorter.of(inbox.types):
                inbox.put_all(batch)

    async def put(
        self,
        events: Batch,
        recipients: Iterable[Inbox],
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Hand events to all recipients, at once where there is room and else when there is.

        Args:
            events: At least one.
            recipients: From before the events came about.
            waiting: Entered while a consumer has no room.
        """
        sorter = _Sorter(events)
        full: list[Inbox] = []
        for inbox in recipients:
            batch = sorter.of(inbox.types)
            if len(batch) > inbox.room:
                full.append(inbox)
            elif batch:
                inbox.put_all(batch)
        for inbox in full:
            with waiting():
                for part in inbox.cut(sorter.of(inbox.types)):
                    await self._wait_for_room(inbox, len(part))
                    inbox.put(part)

    async def _wait_for_room(self, inbox: Inbox, count: int) -> None:
        waited, patience = 0.0, _SOON
        while True:
            if not inbox.was_named:
                patience = min(patience, self._slow_consumer_time - waited)
            with anyio.move_on_after(patience) as scope:
                await inbox.wait_for_room(count)
            if not scope.cancelled_caught:
                return
            _collect_garbage()
            waited += patience
            patience *= 2
            if waited >= self._slow_consumer_time and inbox.is_open and not inbox.was_named:
                inbox.was_named = True
                _logger.warning(
                    "A consumer has held its stream back for %s s: it was made at %s and has %d "
                    "events that it does not read. Read it, close it, or make it with on_full=...",
                    self._slow_consumer_time,
                    inbox.place,
                    inbox.max_buffer,
                )

    def end(self) -> None:
        """No more events: consumers take what is buffered and then meet the stream's end."""
        self._is_ended = True
        for inbox in self.recipients:
            inbox.end()


def in_parts(batch: Batch, size: int) -> Iterable[Batch]:
    """The batch in parts of that many events."""
    if len(batch) <= size:
        return (batch,)
    return (batch[start : start + size] for start in range(0, len(batch), size))


def _collect_garbage() -> None:
    """Find consumers that nobody can read any more.

    A task that was cancelled or has failed can leave its consumer in a reference cycle. While all
    wait for that consumer, nothing may happen that would set the collector off.
    """
    global _next_collection  # noqa: PLW0603 - it is the process that pays
    if (begun := monotonic()) >= _next_collection:
        gc.collect()
        done = monotonic()
        _next_collection = done + (done - begun) / _COLLECTING_SHARE


_next_collection = 0.0


class _Sorter:
    """A batch as each consumer wants it: sorted out once for each set of types."""

    def __init__(self, events: Batch) -> None:
        self._events = events
        self._sorted_out: dict[frozenset[type], Batch] = {}

    def of(self, types: frozenset[type] | None) -> Batch:
        if types is None:
            return self._events
        batch = self._sorted_out.get(types)
        if batch is None:
            batch = self._sorted_out[types] = [e for e in self._events if type(e) in types]
        return batch
