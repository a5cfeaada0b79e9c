"""The state of one stream: its input, its events, its snapshots. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic

import msgspec

from ..errors import (
    APIError,
    APIResponseValidationError,
    InvalidParameterError,
    ResponseTooLargeError,
    StreamTruncatedError,
)
from ..generics import T
from ..numbers import check_count
from .accumulator import Accumulator, ChoiceLog, Snapshot, ToolCallLog
from .calls import calls_in_order, occasion_at_end
from .choices import add_done_events, add_text, call_event
from .chunks import ChatCompletionChunk, Usage
from .completion import ParsedChatCompletion
from .events import (
    ChatCompletionStreamEvent,
    FunctionToolCallArgumentsDoneEvent,
)
from .extent import Wholeness, wholeness
from .machine import Machine
from .parsing import (
    DEFAULT_MAX_CHOICES,
    DEFAULT_MAX_DEPTH,
    DEFAULT_MAX_TOOL_CALLS,
    ChunkParser,
)
from .rules import Reasons
from .sse import ServerSentEvent
from .stream_errors import parse_error_of, stream_error
from .values import ValueReader

_Events = list[ChatCompletionStreamEvent[Any]]

_DONE: Final = b"[DONE]"
_SHOWN_CHOICES: Final = 8


class StreamState(Machine, Generic[T]):
    """Adds up the chunks of one stream, and makes the events of each.

    Arguments and errors are those of ``ChatCompletionStreamState``.
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
        check_count("n", n, InvalidParameterError, optional=True)
        super().__init__(
            Accumulator(response_format, tools),
            max_choices=max_choices,
            max_tool_calls=max_tool_calls,
        )
        self.done_received: bool = False
        """Whether ``[DONE]`` has come; nothing after it counts."""
        self.n: int = n or 1
        """The answer is complete only when this many choices are finished."""
        self._require_finish = require_finish
        self._parser: Final = ChunkParser(
            max_depth=max_depth, max_choices=max_choices, max_tool_calls=max_tool_calls
        )
        self._parse: Final = self._parser.parse

    # Input.

    def feed_chunk(self, chunk: ChatCompletionChunk, events: _Events) -> None:
        """``feed`` for a chunk that has been decoded."""
        if self.done_received:
            return
        try:
            self._apply_chunk(chunk, msgspec.json.encode(chunk), events)
        except APIError as exc:
            exc.completion = self.completion_so_far
            raise

    def feed(
        self, source: Iterable[ServerSentEvent], events: list[ChatCompletionStreamEvent[Any]] | None
    ) -> None:
        """Add any number of server-sent events.

        Args:
            source: The events that the decoder returned.
            events: The list that events are appended to. With None, no events are made.

        Raises:
            APIError: The server reported an error, or a payload cannot be understood. ``events``
                holds what came before, and the error carries the completion so far.
        """
        try:
            for sse in source:
                if self.done_received:
                    return
                if sse.event != "message":
                    self._handle_named(sse, events)
                elif sse.data.startswith(b"{"):
                    self._apply_chunk(self._parse(sse.data), sse.data, events)
                else:
                    self._handle_other(sse.data, events)
        except APIError as exc:
            exc.completion = self.completion_so_far
            raise

    def feed_data(
        self, payload: bytes, events: list[ChatCompletionStreamEvent[Any]] | None
    ) -> None:
        """``feed`` for the data of one event without a name."""
        if self.done_received:
            return
        try:
            if payload.startswith(b"{"):
                self._apply_chunk(self._parse(payload), payload, events)
            else:
                self._handle_other(payload, events)
        except APIError as exc:
            exc.completion = self.completion_so_far
            raise

    def finish(self) -> list[ChatCompletionStreamEvent[T]]:
        """End the stream; returns the done events that are still due.

        Raises:
            StreamTruncatedError: The answer is not complete.
        """
        events: _Events = []
        if not self.complete:
            if self._require_finish or not self._accumulator.choices:
                raise self.truncated_error()
        total = self._accumulator
        total.position += 1  # what is done now was not yet in earlier snapshots
        for index, name in self._parser.flush_halves():
            log = total.choices.get(index)
            if log is not None and not getattr(log, name).done:
                add_text(total, log, name, "\ufffd", events)
        for log in self._sorted_choices():
            add_done_events(total, log, occasion_at_end(log), events)
        return events

    def truncated_error(self) -> StreamTruncatedError:
        """The error that ``finish`` raises. Its message says what is missing."""
        return StreamTruncatedError(
            f"The response ended before the answer did: {self._what_is_missing()}.",
            completion=self.completion_so_far,
        )

    # State.

    @property
    def parse_error(self) -> APIError | None:
        """Why a complete answer could not be parsed; None if it could, or did not have to be."""
        for choice in self._sorted_choices():
            if (error := parse_error_of(choice)) is not None:
                error.completion = self.completion_so_far
                return error
        return None

    @property
    def complete(self) -> bool:
        """Whether the answer is whole; usage may still come."""
        if self.done_received:
            return bool(self._accumulator.choices)
        return self.all_finished

    @property
    def all_finished(self) -> bool:
        """Whether every choice has a finish reason, and no content came after that."""
        return self._finished >= self.n and self._finished == len(self._accumulator.choices)

    @property
    def finish_reasons_are_reliable(self) -> bool:
        """Whether this server's finish reasons are known to mean that a choice is over.

        Not before content has come without one, and not once content has come after one.
        """
        return self._reasons is Reasons.RELIABLE

    @property
    def is_settled(self) -> bool:
        """Whether the answer is complete, and its finish reasons can be trusted.

        Only the usage and the end of the response may follow, so a short wait is enough. Finish
        reasons are not trusted if content came after one, or if only reasoning came before it:
        some servers put one on every chunk.
        """
        if not self.all_finished or self._reasons is Reasons.UNRELIABLE:
            return False
        return self._has_answer or self._reasons is Reasons.RELIABLE

    def done_calls(self) -> list[FunctionToolCallArgumentsDoneEvent]:
        """The done events of all calls that are done."""
        return [
            call_event(self._accumulator, choice, call)
            for choice, call in self._calls()
            if call.done_at is not None
        ]

    def cut_off_calls(self) -> list[FunctionToolCallArgumentsDoneEvent]:
        """The calls that are not done. After ``finish``, these are the calls that were cut off.

        They have the form of done events, with the arguments as far as they came.
        """
        return [
            call_event(self._accumulator, choice, call)
            for choice, call in self._calls()
            if call.done_at is None
        ]

    def _calls(self) -> Iterable[tuple[ChoiceLog, ToolCallLog]]:
        for choice in self._sorted_choices():
            for call in calls_in_order(choice):
                yield choice, call

    @property
    def usage(self) -> Usage | None:
        """The last token counts that came, or None."""
        return self._accumulator.usage.value

    @property
    def current_completion_snapshot(self) -> ParsedChatCompletion[T]:
        """The completion so far; without choices before the first chunk."""
        return self._accumulator.completion()

    @property
    def completion_so_far(self) -> ParsedChatCompletion[T] | None:
        """The same, or None before there is a choice."""
        return self._accumulator.completion() if self._accumulator.choices else None

    def remember(self) -> Callable[[], ParsedChatCompletion[T]]:
        """A function that returns the completion as it stands now, however late it is called."""
        return Snapshot(self._accumulator)

    def get_final_completion(self) -> ParsedChatCompletion[T]:
        """The completion, once it is whole.

        Raises:
            StreamTruncatedError: It is not.
            ContentParseError: A choice does not fit the response format.
            LengthFinishReasonError: ``max_tokens`` cut off what was to be parsed.
            ContentFilterFinishReasonError: The content filter did.
        """
        self.finish()
        if (error := self.parse_error) is not None:
            raise error
        return self._accumulator.completion()

    def _set_reasons(self, reasons: Reasons) -> None:
        super()._set_reasons(reasons)
        self._parser.set_finish_reasons_reliable(are_reliable=reasons is Reasons.RELIABLE)

    # Payloads.

    def _handle_other(self, payload: bytes, events: _Events | None) -> None:
        text = payload.strip()
        if text == _DONE:
            self.done_received = True
        elif text and not text.startswith(b":"):
            self._apply_chunk(self._parse(payload), payload, events)

    def _handle_named(self, sse: ServerSentEvent, events: _Events | None) -> None:
        if sse.event == "error":
            raise stream_error(sse.data)
        data = sse.data.strip()
        if data == _DONE:
            self.done_received = True
        if not data.startswith(b"{"):
            return  # some other kind of event
        try:
            chunk = self._parse(sse.data)
        except ResponseTooLargeError:
            raise
        except APIResponseValidationError:
            return  # some other kind of event
        if chunk.is_error or chunk.choices is not None or chunk.usage is not None:
            self._apply_chunk(chunk, sse.data, events)

    # What is missing.

    def _sorted_choices(self) -> list[ChoiceLog]:
        return sorted(self._accumulator.choices.values(), key=lambda choice: choice.index)

    def _what_is_missing(self) -> str:
        choices = self._accumulator.choices
        if not choices:
            if self.done_received:
                return "it said [DONE] and nothing else"
            if not self.chunk_count:
                return "it held no event"
            return f"none of its {self.chunk_count} chunks held a choice"
        waiting = [each for each in self._sorted_choices() if not each.is_finished]
        if waiting:
            which = ", ".join(str(each.index) for each in waiting[:_SHOWN_CHOICES])
            if len(waiting) > _SHOWN_CHOICES:
                which += f" and {len(waiting) - _SHOWN_CHOICES} more"
            have = sum(len(each.content.at()) for each in waiting)
            if any(each.finish_reason.value for each in waiting):
                return (
                    f"content came after the finish reason of choice {which}, and no other reason"
                )
            return f"no finish reason came for choice {which} ({have} characters had arrived)"
        return f"only {len(choices)} of {self.n} choices came"


def is_whole(tail: ServerSentEvent) -> bool:
    """Whether a last block without its blank line is whole, so that it counts."""
    return tail.data.strip() == _DONE or wholeness(tail.text) is Wholeness.WHOLE
