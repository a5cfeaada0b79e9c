"""Chunks to events: what each chunk adds to an answer, and what it means for its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .accumulator import Accumulator, ChoiceLog, ToolCallLog
from .choices import (
    NO_GRAPH_DATA,
    add_calls,
    add_data,
    add_done_events,
    add_early_done_events,
    add_logprobs,
    add_reasoning,
    add_text,
)
from .chunks import ChatCompletionChunk, ChunkChoice
from .dialects import check_number
from .events import (
    ChatCompletionStreamEvent,
    ChunkEvent,
    ContentDeltaEvent,
    set_origin,
)
from .logs import NEVER
from .rules import AFTER, IS_FINISHED, Occasion, Reasons, is_finish_reason, step_of
from .stream_errors import reports_error, stream_error

_Events = list[ChatCompletionStreamEvent[Any]]

_UNPROVEN: Final = Reasons.UNPROVEN
_NO_CALLS: Final[list[ToolCallLog]] = []


class Machine:
    """Applies the chunks of one stream, in order.

    Args:
        accumulator: What the chunks are added to.
        max_choices: How many choices the answer may hold.
        max_tool_calls: How many tool calls the answer may hold.
    """

    def __init__(self, accumulator: Accumulator, *, max_choices: int, max_tool_calls: int) -> None:
        self.chunk_count: int = 0
        """The number of chunks so far."""
        self.content_at: int = 0
        """The position of the last content (text, reasoning, a call, audio, a finish reason); 0
        before the first."""
        self._accumulator = accumulator
        self._max_choices = max_choices
        self._max_tool_calls = max_tool_calls
        self._lacks_head = True  # whether the id, the date or the model is still unknown
        self._finished = 0  # how many choices are finished
        self._reasons = Reasons.UNPROVEN
        self._has_answer = False  # whether a choice with more than reasoning had a finish reason
        self._call_count = 0

    @property
    def has_content(self) -> bool:
        """Whether the model has sent anything yet, even if only a finish reason."""
        return self.content_at > 0

    def _apply_chunk(  # noqa: C901 - the hot path: one call fewer saves 60 ns of 2 µs
        self, chunk: ChatCompletionChunk, payload: bytes, events: _Events | None
    ) -> None:
        choices: Sequence[ChunkChoice] = chunk.choices or ()
        if chunk.error is not None or chunk.tpe is not None or chunk.object == "error":
            if chunk.is_error:
                raise stream_error(payload)
        if not choices and reports_error(payload):
            raise stream_error(payload)
        self.chunk_count += 1
        total = self._accumulator
        position = total.position = total.position + 1
        if self._lacks_head:
            self._apply_head(chunk, position)
        if (tier := chunk.service_tier) and tier != total.service_tier.value:
            total.service_tier = total.service_tier.set(tier, position)
        if (mark := chunk.system_fingerprint) and mark != total.system_fingerprint.value:
            total.system_fingerprint = total.system_fingerprint.set(mark, position)
        if chunk.usage is not None:
            total.usage = total.usage.merge(chunk.usage, position)
        if events is None:
            for choice in choices:
                self._apply_choice(choice, None)
            return
        event = ChunkEvent(chunk)
        events.append(event)
        for choice in choices:
            self._apply_choice(choice, events)
        set_origin(event, (total, total.position, payload))

    def _apply_head(self, chunk: ChatCompletionChunk, position: int) -> None:
        """Set the id, the date and the model, each from the first chunk that has it."""
        total = self._accumulator
        if chunk.id and total.id.value is None:
            total.id = total.id.set(chunk.id, position)
        if chunk.created and total.created.value is None:
            total.created = total.created.set(chunk.created, position)
        if chunk.model and total.model.value is None:
            total.model = total.model.set(chunk.model, position)
        self._lacks_head = None in (total.id.value, total.created.value, total.model.value)

    def _apply_choice(  # noqa: C901, PLR0912 - the hot path: one call a choice
        self, choice: ChunkChoice, events: _Events | None
    ) -> None:
        total = self._accumulator
        position = total.position = total.position + 1  # one chunk may name a choice twice
        index = choice.index or 0
        log = total.choices.get(index)
        if log is None:
            log = self._begin_choice(index)
        delta = choice.delta
        adds_content = False
        touched: list[ToolCallLog] = _NO_CALLS
        if delta is None and not log.has_content:
            delta = choice.whole_message
        if delta is not None:
            if delta.reasoning_content or delta.reasoning:
                add_reasoning(total, log, delta, events)
                adds_content = True
            content = delta.content
            if content is not None:
                log.content = log.content.append(content, position)
                if content:
                    adds_content = True
                    if events is not None:
                        event = ContentDeltaEvent(index, content)
                        set_origin(event, (total, position, b""))
                        events.append(event)
            if delta.refusal is not None:
                add_text(total, log, "refusal", delta.refusal, events)
                adds_content = adds_content or bool(delta.refusal)
            if delta.tool_calls is not None:
                if len(delta.tool_calls) > self._max_tool_calls:
                    check_number("tool calls", len(delta.tool_calls), self._max_tool_calls)
                touched = add_calls(total, log, delta.tool_calls, events, self._count_call)
                adds_content = adds_content or bool(touched)
            if delta.role and log.role is NEVER:
                log.role = log.role.set(delta.role, total.position)
            if (
                (delta.graph_data is not None and delta.graph_data != NO_GRAPH_DATA)
                or delta.llm_data is not None
                or delta.translation_data is not None
                or delta.web_search_data is not None
                or delta.extra is not None
            ):
                add_data(total, log, delta)
                if delta.extra:
                    self.content_at = position
        if choice.logprobs is not None:
            add_logprobs(total, log, choice.logprobs, events)
            if choice.logprobs.content or choice.logprobs.refusal:
                self.content_at = position
        if adds_content:
            log.has_content = True
            self.content_at = position
        reason = choice.finish_reason
        if reason or log.finish_reason is not NEVER or self._reasons is _UNPROVEN:
            self._update_end(log, reason, touched, events, adds_content=adds_content)
        elif touched and len(log.calls) > 1:
            add_early_done_events(total, log, touched, events)

    def _update_end(
        self,
        log: ChoiceLog,
        reason: str | None,
        touched: list[ToolCallLog],
        events: _Events | None,
        *,
        adds_content: bool,
    ) -> None:
        """Update whether a choice is finished, and what is known of the server's finish reasons."""
        total = self._accumulator
        has_reason = is_finish_reason(reason)
        step = step_of(
            has_content=adds_content,
            has_reason=has_reason,
            had_reason=log.finish_reason.value is not None,
        )
        if (reasons := AFTER[self._reasons, step]) is not self._reasons:
            self._set_reasons(reasons)
        was_finished = log.is_finished
        if (is_finished := IS_FINISHED[step]) is not None:
            log.is_finished = is_finished
            self._finished += is_finished - was_finished
        if has_reason and (step.is_late or not was_finished):
            # The first reason counts, unless content came after it.
            log.finish_reason = log.finish_reason.set(reason or "", total.position)
            self.content_at = total.position
            if log.ended_at is None:
                log.ended_at = total.position
            if log.content or log.refusal or log.calls:
                self._has_answer = True
            if self._reasons is Reasons.RELIABLE:
                add_done_events(total, log, Occasion.CHOICE_OVER, events)
                return
        if touched:
            add_early_done_events(total, log, touched, events)

    def _set_reasons(self, reasons: Reasons) -> None:
        self._reasons = reasons

    # Limits.

    def _begin_choice(self, index: int) -> ChoiceLog:
        total = self._accumulator
        check_number("choices", len(total.choices) + 1, self._max_choices)
        log = total.choices[index] = ChoiceLog(index, total.position, total.reader)
        return log

    def _count_call(self) -> None:
        check_number("tool calls", self._call_count + 1, self._max_tool_calls)
        self._call_count += 1
