"""The append-only log of one answer, as producers and readers see it: an interface, and no engine.

Each key has a lease, which makes one process its producer, and a log of numbered entries for each
generation. A generation begins when a producer is elected. Entries are numbered from 1 without a
gap; the last one says how the answer ended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from ..errors import LeaseLostError

State: TypeAlias = Literal["running", "complete", "failed", "stopped", "lost", "unknown"]
"""``lost``: it did not end, and nobody holds the lease. ``unknown``: there is nothing."""

EndState: TypeAlias = Literal["complete", "failed", "stopped"]


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """What a producer shows with everything that it writes.

    Attributes:
        key: Which answer.
        token: A secret that only this producer has. The log refuses it when the lease has run out.
        generation: Which of the key's logs it writes. Later ones are larger.
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


class Election(NamedTuple):
    """Who won.

    Attributes:
        lease: The caller's, if it was elected; else None.
        generation: The generation that is there now, whoever produces it.
    """

    lease: Lease | None
    generation: int


class Receipt(NamedTuple):
    """What a producer learns by writing.

    Attributes:
        entries: How many entries the log has now. Fewer than were sent means that the server has
            lost some of them, as in a failover, and that they are to be sent again.
        stop_wanted: Whether somebody has asked for a stop.
    """

    entries: int
    stop_wanted: bool


class Entry(NamedTuple):
    """One entry of a log.

    Attributes:
        number: From 1.
        data: A batch of records, encoded.
    """

    number: int
    data: bytes


class RelayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a relay knows of a key.

    Attributes:
        key: Which.
        state: Whether its answer is running, or how it ended. "lost" is one whose producer is gone
            without having said how; "unknown" a key without an answer.
        generation: Which of the key's answers this is: another number after a new producer has
            taken the key over. 0 if there is none.
        started_at: When its producer was elected, in seconds since 1970.
        ended_at: When the end was recorded, in seconds since 1970; None before.
        events: How many events there are so far.
        lease_left: For how many seconds the producer still holds the key if it does nothing; 0 if
            nobody holds it.
    """

    key: str
    state: State = "unknown"
    generation: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    events: int = 0
    lease_left: float = 0.0


class Log(ABC):
    """What a relay stores answers in. All of its methods may wait, and may be cancelled anywhere.

    A cancelled call may have had its effect or not; doing it again with the same arguments does
    no harm, nor does a second try after a lost reply.

    Raises:
        RelayUnavailableError: By each method: the server could not be reached, or refused it, for
            as long as a lease lasts.
    """

    @abstractmethod
    async def elect(self, key: str, token: str) -> Election:
        """Become the producer of a key, if it has neither a producer nor an answer that has ended.

        Args:
            key: Which.
            token: A new secret of the caller's. Asking again with it gives the same lease.
        """

    @abstractmethod
    async def append(self, lease: Lease, number: int, data: bytes, events: int) -> Receipt:
        """Append an entry and renew the lease.

        It is appended only if ``number`` is the next one. One that is there already stays as it is.

        Args:
            lease: The producer's.
            number: Which entry this is; 0 only renews the lease.
            data: Its records, encoded.
            events: How many events there are, this entry's included; of no account if ``number``
                is 0.

        Raises:
            LeaseLostError: The lease has run out, so nothing was appended.
        """

    @abstractmethod
    async def finish(
        self, lease: Lease, number: int, data: bytes, events: int, state: EndState
    ) -> Receipt:
        """Append the last entry and give the lease up; the arguments are those of ``append``.

        Nothing is given up if ``number`` is not the next one.

        Raises:
            LeaseLostError: The lease has run out, so nothing was appended.
        """

    @abstractmethod
    async def release(self, lease: Lease) -> None:
        """Give the lease up without an end: the answer is lost, and readers learn it at once."""

    @abstractmethod
    async def read(self, key: str, generation: int, after: int, wait: float) -> list[Entry]:
        """The entries behind number ``after``, some or all of them, in order.

        Args:
            key: Which answer.
            generation: Which of its logs.
            after: The number of the last entry that is known; 0 for none.
            wait: For how many seconds to wait if there are none. The list is empty if nothing has
                come by then; it may be so earlier.
        """

    @abstractmethod
    async def stop(self, key: str) -> bool:
        """Ask the producer of a key to stop; it does within a second.

        Returns:
            Whether the key has a producer, which will stop.
        """

    @abstractmethod
    async def status(self, key: str) -> RelayStatus:
        """What is known of a key."""

    @abstractmethod
    async def expire(self, key: str, after: float = 0.0) -> bool:
        """Forget a key's answer after so many seconds, instead of ``ttl`` seconds after its end.

        At once by default: a producer loses its lease, and readers get
        ``RelayedAnswerGoneError``. If the answer still runs and ``after`` is not 0, the
        producer's next write sets ``ttl`` seconds again: call it when the answer has ended.

        Returns:
            Whether there was an answer.
        """
