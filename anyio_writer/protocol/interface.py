"""What callers with a transport of their own use: chunks in, events and a completion out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic

from ..generics import T
from .chunks import ChatCompletionChunk, Usage
from .completion import ParsedChatCompletion
from .events import ChatCompletionStreamEvent
from .parsing import DEFAULT_MAX_CHOICES, DEFAULT_MAX_DEPTH, DEFAULT_MAX_TOOL_CALLS
from .sse import ServerSentEvent
from .state import StreamState
from .values import ValueReader


class ChatCompletionStreamState(Generic[T]):
    """Adds up the chunks of one stream, and returns the events of each.

    Use it with any source of payloads::

        state = ChatCompletionStreamState()
        for sse in decoder.feed(data):
            for event in state.handle_chunk(sse): ...
        for event in state.finish(): ...

    Args:
        n: How many choices the request asked for, if known; 1 if it is None. The answer is
            complete only when all of them are finished.
        require_finish: Whether an answer without a finish reason and without ``[DONE]`` counts
            as cut off. Pass False for servers that never send either.
        max_depth: How deeply a payload may be nested.
        max_choices: How many choices the answer may hold.
        max_tool_calls: How many tool calls the answer may hold.
        response_format: Parses the text of each choice, such as a ``ResponseType``.
        tools: Parse the arguments of calls, by the name of the function. Tools made with
            ``function_tool`` do that.

    Raises:
        InvalidParameterError: ``n`` is not a whole number, or is below 1.
    """

    def __init__(
        self,
        *,
        n: int | None = None,
        require_finish: bool = True,
        max_depth: int = DEFAULT_MAX_DEPTH,
        max_choices: int = DEFAULT_MAX_CHOICES,
        max_tool_calls: int = DEFAULT_MAX_TOOL_CALLS,
        response_format: ValueReader[T] | None = None,
        tools: Mapping[str, ValueReader[Any]] | None = None,
    ) -> None:
        self._state: StreamState[T] = StreamState(
            n=n,
            require_finish=require_finish,
            max_depth=max_depth,
            max_choices=max_choices,
            max_tool_calls=max_tool_calls,
            response_format=response_format,
            tools=tools,
        )

    def handle_chunk(
        self, chunk: ChatCompletionChunk | ServerSentEvent | bytes | str
    ) -> list[ChatCompletionStreamEvent[T]]:
        """Add one chunk, or the payload of one server-sent event, and return its events.

        A payload may also be ``[DONE]``, empty, or a comment that was sent as data (``: ping``).

        Raises:
            APIStreamError: The payload reports an error.
            APIResponseValidationError: The payload cannot be understood.
            TypeError: The argument is of another type.
        """
        events: list[ChatCompletionStreamEvent[Any]] = []
        if isinstance(chunk, ChatCompletionChunk):
            self._state.feed_chunk(chunk, events)
        elif isinstance(chunk, ServerSentEvent):
            self._state.feed((chunk,), events)
        elif not isinstance(chunk, bytes | bytearray | str):
            raise TypeError(
                "handle_chunk() takes a payload as bytes or text, a ServerSentEvent or a "
                f"ChatCompletionChunk, not {type(chunk).__name__}."
            )
        else:
            # Half a surrogate pair is text in Python, and an escape in JSON.
            payload = chunk.encode(errors="backslashreplace") if isinstance(chunk, str) else chunk
            self._state.feed((ServerSentEvent(bytes(payload)),), events)  # a buffer may be reused
        return events

    def finish(self) -> list[ChatCompletionStreamEvent[T]]:
        """End the stream, and return the done events that are still due.

        Raises:
            StreamTruncatedError: The answer is not complete.
        """
        return self._state.finish()

    def get_final_completion(self) -> ParsedChatCompletion[T]:
        """The whole completion. Call it when the stream has ended.

        Raises:
            StreamTruncatedError: The answer is not complete.
            ContentParseError: A choice does not fit the response format.
            LengthFinishReasonError: ``max_tokens`` cut off what had to be parsed.
            ContentFilterFinishReasonError: The content filter cut off what had to be parsed.
        """
        return self._state.get_final_completion()

    @property
    def current_completion_snapshot(self) -> ParsedChatCompletion[T]:
        """The completion so far. It has no choices before the first chunk."""
        return self._state.current_completion_snapshot

    @property
    def usage(self) -> Usage | None:
        """The token counts, or None while they are unknown."""
        return self._state.usage

    @property
    def complete(self) -> bool:
        """Whether the answer is complete. The token counts may still follow."""
        return self._state.complete

    @property
    def done_received(self) -> bool:
        """Whether ``[DONE]`` has arrived. Nothing after it counts."""
        return self._state.done_received

    @property
    def chunk_count(self) -> int:
        """How many chunks have arrived."""
        return self._state.chunk_count

    @property
    def n(self) -> int:
        """How many choices the request asked for."""
        return self._state.n
