"""examples/resumable: two servers, one Redis, one model that the test plays."""

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import httpx
import pytest

from tests.asgi.conftest import PATIENCE, App, running
from tests.relay.redis.redis_server import PROGRAM, RedisServer

APP: Final = "examples.resumable.app:app"


def server_arguments(kind: str, port: int = 0) -> list[str]:
    """On trio and on asyncio, so that each reads what the other has published."""
    if kind == "trio":
        return ["-m", "examples.resumable.serve", "--port", str(port)]
    return ["-m", "uvicorn", "--timeout-graceful-shutdown", "1", "--port", str(port), APP]


@contextlib.contextmanager
def running_redis(folder: Path) -> Generator[str]:
    """Redis on a free port, until the block ends; its URL."""
    if PROGRAM is None:
        pytest.skip("Debian's redis-server is not installed")
    server = RedisServer(folder)
    server.start()
    try:
        yield server.url
        assert server.keys_without_expiry() == []
    finally:
        server.kill()


@dataclass
class Service:
    """Where its servers get what they need."""

    folder: Path
    redis_url: str
    model_port: int

    def server(self, kind: str, port: int = 0) -> contextlib.AbstractContextManager[App]:
        return running(
            server_arguments(kind, port),
            self.folder,
            REDIS_URL=self.redis_url,
            WRITER_BASE_URL=f"http://127.0.0.1:{self.model_port}",
        )


@dataclass
class Message:
    """One server-sent event."""

    id: str
    name: str
    data: Any

    @property
    def number(self) -> int:
        return int(self.id.partition("-")[2])


class Reader:
    """A browser without windows."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.messages: list[Message] = []

    @property
    def text(self) -> str:
        return "".join(each.data for each in self.messages if each.name == "delta")

    async def message(self) -> Message | None:
        """The next one; None at the end."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            name, _, value = line.partition(": ")
            fields[name] = value
            if name == "data":
                message = Message(fields.get("id", ""), fields["event"], json.loads(value))
                self.messages.append(message)
                return self.messages[-1]
        return None

    async def until_text(self, text: str) -> None:
        while self.text != text:
            message = await self.message()
            assert message is not None
            assert message.name == "delta"

    async def end(self) -> tuple[str, Any]:
        """How it ends; nothing may follow that."""
        while message := await self.message():
            if message.name != "delta":
                assert await self.message() is None
                return message.name, message.data
        return "", None


async def post(app: App, path: str, content: str = "") -> httpx.Response:
    async with httpx.AsyncClient(base_url=app.url, trust_env=False) as client:
        return await client.post(path, content=content)


async def ask(app: App, topic: str = "Why?") -> str:
    """Begin an answer; its key."""
    response = await post(app, "/answers", topic)
    assert response.status_code == 201
    return str(response.json()["key"])


@contextlib.asynccontextmanager
async def reading(app: App, key: str, last: str = "") -> AsyncGenerator[Reader]:
    headers = {"last-event-id": last} if last else {}
    async with (
        httpx.AsyncClient(base_url=app.url, trust_env=False, timeout=PATIENCE) as client,
        client.stream("GET", f"/answers/{key}", headers=headers) as response,
    ):
        assert response.status_code == 200
        lines = response.aiter_lines()
        assert await anext(lines) == "retry: 500"
        try:
            yield Reader(lines)
        finally:
            # Resumed in a cancelled scope, all of httpx's generators unwind in order.
            with anyio.CancelScope() as scope:
                scope.cancel()
                async for _ in lines:
                    pass


async def kill(app: App) -> None:
    """As by the kernel when memory runs out."""
    app.process.kill()
    await anyio.to_thread.run_sync(app.process.wait, PATIENCE)
