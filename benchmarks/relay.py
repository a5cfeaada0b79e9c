"""Answers that are read in other processes: the producer, the readers, and Redis between them.

The producer asks the server for stamped streams and publishes them; each reader follows one. All of
them begin with a short answer, which is not counted.
"""

from __future__ import annotations

import gc
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from itertools import chain
from statistics import median, quantiles
from typing import Any, Final, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from .bodies import Plan, payloads
from .clients import CLIENTS, Take, follow_batches, httpx_client, question
from .measures import Clocks, Meter, Numbers, ignore, run_number

Publish: TypeAlias = Callable[[str, str], Awaitable[None]]
"""Publishes a stream under a key; takes the key and the model."""
Read: TypeAlias = Callable[[str, Take], Awaitable[None]]
"""Reads an answer to its end; takes its key."""

READERS: Final = 4
"""In so many processes."""
_JOINING: Final = 1.0  # seconds until all readers wait
_WARM_UP: Final = "warm-up"
_TO_START: Final = 10.0  # seconds
_DROPPED: Final = 10  # percent of the chunks, at the beginning, whose latency is not counted
_POLL: Final = 0.01  # seconds, where one cannot wait for an answer to be begun
_LONGEST_WAIT: Final = 60.0


@contextmanager
def redis_server() -> Iterator[int]:
    """Redis on a free port, which stores nothing on disk; the port."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise RuntimeError("there is neither redis-server nor valkey-server")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            _wait_for(port)
            yield port
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    end = time.monotonic() + _TO_START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


# Who takes part.


@asynccontextmanager
async def our_producer(url: str, redis: str) -> AsyncIterator[Publish]:
    from anyio_writer.relay import RedisRelay

    async with CLIENTS["anyio-writer"].open(url) as ask, RedisRelay(redis) as relay:

        async def publish(key: str, model: str) -> None:
            async with ask(model) as stream:
                await relay.publish(key, stream)

        yield publish


@asynccontextmanager
async def our_reader(redis: str) -> AsyncIterator[Read]:
    from anyio_writer.relay import RedisRelay

    async with RedisRelay(redis) as relay:

        async def read(key: str, take: Take) -> None:
            async with relay.open_stream(key, wait=_LONGEST_WAIT) as stream:
                await follow_batches(stream.batches(), take)

        yield read


@asynccontextmanager
async def _redis(redis: str) -> AsyncIterator[Any]:
    from redis.asyncio import Redis

    client = Redis.from_url(redis, max_connections=1000)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def bare_producer(url: str, redis: str) -> AsyncIterator[Publish]:
    """What httpx reads becomes an entry, and nobody looks at it."""
    async with httpx_client() as http, _redis(redis) as client:

        async def publish(key: str, model: str) -> None:
            async with http.stream("POST", url, json=question(model)) as response:
                async for data in response.aiter_bytes():
                    await client.xadd(key, {"data": data})
            await client.xadd(key, {"end": b""})

        yield publish


@asynccontextmanager
async def bare_reader(redis: str) -> AsyncIterator[Read]:
    async with _redis(redis) as client:

        async def read(key: str, take: Take) -> None:
            last: Any = "0"
            while True:
                found = await client.xread({key: last}, block=round(_LONGEST_WAIT * 1000))
                for number, fields in chain.from_iterable(entries for _, entries in found):
                    last = number
                    if b"end" in fields:
                        return
                    take(fields[b"data"])

        yield read


@asynccontextmanager
async def _resumable(redis: str) -> AsyncIterator[tuple[Any, list[Any]]]:
    from assistant_stream.resumable import (
        create_redis_resumable_stream_store,
        create_resumable_stream_context,
    )

    tasks: list[Any] = []
    async with _redis(redis) as client:
        store = create_redis_resumable_stream_store(client)
        yield create_resumable_stream_context(store=store, wait_until=tasks.append), tasks


@asynccontextmanager
async def assistant_producer(url: str, redis: str) -> AsyncIterator[Publish]:
    """The bytes of the response, as they come."""
    async with httpx_client() as http, _resumable(redis) as (context, tasks):

        async def publish(key: str, model: str) -> None:
            async def body() -> AsyncGenerator[bytes]:
                async with http.stream("POST", url, json=question(model)) as response:
                    async for data in response.aiter_bytes():
                        yield data

            await context.run(key, body)
            await tasks[-1]

        yield publish


@asynccontextmanager
async def assistant_reader(redis: str) -> AsyncIterator[Read]:
    async with _resumable(redis) as (context, _):

        async def read(key: str, take: Take) -> None:
            while (chunks := await context.resume(key)) is None:  # noqa: ASYNC110 - of another process
                await anyio.sleep(_POLL)
            async for data in chunks:
                take(data)

        yield read


PRODUCERS: Final[dict[str, Callable[[str, str], AbstractAsyncContextManager[Publish]]]] = {
    "anyio-writer": our_producer,
    "XADD/XREAD": bare_producer,
    "assistant-stream": assistant_producer,
}
FOLLOWERS: Final[dict[str, Callable[[str], AbstractAsyncContextManager[Read]]]] = {
    "anyio-writer": our_reader,
    "XADD/XREAD": bare_reader,
    "assistant-stream": assistant_reader,
}


# What runs in the worker processes.


def producing(url: str, client: str, *, redis: str, plan: list[Any], keys: list[str]) -> Any:
    """Publish one stream for each key; CPU time per chunk, of the whole of it."""
    what = Plan(*plan)

    async def run() -> Numbers:
        async with PRODUCERS[client](url, redis) as publish:
            await publish(_WARM_UP, Plan("text", 50).model())
            await anyio.sleep(_JOINING)
            gc.collect()
            begin = Clocks.now()
            async with anyio.create_task_group() as tasks:
                for key in keys:
                    tasks.start_soon(publish, key, what.model())
            return begin.until(Clocks.now(), what.chunks * len(keys))

    return run


def reading(_url: str, client: str, *, redis: str, plan: list[Any], keys: list[str]) -> Any:
    """Read these answers, each as often as it is named."""
    what = Plan(*plan)._replace(streams=len(keys))
    unit = "pieces" if client == "anyio-writer" else "bytes"

    async def run() -> dict[str, Any]:
        async with FOLLOWERS[client](redis) as read:
            await read(_WARM_UP, ignore)
            meter = Meter(what, unit, latency=True)
            gc.collect()
            async with anyio.create_task_group() as tasks:
                for key in keys:
                    tasks.start_soon(read, key, meter.take)
        meter.check()
        begin, end = meter.marks
        chunks = what.streams * what.chunks
        dropped = len(meter.latencies) * _DROPPED // 100
        return {
            **begin.until(end, chunks),
            "chunks": chunks,
            "latencies": meter.latencies[dropped:],
            "file_cpu_us": await _read_from_file(what),
        }

    return run


async def _read_from_file(plan: Plan) -> float:
    """What our reader needs for one of the streams where nothing is between it and the bytes."""
    from anyio_writer import chat_stream_from

    async def body() -> AsyncGenerator[bytes]:
        for data in payloads(plan.shape, plan.chunks):
            await checkpoint()
            yield data

    for _ in range(2):  # the first time is the warm-up
        gc.collect()
        begin = Clocks.now()
        async with chat_stream_from(body()) as stream:
            await follow_batches(stream.batches(), ignore)
        found = begin.until(Clocks.now(), plan.chunks)["cpu_us"]
    return found


TASKS: Final[dict[str, Callable[..., Any]]] = {
    "relay, producing": producing,
    "relay, reading": reading,
}


# What runs beside them.


def share(keys: list[str]) -> list[list[str]]:
    """Who reads what, in at most ``READERS`` processes."""
    return [part for number in range(READERS) if (part := keys[number::READERS])]


def plan_of(answers: int, rate: float, seconds: float) -> Plan:
    chunks = max(20, round(rate * seconds))
    return Plan("stamped", chunks, rate, answers, run=run_number())


def sum_up(
    producer: dict[str, Any], readers: list[dict[str, Any]], stored: float, plan: Plan
) -> dict[str, Any]:
    """The numbers of one measurement, or the error that somebody had."""
    for each in (producer, *readers):
        if "error" in each or "gave_up_s" in each:
            return each
    latencies = [each for reader in readers for each in reader["latencies"]]
    chunks = sum(reader["chunks"] for reader in readers)
    payload = sum(len(each) - len(b"data: \n\n") for each in payloads(plan.shape, plan.chunks))
    return {
        "latency_p50_us": median(latencies) / 1e3,
        "latency_p99_us": quantiles(latencies, n=100)[-1] / 1e3,
        "reader_cpu_us": sum(each["cpu_us"] * each["chunks"] for each in readers) / chunks,
        "producer_cpu_us": producer["cpu_us"],
        "file_cpu_us": min(each["file_cpu_us"] for each in readers),
        "stored": stored / (payload * plan.streams),
    }


def clear(port: int) -> float:
    """Let Redis forget all of it; how many bytes it had for the answers."""
    from redis import Redis

    with Redis(port=port) as client:
        used = 0
        for key in client.scan_iter(count=1000):
            if _WARM_UP.encode() not in key:
                with suppress(TypeError):  # it has expired
                    used += client.memory_usage(key, samples=0)
        client.flushall()
    return float(used)
