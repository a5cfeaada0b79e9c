"""A reply becomes steps; what the steps are needs no event loop to see."""

import dataclasses
import json
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_writer.testing import (
    DONE,
    Cut,
    Encoding,
    RecordedConnection,
    RecordedRequest,
    Reply,
    ReplyBuilder,
    Reset,
    Sleep,
    Stall,
    Step,
    chunks_reply,
    error_reply,
    text_reply,
    tool_call_reply,
)
from anyio_writer.testing.replies import refusal_of
from anyio_writer.testing.script import encoded, script


def steps(reply: Reply) -> list[bytes | Step]:
    return list(script(reply, encoded(reply)))


def request(body: object = None, **headers: str) -> RecordedRequest:
    return RecordedRequest(
        method="POST",
        target="/v1/chat?a=b?c",
        headers=[(name.encode(), value.encode()) for name, value in headers.items()],
        http_version="1.1",
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        connection=RecordedConnection(),
    )


def chunks_of(build: ReplyBuilder, body: Mapping[str, object]) -> list[dict[str, Any]]:
    pieces = steps(build(request(body)))
    events = [piece.decode() for piece in pieces if isinstance(piece, bytes)]
    return [json.loads(event.removeprefix("data: ")) for event in events]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(), []),
        (Reply(body=b"abc"), [b"abc"]),
        (Reply(body=[b"abc", Sleep(1), b"d"]), [b"abc", Sleep(1), b"d"]),
        (Reply(body=[b"ab", b"c"], cut_after=0), [Cut()]),
        (Reply(body=[b"ab", b"c"], cut_after=1), [b"a", Cut()]),
        (Reply(body=[b"ab", b"c"], cut_after=2), [b"ab", Cut()]),
        (Reply(body=[b"ab", Sleep(1), b"c"], cut_after=3), [b"ab", Sleep(1), b"c", Cut()]),
        (Reply(body=[b"ab", b"c"], cut_after=9), [b"ab", b"c", Cut()]),
        (Reply(body=[b"ab", b"c"], reset_after=2), [b"ab", Reset()]),
        (Reply(body=[b"ab", b"c"], stall_after=2), [b"ab", Stall()]),
        (Reply(body=[b"ab", Sleep(1), b"c"], pace=2), [b"ab", Sleep(1), Sleep(2), b"c"]),
        (Reply(body=[Sleep(1), b"ab"], pace=2), [Sleep(1), b"ab"]),
        (Reply(body=b"a", terminator_delay=3), [b"a", Sleep(3)]),
        (Reply(body=b"a", never_end=True), [b"a", Stall()]),
    ],
)
def test_every_delay_and_fault_is_a_step(reply: Reply, expected: list[bytes | Step]) -> None:
    assert steps(reply) == expected


@given(
    pieces=st.lists(st.binary()),
    encoding=st.sampled_from(["identity", "gzip", "deflate"]),
    flush=st.booleans(),
)
def test_an_encoded_body_decodes_to_itself(
    pieces: list[bytes], encoding: Encoding, *, flush: bool
) -> None:
    wire = [
        step
        for step in steps(Reply(body=pieces, encoding=encoding, flush_pieces=flush))
        if isinstance(step, bytes)
    ]
    if encoding == "identity":
        assert wire == pieces
    else:
        wbits = zlib.MAX_WBITS + 32  # finds out which of the two formats it is
        assert zlib.decompress(b"".join(wire), wbits) == b"".join(pieces)


def test_a_flushed_piece_can_be_read_at_once() -> None:
    step = next(iter(steps(Reply(body=[b"abc", Cut()], encoding="gzip"))))
    assert isinstance(step, bytes)
    assert zlib.decompressobj(zlib.MAX_WBITS + 32).decompress(step) == b"abc"
    assert Cut() in steps(Reply(body=[b"abc", Cut()], encoding="gzip"))


def test_chunks_are_framed_by_their_type() -> None:
    reply = chunks_reply([{"é": 1}, "not json", b": ping\n\n", Cut()], done=True)
    assert steps(reply) == [
        'data: {"é":1}\n\n'.encode(),
        b"data: not json\n\n",
        b": ping\n\n",
        Cut(),
        DONE,
    ]


def test_a_text_is_told_as_the_request_asks() -> None:
    asked = {
        "model": "palmyra-x4",
        "n": 2,
        "logprobs": True,
        "stream_options": {"include_usage": True},
    }
    chunks = chunks_of(text_reply("Hi"), asked)
    assert {chunk["model"] for chunk in chunks} == {"palmyra-x4"}
    assert {choice["index"] for chunk in chunks for choice in chunk["choices"]} == {0, 1}
    assert any(choice["logprobs"] for chunk in chunks for choice in chunk["choices"])
    assert chunks[-1]["usage"]


def test_what_is_given_beats_what_the_request_asks() -> None:
    asked = {"model": "x", "n": 2, "logprobs": True, "stream_options": {"include_usage": True}}
    build = text_reply(["Hi"], model="y", logprobs=False, usage=False, finish_reason="length")
    chunks = chunks_of(build, asked)
    assert {chunk["model"] for chunk in chunks} == {"y"}
    assert {choice["index"] for chunk in chunks for choice in chunk["choices"]} == {0}
    assert not any(choice["logprobs"] for chunk in chunks for choice in chunk["choices"])
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("body", [b"", b"[1]", b"nonsense", b"[" * 100_000, b'{"n": -3}', b"\xff"])
def test_a_text_is_told_whatever_the_request_is(body: bytes) -> None:
    reply = text_reply("Hi", done=True, cut_after=7)(request(body))
    assert reply.cut_after == 7
    assert isinstance(reply.body, list)
    assert len(reply.body) == 4


def test_tool_calls_are_told_as_the_request_asks() -> None:
    calls = [("f", "{}")]
    asked = {"model": "x", "stream_options": {"include_usage": True}}
    chunks = chunks_of(tool_call_reply(calls), asked)
    assert chunks[0]["model"] == "x"
    assert chunks[-1]["usage"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    plain = chunks_of(tool_call_reply(calls, model="y", usage=False), asked)
    assert plain[-1]["choices"]
    assert plain[0]["model"] == "y"


def test_an_error_is_json_text_or_what_the_api_would_say() -> None:
    assert '"tpe":"NotFound"' in repr(steps(error_reply(404)))
    custom = error_reply(429, {"a": 1}, headers={"retry-after": "1"})
    assert custom.body == b'{"a":1}'
    assert custom.headers == [("content-type", "application/json"), ("retry-after", "1")]
    text = error_reply(502, "<html>", headers={"Content-Type": "text/html"}, framing="close")
    assert (text.status, text.body, text.framing) == (502, b"<html>", "close")
    assert text.headers == [("Content-Type", "text/html")]


GOOD = {"model": "palmyra-x5", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request(GOOD, authorization="Bearer k"), None),
        (request(GOOD), 401),
        (request(GOOD, authorization="Bearer "), 401),
        (request(b"nonsense", authorization="Bearer k"), 422),
        (request([GOOD], authorization="Bearer k"), 422),
        (request(GOOD | {"model": ""}, authorization="Bearer k"), 422),
        (request(GOOD | {"messages": []}, authorization="Bearer k"), 422),
    ],
)
def test_a_strict_server_refuses_what_the_api_refuses(
    asked: RecordedRequest, status: int | None
) -> None:
    refusal = refusal_of(asked)
    assert (refusal and refusal.status) == status


def test_a_recorded_request_can_be_taken_apart() -> None:
    seen = request({"a": 1}, **{"x-name": "é"})
    assert (seen.path, seen.query) == ("/v1/chat", "a=b?c")
    assert seen.json() == {"a": 1}
    assert seen.header("X-Name") == "Ã©"  # HTTP headers are latin-1
    assert seen.header("other") is None


def test_a_reply_is_a_value() -> None:
    assert dataclasses.replace(Reply(), status=204) == Reply(status=204)
