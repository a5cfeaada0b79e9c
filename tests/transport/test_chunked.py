"""Bodies in plain HTTP chunks: what h11 would make of them, with little of its work."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import anyio
import h11
import httpcore
import pytest
from anyio import wait_all_tasks_blocked
from anyio.abc import ByteStream
from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st

from anyio_writer import AsyncWriter, StreamTruncatedError
from anyio_writer.testing import ChatServer, Hold, Reply
from anyio_writer.transport import pool
from anyio_writer.transport.chunked import PlainChunks, body_of
from anyio_writer.transport.network import NetworkStream
from tests.streaming.helpers import DONE, REQUEST

HANGS = 10
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
BODY = b"5\r\nhello\r\n00A\r\n, 3\r\n\r\nabc\r\n1\r\n\r\r\n" + END
DATA = b"hello, 3\r\n\r\nabc\r"  # what stands in a chunk may look like chunks
NEXT = [HEAD + b"4\r\n", b"next\r\n" + END]  # the answer to another request
IDLE = "'http://server:80', HTTP/1.1, IDLE, Request Count: %d"

Script: TypeAlias = list[Any]
"""What comes from a server: pieces, one a read; events to wait for; exceptions to raise."""


class Wire(ByteStream):
    """One connection of a server, which answers every request with the next script."""

    def __init__(self, answers: list[Script]) -> None:
        self._answers = answers
        self._coming: Script = []
        self.asked: list[int] = []

    @property
    def is_readable(self) -> bool:
        return bool(self._coming)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        self.asked.append(max_bytes)
        while self._coming and isinstance(self._coming[0], anyio.Event):
            await self._coming[0].wait()
            del self._coming[0]
        if not self._coming:
            raise anyio.EndOfStream
        came = self._coming.pop(0)
        if isinstance(came, Exception):
            raise came
        if rest := came[max_bytes:]:
            self._coming.insert(0, rest)
        return bytes(came[:max_bytes])

    async def send(self, item: bytes) -> None:
        if b" HTTP/1.1\r\n" in item:
            self._coming += [piece for piece in self._answers.pop(0) if piece != b""]

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass

    def stream(self) -> NetworkStream:
        return NetworkStream(cast("Any", self), self)


class Server(httpcore.AsyncNetworkBackend):
    """A network with one server, and a pool of connections to it."""

    def __init__(self, *answers: Script) -> None:
        self._answers = list(answers)
        self.wires: list[Wire] = []
        self.pool = httpcore.AsyncConnectionPool(network_backend=self)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.wires.append(Wire(self._answers))
        return self.wires[-1].stream()

    @property
    def connections(self) -> list[str]:
        return [connection.info() for connection in self.pool.connections]

    @asynccontextmanager
    async def asked(
        self, method: str = "POST", read_timeout: float | None = None
    ) -> AsyncGenerator[tuple[httpcore.Request, httpcore.Response]]:
        """Send a request, and close the response whatever happens."""
        request = httpcore.Request(
            method,
            "http://server/",
            headers={"host": "server", "content-length": "2"},
            content=b"hi",
            extensions={"timeout": {"read": read_timeout}},
        )
        response = await self.pool.handle_async_request(request)
        try:
            yield request, response
        finally:
            await response.aclose()


Read: TypeAlias = Callable[[httpcore.Request, httpcore.Response], AsyncIterator[bytes]]


def by_h11(request: httpcore.Request, response: httpcore.Response) -> AsyncIterator[bytes]:
    """The same body as httpcore gives it, out of reads of the same sizes: the reference."""
    network: NetworkStream = cast("Any", response).extensions["network_stream"]
    network.take_overheard()
    return aiter(cast("Any", response.stream))


def is_short(body: AsyncIterator[bytes]) -> bool:
    """Whether the body goes past h11."""
    return getattr(body, "__name__", "") == "_by_the_read"


@dataclass
class Outcome:
    """All that can be seen of one request."""

    data: bytes
    error: tuple[type[Exception], str] | None
    connections: list[str]
    connects: int


def words_of(error: Exception) -> str:
    text = str(error)  # of a wrong line end it shows what came in one read
    return text.partition(":")[0] if text.startswith("malformed chunk footer") else text


async def outcomes_of(read: Read, *answers: Script) -> tuple[list[Outcome], bool]:
    """What comes of so many requests, and whether the first body was read past h11."""
    server = Server(*answers)
    outcomes: list[Outcome] = []
    was_short: list[bool] = []
    async with server.pool:
        for _ in answers:
            data = b""
            error = None
            try:
                async with server.asked() as (request, response):
                    body = read(request, response)
                    was_short.append(is_short(body))
                    async for piece in body:
                        assert piece
                        data += piece
            except Exception as exc:
                error = type(exc), words_of(exc)
            outcomes.append(Outcome(data, error, server.connections, len(server.wires)))
    return outcomes, was_short[0]


async def check_against_h11(pieces: Script) -> tuple[list[Outcome], bool]:
    """Data, error, and what the pool does with the connection: all are as without the module."""
    outcomes, was_short = await outcomes_of(body_of, pieces, NEXT)
    expected, _ = await outcomes_of(by_h11, pieces, NEXT)
    assert outcomes == expected
    return outcomes, was_short


def cut_at(data: bytes, places: Iterable[int]) -> list[bytes]:
    ends = sorted({0, len(data), *(place for place in places if place < len(data))})
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def bytes_of(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


# The same as h11 alone makes of it.

PLAIN_SIZES: list[Callable[[int], bytes]] = [
    lambda size: b"%x" % size,
    lambda size: b"%X" % size,
    lambda size: b"0%x" % size,
    lambda size: b"%07x" % size,
]
OTHER_SIZES: list[Callable[[int], bytes]] = [
    lambda size: b"%08x" % size,
    lambda size: b"%020x" % size,  # as many digits as h11 takes
    lambda size: b"%021x" % size,
    lambda size: b"%x;name=value" % size,
    lambda size: b"%x " % size,
    lambda size: b"%x\t" % size,
    lambda size: b" %x" % size,
    lambda size: b"%x\r" % size,
    lambda size: b"0x%x" % size,
    lambda size: b"-%x" % size,
]
ENDS = [
    *[END] * 4,
    *(b"000\r\n\r\n", b"0;name=value\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"0\r\nA b\r\n\r\n"),
    *(b"", b"\r\n", b"0\r\n", b"\r\n" + END),
    *(END + b"x", END + b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", END + HEAD + b"3\r\n"),
]
LOOKALIKES = st.lists(st.sampled_from(list(b"a05\r\n")), min_size=1, max_size=30).map(bytes)
LARGE = st.integers(1, 5000).map(lambda size: (b"5\r\nhello\r\n" * size)[:size])
CUTS = st.lists(st.integers(0, 400) | st.integers(0, 20_000), max_size=8)

Chunks: TypeAlias = list[tuple[bytes, bytes]]
"""The line end before a chunk with the line of its size, and its data."""


@st.composite
def plain_chunks(draw: st.DrawFn) -> Chunks:
    return [
        (b"\r\n%b\r\n" % draw(st.sampled_from(PLAIN_SIZES))(len(data)), data)
        for data in draw(st.lists(LOOKALIKES | LARGE, max_size=6))
    ]


@st.composite
def any_bodies(draw: st.DrawFn) -> bytes:
    """Chunks of all kinds, with any end, and often with a fault."""
    body = b""
    for data in draw(st.lists(LOOKALIKES | LARGE, max_size=6)):
        sizes = PLAIN_SIZES if draw(st.integers(0, 7)) else OTHER_SIZES
        body += b"%b\r\n%b\r\n" % (draw(st.sampled_from(sizes))(len(data)), data)
    body += draw(st.sampled_from(ENDS))
    place = draw(st.integers(0, len(body)))
    byte = draw(st.sampled_from(bytes_of(b"\r\n05a;: x\xff")))
    return draw(
        st.sampled_from(
            [
                *[body] * 4,
                body[:place] + byte + body[place + 1 :],
                body[:place] + byte + body[place:],
                body[:place] + body[place + 1 :],
                body[:place],
            ]
        )
    )


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=200)
@given(any_bodies(), st.none() | CUTS)
@example(BODY, [])
@example(BODY, None)
@example(BODY, [len(HEAD)])
@example(BODY[:-9] + b"x" * 300_000, [len(HEAD)])  # more than httpcore lets h11 keep
@example(b"5\r\nhello\r\n5;" + b"x" * 300_000, [len(HEAD)])
@example(b"5\r\nhello\r\n0\r\nA: " + b"x" * 300_000, [len(HEAD)])
def test_any_body_is_what_h11_makes_of_it(
    backend: str, body: bytes, cuts: list[int] | None
) -> None:
    """Wherever TCP cuts it, and whatever is wrong with it; no cuts is a byte at a time."""
    wire = HEAD + body
    pieces = bytes_of(wire) if cuts is None else cut_at(wire, cuts)
    (first, _), was_short = anyio.run(check_against_h11, pieces, backend=backend)
    error = "whole" if first.error is None else first.error[1].partition(":")[0]
    event(f"{'short' if was_short else 'h11'}: {error}")


@settings(max_examples=200)
@given(plain_chunks(), CUTS, st.booleans())
def test_plain_chunks_go_past_h11(chunks: Chunks, cuts: list[int], is_cut_off: bool) -> None:
    # The first line end is that of the head.
    body = b"".join([*itertools.chain(*chunks), b"\r\n"])[2:]
    pieces = [HEAD, *cut_at(body if is_cut_off else body + END, cuts)]
    (first, second), was_short = anyio.run(check_against_h11, pieces)
    assert was_short
    assert first.data == b"".join(data for _, data in chunks)
    assert (first.error is not None) == is_cut_off
    assert (second.data, second.error) == (b"next", None)
    assert second.connects == 1 + is_cut_off


async def test_cut_and_cut_off_at_every_byte() -> None:
    """The head alone, then two reads or an end; and all of it in two reads."""
    for place in range(len(BODY) + 1):
        begun, rest = BODY[:place], BODY[place:]
        (first, _), was_short = await check_against_h11([HEAD, begun, rest])
        assert (first.data, first.error, was_short) == (DATA, None, True)
        (first, _), was_short = await check_against_h11([HEAD, begun])
        assert was_short
        assert DATA.startswith(first.data)
        assert (first.error is None) == (not rest)
        (first, _), _ = await check_against_h11([HEAD + begun, rest])
        assert (first.data, first.error) == (DATA, None)
        await check_against_h11([HEAD + begun])


# Taking chunks apart.

ODD_ENDS = [  # what is understood, and what then is not
    (b"", b"x"),
    (b"", b"\n"),
    (b"\r", b"\r"),
    (b"\r\n", b"\r\n"),
    (b"\r\n", b" 5\r\n"),
    (b"\r\n", b"-5\r\n"),
    (b"\r\n", b"g\r\n"),
    (b"\r\n", b";a\r\n"),
    (b"\r\n5", b";a\r\nhello"),
    (b"\r\n5", b" \r\nhello"),
    (b"\r\n5", b"\nhello"),
    (b"\r\n5\r", b"\r\nhello"),
    (b"\r\n0", b"x5\r\nhello"),
    (b"\r\n0000005", b"5\r\nhello"),
    (b"\r\n0\r", b"\n\r\n"),
    (b"\r\n0000000\r", b"\nA: b\r\n\r\n"),
]


def taken_of(chunks: Chunks, rest: bytes, size: int) -> tuple[bytes, int, bytes]:
    """The reference: data, bytes that a chunk has left, and tail, after so many bytes."""
    got = b""
    for line, data in chunks:
        if size < len(line):
            return got, 0, line[:size]
        size -= len(line)
        got += data[:size]
        if size < len(data):
            return got, len(data) - size, b""
        size -= len(data)
    return got, 0, rest[:size]


@given(plain_chunks(), st.sampled_from(ODD_ENDS), st.none() | CUTS)
def test_chunks_are_taken_apart_as_far_as_they_are_plain(
    chunks: Chunks, end: tuple[bytes, bytes], cuts: list[int] | None
) -> None:
    plain, odd = end
    wire = b"".join([*itertools.chain(*chunks), plain, odd])
    assume(wire.startswith(b"\r\n"))  # so the head ends, and it was read before
    taker = PlainChunks()
    assert (taker.is_plain, taker.left, taker.tail) == (True, 0, b"\r\n")
    got, fed = b"", 2
    for piece in bytes_of(wire[2:]) if cuts is None else cut_at(wire[2:], cuts):
        got += taker.feed(piece)
        fed += len(piece)
        assert (got, taker.left, taker.tail) == taken_of(chunks, plain + odd, fed)
        assert taker.is_plain == (fed <= len(wire) - len(odd))
        if not taker.is_plain:
            return
    pytest.fail("the end was not seen to be odd")


def test_what_a_chunk_has_left() -> None:
    chunks = PlainChunks()
    for came, data, left, tail in [
        (b"A", b"", 0, b"\r\nA"),
        (b"\r\n", b"", 10, b""),
        (b"12", b"12", 8, b""),
        (b"345678", b"345678", 2, b""),
        (b"90", b"90", 0, b""),
        (b"\r", b"", 0, b"\r"),
        (b"\n3", b"", 0, b"\r\n3"),
        (b"\r\nabc\r\nfffffff\r\nde", b"abcde", 0xFFFFFFF - 2, b""),
    ]:
        assert (chunks.feed(came), chunks.left, chunks.tail) == (data, left, tail)
        assert chunks.is_plain


# When it is done, and when it is left to h11.

FAR = 64 * 1024  # as much of a chunk can be made up for h11
LONG_HEAD = HEAD[:-2] + b"x: %b\r\n\r\n" % (b"x" * 9000)
PAST_H11: dict[str, tuple[Script, bytes]] = {
    "the head alone": ([HEAD, BODY], DATA),
    "the head in pieces": ([*bytes_of(HEAD), BODY], DATA),
    "a head longer than a read": ([LONG_HEAD, BODY], DATA),
    "no reason": ([HEAD.replace(b"OK", b""), BODY], DATA),
    "in capitals": ([HEAD.upper(), BODY], DATA),
    "with a size": ([HEAD + BODY[:3], BODY[3:]], DATA),
    "with a part of a chunk": ([HEAD + BODY[:5], BODY[5:]], DATA),
    "with the data of a chunk": ([HEAD + BODY[:8], BODY[8:]], DATA),
    "with half a line end": ([HEAD + BODY[:9], BODY[9:]], DATA),
    "with a whole chunk": ([HEAD + BODY[:10], BODY[10:]], DATA),
    "with a chunk and more": ([HEAD + BODY[:20], BODY[20:]], DATA),
    "with the begin of a large chunk": (
        [HEAD + b"%x\r\nx" % (FAR + 1), b"x" * FAR + b"\r\n" + END],
        b"x" * (FAR + 1),
    ),
}


@pytest.mark.parametrize("case", PAST_H11)
async def test_past_h11(case: str) -> None:
    pieces, data = PAST_H11[case]
    (first, second), was_short = await check_against_h11(pieces)
    assert was_short
    assert (first.data, first.error, second.connects) == (data, None, 1)
    (first, _), _ = await check_against_h11([*pieces[:-1], pieces[-1][: -len(END)]])
    assert (first.data, first.error and first.error[0]) == (data, httpcore.RemoteProtocolError)


OK = b"HTTP/1.1 200 OK\r\n"
BARE = HEAD.replace(b"\r\n", b"\n")
LEFT_TO_H11: dict[str, tuple[str, Script, bytes]] = {
    "another method": ("GET", [HEAD, BODY], DATA),
    "another status": ("POST", [HEAD.replace(b"200", b"201"), BODY], DATA),
    "HTTP/1.0": ("POST", [HEAD.replace(b"/1.1", b"/1.0"), BODY], DATA),
    "a length": ("POST", [OK + b"content-length: 3\r\n\r\n", b"1\r\n"], b"1\r\n"),
    "until the end": ("POST", [OK + b"\r\n", b"1\r\nx\r\n"], b"1\r\nx\r\n"),
    "bare line feeds": ("POST", [BARE, BODY], DATA),
    # Read from the first blank line that there seems to be, this would be chunks, too.
    "bare line feeds, and a blank line in a chunk": (
        "POST",
        [BARE + b"b\r\na\r\n\r\n3\r\nxyz", b"\r\n" + END],
        b"a\r\n\r\n3\r\nxyz",
    ),
    "one bare line feed": ("POST", [HEAD.replace(b"\r\n", b"\n", 1), BODY], DATA),
    "an interim response": ("POST", [b"HTTP/1.1 100 Go\r\n\r\n", HEAD, BODY], DATA),
    "one in the same read": ("POST", [b"HTTP/1.1 103 Go\r\n\r\n" + HEAD, BODY], DATA),
    "cut in a size": ("POST", [HEAD + BODY[:1], BODY[1:]], DATA),
    "cut in the line end of a size": ("POST", [HEAD + BODY[:2], BODY[2:]], DATA),
    "cut in the second size": ("POST", [HEAD + BODY[:12], BODY[12:]], DATA),
    "all in one read": ("POST", [HEAD + BODY], DATA),
    "an extension": ("POST", [HEAD + b"1;a=b\r\nx", b"\r\n" + END], b"x"),
    "much of a chunk is missing": (
        "POST",
        [HEAD + b"%x\r\nx" % (FAR + 2), b"x" * (FAR + 1) + b"\r\n" + END],
        b"x" * (FAR + 2),
    ),
}


@pytest.mark.parametrize("case", LEFT_TO_H11)
async def test_left_to_h11(case: str) -> None:
    method, pieces, data = LEFT_TO_H11[case]
    server = Server(pieces)
    async with server.pool, server.asked(method) as (request, response):
        body = body_of(request, response)
        assert not is_short(body)
        assert b"".join([piece async for piece in body]) == data


@pytest.mark.parametrize("begun", [0, 1, 13, len(HEAD) - 1, len(HEAD), len(HEAD) + 8])
async def test_an_answer_that_began_before_the_question_is_left_to_h11(begun: int) -> None:
    """h11 had a part of it from the end of the answer before, so not all was overheard."""
    head, body_too = HEAD[begun:], BODY[max(begun - len(HEAD), 0) :]
    server = Server([HEAD, BODY + (HEAD + BODY)[:begun]], [head, body_too])
    async with server.pool:
        for number in range(2):
            async with server.asked() as (request, response):
                body = body_of(request, response)
                assert is_short(body) == (number == 0 or begun == 0)
                assert b"".join([piece async for piece in body]) == DATA
    assert len(server.wires) == 1


async def test_a_network_of_another_kind_is_left_to_h11() -> None:
    server = Server([HEAD, BODY])
    async with server.pool, server.asked() as (request, response):
        cast("Any", response).extensions["network_stream"] = httpcore.AsyncMockStream([])
        body = body_of(request, response)
        assert not is_short(body)
        assert b"".join([piece async for piece in body]) == DATA


async def test_h11_does_not_see_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for all of this: its work does not grow with the answer."""
    calls = 0
    next_event = h11.Connection.next_event

    def counted(connection: h11.Connection) -> Any:
        nonlocal calls
        calls += 1
        return next_event(connection)

    monkeypatch.setattr(h11.Connection, "next_event", counted)
    many = b"5\r\nhello\r\n" * 1000 + END
    pieces = [HEAD, *cut_at(many, range(0, len(many), 999))]
    work = {}
    for read in (by_h11, body_of):
        calls = 0
        (outcome,), _ = await outcomes_of(read, pieces)
        assert outcome.data == b"hello" * 1000
        work[read] = calls
    assert work[by_h11] > 1000
    assert work[body_of] < 12


# The connection afterwards.

WHOLE: dict[str, Script] = {
    "in one read": [HEAD + BODY],
    "the end with data": [HEAD, BODY],
    "the end alone": [HEAD, BODY[: -len(END)], END],
    "the end in two reads": [HEAD, BODY[:-2], BODY[-2:]],
    "byte by byte": bytes_of(HEAD + BODY),
}


@pytest.mark.parametrize("case", WHOLE)
async def test_a_connection_is_used_again_behind_a_whole_body(case: str) -> None:
    (first, second), _ = await outcomes_of(body_of, WHOLE[case], NEXT)
    assert (first.data, first.error) == (DATA, None)
    assert first.connections == [IDLE % 1]
    assert (second.data, second.error) == (b"next", None)
    assert second.connections == [IDLE % 2]
    assert second.connects == 1


CUT: dict[str, Script] = {
    "in a chunk": [HEAD, BODY[:20]],
    "in a size": [HEAD, BODY[:11]],
    "before the end": [HEAD, BODY[: -len(END)]],
    "in the end": [HEAD, BODY[:-2]],
}


@pytest.mark.parametrize("read", [body_of, by_h11])
@pytest.mark.parametrize("case", CUT)
async def test_a_connection_that_was_cut_is_not(case: str, read: Read) -> None:
    (first, second), _ = await outcomes_of(read, CUT[case], NEXT)
    assert first.error is not None
    assert first.error[0] is httpcore.RemoteProtocolError
    assert not first.connections
    assert (second.data, second.error, second.connects) == (b"next", None, 2)


@pytest.mark.parametrize("pieces", [[HEAD, BODY], [HEAD, BODY[:8], BODY[8:]]])
async def test_a_connection_whose_body_was_not_read_to_its_end_is_not(pieces: Script) -> None:
    server = Server(pieces, NEXT)
    async with server.pool:
        async with server.asked() as (request, response):
            body = body_of(request, response)
            assert is_short(body)
            assert DATA.startswith(await anext(body))
            await cast("AsyncGenerator[bytes]", body).aclose()
        assert not server.connections
        async with server.asked() as (request, response):
            assert [piece async for piece in body_of(request, response)] == [b"next"]
    assert len(server.wires) == 2


async def test_the_end_stays() -> None:
    server = Server([HEAD, BODY])
    async with server.pool, server.asked() as (request, response):
        body = body_of(request, response)
        assert [piece async for piece in body] == [DATA]
        assert [piece async for piece in body] == []


# The network below.


async def asking(*pieces: bytes) -> tuple[Wire, NetworkStream]:
    """A connection that was asked something, and what it answers."""
    wire = Wire([list(pieces)])
    stream = wire.stream()
    await stream.write(b"POST / HTTP/1.1\r\n")
    return wire, stream


async def test_what_is_pushed_back_comes_before_the_network() -> None:
    wire, stream = await asking(b"late")
    stream.push_back(b"onetwosix.")
    assert [await stream.read(3) for _ in range(4)] == [b"one", b"two", b"six", b"."]
    assert not wire.asked
    assert await stream.read(3) == b"lat"
    stream.push_back(b"and ")
    assert await stream.read(100, timeout=0) == b"and "
    assert await stream.read(100) == b"e"
    stream.push_back(b"")
    assert await stream.read(100) == b""


async def test_what_is_read_behind_a_write_is_overheard_until_it_is_taken() -> None:
    wire = Wire([[b"one", b"two", b"six"], [b"ten"]])
    stream = wire.stream()
    assert stream.take_overheard() == b""
    await stream.write(b"POST / HTTP/1.1\r\n")
    await stream.write(b"the rest")
    assert [await stream.read(100), await stream.read(2)] == [b"one", b"tw"]
    assert stream.take_overheard() == b"onetw"
    assert [await stream.read(100), await stream.read(100)] == [b"o", b"six"]
    assert stream.take_overheard() == b""
    await stream.write(b"POST / HTTP/1.1\r\n")
    assert await stream.read(100) == b"ten"
    await stream.write(b"")  # httpcore's end of a request
    assert stream.take_overheard() == b"ten"


async def test_a_write_forgets_what_was_overheard() -> None:
    _, stream = await asking(b"early", b"answer")
    await stream.read(100)
    await stream.write(b"question")
    await stream.read(100)
    assert stream.take_overheard() == b"answer"


async def test_little_is_read_at_once_while_a_head_is_awaited() -> None:
    """What comes along with it would be work for h11."""
    wire, stream = await asking(b"x" * 100_000)
    for size in (100, 4096, 4097, 65536):
        await stream.read(size)
    stream.take_overheard()
    await stream.read(65536)
    assert wire.asked == [100, 4096, 4096, 4096, 65536]


async def test_no_more_is_overheard_than_a_head_can_be() -> None:
    """Interim responses may go before it, as many as the server likes."""
    wire, stream = await asking(b"HTTP/1.1 100 Continue\r\n\r\n" * 4000)
    for _ in range(18):
        await stream.read(65536)
    assert wire.asked == [4096] * 17 + [65536]
    assert stream.take_overheard() == b""


# What can happen to a read.


@pytest.mark.parametrize("read_by", [body_of, by_h11])
async def test_a_read_that_is_cancelled_ends_the_body(read_by: Read) -> None:
    """That is httpcore's rule. Nothing of the answer can get into another one."""
    got: list[bytes] = []

    async def read(body: AsyncIterator[bytes]) -> None:
        async for piece in body:
            got.append(piece)

    for place in range(len(BODY) - len(b"\n\r\n") + 1):
        got.clear()
        gate = anyio.Event()
        server = Server([HEAD, BODY[:place], gate, BODY[place:]])
        async with server.pool:
            async with server.asked() as (request, response):
                body = read_by(request, response)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(read, body)
                    await wait_all_tasks_blocked()
                    tasks.cancel_scope.cancel()
                assert DATA.startswith(before := b"".join(got))
                gate.set()
                await read(body)
            assert b"".join(got) == before
            assert not server.connections


@pytest.mark.parametrize("begun", [b"", BODY[:2], BODY[:5], BODY[:10], BODY[:-2]])
async def test_a_connection_that_breaks(begun: bytes) -> None:
    pieces = [HEAD, begun, anyio.BrokenResourceError("it broke")]
    (first, second), was_short = await check_against_h11(pieces)
    assert was_short
    assert first.error == (httpcore.ReadError, "it broke")
    assert not first.connections
    assert second.connects == 2


@pytest.mark.parametrize("begun", [b"", BODY[:2], BODY[:5], BODY[:10], BODY[:-2]])
async def test_the_time_limit_of_a_read(begun: bytes) -> None:
    server = Server([HEAD, begun, anyio.Event(), BODY])
    async with server.pool:
        with anyio.fail_after(HANGS), pytest.raises(httpcore.ReadTimeout):
            async with server.asked(read_timeout=0) as (request, response):
                body = body_of(request, response)
                assert is_short(body)
                async for _ in body:
                    pass
        assert not server.connections


# Whole streams, over sockets.


def said(word: str) -> bytes:
    """A block as short as it can be, since it is cut at every byte."""
    return b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % word.encode()


STREAM_HEAD = OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
WORDS = ["One", ", two"]
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
EVENTS = {"finish reason": [*map(said, WORDS), FINISH], "only DONE": [said(WORDS[0]), DONE]}


@pytest.fixture
def shorts(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every body that the library reads, whether it went past h11."""
    made: list[bool] = []

    def seen(request: httpcore.Request, response: httpcore.Response) -> AsyncIterator[bytes]:
        body = body_of(request, response)
        made.append(is_short(body))
        return body

    monkeypatch.setattr(pool, "body_of", seen)
    return made


@pytest.mark.uvloop
@pytest.mark.parametrize("with_head", [False, True])
@pytest.mark.parametrize("name", EVENTS)
async def test_a_stream_cut_at_every_byte_is_complete_or_truncated(
    name: str, with_head: bool, shorts: list[bool]
) -> None:
    """Also within the line before a chunk, for which h11 has other words."""
    events = EVENTS[name]
    wire = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + END
    # An event counts as soon as its line is whole; the answer does with the last event.
    *ends, enough = [wire.index(event) + len(event) - 2 for event in events]
    why: set[str] = set()
    with anyio.fail_after(60):
        async with (
            ChatServer() as server,
            AsyncWriter(api_key="key", base_url=server.url, max_retries=0) as writer,
        ):
            for cut in range(len(wire) + 1):
                opened = anyio.Event()
                body: Script = [STREAM_HEAD, Hold(opened), wire[:cut]]
                if with_head:
                    body = [STREAM_HEAD + wire[:cut]]
                server.add(Reply(framing="none", body=body))
                async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
                    opened.set()
                    try:
                        await stream.until_done()
                    except StreamTruncatedError as exc:
                        assert cut < enough
                        assert stream.current_completion_snapshot == exc.completion
                        why.add(str(exc.__cause__))
                    else:
                        assert cut >= enough
                words = WORDS[: sum(end <= cut for end in ends)]
                choices = stream.current_completion_snapshot.choices
                had = [choice.message.content or "" for choice in choices]
                assert "".join(had) == "".join(words), cut
    assert why == {
        "peer closed connection without sending complete message body (incomplete chunked read)",
        "peer unexpectedly closed connection",
    }
    assert len(shorts) == len(wire) + 1
    assert all(shorts) != with_head
