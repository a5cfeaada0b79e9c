"""``python -m benchmarks``: measure, or turn what was measured into tables and a chart."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from anyio_writer import __version__

from .clients import CLIENTS
from .processes import Processes, import_time
from .report import update_document, write_chart, write_tables
from .scenarios import ALL, LIMITS, SCENARIOS, Mode, Scenario

_DOCS: Final = Path(__file__).parent.parent / "docs"
_PACKAGES: Final = (
    *("writer-sdk", "openai", "httpx-sse", "httpx", "httpx2", "httpcore", "h11", "anyio", "trio"),
    *("uvloop", "msgspec", "pydantic", "jiter", "opentelemetry-sdk"),
    *("coredis", "redis", "assistant-stream"),
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="minutes instead of half an hour")
    sizes.add_argument("--smoke", action="store_true", help="only whether everything runs")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="SCENARIO", default=[])
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, metavar="CLIENT", default=[])
    parser.add_argument("--backends", nargs="+", choices=ALL, metavar="BACKEND", default=[])
    parser.add_argument("--rounds", type=int, help="instead of each scenario's own number")
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument(
        "--report", nargs="+", type=Path, help="measure nothing: write these results up"
    )
    parser.add_argument("--document", type=Path, default=_DOCS / "performance.md")
    parser.add_argument("--chart", type=Path, default=_DOCS / "performance.svg")
    return parser.parse_args()


def machine() -> dict[str, Any]:
    """What the numbers depend on, and nothing that names the machine."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {"anyio-writer": __version__} | dict(_versions()),
    }


def _versions() -> Iterator[tuple[str, str]]:
    """Of what is installed; a client whose package is not fails by itself."""
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            yield name, version(name)


def _processor() -> str:
    found = Path("/proc/cpuinfo")
    lines = found.read_text().splitlines() if found.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())


def measure(
    processes: Processes, name: str, scenario: Scenario, mode: Mode, asked: argparse.Namespace
) -> Iterator[list[dict[str, Any]]]:
    """Every case on every backend: round after round, in each round everybody once."""
    wanted = [each for each in scenario.entrants if each[0] in (asked.clients or CLIENTS)]
    backends = [each for each in scenario.backends if each in (asked.backends or ALL)]
    run = _runner(processes, scenario, mode)
    for case, arguments in scenario.cases[mode].items():
        entrants = [each for each in wanted if (each[0], case) not in scenario.too_slow]
        for backend in backends:
            if run == processes.run:
                processes.prepare([client for client, _ in entrants], backend)
            rounds: list[list[Any]] = [[] for _ in entrants]
            for number in range(asked.rounds or scenario.rounds[mode]):
                for (client, way), samples in _in_turns(
                    list(zip(entrants, rounds, strict=True)), number
                ):
                    task = {"measure": scenario.measure, "way": way, "arguments": arguments}
                    samples.append(run(client, backend, task | {"limit": LIMITS[mode]}))
            what = {"scenario": name, "case": case, "backend": backend}
            yield [
                {**what, "client": client, "way": way, "rounds": samples}
                for (client, way), samples in zip(entrants, rounds, strict=True)
            ]


def _in_turns(everybody: list[Any], number: int) -> list[Any]:
    """Each round begins with the next one, so that nobody always comes behind the same other."""
    start = number % max(1, len(everybody))
    return everybody[start:] + everybody[:start]


def _runner(processes: Processes, scenario: Scenario, mode: Mode) -> Any:
    if scenario.measure == "import":
        return lambda _client, _backend, task: import_time(task["way"])
    if scenario.measure == "relay":
        return processes.run_relay
    return processes.run_fresh if scenario.fresh and mode != "smoke" else processes.run


def save(path: Path, found: dict[str, Any]) -> None:
    """Write the results so far; whoever interrupts a run has a whole file."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(found, indent=1) + "\n")
    part.replace(path)


def main() -> int:
    asked = parse()
    if asked.report:
        found, *others = [json.loads(path.read_text()) for path in asked.report]
        for other in others:
            found["results"] += other["results"]
        update_document(asked.document, found)
        write_chart(asked.chart, found)
        return 0
    mode: Mode = "smoke" if asked.smoke else "quick" if asked.quick else "full"
    found = {"mode": mode, "machine": machine(), "results": []}
    with Processes() as processes:
        for name in asked.only or SCENARIOS:
            begin = time.monotonic()
            for rows in measure(processes, name, SCENARIOS[name], mode, asked):
                found["results"] += rows
                if asked.json:
                    save(asked.json, found)
            print(write_tables(name, found["results"]))
            print(f"({time.monotonic() - begin:.0f} s)\n", flush=True)
    wrong = [
        (row["scenario"], row["case"], row["backend"], row["client"], row["way"], sample["error"])
        for row in found["results"]
        for sample in row["rounds"]
        if "error" in sample
    ]
    for each in wrong:
        print("FAILED:", *each, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
