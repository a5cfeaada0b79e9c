"""Consumers and their channels: one batch of events goes to all of them before the next is read."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final, Generic, Protocol, TypeVar

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

E = TypeVar("E")

DEFAULT_MAX_BUFFER: Final = 1024
"""How many events may wait for one consumer."""

_FAIR_SHARE: Final = 64
"""How many buffered events one task takes before all others get a turn."""


class Feeder(Protocol):
    """What a consumer needs of its stream."""

    def demand(self) -> None:
        """Somebody wants events: reading may start."""

    def raise_end(self) -> None:
        """Raise what the stream ended with, anew; return if it ended well."""


class Inbox:
    """The channel to one consumer, bounded in events.

    Batches travel through a memory object channel. Nobody waits inside its ``receive()``: what is
    handed to a waiting task is lost if that task is cancelled before it runs. Waiting is for
    ``ready``, and taking is without a wait.
    """

    def __init__(self, max_buffer: int) -> None:
        # A batch holds at least one event, so the channel itself never fills up.
        self._send, self._receive = anyio.create_memory_object_stream[list[Any]](max_buffer)
        self.max_buffer: Final = max_buffer
        self.is_open = True
        """Whether the consumer is still there."""
        self.is_ended = False
        """Whether nothing more will come."""
        self._waiting = 0  # events in the channel
        self._ready = anyio.Event()
        self._room = anyio.Event()

    def __del__(self) -> None:
        # A consumer may be dropped unread; anyio would complain of the channel's ends.
        self._send.close()
        self._receive.close()

    def has_room(self, count: int) -> bool:
        """Whether ``count`` more events fit."""
        return self._waiting + count <= self.max_buffer

    def put(self, batch: list[Any]) -> None:
        """Hand a batch over; the caller has made sure that there is room."""
        self._send.send_nowait(batch)
        self._waiting += len(batch)
        self._ready.set()

    async def wait_for_room(self, count: int) -> None:
        """Wait until ``count`` more events fit or the consumer has left."""
        while self.is_open and not self.has_room(count):
            self._room = anyio.Event()
            await self._room.wait()

    @property
    def is_ready(self) -> bool:
        """Whether there is a batch to take."""
        return self._waiting > 0

    def take(self) -> list[Any]:
        """The oldest batch; only when there is one."""
        batch = self._receive.receive_nowait()
        self._waiting -= len(batch)
        self._room.set()
        return batch

    async def wait_ready(self) -> None:
        """Wait until there is a batch or the end; may wake for nothing."""
        if self._ready.is_set():
            self._ready = anyio.Event()
        await self._ready.wait()

    def end(self) -> None:
        """Nothing more will come; what is in the channel can still be taken."""
        self.is_ended = True
        self._send.close()
        self._ready.set()

    def close(self) -> None:
        """The consumer leaves; what is in the channel is dropped."""
        self.is_open = False
        self._waiting = 0
        self._send.close()
        self._receive.close()
        self._ready.set()
        self._room.set()


class Consumer(Generic[E]):
    """One reader of a stream: an iterator over its events.

    Several tasks may iterate it; each event goes to exactly one of them and none is lost, also
    when one of them is cancelled.
    """

    def __init__(self, feeder: Feeder, inbox: Inbox) -> None:
        self._feeder = feeder
        self._inbox = inbox
        self._batch: deque[E] = deque()  # taken from the channel, not yet given out
        self._turn = 0

    def __aiter__(self) -> AsyncIterator[E]:
        return self

    async def __anext__(self) -> E:
        # In each way through here the one await comes before the events are taken, so that no
        # cancellation can lose any.
        while self._batch:
            await self._pause()
            if self._batch:  # another task may have taken the last one meanwhile
                return self._batch.popleft()
        self._batch.extend(await self._next_batch())
        return self._batch.popleft()

    async def next_batch(self) -> list[E]:
        """The next events as a list, never empty."""
        while self._batch:
            await self._pause()
            if batch := list(self._batch):
                self._batch.clear()
                return batch
        return await self._next_batch()

    async def discard_all(self) -> None:
        """Take and drop what comes until the stream ends; sharing it with who else reads."""
        self._batch.clear()
        with suppress(StopAsyncIteration):
            while True:
                await self._next_batch()

    def close(self) -> None:
        """Stop reading."""
        self._batch.clear()
        self._inbox.close()

    async def _next_batch(self) -> list[E]:
        inbox = self._inbox
        self._feeder.demand()
        waited = False
        while True:
            if inbox.is_ready:
                if waited:
                    return inbox.take()
                await self._pause()
                waited = True
            elif inbox.is_ended or not inbox.is_open:
                await checkpoint()
                self._feeder.raise_end()
                raise StopAsyncIteration
            else:
                await inbox.wait_ready()
                waited = True

    async def _pause(self) -> None:
        """Let a cancellation in; now and then give all other tasks a turn."""
        self._turn += 1
        if self._turn % _FAIR_SHARE:
            await checkpoint_if_cancelled()
        else:
            await checkpoint()


class Batches(Generic[E]):
    """Iterates a consumer in lists, one list per read."""

    def __init__(self, consumer: Consumer[E]) -> None:
        self._consumer = consumer

    def __aiter__(self) -> AsyncIterator[list[E]]:
        return self

    async def __anext__(self) -> list[E]:
        return await self._consumer.next_batch()


class Fanout:
    """All consumers of one stream."""

    def __init__(self) -> None:
        self._inboxes: list[Inbox] = []
        self._is_ended = False

    def __bool__(self) -> bool:
        return bool(self._inboxes)

    def add(self, max_buffer: int = DEFAULT_MAX_BUFFER) -> Inbox:
        """A channel that gets everything from now on."""
        inbox = Inbox(max_buffer)
        if self._is_ended:
            inbox.end()
        else:
            self._inboxes.append(inbox)
        return inbox

    @property
    def max_batch(self) -> int:
        """The most events that fit into every consumer's empty channel."""
        return min((inbox.max_buffer for inbox in self._inboxes), default=DEFAULT_MAX_BUFFER)

    def put(self, batch: list[Any]) -> bool:
        """Hand a batch to every consumer, or to none: False means that one has no room."""
        if not all(inbox.is_open for inbox in self._inboxes):
            self._inboxes = [inbox for inbox in self._inboxes if inbox.is_open]
        count = len(batch)
        if not all(inbox.has_room(count) for inbox in self._inboxes):
            return False
        for inbox in self._inboxes:
            inbox.put(batch)
        return True

    async def wait_for_room(self, count: int) -> None:
        """Wait until every consumer has room for ``count`` events or has left."""
        for inbox in self._inboxes:
            await inbox.wait_for_room(count)

    def end(self) -> None:
        """No more events: consumers take what is buffered and then meet the stream's end."""
        self._is_ended = True
        for inbox in self._inboxes:
            inbox.end()
