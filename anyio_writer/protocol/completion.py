"""What the chunks of a stream add up to.

The names and fields are the official SDK's. Every struct is immutable: a snapshot that was handed
out never changes under its reader.
"""

from __future__ import annotations

from typing import Any, Generic, Literal

import msgspec

from ..generics import T
from .chunks import (
    JSON,
    ChoiceLogprobs,
    GraphData,
    LLMData,
    TranslationData,
    Usage,
    WebSearchData,
)
from .history import history_param


class ParsedFunction(msgspec.Struct, frozen=True):
    """The function that the model calls.

    Attributes:
        name: Its name.
        arguments: The arguments so far, as JSON text; "" when there are none.
        parsed_arguments: The arguments as a value, where a tool's type is known.
    """

    name: str = ""
    arguments: str = ""
    parsed_arguments: Any = None


class ParsedFunctionToolCall(msgspec.Struct, frozen=True):
    """One tool call.

    Attributes:
        index: Its position among the calls of its choice, which are sorted by it.
        id: What a ``tool`` message names in ``tool_call_id``; "" if the server gave none.
        extra_content: What Gemini's compatible API requires back in the next request.
    """

    index: int
    id: str = ""
    type: str = "function"
    function: ParsedFunction = ParsedFunction()
    extra_content: Any = None


class ParsedChatCompletionMessage(msgspec.Struct, Generic[T], frozen=True):
    """The message of one choice.

    Attributes:
        content: The text; None if there was none.
        parsed: The text as a value of the request's response format, if it had one.
        reasoning_content: The model's reasoning, where the server sends it, under whichever name.
        reasoning_key: The name under which the reasoning came: "reasoning_content" or
            "reasoning". Some servers require it back under that name.
        annotations: Such as citations: the lists of all chunks, joined.
        audio: The last value.
        images: The lists of all chunks, joined.
        reasoning_details: What OpenRouter and others require back in the next request.
        extra: All other fields that the server sent, as they came: the last value that was not
            empty, or the lists of all chunks, joined.
    """

    role: str = "assistant"
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ParsedFunctionToolCall] | None = None
    parsed: T | None = None
    reasoning_content: str | None = None
    graph_data: GraphData | None = None
    llm_data: LLMData | None = None
    translation_data: TranslationData | None = None
    web_search_data: WebSearchData | None = None
    reasoning_key: str | None = None
    annotations: JSON = None
    audio: JSON = None
    images: JSON = None
    reasoning_details: JSON = None
    extra: dict[str, JSON] = {}

    def to_param(self) -> dict[str, Any]:
        """This message as one of the next request's ``messages``."""
        calls = self.tool_calls and [_without_value(call) for call in self.tool_calls]
        plain = msgspec.structs.replace(self, parsed=None, tool_calls=calls)
        return history_param(msgspec.to_builtins(plain))


def _without_value(call: ParsedFunctionToolCall) -> ParsedFunctionToolCall:
    """The call without its parsed arguments, which may have no JSON form."""
    function = msgspec.structs.replace(call.function, parsed_arguments=None)
    return msgspec.structs.replace(call, function=function)


class ParsedChatCompletionChoice(msgspec.Struct, Generic[T], frozen=True):
    """One of the ``n`` answers. ``finish_reason`` is None until it is complete."""

    index: int
    message: ParsedChatCompletionMessage[T]
    finish_reason: str | None = None
    logprobs: ChoiceLogprobs | None = None


class ParsedChatCompletion(msgspec.Struct, Generic[T], frozen=True):
    """A completion: whole, or as far as it had come.

    Attributes:
        id: The id of the first chunk that had one.
        choices: Sorted by index.
        created: Seconds since 1970. Some servers send milliseconds.
        usage: The token counts; None if the server sent none, never 0 instead.
    """

    id: str = ""
    choices: list[ParsedChatCompletionChoice[T]] = []
    created: int = 0
    model: str = ""
    object: Literal["chat.completion"] = "chat.completion"
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: Usage | None = None
