"""One JSON payload to one ``ChatCompletionChunk``, in whatever dialect it was written.

Nearly every payload is decoded in one step. What that decoder refuses is decoded a second time as
plain JSON and read field by field (``dialects``), which also is linear in its bytes.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from ..errors import APIResponseValidationError
from .chunks import ChatCompletionChunk
from .dialects import Misfit, check_number, read_chunk
from .halves import SurrogateHalves
from .json import (
    MAX_DEPTH,
    has_halves,
    is_deeper_than,
    is_object,
    load_json,
    mend_text,
    shorten,
)

DEFAULT_MAX_DEPTH: Final = MAX_DEPTH
DEFAULT_MAX_CHOICES: Final = 1024
DEFAULT_MAX_TOOL_CALLS: Final = 10_000

# msgspec takes up to 10 µs to read a number as short as 3e300, and many of them may come.
_SLOW_NUMBER: Final = rb"[\s:,\[]-?[0-9.]++[eE][+-]?[0-9]{3}"


def parse_chunk(payload: bytes, max_depth: int = DEFAULT_MAX_DEPTH) -> ChatCompletionChunk:
    """Decode the data of one server-sent event.

    Bytes that are not UTF-8, and escapes of half a surrogate pair, are read as U+FFFD. ``NaN`` and
    ``Infinity`` are read as Python's ``json`` reads them. If a field that nothing depends on has
    the wrong type (a date, a fingerprint, a count), it counts as missing.

    Args:
        payload: JSON text.
        max_depth: How deeply arrays and objects may be nested.

    Raises:
        APIResponseValidationError: The payload is not a JSON object, is nested too deeply, or has a
            wrong type where the value is needed (choices, indices, content, tool calls, finish
            reasons).
    """
    return ChunkParser(max_depth=max_depth, joins_halves=False).parse(payload)


class ChunkParser:
    """Decodes the payloads of one stream, in order.

    It remembers half a surrogate pair at the end of a text until the other half comes.

    Args:
        max_depth: How deeply arrays and objects may be nested.
        max_choices: How many choices one payload may hold.
        max_tool_calls: How many pieces of tool calls a choice of one payload may hold.
        joins_halves: Whether a half is kept for the next payload, or becomes U+FFFD.
    """

    __slots__ = (
        "_halves",
        "_joins_halves",
        "_max_choices",
        "_max_depth",
        "_max_tool_calls",
        "_pending_halves",
        "_short",
    )

    def __init__(
        self,
        *,
        max_depth: int = DEFAULT_MAX_DEPTH,
        max_choices: int = DEFAULT_MAX_CHOICES,
        max_tool_calls: int = DEFAULT_MAX_TOOL_CALLS,
        joins_halves: bool = True,
    ) -> None:
        self._max_depth = max_depth
        # Valid JSON needs at least two bytes a level, so short payloads are not checked.
        self._short = 2 * max_depth
        self._max_choices = max_choices
        self._max_tool_calls = max_tool_calls
        self._joins_halves = joins_halves
        self._halves = SurrogateHalves()
        self._pending_halves: Final = self._halves.pending

    def parse(self, payload: bytes) -> ChatCompletionChunk:
        """Decode one payload.

        Raises:
            APIResponseValidationError: As ``parse_chunk``.
            ResponseTooLargeError: It holds more choices or tool calls than the limits allow.
        """
        if len(payload) > self._short and is_deeper_than(payload, self._max_depth):
            raise _invalid(payload, f"it is nested more than {self._max_depth} levels deep")
        if self._pending_halves or (
            len(payload) > self._short and re.search(_SLOW_NUMBER, payload)
        ):
            return self._parse_slowly(payload)
        try:
            chunk = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._parse_slowly(payload)
        for choice in chunk.choices or ():
            if choice.delta is None or choice.finish_reason is not None:
                return self._parse_last(payload, chunk)
        return chunk

    def _parse_last(self, payload: bytes, chunk: ChatCompletionChunk) -> ChatCompletionChunk:
        """Decode a payload anew if a message holds what the delta of a last chunk does not."""
        is_silent = False
        for choice in chunk.choices or ():
            if (delta := choice.delta) is None:
                return self._parse_slowly(payload)
            if choice.finish_reason and not (delta.content or delta.tool_calls):
                is_silent = True
        if is_silent and b'"message"' in payload and _has_message(payload):
            return self._parse_slowly(payload)
        return chunk

    def set_finish_reasons_reliable(self, *, are_reliable: bool) -> None:
        """Say whether a finish reason means that no more text comes; at first it does not."""
        self._halves.ends_with_reason = are_reliable

    def flush_halves(self) -> list[tuple[int, str]]:
        """The choices and texts that end with half a surrogate pair; the other half never came."""
        return self._halves.flush()

    def _parse_slowly(self, payload: bytes) -> ChatCompletionChunk:
        self._check_outline(payload)
        try:
            data = self._load(payload)
            return read_chunk(
                data, max_choices=self._max_choices, max_tool_calls=self._max_tool_calls
            )
        except Misfit as exc:
            raise _invalid(payload, str(exc)) from exc.__cause__
        except RecursionError as exc:
            raise _invalid(payload, "it is nested too deeply") from exc

    def _check_outline(self, payload: bytes) -> None:
        """Raise if it cannot be a chunk, before each of its parts becomes a Python object."""
        try:
            if bytes(_decode_error(payload).error) in _EMPTY:  # else only the error counts
                choices = _decode_outline(payload).choices or ()
                check_number("choices", len(choices), self._max_choices)
        except msgspec.ValidationError as exc:
            raise _invalid(payload, str(exc)) from exc
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # msgspec is stricter than json

    def _load(self, payload: bytes) -> dict[str, Any]:
        """The payload as plain data, with whole characters in its texts."""
        try:
            data = load_json(mend_text(payload))
        except ValueError as exc:
            raise _invalid(payload, str(exc)) from exc
        if not is_object(data):
            raise _invalid(payload, f"it is not an object but {type(data).__name__}")
        if has_halves(payload):
            raw = load_json(payload.decode(errors="replace").encode())
            self._halves.join(data, raw, keep=self._joins_halves)
        elif self._pending_halves:
            self._halves.join(data, data, keep=self._joins_halves)
        return data


class _Object(msgspec.Struct, gc=False):
    """An object of which nothing is read."""


class _Outline(msgspec.Struct, gc=False):
    choices: list[_Object] | None = None


_NULL: Final = b"null"
_EMPTY: Final = (_NULL, b'""', b"{}", b"[]", b"false", b"0")


class _Message(msgspec.Struct, gc=False):
    content: msgspec.Raw = msgspec.Raw(_NULL)
    reasoning_content: msgspec.Raw = msgspec.Raw(_NULL)
    reasoning: msgspec.Raw = msgspec.Raw(_NULL)
    refusal: msgspec.Raw = msgspec.Raw(_NULL)
    tool_calls: msgspec.Raw = msgspec.Raw(_NULL)
    function_call: msgspec.Raw = msgspec.Raw(_NULL)
    error: msgspec.Raw = msgspec.Raw(_NULL)


class _LastChoice(msgspec.Struct, gc=False):
    message: _Message | None = None


class _LastChunk(msgspec.Struct, gc=False):
    choices: list[_LastChoice] | None = None


class _Error(msgspec.Struct, gc=False):
    error: msgspec.Raw = msgspec.Raw(_NULL)


_decode: Final = msgspec.json.Decoder(ChatCompletionChunk).decode
_decode_outline: Final = msgspec.json.Decoder(_Outline).decode
_decode_messages: Final = msgspec.json.Decoder(_LastChunk).decode
_decode_error: Final = msgspec.json.Decoder(_Error).decode


def _has_message(payload: bytes) -> bool:
    """Whether a message of a chunk holds anything."""
    try:
        choices = _decode_messages(payload).choices or ()
    except msgspec.ValidationError:  # a message of another type
        return False
    return any(
        bytes(getattr(choice.message, name)) not in _EMPTY
        for choice in choices
        if choice.message is not None
        for name in _Message.__struct_fields__
    )


def _invalid(payload: bytes, reason: str) -> APIResponseValidationError:
    shown = shorten(payload)
    return APIResponseValidationError(f"Not a chunk of a chat stream: {reason}.", body=shown)
