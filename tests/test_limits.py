"""docs/limits.md says what a server can make this side hold or wait for: each row is tried."""

from __future__ import annotations

import logging
import re
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anyio_writer import (
    APIError,
    APIStatusError,
    AsyncWriter,
    Limits,
    Timeouts,
    WriterError,
    chat_stream_from,
    function_tool,
    open_chat_stream,
    open_conversation,
)
from anyio_writer.config import StreamSettings, resolve_endpoint
from anyio_writer.conversation import DEFAULT_MAX_ROUNDS
from anyio_writer.streaming.channel import DEFAULT_MAX_BUFFER
from anyio_writer.testing import (
    DONE,
    ChatServer,
    Raw,
    Reply,
    Stall,
    Step,
    error_reply,
    text_reply,
    tool_call_reply,
)
from tests.streaming.helpers import QUESTION, REQUEST, STALL, Body, chunk, client_for

Case = Callable[[], Awaitable[str]]

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "limits.md"
HANGS: Final = 20  # seconds; a net under a hang, not an assertion
SHORT: Final = 0.05  # seconds
WHOLE: Final = chunk("a") + chunk(finish="stop")
CASES: Final[dict[str, Case]] = {}


def tables() -> list[list[list[str]]]:
    """The cells of each table of the document, without heads."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return [
        [[cell.strip() for cell in row.strip("|").split("|")] for row in found.splitlines()]
        for found in re.findall(r"^\| ---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    ]


SETTINGS, FIXED = tables()
# Row -> what happens at the bound, by the name of the setting or else by the first cell.
ROWS: Final = {row[1].strip("`"): row[3] for row in SETTINGS} | {row[0]: row[2] for row in FIXED}


def case(row: str) -> Callable[[Case], Case]:
    """The function tries what this row is about; it returns what happened."""

    def keep(tried: Case) -> Case:
        CASES[row] = tried
        return tried

    return keep


@pytest.mark.parametrize("row", ROWS)
async def test_each_row_is_so(row: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="anyio_writer")
    with anyio.fail_after(HANGS):
        happened = await CASES[row]()
    if happened == "logged":
        happened = "a warning in the log" if "subscri" in caplog.text else "nothing"
    assert happened in ROWS[row]


def test_every_setting_has_a_row() -> None:
    names = [
        f"{kind.__name__}.{name}" for kind in (Limits, Timeouts) for name in kind.__struct_fields__
    ]
    assert set(names) <= set(ROWS)
    assert set(CASES) == set(ROWS)


def test_the_defaults_are_those_of_the_library() -> None:
    others = {
        "end_grace": StreamSettings().end_grace,
        "max_retries": resolve_endpoint(api_key="key").max_retries,
        "max_rounds": DEFAULT_MAX_ROUNDS,
        "max_buffer": DEFAULT_MAX_BUFFER,
    }
    for _, setting, default, _ in SETTINGS:
        name = setting.strip("`")
        owner, _, field = name.rpartition(".")
        kinds: dict[str, Any] = {"Limits": Limits(), "Timeouts": Timeouts()}
        value = getattr(kinds[owner], field) if owner else others[name]
        assert value == number(default), name


def test_the_reference_says_the_same() -> None:
    settings = (DOCUMENT.parent / "reference/settings.md").read_text(encoding="utf-8")
    rows = {setting.strip("`"): default for _, setting, default, _ in SETTINGS}
    found = re.search(r"^\| `Limits.*\n\| ---.*\n((?:\|.*\n)+)", settings, re.MULTILINE)
    assert found is not None
    for row in found[1].splitlines():
        name, default, _ = (cell.strip() for cell in row.strip("|").split("|"))
        assert number(rows["Limits." + name.strip("`")]) == number(default), name


def number(cell: str) -> float | None:
    if cell == "None":
        return None
    amount, _, unit = cell.replace(",", "").partition(" ")
    return float(amount) * {"KiB": 1024, "MiB": 1024**2}.get(unit, 1)


# What is tried.


async def outcome(*script: Any, **settings: Any) -> str:
    """The name of the error that a stream of these bytes ends with, or "answer"."""
    try:
        async with chat_stream_from(Body(*script), **settings) as stream:
            text = await stream.get_final_text()
    except APIError as exc:
        if script[0] == FIRST:
            assert exc.completion is not None
            assert exc.completion.choices[0].message.content == "a"  # what had arrived
        return type(exc).__name__
    assert text is not None
    return "answer"


async def at_bound(limits: Limits, fits: bytes, too_much: bytes) -> str:
    """The outcome of what is too much, behind something good; what just fits is taken."""
    assert await outcome(FIRST, fits, END, limits=limits) == "answer"
    return await outcome(FIRST, too_much, END, limits=limits)


FIRST: Final = chunk("a")
END: Final = chunk(finish="stop") + DONE


@case("Limits.max_event_bytes")
async def long_event() -> str:
    limits = Limits(max_event_bytes=1000)
    line = b"data: %b\n"
    lines = [line % (b" " * 90) for _ in range(12)]
    assert await outcome(FIRST, *lines, limits=limits) == "ResponseTooLargeError"
    return await at_bound(limits, b":" * 1000 + b"\n\n", b":" * 1001 + b"\n\n")


@case("Limits.max_depth")
async def deep_event() -> str:
    def deep(levels: int) -> bytes:
        return b'data: {"choices":[],"x":%b%b}\n\n' % (b"[" * levels, b"]" * levels)

    return await at_bound(Limits(max_depth=20), deep(19), deep(20))


@case("Limits.max_answer_bytes")
async def long_answer() -> str:
    limits = Limits(max_answer_bytes=100_000)
    ping = b": " + b" " * 1000 + b"\n"
    happened = await at_bound(limits, ping * 90, ping * 100)
    squeezed = zlib.compress(FIRST + ping * 10_000 + END)
    reply = Reply(body=squeezed, headers={"content-encoding": "deflate"})
    async with ChatServer(reply) as server:
        assert await asked(server, limits=limits) == happened
    return happened


@case("Limits.max_choices")
async def many_choices() -> str:
    def choices(count: int) -> bytes:
        return b"".join(chunk("b", "stop", index=number) for number in range(1, count))

    return await at_bound(Limits(max_choices=3), choices(3), choices(4))


@case("Limits.max_tool_calls")
async def many_calls() -> str:
    def calls(count: int) -> bytes:
        return b"".join(
            chunk(tool_calls=[{"index": n, "id": f"i{n}", "function": {"name": "f"}}])
            for n in range(count)
        )

    return await at_bound(Limits(max_tool_calls=3), calls(3), calls(4))


async def asked(server: ChatServer, **settings: Any) -> str:
    """The name of the error that a request ends with, or "answer"."""
    try:
        async with open_chat_stream(**REQUEST, base_url=server.url, **settings) as stream:
            await stream.until_done()
    except WriterError as exc:
        return type(exc).__name__
    return "answer"


async def error_body(*body: bytes | Step, limits: Limits) -> str:
    async with ChatServer(Reply(status=400, body=body)) as server:
        with pytest.raises(APIStatusError) as caught:
            async with open_chat_stream(**REQUEST, base_url=server.url, limits=limits):
                pass
    assert type(caught.value).__name__ == "BadRequestError"
    assert caught.value.body == "x" * 100
    return "the error of that status"


@case("Limits.max_error_bytes")
async def long_error() -> str:
    return await error_body(*[b"x" * 40] * 10, Stall(), limits=Limits(max_error_bytes=100))


@case("Limits.error_body_time")
async def slow_error() -> str:
    return await error_body(b"x" * 100, Stall(), limits=Limits(error_body_time=SHORT))


async def drained(*rest: bytes | Step, limits: Limits) -> str:
    """Three answers, of which the middle one is followed by something."""
    first = text_reply("Hello")
    async with (
        ChatServer(first, Reply(body=[WHOLE, DONE, *rest]), first) as server,
        AsyncWriter(api_key="key", base_url=server.url, limits=limits) as writer,
    ):
        for _ in range(3):
            async with writer.chat.stream(**QUESTION) as stream:
                assert await stream.get_final_text() in ("Hello", "a")
        await server.wait_disconnect(1)
    assert len(server.connections) == 2  # the second was closed
    return "the answer is complete; the connection is closed"


@case("Limits.drain_bytes")
async def chatty_end() -> str:
    limits = Limits(drain_bytes=1000, drain_time=HANGS)
    return await drained(*[b": " + b" " * 100 + b"\n"] * 100, Stall(), limits=limits)


@case("Limits.drain_time")
async def late_end() -> str:
    return await drained(Stall(), limits=Limits(drain_time=SHORT))


@case("Limits.cleanup_time")
async def hanging_close() -> str:
    body = Body(chunk("a"), STALL)
    body.close_hangs = True
    limits = Limits(cleanup_time=SHORT)
    async with (
        client_for(body) as client,
        open_chat_stream(**REQUEST, client=client, limits=limits) as stream,
    ):
        await anext(stream)
    return "the block is left, and closing is given up"


@case("max_buffer")
async def fast_server() -> str:
    body = Body(*[FIRST] * 1000, END)
    async with chat_stream_from(body) as stream:
        subscription = stream.subscribe(max_buffer=4)
        stream.start_soon(stream.until_done)
        await anyio.wait_all_tasks_blocked()
        assert body.reads < 10
        await subscription.aclose()
    return "reading waits"


@case("Limits.slow_consumer_time")
async def slow_consumer() -> str:
    limits = Limits(slow_consumer_time=0.01)
    async with chat_stream_from(Body(*[FIRST] * 9, END), limits=limits) as stream:
        subscription = stream.subscribe(max_buffer=2)
        with anyio.move_on_after(0.1):
            await stream.until_done()
        await subscription.aclose()
        await stream.until_done()
    return "logged"


@case("Timeouts.connect")
async def no_handshake() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        try:
            async with open_chat_stream(
                **REQUEST, base_url=url, max_retries=0, timeouts=Timeouts(connect=SHORT)
            ):
                pass
        except WriterError as exc:
            return type(exc).__name__
    return "answer"


class Paced:
    """A piece again and again, for ever."""

    def __init__(self, *first: bytes, then: bytes) -> None:
        self._first = iter(first)
        self._then = then

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._first:
            yield piece
        while True:
            await anyio.sleep(SHORT / 5)
            yield self._then


async def paced(*first: bytes, then: bytes, **settings: Any) -> str:
    try:
        async with chat_stream_from(Paced(*first, then=then), **settings) as stream:
            await stream.until_done()
    except WriterError as exc:
        return type(exc).__name__
    return "the answer is complete"


@case("Timeouts.first_content")
async def no_content() -> str:
    ping = b": ping\n\n" + chunk()
    return await paced(then=ping, timeouts=Timeouts(first_content=SHORT))


@case("Timeouts.idle")
async def silence() -> str:
    return await paced(FIRST, then=b": ping\n\n", timeouts=Timeouts(idle=SHORT))


@case("Timeouts.total")
async def slow_answer() -> str:
    return await paced(then=FIRST, timeouts=Timeouts(total=4 * SHORT))


@case("end_grace")
async def no_end() -> str:
    for then in (b": ping\n\n", b"data: {}\n\n", chunk(finish="stop")):
        happened = await paced(WHOLE, then=then, end_grace=SHORT)
        assert happened == "the answer is complete"
    assert await outcome(WHOLE, STALL, end_grace=SHORT) == "answer"
    return "the answer is complete; anything later is lost"


@case("max_retries")
async def failures() -> str:
    async with ChatServer(error_reply(503, headers={"retry-after": "0.01"})) as server:
        assert await asked(server, max_retries=2) == "InternalServerError"
    assert len(server.requests) == 3
    return "the last error"


@case("max_rounds")
async def endless_rounds() -> str:
    @function_tool
    async def f() -> str:
        """Does nothing."""
        await checkpoint()
        return "done"

    async with ChatServer(tool_call_reply([("f", "{}")])) as server:
        try:
            async with open_conversation(
                **REQUEST, base_url=server.url, tools=[f], max_rounds=3
            ) as conversation:
                await conversation.until_done()
        except WriterError as exc:
            assert len(server.requests) == 3
            return type(exc).__name__
    return "answer"


@case("send a long status line, or many headers")
async def long_head() -> str:
    head = b"HTTP/1.1 200 OK\r\n" + b"x: %b\r\n" % (b"a" * 1000) * 110
    async with ChatServer(Reply(body=[Raw(head), Stall()], framing="none")) as server:
        return await asked(server, max_retries=0)


@case("compress the answer")
async def compressed() -> str:
    once = zlib.compress(WHOLE)
    twice = Reply(body=zlib.compress(once), headers={"content-encoding": "deflate, deflate"})
    zstd = Reply(body=once, headers={"content-encoding": "zstd"})
    fine = Reply(body=once, headers={"content-encoding": "deflate"})
    async with ChatServer(fine, twice, zstd) as server:
        assert await asked(server) == "answer"
        happened = {await asked(server) for _ in range(2)}
    return happened.pop() if len(happened) == 1 else str(happened)


@case("ask for a long pause before the next try")
async def long_pause() -> str:
    async with ChatServer(error_reply(429, headers={"retry-after": "61"})) as server:
        assert await asked(server) == "RateLimitError"
    assert len(server.requests) == 1
    return "the error of that status is raised at once"


@case("redirect the request again and again")
async def redirects() -> str:
    async with ChatServer(Reply(status=307, headers={"location": "/again"})) as server:
        assert await asked(server) == "APIStatusError"
    assert len(server.requests) == 6
    return "the error of that status"


@case("send a long message in an error")
async def long_message() -> str:
    long = error_reply(400, {"error": {"message": "x" * 50_000}})
    event = b'data: {"error":{"message":"%b"}}\n\n' % (b"x" * 50_000)
    async with ChatServer(long, Reply(body=event)) as server:
        for _ in range(2):
            with pytest.raises(APIError) as caught:
                async with open_chat_stream(**REQUEST, base_url=server.url) as stream:
                    await stream.until_done()
            assert len(caught.value.message) <= 2000
            assert len(str(caught.value.body)) > 2000
    return "it is shortened"


@case("send a long request ID")
async def long_request_id() -> str:
    async with ChatServer(error_reply(400, headers={"x-request-id": "x" * 50_000})) as server:
        with pytest.raises(APIError) as caught:
            async with open_chat_stream(**REQUEST, base_url=server.url):
                pass
    assert caught.value.request_id == "x" * 199 + "…"
    assert len(str(caught.value)) < 500
    return "it is shortened"


@case("set cookies")
async def cookies() -> str:
    async with (
        ChatServer(text_reply("Hello", headers={"set-cookie": "a=b"})) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
    ):
        for _ in range(2):
            async with writer.chat.stream(**QUESTION) as stream:
                await stream.until_done()
    assert server.requests[1].header("cookie") is None
    return "none is kept or sent"


@case("send more than its response")
async def surplus() -> str:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(WHOLE + DONE)
    response = head + WHOLE + DONE
    first = Reply(body=[Raw(response + response.replace(b'"a"', b'"z"')), Stall()], framing="none")
    async with (
        ChatServer(first, text_reply("Hello")) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
    ):
        said: list[str | None] = []
        for _ in range(2):
            async with writer.chat.stream(**QUESTION) as stream:
                said.append(await stream.get_final_text())
    assert said == ["a", "Hello"]
    assert len(server.connections) == 2
    return "the connection is not used again"
