"""What ``import anyio_writer`` brings along, and what it leaves for whoever needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import anyio_writer

NEEDED_ANYWAY: Final = "import httpx, msgspec, anyio"
LATER: Final = frozenset(
    {
        *("trio", "asyncio", "uvloop"),  # the event loop is the caller's choice
        *("httpx2", "pydantic", "attrs"),  # a caller who uses them has imported them
        *("rich", "typer"),  # the command
        "h11",  # the server for tests
        *("tenacity", "jiter", "docstring_parser"),  # a retry, a partial value, a tool
    }
)


def imported_by(code: str) -> set[str]:
    """The modules that a fresh process has imported after ``code``."""
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        cwd=Path(anyio_writer.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(ran.stdout.split())


@pytest.fixture(scope="module")
def anyway() -> set[str]:
    return imported_by(NEEDED_ANYWAY)


def test_the_import_brings_nothing_that_not_everybody_needs(anyway: set[str]) -> None:
    added = imported_by("import anyio_writer") - anyway
    assert "anyio_writer.client" in added
    assert not {name for name in added if name.partition(".")[0] in LATER}


@pytest.mark.parametrize(
    "module",
    ["asyncio", "docstring_parser", "h11", "httpx2", "jiter", "pydantic", "tenacity", "trio"],
)
def test_the_ones_that_are_left_for_later_would_be_noticed(module: str, anyway: set[str]) -> None:
    """None of them comes with the HTTP library, so the test above can fail for each."""
    assert module not in anyway
    assert module in imported_by(f"{NEEDED_ANYWAY}, {module}")
