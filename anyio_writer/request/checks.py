"""A value against a type of ``params``, with errors in the words of the caller's Python."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from ..errors import InvalidParameterError

_AT_KEY: Final = "`key` in "
_MISSING: Final = r"Object missing required field `(.*)`"
_TYPES: Final = r"(?<=[` ])(array|object|null)(?=[` ])"
_PYTHON_NAMES: Final = {"array": "list", "object": "dict", "null": "None"}

# By the place of the mistake, list positions left out; else by the field.
HINTS: Final = {
    "messages": "It is a list of messages such as {'role': 'user', 'content': 'Hello'}.",
    "messages.role": (
        "It is 'user', 'assistant', 'system' or 'tool'; other servers also know 'developer'."
    ),
    "messages.content": "It is text, or a list such as [{'type': 'text', 'text': 'Hello'}].",
    "tools": (
        "It is a list of what function_tool(f) makes, or of {'type': 'function', 'function': "
        "{...}}; leave tools out to send none. Tools of types that the API does not have are "
        "passed on."
    ),
    "tool_choice": (
        "It is 'auto', 'none', 'required', or {'type': 'function', 'function': {'name': ...}}."
    ),
    "response_format": (
        "It is a type, such as a dataclass, or {'type': 'json_schema', 'json_schema': {...}}."
    ),
    "stream_options": "It is {'include_usage': True}.",
}


def check_type(value: Any, expected: Any, place: str = "", hint: str | None = None) -> None:
    """Check plain JSON types against a type.

    Args:
        value: Plain lists, dicts and the like.
        expected: What msgspec knows as a type.
        place: What errors call the value; "" for the request.
        hint: The end of the message; by default what ``HINTS`` has for the place.

    Raises:
        InvalidParameterError: It does not fit; the message names the place.
    """
    try:
        msgspec.convert(value, expected)
    except msgspec.ValidationError as exc:
        raise _explain(str(exc), place, hint) from None


def _explain(reason: str, place: str, hint: str | None) -> InvalidParameterError:
    what, _, where = reason.partition(" - at ")
    is_key = where.startswith(_AT_KEY)
    place = (place + where.removeprefix(_AT_KEY).strip("`").removeprefix("$")).lstrip(".")
    if missing := re.fullmatch(_MISSING, what):
        said = f"{place} has no {missing[1]!r}" if place else f"{missing[1]} is missing"
        place = place or missing[1]
    else:
        types = re.sub(_TYPES, lambda found: _PYTHON_NAMES[found[0]], what)
        subject = f"a key of {place}" if is_key else place
        said = f"{subject} is wrong: {types[0].lower()}{types[1:]}"
    named = re.sub(r"\[.*?\]", "", place)
    hint = hint or HINTS.get(named) or HINTS.get(named.partition(".")[0], "")
    return InvalidParameterError(f"{said}. {hint}".rstrip())
