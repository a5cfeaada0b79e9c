"""The page in a browser: two windows of Chromium see one stream."""

import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from anyio_writer.testing import ChatServer, Cut, Hold, chunks_reply, writer_chunks
from tests.asgi.conftest import PATIENCE, App

TEXT: Final = "One <b>two</b> three four,\n\n  naïve 😀 & six."
OPENING, *WORDS, LAST = writer_chunks(TEXT)
BEGIN: Final = "One <b>two</b>"
FLAGS: Final = [
    "--headless",
    "--no-sandbox",  # for root
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def chrome(tmp_path: Path) -> Generator[Chrome]:
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("There is no Chromium: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    chrome = Chrome(options, ChromeService(driver))  # with both paths it downloads nothing
    yield chrome
    chrome.quit()


class Windows:
    """A browser as the test's event loop sees it."""

    def __init__(self, chrome: Chrome, url: str) -> None:
        self._chrome = chrome
        self._url = url

    async def open(self, query: str = "") -> str:
        """Open the page in a window of its own."""

        def act() -> str:
            self._chrome.switch_to.new_window("window")
            self._chrome.get(f"{self._url}/{query}")
            return self._chrome.current_window_handle

        return await anyio.to_thread.run_sync(act)

    async def close(self, window: str) -> None:
        def act() -> None:
            self._chrome.switch_to.window(window)
            self._chrome.close()

        await anyio.to_thread.run_sync(act)

    async def ask(self, window: str, topic: str) -> None:
        def act() -> None:
            self._chrome.switch_to.window(window)
            field = self._chrome.find_element(By.CSS_SELECTOR, "input")
            field.clear()
            field.send_keys(topic)
            self._chrome.find_element(By.CSS_SELECTOR, "button").click()

        await anyio.to_thread.run_sync(act)

    async def wait_for(self, window: str, state: str, text: str) -> str:
        """Wait until the page is in this state and shows this text; return its status line."""

        def get() -> tuple[str, str, str]:
            found = self._chrome.execute_script(
                "return [document.body.dataset.state,"
                " document.querySelector('#answer').textContent,"
                " document.querySelector('#status').textContent]"
            )
            return tuple(found)

        def act() -> str:
            self._chrome.switch_to.window(window)
            WebDriverWait(self._chrome, PATIENCE / 3, poll_frequency=0.02).until(
                lambda _: get()[:2] == (state, text), f"{get()}, not {(state, text)}"
            )
            return get()[2]

        return await anyio.to_thread.run_sync(act)


@pytest.fixture
def windows(chrome: Chrome, app: App) -> Windows:
    return Windows(chrome, app.url)


async def test_two_windows_see_one_stream(
    windows: Windows, upstream: ChatServer, topic: str
) -> None:
    opened, going_on = anyio.Event(), anyio.Event()
    body = [OPENING, *WORDS[:3], Hold(going_on), *WORDS[3:], LAST]
    upstream.add(chunks_reply(body, headers_hold=opened))
    first = await windows.open()
    await windows.wait_for(first, "idle", "")
    await windows.ask(first, topic)
    with anyio.fail_after(PATIENCE):
        await upstream.wait_request()
    assert await windows.wait_for(first, "connecting", "") == "Waiting for the answer…"
    opened.set()
    assert await windows.wait_for(first, "streaming", BEGIN) == "Streaming…"
    second = await windows.open(f"?topic={topic}")
    await windows.wait_for(second, "streaming", BEGIN)
    going_on.set()
    for window in (first, second):
        assert await windows.wait_for(window, "done", TEXT) == "Done."
    assert len(upstream.requests) == 1


async def test_closing_all_windows_closes_the_stream(
    windows: Windows, upstream: ChatServer, topic: str
) -> None:
    going_on, never = anyio.Event(), anyio.Event()
    upstream.add(chunks_reply([OPENING, *WORDS[:3], Hold(going_on), *WORDS[3:], Hold(never), LAST]))
    first = await windows.open(f"?topic={topic}")
    await windows.wait_for(first, "streaming", BEGIN)
    second = await windows.open(f"?topic={topic}")
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
    windows: Windows, upstream: ChatServer, topic: str
) -> None:
    upstream.add(chunks_reply([OPENING], headers_hold=anyio.Event()))
    window = await windows.open(f"?topic={topic}")
    with anyio.fail_after(PATIENCE):
        await upstream.wait_request()
    await windows.close(window)
    with anyio.fail_after(2):
        await upstream.wait_disconnect()


async def test_an_error_is_shown(windows: Windows, upstream: ChatServer, topic: str) -> None:
    upstream.add(chunks_reply([OPENING, *WORDS[:3], Cut()]))
    window = await windows.open(f"?topic={topic}")
    assert await windows.wait_for(window, "error", BEGIN) == "The answer broke off."
    refused = await windows.open("?topic=" + "x" * 201)
    assert await windows.wait_for(refused, "error", "") == "The server refused."
    assert len(upstream.requests) == 1
