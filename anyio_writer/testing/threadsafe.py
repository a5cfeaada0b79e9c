"""An event that threads share: the server may run in another thread than its test."""

import threading
from contextlib import suppress
from typing import Any

import anyio
from anyio.lowlevel import current_token


class ThreadsafeEvent:
    """An event that any thread can set, and that tasks of any event loop can wait for.

    Use it in a `Hold` if the server runs in a thread (``with ChatServer(...)``)::

        go_on = ThreadsafeEvent()
        with ChatServer(chunks_reply([*chunks[:2], Hold(go_on), *chunks[2:]])) as server:
            ...
            go_on.set()
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._waiters: dict[anyio.Event, tuple[int, Any]] = {}  # their threads and event loops

    def is_set(self) -> bool:
        """Whether the event has happened."""
        return self._is_set

    def set(self) -> None:
        """Wake every task that waits. Later waits return at once."""
        with self._lock:
            self._is_set = True
            waiters, self._waiters = self._waiters, {}
        for event, (thread, loop) in waiters.items():
            if thread == threading.get_ident():
                event.set()
                continue
            # asyncio's name and trio's for the same. It does not wait for that event loop, which
            # may itself be waiting for this thread.
            call_soon = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
            with suppress(RuntimeError):  # that event loop has ended, and its waiter with it
                call_soon(event.set)

    async def wait(self) -> None:
        """Wait until the event has happened."""
        event = anyio.Event()
        with self._lock:
            if self._is_set:
                event.set()
            else:
                self._waiters[event] = threading.get_ident(), current_token().native_token
        try:
            await event.wait()
        finally:
            with self._lock:
                self._waiters.pop(event, None)
