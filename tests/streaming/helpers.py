"""Chunks, and bodies that can be stopped at any point."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx

STALL = object()
"""In a script: nothing more comes, and the body waits for ever."""


def chunk(
    text: str | None = None, finish: str | None = None, *, index: int = 0, **delta: Any
) -> bytes:
    """One server-sent event with one choice."""
    payload = {
        "id": f"chunk-{index}",
        "created": 1,
        "model": "m",
        "choices": [{"index": index, "delta": {"content": text, **delta}, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'
)
DONE = b"data: [DONE]\n\n"


class Body(httpx.AsyncByteStream):
    """Plays a script of bytes, events to wait for, exceptions to raise, and STALL."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.reads = 0
        self.closed = False
        self.close_hangs = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._play()

    async def _play(self) -> AsyncIterator[bytes]:
        for item in self.script:
            self.reads += 1
            if isinstance(item, anyio.Event):
                await item.wait()
            elif item is STALL:
                await anyio.sleep_forever()
            elif isinstance(item, BaseException):
                raise item
            else:
                await anyio.lowlevel.checkpoint()
                yield item

    async def aclose(self) -> None:
        if self.close_hangs:
            await anyio.sleep_forever()
        self.closed = True


def client_for(*bodies: Body | httpx.Response) -> httpx.AsyncClient:
    """A client whose requests are answered by these bodies, in order, the last one again."""
    queue = list(bodies)

    def answer(request: httpx.Request) -> httpx.Response:
        body = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(body, httpx.Response):
            return body
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=body)

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


QUESTION: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
REQUEST: dict[str, Any] = {"api_key": "key", **QUESTION}
