"""Whether a JSON text that arrives in pieces is whole, in time linear in its length."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

import msgspec

from .json import mend_text

_STRUCTURE: Final = r'["\\\[\]{}]'
_INSIDE_A_NUMBER: Final = ("-", "+", ".", "e", "E")
EMPTY_OBJECT: Final = "{}"
_LONGEST_EMPTY_OBJECT: Final = 32
_decode_nothing: Final = msgspec.json.Decoder(msgspec.Raw).decode


class Wholeness(Enum):
    """What a finished piece of text is, as JSON."""

    WHOLE = "whole"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"


def wholeness(text: str) -> Wholeness:
    """Whether a text is one JSON value, the start of one, or neither. The empty text is a start."""
    try:
        _decode_nothing(text)
    except msgspec.DecodeError as exc:
        # msgspec refuses escapes of half a surrogate pair, which JSON allows.
        if (mended := mend_text(text.encode(errors="replace")).decode()) != text:
            return wholeness(mended)
        # msgspec has no class of its own for this; a test holds it to the wording.
        truncated = str(exc) == "Input data was truncated"
        if not truncated and text.endswith(_INSIDE_A_NUMBER):
            truncated = wholeness(f"{text}0") is not Wholeness.MALFORMED
        return Wholeness.TRUNCATED if truncated else Wholeness.MALFORMED
    except RecursionError:
        return Wholeness.MALFORMED
    return Wholeness.WHOLE


def is_same_value(one: str, other: str) -> bool:
    """Whether two JSON texts say the same, however they are written."""
    try:
        same: bool = msgspec.json.decode(one) == msgspec.json.decode(other)
    except (msgspec.DecodeError, RecursionError):
        return False
    return same


def is_empty_object(text: str) -> bool:
    """Whether a text is an empty JSON object."""
    return len(text) <= _LONGEST_EMPTY_OBJECT and "".join(text.split()) == EMPTY_OBJECT


class JSONExtent:
    """Follows the brackets and quotes of a growing text.

    Only values that say themselves where they end (objects, arrays, strings) are ever closed:
    ``12`` may yet become ``123``.
    """

    __slots__ = (
        "_depth",
        "_escaped",
        "_find",
        "_in_string",
        "_length",
        "closed",
    )

    def __init__(self) -> None:
        self.closed: bool = False
        """Whether a value has ended with what was fed; it may still not be valid JSON."""
        self._find = re.compile(_STRUCTURE).finditer  # at the first text; ``re`` keeps it
        self._length = 0  # characters fed
        self._depth = 0
        self._in_string = False
        self._escaped = -1  # the position of the character behind a backslash

    def feed(self, piece: str) -> None:
        """Take the next piece of the text."""
        start = self._length
        self._length += len(piece)
        for match in self._find(piece):
            self._step(match[0], start + match.start())

    def _step(self, char: str, position: int) -> None:
        if self._in_string:
            if position == self._escaped:
                return
            if char == "\\":
                self._escaped = position + 1
                return
            if char != '"':
                return
            self._in_string = False
        elif char == '"':
            self._in_string = True
        elif char in "[{":
            self._depth += 1
        elif char in "]}":
            self._depth -= 1
        self.closed = self._depth == 0 and not self._in_string
