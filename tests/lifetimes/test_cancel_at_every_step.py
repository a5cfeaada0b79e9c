"""One scenario, run again and again, cancelled one step later each time until it gets through."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anyio_writer import (
    AsyncWriter,
    ChatCompletionStream,
    chat_stream_from,
    open_chat_stream,
)
from anyio_writer.testing import (
    ChatServer,
    RecordedRequest,
    Reply,
    sse_event,
    writer_chunks,
)
from tests.lifetimes.lifetime_helpers import (
    HANGS,
    WAYS,
    cancelled_at,
    nothing_is_left,
    open_connections,
    tasks_of_clients,
    until,
)
from tests.streaming.helpers import DONE, REQUEST, Body, chunk

TEXT = "one two three four"


async def whole(stream: ChatCompletionStream[Any]) -> None:
    assert await stream.get_final_text() == TEXT


async def shared(stream: ChatCompletionStream[Any]) -> None:
    got: list[str] = []

    async def follow() -> None:
        async for event in stream.subscribe(max_buffer=2):
            if event.type == "content.delta":
                got.append(event.delta)

    stream.start_soon(follow)
    async for _ in stream:
        pass
    assert "".join(got) == TEXT


async def left_early(stream: ChatCompletionStream[Any]) -> None:
    async for event in stream:
        if event.type == "content.delta":
            break


async def closed(stream: ChatCompletionStream[Any]) -> None:
    await anext(stream)
    await stream.close()


def second_time_lucky() -> Callable[[RecordedRequest], Reply]:
    """A server that turns each request down once, then answers it: in pieces, with a [DONE]."""
    seen: set[str] = set()
    pieces = [sse_event(each) for each in writer_chunks(TEXT, usage=True)]

    def reply(request: RecordedRequest) -> Reply:
        name = request.json()["messages"][0]["content"]
        if name.startswith("turned down") and name not in seen:
            seen.add(name)
            return Reply(status=503, body=[b'{"message": ', b'"no"}'])
        headers = {"connection": "close"} if name == "hello, once" else {}
        return Reply(body=[*pieces, DONE, b": bye\n\n"], headers=headers)

    return reply


@pytest.mark.parametrize("connected", [False, True], ids=["connects", "is connected"])
@pytest.mark.parametrize("body", [whole, shared, left_early, closed])
async def test_over_the_network(
    body: Any, connected: Any, anyio_backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whatever step it is cancelled, all is given back and the same client goes on."""

    async def no_wait(delay: float) -> None:
        await checkpoint()

    # The pause before a retry; a real one would only be a longer wait in the same place.
    monkeypatch.setattr("anyio_writer.transport.source.anyio.sleep", no_wait)
    async with (
        ChatServer(default=second_time_lucky()) as server,
        AsyncWriter(api_key="key", base_url=server.url, max_connections=1) as writer,
    ):

        async def ask(name: str, body: Any) -> None:
            messages: Any = [{"role": "user", "content": name}]
            async with writer.chat.stream(model="m", messages=messages) as stream:
                await body(stream)

        tasks = tasks_of_clients()
        for way in WAYS[anyio_backend_name]:
            for step in itertools.count(1):
                scenario = partial(ask, f"turned down at first, {way} {step}", body)
                with anyio.fail_after(HANGS):
                    got_through = await cancelled_at(step, way, scenario)
                    await nothing_is_left(writer, server, tasks)
                    await ask("hello" if connected else "hello, once", whole)
                if got_through:
                    break
            assert step > 15, "the scenario is not cancelled anywhere"


@pytest.mark.parametrize("body", [whole, left_early])
async def test_a_stream_with_a_client_of_its_own(body: Any, anyio_backend_name: str) -> None:
    """No socket is left open, whenever it is cancelled."""
    tasks = tasks_of_clients()
    async with ChatServer(default=second_time_lucky()) as server:

        async def ask() -> None:
            async with open_chat_stream(**REQUEST, base_url=server.url) as stream:
                await body(stream)

        for way in WAYS[anyio_backend_name]:
            for step in itertools.count(1):
                with anyio.fail_after(HANGS):
                    got_through = await cancelled_at(step, way, ask)
                    assert tasks_of_clients() <= tasks
                    await until(lambda: not open_connections(server))
                if got_through:
                    break
            assert step > 10, "the scenario is not cancelled anywhere"


# Consumers: a cancelled one takes nothing away from anybody.

WORDS = [f"{number} " for number in range(12)]
SCRIPT = [
    b"".join(chunk(word) for word in WORDS[:5]),
    *(chunk(word) for word in WORDS[5:]),
    chunk(None, "stop"),
]


async def iterate(consumer: Any, got: list[Any]) -> None:
    async for event in consumer:
        got.append(event)


async def in_batches(consumer: Any, got: list[Any]) -> None:
    async for batch in consumer.batches():
        got.extend(batch)


async def iterate_slowly(consumer: Any, got: list[Any]) -> None:
    async for event in consumer:
        got.append(event)
        await checkpoint()


@pytest.mark.parametrize("own", [False, True], ids=["subscription", "stream"])
@pytest.mark.parametrize(
    ("way_to_read", "max_buffer"), [(iterate, 2), (in_batches, 2), (iterate_slowly, 1024)]
)
async def test_a_consumer(
    way_to_read: Any, max_buffer: int, own: Any, anyio_backend_name: str
) -> None:
    """What one did not get when it was cancelled, the next task finds in the same place."""
    for way in WAYS[anyio_backend_name]:
        for step in itertools.count(1):
            others: list[list[Any]] = [[], []]
            mine: list[Any] = []
            with anyio.fail_after(HANGS):
                async with chat_stream_from(Body(*SCRIPT)) as stream:
                    everything = stream.subscribe(max_buffer=10_000)
                    consumer: Any = stream if own else stream.subscribe(max_buffer=max_buffer)
                    stream.start_soon(iterate, stream.subscribe(max_buffer=2), others[0])
                    stream.start_soon(in_batches, stream.subscribe(), others[1])
                    if own:
                        aiter(stream)
                    first = partial(way_to_read, consumer, mine)
                    got_through = await cancelled_at(step, way, first)
                    await way_to_read(consumer, mine)
                    expected = [id(event) async for event in everything]
            assert len(expected) > len(WORDS)
            for got in (mine, *others):
                assert [id(event) for event in got] == expected, f"cancelled at {step}"
            if got_through:
                break
        assert step > 3, "the consumer is not cancelled anywhere"
