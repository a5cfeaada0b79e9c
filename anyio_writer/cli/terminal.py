"""The terminal that a stream may lead to."""

from __future__ import annotations

import os
import textwrap
from typing import TextIO


def columns_of(stream: TextIO) -> int | None:
    """The width of a terminal; None if there is none, or one without escape sequences."""
    if not stream.isatty() or os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except OSError:
        return None


def wrapped(text: str, stream: TextIO) -> str:
    """Break a sentence into lines that fit the terminal, if there is one."""
    columns = columns_of(stream)
    if columns is None:
        return text
    return textwrap.fill(text, columns - 1, break_long_words=False, break_on_hyphens=False)
