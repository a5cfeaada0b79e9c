"""What the server has recorded: connections, and the requests on them."""

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

DEFAULT_MAX_BODY_BYTES: Final = 64 * 1024 * 1024


@dataclass(eq=False, kw_only=True)
class RecordedConnection:
    """One accepted connection.

    Attributes:
        requests: How many complete requests arrived on it.
        peer_left: When the server noticed that the client had left, as a time of
            `anyio.current_time` in the server's event loop. A client that shuts down only its
            sending half counts as well.
        closed_at: When the server closed the connection, on the same clock.
    """

    requests: int = 0
    peer_left: float | None = None
    closed_at: float | None = None

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, whichever side ended it."""
        return self.closed_at is not None


@dataclass(eq=False, kw_only=True)
class RecordedRequest:
    """A request that arrived completely.

    Attributes:
        method: The method, such as ``POST``.
        target: The path and the query, as they were sent.
        headers: Names (lower case) and values, in order.
        http_version: The version of HTTP, such as ``1.1``.
        body: The body, without its framing. Empty if the server has dropped it.
        body_kept: Whether the server still has the body. It keeps ``max_body_bytes`` of bodies.
        connection: The connection that it arrived on.
        answered: Whether the whole reply was handed to the network, terminator included.
    """

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    http_version: str
    body: bytes = field(repr=False)
    connection: RecordedConnection
    answered: bool = False
    body_kept: bool = True

    @property
    def path(self) -> str:
        """The target up to the question mark."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The target after the question mark, or ``""``."""
        return self.target.partition("?")[2]

    @property
    def peer_left(self) -> float | None:
        """When the peer went away, while or after it was answered, if it has.

        In seconds of `anyio.current_time`. ``answered`` says which of the two it was.
        """
        return self.connection.peer_left

    def header(self, name: str) -> str | None:
        """The first header of that name (in any case)."""
        wanted = name.lower().encode("latin-1")
        return next((value.decode("latin-1") for key, value in self.headers if key == wanted), None)

    def json(self) -> Any:  # tests index it freely
        """The body as JSON.

        Raises:
            ValueError: It is not JSON, or the server has forgotten it.
        """
        if not self.body_kept:
            raise ValueError(
                "The server has forgotten this body to make space for newer ones. "
                "ChatServer(max_body_bytes=...) sets how many bytes it keeps."
            )
        return json.loads(self.body)


class KeptBodies:
    """The newest requests whose bodies together have at most ``max_bytes``.

    Args:
        max_bytes: How many bytes of bodies are kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._held = 0
        self._requests: deque[RecordedRequest] = deque()

    def add(self, request: RecordedRequest) -> None:
        """Keep the body of a request, and forget the oldest ones if there are too many bytes."""
        if not request.body:
            return
        self._requests.append(request)
        self._held += len(request.body)
        while self._held > self.max_bytes and len(self._requests) > 1:
            oldest = self._requests.popleft()
            self._held -= len(oldest.body)
            oldest.body = b""
            oldest.body_kept = False
