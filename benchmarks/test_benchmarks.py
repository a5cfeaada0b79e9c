"""The benchmarks run, all of them, in sizes that prove nothing but that."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="benchmarks want POSIX")

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs/performance.md"


def run(*arguments: object) -> str:
    """``python -m benchmarks``, not traced: what is measured must not be measured."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if "COV" not in name},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("benchmarks") / "result.json"
    run("--smoke", "--backends", "asyncio", "--json", path)
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["results"]
    return rows


def test_every_scenario_and_every_client_runs(results: Path) -> None:
    from benchmarks.clients import CLIENTS
    from benchmarks.scenarios import SCENARIOS

    rows = rows_of(results)
    assert {row["scenario"] for row in rows} == set(SCENARIOS)
    assert {row["client"] for row in rows} == set(CLIENTS)
    for name, scenario in SCENARIOS.items():
        mine = [row for row in rows if row["scenario"] == name]
        assert {(row["client"], row["way"]) for row in mine} == set(scenario.entrants)
        assert {row["case"] for row in mine} == set(scenario.cases["smoke"])
        numbers = [sample[scenario.number] for row in mine for sample in row["rounds"]]
        assert all(isinstance(number, float) for number in numbers)


@pytest.mark.parametrize("backend", ["uvloop", "trio"])
def test_the_other_backends_run(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    only = ("--only", "one", "many", "--clients", "anyio-writer", "httpx-sse", "socket")
    run("--smoke", "--backends", backend, *only, "--json", path)
    assert {row["backend"] for row in rows_of(path)} == {backend}


def test_the_page_and_the_chart_are_made_of_the_results(results: Path, tmp_path: Path) -> None:
    from benchmarks.scenarios import SCENARIOS

    document, chart = tmp_path / "performance.md", tmp_path / "performance.svg"
    document.write_text(DOCUMENT.read_text(encoding="utf-8"), encoding="utf-8")
    run("--report", results, "--document", document, "--chart", chart)
    text = document.read_text(encoding="utf-8")
    tables = dict(re.findall(r"<!-- (\w+) -->\n(.*?)<!-- end -->", text, re.DOTALL))
    assert set(tables) == {"machine", "clients", *SCENARIOS}
    for name, table in tables.items():
        assert name == "machine" or table.startswith("\n| "), name
    assert "a smoke run" in tables["machine"]
    assert os.uname().nodename not in text
    bars = ET.parse(chart).getroot().findall("{http://www.w3.org/2000/svg}rect")  # noqa: S314
    drawn = [row for row in rows_of(results) if row["scenario"] == "one"]
    assert len(bars) == len(drawn)
