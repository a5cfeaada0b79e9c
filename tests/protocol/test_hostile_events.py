"""Whatever a server sends, the work is in proportion to its bytes, and what is held is bounded."""

import gc
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyio_writer.errors import APIError, ResponseTooLargeError
from anyio_writer.protocol import ChatCompletionStreamState, SSEDecoder
from anyio_writer.protocol.sse import EventStreamDetector
from tests.plugins.thoroughness import examples
from tests.protocol.driving import called, chunk, frames, piece, said
from tests.protocol.hostile import MORE_SHAPES, SHAPES, SIZE, allowed_seconds

ENTRIES = {
    "choices": '{{"choices":[{}]}}',
    "calls": '{{"choices":[{{"index":0,"delta":{{"tool_calls":[{}]}}}}]}}',
    "blocks": '{{"choices":[{{"index":0,"delta":{{"content":[{}]}}}}]}}',
    "logprobs": '{{"choices":[{{"index":0,"delta":{{}},"logprobs":{{"content":[{}]}}}}]}}',
    "unknown": '{{"choices":[{{"index":0,"delta":{{"vendor":[{}]}}}}]}}',
    "errors": '{{"detail":[{}]}}',
    "usage": '{{"choices":[],"usage":{{"prompt_tokens":1,"prompt_tokens_details":[{}]}}}}',
}
SMALL = st.sampled_from(
    [
        "{{}}",
        "null",
        "1",
        '"x"',
        "[]",
        '{{"type":1}}',
        '{{"index":{n}}}',
        '{{"index":0,"id":"a{n}"}}',
        '{{"index":{n},"id":"a","function":{{"name":"f","arguments":"[]"}}}}',
        '{{"function":{{"name":"f"}}}}',
        '{{"index":0,"function":{{"arguments":"{{}}"}}}}',
        '{{"index":0,"id":"b{n}","function":{{"name":"f","arguments":"}}"}}}}',
        '{{"index":0,"id":"b{n}","function":{{"name":"f","arguments":"[1,"}}}}',
        '{{"index":0,"delta":{{}},"message":{{"content":"x"}},"finish_reason":"stop"}}',
        '{{"type":"image_url"}}',
        '{{"index":{n},"delta":{{}},"logprobs":1}}',
        '{{"index":{n},"delta":{{"role":1}}}}',
        '{{"index":0,"delta":{{"content":"\\ud83d"}},"finish_reason":"stop"}}',
        '{{"index":0,"message":{{"content":"x"}}}}',
        '{{"type":"thinking","thinking":[{{"text":"x"}}]}}',
        '{{"token":1}}',
        '{{"a{n}":NaN}}',
        "[[[[[[]]]]]]",
    ]
)


def steps(action: Callable[[], object]) -> int:
    """How many lines of Python an action runs: its work, whatever the machine does beside."""
    count = 0

    def trace(frame: Any, event: str, arg: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def feed(payloads: list[bytes]) -> None:
    state = ChatCompletionStreamState[Any]()
    try:
        for payload in payloads:
            state._state.feed_data(payload, [])
            _ = state._state.has_content, state.complete
        state.finish()
    except APIError as exc:
        assert len(str(exc)) <= 2000


def event(where: str, entries: list[str], count: int) -> bytes:
    items = (entries[n % len(entries)].format(n=n) for n in range(count))
    return ENTRIES[where].format(",".join(items)).encode()


@settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(ENTRIES)), st.lists(SMALL, min_size=1, max_size=3))
def test_the_work_is_linear_in_the_entries_of_an_event(where: str, entries: list[str]) -> None:
    once, twice = (steps(lambda n=n: feed([event(where, entries, n)])) for n in (700, 1400))
    assert twice < 2.5 * once + 500


@settings(max_examples=examples(40), suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(ENTRIES)), st.lists(SMALL, min_size=1, max_size=3))
def test_the_work_is_linear_in_the_events_of_a_stream(where: str, entries: list[str]) -> None:
    events = [event(where, [each], 3) for each in entries]
    once, twice = (steps(lambda n=n: feed(events * n)) for n in (60, 120))
    assert twice < 2.5 * once + 500


def cpu_seconds(body: bytes) -> float:
    decoder = SSEDecoder()
    state = ChatCompletionStreamState[Any]()
    started = time.process_time()
    try:
        for start in range(0, len(body), 65_536):
            state._state.feed(decoder.feed(body[start : start + 65_536]), [])
        state.finish()
    except APIError as exc:
        assert len(str(exc)) <= 2000
    return time.process_time() - started


@pytest.mark.parametrize("shape", [*SHAPES, *MORE_SHAPES])
def test_an_event_takes_little_time_for_its_bytes(shape: str) -> None:
    body = (SHAPES | MORE_SHAPES)[shape]()
    assert SIZE / 3 < len(body) < 2 * SIZE
    gc.collect()
    gc.disable()  # Python's own collections are not what is measured here
    try:
        allowed = allowed_seconds(len(body))
        seconds = min(cpu_seconds(body), cpu_seconds(body))
    finally:
        gc.enable()
    assert seconds <= allowed


def test_reasoning_may_be_nested_as_deeply_as_an_event() -> None:
    for opening, closing in (("[", "]"), ('{"text":', "}")):
        inner = opening * 400 + '"x"' + closing * 400
        payload = '{"choices":[{"delta":{"reasoning":' + inner + "}}]}"
        state = ChatCompletionStreamState[Any]()
        [*_, event] = state.handle_chunk(payload)
        assert event.type == "reasoning.delta"
        assert event.delta == "x"


@pytest.mark.parametrize(
    ("limits", "payload", "word"),
    [
        ({"max_choices": 3}, {"choices": [{"index": n, "delta": {}} for n in range(4)]}, "choices"),
        ({"max_tool_calls": 3}, called(*[piece(n, name="f") for n in range(4)]), "tool_calls"),
        ({"max_tool_calls": 3}, called(*[piece("0", type=1) for n in range(4)]), "tool_calls"),
    ],
)
def test_choices_and_calls_are_bounded(limits: Any, payload: object, word: str) -> None:
    state = ChatCompletionStreamState[Any](**limits)
    state.handle_chunk(frames(said("x")).removeprefix(b"data: "))
    with pytest.raises(ResponseTooLargeError, match=f"raise max_{word}") as info:
        state.handle_chunk(frames(payload).removeprefix(b"data: "))
    assert info.value.completion is not None
    assert info.value.completion.choices[0].message.content == "x"


def test_calls_are_counted_over_all_chunks() -> None:
    state = ChatCompletionStreamState[Any](max_tool_calls=3)
    with pytest.raises(ResponseTooLargeError):
        for n in range(4):
            state.handle_chunk(frames(called(piece(n, name="f"))).removeprefix(b"data: "))
    assert len(state.current_completion_snapshot.choices[0].message.tool_calls or ()) == 3


def test_a_message_names_only_some_of_many_choices() -> None:
    state = ChatCompletionStreamState[Any]()
    for n in range(1000):
        state.handle_chunk(frames(chunk(index=n)).removeprefix(b"data: "))
    with pytest.raises(APIError, match="choice 0, 1, 2, 3, 4, 5, 6, 7 and 992 more"):
        state.finish()


@pytest.mark.parametrize("piece_of_body", [b"data:x\n" * 500, b"data: xx\r\n" * 500, b"xy"])
def test_one_event_takes_little_more_memory_than_its_bytes(piece_of_body: bytes) -> None:
    decoder = SSEDecoder(max_event_bytes=10**7)
    decoder.feed(b"data: ")
    total = 500_000
    tracemalloc.start()
    try:
        for _ in range(total // len(piece_of_body)):
            decoder.feed(piece_of_body)
        assert decoder.pending() is not None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * total


def test_blank_lines_before_the_stream_are_neither_kept_nor_looked_at_twice() -> None:
    detector = EventStreamDetector()
    for _ in range(100):
        assert detector.feed(b"\n\r\n" * 1000) is None
        assert detector.head == b""
    assert detector.feed(b"da") is None
    assert detector.head == b"da"
    assert detector.feed(b"ta: x") is True
    assert detector.feed(b"<html>") is True
    other = EventStreamDetector()
    assert other.feed(b"\n\n<ht") is False
    assert other.head == b"<ht"
    assert other.finish() is False
