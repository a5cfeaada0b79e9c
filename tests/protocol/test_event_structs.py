"""The events themselves: their JSON, their values, and the hidden origin they have."""

import copy
import json
import pickle
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from anyio_writer.errors import DetachedEventError
from anyio_writer.protocol import (
    ChatCompletionStreamEvent,
    ChatCompletionStreamState,
    ChunkEvent,
    ContentDeltaEvent,
    ContentDoneEvent,
    FunctionToolCallArgumentsDeltaEvent,
    FunctionToolCallArgumentsDoneEvent,
    LogprobsContentDeltaEvent,
    LogprobsContentDoneEvent,
    LogprobsRefusalDeltaEvent,
    LogprobsRefusalDoneEvent,
    LogprobToken,
    RefusalDeltaEvent,
    RefusalDoneEvent,
    parse_chunk,
)
from tests.plugins.thoroughness import examples
from tests.protocol.driving import Event, called, chunk, frames, piece, run
from tests.protocol.streams import Script, scripts, wire

TOKEN = {"token": "t", "logprob": -0.5, "bytes": None, "top_logprobs": None}


def one_of_each() -> list[Event]:
    first = chunk({"content": "a", "refusal": "b", "reasoning_content": "c"})
    first["choices"][0]["logprobs"] = {"content": [TOKEN], "refusal": [TOKEN]}
    outcome = run(
        frames(
            first,
            called(piece(0, id="i", name="f", arguments='{"x":1}')),
            chunk({}, "stop"),
        )
    )
    assert outcome.error is None
    by_type = {event.type: event for event in reversed(outcome.events)}
    return list(by_type.values())


EVENTS = {event.type: event for event in one_of_each()}

JSON = {
    "chunk": {
        "type": "chunk",
        "chunk": {
            "id": "c1",
            "object": "chat.completion.chunk",
            "choices": [
                {
                    "index": 0,
                    "delta": {"content": "a", "refusal": "b", "reasoning_content": "c"},
                    "logprobs": {"content": [TOKEN], "refusal": [TOKEN]},
                }
            ],
        },
    },
    "content.delta": {"type": "content.delta", "choice_index": 0, "delta": "a"},
    "content.done": {"type": "content.done", "choice_index": 0, "content": "a"},
    "reasoning.delta": {"type": "reasoning.delta", "choice_index": 0, "delta": "c"},
    "reasoning.done": {"type": "reasoning.done", "choice_index": 0, "reasoning": "c"},
    "refusal.delta": {"type": "refusal.delta", "choice_index": 0, "delta": "b"},
    "refusal.done": {"type": "refusal.done", "choice_index": 0, "refusal": "b"},
    "logprobs.content.delta": {
        "type": "logprobs.content.delta",
        "choice_index": 0,
        "content": [TOKEN],
    },
    "logprobs.content.done": {
        "type": "logprobs.content.done",
        "choice_index": 0,
        "content": [TOKEN],
    },
    "logprobs.refusal.delta": {
        "type": "logprobs.refusal.delta",
        "choice_index": 0,
        "refusal": [TOKEN],
    },
    "logprobs.refusal.done": {
        "type": "logprobs.refusal.done",
        "choice_index": 0,
        "refusal": [TOKEN],
    },
    "tool_calls.function.arguments.delta": {
        "type": "tool_calls.function.arguments.delta",
        "choice_index": 0,
        "index": 0,
        "name": "f",
        "arguments_delta": '{"x":1}',
    },
    "tool_calls.function.arguments.done": {
        "type": "tool_calls.function.arguments.done",
        "choice_index": 0,
        "index": 0,
        "name": "f",
        "tool_call_snapshot_id": "i",
        "arguments": '{"x":1}',
    },
}


def test_there_is_one_of_each() -> None:
    tags = {get_origin_or_self(kind).type for kind in get_args(ChatCompletionStreamEvent)}
    assert tags == EVENTS.keys() == JSON.keys()


def get_origin_or_self(kind: Any) -> Any:
    return getattr(kind, "__origin__", kind)


@pytest.mark.parametrize("kind", EVENTS)
def test_the_json_is_what_one_would_forward(kind: str) -> None:
    encoded = msgspec.json.encode(EVENTS[kind])
    assert json.loads(encoded) == JSON[kind]
    assert encoded.startswith(b'{"type":"%s"' % kind.encode())
    assert msgspec.to_builtins(EVENTS[kind])["type"] == kind


@pytest.mark.parametrize("kind", EVENTS)
def test_the_json_can_be_read_back(kind: str) -> None:
    event = EVENTS[kind]
    back = msgspec.json.decode(msgspec.json.encode(event), type=ChatCompletionStreamEvent)
    assert type(back) is type(event)
    assert back == event
    assert back.type == kind
    assert msgspec.json.encode(back) == msgspec.json.encode(event)


@settings(max_examples=examples(25), suppress_health_check=list(HealthCheck))
@given(scripts())
def test_whole_streams_can_be_forwarded(script: Script) -> None:
    state = ChatCompletionStreamState[Any]()
    events = [event for each in wire(script) for event in state.handle_chunk(json.dumps(each))]
    encoded = msgspec.json.encode(events)
    assert msgspec.json.decode(encoded, type=list[ChatCompletionStreamEvent]) == events  # type: ignore[type-arg]


def test_a_delta_is_as_small_at_the_end_as_at_the_start() -> None:
    token = {"content": [TOKEN], "refusal": [TOKEN]}
    each = chunk({"content": "x", "refusal": "y", "tool_calls": [piece(0, id="i", name="f")]})
    each["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] = "["
    each["choices"][0]["logprobs"] = token
    state = ChatCompletionStreamState[Any]()
    sizes = []
    for _ in range(300):
        events = state.handle_chunk(json.dumps(each))
        for event in events:
            if event.type != "chunk" and not event.type.endswith(".done"):
                assert event.type.endswith(".delta")
                if event.type.startswith("tool"):
                    assert event.arguments  # read, and still not in the JSON
                else:
                    assert event.snapshot
        sizes.append([len(msgspec.json.encode(event)) for event in events])
    assert len(sizes[0]) == 6
    assert all(size == sizes[0] for size in sizes)


def test_fields_and_other_names() -> None:
    chunk_event = EVENTS["chunk"]
    assert isinstance(chunk_event, ChunkEvent)
    assert chunk_event.snapshot.choices[0].message.content == "a"
    delta = EVENTS["content.delta"]
    assert isinstance(delta, ContentDeltaEvent)
    assert (delta.delta, delta.content, delta.snapshot, delta.parsed) == ("a", "a", "a", None)
    refusal = EVENTS["refusal.delta"]
    assert isinstance(refusal, RefusalDeltaEvent)
    assert refusal.snapshot == "b"
    tokens = [LogprobToken("t", -0.5)]
    content = EVENTS["logprobs.content.delta"]
    assert isinstance(content, LogprobsContentDeltaEvent)
    assert content.snapshot == content.content == tokens
    declined = EVENTS["logprobs.refusal.delta"]
    assert isinstance(declined, LogprobsRefusalDeltaEvent)
    assert declined.snapshot == declined.refusal == tokens
    call = EVENTS["tool_calls.function.arguments.delta"]
    assert isinstance(call, FunctionToolCallArgumentsDeltaEvent)
    assert (call.arguments, call.parsed_arguments) == ('{"x":1}', None)


def test_the_raw_chunk_stays_reachable() -> None:
    payload = b'{ "unknown": {"deep": [1, "\xc3\xa9"]}, "choices": null }'
    [event] = ChatCompletionStreamState[Any]().handle_chunk(payload)
    assert isinstance(event, ChunkEvent)
    assert event.raw == payload
    [event] = ChatCompletionStreamState[Any]().handle_chunk(payload.decode())
    assert isinstance(event, ChunkEvent)
    assert event.raw == payload
    [event] = ChatCompletionStreamState[Any]().handle_chunk(parse_chunk(payload))
    assert isinstance(event, ChunkEvent)
    assert event.raw == b"{}"


@pytest.mark.parametrize("kind", EVENTS)
def test_copies_are_the_event_itself(kind: str) -> None:
    event = EVENTS[kind]
    assert copy.copy(event) is event
    assert copy.deepcopy(event) is event
    assert copy.deepcopy([event])[0] is event


@pytest.mark.parametrize("kind", EVENTS)
def test_events_are_immutable(kind: str) -> None:
    event = EVENTS[kind]
    for name in (*event.__struct_fields__, "type", "snapshot", "arguments", "_origin", "other"):
        before = getattr(event, name, None)
        with pytest.raises(AttributeError):
            setattr(event, name, None)
        assert getattr(event, name, None) == before


@pytest.mark.parametrize("kind", EVENTS)
def test_the_origin_is_hidden(kind: str) -> None:
    event = EVENTS[kind]
    assert "origin" not in repr(event)
    assert "ccumulator" not in repr(event)
    assert repr(event).startswith(type(event).__name__ + "(")
    assert not hasattr(event, "__dict__")
    assert "_origin" not in event.__struct_fields__


def test_equality_is_of_the_fields() -> None:
    first, second = one_of_each(), one_of_each()
    assert first == second
    for event in first:
        assert sum(event == other for other in second) == 1
    assert ContentDeltaEvent(0, "a") == EVENTS["content.delta"]
    assert ContentDeltaEvent(1, "a") != EVENTS["content.delta"]
    assert ContentDeltaEvent(0, "a") != RefusalDeltaEvent(0, "a")
    assert hash(ContentDeltaEvent(0, "a")) == hash(EVENTS["content.delta"])


@pytest.mark.parametrize("kind", EVENTS)
def test_events_can_be_pickled_without_their_origin(kind: str) -> None:
    back = pickle.loads(pickle.dumps(EVENTS[kind]))  # noqa: S301 - our own
    assert back == EVENTS[kind]


READ_FROM_THE_STREAM = ("snapshot", "parsed", "parsed_arguments", "raw", "arguments")


@pytest.mark.parametrize("kind", EVENTS)
def test_what_a_detached_event_has_lost_is_said(kind: str) -> None:
    event = EVENTS[kind]
    copies: list[Any] = [
        pickle.loads(pickle.dumps(event)),  # noqa: S301 - our own
        msgspec.json.decode(msgspec.json.encode(event), type=ChatCompletionStreamEvent),
        type(event)(*[getattr(event, name) for name in event.__struct_fields__]),
    ]
    for detached in copies:
        assert detached == event
        for name in READ_FROM_THE_STREAM:
            if name in event.__struct_fields__ or not hasattr(type(event), name):
                continue
            assert not hasattr(detached, name)
            with pytest.raises(
                DetachedEventError, match=rf"This {type(event).__name__} was unpick"
            ):
                getattr(detached, name)


def test_counts_of_zero_are_in_the_json() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 0}
    certain = {"token": "", "logprob": 0.0, "bytes": [], "top_logprobs": []}
    first = chunk({"content": "a"}, usage=usage)
    first["choices"][0]["logprobs"] = {"content": [certain]}
    outcome = run(frames(first, chunk(reason="stop")))
    [event] = [event for event in outcome.events if event.type == "chunk"][:1]
    whole = json.loads(msgspec.json.encode(outcome.completion))
    for written in (whole, json.loads(msgspec.json.encode(event))["chunk"]):
        assert written["usage"] == usage
        assert written["choices"][0]["logprobs"]["content"] == [certain]


def test_done_events_can_be_made_by_hand() -> None:
    assert ContentDoneEvent(0, "a") == EVENTS["content.done"]
    assert RefusalDoneEvent(0, "b") == EVENTS["refusal.done"]
    tokens = [LogprobToken("t", -0.5)]
    assert LogprobsContentDoneEvent(0, tokens) == EVENTS["logprobs.content.done"]
    assert LogprobsRefusalDoneEvent(0, tokens) == EVENTS["logprobs.refusal.done"]
    done = FunctionToolCallArgumentsDoneEvent(0, 0, "f", "i", '{"x":1}')
    assert done == EVENTS["tool_calls.function.arguments.done"]


def test_matching() -> None:
    seen = []
    for event in EVENTS.values():
        match event:
            case ContentDeltaEvent(choice_index=0, delta=text):
                seen.append(text)
            case ContentDoneEvent(content=text):
                seen.append(text.upper())
            case _:
                pass
    assert sorted(seen) == ["A", "a"]
