"""examples/asgi under the servers that it names, each a process of its own.

The API behind it is played by the test, at ``App.upstream_port``.
"""

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio
import anyio.to_thread
import httpx
import pytest

from anyio_writer.testing import ChatServer

ROOT: Final = Path(__file__).parent.parent.parent
APP: Final = "examples.asgi.app:app"
HYPERCORN: Final = ["-m", "hypercorn", "--graceful-timeout", "1", "--bind", "127.0.0.1:0"]
SERVERS: Final = {
    "hypercorn-trio": [*HYPERCORN, "--worker-class", "trio", APP],
    "hypercorn-asyncio": [*HYPERCORN, APP],
    "uvicorn": ["-m", "uvicorn", "--timeout-graceful-shutdown", "1", "--port", "0", APP],
}
PATIENCE: Final = 30  # seconds, for what takes none: starting, stopping, an answer


@dataclass(kw_only=True)
class App:
    """The running program.

    Attributes:
        url: Where it listens.
        upstream_port: Where it expects the API.
        log: The lines it has printed.
    """

    url: str = ""
    upstream_port: int
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)

    async def stop(self) -> None:
        """Stop it as a service manager does."""
        self.process.terminate()
        await anyio.to_thread.run_sync(self.process.wait, PATIENCE)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(arguments: list[str], folder: Path, **environment: str) -> Generator[App]:
    """A Python program that says where it listens, until the block ends."""
    upstream_port = free_port()
    env = {  # nothing of our own, which may hold keys and proxies
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "always::ResourceWarning",  # what is left open shows in the log
        "WRITER_API_KEY": "key",
        "WRITER_BASE_URL": f"http://127.0.0.1:{upstream_port}",
        **environment,
    }
    ready = threading.Event()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            app.log.append(line)
            if found := re.search(r"[Rr]unning on (http://[\d.:]+)", line):
                app.url = found[1]
                ready.set()
        ready.set()  # it has ended

    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # Hypercorn has worker processes
    ) as process:
        app = App(upstream_port=upstream_port, process=process)
        reader = threading.Thread(target=listen)
        reader.start()
        try:
            ready.wait(PATIENCE)
            assert app.url, f"it did not start:\n{''.join(app.log)}"
            yield app
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                with contextlib.suppress(ProcessLookupError):  # as it should be
                    os.killpg(process.pid, signal.SIGKILL)
                reader.join()


Start: TypeAlias = Callable[[], AbstractContextManager[App]]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The test's own side; the app's event loop is the server's."""
    return "asyncio"


@pytest.fixture(scope="session", params=SERVERS)
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Start the app under one of the servers."""
    return lambda: running(SERVERS[request.param], tmp_path_factory.mktemp("app"))


@pytest.fixture(scope="session")
def running_app(start: Start) -> Iterator[App]:
    with start() as app:
        yield app


@pytest.fixture
def app(running_app: App) -> Iterator[App]:
    """The app, which many tests share; what it complains of fails the test."""
    begin = len(running_app.log)
    yield running_app
    log = "".join(running_app.log[begin:])
    print(log)
    assert not complaints(log)


@pytest.fixture
async def upstream(app: App) -> AsyncGenerator[ChatServer]:
    async with ChatServer(port=app.upstream_port) as server:
        yield server


def complaints(log: str) -> set[str]:
    """What a program's log says of errors, but for the servers' own words on this:

    a response that is still being sent when they stop is cancelled, and asyncio's are said to
    have failed.
    """
    errors = re.findall(r"^(?:  [|+ ]*)?([\w.]+(?:Error|Exception|Group))\b", log, re.MULTILINE)
    others = re.findall(r"\w+Warning: .*|.*never (?:awaited|retrieved).*", log)
    return {*errors, *others} - {"asyncio.exceptions.CancelledError"}


numbers = itertools.count(1)


@pytest.fixture
def topic() -> str:
    return f"topic {next(numbers)}"


class Listener:
    """A browser without windows: takes one event at a time."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.text = ""

    async def event(self) -> tuple[str, Any]:
        """The next event's name and data."""
        name = ""
        async for line in self._lines:
            head, _, value = line.partition(": ")
            if head == "event":
                name = value
            elif head == "data":
                data = json.loads(value)
                if name == "snapshot":
                    self.text = data
                elif name == "delta":
                    self.text += data["delta"]
                return name, data
        return "", None

    async def until(self, *expected: str) -> tuple[str, Any]:
        """The next event of such a name."""
        while True:
            event = await self.event()
            if event[0] in {*expected, ""}:
                return event

    async def until_text(self, text: str) -> None:
        while self.text != text:
            assert (await self.event())[0] in {"snapshot", "delta"}

    async def names(self) -> AsyncGenerator[str]:
        """The names of all that comes."""
        while name := (await self.event())[0]:
            yield name

    async def end(self) -> tuple[str, Any]:
        """How the stream ends; nothing may follow that."""
        last = await self.until("done", "error")
        assert await self.event() == ("", None)
        return last


Listen: TypeAlias = Callable[..., AbstractAsyncContextManager[Listener]]


@contextlib.asynccontextmanager
async def listening(url: str, topic: str, **transport: Any) -> AsyncGenerator[Listener]:
    async with (
        httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(**transport), timeout=PATIENCE
        ) as client,
        client.stream("GET", f"{url}/events", params={"topic": topic}) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.aiter_lines()
        assert await anext(lines) == ": joined"
        try:
            yield Listener(lines)
        finally:
            # Resumed in a cancelled scope, all of httpx's generators unwind in order.
            with anyio.CancelScope() as scope:
                scope.cancel()
                async for _ in lines:
                    pass


@pytest.fixture
def listen(app: App, topic: str) -> Listen:
    """Ask about the test's own topic; returns with the listener counted."""
    return lambda **transport: listening(app.url, topic, **transport)
