"""One chat stream: a task group whose one task reads the response and feeds the consumers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import anyio

from ..config import StreamSettings
from ..errors import APIError, InvalidParameterError, StreamClosedError, WriterError
from ..numbers import check_count
from ..protocol.chunks import Usage
from ..protocol.completion import ParsedChatCompletion
from ..protocol.events import (
    EVENT_TYPES,
    ChatCompletionStreamEvent,
    ContentDeltaEvent,
)
from ..protocol.state import ChatCompletionStreamState
from ..protocol.values import ValueReader
from ..request.tools import functions_by_name
from ..transport.source import ByteSource, request_id_of
from .deadlines import Deadlines
from .feed import Feed, Scope
from .pump import Pump
from .tool_runs import DEFAULT_LIMIT, OnError, ToolRuns

if TYPE_CHECKING:
    import httpx

    from ..structured.tools import FunctionTool

T = TypeVar("T")

_NO_TOOLS: Final[Mapping[str, FunctionTool[..., Any]]] = {}


class ChatCompletionStream(Feed[ChatCompletionStreamEvent[T]], Generic[T]):
    """A streamed completion. Enter it with ``async with``; nothing is sent before.

    Inside the block ``async for event in stream`` gives the events. When the block ends, for
    whatever reason, the response is closed and the task that read it is gone. What the stream
    has learned stays readable.

    Entering it sends the request and waits for the response's headers. It raises an
    ``APIStatusError``, with the error's body, if the status is not 2xx, and an
    ``APIConnectionError`` if there was no response, or not in time.

    Reading starts with the first demand: a step of an iteration, ``until_done()`` or
    ``get_final_completion()``. Until then TCP holds the server back.

    Iteration, ``until_done()`` and ``get_final_completion()`` raise what the stream ended with,
    after the last good event:

    Raises:
        StreamTruncatedError: The response ended before the answer did.
        APIConnectionError: The connection broke; ``APITimeoutError``: a time limit ran out.
        APIStreamError: The server reported an error inside the stream.
        APIResponseValidationError: The server sent what cannot be understood.
        StreamClosedError: The stream was left or closed before the answer was complete.
        ContentParseError: The answer does not fit the response format.
        LengthFinishReasonError: ``max_tokens`` cut off what had to be parsed;
            ``ContentFilterFinishReasonError``: the server's content filter did.
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
    ) -> None:
        super().__init__(settings.limits)
        self._source = source
        self._settings = settings
        self._state: ChatCompletionStreamState[T] = ChatCompletionStreamState(
            n=n,
            require_finish=settings.require_finish,
            max_depth=settings.limits.max_depth,
            response_format=response_format,
            tools=tools,
        )
        self._tools = tools or _NO_TOOLS
        self._tool_runs: ToolRuns | None = None
        self._pump = Pump(source, self._state, self._fanout, settings)
        self._deadlines: Deadlines

    # Lifetime.

    def _begin(self) -> anyio.CancelScope:
        self._deadlines = Deadlines(self._settings.timeouts)
        return self._deadlines.scope

    def _stop(self, scope: Scope) -> None:
        if self._state.complete and not self._is_ended and not self._pump.is_held_up:
            # Only the end of the response is missing: a moment's patience saves the connection.
            self._deadlines.drain(self._settings.limits.drain_time)
        else:
            super()._stop(scope)

    # Consuming.

    def text_deltas(self, choice_index: int = 0) -> AsyncIterator[str]:
        """Just the text of one choice, piece by piece.

        Raises:
            InvalidParameterError: ``choice_index`` is no whole number, or below 0.
        """
        check_count("choice_index", choice_index, InvalidParameterError, least=0)
        return _TextDeltas(self._own_consumer(), choice_index)

    async def get_final_completion(self) -> ParsedChatCompletion[T]:
        """The whole completion: waits for the end, and drops the events until then."""
        await self.until_done()
        return self.current_completion_snapshot

    async def get_final_text(self, choice_index: int = 0) -> str:
        """The whole text of one choice; "" if it has none.

        Raises:
            InvalidParameterError: ``choice_index`` is no whole number, or below 0.
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
        """Run the model's function calls while the stream goes on.

        ::

            async with writer.chat.stream(..., tools=[temperature]) as stream:
                runs = stream.run_tools()
                async for event in stream:
                    ...
                answers = await runs.messages()  # for the next request

        Each call begins the moment its arguments are done; what is done already begins now. The
        calls run in the stream's task group, ``async`` functions as they are and others in threads.
        This alone does not start the reading, nor does a slow tool ever hold it up.

        Args:
            tools: What the model may call; by default the functions among the request's tools.
            limit: How many run at once, the first to be called first; None is no limit.
            on_error: What happens when a call fails: because the function raises, or there is no
                such function, or the arguments do not fit, or the result has no JSON form.
                "reply" tells the model what went wrong; "raise" ends the block, as an error of a
                task of ``start_soon`` does.

        Raises:
            InvalidParameterError: One of these is wrong.
            WriterError: The stream is not open, or runs its tools already.
        """
        scope = self._open_scope()
        if self._tool_runs is not None:
            raise WriterError("The stream runs its tools already: run_tools() is called once.")
        runs = ToolRuns(
            self._tools if tools is None else functions_by_name(tools),
            limit=limit,
            on_error=on_error,
            start=scope.start_tool,
            until_ended=self._until_ended_unread,
        )
        self._tool_runs = runs
        # No await in between, and who joins now gets what is read next: no call is lost or doubled.
        runs.take(self._state.done_calls())
        self._fanout.add(runs.inbox)
        return runs

    async def _until_ended_unread(self) -> None:
        """Wait for the end on behalf of a task that reads no more while it waits.

        The stream's own events, if it was this task that took them, would else pile up until they
        hold the stream back.
        """
        is_reader = self._own_reader == anyio.get_current_task().id
        await self._until_ended(self._own if is_reader and not self._is_ended else None)

    # What it knows.

    @property
    def current_completion_snapshot(self) -> ParsedChatCompletion[T]:
        """The completion so far; without choices before the first chunk."""
        return self._state.current_completion_snapshot

    @property
    def usage(self) -> Usage | None:
        """The token counts, or None while they are unknown."""
        return self._state.usage

    @property
    def response(self) -> httpx.Response | None:
        """The response: status and headers. None for a stream that is not from HTTP.

        Its body is for the stream alone to read.
        """
        return self._source.response

    @property
    def request_id(self) -> str | None:
        """The server's name for the request, if it gave one."""
        return request_id_of(self._source.response)

    def remember(self) -> Callable[[], ParsedChatCompletion[T]]:
        """A function that returns the completion as it stands now, however late it is called."""
        return self._state.remember()

    @property
    def bytes_received(self) -> int:
        """How many bytes of the body have been read."""
        return self._pump.bytes_received

    @property
    def chunk_count(self) -> int:
        """How many chunks have come."""
        return self._state.chunk_count

    # The side of the response: everything below runs in the stream's own task.

    async def _run(self, scope: Scope) -> None:
        deadlines = self._deadlines
        try:
            with deadlines.scope:
                await self._source.open(deadlines)
                scope.opened.set()
                with deadlines.consumer():
                    await scope.demanded.wait()
                await self._pump.run(deadlines)
                self._end(scope, self._state.parse_error)
                if self._state.done_received:
                    await self._pump.drain(deadlines)
            if deadlines.scope.cancelled_caught:
                if self._state.complete:
                    self._pump.finish_complete()
                self._end(scope, deadlines.error() or self._outcome())
        except Exception as exc:  # noqa: BLE001 - whatever it is, the consumers must hear of it
            self._end(scope, exc)
        finally:
            if not self._is_ended:  # cancelled from outside
                self._end(scope, self._outcome())
            try:
                with anyio.move_on_after(self._settings.limits.cleanup_time, shield=True):
                    await self._source.aclose()
            finally:
                scope.opened.set()
                scope.finished.set()

    def _outcome(self) -> WriterError | None:
        """What is to be said of a stream that was stopped."""
        if self._state.complete and not self._pump.has_lost_events:
            return self._state.parse_error
        return StreamClosedError("The stream was closed before its answer was complete.")

    def _end(self, scope: Scope, error: Exception | None) -> None:
        if self._is_ended:
            return
        if isinstance(error, APIError):
            error.message = self._source.redact(error.message)
            error.args = (error.message,)
            error.body = self._source.redact(error.body)
            error.request = error.request or self._source.request
            error.response = error.response or self._source.response
            error.request_id = error.request_id or self.request_id
        if isinstance(error, APIError | StreamClosedError) and self._state.chunk_count:
            error.completion = self.current_completion_snapshot
        super()._end(scope, error)


AsyncChatCompletionStream = ChatCompletionStream
"""The official SDK's name for it."""


class _TextDeltas:
    def __init__(self, events: AsyncIterator[Any], choice_index: int) -> None:
        self._events = events
        self._choice_index = choice_index

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        while True:
            event = await anext(self._events)
            if isinstance(event, ContentDeltaEvent) and event.choice_index == self._choice_index:
                return event.delta
