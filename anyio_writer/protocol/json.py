"""JSON of unknown shape: the bodies of errors, and excerpts of payloads for messages."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any, Final, TypeGuard

import jiter

MAX_DEPTH: Final = 500
_SHOWN_BYTES: Final = 1900


def parse_json(payload: bytes) -> Any:
    """A payload decoded as JSON, else as text."""
    # Values nested very deeply could not be printed, copied or searched for a message.
    if not is_deeper_than(payload, MAX_DEPTH):
        try:
            return load_json(mend_text(payload))
        except (ValueError, RecursionError):
            pass
    return payload.decode(errors="replace")


_MAX_DIGITS: Final = 4000  # Python refuses to convert more


def load_json(payload: bytes) -> Any:
    """Decode JSON as Python's ``json`` does, ``NaN`` and ``Infinity`` included.

    Escapes of half a surrogate pair become that half. A whole number of thousands of digits
    becomes a float.

    Raises:
        ValueError: It is not JSON, or not UTF-8.
        RecursionError: It is nested too deeply.
    """
    try:
        # jiter takes the least time for every kind of value. msgspec takes up to 10 µs for a
        # number as short as 3e300.
        return jiter.from_json(payload)
    except ValueError:
        pass  # it is also stricter than json
    text = payload.decode()
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return json.loads(text, parse_int=_read_int)


def _read_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


# The patterns here are rarely needed. ``re`` compiles them on first use and caches them.
_HALF: Final = rb"\\u[dD][89a-fA-F]"
_HIGH: Final = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW: Final = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_HALF: Final = rb"%b(?!%b)|(?<!%b)%b" % (_HIGH, _LOW, _HIGH, _LOW)


def has_halves(payload: bytes) -> bool:
    """Whether a JSON text may hold escapes of a surrogate pair, or of half of one."""
    return re.search(_HALF, payload) is not None


def mend_text(payload: bytes) -> bytes:
    """Replace by U+FFFD what is not Unicode: stray bytes, and escapes of half a surrogate pair."""
    payload = payload.decode(errors="replace").encode()
    if not has_halves(payload):
        return payload
    # Once escaped backslashes are written in another way, every backslash begins an escape.
    return re.sub(_LONE_HALF, rb"\\ufffd", payload.replace(rb"\\", rb"\u005c"))


_STRING: Final = rb'(?s)"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
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
        if depth + len(brackets) > limit:
            steps = memoryview(brackets).cast("b")
            if max(accumulate(steps, initial=depth)) > limit:
                return True
        depth += 2 * brackets.count(b"\x01") - len(brackets)
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


# The keys under which servers put the message, the likelier ones first.
_SENTENCE_KEYS: Final = ("error", "message", "description", "errors", "detail", "details")


def error_message(body: Any) -> str:
    """The message in an error's body, in any of the known forms."""
    inner = body
    while inner:
        body = inner
        if is_object(body):
            inner = next((body[key] for key in _SENTENCE_KEYS if body.get(key)), None)
        else:
            inner = body[0] if is_array(body) else None
    return str(body)
