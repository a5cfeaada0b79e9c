"""What the tests of opening a stream share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import anyio.lowlevel
import httpx

from anyio_writer import ChatCompletionStream, open_chat_stream
from anyio_writer.testing import ChatServer

KEY: Final = "sk-opening-0123456789"
HANGS: Final = 20  # seconds; a net under a hang, not an assertion
MESSAGES: Final = [{"role": "user", "content": "Hello"}]
WHOLE: Final = (
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}'
    b"\n\ndata: [DONE]\n\n"
)


def stream_to(server: ChatServer | str, **arguments: Any) -> ChatCompletionStream[None]:
    """A stream from a server, with a key and a question unless others are given."""
    url = server if isinstance(server, str) else server.url
    given = {"api_key": KEY, "base_url": url, "model": "m", "messages": MESSAGES} | arguments
    return open_chat_stream(**given)


def mock_client(
    answer: Callable[[httpx.Request], httpx.Response], **arguments: Any
) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(answer), **arguments)


class Sleeps:
    """Stands in for ``anyio.sleep``: does not wait, and writes down how long it was to wait."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await anyio.lowlevel.checkpoint()
