"""Replaces what a terminal would obey instead of showing it."""

from __future__ import annotations

from typing import Final

_C0_PICTURES: Final = 0x2400
_DELETE: Final = 0x7F
_C1: Final = range(0x80, 0xA0)
# These change the order in which the text around them is shown, so it may read like another one.
# The marks U+200E, U+200F and U+061C stay: Hebrew and Arabic texts need them, and they move little.
_BIDIRECTIONAL: Final = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))

# Escape sequences can set titles, rewrite what was printed before and, in some terminals, type
# for the user. Without the control character in front they are text like any other.
_HARMLESS: Final[dict[int, int | str | None]] = {
    **{code: _C0_PICTURES + code for code in range(0x20)},
    _DELETE: 0x2421,
    **dict.fromkeys(_C1, "\N{REPLACEMENT CHARACTER}"),  # 8-bit forms; 0x9b is ESC [ in one
    **dict.fromkeys(_BIDIRECTIONAL, "\N{REPLACEMENT CHARACTER}"),
    ord("\n"): "\n",
    ord("\t"): "\t",
    ord("\r"): None,  # nearly always half of a line end; alone it would overwrite its line
}
_JSON_ESCAPES: Final = {code: f"\\u{code:04x}" for code in (_DELETE, *_C1, *_BIDIRECTIONAL)}


def harmless(text: str) -> str:
    """Make control characters visible; line ends and tabs stay.

    The pieces of a text give the same as the whole.
    """
    return text.translate(_HARMLESS)


def harmless_json(line: str) -> str:
    """Escape the control characters that JSON allows unescaped."""
    return line.translate(_JSON_ESCAPES)


def one_line(text: str, limit: int = 500) -> str:
    """Put a text on one line of at most ``limit`` characters, without control characters."""
    line = harmless(" ".join(text.split()))
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
