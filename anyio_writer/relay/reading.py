"""The reader's side: the records of one log, in order, and the errors of a log that goes wrong."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn

import anyio

from ..errors import (
    ProducerLostError,
    RelayedAnswerGoneError,
    RelayUnavailableError,
    UnknownKeyError,
    WrongKindError,
)
from ..telemetry.recorder import Recorder
from ..transport.source import ByteSource, Clock
from .log import Entry, Log, RelayStatus
from .records import Header, Kind, Record, decode

_MARGIN: Final = 0.05
"""How many seconds after the end of a lease to look, since clocks differ in what a second is."""

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.25
"""How often to look for an answer that is still to be begun, in seconds."""


class LogSource(ByteSource):
    """What a relayed stream reads from. All of it runs in one task at a time.

    It waits at the server for entries, and never for longer than the producer's lease lasts as
    this side knows it. So it learns of a producer that is gone as soon as the lease runs out,
    and asks for the status once a lease.

    Args:
        log: Where to read.
        key: Which answer.
        generation: Which of the key's; None is the one that is there when it is opened.
        wait: How many seconds to wait for one.
        kind: What must have been published there; None is anything.
        check: Called before it is opened; raises what forbids it.
    """

    def __init__(
        self,
        log: Log,
        key: str,
        *,
        generation: int | None,
        wait: float,
        kind: Kind | None,
        check: Callable[[], None],
    ) -> None:
        self._log = log
        self._key = key
        self._wanted = generation
        self._wait = wait
        self._kind = kind
        self._check = check
        self.generation: int = 0
        """Which of the key's answers this is; 0 before it is opened."""
        self.n: int = 1
        """How many choices the request asked for, once the header was read."""
        self._entries: deque[Entry] = deque()  # read and not yet given out
        self._last = 0  # the number of the last entry that was read
        self._lease_end = 0.0  # when to look after the producer

    # As a source of a stream.

    async def open(self, clock: Clock, recorder: Recorder) -> None:
        """Find the answer; see ``find``."""
        clock.request_sent()
        await self.find()
        recorder.opened()

    async def read(self) -> bytes:
        """A log holds records and no bytes: ``next_records`` reads it."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing is held between two reads."""
        self._entries.clear()

    # As a log.

    async def find(self) -> None:
        """Find the answer, unless that was done.

        Raises:
            UnknownKeyError: There is no answer.
            ProducerLostError: It was another generation that was asked for.
        """
        if self.generation:
            return
        self._check()
        deadline = anyio.current_time() + self._wait
        pause = _FIRST_PAUSE
        while (status := await self._log.status(self._key)).state == "unknown":
            now = anyio.current_time()
            if now >= deadline:
                self._raise_unknown()
            await anyio.sleep(min(pause, deadline - now))
            pause = min(2 * pause, _LONGEST_PAUSE)
        if self._wanted not in (None, status.generation):
            self._raise_replaced()
        self.generation = status.generation
        self._note(status)

    async def read_kind(self) -> Kind:
        """What was published there; waits for the header, and opens it if that is to be done."""
        await self.find()
        if not self._entries:
            await self._fill()
        match decode(self._entries[0].data):
            case [Header(kind=kind), *_]:
                return kind
            case _:
                raise RelayUnavailableError("The log does not begin with what a producer writes.")

    async def next_records(self) -> list[Record]:
        """The records of the next entry; waits until there is one.

        Raises:
            ProducerLostError: There will be none, for the producer is gone.
            RelayedAnswerGoneError: It was stored, and is no longer.
            WrongKindError: The answer is of another kind.
        """
        if not self._entries:
            await self._fill()
        records = decode(self._entries.popleft().data)
        if records and isinstance(header := records[0], Header):
            if self._kind not in (None, header.kind):
                self._raise_kind(header.kind)
            self.n = header.n
            del records[0]
        return records

    async def _fill(self) -> None:
        """Read at least one more entry."""
        while not await self._read(self._lease_end - anyio.current_time()):
            status = await self._log.status(self._key)
            if status.generation == self.generation and status.state == "running":
                self._note(status)
                continue
            # What was appended last may have come between the two questions.
            if await self._read(0):
                return
            if status.generation not in (0, self.generation):
                self._raise_replaced()
            if status.state == "lost":
                raise ProducerLostError(
                    f"The producer of {self._key!r} is gone: it died, froze or was cut off, and "
                    "its lease has run out. The answer is not complete."
                )
            raise RelayedAnswerGoneError(
                f"The answer {self._key!r} is no longer stored: it expired, or was deleted or "
                "evicted."
            )

    async def _read(self, wait: float) -> bool:
        """Read what there is, or what comes within so many seconds; whether there was anything."""
        entries = await self._log.read(self._key, self.generation, self._last, max(wait, 0))
        for entry in entries:
            if entry.number != self._last + 1:
                raise RelayedAnswerGoneError(
                    f"Part of the answer {self._key!r} is no longer stored: entry "
                    f"{self._last + 1} is missing."
                )
            self._last = entry.number
            self._entries.append(entry)
        return bool(entries)

    def _note(self, status: RelayStatus) -> None:
        # Where nobody holds the lease there is nothing to wait for.
        margin = _MARGIN if status.state == "running" else 0.0
        self._lease_end = anyio.current_time() + status.lease_left + margin

    def _raise_unknown(self) -> NoReturn:
        waited = f" within {self._wait} s" if self._wait else ""
        raise UnknownKeyError(f"The relay has no answer {self._key!r}{waited}.")

    def _raise_replaced(self) -> NoReturn:
        raise ProducerLostError(
            f"The producer of {self._key!r} was lost, and another one has begun the answer anew."
        )

    def _raise_kind(self, kind: Kind) -> NoReturn:
        raise WrongKindError(
            f"The key {self._key!r} holds a {kind}: follow it with Relay.open_{kind}()."
        )
