"""Turns a reply into HTTP/1.1 bytes: the head, the framing of each piece, the terminator.

h11 reads the requests but does not write the responses: it refuses to write what a faulty server
sends.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from .frames import reason
from .records import RecordedRequest
from .script import Framing, Reply, Step, encoded, script, with_defaults

_NO_BODY: Final = frozenset({204, 304})


@dataclass(frozen=True, kw_only=True)
class Frame:
    """How a reply is sent.

    Attributes:
        head: Status line and headers.
        steps: Everything that happens between the head and the terminator.
        wrap: Puts the framing around a piece of the body.
        terminator: What follows the body.
        reuse: Whether the connection serves another request afterwards.
    """

    head: bytes = b""
    steps: Iterable[bytes | Step]
    wrap: Callable[[bytes], bytes] = bytes
    terminator: bytes = b""
    reuse: bool = False


def frame_for(reply: Reply, request: RecordedRequest, *, request_id: str) -> Frame:
    """Decide how to frame a reply.

    Args:
        reply: What to say.
        request: What is being answered; its method and version limit the choice.
        request_id: The default of the header ``x-request-id``.
    """
    pieces: Iterable[bytes | Step] = encoded(reply)
    if reply.framing == "none":
        return Frame(steps=script(reply, pieces))
    framing: Framing | None = reply.framing
    defaults = {"content-type": "text/event-stream", "x-request-id": request_id}
    if reply.encoding != "identity":
        defaults["content-encoding"] = reply.encoding
    if request.method == "HEAD" or reply.status in _NO_BODY:
        framing, pieces = None, ()
    elif framing == "chunked" and request.http_version < "1.1":
        framing = "close"
    if framing == "length":
        pieces = list(pieces)
        defaults["content-length"] = str(sum(len(p) for p in pieces if isinstance(p, bytes)))
    elif framing == "chunked":
        defaults["transfer-encoding"] = "chunked"
    close = framing == "close" or not _wants_reuse(request)
    if close:
        defaults["connection"] = "close"
    headers = [
        (name.lower(), value)
        for name, value in with_defaults(defaults, reply.headers)
        if value is not None
    ]
    return Frame(
        head=_head(reply.status, headers),
        steps=script(reply, pieces),
        wrap=_chunk if framing == "chunked" else bytes,
        terminator=b"0\r\n\r\n" if framing == "chunked" else b"",
        reuse=not close and ("connection", "close") not in headers,
    )


def _wants_reuse(request: RecordedRequest) -> bool:
    return (
        request.http_version >= "1.1"
        and "close" not in (request.header("connection") or "").lower()
    )


def _head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {reason(status)}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _chunk(data: bytes) -> bytes:
    # An empty chunk would be the terminator.
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
