"""The tables of the state machine: each is complete, and the machine obeys each of its rows."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from anyio_writer.protocol import ChatCompletionStreamState, rules
from anyio_writer.protocol.rules import (
    AFTER,
    BEGINS_NEXT,
    ID,
    IS_DONE,
    IS_FINISHED,
    TARGETS,
    Adds,
    Arguments,
    Index,
    Occasion,
    Progress,
    Reasons,
    Step,
    Stop,
    Target,
    is_finish_reason,
    stop_of,
)
from tests.protocol.driving import called, chunk, frames, piece, run

ONLY_AT_A_KNOWN_INDEX = {ID.SAME, ID.LATE}


def test_every_table_is_complete() -> None:
    assert AFTER.keys() == set(itertools.product(Reasons, Step))
    assert IS_FINISHED.keys() == set(Step)
    assert BEGINS_NEXT.keys() == set(itertools.product(Progress, (True, False), Adds))
    assert IS_DONE.keys() == set(itertools.product(Arguments, Occasion))
    possible = {
        (index, id_, named)
        for index, id_, named in itertools.product(Index, ID, (True, False))
        if index is Index.KNOWN or id_ not in ONLY_AT_A_KNOWN_INDEX
    }
    assert TARGETS.keys() == possible
    assert set(TARGETS.values()) == set(Target)


# The document shows the tables as they are.

DOCUMENT = Path(__file__).parents[2] / "docs" / "architecture.md"


def rows_below(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    text = DOCUMENT.read_text(encoding="utf-8").partition(f"**{heading}.**")[2]
    found = re.search(r"^\| ---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert found is not None
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].splitlines()]


INDEX_WORDS = {
    "no index": Index.MISSING,
    "a new index": Index.NEW,
    "a known index": Index.KNOWN,
}
ID_WORDS = {
    "no id": ID.MISSING,
    "the id of its call": ID.SAME,
    "a known id": ID.OTHER,
    "the id of another call": ID.OTHER,
    "a new id": ID.NEW,
    "a new id, and its call has none": ID.LATE,
    "a new id, and its call has another": ID.NEW,
}
TARGET_WORDS = {
    "a new call": Target.OPEN,
    "the call at this index": Target.AT_INDEX,
    "the call with this id": Target.WITH_ID,
    "the last call": Target.LAST,
    "the call at this index if that has its name and is unfinished, else a new call": (
        Target.UNFINISHED
    ),
}


def test_the_document_says_where_a_piece_goes() -> None:
    shown = {}
    for facts, without_name, with_name in rows_below("Which call a piece belongs to"):
        index, _, id_ = facts.partition(", ")
        for named, words in ((False, without_name), (True, with_name)):
            shown[INDEX_WORDS[index], ID_WORDS[id_], named] = TARGET_WORDS[words]
    assert shown == TARGETS


FORM_WORDS = {
    "one whole object, array or string": Arguments.WHOLE,
    "a number, text that is not JSON": Arguments.ENDED,
    "none, or `{}` in the piece that opened the call": Arguments.MISSING,
    "the start of a JSON value": Arguments.BEGUN,
}


def test_the_document_says_when_a_call_is_done() -> None:
    shown = {}
    for form, *cells in rows_below("When a call is done"):
        for occasion, words in zip(Occasion, cells, strict=True):
            shown[FORM_WORDS[form], occasion] = words == "done"
    assert shown == IS_DONE


# What a finish reason means.


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("length", Stop.LENGTH),
        ("max_tokens", Stop.LENGTH),
        ("MAX_TOKENS", Stop.LENGTH),
        ("maxTokens", Stop.LENGTH),
        ("max-tokens", Stop.LENGTH),
        ("FinishReason.MAX_TOKENS", Stop.LENGTH),
        ("FINISH_REASON_MAX_TOKENS", Stop.LENGTH),
        ("model_length", Stop.LENGTH),
        ("context_window_exceeded", Stop.LENGTH),
        ("token_limit", Stop.LENGTH),
        ("content_filter", Stop.CONTENT_FILTER),
        ("SAFETY", Stop.CONTENT_FILTER),
        ("safety", Stop.CONTENT_FILTER),
        ("PROHIBITED_CONTENT", Stop.CONTENT_FILTER),
        ("error", Stop.FAILURE),
        ("cancelled", Stop.FAILURE),
        ("time_limit", Stop.FAILURE),
        ("insufficient_system_resource", Stop.FAILURE),
        ("stop", Stop.END),
        ("STOP", Stop.END),
        ("tool_calls", Stop.END),
        ("end_turn", Stop.END),
        ("anything else", Stop.END),
        (None, Stop.END),
    ],
)
def test_what_a_finish_reason_means(reason: str | None, stop: Stop) -> None:
    assert stop_of(reason) is stop
    assert stop.is_cut_short == (stop is not Stop.END)


@pytest.mark.parametrize("reason", [None, "", "null", "NULL", "None", "not_finished"])
def test_what_is_no_finish_reason(reason: str | None) -> None:
    assert not is_finish_reason(reason)
    for real in ("stop", "-", "停止", "1"):
        assert is_finish_reason(real)


# Which choice is finished, and whether finish reasons prove anything.

TO = {
    Reasons.UNPROVEN: [],
    Reasons.RELIABLE: [chunk({"content": "a"}, index=7)],
    Reasons.UNRELIABLE: [
        chunk({"content": "a"}, "stop", index=7),
        chunk({"content": "b"}, index=7),
    ],
}
"""Chunks of another choice that lead to a state."""
CONTENTS: list[dict[str, Any]] = [
    {"content": "x"},
    {"reasoning_content": "x"},
    {"reasoning": "x"},
    {"refusal": "x"},
    {"tool_calls": [piece(0, id="i", name="f")]},
]


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: next(iter(content)))
@pytest.mark.parametrize(("before", "step"), AFTER)
def test_a_step(before: Reasons, step: Step, content: dict[str, Any]) -> None:
    state = ChatCompletionStreamState[Any]()
    for each in TO[before]:
        state.handle_chunk(parsed(each))
    has_content = step in {
        Step.CONTENT,
        Step.CONTENT_AND_REASON,
        Step.LATE_CONTENT,
        Step.LATE_CONTENT_AND_REASON,
    }
    has_reason = step in {Step.REASON, Step.CONTENT_AND_REASON, Step.LATE_CONTENT_AND_REASON}
    if step.is_late:
        state.handle_chunk(parsed(chunk(reason="stop")))
    was_finished = step.is_late
    state.handle_chunk(
        parsed(chunk(content if has_content else {}, "length" if has_reason else None))
    )
    assert state._state.finish_reasons_are_reliable == (AFTER[before, step] is Reasons.RELIABLE)
    finished = IS_FINISHED[step]
    state.handle_chunk(parsed(chunk(reason="stop", index=7)))
    assert state._state.all_finished == (was_finished if finished is None else finished)
    reason = state.current_completion_snapshot.choices[0].finish_reason
    # Content after a finish reason shows that it was none, so the next one counts.
    assert reason == ("length" if has_reason else "stop" if step.is_late else None)


def parsed(each: dict[str, Any]) -> bytes:
    return frames(each).removeprefix(b"data: ").strip()


# Which call a piece belongs to.


def opening(row: tuple[Index, ID, bool]) -> list[dict[str, Any]]:
    """Two calls before the piece, both begun and not whole."""
    first = {"id": "a"}
    if row[1] is ID.LATE:
        first = {}
    return [
        piece(0, name="f", arguments="[", **first),
        piece(1, id="b", name="g", arguments="["),
    ]


@pytest.mark.parametrize("row", TARGETS)
def test_where_a_piece_goes(row: tuple[Index, ID, bool]) -> None:
    index, id_, named = row
    given: dict[str, Any] = {"arguments": "1"}
    if (wire_id := {ID.SAME: "a", ID.OTHER: "b", ID.LATE: "c", ID.NEW: "c"}.get(id_)) is not None:
        given["id"] = wire_id
    if index is Index.MISSING and id_ is ID.OTHER:
        given["id"] = "a"
    if named:
        given["name"] = {Target.LAST: "g", Target.AT_INDEX: "f"}.get(TARGETS[row], "g")
        if index is Index.MISSING and id_ is ID.OTHER:
            given["name"] = "f"
    wire_index = {Index.MISSING: None, Index.NEW: 5, Index.KNOWN: 0}[index]
    outcome = run(frames(*map(called, opening(row)), called(piece(wire_index, **given)), "[DONE]"))
    arguments = [call[2] for call in outcome.calls]
    with_id = 0 if index is Index.MISSING else 1
    expected = {
        Target.OPEN: ["[", "[", "1"],
        Target.AT_INDEX: ["[1", "["],
        Target.WITH_ID: ["[1", "["] if with_id == 0 else ["[", "[1"],
        Target.LAST: ["[", "[1"],
        Target.UNFINISHED: ["[", "[", "1"],  # another name
    }[TARGETS[row]]
    assert arguments == expected


@pytest.mark.parametrize(
    ("begun", "name", "is_unfinished"),
    [
        (None, "f", True),
        ("", "f", True),
        ("[", "f", True),
        ("[", "g", False),
        ("", "g", False),
        ("{}", "f", False),
        ("[1]", "f", False),
    ],
)
def test_a_known_index_with_a_new_id_and_a_name(
    begun: str | None, name: str, *, is_unfinished: bool
) -> None:
    outcome = run(
        frames(
            called(piece(0, id="i", name="f", arguments=begun)),
            called(piece(0, id="j", name=name, arguments="1]")),
            "[DONE]",
        )
    )
    expected = [(begun or "") + "1]"] if is_unfinished else [begun or "", "1]"]
    assert [call[2] for call in outcome.calls] == expected


PROGRESS = {Progress.NONE: "", Progress.BEGUN: '["a"', Progress.WHOLE: '["a"]'}


@pytest.mark.parametrize("row", BEGINS_NEXT)
def test_whether_a_named_piece_begins_the_next_call(row: tuple[Progress, bool, Adds]) -> None:
    progress, same_name, adds = row
    begun = PROGRESS[progress]
    more = {Adds.NOTHING: "", Adds.REPETITION: begun, Adds.MORE: "[2]"}[adds]
    if adds is Adds.REPETITION and progress is not Progress.WHOLE:
        return  # nothing to repeat
    outcome = run(
        frames(
            called(piece(0, id="i", name="f", arguments=begun)),
            called(piece(0, id="i", name="f" if same_name else "g", arguments=more)),
            "[DONE]",
        )
    )
    assert len(outcome.calls) == 1 + BEGINS_NEXT[row]
    if BEGINS_NEXT[row]:
        assert outcome.calls[1] == ("i", "f" if same_name else "g", more)
    else:
        assert outcome.calls[0][2] == begun + (more if adds is Adds.MORE else "")


# When a call is done.

# What comes in the piece that opens the call, and in the next one.
ARGUMENTS: dict[Arguments, list[tuple[Any, Any]]] = {
    Arguments.WHOLE: [
        ('{"a": 1}', None),
        ("[]", None),
        ('"text"', None),
        ("", "{}"),
        (None, "{ }"),
        ("{}", '{"a": 1}'),
        ('{"a"', ": 1}"),
    ],
    Arguments.ENDED: [("12", None), ("not json", None), ("{}", "{'a': 1}")],
    Arguments.MISSING: [
        ("", None),
        (None, ""),
        ("{}", None),
        ({}, None),
        ("{ }", " "),
        ("{}", "{}"),
    ],
    Arguments.BEGUN: [('{"a"', None), ("[", None), ("{}", '"x')],
}
REASON = {Occasion.STREAM_OVER: "tool_calls", Occasion.CUT_SHORT: "length"}


@pytest.mark.parametrize("row", IS_DONE)
def test_when_a_call_is_done(row: tuple[Arguments, Occasion]) -> None:
    form, occasion = row
    for opening, rest in ARGUMENTS[form]:
        state = ChatCompletionStreamState[Any]()
        state.handle_chunk(parsed(called(piece(0, id="i", name="f", arguments=opening))))
        state.handle_chunk(parsed(called(piece(0, arguments=rest))))
        if occasion is Occasion.NEXT_CALL:
            state.handle_chunk(parsed(called(piece(1, id="j", name="g"))))
        else:
            state.handle_chunk(parsed(chunk(reason=REASON.get(occasion, "stop"))))
        if occasion in REASON:
            state.finish()
        done = {call.tool_call_snapshot_id for call in state._state.done_calls()}
        assert ("i" in done) == IS_DONE[row], (opening, rest)
        cut_off = {call.tool_call_snapshot_id: call for call in state._state.cut_off_calls()}
        assert ("i" in cut_off) != ("i" in done)
        if form is Arguments.BEGUN and "i" in cut_off:
            assert cut_off["i"].arguments in (opening, rest)


@pytest.mark.parametrize("placeholder", ["{}", {}])
def test_calls_that_are_all_opened_before_their_arguments_come(placeholder: object) -> None:
    """None of them is run without its arguments, whatever comes in between."""
    openings = [
        called(piece(number, id=f"i{number}", name="f", arguments=placeholder))
        for number in range(3)
    ]
    rest = [called(piece(number, arguments=f"[{number}]")) for number in range(3)]
    reason = chunk(reason="tool_calls")
    for payloads in (
        [*openings, *rest, reason],
        [chunk({"content": "x"}), *openings, reason, *rest, "[DONE]"],
        [*openings, reason, *rest, reason],
    ):
        outcome = run(frames(*payloads))
        assert outcome.error is None
        assert outcome.done_calls == outcome.calls == [(f"i{n}", "f", f"[{n}]") for n in range(3)]


def test_every_word_for_a_reason_is_in_its_squeezed_form() -> None:
    for word in rules._STOPS:
        assert rules._squeeze(word) == word
