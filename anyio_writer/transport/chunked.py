"""A body in HTTP chunks (RFC 9112, 7.1), taken apart one read at a time while they are simple.

Servers give every token a chunk of its own, and one read of a fast stream holds dozens of them. h11
returns them one by one, through a generator or two of each library above it, which is more work
than everything that is done with the tokens.

Only what has one meaning is taken apart here: a size, a line end, that many bytes, a line end.
Everything else is left to h11: the end of the body, extensions, trailers, whatever is malformed or
cut off. It gets such bytes as if it had read them itself. So it decides what is valid, and it knows
whether the connection can be used again.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Final, Protocol
from zlib import crc32

from ..errors import APIConnectionError

_READ_SIZE: Final = 65536
_LONGEST_FILLER: Final = 65536  # zeros for h11; few, as little comes along with a head

# Between two chunks, in one: the line end of the first and the size of the second.
_BETWEEN: Final = re.compile(rb"\r\n([0-9A-Fa-f]{1,7})\r\n")
_BEGUN: Final = re.compile(rb"(?:\r(?:\n(?:0{1,7}\r\n\r?|[0-9A-Fa-f]{1,7}\r?)?)?)?")
_END: Final = re.compile(rb"\r\n0{1,7}\r\n(?:[^\r\n]+\r\n)*\r\n")
_SIZE_BEGUN: Final = re.compile(rb"\r\n(?!\r)([0-9A-Fa-f]{0,7})(\r?)")
_LINE_END: Final = b"\r\n"


class RewindableStream(ABC):
    """A connection that can be read past h11, and then by h11 again."""

    @abstractmethod
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes; empty at the end."""

    @abstractmethod
    def begin_body(self, size: int | None) -> bytes | None:
        """What came of a body along with its head; None if that is not known."""

    @abstractmethod
    def push_back(self, data: bytes) -> None:
        """Let the next reads give this, and then what comes."""

    @abstractmethod
    def retire(self) -> None:
        """Close the connection after this response instead of using it again."""


class Reader(Protocol):
    """Anything that is read piece by piece."""

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        ...

    async def aclose(self) -> None:
        """Let go of everything."""
        ...


class SimpleChunks:
    """Takes the data out of chunks, as long as they have no extensions."""

    __slots__ = ("is_simple", "left", "tail")

    def __init__(self) -> None:
        self.is_simple: bool = True
        """Whether all that came is understood; what is not, and all behind it, is in ``tail``."""
        self.left: int = 0
        """Bytes of data that the last chunk still has."""
        self.tail: bytes = _LINE_END
        """What follows the last chunk. The head of a response ends as a chunk does."""

    def feed(self, received: bytes) -> bytes:
        """Take the next bytes while they are simple; returns the data in them."""
        received = self.tail + received
        end = self.left
        parts = [received[:end]]
        while found := _BETWEEN.match(received, end):
            size = int(found[1], 16)
            if not size:
                break
            start = found.end()
            end = start + size
            parts.append(received[start:end])
        self.left = max(end - len(received), 0)
        self.tail = received[end:]
        self.is_simple = _BEGUN.fullmatch(self.tail) is not None
        return b"".join(parts)

    @property
    def is_end(self) -> bool:
        """Whether ``tail`` is the end of the body, and nothing is behind it."""
        return _END.fullmatch(self.tail) is not None

    def filler(self) -> tuple[bytes, int] | None:
        """What brings h11 behind a chunk if it has read all this: framing, and so many zeros.

        None if nothing can.
        """
        if not self.tail:
            return (b"", self.left) if self.left <= _LONGEST_FILLER else None
        if self.tail == b"\r":
            return b"\n1\r\n", 1
        found = _SIZE_BEGUN.fullmatch(self.tail)
        if found is None:
            return None
        digits, is_whole = found.groups()
        # What h11 takes for the size of this chunk need not be what the server goes on with.
        framing, size = (b"\n", digits) if is_whole else (b"1\r\n", digits + b"1")
        return (framing, int(size, 16)) if 0 < int(size, 16) <= _LONGEST_FILLER else None


def read_chunked(network: RewindableStream, by_h11: Reader) -> Reader:
    """The body of a response that has just begun: past h11 if that can be, else by h11 alone."""
    begun = network.begin_body(None)
    if begun is None:
        return by_h11
    chunks = SimpleChunks()
    data = chunks.feed(begun)
    filler = chunks.filler()
    if filler is None and not chunks.is_end:
        network.retire()
        return by_h11
    return ChunkedBody(network, by_h11, chunks=chunks, begun=data, filler=filler)


class ChunkedBody:
    """The data of the chunks as long as they are simple, then what h11 returns for the rest.

    When h11 takes over, it is where the body began, with what came along with the head (``begun``).
    What comes next is to follow a chunk. So the chunk that h11 is in gets its missing bytes;
    between two chunks it gets one of its own. Both are filler, and what h11 returns for them is
    left out, as is what was returned before. That it is exactly this is checked.

    No piece is kept while the next one is awaited: many streams may wait for long.
    """

    __slots__ = (
        "_begun",
        "_by_h11",
        "_checksum",
        "_chunks",
        "_filler",
        "_known_size",
        "_network",
    )

    def __init__(
        self,
        network: RewindableStream,
        by_h11: Reader,
        *,
        chunks: SimpleChunks,
        begun: bytes,
        filler: tuple[bytes, int] | None,
    ) -> None:
        self._network = network
        self._by_h11 = by_h11
        self._chunks: SimpleChunks | None = chunks
        self._begun = begun  # until it is read
        self._known_size = len(begun)
        self._checksum = crc32(begun)
        self._filler = filler  # none where h11 has read the end of the body, too

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        chunks = self._chunks
        if chunks is None:
            return await self._by_h11.read()
        if data := self._begun:
            self._begun = b""
            return data
        # Nothing more is the connection's end, not the body's; h11 will see it, too.
        while chunks.is_simple and (received := await self._network.read(_READ_SIZE)):
            if data := chunks.feed(received):
                return data
            del received
        return await self._hand_over(chunks)

    async def aclose(self) -> None:
        """Leave the body."""
        await self._by_h11.aclose()

    async def _hand_over(self, chunks: SimpleChunks) -> bytes:
        """Let h11 read the rest of the body; returns what is first in it."""
        self._chunks = None
        if not chunks.is_end:  # h11 would take what follows for the answer to the next request
            self._network.retire()
        filler = b""
        if self._filler is not None:
            framing, size = self._filler
            filler = bytes(size)
            self._network.push_back(framing + filler + chunks.tail)
        known = self._known_size
        start = known + len(filler)
        data = b""
        while len(data) < start and (piece := await self._by_h11.read()):
            data += piece
        if crc32(data[:known]) != self._checksum or data[known:start] != filler:
            self._network.retire()
            raise APIConnectionError("The response's HTTP chunks can be read in two ways.")
        return data[start:] or await self._by_h11.read()
