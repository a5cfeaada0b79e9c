"""Reads the messages of a request, and turns those of completions into the API's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..protocol.completion import ParsedChatCompletionMessage
from ..protocol.history import call_param, history_param, is_synthetic_id
from ..protocol.json import is_array, is_object
from .encoding import is_lazy, is_sequence, to_json_types


def read_messages(messages: Any) -> Any:
    """A request's ``messages`` as JSON types.

    Messages of completions may be among them, as objects or as their JSON. What is not a message
    stays as it is; the check of types reports it.

    Raises:
        InvalidParameterError: Something has no JSON form; the message says which.
    """
    if is_lazy(messages):
        messages = list(messages)
    if is_sequence(messages):
        messages = [
            item.to_param() if isinstance(item, ParsedChatCompletionMessage) else item
            for item in messages
        ]
    given = to_json_types(messages, "messages")
    if not is_array(given):
        return given
    given = [_message_param(message) if is_object(message) else message for message in given]
    _make_ids_distinct([message for message in given if is_object(message)])
    return given


def _message_param(message: dict[str, Any]) -> dict[str, Any]:
    """A message without nulls, which many servers refuse."""
    if "parsed" in message:  # a completion's
        return history_param(message)
    param = {key: value for key, value in message.items() if key == "content" or value is not None}
    calls = param.get("tool_calls")
    if param.get("role") == "assistant" and is_array(calls):
        param["tool_calls"] = [call_param(call) if is_object(call) else call for call in calls]
    return param


def _make_ids_distinct(messages: list[dict[str, Any]]) -> None:
    """Give each call, and the answer to it, an id of its own.

    Some servers send no ids, others the same id for several calls of one message. An id that a
    server uses again in a later message is kept, because that server understands it.
    """
    used: set[str] = set()
    unanswered: list[tuple[Any, Any, str]] = []  # the id that a call had, its name, its id now
    for position, message in enumerate(messages):
        if message.get("role") == "assistant":
            unanswered = []
            here: set[str] = set()
            for index, call in enumerate(_calls_of(message)):
                given = call.get("id")
                if given and not isinstance(given, str):
                    continue  # the check of types reports it
                if not given or given in here or (given in used and is_synthetic_id(given)):
                    call["id"] = _free_id(f"call_{position}_{index}", used)
                here.add(call["id"])
                used.add(call["id"])
                unanswered.append((given, _name_of(call), call["id"]))
        elif message.get("role") == "tool":
            given = message.get("tool_call_id")
            candidates = [call for call in unanswered if (call[0] or "") == (given or "")]
            # Among calls with the same id, prefer the one whose function the answer names.
            candidates.sort(key=lambda call: call[1] != message.get("name"))
            if candidates:
                unanswered.remove(candidates[0])
                message["tool_call_id"] = candidates[0][2]


def _calls_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    calls = message.get("tool_calls")
    return [call for call in calls if is_object(call)] if is_array(calls) else []


def _name_of(call: Mapping[str, Any]) -> Any:
    called = call.get("function") or call.get("custom")
    return called.get("name") if is_object(called) else None


def _free_id(wanted: str, used: set[str]) -> str:
    while wanted in used:
        wanted += "_"
    return wanted
