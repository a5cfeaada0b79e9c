"""The page in a browser: load it again, watch it elsewhere, stop it, and kill what serves it."""

from collections.abc import AsyncGenerator, Iterator
from typing import Final

import anyio
import pytest

from anyio_writer.testing import (
    ChatServer,
    Cut,
    Hold,
    Reply,
    chunks_reply,
    text_reply,
    writer_chunks,
)
from examples.resumable.app import LEASE
from tests.asgi.browser import Windows, running_chrome
from tests.asgi.conftest import App, complaints, free_port
from tests.asgi.resumable_helpers import Service, kill, running_redis

TEXT: Final = "One <b>two</b> three four,\n\n  naïve 😀 & six."
OPENING, *WORDS, LAST = writer_chunks(TEXT)
BEGIN: Final = "One <b>two</b>"
REST: Final = "This is what had arrived. You can ask again."


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with running_redis(folder) as url:
        yield Service(folder, url, free_port())


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Windows]:
    with running_chrome(tmp_path_factory.mktemp("chrome")) as chrome:
        yield Windows(chrome)


@pytest.fixture
def one(service: Service) -> Iterator[App]:
    with service.server("trio") as app:
        yield app
    assert not complaints("".join(app.log))


@pytest.fixture
def other(service: Service) -> Iterator[App]:
    with service.server("asyncio") as app:
        yield app
    assert not complaints("".join(app.log))


@pytest.fixture
async def model(service: Service) -> AsyncGenerator[ChatServer]:
    async with ChatServer(port=service.model_port) as server:
        yield server


def held(gate: anyio.Event) -> Reply:
    return chunks_reply([OPENING, *WORDS[:3], Hold(gate), *WORDS[3:], LAST])


async def asked(windows: Windows, app: App) -> str:
    """A window that shows the first half of an answer."""
    window = await windows.open(app.url)
    assert await windows.wait_for(window, "idle", "")
    await windows.ask(window, "Why?")
    assert await windows.wait_for(window, "streaming", BEGIN) == "Streaming…"
    return window


async def elsewhere(windows: Windows, window: str, app: App) -> str:
    """The same address at another server, in another window."""
    _, _, query = (await windows.url(window)).partition("?")
    return await windows.open(f"{app.url}/?{query}")


async def test_a_page_that_is_loaded_again_and_a_second_one(
    windows: Windows, one: App, other: App, model: ChatServer
) -> None:
    gate = anyio.Event()
    model.add(held(gate))
    first = await asked(windows, one)
    await windows.reload(first)
    await windows.wait_for(first, "streaming", BEGIN)
    second = await elsewhere(windows, first, other)
    await windows.wait_for(second, "streaming", BEGIN)
    gate.set()
    for window in (first, second):
        assert await windows.wait_for(window, "done", TEXT) == "Done."
    await windows.reload(second)
    assert await windows.wait_for(second, "done", TEXT) == "Done."
    assert len(model.requests) == 1


async def test_anybody_stops_it(windows: Windows, one: App, other: App, model: ChatServer) -> None:
    model.add(held(anyio.Event()))
    first = await asked(windows, one)
    second = await elsewhere(windows, first, other)
    await windows.wait_for(second, "streaming", BEGIN)
    await windows.click(second, "#stop")
    for window in (first, second):
        assert await windows.wait_for(window, "stopped", BEGIN) == "Stopped."
    with anyio.fail_after(2):
        await model.wait_disconnect()


async def test_the_server_that_asks_is_killed(
    windows: Windows, service: Service, other: App, model: ChatServer
) -> None:
    """Both pages say so: the one at the other server, and its own when there is one again."""
    model.add(held(anyio.Event()), text_reply("Again."))
    port = free_port()
    with service.server("trio", port) as killed:
        first = await asked(windows, killed)
        second = await elsewhere(windows, first, other)
        await windows.wait_for(second, "streaming", BEGIN)
        await kill(killed)
    lost = f"The server that was asking the model is gone. {REST}"
    with anyio.fail_after(LEASE + 3):
        assert await windows.wait_for(second, "failed", BEGIN) == lost
    found = await windows.wait_for(first, "connecting", BEGIN)
    assert found == "The connection was lost. Connecting again…"
    with service.server("trio", port):
        assert await windows.wait_for(first, "failed", BEGIN) == lost
        for window in (first, second):
            await windows.ask(window, "Why?")
            assert await windows.wait_for(window, "done", "Again.") == "Done."


async def test_the_server_that_only_shows_it_is_killed(
    windows: Windows, service: Service, other: App, model: ChatServer
) -> None:
    """The browser connects again, and goes on exactly where it was."""
    gate = anyio.Event()
    model.add(held(gate))
    port = free_port()
    with service.server("trio", port) as killed:
        window = await asked(windows, other)
        watching = await elsewhere(windows, window, killed)
        await windows.wait_for(watching, "streaming", BEGIN)
        await kill(killed)
        gate.set()
        assert await windows.wait_for(window, "done", TEXT) == "Done."
        await windows.wait_for(watching, "connecting", BEGIN)
    with service.server("trio", port):
        assert await windows.wait_for(watching, "done", TEXT) == "Done."
    assert len(model.requests) == 1


async def test_what_goes_wrong_is_said(
    windows: Windows, one: App, other: App, model: ChatServer
) -> None:
    model.add(chunks_reply([OPENING, *WORDS[:3], Cut()]))
    window = await windows.open(one.url)
    await windows.ask(window, "Why?")
    said = await windows.wait_for(window, "failed", BEGIN)
    assert said == f"The answer broke off. {REST}"
    unknown = await windows.open(f"{other.url}/?answer=unknown")
    said = await windows.wait_for(unknown, "failed", "")
    assert said == "This answer is no longer kept. You can ask again."
    refused = await windows.open(other.url)
    await windows.ask(refused, " ")
    said = await windows.wait_for(refused, "failed", "")
    assert said == "A topic has 1 to 200 characters."
