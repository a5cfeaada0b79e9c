"""What is sent again, how often, and after how long."""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import anyio
import httpx
import pytest
import trio.testing

from anyio_writer import (
    APIConnectionError,
    APIStatusError,
    APIStreamError,
    APITimeoutError,
    AsyncWriter,
    ConnectTimeoutError,
    FirstContentTimeoutError,
    InternalServerError,
    Limits,
    RateLimitError,
    StreamTruncatedError,
    Timeouts,
    TotalTimeoutError,
)
from anyio_writer.testing import (
    AnyReply,
    ChatServer,
    Cut,
    Reply,
    Reset,
    Stall,
    error_reply,
    text_reply,
    writer_error,
)
from anyio_writer.transport import retries
from tests.transport.opening_helpers import (
    HANGS,
    KEY,
    MESSAGES,
    WHOLE,
    Sleeps,
    mock_client,
    stream_to,
)

GOOD = text_reply("Hi", done=True)
MOCK_CLOCK = pytest.mark.parametrize(
    "anyio_backend",
    [("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})],
    ids=["trio"],
    indirect=True,
)


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> Sleeps:
    """Waits take no time and are written down."""
    made = Sleeps()
    monkeypatch.setattr(anyio, "sleep", made)
    return made


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries.random, "uniform", lambda low, high: low)


async def attempts(*replies: AnyReply, **arguments: Any) -> int:
    """How many requests it takes, whether or not the last one is answered well."""
    with anyio.fail_after(HANGS):
        async with ChatServer(*replies) as server:
            try:
                async with stream_to(server, **arguments) as stream:
                    assert await stream.get_final_text() == "Hi"
            except APIStatusError:
                pass
            return len(server.requests)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 507, 529, 599])
async def test_these_are_tried_again(status: int, sleeps: Sleeps) -> None:
    assert await attempts(error_reply(status), error_reply(status), GOOD) == 3
    assert len(sleeps.seconds) == 2


@pytest.mark.parametrize("status", [301, 304, 307, 400, 401, 402, 403, 404, 410, 413, 418, 422])
async def test_these_are_not(status: int, sleeps: Sleeps) -> None:
    assert await attempts(error_reply(status), GOOD) == 1
    assert sleeps.seconds == []


@pytest.mark.parametrize("max_retries", [0, 1, 2, 5])
async def test_max_retries_counts_what_comes_after_the_first(
    max_retries: int, sleeps: Sleeps
) -> None:
    async with ChatServer(error_reply(503, "busy")) as server:
        with pytest.raises(InternalServerError) as caught:
            async with stream_to(server, max_retries=max_retries):
                pass
    assert len(server.requests) == max_retries + 1
    assert len({request.body for request in server.requests}) == 1
    assert len(sleeps.seconds) == max_retries
    assert caught.value.request_id == f"req-{max_retries}"  # the last one's
    # Read whole, so all of them took one connection.
    assert len(server.connections) == 1


async def test_there_are_two_retries_if_nothing_is_said(sleeps: Sleeps) -> None:
    assert await attempts(error_reply(503)) == 3


async def test_a_writer_keeps_its_number(sleeps: Sleeps) -> None:
    async with (
        ChatServer(error_reply(503)) as server,
        AsyncWriter(api_key=KEY, base_url=server.url, max_retries=1) as writer,
    ):
        with pytest.raises(InternalServerError):
            async with writer.chat.stream(model="m", messages=MESSAGES):
                pass
    assert len(server.requests) == 2


# What the server wants.


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "60"}, 60),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9),
        ({"Retry-After": formatdate(1_000_030, usegmt=True)}, 30),
        # What says nothing useful leaves the wait to us.
        ({"retry-after": "0"}, 0.5),
        ({"retry-after": "-5"}, 0.5),
        ({"retry-after": "nan"}, 0.5),
        ({"retry-after": "-inf"}, 0.5),
        ({"retry-after": "soon"}, 0.5),
        ({"retry-after": ""}, 0.5),
        ({"retry-after": formatdate(999_990, usegmt=True)}, 0.5),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 -0000"}, 0.5),
        ({"retry-after": "Mon, 99 Jan 2020 00:00:00 GMT"}, 0.5),
        ({"retry-after-ms": "0"}, 0.5),
    ],
)
async def test_the_servers_wish_is_kept(
    headers: dict[str, str],
    seconds: float,
    sleeps: Sleeps,
    no_jitter: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retries, "time", lambda: 1_000_000.0)
    assert await attempts(error_reply(429, headers=headers), GOOD) == 2
    assert sleeps.seconds == pytest.approx([seconds])


@pytest.mark.parametrize("jitter", [0, 0.5, 1])
async def test_jitter_never_shortens_what_the_server_asked(
    jitter: float, sleeps: Sleeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries.random, "uniform", lambda low, high: low + jitter * (high - low))
    assert await attempts(error_reply(503, headers={"retry-after": "10"}), GOOD) == 2
    assert 10 <= sleeps.seconds[0] <= 11


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after": "61"},
        {"retry-after": "60.1"},
        {"retry-after": "inf"},
        {"retry-after": "1e999"},
        {"retry-after-ms": "60001"},
        {"retry-after": formatdate(1_000_061, usegmt=True)},
        {"retry-after": formatdate(4_000_000_000, usegmt=True)},
        {"retry-after": "Fri, 31 Dec 9999 23:59:59 -0000"},
        {"retry-after": "3600", "x-should-retry": "true"},
    ],
)
async def test_a_wait_of_more_than_a_minute_is_the_callers_decision(
    headers: dict[str, str], sleeps: Sleeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "time", lambda: 1_000_000.0)
    assert await attempts(error_reply(429, headers=headers), GOOD) == 1
    assert sleeps.seconds == []


@pytest.mark.parametrize(
    ("status", "wish", "count"),
    [
        (400, "true", 2),
        (422, "true", 2),
        (503, "true", 2),
        (503, "false", 1),
        (429, "false", 1),
        (503, "maybe", 2),
        (400, "maybe", 1),
    ],
)
async def test_x_should_retry_decides(status: int, wish: str, count: int, sleeps: Sleeps) -> None:
    reply = error_reply(status, headers={"x-should-retry": wish})
    assert await attempts(reply, GOOD) == count


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (writer_error(429, tpe="CompletionModelQuotaError"), 1),
        ({"error": {"code": "insufficient_quota", "message": "pay"}}, 1),
        ({"error": {"type": "insufficient_quota", "code": None}}, 1),
        ({"error": {"code": 429, "type": "rate_limit"}}, 2),
        ({"error": "insufficient funds of patience"}, 2),
        (writer_error(429), 2),
        ("insufficient_quota", 2),
        ("", 2),
    ],
)
async def test_a_used_up_quota_is_not_waited_for(body: Any, count: int, sleeps: Sleeps) -> None:
    assert await attempts(error_reply(429, body), GOOD) == count


async def test_an_error_whose_body_stalls_is_tried_again_on_a_new_connection(
    sleeps: Sleeps,
) -> None:
    async with ChatServer(Reply(status=503, body=[b"bu", Stall()]), GOOD) as server:
        async with stream_to(server, limits=Limits(error_body_time=0.05)) as stream:
            # It was closed before the next one was sent, not at the end.
            with anyio.fail_after(HANGS):
                await server.wait_disconnect(0)
            assert await stream.get_final_text() == "Hi"
    assert len(server.connections) == 2


# Connections.


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def test_a_refused_connection_is_tried_again_then_reported(sleeps: Sleeps) -> None:
    with pytest.raises(APIConnectionError) as caught:
        async with stream_to(f"http://127.0.0.1:{closed_port()}"):
            pass
    assert len(sleeps.seconds) == 2
    assert type(caught.value) is APIConnectionError
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert caught.value.response is None
    assert caught.value.status_code is None
    assert caught.value.request is not None
    assert "ConnectError" in str(caught.value)


@pytest.mark.parametrize(
    "broken",
    [
        Reply(framing="none", body=[Reset()]),
        Reply(framing="none", body=[Cut()]),
        Reply(framing="none", body=[b"HTTP/1.1 200 OK\r\ncontent-ty", Cut()]),
        Reply(framing="none", body=[b"HTTP/1.1 200 OK\r\ncontent-ty", Reset()]),
        Reply(framing="none", body=[b"SSH-2.0-OpenSSH_9.6\r\n", Cut()]),
    ],
    ids=["reset", "closed", "closed in the headers", "reset in the headers", "not HTTP"],
)
async def test_a_connection_that_breaks_before_the_headers(broken: Reply, sleeps: Sleeps) -> None:
    assert await attempts(broken, broken, GOOD) == 3
    async with ChatServer(broken) as server:
        with pytest.raises(APIConnectionError) as caught:
            async with stream_to(server):
                pass
        assert len(server.requests) == 3
    assert type(caught.value) is APIConnectionError
    assert isinstance(caught.value.__cause__, httpx.NetworkError | httpx.ProtocolError)
    assert caught.value.response is None


async def test_an_error_after_a_broken_connection_has_no_response_of_an_earlier_attempt(
    sleeps: Sleeps,
) -> None:
    async with ChatServer(error_reply(503), Reply(framing="none", body=[Cut()])) as server:
        with pytest.raises(APIConnectionError) as caught:
            async with stream_to(server, max_retries=1):
                pass
    assert len(server.requests) == 3  # the second one on a connection that had served before
    assert caught.value.response is None
    assert caught.value.request_id is None


@pytest.mark.parametrize(
    "body",
    [[Cut()], [Reset()], [b'data: {"choices":[', Cut()], [b": hello\n\n", Reset()], []],
)
async def test_nothing_is_tried_again_once_the_headers_of_a_200_are_there(
    body: Any, sleeps: Sleeps
) -> None:
    async with ChatServer(Reply(body=body)) as server:
        with pytest.raises(APIConnectionError):
            async with stream_to(server) as stream:
                await stream.until_done()
    assert len(server.requests) == 1
    assert sleeps.seconds == []


async def test_nor_after_an_error_inside_a_200(sleeps: Sleeps) -> None:
    async with ChatServer(Reply(body=b'data: {"error": {"code": 503}}\n\n')) as server:
        with pytest.raises(APIStreamError):
            async with stream_to(server) as stream:
                await stream.until_done()
    assert len(server.requests) == 1


def test_which_timeouts_are_tried_again() -> None:
    assert retries.is_retryable(ConnectTimeoutError("a"))
    for cls in (APITimeoutError, FirstContentTimeoutError, TotalTimeoutError):
        assert not retries.is_retryable(cls("a"))
    assert retries.is_retryable(StreamTruncatedError("a"))
    for other in (APIStatusError("a"), ValueError(), KeyboardInterrupt()):
        assert not retries.is_retryable(other)


# How long.


async def test_waits_double_up_to_eight_seconds(sleeps: Sleeps, no_jitter: None) -> None:
    assert await attempts(error_reply(503), max_retries=7) == 8
    assert sleeps.seconds == [0.5, 1, 2, 4, 8, 8, 8]


async def test_waits_vary_by_a_quarter_at_most(sleeps: Sleeps) -> None:
    assert await attempts(error_reply(503), max_retries=60) == 61
    full = [min(0.5 * 2**attempt, 8) for attempt in range(60)]
    shares = [wait / whole for wait, whole in zip(sleeps.seconds, full, strict=True)]
    assert all(0.75 <= share <= 1 for share in shares)
    assert len(set(shares)) > 30  # the chance of fewer is nil


@MOCK_CLOCK
async def test_the_total_limit_holds_for_all_attempts_and_waits(no_jitter: None) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(trio.current_time() - start)
        return httpx.Response(503)

    sent: list[float] = []
    start = trio.current_time()
    async with mock_client(answer) as client:
        with pytest.raises(TotalTimeoutError, match=r"within 10 s \(Timeouts\.total\)"):
            async with stream_to(
                "http://x", client=client, max_retries=100, timeouts=Timeouts(total=10)
            ):
                pass
    assert sent == pytest.approx([0, 0.5, 1.5, 3.5, 7.5])
    assert trio.current_time() - start == pytest.approx(10)


@MOCK_CLOCK
async def test_a_wait_is_no_time_without_content(no_jitter: None) -> None:
    """Each attempt has the whole of ``first_content``; the waits between them have none of it."""
    bodies = [httpx.Response(503, headers={"retry-after": "50"})] * 2
    bodies.append(httpx.Response(200, content=WHOLE))

    async def answer(request: httpx.Request) -> httpx.Response:
        await anyio.sleep(8)
        return bodies.pop(0)

    start = trio.current_time()
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        async with stream_to(
            "http://x", client=client, timeouts=Timeouts(first_content=10)
        ) as stream:
            assert await stream.get_final_text() == "Hi"
    assert trio.current_time() - start == pytest.approx(3 * 8 + 2 * 50)


@MOCK_CLOCK
async def test_a_server_that_is_silent_too_long_is_not_asked_again() -> None:
    asked = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        await anyio.sleep_forever()
        raise AssertionError

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(FirstContentTimeoutError):
            async with stream_to("http://x", client=client, timeouts=Timeouts(first_content=9)):
                pass
    assert asked == 1


async def test_cancelling_the_wait_for_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = anyio.Event()

    async def wait(seconds: float) -> None:
        waiting.set()
        await anyio.sleep_forever()

    monkeypatch.setattr(anyio, "sleep", wait)

    async def ask(writer: AsyncWriter) -> None:
        async with writer.chat.stream(model="m", messages=MESSAGES):
            raise AssertionError

    async with (
        ChatServer(error_reply(503), GOOD) as server,
        AsyncWriter(api_key=KEY, base_url=server.url, max_connections=1) as writer,
    ):
        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, writer)
                await waiting.wait()
                tasks.cancel_scope.cancel()
            assert len(server.requests) == 1
            async with writer.chat.stream(model="m", messages=MESSAGES) as stream:
                assert await stream.get_final_text() == "Hi"


class Watched(httpx.AsyncByteStream):
    """A body that knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"busy"

    async def aclose(self) -> None:
        self.closed = True


async def test_each_failed_attempt_is_closed_before_the_next(sleeps: Sleeps) -> None:
    bodies: list[Watched] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert all(body.closed for body in bodies)
        bodies.append(Watched())
        return httpx.Response(503, stream=bodies[-1])

    async with mock_client(answer) as client:
        with pytest.raises(InternalServerError) as caught:
            async with stream_to("http://x", client=client, max_retries=3):
                pass
    assert len(bodies) == 4
    assert all(body.closed for body in bodies)
    assert caught.value.body == "busy"


@pytest.mark.parametrize("value", ["1", "0", "59.9"])
def test_what_the_server_asks_is_read_from_the_error(value: str) -> None:
    response = httpx.Response(429, headers={"retry-after": value})
    wait = retries.server_wait(RateLimitError("a", response=response))
    assert wait == (float(value) or None)
    assert retries.server_wait(RateLimitError("a")) is None
    assert not math.isnan(wait or 0)
