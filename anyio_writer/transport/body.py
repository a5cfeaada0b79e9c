"""The body of a response, read a piece at a time and given back cleanly at any point."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager, suppress
from types import AsyncGeneratorType
from typing import Any, Final, Self

import anyio

from .client import is_of_a_library, is_transport_error

DIRECT: Final = "anyio_writer.body"
"""The extension of a response that has its body without the generator that httpx puts around it.

That one would keep each piece until the next one comes, which may be long.
"""

_MOST_BUFFERED: Final = 20_000  # more than one read of a socket can hold
_PACKAGE: Final = __name__.partition(".")[0] + "."

_logger: Final = logging.getLogger("anyio_writer")


@contextmanager
def closing(what: str) -> Generator[None]:
    """What goes wrong now costs no answer and hides no other error: it is logged.

    A connection that breaks while it is closed is nothing to warn of; what else there is, such as a
    mistake in a transport of the caller's, is.
    """
    try:
        yield
    except Exception as exc:
        level = logging.DEBUG if is_transport_error(exc) else logging.WARNING
        _logger.log(level, "%s could not be closed: %r", what, exc, exc_info=exc)


class Body:
    """The bytes of a response, read one by one and given back cleanly at any point."""

    def __init__(
        self, iterator: AsyncIterator[bytes] | None = None, *, below: Body | None = None
    ) -> None:
        self._iterator = iterator
        self._below = below  # what the iterator reads from, where that needs closing, too
        self._started = False

    @classmethod
    def of(cls, response: Any) -> Self:
        """What a response of either HTTP library brings, decompressed."""
        if response.is_stream_consumed:
            return cls(aiter(response.aiter_bytes()))
        raw = cls(aiter(response.extensions.get(DIRECT, response.stream)))
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding in ("", "identity"):
            return raw
        # When decoding fails, the library's own generator of raw bytes would be left half-way.
        response.aiter_raw = lambda: raw
        return cls(aiter(response.aiter_bytes()), below=raw)

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        self._started = True
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

    def pieces(self) -> AsyncIterator[bytes]:
        """What is read from, to be iterated directly where that makes no difference."""
        iterator = self._iterator
        if not isinstance(iterator, AsyncGeneratorType):
            return self
        self._started = True
        return iterator  # pyright: ignore[reportUnknownVariableType] - and mypy's isasyncgen() fails

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if data := await self.read():
            return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Unwind the iterator if it is a generator; other kinds belong to whoever made them."""
        try:
            with closing("The body of a response"):
                await self._unwind()
        finally:
            if self._below is not None:
                await self._below.aclose()

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
        if self._started and _is_stacked(iterator.ag_frame.f_globals.get("__name__", "")):
            with anyio.CancelScope() as scope:
                scope.cancel()
                with suppress(Exception):  # it is being thrown away
                    for _ in range(_MOST_BUFFERED):  # what has arrived already comes first
                        await anext(iterator)
        await iterator.aclose()


def _is_stacked(module: str) -> bool:
    return module.startswith(_PACKAGE) or is_of_a_library(module)
