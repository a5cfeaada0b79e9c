"""Turns a reply into the steps that play it. Faults are steps, too; the server follows them."""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypedDict

import anyio

from .threadsafe import ThreadsafeEvent


@dataclass(frozen=True)
class Sleep:
    """Wait for a number of seconds."""

    seconds: float


@dataclass(frozen=True)
class Hold:
    """Wait for an event before going on.

    If the server runs in a thread (``with ChatServer(...)``), use a `ThreadsafeEvent`.
    """

    event: anyio.Event | ThreadsafeEvent


@dataclass(frozen=True)
class Cut:
    """Close the connection now (FIN), even if the reply is not complete.

    The connection counts as closed when the client has closed its side, too.
    """


@dataclass(frozen=True)
class Reset:
    """Break the connection now (RST)."""


@dataclass(frozen=True)
class Stall:
    """Send nothing more, and keep the connection open until the client closes it."""


@dataclass(frozen=True)
class Raw:
    """Write bytes to the socket as they are, without HTTP framing."""

    data: bytes


Step: TypeAlias = Sleep | Hold | Cut | Reset | Stall | Raw
Headers: TypeAlias = Mapping[str, str | None] | Sequence[tuple[str, str | None]]
Framing: TypeAlias = Literal["chunked", "length", "close", "none"]
Encoding: TypeAlias = Literal["identity", "gzip", "deflate"]

_WBITS: Final[Mapping[Encoding, int]] = {  # how zlib names the two formats
    "gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}


class ReplyFields(TypedDict, total=False):
    """The fields of `Reply` that ``text_reply`` and the like accept as keyword arguments."""

    headers: Headers
    headers_delay: float
    headers_hold: anyio.Event | ThreadsafeEvent | None
    framing: Framing
    encoding: Encoding
    flush_pieces: bool
    pace: float
    terminator_delay: float
    cut_after: int | None
    reset_after: int | None
    stall_after: int | None
    never_end: bool


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One response, and what goes wrong with it.

    Faults after a number of bytes happen at the end of the body at the latest, before its
    terminator. 0 means right after the headers.

    Attributes:
        status: The HTTP status, 200 or above.
        headers: Added to ``content-type: text/event-stream``, ``x-request-id: req-<n>`` (n is the
            position in ``ChatServer.requests``), and what framing and encoding need. A header
            given here replaces one of these. None leaves it out.
        body: The pieces, with steps between them. Each piece is one HTTP chunk and one write to the
            socket. Plain bytes are one piece. An iterator can be used only once.
        headers_delay: Seconds until the headers are sent.
        headers_hold: An event to wait for before the headers are sent, as in `Hold`.
        framing: How the client learns where the body ends: ``chunked``, ``length``
            (content-length), or ``close`` (by the end of the connection). ``none`` writes only the
            pieces, and no headers.
        encoding: How the pieces are compressed.
        flush_pieces: Whether each piece leaves the compressor at once. If not, most of them are
            sent only at the end.
        pace: Seconds between two pieces.
        terminator_delay: Seconds between the body and its terminator.
        cut_after: After how many bytes of the body to `Cut`. Framing does not count.
        reset_after: After how many bytes of the body to `Reset`.
        stall_after: After how many bytes of the body to `Stall`.
        never_end: Send the whole body, but no terminator, and keep the connection open until the
            client closes it.
    """

    status: int = 200
    headers: Headers = ()
    body: bytes | Iterable[bytes | Step] = ()
    headers_delay: float = 0.0
    headers_hold: anyio.Event | ThreadsafeEvent | None = None
    framing: Framing = "chunked"
    encoding: Encoding = "identity"
    flush_pieces: bool = True
    pace: float = 0.0
    terminator_delay: float = 0.0
    cut_after: int | None = None
    reset_after: int | None = None
    stall_after: int | None = None
    never_end: bool = False


def with_defaults(defaults: Mapping[str, str], given: Headers) -> list[tuple[str, str | None]]:
    """Add the defaults that are not given, in front."""
    pairs = list(given.items() if isinstance(given, Mapping) else given)
    names = {name.lower() for name, _ in pairs}
    return [*((name, value) for name, value in defaults.items() if name not in names), *pairs]


def encoded(reply: Reply) -> Iterator[bytes | Step]:
    """The body as it is sent: compressed, if the reply says so."""
    pieces = (reply.body,) if isinstance(reply.body, bytes) else reply.body
    if reply.encoding == "identity":
        yield from pieces
        return
    packer = zlib.compressobj(wbits=_WBITS[reply.encoding])
    flush = zlib.Z_SYNC_FLUSH if reply.flush_pieces else zlib.Z_NO_FLUSH
    for piece in pieces:
        if isinstance(piece, bytes):
            yield packer.compress(piece) + packer.flush(flush)
        else:
            yield piece
    yield packer.flush()


def script(reply: Reply, pieces: Iterable[bytes | Step]) -> Iterator[bytes | Step]:
    """Insert the reply's delays and faults between the pieces of its body.

    Args:
        reply: Where the delays and faults come from.
        pieces: The body as `encoded` gave it.

    Yields:
        Everything that happens between the headers and the terminator.
    """
    steps = _paced(pieces, reply.pace) if reply.pace else pieces
    faults: tuple[tuple[int | None, Step], ...] = (
        (reply.cut_after, Cut()),
        (reply.reset_after, Reset()),
        (reply.stall_after, Stall()),
    )
    for limit, fault in faults:
        if limit is not None:
            steps = _until(steps, limit, fault)
    yield from steps
    if reply.terminator_delay:
        yield Sleep(reply.terminator_delay)
    if reply.never_end:
        yield Stall()


def _paced(pieces: Iterable[bytes | Step], pace: float) -> Iterator[bytes | Step]:
    started = False
    for piece in pieces:
        if isinstance(piece, bytes):
            if started:
                yield Sleep(pace)
            started = True
        yield piece


def _until(steps: Iterable[bytes | Step], limit: int, fault: Step) -> Iterator[bytes | Step]:
    left = limit
    for step in steps:
        if left <= 0:
            break
        if isinstance(step, bytes):
            yield step[:left]
            left -= len(step)
        else:
            yield step
    yield fault
