"""The interface through which a stream reads JSON text as values; ``structured`` implements it."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class ValueReader(Protocol[T_co]):
    """Reads JSON text as a value of one type: a response format, or the arguments of a tool."""

    def decode(self, text: str) -> T_co:
        """The value of a text that is whole.

        Raises:
            ValueMismatchError: The text does not fit the type.
        """
        ...

    def partial(self, text: str) -> Any:
        """What the start of a text says for certain, in lists and dicts; None if that is nothing.

        The rest of the text only adds to it. Never raises.
        """
        ...
