"""The server and the clients, each a process that ends with this one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

_ROOT: Final = Path(__file__).parent.parent


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def stop(process: subprocess.Popen[str]) -> None:
    """All of them end when their standard input does."""
    process.communicate()


class Processes:
    """One server; one worker for each client and backend, started when first needed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._workers: dict[tuple[str, str], subprocess.Popen[str]] = {}
        self._url = ""

    def __enter__(self) -> Self:
        server = start("server")
        self._stack.callback(stop, server)
        assert server.stdout is not None
        self._url = server.stdout.readline().strip()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def prepare(self, clients: Iterable[str], backend: str) -> None:
        """Start what is missing, all at once, and wait until all is quiet again."""
        missing = [each for each in dict.fromkeys(clients) if (each, backend) not in self._workers]
        for client in missing:
            worker = self._start(client, backend)
            self._stack.callback(stop, worker)
            self._workers[client, backend] = worker
        for client in missing:
            _wait_ready(self._workers[client, backend])

    def run(self, client: str, backend: str, task: dict[str, Any]) -> Any:
        """Have a client measure something, in the process that it has."""
        return _ask(self._workers[client, backend], task)

    def run_fresh(self, client: str, backend: str, task: dict[str, Any]) -> Any:
        """The same, in a process of its own."""
        worker = self._start(client, backend)
        try:
            _wait_ready(worker)
            return _ask(worker, task)
        finally:
            stop(worker)

    def _start(self, client: str, backend: str) -> subprocess.Popen[str]:
        return start("worker", self._url, client, backend)


def _wait_ready(worker: subprocess.Popen[str]) -> None:
    assert worker.stdout is not None
    worker.stdout.readline()


def _ask(worker: subprocess.Popen[str], task: dict[str, Any]) -> Any:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(json.dumps(task) + "\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    return json.loads(answer) if answer else {"error": "the process has died"}


def import_time(module: str) -> dict[str, float]:
    """What ``import`` costs in a fresh interpreter: microseconds, and modules."""
    lines, bare = (_import_lines(f"import {module}"), _import_lines("pass"))
    spent = int(lines[-1].split("|")[1]) if len(lines) > len(bare) else 0
    return {"import_us": float(spent), "modules": float(len(lines) - len(bare))}


def _import_lines(code: str) -> list[str]:
    command = [sys.executable, "-X", "importtime", "-c", code]
    ran = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    return [line for line in ran.stderr.splitlines() if line.startswith("import time:")]
