"""Ways to look at what a client leaves behind, and at how busy an event loop is."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import sniffio
import trio
from anyio.lowlevel import checkpoint, current_token

from anyio_writer import AsyncWriter
from anyio_writer.testing import ChatServer

HANGS = 20
"""Seconds: a net under a hang, never what a test shows."""


def new_seed() -> int:
    """Another one each time, for a test to name when it fails; in CI always the same."""
    return 0 if os.environ.get("CI") else seeded(None).randrange(2**32)


def seeded(seed: int | None) -> random.Random:
    return random.Random(seed)


def clients_of(writer: AsyncWriter) -> Any:
    """The writer's clients in this event loop and the limit on its streams; None before its use."""
    return writer._slots._loops.get(current_token())


def busy_slots(*clients: Any) -> list[Any]:
    """The connections and requests that hold slots of the clients' pools."""
    busy: list[Any] = []
    for pool in (client._transport._pool for client in clients):
        busy += pool._requests
        busy += [each for each in pool.connections if not each.is_idle()]
    return busy


def open_connections(server: ChatServer) -> int:
    return sum(not connection.closed for connection in server.connections)


def tasks_of_clients() -> set[str]:
    """The names of all tasks but the calling one and those of scripted servers."""
    return {
        str(task.name)
        for task in anyio.get_running_tasks()
        if task.id != anyio.get_current_task().id
        and "anyio_writer.testing" not in str(task.name)
        and "<init>" not in str(task.name)
        and "TrioToken" not in str(task.name)
    }


async def until(true: Callable[[], bool]) -> None:
    """Let others run until something is true: for what a server is about to notice."""
    with anyio.fail_after(HANGS):
        while not true():
            await checkpoint()


async def nothing_is_left(writer: AsyncWriter, server: ChatServer, tasks: set[str]) -> None:
    """No task, no busy slot, no token of the gate, no socket but the idle ones."""
    assert tasks_of_clients() <= tasks
    if (clients := clients_of(writer)) is None:
        return
    assert not busy_slots(*clients.all)
    assert not clients.is_used
    idle = sum(len(client._transport._pool.connections) for client in clients.all)
    await until(lambda: open_connections(server) <= idle)


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when the task that made this, and its children, have taken k steps."""

    def __init__(self, scope: anyio.CancelScope, step: int, *, before: bool) -> None:
        self._scope = scope
        self._left = step
        self._before = before
        self._tasks = {trio.lowlevel.current_task()}

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        nursery = task.parent_nursery
        if nursery is not None and nursery.parent_task in self._tasks:
            self._tasks.add(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._before and task in self._tasks:
            self._count()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if not self._before and task in self._tasks:
            self._count()

    def _count(self) -> None:
        self._left -= 1
        if not self._left:
            self._scope.cancel()


async def cancelled_at(step: int, way: str, scenario: Callable[[], Any]) -> bool:
    """Run the scenario and cancel it at a step.

    On trio an instrument counts the steps of the scenario's own tasks and cancels right after, or
    right before, the k-th: before is when a task has been woken and has not yet run. Elsewhere a
    task beside it counts the rounds of the loop.

    Returns:
        Whether the cancellation came too late: the scenario had got through.
    """
    done = False
    scope = anyio.CancelScope()

    async def run() -> None:
        nonlocal done
        with scope:
            instrument = None
            if way in ("before", "after"):
                instrument = CancelAtStep(scope, step, before=way == "before")
                trio.lowlevel.add_instrument(instrument)
            try:
                await scenario()
            finally:
                if instrument is not None:
                    trio.lowlevel.remove_instrument(instrument)
            done = True

    if way.startswith("native"):
        task = asyncio.create_task(run())
        for _ in range(step):
            await asyncio.sleep(0)
        task.cancel()
        if way == "native, twice":
            await asyncio.sleep(0)
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return done
    async with anyio.create_task_group() as group:
        group.start_soon(run)
        if way == "rounds":
            for _ in range(step):
                await checkpoint()
            scope.cancel()
    return done


WAYS = {"asyncio": ["rounds", "native", "native, twice"], "trio": ["before", "after"]}


class LoopCounter:
    """Counts how often the event loop has been round."""

    def __init__(self) -> None:
        self.rounds = 0


@contextmanager
def counted_rounds() -> Generator[LoopCounter]:
    """Count the rounds of asyncio's or trio's loop while the block runs."""
    counter = LoopCounter()
    if sniffio.current_async_library() == "trio":

        class Rounds(trio.abc.Instrument):
            def before_io_wait(self, timeout: float) -> None:
                counter.rounds += 1

        instrument = Rounds()
        trio.lowlevel.add_instrument(instrument)
        try:
            yield counter
        finally:
            trio.lowlevel.remove_instrument(instrument)
        return
    loop: Any = asyncio.get_running_loop()
    if not hasattr(loop, "_run_once"):  # uvloop does not show its rounds
        yield counter
        return
    original = loop._run_once

    def counted() -> None:
        counter.rounds += 1
        original()

    loop._run_once = counted
    try:
        yield counter
    finally:
        loop._run_once = original
