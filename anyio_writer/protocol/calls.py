"""Pieces of tool calls: which call each belongs to, and what it adds. See ``rules``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .accumulator import ChoiceLog, ToolCallLog
from .chunks import ToolCallDelta
from .rules import (
    BEGINS_NEXT,
    ID,
    IS_DONE,
    TARGETS,
    Adds,
    Index,
    Occasion,
    Progress,
    Target,
)
from .values import ValueReader


def find_call(log: ChoiceLog, piece: ToolCallDelta) -> ToolCallLog | None:
    """The call that a piece continues; None if it begins a new one."""
    index, id_ = piece.index, piece.id
    name = piece.function.name if piece.function is not None else None
    here = None if index is None else log.calls_by_wire_index.get(index)
    if here is not None and not id_ and not name:
        return here  # as in the table; nearly every piece is of this kind
    target = TARGETS[_index_of(index, here), _id_of(id_, here, log), bool(name)]
    call: ToolCallLog | None = None
    match target:
        case Target.OPEN:
            return None
        case Target.AT_INDEX:
            call = here
        case Target.WITH_ID:
            call = log.calls_by_id[id_ or ""]
        case Target.LAST:
            call = log.calls[-1] if log.calls else None
        case Target.UNFINISHED:
            if here is not None and here.name.value == name and here.is_unfinished():
                call = here
    if call is None or (name and _begins_next(call, piece, name)):
        return None
    return call


def open_call(
    log: ChoiceLog, piece: ToolCallDelta, position: int, tools: Mapping[str, ValueReader[Any]]
) -> ToolCallLog:
    """Open a call at the index that the server sent, or at the next free one if that is taken."""
    index = piece.index
    if index is None or index in log.calls_by_index:
        index = log.next_call_index
    log.next_call_index = max(log.next_call_index, index + 1)
    call = log.calls_by_index[index] = ToolCallLog(index, position, tools)
    log.calls.append(call)
    return call


def add_piece(log: ChoiceLog, call: ToolCallLog, piece: ToolCallDelta, position: int) -> str:
    """Add a piece to its call; returns what it added to the arguments."""
    if piece.index is not None:
        log.calls_by_wire_index[piece.index] = call
    if piece.id:
        if call.id.value is None:
            call.id = call.id.set(piece.id, position)
        if call.id.value == piece.id:
            log.calls_by_id[piece.id] = call
    if piece.type and call.type.value is None:
        call.type = call.type.set(piece.type, position)
    if piece.extra_content:
        call.extra = call.extra.set(piece.extra_content, position)
    function = piece.function
    if function is None:
        return ""
    if function.name and call.name.value is None:
        call.name = call.name.set(function.name, position)
    return call.add(function.arguments or "", position)


def is_done(call: ToolCallLog, occasion: Occasion) -> bool:
    """Whether a call is done."""
    if occasion is Occasion.NEXT_CALL and not call.may_be_all():
        return False  # as in the table, which takes longer
    return IS_DONE[call.arguments_form(), occasion]


def occasion_at_end(log: ChoiceLog) -> Occasion:
    """The occasion at the end of the stream: whether the model was stopped."""
    return Occasion.CUT_SHORT if log.stop.is_cut_short else Occasion.STREAM_OVER


def calls_in_order(log: ChoiceLog) -> list[ToolCallLog]:
    """The calls of a choice by their indices."""
    return sorted(log.calls, key=lambda call: call.index)


# The keys of the tables.


def _index_of(index: int | None, here: ToolCallLog | None) -> Index:
    if index is None:
        return Index.MISSING
    return Index.NEW if here is None else Index.KNOWN


def _id_of(id_: str | None, here: ToolCallLog | None, log: ChoiceLog) -> ID:
    if not id_:
        return ID.MISSING
    if here is not None and here.id.value == id_:
        return ID.SAME
    if id_ in log.calls_by_id:
        return ID.OTHER
    return ID.LATE if here is not None and here.id.value is None else ID.NEW


def _begins_next(call: ToolCallLog, piece: ToolCallDelta, name: str) -> bool:
    is_anonymous = piece.index is None and not piece.id
    progress = call.progress(is_anonymous=is_anonymous)
    arguments = (piece.function.arguments if piece.function is not None else None) or ""
    adds = Adds.NOTHING
    if arguments.strip():
        adds = Adds.MORE
        # Without index and id, the same call again is a second call.
        if progress is Progress.WHOLE and not is_anonymous and call.repeats(arguments):
            adds = Adds.REPETITION
    return BEGINS_NEXT[progress, call.name.value in (None, name), adds]
