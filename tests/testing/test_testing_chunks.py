"""Generated chunks: exact text, and the shape that the API gives its own."""

import itertools
import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_writer.testing import (
    Chunk,
    ErrorKind,
    error_frame,
    sse_event,
    tokens,
    tool_call_chunks,
    writer_chunks,
    writer_error,
)


def deltas(chunks: list[Chunk], index: int = 0) -> list[Chunk]:
    return [
        choice["delta"]
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["index"] == index
    ]


def reasons(chunks: list[Chunk], index: int = 0) -> list[str | None]:
    return [
        choice["finish_reason"]
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["index"] == index
    ]


@given(st.text())
def test_the_deltas_joined_are_the_text(text: str) -> None:
    wire = [sse_event(chunk) for chunk in writer_chunks(text)]
    read = [json.loads(event.decode().removeprefix("data: ")) for event in wire]
    assert "".join(delta["content"] or "" for delta in deltas(read)) == text


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_choices_take_turns_and_end_one_by_one(texts: list[str]) -> None:
    chunks = writer_chunks(texts)
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    for index, text in enumerate(texts):
        said = deltas(chunks, index)
        assert "".join(delta["content"] or "" for delta in said) == text
        assert said[0]["content"] is None
        assert said[-1]["content"] is None
        assert reasons(chunks, index) == [None] * (len(said) - 1) + ["stop"]


def test_shorter_choices_end_earlier() -> None:
    order = [chunk["choices"][0]["index"] for chunk in writer_chunks(["a b c", "a"])]
    assert order == [0, 1, 0, 1, 0, 1, 0, 0]


def test_words_keep_their_spaces() -> None:
    assert tokens("  Hello, world \u2028né\n") == ["  Hello,", " world", " \u2028né", "\n"]
    assert tokens("internationalize") == ["internat", "ionalize"]
    assert tokens("") == []


def test_a_pattern_with_groups_is_fine_one_with_gaps_is_not() -> None:
    assert tokens("a-b", r"(\w)|(-)|x*") == ["a", "-", "b"]
    with pytest.raises(ValueError, match="does not cover"):
        tokens("a-b", r"\w")


def test_a_chunk_is_shaped_and_sized_as_the_api_does_it() -> None:
    _, chunk, *_ = writer_chunks("Hello world", model="palmyra-x4")
    (choice,) = chunk["choices"]
    assert choice["message"] == choice["delta"]
    assert choice["delta"]["role"] == "assistant"
    assert choice["delta"]["content"] == "Hello"
    assert set(choice["delta"]["graph_data"].values()) == {None}
    for name in ("tool_calls", "llm_data", "image_data", "web_search_data", "refusal"):
        assert choice["delta"][name] is None
    assert choice["logprobs"] is None
    assert chunk["object"] == "chat.completion.chunk"
    assert chunk["model"] == "palmyra-x4"
    assert chunk["system_fingerprint"] == "v1"
    assert chunk["usage"] is chunk["service_tier"] is None
    assert 600 < len(sse_event(chunk)) < 900


def test_ids_differ_and_can_be_reproduced() -> None:
    ids = [chunk["id"] for chunk in writer_chunks("a b c d")]
    assert len(set(ids)) == len(ids)
    assert all(uuid.UUID(each).version == 4 for each in ids)
    assert ids == [chunk["id"] for chunk in writer_chunks("a b c d")]
    assert ids[0] != writer_chunks("a", seed=1)[0]["id"]


def test_editing_one_chunk_leaves_the_others_alone() -> None:
    chunks = writer_chunks("a b")
    choice = chunks[0]["choices"][0]
    choice["delta"]["graph_data"]["status"] = "processing"
    assert choice["message"]["graph_data"]["status"] is None
    assert chunks[1]["choices"][0]["delta"]["graph_data"]["status"] is None


def test_usage_comes_last_and_alone() -> None:
    *_, finish, last = writer_chunks(["a b", "c"], usage=True, finish_reason="length")
    assert finish["usage"] is None
    assert finish["choices"][0]["finish_reason"] == "length"
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + 3
    assert last["usage"]["prompt_token_details"] is None


def test_logprobs_cover_the_tokens() -> None:
    chunks = writer_chunks("né b", logprobs=True)
    found = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert found[0] is found[-1] is None
    (entry,) = found[1]["content"]
    assert entry["token"] == "né"
    assert bytes(entry["bytes"]).decode() == "né"
    assert entry["logprob"] < 0


@given(
    st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, max_size=3),
    st.integers(min_value=0, max_value=9),
)
def test_tool_calls_open_with_a_name_and_go_on_with_arguments(
    calls: list[tuple[str, str]], pieces: int
) -> None:
    chunks = tool_call_chunks(calls, pieces=pieces)
    assert deltas(chunks)[0]["tool_calls"] is None
    said = [delta["tool_calls"][0] for delta in deltas(chunks)[1:]]
    groups = [list(group) for _, group in itertools.groupby(said, lambda call: call["index"])]
    assert [group[0]["function"]["name"] for group in groups] == [name for name, _ in calls]
    for group, (_, arguments) in zip(groups, calls, strict=True):
        first, *rest = group
        assert first["id"].startswith("chatcmpl-tool-")
        assert first["type"] == "function"
        assert first["function"]["arguments"] is None
        assert {(each["id"], each["type"], each["function"]["name"]) for each in rest} == {
            (None, None, None)
        }
        assert "".join(each["function"]["arguments"] for each in rest) == arguments
        assert 1 <= len(rest) <= max(1, pieces)
    assert reasons(chunks) == [None] * len(said) + ["tool_calls"]


def test_a_tool_call_may_follow_words_and_precede_usage() -> None:
    chunks = tool_call_chunks([("f", "{}")], text="Let me see", usage=True)
    assert [d["content"] for d in deltas(chunks)] == [None, "Let", " me", " see", None, None, None]
    assert chunks[-1]["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("kind", ["writer", "openai", "string", "object", "field", "event"])
def test_error_frames_hold_the_message_as_json(kind: ErrorKind) -> None:
    frame = error_frame(kind, 'no "é"').decode()
    assert frame.endswith("\n\n")
    assert r"no \"é\"" in frame
    last_line = frame.strip().splitlines()[-1]
    assert isinstance(json.loads(last_line.partition(": ")[2]), dict)


@pytest.mark.parametrize(
    ("status", "tpe", "key"),
    [
        (400, "BadRequest", "fail.badRequest"),
        (429, "TooManyRequests", "fail.tooManyRequests"),
        (503, "ServiceUnavailable", "fail.serviceUnavailable"),
        (599, "Unknown", "fail.unknown"),
    ],
)
def test_error_bodies_name_the_status_as_the_api_does(status: int, tpe: str, key: str) -> None:
    body = writer_error(status, "because")
    error: dict[str, object] = {"description": "because", "key": key, "extras": {}}
    assert body == {"tpe": tpe, "errors": [error], "extras": {}}
    assert writer_error(429, tpe="CompletionModelQuotaError")["tpe"] == "CompletionModelQuotaError"
