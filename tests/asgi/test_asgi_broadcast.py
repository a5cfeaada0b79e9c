"""Many browsers, one stream from the API; whoever leaves, and whenever."""

import signal
import socket
from collections.abc import Awaitable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import httpx
import pytest

from anyio_writer.testing import (
    ChatServer,
    Cut,
    Hold,
    Reply,
    chunks_reply,
    error_frame,
    error_reply,
    text_reply,
    writer_chunks,
)
from examples.asgi import app as app_module
from examples.asgi.broadcast import Emit
from tests.asgi.conftest import (
    App,
    Listen,
    Listener,
    Start,
    complaints,
    listening,
    running,
)

TEXT: Final = "One two three four five, naïve 😀\n\ndata: six\r\nseven."
OPENING, *WORDS, LAST = writer_chunks(TEXT)
BEGIN: Final = "One two three"
STAGES: Final = ["before the headers", "before the first token", "in mid-stream"]

T = TypeVar("T")


async def soon(awaitable: Awaitable[T]) -> T:
    with anyio.fail_after(2):
        return await awaitable


def held(stage: str, gate: anyio.Event) -> Reply:
    """The whole answer, which waits at one stage."""
    if stage == "before the headers":
        return chunks_reply([OPENING, *WORDS, LAST], headers_hold=gate)
    if stage == "before the first token":
        return chunks_reply([OPENING, Hold(gate), *WORDS, LAST])
    return chunks_reply([OPENING, *WORDS[:3], Hold(gate), *WORDS[3:], LAST])


async def reach(stage: str, upstream: ChatServer, *listeners: Listener) -> None:
    """Until such a reply waits, and everybody has what there is."""
    await soon(upstream.wait_request())
    for listener in listeners:
        if stage != "before the headers":
            assert (await listener.event())[0] == "snapshot"
        if stage == "in mid-stream":
            await listener.until_text(BEGIN)


@pytest.mark.parametrize("stage", STAGES)
async def test_two_listeners_share_one_stream(
    upstream: ChatServer, listen: Listen, stage: str
) -> None:
    gate = anyio.Event()
    upstream.add(held(stage, gate))
    async with listen() as first, listen() as second:
        await reach(stage, upstream, first, second)
        gate.set()
        for listener in (first, second):
            assert await listener.end() == ("done", "stop")
            assert listener.text == TEXT
    assert len(upstream.requests) == 1


async def test_a_late_one_gets_the_text_so_far_and_then_the_rest(
    upstream: ChatServer, listen: Listen
) -> None:
    gate = anyio.Event()
    upstream.add(held("in mid-stream", gate))
    async with listen() as first:
        await reach("in mid-stream", upstream, first)
        async with listen() as late:
            assert await late.event() == ("snapshot", BEGIN)
            gate.set()
            for listener in (first, late):
                assert await listener.end() == ("done", "stop")
                assert listener.text == TEXT
    assert len(upstream.requests) == 1


async def test_other_topics_have_streams_of_their_own(
    app: App, upstream: ChatServer, topic: str
) -> None:
    gate = anyio.Event()
    upstream.add(held("in mid-stream", gate), text_reply("Another."))
    async with listening(app.url, topic) as first:
        await reach("in mid-stream", upstream, first)
        async with listening(app.url, f"not {topic}") as other:
            assert await other.end() == ("done", "stop")
            assert other.text == "Another."
        gate.set()
        assert await first.end() == ("done", "stop")
    asked = [request.json()["messages"][0]["content"] for request in upstream.requests]
    assert asked == [topic, f"not {topic}"]


async def test_who_comes_after_the_end_gets_a_new_stream(
    upstream: ChatServer, listen: Listen
) -> None:
    for _ in range(3):
        async with listen() as listener:
            assert await listener.end() == ("done", "stop")
            assert listener.text == "Hello world"
    assert len(upstream.requests) == 3
    assert len(upstream.connections) == 1  # an answer that was read to its end keeps it


@pytest.mark.parametrize("leaver", ["first", "second"])
@pytest.mark.parametrize("stage", STAGES)
async def test_one_who_leaves_does_not_disturb_the_other(
    upstream: ChatServer, listen: Listen, stage: str, leaver: str
) -> None:
    gate = anyio.Event()
    upstream.add(held(stage, gate))
    async with AsyncExitStack() as staying, AsyncExitStack() as leaving:
        stays, leaves = (staying, leaving) if leaver == "second" else (leaving, staying)
        first = await stays.enter_async_context(listen())
        second = await leaves.enter_async_context(listen())
        await reach(stage, upstream, first, second)
        await leaving.aclose()
        other = first if leaver == "second" else second
        gate.set()
        assert await other.end() == ("done", "stop")
        assert other.text == TEXT
    assert len(upstream.requests) == 1
    assert upstream.requests[0].answered


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("stage", STAGES)
async def test_the_last_one_who_leaves_closes_the_stream(
    upstream: ChatServer, listen: Listen, stage: str, count: int
) -> None:
    never = anyio.Event()
    upstream.add(held(stage, never), text_reply("Afresh."))
    async with AsyncExitStack() as stack:
        listeners = [await stack.enter_async_context(listen()) for _ in range(count)]
        await reach(stage, upstream, *listeners)
    request = await soon(upstream.wait_disconnect())
    assert request.peer_left is not None
    assert not request.answered
    async with listen() as again:
        assert await again.end() == ("done", "stop")
        assert again.text == "Afresh."


async def test_who_comes_while_the_last_one_leaves_gets_the_answer(
    upstream: ChatServer, listen: Listen
) -> None:
    """From the same stream or from a new one, but never from one that was just cancelled."""
    never = anyio.Event()
    upstream.add(*[held("in mid-stream", never)] * 20)
    leaving = AsyncExitStack()
    async with leaving:
        await leaving.enter_async_context(listen())
        for _ in range(10):
            async with AsyncExitStack() as coming, anyio.create_task_group() as tasks:
                tasks.start_soon(leaving.pop_all().aclose)
                listener = await coming.enter_async_context(listen())
                await listener.until_text(BEGIN)
                leaving.push_async_exit(coming.pop_all())


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (error_reply(401), "The model cannot answer now."),
        (
            error_reply(429, headers={"x-should-retry": "false"}),
            "The model is busy. Please try again in a minute.",
        ),
        (error_reply(200, "Sorry!\nWe are\nclosed."), "The model cannot answer now."),
        (chunks_reply([OPENING, *WORDS[:3], Cut()]), "The answer broke off."),
        (chunks_reply([OPENING, *WORDS[:3], error_frame("writer")]), "The answer broke off."),
    ],
    ids=["401", "429", "no event stream", "cut", "error frame"],
)
async def test_an_error_is_told_to_all(
    upstream: ChatServer, listen: Listen, reply: Reply, line: str
) -> None:
    gate = anyio.Event()
    upstream.add(replace(reply, headers_hold=gate), text_reply())
    async with listen() as first, listen() as second:
        gate.set()
        for listener in (first, second):
            assert await listener.end() == ("error", line)
            assert BEGIN.startswith(listener.text)
    assert len(upstream.requests) == 1
    async with listen() as again:
        assert await again.end() == ("done", "stop")


async def test_a_slow_browser_holds_up_nobody_and_catches_up(
    upstream: ChatServer, listen: Listen
) -> None:
    """It reads nothing until the whole answer, more than sockets hold, has gone by."""
    opening, word, last = writer_chunks("x" * 16_000, token_pattern=".+")
    gate = anyio.Event()
    upstream.add(chunks_reply([opening, Hold(gate), *[word] * 1000, last]))
    small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)]
    async with listen() as fast, listen(socket_options=small) as slow:
        gate.set()
        assert await fast.end() == ("done", "stop")
        assert upstream.requests[0].answered
        names = [name async for name in slow.names()]
    assert names[0] == "snapshot"
    assert names[-1] == "done"
    assert names.count("snapshot") == 2
    assert names.count("delta") < 1000
    assert slow.text == fast.text
    assert len(fast.text) == 16_000_000


# The program.


@pytest.mark.parametrize("stage", STAGES)
async def test_stopping_the_app_leaves_nothing(start: Start, topic: str, stage: str) -> None:
    never = anyio.Event()
    with start() as app:
        async with (
            ChatServer(held(stage, never), port=app.upstream_port) as upstream,
            listening(app.url, topic) as first,
            listening(app.url, topic) as second,
        ):
            await reach(stage, upstream, first, second)
            await app.stop()
            await soon(upstream.wait_disconnect())
            for listener in (first, second):
                with suppress(httpx.RemoteProtocolError):  # or the end in good order
                    await listener.until("done")
    assert app.process.returncode in {0, -signal.SIGTERM}
    assert not complaints("".join(app.log))


async def test_what_is_no_topic_is_refused(app: App, upstream: ChatServer) -> None:
    async with httpx.AsyncClient(base_url=app.url, trust_env=False) as client:
        for query in ("", "?topic=", "?topic=%20", "?topic=" + "x" * 201):
            assert (await client.get(f"/events{query}")).status_code == 400
    assert upstream.requests == []


async def test_the_demonstration(tmp_path: Path) -> None:
    with running(["-m", "examples.asgi.serve", "--demo", "--port", "0"], tmp_path) as app:
        async with (
            httpx.AsyncClient(base_url=app.url, trust_env=False) as client,
            listening(app.url, "x") as listener,
        ):
            assert "EventSource" in (await client.get("/")).text
            await listener.until_text("Every window")
        await app.stop()
    assert app.process.returncode == 0
    assert not complaints("".join(app.log))


async def test_a_quiet_stream_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "PING_SECONDS", 0.001)
    sent: list[Any] = []
    pinged, left = anyio.Event(), anyio.Event()

    async def receive() -> dict[str, str]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("body") == b": ping\n\n":
            pinged.set()

    async def source(emit: Emit) -> None:
        await emit(b": hello\n\n")
        await pinged.wait()
        left.set()
        await anyio.sleep_forever()

    await soon(app_module.EventStream(source)({}, receive, send))
    assert [message["type"] for message in sent[:2]] == [
        "http.response.start",
        "http.response.body",
    ]
