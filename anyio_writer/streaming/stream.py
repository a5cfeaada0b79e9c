"""One chat stream: a task group whose one task reads the response and publishes its events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

import anyio

from ..config import StreamSettings
from ..errors import APIError, InvalidParameterError, StreamClosedError, WriterError
from ..generics import T
from ..numbers import check_count
from ..protocol.chunks import Usage
from ..protocol.completion import ParsedChatCompletion
from ..protocol.events import (
    EVENT_TYPES,
    ChatCompletionStreamEvent,
    ContentDeltaEvent,
)
from ..protocol.state import StreamState
from ..protocol.values import ValueReader
from ..request.tools import functions_by_name
from ..telemetry.observer import Outcome
from ..telemetry.recorder import Recorder
from ..telemetry.timings import Timings
from ..transport.source import ByteSource, request_id_of
from .deadlines import Deadlines
from .lifetime import Lifetime, Stage
from .publisher import Publisher
from .pump import Pump
from .subscription import Steps, Subscription
from .tool_runs import DEFAULT_LIMIT, OnError, ToolRunner, ToolRuns

if TYPE_CHECKING:
    import httpx

    from ..structured.tools import FunctionTool


class ChatCompletionStream(Publisher[ChatCompletionStreamEvent[T]], Generic[T]):
    """A streamed completion. Enter it with ``async with``, which sends the request.

    Inside the block, ``async for event in stream`` yields the events. When the block has ended, for
    whatever reason, the response is closed and the task that read it has ended. What the stream
    has received can still be read.

    Entering it sends the request and waits for the headers of the response. That raises an
    ``APIStatusError`` if the status is not 2xx, and an ``APIConnectionError`` if no response
    arrived, or not in time.

    Reading starts when your code first asks for an event or for the result. Until then TCP makes
    the server wait.

    Iteration, ``until_done()`` and ``get_final_completion()`` raise the stream's error, after the
    last valid event:

    Raises:
        StreamTruncatedError: The response ended before the answer did.
        APITimeoutError: A time limit ran out.
        APIConnectionError: The connection broke.
        APIStreamError: The server reported an error inside the stream.
        APIResponseValidationError: The server sent something that cannot be understood.
        StreamClosedError: The stream was left or closed before the answer was complete.
        ContentParseError: The answer does not fit the response format.
        LengthFinishReasonError: ``max_tokens`` cut off what had to be parsed.
        ContentFilterFinishReasonError: A content filter cut off what had to be parsed.
    """

    _kind = "stream"
    _event_types = EVENT_TYPES

    def __init__(
        self,
        source: ByteSource,
        settings: StreamSettings,
        *,
        n: int | None = None,
        response_format: ValueReader[T] | None = None,
        tools: Mapping[str, FunctionTool[..., Any]] | None = None,
        make_pump: Callable[..., Pump] = Pump,
    ) -> None:
        super().__init__(settings.limits)
        self._source = source
        self._settings = settings
        self._state: StreamState[T] = StreamState(
            n=n,
            require_finish=settings.require_finish,
            max_depth=settings.limits.max_depth,
            max_choices=settings.limits.max_choices,
            max_tool_calls=settings.limits.max_tool_calls,
            response_format=response_format,
            tools=tools,
        )
        self._tools = tools
        self._tool_runner: ToolRunner | None = None
        self._recorder = Recorder(settings.observer)
        self._pump = make_pump(source, self._state, self._fanout, settings, self._recorder)
        self._deadlines: Deadlines

    # Lifetime.

    def _enter_work(self) -> anyio.CancelScope:
        self._deadlines = Deadlines(self._settings.timeouts, self._settings.end_grace)
        return self._deadlines.scope

    def _cancel_tools(self) -> None:
        if self._tool_runner is not None:
            self._tool_runner.cancel()

    def _stop(self) -> None:
        is_open = not self._entered().has_ended
        if is_open and self._state.complete and not self._deadlines.is_paused:
            # Only the end of the response is missing: waiting briefly saves the connection.
            self._deadlines.drain(self._settings.limits.drain_time)
        else:
            super()._stop()

    # Subscribing.

    def text_deltas(self, choice_index: int = 0) -> Steps[str]:
        """Yield the text of one choice, piece by piece.

        Raises:
            InvalidParameterError: ``choice_index`` is not a whole number of 0 or more.
        """
        check_count("choice_index", choice_index, InvalidParameterError, least=0)
        events = self._own_subscription()
        return Steps(partial(_next_delta, events, choice_index), events.aclose)

    async def get_final_completion(self) -> ParsedChatCompletion[T]:
        """Wait for the end, and return the whole completion. Discards the remaining events."""
        await self.until_done()
        return self.current_completion_snapshot

    async def get_final_text(self, choice_index: int = 0) -> str:
        """Wait for the end, and return the whole text of one choice; "" if it has none.

        Raises:
            InvalidParameterError: ``choice_index`` is not a whole number of 0 or more.
        """
        check_count("choice_index", choice_index, InvalidParameterError, least=0)
        completion = await self.get_final_completion()
        for choice in completion.choices:
            if choice.index == choice_index:
                return choice.message.content or ""
        return ""

    # Tools.

    def run_tools(
        self,
        tools: Iterable[FunctionTool[..., Any]] | None = None,
        *,
        limit: int | None = DEFAULT_LIMIT,
        on_error: OnError = "reply",
    ) -> ToolRuns:
        """Run the functions that the model calls, while the stream goes on.

        ::

            async with writer.chat.stream(..., tools=[temperature]) as stream:
                runs = stream.run_tools()
                async for event in stream:
                    ...
                answers = await runs.messages()  # for the next request

        Each call starts as soon as its arguments are complete. Calls that are complete already
        start now. They run in the stream's task group; functions that are not ``async`` run in
        threads. This method does not start the reading. A slow tool never slows the stream down.

        Args:
            tools: The functions that the model may call; by default those among the request's
                tools.
            limit: How many calls run at once. The others wait in order. None means no limit.
            on_error: What happens when a call fails: because the function raises, there is no
                such function, the arguments do not fit, or the result has no JSON form. "reply"
                sends the error to the model. "raise" ends the block, like the failure of a task
                started with ``start_soon``.

        Raises:
            InvalidParameterError: An argument is invalid.
            WriterError: The stream is not open, or ``run_tools()`` was called before.
        """
        lifetime = self._open_lifetime()
        if self._tool_runner is not None:
            raise WriterError("The stream runs its tools already: run_tools() is called once.")
        runner = ToolRunner(
            (self._tools or {}) if tools is None else functions_by_name(tools),
            limit=limit,
            on_error=on_error,
            lifetime=lifetime,
            until_ended=self._until_ended_unread,
            stream=self,
            observers=self._settings.observer,
        )
        self._tool_runner = runner
        # Nothing is published between these two: no call is lost or doubled.
        runner.take(self._state.done_calls())
        self._fanout.set_listener(runner)
        if lifetime.has_ended and lifetime.error is None:
            runner.refuse(self._state.cut_off_calls())
        return ToolRuns(runner)

    async def _until_ended_unread(self) -> None:
        """Wait for the end on behalf of a task that reads no more while it waits.

        The stream's own events, if it was this task that took them, would else pile up until they
        hold the stream back.
        """
        has_ended = self._entered().has_ended
        await self._until_ended(None if has_ended else self._own_of_this_task())

    # What it knows.

    @property
    def current_completion_snapshot(self) -> ParsedChatCompletion[T]:
        """The completion so far. It has no choices before the first chunk."""
        return self._state.current_completion_snapshot

    @property
    def usage(self) -> Usage | None:
        """The token counts, or None while they are unknown."""
        return self._state.usage

    @property
    def response(self) -> httpx.Response | None:
        """The response, for its status and headers; None if the stream does not come from HTTP.

        Do not read its body, because the stream does.
        """
        return self._source.response

    @property
    def request_id(self) -> str | None:
        """The server's request ID, if it sent one."""
        return request_id_of(self._source.response)

    def _freeze_snapshot(self) -> Callable[[], ParsedChatCompletion[T]]:
        return self._state.remember()

    @property
    def n(self) -> int:
        """How many choices the request asked for."""
        return self._state.n

    @property
    def has_begun(self) -> bool:
        """Whether events have arrived, so that a new subscriber has missed some."""
        return self._state.chunk_count > 0

    @property
    def bytes_received(self) -> int:
        """How many bytes of the body have been read."""
        return self._pump.bytes_received

    @property
    def chunk_count(self) -> int:
        """How many chunks have arrived."""
        return self._state.chunk_count

    @property
    def timings(self) -> Timings:
        """When the request was sent, the first content arrived, the stream ended, and more."""
        usage = self._state.usage
        return self._recorder.timings(
            chunk_count=self._state.chunk_count,
            bytes_received=self._pump.bytes_received,
            completion_tokens=None if usage is None else usage.completion_tokens,
        )

    # The side of the response: everything below runs in the stream's own task.

    async def _bring_events(self, lifetime: Lifetime) -> None:
        deadlines, pump = self._deadlines, self._pump
        self._recorder.begin(self)
        await self._source.open(deadlines, self._recorder)
        lifetime.advance(Stage.OPEN)
        await deadlines.pause(lifetime.wait_for_demand())
        await pump.run(deadlines)
        self._end(self._state.parse_error)
        if self._state.done_received:
            await pump.drain()

    def _outcome(self) -> WriterError | None:
        if self._state.complete and not self._pump.has_lost_events:
            return self._state.parse_error
        return StreamClosedError("The stream was closed before its answer was complete.")

    def _outcome_of_stop(self) -> WriterError | None:
        error = self._deadlines.error()
        if error is None and self._state.complete:
            self._pump.finish_complete()
        return error or self._outcome()

    def _complete(self, error: Exception | None) -> None:
        self._recorder.ended()
        if isinstance(error, APIError):
            error.message = self._source.redact(error.message)
            error.args = (error.message,)
            error.body = self._source.redact(error.body)
            error.request = error.request or self._source.request
            error.response = error.response or self._source.response
            error.request_id = error.request_id or self.request_id
        if isinstance(error, APIError | StreamClosedError):
            error.completion = self._state.completion_so_far
            error.timings = self.timings
        if error is None and self._tool_runner is not None:
            self._tool_runner.refuse(self._state.cut_off_calls())

    def _report_end(self, error: Exception | None, outcome: Outcome) -> None:
        self._recorder.report_end(self, error, outcome)

    async def _clean_up(self) -> None:
        with anyio.move_on_after(self._settings.limits.cleanup_time, shield=True):
            await self._source.aclose()


AsyncChatCompletionStream = ChatCompletionStream
"""The official SDK's name for it."""


async def _next_delta(events: Subscription[Any], choice_index: int) -> str:
    while True:
        event = await anext(events)
        if isinstance(event, ContentDeltaEvent) and event.choice_index == choice_index:
            return event.delta
