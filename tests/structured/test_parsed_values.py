"""What the texts of an answer mean, as of any event: the protocol half, without I/O."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections import Counter
from typing import Any, Literal

import msgspec
import pydantic
import pytest
from hypothesis import example, given, settings
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
from anyio_writer.protocol.values import ValueReader
from anyio_writer.structured.response_format import response_type_of
from anyio_writer.structured.schemas import codec_of
from anyio_writer.structured.tools import function_tool
from tests.protocol.driving import called, chunk, frames, piece, said
from tests.structured.structured_types import TYPES, Typed

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


class Counting:
    """A reader that counts what it is asked."""

    def __init__(self, reader: ValueReader[Any]) -> None:
        self.reader = reader
        self.counts: Counter[str] = Counter()

    def decode(self, text: str) -> Any:
        self.counts["decode"] += 1
        return self.reader.decode(text)

    def partial(self, text: str) -> Any:
        self.counts["partial"] += 1
        return self.reader.partial(text)


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


@st.composite
def cut(draw: st.DrawFn, whole: Any) -> list[Any]:
    """A text or bytes in pieces, some of them perhaps empty."""
    places = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return [whole[start:end] for start, end in itertools.pairwise([0, *places, len(whole)])]


def says_no_more_than(early: Any, late: Any) -> bool:
    """Whether all of the early value is in the late one, further along at the most."""
    if isinstance(early, dict):
        return isinstance(late, dict) and all(
            key in late and says_no_more_than(value, late[key]) for key, value in early.items()
        )
    if isinstance(early, list):
        return (
            isinstance(late, list)
            and len(early) <= len(late)
            and all(map(says_no_more_than, early, late))
        )
    if isinstance(early, str):
        return isinstance(late, str) and late.startswith(early)
    return repr(early) == repr(late)  # also tells 1 from True


@st.composite
def answers(draw: st.DrawFn) -> tuple[Any, Any, str]:
    """A type, a value of it, and the text in which a model gives it."""
    tp, values = draw(TYPES)
    value = draw(values)
    plain = json.loads(msgspec.json.encode(value))
    sent = plain if codec_of(tp).schema.get("type") == "object" else {"value": plain}
    indent = draw(st.sampled_from([None, 1]))
    return tp, value, json.dumps(sent, ensure_ascii=draw(st.booleans()), indent=indent)


# However it is cut, and whenever it is read.


@given(answers(), st.data())
def test_a_value_comes_back_however_its_text_and_its_bytes_are_cut(
    answer: tuple[Any, Any, str], data: st.DataObject
) -> None:
    tp, value, text = answer
    is_wrapped = codec_of(tp).schema.get("type") != "object"
    plain = json.loads(text)["value"] if is_wrapped else json.loads(text)
    body = frames(*map(said, data.draw(cut(text))), stop(), "[DONE]")
    state, decoder = state_for(tp), SSEDecoder()
    events: list[Any] = []
    for data_piece in data.draw(cut(body)):
        state.feed(decoder.feed(data_piece), events)
    events += state.finish()

    shown = [event.parsed for event in of_type(events, CONTENT_DELTA)]
    assert repr(shown[-1]) == repr(plain)
    shown = [each for each in shown if each is not None]
    assert all(says_no_more_than(each, plain) for each in shown)
    assert all(itertools.starmap(says_no_more_than, itertools.pairwise(shown)))

    (done,) = of_type(events, "content.done")
    for parsed in (
        done.parsed,
        state.get_final_completion().choices[0].message.parsed,
        state.current_completion_snapshot.choices[0].message.parsed,
    ):
        assert parsed == value
        assert type(parsed) is type(value)


@given(
    st.lists(st.dictionaries(st.sampled_from("abcd"), st.text(max_size=4)), max_size=3),
    st.data(),
)
def test_read_late_it_is_what_it_was(value: Any, data: st.DataObject) -> None:
    """Also in no order, and with the tool's call beside the text."""

    def told(event: Any) -> Any:
        match event.type:
            case "content.delta" | "content.done":
                return event.parsed
            case "chunk":
                message = event.snapshot.choices[0].message
                calls = message.tool_calls or ()
                return message.parsed, [call.function.parsed_arguments for call in calls]
        return event.parsed_arguments

    text, arguments = json.dumps({"value": value}), json.dumps({"city": repr(value)})
    texts = [said(each) for each in data.draw(cut(text))]
    # Some servers tell the name last.
    calls = [called(piece(0, arguments=each)) for each in data.draw(cut(arguments))]
    place = data.draw(st.integers(0, len(calls)))
    calls.insert(place, called(piece(0, name="weather")))
    payloads = [*texts, *calls, stop("tool_calls"), called(piece(0, arguments=" ")), said(" ")]

    tp = list[dict[str, str]]
    reader = Counting(ListOfDicts())
    live: list[Any] = []
    state = State(response_format=reader, tools={"weather": weather})
    for payload in payloads:
        live += map(told, state.handle_chunk(json.dumps(payload)))
    late = State(response_format=reader, tools={"weather": weather})
    events = [event for each in payloads for event in late.handle_chunk(json.dumps(each))]
    numbers = list(range(len(events)))
    random.Random(0).shuffle(numbers)
    for number in numbers:
        assert repr(told(events[number])) == repr(live[number])
    assert tp  # the type that the reader stands for


class ListOfDicts:
    """Reads what no strict schema can ask for."""

    def decode(self, text: str) -> Any:
        try:
            return json.loads(text)["value"]
        except (ValueError, KeyError, TypeError) as exc:
            raise ValueMismatchError("no", text=text, reason="no") from exc

    def partial(self, text: str) -> Any:
        return response_type_of(list[str]).partial(text)
