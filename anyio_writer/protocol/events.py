"""What a consumer gets: the event structs and their union.

Every event is an immutable msgspec struct, tagged with its ``type``, whose JSON is what one would
forward to a browser: the kind, the choice, and what is new. What an event can tell beyond that
(the text so far, the completion so far) is read from the stream's accumulated state as of the
event, when somebody asks, and costs nothing until then.

https://dev.writer.com/home/streaming-helpers names the events; the two about tool calls are the
official SDK's.
"""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    TypeAlias,
    get_args,
    get_origin,
)

import msgspec

from ..errors import DetachedEventError
from ..generics import T
from .chunks import ChatCompletionChunk, LogprobToken

if TYPE_CHECKING:
    from .accumulator import Accumulator
    from .completion import ParsedChatCompletion


class _Origin:
    """One slot for where an event came from, beside the struct's fields and not in its JSON.

    ``_origin`` is ``(accumulator, position, payload)``. Only a chunk's event has the payload: a
    piece of text that is kept should not keep the bytes that it came in. A struct field would show
    up in the JSON, and a ``__dict__`` would cost five times the memory.
    """

    __slots__ = ("_origin",)


_slot: Final = _Origin.__dict__["_origin"]

# Events are frozen, so the slot is filled through its descriptor.
set_origin: Final = _slot.__set__


class _Event(msgspec.Struct, _Origin, frozen=True, gc=False, tag_field="type"):
    def __copy__(self) -> Any:
        return self  # immutable, and a field-wise copy would lose the origin

    def __deepcopy__(self, memo: object) -> Any:
        return self


def _origin_of(event: _Event) -> tuple[Accumulator, int, bytes]:
    """Where an event came from.

    Raises:
        DetachedEventError: It was pickled, decoded or made by hand.
    """
    try:
        origin: tuple[Accumulator, int, bytes] = _slot.__get__(event)
    except AttributeError:
        raise DetachedEventError(
            f"This {type(event).__name__} was unpickled, decoded or made by hand, so only its "
            "fields are known. What else an event can say (snapshot, parsed, arguments, raw and "
            "the like) is read from the stream that it came from."
        ) from None
    return origin


def completion_as_of(event: _Event) -> ParsedChatCompletion[Any]:
    """The completion as it stood at an event, which is included.

    Raises:
        DetachedEventError: It was pickled, decoded or made by hand.
    """
    accumulator, position, _ = _origin_of(event)
    return accumulator.completion(position)


class ChunkEvent(_Event, frozen=True, gc=False, tag="chunk"):
    """A chunk arrived. The events that are made from it follow.

    Attributes:
        chunk: The chunk.
    """

    type: ClassVar[Literal["chunk"]] = "chunk"

    chunk: ChatCompletionChunk

    @property
    def snapshot(self) -> ParsedChatCompletion[Any]:
        """The completion so far, this chunk included."""
        return completion_as_of(self)

    @property
    def raw(self) -> bytes:
        """The JSON of the chunk as the server sent it, with the fields that are not known here."""
        return _origin_of(self)[2]


class ContentDeltaEvent(_Event, frozen=True, gc=False, tag="content.delta"):
    """A piece of text arrived.

    Attributes:
        choice_index: The choice that the text belongs to; 0 unless ``n`` is above 1.
        delta: The new piece, never empty.
    """

    type: ClassVar[Literal["content.delta"]] = "content.delta"

    choice_index: int
    delta: str

    @property
    def content(self) -> str:
        """The new piece; another name for ``delta``."""
        return self.delta

    @property
    def snapshot(self) -> str:
        """The choice's text so far."""
        accumulator, position, _ = _origin_of(self)
        return accumulator.choices[self.choice_index].content.at(position)

    @property
    def parsed(self) -> Any:
        """The part of the value that has arrived so far, if the request had a response format.

        It consists of plain lists and dictionaries. Strings may be incomplete; numbers appear when
        they are complete. None if there is nothing yet. The text is parsed each time you read this,
        so read it only when you show it.
        """
        accumulator, position, _ = _origin_of(self)
        reader = accumulator.reader
        if reader is None:
            return None
        return reader.partial(accumulator.choices[self.choice_index].content.at(position))


class ContentDoneEvent(_Event, Generic[T], frozen=True, gc=False, tag="content.done"):
    """A choice's text is complete; ``content`` is all of it."""

    type: ClassVar[Literal["content.done"]] = "content.done"

    choice_index: int
    content: str

    @property
    def parsed(self) -> T | None:
        """The text as a value of the response format.

        None if the request had no response format. Also None if the text is no such value: it
        comes with a refusal or tool calls, it was cut off by ``max_tokens`` or a content filter, or
        it does not fit. In the last two cases the stream ends with an error.
        """
        accumulator, position, _ = _origin_of(self)
        value: T | None = accumulator.choices[self.choice_index].value_at(position)
        return value


class RefusalDeltaEvent(_Event, frozen=True, gc=False, tag="refusal.delta"):
    """A piece of a refusal arrived."""

    type: ClassVar[Literal["refusal.delta"]] = "refusal.delta"

    choice_index: int
    delta: str

    @property
    def snapshot(self) -> str:
        """The choice's refusal so far."""
        accumulator, position, _ = _origin_of(self)
        return accumulator.choices[self.choice_index].refusal.at(position)


class RefusalDoneEvent(_Event, frozen=True, gc=False, tag="refusal.done"):
    """A choice's refusal is complete; ``refusal`` is all of it."""

    type: ClassVar[Literal["refusal.done"]] = "refusal.done"

    choice_index: int
    refusal: str


class ReasoningDeltaEvent(_Event, frozen=True, gc=False, tag="reasoning.delta"):
    """A piece of the model's reasoning arrived.

    Attributes:
        choice_index: The choice that the reasoning belongs to.
        delta: The new piece, never empty.
    """

    type: ClassVar[Literal["reasoning.delta"]] = "reasoning.delta"

    choice_index: int
    delta: str

    @property
    def snapshot(self) -> str:
        """The choice's reasoning so far."""
        accumulator, position, _ = _origin_of(self)
        return accumulator.choices[self.choice_index].reasoning.at(position)


class ReasoningDoneEvent(_Event, frozen=True, gc=False, tag="reasoning.done"):
    """A choice's reasoning is complete; ``reasoning`` is all of it."""

    type: ClassVar[Literal["reasoning.done"]] = "reasoning.done"

    choice_index: int
    reasoning: str


class LogprobsContentDeltaEvent(_Event, frozen=True, gc=False, tag="logprobs.content.delta"):
    """Log probabilities of text tokens arrived; ``content`` holds the new tokens."""

    type: ClassVar[Literal["logprobs.content.delta"]] = "logprobs.content.delta"

    choice_index: int
    content: list[LogprobToken]

    @property
    def snapshot(self) -> list[LogprobToken]:
        """All of the choice's text tokens so far."""
        accumulator, position, _ = _origin_of(self)
        return accumulator.choices[self.choice_index].logprobs_content.at(position)


class LogprobsContentDoneEvent(_Event, frozen=True, gc=False, tag="logprobs.content.done"):
    """The log probabilities of a choice's text tokens are complete; ``content`` has all of them."""

    type: ClassVar[Literal["logprobs.content.done"]] = "logprobs.content.done"

    choice_index: int
    content: list[LogprobToken]


class LogprobsRefusalDeltaEvent(_Event, frozen=True, gc=False, tag="logprobs.refusal.delta"):
    """Log probabilities of refusal tokens arrived; ``refusal`` holds the new tokens."""

    type: ClassVar[Literal["logprobs.refusal.delta"]] = "logprobs.refusal.delta"

    choice_index: int
    refusal: list[LogprobToken]

    @property
    def snapshot(self) -> list[LogprobToken]:
        """All of the choice's refusal tokens so far."""
        accumulator, position, _ = _origin_of(self)
        return accumulator.choices[self.choice_index].logprobs_refusal.at(position)


class LogprobsRefusalDoneEvent(_Event, frozen=True, gc=False, tag="logprobs.refusal.done"):
    """The log probabilities of a choice's refusal are complete; ``refusal`` has all of them."""

    type: ClassVar[Literal["logprobs.refusal.done"]] = "logprobs.refusal.done"

    choice_index: int
    refusal: list[LogprobToken]


class FunctionToolCallArgumentsDeltaEvent(
    _Event, frozen=True, gc=False, tag="tool_calls.function.arguments.delta"
):
    """A tool call began, or a piece of its arguments arrived.

    Attributes:
        choice_index: The choice that the call belongs to.
        index: The position of the call among those of its choice, as in the completion.
        name: The name of the function, as far as it is known.
        arguments_delta: The new piece of the arguments, as JSON text; "" if the call only began.
    """

    type: ClassVar[Literal["tool_calls.function.arguments.delta"]] = (
        "tool_calls.function.arguments.delta"
    )

    choice_index: int
    index: int
    name: str
    arguments_delta: str

    @property
    def arguments(self) -> str:
        """The call's arguments so far, as JSON text."""
        accumulator, position, _ = _origin_of(self)
        return (
            accumulator.choices[self.choice_index].calls_by_index[self.index].arguments.at(position)
        )

    @property
    def parsed_arguments(self) -> Any:
        """The part of the arguments that has arrived so far, as a dictionary.

        None if there is nothing yet, or if the tool was not made with ``function_tool``. The text
        is parsed each time you read this.
        """
        accumulator, position, _ = _origin_of(self)
        call = accumulator.choices[self.choice_index].calls_by_index[self.index]
        reader = call.reader_at(position)
        return None if reader is None else reader.partial(call.arguments.at(position))


class FunctionToolCallArgumentsDoneEvent(
    _Event, frozen=True, gc=False, tag="tool_calls.function.arguments.done"
):
    """A tool call is complete.

    Attributes:
        choice_index: The choice that the call belongs to.
        index: The position of the call among those of its choice.
        name: The name of the function.
        tool_call_snapshot_id: The ID of the call, for the ``tool`` message that answers it.
        arguments: All of the arguments, as JSON text; "" if there are none.
    """

    type: ClassVar[Literal["tool_calls.function.arguments.done"]] = (
        "tool_calls.function.arguments.done"
    )

    choice_index: int
    index: int
    name: str
    tool_call_snapshot_id: str
    arguments: str

    @property
    def parsed_arguments(self) -> Any:
        """The arguments as a struct, if the tool was made with ``function_tool``.

        Its fields have the names and types of the function's parameters. None if the arguments do
        not fit; the tool's ``decode`` says why.
        """
        accumulator, position, _ = _origin_of(self)
        return accumulator.choices[self.choice_index].calls_by_index[self.index].value_at(position)


ChatCompletionStreamEvent: TypeAlias = (
    ChunkEvent
    | ContentDeltaEvent
    | ContentDoneEvent[T]
    | ReasoningDeltaEvent
    | ReasoningDoneEvent
    | RefusalDeltaEvent
    | RefusalDoneEvent
    | LogprobsContentDeltaEvent
    | LogprobsContentDoneEvent
    | LogprobsRefusalDeltaEvent
    | LogprobsRefusalDoneEvent
    | FunctionToolCallArgumentsDeltaEvent
    | FunctionToolCallArgumentsDoneEvent
)
"""Every event of a stream. ``type`` says which it is, also to type checkers."""

EVENT_TYPES: Final = frozenset(
    get_origin(member) or member for member in get_args(ChatCompletionStreamEvent)
)
"""The classes of all events."""
