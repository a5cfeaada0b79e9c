"""A snapshot is exact as of its event, however late it is read, and costs nothing until then."""

import copy
import gc
import json
import random
import time
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from anyio_writer.protocol import ChatCompletionStreamState, ServerSentEvent, parse_chunk
from anyio_writer.testing import writer_chunks
from tests.plugins.thoroughness import examples
from tests.protocol.described import described
from tests.protocol.driving import called, chunk, piece, said
from tests.protocol.streams import Script, scripts, wire

THOROUGH = settings(max_examples=examples(40), suppress_health_check=list(HealthCheck))


@THOROUGH
@given(scripts())
def test_reading_late_gives_what_reading_live_gave(script: Script) -> None:
    sent = [json.dumps(each).encode() for each in wire(script)]

    def collect(live: list[Any] | None) -> list[Any]:
        state = ChatCompletionStreamState[Any]()
        events = []
        for each in sent:
            for event in state.handle_chunk(each):
                events.append(event)
                if live is not None:
                    live.append(copy.deepcopy(described(event)))
        return events

    live: list[Any] = []
    collect(live)
    numbers = list(range(len(live)))
    shuffled = random.Random(0).sample(numbers, len(numbers))
    for order in (numbers, numbers[::-1], shuffled, shuffled[::2]):
        events = collect(None)  # nobody has read anything of these
        assert {number: described(events[number]) for number in order} == {
            number: live[number] for number in order
        }
        # Reading one has not changed another.
        assert [described(event) for event in events] == live


@THOROUGH
@given(scripts())
def test_reading_in_between_changes_nothing(script: Script) -> None:
    curious, plain = ChatCompletionStreamState[Any](), ChatCompletionStreamState[Any]()
    kept: list[Any] = []
    for each in wire(script):
        payload = json.dumps(each)
        kept += curious.handle_chunk(payload)
        for event in kept[::3]:
            described(event)
        curious.current_completion_snapshot  # noqa: B018 - read, that is all
        assert curious.handle_chunk("") == []
        plain.handle_chunk(payload)
    assert curious.current_completion_snapshot == plain.current_completion_snapshot


def test_a_snapshot_that_was_handed_out_never_changes() -> None:
    state = ChatCompletionStreamState[Any]()
    chunks = writer_chunks("one two three", logprobs=True)
    handed_out = []
    for each in chunks:
        events = state.handle_chunk(json.dumps(each))
        handed_out += [event.snapshot for event in events if not event.type.endswith(".done")]
        handed_out.append(state.current_completion_snapshot)
    before = msgspec.json.encode(handed_out)
    state.handle_chunk(json.dumps(said("more")))
    assert msgspec.json.encode(handed_out) == before


def test_lists_handed_out_are_the_readers_own() -> None:
    token = {"token": "a"}
    first = chunk({"content": "a"})
    first["choices"][0]["logprobs"] = {"content": [token], "refusal": [token]}
    parsed = parse_chunk(json.dumps(first).encode())
    state = ChatCompletionStreamState[Any]()
    events = state.handle_chunk(parsed)
    for event in events:
        if event.type in {"logprobs.content.delta", "logprobs.refusal.delta"}:
            event.snapshot.clear()
            assert len(event.snapshot) == 1
    state.current_completion_snapshot.choices.clear()
    state.handle_chunk(json.dumps(first))
    [choice] = state.current_completion_snapshot.choices
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert len(choice.logprobs.content) == 2
    # The chunk's own lists did not grow.
    assert parsed.choices is not None
    assert parsed.choices[0].logprobs is not None
    assert parsed.choices[0].logprobs.content is not None
    assert len(parsed.choices[0].logprobs.content) == 1


# Life and death.


def test_what_has_arrived_dies_with_the_last_event() -> None:
    state = ChatCompletionStreamState[Any]()
    events = [event for each in writer_chunks("a b") for event in state.handle_chunk(chunk_(each))]
    arrived = weakref.ref(state._state._accumulator)
    gc.disable()  # counting references must be enough: events are not tracked
    try:
        del state
        last = events.pop(0)
        del events
        assert arrived() is not None
        assert last.type == "chunk"
        assert last.snapshot.choices
        del last
        assert arrived() is None
    finally:
        gc.enable()


def chunk_(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


def test_events_do_not_leak() -> None:
    def stream() -> None:
        state = ChatCompletionStreamState[Any]()
        events: list[Any] = []
        state._state.feed([ServerSentEvent(each) for each in payloads], events)
        for event in events:
            described(event)

    payloads = [chunk_(each) for each in writer_chunks("word " * 60, logprobs=True)]
    stream()
    gc.collect()
    tracemalloc.start()
    try:
        stream()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5):
            stream()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # One stream makes more than this in events.
    assert grown < 50_000


# Cost.


def texts(count: int) -> list[ServerSentEvent]:
    return [ServerSentEvent(chunk_(said("x")))] * count


def arguments(count: int) -> list[ServerSentEvent]:
    opening = called(piece(0, id="i", type="function", name="f", arguments='["'))
    more = ServerSentEvent(chunk_(called(piece(0, arguments="x"))))
    return [ServerSentEvent(chunk_(opening)), *[more] * count]


def objects(count: int) -> list[ServerSentEvent]:
    """Arguments full of structure, beside a second call that asks again and again."""
    opening = called(
        piece(0, id="i", name="f", arguments="["), piece(1, id="j", name="g", arguments="[")
    )
    more = called(piece(0, arguments="{},"), piece(1, arguments="[],"))
    return [ServerSentEvent(chunk_(opening)), *[ServerSentEvent(chunk_(more))] * count]


def whole_and_named(count: int) -> list[ServerSentEvent]:
    """Whole arguments that go on, by a server that repeats the name."""
    opening = called(piece(0, name="f", arguments="{}"))
    more = ServerSentEvent(chunk_(called(piece(0, name="f", arguments=None))))
    return [ServerSentEvent(chunk_(opening)), *[more] * count]


def logprobs(count: int) -> list[ServerSentEvent]:
    each = chunk({"content": "x"})
    each["choices"][0]["logprobs"] = {"content": [{"token": "x"}], "refusal": [{"token": "x"}]}
    return [ServerSentEvent(chunk_(each))] * count


def per_delta(source: list[ServerSentEvent], *, events: bool) -> float:
    """Seconds per chunk, the best of a few."""

    def run() -> float:
        into: list[Any] | None = [] if events else None
        state = ChatCompletionStreamState[Any]()
        start = time.process_time()
        for place in range(0, len(source), 100):
            state._state.feed(source[place : place + 100], into)
        state.handle_chunk("[DONE]")
        state.finish()
        state.get_final_completion()
        took = time.process_time() - start
        assert state.chunk_count == len(source)
        return took

    gc.collect()
    gc.disable()  # a collection walks over everything there is, in this test and in others
    try:
        return min(run() for _ in range(2)) / len(source)
    finally:
        gc.enable()


@pytest.mark.parametrize("events", [True, False], ids=["events", "no events"])
@pytest.mark.parametrize("make", [texts, arguments, objects, whole_and_named, logprobs])
def test_a_delta_costs_the_same_in_a_long_stream(
    make: Callable[[int], list[ServerSentEvent]], events: bool
) -> None:
    short, long = make(10_000), make(100_000)
    # 1 if it is linear, 10 if what came before is touched with each delta.
    assert per_delta(long, events=events) < 3.5 * per_delta(short, events=events)


@pytest.mark.parametrize("make", [texts, arguments, logprobs])
def test_deltas_hold_no_copies(make: Callable[[int], list[ServerSentEvent]]) -> None:
    def memory(count: int) -> float:
        source = make(count)
        state = ChatCompletionStreamState[Any]()
        events: list[Any] = []
        tracemalloc.start()
        try:
            state._state.feed(source, events)
            return tracemalloc.get_traced_memory()[0] / count
        finally:
            tracemalloc.stop()

    assert memory(8_000) < 1.6 * memory(1_000)


def test_the_last_snapshot_of_many_is_as_cheap_as_the_text() -> None:
    state = ChatCompletionStreamState[Any]()
    events: list[Any] = []
    state._state.feed(texts(50_000), events)
    start = time.process_time()
    for event in events[::500]:
        if event.type == "content.delta":
            assert event.snapshot.startswith("x")
    assert time.process_time() - start < 2
