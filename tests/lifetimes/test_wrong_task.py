"""A stream that is left in another task than the one that entered it.

What one may expect: the leaver gets a ``WrongTaskError`` that names the mistake, and the response
is closed, so nothing goes on costing money. The entering task still holds the stream's task group,
which nobody else can close for it. If that task goes on to leave the stream, too, all is well. If
it just ends, its end is a ``RuntimeError`` of trio or anyio about the task group it has abandoned;
a plain asyncio task ends without one. Either way no task is left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from anyio_writer import ChatCompletionStream, StreamClosedError, WrongTaskError, chat_stream_from
from anyio_writer.streaming import lifetime
from tests.lifetimes.lifetime_helpers import HANGS, tasks_of_clients
from tests.streaming.helpers import chunk

Stream = ChatCompletionStream[Any]
Leave = Callable[[], Awaitable[Any]]


class Response:
    """A response that never ends, and knows when it has been closed."""

    def __init__(self) -> None:
        self.closed = anyio.Event()

    async def body(self) -> AsyncGenerator[bytes, None]:
        try:
            yield chunk("a")
            await anyio.sleep_forever()
        finally:
            self.closed.set()


async def by_hand(response: Response) -> tuple[Stream, Leave]:
    manager = chat_stream_from(response.body())
    stream = await manager.__aenter__()
    return stream, lambda: manager.__aexit__(None, None, None)


async def with_a_stack(response: Response) -> tuple[Stream, Leave]:
    stack = AsyncExitStack()
    stream = await stack.enter_async_context(chat_stream_from(response.body()))
    return stream, stack.aclose


async def with_a_fixture(response: Response) -> tuple[Stream, Leave]:
    """As test runners do that set up in one task and tear down in another."""

    async def fixture() -> AsyncGenerator[Stream, None]:
        async with chat_stream_from(response.body()) as stream:
            yield stream

    generator = fixture()
    return await anext(generator), generator.aclose


WAYS = [by_hand, with_a_stack, with_a_fixture]


@pytest.mark.parametrize("way", WAYS)
async def test_the_mistake_is_named_and_the_response_is_closed(way: Any) -> None:
    response = Response()
    opened = anyio.Event()
    left = anyio.Event()
    found: list[tuple[Stream, Leave]] = []
    read: list[type[BaseException]] = []
    tasks = tasks_of_clients()

    async def enter() -> None:
        found.append(await way(response))
        opened.set()
        await left.wait()
        # The task that entered it is not disturbed; its abandoned task group shows at its end.
        await anyio.lowlevel.checkpoint()
        read.append(StopAsyncIteration)

    async def wait_for_the_end() -> None:
        with pytest.raises(StreamClosedError):
            await found[0][0].until_done()
        read.append(StreamClosedError)

    with anyio.fail_after(HANGS):
        with pytest.raises(ExceptionGroup) as caught:
            async with anyio.create_task_group() as group:
                group.start_soon(enter)
                await opened.wait()
                group.start_soon(wait_for_the_end)
                await wait_all_tasks_blocked()
                with pytest.raises(WrongTaskError, match="the task that entered it") as wrong:
                    await found[0][1]()
                assert "close()" in str(wrong.value)
                await response.closed.wait()
                await wait_all_tasks_blocked()
                left.set()
    assert sorted(map(str, read)) == sorted(map(str, [StreamClosedError, StopAsyncIteration]))
    # One error, and one that speaks of the nesting, is what becomes of that task.
    assert [type(exc) for exc in caught.value.exceptions] == [RuntimeError]
    assert any(word in str(caught.value.exceptions[0]) for word in ("cancel scope", "Nursery"))
    assert tasks_of_clients() == tasks


async def test_the_task_that_entered_it_can_still_leave_it_well() -> None:
    response = Response()
    opened = anyio.Event()
    stream = chat_stream_from(response.body())

    async def enter() -> None:
        async with stream:
            opened.set()
            with pytest.raises(StreamClosedError):
                await stream.get_final_completion()

    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as group:
            group.start_soon(enter)
            await opened.wait()
            await wait_all_tasks_blocked()
            with pytest.raises(WrongTaskError):
                await stream.__aexit__(None, None, None)
    assert response.closed.is_set()
    assert not any("stream" in name for name in tasks_of_clients())


@pytest.mark.parametrize(  # on trio the first task would not get that far, see above
    "anyio_backend", ["asyncio"], indirect=True
)
@pytest.mark.parametrize("way", WAYS)
async def test_plain_asyncio_tasks_one_after_the_other(
    way: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Set up in a task that has ended, torn down in another: the one error, and nothing logged."""
    response = Response()
    with anyio.fail_after(HANGS):
        stream, leave = await asyncio.create_task(way(response))
        assert (await anext(stream)).type == "chunk"

        async def tear_down() -> None:
            await leave()

        with pytest.raises(WrongTaskError):
            await asyncio.create_task(tear_down())
        await response.closed.wait()
        with pytest.raises(StreamClosedError):
            await stream.get_final_completion()
        await stream.close()
    assert not any("stream" in name for name in tasks_of_clients())
    assert not lifetime._entered_by  # although the task that entered it never left it
    assert caplog.records == []
