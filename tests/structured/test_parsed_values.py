"""What the texts of an answer mean, as of any event: the protocol half, without I/O."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any, Literal

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyio_writer.errors import (
    APIError,
    ContentFilterFinishReasonError,
    ContentParseError,
    LengthFinishReasonError,
    StreamTruncatedError,
    ValueMismatchError,
)
from anyio_writer.protocol import ChatCompletionStreamState, SSEDecoder
from anyio_writer.structured.response_format import response_type_of
from anyio_writer.structured.tools import function_tool
from tests.plugins.thoroughness import examples
from tests.protocol.driving import called, chunk, frames, piece, said
from tests.structured.structured_answers import Answer, Counting, answers, cut, says_no_more_than

State = ChatCompletionStreamState[Any]
CONTENT_DELTA = "content.delta"
ARGUMENTS_DELTA = "tool_calls.function.arguments.delta"
ARGUMENTS_DONE = "tool_calls.function.arguments.done"


class Person(msgspec.Struct):
    name: str
    age: int


ADA = '{"name": "Ada", "age": 36}'


@function_tool
def weather(city: str, days: int = 1) -> None:
    """Nothing but a tool."""


def state_for(tp: Any = None, **arguments: Any) -> State:
    reader = None if tp is None else response_type_of(tp)
    return State(response_format=reader, tools={"weather": weather}, **arguments)


def feed(state: State, *payloads: object) -> list[Any]:
    """The events of these payloads, and those of the end."""
    events: list[Any] = []
    for payload in payloads:
        each = payload if isinstance(payload, str) else json.dumps(payload)
        events += state.handle_chunk(each)
    return events + state.finish()


def of_type(events: list[Any], kind: str) -> list[Any]:
    return [event for event in events if event.type == kind]


def stop(reason: str = "stop", index: int = 0) -> dict[str, Any]:
    return chunk(reason=reason, index=index)


# However it is cut, and whenever it is read.


@given(answers(), st.data())
def test_a_value_comes_back_however_its_text_and_its_bytes_are_cut(
    answer: Answer, data: st.DataObject
) -> None:
    body = frames(*map(said, data.draw(cut(answer.text))), stop(), "[DONE]")
    state, decoder = state_for(answer.type), SSEDecoder()
    events: list[Any] = []
    for each in data.draw(cut(body)):
        state._state.feed(decoder.feed(each), events)
    events += state.finish()
    answer.check_partial([event.parsed for event in of_type(events, CONTENT_DELTA)])
    answer.check(of_type(events, "content.done")[0].parsed)
    answer.check(state.get_final_completion().choices[0].message.parsed)
    for event in of_type(events, "chunk"):
        choice = event.snapshot.choices[0]
        if choice.finish_reason is None:
            assert choice.message.parsed is None
        else:
            answer.check(choice.message.parsed)


def told(event: Any) -> Any:
    """What an event says of values."""
    if event.type == "chunk":
        message = event.snapshot.choices[0].message
        calls = message.tool_calls or ()
        return message.parsed, [call.function.parsed_arguments for call in calls]
    return event.parsed if event.type.startswith("content") else event.parsed_arguments


@given(st.lists(st.lists(st.text(max_size=4), max_size=3), max_size=3), st.data())
def test_read_late_it_is_what_it_was(value: list[list[str]], data: st.DataObject) -> None:
    texts = data.draw(cut(json.dumps({"value": value})))
    # Some servers tell the name last.
    calls = [piece(0, arguments=each) for each in data.draw(cut(json.dumps({"city": "Rome"})))]
    calls.insert(data.draw(st.integers(0, len(calls))), piece(0, name="weather"))
    payloads = [*map(said, texts), *map(called, calls), stop("tool_calls"), said(" "), said("x")]
    sent = list(map(json.dumps, payloads))

    state = state_for(list[list[str]])
    live = [told(event) for each in sent for event in state.handle_chunk(each)]
    late = state_for(list[list[str]])
    events = [event for each in sent for event in late.handle_chunk(each)]
    for number in data.draw(st.permutations(range(len(events)))):
        assert repr(told(events[number])) == repr(live[number])


def test_as_of_each_event() -> None:
    events = feed(
        state_for(list[str]), *map(said, ['{"val', 'ue": ["R', 'ome", "P', '"]}']), stop()
    )
    parsed = [event.parsed for event in of_type(events, CONTENT_DELTA)]
    assert parsed == [None, ["R"], ["Rome", "P"], ["Rome", "P"]]
    snapshots = [event.snapshot.choices[0].message.parsed for event in of_type(events, "chunk")]
    assert snapshots == [None, None, None, None, ["Rome", "P"]]


def test_an_answer_that_done_ends_is_parsed_from_its_end_on() -> None:
    state = state_for(Person)
    events = state.handle_chunk(json.dumps(said(ADA)))
    before = state._state.remember()
    events += feed(state, "[DONE]")
    assert before().choices[0].message.parsed is None
    assert of_type(events, "chunk")[0].snapshot.choices[0].message.parsed is None
    assert of_type(events, "content.done")[0].parsed == Person("Ada", 36)
    assert state.get_final_completion().choices[0].message.parsed == Person("Ada", 36)


def test_what_comes_after_the_end_counts_from_then_on() -> None:
    state = state_for(Person)
    events = feed(state, said(ADA), stop(), said("!"), "[DONE]")
    assert of_type(events, "content.done")[0].parsed == Person("Ada", 36)
    snapshots = [event.snapshot.choices[0].message.parsed for event in of_type(events, "chunk")]
    assert snapshots == [None, Person("Ada", 36), None]
    assert isinstance(state._state.parse_error, ContentParseError)


def test_a_text_that_only_begins_after_the_end() -> None:
    events = feed(state := state_for(Person), stop(), said(ADA[:9]), said(ADA[9:]), stop())
    assert of_type(events, "content.done")[0].parsed == Person("Ada", 36)
    assert [event.parsed for event in of_type(events, CONTENT_DELTA)] == [
        {},
        {"name": "Ada", "age": 36},
    ]
    assert state._state.parse_error is None


def test_all_in_one_chunk() -> None:
    state = state_for(Person)
    events = feed(state, chunk({"content": ADA}, "stop"))
    assert [event.type for event in events] == ["chunk", "content.delta", "content.done"]
    assert events[0].snapshot.choices[0].message.parsed == Person("Ada", 36)
    assert events[1].parsed == {"name": "Ada", "age": 36}
    assert events[2].parsed == Person("Ada", 36)


# Kinds of types.


@dataclasses.dataclass
class Pair:
    left: int
    right: int


class Model(pydantic.BaseModel):
    name: str


@pytest.mark.parametrize(
    ("tp", "text", "partial", "value"),
    [
        (Person, ADA, {"name": "Ada", "age": 36}, Person("Ada", 36)),
        (Pair, '{"left": 1, "right": 2}', {"left": 1, "right": 2}, Pair(1, 2)),
        (Model, '{"name": "Ada"}', {"name": "Ada"}, Model(name="Ada")),
        (list[int], '{"value": [1, 2]}', [1, 2], [1, 2]),
        (list[Model], '{"value": [{"name": "A"}]}', [{"name": "A"}], [Model(name="A")]),
        (Literal["a", "b"], '{"value": "a"}', "a", "a"),
        (bool, '{"value": false}', False, False),
        (int | None, '{"value": null}', None, None),
    ],
    ids=str,
)
def test_typed_and_unwrapped(tp: Any, text: str, partial: Any, value: Any) -> None:
    state = state_for(tp)
    events = feed(state, said(text), stop())
    assert of_type(events, CONTENT_DELTA)[0].parsed == partial
    parsed = of_type(events, "content.done")[0].parsed
    assert (type(parsed), parsed) == (type(value), value)
    assert state.get_final_completion().choices[0].message.parsed == value


def test_without_a_type_nothing_is_parsed() -> None:
    state = state_for(None)
    events = feed(state, said(ADA), stop())
    assert of_type(events, CONTENT_DELTA)[0].parsed is None
    assert of_type(events, "content.done")[0].parsed is None
    assert state.get_final_completion().choices[0].message.parsed is None


def test_the_json_of_events_holds_no_values() -> None:
    state = state_for(Person)
    call = called(piece(0, id="i", name="weather", arguments='{"city": "Rome"}'))
    events = feed(state, said(ADA), call, stop())
    assert [event.type for event in events if event.type != "chunk"] == [
        CONTENT_DELTA,
        ARGUMENTS_DELTA,
        "content.done",
        ARGUMENTS_DONE,
    ]
    for event in events:
        assert event.type == "chunk" or told(event) is not None
        written = json.loads(msgspec.json.encode(event))
        assert not {"parsed", "parsed_arguments", "snapshot", "_moment"} & written.keys()


# What does not fit.


def test_it_is_told_after_all_events() -> None:
    state = state_for(Person)
    events = feed(state, said('{"name": "Ada", "age": "x"}'), stop())
    assert of_type(events, "content.done")[0].parsed is None
    assert events[-1].type == "content.done"
    with pytest.raises(ContentParseError) as caught:
        state.get_final_completion()
    error = caught.value
    assert (error.choice_index, error.path) == (0, "$.age")
    assert error.text == '{"name": "Ada", "age": "x"}'
    assert error.reason == "Expected `int`, got `str`"
    assert str(error) == (
        "Choice 0 does not fit the response format: Expected `int`, got `str`, at $.age. "
        'It says: {"name": "Ada", "age": "x"}'
    )
    assert error.completion == state.current_completion_snapshot
    assert isinstance(error.__cause__, ValueMismatchError)
    assert error.__cause__.text == error.text


def test_of_several_choices_one() -> None:
    state = state_for(Person, n=3)
    payloads = [
        chunk({"content": text}, index=index)
        for index, text in [(2, "no"), (0, ADA[:9]), (1, "no"), (0, ADA[9:])]
    ]
    events = feed(state, *payloads, *(stop(index=index) for index in (2, 0, 1)))
    parsed = {event.choice_index: event.parsed for event in of_type(events, "content.done")}
    assert parsed == {0: Person("Ada", 36), 1: None, 2: None}
    error = state._state.parse_error
    assert isinstance(error, ContentParseError)
    assert (error.choice_index, error.text) == (1, "no")  # the first, by its index
    assert error.completion is not None
    choices = error.completion.choices
    assert [choice.message.parsed for choice in choices] == [Person("Ada", 36), None, None]
    assert [choice.message.content for choice in choices] == [ADA, "no", "no"]


ROME = {"name": "weather", "arguments": '{"city": "Rome"}'}
CUT_OFF = {"name": "weather", "arguments": '{"city": "Ro'}
OTHERS = {"name": "other", "arguments": '{"city": "Ro'}

# A delta, its finish reason, the value under a response format, and which error there is with a
# response format and without.
OUTCOMES: list[tuple[dict[str, Any], str, Any, type[APIError] | None, type[APIError] | None]] = [
    ({"content": ADA}, "stop", Person("Ada", 36), None, None),
    ({"content": "no"}, "stop", None, ContentParseError, None),
    ({"content": ADA[:-1]}, "stop", None, ContentParseError, None),
    ({"content": ""}, "stop", None, ContentParseError, None),
    ({"content": None}, "stop", None, ContentParseError, None),
    ({"reasoning_content": "Hm"}, "stop", None, ContentParseError, None),
    ({"content": ADA[:9]}, "length", None, LengthFinishReasonError, None),
    ({"content": ADA[:9]}, "content_filter", None, ContentFilterFinishReasonError, None),
    ({"content": ADA}, "length", None, LengthFinishReasonError, None),  # whole by chance
    ({"content": ""}, "length", None, LengthFinishReasonError, None),
    ({"content": None}, "content_filter", None, ContentFilterFinishReasonError, None),
    ({"refusal": "No."}, "stop", None, None, None),
    ({"refusal": "No."}, "length", None, None, None),
    ({"refusal": "No."}, "content_filter", None, None, None),
    ({"refusal": "No.", "content": ADA}, "stop", None, None, None),
    ({"refusal": "No.", "content": ADA[:9]}, "stop", None, None, None),
    ({"tool_calls": [piece(0, **ROME)]}, "tool_calls", None, None, None),
    ({"tool_calls": [piece(0, **ROME)], "content": "\n"}, "tool_calls", None, None, None),
    ({"tool_calls": [piece(0, **ROME)], "content": "I ask"}, "tool_calls", None, None, None),
    ({"tool_calls": [piece(0, **ROME)], "content": ADA}, "stop", Person("Ada", 36), None, None),
    ({"tool_calls": [piece(0, **ROME)], "content": "I"}, "length", None, None, None),
    (
        {"tool_calls": [piece(0, **CUT_OFF)]},
        "length",
        None,
        LengthFinishReasonError,
        LengthFinishReasonError,
    ),
    (
        {"tool_calls": [piece(0, **ROME), piece(1, **CUT_OFF)]},
        "content_filter",
        None,
        ContentFilterFinishReasonError,
        ContentFilterFinishReasonError,
    ),
    ({"tool_calls": [piece(0, **CUT_OFF)]}, "stop", None, None, None),
    ({"tool_calls": [piece(0, **OTHERS)]}, "length", None, None, None),
]


@pytest.mark.parametrize("ending", ["reason", "reason and [DONE]", "nobody looks"])
@pytest.mark.parametrize(("delta", "reason", "value", "typed", "plain"), OUTCOMES)
def test_what_is_an_error(  # noqa: PLR0917
    delta: dict[str, Any],
    reason: str,
    value: Any,
    typed: type[APIError] | None,
    plain: type[APIError] | None,
    ending: str,
) -> None:
    for tp, parsed, error_type in ((Person, value, typed), (None, None, plain)):
        state = state_for(tp)
        for payload in map(json.dumps, [chunk(delta), stop(reason)]):
            if ending == "nobody looks":
                state._state.feed_data(payload.encode(), None)
            else:
                state.handle_chunk(payload)
        if ending == "reason and [DONE]":
            state.handle_chunk("[DONE]")
        state.finish()
        error = state._state.parse_error
        assert type(error) is (error_type or type(None))
        completion = state.current_completion_snapshot
        assert completion.choices[0].message.parsed == parsed
        if error is None:
            assert state.get_final_completion() == completion
            continue
        assert error.completion == completion
        with pytest.raises(type(error), match="Choice 0 "):
            state.get_final_completion()


@pytest.mark.parametrize(
    ("delta", "what"),
    [
        ({"content": "{"}, "its text"),
        ({"tool_calls": [piece(0, **CUT_OFF)]}, "the arguments of weather"),
    ],
)
def test_what_was_cut_off_is_named(delta: dict[str, Any], what: str) -> None:
    state = state_for(Person)
    feed(state, chunk(delta, "length"))
    with pytest.raises(LengthFinishReasonError, match=f"max_tokens cut off {what}"):
        state.get_final_completion()


def test_what_is_truncated_is_just_that() -> None:
    """Also when another choice has ended already, and does not fit."""
    state = state_for(Person, n=2)
    state.handle_chunk(json.dumps(chunk({"content": "no"}, "stop")))
    state.handle_chunk(json.dumps(chunk({"content": ADA}, index=1)))
    with pytest.raises(StreamTruncatedError) as caught:
        state.finish()
    assert caught.value.completion is not None
    assert [choice.message.parsed for choice in caught.value.completion.choices] == [None, None]
    with pytest.raises(StreamTruncatedError):
        state.get_final_completion()


class Faulty(msgspec.Struct):
    name: str

    def __post_init__(self) -> None:
        raise ZeroDivisionError("a mistake of its author")


def test_a_type_that_raises_what_it_likes_is_a_type_that_does_not_fit() -> None:
    @function_tool
    def faulty(what: Faulty) -> None:
        pass

    state = State(response_format=response_type_of(Faulty), tools={"faulty": faulty})
    call = called(piece(0, id="i", name="faulty", arguments='{"what": {"name": "A"}}'), reason="-")
    events = feed(state, chunk({"content": '{"name": "A"}'}, "stop"), {**call})
    assert of_type(events, "content.done")[0].parsed is None
    assert of_type(events, ARGUMENTS_DONE)[0].parsed_arguments is None
    assert state._state.parse_error is None  # there is a call
    state = state_for(Faulty)
    feed(state, chunk({"content": '{"name": "A"}'}, "stop"))
    error = state._state.parse_error
    assert isinstance(error, ContentParseError)
    assert (error.path, error.text) == ("$", '{"name": "A"}')
    assert error.reason == "ZeroDivisionError: a mistake of its author"
    assert isinstance(error.__cause__, ValueMismatchError)
    assert isinstance(error.__cause__.__cause__, ZeroDivisionError)


# The arguments of calls.


def test_arguments_as_of_each_event() -> None:
    state = state_for()
    parts = ['{"ci', 'ty": "Ro', 'me", "days": 1', "2}"]
    opening = called(piece(0, id="i", name="weather", arguments=""))
    going_on = [called(piece(0, arguments=each)) for each in parts]
    events = feed(state, opening, *going_on, stop("tool_calls"))
    assert [event.parsed_arguments for event in of_type(events, ARGUMENTS_DELTA)] == [
        None,
        {},
        {"city": "Ro"},
        {"city": "Rome"},
        {"city": "Rome", "days": 12},
    ]
    (done,) = of_type(events, ARGUMENTS_DONE)
    assert done.parsed_arguments == weather.arguments_type(city="Rome", days=12)
    snapshots = [event.snapshot.choices[0].message.tool_calls for event in of_type(events, "chunk")]
    values = [calls[0].function.parsed_arguments for calls in snapshots]
    assert values == [None] * 5 + [done.parsed_arguments]
    final = state.get_final_completion().choices[0].message.tool_calls
    assert final is not None
    assert final[0].function.parsed_arguments == done.parsed_arguments


ROMES = weather.arguments_type(city="Rome")


@function_tool
def anything(days: int = 1) -> None:
    """A tool that needs no arguments."""


@pytest.mark.parametrize(
    ("name", "arguments", "partial", "value"),
    [
        ("weather", '{"city": "Rome"}', {"city": "Rome"}, ROMES),
        ("weather", {"city": "Rome"}, {"city": "Rome"}, ROMES),
        ("weather", json.dumps('{"city": "Rome"}'), {"city": "Rome"}, ROMES),
        ("weather", '{"city": 1}', {"city": 1}, None),
        ("weather", "Rome", None, None),
        ("weather", '{"city": "Rome"', {"city": "Rome"}, None),
        ("weather", None, None, None),
        ("anything", None, None, anything.arguments_type()),
        ("anything", "", None, anything.arguments_type()),
        ("anything", "null", None, anything.arguments_type()),
        ("anything", {}, {}, anything.arguments_type()),
        ("untyped", '{"city": "Rome"}', None, None),
        (None, '{"city": "Rome"}', None, None),
    ],
)
@pytest.mark.parametrize("at_the_end", [False, True])
def test_dialects_of_arguments(
    name: str | None, arguments: object, partial: Any, value: Any, at_the_end: bool
) -> None:
    state = State(tools={"weather": weather, "anything": anything})
    call = piece(0, id="i", name=name, arguments=arguments)
    payloads = [called(call, reason="stop")] if at_the_end else [called(call), stop("tool_calls")]
    events = feed(state, *payloads)
    partials = [event.parsed_arguments for event in of_type(events, ARGUMENTS_DELTA)]
    # Whether an empty object is all the arguments shows at the end.
    assert partials == ([None, partial] if arguments == {} else [partial])
    for event in of_type(events, ARGUMENTS_DONE):
        assert event.parsed_arguments == value
    calls = state.get_final_completion().choices[0].message.tool_calls  # and that is no error
    assert calls is not None
    assert calls[0].function.parsed_arguments == value


@settings(max_examples=examples(30))
@given(st.data())
def test_seven_calls_at_once(data: st.DataObject) -> None:
    cities = [data.draw(st.text(max_size=5)) for _ in range(7)]
    texts = [json.dumps({"days": number, "city": city}) for number, city in enumerate(cities)]
    queues = [
        [
            piece(index, id=f"i{index}", name="weather"),
            *(piece(index, arguments=each) for each in data.draw(cut(text))),
        ]
        for index, text in enumerate(texts)
    ]
    payloads = [called(*(queue[0] for queue in queues))]
    order = [index for index, queue in enumerate(queues) for _ in queue[1:]]
    for index in data.draw(st.permutations(order)):
        payloads.append(called(queues[index].pop(1)))
    state = state_for()
    events = feed(state, *payloads, stop("tool_calls"))
    for index, text in enumerate(texts):
        deltas = [event for event in of_type(events, ARGUMENTS_DELTA) if event.index == index]
        shown = [event.parsed_arguments for event in deltas]
        shown = [each for each in shown if each is not None]
        assert all(itertools.starmap(says_no_more_than, itertools.pairwise(shown)))
        assert shown[-1] == json.loads(text)
    done = {event.index: event.parsed_arguments for event in of_type(events, ARGUMENTS_DONE)}
    expected = [
        weather.arguments_type(days=number, city=city) for number, city in enumerate(cities)
    ]
    assert done == dict(enumerate(expected))
    calls = state.get_final_completion().choices[0].message.tool_calls
    assert calls is not None
    assert [call.function.parsed_arguments for call in calls] == expected


def test_a_call_that_is_done_early_is_parsed_early() -> None:
    state = state_for()
    state.handle_chunk(json.dumps(called(piece(0, id="i", **ROME))))
    events = state.handle_chunk(json.dumps(called(piece(1, id="j", **CUT_OFF))))
    (done,) = of_type(events, ARGUMENTS_DONE)
    assert done.parsed_arguments == ROMES
    calls = state.current_completion_snapshot.choices[0].message.tool_calls
    assert calls is not None
    assert [call.function.parsed_arguments for call in calls] == [ROMES, None]


def test_a_tool_is_known_once_its_name_is() -> None:
    state = state_for()
    events = feed(
        state,
        called(piece(0, id="i", arguments='{"city": ')),
        called(piece(0, name="weather", arguments='"Rome"}')),
        stop("tool_calls"),
    )
    deltas = of_type(events, ARGUMENTS_DELTA)
    assert [event.name for event in deltas] == ["", "weather"]
    assert [event.parsed_arguments for event in deltas] == [None, {"city": "Rome"}]


def test_log_probabilities_beside() -> None:
    state = state_for(Person)
    first, second = said(ADA[:9]), said(ADA[9:])
    for each in (first, second):
        each["choices"][0]["logprobs"] = {"content": [{"token": "t", "logprob": -1.0}]}
    events = feed(state, first, second, stop())
    assert len(of_type(events, "logprobs.content.done")[0].content) == 2
    assert of_type(events, "content.done")[0].parsed == Person("Ada", 36)


# What it costs, in counts.


def lengthy(name: str) -> list[Any]:
    text = json.dumps({"name": name, "age": 36})
    return [*map(said, text), stop(), "[DONE]"]


def test_who_reads_no_value_pays_for_none() -> None:
    reader = Counting(response_type_of(Person))
    tool = Counting(weather)
    state = State(response_format=reader, tools={"weather": tool})
    calls = [called(piece(0, id="i", name="weather"))]
    calls += [called(piece(0, arguments=each)) for each in '{"city": "Rome"}']
    events = feed(state, *calls, *lengthy("Ada" * 100))
    assert len(events) > 600
    msgspec.json.encode(events)
    assert not reader.counts
    assert not tool.counts


def test_a_text_is_decoded_once_whoever_reads_it() -> None:
    reader = Counting(response_type_of(Person))
    state = State(response_format=reader)
    events = feed(state, *lengthy("Ada"))
    for event in events[::-1]:
        if event.type in ("chunk", "content.done"):
            told(event)
    assert state._state.parse_error is None
    for _ in range(3):
        state.get_final_completion()
    assert reader.counts == {"decode": 1}
    of_type(events, CONTENT_DELTA)[5].parsed  # noqa: B018 - read, that is all
    assert reader.counts == {"decode": 1, "partial": 1}


@pytest.mark.parametrize("text", ["no", ""])
def test_a_text_that_does_not_fit_is_decoded_once(text: str) -> None:
    reader = Counting(response_type_of(Person))
    state = State(response_format=reader)
    feed(state, chunk({"content": text}, "stop"))
    for _ in range(3):
        assert isinstance(state._state.parse_error, ContentParseError)
        state.current_completion_snapshot  # noqa: B018 - read, that is all
    assert reader.counts == {"decode": 1}


def test_arguments_are_decoded_once() -> None:
    tool = Counting(weather)
    state = State(tools={"weather": tool})
    events = feed(state, called(piece(0, id="i", **ROME)), stop("tool_calls"))
    assert state._state.parse_error is None
    assert not tool.counts
    for _ in range(3):
        of_type(events, ARGUMENTS_DONE)[0].parsed_arguments  # noqa: B018 - read, that is all
        state.get_final_completion()
    assert tool.counts == {"decode": 1}
