"""Writes standard output at once, and so that every wait can be cancelled."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, TextIO

import anyio
from anyio.lowlevel import checkpoint

from .exits import CommandError, Exit, QuietEnd

# POSIX promises that so much fits into a pipe that is ready for writing. More might block in the
# kernel, where no cancellation reaches: a pager that nobody scrolls would block Ctrl-C.
_PIECE: Final = 512


class Output:
    """Writes to a stream's file, past its buffer.

    Args:
        stream: Such as ``sys.stdout``.

    Attributes:
        is_terminal: Whether it leads to a terminal.
        at_line_start: Whether the next character begins a line.
    """

    def __init__(self, stream: TextIO) -> None:
        stream.flush()
        self._stream = stream
        self._fd = _fileno(stream)
        self._can_wait = self._fd is not None
        self.is_terminal: bool = stream.isatty()
        self.at_line_start: bool = True

    async def write(self, text: str) -> None:
        """Write text as UTF-8.

        Raises:
            QuietEnd: Nobody reads any more.
            CommandError: It cannot be written for another reason, such as a full disk.
        """
        left = memoryview(text.encode(errors="replace"))
        while left:
            await self._until_writable()
            left = left[self._write(left[:_PIECE] if self._can_wait else left) :]
            self.at_line_start = False
        if text:
            self.at_line_start = text.endswith("\n")

    async def end_line(self) -> None:
        """Begin a new line, unless one is just beginning."""
        if not self.at_line_start:
            await self.write("\n")

    def end_line_on_terminal(self) -> None:
        """The same on a terminal only, and without waiting: for a task that is being cancelled."""
        if self.is_terminal and not self.at_line_start:
            self._write(memoryview(b"\n"))
            self.at_line_start = True

    async def _until_writable(self) -> None:
        if self._can_wait and self._fd is not None:
            try:
                await anyio.wait_writable(self._fd)
            except OSError:  # nothing to wait for: a file on a disk
                self._can_wait = False
            else:
                return
        await checkpoint()

    def _write(self, data: memoryview) -> int:
        with _readable_errors():
            if self._fd is not None:
                try:
                    return os.write(self._fd, data)
                except BlockingIOError:
                    return 0  # another program set O_NONBLOCK, and filled the pipe first
            self._stream.buffer.write(data)
            self._stream.flush()
        return len(data)


def _fileno(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except OSError:
        return None  # it has no file descriptor


@contextmanager
def _readable_errors() -> Generator[None]:
    try:
        yield
    except BrokenPipeError as exc:
        raise QuietEnd(Exit.PIPE) from exc
    except OSError as exc:
        raise CommandError(
            f"the output cannot be written: {exc.strerror}", Exit.UNEXPECTED
        ) from exc
