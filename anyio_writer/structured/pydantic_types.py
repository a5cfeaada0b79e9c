"""A type that contains pydantic's types, as a JSON schema.

pydantic is not a dependency: it is imported only if a type uses it.
"""

from __future__ import annotations

import contextlib
import sys
import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from ..protocol.json import is_array, is_object, parse_json
from .reading import JSONReader
from .strict_schema import Schema
from .type_names import errors_of

if TYPE_CHECKING:
    import pydantic

_PYDANTIC: Final = frozenset({"pydantic", "pydantic_core", "annotated_types"})
_ALIASES: Final = ("__value__", "__supertype__")  # of ``type X = ...`` and NewType
# Dataclasses, TypedDict, NamedTuple. Not structs: pydantic cannot read those.
_HAS_FIELDS: Final = ("__dataclass_fields__", "__total__", "_fields")


def made_of_pydantic(tp: Any) -> bool:
    """Whether pydantic has to read a type."""
    # If nobody has imported pydantic, no type contains its types.
    return "pydantic" in sys.modules and any(map(_is_pydantic, _parts(tp, {})))


def _is_pydantic(part: Any) -> bool:
    return (
        hasattr(part, "__get_pydantic_core_schema__")
        or hasattr(part, "__pydantic_validator__")
        or type(part).__module__.partition(".")[0] in _PYDANTIC
    )


def _parts(tp: Any, seen: dict[int, Any]) -> Iterator[Any]:
    """A type, what stands in its brackets, its fields if pydantic could read them as well."""
    if id(tp) in seen:
        return
    seen[id(tp)] = tp  # held, so that no other part gets its id
    yield tp
    inner: list[Any] = [*typing.get_args(tp), *getattr(tp, "__metadata__", ())]
    origin = typing.get_origin(tp) or tp
    # pydantic or msgspec reports names that are not defined yet.
    with contextlib.suppress(Exception):
        inner += [getattr(origin, way) for way in _ALIASES if hasattr(origin, way)]
        if any(hasattr(origin, mark) for mark in _HAS_FIELDS):
            inner += typing.get_type_hints(origin, include_extras=True).values()
    for part in inner:
        yield from _parts(part, seen)


def describe_for_pydantic(tp: Any, name: str) -> tuple[Schema, JSONReader]:
    """The schema of a type, and its reader.

    Raises:
        TypeError: pydantic cannot read it.
    """
    import pydantic  # not a dependency

    with errors_of("pydantic", tp, name):
        adapter = pydantic.TypeAdapter[Any](tp)
        schema = adapter.json_schema()
    return schema, JSONReader(adapter.validate_json, pydantic.ValidationError, _blame_first)


def _blame_first(exc: pydantic.ValidationError, payload: bytes) -> tuple[str, str]:
    first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
    # pydantic's path also names branches of unions and functions, which are not in the text.
    path, value = "$", parse_json(payload)
    for part in first["loc"]:
        if is_array(value) and isinstance(part, int) and part < len(value):
            path, value = f"{path}[{part}]", value[part]
        elif is_object(value) and part in value:
            path, value = f"{path}.{part}", value[str(part)]
    if first["type"] == "missing":  # so it is not in the text
        last = first["loc"][-1]
        path = f"{path}[{last}]" if isinstance(last, int) else f"{path}.{last}"
    others = exc.error_count() - 1
    return path, f"{first['msg']} (and {others} more)" if others else first["msg"]
