"""Records in, events out: a stream and a conversation that somebody else has asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from ..config import StreamSettings
from ..conversation import ConversationEvent, RoundStartedEvent, ToolResultEvent
from ..errors import APIError, ConversationLimitError, StreamClosedError, WriterError
from ..protocol.completion import ParsedChatCompletion
from ..protocol.events import EVENT_TYPES, completion_as_of
from ..protocol.state import StreamState
from ..protocol.values import ValueReader
from ..streaming.channel import Batch
from ..streaming.deadlines import Deadlines
from ..streaming.fanout import Fanout, Unsent
from ..streaming.lifetime import Lifetime, Stage
from ..streaming.publisher import Publisher
from ..streaming.pump import Pump, check_size
from ..streaming.stream import ChatCompletionStream
from ..telemetry.recorder import Recorder
from .reading import LogSource
from .records import End, RoundStarted, ToolResulted, rebuild_error, stopped_error

if TYPE_CHECKING:
    from ..structured.tools import FunctionTool

T = TypeVar("T")

_Snapshot = Callable[[], ParsedChatCompletion[Any]]


class Skip:
    """Holds the first events back.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self.left: int = count
        """How many are still to be held back."""
        self._snapshot: _Snapshot | None = None

    def take(self, events: Batch, remember: Callable[[], _Snapshot]) -> Batch:
        """What is to be delivered of these events."""
        if not self.left or not events:
            return events
        held, rest = events[: self.left], events[self.left :]
        self.left -= len(held)
        if not self.left:
            last = held[-1]
            is_marker = isinstance(last, RoundStartedEvent | ToolResultEvent)
            self._snapshot = remember() if is_marker else partial(completion_as_of, last)
        return rest

    def snapshot_for(self, remember: Callable[[], _Snapshot]) -> _Snapshot:
        """The completion as it stands for a subscriber that joins now.

        What it gets begins behind the events that are held back, so they are part of it.
        """
        if not self.left:
            return remember()

        def snapshot() -> ParsedChatCompletion[Any]:
            return (self._snapshot or remember())()

        return snapshot


class ReplayPump(Pump):
    """Reads a log to its end, in place of a response."""

    __slots__ = ("_log", "_skip")

    bytes_received: int  # again, for type checkers: ``run`` adds to it

    def __init__(
        self,
        source: LogSource,
        state: StreamState[Any],
        fanout: Fanout,
        settings: StreamSettings,
        recorder: Recorder,
        *,
        skip: Skip,
    ) -> None:
        super().__init__(source, state, fanout, settings, recorder)
        self._log = source
        self._skip = skip

    async def run(self, deadlines: Deadlines) -> None:
        """Read until the recorded end.

        Raises:
            WriterError: What the producer's stream ended with, or what is wrong with the log.
        """
        self._deadlines = deadlines
        state = self._state
        count = 0
        end: End | None = None
        while end is None:
            deadlines.next_bytes(has_content=state.content_at > 0, is_complete=False)
            records = await self._log.next_records()
            now = anyio.current_time()
            deadlines.bytes_received(now)
            state.n = self._log.n
            chunk_count = state.chunk_count
            # Made whether or not anybody listens: they are counted.
            events: Batch = []
            try:
                for record in records:
                    if isinstance(record, bytes):
                        self.bytes_received += len(record)
                        check_size(self.bytes_received, self._settings.limits.max_answer_bytes)
                        state.feed_data(record, events)
                    elif isinstance(record, End):
                        end = record
            finally:
                count += len(events)
                unsent = self._publish_nowait(events)
                if state.chunk_count != chunk_count:
                    deadlines.chunk_received()
                    chunks = state.chunk_count - chunk_count
                    self._recorder.chunks_received(state, now, chunks, events)
                await self._send(unsent)
            await checkpoint()
        if end.state == "complete" or end.after > count:
            await self._publish(finish(state))
        raise_end(end)

    async def drain(self) -> None:
        """Nothing comes behind the end of a log."""

    def _publish_nowait(self, events: Batch) -> Unsent:
        return super()._publish_nowait(self._skip.take(events, self._state.remember))


def raise_end(end: End) -> None:
    """Raise what a log ended with, unless it ended well."""
    if end.error is not None:
        raise rebuild_error(end.error)
    if end.state == "stopped":
        raise stopped_error(end)


def finish(state: StreamState[Any]) -> Batch:
    """The last events of an answer that is complete, because its producer says so."""
    state.feed_data(b"[DONE]", None)
    return list(state.finish())


class RelayedStream(ChatCompletionStream[T], Generic[T]):
    """An answer that is read through a relay. Made by ``Relay.open_stream()``.

    It is a ``ChatCompletionStream``. Somebody else has sent the request, so ``response`` and
    ``request_id`` are None.
    """

    def __init__(
        self,
        source: LogSource,
        settings: StreamSettings,
        *,
        response_format: ValueReader[T] | None = None,
        tools: Mapping[str, FunctionTool[..., Any]] | None = None,
        skip: int = 0,
    ) -> None:
        self.skips: bool = skip > 0
        """Whether its first events are not delivered."""
        self._log = source
        self._skip = Skip(skip)
        super().__init__(
            source,
            settings,
            response_format=response_format,
            tools=tools,
            make_pump=partial(ReplayPump, skip=self._skip),
        )

    @property
    def generation(self) -> int:
        """Which of the key's answers this is, for ``Relay.open_stream()``; 0 before it is open."""
        return self._log.generation

    def _freeze_snapshot(self) -> Callable[[], ParsedChatCompletion[T]]:
        return self._skip.snapshot_for(super()._freeze_snapshot)


class RelayedConversation(Publisher[ConversationEvent[T]], Generic[T]):
    """A conversation that is read through a relay. Made by ``Relay.open_conversation()``.

    It yields the events of all rounds, as a ``Conversation`` does. Iteration, ``until_done()`` and
    ``get_final_completion()`` raise the error that ended the conversation, if there was one.
    """

    _kind = "conversation"
    _event_types = EVENT_TYPES | {RoundStartedEvent, ToolResultEvent}

    def __init__(
        self,
        source: LogSource,
        settings: StreamSettings,
        *,
        response_format: ValueReader[T] | None = None,
        tools: Mapping[str, FunctionTool[..., Any]] | None = None,
        skip: int = 0,
    ) -> None:
        super().__init__(settings.limits)
        self._log = source
        self._settings = settings
        self._response_format = response_format
        self._tools = tools
        self._skip = Skip(skip)
        self._completions: list[ParsedChatCompletion[T]] = []
        self._state = self._new_state()
        self._after = 0  # how many events of the round's answer there were
        self._is_round_over = True
        self._bytes = 0
        self._has_begun = False
        self._deadlines: Deadlines

    # What it knows.

    @property
    def generation(self) -> int:
        """Which of the key's answers this is, for ``Relay.open_conversation()``."""
        return self._log.generation

    @property
    def completions(self) -> list[ParsedChatCompletion[T]]:
        """The completions so far, one for each round that has ended."""
        return list(self._completions)

    @property
    def current_completion_snapshot(self) -> ParsedChatCompletion[T]:
        """The completion of the latest round so far. It has no choices before the first chunk."""
        return self._state.current_completion_snapshot

    @property
    def has_begun(self) -> bool:
        """Whether events have arrived, so that a new subscriber has missed some."""
        return self._has_begun

    async def get_final_completion(self) -> ParsedChatCompletion[T]:
        """Wait for the end, and return the last round's completion. Discards the events."""
        await self.until_done()
        return self._completions[-1]

    def _freeze_snapshot(self) -> Callable[[], ParsedChatCompletion[Any]]:
        return self._skip.snapshot_for(self._state.remember)

    # The side of the log: everything below runs in the conversation's own task.

    def _new_state(self) -> StreamState[T]:
        limits = self._settings.limits
        return StreamState(
            max_depth=limits.max_depth,
            max_choices=limits.max_choices,
            max_tool_calls=limits.max_tool_calls,
            response_format=self._response_format,
            tools=self._tools,
        )

    def _enter_work(self) -> anyio.CancelScope:
        self._deadlines = Deadlines(self._settings.timeouts, self._settings.end_grace)
        return self._deadlines.scope

    async def _bring_events(self, lifetime: Lifetime) -> None:
        await self._log.find()
        lifetime.advance(Stage.OPEN)
        await lifetime.wait_for_demand()
        await self._replay()
        self._end(None)

    def _outcome(self) -> WriterError:
        return StreamClosedError("The conversation was closed before it was finished.")

    def _outcome_of_stop(self) -> WriterError:
        return self._deadlines.error() or self._outcome()

    def _complete(self, error: Exception | None) -> None:
        if isinstance(error, APIError | StreamClosedError | ConversationLimitError):
            error.completion = self._state.completion_so_far

    async def _replay(self) -> None:
        end: End | None = None
        while end is None:
            payloads: list[bytes] = []
            for record in await self._log.next_records():
                if isinstance(record, bytes):
                    payloads.append(record)
                    continue
                await self._take_payloads(payloads)
                payloads = []
                if isinstance(record, RoundStarted):
                    await self._end_round()
                    self._begin_round()
                    await self._publish([record.event()])
                elif isinstance(record, ToolResulted):
                    if record.after > self._after:
                        await self._end_round()
                    await self._publish([record.event()])
                elif isinstance(record, End):
                    end = record
            await self._take_payloads(payloads)
            await checkpoint()
        if end.state == "complete" or end.after > self._after:
            await self._end_round()
        raise_end(end)

    async def _take_payloads(self, payloads: list[bytes]) -> None:
        limit = self._settings.limits.max_answer_bytes
        events: Batch = []
        try:
            for payload in payloads:
                self._bytes += len(payload)
                check_size(self._bytes, limit)
                self._state.feed_data(payload, events)
        finally:
            self._after += len(events)
            await self._publish(events)

    def _begin_round(self) -> None:
        self._state = self._new_state()
        self._after = self._bytes = 0
        self._is_round_over = False

    async def _end_round(self) -> None:
        """The answer of the round is complete: publish what is still due, and keep it.

        Raises:
            APIError: It does not fit this reader's response format.
        """
        if self._is_round_over:
            return
        self._is_round_over = True
        events = finish(self._state)
        self._after += len(events)
        await self._publish(events)
        if (error := self._state.parse_error) is not None:
            raise error
        self._completions.append(self._state.current_completion_snapshot)

    async def _publish(self, events: Batch) -> None:
        if events:
            self._has_begun = True
        if events := self._skip.take(events, self._state.remember):
            await self._fanout.publish(events)
