"""Bodies in plain HTTP chunks: what h11 would make of them, with little of its work."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio
import h11
import httpcore
import httpx
import pytest
from anyio import wait_all_tasks_blocked
from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st

from anyio_writer import APIConnectionError, AsyncWriter, StreamingTransport, StreamTruncatedError
from anyio_writer.testing import ChatServer, Hold, Reply
from anyio_writer.transport import body as bodies
from anyio_writer.transport.body import Body, body_of
from anyio_writer.transport.chunked import ChunkedBody, Reader, SimpleChunks
from anyio_writer.transport.retries import StaleConnection
from anyio_writer.transport.wire import Network, Wire
from tests.plugins.thoroughness import examples
from tests.streaming.helpers import DONE, REQUEST

HANGS = 10
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
BODY = b"5\r\nhello\r\n00A\r\n, 3\r\n\r\nabc\r\n1\r\n\r\r\n" + END
DATA = b"hello, 3\r\n\r\nabc\r"  # what stands in a chunk may look like chunks
CONTEXT = httpx.create_ssl_context()  # one for all, as it takes long to make
NEXT = [HEAD + b"4\r\n", b"next\r\n" + END]  # the answer to another request

Script: TypeAlias = list[Any]
"""What comes from a server: pieces, one a read; events to wait for; exceptions to raise."""


class Peer(httpcore.AsyncNetworkStream):
    """One connection of a server, which answers every request with the next script."""

    def __init__(self, answers: list[Script]) -> None:
        self._answers = answers
        self._coming: Script = []
        self.asked: list[int] = []
        self.written: list[bytes] = []
        self.is_closed = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        self.asked.append(max_bytes)
        while self._coming and isinstance(self._coming[0], anyio.Event):
            await self._coming[0].wait()
            del self._coming[0]
        if not self._coming:
            return b""
        came = self._coming.pop(0)
        if isinstance(came, Exception):
            raise came
        if rest := came[max_bytes:]:
            self._coming.insert(0, rest)
        return bytes(came[:max_bytes])

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        self.written.append(buffer)
        if b" HTTP/1.1\r\n" in buffer:
            self._coming += [piece for piece in self._answers.pop(0) if piece != b""]

    async def aclose(self) -> None:
        self.is_closed = True

    def get_extra_info(self, info: str) -> Any:
        return bool(self._coming) if info == "is_readable" else None


class Server(Network):
    """A network with one server, and a client that has a pool of connections to it."""

    def __init__(self, *answers: Script) -> None:
        super().__init__()
        self._answers = list(answers)
        self.peers: list[Peer] = []
        transport = StreamingTransport(verify=CONTEXT)
        self.pool: Any = transport._pool
        self.pool._network_backend = self
        self.client = httpx.AsyncClient(transport=transport)

    async def connect_tcp(self, *arguments: Any, **keywords: Any) -> httpcore.AsyncNetworkStream:
        self.peers.append(Peer(self._answers))
        return await self.opened(self.peers[-1])

    @property
    def connections(self) -> list[str]:
        return [connection.info() for connection in self.pool.connections]

    @property
    def reused(self) -> bool:
        return bool(self.connections)

    @asynccontextmanager
    async def asked(self, method: str = "POST") -> AsyncGenerator[Any]:
        """Send a request, and close the response whatever happens."""
        request = self.client.build_request(method, "http://server/", content=b"hi")
        response = await self.client.send(request, stream=True)
        try:
            yield response
        finally:
            await response.aclose()


Read: TypeAlias = Callable[[Any], Reader]


def by_h11(response: Any) -> Reader:
    """The same body as httpcore gives it: the reference."""
    return Body(aiter(response.stream))


def is_short(body: Reader) -> bool:
    """Whether the body goes past h11."""
    return isinstance(body, ChunkedBody)


async def pieces_of(body: Reader) -> list[bytes]:
    pieces: list[bytes] = []
    try:
        while piece := await body.read():
            pieces.append(piece)
    finally:
        await body.aclose()
    return pieces


@dataclass
class Outcome:
    """All that can be seen of one request."""

    data: bytes
    error: tuple[str, str] | None
    reused: bool
    connects: int


def words_of(error: Exception) -> str:
    text = str(error)  # of a wrong line end it shows what came in one read
    return text.partition(":")[0] if text.startswith("malformed chunk footer") else text


async def outcomes_of(read: Read, *answers: Script) -> tuple[list[Outcome], bool]:
    """What comes of so many requests, and whether the first body was read past h11."""
    server = Server(*answers)
    outcomes: list[Outcome] = []
    was_short: list[bool] = []
    async with server.client:
        for _ in answers:
            data = b""
            error = None
            try:
                async with server.asked() as response:
                    body = read(response)
                    was_short.append(is_short(body))
                    try:
                        while piece := await body.read():
                            data += piece
                    finally:
                        await body.aclose()
            except Exception as exc:
                error = type(exc).__name__, words_of(exc)
            outcomes.append(Outcome(data, error, server.reused, len(server.peers)))
    return outcomes, was_short[0]


def trailing_of(wire: bytes) -> bytes | None:
    """What follows the end of the response; None if it has none, or is invalid."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=100 * 1024)
    connection.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(wire)
    try:
        while not isinstance(got := connection.next_event(), h11.EndOfMessage):
            if got is h11.NEED_DATA:
                return None
    except h11.RemoteProtocolError:
        return None
    return connection.trailing_data[0]


async def check_against_h11(pieces: Script) -> tuple[list[Outcome], bool]:
    """Data and error are as h11 alone has them, and no answer is taken for another one.

    A connection is used again if h11 says so and nothing followed the end. It need not be if the
    body had more than plain chunks and a plain end.
    """
    (first, second), was_short = await outcomes_of(body_of, pieces, NEXT)
    (expected, _), _ = await outcomes_of(by_h11, pieces, NEXT)
    assert (first.data, first.error) == (expected.data, expected.error)
    assert first.reused <= expected.reused
    assert (second.data, second.error) == (b"next", None)
    assert second.connects == 2 - first.reused
    if trailing_of(b"".join(piece for piece in pieces if isinstance(piece, bytes))):
        assert not first.reused
    return [first, second], was_short


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
@settings(max_examples=examples(200))
@given(any_bodies(), st.none() | CUTS)
@example(BODY, [])
@example(BODY, None)
@example(BODY, [len(HEAD)])
@example(BODY[:-9] + b"x" * 300_000, [len(HEAD)])  # more than httpcore lets h11 keep
@example(b"5\r\nhello\r\n5;" + b"x" * 300_000, [len(HEAD)])
@example(b"5\r\nhello\r\n0\r\nA: " + b"x" * 300_000, [len(HEAD)])
@example(b"5\r\nhello\r\n\r", [])  # a size that has ended without a digit
def test_any_body_is_what_h11_makes_of_it(
    backend: str, body: bytes, cuts: list[int] | None
) -> None:
    """Wherever TCP cuts it, and whatever is wrong with it; no cuts is a byte at a time."""
    wire = HEAD + body
    pieces = bytes_of(wire) if cuts is None else cut_at(wire, cuts)
    (first, _), was_short = anyio.run(check_against_h11, pieces, backend=backend)
    error = "whole" if first.error is None else first.error[1].partition(":")[0]
    event(f"{'short' if was_short else 'h11'}: {error}, {'reused' if first.reused else 'closed'}")


@settings(max_examples=examples(200))
@given(plain_chunks(), CUTS, st.booleans())
def test_plain_chunks_go_past_h11(chunks: Chunks, cuts: list[int], is_cut_off: bool) -> None:
    # The first line end is that of the head.
    body = b"".join([*itertools.chain(*chunks), b"\r\n"])[2:]
    pieces = [HEAD, *cut_at(body if is_cut_off else body + END, cuts)]
    (first, second), was_short = anyio.run(check_against_h11, pieces)
    assert was_short
    assert first.data == b"".join(data for _, data in chunks)
    assert (first.error is not None) == is_cut_off
    assert first.reused == (not is_cut_off)
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
    (b"\r\n0\r\n\r", b"\n"),
    (b"\r\n0\r\n", b"x"),
    (b"\r\n0000000\r\n", b"A: b\r\n\r\n"),
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
    taker = SimpleChunks()
    assert (taker.is_simple, taker.left, taker.tail) == (True, 0, b"\r\n")
    got, fed = b"", 2
    for piece in bytes_of(wire[2:]) if cuts is None else cut_at(wire[2:], cuts):
        got += taker.feed(piece)
        fed += len(piece)
        assert (got, taker.left, taker.tail) == taken_of(chunks, plain + odd, fed)
        assert taker.is_simple == (fed <= len(wire) - len(odd))
        if not taker.is_simple:
            return
    pytest.fail("the end was not seen to be odd")


def test_what_a_chunk_has_left() -> None:
    chunks = SimpleChunks()
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
        assert chunks.is_simple


# When it is done, and when it is left to h11.

FAR = 64 * 1024  # as much of a chunk can be made up for h11
LONG_HEAD = HEAD[:-2] + b"x: %b\r\n\r\n" % (b"x" * 9000)
PAST_H11: dict[str, tuple[Script, bytes]] = {
    "the head alone": ([HEAD, BODY], DATA),
    "the head in pieces": ([*bytes_of(HEAD), BODY], DATA),
    "a head longer than a read": ([LONG_HEAD, BODY], DATA),
    "no reason": ([HEAD.replace(b"OK", b""), BODY], DATA),
    "in capitals": ([HEAD.upper(), BODY], DATA),
    "another status": ([HEAD.replace(b"200", b"201"), BODY], DATA),
    "an error": ([HEAD.replace(b"200", b"500"), BODY], DATA),
    "an interim response": ([b"HTTP/1.1 100 Go\r\n\r\n", HEAD, BODY], DATA),
    "two in the same read": ([b"HTTP/1.1 103 Go\r\n\r\n" * 2 + HEAD, BODY], DATA),
    "with a part of a size": ([HEAD + BODY[:1], BODY[1:]], DATA),
    "with a size and half a line end": ([HEAD + BODY[:2], BODY[2:]], DATA),
    "with a part of the second size": ([HEAD + BODY[:13], BODY[13:]], DATA),
    "with zeros of the second size": ([HEAD + BODY[:12], BODY[12:]], DATA),
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
    assert (first.data, first.error and first.error[0]) == (data, "RemoteProtocolError")


BARE = HEAD.replace(b"\r\n", b"\n")
LEFT_TO_H11: dict[str, tuple[str, Script, bytes]] = {
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
    async with server.client, server.asked(method) as response:
        body = body_of(response)
        assert not is_short(body)
        assert b"".join(await pieces_of(body)) == data


async def test_a_body_that_came_with_its_head_is_one_piece() -> None:
    """h11 has read it, and gives it chunk by chunk; it still says how the body ends."""
    server = Server([HEAD + BODY], NEXT)
    for expected in (DATA, b"next"):
        async with server.asked() as response:
            body = body_of(response)
            assert is_short(body)
            assert await body.read() == expected
            assert await body.read() == b""
    assert len(server.peers) == 1
    await server.client.aclose()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_is_one_write(method: str) -> None:
    """A packet, a system call and, on trio, a turn of the event loop less than two."""
    server = Server(NEXT)
    async with server.client, server.asked(method):
        [written] = [data for data in server.peers[0].written if data]
        assert written.startswith(method.encode() + b" / HTTP/1.1\r\n")
        assert written.endswith(b"\r\n\r\nhi")


async def test_a_network_of_another_kind_is_left_to_h11() -> None:
    server = Server([HEAD, BODY])
    async with server.client, server.asked() as response:
        response.extensions["network_stream"] = httpcore.AsyncMockStream([])
        body = body_of(response)
        assert not is_short(body)
        assert b"".join(await pieces_of(body)) == DATA


@pytest.mark.parametrize("version", [b"HTTP/2", None])
async def test_another_protocol_on_such_a_network_is_left_to_its_library(version: Any) -> None:
    server = Server([HEAD, BODY])
    async with server.client, server.asked() as response:
        response.extensions["http_version"] = version
        assert not is_short(body_of(response))


@pytest.mark.parametrize("wrong", ["data", "filler", "nothing"])
async def test_a_body_that_h11_reads_in_another_way_is_an_error(wrong: str) -> None:
    """Not text that was left out, nor text that was made up."""
    network = await Server([HEAD + BODY[:8], BODY[8:]]).connect_tcp()
    await ask(network)
    await network.read(65536)

    pieces = {"data": [b"HEL\0\0", DATA], "filler": [DATA[:3], DATA], "nothing": []}[wrong]

    class OtherwiseRead:
        async def read(self) -> bytes:
            return pieces.pop(0) if pieces else b""

        async def aclose(self) -> None:
            pass

    assert isinstance(network, Wire)
    body = bodies.read_chunked(network, OtherwiseRead())
    with pytest.raises(APIConnectionError, match="can be read in two ways"):
        while await body.read():
            pass
    assert network.get_extra_info("is_readable") is True


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
    "a trailer": [HEAD, BODY[:-2] + b"A: b\r\n\r\n"],
    "a trailer in one read": [HEAD + BODY[:-2] + b"A: b\r\n\r\n"],
    "a length": [OK + b"content-length: 16\r\n\r\n", DATA],
    "a length in one read": [OK + b"content-length: 16\r\n\r\n" + DATA],
}


@pytest.mark.parametrize("behind", [b"x", b"\r\n", HEAD + BODY, b"HTTP/1.1 200 OK\r\n\r\n"])
@pytest.mark.parametrize("case", WHOLE)
async def test_a_connection_that_brought_more_is_not(case: str, behind: bytes) -> None:
    """What followed would be the answer to the next request, which may be another user's."""
    *pieces, last = WHOLE[case]
    for script in ([*pieces, last + behind], [*pieces, last, behind]):
        (first, second), _ = await outcomes_of(body_of, script, NEXT)
        assert (first.data, first.error, first.reused) == (DATA, None, False)
        assert (second.data, second.error, second.connects) == (b"next", None, 2)


@pytest.mark.parametrize("status", [204, 304])
async def test_what_follows_a_response_without_a_body_is_not_taken_for_another(status: int) -> None:
    bare = b"HTTP/1.1 %d X\r\n\r\n" % status
    (first, second), _ = await outcomes_of(body_of, [bare + HEAD + BODY], NEXT)
    assert (first.data, first.error, first.reused) == (b"", None, False)
    assert (second.data, second.connects) == (b"next", 2)
    (first, second), _ = await outcomes_of(body_of, [bare], NEXT)
    assert (first.reused, second.connects) == (True, 1)


@pytest.mark.parametrize("case", WHOLE)
async def test_a_connection_is_used_again_behind_a_whole_body(case: str) -> None:
    (first, second), _ = await outcomes_of(body_of, WHOLE[case], NEXT)
    assert (first.data, first.error, first.reused) == (DATA, None, True)
    assert (second.data, second.error, second.reused) == (b"next", None, True)
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
    assert first.error[0] == "RemoteProtocolError"
    assert not first.reused
    assert (second.data, second.error, second.connects) == (b"next", None, 2)


@pytest.mark.parametrize("pieces", [[HEAD, BODY], [HEAD, BODY[:8], BODY[8:]]])
async def test_a_connection_whose_body_was_not_read_to_its_end_is_not(pieces: Script) -> None:
    server = Server(pieces, NEXT)
    async with server.client:
        async with server.asked() as response:
            body = body_of(response)
            assert is_short(body)
            assert DATA.startswith(await body.read())
            await body.aclose()
        assert not server.connections
        async with server.asked() as response:
            assert await pieces_of(body_of(response)) == [b"next"]
    assert len(server.peers) == 2


async def test_the_end_stays() -> None:
    server = Server([HEAD, BODY])
    async with server.client, server.asked() as response:
        body = body_of(response)
        assert [await body.read() for _ in range(3)] == [DATA, b"", b""]
        await body.aclose()


# The wire below.


async def ask(wire: httpcore.AsyncNetworkStream) -> None:
    """Write as httpcore does: the head, then the body, of which there may be nothing."""
    await wire.write(b"POST / HTTP/1.1\r\n")
    await wire.write(b"")


async def asking(*answers: Script) -> tuple[Peer, Wire]:
    """A connection that was asked something, and what it answers."""
    server = Server(*answers)
    wire = await server.connect_tcp()
    assert isinstance(wire, Wire)
    await ask(wire)
    return server.peers[0], wire


async def test_what_is_pushed_back_comes_before_the_network() -> None:
    peer, wire = await asking([b"late"])
    wire.push_back(b"onetwosix.")
    assert [await wire.read(3) for _ in range(4)] == [b"one", b"two", b"six", b"."]
    assert not peer.asked
    assert await wire.read(3) == b"lat"
    wire.push_back(b"and ")
    assert await wire.read(100, timeout=0) == b"and "
    assert await wire.read(100) == b"e"
    wire.push_back(b"")
    assert await wire.read(100) == b""


async def test_the_begin_of_a_body_is_what_came_behind_the_head_of_this_response() -> None:
    _, wire = await asking([HEAD[:9], HEAD[9:] + b"one", b"two"], [HEAD + b"ten"], [b"x" + HEAD])
    await wire.write(b"the rest of the question")
    assert [await wire.read(100), await wire.read(100)] == [HEAD[:9], HEAD[9:] + b"one"]
    assert wire.begin_body(None) == b"one"
    assert await wire.read(100) == b"two"
    assert wire.begin_body(None) is None
    await ask(wire)
    await wire.read(100)
    assert wire.begin_body(None) == b"ten"
    assert wire.get_extra_info("is_readable") is False
    await ask(wire)
    await wire.read(100)
    assert wire.begin_body(None) is None  # it began before the question
    assert wire.get_extra_info("is_readable") is True


async def test_little_is_read_at_once_while_a_head_is_awaited() -> None:
    """What comes along with it would be work for h11."""
    peer, wire = await asking([b"x" * 100_000])
    for size in (100, 4096, 4097, 65536):
        await wire.read(size)
    wire.begin_body(None)
    await wire.read(65536)
    assert peer.asked == [100, 4096, 4096, 4096, 65536]


async def test_no_more_is_kept_than_a_head_can_be() -> None:
    """Interim responses may go before it, as many as the server likes."""
    peer, wire = await asking([b"HTTP/1.1 100 Continue\r\n\r\n" * 4000])
    for _ in range(18):
        await wire.read(65536)
    assert peer.asked == [4096] * 17 + [65536]
    assert wire.begin_body(None) is None


@pytest.mark.parametrize("end", [[], [httpcore.ReadError("reset")]])
async def test_a_connection_that_served_before_and_ended_while_idle_is_stale(end: Script) -> None:
    _, wire = await asking([HEAD], end)
    await wire.read(100)
    await ask(wire)
    with pytest.raises(StaleConnection):
        await wire.read(100)


@pytest.mark.parametrize("end", [[], [httpcore.ReadError("reset")]])
async def test_one_that_ends_long_after_the_request_is_not_stale(
    end: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was at work on it, so sending it again is a retry."""
    now = 100.0
    monkeypatch.setattr("anyio_writer.transport.wire.monotonic", lambda: now)
    _, wire = await asking([HEAD], end)
    await wire.read(100)
    await ask(wire)
    now += 10
    if end:
        with pytest.raises(httpcore.ReadError):
            await wire.read(100)
    else:
        assert await wire.read(100) == b""


async def test_one_that_has_begun_to_answer_or_never_did_is_not_stale() -> None:
    _, wire = await asking([HEAD], [HEAD[:3]])
    await wire.read(100)
    await ask(wire)
    assert [await wire.read(100) for _ in range(3)] == [HEAD[:3], b"", b""]
    _, wire = await asking([])
    assert [await wire.read(100) for _ in range(2)] == [b"", b""]


async def test_a_body_that_looks_like_a_request_is_sent_as_a_body() -> None:
    head, body = b"POST / HTTP/1.1\r\nhost: server\r\n\r\n", b"GET /private HTTP/1.1\r\n\r\n"
    peer, wire = await asking([], [], [])
    for data in (head, body, body, b""):
        await wire.write(data)
    assert b"".join(peer.written[1:]) == head + body + body


async def test_what_another_protocol_sends_is_no_request() -> None:
    _, wire = await asking([HEAD])
    await wire.read(100)
    await wire.write(b"\x81\x85frame")  # as a websocket does
    assert await wire.read(100) == b""


# What can happen to a read.


@pytest.mark.parametrize("read_by", [body_of, by_h11])
async def test_a_body_whose_read_was_cancelled_gets_into_no_other(read_by: Read) -> None:
    for place in range(len(BODY) - len(b"\n\r\n") + 1):
        gate = anyio.Event()
        server = Server([HEAD, BODY[:place], gate, BODY[place:]], NEXT)
        got: list[bytes] = []

        async def read(body: Reader, into: list[bytes]) -> None:
            while piece := await body.read():
                into.append(piece)

        async with server.client:
            async with server.asked() as response:
                body = read_by(response)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(read, body, got)
                    await wait_all_tasks_blocked()
                    tasks.cancel_scope.cancel()
                assert DATA.startswith(b"".join(got))
                await body.aclose()
            assert not server.connections
            async with server.asked() as response:
                assert await pieces_of(body_of(response)) == [b"next"]


@pytest.mark.parametrize("begun", [b"", BODY[:2], BODY[:5], BODY[:10], BODY[:-2]])
async def test_a_connection_that_breaks(begun: bytes) -> None:
    pieces = [HEAD, begun, httpcore.ReadError("it broke")]
    (first, second), was_short = await check_against_h11(pieces)
    assert was_short
    assert first.error == ("ReadError", "it broke")
    assert not first.reused
    assert second.connects == 2


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
    read_chunked = bodies.read_chunked

    def seen(*arguments: Any) -> Reader:
        body = read_chunked(*arguments)
        made.append(is_short(body))
        return body

    monkeypatch.setattr(bodies, "read_chunked", seen)
    return made


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
                        so_far = stream.current_completion_snapshot
                        assert exc.completion == (so_far if stream.chunk_count else None)
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
