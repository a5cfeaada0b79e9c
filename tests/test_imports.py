"""What ``import anyio_writer`` brings along, and what it leaves for whoever needs it."""

from __future__ import annotations

import ast
import importlib
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

import anyio_writer
from anyio_writer.request import validation

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

OUR_OWN_LATER: Final = (
    "anyio_writer.request.params",
    "anyio_writer.structured",
)  # types, and tools


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
    assert not {name for name in added if name.startswith(OUR_OWN_LATER)}


@pytest.mark.parametrize(
    "module",
    ["asyncio", "docstring_parser", "h11", "httpx2", "jiter", "pydantic", "tenacity", "trio"],
)
def test_the_ones_that_are_left_for_later_would_be_noticed(module: str, anyway: set[str]) -> None:
    """None of them comes with the HTTP library, so the test above can fail for each."""
    assert module not in anyway
    assert module in imported_by(f"{NEEDED_ANYWAY}, {module}")


# The names that come when they are asked for.

SOURCE: Final = Path(anyio_writer.__file__).read_text(encoding="utf-8")
LAZY: Final[dict[str, str]] = vars(anyio_writer)["_LATER"]


def re_exported(*, if_type_checking: bool) -> dict[str, str]:
    """What ``__init__`` imports for others, as a type checker reads it: names and modules."""
    body = ast.parse(SOURCE).body
    if if_type_checking:
        (guarded,) = [
            node for node in body if isinstance(node, ast.If) and "TYPE" in ast.unparse(node.test)
        ]
        body = guarded.body
    return {
        name.asname: f".{node.module}"
        for node in body
        if isinstance(node, ast.ImportFrom) and node.level
        for name in node.names
        if name.asname
    }


def test_type_checkers_see_the_names_that_come_later() -> None:
    assert re_exported(if_type_checking=True) == LAZY
    assert len(LAZY) > 10


def test_all_names_every_public_name_once() -> None:
    exported = {**re_exported(if_type_checking=False), **LAZY}
    public = {name for name in exported if not name.startswith("_")}
    assert sorted(anyio_writer.__all__) == sorted(public)


@pytest.mark.parametrize("name", LAZY)
def test_a_name_that_comes_later_is_the_one_of_its_module(name: str) -> None:
    module = importlib.import_module(LAZY[name], "anyio_writer")
    assert getattr(anyio_writer, name) is getattr(module, name)
    assert vars(anyio_writer)[name] is getattr(module, name)  # the second time costs nothing


@pytest.mark.parametrize("name", {module: name for name, module in LAZY.items()}.values())
def test_it_can_be_imported_first(name: str) -> None:
    assert fresh(f"from anyio_writer import {name}; print('there')") == "there\n"


def test_dir_tells_of_them_before_they_are_there() -> None:
    code = "import anyio_writer; print(*dir(anyio_writer)); print(*vars(anyio_writer))"
    told, there = (line.split() for line in fresh(code).splitlines())
    assert len(told) == len({*told})
    assert {*LAZY, *there} == {*told}
    assert {*LAZY} - {*there}


def test_a_star_import_brings_them() -> None:
    brought = fresh("from anyio_writer import *; print(*[n for n in globals() if n[0] != '_'])")
    assert sorted(brought.split()) == sorted(anyio_writer.__all__)


@pytest.mark.parametrize("name", ["FunctionTool", "GraphTool", "ResponseType"])
def test_classes_that_come_later_can_be_pickled(name: str) -> None:
    """In a process that has not asked for them yet, too."""
    pickled = pickle.dumps(getattr(anyio_writer, name))
    shown = fresh(f"import anyio_writer, pickle; print(pickle.loads({pickled!r}).__name__)")
    assert shown == f"{name}\n"


def test_a_name_that_is_not_there_is_an_error_as_of_any_module() -> None:
    module: Any = anyio_writer
    with pytest.raises(
        AttributeError, match="module 'anyio_writer' has no attribute 'Mesage'"
    ) as e:
        _ = module.Mesage
    assert (e.value.name, e.value.obj) == ("Mesage", anyio_writer)  # what suggestions are made of
    assert not hasattr(anyio_writer, "Mesage")
    with pytest.raises(ImportError, match="cannot import name 'Mesage' from 'anyio_writer'"):
        exec("from anyio_writer import Mesage", {})  # noqa: S102


def test_the_check_of_a_request_knows_the_fields_that_its_type_has() -> None:
    """Two lists, so that a request can be checked without its type."""
    fields = anyio_writer.ChatRequest.__annotations__.keys() | {"response_format"}
    assert fields == validation._FIELDS
