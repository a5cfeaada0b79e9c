"""The producer's side: follows a stream, appends its records exactly once, and keeps the lease."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext, suppress
from typing import Any, Final, NamedTuple, TypeAlias

import anyio
from anyio.abc import TaskGroup
from msgspec import structs

from ..conversation import Conversation, RoundStartedEvent, ToolResultEvent
from ..errors import (
    ContentFilterFinishReasonError,
    ContentParseError,
    LeaseLostError,
    LengthFinishReasonError,
    RelayUnavailableError,
    StreamClosedError,
)
from ..protocol.events import ChunkEvent
from ..streaming.stream import ChatCompletionStream
from ..streaming.subscription import Subscription
from .log import EndState, Lease, Log, Receipt
from .records import (
    End,
    Header,
    Record,
    RoundStarted,
    ToolResulted,
    encode,
    record_error,
    split,
)

Published: TypeAlias = ChatCompletionStream[Any] | Conversation[Any]

CLEANUP_TIME: Final = 2.0
"""How many seconds the end of something cancelled may take."""

_MAX_BUFFER: Final = 8192
"""How many events may wait for the log: some seconds of a fast model, or one read of 64 KiB."""

_LONGEST_SILENCE: Final = 0.5
"""How often a producer speaks with the log at least, in seconds. So it learns of a stop in time."""

_HELD_BYTES: Final = 256 * 1024
"""How much of what was appended last is kept, should the server lose it in a failover."""

_FITS_OTHERS: Final = (
    ContentParseError,
    LengthFinishReasonError,
    ContentFilterFinishReasonError,
)
"""What a stream raises whose answer is whole, but does not fit the producer's response format."""


_logger: Final = logging.getLogger("anyio_writer")


class _Entry(NamedTuple):
    """An entry that was appended, or is to be."""

    number: int
    data: bytes
    events: int
    end: EndState | None


class Recorder:
    """Turns events into records."""

    def __init__(self) -> None:
        self.events: int = 0
        """How many events there were."""
        self.after: int = 0
        """How many of them are of the answer, or of the last round's."""

    def take(self, events: Iterable[Any]) -> list[Record]:
        """The records of these events: all else follows from the payloads."""
        records: list[Record] = []
        for event in events:
            self.events += 1
            if isinstance(event, RoundStartedEvent):
                self.after = 0
                records.append(RoundStarted(event.round))
            elif isinstance(event, ToolResultEvent):
                records.append(ToolResulted.of(event, self.after))
            else:
                self.after += 1
                if isinstance(event, ChunkEvent):
                    records.append(event.raw)
        return records


class Production:
    """One producer's hold on a key, from its election to the end that it records.

    Args:
        log: Where it writes.
        key: Which one.
        lease_time: How long that lasts, in seconds.
        flush: How many seconds lie between two entries at least.
        flush_bytes: How large an entry gets.
    """

    def __init__(
        self, log: Log, key: str, *, lease_time: float, flush: float, flush_bytes: int
    ) -> None:
        self.key: Final = key
        self._log = log
        self._lease: Lease
        self._silence = min(lease_time / 3, _LONGEST_SILENCE)
        self._flush = flush
        self._flush_bytes = flush_bytes
        self._recorder = Recorder()
        self._stream: Published | None = None
        self._events: Subscription[Any] | None = None
        self._batch: list[Any] = []  # taken from there, and not yet an entry
        # The last entries, in order; those above ``_stored`` are still to be appended.
        self._entries: deque[_Entry] = deque()
        self._held_bytes = 0
        self._count = 0
        self._stored = 0
        self._sending = anyio.Lock(fast_acquire=True)
        self._spoke_at = 0.0  # what time it was when the log last answered
        # What ends it from outside: somebody's wish, or an error of the log's.
        self._work = anyio.CancelScope()
        self._stop_wanted = False
        self._failure: Exception | None = None
        self._renewal = anyio.CancelScope()
        self._over = anyio.Event()

    async def run(
        self, lease: Lease, tasks: TaskGroup, produce: Callable[[], Awaitable[None]]
    ) -> None:
        """Produce while the lease is renewed; then record how that ended.

        Cancelled, it still appends what was read and records that it was stopped, within
        ``CLEANUP_TIME``.

        Args:
            lease: Its own.
            tasks: Where it is renewed.
            produce: Calls ``begin()`` and ``follow()``.

        Raises:
            LeaseLostError: The lease ran out.
            RelayUnavailableError: The log's server was away for too long, or the relay was left.
            Exception: What ``produce`` raised.
        """
        self._lease = lease
        self._spoke_at = anyio.current_time()
        tasks.start_soon(self._renew, name=f"lease of {self.key}")
        error: BaseException | None = None
        try:
            with self._work:
                await produce()
        except BaseException as exc:  # raised again below
            error = exc
        try:
            end = self._end_of(error)
            try:
                with _cleanup() if _is_interruption(error) else nullcontext():
                    await self._record(end)
            except anyio.get_cancelled_exc_class() as exc:
                error = exc
                with _cleanup():
                    await self._record(end)
        except (LeaseLostError, RelayUnavailableError) as exc:
            self._failure = self._failure or exc
        finally:
            self._over.set()
            self._renewal.cancel()
            await self.unsubscribe()
        if error is None:
            error = self._failure
        elif self._failure not in (None, error):
            _logger.warning("The end of %r could not be recorded: %s", self.key, self._failure)
        if error is not None:
            raise error
        if self._work.cancelled_caught and not self._stop_wanted:
            raise RelayUnavailableError(f"The relay was left while {self.key!r} was produced.")

    # Following a stream.

    def subscribe(self, stream: Published) -> None:
        """Get everything that the stream publishes from now on."""
        self._stream = stream
        self._events = stream.subscribe(max_buffer=_MAX_BUFFER, name=f"relay of {self.key}")

    async def unsubscribe(self) -> None:
        """Get nothing more."""
        if self._events is not None:
            with anyio.CancelScope(shield=True):
                await self._events.aclose()

    async def begin(self, stream: Published) -> None:
        """Append the header, which says what this is."""
        if isinstance(stream, Conversation):
            self._enqueue([Header("conversation")])
        else:
            self._enqueue([Header("stream", stream.n)])
        await self._send()

    async def follow(self) -> None:
        """Append what the stream publishes until it ends well.

        Raises:
            Exception: What it ends with.
        """
        assert self._events is not None  # for type checkers: it has subscribed
        batches = self._events.batches()
        next_entry = anyio.current_time()
        while True:
            try:
                self._batch = await anext(batches)
            except StopAsyncIteration:
                return
            if anyio.current_time() < next_entry:
                await anyio.sleep_until(next_entry)
            next_entry = anyio.current_time() + self._flush
            self._take_events()
            await self._send()

    def _take_events(self) -> None:
        """Make entries of all that there is."""
        if self._events is not None:
            batch, self._batch = self._batch + self._events.batch_nowait(), []
            for records in split(self._recorder.take(batch), self._flush_bytes):
                self._enqueue(records)

    # Its end.

    def _end_of(self, error: BaseException | None) -> End | None:
        """How the answer ends; None if that cannot be recorded any more."""
        if self._failure is not None:
            return None
        if self._work.cancelled_caught:
            return End("stopped", by="stop" if self._stop_wanted else "producer")
        if error is None:
            return End("complete")
        if isinstance(error, StreamClosedError) or _is_interruption(error):
            return End("stopped", by="producer")
        if isinstance(error, _FITS_OTHERS) and not isinstance(self._stream, Conversation):
            return End("complete")
        return End("failed", error=record_error(error))

    async def _record(self, end: End | None) -> None:
        """Append what was read, and the end; None gives the lease up instead."""
        if end is None:
            with anyio.move_on_after(CLEANUP_TIME), suppress(RelayUnavailableError):
                await self._log.release(self._lease)
            return
        if self._stop_wanted and self._stream is not None:
            await self._stream.close()
        if not self._is_ending:  # else this is a second try, and nothing comes behind an end
            self._take_events()
            self._enqueue([structs.replace(end, after=self._recorder.after)], end.state)
        await self._send()

    # Writing.

    def _enqueue(self, records: list[Record], end: EndState | None = None) -> None:
        data = encode(records)  # first: a number without an entry could never be stored
        self._count += 1
        self._entries.append(_Entry(self._count, data, self._recorder.events, end))
        self._held_bytes += len(data)

    async def _send(self) -> None:
        """Append all that is not stored yet."""
        async with self._sending:
            while self._stored < self._count:
                first = self._entries[0].number
                if self._stored + 1 < first:
                    self._failure = RelayUnavailableError(
                        f"The relay's server has lost what it had stored of {self.key!r} from "
                        f"entry {self._stored + 1} on, more than can be sent again."
                    )
                    raise self._failure
                number, data, events, end = self._entries[self._stored + 1 - first]
                try:
                    if end is None:
                        receipt = await self._log.append(self._lease, number, data, events)
                    else:
                        receipt = await self._log.finish(self._lease, number, data, events, end)
                except (LeaseLostError, RelayUnavailableError) as exc:
                    self._failure = exc
                    raise
                self._note(receipt)
            while self._held_bytes > _HELD_BYTES and self._entries[0].number < self._stored:
                self._held_bytes -= len(self._entries.popleft().data)

    def _note(self, receipt: Receipt) -> None:
        self._spoke_at = anyio.current_time()
        self._stored = min(receipt.entries, self._count)
        if receipt.stop_wanted and not self._stop_wanted:
            self._stop_wanted = True
            self._work.cancel()

    async def _renew(self) -> None:
        """Renew the lease whenever nothing else has for a while. Raises nothing."""
        try:
            with self._renewal:
                while True:
                    await anyio.sleep_until(self._spoke_at + self._silence)
                    if anyio.current_time() >= self._spoke_at + self._silence:
                        await self._renew_once()
        except Exception as exc:  # whatever it is, nothing more can be produced
            self._failure = self._failure or exc
            self._work.cancel()
        finally:
            if not self._over.is_set():
                # The relay is being left: it stays open until the end is recorded.
                self._work.cancel()
                with _cleanup():
                    await self._over.wait()

    async def _renew_once(self) -> None:
        # Beside ``_send``, which may be trying in vain.
        try:
            receipt = await self._log.append(self._lease, 0, b"", 0)
        except LeaseLostError:
            if not self._is_ending:
                raise
            self._spoke_at = anyio.current_time()  # the end has given the lease up, or will tell
        else:
            self._note(receipt)
            if not self._sending.locked():
                await self._send()  # what the server has lost meanwhile

    @property
    def _is_ending(self) -> bool:
        """Whether the end is among what is stored or to be stored."""
        return bool(self._entries) and self._entries[-1].end is not None


def _is_interruption(error: BaseException | None) -> bool:
    """Whether this is a cancellation, or an exception that ends the process."""
    return not isinstance(error, Exception | None)


def _cleanup() -> anyio.CancelScope:
    """What runs in here is not cancelled, unless it takes too long."""
    return anyio.move_on_after(CLEANUP_TIME, shield=True)
