"""Runs a command in an event loop, and cancels it on a signal."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from typing import Final

import anyio

from .exits import Exit, QuietEnd
from .view import warnings_shown

_EXITS: Final = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}


class Backend(StrEnum):
    """The event loops."""

    ASYNCIO = "asyncio"
    TRIO = "trio"


def run(work: Callable[[], Awaitable[None]], backend: Backend) -> None:
    """Run a command to its end.

    SIGINT and SIGTERM cancel it. They stay caught until its cleanup is over, which is bounded in
    time. So a second Ctrl-C does not interrupt the cleanup.

    Args:
        work: The command.
        backend: The event loop.

    Raises:
        QuietEnd: A signal ended it.
        Exception: What ``work`` raised, as it is.
    """
    with warnings_shown():
        anyio.run(_supervise, work, backend=backend.value)


async def _supervise(work: Callable[[], Awaitable[None]]) -> None:
    received: list[signal.Signals] = []
    error: Exception | None = None
    with _signals() as signals:
        async with anyio.create_task_group() as tg:
            scope = anyio.CancelScope()

            async def watch() -> None:
                async for signum in signals:
                    received.append(signum)
                    scope.cancel()

            tg.start_soon(watch)
            with scope:
                try:
                    await work()
                except Exception as exc:  # the task group would wrap it
                    error = exc
            tg.cancel_scope.cancel()
    if received:
        raise QuietEnd(_EXITS[received[0]])
    if error is not None:
        raise error


@contextmanager
def _signals() -> Generator[AsyncIterator[signal.Signals]]:
    with ExitStack() as stack:
        try:
            signals = stack.enter_context(anyio.open_signal_receiver(*_EXITS))
        except NotImplementedError:
            # asyncio on Windows. There Ctrl-C cancels the main task, which unwinds as well as
            # here, and comes out as KeyboardInterrupt.
            yield _never()
        else:
            yield signals


async def _never() -> AsyncIterator[signal.Signals]:
    await anyio.sleep_forever()
    yield signal.SIGINT  # never
