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
_SHORT_LINE: Final = 16
_IGNORED_LINES: Final = (
    rb"(?<=\n)(?:[^deir\n][^\n]*\n)+"  # comments, and fields that the standard does not know
    rb"|(?<=\n)(id|event)(?::[^\n]*)?\n(?=\1(?::[^\n\0]*)?\n)"  # the next line replaces them
)
_MAX_RETRY_DIGITS: Final = 4000


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One server-sent event.

    Attributes:
        data: The values of its ``data`` lines, joined by LF.
        event: The name of the event.
        id: The last event ID so far. A server may send it once for many events.
    """

    data: bytes
    event: str = "message"
    id: str = ""

    @property
    def text(self) -> str:
        """``data`` as text. Bytes that are not UTF-8 are read as U+FFFD."""
        return self.data.decode(errors="replace")


class SSEDecoder:
    """Decodes bytes, cut anywhere, into server-sent events. No I/O, no clock.

    Lines end with LF, CR LF or CR, and with nothing else, since JSON may contain U+2028 and the
    like. A CR ends its line at once: waiting for a possible LF would delay the newest token until
    the next packet. Every byte is looked at once, so the cost is linear, wherever the network cuts.

    Args:
        max_event_bytes: The maximum size of a line, and of the data of one event, in bytes.
        last_event_id: The ID to start from, if a stream is resumed.
    """

    def __init__(
        self, *, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES, last_event_id: str = ""
    ) -> None:
        self.max_event_bytes = max_event_bytes
        self.last_event_id: str = last_event_id
        """The ID of the last block that a blank line has ended."""
        self.reconnection_time: int | None = None
        """The value of the last ``retry`` field, in milliseconds."""
        self._id = last_event_id  # of the block being read
        self._event = ""
        # One buffer each: a list of many short pieces takes many times their length in memory.
        self._data: bytes | bytearray | None = None
        self._line = BytesIO()  # the line that has not ended yet
        self._line_bytes = 0
        self._after_cr = False
        self._mark: bytes | None = b""  # of a BOM, until it is clear whether there is one
        self._between = False  # nothing is pending: the next byte begins a block
        self._error: ResponseTooLargeError | None = None  # what the next feed() will raise

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Decode the next bytes of the body, and return the events that they complete.

        An event is returned as soon as the last byte of its blank line has arrived. If valid events
        and then something over the limit come in one piece, the events are returned and the next
        call raises the error, even ``feed(b"")``. So what is lost does not depend on where the
        network cuts.

        Raises:
            ResponseTooLargeError: A line or an event is longer than ``max_event_bytes``. Every
                later call raises it again.
        """
        if self._line_bytes and _LF not in data and _CR not in data:
            size = self._line_bytes + len(data)
            if size <= self.max_event_bytes:  # nothing but more of a long line
                self._line.write(data)
                self._line_bytes = size
                return []
        if self._mark is not None:
            return self._feed_start(self._mark + data)
        if (payload := self._feed_plain(data)) is not None:
            return [ServerSentEvent(payload, "message", self._id)]
        self._raise_pending_error()
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        events: list[ServerSentEvent] = []
        if _CR in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        else:
            data = self._feed_plain_events(data, events)
        try:
            self._feed_lines(self._skip_short_lines(self._skip_blank_lines(data)), events)
        except ResponseTooLargeError as exc:
            self._error = exc
            self._pop_line()
            self._between = False
            if not events:
                raise
            return events
        self._between = not (
            self._line_bytes or self._data is not None or self._event or self._after_cr
        )
        return events

    def _feed_plain(self, data: bytes) -> bytes | None:
        """Decode ``data: ...``, a blank line and nothing else, which is what most servers send.

        Returns:
            The data of that one event, whose name is "message". None if the bytes are anything
            else, or continue a line or an event; pass them to ``feed`` then.
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

    def _feed_plain_events(self, data: bytes, events: list[ServerSentEvent]) -> bytes:
        """``_feed_plain`` for a piece that begins with several events; returns the rest."""
        if self._data is not None or self._event:
            return data
        if self._line_bytes + len(data) > self.max_event_bytes:
            return data
        lines = BytesIO(data)  # finds line ends by memchr, which split does not
        taken = 0
        if self._line_bytes:  # it goes on in this piece
            last = lines.readline()
            if lines.readline() != b"\n" or bytes(self._line.getbuffer()[:6]) != b"data: ":
                return data
            self._line.write(last[:-1])
            events.append(ServerSentEvent(self._pop_line()[6:], "message", self._id))
            taken = lines.tell()
        for line, blank in zip(lines, lines, strict=False):
            if blank != b"\n" or not line.startswith(b"data: "):
                break
            events.append(ServerSentEvent(line[6:-1], "message", self._id))
            taken += len(line) + 1
        if taken:
            self.last_event_id = self._id
        return data[taken:]

    def _skip_blank_lines(self, data: bytes) -> bytes:
        """Skip blank lines that end no block. Some servers send them as keep-alives."""
        if self._data is not None or self._event or self._line_bytes:
            return data
        rest = data.lstrip(b"\n")
        if len(rest) < len(data):
            self.last_event_id = self._id
        return rest

    def _skip_short_lines(self, data: bytes) -> bytes:
        """Remove lines without effect if there are very many: each costs as much as a long one.

        These are ignored lines, and blank lines after a blank line.
        """
        if data.count(b"\n") * _SHORT_LINE < len(data) or len(data) > self.max_event_bytes:
            return data
        return re.sub(rb"\n{3,}", b"\n\n", re.sub(_IGNORED_LINES, b"", data))

    def _raise_pending_error(self) -> None:
        """Raise what the next ``feed`` would, without waiting for more bytes."""
        if self._error is not None:
            raise copy.copy(self._error)

    def pending(self) -> ServerSentEvent | None:
        """Return the last block as if its blank line had arrived, or None if it has no data.

        By the standard, a block without a blank line is not an event. Some servers close the
        connection right after the last line, so check at the end of a body whether it is whole.
        """
        if self._between:
            return None
        probe = copy.deepcopy(self)
        # Two LFs end the open line and then the block. After a CR the first belongs to the CR.
        events = probe.feed(b"\n\n")
        probe.feed(b"")  # raises the error that comes after an event
        return events[0] if events else None

    def _feed_start(self, head: bytes) -> list[ServerSentEvent]:
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._mark = head  # it may still become a BOM
            return []
        self._mark = None
        self._between = True
        return self.feed(head.removeprefix(_BOM))

    def _pop_line(self) -> bytes:
        line = self._line.getvalue()
        self._line = BytesIO()
        self._line_bytes = 0
        return line

    def _feed_lines(self, data: bytes, events: list[ServerSentEvent]) -> None:
        limit = self.max_event_bytes
        for piece in BytesIO(data):
            if not piece.endswith(b"\n"):  # its end has not come yet
                self._line.write(piece)
                self._line_bytes += len(piece)
                self._check_size(self._line_bytes, "a line")
                return
            line = piece[:-1]
            if self._line_bytes:
                self._line.write(line)
                line = self._pop_line()
            if not line:
                self._end_block(events)
                continue
            if len(line) > limit:
                self._check_size(len(line), "a line")
            if line.startswith(b"data: "):  # nearly every line there is
                self._add_data(line[6:], events)
                continue
            name, _, value = line.partition(b":")
            if (handler := self._FIELDS.get(name)) is not None:  # else a comment, or unknown
                handler(self, value.removeprefix(b" "), events)

    def _end_block(self, events: list[ServerSentEvent]) -> None:
        self.last_event_id = self._id
        if self._data is not None:
            events.append(ServerSentEvent(bytes(self._data), self._event or "message", self._id))
            self._data = None
        self._event = ""  # without data too: the name must not leak into the next block

    def _add_data(self, value: bytes, _: list[ServerSentEvent]) -> None:
        if self._data is None:
            self._data = value
            return
        if not isinstance(self._data, bytearray):
            self._data = bytearray(self._data)
        self._data += b"\n"
        self._data += value
        if len(self._data) > self.max_event_bytes:
            self._check_size(len(self._data), "an event")

    def _set_event(self, value: bytes, _: list[ServerSentEvent]) -> None:
        self._event = value.decode(errors="replace")

    def _set_id(self, value: bytes, _: list[ServerSentEvent]) -> None:
        if b"\0" not in value:
            self._id = value.decode(errors="replace")

    def _set_retry(self, value: bytes, _: list[ServerSentEvent]) -> None:
        # bytes.isdigit() knows ASCII digits only. Python refuses to convert thousands of digits.
        if value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self.reconnection_time = int(value)

    _FIELDS: ClassVar[dict[bytes, Callable[[Any, bytes, list[ServerSentEvent]], None]]] = {
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

    It also shows the shortcuts that a stream's task takes.
    """

    def feed_plain(self, data: bytes) -> bytes | None:
        """The data of a whole event in the usual form; None if ``feed`` has to decode it."""
        return self._feed_plain(data)

    def raise_pending_error(self) -> None:
        """Raise what the next ``feed`` would, without waiting for more bytes."""
        self._raise_pending_error()

    def _report_error(self, value: bytes, events: list[ServerSentEvent]) -> None:
        events.append(ServerSentEvent(value, "error", self._id))

    _FIELDS: ClassVar = {**SSEDecoder._FIELDS, b"error": _report_error}  # noqa: SLF001 - inherited


_KNOWN_FIELDS: Final = (b"data", b"event", b"id", b"retry", b"error")
_BLANK: Final = rb"(?:[\r\n]|\xef\xbb\xbf)*+"
_FIELD_START: Final = rb"(?::|[A-Za-z][\w.-]{0,63}:)"
_FIELD_ALONE: Final = rb"(?:data|event|id|retry)[\r\n]"
_UNDECIDED: Final = rb"(?:\xef\xbb?|(?:[A-Za-z][\w.-]{0,63})?)\Z"


class EventStreamDetector:
    """Decides from the first bytes of a body whether it can be an event stream.

    Its first line that is not blank must be able to begin a field or a comment. The content type
    decides nothing: servers mislabel both ways. Blank lines are neither kept nor looked at twice.
    """

    __slots__ = (
        "head",
        "verdict",
    )

    def __init__(self) -> None:
        self.verdict: bool | None = None
        """Whether it is one; None while that is not known."""
        self.head: bytes = b""
        """The body so far, from its first line that is not blank; empty for an event stream."""

    def feed(self, data: bytes) -> bool | None:
        """Add the next bytes of the body; returns the verdict, which is final."""
        if self.verdict is not None:
            return self.verdict
        head = self.head + data
        if blank := re.match(_BLANK, head):
            head = head[blank.end() :]
        self.head = head
        if re.match(_FIELD_START, head) or re.match(_FIELD_ALONE, head):
            self.verdict = True
            self.head = b""
        elif not re.match(_UNDECIDED, head):
            self.verdict = False
        return self.verdict

    def finish(self) -> bool:
        """The verdict on a body that is over.

        One that was cut within its first word, or is empty, may still have been an event stream.
        """
        if self.verdict is None:
            line = self.head.lstrip(b"\xef\xbb\xbf")
            self.verdict = not line or any(field.startswith(line) for field in _KNOWN_FIELDS)
        return self.verdict


def is_event_stream(head: bytes, *, whole: bool = False) -> bool | None:
    """Whether a body can be an event stream, from its first bytes: ``EventStreamDetector``.

    Args:
        head: The body so far.
        whole: Whether that is all there will be.

    Returns:
        None while that is not known.
    """
    detector = EventStreamDetector()
    verdict = detector.feed(head)
    return detector.finish() if whole else verdict
