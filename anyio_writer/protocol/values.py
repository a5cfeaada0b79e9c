"""The interface through which a stream reads JSON text as values; ``structured`` implements it."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class ValueReader(Protocol[T_co]):
    """Reads JSON text as a value of one type: a response format, or the arguments of a tool."""

    def decode(self, text: str) -> T_co:
        """Decode a complete text.

        Raises:
            ValueMismatchError: The text does not fit the type.
        """
        ...

    def partial(self, text: str) -> Any:
        """Decode the part of an incomplete text that is certain, as plain lists and dictionaries.

        More text only adds to it. Returns None if nothing is certain yet. Never raises.
        """
        ...
