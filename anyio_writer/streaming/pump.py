"""The work of a stream's own task: the body of the response to batches for the consumers."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint

from ..config import StreamSettings
from ..errors import APIStreamError, StreamTruncatedError
from ..protocol.events import ChatCompletionStreamEvent
from ..protocol.extent import Wholeness, wholeness
from ..protocol.json import error_message, is_object, parse_json, shorten
from ..protocol.sse import ChatSSEDecoder, ServerSentEvent, is_event_stream
from ..protocol.state import ChatCompletionStreamState
from .connection import ByteSource
from .deadlines import Deadlines
from .fanout import Fanout, Inbox
from .waiting import notice_wait

_SLICE: Final = 128
"""How many server-sent events of one piece are handled before all other tasks get a turn."""


class Pump:
    """Reads a response to its end.

    Events are gathered while the body gives data without a wait, and handed to the consumers as
    one batch when it has to wait. Who is to get them is settled before they come about: whoever
    joins meanwhile finds what they say in its snapshot.
    """

    def __init__(
        self,
        source: ByteSource,
        state: ChatCompletionStreamState[Any],
        fanout: Fanout,
        settings: StreamSettings,
    ) -> None:
        self.bytes_received = 0
        self.is_waiting = False
        """Whether the next piece of the body is being waited for."""
        self.has_lost_events = False
        """Whether it was stopped with events in hand."""
        self._source = source
        self._state = state
        self._fanout = fanout
        self._settings = settings
        self._decoder = ChatSSEDecoder(max_event_bytes=settings.limits.max_event_bytes)
        self._deadlines: Deadlines
        self._events: list[ChatCompletionStreamEvent[Any]] = []  # not handed on yet
        self._recipients: tuple[Inbox, ...] = ()
        self._budget = 0  # how many events all recipients have room for
        self._turns = 0  # reads without a wait
        self._chunk_count = 0  # at the last look
        self._last_chunk = 0.0  # when it came
        self._has_content = False

    async def run(self, deadlines: Deadlines) -> None:  # noqa: C901, PLR0912 - the hot path: a turn a chunk
        """Read until the answer is complete.

        Raises:
            APIError: It is not, or cannot be understood; what came before is handed on.
        """
        self._deadlines = deadlines
        source, state, decoder = self._source, self._state, self._decoder
        broken: Exception | None = None
        head: bytes | None = b""  # until it is clear that this is an event stream
        try:
            while not state.done_received:
                self._turns += 1
                if len(self._events) > self._budget or self._turns > _SLICE:
                    await self._pause()
                try:
                    data = await notice_wait(source.read(), self._before_wait)
                except Exception as exc:  # noqa: BLE001 - an HTTP library's are many
                    broken = source.translate(exc)
                    if broken is not exc:
                        broken.__cause__ = exc
                    break
                if not data:
                    break
                self.bytes_received += len(data)
                if head is not None:
                    head = await self._look_at(head + data)
                events = decoder.feed(data)
                if len(events) <= _SLICE:
                    self._take(events)
                else:
                    await self._take_slowly(events)
                if decoder.error is not None:
                    decoder.raise_pending_error()
            if head and not is_event_stream(head, whole=True):
                raise _not_a_stream(head)
            self._finish(broken)
        finally:
            self.is_waiting = False
            # The good events first, then the error. Not when cancelled: nobody is to wait then.
            if not deadlines.scope.cancel_called:
                await self._hand_on()
            elif self._events:
                self.has_lost_events = True

    def finish_complete(self) -> None:
        """Bring a complete answer to its end when its response does not end, without a wait."""
        if events := self._state.finish():
            if len(events) <= self._fanout.room:
                self._fanout.put_nowait(events, self._fanout.recipients)
            else:
                self.has_lost_events = True

    async def drain(self, deadlines: Deadlines) -> None:
        """Read the little that is left, so that the connection can be used again."""
        left = self._settings.limits.drain_bytes
        deadlines.drain(self._settings.limits.drain_time)
        with suppress(Exception):  # the answer is whole
            while left > 0 and (data := await self._source.read()):
                left -= len(data)

    # Reading.

    def _before_wait(self) -> None:
        """The body has nothing more for now."""
        self._turns = 0
        if self._events:
            self._fanout.put_nowait(self._events, self._recipients)
            self._events = []
        state = self._state
        if state.chunk_count != self._chunk_count:
            self._chunk_count = state.chunk_count
            self._last_chunk = anyio.current_time()
            self._has_content = self._has_content or state.has_content
        if state.all_finished:
            self._deadlines.end(self._last_chunk + self._settings.end_grace)
        elif self._has_content:
            self._deadlines.next_chunk(self._last_chunk)
        else:
            self._deadlines.first_content()
        self.is_waiting = True

    async def _look_at(self, head: bytes) -> bytes | None:
        """Whether this is an event stream; returns what is to be looked at again, or None."""
        verdict = is_event_stream(head)
        if verdict is None:
            return head
        if verdict:
            return None
        limits = self._settings.limits
        with anyio.move_on_after(limits.error_body_time), suppress(Exception):
            # However it ends, what there is says enough.
            while len(head) < limits.max_error_bytes and (data := await self._source.read()):
                head += data
        raise _not_a_stream(head[: limits.max_error_bytes])

    # Handling.

    def _take(self, source: list[ServerSentEvent]) -> None:
        if not self._events:
            self._recipients = self._fanout.recipients
            self._budget = self._fanout.room
        self._state.feed(source, self._events if self._recipients else None)

    async def _take_slowly(self, source: list[ServerSentEvent]) -> None:
        """One piece of the body may hold thousands of events: others get a turn in between."""
        for start in range(0, len(source), _SLICE):
            self._take(source[start : start + _SLICE])
            await self._pause()

    async def _pause(self) -> None:
        """Hand on what there is, and let all other tasks have a turn."""
        self._turns = 0
        await self._hand_on()
        await checkpoint()

    async def _hand_on(self) -> None:
        self.is_waiting = False
        if self._events:
            await self._fanout.put(self._events, self._recipients, self._deadlines.consumer)
            self._events = []

    def _finish(self, broken: Exception | None) -> None:
        # Some servers close right behind the last line. What is not whole was cut off.
        if (tail := self._decoder.pending()) is not None and _is_whole(tail):
            self._take([tail])
        if broken is not None and not self._state.complete:
            if not isinstance(broken, StreamTruncatedError):
                raise broken from broken.__cause__
            # What is missing of the answer says more than that the connection was cut.
            raise self._state.truncated_error() from broken.__cause__
        events = self._state.finish()
        if not self._events:
            self._recipients = self._fanout.recipients
        self._events += events


def _is_whole(tail: ServerSentEvent) -> bool:
    return tail.data.strip() == b"[DONE]" or wholeness(tail.text) is Wholeness.WHOLE


def _not_a_stream(head: bytes) -> APIStreamError:
    body = parse_json(head)
    said = error_message(body) if is_object(body) else shorten(head)
    return APIStreamError(f"The response is not an event stream. It says: {said}", body=body)
