"""What the parts of a choice's delta add, and the events for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .accumulator import Accumulator, ChoiceLog, ToolCallLog
from .calls import add_piece, calls_in_order, find_call, is_done, open_call
from .chunks import ChoiceDelta, ChoiceLogprobs, GraphData, ToolCallDelta
from .events import (
    ChatCompletionStreamEvent,
    ContentDeltaEvent,
    ContentDoneEvent,
    FunctionToolCallArgumentsDeltaEvent,
    FunctionToolCallArgumentsDoneEvent,
    LogprobsContentDeltaEvent,
    LogprobsContentDoneEvent,
    LogprobsRefusalDeltaEvent,
    LogprobsRefusalDoneEvent,
    ReasoningDeltaEvent,
    ReasoningDoneEvent,
    RefusalDeltaEvent,
    RefusalDoneEvent,
    set_origin,
)
from .logs import ExtraLog, ItemLog, TextLog
from .rules import Occasion

NO_GRAPH_DATA: Final = GraphData()
"""What Writer sends in each delta of an answer without a Knowledge Graph."""

Events = list[ChatCompletionStreamEvent[Any]]

_DELTA_EVENTS: Final[dict[str, Callable[[int, str], ChatCompletionStreamEvent[Any]]]] = {
    "reasoning": ReasoningDeltaEvent,
    "content": ContentDeltaEvent,
    "refusal": RefusalDeltaEvent,
}
_DONE_EVENTS: Final[dict[str, Callable[[int, Any], ChatCompletionStreamEvent[Any]]]] = {
    "reasoning": ReasoningDoneEvent,
    "content": ContentDoneEvent,
    "refusal": RefusalDoneEvent,
    "logprobs_content": LogprobsContentDoneEvent,
    "logprobs_refusal": LogprobsRefusalDoneEvent,
}


def add_text(
    total: Accumulator, log: ChoiceLog, name: str, piece: str, events: Events | None
) -> None:
    """Add a piece to one of a choice's texts."""
    text: TextLog = getattr(log, name)
    setattr(log, name, text.append(piece, total.position))
    if piece and events is not None:
        event = _DELTA_EVENTS[name](log.index, piece)
        set_origin(event, (total, total.position, b""))
        events.append(event)


def add_reasoning(
    total: Accumulator, log: ChoiceLog, delta: ChoiceDelta, events: Events | None
) -> None:
    """Add the reasoning in a delta. Some servers send it under both names."""
    if piece := delta.reasoning_content:
        key = "reasoning_content"
    else:
        piece, key = delta.reasoning or "", "reasoning"
    if log.reasoning_key.value is None:
        log.reasoning_key = log.reasoning_key.set(key, total.position)
    add_text(total, log, "reasoning", piece, events)


def add_data(total: Accumulator, log: ChoiceLog, delta: ChoiceDelta) -> None:
    """Add what built-in tools report, and the fields that the library does not know."""
    position = total.position
    if delta.graph_data is not None and delta.graph_data != NO_GRAPH_DATA:
        log.graph_data = log.graph_data.merge(delta.graph_data, position)
    if delta.llm_data is not None:
        log.llm_data = log.llm_data.merge(delta.llm_data, position)
    if delta.translation_data is not None:
        log.translation_data = log.translation_data.merge(delta.translation_data, position)
    if delta.web_search_data is not None:
        log.web_search_data = log.web_search_data.merge(delta.web_search_data, position)
    if delta.extra:
        if log.extra is None:
            log.extra = ExtraLog()
        log.extra.add(delta.extra, position)


def add_logprobs(
    total: Accumulator, log: ChoiceLog, logprobs: ChoiceLogprobs, events: Events | None
) -> None:
    """Add the log probabilities of tokens."""
    if tokens := logprobs.content:
        log.logprobs_content = log.logprobs_content.extend(tokens, total.position)
        if events is not None:
            content = LogprobsContentDeltaEvent(log.index, tokens)
            set_origin(content, (total, total.position, b""))
            events.append(content)
    if tokens := logprobs.refusal:
        log.logprobs_refusal = log.logprobs_refusal.extend(tokens, total.position)
        if events is not None:
            refusal = LogprobsRefusalDeltaEvent(log.index, tokens)
            set_origin(refusal, (total, total.position, b""))
            events.append(refusal)


# Tool calls.


def add_calls(
    total: Accumulator,
    log: ChoiceLog,
    pieces: list[ToolCallDelta],
    events: Events | None,
    check_new: Callable[[], None],
) -> list[ToolCallLog]:
    """Add pieces of tool calls.

    Args:
        total: What has arrived so far.
        log: The choice.
        pieces: Its pieces.
        events: The list that the events are appended to; None for no events.
        check_new: Called before a call is opened. It may raise.

    Returns:
        The calls that may be done now; empty if the pieces added nothing.
    """
    touched: list[ToolCallLog] = []
    for piece in pieces:
        position = total.position = total.position + 1  # a call may have several in one chunk
        call = find_call(log, piece)
        is_new = call is None
        if call is None:
            check_new()
            if log.calls:
                touched.append(log.calls[-1])  # no longer the last one
            call = open_call(log, piece, position, total.tools)
        added = add_piece(log, call, piece, position)
        if added or is_new:
            touched.append(call)
            if events is not None:
                events.append(_call_delta(total, log, call, added))
    return touched


def _call_delta(
    total: Accumulator, log: ChoiceLog, call: ToolCallLog, added: str
) -> FunctionToolCallArgumentsDeltaEvent:
    event = FunctionToolCallArgumentsDeltaEvent(log.index, call.index, call.name.value or "", added)
    set_origin(event, (total, total.position, b""))
    return event


# Done events.


def add_done_events(
    total: Accumulator, log: ChoiceLog, occasion: Occasion, events: Events | None
) -> None:
    """Add the done events of a choice that is over, for each part that has begun and has none."""
    if log.ended_at is None:
        log.ended_at = total.position
    for name, make_event in _DONE_EVENTS.items():
        part: TextLog | ItemLog[Any] = getattr(log, name)
        if part and not part.done:
            part.done = True
            if events is not None:
                event = make_event(log.index, part.at())
                set_origin(event, (total, total.position, b""))
                events.append(event)
    for call in calls_in_order(log):
        if call.done_at is None and is_done(call, occasion):
            mark_done(total, log, call, events)


def add_early_done_events(
    total: Accumulator, log: ChoiceLog, touched: list[ToolCallLog], events: Events | None
) -> None:
    """Add the done events of calls that are whole. The latest call may go on, so it gets none."""
    for call in touched:
        if call is not log.calls[-1] and call.done_at is None:
            if is_done(call, Occasion.NEXT_CALL):
                mark_done(total, log, call, events)


def mark_done(total: Accumulator, log: ChoiceLog, call: ToolCallLog, events: Events | None) -> None:
    """Record that a call is done, and add its done event."""
    total.position += 1  # what this adds is not in the snapshots of earlier events
    added = call.settle_empty_object(total.position)
    if added and events is not None:
        events.append(_call_delta(total, log, call, added))
    call.done_at = total.position
    if events is not None:
        events.append(call_event(total, log, call))


def call_event(
    total: Accumulator, log: ChoiceLog, call: ToolCallLog
) -> FunctionToolCallArgumentsDoneEvent:
    """The done event of a call, or a record in the same form of one that was cut off."""
    position = total.position if call.done_at is None else call.done_at
    event = FunctionToolCallArgumentsDoneEvent(
        choice_index=log.index,
        index=call.index,
        name=call.name.value or "",
        tool_call_snapshot_id=call.id.value or "",
        arguments=call.arguments.at(position),
    )
    set_origin(event, (total, position, b""))
    return event
