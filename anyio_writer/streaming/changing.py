"""Waiting for a change of something, to look at it again."""

from __future__ import annotations

import anyio


class Changing:
    """Something that tasks look at, and wait for a change of.

    The event is made only while somebody waits. Thousands of streams may be open and idle, most of
    what they could wait for never matters, and on asyncio an event of anyio's takes 900 bytes.
    """

    __slots__ = ("_changed",)

    def __init__(self) -> None:
        self._changed: anyio.Event | None = None  # of those who wait

    def notify(self) -> None:
        """Let everybody who waits look again."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def wait_for_change(self) -> None:
        """Wait until something has changed, perhaps something else."""
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()
