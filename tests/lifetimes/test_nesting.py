"""Blocks of one task must nest: what comes out when they do not, and that nothing is left open."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import anyio
import pytest

from anyio_writer import ChatCompletionStream, StreamClosedError, WrongOrderError, chat_stream_from
from anyio_writer.streaming import lifetime
from tests.lifetimes.lifetime_helpers import tasks_of_clients
from tests.streaming.helpers import STALL, Body, chunk


def silent() -> tuple[ChatCompletionStream[Any], Body]:
    body = Body(chunk("a"), STALL)
    return chat_stream_from(body), body


async def test_the_first_to_be_entered_is_the_first_to_be_left() -> None:
    tasks = tasks_of_clients()
    (first, _), (second, _), (third, _) = silent(), silent(), silent()
    for stream in (first, second, third):
        await stream.__aenter__()
    with pytest.raises(WrongOrderError, match="AsyncExitStack"):
        await second.__aexit__(None, None, None)
    with pytest.raises(StreamClosedError):
        await second.until_done()
    with pytest.raises(StreamClosedError):
        await third.until_done()
    # The one around them goes on, and those that were left with it are left without a word.
    assert (await anext(first)).type == "chunk"
    await third.__aexit__(None, None, None)
    await first.__aexit__(None, None, None)
    assert tasks_of_clients() == tasks
    assert not lifetime._entered_by


async def test_a_task_goes_on_as_before_after_the_error() -> None:
    (first, _), (second, _) = silent(), silent()
    await first.__aenter__()
    await second.__aenter__()
    with pytest.raises(WrongOrderError):
        await first.__aexit__(None, None, None)
    with anyio.move_on_after(0):
        await anyio.sleep_forever()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.lowlevel.checkpoint)
    async with chat_stream_from(Body(chunk("b", "stop"))) as stream:
        assert await stream.get_final_text() == "b"


async def test_tasks_inside_are_cancelled() -> None:
    (first, _), (second, _) = silent(), silent()
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(name)

    await first.__aenter__()
    await second.__aenter__()
    first.start_soon(work, "first")
    second.start_soon(work, "second")
    await anyio.wait_all_tasks_blocked()
    with pytest.raises(WrongOrderError):
        await first.__aexit__(None, None, None)
    assert ended == ["second", "first"]


async def test_a_task_inside_that_fails_keeps_none_from_being_left() -> None:
    tasks = tasks_of_clients()
    streams = [silent()[0] for _ in range(3)]

    async def fail_when_cancelled(name: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError(name)

    for position, stream in enumerate(streams):
        await stream.__aenter__()
        stream.start_soon(fail_when_cancelled, str(position))
    await anyio.wait_all_tasks_blocked()
    with pytest.raises(BaseExceptionGroup) as caught:
        await streams[0].__aexit__(None, None, None)
    assert caught.group_contains(WrongOrderError)
    for position in range(3):
        assert caught.group_contains(ValueError, match=str(position))
    assert tasks_of_clients() == tasks
    assert not lifetime._entered_by


async def test_an_exit_stack_is_the_cure() -> None:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(silent()[0]) for _ in range(3)]
        for stream in streams:
            assert (await anext(stream)).type == "chunk"
    assert not lifetime._entered_by


async def test_streams_of_tasks_started_inside_nest_for_themselves() -> None:
    async def inner(go_on: anyio.Event, opened: anyio.Event) -> None:
        async with silent()[0] as stream:
            await anext(stream)
            opened.set()
            await go_on.wait()

    go_on, opened = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        async with silent()[0]:
            tasks.start_soon(inner, go_on, opened)
            await opened.wait()
        go_on.set()  # left after the one that its parent had entered before
    assert not lifetime._entered_by


async def test_a_generator_that_is_left_half_way_is_not_remembered() -> None:
    async def pieces() -> AsyncIterator[str]:
        async with silent()[0] as stream:
            async for piece in stream.text_deltas():
                yield piece

    generator = pieces()
    assert await anext(generator) == "a"
    await generator.aclose()  # type: ignore[attr-defined]
    assert not lifetime._entered_by


async def test_a_generator_around_a_stream_is_left_with_aclosing() -> None:
    stream, _ = silent()

    async def pieces() -> AsyncGenerator[str]:
        async with stream:
            async for piece in stream.text_deltas():
                yield piece

    tasks = tasks_of_clients()
    async with aclosing(pieces()) as generator:
        async for piece in generator:
            assert piece == "a"
            break
    with pytest.raises(StreamClosedError):
        await stream.until_done()
    assert tasks_of_clients() == tasks
    with anyio.move_on_after(0):  # the task is as good as before
        await anyio.sleep_forever()
