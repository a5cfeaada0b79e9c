"""The append-only log of one answer, as producers and readers see it: an interface, and no engine.

Each key has a lease, which makes one process its producer, and a log of numbered entries for each
generation. A generation begins when a producer is elected. Entries are numbered from 1 without a
gap; the last one says how the answer ended.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from ..errors import InvalidParameterError, LeaseLostError
from ..numbers import check_positive

State: TypeAlias = Literal["running", "complete", "failed", "stopped", "lost", "unknown"]
"""``lost``: it did not end, and nobody holds the lease. ``unknown``: there is nothing."""

EndState: TypeAlias = Literal["complete", "failed", "stopped"]


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A producer's right to write the answer of a key. It passes it with every write.

    Attributes:
        key: The key.
        token: A secret that only this producer has. The log refuses it once the lease has run out.
        generation: The number of the log that it writes. Each new producer of a key gets a larger
            number.
    """

    key: str
    token: str
    generation: int


def lease_lost_error(lease: Lease) -> LeaseLostError:
    """What a producer gets whose lease is gone, for whatever reason."""
    return LeaseLostError(
        f"The lease on {lease.key!r} is gone, so nothing more can be published there: it ran out, "
        "or the key was deleted, or another producer has taken it over."
    )


def check_key(key: object) -> None:
    """Raise an error unless this is a key."""
    if not isinstance(key, str) or not key:
        raise InvalidParameterError(f"A key must be a text that is not empty, not {key!r}.")


def check_after(after: object) -> None:
    """Raise an error unless this is a time for ``Log.expire()``."""
    if after != 0:
        check_positive("after", after, InvalidParameterError)
    if after == math.inf:
        raise InvalidParameterError("after must be finite: without expire(), ttl applies.")


class Election(NamedTuple):
    """The outcome of ``Log.elect()``.

    Attributes:
        lease: The caller's lease, or None if it was not elected.
        generation: The current generation of the key, whoever produces it.
    """

    lease: Lease | None
    generation: int


class Receipt(NamedTuple):
    """The outcome of ``Log.append()`` and ``Log.finish()``.

    Attributes:
        entries: How many entries the log has now. If these are fewer than were sent, the server
            has lost some, as in a failover, and the producer sends them again.
        stop_wanted: Whether somebody has called ``stop()``.
    """

    entries: int
    stop_wanted: bool


class Entry(NamedTuple):
    """One entry of a log.

    Attributes:
        number: Its number, from 1.
        data: A batch of records, encoded.
    """

    number: int
    data: bytes


class RelayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a relay knows about a key.

    Attributes:
        key: The key.
        state: Whether its answer is running, or how it ended. "lost" means that the producer
            disappeared without recording an end, "unknown" that the key has no answer.
        generation: Which of the key's answers this is. The number changes when a new producer
            takes the key over; 0 if there is no answer.
        started_at: When the producer was elected, in seconds since 1970.
        ended_at: When the end was recorded, in seconds since 1970; None before that.
        events: The number of events so far.
        lease_left: How many seconds are left of the producer's lease; 0 if nobody has one.
    """

    key: str
    state: State = "unknown"
    generation: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    events: int = 0
    lease_left: float = 0.0


class Log(ABC):
    """Where a relay stores answers. Each method may wait, and may be cancelled at any point.

    A call that was cancelled, or whose reply was lost, may or may not have had its effect. Calling
    it again with the same arguments does no harm.

    Raises:
        RelayUnavailableError: Any method raises it if the server could not be reached, or refused
            the command, for as long as a lease lasts.
    """

    @abstractmethod
    async def elect(self, key: str, token: str) -> Election:
        """Become the producer of a key, if it has neither a producer nor an answer that has ended.

        Args:
            key: The key.
            token: A new secret of the caller. A second call with the same one returns the same
                lease.
        """

    @abstractmethod
    async def append(self, lease: Lease, number: int, data: bytes, events: int) -> Receipt:
        """Append an entry and renew the lease.

        The entry is appended only if ``number`` is the next number of the log. An existing entry
        is never changed.

        Args:
            lease: The producer's lease.
            number: The number of the entry; 0 renews the lease and appends nothing.
            data: The records of the entry, encoded.
            events: The number of events so far, with those of this entry. It is ignored if
                ``number`` is 0.

        Raises:
            LeaseLostError: The lease has run out, so nothing was appended.
        """

    @abstractmethod
    async def finish(
        self, lease: Lease, number: int, data: bytes, events: int, state: EndState
    ) -> Receipt:
        """Append the last entry and give up the lease. The arguments are those of ``append``.

        The lease is kept if ``number`` is not the next number of the log.

        Raises:
            LeaseLostError: The lease has run out, so nothing was appended.
        """

    @abstractmethod
    async def release(self, lease: Lease) -> None:
        """Give up the lease without an end. Readers learn of it before it would have run out."""

    @abstractmethod
    async def read(self, key: str, generation: int, after: int, wait: float) -> list[Entry]:
        """Return entries after number ``after``, in order: some or all of them.

        Args:
            key: The key.
            generation: The number of the log.
            after: The number of the last entry that the caller has; 0 if it has none.
            wait: How many seconds to wait if there is no such entry. The list is empty if none
                has arrived by then. It may also be empty earlier.
        """

    @abstractmethod
    async def stop(self, key: str) -> bool:
        """Stop the answer of a key, wherever its producer runs. It ends within a second.

        Returns:
            Whether there is a producer, which will stop.

        Raises:
            InvalidParameterError: The key is not a text, or empty.
        """

    @abstractmethod
    async def status(self, key: str) -> RelayStatus:
        """Return what the relay knows about a key.

        Raises:
            InvalidParameterError: The key is not a text, or empty.
        """

    @abstractmethod
    async def expire(self, key: str, after: float = 0.0) -> bool:
        """Delete the answer of a key after ``after`` seconds, instead of ``ttl`` after its end.

        By default it is deleted at once: a running producer loses its lease, and readers get
        ``RelayedAnswerGoneError``. Use other values of ``after`` only when the answer has ended:
        each write of a running producer sets the time to ``ttl`` again.

        Returns:
            Whether there was an answer.

        Raises:
            InvalidParameterError: The key is not a text, or empty; or ``after`` is not a finite
                number, 0 or more.
        """
