"""Ctrl-C, and errors of the stream that come out of tasks: each comes out once and as itself."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from anyio_writer import ChatCompletionStream, StreamTruncatedError, chat_stream_from
from tests.streaming.helpers import STALL, Body, chunk


@pytest.fixture
def interrupts_are_heard() -> Iterator[None]:
    """As in a terminal: a process that was started in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts_are_heard")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("where", ["its own task", "a task of start_soon", "the block"])
def test_an_interrupt_comes_out_bare(
    backend: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "asyncio")

    def interrupt(here: str) -> None:
        if here == where:
            os.kill(os.getpid(), signal.SIGINT)

    async def source() -> AsyncIterator[bytes]:
        yield chunk("a")
        interrupt("its own task")
        await anyio.sleep(1)
        yield chunk("b", "stop")

    async def task() -> None:
        interrupt("a task of start_soon")
        await anyio.sleep(1)

    async def main() -> None:
        async with chat_stream_from(source()) as stream:
            stream.start_soon(task)
            async for _ in stream:
                interrupt("the block")
                await anyio.lowlevel.checkpoint()

    with pytest.raises(KeyboardInterrupt):
        anyio.run(main, backend=backend)


async def read(consumer: Any) -> None:
    async for _ in consumer:
        pass


async def read_shielded(consumer: Any) -> None:
    with anyio.CancelScope(shield=True):
        await read(consumer)


async def read_in_a_group(consumer: Any) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, consumer)


@pytest.mark.parametrize("reader", [read, read_in_a_group])
@pytest.mark.parametrize("count", [1, 3])
async def test_tasks_that_let_the_streams_error_out(reader: Any, count: int) -> None:
    with pytest.raises(StreamTruncatedError) as caught:
        async with chat_stream_from(Body(chunk("a"))) as stream:
            for _ in range(count):
                stream.start_soon(reader, stream.subscribe())
            await read(stream)
    assert caught.value.completion is not None


async def test_tasks_that_let_it_out_while_the_block_only_waits() -> None:
    with pytest.raises(StreamTruncatedError):
        async with chat_stream_from(Body(chunk("a"))) as stream:
            stream.start_soon(read, stream.subscribe())


async def test_an_error_of_a_task_beside_the_streams_own() -> None:
    async def fail(stream: ChatCompletionStream[Any]) -> None:
        try:
            await stream.until_done()
        finally:
            raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        async with chat_stream_from(Body(chunk("a"))) as stream:
            for _ in range(2):
                stream.start_soon(read_shielded, stream.subscribe())
            stream.start_soon(fail, stream)
    kinds = [type(each) for each in caught.value.exceptions]
    assert kinds == [ZeroDivisionError, StreamTruncatedError]


async def test_what_the_block_raises_says_enough() -> None:
    with pytest.raises(ZeroDivisionError):
        async with chat_stream_from(Body(chunk("a"))) as stream:
            for _ in range(2):
                stream.start_soon(read, stream.subscribe())
            with anyio.CancelScope(shield=True):  # the tasks may fail first, and cancel this
                try:
                    await read(stream)
                except StreamTruncatedError:
                    raise ZeroDivisionError from None


async def test_a_cancellation_says_enough() -> None:
    with anyio.CancelScope() as scope:
        async with chat_stream_from(Body(chunk("a"), STALL)) as stream:
            stream.start_soon(read_shielded, stream.subscribe())
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
