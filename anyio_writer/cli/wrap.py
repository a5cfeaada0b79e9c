"""Breaks the lines of a text between words, for a terminal."""

from __future__ import annotations

from typing import Final, TextIO

from rich.cells import cell_len

from .terminal import columns_of

_TAB: Final = 8  # columns
_WIDE: Final = 2  # columns of Chinese or Japanese characters; a line may be broken after each


class WordWrap:
    """Breaks lines between words, while the text arrives in pieces that are shown at once.

    A word that turns out too long for its line is erased and written again on the next line. The
    last column stays empty: terminals disagree on where the cursor is after a character there.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._column = 0
        self._word = ""  # what was written since a line could last be broken
        self._word_width = 0

    def __call__(self, text: str) -> str:
        """What to write for the next piece. Of control characters it may hold LF and tab only."""
        columns = columns_of(self._stream)
        if columns is None:
            return text
        width = max(columns - 1, 1)
        written: list[str] = []
        for char in text:
            if char == "\n":
                written.append(char)
                self._begin_line()
            else:
                self._add(char, width, written)
        return "".join(written)

    def _end_word(self) -> None:
        self._word, self._word_width = "", 0

    def _add(self, char: str, width: int, written: list[str]) -> None:
        size = _TAB - self._column % _TAB if char == "\t" else cell_len(char)
        is_space = char in " \t"
        if self._column + size > width:
            if is_space:
                written.append("\n")
                self._begin_line()
                return
            if size == _WIDE or not 0 < self._word_width < self._column:
                written.append("\n")  # before a wide character, or in a word as long as the line
                self._begin_line()
            else:
                written.append(f"\x1b[{self._word_width}D\x1b[K\n{self._word}")
                self._column = self._word_width
        written.append(char)
        self._column += size
        if is_space or size == _WIDE:
            self._end_word()
        elif size or self._word:  # an accent belongs to the character before it
            self._word += char
            self._word_width += size

    def _begin_line(self) -> None:
        self._column = 0
        self._end_word()
