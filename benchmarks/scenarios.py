"""What is compared: a table. Sizes and rounds of the full run, the quick one, the smoke test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from .bodies import FEWEST

Mode: TypeAlias = Literal["full", "quick", "smoke"]
Case: TypeAlias = dict[str, Any]


class Column(NamedTuple):
    """A further number for the report."""

    number: str
    heading: str
    ratio_to: str = ""
    """The client that it is shown as a ratio to."""
    plus: str = ""
    """What of the row itself is added to what it is a ratio to."""


LIMITS: Final[dict[Mode, float]] = {"full": 300, "quick": 120, "smoke": 60}
"""Seconds that a client has for one measurement; one that takes longer has no number."""
ALL: Final = ("asyncio", "uvloop", "trio")
_SDKS: Final = ("writer-sdk", "openai")
_EVERYONE: Final = (
    ("anyio-writer", "iterate"),
    ("anyio-writer, httpx2", "iterate"),
    ("writer-sdk", "iterate"),
    ("openai", "iterate"),
    ("httpx-sse", "iterate"),
    ("httpx", "iterate"),
    ("socket", "iterate"),
)


@dataclass(frozen=True)
class Scenario:
    """One comparison: everybody in ``entrants``, in turns, on every backend and case."""

    title: str
    measure: str
    number: str
    """The number that ratios are made of."""
    entrants: tuple[tuple[str, str], ...]
    cases: dict[Mode, dict[str, Case]]
    rounds: dict[Mode, int]
    backends: tuple[str, ...] = ("asyncio",)
    fresh: bool = False
    """Whether every measurement needs a process that has done nothing yet."""
    too_slow: tuple[tuple[str, str], ...] = ()
    """Clients and cases that would take minutes."""
    unit: str = "µs"
    columns: tuple[Column, ...] = ()
    baselines: tuple[str, ...] = ("httpx", "writer-sdk")
    """The clients that all are compared with."""
    way: str = "Read by"
    """What the ways of its entrants are."""
    grows: bool = False
    """Whether cases that begin alike differ in length, and are to be compared with the first."""


def _paced(shape: str, *sizes: tuple[int, float, float]) -> dict[str, Case]:
    """Streams, chunks a second for each, seconds."""
    return {
        f"{streams} at {rate:g}/s": {
            "shape": shape,
            "streams": streams,
            "rate": rate,
            "chunks": round(rate * seconds) + 3,
        }
        for streams, rate, seconds in sizes
    }


_PASSED: Final = (
    "anyio-writer",
    "anyio-writer, httpx2",
    "anyio-writer, httpx",
    "anyio-writer, StreamingTransport",
)
_PACE: Final = (
    Column("late", "time taken / time due"),
    Column("per_second", "chunks/s"),
)


def _opened(streams: int, **more: Any) -> dict[str, Case]:
    """Streams that are all opened at once, or each when the one before has its first token."""
    return {
        f"{streams}, {how}": {"streams": streams, "apart": apart, **more}
        for how, apart in (("all at once", False), ("one after another", True))
    }


def _lengths(*lengths: int, shapes: tuple[str, ...] = ("text", "logprobs", "tool call")) -> Any:
    return {
        f"{shape}, {chunks:,}": {"shape": shape, "chunks": chunks}
        for shape in shapes
        for chunks in lengths
    }


def _relayed(*cases: tuple[int, int, float, float]) -> dict[str, Case]:
    """Answers, readers of each, chunks a second for each answer, seconds."""
    return {
        f"{answers} answer{'s' * (answers > 1)}, {readers} reader{'s' * (readers > 1)}": {
            "answers": answers,
            "readers": readers,
            "rate": rate,
            "seconds": seconds,
        }
        for answers, readers, rate, seconds in cases
    }


def _decoder(large: int, typical: int) -> dict[str, Case]:
    size = f"{large // 2**20} MiB" if large >= 2**20 else f"{large // 1024} KiB"
    return {
        f"one event of {size}, whole": {"stream": "one event", "size": large, "cut": large + 8},
        f"one event of {size}, in KiBs": {"stream": "one event", "size": large, "cut": 1024},
        f"{typical:,} chunks, one by one": {"stream": "typical", "size": typical, "cut": 0},
        f"{typical:,} chunks, in 64 KiB": {"stream": "typical", "size": typical, "cut": 65536},
    }


SCENARIOS: Final[dict[str, Scenario]] = {
    "one": Scenario(
        "One stream from a fast server",
        "fast",
        "cpu_us",
        (
            ("anyio-writer", "batches"),
            ("anyio-writer", "final"),
            ("writer-sdk", "final"),
            ("openai", "final"),
            *_EVERYONE,
        ),
        {
            "full": _lengths(2000, shapes=("text",)),
            "quick": _lengths(2000, shapes=("text",)),
            "smoke": _lengths(50, shapes=("text",)),
        },
        {"full": 9, "quick": 2, "smoke": 1},
        ALL,
    ),
    "short": Scenario(
        "A stream of one token, on a connection that is there",
        "fast",
        "stream_us",
        (("anyio-writer", "final"), *(each for each in _EVERYONE if each[0] != "socket")),
        {mode: _lengths(FEWEST, shapes=("text",)) for mode in ("full", "quick", "smoke")},
        {"full": 9, "quick": 3, "smoke": 1},
        ALL,
    ),
    "passed": Scenario(
        "A client that is passed in, on a fast stream",
        "fast",
        "cpu_us",
        (
            *((client, way) for client in _PASSED for way in ("iterate", "batches")),
            ("httpx", "iterate"),
        ),
        {
            "full": _lengths(2000, shapes=("text",)),
            "quick": _lengths(2000, shapes=("text",)),
            "smoke": _lengths(50, shapes=("text",)),
        },
        {"full": 7, "quick": 2, "smoke": 1},
        ("asyncio", "trio"),
        baselines=("httpx", "anyio-writer"),
    ),
    "passed_paced": Scenario(
        "A client that is passed in, at the pace of a model",
        "paced",
        "cpu_us",
        (*((client, "iterate") for client in _PASSED), ("httpx", "iterate")),
        {
            "full": _paced("text", (100, 50, 2)),
            "quick": _paced("text", (100, 20, 1)),
            "smoke": _paced("text", (5, 500, 0.02)),
        },
        {"full": 3, "quick": 1, "smoke": 1},
        ("asyncio", "trio"),
        baselines=("httpx", "anyio-writer"),
        columns=_PACE,
    ),
    "length": Scenario(
        "Longer and longer streams",
        "fast",
        "cpu_beyond_us",
        _EVERYONE,
        {
            "full": _lengths(500, 2000, 8000, 100_000),
            "quick": _lengths(500, 2000),
            "smoke": _lengths(20),
        },
        {"full": 3, "quick": 1, "smoke": 1},
        too_slow=tuple(
            (each, case)
            for each in _SDKS
            for case in ("logprobs, 8,000", "logprobs, 100,000", "tool call, 100,000")
        ),
        grows=True,
    ),
    "typed": Scenario(
        "JSON that is to have a type",
        "fast",
        "cpu_beyond_us",
        (
            ("anyio-writer", "typed"),
            ("anyio-writer, httpx2", "typed"),
            ("openai", "typed"),
            ("httpx-sse", "iterate"),
            ("httpx", "iterate"),
        ),
        {
            "full": _lengths(500, 2000, 8000, 100_000, shapes=("json",)),
            "quick": _lengths(500, 2000, shapes=("json",)),
            "smoke": _lengths(20, shapes=("json",)),
        },
        {"full": 3, "quick": 1, "smoke": 1},
        too_slow=(("openai", "json, 100,000"),),
        baselines=("httpx", "openai"),
        grows=True,
    ),
    "parsed": Scenario(
        "What JSON says so far, at every delta",
        "partial",
        "cpu_us",
        (("anyio-writer", "event.parsed"), ("jiter", "from_json")),
        {
            # 6 characters each; what all of it costs grows with the square of the length.
            "full": {f"{6 * deltas // 1000} KB": {"deltas": deltas} for deltas in (1667, 16_667)},
            "quick": {f"{6 * deltas // 1000} KB": {"deltas": deltas} for deltas in (1667,)},
            "smoke": {"1 KB": {"deltas": 167}},
        },
        {"full": 3, "quick": 2, "smoke": 1},
        baselines=("jiter",),
    ),
    "many": Scenario(
        "Many streams at the pace of a model",
        "paced",
        "cpu_us",
        _EVERYONE,
        {
            "full": _paced("text", (100, 50, 2)),
            "quick": _paced("text", (100, 20, 1)),
            "smoke": _paced("text", (5, 500, 0.02)),
        },
        {"full": 3, "quick": 1, "smoke": 1},
        ALL,
        columns=_PACE,
    ),
    "thousand": Scenario(
        "A thousand streams",
        "paced",
        "cpu_us",
        _EVERYONE,
        {
            "full": _paced("text", (1000, 10, 1)),
            "quick": _paced("text", (200, 5, 1)),
            "smoke": _paced("text", (10, 200, 0.05)),
        },
        {"full": 2, "quick": 1, "smoke": 1},
        ("asyncio", "trio"),
        columns=_PACE,
    ),
    "shared": Scenario(
        "Seven extra consumers that see every event",
        "fast",
        "cpu_us",
        (
            ("anyio-writer", "shared, batches"),
            ("anyio-writer", "shared"),
            ("writer-sdk", "shared"),
            ("openai", "shared"),
            ("httpx", "iterate"),
        ),
        {
            "full": _lengths(2000, shapes=("text",)),
            "quick": _lengths(2000, shapes=("text",)),
            "smoke": _lengths(50, shapes=("text",)),
        },
        {"full": 7, "quick": 1, "smoke": 1},
        ("asyncio", "trio"),
    ),
    "observers": Scenario(
        "Observers of streams at the pace of a model",
        "paced",
        "cpu_us",
        tuple(
            (client, "iterate")
            for client in (
                *("anyio-writer", "empty observer", "OpenTelemetry, no SDK", "OpenTelemetry"),
            )
        ),
        {
            "full": _paced("text", (100, 50, 2)),
            "quick": _paced("text", (100, 20, 1)),
            "smoke": _paced("text", (5, 500, 0.02)),
        },
        {"full": 5, "quick": 1, "smoke": 1},
        ("asyncio", "trio"),
        columns=_PACE,
        baselines=("anyio-writer",),
    ),
    "latency": Scenario(
        "From the server's write of a token to its consumer",
        "paced",
        "latency_p50_us",
        (*_EVERYONE, ("httpx, two tasks", "iterate")),
        {
            "full": _paced("stamped", (1, 200, 2), (100, 20, 2)),
            "quick": _paced("stamped", (1, 200, 0.5), (100, 20, 0.5)),
            "smoke": _paced("stamped", (1, 500, 0.02)),
        },
        {"full": 3, "quick": 1, "smoke": 1},
        ALL,
        columns=(
            Column("latency_p99_us", "99th percentile, µs"),
            Column("latency_p99_us", "to httpx", ratio_to="httpx"),
        ),
    ),
    "idle": Scenario(
        "Memory of an open stream",
        "idle",
        "kib",
        _EVERYONE,
        {
            "full": _opened(500),
            "quick": _opened(200),
            "smoke": _opened(5, settle=0),
        },
        {"full": 2, "quick": 1, "smoke": 1},
        ("asyncio", "trio"),
        fresh=True,
        unit="KiB",
    ),
    "sequence": Scenario(
        "One short stream after another",
        "one_after_another",
        "cpu_us",
        tuple(each for each in _EVERYONE if each[0] not in ("httpx-sse", "socket")),
        {
            "full": {"10,000 streams": {"streams": 10_000}},
            "quick": {"300 streams": {"streams": 300}},
            "smoke": {"10 streams": {"streams": 10, "settle": 0}},
        },
        {"full": 1, "quick": 1, "smoke": 1},
        fresh=True,
        columns=(Column("growth_kib", "growth of the process over the second half, KiB"),),
    ),
    "import": Scenario(
        "Import",
        "import",
        "import_us",
        (
            ("anyio-writer", "anyio_writer"),
            ("writer-sdk", "writerai"),
            ("openai", "openai"),
            ("httpx-sse", "httpx_sse"),
            ("httpx", "httpx"),
            ("httpx", "httpx, msgspec, anyio"),
        ),
        {mode: {"python -X importtime": {}} for mode in ("full", "quick", "smoke")},
        {"full": 10, "quick": 3, "smoke": 1},
        columns=(Column("modules", "modules"),),
        way="import",
    ),
    "decoder": Scenario(
        "The decoder of server-sent events alone",
        "decoder",
        "cpu_us",
        (("anyio-writer", "decoder"), ("httpx-sse", "decoder")),
        {
            "full": _decoder(8 * 2**20, 2000),
            "quick": _decoder(8 * 2**20, 2000),
            "smoke": _decoder(64 * 1024, 50),
        },
        {"full": 15, "quick": 3, "smoke": 1},
        baselines=("httpx-sse",),
        grows=True,
    ),
    "relay": Scenario(
        "Through Redis: from the server's write of a token to a reader in another process",
        "relay",
        "latency_p50_us",
        (
            ("anyio-writer", "relay"),
            ("assistant-stream", "resumable"),
            ("XADD/XREAD", "bare loop"),
        ),
        {
            "full": _relayed((1, 1, 40, 15), (1, 10, 40, 15), (1, 100, 10, 20), (100, 3, 4, 20)),
            "quick": _relayed((1, 1, 40, 3), (1, 10, 40, 3), (100, 3, 4, 6)),
            "smoke": _relayed((2, 3, 200, 0.1)),
        },
        {"full": 3, "quick": 1, "smoke": 1},
        baselines=("XADD/XREAD",),
        columns=(
            Column("latency_p99_us", "99th percentile, µs"),
            Column("reader_cpu_us", "CPU of a reader, µs a chunk"),
            Column("reader_cpu_us", "to XREAD + reading", "XADD/XREAD", plus="file_cpu_us"),
            Column("producer_cpu_us", "CPU of the producer, µs a chunk"),
            Column("producer_cpu_us", "to XADD", "XADD/XREAD"),
            Column("stored", "memory in Redis / payload"),
        ),
        way="By",
    ),
}
