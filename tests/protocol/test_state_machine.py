"""Chunks to events, against a simple model of what must come of a stream."""

import json
import re
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from anyio_writer.errors import APIStreamError, InvalidParameterError, StreamTruncatedError
from anyio_writer.protocol import (
    ChatCompletionStreamState,
    GraphData,
    LLMData,
    ServerSentEvent,
    Source,
    WebSearchData,
    accumulator,
    parse_chunk,
)
from tests.plugins.thoroughness import examples
from tests.protocol.described import completion, described
from tests.protocol.driving import called, chunk, frames, piece, run, said
from tests.protocol.streams import (
    CallPiece,
    Choice,
    Entry,
    Model,
    Script,
    scripts,
    wire,
)

STOP = chunk(reason="stop")
THOROUGH = settings(max_examples=examples(80), suppress_health_check=list(HealthCheck))


TWO_CALLS_CUT_SHORT = Script(
    {0: Choice("index", ["f", "g"])},
    [
        (
            {},
            [
                Entry(
                    0,
                    pieces=[
                        CallPiece(0, "", opens=True),
                        CallPiece(0, "{}"),
                        CallPiece(1, "", opens=True),
                    ],
                )
            ],
        ),
        ({}, [Entry(0, reason="length")]),
    ],
)
"""The model was stopped before the arguments of its second call: that call is not done."""


@THOROUGH
@given(scripts())
@example(TWO_CALLS_CUT_SHORT)
def test_every_event_and_the_completion(script: Script) -> None:
    model = Model(script)
    state = ChatCompletionStreamState[Any](n=len(script.choices))
    seen: list[dict[str, Any]] = []
    for sent, (fields, entries) in zip(wire(script), script.chunks, strict=True):
        expected = model.take(fields, entries)
        events = [described(event) for event in state.handle_chunk(json.dumps(sent).encode())]
        assert events == expected
        assert completion(state.current_completion_snapshot) == model.completion()
        seen += events
    assert state.chunk_count == len(script.chunks)
    assert state.complete == state._state.all_finished == model.is_complete
    assert state._state.finish_reasons_are_reliable == (model.is_reliable is True)
    if not model.is_complete:
        with pytest.raises(StreamTruncatedError, match="content came after the finish reason"):
            state.finish()
        state.handle_chunk("[DONE]")
    late = [described(event) for event in state.finish()]
    assert late == model.finish()
    seen += late
    assert state.finish() == []
    assert completion(state.get_final_completion()) == model.completion()

    # Whatever the model says: one done event per thing that was begun, none for what was cut off.
    done = Counter(
        (event["type"], event["choice_index"], event.get("index"))
        for event in seen
        if event["type"].endswith(".done")
    )
    assert set(done.values()) <= {1}
    for choice in model.choices.values():
        for number, call in choice.calls.items():
            key = ("tool_calls.function.arguments.done", choice.index, call["index"])
            assert done[key] == (not choice.is_cut_off(number))


@THOROUGH
@given(scripts(), st.data())
def test_the_result_is_the_same_without_events_in_bulk_and_as_structs(
    script: Script, data: st.DataObject
) -> None:
    sent = [json.dumps(each).encode() for each in wire(script)]
    state = ChatCompletionStreamState[Any]()
    one_by_one = [described(event) for each in sent for event in state.handle_chunk(each)]
    final = state.current_completion_snapshot

    silent = ChatCompletionStreamState[Any]()
    silent._state.feed([ServerSentEvent(each) for each in sent], None)
    assert silent.current_completion_snapshot == final
    assert silent.complete == state.complete
    assert silent._state.has_content == state._state.has_content

    # Events from the middle on are those that would have come anyway.
    late = ChatCompletionStreamState[Any]()
    join = data.draw(st.integers(0, len(sent)))
    late._state.feed([ServerSentEvent(each) for each in sent[:join]], None)
    events: list[Any] = []
    late._state.feed([ServerSentEvent(each) for each in sent[join:]], events)
    rest = [described(event) for event in events]
    assert rest == one_by_one[len(one_by_one) - len(rest) :]

    structs = ChatCompletionStreamState[Any]()
    chunks = [parse_chunk(each) for each in sent]
    before = [msgspec.json.encode(each) for each in chunks]
    assert [
        described(event) for each in chunks for event in structs.handle_chunk(each)
    ] == one_by_one
    assert [msgspec.json.encode(each) for each in chunks] == before  # not changed

    texts = ChatCompletionStreamState[Any]()
    named = ChatCompletionStreamState[Any]()
    for each in sent:
        assert texts.handle_chunk(each.decode()) == named.handle_chunk(
            ServerSentEvent(each, "completion")
        )
    assert texts.current_completion_snapshot == named.current_completion_snapshot == final


def test_the_order_inside_one_chunk() -> None:
    token = [{"token": "t"}]
    first = called(piece(0, id="i", name="f", arguments="["))
    delta = {
        "reasoning_content": "r",
        "content": "a",
        "refusal": "b",
        "tool_calls": [piece(0, arguments="1]"), piece(1, id="j", name="g", arguments="[2]")],
    }
    everything = chunk(delta, "stop")
    everything["choices"][0]["logprobs"] = {"content": token, "refusal": token}
    everything["choices"].append({"index": 1, "delta": {"content": "c"}, "finish_reason": "stop"})
    outcome = run(frames(first, everything), n=2)
    assert outcome.error is None
    assert [(event.type, getattr(event, "choice_index", None)) for event in outcome.events][2:] == [
        ("chunk", None),
        ("reasoning.delta", 0),
        ("content.delta", 0),
        ("refusal.delta", 0),
        ("tool_calls.function.arguments.delta", 0),
        ("tool_calls.function.arguments.delta", 0),
        ("logprobs.content.delta", 0),
        ("logprobs.refusal.delta", 0),
        ("reasoning.done", 0),
        ("content.done", 0),
        ("refusal.done", 0),
        ("logprobs.content.done", 0),
        ("logprobs.refusal.done", 0),
        ("tool_calls.function.arguments.done", 0),
        ("tool_calls.function.arguments.done", 0),
        ("content.delta", 1),
        ("content.done", 1),
    ]


def test_a_choice_named_twice_in_one_chunk() -> None:
    twice = said("a")
    twice["choices"] += said("b")["choices"]
    outcome = run(frames(twice, STOP))
    first, second = [event for event in outcome.events if event.type == "content.delta"]
    assert (first.snapshot, second.snapshot) == ("a", "ab")


# Ends.


@pytest.mark.parametrize(
    ("payloads", "n", "words"),
    [
        ([], None, "it held no event"),
        (["[DONE]"], None, r"it said \[DONE\] and nothing else"),
        ([{"choices": []}, {}], None, "none of its 2 chunks held a choice"),
        ([said("abc")], None, r"no finish reason came for choice 0 \(3 characters had arrived\)"),
        (
            [chunk({"content": "a"}, index=1), chunk({"content": "bc"}, index=0)],
            None,
            "choice 0, 1",
        ),
        ([STOP], 2, "only 1 of 2 choices came"),
        ([STOP, chunk({"content": "x"}, index=1)], None, "for choice 1"),
    ],
)
def test_what_a_truncated_stream_says(payloads: list[object], n: int | None, words: str) -> None:
    outcome = run(frames(*payloads), n=n)
    assert type(outcome.error) is StreamTruncatedError
    arrived = outcome.completion if outcome.completion.choices else None
    assert outcome.error.completion == arrived
    with pytest.raises(StreamTruncatedError, match=words):
        raise outcome.error


def test_the_completion_can_be_remembered_for_later() -> None:
    state = ChatCompletionStreamState[Any]()
    remembered = [state._state.remember()]
    expected = [state.current_completion_snapshot]
    for each in (said("a"), said("b"), STOP):
        state.handle_chunk(json.dumps(each))
        remembered.append(state._state.remember())
        expected.append(state.current_completion_snapshot)
    assert [recall() for recall in remembered] == expected


def test_get_final_completion_needs_the_whole_answer() -> None:
    state = ChatCompletionStreamState[Any]()
    assert not state._state.has_content
    state.handle_chunk(json.dumps(said("a")))
    assert state._state.has_content
    with pytest.raises(StreamTruncatedError) as info:
        state.get_final_completion()
    assert info.value.completion == state.current_completion_snapshot
    state.handle_chunk(json.dumps(STOP))
    assert state.get_final_completion() == state.current_completion_snapshot


def test_done_events_at_the_end_without_a_reason() -> None:
    body = frames(
        chunk({"content": "b"}, index=1),
        said("a"),
        called(piece(0, name="f", arguments="[]"), piece(1, name="g", arguments='{"a"')),
        "[DONE]",
    )
    outcome = run(body)
    assert outcome.error is None
    assert [(e.type, e.choice_index) for e in outcome.events if e.type.endswith("done")] == [
        ("tool_calls.function.arguments.done", 0),  # the next call had begun
        ("content.done", 0),
        ("content.done", 1),
    ]
    assert [choice.finish_reason for choice in outcome.completion.choices] == [None, None]


def test_what_comes_after_done_does_not_count_in_whatever_form() -> None:
    state = ChatCompletionStreamState[Any]()
    state.handle_chunk(json.dumps(said("a")))
    assert state.handle_chunk("[DONE]") == []
    assert state.done_received
    late = json.dumps(said("b"))
    assert state.handle_chunk(late) == []
    assert state.handle_chunk(late.encode()) == []
    assert state.handle_chunk(ServerSentEvent(late.encode())) == []
    assert state.handle_chunk(parse_chunk(late.encode())) == []
    assert state.handle_chunk("nonsense") == []
    assert state.get_final_completion().choices[0].message.content == "a"


def test_an_error_carries_the_completion_in_whatever_form_the_chunk_came() -> None:
    error = b'{"error":"no"}'
    for form in (error, error.decode(), ServerSentEvent(error), parse_chunk(error)):
        state = ChatCompletionStreamState[Any]()
        state.handle_chunk(json.dumps(said("a")))
        with pytest.raises(APIStreamError, match="no") as info:
            state.handle_chunk(form)
        assert info.value.completion == state.current_completion_snapshot
        assert info.value.completion.choices[0].message.content == "a"


def test_text_that_is_no_unicode_can_be_handed_in() -> None:
    state = ChatCompletionStreamState[Any]()
    state.handle_chunk('{"choices":[{"delta":{"content":"a\ud83db"},"finish_reason":"stop"}]}')
    content = state.get_final_completion().choices[0].message.content
    assert content is not None
    assert re.fullmatch("a\ufffd+b", content)


def test_a_late_call_is_done_when_the_stream_is() -> None:
    late = called(piece(0, id="i", name="f", arguments="{}"))
    outcome = run(frames(said("a"), STOP, late, "[DONE]"))
    assert outcome.error is None
    assert outcome.calls == [("i", "f", "{}")]
    assert outcome.types()[-3:] == [
        "tool_calls.function.arguments.delta",
        "tool_calls.function.arguments.delta",
        "tool_calls.function.arguments.done",
    ]


def test_text_that_begins_late_is_done_when_the_stream_is_and_other_text_only_once() -> None:
    late = run(frames(chunk(reason="stop"), said("a"), "[DONE]"))
    assert late.types()[-2:] == ["content.delta", "content.done"]
    on = run(frames(said("a"), STOP, said("b"), "[DONE]"))
    assert on.types().count("content.done") == 1


@pytest.mark.parametrize("first", [chunk(reason="stop"), chunk({"content": "x"}, "stop")])
def test_content_after_the_last_finish_reason_was_cut_off(first: dict[str, Any]) -> None:
    outcome = run(frames(first, said("a")))
    assert type(outcome.error) is StreamTruncatedError
    assert run(frames(first, said("a"), STOP)).error is None
    assert run(frames(first, chunk({"content": "a"}, "stop"))).error is None


def test_white_space_is_no_arguments_cut_off() -> None:
    outcome = run(frames(called(piece(0, id="i", name="f", arguments=" ")), STOP))
    assert outcome.types()[-1] == "tool_calls.function.arguments.done"


def test_white_space_behind_whole_arguments_does_not_cost_a_new_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    original = accumulator.wholeness

    def counting(text: str) -> Any:
        nonlocal looks
        looks += 1
        return original(text)

    monkeypatch.setattr(accumulator, "wholeness", counting)
    pieces = [called(piece(0, name="f", arguments="[1]"))]
    pieces += [called(piece(0, name="f", arguments="")) for _ in range(100)]
    pieces += [called(piece(0, arguments=" ")) for _ in range(100)]
    outcome = run(frames(*pieces, STOP))
    assert [call[2].strip() for call in outcome.calls] == ["[1]"]
    assert looks < 10


# Arguments.


@pytest.mark.parametrize("reason", ["tool_calls", "length", "stop"])
@pytest.mark.parametrize(
    ("arguments", "done"),
    [
        ("{}", True),
        ('{"a":"\\ud83d"}', True),  # half a surrogate pair is allowed in JSON
        ('{"a":"\\ud83dxxxxxxx"}', True),
        ('{"a":"\\ud83d', False),
        ('{"a":"\\ud83d\\ude', False),
        ('{"a":', False),
        ('{"a":-', False),
        ('{"a":1.', False),
        ('{"a":1e', False),
        ('{"a": tru', False),
        ('"x', False),
        ("[[]", False),
        ("12", True),
        ("not json", True),
        ("{'a': 1}", True),
        # Deeper than any JSON that can be read, so nobody knows whether it was cut.
        ("[" * 100_000, True),
    ],
)
def test_done_only_for_what_was_not_cut_off(arguments: str, done: bool, reason: str) -> None:
    opened, rest = piece(0, id="i", name="f"), piece(0, arguments=arguments)
    outcome = run(frames(called(opened), called(rest, reason=reason)))
    assert outcome.error is None
    assert outcome.done_calls == ([("i", "f", arguments)] if done else [])
    assert outcome.calls == [("i", "f", arguments)]


@pytest.mark.parametrize(
    ("reason", "done"),
    [("stop", True), ("tool_calls", True), ("length", False), ("content_filter", False)],
)
def test_arguments_that_never_came_were_cut_off_if_the_model_was(reason: str, done: bool) -> None:
    for arguments in (None, "", " ", "{}", {}):
        opened = called(piece(0, id="i", name="f", arguments=arguments), reason=reason)
        assert len(run(frames(opened)).done_calls) == done


def test_arguments_as_objects() -> None:
    big = 123456789012345678901234567890
    outcome = run(
        frames(
            called(piece(0, name="f", arguments={"é": [1, {"b": None}], "n": big})),
            called(piece(1, name="g", arguments={})),
            chunk(reason="stop"),
        )
    )
    assert outcome.error is None
    assert [(name, json.loads(arguments)) for _, name, arguments in outcome.calls] == [
        ("f", {"é": [1, {"b": None}], "n": big}),
        ("g", {}),
    ]


# What is replaced and what is kept.


def test_built_in_tool_data_by_field() -> None:
    outcome = run(
        frames(
            chunk({"graph_data": {"sources": None, "status": None}, "llm_data": None}),
            chunk({"graph_data": {"status": "processing", "sources": [{"file_id": "a"}]}}),
            chunk({"graph_data": {"status": "", "sources": [], "subqueries": [{"query": "q"}]}}),
            chunk({"llm_data": {"model": "m", "prompt": "p"}}),
            chunk({"graph_data": {"status": "finished"}, "llm_data": {"prompt": "q"}}),
            chunk({"web_search_data": {"search_query": "s"}, "llm_data": {}}),
            chunk({"translation_data": {"source_text": "t"}, "web_search_data": {"answer": ""}}),
            STOP,
        )
    )
    message = outcome.completion.choices[0].message
    assert message.graph_data is not None
    assert message.graph_data.status == "finished"
    assert message.graph_data.sources == [Source(file_id="a")]
    assert message.graph_data.subqueries is not None
    assert message.llm_data == LLMData(model="m", prompt="q")
    assert message.web_search_data == WebSearchData(search_query="s")
    assert message.translation_data is not None
    chunks = [event for event in outcome.events if event.type == "chunk"]
    seen = [event.snapshot.choices[0].message.graph_data for event in chunks]
    assert seen[0] is None
    assert seen[1] == GraphData(status="processing", sources=[Source(file_id="a")])
    assert [data and data.status for data in seen[1:]] == ["processing"] * 3 + ["finished"] * 4


@pytest.mark.parametrize("n", [0, -1, 1.0, 1.5, "1", True, [1]])
def test_a_number_of_choices_that_is_none(n: Any) -> None:
    with pytest.raises(InvalidParameterError, match=r"^n must be a whole number, 1 or more"):
        ChatCompletionStreamState(n=n)


@pytest.mark.parametrize("chunk", [{"choices": []}, None, 5, [b"data"]])
def test_what_is_no_chunk(chunk: Any) -> None:
    with pytest.raises(
        TypeError, match=rf"handle_chunk\(\) takes .*, not {type(chunk).__name__}\."
    ):
        ChatCompletionStreamState().handle_chunk(chunk)


def test_usage_in_an_event_with_a_name_of_its_own() -> None:
    state = ChatCompletionStreamState()
    state.handle_chunk(json.dumps(STOP))
    state.handle_chunk(ServerSentEvent(b'{"usage": {"total_tokens": 3}}', "usage"))
    assert state.usage is not None
    assert state.usage.total_tokens == 3


def test_a_buffer_may_be_reused_for_the_next_payload() -> None:
    payload = json.dumps(said("a")).encode()
    buffer = bytearray(payload)
    first, *_ = ChatCompletionStreamState[Any]().handle_chunk(buffer)
    buffer[:] = b"{}"
    assert first.type == "chunk"
    assert type(first.raw) is bytes
    assert first.raw == payload
