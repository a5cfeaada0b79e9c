"""A response cut at any byte is either whole or an error that says so, never half a success."""

import json
from typing import Any

import pytest

from anyio_writer.errors import StreamTruncatedError
from anyio_writer.protocol import ChatCompletionStreamState, ParsedChatCompletion
from anyio_writer.protocol.sse import ChatSSEDecoder
from anyio_writer.testing import DONE, sse_event, tool_call_chunks, writer_chunks
from tests.plugins.thoroughness import sampled
from tests.protocol.driving import is_whole, run


def lean(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The chunks without the deprecated ``message``, which only makes them longer."""
    for chunk in chunks:
        for choice in chunk["choices"]:
            choice.pop("message")
    return chunks


def body(chunks: list[dict[str, Any]]) -> bytes:
    return b"".join(map(sse_event, chunks))


CALLS = [("f", '{"a": "\u2028"}'), ("g", "{}"), ("h", "")]
SEVEN = [(f"f{number}", json.dumps({"n": number})) for number in range(7)]
STREAMS: dict[str, tuple[bytes, int]] = {
    "text": (body(writer_chunks("Hi, \U0001f600!")), 1),
    "two choices": (body(lean(writer_chunks(["one two", "drei"]))), 2),
    "one call": (body(tool_call_chunks(CALLS[:1], pieces=2, text="now")), 1),
    "calls": (body(lean(tool_call_chunks(CALLS, pieces=2))), 1),
    "seven calls": (body(lean(tool_call_chunks(SEVEN, pieces=1))), 1),
    "usage": (body(lean(writer_chunks("one", usage=True))), 1),
    "[DONE]": (body(lean(writer_chunks("one"))) + DONE, 1),
    "CRLF": (body(lean(writer_chunks("one", usage=True))).replace(b"\n", b"\r\n"), 1),
    "CR": (body(lean(writer_chunks("one"))).replace(b"\n", b"\r"), 1),
}


def finished(completion: ParsedChatCompletion[Any], n: int) -> bool:
    reasons = [choice.finish_reason for choice in completion.choices]
    return len(reasons) == n and all(reasons)


def is_start_of(part: ParsedChatCompletion[Any], whole: ParsedChatCompletion[Any]) -> bool:
    wholes = {choice.index: choice.message for choice in whole.choices}
    for choice in part.choices:
        message, other = choice.message, wholes[choice.index]
        if not (other.content or "").startswith(message.content or ""):
            return False
        calls = message.tool_calls or []
        for call, same in zip(calls, other.tool_calls or [], strict=False):
            if (call.index, call.id, call.function.name) != (
                same.index,
                same.id,
                same.function.name,
            ) or not same.function.arguments.startswith(call.function.arguments):
                return False
    return True


@pytest.mark.parametrize("name", STREAMS)
def test_cut_at_every_byte(name: str) -> None:
    wire, n = STREAMS[name]
    whole = run(wire, n=n)
    assert whole.error is None
    # The decoder and the state go along byte by byte. At each one the end is tried on copies.
    decoder = ChatSSEDecoder()
    arrived: list[Any] = []
    complete = 0
    chosen = set(sampled(range(len(wire) + 1)))
    for cut in range(len(wire) + 1):
        if cut:
            arrived += decoder.feed(wire[cut - 1 : cut])
        if cut not in chosen:
            continue
        state = ChatCompletionStreamState[Any](n=n)
        state._state.feed(arrived, None)
        tail = decoder.pending()
        if tail is not None and is_whole(tail):
            state._state.feed([tail], None)
        try:
            state.finish()
        except StreamTruncatedError as exc:
            assert complete == 0  # once whole, whole for good
            assert exc.completion == state._state.completion_so_far
            assert not finished(state.current_completion_snapshot, n)
        else:
            complete += 1
            assert finished(state.current_completion_snapshot, n)
            assert state.get_final_completion().choices == whole.completion.choices
        assert is_start_of(state.current_completion_snapshot, whole.completion)
    assert 0 < complete < len(wire) / 2


@pytest.mark.parametrize("name", STREAMS)
def test_as_many_done_events_as_things_when_it_is_whole(name: str) -> None:
    wire, n = STREAMS[name]
    outcome = run(wire, n=n)
    types = outcome.types()
    choices = outcome.completion.choices
    assert types.count("content.done") == sum(bool(c.message.content) for c in choices)
    calls = sum(len(c.message.tool_calls or ()) for c in choices)
    assert types.count("tool_calls.function.arguments.done") == calls
    expected = {"one call": CALLS[:1], "calls": CALLS, "seven calls": SEVEN}.get(name, [])
    assert [call[1:] for call in outcome.done_calls] == expected


@pytest.mark.parametrize("name", STREAMS)
def test_cut_anywhere_in_two_it_is_the_same(name: str) -> None:
    wire, n = STREAMS[name]
    whole = run(wire, n=n)
    for cut in range(0, len(wire), 7):
        outcome = run(wire[:cut], wire[cut:], n=n)
        assert outcome.error is None
        assert outcome.events == whole.events
        assert outcome.completion == whole.completion
