"""Decoded JSON of any dialect to a chunk in its normal form.

Each value is converted once or twice, however many there are, so this is linear in the payload.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import msgspec

from ..errors import ResponseTooLargeError
from .chunks import (
    JSON,
    ChatCompletionChunk,
    ChoiceDelta,
    ChoiceLogprobs,
    ChunkChoice,
    FunctionDelta,
    GraphData,
    LLMData,
    TokenDetails,
    ToolCallDelta,
    TranslationData,
    Usage,
    WebSearchData,
)
from .json import is_array, is_object

T = TypeVar("T")

_MAX_INDEX_DIGITS: Final = 18


class Misfit(Exception):  # never raised to users
    """A value of the wrong type where it is needed."""


def read_chunk(
    data: dict[str, Any], *, max_choices: int, max_tool_calls: int
) -> ChatCompletionChunk:
    """Read a payload field by field.

    Raises:
        Misfit: A value that is needed has the wrong type.
        ResponseTooLargeError: There are too many choices or tool calls.
    """
    error = data.get("error")
    if error or (error is not None and data.get("choices") is None):
        return ChatCompletionChunk(error=error)  # even if other fields are invalid
    choices: list[ChunkChoice] | None = None
    given = data.get("choices")
    if given is not None:
        if not is_array(given):
            raise _misfit("an array", given, "$.choices")
        check_number("choices", len(given), max_choices)
        for choice in given:
            if error := _error_of(choice):
                return ChatCompletionChunk(error=error)
        choices = [
            _read_choice(choice, f"$.choices[{number}]", max_tool_calls)
            for number, choice in enumerate(given)
        ]
    groq = data.get("x_groq")
    if is_object(groq) and groq.get("error"):
        return ChatCompletionChunk(error=groq["error"])
    return ChatCompletionChunk(
        id=_read_id(data.get("id")),
        object=_read_text(data.get("object")),
        created=_read_number(data.get("created")),
        model=_read_text(data.get("model")),
        system_fingerprint=_read_text(data.get("system_fingerprint")),
        service_tier=_read_text(data.get("service_tier")),
        usage=_read_usage(_usages(data)),
        choices=choices,
        tpe=_read_text(data.get("tpe")),
        errors=data.get("errors"),
    )


def check_number(what: str, number: int, limit: int) -> None:
    """Raise ``ResponseTooLargeError`` if there are more of something than the limit allows."""
    if number > limit:
        raise ResponseTooLargeError(
            f"The answer holds more than {limit} {what}; if that is intended, raise "
            f"max_{what.replace(' ', '_')}."
        )


# Choices.


def _error_of(choice: Any) -> Any:
    if not is_object(choice):
        return None
    parts = (choice, choice.get("delta"), choice.get("message"))
    return next((part["error"] for part in parts if is_object(part) and part.get("error")), None)


def _read_choice(choice: Any, path: str, max_tool_calls: int) -> ChunkChoice:
    if not is_object(choice):
        raise _misfit("an object", choice, path)
    reason = choice.get("finish_reason")
    if reason is not None and not isinstance(reason, str):
        raise _misfit("text", reason, f"{path}.finish_reason")
    delta: ChoiceDelta | None = None
    message: ChoiceDelta | None = None
    if (given := choice.get("delta")) is not None:
        delta = _read_delta(given, f"{path}.delta", max_tool_calls)
        if reason and _is_empty(delta) and is_object(given := choice.get("message")):
            # Nothing needs the message if it cannot be read.
            with contextlib.suppress(Misfit):
                message = _read_delta(given, f"{path}.message", max_tool_calls)
                delta = None
    elif (given := choice.get("message")) is not None:
        message = _read_delta(given, f"{path}.message", max_tool_calls)
    return ChunkChoice(
        index=_read_index(choice.get("index"), f"{path}.index"),
        delta=delta,
        whole_message=message,
        finish_reason=reason,
        logprobs=_read(choice.get("logprobs"), ChoiceLogprobs),
    )


def _is_empty(delta: ChoiceDelta) -> bool:
    """Whether a delta holds nothing but a role."""
    said = msgspec.structs.replace(
        delta, role=None, content=delta.content or None, refusal=delta.refusal or None
    )
    return said in (ChoiceDelta(), ChoiceDelta(graph_data=GraphData()))


_KNOWN: Final = frozenset(
    {
        *("role", "content", "refusal", "reasoning", "reasoning_content"),
        *("tool_calls", "function_call"),
        *("graph_data", "llm_data", "translation_data", "web_search_data"),
        *("error", "index", "name", "obfuscation", "tool_call_id"),
    }
)
"""Fields that are read elsewhere, or that carry no information."""


def _read_delta(delta: Any, path: str, max_tool_calls: int) -> ChoiceDelta:
    if not is_object(delta):
        raise _misfit("an object", delta, path)
    text, thought, refusal, others = _read_content(delta.get("content"), f"{path}.content")
    if (declined := delta.get("refusal")) is not None:
        if not isinstance(declined, str):
            raise _misfit("text", declined, f"{path}.refusal")
        refusal = declined
    reasoning = _text_in(delta.get("reasoning"))
    if thought:
        reasoning = thought if reasoning is None else reasoning + thought
    extra = {
        name: value
        for name, value in delta.items()
        # Null and empty values carry no information; 0 and false do.
        if name not in _KNOWN and (value or isinstance(value, int | float))
    }
    if others:
        extra["content"] = others
    return ChoiceDelta(
        role=_read_text(delta.get("role")),
        content=text,
        refusal=refusal,
        reasoning_content=_text_in(delta.get("reasoning_content")),
        reasoning=reasoning,
        tool_calls=_read_calls(delta, path, max_tool_calls),
        extra=extra or None,
        graph_data=_read(delta.get("graph_data"), GraphData),
        llm_data=_read(delta.get("llm_data"), LLMData),
        translation_data=_read(delta.get("translation_data"), TranslationData),
        web_search_data=_read(delta.get("web_search_data"), WebSearchData),
    )


def _read_content(content: Any, path: str) -> tuple[str | None, str, str | None, list[JSON]]:
    """The text, the reasoning and the refusal in a ``content``, and its other blocks."""
    if content is None or isinstance(content, str):
        return content, "", None, []
    if is_object(content) and "type" in content:
        content = [content]
    elif not is_array(content):
        raise _misfit("text or an array of blocks", content, path)
    texts: dict[str, list[str]] = {"text": [], "thinking": [], "refusal": []}
    others: list[JSON] = []
    for number, block in enumerate(content):
        if isinstance(block, str):
            texts["text"].append(block)
            continue
        if not is_object(block):
            raise _misfit("text or an object", block, f"{path}[{number}]")
        kind = block.get("type") or "text"
        form = _BLOCKS.get(kind) if isinstance(kind, str) else None
        if form == "text":
            text = block.get("text")
            if text is not None and not isinstance(text, str):
                raise _misfit("text", text, f"{path}[{number}].text")
            texts[form].append(text or "")
        elif form is not None:
            texts[form].append(_text_in(block) or "")
        else:
            others.append(block)
    text, thought, refusal = map("".join, texts.values())
    return text, thought, refusal or None, others


_BLOCKS: Final = {
    "text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
    "thought": "thinking",
    "reasoning": "thinking",
    "reasoning_text": "thinking",
    "summary_text": "thinking",
}
"""The types of blocks that are read, and what their text is."""
_TEXT_KEYS: Final = ("thinking", "reasoning", "refusal", "text", "summary", "content")


def _text_in(value: JSON) -> str | None:
    """The text in reasoning of any form: text, blocks, or an object that holds them."""
    if isinstance(value, str):
        return value
    texts: list[str] = []
    waiting: list[JSON] = [value]
    while waiting:
        value = waiting.pop()
        if not value:
            continue
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list):
            waiting.extend(reversed(value))
        elif isinstance(value, dict):
            for key in _TEXT_KEYS:
                if inner := value.get(key):
                    waiting.append(inner)
                    break
    return "".join(texts) or None


# Tool calls.


def _read_calls(
    delta: dict[str, Any], path: str, max_tool_calls: int
) -> list[ToolCallDelta] | None:
    calls = delta.get("tool_calls")
    if is_object(calls):
        calls = [calls]
    elif calls is not None and not is_array(calls):
        raise _misfit("an array", calls, f"{path}.tool_calls")
    calls = calls or []
    if is_object(legacy := delta.get("function_call")):
        calls = [*calls, {"function": legacy}]
    check_number("tool calls", len(calls), max_tool_calls)
    return [
        _read_call(call, f"{path}.tool_calls[{number}]")
        for number, call in enumerate(calls)
        if call is not None
    ] or None


def _read_call(call: Any, path: str) -> ToolCallDelta:
    if not is_object(call):
        raise _misfit("an object", call, path)
    kind = _read_text(call.get("type"))
    function, key = call.get("function"), "arguments"
    if is_object(custom := call.get("custom")):
        function, key, kind = custom, "input", kind or "custom"
    if function is not None and not is_object(function):
        raise _misfit("an object", function, f"{path}.function")
    made: FunctionDelta | None = None
    if function is not None:
        name, arguments = function.get("name"), function.get(key)
        if name is not None and not isinstance(name, str):
            raise _misfit("text", name, f"{path}.function.name")
        if arguments is not None and not isinstance(arguments, str):
            # PHP writes an empty object as an empty array.
            arguments = "{}" if arguments == [] else msgspec.json.encode(arguments).decode()
        made = FunctionDelta(name, arguments)
    return ToolCallDelta(
        index=_read_index(call.get("index"), f"{path}.index"),
        id=_read_id(call.get("id")),
        type=kind,
        function=made,
        extra_content=call.get("extra_content"),
    )


# Counts.


def _usages(data: dict[str, Any]) -> Iterator[Any]:
    """Where servers put the usage, the usual place last."""
    choices = data.get("choices")
    for choice in choices if is_array(choices) else ():
        if is_object(choice):
            yield choice.get("usage")
    if is_object(groq := data.get("x_groq")):
        yield groq.get("usage")
    yield data.get("usage")


def _read_usage(usages: Iterator[Any]) -> Usage | None:
    """The counts of all of them, field by field."""
    total: Usage | None = None
    for usage in usages:
        if not is_object(usage):
            continue
        counts: dict[str, Any] = {
            name: _read_number(usage.get(name))
            for name in ("prompt_tokens", "completion_tokens", "total_tokens")
        }
        for name in _DETAILS:
            if is_object(details := usage.get(name)):
                found = {key: _read_number(details.get(key)) for key in _DETAIL_COUNTS}
                counts[name] = TokenDetails(**found)
        made = Usage(**counts)
        if made != _NO_USAGE:
            total = made if total is None else total.merge(made)
    return total


_NO_USAGE: Final = Usage()
_DETAILS: Final = (
    "prompt_token_details",
    "completion_tokens_details",
    "prompt_tokens_details",
    "completion_token_details",
)
_DETAIL_COUNTS: Final = TokenDetails.__struct_fields__


# Single values.


def _read(value: Any, kind: Callable[..., T]) -> T | None:
    """An optional value; None if it has the wrong type."""
    if value is None:
        return None
    try:
        made: T = msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError):
        return None
    return made


def _read_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _read_id(value: Any) -> str | None:
    """An id: text, or a number as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _read_text(value)


def _read_number(value: Any) -> int | None:
    """A whole number, also one that was written as 3.0 or as text; else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and len(value) <= _MAX_INDEX_DIGITS:
        try:
            return int(value)
        except ValueError:
            pass
    return None


def _read_index(value: Any, path: str) -> int | None:
    if value is None:
        return None
    if (number := _read_number(value)) is None:
        raise _misfit("a whole number", value, path)
    return number


def _misfit(expected: str, value: Any, path: str) -> Misfit:
    return Misfit(f"expected {expected}, got {type(value).__name__}, at {path}")
