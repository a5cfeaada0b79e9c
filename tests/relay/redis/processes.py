"""Processes of their own, and what they say."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc
from anyio.streams.text import TextReceiveStream

WORKER: Final = Path(__file__).with_name("worker.py")
HANGS: Final = 90  # seconds


class Worker:
    """A process, and what it says."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self.process = process
        assert process.stdout is not None
        self._text = TextReceiveStream(process.stdout)
        self._rest = ""

    async def hear(self) -> Any:
        """The next thing it says; None if it says nothing more."""
        while "\n" not in self._rest:
            try:
                self._rest += await self._text.receive()
            except anyio.EndOfStream:
                return None
        line, _, self._rest = self._rest.partition("\n")
        return json.loads(line)

    async def hear_all(self) -> list[Any]:
        said = []
        while (thing := await self.hear()) is not None:
            said.append(thing)
        return said

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@asynccontextmanager
async def worker(backend: str, *arguments: object) -> AsyncIterator[Worker]:
    command = [sys.executable, str(WORKER), backend, *map(str, arguments)]
    with anyio.fail_after(HANGS):
        async with await anyio.open_process(command, stderr=None) as process:
            try:
                yield Worker(process)
            finally:
                if process.returncode is None:
                    process.send_signal(signal.SIGCONT)
                    process.kill()
