"""Surrogate pairs whose halves came in two chunks.

Servers that count in UTF-16 (JavaScript, Java, C#) may cut a text between the two escapes of one
character. The first half is held back until the piece that completes it.
"""

from __future__ import annotations

import re
from typing import Any, Final

from .json import is_array, is_object
from .rules import is_finish_reason

_TEXTS: Final = ("content", "refusal", "reasoning_content", "reasoning")
_BLOCKS: Final = {"text": "content", "thinking": "reasoning"}
"""The texts in blocks of content, and what they are part of."""
_LONE: Final = re.compile("[\ud800-\udfff]")
_Key = tuple[Any, str, Any]  # the choice, the field, the call


class SurrogateHalves:
    """Keeps first halves until their second halves come."""

    __slots__ = ("ends_with_reason", "pending")

    def __init__(self) -> None:
        self.ends_with_reason: bool = False
        """Whether a finish reason means that the second half cannot come any more."""
        self.pending: Final[dict[_Key, str]] = {}

    def join(self, data: dict[str, Any], raw: Any, *, keep: bool) -> None:
        """Put whole characters into the texts of a payload.

        Args:
            data: The decoded payload, with U+FFFD for each half. It is changed.
            raw: The same payload with the halves in it.
            keep: Whether a half at the end of a text is kept for the next payload.
        """
        for choice, other in _pairs(data.get("choices"), raw and raw.get("choices")):
            index = _key(choice.get("index")) or 0
            reason = choice.get("finish_reason")
            is_over = self.ends_with_reason and isinstance(reason, str) and is_finish_reason(reason)
            stays = keep and not is_over
            delta, given = choice.get("delta"), other.get("delta")
            if not (is_object(delta) and is_object(given)):
                continue
            for name in _TEXTS:
                self._join_text(delta, given, name, (index, name, None), keep=stays)
            for block, its in _pairs(delta.get("content"), given.get("content")):
                for field, name in _BLOCKS.items():
                    if isinstance(its.get(field), str):
                        self._join_text(block, its, field, (index, name, None), keep=stays)
            for call, its in _pairs(delta.get("tool_calls"), given.get("tool_calls")):
                function, source = call.get("function"), its.get("function")
                if is_object(function) and is_object(source):
                    key = (index, "arguments", _key(call.get("index")))
                    self._join_text(function, source, "arguments", key, keep=keep)

    def flush(self) -> list[tuple[int, str]]:
        """Give up on the pending halves; returns the choice and the name of each text."""
        texts = [
            (index if isinstance(index, int) else 0, name.removesuffix("_content"))
            for index, name, _ in self.pending
            if name in _TEXTS
        ]
        self.pending.clear()
        return texts

    def _join_text(
        self, target: dict[str, Any], source: dict[str, Any], name: str, key: _Key, *, keep: bool
    ) -> None:
        text = source.get(name)
        if not isinstance(text, str):
            if text is not None or keep or key not in self.pending:
                return
            text = ""  # too late for a second half
        if first := self.pending.pop(key, ""):
            if "\udc00" <= text[:1] <= "\udfff":
                first = (first + text[0]).encode("utf-16", "surrogatepass").decode("utf-16")
                text = text[1:]
            text = first + text
        # The JSON decoder has joined the pairs within the text.
        if keep and "\ud800" <= text[-1:] <= "\udbff":
            self.pending[key] = text[-1]
            text = text[:-1]
        target[name] = _LONE.sub("\ufffd", text)


def _pairs(one: Any, other: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    if is_object(one) and is_object(other):
        return [(one, other)]
    if not (is_array(one) and is_array(other)):
        return []
    return [
        (mine, its)
        for mine, its in zip(one, other, strict=False)
        if is_object(mine) and is_object(its)
    ]


def _key(value: Any) -> Any:
    return value if isinstance(value, int | str) else None
