"""Bytes to server-sent events, by the rules of the WHATWG HTML standard, section 9.2.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any, ClassVar, Final

import msgspec

from ..errors import ResponseTooLargeError

DEFAULT_MAX_EVENT_BYTES: Final = 32 * 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"
_CR, _LF = b"\r\n"  # bytes are searched for a number much faster than for other bytes
_LINE_ENDS: Final = (b"\n", b"\r")
_MAX_RETRY_DIGITS: Final = 4000


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One event of the stream.

    Attributes:
        data: The values of its ``data`` lines, joined by LF.
        event: Its name.
        id: The last event id as of this event; servers may set it once for many events.
    """

    data: bytes
    event: str = "message"
    id: str = ""

    @property
    def text(self) -> str:
        """``data`` as text; bytes that are not UTF-8 come out as U+FFFD."""
        return self.data.decode(errors="replace")


class SSEDecoder:
    """Takes bytes cut anywhere and gives the events they complete. No I/O, no clock.

    Lines end with LF, CR LF or CR and with nothing else: JSON may hold U+2028 and its like. A
    lone CR ends its line at once, since waiting for a possible LF would hold the newest token
    back until the next packet. Every byte is looked at once, so the cost is linear however the
    network cuts.

    Args:
        max_event_bytes: How long one line, and the data of one event, may be, in bytes.
        last_event_id: The id to start from, when a stream is resumed.
    """

    def __init__(
        self, *, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES, last_event_id: str = ""
    ) -> None:
        self.max_event_bytes = max_event_bytes
        self.last_event_id = last_event_id
        """The id of the last block that was ended by a blank line."""
        self.reconnection_time: int | None = None
        """What ``retry`` asked for, in milliseconds."""
        self._id = last_event_id  # of the block being read
        self._event = ""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._line: list[bytes] = []  # pieces of the line that has not ended yet
        self._line_bytes = 0
        self._after_cr = False
        self._mark: bytes | None = b""  # of a BOM, until it is clear whether there is one
        self._between = False  # nothing is pending: the next byte begins a block
        self.error: ResponseTooLargeError | None = None
        """What the next call of ``feed`` will raise."""

    def feed(self, data: bytes) -> list[ServerSentEvent]:  # noqa: C901 - the hot path
        """Take the next bytes of the body and return the events they complete.

        An event is returned as soon as the last byte of its blank line is in. When good events
        and then something over the limit come in one piece, the events are returned and the next
        call raises: where the network cuts must not decide what is lost.

        Raises:
            ResponseTooLargeError: A line or an event is longer than ``max_event_bytes``. It is
                raised again by every later call.
        """
        if self._line and _LF not in data and _CR not in data:
            size = self._line_bytes + len(data)
            if size <= self.max_event_bytes:  # nothing but more of a long line
                self._line.append(data)
                self._line_bytes = size
                return []
        if self._mark is not None:
            return self._feed_start(self._mark + data)
        if (payload := self.feed_plain(data)) is not None:
            return [ServerSentEvent(payload, "message", self._id)]
        self.raise_pending_error()
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        events: list[ServerSentEvent] = []
        if _CR in data:
            lines = data.splitlines()  # on bytes: at LF, CR LF and CR only
            if data.endswith(_LINE_ENDS):
                lines.append(b"")
                self._after_cr = data.endswith(b"\r")
        else:
            lines = self._take_plain_events(data, events).split(b"\n")
        rest = lines.pop()
        try:
            if lines and self._line:
                self._line.append(lines[0])
                lines[0] = b"".join(self._line)
                self._line.clear()
                self._line_bytes = 0
            self._feed_lines(lines, events)
            if rest:
                self._line.append(rest)
                self._line_bytes += len(rest)
                self._check_size(self._line_bytes, "a line")
        except ResponseTooLargeError as exc:
            self.error = exc
            self._line.clear()
            self._between = False
            if not events:
                raise
            return events
        self._between = not (self._line or self._data or self._event or self._after_cr)
        return events

    def feed_plain(self, data: bytes) -> bytes | None:
        """Take ``data: ...``, a blank line and nothing else, which is how most servers write.

        Returns:
            The data of that one event, whose name is "message"; None if the bytes are anything
            else, or come in the middle of something: then nothing was taken, and ``feed`` is what
            takes them.
        """
        if (
            self._between
            and _CR not in data
            and data.startswith(b"data: ")
            and data.endswith(b"\n\n")
            and len(data) - 2 <= self.max_event_bytes
            and _LF not in (payload := data[6:-2])
        ):
            self.last_event_id = self._id
            return payload
        return None

    def _take_plain_events(self, data: bytes, events: list[ServerSentEvent]) -> bytes:
        """``feed_plain`` for a piece that begins with several events; returns what is left."""
        if self._data or self._event or self._line_bytes + len(data) > self.max_event_bytes:
            return data
        lines = BytesIO(data)  # finds line ends by memchr, which split does not
        taken = 0
        if pieces := self._line:  # it goes on in this piece
            last = lines.readline()
            if lines.readline() != b"\n" or not pieces[0].startswith(b"data: "):
                return data
            # Cut first and joined then: a long line is copied once.
            pieces[0] = pieces[0][6:]
            pieces.append(last[:-1])
            events.append(ServerSentEvent(b"".join(pieces), "message", self._id))
            pieces.clear()
            self._line_bytes = 0
            taken = lines.tell()
        for line, blank in zip(lines, lines, strict=False):
            if blank != b"\n" or not line.startswith(b"data: "):
                break
            events.append(ServerSentEvent(line[6:-1], "message", self._id))
            taken += len(line) + 1
        if taken:
            self.last_event_id = self._id
        return data[taken:]

    def raise_pending_error(self) -> None:
        """Raise what the next ``feed`` would, without waiting for more bytes."""
        if self.error is not None:
            raise copy.copy(self.error)

    def pending(self) -> ServerSentEvent | None:
        """The unfinished last block as if its blank line had come, or None if it has no data.

        By the standard such a block is not an event. Some servers close right after the last
        line, so whoever reads to the end of a body may want to see whether it is whole.
        """
        probe = copy.deepcopy(self)
        # Two LFs end the open line and then the block. After a CR the first belongs to the CR.
        events = probe.feed(b"\n\n")
        probe.raise_pending_error()
        return events[0] if events else None

    def _feed_start(self, head: bytes) -> list[ServerSentEvent]:
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._mark = head  # may yet turn out to be one
            return []
        self._mark = None
        self._between = True
        return self.feed(head.removeprefix(_BOM))

    def _feed_lines(self, lines: list[bytes], events: list[ServerSentEvent]) -> None:
        limit = self.max_event_bytes
        for line in lines:
            if not line:
                self._end_block(events)
                continue
            if len(line) > limit:
                self._check_size(len(line), "a line")
            if line.startswith(b"data: "):  # nearly every line there is
                self._add_data(line[6:])
                continue
            name, colon, value = line.partition(b":")
            if not name and colon:
                continue  # a comment
            handler = self._FIELDS.get(name)
            if handler is None:
                self.handle_unknown_field(name, value.removeprefix(b" "), events)
            else:
                handler(self, value.removeprefix(b" "))

    def _end_block(self, events: list[ServerSentEvent]) -> None:
        self.last_event_id = self._id
        if data := self._data:
            payload = data[0] if len(data) == 1 else b"\n".join(data)
            events.append(ServerSentEvent(payload, self._event or "message", self._id))
            data.clear()
            self._data_bytes = 0
        self._event = ""  # without data too: the name must not leak into the next block

    def handle_unknown_field(
        self, name: bytes, value: bytes, events: list[ServerSentEvent]
    ) -> None:
        """Called for a field that the standard does not know, which is to be ignored."""

    def _add_data(self, value: bytes) -> None:
        self._data.append(value)
        self._data_bytes += len(value) + 1
        if self._data_bytes > self.max_event_bytes + 1:
            self._check_size(self._data_bytes - 1, "an event")

    def _set_event(self, value: bytes) -> None:
        self._event = value.decode(errors="replace")

    def _set_id(self, value: bytes) -> None:
        if b"\0" not in value:
            self._id = value.decode(errors="replace")

    def _set_retry(self, value: bytes) -> None:
        # bytes.isdigit() knows ASCII digits only. Python refuses to convert thousands of digits.
        if value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self.reconnection_time = int(value)

    _FIELDS: ClassVar[dict[bytes, Callable[[Any, bytes], None]]] = {
        b"data": _add_data,
        b"event": _set_event,
        b"id": _set_id,
        b"retry": _set_retry,
    }

    def _check_size(self, size: int, what: str) -> None:
        if size > self.max_event_bytes:
            raise ResponseTooLargeError(
                f"The event stream holds {what} of more than {self.max_event_bytes} bytes; "
                "if that is intended, raise max_event_bytes."
            )


class ChatSSEDecoder(SSEDecoder):
    """The same, with the one field that a chat server added to the standard.

    llama.cpp used to report an error in a field ``error`` instead of an event of that name.
    """

    def handle_unknown_field(
        self, name: bytes, value: bytes, events: list[ServerSentEvent]
    ) -> None:
        """Take an ``error`` field for an event of that name."""
        if name == b"error":
            events.append(ServerSentEvent(value, "error", self._id))


_KNOWN_FIELDS: Final = (b"data", b"event", b"id", b"retry", b"error")
_FIELD_START: Final = rb"(?:[\r\n]|\xef\xbb\xbf)*+(?::|[A-Za-z][\w.-]{0,63}:)"
_FIELD_ALONE: Final = rb"(?:[\r\n]|\xef\xbb\xbf)*+(?:data|event|id|retry)[\r\n]"
_UNDECIDED: Final = rb"(?:[\r\n]|\xef\xbb\xbf?|\xef\Z)*+(?:[A-Za-z][\w.-]{0,63})?\Z"


def is_event_stream(head: bytes, *, whole: bool = False) -> bool | None:
    """Whether a body can be an event stream, from its first bytes.

    Its first line that is not blank must be able to begin a field or a comment. The content type
    decides nothing: servers mislabel both ways.

    Args:
        head: The body so far.
        whole: Whether that is all there will be.

    Returns:
        None while that is not known.
    """
    if re.match(_FIELD_START, head) or re.match(_FIELD_ALONE, head):
        return True
    if not re.match(_UNDECIDED, head):
        return False
    line = head.lstrip(b"\xef\xbb\xbf\r\n")
    if not whole:
        return None
    # A body that was cut within its first word, or is empty, may still have been one.
    return not line or any(field.startswith(line) for field in _KNOWN_FIELDS)
