"""Chunks to events: the state machine of one chat stream. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

from ..errors import (
    APIError,
    APIResponseValidationError,
    APIStreamError,
    ContentFilterFinishReasonError,
    ContentParseError,
    InvalidParameterError,
    LengthFinishReasonError,
    StreamTruncatedError,
)
from ..numbers import check_count
from .accumulator import Accumulator, ChoiceLog, ItemLog, Snapshot, TextLog, ToolCallLog
from .chunks import (
    DEFAULT_MAX_DEPTH,
    ChatCompletionChunk,
    ChoiceDelta,
    ChoiceLogprobs,
    ChunkChoice,
    ContentBlock,
    GraphData,
    ToolCallDelta,
    Usage,
    parse_chunk,
)
from .completion import ParsedChatCompletion
from .events import (
    ChatCompletionStreamEvent,
    ChunkEvent,
    ContentDeltaEvent,
    ContentDoneEvent,
    FunctionToolCallArgumentsDeltaEvent,
    FunctionToolCallArgumentsDoneEvent,
    LogprobsContentDeltaEvent,
    LogprobsContentDoneEvent,
    LogprobsRefusalDeltaEvent,
    LogprobsRefusalDoneEvent,
    RefusalDeltaEvent,
    RefusalDoneEvent,
    set_moment,
)
from .json import error_message, parse_json, shorten
from .sse import ServerSentEvent
from .values import ValueReader

T = TypeVar("T")

_Events = list[ChatCompletionStreamEvent[Any]]

_DONE: Final = b"[DONE]"
_DONE_EVENTS: Final[dict[str, Callable[[int, Any], ChatCompletionStreamEvent[Any]]]] = {
    "content": ContentDoneEvent,
    "refusal": RefusalDoneEvent,
    "logprobs_content": LogprobsContentDoneEvent,
    "logprobs_refusal": LogprobsRefusalDoneEvent,
}
_NO_REASON: Final = frozenset({"", "null"})
_NO_GRAPH_DATA: Final = GraphData()
_SHOWN_BYTES: Final = 300


class ChatCompletionStreamState(Generic[T]):
    """Adds up the chunks of one stream and says what each of them means.

    Drive it with anything that brings payloads::

        state = ChatCompletionStreamState()
        for sse in decoder.feed(data):
            for event in state.handle_chunk(sse): ...
        for event in state.finish(): ...

    Args:
        n: How many choices the request asked for, if known: the answer is complete only when
            all of them are; 1 if it is None.
        require_finish: Whether an answer without a finish reason and without ``[DONE]`` counts
            as cut off. False is for servers that never send either.
        max_depth: How deeply a payload may be nested.
        response_format: What the text of a choice is read with, if it is to be parsed; for
            example a ``ResponseType``.
        tools: What the arguments of calls are read with, by the name of the function; for example
            what ``function_tool`` makes.

    Raises:
        InvalidParameterError: ``n`` is no whole number, or below 1.
    """

    def __init__(
        self,
        *,
        n: int | None = None,
        require_finish: bool = True,
        max_depth: int = DEFAULT_MAX_DEPTH,
        response_format: ValueReader[T] | None = None,
        tools: Mapping[str, ValueReader[Any]] | None = None,
    ) -> None:
        self.chunk_count = 0
        """How many chunks have come."""
        self.done_received = False
        """Whether ``[DONE]`` has come; nothing after it counts."""
        check_count("n", n, InvalidParameterError, optional=True)
        self._n = n or 1
        self._require_finish = require_finish
        self._max_depth = max_depth
        self._accumulator = Accumulator(response_format, tools)
        self._lacks_head = True  # whether the id, the date or the model is still unknown
        self._finished = 0  # how many choices have their finish reason

    # What a caller drives it with.

    def handle_chunk(
        self, chunk: ChatCompletionChunk | ServerSentEvent | bytes | str
    ) -> list[ChatCompletionStreamEvent[T]]:
        """Take one chunk, or the payload of one event, and return the events it gives rise to.

        A payload may also be ``[DONE]``, empty, or a re-wrapped comment (``: ping``).

        Raises:
            APIStreamError: The payload reports an error.
            APIResponseValidationError: The payload cannot be understood.
            TypeError: It is something else.
        """
        events: _Events = []
        if isinstance(chunk, ChatCompletionChunk):
            self._feed_chunk(chunk, events)
        elif isinstance(chunk, ServerSentEvent):
            self.feed((chunk,), events)
        elif not isinstance(chunk, bytes | bytearray | str):
            raise TypeError(
                "handle_chunk() takes a payload as bytes or text, a ServerSentEvent or a "
                f"ChatCompletionChunk, not {type(chunk).__name__}."
            )
        else:
            # Half a surrogate pair becomes U+FFFD like any other bytes that are not UTF-8.
            payload = chunk.encode(errors="surrogatepass") if isinstance(chunk, str) else chunk
            self.feed((ServerSentEvent(payload),), events)
        return events

    def _feed_chunk(self, chunk: ChatCompletionChunk, events: _Events) -> None:
        if self.done_received:
            return
        try:
            self._take(chunk, msgspec.json.encode(chunk), events)
        except APIError as exc:
            exc.completion = self.current_completion_snapshot
            raise

    def feed(
        self, source: Iterable[ServerSentEvent], events: list[ChatCompletionStreamEvent[Any]] | None
    ) -> None:
        """Take server-sent events in bulk.

        Args:
            source: What the decoder gave.
            events: Where the events go. With None none are made: only the result is kept.

        Raises:
            APIError: As ``handle_chunk``; ``events`` then holds what came before, and the error
                carries the completion so far.
        """
        try:
            for sse in source:
                if self.done_received:
                    return
                if sse.event != "message":
                    self._handle_named(sse, events)
                elif sse.data.startswith(b"{"):
                    self._take(parse_chunk(sse.data, self._max_depth), sse.data, events)
                else:
                    self._handle_odd(sse.data, events)
        except APIError as exc:
            exc.completion = self.current_completion_snapshot
            raise

    def feed_data(
        self, payload: bytes, events: list[ChatCompletionStreamEvent[Any]] | None
    ) -> None:
        """``feed`` for one event without a name, of which only the data is there."""
        if self.done_received:
            return
        try:
            if payload.startswith(b"{"):
                self._take(parse_chunk(payload, self._max_depth), payload, events)
            else:
                self._handle_odd(payload, events)
        except APIError as exc:
            exc.completion = self.current_completion_snapshot
            raise

    def finish(self) -> list[ChatCompletionStreamEvent[T]]:
        """Say that nothing more will come; returns the done events that were still due.

        Raises:
            StreamTruncatedError: The answer is not complete.
        """
        events: _Events = []
        if not self.complete:
            if self._require_finish or not self._accumulator.choices:
                raise self.truncated_error()
        self._accumulator.tick += 1  # what is done now was not yet in earlier snapshots
        for choice in self._sorted_choices():
            self._add_done_events(choice, events)
        return events

    def truncated_error(self) -> StreamTruncatedError:
        """What ``finish`` raises: it says what is missing."""
        return StreamTruncatedError(
            f"The response ended before the answer did: {self._what_is_missing()}.",
            completion=self.current_completion_snapshot,
        )

    # What it knows.

    @property
    def parse_error(self) -> APIError | None:
        """What is wrong with a complete answer that had to be parsed; None if nothing is."""
        for choice in self._sorted_choices():
            if (error := _parse_error(choice)) is not None:
                error.completion = self.current_completion_snapshot
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
        """Whether every choice has its finish reason."""
        return self._finished >= self._n and self._finished == len(self._accumulator.choices)

    @property
    def has_content(self) -> bool:
        """Whether the model has said anything yet: text, a call, a reason for its end."""
        return bool(self._finished) or any(
            choice.has_content for choice in self._accumulator.choices.values()
        )

    def done_calls(self) -> list[FunctionToolCallArgumentsDoneEvent]:
        """The calls that are done, as the events that said so."""
        return [
            self._done_event(choice, call, call.done_at)
            for choice in self._sorted_choices()
            for call in sorted(choice.calls, key=lambda call: call.index)
            if call.done_at is not None
        ]

    @property
    def usage(self) -> Usage | None:
        """The last token counts that came, or None."""
        return self._accumulator.usage.value

    @property
    def current_completion_snapshot(self) -> ParsedChatCompletion[T]:
        """The completion so far; without choices before the first chunk."""
        return self._accumulator.completion()

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

    # Payloads.

    def _handle_odd(self, payload: bytes, events: _Events | None) -> None:
        text = payload.strip()
        if text == _DONE:
            self.done_received = True
        elif text and not text.startswith(b":"):
            self._take(parse_chunk(payload, self._max_depth), payload, events)

    def _handle_named(self, sse: ServerSentEvent, events: _Events | None) -> None:
        if sse.event == "error":
            raise _stream_error(sse.data)
        if sse.data.strip() == _DONE:
            self.done_received = True
            return
        try:
            chunk = parse_chunk(sse.data, self._max_depth)
        except APIResponseValidationError:
            return  # some other kind of event
        if chunk.is_error or chunk.choices is not None or chunk.usage is not None:
            self._take(chunk, sse.data, events)

    # Chunks.

    def _take(self, chunk: ChatCompletionChunk, payload: bytes, events: _Events | None) -> None:
        if chunk.error is not None or chunk.tpe is not None or chunk.object == "error":
            if chunk.is_error:
                raise _stream_error(payload)
        self.chunk_count += 1
        total = self._accumulator
        tick = total.tick = total.tick + 1
        if self._lacks_head:
            self._take_head(chunk, tick)
        if (tier := chunk.service_tier) and tier != total.service_tier.value:
            total.service_tier = total.service_tier.set(tier, tick)
        if (mark := chunk.system_fingerprint) and mark != total.system_fingerprint.value:
            total.system_fingerprint = total.system_fingerprint.set(mark, tick)
        if chunk.usage is not None:
            total.usage = total.usage.set(chunk.usage, tick)
        if events is None:
            for choice in chunk.choices or ():
                self._take_choice(choice, None)
            return
        event = ChunkEvent(chunk)
        events.append(event)
        for choice in chunk.choices or ():
            self._take_choice(choice, events)
        set_moment(event, (total, total.tick, payload))

    def _take_head(self, chunk: ChatCompletionChunk, tick: int) -> None:
        """What the first chunk that has it says for all of them."""
        total = self._accumulator
        if chunk.id and total.id.value is None:
            total.id = total.id.set(chunk.id, tick)
        if chunk.created and total.created.value is None:
            total.created = total.created.set(chunk.created, tick)
        if chunk.model and total.model.value is None:
            total.model = total.model.set(chunk.model, tick)
        self._lacks_head = None in (total.id.value, total.created.value, total.model.value)

    def _take_choice(  # noqa: C901 - the hot path: one call a choice
        self, choice: ChunkChoice, events: _Events | None
    ) -> None:
        total = self._accumulator
        tick = total.tick = total.tick + 1  # so that one chunk may name a choice twice
        index = choice.index or 0
        log = total.choices.get(index)
        if log is None:
            log = total.choices[index] = ChoiceLog(index, tick, total.reader)
        delta = choice.delta
        calls: list[ToolCallLog] = []
        if delta is not None:
            content = delta.content
            if content is not None:
                text = content if isinstance(content, str) else _text_of(content)
                log.content = log.content.append(text, tick)
                if text and events is not None:
                    event = ContentDeltaEvent(index, text)
                    set_moment(event, (total, tick, b""))
                    events.append(event)
            if delta.refusal is not None:
                self._take_refusal(log, delta.refusal, events)
            if delta.tool_calls is not None:
                calls = self._take_calls(log, delta.tool_calls, events)
            self._take_rest(log, delta)
        if choice.logprobs is not None:
            self._take_logprobs(log, choice.logprobs, events)
        reason = choice.finish_reason
        if reason and reason not in _NO_REASON and log.finish_reason.value is None:
            log.finish_reason = log.finish_reason.set(reason, total.tick)
            self._finished += 1
            self._add_done_events(log, events)
        elif len(log.calls) > 1:
            for call in calls:
                # The last call to have begun may go on; the others are done when they are whole.
                if call is not log.calls[-1] and call.done_at is None and call.is_whole():
                    self._call_done(log, call, events)

    def _take_rest(self, log: ChoiceLog, delta: ChoiceDelta) -> None:
        """The parts of a delta that give rise to no events."""
        tick = self._accumulator.tick
        if delta.role and log.role.value is None:
            log.role = log.role.set(delta.role, tick)
        reasoning = delta.reasoning_content or delta.reasoning
        if reasoning:
            log.reasoning = log.reasoning.append(reasoning, tick)
        if delta.graph_data is not None and delta.graph_data != _NO_GRAPH_DATA:
            log.graph_data = log.graph_data.merge(delta.graph_data, tick)
        if delta.llm_data is not None:
            log.llm_data = log.llm_data.merge(delta.llm_data, tick)
        if delta.translation_data is not None:
            log.translation_data = log.translation_data.merge(delta.translation_data, tick)
        if delta.web_search_data is not None:
            log.web_search_data = log.web_search_data.merge(delta.web_search_data, tick)

    def _take_refusal(self, log: ChoiceLog, refusal: str, events: _Events | None) -> None:
        total = self._accumulator
        log.refusal = log.refusal.append(refusal, total.tick)
        if refusal and events is not None:
            event = RefusalDeltaEvent(log.index, refusal)
            set_moment(event, (total, total.tick, b""))
            events.append(event)

    def _take_logprobs(
        self, log: ChoiceLog, logprobs: ChoiceLogprobs, events: _Events | None
    ) -> None:
        total = self._accumulator
        if logprobs.content:
            tokens = logprobs.content
            log.logprobs_content = log.logprobs_content.extend(tokens, total.tick)
            if events is not None:
                content = LogprobsContentDeltaEvent(log.index, tokens)
                set_moment(content, (total, total.tick, b""))
                events.append(content)
        if logprobs.refusal:
            tokens = logprobs.refusal
            log.logprobs_refusal = log.logprobs_refusal.extend(tokens, total.tick)
            if events is not None:
                refusal = LogprobsRefusalDeltaEvent(log.index, tokens)
                set_moment(refusal, (total, total.tick, b""))
                events.append(refusal)

    # Tool calls.

    def _take_calls(
        self,
        log: ChoiceLog,
        pieces: list[ToolCallDelta] | ToolCallDelta,
        events: _Events | None,
    ) -> list[ToolCallLog]:
        """Returns the calls that may have become done by this."""
        touched: list[ToolCallLog] = []
        total = self._accumulator
        for piece in pieces if isinstance(pieces, list) else [pieces]:
            tick = total.tick = total.tick + 1  # a call may have several pieces in one chunk
            call = _find_call(log, piece)
            opened = call is None
            if call is None:
                if log.calls:
                    touched.append(log.calls[-1])  # no longer the last one
                call = ToolCallLog(_free_index(log, piece.index), tick, total.tools)
                log.calls.append(call)
                log.calls_by_index[call.index] = call
            if piece.index is not None:
                log.calls_by_wire_index[piece.index] = call
            touched.append(call)
            added = _add_to_call(call, piece, tick)
            if events is not None and (added or opened):
                event = FunctionToolCallArgumentsDeltaEvent(
                    log.index, call.index, call.name.value or "", added
                )
                set_moment(event, (total, tick, b""))
                events.append(event)
        return touched

    # What is done.

    def _add_done_events(self, log: ChoiceLog, events: _Events | None) -> None:
        """What is due when nothing more is expected: one event for each thing that has begun."""
        total = self._accumulator
        if log.ended_at is None:
            log.ended_at = total.tick
        for name, make_event in _DONE_EVENTS.items():
            thing: TextLog | ItemLog[Any] = getattr(log, name)
            if thing and not thing.done:
                thing.done = True
                if events is not None:
                    event = make_event(log.index, thing.at())
                    set_moment(event, (total, total.tick, b""))
                    events.append(event)
        for call in sorted(log.calls, key=lambda call: call.index):
            if call.done_at is None and not call.is_cut_off(cut_short=log.is_cut_short):
                self._call_done(log, call, events)

    def _call_done(self, log: ChoiceLog, call: ToolCallLog, events: _Events | None) -> None:
        call.done_at = self._accumulator.tick
        if events is not None:
            events.append(self._done_event(log, call, call.done_at))

    def _done_event(
        self, log: ChoiceLog, call: ToolCallLog, tick: int
    ) -> FunctionToolCallArgumentsDoneEvent:
        event = FunctionToolCallArgumentsDoneEvent(
            choice_index=log.index,
            index=call.index,
            name=call.name.value or "",
            tool_call_snapshot_id=call.id.value or "",
            arguments=call.arguments.at(tick),
        )
        set_moment(event, (self._accumulator, tick, b""))
        return event

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
        waiting = [each.index for each in self._sorted_choices() if not each.finish_reason.value]
        if waiting:
            which = ", ".join(map(str, waiting))
            have = sum(len(choices[index].content.at()) for index in waiting)
            return f"no finish reason came for choice {which} ({have} characters had arrived)"
        return f"only {len(choices)} of {self._n} choices came"


def _text_of(content: list[str | ContentBlock]) -> str:
    texts = [block if isinstance(block, str) else _block_text(block) for block in content]
    return "".join(texts)


def _block_text(block: ContentBlock) -> str:
    return (block.text or "") if block.type in ("text", None) else ""


def _find_call(log: ChoiceLog, piece: ToolCallDelta) -> ToolCallLog | None:
    """Which call a piece continues; None if it opens a new one.

    The rules are those of docs/architecture.md, "Which call a piece belongs to".
    """
    name = piece.function.name if piece.function is not None else None
    here = None if piece.index is None else log.calls_by_wire_index.get(piece.index)
    if piece.id:
        for call in reversed(log.calls):
            if call.id.value == piece.id:
                return call
        # A call that has no id yet may learn it late. With one, another id is another call.
        return here if here and here.id.value is None and not _is_next(here, name, piece) else None
    last = log.calls[-1] if log.calls else None
    if here is not None:
        return None if _is_next(here, name, piece) else here
    if last is None or (name and piece.index is not None):
        return None
    if name and piece.index is None:
        begun_anew = last.name.value not in (None, name) and not last.arguments
        return None if begun_anew or _is_next(last, name, piece) else last
    return last


def _is_next(call: ToolCallLog, name: str | None, piece: ToolCallDelta) -> bool:
    """Whether a piece with a name comes behind a call that is already whole."""
    if not name or not call.is_whole():
        return False
    # A server that repeats the name in each piece may do so in an empty last one.
    arguments = piece.function.arguments if piece.function is not None else None
    return name != call.name.value or bool(arguments)


def _free_index(log: ChoiceLog, wanted: int | None) -> int:
    if wanted is not None and wanted not in log.calls_by_index:
        return wanted
    return max(log.calls_by_index, default=-1) + 1


def _add_to_call(call: ToolCallLog, piece: ToolCallDelta, tick: int) -> str:
    """Take over what a piece says; returns what it added to the arguments."""
    if piece.id and call.id.value is None:
        call.id = call.id.set(piece.id, tick)
    if piece.type and call.type.value is None:
        call.type = call.type.set(piece.type, tick)
    if piece.extra_content:
        call.extra = call.extra.set(piece.extra_content, tick)
    function = piece.function
    if function is None:
        return ""
    if function.name and call.name.value is None:
        call.name = call.name.set(function.name, tick)
    arguments = function.arguments
    if isinstance(arguments, dict):
        arguments = msgspec.json.encode(arguments).decode()
    if arguments:
        call.append(arguments, tick)
    return arguments or ""


def _parse_error(choice: ChoiceLog) -> APIError | None:
    """Why a choice that had to be parsed could not be."""
    where = f"Choice {choice.index}"
    if choice.is_cut_short:
        cut_off = [
            call
            for call in choice.calls
            if call.reader_at() is not None and call.is_cut_off(cut_short=True)
        ]
        text = choice.reader is not None and not choice.refusal and not choice.calls
        if not text and not cut_off:
            return None
        what = "its text" if text else f"the arguments of {cut_off[0].name.value}"
        if choice.finish_reason.value == "length":
            return LengthFinishReasonError(
                f"{where} cannot be parsed: max_tokens cut off {what}. Allow more tokens."
            )
        return ContentFilterFinishReasonError(
            f"{where} cannot be parsed: the server's content filter cut off {what}."
        )
    mismatch = choice.mismatch
    if mismatch is None:
        return None
    shown = shorten(mismatch.text, _SHOWN_BYTES)
    said = f"It says: {shown}" if mismatch.text.strip() else "It has no text."
    error = ContentParseError(
        f"{where} does not fit the response format: {mismatch.reason}, at {mismatch.path}. {said}",
        choice_index=choice.index,
        text=mismatch.text,
        path=mismatch.path,
        reason=mismatch.reason,
    )
    error.__cause__ = mismatch
    return error


def _stream_error(payload: bytes) -> APIStreamError:
    body = parse_json(payload)
    said = shorten(error_message(body))
    return APIStreamError(f"The server reported an error inside the stream: {said}", body=body)
