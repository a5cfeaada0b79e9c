"""Logs: values that grow or change, readable as of any position.

Each log holds what was added and when; time is a counter, the position. Adding is an append.
Reading as of a position looks up how much had been added by then. That makes every snapshot exact
however late it is read, and free until it is read.

An answer may hold a dozen things, and most of them never come. So there is one empty log of each
kind for all answers (``NO_TEXT``, ``NO_ITEMS``, ``NEVER``, ``NO_DATA``), which never changes: what
adds to a log returns the log to be kept, a new one the first time::

    choice.refusal = choice.refusal.append(piece, position)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any, Final, Generic, Self, TypeVar

import msgspec

from ..errors import ValueMismatchError
from .chunks import JSON, Usage
from .values import ValueReader

V = TypeVar("V")
D = TypeVar("D", bound=msgspec.Struct)

NOW: Final = 2**62
"""A position that is later than all."""


class TextLog:
    """A text that only grows. Pieces are joined when somebody reads, and joined once."""

    __slots__ = (
        "_begun",
        "_ends",
        "_fresh",
        "_positions",
        "_text",
        "done",
    )

    def __init__(self, begun: int | None = None) -> None:
        self.done: bool = False  # its done event is due only once
        self._begun: Final = begun  # the position of the first piece, were it empty
        self._fresh: list[str] = []  # pieces that are not in _text yet
        self._positions: list[int] = []  # when each piece came
        self._text = ""
        self._ends: list[int] = []  # where each piece of _text ends

    def __bool__(self) -> bool:
        return bool(self._positions)

    def append(self, piece: str, position: int) -> TextLog:
        """Add a piece; also an empty one begins a text."""
        if self._begun is None:
            return TextLog(position).append(piece, position)
        if piece:
            self._fresh.append(piece)
            self._positions.append(position)
        return self

    def at(self, position: int = NOW) -> str:
        """The text as of a position."""
        if self._fresh:
            fresh, self._fresh = self._fresh, []
            self._ends.extend(accumulate(map(len, fresh), initial=len(self._text)))
            self._ends.pop(-len(fresh) - 1)
            self._text += "".join(fresh)
        count = bisect_right(self._positions, position)
        if count == len(self._positions):
            return self._text
        return self._text[: self._ends[count - 1]] if count else ""

    def optional_at(self, position: int) -> str | None:
        """The text as of a position, or None if not even an empty piece had come."""
        return None if self._begun is None or self._begun > position else self.at(position)


NO_TEXT: Final = TextLog()


class ItemLog(Generic[V]):
    """A list that only grows."""

    __slots__ = (
        "_ends",
        "_items",
        "_positions",
        "done",
    )

    def __init__(self) -> None:
        self.done: bool = False  # its done event is due only once
        self._items: list[V] = []
        self._positions: list[int] = []
        self._ends: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._items)

    def extend(self, items: Sequence[V], position: int) -> ItemLog[V]:
        """Add items, at least one."""
        if self is NO_ITEMS:
            log: ItemLog[V] = ItemLog()
            return log.extend(items, position)
        self._items.extend(items)
        self._positions.append(position)
        self._ends.append(len(self._items))
        return self

    def at(self, position: int = NOW) -> list[V]:
        """The list as of a position, as a copy."""
        count = bisect_right(self._positions, position)
        return self._items[: self._ends[count - 1]] if count else []


NO_ITEMS: Final[ItemLog[Any]] = ItemLog()


class LatestLog(Generic[V]):
    """A value that may be replaced. Most are set once or never."""

    __slots__ = (
        "_earlier",
        "_since",
        "value",
    )

    def __init__(self, value: V | None = None, since: int = NOW) -> None:
        self.value = value
        self._since = since
        self._earlier: list[tuple[int, V | None]] | None = None  # since when it was what

    def set(self, value: V, position: int) -> Self:
        """Replace the value."""
        if self.value is None:
            return type(self)(value, position)
        if self._earlier is None:
            self._earlier = []
        self._earlier.append((self._since, self.value))
        self.value = value
        self._since = position
        return self

    def at(self, position: int) -> V | None:
        """The value as of a position, or None before there was one."""
        if position >= self._since:
            return self.value
        if self._earlier is None:
            return None
        count = bisect_right(self._earlier, position, key=itemgetter(0))
        return self._earlier[count - 1][1] if count else None


NEVER: Final[LatestLog[Any]] = LatestLog()


class DataLog(LatestLog[D]):
    """What a built-in tool reports: in each field the last value that was not empty."""

    __slots__ = ()

    def merge(self, data: D, position: int) -> Self:
        """Set the fields that are not empty in ``data``."""
        if self.value is None:
            return self.set(data, position)
        said = {name: value for name in data.__struct_fields__ if (value := getattr(data, name))}
        return self.set(msgspec.structs.replace(self.value, **said), position) if said else self


NO_DATA: Final[DataLog[Any]] = DataLog()


_NO_COUNTS: Final = Usage()


class UsageLog(LatestLog[Usage]):
    """Token counts, merged field by field."""

    __slots__ = ()

    def merge(self, usage: Usage, position: int) -> Self:
        """Set the counts that are known in ``usage``."""
        if self.value is not None:
            usage = self.value.merge(usage)
        elif usage == _NO_COUNTS:
            return self
        return self if usage == self.value else self.set(usage, position)


NO_USAGE: Final = UsageLog()


class ExtraLog:
    """The fields that the library does not know: of each the last value, or its lists joined."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[tuple[int, dict[str, JSON]]] = []  # and the position of each

    def add(self, fields: dict[str, JSON], position: int) -> None:
        """Add fields with values that are not empty."""
        self._pieces.append((position, fields))

    def at(self, position: int) -> dict[str, JSON]:
        """The fields as of a position."""
        merged: dict[str, JSON] = {}
        for _, fields in self._pieces[: bisect_right(self._pieces, position, key=itemgetter(0))]:
            for name, value in fields.items():
                before = merged.get(name)
                if not isinstance(value, list):
                    merged[name] = value
                elif isinstance(before, list):
                    before.extend(value)
                else:
                    merged[name] = value.copy()  # which the next list extends
        return merged


class Value:
    """The value of a text, decoded once for each length of the text."""

    __slots__ = (
        "_error",
        "_length",
        "_reader",
        "_value",
    )

    def __init__(self, reader: ValueReader[Any]) -> None:
        self._reader: Final = reader
        self._length = -1
        self._value: Any = None
        self._error: ValueMismatchError | None = None

    def of(self, text: str) -> Any:
        """The value; None if the text does not fit."""
        if len(text) != self._length:
            self._value = self._error = None
            try:
                self._value = self._reader.decode(text)
            except ValueMismatchError as exc:
                self._error = exc
            except Exception as exc:  # the type's own code may raise anything
                reason = f"{type(exc).__name__}: {exc}"
                self._error = ValueMismatchError(
                    f"reading the text raised {reason}", text=text, reason=reason
                )
                self._error.__cause__ = exc
            self._length = len(text)
        return self._value

    def error_of(self, text: str) -> ValueMismatchError | None:
        """Why the text does not fit; None if it does."""
        self.of(text)
        return self._error
