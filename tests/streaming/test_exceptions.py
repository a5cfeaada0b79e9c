"""What comes out of a stream's block: made from the table in docs/lifetimes.md."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from anyio_writer import (
    ChatCompletionStream,
    ContentDeltaEvent,
    ContentParseError,
    StreamTruncatedError,
    ToolRuns,
    WriterError,
    chat_stream_from,
    function_tool,
)
from tests.lifetimes.lifetime_helpers import HANGS
from tests.streaming.helpers import STALL, Body, chunk

PAGE = Path(__file__).parents[2] / "docs" / "lifetimes.md"


def rows() -> list[list[str]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index("| the block | tasks | the stream | comes out | context |") + 2
    found = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        found.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return found


def test_the_table_is_found() -> None:
    assert len(rows()) > 20


class Fault(Exception):
    """What a failing task raises."""


class Case:
    def __init__(self, block: str, tasks: str, stream: str) -> None:
        self.block = block
        self.tasks = tasks
        self.stream = stream
        self.now = anyio.Event()  # the moment at which everything happens
        self.raised: BaseException | None = None
        self.read: list[str] = []
        self.runs: ToolRuns | None = None
        self.worked = ""

    def body(self) -> Body:
        ending: dict[str, list[Any]] = {
            "goes on": [STALL],
            "ends normally": [self.now, chunk(None, "stop")],
            "ends and does not fit": [self.now, chunk(None, "stop")],
            "fails": [self.now],
            "has failed, no call has raised it": [],
            "has ended and does not fit, no call has raised it": [chunk(None, "stop")],
        }
        return Body(chunk("a"), *self.calls(), *ending[self.stream])

    def calls(self) -> list[bytes]:
        """A call that is done, and one that is not."""
        if "tool" not in self.tasks:
            return []
        pieces: list[dict[str, Any]] = [
            {"index": 0, "id": "c0", "function": {"name": "tool", "arguments": ""}},
            {"index": 0, "function": {"arguments": "{}"}},
            {"index": 1, "id": "c1", "function": {"name": "tool", "arguments": ""}},
        ]
        return [chunk(None, tool_calls=[piece]) for piece in pieces]

    async def reading(self, stream: ChatCompletionStream[Any]) -> None:
        try:
            async for event in stream.subscribe():
                self.read.append(event.type)
        except WriterError:
            self.read.append("error")

    async def failing(self) -> None:
        await self.now.wait()
        raise Fault

    async def failing_when_cancelled(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise Fault

    async def working(self) -> None:
        self.worked = "began"
        await self.now.wait()
        await anyio.lowlevel.checkpoint()
        self.worked = "ended"

    async def run(self, scope: anyio.CancelScope) -> None:
        tasks: dict[str, Any] = {
            "failing": self.failing,
            "failing when cancelled": self.failing_when_cancelled,
        }
        tools: dict[str, Any] = {
            "tool": self.working,
            "failing tool": self.failing,
            "tool failing when cancelled": self.failing_when_cancelled,
        }
        response_format: Any = int if "does not fit" in self.stream else None
        async with chat_stream_from(self.body(), response_format=response_format) as stream:
            for part in self.tasks.split(", "):
                count, _, what = part.partition(" ")
                if what in tools:
                    tool = function_tool(tools[what], name="tool")
                    self.runs = stream.run_tools([tool], on_error="raise")
                    stream._entered().demand()
                elif part != "none":
                    for _ in range(int(count)):
                        if what == "reading":
                            stream.start_soon(self.reading, stream)
                        else:
                            stream.start_soon(tasks[what])
            if self.stream.endswith("no call has raised it"):
                stream._entered().demand()
            await wait_all_tasks_blocked()
            if self.runs is not None:
                assert repr(self.runs) == "<ToolRuns: 1 running, 0 waiting, 0 ended>"
            self.now.set()
            if self.block.startswith("raises"):
                self.raised = {"ValueError": ValueError, "KeyboardInterrupt": KeyboardInterrupt}[
                    self.block.removeprefix("raises ")
                ]()
                raise self.raised
            if self.block == "is cancelled":
                scope.cancel()
                await anyio.sleep_forever()

    def check_what_its_tasks_saw(self) -> None:
        readers = int(self.tasks[0]) if "reading" in self.tasks else 0
        errors = 0 if self.stream == "ends normally" else readers
        if self.stream.startswith("ends"):
            assert self.read.count("content.delta") == readers
            assert self.read.count("content.done") == readers
        if self.stream.startswith("ends") or (self.stream == "fails" and self.block == "ends"):
            assert self.read.count("error") == errors
        if self.worked:  # the block waits for its tools, or cancels them
            assert self.worked == ("ended" if self.block == "ends" else "began")


@pytest.mark.parametrize(("block", "tasks", "stream", "outcome", "context"), rows())
async def test_comes_out(block: str, tasks: str, stream: str, outcome: str, context: str) -> None:
    case = Case(block, tasks, stream)
    came_out: BaseException | None = None
    with anyio.fail_after(5), anyio.CancelScope() as scope:
        try:
            await case.run(scope)
        except BaseException as exc:
            came_out = exc
            if outcome == "the cancellation":
                raise
    if outcome == "nothing":
        assert came_out is None
        assert not scope.cancelled_caught
    elif outcome == "the cancellation":
        assert scope.cancelled_caught
    elif outcome == "the block's exception":
        assert came_out is case.raised
    elif outcome == "the stream's error":
        expected = ContentParseError if "does not fit" in stream else StreamTruncatedError
        assert type(came_out) is expected
    else:
        assert isinstance(came_out, BaseExceptionGroup)
        cancelled = anyio.get_cancelled_exc_class()  # trio's may be in it until its scope is left
        errors = [exc for exc in came_out.exceptions if not isinstance(exc, cancelled)]
        assert isinstance(errors[-1], Fault)
        assert len(errors) == (2 if outcome.endswith("both") else 1)
        if outcome.endswith("both"):
            assert errors[0] is case.raised
    if context == "none":
        assert came_out is not None
        assert came_out.__context__ is None
    case.check_what_its_tasks_saw()


async def test_a_block_waits_for_its_tasks_and_they_may_start_others() -> None:
    done: list[str] = []

    async def second() -> None:
        await anyio.lowlevel.checkpoint()
        done.append("second")

    async def first(stream: ChatCompletionStream[Any], word: str) -> None:
        await stream.until_done()
        stream.start_soon(second, name="the second")
        done.append(word)

    async with chat_stream_from(Body(chunk("a", "stop"))) as stream:
        stream.start_soon(first, stream, "first")
    assert done == ["first", "second"]
    with pytest.raises(WriterError, match="block has ended"):
        stream.start_soon(second)
    with pytest.raises(WriterError, match="async with"):
        chat_stream_from(Body()).start_soon(second)


async def test_a_broken_off_iteration_keeps_no_task_waiting() -> None:
    got: list[str] = []

    async def collect(consumer: Any) -> None:
        async for event in consumer:
            got.append(event.delta)

    body = Body(*(chunk("x") for _ in range(2000)), chunk(None, "stop"))
    with anyio.fail_after(HANGS):
        async with chat_stream_from(body) as stream:
            stream.start_soon(collect, stream.subscribe(ContentDeltaEvent))
            async for _ in stream:
                break
    assert len(got) == 2000


async def test_a_task_may_go_on_with_the_iteration_of_the_block() -> None:
    got: list[Any] = []

    async def collect(stream: ChatCompletionStream[Any]) -> None:
        async for event in stream:
            got.append(event)
            await wait_all_tasks_blocked()

    body = Body(*(chunk("x") for _ in range(20)), chunk(None, "stop"))
    async with chat_stream_from(body) as stream:
        got.append(await anext(stream))
        stream.start_soon(collect, stream)
        await wait_all_tasks_blocked()
    assert [event.type for event in got].count("content.delta") == 20


async def test_tasks_are_cancelled_when_the_waiting_block_is() -> None:
    cancelled: list[bool] = []

    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(True)

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                async with chat_stream_from(Body(chunk("a"), STALL)) as stream:
                    stream.start_soon(wait)

            tasks.start_soon(run)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert cancelled == [True]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)  # only asyncio has such
async def test_a_native_cancellation_while_waiting_for_tasks() -> None:
    """It reaches no scope, so the block has to pass it on."""
    cancelled: list[bool] = []

    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(True)

    async def run() -> None:
        async with chat_stream_from(Body(chunk("a"), STALL)) as stream:
            stream.start_soon(wait)

    task = asyncio.create_task(run())
    await wait_all_tasks_blocked()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=5)
    assert done == {task}
    assert task.cancelled()
    assert cancelled == [True]
