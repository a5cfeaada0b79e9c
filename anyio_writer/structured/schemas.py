"""What a Python type is in JSON: its strict schema and its decoder, made once per type.

msgspec does the work wherever it can, and pydantic for types that contain pydantic's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

from .msgspec_types import describe_for_msgspec
from .pydantic_types import describe_for_pydantic, made_of_pydantic
from .reading import ASK_AGAIN, read_json
from .strict_schema import Schema, strict_schema
from .type_names import type_name

T = TypeVar("T")

CACHED_TYPES: Final = 256


class Codec(Generic[T]):
    """A type in JSON: its strict schema, and the decoder of what a model wrote.

    Attributes:
        type: The type.
        name: Its name, for people.
        schema: Its strict schema; with ``$defs`` only if something refers to them.
    """

    __slots__ = (
        "_advice",
        "_reader",
        "name",
        "schema",
        "type",
    )

    def __init__(self, tp: Any, *, advice: str = ASK_AGAIN) -> None:
        """Describe a type. Errors about texts that do not fit it include the advice.

        Raises:
            TypeError: A strict schema cannot describe it, or no library reads it; names the field.
        """
        self.type: Any = tp
        self._advice = advice
        self.name: str = type_name(tp)
        describe = describe_for_pydantic if made_of_pydantic(tp) else describe_for_msgspec
        schema, self._reader = describe(tp, self.name)
        self.schema: Schema = strict_schema(schema, name=self.name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def decode(self, text: str) -> T:
        """The value of a text that is whole.

        Raises:
            ValueMismatchError: The text does not fit the type.
        """
        value: T = read_json(text, self._reader, self.name, self._advice)
        return value


def codec_of(tp: Any) -> Codec[Any]:
    """The codec of a type, the same one each time unless the type cannot be hashed.

    Args:
        tp: Whatever msgspec decodes: structs, dataclasses, attrs classes, ``TypedDict``,
            ``NamedTuple``, enums, ``Literal``, unions, containers, ``Annotated`` with
            ``msgspec.Meta``; pydantic's models and dataclasses, and containers of them.

    Raises:
        TypeError: A strict schema cannot describe it, or no library reads it; names the field.
    """
    try:
        hash(tp)
    except TypeError:  # Annotated[..., Meta(examples=[...])] holds a list
        return Codec(tp)
    return _cached_codec(tp, repr(tp))


@lru_cache(maxsize=CACHED_TYPES)
def _cached_codec(tp: Any, _spelling: str) -> Codec[Any]:
    # Types can be equal and not the same: a union in another order, 1 for True in a Meta.
    return Codec(tp)
