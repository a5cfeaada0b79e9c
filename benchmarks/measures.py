"""What is measured, in the client's own process. Each function returns named numbers."""

from __future__ import annotations

import codecs
import gc
import itertools
import json
import math
import os
import re
import resource
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, NamedTuple

import anyio

from .bodies import FEWEST, FIRST, HEAD_START, STAMP, Plan, amounts, json_answer, payloads
from .clients import CLIENTS, EXTRA_CONSUMERS, Client, answer_struct

Numbers = dict[str, float]

_STAMPS: Final = re.compile(rb'"delta":\{"content":"(\d{%d})"' % len(STAMP))
_WARM_UP: Final = Plan(chunks=50)
_SHORTEST: Final = Plan(chunks=FEWEST)
_OPENING: Final = 120.0  # seconds until all streams have to be open
_OVERTIME: Final = 20.0  # seconds behind the time due, until a client is cut off
_BEHIND: Final = 0.25  # seconds, and as much of the time due: less is no sign of overload
_SHORT_ONES: Final = 10
_ENOUGH: Final = 2000  # chunks of fast streams in one measurement
_SETTLE: Final = 0.3  # seconds of quiet before memory is looked at
_READ: Final = 65536
_runs: Final = itertools.count()


class Clocks(NamedTuple):
    """The time of day, and what the process has used: all of its threads, and the kernel."""

    wall: float
    cpu: float
    user: float
    system: float

    @classmethod
    def now(cls) -> Clocks:
        """Read all of them."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(time.perf_counter(), time.process_time(), used.ru_utime, used.ru_stime)

    def until(self, end: Clocks, chunks: float) -> Numbers:
        """Microseconds per chunk."""
        spent = [(b - a) / chunks * 1e6 for a, b in zip(self, end, strict=True)]
        return {f"{name}_us": value for name, value in zip(self._fields, spent, strict=True)}


class Meter:
    """Counts what comes, and reads the clocks at the first and the last token of all streams.

    Not at the end: what it costs to close many streams at once is another question.
    """

    def __init__(self, plan: Plan, unit: str, *, copies: int = 1, latency: bool = False) -> None:
        first, last, total = amounts(plan, unit)
        self.count = 0
        self.expected = total * plan.streams * copies
        self.marks: list[Clocks] = []
        self.begun = anyio.Event()
        self.was_cut: float | None = None
        """How much had come behind the first tokens when a client was cut off."""
        self.latencies: list[int] = []
        self.take: Callable[[Any], None] = self._pieces if unit == "pieces" else self._bytes
        if latency:
            self.take = self._stamped_pieces if unit == "pieces" else self._stamped_bytes
        self._first = self._next = first * plan.streams
        self._last = last * plan.streams

    def _mark(self) -> None:
        self.marks.append(Clocks.now())
        self.begun.set()
        self._next = self._last if self.count < self._last else math.inf

    def cut(self) -> None:
        """Read the clocks early."""
        if len(self.marks) == 1:
            self.was_cut = (self.count - self._first) / (self._last - self._first)
            self._mark()

    def _pieces(self, _piece: object) -> None:
        self.count += 1
        if self.count >= self._next:
            self._mark()

    def _bytes(self, data: bytes) -> None:
        self.count += len(data)
        if self.count >= self._next:
            self._mark()

    def check(self) -> None:
        """Raise an error if not all has come, or all at once."""
        _checked(self, self.expected)
        if len(self.marks) < 2:
            raise ValueError("the first and the last token came with one read")

    def _stamped_pieces(self, piece: str) -> None:
        self.latencies.append(time.monotonic_ns() - int(piece))
        self._pieces(piece)

    def _stamped_bytes(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.latencies.extend(now - int(stamp) for stamp in _STAMPS.findall(data))
        self._bytes(data)


def ignore(_piece: object) -> None: ...


def _settle() -> Clocks:
    gc.collect()
    return Clocks.now()


def _checked(meter: Meter, expected: int) -> None:
    if meter.count != expected:
        raise ValueError(f"{meter.count} came instead of {expected}")


def fast(url: str, client: Client, way: str, shape: str, chunks: int) -> Any:
    """One stream, as fast as it comes: per chunk of the whole stream, and of its length alone.

    A short one several times, as the clock is of no use for milliseconds.
    """
    read = client.ways[way]
    times = math.ceil(_ENOUGH / chunks)
    copies = EXTRA_CONSUMERS + 1 if way.startswith("shared") else 1

    async def run() -> Numbers:
        plan, warm_up, shortest = (
            Plan(shape, count) for count in (chunks, min(chunks, 500), FEWEST)
        )
        async with client.open(url) as session:
            for each in (warm_up, warm_up, shortest):
                await read(session, each.model(), ignore)
            begin = _settle()
            for _ in range(_SHORT_ONES):
                await read(session, shortest.model(), ignore)
            short = begin.until(Clocks.now(), _SHORT_ONES)
            meter = Meter(plan, client.unit, copies=copies * times)
            begin = _settle()
            for _ in range(times):
                await read(session, plan.model(), meter.take)
            numbers = begin.until(Clocks.now(), chunks * times)
        _checked(meter, times if way == "final" else meter.expected)
        beyond = (numbers["cpu_us"] * chunks - short["cpu_us"]) / max(1, chunks - FEWEST)
        return {
            **numbers,
            "cpu_beyond_us": beyond,
            "short_stream_us": short["cpu_us"],
            "stream_us": numbers["cpu_us"] * chunks,
        }

    return run


def paced(
    url: str,
    client: Client,
    way: str,
    *,
    streams: int,
    rate: float,
    chunks: int,
    shape: str = "text",
) -> Any:
    """Many streams at a steady rate: from when all are open to when all is there.

    A client that cannot keep up is cut off at last; its numbers are then those of what it did.
    """
    read = client.ways[way]
    due = (chunks - FEWEST) / rate

    async def run() -> Numbers:
        plan = Plan(shape, chunks, rate, streams, run=run_number())
        meter = Meter(plan, client.unit, latency=shape == "stamped")
        async with client.open(url) as session:
            await read(session, _WARM_UP.model(), ignore)
            gc.collect()
            async with anyio.create_task_group() as watch:
                watch.start_soon(_cut_off, watch.cancel_scope, meter, due)
                async with anyio.create_task_group() as tasks:
                    for _ in range(streams):
                        tasks.start_soon(read, session, plan.model(), meter.take)
                watch.cancel_scope.cancel()
        return _pace_kept(meter, plan, due)

    return run


def _pace_kept(meter: Meter, plan: Plan, due: float) -> Numbers:
    if not meter.marks:
        return {"gave_up_s": _OPENING}
    share = 1.0
    if meter.was_cut is None:
        meter.check()
    else:
        share = meter.was_cut
    begin, end = meter.marks[:2]
    chunks = max(1.0, share * plan.streams * (plan.chunks - FEWEST))
    took = end.wall - begin.wall - HEAD_START
    numbers = begin.until(end, chunks)
    numbers["late"] = took / due
    numbers["per_second"] = chunks / max(took, due)
    numbers["overloaded"] = float(took > due * (1 + _BEHIND) + _BEHIND)
    found = meter.latencies[plan.streams :]  # the first ones came while others were opened
    if len(found) > 1:
        numbers["latency_p50_us"] = median(found) / 1e3
        numbers["latency_p99_us"] = quantiles(found, n=100)[-1] / 1e3
    return numbers


async def _cut_off(scope: anyio.CancelScope, meter: Meter, due: float) -> None:
    with anyio.move_on_after(_OPENING):
        await meter.begun.wait()
    if meter.begun.is_set():
        await anyio.sleep(HEAD_START + due + _OVERTIME)
    meter.cut()
    scope.cancel()


def idle(
    url: str,
    client: Client,
    way: str,
    streams: int,
    *,
    apart: bool = False,
    settle: float = _SETTLE,
) -> Any:
    """The memory of streams that are open and have sent one token.

    With ``apart``, each is opened when the one before has its token. Those that open together need
    the memory for it at the same time, and the process keeps that.
    """
    read = client.ways[way]

    async def run() -> Numbers:
        # They wait for one more, which never comes.
        plan = Plan("text", 20, 1.0, streams + 1, run=run_number())
        meter = Meter(plan._replace(streams=streams), client.unit)
        came = anyio.Event()

        def take(piece: Any) -> None:
            meter.take(piece)
            came.set()

        async with client.open(url) as session, anyio.create_task_group() as tasks:
            for _ in range(5):
                await read(session, _WARM_UP.model(), ignore)
            before = await _memory(settle)
            for _ in range(streams):
                came = anyio.Event()
                tasks.start_soon(read, session, plan.model(), take)
                if apart:
                    await came.wait()
            await meter.begun.wait()
            after = await _memory(settle)
            tasks.cancel_scope.cancel()
        return {"kib": (after - before) / streams}

    return run


def one_after_another(
    url: str, client: Client, way: str, streams: int, settle: float = _SETTLE
) -> Any:
    """Whether memory stays where it was, after the first half, over many short streams."""
    read = client.ways[way]

    async def run() -> Numbers:
        plan = _SHORTEST
        async with client.open(url) as session:
            for _ in range(streams // 2):  # until the garbage collector has a rhythm
                await read(session, plan.model(), ignore)
            before = await _memory(settle)
            begin = Clocks.now()
            for _ in range(streams - streams // 2):
                await read(session, plan.model(), ignore)
            numbers = begin.until(Clocks.now(), streams - streams // 2)
            growth = await _memory(settle) - before
        return {"growth_kib": growth, "cpu_us": numbers["cpu_us"]}

    return run


async def _memory(settle: float) -> float:
    gc.collect()
    await anyio.sleep(settle)
    return _resident_kib()


def _resident_kib() -> float:
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 1024
    return float(subprocess.check_output(["/bin/ps", "-o", "rss=", "-p", str(os.getpid())]))


def run_number() -> int:
    """Tells apart what waits for each other, over all processes."""
    return next(_runs) + os.getpid() * 10_000


# The decoders alone.


def _decode_ours(pieces: Iterable[bytes]) -> int:
    from anyio_writer import SSEDecoder

    decoder = SSEDecoder()
    return sum(len(decoder.feed(piece)) for piece in pieces)


def _decode_httpx_sse(pieces: Iterable[bytes]) -> int:
    """As ``aiter_sse`` does it: bytes to text, text to lines, lines to events."""
    from httpx_sse._decoders import SSEDecoder, SSELineDecoder

    text = codecs.getincrementaldecoder("utf-8")()
    lines, decoder = SSELineDecoder(), SSEDecoder()
    return sum(
        decoder.decode(line.rstrip("\n")) is not None
        for piece in pieces
        for line in lines.decode(text.decode(piece))
    )


_DECODERS: Final = {"anyio-writer": _decode_ours, "httpx-sse": _decode_httpx_sse}


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def partial(name: str, deltas: int) -> Any:
    """What the JSON of an answer says so far, at every one of its deltas; per delta."""

    async def run() -> Numbers:
        text, size = json_answer(deltas)
        read = _parsed_ours if name == "anyio-writer" else _parsed_jiter
        gc.collect()
        spent, last = await read(text, size, deltas)
        if last != json.loads(text):
            raise ValueError("what was read last is not the answer")
        return {"cpu_us": spent / deltas / 1e3}

    return run


async def _parsed_ours(_text: str, _size: int, deltas: int) -> tuple[int, Any]:
    """``parsed`` of each event while the stream runs; the rest of the stream is not counted."""
    from anyio_writer import chat_stream_from

    spent, last = 0, None
    async with chat_stream_from(_body(deltas), response_format=answer_struct()) as stream:
        async for event in stream:
            if event.type == "content.delta":
                begin = time.thread_time_ns()
                last = event.parsed
                spent += time.thread_time_ns() - begin
    return spent, last


async def _body(deltas: int) -> AsyncGenerator[bytes]:
    for data in _cut(b"".join(payloads("json", deltas + FIRST)), _READ):
        yield data


async def _parsed_jiter(text: str, size: int, _deltas: int) -> tuple[int, Any]:
    from jiter import from_json

    spent, last, data = 0, None, text.encode()
    for end in range(size, len(data) + 1, size):
        begin = time.thread_time_ns()
        last = from_json(data[:end], partial_mode="trailing-strings")
        spent += time.thread_time_ns() - begin
    return spent, last


def decoder(name: str, stream: str, size: int, cut: int) -> Any:
    """An SSE decoder without I/O: per event of a typical stream, or one event of ``size`` bytes."""

    async def run() -> Numbers:
        if stream == "one event":
            events, passes = [b"data: %b\n\n" % (b"x" * size)], 1
        else:
            # One pass is over in a millisecond, while a processor may still be speeding up.
            events, passes = payloads("text", size), 30
        pieces = _cut(b"".join(events), cut) if cut else events
        decode = _DECODERS[name]
        decode(pieces)
        begin = _settle()
        count = sum(decode(pieces) for _ in range(passes))
        numbers = begin.until(Clocks.now(), len(events) * passes)
        if count != len(events) * passes:
            raise ValueError(f"{count} events came instead of {len(events) * passes}")
        return numbers

    return run


def measure(url: str, client: str, task: dict[str, Any]) -> Any:
    """The coroutine function for a task: what is measured, the way, and its arguments."""
    kind, way, arguments = task["measure"], task["way"], task["arguments"]
    if kind == "decoder":
        return decoder(client, **arguments)
    if kind == "partial":
        return partial(client, **arguments)
    return _MEASURES[kind](url, CLIENTS[client], way, **arguments)


_MEASURES: Final[dict[str, Callable[..., Any]]] = {
    "fast": fast,
    "paced": paced,
    "idle": idle,
    "one_after_another": one_after_another,
}
