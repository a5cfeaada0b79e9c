"""Answers that outlive a page, a connection and a server: a relay on Redis, with Starlette.

It runs as any number of processes with one Redis. The process that gets a question starts the
answer, and every process can show it, from its start, while it runs or afterwards. A page that is
loaded again shows all of the text. A browser that reconnects names the last event that it has, and
goes on exactly there. A second tab can watch the same answer, through any process, and can stop it.
If the process that asks the model dies, its readers learn that within seconds, and keep the text.

Try it without a key. This needs Debian's redis-server:

    pip install ".[relay]" starlette hypercorn
    python -m examples.resumable.serve --demo

Serve it with WRITER_API_KEY and REDIS_URL set, as often as you like:

    hypercorn --worker-class trio --bind 127.0.0.1:8080 examples.resumable.app:app
    uvicorn --port 8081 --timeout-graceful-shutdown 3 examples.resumable.app:app

Everybody who can reach /answers spends your tokens, so put a login in front of it. Everybody who
knows an answer's key can read and stop it, so keys are random.
"""

import contextlib
import os
import re
import secrets
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Final, TypedDict

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from anyio_writer import (
    AsyncWriter,
    ContentDeltaEvent,
    MessageParam,
    ProducerLostError,
    ProducerStoppedError,
    RelayedAnswerGoneError,
    RelayUnavailableError,
    UnknownKeyError,
    WriterError,
)
from anyio_writer.relay import RedisRelay, Relay
from examples.asgi.app import EventStream
from examples.asgi.broadcast import Emit, explain

MODEL: Final = "palmyra-x5"
LONGEST_TOPIC: Final = 200  # characters
LEASE: Final = 4.0  # seconds until a process that died counts as lost
PAGE: Final = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


class State(TypedDict):
    """What ``request.state`` holds."""

    writer: AsyncWriter
    relay: Relay


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[State]:  # noqa: ARG001
    # Leaving the relay ends the answers that this process produces; their readers hear of it.
    url = os.environ.get("REDIS_URL", "redis://127.0.0.1")
    async with AsyncWriter() as writer, RedisRelay(url, prefix="resumable", lease=LEASE) as relay:
        yield {"writer": writer, "relay": relay}


async def page(request: Request) -> Response:  # noqa: ARG001
    return HTMLResponse(PAGE)


async def start(request: Request) -> Response:
    """Begin an answer, and say what its key is."""
    topic = (await request.body()).decode(errors="replace").strip()
    if not topic or len(topic) > LONGEST_TOPIC:
        return PlainTextResponse(f"A topic has 1 to {LONGEST_TOPIC} characters.", status_code=400)
    relay: Relay = request.state.relay
    writer: AsyncWriter = request.state.writer
    key = secrets.token_urlsafe(16)
    messages: list[MessageParam] = [{"role": "user", "content": topic}]
    try:
        # The relay's own task follows the answer, so it goes on when this request has ended.
        async with relay.start_or_join(
            key, lambda: writer.chat.stream(model=MODEL, messages=messages)
        ):
            return JSONResponse({"key": key}, status_code=201)
    except RelayUnavailableError:
        return PlainTextResponse("Please try again in a minute.", status_code=503)


async def follow(request: Request) -> EventStream:
    """Send an answer from behind the last event that the browser has."""
    last = request.headers.get("last-event-id", "")
    return EventStream(partial(send, request.state.relay, request.path_params["key"], last))


async def stop(request: Request) -> Response:
    relay: Relay = request.state.relay
    try:
        is_running = await relay.stop(request.path_params["key"])
    except RelayUnavailableError:
        return PlainTextResponse("Please try again in a minute.", status_code=503)
    return Response(status_code=202 if is_running else 409)


async def send(relay: Relay, key: str, last: str, emit: Emit) -> None:
    """Send one browser all there is behind the ``last`` event, what comes, and how it ended.

    An event's ID is its number behind that of the answer. So a browser never goes on in the middle
    of another answer, which a key has when it was asked for anew.
    """
    await emit(b"retry: 500\n\n")  # milliseconds until it connects again
    known = re.fullmatch(r"([1-9]\d*)-(\d+)", last, re.ASCII)
    generation, seen = map(int, known.groups()) if known else (None, 0)
    try:
        async with relay.open_stream(key, skip=seen, generation=generation) as stream:
            async for batch in stream.batches():
                # Every event counts, whether or not a browser wants it.
                deltas = [
                    frame("delta", event.delta, f"{stream.generation}-{number}")
                    for number, event in enumerate(batch, seen + 1)
                    if isinstance(event, ContentDeltaEvent)
                ]
                seen += len(batch)
                if deltas:
                    await emit(b"".join(deltas))
    except RelayUnavailableError:
        return  # without a last word, so the browser connects again and goes on
    except WriterError as exc:
        await emit(frame(*last_word(exc)))
    else:
        reason = stream.current_completion_snapshot.choices[0].finish_reason
        await emit(frame("done", reason))


def last_word(error: WriterError) -> tuple[str, str]:
    """How an answer ended, if not well: the name of the message, and a line for the public."""
    if isinstance(error, ProducerStoppedError):
        is_wanted = error.by == "stop"
        return "stopped", "Stopped." if is_wanted else "The service is restarting."
    if isinstance(error, ProducerLostError):
        return "failed", "The server that was asking the model is gone."
    if isinstance(error, UnknownKeyError | RelayedAnswerGoneError):
        return "failed", "This answer is no longer kept."
    return "failed", explain(error)


def frame(name: str, data: object, event_id: str = "") -> bytes:
    """One server-sent event; its data is JSON, which is never empty and has no line breaks."""
    head = f"id: {event_id}\n".encode() if event_id else b""
    return b"%bevent: %b\ndata: %b\n\n" % (head, name.encode(), msgspec.json.encode(data))


app: Final = Starlette(
    routes=[
        Route("/", page),
        Route("/answers", start, methods=["POST"]),
        Route("/answers/{key}", follow),
        Route("/answers/{key}/stop", stop, methods=["POST"]),
    ],
    lifespan=lifespan,
)
