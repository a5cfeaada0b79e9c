"""Every way in which a stream ends, for whoever watches it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import httpx
import pytest

from anyio_writer import ChatCompletionStream, Timeouts, WriterError
from tests.streaming.helpers import DONE, STALL, USAGE, Body, chunk

OPEN: Final = chunk("", role="assistant")
WHOLE: Final = (OPEN, chunk("Hel"), chunk("lo"), chunk(None, "stop"), USAGE, DONE)
ERROR: Final = b'data: {"error":{"message":"secret words","type":"server_error"}}\n\n'
BUSY: Final = httpx.Response(503, headers={"retry-after-ms": "1"}, content=b"secret words")


async def read(stream: ChatCompletionStream[Any]) -> None:
    async with stream:
        async for _ in stream:
            pass


async def read_and_fail(stream: ChatCompletionStream[Any]) -> None:
    with pytest.raises(WriterError):
        await read(stream)


async def close(stream: ChatCompletionStream[Any]) -> None:
    async with stream:
        async for _ in stream:
            await stream.close()
            break


async def leave(stream: ChatCompletionStream[Any]) -> None:
    async with stream:
        async for _ in stream:
            break


async def fail_inside(stream: ChatCompletionStream[Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        async with stream:
            async for _ in stream:
                _ = 1 / 0


async def cancel(stream: ChatCompletionStream[Any]) -> None:
    with anyio.CancelScope() as scope:
        async with stream:
            await anext(aiter(stream))
            scope.cancel()
            await anyio.sleep_forever()


async def cancel_on_entry(stream: ChatCompletionStream[Any]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, stream)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


class Silent(httpx.AsyncBaseTransport):
    """A server that never answers."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anyio.sleep_forever()
        raise AssertionError


class Ending:
    """One way to end.

    Attributes:
        outcome: What observers are told.
        error: The class of the error that they are told.
        use: What is done with the stream.
        arguments: What the stream is opened with.
        attempts: How often a request goes out.
    """

    def __init__(
        self,
        outcome: str,
        error: str | None,
        use: Callable[[ChatCompletionStream[Any]], Awaitable[None]],
        *answers: Any,
        transport: httpx.AsyncBaseTransport | None = None,
        attempts: int = 1,
        **arguments: Any,
    ) -> None:
        self.outcome = outcome
        self.error = error
        self.use = use
        self.attempts = attempts
        self.arguments = arguments
        self._answers = answers
        self._transport = transport

    def client(self) -> httpx.AsyncClient:
        """A client whose server makes the stream end so."""
        queue = list(self._answers)

        def answer(request: httpx.Request) -> httpx.Response:
            script = queue.pop(0)
            if isinstance(script, httpx.Response):
                return httpx.Response(
                    script.status_code, headers=script.headers, content=script.content
                )
            if isinstance(script, Exception):
                raise script
            headers = {"content-type": "text/event-stream", "x-request-id": "req-1"}
            return httpx.Response(200, headers=headers, stream=Body(*script))

        return httpx.AsyncClient(transport=self._transport or httpx.MockTransport(answer))


ENDINGS: Final[dict[str, Ending]] = {
    "complete": Ending("complete", None, read, WHOLE),
    "truncated": Ending("truncated", "StreamTruncatedError", read_and_fail, (OPEN, chunk("Hel"))),
    "error in 200": Ending("failed", "APIStreamError", read_and_fail, (chunk("Hel"), ERROR)),
    "not a chunk": Ending(
        "failed", "APIResponseValidationError", read_and_fail, (b"data: {nonsense\n\n",)
    ),
    "status error": Ending(
        "failed",
        "AuthenticationError",
        read_and_fail,
        httpx.Response(401, headers={"x-request-id": "req-1"}, content=b"secret words"),
    ),
    "no connection": Ending(
        "failed",
        "APIConnectionError",
        read_and_fail,
        httpx.ConnectError("refused"),
        max_retries=0,
    ),
    "retried": Ending("complete", None, read, BUSY, WHOLE, attempts=2),
    "retried in vain": Ending(
        "failed", "InternalServerError", read_and_fail, BUSY, BUSY, attempts=2, max_retries=1
    ),
    "timeout": Ending(
        "timeout",
        "IdleTimeoutError",
        read_and_fail,
        (chunk("Hel"), STALL),
        timeouts=Timeouts(idle=0.01),
    ),
    "no answer": Ending(
        "timeout",
        "FirstContentTimeoutError",
        read_and_fail,
        transport=Silent(),
        timeouts=Timeouts(first_content=0.01),
    ),
    "cancelled": Ending("cancelled", "StreamClosedError", cancel, (chunk("Hel"), STALL)),
    "cancelled on entry": Ending(
        "cancelled", "StreamClosedError", cancel_on_entry, transport=Silent()
    ),
    "closed": Ending("closed", "StreamClosedError", close, (chunk("Hel"), STALL)),
    "left early": Ending("closed", "StreamClosedError", leave, (chunk("Hel"), STALL)),
    "left by an exception": Ending(
        "closed", "StreamClosedError", fail_inside, (chunk("Hel"), STALL)
    ),
}
"""By name."""
