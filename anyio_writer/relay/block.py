"""The block of a relay: its tasks, its connections, and the order in which they end."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import current_token

from ..errors import RelayUnavailableError, WriterError
from .log import Log


class Block(Log):
    """What exists between entering a relay and leaving it, in one event loop."""

    def __init__(self) -> None:
        self._tasks: TaskGroup | None = None
        self._io: TaskGroup | None = None
        self._io_keeper: TaskGroup | None = None
        self._left = anyio.Event()
        self._loop: object = None

    async def _connect(self) -> None:
        """Get ready.

        Raises:
            RelayUnavailableError: The server cannot be reached, or refuses.
        """

    def _disconnect(self) -> None:
        """Let go of everything: nothing more can be asked."""

    async def __aenter__(self) -> Self:
        if self._io_keeper is not None:
            raise WriterError("A relay can be entered only once; make another one.")
        # The tasks that produce end before the connections that they need.
        self._io_keeper = anyio.create_task_group()
        self._tasks = anyio.create_task_group()
        await self._io_keeper.__aenter__()
        is_ready = anyio.Event()
        self._io_keeper.start_soon(self._keep_io, is_ready, name="connections of a relay")
        try:
            await is_ready.wait()
            await self._connect()
        except BaseException as exc:
            await self._end_io(exc)
            raise
        await self._tasks.__aenter__()
        self._loop = current_token()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop = None
        try:
            await _leave(self._task_group(), exc)
        finally:
            await self._end_io(exc)

    async def _keep_io(self, is_ready: anyio.Event) -> None:
        """Have a task group until the block is left.

        A cancellation from outside the block reaches all that is in it at once. But what produces
        has an end to record then, so the connections last until the block is left.
        """
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as self._io:
                is_ready.set()
                await self._left.wait()
                self._io.cancel_scope.cancel()

    async def _end_io(self, exc: BaseException | None) -> None:
        self._disconnect()
        self._left.set()
        assert self._io_keeper is not None  # for type checkers: it was entered
        await _leave(self._io_keeper, exc)

    def _io_tasks(self) -> TaskGroup:
        assert self._io is not None  # for type checkers: it was entered
        return self._io

    def _check_open(self) -> None:
        if self._loop is None:
            raise RelayUnavailableError(
                "The relay is not open: use it within its 'async with' block."
            )
        self._check_loop()

    def _check_loop(self) -> None:
        if self._loop not in (None, current_token()):
            raise WriterError(
                "A relay serves the event loop that entered it. Make another one for each."
            )

    def _task_group(self) -> TaskGroup:
        assert self._tasks is not None  # for type checkers: it was entered
        return self._tasks


async def _leave(tasks: TaskGroup, exc: BaseException | None) -> None:
    """Cancel and leave a task group whose tasks raise nothing.

    The block's exception does not meet it, since it would be wrapped.

    Args:
        tasks: The group.
        exc: The block's exception, if any.
    """
    tasks.cancel_scope.cancel()
    try:
        await tasks.__aexit__(None, None, None)
    except anyio.get_cancelled_exc_class():
        # A cancel scope's comes again where it is still wanted, and the block's goes on.
        if exc is None or anyio.current_effective_deadline() > -math.inf:
            raise
