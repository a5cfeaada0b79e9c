"""JSON of no known shape: the bodies of errors, and what is shown of a payload to people."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any, Final, TypeGuard

import msgspec

MAX_DEPTH: Final = 500
_SHOWN_BYTES: Final = 1900


def parse_json(payload: bytes) -> Any:
    """A payload decoded as JSON, else as text."""
    # What is nested without end could not be printed, copied or searched for its message.
    if not is_deeper_than(payload, MAX_DEPTH):
        try:
            return msgspec.json.decode(mend_text(payload))
        except msgspec.DecodeError:
            pass
    return payload.decode(errors="replace")


# The patterns here are seldom needed; ``re`` compiles them then, and keeps what it compiled.
_HALF: Final = rb"\\u[dD][89a-fA-F]"
_ESCAPES: Final = (
    rb"(?s)\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair
    rb"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|\\."
)


def mend_text(payload: bytes) -> bytes:
    """Replace by U+FFFD what is not Unicode: stray bytes, and escapes of half a surrogate pair."""
    payload = payload.decode(errors="replace").encode()
    if not re.search(_HALF, payload):  # takes a tenth of the time
        return payload
    return re.sub(_ESCAPES, lambda match: rb"\ufffd" if match["lone"] else match[0], payload)


_STRING: Final = rb'(?s)"(?:[^"\\]|\\.)*+"?'
_BLOCK: Final = 64 * 1024
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # 1 and -1 as signed bytes


def is_deeper_than(payload: bytes, limit: int) -> bool:
    """Whether the arrays and objects of a JSON text are nested more than ``limit`` deep."""
    if payload.count(b"{") + payload.count(b"[") <= limit:
        return False
    if b"\\" in payload:
        payload = re.sub(_STRING, b"", payload)
    depth = is_inside = 0
    # In blocks, and with no work in Python for a single byte: the payload may be anything.
    for start in range(0, len(payload), _BLOCK):
        parts = payload[start : start + _BLOCK].split(b'"')
        brackets = b"".join(parts[is_inside::2]).translate(_STEPS, _NO_BRACKETS)
        depths = list(accumulate(memoryview(brackets).cast("b"), initial=depth))
        if max(depths) > limit:
            return True
        depth = depths[-1]
        is_inside = (is_inside + len(parts) - 1) % 2
    return False


def shorten(payload: bytes | str, limit: int = _SHOWN_BYTES) -> str:
    """The start of a payload as text."""
    if isinstance(payload, str):
        payload = payload.encode(errors="replace")
    text = payload[:limit].decode(errors="replace")
    return text if len(payload) <= limit else f"{text}… ({len(payload)} bytes)"


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a decoded value is a JSON object."""
    return isinstance(value, dict)


def is_array(value: Any) -> TypeGuard[list[Any]]:
    """Whether a decoded value is a JSON array."""
    return isinstance(value, list)


# Where the known servers put the sentence, the likelier places first.
_SENTENCE_KEYS: Final = ("error", "message", "description", "errors", "detail", "details")


def error_message(body: Any) -> str:
    """The sentence in an error's body, whichever of the known forms it has."""
    if is_object(body):
        for key in _SENTENCE_KEYS:
            if body.get(key):
                return error_message(body[key])
    elif is_array(body) and body:
        return error_message(body[0])
    return str(body)
