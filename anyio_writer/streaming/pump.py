"""The work of a stream's own task: reads the body, feeds the protocol, publishes the events."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, NoReturn

import anyio
from anyio.lowlevel import checkpoint

from ..config import StreamSettings
from ..errors import APIStreamError, ResponseTooLargeError, StreamTruncatedError
from ..protocol.json import error_message, is_object, parse_json, shorten
from ..protocol.sse import ChatSSEDecoder, EventStreamDetector
from ..protocol.state import StreamState, is_whole
from ..telemetry.recorder import Recorder
from ..transport.source import ByteSource
from .channel import Batch
from .deadlines import Deadlines
from .fanout import Fanout, Unsent

_MAX_FEED: Final = 64 * 1024
"""How many bytes are parsed before what they gave is published, and before other tasks may run."""

_MAX_READS: Final = 64
"""After how many small reads other tasks may run if the body never has to wait."""


class Pump:
    """Reads a response to its end.

    What one read brought is parsed, and its events are published, before the next read. Nothing
    waits between parsing and publishing. So a subscriber that joins has all earlier events in its
    snapshot, and gets all later ones.
    """

    __slots__ = (
        "_deadlines",
        "_decoder",
        "_detector",
        "_fanout",
        "_recorder",
        "_settings",
        "_source",
        "_state",
        "bytes_received",
        "has_lost_events",
    )

    def __init__(
        self,
        source: ByteSource,
        state: StreamState[Any],
        fanout: Fanout,
        settings: StreamSettings,
        recorder: Recorder,
    ) -> None:
        self.bytes_received: int = 0
        self.has_lost_events: bool = False
        """Whether it was stopped while publishing, so that some subscribers lack events."""
        self._source = source
        self._state = state
        self._fanout = fanout
        self._settings = settings
        self._recorder = recorder
        self._deadlines: Deadlines
        self._decoder = ChatSSEDecoder(max_event_bytes=settings.limits.max_event_bytes)
        self._detector: EventStreamDetector | None = EventStreamDetector()  # until it is clear

    async def run(self, deadlines: Deadlines) -> None:
        """Read until the answer is complete.

        Raises:
            APIError: It is not, or cannot be understood; what came before is published.
        """
        self._deadlines = deadlines
        broken = await self._read_body()
        if self._detector is not None and not self._detector.finish():
            await self._refuse(self._detector.head)
        state = self._state
        # Some servers close right behind the last line. What is not whole was cut off.
        if not state.done_received and (tail := self._decoder.pending()) and is_whole(tail):
            await self._handle(b"\n\n", anyio.current_time())
        if broken is not None and not state.complete:
            if not isinstance(broken, StreamTruncatedError):
                raise broken from broken.__cause__
            # What is missing of the answer says more than that the connection was cut.
            raise state.truncated_error() from broken.__cause__
        await self._publish(state.finish())

    def finish_complete(self) -> None:
        """End a complete answer whose response does not end, without waiting."""
        if not self.has_lost_events:  # nothing comes behind a gap
            events = self._state.finish()
            self.has_lost_events = not self._fanout.publish_at_once(events)

    async def drain(self) -> None:
        """Read the rest of the body, within limits, so that the connection can be used again."""
        left = self._settings.limits.drain_bytes
        self._deadlines.drain(self._settings.limits.drain_time)
        with suppress(Exception):  # the answer is whole
            while left > 0 and (data := await self._source.read()):
                left -= len(data)

    async def _read_body(self) -> Exception | None:
        """Handle the body up to its end or ``[DONE]``; returns the error that cut it off, if any.

        Only errors of the body are returned. Those of what stands in it are raised.
        """
        state, source = self._state, self._source
        limit = self._settings.limits.max_answer_bytes
        reads = 0
        while not state.done_received:
            self._deadlines.next_bytes(
                has_content=state.content_at > 0, is_complete=state.is_settled
            )
            try:
                data = await source.read()
            except Exception as exc:  # an HTTP library's are many
                translated = source.translate(exc)
                if translated is not exc:
                    translated.__cause__ = exc
                return translated
            if not data:
                break
            now = anyio.current_time()
            self._deadlines.bytes_received(now)
            self.bytes_received += len(data)
            check_size(self.bytes_received, limit)
            reads += 1
            for start in range(0, len(data), _MAX_FEED):
                await self._handle(data[start : start + _MAX_FEED], now)
                if len(data) > _MAX_FEED or reads % _MAX_READS == 0:
                    await checkpoint()
            del data  # the wait for the next bytes may be long
        return None

    async def _handle(self, data: bytes, now: float) -> None:
        """Parse bytes that came just now, and publish their events; then raise what is invalid."""
        if self._detector is not None:
            verdict = self._detector.feed(data)
            if verdict is False:
                await self._refuse(self._detector.head)
            self._detector = None if verdict else self._detector
        decoder, state = self._decoder, self._state
        chunk_count = state.chunk_count
        events: Batch = []
        wanted = events if self._fanout.has_audience() else None
        try:
            if (payload := decoder.feed_plain(data)) is not None:
                state.feed_data(payload, wanted)
            else:
                state.feed(decoder.feed(data), wanted)
                if not state.done_received:
                    decoder.raise_pending_error()
        finally:
            # Before the observers are notified, who may subscribe, and before the error that
            # followed is raised.
            unsent = self._publish_nowait(events)
            if state.chunk_count != chunk_count:
                self._deadlines.chunk_received()
                count = state.chunk_count - chunk_count
                self._recorder.chunks_received(state, now, count, events)
            await self._send(unsent)

    async def _publish(self, events: Batch) -> None:
        await self._send(self._publish_nowait(events))

    def _publish_nowait(self, events: Batch) -> Unsent:
        unsent = self._fanout.publish_nowait(events)
        self.has_lost_events = self.has_lost_events or bool(unsent)  # unless they are sent
        return unsent

    async def _send(self, unsent: Unsent) -> None:
        if unsent:
            await self._fanout.send(
                unsent, lambda wait: self._deadlines.pause(wait, is_complete=self._state.complete)
            )
            self.has_lost_events = False

    async def _refuse(self, head: bytes) -> NoReturn:
        """Raise that this is not an event stream, with what it says instead."""
        limits = self._settings.limits
        with anyio.move_on_after(limits.error_body_time), suppress(Exception):
            # However it ends, what there is says enough.
            while len(head) < limits.max_error_bytes and (data := await self._source.read()):
                head += data
        head = head[: limits.max_error_bytes]
        body = parse_json(head)
        said = shorten(error_message(body) if is_object(body) else head)
        raise APIStreamError(f"The response is not an event stream. It says: {said}", body=body)


def check_size(size: int, limit: int | None) -> None:
    """Raise an error if an answer is larger than it may be."""
    if limit is not None and size > limit:
        raise ResponseTooLargeError(
            f"The answer is larger than Limits.max_answer_bytes ({limit:,} bytes)."
        )
