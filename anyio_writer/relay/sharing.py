"""One question for all tasks of a relay that wait for the same answer."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class _Pending(Generic[T]):
    """A question that was asked and is not answered yet."""

    def __init__(self) -> None:
        self.is_over = anyio.Event()
        self.outcome: tuple[T | None, Exception | None] | None = None
        """The reply or the error; None if whoever asked was cancelled."""


class SharedWaits(Generic[T]):
    """Asks a question once for all who wait for its reply at the same time.

    The first of them asks, in its own task, so one that is alone costs no further task. If it is
    cancelled, the next one asks again.
    """

    def __init__(self) -> None:
        self._pending: dict[Hashable, _Pending[T]] = {}

    async def ask(
        self, name: Hashable, seconds: float, question: Callable[[float], Awaitable[T | None]]
    ) -> T | None:
        """Ask, or wait for the reply to what somebody else has asked.

        Args:
            name: What is asked. Equal names are one question.
            seconds: How long to wait at most.
            question: Asks, and waits for so many seconds at most.

        Returns:
            The reply, which all share; None if there was none in time.

        Raises:
            Exception: What asking has raised, in whatever task.
        """
        deadline = anyio.current_time() + seconds
        while (pending := self._pending.get(name)) is not None:
            with anyio.CancelScope(deadline=deadline):
                await pending.is_over.wait()
            if pending.outcome is not None:
                reply, error = pending.outcome
                if error is not None:
                    raise copy.copy(error) from error
                return reply
            if anyio.current_time() >= deadline:
                return None
        pending = self._pending[name] = _Pending()
        try:
            reply = await question(deadline - anyio.current_time())
            pending.outcome = reply, None
        except Exception as exc:
            pending.outcome = None, exc
            raise
        finally:
            del self._pending[name]
            pending.is_over.set()
        return reply
