"""Who takes part: how each opens a stream, and the ways to read one.

Every way reads one stream to its end and gives each piece of the answer to ``take``. A client is
imported only in the process where it runs.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final, TypeAlias

import anyio
import sniffio

Take: TypeAlias = Callable[[Any], None]
Way: TypeAlias = Callable[[Any, str, Take], Awaitable[None]]
Opening: TypeAlias = Callable[[str], AbstractAsyncContextManager[Any]]

MESSAGES: Final = [{"role": "user", "content": "Why is the sky blue?"}]
TIMEOUT: Final = 600.0
"""Seconds; for everyone the same order of magnitude, so that everyone has timers to keep."""
EXTRA_CONSUMERS: Final = 7
_ARGUMENTS: Final = "tool_calls.function.arguments.delta"


def _no_limits(module: str) -> Any:
    """As many connections as there are streams: the SDKs' own pools have 100 and 1,000."""
    httpx: Any = importlib.import_module(module)
    return httpx.Limits(max_connections=None, max_keepalive_connections=None)


def httpx_client(module: str = "httpx") -> Any:
    """A client without limits, of httpx or of httpx2."""
    httpx: Any = importlib.import_module(module)
    return httpx.AsyncClient(timeout=TIMEOUT, limits=_no_limits(module))


def question(model: str) -> dict[str, Any]:
    """The request."""
    return {"model": model, "messages": MESSAGES}


# The clients with events: ours, and two whose helpers have the same names.


def _settings() -> dict[str, Any]:
    """Ours in all rows. The longest answers are larger than what is read by default."""
    from anyio_writer import Limits, Timeouts

    return {
        "api_key": "key",
        "timeouts": Timeouts(connect=TIMEOUT),
        "limits": Limits(max_answer_bytes=None),
    }


def observed(observing: Callable[[], AbstractContextManager[Any]]) -> Opening:
    """Ours, with an observer."""

    @asynccontextmanager
    async def open_ours(url: str) -> AsyncIterator[Any]:
        from anyio_writer import AsyncWriter

        with observing() as observer:
            async with AsyncWriter(base_url=url, observer=observer, **_settings()) as writer:
                yield lambda model, **more: writer.chat.stream(**question(model), **more)

    return open_ours


@contextmanager
def empty_observer() -> Iterator[Any]:
    """All methods, and nothing in them."""
    from anyio_writer import StreamObserver

    def method(self: object, observed: object) -> None: ...

    names = [name for name in vars(StreamObserver) if not name.startswith("_")]
    yield type("Empty", (StreamObserver,), dict.fromkeys(names, method))()


@contextmanager
def otel_without_sdk() -> Iterator[Any]:
    from anyio_writer.telemetry import OpenTelemetryObserver

    yield OpenTelemetryObserver()


@contextmanager
def otel_with_sdk() -> Iterator[Any]:
    """The SDK's batches, and exporters that throw them away."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        MetricExporter,
        MetricExportResult,
        PeriodicExportingMetricReader,
    )
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )

    from anyio_writer.telemetry import OpenTelemetryObserver

    class Spans(SpanExporter):
        def export(self, spans: Any) -> Any:
            return SpanExportResult.SUCCESS

    class Metrics(MetricExporter):
        def export(self, metrics_data: Any, timeout_millis: float = 0, **kwargs: Any) -> Any:
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 0) -> bool:
            return True

        def shutdown(self, timeout_millis: float = 0, **kwargs: Any) -> None: ...

    tracer_provider = TracerProvider(shutdown_on_exit=False)
    tracer_provider.add_span_processor(BatchSpanProcessor(Spans()))
    meter_provider = MeterProvider(
        [PeriodicExportingMetricReader(Metrics())], shutdown_on_exit=False
    )
    try:
        yield OpenTelemetryObserver(tracer_provider, meter_provider)
    finally:
        tracer_provider.shutdown()
        meter_provider.shutdown()


def passed(make_client: Callable[[], Any]) -> Opening:
    """Ours, with a client that is passed in."""

    @asynccontextmanager
    async def open_ours(url: str) -> AsyncIterator[Any]:
        from anyio_writer import AsyncWriter

        async with (
            make_client() as client,
            AsyncWriter(client=client, base_url=url, **_settings()) as writer,
        ):
            yield lambda model, **more: writer.chat.stream(**question(model), **more)

    return open_ours


def _streaming_client() -> Any:
    import httpx

    from anyio_writer import StreamingTransport

    return httpx.AsyncClient(transport=StreamingTransport(limits=_no_limits("httpx")))


@asynccontextmanager
async def open_writer_sdk(url: str) -> AsyncIterator[Any]:
    from writerai import AsyncWriter, DefaultAsyncHttpxClient

    async with AsyncWriter(
        api_key="key",
        base_url=url,
        timeout=TIMEOUT,
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(limits=_no_limits("httpx")),
    ) as writer:
        yield lambda model: writer.chat.stream(**question(model))


@asynccontextmanager
async def open_openai(url: str) -> AsyncIterator[Any]:
    from openai import AsyncOpenAI, DefaultAsyncHttpx2Client

    async with AsyncOpenAI(
        api_key="key",
        base_url=url,
        timeout=TIMEOUT,
        max_retries=0,
        http_client=DefaultAsyncHttpx2Client(limits=_no_limits("httpx2")),
    ) as client:
        yield lambda model, **more: client.chat.completions.stream(**question(model), **more)


async def follow(events: Any, take: Take) -> None:
    async for event in events:
        if event.type == "content.delta":
            take(event.delta)
        elif event.type == _ARGUMENTS and event.arguments_delta:
            take(event.arguments_delta)


async def follow_batches(batches: Any, take: Take) -> None:
    async for batch in batches:
        for event in batch:
            if event.type == "content.delta":
                take(event.delta)
            elif event.type == _ARGUMENTS and event.arguments_delta:
                take(event.arguments_delta)


async def iterate(ask: Any, model: str, take: Take) -> None:
    async with ask(model) as stream:
        await follow(stream, take)


async def batches(ask: Any, model: str, take: Take) -> None:
    async with ask(model) as stream:
        await follow_batches(stream.batches(), take)


async def final(ask: Any, model: str, take: Take) -> None:
    async with ask(model) as stream:
        take(await stream.get_final_completion())


def typed(answer: Callable[[], Any]) -> Way:
    """One event after another, of an answer that is to have a type."""

    async def iterate_typed(ask: Any, model: str, take: Take) -> None:
        async with ask(model, response_format=answer()) as stream:
            await follow(stream, take)

    return iterate_typed


@cache
def answer_struct() -> Any:
    """The type of what ``json_answer`` in bodies.py makes."""
    import msgspec

    step = msgspec.defstruct("Step", [("title", str), ("text", str), ("minutes", int)])
    return msgspec.defstruct("Answer", [("steps", list[step]), ("note", str)])  # type: ignore[valid-type]


@cache
def answer_model() -> Any:
    """The same for openai. The stream of writer-sdk takes no types."""
    from pydantic import create_model

    step = create_model("Step", title=(str, ...), text=(str, ...), minutes=(int, ...))
    return create_model("Answer", steps=(list[step], ...), note=(str, ...))  # type: ignore[valid-type]


async def shared(ask: Any, model: str, take: Take) -> None:
    async with ask(model) as stream:
        for _ in range(EXTRA_CONSUMERS):
            stream.start_soon(follow, stream.subscribe(), take)
        await follow(stream, take)


async def shared_batches(ask: Any, model: str, take: Take) -> None:
    async with ask(model) as stream:
        for _ in range(EXTRA_CONSUMERS):
            stream.start_soon(follow_batches, stream.subscribe().batches(), take)
        await follow_batches(stream.batches(), take)


async def shared_by_hand(ask: Any, model: str, take: Take) -> None:
    """What one writes where there is no subscribe(): a channel for each consumer."""
    async with anyio.create_task_group() as tasks, ask(model) as stream:
        channels = []
        for _ in range(EXTRA_CONSUMERS):
            send, receive = anyio.create_memory_object_stream[Any](1024)
            channels.append(send)
            tasks.start_soon(follow, receive, take)

        async def events() -> AsyncGenerator[Any]:
            async for event in stream:
                for channel in channels:
                    await channel.send(event)
                yield event

        await follow(events(), take)
        for channel in channels:
            channel.close()


# By hand: httpx, httpx-sse for the framing, json for the chunks, and nothing added up.


@asynccontextmanager
async def open_httpx(url: str) -> AsyncIterator[Any]:
    async with httpx_client() as client:
        yield client, url


async def httpx_sse(session: Any, model: str, take: Take) -> None:
    from httpx_sse import aconnect_sse

    client, url = session
    async with aconnect_sse(client, "POST", url, json=question(model)) as source:
        async for event in source.aiter_sse():
            for choice in json.loads(event.data)["choices"]:
                delta = choice["delta"]
                if content := delta["content"]:
                    take(content)
                for call in delta["tool_calls"] or ():
                    if arguments := call["function"].get("arguments"):
                        take(arguments)


# The floors: the same bytes, unread.


async def body(session: Any, model: str, take: Take) -> None:
    client, url = session
    async with client.stream("POST", url, json=question(model)) as response:
        async for data in response.aiter_bytes():
            take(data)


async def handed_on(session: Any, model: str, take: Take) -> None:
    """The least that a second task takes: one reads, and another one gets the pieces."""
    client, url = session
    send, receive = anyio.create_memory_object_stream[bytes](1024)

    async def consume() -> None:
        async with receive:
            async for data in receive:
                take(data)

    async with anyio.create_task_group() as tasks, send:
        tasks.start_soon(consume)
        async with client.stream("POST", url, json=question(model)) as response:
            async for data in response.aiter_bytes():
                send.send_nowait(data)


@asynccontextmanager
async def open_socket(url: str) -> AsyncIterator[Any]:
    host, _, port = url.removeprefix("http://").partition(":")
    yield host, int(port)


async def wire(address: Any, model: str, take: Take) -> None:
    content = json.dumps(question(model)).encode()
    request = (
        b"POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
    ) % (len(content), content)
    on_trio = sniffio.current_async_library() == "trio"
    await (_wire_trio if on_trio else _wire_asyncio)(address, request, take)


async def _wire_asyncio(address: Any, request: bytes, take: Take) -> None:
    import asyncio

    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        while data := await reader.read(65536):
            take(data)
    finally:
        writer.close()


async def _wire_trio(address: Any, request: bytes, take: Take) -> None:
    import trio

    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(request)
        while data := await stream.receive_some(65536):
            take(data)


@dataclass(frozen=True)
class Client:
    """One participant."""

    about: str
    open: Opening
    ways: dict[str, Way]
    module: str
    """Imported before anything is measured."""
    unit: str = "pieces"
    """What ``take`` gets: pieces of the answer, bytes of the body, bytes on the wire."""


_OURS: Final[dict[str, Way]] = {
    "iterate": iterate,
    "batches": batches,
    "final": final,
    "shared": shared,
    "shared, batches": shared_batches,
    "typed": typed(answer_struct),
}
_SDK: Final[dict[str, Way]] = {"iterate": iterate, "final": final, "shared": shared_by_hand}

CLIENTS: Final = {
    "anyio-writer": Client(
        "`AsyncWriter().chat.stream`", observed(nullcontext), _OURS, "anyio_writer"
    ),
    "anyio-writer, httpx2": Client(
        "the same with `client=httpx2.AsyncClient()`",
        passed(partial(httpx_client, "httpx2")),
        _OURS,
        "anyio_writer",
    ),
    "anyio-writer, httpx": Client(
        "the same with `client=httpx.AsyncClient()`", passed(httpx_client), _OURS, "anyio_writer"
    ),
    "anyio-writer, StreamingTransport": Client(
        "the same with `client=httpx.AsyncClient(transport=StreamingTransport())`",
        passed(_streaming_client),
        _OURS,
        "anyio_writer",
    ),
    "writer-sdk": Client("`AsyncWriter().chat.stream`", open_writer_sdk, _SDK, "writerai"),
    "openai": Client(
        "`AsyncOpenAI().chat.completions.stream`, on its default httpx2",
        open_openai,
        {**_SDK, "typed": typed(answer_model)},
        "openai",
    ),
    "httpx-sse": Client(
        "`aconnect_sse`, `json.loads`; nothing added up",
        open_httpx,
        {"iterate": httpx_sse},
        "httpx_sse",
    ),
    "httpx": Client(
        "`response.aiter_bytes()`, nothing parsed", open_httpx, {"iterate": body}, "httpx", "bytes"
    ),
    "httpx, two tasks": Client(
        "the same, handed to a second task by `send_nowait`",
        open_httpx,
        {"iterate": handed_on},
        "httpx",
        "bytes",
    ),
    "socket": Client(
        "`asyncio.StreamReader.read` or `trio.SocketStream.receive_some`, not even HTTP",
        open_socket,
        {"iterate": wire},
        "socket",
        "wire",
    ),
    "empty observer": Client(
        "anyio-writer with `observer=` one that does nothing",
        observed(empty_observer),
        {"iterate": iterate},
        "anyio_writer",
    ),
    "OpenTelemetry, no SDK": Client(
        "anyio-writer with `observer=OpenTelemetryObserver()`",
        observed(otel_without_sdk),
        {"iterate": iterate},
        "anyio_writer.telemetry.otel",
    ),
    "OpenTelemetry": Client(
        "the same with the SDK, which exports in batches",
        observed(otel_with_sdk),
        {"iterate": iterate},
        "anyio_writer.telemetry.otel",
    ),
    "assistant-stream": Client(
        "its resumable streams, on redis-py; the readers ask every 100 ms, as it is set",
        open_socket,
        {},
        "assistant_stream.resumable",
        "bytes",
    ),
    "XADD/XREAD": Client(
        "`redis.asyncio`: what httpx reads is an entry, nobody looks into it",
        open_socket,
        {},
        "redis.asyncio",
        "bytes",
    ),
    "jiter": Client("`from_json`: the parser of JSON that is cut off", open_socket, {}, "jiter"),
}
