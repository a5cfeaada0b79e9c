"""Server programs, each a process of its own, that run while a test needs them."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

START_TIMEOUT: Final = 120  # seconds; some import for ten on a good day
STOP_TIMEOUT: Final = 20  # seconds


@dataclass(kw_only=True)
class Program:
    """The running program.

    Attributes:
        url: Where it listens.
        upstream_port: Where it expects the server that the test itself plays.
        log: The lines it has printed.
    """

    url: str = ""
    upstream_port: int = 0
    log: list[str] = field(default_factory=list)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    folder: Path,
    *,
    ready: str,
    program: Program,
    env: Mapping[str, str] = {},
) -> Generator[Program]:
    """Run the command until the block ends.

    Args:
        command: The program and its arguments.
        folder: Its working directory, and its home.
        ready: What the line looks like that says it is ready. If the pattern has a group,
            that is the URL.
        program: Filled in as it runs.
        env: Its environment, beside what every program needs. It gets nothing of our own,
            which may hold keys, proxies and databases.
    """
    said_ready = threading.Event()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            program.log.append(line)
            if found := re.search(ready, line):
                program.url = program.url or found[1]
                said_ready.set()
        said_ready.set()  # it has ended

    with subprocess.Popen(
        command,
        cwd=folder,
        env={"HOME": str(folder), "PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        listener = threading.Thread(target=listen)
        listener.start()
        try:
            said_ready.wait(START_TIMEOUT)
            assert process.poll() is None, f"{command[0]} did not start:\n{''.join(program.log)}"
            assert program.url, f"{command[0]} is not ready:\n{''.join(program.log)}"
            yield program
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
            listener.join()
