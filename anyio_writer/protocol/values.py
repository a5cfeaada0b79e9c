"""What a text that holds JSON means: the side of the stream of what ``structured`` knows."""

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
        """What the start of a text says so far, in plain lists and dicts; None before it does.

        Nothing in it is contradicted by what the whole text says. Never raises.
        """
        ...
