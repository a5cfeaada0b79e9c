"""Messages and tools in the form that the conventions give them, for those who ask for content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from ..protocol.completion import ParsedChatCompletion
from ..protocol.json import is_array, is_object


def input_messages(messages: object) -> str:
    """A request's messages, as JSON."""
    return _json([_message(each) for each in _objects(messages)])


def output_messages(completion: ParsedChatCompletion[Any]) -> str:
    """A completion's messages, as JSON; one for each choice."""
    return _json([_message(choice.message.to_param()) for choice in completion.choices])


def tool_definitions(tools: object) -> str:
    """A request's tools, as JSON: no more of each than its type and its name."""
    return _json(
        [{"type": each.get("type", ""), "name": _name_of(each)} for each in _objects(tools)]
    )


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": message.get("role", ""), "parts": [*_parts_of(message)]}


def _parts_of(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    content: Any = message.get("content")
    if message.get("role") == "tool":
        call_id = message.get("tool_call_id")
        yield {"type": "tool_call_response", "id": call_id, "response": content}
        return
    yield from _text("reasoning", message.get("reasoning_content") or message.get("reasoning"))
    yield from _text("text", content)
    yield from map(_part_of_block, _objects(content))
    yield from _text("refusal", message.get("refusal"))
    yield from map(_part_of_call, _objects(message.get("tool_calls")))


def _text(kind: str, text: object) -> Iterator[dict[str, Any]]:
    if isinstance(text, str) and text:
        yield {"type": kind, "content": text}


def _part_of_block(block: Mapping[str, Any]) -> dict[str, Any]:
    if block.get("type") == "text":
        return {"type": "text", "content": block.get("text", "")}
    return dict(block)  # of a type of its own, which the conventions' schema allows


def _part_of_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = _object(call.get("function"))
    arguments: Any = function.get("arguments", "")
    with suppress(TypeError, ValueError, RecursionError):  # the model may write what is no JSON
        arguments = msgspec.json.decode(arguments)
    name = function.get("name", "")
    return {"type": "tool_call", "id": call.get("id"), "name": name, "arguments": arguments}


def _name_of(tool: Mapping[str, Any]) -> str:
    return str(_object(tool.get("function")).get("name") or tool.get("type", ""))


def _object(value: object) -> Mapping[str, Any]:
    return value if is_object(value) else {}


def _objects(values: object) -> Iterator[dict[str, Any]]:
    """The objects of an array. Fields that the library does not check may hold anything."""
    return filter(is_object, values) if is_array(values) else iter(())


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
