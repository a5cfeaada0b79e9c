"""The server and the clients, each a process that ends with this one."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, Self

from . import relay

_ROOT: Final = Path(__file__).parent.parent
_TO_START: Final = 120.0  # seconds; nothing may have been compiled yet
_TO_STOP: Final = 10.0
_GRACE: Final = 30.0  # seconds behind its own limit, until a worker counts as stuck
_IMPORTED: Final = re.compile(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", re.MULTILINE)
# An import leaves bytecode behind, so that at most the first round has to compile.
_ENVIRONMENT: Final = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=_ROOT,
        env=_ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def stop(process: subprocess.Popen[str]) -> None:
    """All of them end when their standard input does, unless they are stuck."""
    try:
        process.communicate(timeout=_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def read_line(process: subprocess.Popen[str], seconds: float) -> str:
    """What a process says next; nothing if it has died, or says nothing in time."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline() if ready else ""


class Worker:
    """One client on one backend, in a process of its own."""

    def __init__(self, url: str, client: str, backend: str) -> None:
        self._process = start("worker", url, client, backend)

    def wait_ready(self) -> None:
        """Wait until it has imported its client."""
        read_line(self._process, _TO_START)

    def ask(self, task: dict[str, Any]) -> Any:
        """Have it measure something: numbers, or an error."""
        self.begin(task)
        return self.end(task)

    def begin(self, task: dict[str, Any]) -> None:
        """Have it measure something, and do not wait for it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # end() says so
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()

    def end(self, task: dict[str, Any]) -> Any:
        """What it has measured: numbers, or an error."""
        limit = task["limit"] + _GRACE
        if answer := read_line(self._process, limit):
            return json.loads(answer)
        died = self._process.poll() is not None
        self._process.kill()
        self._process.wait()
        return {"error": "the process has died" if died else f"no answer in {limit:g} s"}

    def is_alive(self) -> bool:
        """Whether it can be asked for more."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process."""
        stop(self._process)


class Processes:
    """One server; one worker for each client and backend, started when first needed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._workers: dict[tuple[str, str], Worker] = {}
        self._url = ""
        self._redis_port = 0

    def __enter__(self) -> Self:
        server = start("server")
        self._stack.callback(stop, server)
        self._url = read_line(server, _TO_START).strip()
        assert self._url, "the server does not start"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def prepare(self, clients: Iterable[str], backend: str) -> None:
        """Start what is missing or has died, all at once, and wait until all is quiet again."""
        started = []
        for client in dict.fromkeys(clients):
            worker = self._workers.get((client, backend))
            if worker is None or not worker.is_alive():
                worker = Worker(self._url, client, backend)
                self._stack.callback(worker.stop)
                self._workers[client, backend] = worker
                started.append(worker)
        for worker in started:
            worker.wait_ready()

    def run(self, client: str, backend: str, task: dict[str, Any]) -> Any:
        """Have a client measure something, in the process that it has."""
        self.prepare([client], backend)
        return self._workers[client, backend].ask(task)

    def run_fresh(self, client: str, backend: str, task: dict[str, Any]) -> Any:
        """The same, in a process of its own."""
        worker = Worker(self._url, client, backend)
        try:
            worker.wait_ready()
            return worker.ask(task)
        finally:
            worker.stop()

    def run_relay(self, client: str, backend: str, task: dict[str, Any]) -> Any:
        """Have one process produce answers and others read them, with Redis between them."""
        try:
            self._redis_port = self._redis_port or self._stack.enter_context(relay.redis_server())
        except RuntimeError as exc:
            return {"error": str(exc)}
        arguments = task["arguments"]
        plan = relay.plan_of(arguments["answers"], arguments["rate"], arguments["seconds"])
        keys = [f"answer:{number}" for number in range(plan.streams)]
        parts = [("relay, producing", keys)]
        shares = relay.share(keys * arguments["readers"])
        parts += [("relay, reading", each) for each in shares]
        redis = f"redis://127.0.0.1:{self._redis_port}"
        tasks = [
            {
                "measure": measure,
                "arguments": {"redis": redis, "plan": plan, "keys": part},
                "limit": task["limit"],
            }
            for measure, part in parts
        ]
        with ExitStack() as stack:
            workers = [Worker(self._url, client, backend) for _ in tasks]
            for worker in workers:
                stack.callback(worker.stop)
            for worker in workers:
                worker.wait_ready()
            for worker, each in zip(workers, tasks, strict=True):
                worker.begin(each)
            producer, *readers = [
                worker.end(each) for worker, each in zip(workers, tasks, strict=True)
            ]
            return relay.sum_up(producer, readers, relay.clear(self._redis_port), plan)


def import_time(modules: str) -> dict[str, Any]:
    """What ``import`` costs in a fresh interpreter: microseconds, and modules."""
    try:
        bare, lines = (_import_lines(code) for code in ("pass", f"import {modules}"))
    except subprocess.SubprocessError as exc:
        return {"error": f"{type(exc).__name__}: {exc}"}
    added = {name: spent for name, spent in lines.items() if name not in bare}
    return {"import_us": float(sum(added.values())), "modules": float(len(added))}


def _import_lines(code: str) -> dict[str, int]:
    """Every module that was imported, and the microseconds that it took by itself."""
    command = [sys.executable, "-X", "importtime", "-c", code]
    ran = subprocess.run(
        command,
        cwd=_ROOT,
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        timeout=_TO_START,
    )
    lines: Counter[str] = Counter()
    for own, name in _IMPORTED.findall(ran.stderr):
        lines[name] += int(own)  # one that its own package imports first is listed twice
    return lines
