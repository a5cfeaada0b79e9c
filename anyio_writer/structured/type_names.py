"""The names of types, and errors about types that no library reads."""

from __future__ import annotations

import contextlib
import inspect
import typing
from collections.abc import Generator
from types import UnionType
from typing import Any, Final

from ..protocol.json import shorten

_SHOWN_BYTES: Final = 300


def type_name(tp: Any) -> str:
    """The name of a type, for people: ``Person``, ``list[Person]``, ``int | None``."""
    origin, args = typing.get_origin(tp), typing.get_args(tp)
    if origin is typing.Annotated:
        return type_name(args[0])
    if origin in (typing.Union, UnionType):
        return " | ".join(map(type_name, args))
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, args))}]"
    if origin is not None and args:
        return f"{type_name(origin)}[{', '.join(map(type_name, args))}]"
    if tp is None or tp is type(None):
        return "None"
    return "..." if tp is ... else str(getattr(tp, "__name__", tp))


_KNOWN: Final = {
    "msgspec": "a msgspec.Struct, a dataclass, a TypedDict or another type that it knows",
    "pydantic": "pydantic's types alone, which cannot hold structs",
}


@contextlib.contextmanager
def errors_of(library: str, tp: Any, name: str) -> Generator[None]:
    """Whatever a library raises about a type becomes a ``TypeError`` that names the type."""
    try:
        yield
    # A look at annotations raises whatever they raise, such as a name that is not there yet.
    except Exception as exc:
        if _is_value(tp):
            shown = shorten(repr(tp), _SHOWN_BYTES)
            raise TypeError(
                f"{shown} is a value ({type(tp).__name__}), not a type; pass a class itself, or"
                " list[...] of one"
            ) from exc
        # The first line: pydantic goes on about hooks of its own.
        reason = str(exc).partition("\n")[0].rstrip(".")
        raise TypeError(
            f"{name}: {library} cannot read JSON as this: {reason}. Use {_KNOWN[library]}, with"
            " annotations that can be resolved"
        ) from exc


def _is_value(tp: Any) -> bool:
    """Whether what no library can read is not even a type."""
    is_special = type(tp).__module__ in ("typing", "typing_extensions", "types")
    return not (inspect.isclass(tp) or is_special or typing.get_origin(tp))
