"""Event loops whose clocks jump over the time in which nothing happens."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any, Final

import sniffio
import trio.testing


class JumpingSelector(selectors.DefaultSelector):
    """Never waits for a timeout: it reports that the time has passed."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:  # nothing is due; a thread or a signal may still come
            return super().select()
        self.now += timeout
        return ready


class JumpingEventLoop(asyncio.SelectorEventLoop):
    """What trio's ``MockClock(autojump_threshold=0)`` is to trio. Not for sockets or threads."""

    def __init__(self) -> None:
        self.selector = JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


def work(seconds: float) -> None:
    """Let time pass without letting other tasks run, as a long computation does."""
    if sniffio.current_async_library() == "trio":
        clock: Any = trio.lowlevel.current_clock()
        clock.jump(seconds)
    else:
        loop: Any = asyncio.get_running_loop()
        loop.selector.now += seconds


BACKENDS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "asyncio": ("asyncio", {"loop_factory": JumpingEventLoop}),
    "trio": ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}),
}
