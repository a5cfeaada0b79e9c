"""Everything that has arrived of one answer, readable as of any position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..errors import ValueMismatchError
from .chunks import (
    ChoiceLogprobs,
    GraphData,
    LLMData,
    LogprobToken,
    TranslationData,
    WebSearchData,
)
from .completion import (
    ParsedChatCompletion,
    ParsedChatCompletionChoice,
    ParsedChatCompletionMessage,
    ParsedFunction,
    ParsedFunctionToolCall,
)
from .extent import (
    EMPTY_OBJECT,
    JSONExtent,
    Wholeness,
    is_empty_object,
    is_same_value,
    wholeness,
)
from .logs import (
    NEVER,
    NO_DATA,
    NO_ITEMS,
    NO_TEXT,
    NO_USAGE,
    NOW,
    DataLog,
    ExtraLog,
    ItemLog,
    LatestLog,
    TextLog,
    UsageLog,
    Value,
)
from .rules import Arguments, Progress, Stop, stop_of
from .values import ValueReader

_NO_TOOLS: Final[Mapping[str, ValueReader[Any]]] = {}


class ToolCallLog:
    """One tool call. Its id, type and name are set once; its arguments grow."""

    __slots__ = (
        "_empty_since",
        "_malformed",
        "_tools",
        "_value",
        "_whole",
        "arguments",
        "born",
        "done_at",
        "extent",
        "extra",
        "id",
        "index",
        "name",
        "type",
    )

    def __init__(self, index: int, born: int, tools: Mapping[str, ValueReader[Any]]) -> None:
        self.index: Final = index
        self.born: Final = born
        self.id: LatestLog[str] = NEVER
        self.type: LatestLog[str] = NEVER
        self.name: LatestLog[str] = NEVER
        self.arguments: TextLog = NO_TEXT
        self.extra: LatestLog[Any] = NEVER
        self.extent: Final = JSONExtent()
        self.done_at: int | None = None  # the position of its done event, which is due only once
        self._tools = tools
        self._value: Value | None = None
        self._malformed = False
        self._whole = False
        self._empty_since: int | None = None  # when a {} came that may be a placeholder

    @property
    def is_free_text(self) -> bool:
        """Whether the arguments are the text of a custom tool instead of JSON."""
        return self.type.value == "custom"

    def add(self, piece: str, position: int) -> str:
        """Add a piece of the arguments; returns what is new in it."""
        is_inside = self.arguments and not self.extent.closed
        if not piece or not (is_inside or self._is_new(piece, position)):
            return ""
        self.arguments = self.arguments.append(piece, position)
        self.extent.feed(piece)
        if self._whole and not piece.isspace():
            self._whole = False
        return piece

    def _is_new(self, piece: str, position: int) -> bool:
        """Whether a piece adds something to arguments that have not begun, or may be whole."""
        if self.is_free_text:
            return True
        if self.arguments:
            is_value = self.is_whole() or self._is_empty_object()
            return not (is_value and (is_empty_object(piece) or self.repeats(piece)))
        if is_empty_object(piece):
            # Some servers send {} before the real arguments. It counts when the call is done.
            if self._empty_since is None:
                self._empty_since = position
            return False
        return self._empty_since is None or not piece.isspace()

    def settle_empty_object(self, position: int) -> str:
        """Make a pending ``{}`` the arguments of a call that is done; returns the text it adds."""
        if self._empty_since is None or self.arguments:
            return ""
        self.arguments = self.arguments.append(EMPTY_OBJECT, position)
        self.extent.feed(EMPTY_OBJECT)
        return EMPTY_OBJECT

    def repeats(self, piece: str) -> bool:
        """Whether a piece is all of the arguments again. Takes time linear in the piece."""
        text = self.arguments.at()
        if len(piece) < len(text) // 2:
            return False
        return piece == text or is_same_value(piece, text)

    def is_whole(self) -> bool:
        """Whether the arguments are one object, array or string of JSON, and no empty object."""
        if not self.extent.closed or self._malformed or self.is_free_text:
            return False
        if not self._whole:
            # Parsed once: only white space keeps it whole, and what does not parse never will.
            text = self.arguments.at()
            if is_empty_object(text):
                return False
            self._whole = wholeness(text) is Wholeness.WHOLE
            self._malformed = not self._whole
        return self._whole

    def _is_empty_object(self) -> bool:
        """Whether the arguments are an empty object that was no placeholder.

        Asked only of arguments that are not whole, so nothing has to be parsed or joined.
        """
        return self.extent.closed and not (self._malformed or self.is_free_text)

    def is_unfinished(self) -> bool:
        """Whether the arguments have not begun, or have begun and are not one JSON value yet."""
        if self.is_free_text or self.is_whole():
            return False
        if not self.arguments:
            return self._empty_since is None
        return not self._is_empty_object()

    def progress(self, *, is_anonymous: bool) -> Progress:
        """How far the arguments have come.

        Args:
            is_anonymous: Whether the next piece has neither index nor id. Servers that send such
                pieces send whole calls, so an empty object is not a placeholder.
        """
        if self.is_whole():
            return Progress.WHOLE
        if self.arguments and not self._is_empty_object():
            return Progress.BEGUN
        is_empty = self.arguments or self._empty_since is not None
        return Progress.WHOLE if is_anonymous and is_empty else Progress.NONE

    def may_be_all(self) -> bool:
        """Whether the arguments are whole, or an empty object.

        An empty object in the piece that opened the call does not count. It may be a placeholder.
        """
        if self.is_whole():
            return True
        if not self.arguments:
            return self._empty_since is not None and self._empty_since > self.born
        return self._is_empty_object()

    def arguments_form(self) -> Arguments:
        """What the arguments look like."""
        if self.may_be_all():
            return Arguments.WHOLE
        text = self.arguments.at()
        if not text.strip():
            return Arguments.MISSING
        if not self.is_free_text and wholeness(text) is Wholeness.TRUNCATED:
            return Arguments.BEGUN
        return Arguments.ENDED

    def reader_at(self, position: int = NOW) -> ValueReader[Any] | None:
        """The reader of its arguments as of a position; None if the tool is unknown."""
        return self._tools.get(self.name.at(position) or "")

    def value_at(self, position: int) -> Any:
        """The arguments as a value, once they are done; None if they do not fit their type."""
        if self.done_at is None or self.done_at > position:
            return None
        if (reader := self.reader_at(position)) is None:
            return None
        if self._value is None:
            self._value = Value(reader)  # a name is set once, and so is what goes with it
        return self._value.of(self.arguments.at(position))

    def at(self, position: int) -> ParsedFunctionToolCall:
        """The call as of a position."""
        arguments = self.arguments.at(position)
        if not arguments and self._empty_since is not None and self._empty_since <= position:
            arguments = EMPTY_OBJECT
        return ParsedFunctionToolCall(
            index=self.index,
            id=self.id.at(position) or "",
            type=self.type.at(position) or "function",
            function=ParsedFunction(
                name=self.name.at(position) or "",
                arguments=arguments,
                parsed_arguments=self.value_at(position),
            ),
            extra_content=self.extra.at(position),
        )


class ChoiceLog:
    """One choice."""

    __slots__ = (
        "_value",
        "born",
        "calls",
        "calls_by_id",
        "calls_by_index",
        "calls_by_wire_index",
        "content",
        "ended_at",
        "extra",
        "finish_reason",
        "graph_data",
        "has_content",
        "index",
        "is_finished",
        "llm_data",
        "logprobs_content",
        "logprobs_refusal",
        "next_call_index",
        "reader",
        "reasoning",
        "reasoning_key",
        "refusal",
        "role",
        "translation_data",
        "web_search_data",
    )

    def __init__(self, index: int, born: int, reader: ValueReader[Any] | None) -> None:
        self.index: Final = index
        self.born: Final = born
        self.reader: Final = reader
        """The reader of its text, if the request had a response format."""
        self.has_content: bool = False
        """Whether a text, reasoning, a refusal or a call has begun."""
        self.is_finished: bool = False
        """Whether it has a finish reason, and no content came after that."""
        self.ended_at: int | None = None  # the position from which its text is whole
        self._value = None if reader is None else Value(reader)
        self.role: LatestLog[str] = NEVER
        self.content: TextLog = NO_TEXT
        self.refusal: TextLog = NO_TEXT
        self.reasoning: TextLog = NO_TEXT
        self.reasoning_key: LatestLog[str] = NEVER
        self.calls: Final[list[ToolCallLog]] = []  # in the order in which they began
        self.calls_by_id: Final[dict[str, ToolCallLog]] = {}  # the latest with this id
        self.calls_by_index: Final[dict[int, ToolCallLog]] = {}
        self.calls_by_wire_index: Final[dict[int, ToolCallLog]] = {}  # as the server counts
        self.next_call_index: int = 0  # greater than the index of any call
        self.logprobs_content: ItemLog[LogprobToken] = NO_ITEMS
        self.logprobs_refusal: ItemLog[LogprobToken] = NO_ITEMS
        self.finish_reason: LatestLog[str] = NEVER
        self.graph_data: DataLog[GraphData] = NO_DATA
        self.llm_data: DataLog[LLMData] = NO_DATA
        self.translation_data: DataLog[TranslationData] = NO_DATA
        self.web_search_data: DataLog[WebSearchData] = NO_DATA
        self.extra: ExtraLog | None = None

    @property
    def stop(self) -> Stop:
        """What its finish reason says about its end."""
        return stop_of(self.finish_reason.value)

    def value_at(self, position: int) -> Any:
        """The text as a value, once it is whole; None without a text, or if it does not fit."""
        if self.ended_at is None or self.ended_at > position:
            return None
        if self._value is None or self.refusal.at(position) or self.stop.is_cut_short:
            return None
        return self._value.of(self.content.at(position))

    @property
    def mismatch(self) -> ValueMismatchError | None:
        """Why the text does not fit the response format, where it has to."""
        # A response format does not apply to text beside calls; some put white space there.
        if self._value is None or self.refusal or self.calls:
            return None
        return self._value.error_of(self.content.at())

    def at(self, position: int) -> ParsedChatCompletionChoice[Any]:
        """The choice as of a position."""
        calls = [call.at(position) for call in self.calls if call.born <= position]
        calls.sort(key=lambda call: call.index)
        content = self.logprobs_content.at(position)
        refusal = self.logprobs_refusal.at(position)
        extra = {} if self.extra is None else self.extra.at(position)
        return ParsedChatCompletionChoice(
            index=self.index,
            finish_reason=self.finish_reason.at(position),
            logprobs=(
                ChoiceLogprobs(content=content or None, refusal=refusal or None)
                if content or refusal
                else None
            ),
            message=ParsedChatCompletionMessage(
                role=self.role.at(position) or "assistant",
                content=self.content.optional_at(position),
                refusal=self.refusal.optional_at(position),
                tool_calls=calls or None,
                parsed=self.value_at(position),
                reasoning_content=self.reasoning.optional_at(position),
                reasoning_key=self.reasoning_key.at(position),
                graph_data=self.graph_data.at(position),
                llm_data=self.llm_data.at(position),
                translation_data=self.translation_data.at(position),
                web_search_data=self.web_search_data.at(position),
                annotations=extra.pop("annotations", None),
                audio=extra.pop("audio", None),
                images=extra.pop("images", None),
                reasoning_details=extra.pop("reasoning_details", None),
                extra=extra,
            ),
        )


class Accumulator:
    """A completion that is still arriving.

    Args:
        reader: Reads the text of a choice, if the request had a response format.
        tools: Read the arguments of calls, by the name of the function.
    """

    __slots__ = (
        "__weakref__",
        "choices",
        "created",
        "id",
        "model",
        "position",
        "reader",
        "service_tier",
        "system_fingerprint",
        "tools",
        "usage",
    )

    def __init__(
        self,
        reader: ValueReader[Any] | None = None,
        tools: Mapping[str, ValueReader[Any]] | None = None,
    ) -> None:
        self.reader: Final = reader
        self.tools: Final = tools or _NO_TOOLS
        self.position: int = 0
        self.id: LatestLog[str] = NEVER
        self.created: LatestLog[int] = NEVER
        self.model: LatestLog[str] = NEVER
        self.service_tier: LatestLog[str] = NEVER
        self.system_fingerprint: LatestLog[str] = NEVER
        self.usage: UsageLog = NO_USAGE
        self.choices: Final[dict[int, ChoiceLog]] = {}

    def completion(self, position: int = NOW) -> ParsedChatCompletion[Any]:
        """The completion as of a position."""
        choices = [choice for choice in self.choices.values() if choice.born <= position]
        choices.sort(key=lambda choice: choice.index)
        return ParsedChatCompletion(
            id=self.id.at(position) or "",
            choices=[choice.at(position) for choice in choices],
            created=self.created.at(position) or 0,
            model=self.model.at(position) or "",
            service_tier=self.service_tier.at(position),
            system_fingerprint=self.system_fingerprint.at(position),
            usage=self.usage.at(position),
        )


class Snapshot:
    """A function that returns the completion as it was when this was made."""

    __slots__ = (
        "_accumulator",
        "_position",
    )

    def __init__(self, accumulator: Accumulator) -> None:
        self._accumulator = accumulator
        self._position = accumulator.position

    def __call__(self) -> ParsedChatCompletion[Any]:
        """The completion as of then."""
        return self._accumulator.completion(self._position)
