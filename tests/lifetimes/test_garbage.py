"""What a stream raises is in no reference cycle with the code that catches it.

Otherwise the locals of that code, among them files and connections, live until Python happens to
look for cycles.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import anyio
import pytest

from anyio_writer import WriterError, chat_stream_from
from tests.streaming.helpers import STALL, Body, chunk


@pytest.fixture(autouse=True)
def counting_references_is_enough() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Local:
    """Something that the code around a stream holds."""


async def fail() -> None:
    raise ValueError


async def an_iteration_that_fails(local: Local) -> None:
    async with chat_stream_from(Body(chunk("a"))) as stream:
        with suppress(WriterError):
            async for _ in stream:
                pass


async def a_result_that_fails(local: Local) -> None:
    with suppress(WriterError):
        async with chat_stream_from(Body(chunk("a"))) as stream:
            await stream.get_final_text()


async def a_closed_stream(local: Local) -> None:
    async with chat_stream_from(Body(STALL)) as stream:
        await stream.close()
        with suppress(WriterError):
            await stream.until_done()


async def a_task_that_fails_beside_the_block(local: Local) -> None:
    with suppress(ExceptionGroup):
        async with chat_stream_from(Body(STALL)) as stream:
            stream.start_soon(fail)
            await anyio.sleep_forever()


async def a_task_that_fails_behind_the_block(local: Local) -> None:
    with suppress(ExceptionGroup):
        async with chat_stream_from(Body(STALL)) as stream:
            stream.start_soon(fail)


async def a_cancellation_behind_the_block(local: Local) -> None:
    with anyio.CancelScope() as scope:
        async with chat_stream_from(Body(STALL)) as stream:
            stream.start_soon(anyio.sleep_forever)
            scope.cancel()


async def a_block_that_fails(local: Local) -> None:
    with suppress(ValueError):
        async with chat_stream_from(Body(STALL)):
            await fail()


@pytest.mark.parametrize(
    "use",
    [
        an_iteration_that_fails,
        a_result_that_fails,
        a_closed_stream,
        a_task_that_fails_beside_the_block,
        a_task_that_fails_behind_the_block,
        a_cancellation_behind_the_block,
        a_block_that_fails,
    ],
)
async def test_no_cycle_holds_the_callers_frame(use: Callable[[Local], Awaitable[None]]) -> None:
    local = Local()
    found = weakref.ref(local)
    await use(local)
    del local
    await anyio.lowlevel.checkpoint()  # the event loop lets the ended tasks go
    assert found() is None
