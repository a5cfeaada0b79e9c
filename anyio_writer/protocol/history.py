"""What goes back to a server in the next request, in forms that servers accept.

Servers that read the history as JSON refuse every later request if the arguments of one call are
not an object. Many refuse nulls, and keys that they did not send.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from .json import is_array, is_object, mend_text

Role: TypeAlias = Literal["user", "assistant", "system", "tool", "developer"]
"""The roles that requests may have. Writer's API knows the first four."""

_ROLES: Final = frozenset(get_args(Role))
_SENT_BACK: Final = ("refusal", "tool_calls", "graph_data")
_REPLACES_TEXT: Final = ("refusal", "tool_calls")  # without them, servers refuse null as content
_REASONING: Final = "reasoning_content"
# Some models need their reasoning back with the calls that it led to. Servers refuse it with other
# messages, and under another key than the one it came with.
_SENT_BACK_WITH_CALLS: Final = (_REASONING, "reasoning_details")
_SPACE: Final = " \t\r\n"


def history_param(message: Mapping[str, Any]) -> dict[str, Any]:
    """A completion's message, in JSON types, as one of the next request's ``messages``."""
    role = message.get("role")
    param = {
        "role": role if isinstance(role, str) and role in _ROLES else "assistant",
        "content": message.get("content"),
    }
    for key in (*_SENT_BACK, *(_SENT_BACK_WITH_CALLS if message.get("tool_calls") else ())):
        if message.get(key):  # servers refuse an empty list of calls
            param[key] = message[key]
    if message.get("reasoning_key", _REASONING) != _REASONING:
        param.pop(_REASONING, None)
    if is_array(calls := param.get("tool_calls")):
        param["tool_calls"] = [call_param(call) if is_object(call) else call for call in calls]
    if param["content"] is None and param.keys().isdisjoint(_REPLACES_TEXT):
        param["content"] = ""  # all that came was reasoning, or nothing
    return param


def call_param(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call, in JSON types, with arguments that are one JSON object and without nulls."""
    param = {key: value for key, value in call.items() if value is not None}
    if not param.get("id") and isinstance(param.get("index"), int):
        param["id"] = synthetic_id(param["index"])
    if not is_object(function := param.get("function")):
        return param
    if param.get("type") == "custom":  # whose input is text, not JSON
        custom = {"name": function.get("name"), "input": function.get("arguments")}
        del param["function"]
        return param | {"custom": custom}
    sent = {key: each for key, each in function.items() if key != "parsed_arguments"}
    return param | {"function": sent | {"arguments": arguments_param(function.get("arguments"))}}


def synthetic_id(index: int) -> str:
    """An id for a call to which the server gave none, and for the answer to it."""
    return f"call_{index}"


def is_synthetic_id(tool_call_id: Any) -> bool:
    """Whether it is such an id."""
    return isinstance(tool_call_id, str) and re.fullmatch(r"call_\d+", tool_call_id) is not None


def arguments_param(arguments: Any) -> str:
    """The arguments of a call as the JSON of one object.

    Arguments that are not one become an object that says so, for the model to read.
    """
    if arguments is not None and not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    text = object_text(arguments or "")
    try:
        # Escapes of half a surrogate pair are valid JSON that many parsers refuse.
        text = mend_text(text.encode(errors="replace")).decode()
        if is_object(msgspec.json.decode(text)):
            return text
    except (msgspec.DecodeError, RecursionError):
        pass
    return msgspec.json.encode(
        {"error": "The arguments were not one JSON object.", "arguments": text}
    ).decode()


def object_text(text: str) -> str:
    """The JSON of an object, from what models write instead of it.

    Some write nothing or null where there are no arguments, others the object's JSON in a string.
    """
    text = text.strip(_SPACE)
    while text.startswith('"'):
        try:
            text = msgspec.json.decode(mend_text(text.encode(errors="replace")), type=str)
        except msgspec.DecodeError:
            return text  # decoding it raises the error
        text = text.strip(_SPACE)
    return "{}" if text in ("", "null") else text
