"""JSON of no known shape: the bodies of errors, and what is shown of a payload to people."""

from __future__ import annotations

from typing import Any, Final, TypeGuard

import msgspec

_SHOWN_BYTES: Final = 2048


def parse_json(payload: bytes) -> Any:
    """A payload decoded as JSON, else as text."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return payload.decode(errors="replace")


def shorten(payload: bytes, limit: int = _SHOWN_BYTES) -> str:
    """The start of a payload as text."""
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
