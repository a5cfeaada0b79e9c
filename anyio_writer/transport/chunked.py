"""A body in HTTP chunks (RFC 9112, 7.1), taken apart a read at a time while it is plain.

Servers give every token a chunk of its own, and one read of a fast stream holds dozens of them. h11
hands them out one by one, through a generator or two of each library above it, which is more work
than all that is done with the tokens.

Only what has one meaning is taken apart here: a size, a line end, so many bytes, a line end. All
else is left to h11: the end of the body, extensions, trailers, whatever is malformed or cut off. It
gets such bytes as if it had read them itself, so it has the last word on what is valid, and it
knows whether the connection can be used again.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import Any, Final

import httpcore

from .network import NetworkStream

_READ_SIZE: Final = 65536
_MOST_MADE_UP: Final = 65536  # bytes of a chunk that h11 has begun; few, if it came with a head

# Between two chunks, in one: the line end of the first and the size of the second.
_BETWEEN: Final = re.compile(rb"\r\n([0-9A-Fa-f]{1,7})\r\n")
_BEGUN: Final = re.compile(rb"(?:\r(?:\n(?:[0-9A-Fa-f]{1,7}\r?)?)?)?")
_LINE_END: Final = b"\r\n"


class PlainChunks:
    """Takes the data out of chunks, as long as they are plain."""

    __slots__ = ("is_plain", "left", "tail")

    def __init__(self) -> None:
        self.is_plain = True
        """Whether all that came is understood; what is not, and all behind it, is in ``tail``."""
        self.left = 0
        """Bytes of data that the last chunk still has."""
        self.tail = _LINE_END
        """What follows the last chunk. The head of a response ends as a chunk does."""

    def feed(self, received: bytes) -> bytes:
        """Take the next bytes while they are plain; returns the data in them."""
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
        self.is_plain = _BEGUN.fullmatch(self.tail) is not None
        return b"".join(parts)


# What brings h11 behind a chunk when it has read so much of what follows the last one.
_TO_A_CHUNK: Final = {b"": b"", b"\r": b"\n1\r\n?", b"\r\n": b"1\r\n?"}


def body_of(request: httpcore.Request, response: httpcore.Response) -> AsyncIterator[bytes]:
    """The body of a response that has just begun: in plain chunks if it is, else by h11 alone."""
    body: Any = response.stream  # its type allows for a blocking pool's, too
    network: Any = _extension(response, "network_stream")
    if not isinstance(network, NetworkStream):  # it is no HTTP connection any more
        return aiter(body)
    head, _, begun = network.take_overheard().partition(b"\r\n\r\n")
    if (
        request.method == b"POST"
        and _is_chunked(response)
        # What was read is this head from its start. It is not if an interim response came before,
        # or if a server had begun to answer before it was asked.
        and head.startswith(b"HTTP/1.1 200 ")
        and head.count(b"\n") == head.count(b"\r\n")  # h11 lets a head end in other ways, too
    ):
        chunks = PlainChunks()
        data = chunks.feed(begun)
        if chunks.tail in _TO_A_CHUNK and chunks.left <= _MOST_MADE_UP:
            timeouts: dict[str, Any] = _extension(request, "timeout") or {}
            return _by_the_read(chunks, data, network, body, timeouts.get("read"))
    return aiter(body)


def _is_chunked(response: httpcore.Response) -> bool:
    encodings = [value for name, value in response.headers if name.lower() == b"transfer-encoding"]
    return encodings == [b"chunked"]  # h11 has made it lower case


def _extension(message: Any, name: str) -> Any:
    return message.extensions.get(name)


async def _by_the_read(
    chunks: PlainChunks,
    data: bytes,
    network: NetworkStream,
    body: AsyncIterable[bytes],
    read_timeout: float | None,
) -> AsyncGenerator[bytes]:
    """What comes from the network as long as it is plain, then what h11 makes of the rest.

    When h11 takes over, it is where the body began, with what came along with the head (``data``).
    What comes next is to follow a chunk. So the chunk that h11 is in gets its missing bytes;
    between two chunks it gets one of its own. Both are made up, and what h11 gives for them is left
    out, as is what was given out before.

    No plain piece is kept while the next one is awaited: many streams may wait long.
    """
    missing, chunk = chunks.left, _TO_A_CHUNK[chunks.tail]
    left_out = len(data) + missing + bool(chunks.tail)
    if data:
        yield data
    del data
    # Nothing more is the connection's end, not the body's; h11 will see it, too.
    while chunks.is_plain and (received := await network.read(_READ_SIZE, read_timeout)):
        if data := chunks.feed(received):
            yield data
        del data, received
    network.push_back(bytes(missing) + chunk + chunks.tail)
    del chunks
    async for data in body:
        skipped = min(left_out, len(data))
        left_out -= skipped
        if data := data[skipped:]:
            yield data
