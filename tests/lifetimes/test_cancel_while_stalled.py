"""The network stalls at one point after another; whoever is cancelled there leaves nothing.

Below a real connection pool of httpx and of httpx2 lies a network of our own, so that every
wait of the whole way down, connecting and closing included, can be made to last for ever.
"""

from __future__ import annotations

from typing import Any

import anyio
import httpcore
import httpcore2
import httpx
import httpx2
import pytest
from anyio import wait_all_tasks_blocked

from anyio_writer import AsyncWriter, ContentDeltaEvent, Limits
from tests.lifetimes.lifetime_helpers import (
    HANGS,
    busy_slots,
    clients_of,
    counted_rounds,
    tasks_of_clients,
)
from tests.streaming.helpers import DONE, REQUEST, STALL, USAGE, Body, chunk, client_for

LASTING = 600.0  # no time limit of the library's may be what ends a wait here
LIMITS = Limits(error_body_time=LASTING, drain_time=LASTING)

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ERROR = b"HTTP/1.1 503 No\r\ncontent-type: application/json\r\ncontent-length: 40\r\n\r\n"
LATER = b"HTTP/1.1 429 No\r\nretry-after: 50\r\ncontent-length: 0\r\n\r\n"


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


WORDS = [framed(chunk(f"{number} ")) for number in range(6)]
END = framed(chunk(None, "stop"))
WHOLE = [OK, *WORDS, END, framed(DONE), b"0\r\n\r\n"]

POINTS: dict[str, list[Any]] = {
    "connecting": ["connect"],
    "sending the request": ["write"],
    "headers": [STALL],
    "within the headers": [OK[:20], STALL],
    "error body": [ERROR, b'{"message": ', STALL],
    "between two attempts": [LATER],
    "first read": [OK, STALL],
    "first read, behind the headers": [OK + WORDS[0], STALL],
    **{f"read {count}": [OK, *WORDS[:count], STALL] for count in (1, 2, 5)},
    "within a frame": [OK, *WORDS[:2], WORDS[2][:17], STALL],
    "silence after the finish reason": [OK, *WORDS, END, STALL],
    "silence after the usage": [OK, *WORDS, END, framed(USAGE), STALL],
    "drain after [DONE]": [OK, *WORDS, END, framed(DONE), STALL],
}


class Wire:
    """One connection: plays what the server says; some of it never comes."""

    def __init__(self, network: Network, script: list[Any]) -> None:
        self._network = network
        self._script = script
        self.closed = False

    async def read(self, *args: Any, **kwargs: Any) -> bytes:
        await anyio.lowlevel.checkpoint()
        item = self._script.pop(0)
        if item is STALL:
            await self._network.stall()
        assert isinstance(item, bytes)
        return item

    async def write(self, *args: Any, **kwargs: Any) -> None:
        await anyio.lowlevel.checkpoint()
        if self._script == ["write"]:
            await self._network.stall()

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            await anyio.lowlevel.checkpoint()

    def get_extra_info(self, info: str) -> Any:
        return False if info == "is_readable" else None


class Network:
    """Where connections come from: the first has the script, later ones a whole answer."""

    def __init__(self, script: list[Any]) -> None:
        self.wires: list[Wire] = []
        self.stalled = anyio.Event()
        self._script: list[Any] | None = list(script)

    async def stall(self) -> None:
        self.stalled.set()
        await anyio.sleep_forever()

    async def connect_tcp(self, *args: Any, **kwargs: Any) -> Wire:
        await anyio.lowlevel.checkpoint()
        script, self._script = self._script, None
        if script == ["connect"]:
            await self.stall()
        self.wires.append(Wire(self, list(WHOLE) if script is None else script))
        return self.wires[-1]

    async def sleep(self, seconds: float) -> None:
        raise AssertionError


def client_on(network: Network, module: Any) -> Any:
    """A client with one slot, over that network."""
    core = {httpx: httpcore, httpx2: httpcore2}[module]
    transport = module.AsyncHTTPTransport(limits=module.Limits(max_connections=1))
    transport._pool = core.AsyncConnectionPool(max_connections=1, network_backend=network)
    return module.AsyncClient(transport=transport)


def writer_on(client: Any) -> AsyncWriter:
    return AsyncWriter(
        api_key="key",
        base_url="http://test",
        client=client,
        max_connections=1,
        limits=LIMITS,
        end_grace=LASTING,
    )


async def read(writer: AsyncWriter) -> None:
    async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
        async for _ in stream:
            pass


async def share(writer: AsyncWriter) -> None:
    """The block waits for its own tasks, which wait for events."""

    async def follow(consumer: Any) -> None:
        async for _ in consumer:
            pass

    async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
        stream.start_soon(follow, stream.subscribe())
        stream.start_soon(follow, stream.subscribe(ContentDeltaEvent, max_buffer=1))
        stream.start_soon(stream.until_done)


@pytest.mark.parametrize(
    ("module", "run"),
    [(httpx, read), (httpx2, share)],
    ids=["httpx", "httpx2, shared"],
)
@pytest.mark.parametrize("point", POINTS)
async def test_a_cancel_leaves_nothing_and_nobody_spins(point: str, module: Any, run: Any) -> None:
    """No task, no connection, no slot; and the loop is as quiet before the cancel as after it."""
    network = Network(POINTS[point])
    tasks = tasks_of_clients()
    with anyio.fail_after(HANGS):
        async with client_on(network, module) as client:
            writer = writer_on(client)
            async with anyio.create_task_group() as group:
                scope = anyio.CancelScope()

                async def cancellable() -> None:
                    with scope:
                        await run(writer)

                group.start_soon(cancellable)
                if point != "between two attempts":
                    await network.stalled.wait()
                await wait_all_tasks_blocked()
                scope.cancel()
            assert scope.cancelled_caught
            assert tasks_of_clients() == tasks
            assert busy_slots(client) == []
            assert not clients_of(writer).is_used
            # Between attempts a connection may well be idle; all others had to be closed.
            assert all(wire.closed for wire in network.wires) or point == "between two attempts"
            with counted_rounds() as counter:
                await anyio.sleep(0.01)
            assert counter.rounds < 20
            for wire in network.wires:
                wire._script = list(WHOLE)
            await read(writer)
        assert all(wire.closed for wire in network.wires)


@pytest.mark.parametrize(
    ("status", "script"),
    [
        (503, [b'{"message": ', STALL]),
        (200, [STALL]),
        (200, [chunk("a"), STALL]),
        (200, [chunk("a", "stop"), STALL]),
        (200, [chunk("a", "stop") + DONE, STALL]),
    ],
    ids=["error body", "first read", "later read", "grace", "drain"],
)
async def test_nobody_spins_while_closing_takes_its_time(status: int, script: list[Any]) -> None:
    """A transport whose ``aclose()`` hangs is waited for, up to the limit."""
    body = Body(*script)
    body.close_hangs = True
    with anyio.fail_after(HANGS), counted_rounds() as counter:
        async with client_for(httpx.Response(status, stream=body)) as client:
            writer = AsyncWriter(
                api_key="key",
                client=client,
                limits=Limits(cleanup_time=0.05, error_body_time=LASTING, drain_time=LASTING),
                end_grace=LASTING,
            )
            async with anyio.create_task_group() as group:
                group.start_soon(read, writer)
                await wait_all_tasks_blocked()
                before = counter.rounds
                since = anyio.current_time()
                group.cancel_scope.cancel()
            assert anyio.current_time() - since > 0.04  # it did hang
            assert counter.rounds - before < 40
            assert not clients_of(writer).is_used
