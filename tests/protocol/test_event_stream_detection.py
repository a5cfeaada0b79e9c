"""Whether a body can be an event stream, told from its first bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_writer.protocol.sse import is_event_stream

STREAMS = [
    b'data: {"choices":[]}\n\n',
    b"data:x",
    b": OPENROUTER PROCESSING\n\n",
    b":\n\n",
    b"event: ping\ndata: x\n\n",
    b"id: 1\n",
    b"retry: 10\r\n",
    b"\n\n\r\n\rdata: x\n\n",
    b"\xef\xbb\xbfdata: x\n\n",
    b"\xef\xbb\xbf\ndata: x\n\n",
    b'error: {"code":500}\n\n',
    b"x-vendor.field_1: y\n\n",
    b"data\n\n",
    b"data\r",
    b"event\ndata: x\n\n",
    b"id\n",
    b"retry\n",
]
OTHERS = [
    b'{"error":"Unexpected endpoint or method"}',
    b'\n\n\n{"error":{"message":"no"}}',
    b'[{"error":1}]',
    b"<!DOCTYPE html><html></html>",
    b"<html>\n<body>data: x</body>\n",
    b"Internal Server Error",
    b"upstream connect error or disconnect/reset before headers\n",
    b"OK\n",
    b"error\n",
    b"  data: x\n\n",
    b'"data: x"',
    b"404 page not found\n",
    b"\x1f\x8b\x08\x00data: x",
    b"\xff\xfed\x00a\x00t\x00a\x00",
    b"\xef\xbb\xbf<?xml version='1.0'?>",
    b"a" * 65 + b": a field with too long a name\n",
    b"a" * 5000,
]


@pytest.mark.parametrize("body", STREAMS)
def test_streams(body: bytes) -> None:
    assert is_event_stream(body) is True
    assert is_event_stream(body, whole=True) is True
    verdicts = [is_event_stream(body[:end]) for end in range(len(body) + 1)]
    assert verdicts[0] is None
    assert False not in verdicts
    # Once decided, decided for good.
    assert verdicts == sorted(verdicts, key=lambda verdict: verdict is True)


@pytest.mark.parametrize("body", OTHERS)
def test_other_bodies(body: bytes) -> None:
    assert is_event_stream(body) is False
    assert is_event_stream(body, whole=True) is False
    verdicts = [is_event_stream(body[:end]) for end in range(len(body) + 1)]
    assert verdicts[0] is None
    assert True not in verdicts
    assert verdicts == sorted(verdicts, key=lambda verdict: verdict is False)


@given(
    st.lists(
        st.sampled_from(
            [
                *(b"\n", b"\r", b"\xef\xbb\xbf", b"\xef", b"\xbb"),
                *(b"data", b"error", b"id", b"a" * 30, b"x", b"9", b"_", b"-"),
                *(b":", b" ", b"{", b"<", b"\xff"),
            ]
        ),
        max_size=8,
    ).map(b"".join)
)
def test_no_verdict_is_taken_back(body: bytes) -> None:
    final: bool | None = None
    for end in range(len(body) + 1):
        verdict = is_event_stream(body[:end])
        if final is not None:
            assert verdict is final
        final = verdict
    # The whole body gets a verdict, and the same one.
    assert is_event_stream(body, whole=True) in ({True, False} if final is None else {final})


@pytest.mark.parametrize("body", [b"", b"\n\n", b"\xef\xbb\xbf", b"d", b"dat", b"data", b"err"])
def test_what_was_cut_in_its_first_word_may_have_been_a_stream(body: bytes) -> None:
    assert is_event_stream(body) is None
    assert is_event_stream(body, whole=True) is True


@pytest.mark.parametrize("body", [b"Unauthorized", b"x", b"datax", b"\n\nNot", b"idea"])
def test_a_body_of_one_other_word_was_none(body: bytes) -> None:
    assert is_event_stream(body) is None
    assert is_event_stream(body, whole=True) is False
