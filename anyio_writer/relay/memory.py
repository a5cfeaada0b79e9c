"""A relay within one process: for development, tests and services that run as one process."""

from __future__ import annotations

import math
import time

import anyio
from anyio.lowlevel import checkpoint

from ..errors import RelayUnavailableError
from .base import Relay
from .log import (
    Election,
    EndState,
    Entry,
    Lease,
    Receipt,
    RelayStatus,
    check_after,
    check_key,
    lease_lost_error,
)


class _Answer:
    """One generation of a key."""

    def __init__(self, token: str, generation: int) -> None:
        self.token = token
        self.generation = generation
        self.started_at = time.time()
        self.ended_at: float | None = None
        self.end: EndState | None = None
        self.events = 0
        self.stop_wanted = False
        self.entries: list[bytes] = []
        self.lease_end = -math.inf
        self.expires_at = math.inf
        self.changed = anyio.Event()  # of those who wait for an entry

    def notify(self) -> None:
        """Wake all who wait."""
        self.changed.set()
        self.changed = anyio.Event()


class MemoryRelay(Relay):
    """A relay within one event loop. Answers are kept until they expire or the block ends.

    The arguments are those of ``Relay``.
    """

    def __init__(
        self,
        *,
        ttl: float = 3600.0,
        lease: float = 10.0,
        flush: float = 0.02,
        flush_bytes: int = 64 * 1024,
    ) -> None:
        super().__init__(ttl=ttl, lease=lease, flush=flush, flush_bytes=flush_bytes)
        self._answers: dict[str, _Answer] = {}
        # What was lost and begun anew, by key and generation: its readers still get the rest.
        self._replaced: dict[tuple[str, int], _Answer] = {}
        self._next_sweep = -math.inf
        self._is_closed = True

    async def _connect(self) -> None:
        self._is_closed = False

    def _disconnect(self) -> None:
        self._is_closed = True
        for answer in self._answers.values():
            answer.notify()
        self._answers.clear()
        self._replaced.clear()

    # Producers.

    async def elect(self, key: str, token: str) -> Election:
        await self._begin()
        self._sweep()
        answer = self._find(key)
        if answer is not None and (answer.end is not None or self._holds(answer)):
            is_own = answer.token == token
            lease = Lease(key=key, token=token, generation=answer.generation) if is_own else None
            return Election(lease, answer.generation)
        # Later ones are larger, also after the earlier one was forgotten.
        generation = max(answer.generation + 1 if answer else 1, time.time_ns() // 1000)
        if answer is not None:
            answer.notify()
            self._replaced[key, answer.generation] = answer
        answer = self._answers[key] = _Answer(token, generation)
        self._renew(answer)
        return Election(Lease(key=key, token=token, generation=generation), generation)

    async def append(self, lease: Lease, number: int, data: bytes, events: int) -> Receipt:
        await self._begin()
        answer = self._held(lease)
        self._renew(answer)
        self._add(answer, number, data, events)
        return Receipt(len(answer.entries), answer.stop_wanted)

    async def finish(
        self, lease: Lease, number: int, data: bytes, events: int, state: EndState
    ) -> Receipt:
        await self._begin()
        answer = self._find(lease.key)
        if answer is not None and answer.end is not None and answer.token == lease.token:
            return Receipt(len(answer.entries), stop_wanted=False)  # it was recorded already
        answer = self._held(lease)
        self._renew(answer)
        if self._add(answer, number, data, events):
            answer.end, answer.ended_at = state, time.time()
            answer.lease_end = -math.inf
        return Receipt(len(answer.entries), answer.stop_wanted)

    async def release(self, lease: Lease) -> None:
        await self._begin()
        answer = self._find(lease.key)
        if answer is not None and answer.token == lease.token:
            answer.lease_end = -math.inf
            answer.notify()

    # Readers.

    async def read(self, key: str, generation: int, after: int, wait: float) -> list[Entry]:
        await self._begin()
        with anyio.move_on_after(wait):
            while (answer := self._find_generation(key, generation)) is not None:
                if len(answer.entries) > after:
                    new = enumerate(answer.entries[after:], after + 1)
                    return [Entry(number, data) for number, data in new]
                if wait <= 0 or answer.end is not None or not self._holds(answer):
                    break
                await answer.changed.wait()
                self._check_connected()
        return []

    async def status(self, key: str) -> RelayStatus:
        await self._begin()
        answer = self._find(key)
        if answer is None:
            return RelayStatus(key=key)
        is_held = self._holds(answer)
        return RelayStatus(
            key=key,
            state=answer.end or ("running" if is_held else "lost"),
            generation=answer.generation,
            started_at=answer.started_at,
            ended_at=answer.ended_at,
            events=answer.events,
            lease_left=answer.lease_end - anyio.current_time() if is_held else 0.0,
        )

    async def stop(self, key: str) -> bool:
        await self._begin()
        answer = self._find(key)
        if answer is None or not self._holds(answer):
            return False
        answer.stop_wanted = True
        return True

    async def expire(self, key: str, after: float = 0.0) -> bool:
        check_after(after)
        await self._begin()
        answer = self._find(key)
        if answer is None:
            return False
        answer.expires_at = anyio.current_time() + after
        if after <= 0:
            del self._answers[key]
            answer.notify()
        return True

    # The table.

    async def _begin(self) -> None:
        self._check_connected()
        await checkpoint()
        self._check_connected()

    def _check_connected(self) -> None:
        if self._is_closed:
            raise RelayUnavailableError("The relay is not open, so it has no answers.")
        self._check_loop()

    def _find(self, key: str) -> _Answer | None:
        check_key(key)
        answer = self._answers.get(key)
        if answer is not None and answer.expires_at <= anyio.current_time():
            del self._answers[key]
            answer.notify()
            return None
        return answer

    def _find_generation(self, key: str, generation: int) -> _Answer | None:
        answer = self._find(key)
        if answer is None or answer.generation != generation:
            answer = self._replaced.get((key, generation))
        return answer

    def _held(self, lease: Lease) -> _Answer:
        """The answer of which this is the lease."""
        answer = self._find(lease.key)
        if answer is None or answer.token != lease.token or not self._holds(answer):
            raise lease_lost_error(lease)
        return answer

    def _holds(self, answer: _Answer) -> bool:
        """Whether the answer has a producer."""
        return answer.lease_end > anyio.current_time()

    def _renew(self, answer: _Answer) -> None:
        now = anyio.current_time()
        answer.lease_end = now + self._lease
        answer.expires_at = now + self._ttl

    def _add(self, answer: _Answer, number: int, data: bytes, events: int) -> bool:
        """Append an entry if it is the next one."""
        if number != len(answer.entries) + 1:
            return False
        answer.entries.append(data)
        answer.events = events
        answer.notify()
        return True

    def _sweep(self) -> None:
        """Forget what has expired; now and then, since it looks at every answer."""
        now = anyio.current_time()
        if now < self._next_sweep:
            return
        self._next_sweep = now + self._ttl / 8
        self._answers = {key: each for key, each in self._answers.items() if each.expires_at > now}
        self._replaced = {
            name: each for name, each in self._replaced.items() if each.expires_at > now
        }
