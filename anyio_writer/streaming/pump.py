"""The work of a stream's own task: the body of the response to batches for the consumers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn

import anyio
from anyio.lowlevel import checkpoint

from ..config import StreamSettings
from ..errors import APIStreamError, StreamTruncatedError
from ..protocol.events import ChatCompletionStreamEvent
from ..protocol.extent import Wholeness, wholeness
from ..protocol.json import error_message, is_object, parse_json, shorten
from ..protocol.sse import ChatSSEDecoder, ServerSentEvent, is_event_stream
from ..protocol.state import ChatCompletionStreamState
from ..transport.source import ByteSource
from .deadlines import Deadlines
from .fanout import Fanout, Inbox
from .waiting import clock, notice_waits

_SLICE: Final = 128
"""How many server-sent events are handled at the most before all other tasks get a turn."""


class Pump:
    """Reads a response to its end.

    Events are gathered while the body gives data without a wait, and handed to the consumers as
    one batch when it has to wait. Who is to get them is settled before they come about: whoever
    joins meanwhile finds what they say in its snapshot.
    """

    __slots__ = (
        *("_budget", "_chunk_count", "_deadlines", "_decoder", "_events", "_failure", "_fanout"),
        *("_has_content", "_head", "_is_settled", "_last_chunk", "_now", "_recipients"),
        *("_settings", "_slice", "_source", "_state", "_surplus", "_turns"),
        *("bytes_received", "is_held_up"),
    )

    def __init__(
        self,
        source: ByteSource,
        state: ChatCompletionStreamState[Any],
        fanout: Fanout,
        settings: StreamSettings,
    ) -> None:
        self.bytes_received = 0
        self.is_held_up = False
        """Whether a consumer without room is being waited for."""
        self._source = source
        self._state = state
        self._fanout = fanout
        self._settings = settings
        self._decoder = ChatSSEDecoder(max_event_bytes=settings.limits.max_event_bytes)
        self._deadlines: Deadlines
        self._now: Callable[[], float]
        self._events: list[ChatCompletionStreamEvent[Any]] = []  # not handed on yet
        self._is_settled = False  # whether these two are those of the events that come next
        self._recipients: tuple[Inbox, ...] = ()
        self._budget = 0  # how many events all recipients have room for
        self._slice = _SLICE  # how many server-sent events are handled at once
        self._head: bytes | None = b""  # until it is clear that this is an event stream
        self._surplus: list[ServerSentEvent] = []  # of a large piece, not handled yet
        self._failure: Exception | None = None  # what is wrong with the last piece
        self._turns = 0  # pieces without a wait
        self._chunk_count = 0  # at the last look
        self._last_chunk = 0.0  # when it came
        self._has_content = False

    @property
    def has_lost_events(self) -> bool:
        """Whether it was stopped with events in hand, which some consumers may have."""
        return bool(self._events)

    async def run(self, deadlines: Deadlines) -> None:
        """Read until the answer is complete.

        Raises:
            APIError: It is not, or cannot be understood; what came before is handed on.
        """
        self._deadlines = deadlines
        self._now = clock()
        try:
            await self._read()
        except Exception:
            await self._hand_on()  # the good events first, then the error
            raise
        else:
            await self._hand_on()
        finally:
            self._failure = None  # it refers to this frame

    def finish_complete(self) -> None:
        """Bring a complete answer to its end when its response does not end, without a wait."""
        if self.has_lost_events:
            return  # nothing comes behind a gap
        events = self._state.finish()
        if len(events) > self._fanout.room:
            self._events = events
        elif events:
            self._fanout.put_nowait(events, self._fanout.recipients)

    async def drain(self, deadlines: Deadlines) -> None:
        """Read the little that is left, so that the connection can be used again."""
        left = self._settings.limits.drain_bytes
        deadlines.drain(self._settings.limits.drain_time)
        with suppress(Exception):  # the answer is whole
            while left > 0 and (data := await self._source.read()):
                left -= len(data)

    # Reading.

    async def _read(self) -> None:
        broken: Exception | None = None
        is_over = False
        while not is_over and not self._state.done_received:
            try:
                is_over = await notice_waits(self._gather(), self._before_wait)
            except Exception as exc:  # noqa: BLE001 - an HTTP library's are many
                broken = self._source.translate(exc)
                if broken is not exc:
                    broken.__cause__ = exc
                break
            await self._attend()
        if self._head and not is_event_stream(self._head, whole=True):
            raise _not_a_stream(self._head)
        self._finish(broken)

    async def _gather(self) -> bool:
        """Take pieces of the body until it is over, or ``_attend`` has something to do.

        What this raises is the body's: what is wrong with a piece is left in ``_failure``.

        Returns:
            Whether the body is over.
        """
        async for piece in self._source:
            data = piece if type(piece) is bytes else self._source.as_bytes(piece)
            if not data:
                continue
            self.bytes_received += len(data)
            self._turns += 1
            try:
                is_urgent = self._handle(data)
            except Exception as exc:  # noqa: BLE001 - raised by ``_attend``
                self._failure = exc
                return False
            del piece, data  # the wait for the next one may be long
            if is_urgent or len(self._events) > self._budget or self._turns >= self._slice:
                return False
        return True

    def _before_wait(self) -> None:
        """The body has nothing more for now."""
        self._turns = 0
        self._is_settled = False
        if self._events:
            self._fanout.put_nowait(self._events, self._recipients)
            self._events = []
        state = self._state
        if state.chunk_count != self._chunk_count:
            self._chunk_count = state.chunk_count
            self._last_chunk = self._now()
            self._has_content = self._has_content or state.has_content
        if state.all_finished:
            self._deadlines.end(self._last_chunk + self._settings.end_grace)
        elif self._has_content:
            self._deadlines.next_chunk(self._last_chunk)
        else:
            self._deadlines.first_content()

    # Handling.

    def _handle(self, data: bytes) -> bool:
        """Make events of a piece; returns whether there is something to do before the next."""
        if self._head is not None:
            self._head += data
            verdict = is_event_stream(self._head)
            if verdict is False:
                return True
            if verdict:
                self._head = None
        if not self._is_settled:
            self._settle()
        events = self._events if self._recipients else None
        decoder, state = self._decoder, self._state
        if (payload := decoder.feed_plain(data)) is not None:
            state.feed_data(payload, events)
        else:
            found = decoder.feed(data)
            if len(found) > self._slice:
                self._surplus = found
                return True
            state.feed(found, events)
            if decoder.error is not None and not state.done_received:
                decoder.raise_pending_error()
        return state.done_received

    def _settle(self) -> None:
        self._is_settled = True
        self._recipients = self._fanout.recipients
        share = self._fanout.share
        self._budget = min(self._fanout.room, share)
        self._slice = min(_SLICE, -(-share // 2))  # most chunks bring two events

    async def _attend(self) -> None:
        """Do what may have to wait, and raise what is wrong."""
        if self._failure is not None:
            raise self._failure
        if self._head and is_event_stream(self._head) is False:
            await self._refuse(self._head)
        if surplus := self._surplus:
            # One piece of the body may hold thousands of events: others get a turn in between.
            self._surplus = []
            start = 0
            while start < len(surplus):
                self._settle()
                events = self._events if self._recipients else None
                end = start + self._slice
                self._state.feed(surplus[start:end], events)
                start = end
                await self._pause()
            if not self._state.done_received:
                self._decoder.raise_pending_error()
        elif len(self._events) > self._budget or self._turns >= self._slice:
            await self._pause()

    async def _refuse(self, head: bytes) -> NoReturn:
        """This is no event stream: read what it says instead."""
        limits = self._settings.limits
        with anyio.move_on_after(limits.error_body_time), suppress(Exception):
            # However it ends, what there is says enough.
            while len(head) < limits.max_error_bytes and (data := await self._source.read()):
                head += data
        raise _not_a_stream(head[: limits.max_error_bytes])

    async def _pause(self) -> None:
        """Hand on what there is, and let all other tasks have a turn."""
        self._turns = 0
        await self._hand_on()
        await checkpoint()

    async def _hand_on(self) -> None:
        self._is_settled = False
        if self._state.complete:
            self._deadlines.complete()
        if self._events:
            # If this is cancelled they stay, as ``has_lost_events``, and are never handed on again.
            await self._fanout.put(self._events, self._recipients, self._hold_up)
            self._events = []

    @contextmanager
    def _hold_up(self) -> Generator[None]:
        self.is_held_up = True
        try:
            with self._deadlines.consumer():
                yield
        finally:
            self.is_held_up = False

    def _finish(self, broken: Exception | None) -> None:
        if not self._is_settled:
            self._settle()
        # Some servers close right behind the last line. What is not whole was cut off.
        is_open = not self._state.done_received
        if is_open and (tail := self._decoder.pending()) is not None and _is_whole(tail):
            self._state.feed([tail], self._events if self._recipients else None)
        if broken is not None and not self._state.complete:
            if not isinstance(broken, StreamTruncatedError):
                raise broken from broken.__cause__
            # What is missing of the answer says more than that the connection was cut.
            raise self._state.truncated_error() from broken.__cause__
        self._events += self._state.finish()


def _is_whole(tail: ServerSentEvent) -> bool:
    return tail.data.strip() == b"[DONE]" or wholeness(tail.text) is Wholeness.WHOLE


def _not_a_stream(head: bytes) -> APIStreamError:
    body = parse_json(head)
    said = shorten(error_message(body) if is_object(body) else head)
    return APIStreamError(f"The response is not an event stream. It says: {said}", body=body)
