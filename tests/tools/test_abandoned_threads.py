"""What becomes of the thread of a tool whose stream was cancelled, at the end of the process."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

HANGS = 30  # seconds; a net under a hang, not an assertion

PROGRAM = """
import os
import sys

import anyio

from anyio_writer import chat_stream_from, function_tool
from anyio_writer.testing import sse_event, tool_call_chunks

begun = None


@function_tool
def blocks() -> str:
    anyio.from_thread.run_sync(begun.set)
    os.read(0, 1)  # until the test sends something
    print("tool ended", flush=True)
    return "done"


async def source():
    for chunk in tool_call_chunks([("blocks", "{}")]):
        yield sse_event(chunk)


async def main():
    global begun
    begun = anyio.Event()
    with anyio.CancelScope() as scope:
        async with chat_stream_from(source(), tools=[blocks]) as stream:
            runs = stream.run_tools()
            stream.start_soon(runs.results)
            await begun.wait()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    print("main ended", flush=True)


anyio.run(main, backend=sys.argv[1])
"""


@contextmanager
def program(backend: str) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, backend],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "main ended\n"
            yield process
        finally:
            process.kill()


def test_on_asyncio_the_process_waits_for_the_thread() -> None:
    with program("asyncio") as process:
        rest, _ = process.communicate("x", timeout=HANGS)
    assert (rest, process.returncode) == ("tool ended\n", 0)


def test_on_trio_the_process_ends_without_the_thread() -> None:
    with program("trio") as process:
        assert process.wait(HANGS) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""
