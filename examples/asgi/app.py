"""One answer for many browsers: a chat stream fanned out as server-sent events, with Starlette.

The first browser that asks about a topic opens one stream from the API. Others that ask about the
same topic while it runs join it: they get the text so far, then every new piece. When a browser
leaves, the others go on. When the last one leaves, the stream from the API is closed at once, even
if the API has not answered yet.

Try it without a key, and open http://127.0.0.1:8080 in two windows:

    pip install . starlette hypercorn
    python -m examples.asgi.serve --demo

Serve it with WRITER_API_KEY set, on trio or on asyncio:

    hypercorn --worker-class trio --bind 127.0.0.1:8080 examples.asgi.app:app
    hypercorn --bind 127.0.0.1:8080 examples.asgi.app:app
    uvicorn --port 8080 --timeout-graceful-shutdown 3 examples.asgi.app:app

Browsers share a stream within one worker process. Everybody who can reach /events spends your
tokens, so put a login in front of it.
"""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, TypedDict

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from anyio_writer import AsyncWriter

from .broadcast import Broadcasts, Emit

LONGEST_TOPIC: Final = 200  # characters
PING_SECONDS: Final = 15  # proxies take a longer silence for the end
PAGE: Final = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


class State(TypedDict):
    """What ``request.state`` holds."""

    broadcasts: Broadcasts


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[State]:  # noqa: ARG001
    # A task group must be left by the task that entered it, so one around a `yield` is a trap
    # wherever another task may finish the generator. Here none does: Starlette runs this block
    # from end to end in the one task that the server has for the lifespan.
    async with AsyncWriter() as writer, anyio.create_task_group() as tasks:
        yield {"broadcasts": Broadcasts(writer, tasks)}
        tasks.cancel_scope.cancel()


async def page(request: Request) -> Response:  # noqa: ARG001
    return HTMLResponse(PAGE)


async def events(request: Request) -> "Response | EventStream":
    topic = request.query_params.get("topic", "").strip()
    if not topic or len(topic) > LONGEST_TOPIC:
        return PlainTextResponse(f"topic wants 1 to {LONGEST_TOPIC} characters", status_code=400)
    broadcasts: Broadcasts = request.state.broadcasts
    return EventStream(partial(broadcasts.send_to, topic))


class EventStream:
    """An ASGI response: what ``source`` emits, until it returns or the browser leaves.

    Only ``receive()`` tells that a browser has left, also while there is nothing to send, so a
    task of its own waits there. Middleware that wraps ``receive`` or collects the body (such as
    BaseHTTPMiddleware, or one that compresses) can break this: keep it off this route.
    """

    def __init__(self, source: Callable[[Emit], Awaitable[None]]) -> None:
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Run the response; see the ASGI specification."""
        sending = anyio.Lock()

        async def emit(data: bytes, *, more: bool = True) -> None:
            async with sending:
                await send({"type": "http.response.body", "body": data, "more_body": more})

        async def leave_with_browser() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        async def ping() -> None:
            while True:
                await anyio.sleep(PING_SECONDS)
                await emit(b": ping\n\n")

        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # for nginx
        ]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave_with_browser)
            # Some servers keep the headers until the first piece of the body.
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            tasks.start_soon(ping)
            await self._source(emit)
            await emit(b"", more=False)
            tasks.cancel_scope.cancel()


app: Final = Starlette(routes=[Route("/", page), Route("/events", events)], lifespan=lifespan)
