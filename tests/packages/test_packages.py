"""The wheel and the sdist: what is in them, what an index makes of them, and that they work."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent.parent
# Those that need neither the extras nor much time; the others run on the wheel.
SDIST_TESTS: Final = (
    "tests/protocol/test_rules.py",
    "tests/protocol/test_sse_decoder.py",
    "tests/protocol/test_state_machine.py",
    "tests/streaming/test_endings.py",
)
PROGRAM: Final = """\
import sys

import anyio

from anyio_writer import open_chat_stream
from anyio_writer.testing import ChatServer, text_reply


async def main(url):
    async with open_chat_stream(
        api_key="any", base_url=url, model="m", messages=[{"role": "user", "content": "Hi"}]
    ) as stream:
        return await stream.get_final_text()


for backend in ("asyncio", "trio"):
    with ChatServer(text_reply("It works.")) as server:
        print(anyio.run(main, server.url, backend=backend))
print({"typer", "rich", "httpx2", "pytest"} & {*sys.modules})
"""


def run(*command: object, cwd: Path | None = None) -> str:
    finished = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, the wheel built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    (found,) = built.glob("*.tar.gz")
    return found


def test_an_index_would_take_them(wheel: Path, sdist: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {PurePosixPath(name) for name in archive.namelist()}
    package = {
        PurePosixPath(path.relative_to(ROOT).as_posix())
        for path in (ROOT / "anyio_writer").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.parts[0] == "anyio_writer"} == package
    others = {name for name in names if name.parts[0] != "anyio_writer"}
    assert {name.parts[0].removesuffix(".dist-info") for name in others} == {
        wheel.name.removesuffix("-py3-none-any.whl")
    }
    assert {"METADATA", "entry_points.txt"} <= {name.name for name in others}
    assert "LICENSE" in {name.name for name in others}


def test_the_metadata_is_the_project_s(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert metadata["Name"] == project["name"]
    assert metadata["Author"] == project["authors"][0]["name"]
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))
    assert urls == project["urls"]
    assert metadata["License-Expression"] == project["license"]
    description = metadata.get_payload()
    assert isinstance(description, str)
    assert not re.search(r"\]\((?!https://)", description)  # an index has no files to link to


def test_the_sdist_holds_what_is_needed_to_work_on_it(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {PurePosixPath(*PurePosixPath(name).parts[1:]) for name in archive.getnames()}
    tracked = {
        PurePosixPath(path)
        for path in (
            *("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
            *("pyproject.toml", "tox.ini", "conftest.py", ".ci/run", "docs/index.md"),
            *("docs/conf.py", "anyio_writer/py.typed", "examples/asgi/page.html"),
            "benchmarks/__main__.py",
        )
    }
    assert tracked <= names
    assert {name.parts[0] for name in names if name.suffix == ".py"} >= {"tests", "anyio_writer"}
    unwanted = {"__pycache__", ".venv", ".tox", ".git", ".hypothesis", "_build"}
    assert not [name for name in names if unwanted & {*name.parts}]


def test_the_wheel_works_without_extras(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, where nothing else is installed."""
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(python, "-m", "pip", "install", "-q", wheel)
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    assert run(python, "program.py", cwd=tmp_path) == "It works.\nIt works.\nset()\n"
    run(python, "-m", "pip", "check")


def test_the_sdist_runs_its_own_tests(sdist: Path, tmp_path: Path) -> None:
    """Those of ``SDIST_TESTS``, on what the environment of this test got from an sdist."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    said = run(
        *(sys.executable, "-m", "pytest", "-q", "-n", "auto", "-p", "no:cacheprovider"),
        *("--hypothesis-profile=quick", *SDIST_TESTS),
        cwd=unpacked,
    )
    assert re.search(r"\d{3,} passed", said)
