"""An answer outlives its browser, its connection and its server."""

import re
import signal
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import anyio
import pytest

from anyio_writer import chat_stream_from
from anyio_writer.relay import MemoryRelay, Relay
from anyio_writer.testing import (
    ChatServer,
    Cut,
    Hold,
    Reply,
    chunks_reply,
    error_reply,
    sse_event,
    text_reply,
    writer_chunks,
)
from examples.resumable import app as app_module
from tests.asgi.conftest import PATIENCE, App, complaints, free_port, running
from tests.asgi.resumable_helpers import (
    Service,
    ask,
    kill,
    post,
    reading,
    running_redis,
)
from tests.relay.redis.redis_server import PROGRAM

TEXT: Final = "One two three four five, naïve 😀\n\ndata: six\r\nseven."
OPENING, *WORDS, LAST = writer_chunks(TEXT)
BEGIN: Final = "One two three"
LOST: Final = ("failed", "The server that was asking the model is gone.")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with running_redis(folder) as url:
        yield Service(folder, url, free_port())


@pytest.fixture(scope="module")
def servers(service: Service) -> Iterator[list[App]]:
    with service.server("trio") as one, service.server("asyncio") as other:
        yield [one, other]


@pytest.fixture
def quiet(servers: list[App]) -> Iterator[list[App]]:
    """The servers, which many tests share; what they complain of fails the test."""
    begins = [len(each.log) for each in servers]
    yield servers
    logs = ["".join(each.log[begin:]) for each, begin in zip(servers, begins, strict=True)]
    print(*logs)
    assert not any(map(complaints, logs))


@pytest.fixture(params=["trio", "asyncio"])
def pair(quiet: list[App], request: pytest.FixtureRequest) -> tuple[App, App]:
    """The server that is asked, and the other one."""
    one, other = quiet if request.param == "trio" else quiet[::-1]
    return one, other


@pytest.fixture
async def model(service: Service) -> AsyncGenerator[ChatServer]:
    async with ChatServer(port=service.model_port) as server:
        yield server


def held(gate: anyio.Event) -> Reply:
    """The whole answer, which waits in the middle."""
    return chunks_reply([OPENING, *WORDS[:3], Hold(gate), *WORDS[3:], LAST])


async def test_every_server_shows_it_live_and_afterwards(
    pair: tuple[App, App], model: ChatServer
) -> None:
    gate = anyio.Event()
    model.add(held(gate))
    key = await ask(pair[0])
    with anyio.fail_after(PATIENCE):
        async with reading(pair[0], key) as first, reading(pair[1], key) as second:
            for reader in (first, second):
                await reader.until_text(BEGIN)
            gate.set()
            for reader in (first, second):
                assert await reader.end() == ("done", "stop")
                assert reader.text == TEXT
        async with reading(pair[1], key) as late:
            assert await late.end() == ("done", "stop")
            assert late.messages == first.messages == second.messages
    assert len(model.requests) == 1


async def test_a_browser_goes_on_elsewhere_after_each_event(
    pair: tuple[App, App], model: ChatServer
) -> None:
    gate = anyio.Event()
    model.add(held(gate))
    key = await ask(pair[0])
    last, number, text, turn = "", 0, "", 0
    with anyio.fail_after(PATIENCE):
        while True:
            async with reading(pair[turn % 2], key, last) as reader:
                message = await reader.message()
            assert message is not None
            if message.name != "delta":
                break
            assert message.number > number
            last, number = message.id, message.number
            turn, text = turn + 1, text + message.data
            if text == BEGIN:
                gate.set()
    assert (message.name, message.data) == ("done", "stop")
    assert turn == len(WORDS)
    assert text == TEXT
    assert len(model.requests) == 1


async def test_the_answer_goes_on_when_nobody_reads(
    pair: tuple[App, App], model: ChatServer
) -> None:
    gate = anyio.Event()
    model.add(held(gate))
    key = await ask(pair[0])
    with anyio.fail_after(PATIENCE):
        async with reading(pair[0], key) as reader:
            await reader.until_text(BEGIN)
        gate.set()
        async with reading(pair[1], key) as reader:
            assert await reader.end() == ("done", "stop")
    assert model.requests[0].answered


async def test_anybody_stops_it_at_any_server(pair: tuple[App, App], model: ChatServer) -> None:
    model.add(held(anyio.Event()))
    key = await ask(pair[0])
    with anyio.fail_after(PATIENCE):
        async with reading(pair[0], key) as first, reading(pair[1], key) as second:
            await first.until_text(BEGIN)
            assert (await post(pair[1], f"/answers/{key}/stop")).status_code == 202
            with anyio.fail_after(3):
                for reader in (first, second):
                    assert await reader.end() == ("stopped", "Stopped.")
                await model.wait_disconnect()
        assert first.text == second.text == BEGIN
        assert (await post(pair[0], f"/answers/{key}/stop")).status_code == 409
    assert not model.requests[0].answered


@pytest.mark.parametrize("kind", ["trio", "asyncio"])
async def test_readers_hear_that_a_server_was_killed(
    service: Service, servers: list[App], model: ChatServer, kind: str
) -> None:
    model.add(held(anyio.Event()), text_reply("Again."))
    with service.server(kind) as app:
        key = await ask(app)
        async with reading(servers[0], key) as first, reading(servers[1], key) as second:
            for reader in (first, second):
                await reader.until_text(BEGIN)
            await kill(app)
            with anyio.fail_after(app_module.LEASE + 2):
                for reader in (first, second):
                    assert await reader.end() == LOST
                    assert reader.text == BEGIN
    async with reading(servers[0], key) as late:
        assert await late.end() == LOST
        assert late.text == BEGIN
    async with reading(servers[1], await ask(servers[0])) as again:
        assert await again.end() == ("done", "stop")
        assert again.text == "Again."


@pytest.mark.parametrize("kind", ["trio", "asyncio"])
async def test_readers_hear_that_a_server_is_restarted(
    service: Service, servers: list[App], model: ChatServer, kind: str
) -> None:
    """Its own readers have the word, too, or their connection breaks."""
    model.add(held(anyio.Event()))
    with service.server(kind) as app:
        key = await ask(app)
        async with reading(servers[0], key) as reader:
            await reader.until_text(BEGIN)
            await app.stop()
            with anyio.fail_after(PATIENCE):
                assert await reader.end() == ("stopped", "The service is restarting.")
                await model.wait_disconnect()
    assert app.process.returncode in {0, -signal.SIGTERM}
    assert not complaints("".join(app.log))


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (error_reply(401), "The model cannot answer now."),
        (
            error_reply(429, headers={"x-should-retry": "false"}),
            "The model is busy. Please try again in a minute.",
        ),
        (chunks_reply([OPENING, *WORDS[:3], Cut()]), "The answer broke off."),
    ],
    ids=["401", "429", "cut"],
)
async def test_an_error_of_the_model_is_told_at_every_server(
    quiet: list[App], model: ChatServer, reply: Reply, line: str
) -> None:
    model.add(reply)
    key = await ask(quiet[0])
    with anyio.fail_after(PATIENCE):
        for app in quiet:
            async with reading(app, key) as reader:
                assert await reader.end() == ("failed", line)
                assert BEGIN.startswith(reader.text)
    assert len(model.requests) == 1


async def test_what_is_not_there(quiet: list[App], model: ChatServer) -> None:
    for topic in ("", " ", "x" * 201):
        assert (await post(quiet[0], "/answers", topic)).status_code == 400
    assert (await post(quiet[0], "/answers/unknown/stop")).status_code == 409
    for last in ("", "12", "1-12", "0-1", "1-x"):
        async with reading(quiet[0], "unknown", last) as reader:
            assert await reader.end() == ("failed", "This answer is no longer kept.")
    assert model.requests == []


async def sent(relay: Relay, last: str) -> list[bytes]:
    """What the application sends to a browser that has the ``last`` event."""
    messages: list[bytes] = []

    async def emit(data: bytes, *, more: bool = True) -> None:
        messages.append(data)

    await app_module.send(relay, "key", last, emit)
    assert messages[0] == b"retry: 500\n\n"
    return messages[1:]


async def test_without_redis_the_browser_is_left_to_connect_again() -> None:
    closed = MemoryRelay()
    async with closed:
        pass
    assert await sent(closed, "1-3") == []


async def body_of(text: str) -> AsyncGenerator[bytes]:
    for each in writer_chunks(text):
        yield sse_event(each)


async def test_a_browser_does_not_go_on_in_another_answer() -> None:
    """As when the answer was lost, and somebody has asked for it anew under its key."""
    async with MemoryRelay() as relay:
        for text in ("Yes, of course.", "No, by no means."):
            await relay.expire("key")
            async with chat_stream_from(body_of(text)) as stream:
                await relay.publish("key", stream)
            if text.startswith("Yes"):
                first = (await relay.status("key")).generation
        second = (await relay.status("key")).generation
        (lost,) = await sent(relay, f"{first}-4")
        assert b"event: failed" in lost
        assert b"id:" not in lost
        rest = b"".join(await sent(relay, f"{second}-4"))
        assert b"event: done" in rest
        assert b'data: "No' not in rest
        assert b'data: "No' in b"".join(await sent(relay, ""))


async def test_the_demonstration(tmp_path: Path) -> None:
    if PROGRAM is None:
        pytest.skip("Debian's redis-server is not installed")
    arguments = ["-m", "examples.resumable.serve", "--demo", "--port", "0"]
    with running(arguments, tmp_path) as app, anyio.fail_after(PATIENCE):
        found: set[str] = set()
        while len(found) < 2:
            await anyio.sleep(0.02)
            found = {*re.findall(r"Running on (http://[\d.:]+)", "".join(app.log))}
        one, other = (replace(app, url=url) for url in found)
        async with reading(other, await ask(one)) as reader:
            await reader.until_text("One server asks")
        await app.stop()
    assert app.process.returncode == 0
    assert not complaints("".join(app.log))
