"""The arguments of a tool's calls as structs that can be pickled and copied.

Their types are made when a function becomes a tool, so pickle cannot find them by name.
"""

from __future__ import annotations

import contextlib
import copy
from importlib import import_module
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary, WeakValueDictionary

import msgspec


class ArgumentsBase(msgspec.Struct, frozen=True, kw_only=True):
    """The base of the types of all tools' arguments."""

    def __reduce__(self) -> tuple[Any, ...]:
        return restore_arguments, (_KEYS[type(self)], _fields_of(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return type(self)(**copy.deepcopy(_fields_of(self), memo))


# The module and qualified name of the function, the name of the type, its fields.
_Key: TypeAlias = tuple[str, str, str, tuple[str, ...]]

_TYPES: Final[WeakValueDictionary[_Key, type[msgspec.Struct]]] = WeakValueDictionary()
_KEYS: Final[WeakKeyDictionary[type[msgspec.Struct], _Key]] = WeakKeyDictionary()


def register_arguments(arguments_type: type[msgspec.Struct], function: str) -> None:
    """Register a type, so that its pickled values find it.

    Args:
        arguments_type: The type of a tool's arguments.
        function: The qualified name of the tool's function.
    """
    tp = arguments_type
    _KEYS[tp] = key = (tp.__module__, function, tp.__name__, tp.__struct_fields__)
    _TYPES[key] = tp


def restore_arguments(key: _Key, fields: dict[str, Any]) -> msgspec.Struct:
    """Called by pickle. If the tool is unknown, the type is a new one with the same fields."""
    module, function, name, names = key
    if key not in _TYPES:
        with contextlib.suppress(ImportError):
            import_module(module)  # which makes the tool, unless a function does
    arguments_type = _TYPES.get(key)
    if arguments_type is None:
        arguments_type = msgspec.defstruct(
            name, names, bases=(ArgumentsBase,), kw_only=True, frozen=True, module=module
        )
        register_arguments(arguments_type, function)
    return arguments_type(**fields)


def _fields_of(arguments: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in arguments.__struct_fields__}
