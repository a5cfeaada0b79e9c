"""Request, tools, request: until the model answers without calling any more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Literal, TypeAlias, TypedDict

import anyio
import msgspec

from .config import Limits
from .errors import (
    APIError,
    ContentFilterFinishReasonError,
    ConversationLimitError,
    InvalidParameterError,
    LengthFinishReasonError,
    StreamClosedError,
    StreamTruncatedError,
    WriterError,
)
from .generics import T
from .numbers import check_count, check_positive
from .protocol.completion import (
    ParsedChatCompletion,
    ParsedChatCompletionChoice,
    ParsedFunctionToolCall,
)
from .protocol.events import (
    EVENT_TYPES,
    ChatCompletionStreamEvent,
    ChunkEvent,
    FunctionToolCallArgumentsDoneEvent,
)
from .protocol.rules import Stop, stop_of
from .streaming.channel import DEFAULT_MAX_BUFFER
from .streaming.lifetime import Lifetime, Stage
from .streaming.publisher import Publisher
from .streaming.tool_runs import DEFAULT_LIMIT, OnError, ToolResult, ToolRuns, check_tool_options
from .telemetry.observer import ConversationEnded, ConversationStarted, Observers, Outcome
from .telemetry.timings import Timings

if TYPE_CHECKING:
    from .streaming.stream import ChatCompletionStream
    from .structured.tools import FunctionTool


DEFAULT_MAX_ROUNDS: Final = 10
"""The most requests that a conversation sends."""


class ConversationOptions(TypedDict, total=False):
    """How far a conversation goes, as keyword arguments.

    Attributes:
        max_rounds: The maximum number of requests; 10 by default.
        total_time: A time limit in seconds for the whole conversation, tools included; None, the
            default, means no limit.
        tool_limit: How many calls run at once; 8 by default. None means no limit.
        on_tool_error: What happens when a call fails. "reply", the default, sends the error to
            the model; "raise" ends the conversation.
    """

    max_rounds: int
    total_time: float | None
    tool_limit: int | None
    on_tool_error: OnError


_CUT_OFF_BY: Final[dict[Stop, type[APIError]]] = {
    Stop.LENGTH: LengthFinishReasonError,
    Stop.CONTENT_FILTER: ContentFilterFinishReasonError,
    Stop.FAILURE: StreamTruncatedError,
}


class RoundStartedEvent(
    msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="round.started"
):
    """A request was sent; the events of its answer follow.

    Attributes:
        round: The number of the round, from 0.
    """

    type: ClassVar[Literal["round.started"]] = "round.started"

    round: int


class ToolResultEvent(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="tool.result"):
    """A call was answered. The event comes at once, perhaps between other events of its round.

    Attributes:
        round: The round of the call.
        index: The position of the call among those of its round.
        name: The name of the function.
        tool_call_id: The ID of the call; "" if the server sent none.
        content: The result that is sent to the model.
        is_error: Whether ``content`` is an error.
    """

    type: ClassVar[Literal["tool.result"]] = "tool.result"

    round: int
    index: int
    name: str
    tool_call_id: str
    content: str
    is_error: bool = False


ConversationEvent: TypeAlias = ChatCompletionStreamEvent[T] | RoundStartedEvent | ToolResultEvent
"""Everything a conversation yields; ``type`` says which."""


class Conversation(Publisher[ConversationEvent[T]], Generic[T]):
    """Requests and tool calls in turn, until the model answers. Enter it with ``async with``.

    Made by ``open_conversation()`` and ``AsyncWriter.chat.conversation()``. Each round is a request
    with all messages so far, and a stream. The functions that the model calls run while it streams,
    and their results go into the next round. ``async for event in conversation`` yields the events
    of all rounds. A ``RoundStartedEvent`` comes before the events of each round, and a
    ``ToolResultEvent`` when a call was answered.

    Entering it sends the first request, and raises what entering that stream raises. Reading
    starts when your code first asks for an event or for the result. A slow consumer makes the
    conversation wait. When the block ends, for whatever reason, so do the stream and the tools of
    the round.

    Iteration, ``until_done()`` and ``get_final_completion()`` raise the error that ended the
    conversation:

    Raises:
        ConversationLimitError: The rounds or the time ran out. Its ``messages`` include the results
            of the last round's tools, so you can continue from them.
        StreamClosedError: The conversation was left or closed before the model had answered.
        WriterError: A stream failed; this is its error. A call that was cut off is an error, too.
        ExceptionGroup: A tool failed, and ``on_tool_error`` is "raise".
    """

    _kind = "conversation"
    _event_types = EVENT_TYPES | {RoundStartedEvent, ToolResultEvent}

    def __init__(
        self,
        open_round: Callable[[list[Any]], ChatCompletionStream[T]],
        messages: Iterable[Any],
        *,
        max_rounds: int = DEFAULT_MAX_ROUNDS,
        total_time: float | None = None,
        tools: Iterable[FunctionTool[..., Any]] | None = None,
        limit: int | None = DEFAULT_LIMIT,
        on_error: OnError = "reply",
        n: int | None = None,
        limits: Limits | None = None,
        observers: Observers | None = None,
    ) -> None:
        """Check the arguments, and make the stream of the first round.

        Args:
            open_round: Makes the stream of a round out of the messages, not yet entered.
            messages: The first messages.
            max_rounds: The maximum number of requests.
            total_time: A time limit in seconds for all of it, tools included; None is no limit.
            tools: What the model may call; by default the functions among each request's tools.
            limit: How many calls run at once, see ``run_tools``.
            on_error: What happens when a call fails, see ``run_tools``.
            n: What the requests ask for, if known: a conversation follows one answer.
            limits: Bounds that apply to the conversation itself.
            observers: They are notified when it starts and ends; its streams have their own.
        """
        check_count("max_rounds", max_rounds, InvalidParameterError)
        check_positive("total_time", total_time, InvalidParameterError, optional=True)
        if n not in (None, 1):
            raise _several(n)
        check_tool_options(limit, on_error)
        super().__init__(limits or Limits())
        self._observers = observers
        self._open_round = open_round
        self._messages = list(messages)
        self._max_rounds = max_rounds
        self._total_time = math.inf if total_time is None else total_time
        self._tools = None if tools is None else list(tools)
        self._limit = limit
        self._on_error: OnError = on_error
        self._completions: list[ParsedChatCompletion[T]] = []
        self._timings: list[Timings] = []  # of all rounds but the latest
        self._stream = open_round(self.messages)  # here, so that an invalid request is an error now
        self._unanswered: tuple[ParsedChatCompletionChoice[T], ToolRuns] | None = None
        self._snapshot: Callable[[], ParsedChatCompletion[Any]] = ParsedChatCompletion
        self._has_begun = False
        # Held by who publishes; notified when there is more that results may follow.
        self._publishing = anyio.Condition(anyio.Lock(fast_acquire=True))
        self._answerable: set[int] = set()  # calls whose done events were published
        self._is_split = False  # what was published last may not be all that one read brought

    # What it knows.

    @property
    def messages(self) -> list[Any]:
        """The messages so far, in the form of the next request's ``messages``.

        A round is added when it has ended: the final answer, or the calls and their results.
        """
        return list(self._messages)

    @property
    def completions(self) -> list[ParsedChatCompletion[T]]:
        """The completions so far, one for each round that was streamed to its end."""
        return list(self._completions)

    @property
    def timings(self) -> list[Timings]:
        """The timings so far, one for each round. Those of the latest round still change."""
        return [*self._timings, self._stream.timings]

    @property
    def current_completion_snapshot(self) -> ParsedChatCompletion[T]:
        """The completion of the latest round so far. It has no choices before the first chunk."""
        return self._stream.current_completion_snapshot

    @property
    def has_begun(self) -> bool:
        """Whether events have arrived, so that a new subscriber has missed some."""
        return self._has_begun

    async def get_final_completion(self) -> ParsedChatCompletion[T]:
        """Wait for the end, and return the last round's completion. Discards the events."""
        await self.until_done()
        return self._completions[-1]

    def _freeze_snapshot(self) -> Callable[[], ParsedChatCompletion[Any]]:
        return self._snapshot  # the round's completion as subscribers know it now

    # The side of the rounds: everything below runs in the conversation's own task, or in one of
    # its streams'.

    def _enter_work(self) -> anyio.CancelScope:
        return anyio.CancelScope(deadline=anyio.current_time() + self._total_time)

    async def _bring_events(self, lifetime: Lifetime) -> None:
        if self._observers is not None:
            self._observers.notify(ConversationStarted(conversation=self))
        for number in range(self._max_rounds):
            if number:
                self._timings.append(self._stream.timings)
                self._stream = self._open_round(self.messages)
            choice = await self._stream_round(lifetime, number)
            # Whatever its finish reason says: Writer's own tools end with "tool_calls" and without
            # a call, and others' calls with "stop".
            if not choice.message.tool_calls:
                self._messages.append(choice.message.to_param())
                self._end(None)
                return
            self._take_in_round()
        raise self._limit_error(f"{self._max_rounds} rounds (max_rounds)")

    def _outcome(self) -> WriterError:
        return StreamClosedError(
            "The conversation was closed before it was finished.",
            completion=self._completion_so_far(),
        )

    def _outcome_of_stop(self) -> WriterError:
        if anyio.current_time() >= self._entered().work.deadline:
            return self._limit_error(f"{self._total_time} s (total_time)")
        return self._outcome()

    def _report_end(self, error: Exception | None, outcome: Outcome) -> None:
        if self._observers is not None:
            self._observers.notify(
                ConversationEnded(conversation=self, outcome=outcome, error=error)
            )

    async def _stream_round(self, lifetime: Lifetime, number: int) -> ParsedChatCompletionChoice[T]:
        """One request, its answer, and its tools."""
        async with self._stream as stream:
            runs = stream.run_tools(self._tools, limit=self._limit, on_error=self._on_error)
            lifetime.advance(Stage.OPEN)
            await lifetime.wait_for_demand()
            self._snapshot = ParsedChatCompletion
            self._answerable = set()
            await self._publish([RoundStartedEvent(number)])
            stream.start_soon(self._publish_results, number, runs)  # until the last has ended
            async for batch in stream.batches():
                await self._publish(batch)
            await self._publish([])  # nothing is missing of it any more
            completion = await stream.get_final_completion()
            self._completions.append(completion)
            if len(completion.choices) > 1:
                raise _several(len(completion.choices))
            choice = completion.choices[0]
            for call in choice.message.tool_calls or ():
                if call.index not in self._answerable:
                    _check_end_of_call(call, choice, completion)
                    await self._publish([], answerable={call.index})  # without having been run
            self._unanswered = choice, runs
            return choice
        # On asyncio the task of a tool can be cancelled by itself, and all of the round with it.
        raise self._outcome()

    async def _publish_results(self, number: int, runs: ToolRuns) -> None:
        """Publish what came of the calls, each after its own call and between two reads.

        A tool is started before the events of its call are published, so a fast one would overtake
        them. Nor may its result come between the events of one chunk.
        """
        count = 0
        while results := await runs.results_after(count):
            count += len(results)
            calls = {result.index for result in results}
            async with self._publishing:
                while self._is_split or not self._answerable >= calls:
                    await self._publishing.wait()
                await self._fanout.publish([_result_event(number, each) for each in results])

    async def _publish(self, events: list[Any], *, answerable: Iterable[int] = ()) -> None:
        """Hand events to all subscribers, in the same order to each.

        Args:
            events: Which.
            answerable: Calls that have no done event, and may be answered all the same.
        """
        async with self._publishing:
            self._has_begun = True
            for event in reversed(events):
                if isinstance(event, ChunkEvent):
                    # Who joins from here on does not get these and finds them in its snapshot.
                    self._snapshot = partial(getattr, event, "snapshot")
                    break
            await self._fanout.publish(events)
            self._is_split = len(events) >= DEFAULT_MAX_BUFFER  # the buffer was full
            done = (each for each in events if isinstance(each, FunctionToolCallArgumentsDoneEvent))
            self._answerable.update(answerable, (event.index for event in done))
            self._publishing.notify_all()

    def _take_in_round(self) -> None:
        """Add the calls of the round and the answers to them to the messages."""
        if self._unanswered is None:
            return
        choice, runs = self._unanswered
        self._unanswered = None
        answers = {result.index: result for result in runs.results_so_far(choice.index)}
        self._messages.append(choice.message.to_param())
        for call in choice.message.tool_calls or ():
            self._messages.append((answers.get(call.index) or _no_result(call)).message())

    def _limit_error(self, limit: str) -> ConversationLimitError:
        self._take_in_round()
        return ConversationLimitError(
            f"The conversation was not finished after {limit}.",
            messages=self.messages,
            completion=self._completion_so_far(),
        )

    def _completion_so_far(self) -> ParsedChatCompletion[T] | None:
        return self.current_completion_snapshot if self._stream.chunk_count else None


def _result_event(number: int, result: ToolResult) -> ToolResultEvent:
    return ToolResultEvent(
        round=number,
        index=result.index,
        name=result.name,
        tool_call_id=result.tool_call_id,
        content=result.content,
        is_error=result.error is not None,
    )


def _no_result(call: ParsedFunctionToolCall) -> ToolResult:
    return ToolResult(
        index=call.index,
        name=call.function.name,
        tool_call_id=call.id,
        content="Error: there was no answer in time.",
    )


def _check_end_of_call(
    call: ParsedFunctionToolCall,
    choice: ParsedChatCompletionChoice[Any],
    completion: ParsedChatCompletion[Any],
) -> None:
    """Raise an error for a call that was cut off because the model was stopped."""
    reason = choice.finish_reason
    if (cls := _CUT_OFF_BY.get(stop_of(reason))) is not None:
        raise cls(
            f"The call of {call.function.name} was cut off (finish reason: {reason}), so it cannot "
            "be answered.",
            completion=completion,
        )


def _several(n: int | None) -> InvalidParameterError:
    return InvalidParameterError(f"A conversation follows one answer: n must be 1, not {n}.")
