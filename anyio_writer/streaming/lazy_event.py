"""An event that costs nothing until somebody waits for it."""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint


class LazyEvent:
    """As ``anyio.Event``, which is made only while somebody waits.

    Thousands of streams may be open and idle. Each has several events, most of them set already or
    never waited for, and on asyncio an event of anyio's takes 900 bytes.
    """

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: anyio.Event | None = None

    def is_set(self) -> bool:
        """Whether ``set`` was called."""
        return self._is_set

    def set(self) -> None:
        """Wake everybody who waits; from now on nobody has to."""
        self._is_set = True
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait until ``set`` is called."""
        if self._is_set:
            await checkpoint()
            return
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()
