"""Whether a JSON text that arrives in pieces is whole, in time linear in its length."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

import msgspec

from .json import load_json, mend_text

_STRUCTURE: Final = r'["\[\]{}]'
_STRING: Final = r'(?s)"[^"\\]*+(?:\\.[^"\\]*+)*+"'
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
        same: bool = load_json(one.encode()) == load_json(other.encode())
    except (ValueError, RecursionError):
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
        "_has_begun",
        "_string",
        "_sub",
        "closed",
    )

    def __init__(self) -> None:
        self.closed: bool = False
        """Whether a value has ended with what was fed; it may still not be valid JSON."""
        self._sub = re.compile(_STRING).sub  # at the first text; ``re`` keeps it
        self._has_begun = False  # whether a bracket or a quote has come
        self._depth = 0
        self._string = ""  # an open quote, and a backslash if its escape is open

    def feed(self, piece: str) -> None:
        """Take the next piece of the text."""
        if self._string == '"' and '"' not in piece and "\\" not in piece:
            return  # nothing but more of a string
        text = self._string + piece
        # A quote at the end closes an open string, after a letter for an escape that is open. So
        # every string is closed, and none is looked at again from each of its escaped quotes.
        rest = self._sub("", f'{text}x"')
        is_open = not rest.endswith('"')
        self._depth += rest.count("[") + rest.count("{") - rest.count("]") - rest.count("}")
        self._string = ""
        if is_open:
            backslashes = len(text) - len(text.rstrip("\\"))
            self._string = '"' + "\\" * (backslashes % 2)  # whether the next one is escaped
        self._has_begun = self._has_begun or re.search(_STRUCTURE, piece) is not None
        self.closed = self._has_begun and not self._depth and not is_open
