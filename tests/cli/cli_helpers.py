"""The command as a program, and as a function beside a server in another thread."""

import os
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from subprocess import PIPE, CompletedProcess
from typing import BinaryIO, TextIO, cast

import anyio
from anyio.abc import Process

from anyio_writer.testing import ChatServer

HANGS = 30  # seconds; a net under a hang, not an assertion
COMMAND = (sys.executable, "-W", "error", "-m", "anyio_writer")


def environment(**changes: str) -> dict[str, str]:
    """Ours, without settings of whoever runs the tests; and with our import path."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("WRITER_")}
    path = os.pathsep.join(filter(None, sys.path))
    return {**own, "PYTHONPATH": path, "WRITER_API_KEY": "a-secret", "TERM": "xterm", **changes}


def chat_arguments(server: ChatServer, backend: str, *more: str) -> list[str]:
    options = ["--base-url", server.url, "--backend", backend, "--max-retries", "0"]
    return ["chat", *options, *(more or ("Hi",))]


async def run_command(
    *arguments: str, stdin: bytes = b"", **changes: str
) -> CompletedProcess[bytes]:
    with anyio.fail_after(HANGS):
        return await anyio.run_process(
            [*COMMAND, *arguments], input=stdin, check=False, env=environment(**changes)
        )


@asynccontextmanager
async def started(
    *arguments: str, stdout: int = PIPE, stderr: int = PIPE
) -> AsyncGenerator[Process]:
    with anyio.fail_after(HANGS):
        async with await anyio.open_process(
            [*COMMAND, *arguments], stdout=stdout, stderr=stderr, env=environment()
        ) as process:
            yield process


async def output_of(process: Process, until: bytes) -> bytes:
    assert process.stdout is not None
    data = b""
    while until not in data:
        data += await process.stdout.receive()
    return data


async def errors_of(process: Process) -> bytes:
    assert process.stderr is not None
    return b"".join([data async for data in process.stderr])


async def terminal_output(fd: int, until: bytes | None = None) -> bytes:
    """What was written to a pseudo terminal: until it is closed, or so far."""
    data = b""
    while until is None or until not in data:
        await anyio.wait_readable(fd)
        try:
            piece = os.read(fd, 4096)
        except OSError:  # how Linux says that nobody can write to it any more
            break
        if not piece:
            break
        data += piece
    return data


@contextmanager
def pipe() -> Generator[tuple[BinaryIO, TextIO]]:
    """The two ends of a pipe, both closed at the end."""
    reading, writing = os.pipe()
    with (
        os.fdopen(reading, "rb", buffering=0) as reader,
        os.fdopen(writing, "w", encoding="utf-8") as writer,
    ):
        yield cast("BinaryIO", reader), writer
