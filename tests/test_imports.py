"""What ``import anyio_writer`` brings along, and what it leaves for whoever needs it."""

from __future__ import annotations

import ast
import pickle
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
        "docstring_parser",  # a tool
    }
)


def fresh(code: str) -> str:
    """What a fresh process prints."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=Path(anyio_writer.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return ran.stdout


def imported_by(code: str) -> set[str]:
    """The modules that a fresh process has imported after ``code``."""
    return set(fresh(f"{code}\nimport sys\nprint(*sys.modules)").split())


@pytest.fixture(scope="module")
def anyway() -> set[str]:
    return imported_by(NEEDED_ANYWAY)


def test_the_import_brings_nothing_that_not_everybody_needs(anyway: set[str]) -> None:
    added = imported_by("import anyio_writer") - anyway
    assert "anyio_writer.client" in added
    assert not {name for name in added if name.partition(".")[0] in LATER}


def test_a_relay_is_imported_without_its_client() -> None:
    added = imported_by("from anyio_writer.relay import MemoryRelay, RedisRelay")
    assert "anyio_writer.relay.redis" in added
    assert not {name for name in added if name.partition(".")[0] in {"coredis", "beartype"}}
    assert "anyio_writer.relay" not in imported_by("import anyio_writer")


@pytest.mark.parametrize(
    "module",
    ["asyncio", "docstring_parser", "h11", "httpx2", "pydantic", "trio"],
)
def test_the_ones_that_are_left_for_later_would_be_noticed(module: str, anyway: set[str]) -> None:
    """None of them comes with the HTTP library, so the test above can fail for each."""
    assert module not in anyway
    assert module in imported_by(f"{NEEDED_ANYWAY}, {module}")


SOURCE: Final = Path(anyio_writer.__file__).read_text(encoding="utf-8")


def re_exported() -> set[str]:
    """What ``__init__`` imports for others, as a type checker reads it."""
    return {
        name.asname
        for node in ast.parse(SOURCE).body
        if isinstance(node, ast.ImportFrom) and node.level
        for name in node.names
        if name.asname
    }


def test_all_names_every_public_name_once() -> None:
    public = {name for name in re_exported() if not name.startswith("_")}
    assert len(public) > 80
    assert sorted(anyio_writer.__all__) == sorted(public)


def test_a_star_import_brings_them() -> None:
    brought = fresh("from anyio_writer import *; print(*[n for n in globals() if n[0] != '_'])")
    assert sorted(brought.split()) == sorted(anyio_writer.__all__)


@pytest.mark.parametrize("name", ["FunctionTool", "GraphTool", "ResponseType"])
def test_classes_can_be_pickled(name: str) -> None:
    """In a process that has not imported the package yet, too."""
    pickled = pickle.dumps(getattr(anyio_writer, name))
    shown = fresh(f"import pickle; print(pickle.loads({pickled!r}).__name__)")
    assert shown == f"{name}\n"
