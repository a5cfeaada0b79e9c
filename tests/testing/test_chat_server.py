"""What a peer sees of the server, byte by byte, and what the server sees of its peer."""

import socket
import struct
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketStream
from hypothesis import given, settings
from hypothesis import strategies as st

from anyio_writer.testing import (
    ChatServer,
    Cut,
    Framing,
    Hold,
    Raw,
    RecordedConnection,
    Reply,
    Reset,
    Sleep,
    Stall,
    Step,
    error_reply,
)
from tests.plugins.thoroughness import examples

HANGS = 10  # seconds; a net under a hang, not an assertion
POST = b"POST /v1/chat HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\n{}"
LAST_POST = POST.replace(b"host", b"connection: close\r\nhost")


@asynccontextmanager
async def connected(server: ChatServer) -> AsyncGenerator[SocketStream]:
    parts = urlsplit(server.url)
    with anyio.fail_after(HANGS):
        async with await anyio.connect_tcp(parts.hostname or "", parts.port or 0) as stream:
            yield stream


async def read_to_end(stream: SocketStream) -> tuple[bytes, str]:
    """All that comes, and whether FIN or RST ended it."""
    data = b""
    while True:
        try:
            data += await stream.receive()
        except anyio.EndOfStream:
            return data, "FIN"
        except anyio.BrokenResourceError:
            return data, "RST"


async def read_until(stream: SocketStream, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        data += await stream.receive()
    return data


async def exchange(server: ChatServer, request: bytes = LAST_POST) -> tuple[bytes, bytes, str]:
    """Head, body as framed, and how it ended."""
    async with connected(server) as stream:
        await stream.send(request)
        data, end = await read_to_end(stream)
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body, end


async def until_closed(connection: RecordedConnection) -> None:
    with anyio.fail_after(HANGS):
        while not connection.closed:
            await anyio.lowlevel.checkpoint()


async def test_a_reply_goes_out_in_chunks_with_default_headers() -> None:
    async with ChatServer(Reply(body=[b"a", b"", b"bc"])) as server:
        head, body, end = await exchange(server)
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"content-type: text/event-stream",
        b"x-request-id: req-0",
        b"transfer-encoding: chunked",
        b"connection: close",
    ]
    assert body == b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"
    assert end == "FIN"


async def test_headers_replace_the_defaults_or_leave_them_out() -> None:
    headers = {"Content-Type": "text/plain", "x-request-id": None, "retry-after": "3"}
    async with ChatServer(Reply(status=599, headers=headers)) as server:
        head, _, _ = await exchange(server)
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 599 Unknown",
        b"transfer-encoding: chunked",
        b"connection: close",
        b"content-type: text/plain",
        b"retry-after: 3",
    ]


@pytest.mark.parametrize(
    ("framing", "header", "wire"),
    [
        ("chunked", b"transfer-encoding: chunked", b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
        ("length", b"content-length: 3", b"abc"),
        ("close", b"connection: close", b"abc"),
    ],
)
async def test_a_body_is_framed_as_told(framing: Framing, header: bytes, wire: bytes) -> None:
    async with ChatServer(Reply(body=[b"ab", Sleep(0), b"c"], framing=framing)) as server:
        head, body, end = await exchange(server)
        await server.wait_disconnect()
    assert header in head.split(b"\r\n")
    assert (body, end) == (wire, "FIN")
    assert server.requests[0].answered


async def test_without_framing_the_pieces_are_all_there_is() -> None:
    async with ChatServer(Reply(body=b"not HTTP", framing="none")) as server:
        assert await exchange(server, POST) == (b"not HTTP", b"", "FIN")
        server.add(Reply(framing="none"))
        assert await exchange(server, POST) == (b"", b"", "FIN")
        server.add(Reply(body=[Reset()], framing="none"))
        assert await exchange(server, POST) == (b"", b"", "RST")


@pytest.mark.parametrize(
    ("reply", "wire", "how"),
    [
        (Reply(body=[b"ab", b"cd"], cut_after=0), b"", "FIN"),
        (Reply(body=[b"ab", b"cd"], cut_after=3), b"2\r\nab\r\n1\r\nc\r\n", "FIN"),
        (Reply(body=[b"ab", b"cd"], cut_after=3, framing="length"), b"abc", "FIN"),
        (Reply(body=[b"ab", Cut(), b"cd"]), b"2\r\nab\r\n", "FIN"),
        (Reply(body=[b"ab", b"cd"], reset_after=0), b"", "RST"),
        (Reply(body=[b"ab", b"cd"], reset_after=3), b"2\r\nab\r\n1\r\nc\r\n", "RST"),
        (Reply(body=[b"ab", Reset(), b"cd"]), b"2\r\nab\r\n", "RST"),
    ],
)
async def test_a_broken_reply_breaks_where_it_was_told_to(
    reply: Reply, wire: bytes, how: str
) -> None:
    async with ChatServer(reply) as server:
        _, body, end = await exchange(server, POST)
        request = await server.wait_disconnect()
    assert (body, end) == (wire, how)
    assert not request.answered
    assert (request.peer_left is None) == (how == "RST")  # there the server was first


async def test_raw_bytes_pass_by_the_framing() -> None:
    async with ChatServer(Reply(body=[b"ab", Raw(b"zz\r\n")])) as server:
        _, body, _ = await exchange(server)
    assert body == b"2\r\nab\r\nzz\r\n0\r\n\r\n"


async def test_a_held_reply_goes_on_when_it_is_let_go() -> None:
    headers, body, server_done = anyio.Event(), anyio.Event(), anyio.Event()
    reply = Reply(headers_hold=headers, body=[b"ab", Hold(body), b"cd", Hold(server_done)])
    async with ChatServer(reply) as server, connected(server) as stream:
        await stream.send(POST)
        await server.wait_request()
        headers.set()
        assert (await read_until(stream, b"ab\r\n")).startswith(b"HTTP/1.1 200 OK")
        body.set()
        assert await read_until(stream, b"cd\r\n") == b"2\r\ncd\r\n"
        assert not server.requests[0].answered
        server_done.set()
        assert await read_until(stream, b"0\r\n\r\n") == b"0\r\n\r\n"
        assert server.requests[0].answered


@pytest.mark.parametrize(
    ("reply", "last"),
    [
        (Reply(body=[b"ab", b"cd"], stall_after=3), b"1\r\nc\r\n"),
        (Reply(body=[b"ab", Stall(), b"cd"]), b"2\r\nab\r\n"),
        (Reply(body=[b"ab", Sleep(3600), b"cd"]), b"2\r\nab\r\n"),
        (Reply(body=[b"ab", b"cd"], pace=3600), b"2\r\nab\r\n"),
        (Reply(body=b"ab", terminator_delay=3600), b"2\r\nab\r\n"),
        (Reply(body=b"ab", never_end=True), b"2\r\nab\r\n"),
        (Reply(body=b"ab", never_end=True, framing="length"), b"ab"),
        (Reply(body=b"ab", never_end=True, framing="close"), b"ab"),
    ],
)
async def test_a_silent_server_notices_at_once_that_its_peer_leaves(
    reply: Reply, last: bytes
) -> None:
    more, left = False, 0.0

    async def read_on(stream: SocketStream) -> None:
        nonlocal more
        await stream.receive()
        more = True

    async with ChatServer(reply) as server:
        async with connected(server) as stream, anyio.create_task_group() as tg:
            await stream.send(POST)
            assert (await read_until(stream, last)).endswith(last)
            tg.start_soon(read_on, stream)
            await anyio.wait_all_tasks_blocked()
            assert not more
            assert server.requests[0].peer_left is None
            left = anyio.current_time()
            tg.cancel_scope.cancel()
        with anyio.fail_after(HANGS):
            request = await server.wait_disconnect()
        assert request.peer_left is not None
        assert request.connection.closed_at is not None
        assert left <= request.peer_left <= request.connection.closed_at
        assert not request.answered


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reply(headers_delay=3600),
        lambda: Reply(headers_hold=anyio.Event()),
        lambda: Reply(framing="none", body=[Hold(anyio.Event())]),
    ],
)
async def test_a_peer_may_leave_before_anything_is_said(make: Callable[[], Reply]) -> None:
    async with ChatServer(make()) as server:
        async with connected(server) as stream:
            await stream.send(POST)
            await server.wait_request()
        with anyio.fail_after(HANGS):
            request = await server.wait_disconnect()
        assert request.peer_left is not None
        assert not request.answered


async def test_delays_take_their_time() -> None:
    reply = Reply(headers_delay=0.01, body=[b"a", Sleep(0.01), b"b"], pace=0.01)
    async with ChatServer(reply) as server:
        begin = anyio.current_time()
        await exchange(server)
        assert anyio.current_time() - begin >= 0.03


async def test_a_peer_that_does_not_read_holds_the_server_back() -> None:
    taken = 0

    def pieces() -> Iterator[bytes]:
        nonlocal taken
        while taken < 1000:
            taken += 1
            yield bytes(1_000_000)

    async with ChatServer(Reply(body=pieces())) as server:
        async with connected(server) as stream:
            await stream.send(POST)
            await server.wait_request()
            await anyio.wait_all_tasks_blocked()
            assert taken < 1000
        with anyio.fail_after(HANGS):
            request = await server.wait_disconnect()
        assert request.peer_left is not None


async def test_a_peer_that_breaks_the_connection_has_left() -> None:
    let_go = anyio.Event()
    async with ChatServer(Reply(body=[Hold(let_go), b"ab"])) as server:
        parts = urlsplit(server.url)
        with socket.create_connection((parts.hostname, parts.port)) as sock:
            sock.sendall(POST)
            await server.wait_request()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        let_go.set()  # so the server writes into a connection that is no more
        with anyio.fail_after(HANGS):
            request = await server.wait_disconnect()
        assert request.peer_left is not None
        assert not request.answered


async def test_a_connection_is_reused_while_both_sides_want_it() -> None:
    replies = [Reply(body=b"a"), error_reply(503), Reply(status=204), Reply(framing="close")]
    ends = [b"0\r\n\r\n", b"}", b"\r\n\r\n", b"\r\n\r\n"]
    async with ChatServer(*replies) as server, connected(server) as stream:
        for end in ends:
            await stream.send(POST)
            await read_until(stream, end)
        assert await read_to_end(stream) == (b"", "FIN")
        (connection,) = server.connections
        assert connection.requests == 4
        assert all(request.connection is connection for request in server.requests)
        assert not connection.closed  # it waits for our FIN
        await stream.send_eof()
        await until_closed(connection)


async def test_a_reply_can_end_the_connection_by_its_headers() -> None:
    async with ChatServer(Reply(headers=[("Connection", "close")])) as server:
        _, body, end = await exchange(server, POST)
    assert (body, end) == (b"0\r\n\r\n", "FIN")


async def test_requests_sent_ahead_are_answered_one_after_another() -> None:
    hold = anyio.Event()
    server = ChatServer(Reply(body=[Hold(hold), b"a"]), Reply(body=b"b"))
    async with server, connected(server) as stream:
        await stream.send(POST)
        await server.wait_request()
        await stream.send(POST[:30])
        await stream.send(POST[30:] + LAST_POST)
        await anyio.wait_all_tasks_blocked()
        hold.set()
        data, _ = await read_to_end(stream)
    assert data.count(b"HTTP/1.1 200 OK") == len(server.requests) == 3
    assert data.index(b"1\r\na\r\n") < data.index(b"1\r\nb\r\n")


async def test_request_bodies_come_in_chunks_and_after_an_invitation() -> None:
    head = b"POST /a?b=c HTTP/1.1\r\nhost: test\r\nX-Name: v\r\n"
    async with ChatServer(Reply(body=b"ok")) as server, connected(server) as stream:
        await stream.send(head + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n")
        await stream.send(b"0\r\n\r\n")
        await read_until(stream, b"0\r\n\r\n")
        await stream.send(head + b"expect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        await stream.send(b"xyz")
        await read_until(stream, b"0\r\n\r\n")
    assert [request.body for request in server.requests] == [b"abcde", b"xyz"]
    assert (server.requests[0].method, server.requests[0].target) == ("POST", "/a?b=c")
    assert (b"x-name", b"v") in server.requests[0].headers


@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_a_peer_that_has_the_last_byte_has_been_answered(framing: Framing) -> None:
    last = b"0\r\n\r\n" if framing == "chunked" else b"ab\r\n\r\n"
    server = ChatServer(Reply(body=b"ab\r\n\r\n", framing=framing))
    async with server, connected(server) as stream:
        for index in range(20):
            await stream.send(POST)
            await read_until(stream, last)
            assert server.requests[index].answered


async def test_an_old_peer_gets_no_chunks() -> None:
    async with ChatServer(Reply(body=[b"ab", b"c"])) as server:
        head, body, end = await exchange(server, POST.replace(b"1.1", b"1.0"))
    assert b"transfer-encoding" not in head
    assert (body, end) == (b"abc", "FIN")
    assert server.requests[0].http_version == "1.0"


@pytest.mark.parametrize(
    ("method", "body"), [(b"GET", b'{"tpe":"NotFound"'), (b"HEAD", b""), (b"CONNECT", b'{"tpe":"')]
)
async def test_only_post_takes_a_reply(method: bytes, body: bytes) -> None:
    async with ChatServer(Reply(body=b"kept")) as server:
        head, got, _ = await exchange(server, LAST_POST.replace(b"POST", method))
        assert head.startswith(b"HTTP/1.1 404 Not Found")
        assert got.startswith(body)
        assert bool(got) == bool(body)
        _, got, _ = await exchange(server)
        assert b"kept" in got


@pytest.mark.parametrize(
    ("garbage", "status"),
    [
        (b"\x16\x03\x01 hello\r\n\r\n", b"400 Bad Request"),
        (b"POST / HTTP/1.1\r\n\r\n", b"400 Bad Request"),
        (b"POST / HTTP/1.1\r\nhost: a\r\nx: " + b"x" * 20_000, b"431 Request Header Fields"),
        (LAST_POST.replace(b"length: 2", b"length: two"), b"400 Bad Request"),
    ],
)
async def test_garbage_is_refused_and_harms_nobody(garbage: bytes, status: bytes) -> None:
    async with ChatServer(Reply(body=b"ok")) as server:
        head, body, end = await exchange(server, garbage)
        assert head.startswith(b"HTTP/1.1 " + status)
        assert body.startswith(b'{"tpe":"')
        assert end == "FIN"
        assert server.requests == []
        _, body, _ = await exchange(server)
        assert b"ok" in body


@settings(max_examples=examples(50))
@given(st.lists(st.sampled_from([POST, POST[:20], POST[20:], b"\r\n", b"a: b"]) | st.binary()))
async def test_whatever_peers_send_the_server_lives(sent: list[bytes]) -> None:
    async with ChatServer(Reply(body=b"ok")) as server:
        async with connected(server) as stream:
            with suppress(anyio.BrokenResourceError):  # refused before all was sent
                for piece in sent:
                    await stream.send(piece)
        _, body, _ = await exchange(server)
        assert body == b"2\r\nok\r\n0\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"POST / HT", POST[:-1]])
async def test_half_a_request_is_none(sent: bytes) -> None:
    async with ChatServer() as server:
        async with connected(server) as stream:
            await stream.send(sent)
        while not server.connections:
            await anyio.lowlevel.checkpoint()
        await until_closed(server.connections[0])
        assert server.requests == []
        assert server.connections[0].peer_left is not None


async def test_it_listens_where_it_is_told() -> None:
    async with ChatServer(Reply(body=b"ok")) as first:
        port = urlsplit(first.url).port or 0
        assert first.url == f"http://127.0.0.1:{port}"
    async with ChatServer(Reply(body=b"ok"), port=port) as second:
        assert second.url == first.url
        await exchange(second)


async def test_it_listens_on_ipv6() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("no IPv6 here")
    async with ChatServer(Reply(body=b"ok"), host="::1") as server:
        assert server.url.startswith("http://[::1]:")
        _, body, _ = await exchange(server)
    assert b"ok" in body


def test_the_url_is_known_once_the_server_runs() -> None:
    with pytest.raises(RuntimeError, match="has no URL until it is entered"):
        _ = ChatServer().url


def test_steps_are_closed_under_match() -> None:
    kinds: tuple[type[Step], ...] = (Sleep, Hold, Cut, Reset, Stall, Raw)
    assert len({kind.__name__ for kind in kinds}) == 6
