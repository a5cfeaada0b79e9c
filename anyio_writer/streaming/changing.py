"""Waiting until some state has changed."""

from __future__ import annotations

import anyio


class Changing:
    """State that tasks wait for: they check it, wait for a change, and check it again.

    The event is made only while somebody waits. Thousands of streams may be open and idle, most of
    what they could wait for never matters, and on asyncio an event of anyio's takes 900 bytes.
    """

    __slots__ = ("_changed",)

    def __init__(self) -> None:
        self._changed: anyio.Event | None = None  # of those who wait

    def notify(self) -> None:
        """Wake all tasks that wait, so that they check again."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def wait_for_change(self) -> None:
        """Wait for the next change, which need not be the one that the caller wants."""
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()
