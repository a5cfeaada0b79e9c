"""Checks a value against a type of ``params``; the errors use the names of Python's types."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from ..errors import InvalidParameterError

_AT_KEY: Final = "`key` in "
_MISSING: Final = r"Object missing required field `(.*)`"
_TYPES: Final = r"(?<=[` ])(array|object|null)(?=[` ])"
_PYTHON_NAMES: Final = {"array": "list", "object": "dict", "null": "None"}

# By the path of the invalid value without list positions, or else by the field.
HINTS: Final = {
    "messages": "It is a list of messages such as {'role': 'user', 'content': 'Hello'}.",
    "messages.role": (
        "It is 'user', 'assistant', 'system' or 'tool'; other servers also know 'developer'."
    ),
    "messages.content": "It is text, or a list such as [{'type': 'text', 'text': 'Hello'}].",
    "tools": (
        "It is a list of what function_tool(f) makes, or of {'type': 'function', 'function': "
        "{...}}; leave tools out to send none. Tools of types that the API does not have are "
        "sent as they are."
    ),
    "tool_choice": (
        "It is 'auto', 'none', 'required', or {'type': 'function', 'function': {'name': ...}}."
    ),
    "response_format": (
        "It is a type, such as a dataclass, or {'type': 'json_schema', 'json_schema': {...}}."
    ),
    "stream_options": "It is {'include_usage': True}.",
}


def check_type(value: Any, expected: Any, path: str = "", hint: str | None = None) -> None:
    """Check JSON types against a type.

    Args:
        value: Lists, dicts and the like.
        expected: What msgspec knows as a type.
        path: What errors call the value; "" for the request.
        hint: The end of the message; by default what ``HINTS`` has for the path.

    Raises:
        InvalidParameterError: It does not fit; the message names the path.
    """
    try:
        msgspec.convert(value, expected)
    except msgspec.ValidationError as exc:
        raise _explain(str(exc), path, hint) from None


def _explain(reason: str, path: str, hint: str | None) -> InvalidParameterError:
    what, _, where = reason.partition(" - at ")
    is_key = where.startswith(_AT_KEY)
    path = (path + where.removeprefix(_AT_KEY).strip("`").removeprefix("$")).lstrip(".")
    if missing := re.fullmatch(_MISSING, what):
        said = f"{path} has no {missing[1]!r}" if path else f"{missing[1]} is missing"
        path = path or missing[1]
    else:
        types = re.sub(_TYPES, lambda found: _PYTHON_NAMES[found[0]], what)
        subject = f"a key of {path}" if is_key else path
        said = f"{subject} is invalid: {types[0].lower()}{types[1:]}"
    named = re.sub(r"\[.*?\]", "", path)
    hint = hint or HINTS.get(named) or HINTS.get(named.partition(".")[0], "")
    return InvalidParameterError(f"{said}. {hint}".rstrip())
