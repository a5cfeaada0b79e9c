"""The page in a browser: two windows of Chromium see one stream."""

from collections.abc import Generator
from pathlib import Path
from typing import Final

import anyio
import pytest

from anyio_writer.testing import ChatServer, Cut, Hold, chunks_reply, writer_chunks
from tests.asgi.browser import Windows, running_chrome
from tests.asgi.conftest import PATIENCE, App

TEXT: Final = "One <b>two</b> three four,\n\n  naïve 😀 & six."
OPENING, *WORDS, LAST = writer_chunks(TEXT)
BEGIN: Final = "One <b>two</b>"


@pytest.fixture
def windows(tmp_path: Path) -> Generator[Windows]:
    with running_chrome(tmp_path) as chrome:
        yield Windows(chrome)


async def test_two_windows_see_one_stream(
    windows: Windows, app: App, upstream: ChatServer, topic: str
) -> None:
    opened, going_on = anyio.Event(), anyio.Event()
    body = [OPENING, *WORDS[:3], Hold(going_on), *WORDS[3:], LAST]
    upstream.add(chunks_reply(body, headers_hold=opened))
    first = await windows.open(app.url)
    await windows.wait_for(first, "idle", "")
    await windows.ask(first, topic)
    with anyio.fail_after(PATIENCE):
        await upstream.wait_request()
    assert await windows.wait_for(first, "connecting", "") == "Waiting for the answer…"
    opened.set()
    assert await windows.wait_for(first, "streaming", BEGIN) == "Streaming…"
    second = await windows.open(f"{app.url}/?topic={topic}")
    await windows.wait_for(second, "streaming", BEGIN)
    going_on.set()
    for window in (first, second):
        assert await windows.wait_for(window, "done", TEXT) == "Done."
    assert len(upstream.requests) == 1


async def test_closing_all_windows_closes_the_stream(
    windows: Windows, app: App, upstream: ChatServer, topic: str
) -> None:
    going_on, never = anyio.Event(), anyio.Event()
    upstream.add(chunks_reply([OPENING, *WORDS[:3], Hold(going_on), *WORDS[3:], Hold(never), LAST]))
    first = await windows.open(f"{app.url}/?topic={topic}")
    await windows.wait_for(first, "streaming", BEGIN)
    second = await windows.open(f"{app.url}/?topic={topic}")
    await windows.wait_for(second, "streaming", BEGIN)
    await windows.close(first)
    going_on.set()
    await windows.wait_for(second, "streaming", TEXT)
    await windows.close(second)
    with anyio.fail_after(2):
        request = await upstream.wait_disconnect()
    assert not request.answered
    assert len(upstream.requests) == 1


async def test_closing_the_window_before_the_api_answers(
    windows: Windows, app: App, upstream: ChatServer, topic: str
) -> None:
    upstream.add(chunks_reply([OPENING], headers_hold=anyio.Event()))
    window = await windows.open(f"{app.url}/?topic={topic}")
    with anyio.fail_after(PATIENCE):
        await upstream.wait_request()
    await windows.close(window)
    with anyio.fail_after(2):
        await upstream.wait_disconnect()


async def test_an_error_is_shown(
    windows: Windows, app: App, upstream: ChatServer, topic: str
) -> None:
    upstream.add(chunks_reply([OPENING, *WORDS[:3], Cut()]))
    window = await windows.open(f"{app.url}/?topic={topic}")
    assert await windows.wait_for(window, "error", BEGIN) == "The answer broke off."
    refused = await windows.open(f"{app.url}/?topic=" + "x" * 201)
    assert await windows.wait_for(refused, "error", "") == "The server refused."
    assert len(upstream.requests) == 1
