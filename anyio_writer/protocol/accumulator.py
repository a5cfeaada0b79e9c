"""Everything that has arrived, readable as of any moment.

Each thing that grows or changes is a log of what was added and when; time is a counter, the tick.
Adding is an append. Reading as of a tick looks up how much had been added by then: that is what
makes every snapshot exact however late it is read, and free until it is read.

Of the dozen things that an answer may hold, most never come. So there is one empty log of each
kind for all answers (``NO_TEXT``, ``NO_ITEMS``, ``NEVER``, ``NO_DATA``), which never changes: what
adds to a log returns the log to be kept, a new one the first time::

    choice.refusal = choice.refusal.append(piece, tick)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any, Final, Generic, Self, TypeVar

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

_NO_TOOLS: Final[Mapping[str, ValueReader[Any]]] = {}


class TextLog:
    """A text that only grows. Pieces are joined when somebody reads, and joined once."""

    __slots__ = ("_begun", "_ends", "_fresh", "_text", "_ticks", "done")

    def __init__(self, begun: int | None = None) -> None:
        self.done = False  # its done event is due only once
        self._begun: Final = begun  # the tick of the first piece, were it empty
        self._fresh: list[str] = []  # pieces that are not in _text yet
        self._ticks: list[int] = []  # when each piece came
        self._text = ""
        self._ends: list[int] = []  # where each piece of _text ends

    def __bool__(self) -> bool:
        return bool(self._ticks)

    def append(self, piece: str, tick: int) -> TextLog:
        """Add a piece; also an empty one begins a text."""
        if self._begun is None:
            return TextLog(tick).append(piece, tick)
        if piece:
            self._fresh.append(piece)
            self._ticks.append(tick)
        return self

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
        return None if self._begun is None or self._begun > tick else self.at(tick)


NO_TEXT: Final = TextLog()


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

    def extend(self, items: Sequence[V], tick: int) -> ItemLog[V]:
        """Add items, at least one."""
        if self is NO_ITEMS:
            log: ItemLog[V] = ItemLog()
            return log.extend(items, tick)
        self._items.extend(items)
        self._ticks.append(tick)
        self._ends.append(len(self._items))
        return self

    def at(self, tick: int = NOW) -> list[V]:
        """The list as of a tick, as a copy."""
        count = bisect_right(self._ticks, tick)
        return self._items[: self._ends[count - 1]] if count else []


NO_ITEMS: Final[ItemLog[Any]] = ItemLog()


class LatestLog(Generic[V]):
    """A value that is replaced now and then. Most are set once or never."""

    __slots__ = ("_earlier", "_since", "value")

    def __init__(self, value: V | None = None, since: int = NOW) -> None:
        self.value = value
        self._since = since
        self._earlier: list[tuple[int, V | None]] | None = None  # since when it was what

    def set(self, value: V, tick: int) -> Self:
        """Replace the value."""
        if self.value is None:
            return type(self)(value, tick)
        if self._earlier is None:
            self._earlier = []
        self._earlier.append((self._since, self.value))
        self.value = value
        self._since = tick
        return self

    def at(self, tick: int) -> V | None:
        """The value as of a tick, or None before there was one."""
        if tick >= self._since:
            return self.value
        if self._earlier is None:
            return None
        count = bisect_right(self._earlier, tick, key=itemgetter(0))
        return self._earlier[count - 1][1] if count else None


NEVER: Final[LatestLog[Any]] = LatestLog()


class DataLog(LatestLog[D]):
    """What a built-in tool reports: in each field the last value that was not empty."""

    __slots__ = ()

    def merge(self, data: D, tick: int) -> Self:
        """Take over the fields of ``data`` that say something."""
        if self.value is None:
            return self.set(data, tick)
        said = {name: value for name in data.__struct_fields__ if (value := getattr(data, name))}
        return self.set(msgspec.structs.replace(self.value, **said), tick) if said else self


NO_DATA: Final[DataLog[Any]] = DataLog()


class Value:
    """What a text says as a value, read once for each length that the text has had."""

    __slots__ = ("_error", "_length", "_reader", "_value")

    def __init__(self, reader: ValueReader[Any]) -> None:
        self._reader: Final = reader
        self._length = -1
        self._value: Any = None
        self._error: ValueMismatchError | None = None

    def of(self, text: str) -> Any:
        """The value; None if the text does not fit."""
        if len(text) != self._length:
            self._value = self._error = None
            try:
                self._value = self._reader.decode(text)
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

    def error_of(self, text: str) -> ValueMismatchError | None:
        """Why the text does not fit; None if it does."""
        self.of(text)
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
        self.id: LatestLog[str] = NEVER
        self.type: LatestLog[str] = NEVER
        self.name: LatestLog[str] = NEVER
        self.arguments = NO_TEXT
        self.extra: LatestLog[Any] = NEVER
        self.extent: Final = JSONExtent()
        self.done_at: int | None = None  # the tick of its done event, which is due only once
        self._tools = tools
        self._value: Value | None = None
        self._malformed = False
        self._whole = False

    def append(self, piece: str, tick: int) -> None:
        """Add a piece of the arguments that is not empty."""
        self.arguments = self.arguments.append(piece, tick)
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
        if self._value is None:
            self._value = Value(reader)  # a name is set once, and so is what goes with it
        return self._value.of(self.arguments.at(tick))

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
        self._value = None if reader is None else Value(reader)
        self.role: LatestLog[str] = NEVER
        self.content = NO_TEXT
        self.refusal = NO_TEXT
        self.reasoning = NO_TEXT
        self.calls: Final[list[ToolCallLog]] = []  # in the order in which they began
        self.calls_by_index: Final[dict[int, ToolCallLog]] = {}
        self.calls_by_wire_index: Final[dict[int, ToolCallLog]] = {}  # as the server counts
        self.logprobs_content: ItemLog[LogprobToken] = NO_ITEMS
        self.logprobs_refusal: ItemLog[LogprobToken] = NO_ITEMS
        self.finish_reason: LatestLog[str] = NEVER
        self.graph_data: DataLog[GraphData] = NO_DATA
        self.llm_data: DataLog[LLMData] = NO_DATA
        self.translation_data: DataLog[TranslationData] = NO_DATA
        self.web_search_data: DataLog[WebSearchData] = NO_DATA

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
        if self._value is None or self.refusal.at(tick) or self.is_cut_short:
            return None
        return self._value.of(self.content.at(tick))

    @property
    def mismatch(self) -> ValueMismatchError | None:
        """Why the text does not fit the response format, where it has to."""
        # What a model says beside its calls is talk; some put white space there.
        if self._value is None or self.refusal or self.calls:
            return None
        return self._value.error_of(self.content.at())

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

    __slots__ = (
        *("__weakref__", "choices", "created", "id", "model", "reader", "service_tier"),
        *("system_fingerprint", "tick", "tools", "usage"),
    )

    def __init__(
        self,
        reader: ValueReader[Any] | None = None,
        tools: Mapping[str, ValueReader[Any]] | None = None,
    ) -> None:
        self.reader: Final = reader
        self.tools: Final = tools or _NO_TOOLS
        self.tick = 0
        self.id: LatestLog[str] = NEVER
        self.created: LatestLog[int] = NEVER
        self.model: LatestLog[str] = NEVER
        self.service_tier: LatestLog[str] = NEVER
        self.system_fingerprint: LatestLog[str] = NEVER
        self.usage: LatestLog[Usage] = NEVER
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


class Snapshot:
    """A function that returns the completion as of the moment when this was made."""

    __slots__ = ("_accumulator", "_tick")

    def __init__(self, accumulator: Accumulator) -> None:
        self._accumulator = accumulator
        self._tick = accumulator.tick

    def __call__(self) -> ParsedChatCompletion[Any]:
        """The completion as of then."""
        return self._accumulator.completion(self._tick)
