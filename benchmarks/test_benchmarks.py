"""The benchmarks run, all of them, in sizes that prove nothing but that."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import anyio
import pytest

if sys.platform == "win32":
    pytest.skip("benchmarks want POSIX", allow_module_level=True)

from benchmarks import __main__ as program
from benchmarks import measures, processes, relay
from benchmarks.clients import CLIENTS, Client
from benchmarks.measures import paced
from benchmarks.report import overloaded, ratio, write_tables
from benchmarks.scenarios import SCENARIOS
from benchmarks.worker import bounded

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs/performance.md"

HAS_REDIS = shutil.which("redis-server") is not None
RUN = [name for name in SCENARIOS if name != "relay" or HAS_REDIS]
TAKING_PART = {client for name in RUN for client, _ in SCENARIOS[name].entrants}

RELAYS = {"assistant-stream", "XADD/XREAD"}
SDKS = ("writer-sdk", "openai", "anyio-writer, httpx2")
# At the same time, since nothing is measured: everything with the quick clients, every way of
# the others, and the other backends.
PARTS = (
    (
        *("--backends", "asyncio", "--clients", *(each for each in CLIENTS if each not in SDKS)),
        *("--only", *RUN),
    ),
    (
        *("--backends", "asyncio", "--clients", *SDKS),
        *("--only", "one", "short", "passed", "passed_paced", "typed", "many", "shared", "import"),
    ),
    (
        *("--backends", "uvloop", "trio", "--clients", "anyio-writer", "socket"),
        *("--only", "one", "many"),
    ),
)


def start(*arguments: object) -> subprocess.Popen[str]:
    """``python -m benchmarks``, not traced: what is measured must not be measured."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if "COV" not in name},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output(process: subprocess.Popen[str]) -> str:
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return printed


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of all parts, as of one run."""
    folder = tmp_path_factory.mktemp("benchmarks")
    paths = [folder / f"{number}.json" for number in range(len(PARTS))]
    running = [
        start("--smoke", *part, "--json", path) for part, path in zip(PARTS, paths, strict=True)
    ]
    for each in running:
        assert "| Client |" in output(each)
    merged, *others = [json.loads(path.read_text()) for path in paths]
    for other in others:
        merged["results"] += other["results"]
    return dict(merged)


def test_every_scenario_and_every_client_runs(found: dict[str, Any]) -> None:
    rows = found["results"]
    assert {row["scenario"] for row in rows} == set(RUN)
    assert {row["client"] for row in rows} == TAKING_PART
    assert set(CLIENTS) - TAKING_PART == (set() if HAS_REDIS else RELAYS)
    assert {row["backend"] for row in rows} == {"asyncio", "uvloop", "trio"}
    ways = {(row["client"], row["way"], row["case"].partition(", ")[0]) for row in rows}
    for name, scenario in ((name, SCENARIOS[name]) for name in RUN):
        mine = [row for row in rows if row["scenario"] == name]
        assert {row["case"] for row in mine} == set(scenario.cases["smoke"])
        for client, way in scenario.entrants:
            assert any(each[:2] == (client, way) for each in ways), (name, client, way)
        numbers = [sample[scenario.number] for row in mine for sample in row["rounds"]]
        assert all(isinstance(number, float) for number in numbers)


def test_the_page_and_the_chart_are_made_of_the_results(
    found: dict[str, Any], tmp_path: Path
) -> None:
    results = [tmp_path / "result.json", tmp_path / "more.json"]  # of two runs
    document, chart = tmp_path / "performance.md", tmp_path / "performance.svg"
    for number, path in enumerate(results):
        path.write_text(json.dumps({**found, "results": found["results"][number::2]}))
    document.write_text(DOCUMENT.read_text(encoding="utf-8"), encoding="utf-8")
    output(start("--report", *results, "--document", document, "--chart", chart))
    text = document.read_text(encoding="utf-8")
    tables = dict(re.findall(r"<!-- (\w+) -->\n(.*?)<!-- end -->", text, re.DOTALL))
    assert set(tables) == {"machine", "clients", "service", *SCENARIOS}
    for name, table in tables.items():
        if name == "machine" or (name in SCENARIOS and name not in RUN):
            continue
        assert table.startswith("\n| "), name
        heads, rules, *rows = [line.count("|") for line in table.strip().splitlines()]
        assert rows, name
        assert {rules, *rows} == {heads}, name
    assert "a smoke run" in tables["machine"]
    assert os.uname().nodename not in text
    bars = ET.parse(chart).getroot().findall("{http://www.w3.org/2000/svg}rect")  # noqa: S314
    drawn = [
        row for row in found["results"] if (row["scenario"], row["backend"]) == ("one", "asyncio")
    ]
    assert len(bars) == len(drawn)


@pytest.mark.skipif(not HAS_REDIS, reason="Debian's redis-server is not installed")
def test_the_relay_is_measured_whole(found: dict[str, Any]) -> None:
    rows = [row for row in found["results"] if row["scenario"] == "relay"]
    assert {row["client"] for row in rows} == {"anyio-writer", *RELAYS}
    for row in rows:
        (sample,) = row["rounds"]
        assert 0 < sample["latency_p50_us"] <= sample["latency_p99_us"]
        assert sample["reader_cpu_us"] > 0
        assert sample["producer_cpu_us"] > 0
        assert 1 < sample["stored"] < 3


def test_what_is_read_is_shared_by_at_most_four_processes() -> None:
    keys = [str(number) for number in range(10)]
    for count in (1, 3, 10):
        parts = relay.share(keys[:count])
        assert len(parts) == min(count, 4)
        assert sorted(key for part in parts for key in part) == keys[:count]


def test_a_ratio_to_a_sum() -> None:
    mine, base = ({"rounds": [{"a": 6.0, "b": 1.0}]}, {"rounds": [{"a": 2.0}]})
    assert ratio(mine, base, "a") == 3
    assert ratio(mine, base, "a", plus="b") == 2


def test_without_redis_the_relay_fails_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay.shutil, "which", lambda _: None)
    task = {"measure": "relay", "arguments": {}, "limit": 60}
    with processes.Processes() as running:
        found = running.run_relay("anyio-writer", "asyncio", task)
    assert found == {"error": "there is neither redis-server nor valkey-server"}


# What goes wrong is a result, and loses no other.


def client_that(read: Any) -> Client:
    """A client without a server: ``read`` is the way ``iterate``."""

    @asynccontextmanager
    async def opening(_url: str) -> Any:
        yield None

    return Client("made up", opening, {"iterate": read}, "")


async def test_a_client_that_cannot_keep_up_is_cut_off_and_said_to_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measures, "_OVERTIME", 0.5)

    async def half_of_it(_session: object, model: str, take: Any) -> None:
        if json.loads(model)[2]:  # not the warm-up
            for _ in range(1 + 10):
                take("piece")
            await anyio.sleep_forever()

    run = paced("", client_that(half_of_it), "iterate", streams=4, rate=1000.0, chunks=23)
    sample = await run()
    assert sample["overloaded"] == 1
    assert sample["late"] > 20
    assert sample["per_second"] < 4 * 10 / 0.5 * 1.1
    row = {"scenario": "many", "case": "", "backend": "", "client": "openai", "way": "iterate"}
    assert overloaded({**row, "rounds": [sample]})
    assert ", overloaded |" in write_tables("many", [{**row, "rounds": [sample]}])


async def test_a_client_that_cannot_open_its_streams_gives_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measures, "_OPENING", 0.01)

    async def never(_session: object, model: str, _take: Any) -> None:
        if json.loads(model)[2]:  # not the warm-up
            await anyio.sleep_forever()

    run = paced("", client_that(never), "iterate", streams=4, rate=1000.0, chunks=23)
    assert await run() == {"gave_up_s": 0.01}


async def test_a_client_that_loses_something_is_an_error() -> None:
    async def too_little(_session: object, _model: str, take: Any) -> None:
        take("piece")

    run = paced("", client_that(too_little), "iterate", streams=1, rate=1000.0, chunks=5)
    with pytest.raises(ValueError, match="1 came instead of 3"):
        await run()


async def test_a_client_that_takes_for_ever_gives_up() -> None:
    assert await bounded(anyio.sleep_forever, 0.01) == {"gave_up_s": 0.01}
    row = {"scenario": "one", "case": "", "backend": "", "client": "openai", "way": "iterate"}
    assert "| above 0.01 s |" in write_tables("one", [{**row, "rounds": [{"gave_up_s": 0.01}]}])
    assert "| failed |" in write_tables("one", [{**row, "rounds": [{"error": "x"}]}])


def test_a_worker_that_is_stuck_or_dead_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_GRACE", 0.2)
    arguments = {"stream": "typical", "size": 10, "cut": 0}
    task = {"measure": "decoder", "way": "decoder", "arguments": arguments, "limit": 60}
    who = ("anyio-writer", "asyncio")
    with processes.Processes() as running:
        assert "cpu_us" in running.run(*who, task)
        worker = running._workers[who]  # noqa: SLF001
        worker._process.send_signal(signal.SIGSTOP)  # noqa: SLF001
        assert running.run(*who, {**task, "limit": 0}) == {"error": "no answer in 0.2 s"}
        assert worker.ask(task) == {"error": "the process has died"}
        assert "cpu_us" in running.run(*who, task)


def test_what_was_measured_is_kept_when_the_rest_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measured_once(*_: object) -> Iterator[list[dict[str, Any]]]:
        yield [{"scenario": "one", "rounds": []}]
        raise KeyboardInterrupt

    path = tmp_path / "result.json"
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--smoke", "--json", str(path)])
    monkeypatch.setattr(program, "measure", measured_once)
    monkeypatch.setattr(program, "Processes", nullcontext)
    with pytest.raises(KeyboardInterrupt):
        program.main()
    assert json.loads(path.read_text())["results"] == [{"scenario": "one", "rounds": []}]


def test_packages_that_are_missing_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_PACKAGES", ("httpx", "a-package-that-nobody-has"))

    assert set(program.machine()["versions"]) == {"anyio-writer", "httpx"}
