"""Bytes to server-sent events: the standard's rules, wherever the network cuts."""

import copy
import itertools
import re
import time
from collections.abc import Callable, Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anyio_writer.errors import APIResponseValidationError, ResponseTooLargeError
from anyio_writer.protocol import ServerSentEvent, SSEDecoder
from anyio_writer.protocol.sse import ChatSSEDecoder
from tests.protocol.sse_reference import interpret

# Everything that means something in a stream, whole and in pieces, and what merely looks alike.
FRAGMENTS = [
    *(b"\n", b"\n", b"\n\n", b"\r", b"\r\r", b"\r\n", b"\r\n\r\n", b"\n\r"),
    *(b"\xef\xbb\xbf", b"\xef", b"\xbb", b"\xbf", b"\xef\xbb"),
    *(b":", b" ", b": ", b"\0", b"\t"),
    *(b"data", b"data:", b"data: ", b"data:  ", b"Data:", b" data:", b"datax:", b"dat", b"a: "),
    *(b"event", b"event:", b"event: ", b"id", b"id:", b"id: ", b"retry", b"retry:", b"retry: "),
    *(b"1", b"20", b"-3", "٣".encode(), b"0", b"x", b"{}", b"[DONE]", "é".encode()),
    *("\u2028\u2029\u0085".encode(), b"\x0b\x0c\x1c\x1d\x1e", b"\xe2\x80", b"\xa8", b"\xff"),
    *(b"data: a\n\n", b"id: 7\n\n", b"data\n\n", b"data:\ndata:\n\n", b"event: ping\n\n"),
]
BODIES = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(b"".join)


def pieces_of(body: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[start:end] for start, end in itertools.pairwise(places)] or [b""]


def decoded(pieces: Iterable[bytes]) -> tuple[SSEDecoder, list[ServerSentEvent]]:
    decoder = SSEDecoder()
    return decoder, [event for piece in pieces for event in decoder.feed(piece)]


def as_reference(events: Iterable[ServerSentEvent]) -> list[tuple[str, str, str]]:
    return [(event.event, event.text, event.id) for event in events]


@given(BODIES, st.lists(st.integers(0, 500), max_size=8))
@example(b"\xef\xbb\xbfdata: a\n\n", [1, 2])
@example(b"\xef\xbb", [])
@example(b"\xef\xbbdata: a\n\n", [1, 2])
@example(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", [4])
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [8, 9, 10, 11])
@example(b"data: a\r\rdata: b\r\r", [8, 9])
@example(b"id: 1\0\ndata: a\n\nid\ndata: b\n\n", [])
@example(b"id: 1\ndata: a\n\nid: 2\n", [])
@example(b"id: 1\ndata: a\n\ndata: b\n\n", [6])
@example(b"event: lost\n\ndata: a\n\n", [])
@example(b"id: 1\ndata: a\n\ndata: b\n\nevent: x\n\n: c\n\ndata: \n\ndata: d\r\n\n", [])
@example(b"retry: 10\nretry: x\nretry:\nretry: -1\n", [])
def test_as_the_standard_says_wherever_it_is_cut(body: bytes, cuts: list[int]) -> None:
    expected = interpret(body)
    # Two line ends complete whatever is open: the first ends the line or belongs to a CR.
    completed = interpret(body + b"\n\n").events[len(expected.events) :][:1]
    for pieces in (
        [body],
        [body[i : i + 1] for i in range(len(body))],
        pieces_of(body, cuts),
        [piece for cut in pieces_of(body, cuts) for piece in (b"", cut, b"")],
        re.findall(rb".*?\n\n|.+\Z", body, re.DOTALL),  # a packet per block, as servers write
    ):
        decoder, events = decoded(pieces)
        assert as_reference(events) == expected.events
        assert decoder.last_event_id == expected.last_event_id
        assert decoder.reconnection_time == expected.reconnection_time
        tail = decoder.pending()
        assert as_reference([] if tail is None else [tail]) == completed
        # Asking did not change anything.
        assert decoder.pending() == tail
        assert decoder.last_event_id == expected.last_event_id
        rest = as_reference(decoder.feed(b"\n\n"))
        assert rest[:1] == completed


@pytest.mark.parametrize(
    "body",
    [
        b"data: a\n\ndata: \n\ndata: bc\n\n",
        b"data: a\n\n: c\n\ndata: b\n\n\ndata:d\n\n",
        b"data: a\ndata: b\n\ndata: c\n\nid: 1\ndata: d\n\ndata: e\n\n",
        b"data: a\n\ndata: b\r\n\r\ndata: c\n\nevent: x\n\ndata: d\n\n",
        b"data: a\n\nevent: x\ndata: b\n\ndata: c\n\n",
        b"data: data: a\n\ndata: a longer one\n\ndata: b\n\n",
    ],
)
def test_what_servers_write_is_read_wherever_two_cuts_are(body: bytes) -> None:
    expected = interpret(body).events
    for cuts in itertools.combinations(range(len(body) + 1), 2):
        assert as_reference(decoded(pieces_of(body, cuts))[1]) == expected


@given(BODIES)
def test_each_event_is_due_with_the_last_byte_of_its_blank_line(body: bytes) -> None:
    decoder = SSEDecoder()
    seen: list[tuple[str, str, str]] = []
    for end in range(1, len(body) + 1):
        seen += as_reference(decoder.feed(body[end - 1 : end]))
        assert seen == interpret(body[:end]).events


@pytest.mark.parametrize("eol", [b"\n", b"\r", b"\r\n"])
def test_an_event_does_not_wait_for_the_next_packet(eol: bytes) -> None:
    decoder = SSEDecoder()
    block = b"data: a" + eol + eol
    # With CR LF the event is complete at the CR: an LF behind it says nothing new.
    due = len(block) - (eol == b"\r\n")
    assert decoder.feed(block[: due - 1]) == []
    assert decoder.feed(block[due - 1 : due]) == [ServerSentEvent(b"a")]
    assert decoder.feed(block[due:]) == []
    assert decoder.feed(block) == [ServerSentEvent(b"a")]


@pytest.mark.parametrize("cut", range(4))
def test_a_byte_order_mark_in_pieces(cut: int) -> None:
    body = b"\xef\xbb\xbfdata: a\n\n"
    decoder = SSEDecoder()
    assert decoder.feed(body[:cut]) == []
    assert decoder.pending() is None
    assert decoder.feed(body[cut:]) == [ServerSentEvent(b"a")]


def test_only_one_byte_order_mark_and_only_at_the_start() -> None:
    mark = b"\xef\xbb\xbf"
    decoder, events = decoded([mark + mark + b"data: a\n\n" + mark + b"data: b\n\n"])
    assert events == []
    assert decoder.last_event_id == ""


def test_an_id_with_a_null_is_ignored_and_an_empty_one_resets() -> None:
    body = b"id: 1\n\nid: 2\0\ndata: a\n\nid\ndata: b\n\n"
    assert [event.id for event in decoded([body])[1]] == ["1", ""]


@pytest.mark.parametrize("last", [b"data: b\n\n", b"data: b\n\ndata: c\n\n"])
def test_an_id_alone_in_its_piece_counts_with_the_next_event(last: bytes) -> None:
    decoder = SSEDecoder()
    for piece in (b"data: a\n\n", b"id: 5\n", last):
        events = decoder.feed(piece)
    assert decoder.last_event_id == "5"
    assert {event.id for event in events} == {"5"}


def test_the_last_event_id_changes_only_with_the_blank_line() -> None:
    decoder = SSEDecoder(last_event_id="6")
    assert decoder.feed(b"data: a\n\n") == [ServerSentEvent(b"a", id="6")]
    assert decoder.feed(b"id: 7\ndata: b\n") == []
    assert decoder.last_event_id == "6"
    assert decoder.feed(b"\n") == [ServerSentEvent(b"b", id="7")]
    assert decoder.last_event_id == "7"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"0", 0),
        (b"3000", 3000),
        (b"007", 7),
        (b"", None),
        (b"-1", None),
        (b"1.5", None),
        (b" 1", None),
        ("²".encode(), None),
        ("٣".encode(), None),
        (b"9" * 100_000, None),  # Python would refuse to convert so many digits
    ],
)
def test_retry_takes_ascii_digits(value: bytes, expected: int | None) -> None:
    decoder, _ = decoded([b"retry: " + value + b"\n"])
    assert decoder.reconnection_time == expected


def test_text_of_bytes_that_are_not_utf8() -> None:
    assert ServerSentEvent(b"a\xff").text == "a\ufffd"


def test_events_are_values() -> None:
    event = ServerSentEvent(b"a", "ping", "1")
    assert event == ServerSentEvent(b"a", "ping", "1")
    assert event != ServerSentEvent(b"a", "ping", "2")
    assert copy.copy(event) == event
    with pytest.raises(AttributeError):
        event.data = b"b"  # type: ignore[misc]


# The field that a chat server invented.


@given(st.lists(st.integers(0, 100), max_size=4))
def test_an_error_field_is_an_event_of_that_name(cuts: list[int]) -> None:
    body = b'data: a\n\nid: 3\nerror: {"code":500}\nother: b\n\ndata: c\n\n'
    decoder = ChatSSEDecoder()
    events = [event for piece in pieces_of(body, cuts) for event in decoder.feed(piece)]
    assert events == [
        ServerSentEvent(b"a"),
        ServerSentEvent(b'{"code":500}', "error", "3"),
        ServerSentEvent(b"c", id="3"),
    ]


def test_an_error_field_without_its_line_end_is_pending() -> None:
    decoder = ChatSSEDecoder()
    assert decoder.feed(b"error: x") == []
    assert decoder.pending() == ServerSentEvent(b"x", "error")
    assert decoder.feed(b"\n") == [ServerSentEvent(b"x", "error")]
    assert decoder.pending() is None


def test_the_plain_decoder_ignores_unknown_fields() -> None:
    assert decoded([b"error: x\nfoo\n\n"])[1] == []


# Limits.


def bounded(body: bytes, limit: int) -> tuple[list[bytes], str | None]:
    """The events before the first thing that is too long, and what that is."""
    events: list[bytes] = []
    data: list[bytes] = []
    *lines, rest = re.split(rb"\r\n|\r|\n", body)
    for line in lines:
        if len(line) > limit:
            return events, "a line"
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
            if len(b"\n".join(data)) > limit:
                return events, "an event"
        elif not line and data:
            events.append(b"\n".join(data))
            data = []
    return events, "a line" if len(rest) > limit else None


LINES = st.sampled_from(
    [b"data: ", b"data:", b"x", b"xxxx", b"yyyyyyyy", b": c", b"id: 1", b"\n", b"\r", b"\r\n"]
)


@given(
    st.lists(LINES, max_size=25).map(b"".join),
    st.integers(1, 24),
    st.lists(st.integers(0, 200), max_size=6),
)
@example(b"data: abcd\ndata: abcd\n\n", 9, [])
@example(b"data: abcd\ndata: abcd\n\n", 10, [])
@example(b"data: a\n\ndata: bbbbbbb", 8, [])
@example(b"data: abcdefgh\n\n", 13, [])
@example(b"data: abcdefgh\n\n", 14, [])
@example(b"data: abcdefgh\n\n", 10, [8])
@example(b"data: a\n\ndata: b\n\n", 9, [6, 9, 15])
@example(b"data: a\n\ndata: b\n\n: far too long\n", 8, [12])
def test_limits_do_not_depend_on_the_cuts(body: bytes, limit: int, cuts: list[int]) -> None:
    expected, what = bounded(body, limit)
    for pieces in (
        [body],
        [body[i : i + 1] for i in range(len(body))],
        pieces_of(body, cuts),
    ):
        decoder = SSEDecoder(max_event_bytes=limit)
        events: list[bytes] = []
        error: ResponseTooLargeError | None = None
        for piece in pieces:
            try:
                events += [event.data for event in decoder.feed(piece)]
                decoder._raise_pending_error()
            except ResponseTooLargeError as exc:
                error = exc
                break
        assert events == expected
        if what is None:
            assert error is None
            continue
        assert error is not None
        assert str(error).startswith(f"The event stream holds {what} of more than {limit} bytes")
        for call in (
            lambda: decoder.feed(b"\n\n"),  # noqa: B023 - called at once
            lambda: decoder.feed(b""),  # noqa: B023
            decoder.pending,
            decoder._raise_pending_error,
        ):
            with pytest.raises(ResponseTooLargeError) as caught:
                call()
            assert str(caught.value) == str(error)


def test_good_events_come_before_the_error() -> None:
    decoder = SSEDecoder(max_event_bytes=10)
    assert decoder.feed(b"data: a\n\ndata: much too long\n\n") == [ServerSentEvent(b"a")]
    first, second = (pytest.raises(ResponseTooLargeError) for _ in range(2))
    with first as one:
        decoder.feed(b"data: b\n\n")
    with second as two:
        decoder.feed(b"data: b\n\n")
    assert one.value is not two.value  # each raise has a traceback of its own
    assert isinstance(one.value, APIResponseValidationError)


def test_a_pending_event_over_the_limit_is_an_error_too() -> None:
    decoder = SSEDecoder(max_event_bytes=10)
    assert decoder.feed(b"data: aaa\ndata: aaaa\ndata: aaaa") == []
    with pytest.raises(ResponseTooLargeError):
        decoder.pending()


def test_what_was_dispatched_does_not_count_for_the_next_event() -> None:
    decoder = SSEDecoder(max_event_bytes=8)
    for _ in range(100):
        assert len(decoder.feed(b"data: 12\ndata: 34\n\n")) == 1
        assert decoder.feed(b": a note\n\n") == []


# Cost: each byte is looked at once.


def fastest(run: Callable[[], object], repeats: int = 3) -> float:
    times: list[float] = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize(
    ("size", "piece"),
    [(8 << 20, 1 << 10), (512 << 10, 1)],
    ids=["8 MiB by 1 KiB", "512 KiB byte by byte"],
)
@pytest.mark.parametrize("line", [0, 40], ids=["one line", "short lines"])
def test_one_long_event_costs_in_proportion_to_its_length(size: int, piece: int, line: int) -> None:
    def body(size: int) -> list[bytes]:
        data = b"data: " + b"x" * size
        if line:
            data = (b"data: " + b"x" * line + b"\n") * (size // line)
        data += b"\n\n"
        return [data[start : start + piece] for start in range(0, len(data), piece)]

    def run(pieces: list[bytes]) -> None:
        _, events = decoded(pieces)
        assert len(events) == 1

    short, long = body(size // 8), body(size)
    # 8 if it is linear, 64 if anything is scanned or copied again with each piece.
    assert fastest(lambda: run(long)) < 26 * fastest(lambda: run(short)) + 0.002
