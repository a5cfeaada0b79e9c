"""What is known of the terminal that a stream may lead to."""

from __future__ import annotations

import os
import textwrap
from typing import TextIO


def columns_of(stream: TextIO) -> int | None:
    """How wide a terminal is; None for what is not one, or does not know escape sequences."""
    if not stream.isatty() or os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except OSError:
        return None


def wrapped(text: str, stream: TextIO) -> str:
    """A sentence in lines that fit the terminal; as it is where there is none."""
    columns = columns_of(stream)
    if columns is None:
        return text
    return textwrap.fill(text, columns - 1, break_long_words=False, break_on_hyphens=False)
