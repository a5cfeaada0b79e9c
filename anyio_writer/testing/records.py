"""What the server has seen: connections and the requests on them."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False, kw_only=True)
class RecordedConnection:
    """One accepted connection.

    Attributes:
        requests: How many whole requests arrived on it.
        peer_left: When the peer was found to have gone, in seconds of
            `anyio.current_time`. A peer that shuts down only its sending half counts.
        closed_at: When the server had closed it, on the same clock.
    """

    requests: int = 0
    peer_left: float | None = None
    closed_at: float | None = None

    @property
    def closed(self) -> bool:
        """Whether it is over, whoever ended it."""
        return self.closed_at is not None


@dataclass(eq=False, kw_only=True)
class RecordedRequest:
    """One request that arrived whole.

    Attributes:
        method: Such as ``POST``.
        target: Path and query as they were sent.
        headers: Names (lower case) and values, in order.
        http_version: Such as ``1.1``.
        body: Without its framing.
        connection: The connection it came on.
        answered: Whether the reply was played to its end: all of it, terminator included,
            was handed to the network.
    """

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    http_version: str
    body: bytes = field(repr=False)
    connection: RecordedConnection
    answered: bool = False

    @property
    def path(self) -> str:
        """The target up to the question mark."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The target behind the question mark, or ``""``."""
        return self.target.partition("?")[2]

    @property
    def peer_left(self) -> float | None:
        """When the peer went away, while or after it was answered, if it has.

        In seconds of `anyio.current_time`; ``answered`` tells which of the two.
        """
        return self.connection.peer_left

    def header(self, name: str) -> str | None:
        """The first header of that name (in any case)."""
        wanted = name.lower().encode("latin-1")
        return next((value.decode("latin-1") for key, value in self.headers if key == wanted), None)

    def json(self) -> Any:  # tests index it freely
        """The body as JSON.

        Raises:
            ValueError: It is none.
        """
        return json.loads(self.body)
