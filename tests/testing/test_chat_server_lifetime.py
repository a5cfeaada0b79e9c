"""Leaving the body ends everything, and what comes out of it is what went wrong."""

import gc
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import anyio
import pytest
from anyio.abc import SocketStream

from anyio_writer.testing import (
    ChatServer,
    Hold,
    RecordedRequest,
    Reply,
    ReplyBuilder,
    Stall,
    Step,
    text_reply,
)

HANGS = 10  # seconds; a net under a hang, not an assertion
POST = b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n"


class BodyError(Exception):
    """Raised by the body of the ``async with``."""


class ScriptError(Exception):
    """Raised by a reply."""


class Interrupt(BaseException):
    """Like those that test runners raise to leave a test."""


async def ask(server: ChatServer) -> SocketStream:
    """Send a request, and keep the connection."""
    stream = await connect(server)
    await stream.send(POST)
    await server.wait_request()
    return stream


async def connect(server: ChatServer) -> SocketStream:
    parts = urlsplit(server.url)
    return await anyio.connect_tcp(parts.hostname or "", parts.port or 0)


def broken_reply(_: RecordedRequest) -> Reply:
    raise ScriptError


def broken_body(hold: anyio.Event | None = None) -> Iterator[bytes | Step]:
    yield Hold(hold) if hold else b"a"
    raise ScriptError


def broken_later(_: RecordedRequest) -> Reply:
    return Reply(body=broken_body())


def wrong_reply(_: RecordedRequest) -> Reply:
    return Reply(body="text is not bytes")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reply(headers_delay=3600),
        lambda: Reply(body=[b"a", Stall()]),
        lambda: Reply(body=[Hold(anyio.Event())]),
        lambda: Reply(body=[bytes(1_000_000)] * 100),
        lambda: Reply(body=b"a", framing="close"),
        lambda: Reply(body=b"a"),
    ],
)
async def test_leaving_closes_every_connection(make: Callable[[], Reply]) -> None:
    with anyio.fail_after(HANGS):
        async with ChatServer(make()) as server:
            idle, asking = await connect(server), await ask(server)
            await anyio.wait_all_tasks_blocked()
        assert [connection.closed for connection in server.connections] == [True, True]
        await idle.aclose()
        await asking.aclose()
        with pytest.raises(OSError, match=r"."):
            await connect(server)
    gc.collect()  # whatever was left open would warn now


@pytest.mark.parametrize("error", [BodyError, Interrupt, ExceptionGroup("two", [BodyError()])])
async def test_what_the_body_raises_comes_out_as_it_is(
    error: Exception | type[BaseException],
) -> None:
    async def run() -> None:
        async with ChatServer(Reply(body=[Stall()])) as server, await ask(server):
            raise error

    with pytest.raises(BaseException) as caught:
        await run()
    # Not "is": trio makes a copy of every group that passes a nursery.
    assert repr(caught.value) == repr(error() if isinstance(error, type) else error)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("make", [broken_reply, broken_later, wrong_reply])
async def test_what_a_script_raises_ends_the_body(make: ReplyBuilder) -> None:
    async def run() -> None:
        async with ChatServer(make) as server, await ask(server):
            await anyio.sleep_forever()

    with anyio.fail_after(HANGS), pytest.raises((ScriptError, AssertionError)) as caught:
        await run()
    assert caught.value.__context__ is None


async def test_two_errors_come_out_together() -> None:
    let_go, streams = anyio.Event(), list[SocketStream]()

    async def run() -> None:
        async with ChatServer(Reply(body=broken_body(let_go))) as server:
            streams.append(await ask(server))
            let_go.set()
            try:
                await anyio.sleep_forever()
            finally:
                raise BodyError

    with anyio.fail_after(HANGS), pytest.raises(ExceptionGroup) as caught:
        await run()
    await streams[0].aclose()
    assert {type(error) for error in caught.value.exceptions} == {BodyError, ScriptError}


async def test_a_cancelled_body_is_just_cancelled() -> None:
    server = ChatServer(text_reply(pace=3600))
    with anyio.CancelScope() as scope:
        async with server, await ask(server):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert [connection.closed for connection in server.connections] == [True]


async def test_waiting_can_begin_before_there_is_anything() -> None:
    got: list[str] = []

    async def wait(server: ChatServer) -> None:
        got.append((await server.wait_request(1)).target)
        await server.wait_disconnect(1)
        got.append("left")

    server = ChatServer(text_reply("a"))
    with anyio.fail_after(HANGS):
        async with server, anyio.create_task_group() as tg:
            tg.start_soon(wait, server)
            await anyio.wait_all_tasks_blocked()
            async with await connect(server) as stream:
                await stream.send(POST)
                await server.wait_request(0)
                await stream.send(POST.replace(b"/", b"/second", 1))
                await server.wait_request(1)
    assert got == ["/second", "left"]
