"""Publishing: one batch of events goes to all subscribers before the next one is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from ..telemetry.logs import logger
from .channel import YIELD_EVERY, Batch, Channel

_FIRST_CHECK: Final = 0.1
"""Seconds of waiting for capacity after which a publisher checks whether the subscriber is gone."""

_LONGEST_PAUSE: Final = 1.0
"""The longest time between two checks, in seconds."""

_LOSSY_PARTS: Final = 8
"""Into how many parts the buffer of a lossy subscriber is divided.

It runs after each part, so one that keeps reading loses nothing. trio may begin a round with either
task, so several parts can come before it runs. A part is also smaller than what a subscriber reads
before it lets other tasks run.
"""


Unsent: TypeAlias = list[tuple[Channel, Batch]]
"""The subscribers that could not take all events, each with those that it lacks."""


class Listener(Protocol):
    """Who takes events in the step that publishes them, and so never has to be waited for."""

    def take(self, events: Batch) -> None:
        """These were published."""

    def end(self) -> None:
        """Nothing more will be."""


class Fanout:
    """All subscribers of one stream."""

    __slots__ = (
        "_channels",
        "_has_ended",
        "_listener",
        "_slow_consumer_time",
        "was_left",
    )

    def __init__(self, slow_consumer_time: float) -> None:
        self._channels: tuple[Channel, ...] = ()
        self._listener: Listener | None = None
        self._slow_consumer_time = slow_consumer_time
        self._has_ended = False
        self.was_left: bool = False
        """Whether a subscriber has left before the end."""

    def add(self, channel: Channel) -> None:
        """This subscriber gets everything that is published from now on."""
        if self._has_ended:
            channel.end()
        else:
            self._channels = (*self._channels, channel)

    def set_listener(self, listener: Listener) -> None:
        """From now on this one takes everything, before the subscribers get it."""
        self._listener = listener
        if self._has_ended:
            listener.end()

    def has_audience(self) -> bool:
        """Whether anybody would get what is published."""
        return bool(self._channels) or self._listener is not None

    def select_recipients(self) -> tuple[Channel, ...]:
        """The subscribers that are still there."""
        for channel in self._channels:
            if channel.is_closed:
                self.was_left = self.was_left or not self._has_ended
                self._channels = tuple(each for each in self._channels if not each.is_closed)
                break
        return self._channels

    async def publish(self, events: Batch) -> None:
        """Hand events to all subscribers, at once where there is capacity and else when there is.

        If this is cancelled, some have the events and others lack them, so nothing more may be
        published.

        Args:
            events: In order. Subscribers that join from now on do not get them.
        """
        if unsent := self.publish_nowait(events):
            await self.send(unsent)

    def publish_nowait(self, events: Batch) -> Unsent:
        """Hand events to all subscribers that have capacity; ``send`` must send what it returns."""
        if self._listener is not None:
            self._listener.take(events)
        unsent: Unsent = []
        selections: dict[frozenset[type], Batch] = {}  # made once each
        for channel in self.select_recipients():
            selected = events
            if (types := channel.types) is not None:
                if types not in selections:
                    selections[types] = [event for event in events if type(event) in types]
                selected = selections[types]
            if not selected:
                continue
            if channel.is_lossy and _is_to_run(channel, len(selected)):
                unsent.append((channel, selected))
            elif rest := channel.send_nowait(selected):
                unsent.append((channel, rest))
        return unsent

    async def send(
        self,
        unsent: Unsent,
        wait: Callable[[Awaitable[None]], Awaitable[None]] | None = None,
    ) -> None:
        """Send the events that ``publish_nowait`` returned, as ``publish`` does.

        Args:
            unsent: The subscribers, and their events.
            wait: Awaits a wait for a subscriber without capacity; by default it is just awaited.
        """
        lossy = [each for each in unsent if each[0].is_lossy]
        while lossy:
            await cancel_shielded_checkpoint()  # which takes no events away from the others
            lossy = [
                (channel, rest) for channel, part in lossy if (rest := _send_part(channel, part))
            ]
        for channel, rest in unsent:
            if not channel.is_lossy:
                sending = self._send(channel, rest)
                await (sending if wait is None else wait(sending))

    def publish_at_once(self, events: Batch) -> bool:
        """Hand events to all subscribers that have capacity; returns whether all had it."""
        unsent = self.publish_nowait(events)
        return not [channel for channel, rest in unsent if channel.send_nowait(rest)]

    def end(self) -> None:
        """No more events: subscribers receive what is buffered and then meet the end."""
        self.select_recipients()
        self._has_ended = True
        for channel in self._channels:
            channel.end()
        if self._listener is not None:
            self._listener.end()

    async def _send(self, channel: Channel, events: Batch) -> None:
        """Send as there is capacity, until the subscriber has all events or has left."""
        waited, pause = 0.0, _FIRST_CHECK
        while events := channel.send_nowait(events):
            if not channel.is_reported:
                pause = min(pause, self._slow_consumer_time - waited)
            with anyio.move_on_after(pause) as scope:
                await channel.wait_for_change()
            if scope.cancelled_caught:
                waited += pause
                pause = min(2 * pause, _LONGEST_PAUSE)
                if waited >= self._slow_consumer_time and not channel.is_closed:
                    self._report(channel)

    def _report(self, channel: Channel) -> None:
        if not channel.is_reported:
            channel.is_reported = True
            logger.warning(
                "The %s has blocked its stream for %s s: it has %d events that it does not read. "
                "Read it, close it, or subscribe with on_full=...",
                channel,
                self._slow_consumer_time,
                channel.buffered,
            )


def _is_to_run(channel: Channel, count: int) -> bool:
    """Whether a lossy subscriber should run before it gets so many events."""
    return channel.buffered + count > _size_of_part(channel) and not _is_busy(channel)


def _send_part(channel: Channel, events: Batch) -> Batch:
    """Send as much as a lossy subscriber may lack before it runs; returns the rest."""
    # One that has half of its buffer full is busy: it loses events rather than slow others.
    size = len(events) if _is_busy(channel) else _size_of_part(channel)
    channel.send_nowait(events[:size])
    return events[size:]


def _size_of_part(channel: Channel) -> int:
    return max(1, min(channel.max_buffer // _LOSSY_PARTS, YIELD_EVERY // 2))


def _is_busy(channel: Channel) -> bool:
    return channel.has_ended or channel.buffered > channel.max_buffer // 2
