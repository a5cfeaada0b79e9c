"""What entries hold: batches of records, in MessagePack. A chunk is its payload, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, TypeAlias

import httpx
import msgspec

from .. import errors
from ..conversation import RoundStartedEvent, ToolResultEvent
from ..errors import (
    APIError,
    ContentParseError,
    ConversationLimitError,
    ProducerFailedError,
    ProducerStoppedError,
    RelayUnavailableError,
    WriterError,
)
from .log import EndState

Kind: TypeAlias = Literal["stream", "conversation"]

FORMAT: Final = 1
"""The version of this format, which a log says first."""


class Header(msgspec.Struct, frozen=True, tag_field="type", tag="header"):
    """The first record of every log.

    Attributes:
        kind: What was published.
        n: How many choices the request asked for.
        version: In which format.
    """

    kind: Kind
    n: int = 1
    version: int = FORMAT


class RoundStarted(msgspec.Struct, frozen=True, tag_field="type", tag="round"):
    """A round of a conversation began; the payloads behind it are of its answer.

    Attributes:
        round: Which one.
    """

    round: int

    def event(self) -> RoundStartedEvent:
        """The event that readers get."""
        return RoundStartedEvent(self.round)


class ToolResulted(msgspec.Struct, frozen=True, tag_field="type", tag="tool"):
    """A tool of a conversation has answered a call.

    Attributes:
        after: How many events of the round's answer come before it. Tells whether the last done
            events of the answer do, which no payload shows.
        fields: Those of the event, in order, as a JSON array. Servers choose the numbers of their
            calls, and MessagePack has none of more than 64 bits.
    """

    after: int
    fields: bytes

    def event(self) -> ToolResultEvent:
        """The event that readers get."""
        return ToolResultEvent(*_fields_decoder.decode(self.fields))

    @classmethod
    def of(cls, event: ToolResultEvent, after: int) -> ToolResulted:
        """The record of an event."""
        fields = (
            event.round,
            event.index,
            event.name,
            event.tool_call_id,
            event.content,
            event.is_error,
        )
        return cls(after, msgspec.json.encode(fields))


class RecordedError(msgspec.Struct, frozen=True):
    """An error, as far as it can be rebuilt on another machine.

    Attributes:
        type: The name of its class; "" for one that is not of this library.
        message: What it says, or the name of the foreign class.
        status: Of the response, if there was one.
        body: The decoded body, as JSON text; "" is None.
        request_id: The server's.
        details: What its class has beyond that, as JSON text.
    """

    type: str
    message: str
    status: int | None = None
    body: str = ""
    request_id: str | None = None
    details: str = "{}"


class End(msgspec.Struct, frozen=True, tag_field="type", tag="end"):
    """The last record of every log that ended.

    Attributes:
        state: How.
        after: How many events of the answer there were, or of the last round's.
        error: Of one that failed.
        by: Who stopped one that was stopped.
    """

    state: EndState
    after: int = 0
    error: RecordedError | None = None
    by: str = ""


Record: TypeAlias = bytes | Header | RoundStarted | ToolResulted | End

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[Record])
_fields_decoder: Final = msgspec.json.Decoder(tuple[int, int, str, str, str, bool])

_ITEM_BYTES: Final = 5  # what MessagePack adds to a payload at most


def encode(records: Sequence[Record]) -> bytes:
    """One entry's data."""
    return _encoder.encode(records)


def decode(data: bytes) -> list[Record]:
    """The records of one entry.

    Raises:
        RelayUnavailableError: They are not of this format.
    """
    try:
        records = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RelayUnavailableError(
            f"The log contains something that this version cannot read: {exc}"
        ) from exc
    for record in records:
        if isinstance(record, Header) and record.version != FORMAT:
            raise RelayUnavailableError(
                f"The log has format {record.version}; this version reads format {FORMAT}."
            )
    return records


def split(records: Iterable[Record], max_bytes: int) -> Iterable[list[Record]]:
    """Cut records into entries of at most so many bytes, or of one record that is larger."""
    part: list[Record] = []
    size = 0
    for record in records:
        length = len(record) + _ITEM_BYTES if isinstance(record, bytes) else 0
        if part and size + length > max_bytes:
            yield part
            part, size = [], 0
        part.append(record)
        size += length
    if part:
        yield part


# Errors.

_CLASSES: Final[dict[str, type[WriterError]]] = {
    name: cls
    for name, cls in vars(errors).items()
    if isinstance(cls, type) and issubclass(cls, WriterError)
}


_DETAILS: Final[dict[type[WriterError], tuple[str, ...]]] = {
    ContentParseError: ("choice_index", "text", "path", "reason"),
    ConversationLimitError: ("messages",),
    ProducerStoppedError: ("by",),
}


def record_error(error: BaseException) -> RecordedError:
    """What readers elsewhere get to know of an error.

    Of a foreign one only its class: its text may say what must not leave this machine.
    """
    own = next((cls for cls in type(error).__mro__ if _CLASSES.get(cls.__name__) is cls), None)
    if own is None:
        return RecordedError(type="", message=type(error).__name__)
    details = _to_json({name: getattr(error, name) for name in _details_of(own)})
    if not isinstance(error, APIError):
        return RecordedError(type=own.__name__, message=str(error), details=details)
    return RecordedError(
        type=own.__name__,
        message=error.message,
        status=error.status_code,
        body="" if error.body is None else _to_json(error.body),
        request_id=error.request_id,
        details=details,
    )


def _details_of(own: type[WriterError]) -> tuple[str, ...]:
    return next((names for cls, names in _DETAILS.items() if issubclass(own, cls)), ())


def rebuild_error(recorded: RecordedError) -> WriterError:
    """The error that was recorded, of the same class if that is known here."""
    if not recorded.type:
        return ProducerFailedError(
            f"The producer failed with {recorded.message}, which is not an error of the model's; "
            "its own log says more."
        )
    cls = _CLASSES.get(recorded.type, APIError)
    # A producer of another version may know others.
    known = _details_of(cls)
    details: dict[str, Any] = json.loads(recorded.details)
    details = {name: value for name, value in details.items() if name in known}
    if not issubclass(cls, APIError):
        return cls(recorded.message, **details)
    return cls(
        recorded.message,
        response=None if recorded.status is None else httpx.Response(recorded.status),
        body=json.loads(recorded.body) if recorded.body else None,
        request_id=recorded.request_id,
        **details,
    )


def stopped_error(end: End) -> ProducerStoppedError:
    """What readers of a stopped answer get."""
    how = "by Relay.stop()" if end.by == "stop" else "by its producer"
    return ProducerStoppedError(
        f"The answer was stopped {how} before it was complete.", by=end.by or "producer"
    )


def _to_json(value: Any) -> str:
    """JSON with numbers of any size; what has no such form becomes text."""
    return json.dumps(msgspec.to_builtins(value, str_keys=True, enc_hook=str))
