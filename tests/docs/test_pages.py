"""Every code block of the site runs: in order, as somebody who follows the page would run it.

- A Python block whose first line is a file name (``# service.py``) is that file. It must be run or
  imported by a command of its page.
- The other Python blocks of a page run one after another, see ``run_in_order``.
- In an ``sh`` block each line is a command. What it installs must be in the environment of these
  tests; a server is started, and stopped at the end of the page.
- A ``text`` block behind one of them is what it prints.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.blocks import RECORDING, ROOT, assert_output, blocks_of, run_in_order

DOCS: Final = ROOT / "docs"
PAGES: Final = sorted(DOCS.rglob("*.md"))
BIN: Final = Path(sys.executable).parent
SERVERS: Final = ("anyio-writer serve", "uvicorn ", "hypercorn ", "redis-server ")
USUAL_PORTS: Final = re.compile(r"\b(?:80\d\d|6379)\b")
LANGUAGES: Final = {"python", "sh", "text", "json", "toml", "ini", "promql"}
# `tox -e bench` takes half an hour, and plain tox runs these tests.
NOT_RUN: Final = ("tox", ".venv", "python -m benchmarks")
# Plugins of pytest, which a page has only if it installs them.
PLUGINS: Final = {
    "pytest-asyncio": "asyncio",
    "pytest-trio": "trio",
    "pytest-httpx": "pytest_httpx",
}
RUN_ELSEWHERE: Final = {"mtls.py"}  # test_certificates.py
CURL: Final = """\
import sys, httpx
with httpx.stream("GET", sys.argv[-1], timeout=30) as response:
    for text in response.iter_text():
        print(text, end="")
"""


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_has_only_blocks_that_are_checked(page: Path) -> None:
    fences = re.findall(r"^ *```(\S+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert {fence for fence in fences if not fence.startswith("{")} <= LANGUAGES


def has_blocks(page: Path) -> bool:
    return any(block.language == "python" and not block.file for block in blocks_of(page))


@pytest.mark.anyio
@pytest.mark.parametrize("page", [*filter(has_blocks, PAGES)], ids=name_of)
async def test_the_blocks_of_a_page_run(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    await run_in_order(page, monkeypatch, capsys, tmp_path)


def has_commands(page: Path) -> bool:
    return any(block.language == "sh" or block.file for block in blocks_of(page))


@pytest.mark.parametrize("page", [*filter(has_commands, PAGES)], ids=name_of)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    if "\nredis-server " in page.read_text(encoding="utf-8") and not shutil.which("redis-server"):
        pytest.skip("Debian's redis-server is not installed")
    (tmp_path / "answer.sse").write_bytes(RECORDING)
    shims = tmp_path / ".bin"
    shims.mkdir()
    (shims / "curl").write_text(f"#!{sys.executable}\n{CURL}")
    (shims / "curl").chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("WRITER_")},
        "PATH": f"{shims}:{BIN}:{os.environ['PATH']}",
        "NO_COLOR": "1",
        "PYTEST_ADDOPTS": without_plugins(page.read_text(encoding="utf-8")),
    }
    ports: dict[str, str] = {}

    def with_free_ports(text: str) -> str:
        """The usual ones are often taken."""
        return re.sub(USUAL_PORTS, lambda found: ports.setdefault(found[0], str(free_port())), text)

    files: set[str] = set()
    used = ""
    printed: str | None = None
    with ExitStack() as servers:
        for block in blocks_of(page):
            if block.file:
                (tmp_path / block.file).write_text(with_free_ports(block.source))
                files.add(block.file)
                used += "\n".join(re.findall(r"^(?:from|import) .*$", block.source, re.MULTILINE))
                printed = None
            elif block.language == "text" and printed is not None:
                assert_output(block, printed)
            elif block.language == "sh":
                printed = ""
                for line in commands(block.source):
                    used += f"\n{line}\n"
                    command = with_free_ports(line)
                    if command.startswith("export "):
                        name, _, value = command.removeprefix("export ").partition("=")
                        environment[name] = value.strip("\"'")
                    elif command.startswith("pip install "):
                        assert_installed(command)
                    elif command.startswith(SERVERS):
                        servers.enter_context(serving(command, tmp_path, environment))
                    elif not command.startswith(NOT_RUN):
                        printed += run(command, tmp_path, environment)
            elif block.language == "python":
                printed = None  # see the test above
    unused = {file for file in files if not re.search(rf"\b{Path(file).stem}\b", used)}
    assert unused <= RUN_ELSEWHERE


def commands(source: str) -> list[str]:
    lines = source.replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a command in the way of a shell; returns what it writes to standard output."""
    finished = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
    return finished.stdout


def without_plugins(text: str) -> str:
    return " ".join(f"-p no:{name}" for package, name in PLUGINS.items() if package not in text)


def assert_installed(command: str) -> None:
    for word in shlex.split(command)[2:]:
        importlib.metadata.version(re.split(r"[\[=<>]", word)[0])  # raises if it is not


@contextmanager
def serving(command: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a server until the page ends."""
    found = re.search(r"(?:--port |:)(\d+)", command)
    assert found, f"{command}: which port?"
    with subprocess.Popen(
        shlex.split(command), cwd=folder, env=environment, stdout=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(int(found[1]), process)
            yield
        finally:
            process.terminate()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.05)  # another process: there is no event to wait for
        else:
            return
