"""Encodes Python values as JSON: first as JSON types, then as the bytes that are sent."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from typing import Any, Final, TypeGuard

import msgspec

from ..errors import InvalidParameterError
from ..protocol.json import is_array
from ..structured.tools import FunctionTool
from .checks import HINTS

_NO_JSON: Final = (TypeError, ValueError, RecursionError)
# These are errors, because JSON has more than one way to write them.
_BINARY: Final = (bytes, bytearray, memoryview)
_SENT_AS_TEXT: Final = (str, PurePath, IPv4Address, IPv4Network, IPv6Address, IPv6Network)


def encode_body(body: Mapping[str, Any]) -> bytes:
    """The JSON of a request.

    Raises:
        InvalidParameterError: Something has no JSON form; the message names the field.
    """
    try:
        return _encode(body)
    except _NO_JSON as exc:
        path = _path_of_failure_in(body)
        raise InvalidParameterError(f"{path} cannot be sent as JSON: {exc}") from exc


def to_json_types(value: Any, name: str) -> Any:
    """Turn structs, pydantic models, mappings and iterables into JSON types.

    Args:
        value: What the caller gave for a field.
        name: The field.

    Raises:
        InvalidParameterError: Something has no JSON form; the message names the field.
    """
    try:
        return _to_builtins(value)
    except RecursionError:
        raise InvalidParameterError(f"{name} is nested too deeply to be sent as JSON.") from None
    except (TypeError, ValueError) as exc:
        path = _path_of_failure(name, value, _to_builtins)
        hint = f". {HINTS[name]}" if name in HINTS else ""
        raise InvalidParameterError(f"{path} cannot be sent as JSON: {exc}{hint}") from exc


def encode_foreign(value: Any, **dump_options: bool) -> Any:
    """Turn a value that msgspec cannot encode into one that it can: an ``enc_hook``.

    Args:
        value: The value.
        dump_options: For the ``model_dump`` of pydantic's models.

    Raises:
        TypeError: It has no JSON form.
    """
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json", **dump_options)
    if isinstance(value, _SENT_AS_TEXT):
        return str(value)
    if is_mapping(value) or is_lazy(value):
        return dict(value) if is_mapping(value) else list(value)
    for base in (int, float):  # msgspec takes neither subclasses of these nor of str
        if isinstance(value, base):
            return base(value)
    if isinstance(value, FunctionTool):
        return value.to_param()
    # URLs, secrets and the like. Whoever has one has imported pydantic.
    if type(value).__module__.startswith("pydantic"):
        return sys.modules["pydantic_core"].to_jsonable_python(value)
    raise TypeError(f"objects of type {type(value).__name__} are not supported")


def is_lazy(value: Any) -> TypeGuard[Iterable[Any]]:
    """Whether it is an iterable to be read into a list: a generator, a view, a deque."""
    if isinstance(value, (str, Mapping, list, tuple, *_BINARY)):
        return False
    return not hasattr(value, "model_dump") and isinstance(value, Iterable)


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Whether it is a mapping."""
    return isinstance(value, Mapping)


def is_sequence(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Whether it is a list or a tuple."""
    return isinstance(value, list | tuple)


# The official SDK's messages are pydantic's models, whose fields have the API's names as aliases.
_encode_param: Final = partial(encode_foreign, exclude_none=True, by_alias=True)
_to_builtins: Final = partial(msgspec.to_builtins, builtin_types=_BINARY, enc_hook=_encode_param)


# msgspec would send bytes as base64 and NaN as null, without an error.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _encode(value: Any) -> bytes:
    return _ENCODER.encode(value).encode()


def _path_of_failure_in(body: Mapping[str, Any]) -> str:
    for name, value in body.items():
        try:
            _encode({name: value})
        except _NO_JSON:
            return _path_of_failure(name, value, _encode)
    return "The request"


def _path_of_failure(name: str, value: Any, encode: Callable[[Any], object]) -> str:
    """The field, with the position if it is a list, whose value cannot be encoded."""
    for position, item in enumerate(value if is_array(value) else ()):
        try:
            encode(item)
        except _NO_JSON:
            return f"{name}[{position}]"
    return name
