"""Signals: who is woken, and what is left of who was not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import trio.testing
from anyio import wait_all_tasks_blocked

from anyio_writer import chat_stream_from
from anyio_writer.streaming import waiting
from anyio_writer.streaming.waiting import Signal
from tests.streaming.helpers import Body, chunk

STOP = chunk(None, "stop")


@pytest.fixture(params=["known loop", "unknown loop"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """anyio may have other event loops one day: what cannot be told apart is left to it."""
    if request.param == "unknown loop":
        monkeypatch.setattr(waiting, "sys", SimpleNamespace(modules={}))


async def wait(signal: Signal, woken: list[Any], name: object) -> None:
    await signal.wait()
    woken.append(name)


@pytest.mark.usefixtures("loop")
async def test_all_who_wait_are_woken_once() -> None:
    signal = Signal()
    woken: list[Any] = []
    async with anyio.create_task_group() as tasks:
        for name in range(3):
            tasks.start_soon(wait, signal, woken, name)
        await wait_all_tasks_blocked()
        assert woken == []
        signal.set()
        signal.set()  # before any of them has run
    assert sorted(woken) == [0, 1, 2]
    await signal.wait()


@pytest.mark.usefixtures("loop")
async def test_a_cleared_signal_is_waited_for_again() -> None:
    signal = Signal()
    woken: list[Any] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, signal, woken, "first")
        await wait_all_tasks_blocked()
        signal.set()
        signal.clear()
        tasks.start_soon(wait, signal, woken, "second")
        await wait_all_tasks_blocked()
        assert woken == ["first"]
        signal.set()
    assert woken == ["first", "second"]


@pytest.mark.usefixtures("loop")
async def test_who_is_cancelled_leaves_nothing_behind() -> None:
    signal = Signal()
    woken: list[Any] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, signal, woken, "stays")
        await wait_all_tasks_blocked()
        for _ in range(3):
            with anyio.move_on_after(0):
                await signal.wait()
        assert signal._wakers is not None
        assert len(signal._wakers) == 1
        signal.set()
    assert woken == ["stays"]
    assert signal._wakers == []


@pytest.mark.usefixtures("loop")
async def test_woken_and_cancelled_in_the_same_turn() -> None:
    signal = Signal()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(signal.wait)
        await wait_all_tasks_blocked()
        signal.set()
        tasks.cancel_scope.cancel()
    async with anyio.create_task_group() as tasks:
        signal.clear()
        tasks.start_soon(signal.wait)
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        signal.set()
    assert signal._wakers == []


@pytest.mark.usefixtures("loop")
async def test_a_stream_on_any_loop() -> None:
    go_on = anyio.Event()
    async with chat_stream_from(Body(chunk("a"), go_on, chunk("b"), STOP)) as stream:
        async for event in stream:
            if event.type == "content.delta":
                go_on.set()
        assert await stream.get_final_text() == "ab"


def test_trio_as_a_guest_of_asyncio() -> None:
    """Both loops run in one thread; what counts is whose task it is."""

    async def read() -> str:
        more = trio.Event()

        async def later() -> None:
            await trio.testing.wait_all_tasks_blocked()
            more.set()

        class Source:
            async def body(self) -> Any:
                yield chunk("a")
                await more.wait()
                yield chunk("b") + STOP

        async with chat_stream_from(Source().body()) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(later)
            return await stream.get_final_text()

    async def host() -> Any:
        done = asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            read,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=done.set_result,
        )
        return (await done).unwrap()

    assert asyncio.run(host()) == "ab"
