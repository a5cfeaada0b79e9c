"""Headless Chromium, as the test's event loop sees it."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio.to_thread
import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.asgi.conftest import PATIENCE

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


@contextmanager
def running_chrome(folder: Path) -> Generator[Chrome]:
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("There is no Chromium: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    chrome = Chrome(options, ChromeService(driver))  # with both paths it downloads nothing
    try:
        yield chrome
    finally:
        chrome.quit()


class Windows:
    """A browser's windows, each with a page that has a state, a status line and an answer."""

    def __init__(self, chrome: Chrome) -> None:
        self._chrome = chrome

    async def open(self, url: str) -> str:
        """Open a page in a window of its own."""

        def act() -> str:
            self._chrome.switch_to.new_window("window")
            self._chrome.get(url)
            return self._chrome.current_window_handle

        return await anyio.to_thread.run_sync(act)

    async def reload(self, window: str) -> None:
        def act() -> None:
            self._chrome.switch_to.window(window)
            self._chrome.refresh()

        await anyio.to_thread.run_sync(act)

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

    async def click(self, window: str, selector: str) -> None:
        def act() -> None:
            self._chrome.switch_to.window(window)
            self._chrome.find_element(By.CSS_SELECTOR, selector).click()

        await anyio.to_thread.run_sync(act)

    async def url(self, window: str) -> str:
        def act() -> str:
            self._chrome.switch_to.window(window)
            return self._chrome.current_url

        return await anyio.to_thread.run_sync(act)

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
