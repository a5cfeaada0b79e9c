"""Everything that has arrived, readable as of any moment.

Each thing that grows or changes is a log of what was added and when; time is a counter, the tick.
Adding is an append. Reading as of a tick looks up how much had been added by then: that is what
makes every snapshot exact however late it is read, and free until it is read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any, Final, Generic, TypeVar

import msgspec

from ..errors import ValueMismatchError
from .chunks import (
    ChoiceLogprobs,
    GraphData,
    LLMData,
    LogprobToken,
    TranslationData,
    Usage,
    WebSearchData,
)
from .completion import (
    ParsedChatCompletion,
    ParsedChatCompletionChoice,
    ParsedChatCompletionMessage,
    ParsedFunction,
    ParsedFunctionToolCall,
)
from .extent import JSONExtent, Wholeness, wholeness
from .values import ValueReader

V = TypeVar("V")
D = TypeVar("D", bound=msgspec.Struct)

NOW: Final = 2**62
"""A tick that is later than all."""

CUT_SHORT: Final = frozenset({"length", "content_filter"})
"""The finish reasons that mean that the model was stopped in the middle."""


class TextLog:
    """A text that only grows. Pieces are joined when somebody reads, and joined once."""

    __slots__ = ("_ends", "_fresh", "_text", "_ticks", "begun", "done")

    def __init__(self) -> None:
        self.done = False  # its done event is due only once
        self.begun: int | None = None  # the tick of the first piece, were it empty
        self._fresh: list[str] = []  # pieces that are not in _text yet
        self._ticks: list[int] = []  # when each piece came
        self._text = ""
        self._ends: list[int] = []  # where each piece of _text ends

    def __bool__(self) -> bool:
        return bool(self._ticks)

    def append(self, piece: str, tick: int) -> None:
        """Add a piece that is not empty."""
        self._fresh.append(piece)
        self._ticks.append(tick)

    def at(self, tick: int = NOW) -> str:
        """The text as of a tick."""
        if self._fresh:
            fresh, self._fresh = self._fresh, []
            self._ends.extend(accumulate(map(len, fresh), initial=len(self._text)))
            self._ends.pop(-len(fresh) - 1)
            self._text += "".join(fresh)
        count = bisect_right(self._ticks, tick)
        if count == len(self._ticks):
            return self._text
        return self._text[: self._ends[count - 1]] if count else ""

    def optional_at(self, tick: int) -> str | None:
        """The text as of a tick, or None if not even an empty piece had come."""
        return None if self.begun is None or self.begun > tick else self.at(tick)


class ItemLog(Generic[V]):
    """A list that only grows."""

    __slots__ = ("_ends", "_items", "_ticks", "done")

    def __init__(self) -> None:
        self.done = False  # its done event is due only once
        self._items: list[V] = []
        self._ticks: list[int] = []
        self._ends: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._items)

    def extend(self, items: Sequence[V], tick: int) -> None:
        """Add items, at least one."""
        self._items.extend(items)
        self._ticks.append(tick)
        self._ends.append(len(self._items))

    def at(self, tick: int = NOW) -> list[V]:
        """The list as of a tick, as a copy."""
        count = bisect_right(self._ticks, tick)
        return self._items[: self._ends[count - 1]] if count else []


class LatestLog(Generic[V]):
    """A value that is replaced now and then. Most are set once or never."""

    __slots__ = ("_earlier", "_since", "value")

    def __init__(self) -> None:
        self.value: V | None = None
        self._since = NOW
        self._earlier: list[tuple[int, V | None]] | None = None  # since when it was what

    def set(self, value: V, tick: int) -> None:
        """Replace the value."""
        if self.value is not None:
            if self._earlier is None:
                self._earlier = []
            self._earlier.append((self._since, self.value))
        self.value = value
        self._since = tick

    def at(self, tick: int) -> V | None:
        """The value as of a tick, or None before there was one."""
        if tick >= self._since:
            return self.value
        if self._earlier is None:
            return None
        count = bisect_right(self._earlier, tick, key=itemgetter(0))
        return self._earlier[count - 1][1] if count else None


class DataLog(LatestLog[D]):
    """What a built-in tool reports: in each field the last value that was not empty."""

    __slots__ = ()

    def merge(self, data: D, tick: int) -> None:
        """Take over the fields of ``data`` that say something."""
        said = {name: value for name in data.__struct_fields__ if (value := getattr(data, name))}
        if self.value is None:
            self.set(data, tick)
        elif said:
            self.set(msgspec.structs.replace(self.value, **said), tick)


class Value:
    """What a text says as a value, read once for each length that the text has had."""

    __slots__ = ("_error", "_length", "_value")

    def __init__(self) -> None:
        self._length = -1
        self._value: Any = None
        self._error: ValueMismatchError | None = None

    def of(self, text: str, reader: ValueReader[Any]) -> Any:
        """The value; None if the text does not fit."""
        if len(text) != self._length:
            self._value = self._error = None
            try:
                self._value = reader.decode(text)
            except ValueMismatchError as exc:
                self._error = exc
            except Exception as exc:  # noqa: BLE001 - the type's own code may raise anything
                reason = f"{type(exc).__name__}: {exc}"
                self._error = ValueMismatchError(
                    f"reading the text raised {reason}", text=text, reason=reason
                )
                self._error.__cause__ = exc
            self._length = len(text)
        return self._value

    def error_of(self, text: str, reader: ValueReader[Any]) -> ValueMismatchError | None:
        """Why the text does not fit; None if it does."""
        self.of(text, reader)
        return self._error


class ToolCallLog:
    """One tool call. Its id, type and name are set once; its arguments grow."""

    __slots__ = (
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
        self.id: LatestLog[str] = LatestLog()
        self.type: LatestLog[str] = LatestLog()
        self.name: LatestLog[str] = LatestLog()
        self.arguments: Final = TextLog()
        self.extra: LatestLog[Any] = LatestLog()
        self.extent: Final = JSONExtent()
        self.done_at: int | None = None  # the tick of its done event, which is due only once
        self._tools = tools
        self._value = Value()
        self._malformed = False
        self._whole = False

    def append(self, piece: str, tick: int) -> None:
        """Add a piece of the arguments that is not empty."""
        self.arguments.append(piece, tick)
        self.extent.feed(piece)
        if self._whole and not piece.isspace():
            self._whole = False

    def is_whole(self) -> bool:
        """Whether the arguments are one whole JSON value that says itself where it ends."""
        if not self.extent.closed or self._malformed:
            return False
        if not self._whole:
            # Parsed once: only white space keeps it whole, and what does not parse never will.
            self._whole = wholeness(self.arguments.at()) is Wholeness.WHOLE
            self._malformed = not self._whole
        return self._whole

    def is_cut_off(self, *, cut_short: bool) -> bool:
        """Whether the arguments began and did not end.

        Args:
            cut_short: Whether the model was stopped in the middle: arguments that had not begun
                were then about to.
        """
        text = self.arguments.at()
        if not text.strip():
            return cut_short
        return wholeness(text) is Wholeness.TRUNCATED

    def reader_at(self, tick: int = NOW) -> ValueReader[Any] | None:
        """What its arguments are read with, if its tool's type was known as of a tick."""
        return self._tools.get(self.name.at(tick) or "")

    def value_at(self, tick: int) -> Any:
        """The arguments as a value, once they are done; None if they do not fit their type."""
        if self.done_at is None or self.done_at > tick or (reader := self.reader_at(tick)) is None:
            return None
        return self._value.of(self.arguments.at(tick), reader)

    def at(self, tick: int) -> ParsedFunctionToolCall:
        """The call as of a tick."""
        return ParsedFunctionToolCall(
            index=self.index,
            id=self.id.at(tick) or "",
            type=self.type.at(tick) or "function",
            function=ParsedFunction(
                name=self.name.at(tick) or "",
                arguments=self.arguments.at(tick),
                parsed_arguments=self.value_at(tick),
            ),
            extra_content=self.extra.at(tick),
        )


class ChoiceLog:
    """One choice."""

    __slots__ = (
        *("_value", "born", "calls", "calls_by_index", "calls_by_wire_index", "content"),
        *("ended_at", "finish_reason", "graph_data", "index", "llm_data", "logprobs_content"),
        *("logprobs_refusal", "reader", "reasoning", "refusal", "role", "translation_data"),
        "web_search_data",
    )

    def __init__(self, index: int, born: int, reader: ValueReader[Any] | None) -> None:
        self.index: Final = index
        self.born: Final = born
        self.reader: Final = reader
        """What its text is read with, if the request had a response format."""
        self.ended_at: int | None = None  # the tick from which its text is whole
        self._value = Value()
        self.role: LatestLog[str] = LatestLog()
        self.content: Final = TextLog()
        self.refusal: Final = TextLog()
        self.reasoning: Final = TextLog()
        self.calls: Final[list[ToolCallLog]] = []  # in the order in which they began
        self.calls_by_index: Final[dict[int, ToolCallLog]] = {}
        self.calls_by_wire_index: Final[dict[int, ToolCallLog]] = {}  # as the server counts
        self.logprobs_content: ItemLog[LogprobToken] = ItemLog()
        self.logprobs_refusal: ItemLog[LogprobToken] = ItemLog()
        self.finish_reason: LatestLog[str] = LatestLog()
        self.graph_data: DataLog[GraphData] = DataLog()
        self.llm_data: DataLog[LLMData] = DataLog()
        self.translation_data: DataLog[TranslationData] = DataLog()
        self.web_search_data: DataLog[WebSearchData] = DataLog()

    @property
    def has_content(self) -> bool:
        """Whether the model has said anything yet, in whatever form."""
        return bool(
            self.content
            or self.calls
            or self.refusal
            or self.reasoning
            or self.logprobs_content
            or self.logprobs_refusal
        )

    @property
    def is_cut_short(self) -> bool:
        """Whether its finish reason says that the model was stopped in the middle."""
        return self.finish_reason.value in CUT_SHORT

    def value_at(self, tick: int) -> Any:
        """The text as a value, once it is whole; None if it does not fit or there is none."""
        if self.ended_at is None or self.ended_at > tick:
            return None
        if self.reader is None or self.refusal.at(tick) or self.is_cut_short:
            return None
        return self._value.of(self.content.at(tick), self.reader)

    @property
    def mismatch(self) -> ValueMismatchError | None:
        """Why the text does not fit the response format, where it has to."""
        # What a model says beside its calls is talk; some put white space there.
        if self.reader is None or self.refusal or self.calls:
            return None
        return self._value.error_of(self.content.at(), self.reader)

    def at(self, tick: int) -> ParsedChatCompletionChoice[Any]:
        """The choice as of a tick."""
        calls = [call.at(tick) for call in self.calls if call.born <= tick]
        calls.sort(key=lambda call: call.index)
        content = self.logprobs_content.at(tick)
        refusal = self.logprobs_refusal.at(tick)
        return ParsedChatCompletionChoice(
            index=self.index,
            finish_reason=self.finish_reason.at(tick),
            logprobs=(
                ChoiceLogprobs(content=content or None, refusal=refusal or None)
                if content or refusal
                else None
            ),
            message=ParsedChatCompletionMessage(
                role=self.role.at(tick) or "assistant",
                content=self.content.optional_at(tick),
                refusal=self.refusal.optional_at(tick),
                tool_calls=calls or None,
                parsed=self.value_at(tick),
                reasoning_content=self.reasoning.optional_at(tick),
                graph_data=self.graph_data.at(tick),
                llm_data=self.llm_data.at(tick),
                translation_data=self.translation_data.at(tick),
                web_search_data=self.web_search_data.at(tick),
            ),
        )


class Accumulator:
    """A completion in the making.

    Args:
        reader: What the text of a choice is read with, if the request had a response format.
        tools: What the arguments of calls are read with, by the name of the function.
    """

    def __init__(
        self,
        reader: ValueReader[Any] | None = None,
        tools: Mapping[str, ValueReader[Any]] | None = None,
    ) -> None:
        self.reader: Final = reader
        self.tools: Final = tools or {}
        self.tick = 0
        self.id: LatestLog[str] = LatestLog()
        self.created: LatestLog[int] = LatestLog()
        self.model: LatestLog[str] = LatestLog()
        self.service_tier: LatestLog[str] = LatestLog()
        self.system_fingerprint: LatestLog[str] = LatestLog()
        self.usage: LatestLog[Usage] = LatestLog()
        self.choices: Final[dict[int, ChoiceLog]] = {}

    def completion(self, tick: int = NOW) -> ParsedChatCompletion[Any]:
        """The completion as of a tick."""
        choices = [choice for choice in self.choices.values() if choice.born <= tick]
        choices.sort(key=lambda choice: choice.index)
        return ParsedChatCompletion(
            id=self.id.at(tick) or "",
            choices=[choice.at(tick) for choice in choices],
            created=self.created.at(tick) or 0,
            model=self.model.at(tick) or "",
            service_tier=self.service_tier.at(tick),
            system_fingerprint=self.system_fingerprint.at(tick),
            usage=self.usage.at(tick),
        )
