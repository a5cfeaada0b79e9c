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
        name: The name of the function.
        arguments: The arguments so far, as JSON text; "" if there are none.
        parsed_arguments: The arguments as a struct, if the tool was made with ``function_tool``.
    """

    name: str = ""
    arguments: str = ""
    parsed_arguments: Any = None


class ParsedFunctionToolCall(msgspec.Struct, frozen=True):
    """One tool call.

    Attributes:
        index: The position of the call among those of its choice.
        id: The ID of the call, for the ``tool_call_id`` of the message that answers it; "" if the
            server sent none.
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
        content: The text, or None if there is none.
        parsed: The text as a value of the response format, if the request had one.
        reasoning_content: The model's reasoning, if the server sends it, under whatever name.
        reasoning_key: The name under which the server sent the reasoning: "reasoning_content" or
            "reasoning". Some servers require it back under that name.
        annotations: The annotations of all chunks, such as citations, in one list.
        audio: The last value that the server sent.
        images: The images of all chunks, in one list.
        reasoning_details: What OpenRouter and others require back in the next request.
        extra: All other fields that the server sent. Lists of several chunks are joined. Of other
            values, the last one that was not empty is kept.
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
        """Return the message in the form of the next request's ``messages``."""
        calls = self.tool_calls and [_without_value(call) for call in self.tool_calls]
        plain = msgspec.structs.replace(self, parsed=None, tool_calls=calls)
        return history_param(msgspec.to_builtins(plain))


def _without_value(call: ParsedFunctionToolCall) -> ParsedFunctionToolCall:
    """The call without its parsed arguments, which may have no JSON form."""
    function = msgspec.structs.replace(call.function, parsed_arguments=None)
    return msgspec.structs.replace(call, function=function)


class ParsedChatCompletionChoice(msgspec.Struct, Generic[T], frozen=True):
    """One of the ``n`` answers. ``finish_reason`` is None until it is finished."""

    index: int
    message: ParsedChatCompletionMessage[T]
    finish_reason: str | None = None
    logprobs: ChoiceLogprobs | None = None


class ParsedChatCompletion(msgspec.Struct, Generic[T], frozen=True):
    """A completion: the whole one, or what had arrived by some point.

    Attributes:
        id: The ID of the first chunk that had one.
        choices: The choices, sorted by index.
        created: When it was made, in seconds since 1970. Some servers send milliseconds.
        usage: The token counts; None if the server sent none.
    """

    id: str = ""
    choices: list[ParsedChatCompletionChoice[T]] = []
    created: int = 0
    model: str = ""
    object: Literal["chat.completion"] = "chat.completion"
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: Usage | None = None
