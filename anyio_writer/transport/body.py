"""The body of a response, read a piece at a time and given back cleanly at any point."""

from __future__ import annotations

import inspect
import logging
import zlib
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager, suppress
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint

from ..errors import APIConnectionError, APIResponseValidationError, StreamTruncatedError
from ..telemetry.logs import logger
from .chunked import Reader, RewindableStream, read_chunked
from .client import is_of_a_library, is_transport_error

_MOST_BUFFERED: Final = 20_000  # more than one read of a socket can hold
_PACKAGE: Final = __name__.partition(".")[0] + "."
_WITHOUT_BODY: Final = (204, 304)
_INFLATED_AT_ONCE: Final = 64 * 1024
_ZLIB_HEADER_SIZE: Final = 2


@contextmanager
def closing(what: str) -> Generator[None]:
    """Log an error of closing: it costs no answer, and must hide no other error.

    A connection that breaks while it is closed is no reason to warn. Everything else is, such as
    an error in a transport of the caller's.
    """
    try:
        yield
    except Exception as exc:
        level = logging.DEBUG if is_transport_error(exc) else logging.WARNING
        logger.log(level, "%s could not be closed: %r", what, exc, exc_info=exc)


def body_of(response: Any) -> Reader:
    """What a response of either HTTP library brings, decompressed.

    The libraries' own decoders are not used: they inflate all that came at once, however much that
    is, as often as the server says.

    Raises:
        APIResponseValidationError: It is compressed in a way that is not supported.
    """
    if response.is_stream_consumed:  # by an event hook of the client, and decompressed then
        return Body(aiter(response.aiter_bytes()))
    response.is_stream_consumed = True  # nobody else is to read it
    raw = _raw_body_of(response)
    said = response.headers.get("content-encoding", "").lower().split(",")
    encodings = [name for name in map(str.strip, said) if name not in ("", "identity")]
    if not encodings:
        return raw
    if encodings not in (["gzip"], ["x-gzip"], ["deflate"]):
        raise APIResponseValidationError(
            f"The response is encoded as {', '.join(encodings)!r}, although identity was asked "
            "for. Only gzip and deflate are supported, and only once."
        )
    return InflatedBody(raw, is_gzip=encodings != ["deflate"])


def _raw_body_of(response: Any) -> Reader:
    body = Body(aiter(response.stream))
    network = response.extensions.get("network_stream")
    if (
        not isinstance(network, RewindableStream)
        or response.extensions.get("http_version") != b"HTTP/1.1"
    ):
        return body
    has_body = response.status_code not in _WITHOUT_BODY
    if has_body and response.headers.get("transfer-encoding", "").lower() == "chunked":
        return read_chunked(network, body)
    size = response.headers.get("content-length", "") if has_body else "0"
    if size.isdecimal():
        network.begin_body(int(size))
    return body


class Body:
    """What an iterator gives, and its end cleanly at any point."""

    __slots__ = (
        "_is_started",
        "_iterator",
    )

    def __init__(self, iterator: AsyncIterator[bytes]) -> None:
        self._iterator: AsyncIterator[bytes] | None = iterator
        self._is_started = False

    async def read(self) -> bytes:
        """The next piece; empty at the end."""
        self._is_started = True
        while self._iterator is not None:
            try:
                if data := await anext(self._iterator):
                    return data
            except BaseException as exc:
                self._iterator = None  # whatever leaves an iterator has ended it
                if isinstance(exc, StopAsyncIteration):
                    break
                raise
        return b""

    async def aclose(self) -> None:
        """Unwind the iterator if it is a generator; other kinds belong to who made them."""
        with closing("The body of a response"):
            await self._unwind()

    async def _unwind(self) -> None:
        iterator: object = self._iterator
        self._iterator = None
        if not inspect.isasyncgen(iterator) or iterator.ag_frame is None:  # it has ended
            return
        if iterator.ag_running:  # by somebody else, to whom it was given, too
            return
        # HTTP libraries stack several generators, and closing the outermost leaves the inner ones
        # to the garbage collector. Going on in a cancelled scope unwinds them all. Not so with a
        # generator of the caller's, who would see it go on.
        if self._is_started and _is_stacked(iterator.ag_frame.f_globals.get("__name__", "")):
            with anyio.CancelScope() as scope:
                scope.cancel()
                with suppress(Exception):  # it is being thrown away
                    for _ in range(_MOST_BUFFERED):  # what has arrived already comes first
                        await anext(iterator)
        await iterator.aclose()


def _is_stacked(module: str) -> bool:
    return module.startswith(_PACKAGE) or is_of_a_library(module)


class InflatedBody:
    """A compressed body, inflated in bounded steps: a few bytes can stand for gigabytes."""

    __slots__ = (
        "_begun",
        "_body",
        "_inflater",
        "_is_gzip",
        "_rest",
    )

    def __init__(self, body: Reader, *, is_gzip: bool) -> None:
        self._body = body
        self._is_gzip = is_gzip
        self._inflater: Any = zlib.decompressobj(31) if is_gzip else None
        self._begun = b""  # of a deflated body, until it is clear in which of two forms it is
        self._rest: bytes | None = None  # not inflated yet, perhaps nothing; None: read on

    async def read(self) -> bytes:
        """The next bytes, a bounded number of them; empty at the end.

        Raises:
            APIConnectionError: It is not what its header says.
            StreamTruncatedError: It ended too early.
        """
        while True:
            if self._rest is None:
                compressed = await self._body.read()
                if not compressed:
                    if self._inflater is None or not self._inflater.eof:
                        raise StreamTruncatedError("The compressed response was cut off.")
                    return b""
                self._rest = compressed
            else:
                await checkpoint()  # what follows is work, and there may be much of it
            try:
                data = self._inflate(self._rest)
            except zlib.error as exc:
                raise APIConnectionError(
                    f"The response is not compressed as its header says ({exc})."
                ) from exc
            if data:
                return data

    async def aclose(self) -> None:
        """Leave the body."""
        await self._body.aclose()

    def _inflate(self, data: bytes) -> bytes:
        inflater = self._inflater
        if inflater is None:  # "deflate" is with zlib's header (RFC 9110, 8.4.1.2), or without it
            self._begun += data
            if len(self._begun) < _ZLIB_HEADER_SIZE:
                self._rest = None
                return b""
            data, self._begun = self._begun, b""
            has_header = data[0] & 15 == zlib.DEFLATED and not int.from_bytes(data[:2]) % 31
            inflater = self._inflater = zlib.decompressobj(15 if has_header else -15)
        elif inflater.eof:
            if not self._is_gzip:
                raise zlib.error("something follows its end")
            inflater = self._inflater = zlib.decompressobj(31)  # members follow each other
        inflated: bytes = inflater.decompress(data, _INFLATED_AT_ONCE)
        rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
        # A full step may have left something inside, too.
        has_more = rest or (len(inflated) == _INFLATED_AT_ONCE and not inflater.eof)
        self._rest = rest if has_more else None
        return inflated
