"""A Python type as the format of an answer: the schema that is sent, and the value of the text.

The API requires an object at the top. Any other type, such as ``list[int]``, is sent as the only
property of an object and unwrapped when it is read. Errors are about the value itself.

Source: the ``response_format`` field of https://dev.writer.com/api-reference/completion-api
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar, overload

import msgspec

from ..protocol.json import is_object
from .partial import partial_value
from .reading import msgspec_reader, read_json, unwrapped
from .schemas import CACHED_TYPES, codec_of
from .strict_schema import DEFINITIONS, Schema

T = TypeVar("T")

_PROPERTY: Final = "value"
_FALLBACK_NAME: Final = "answer"
_MAX_NAME: Final = 64  # characters


class _Wrapped(msgspec.Struct):
    """The object around a value. The value is read by itself, so that errors know only it."""

    value: msgspec.Raw


_WRAPPER: Final = msgspec_reader(msgspec.json.Decoder(_Wrapped))


class ResponseType(Generic[T]):
    """A type as a response format. Made by ``response_type_of``. It is a ``ValueReader``.

    Attributes:
        type: The type.
        param: The ``response_format`` of the request, in the API's own form.
    """

    __slots__ = (
        "_codec",
        "_is_wrapped",
        "param",
        "type",
    )

    def __init__(self, tp: Any) -> None:
        """Describe a type; ``response_type_of`` caches the result.

        Raises:
            TypeError: A strict schema cannot describe it, or no library reads it; names the field.
        """
        self.type: Any = tp
        self._codec = codec_of(tp)
        self._is_wrapped = self._codec.schema.get("type") != "object"
        schema = _wrap(self._codec.schema) if self._is_wrapped else self._codec.schema
        self.param: dict[str, Any] = {
            "type": "json_schema",
            "json_schema": {
                "name": _format_name(self._codec.name),
                "schema": schema,
                "strict": True,
            },
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._codec.name})"

    def __reduce__(self) -> tuple[Any, ...]:
        return response_type_of, (self.type,)  # decoders cannot be pickled, types can

    def decode(self, text: str) -> T:
        """Decode a complete answer.

        A code fence around the JSON, and a ``<think>`` block before it, are ignored if there is
        nothing else.

        Raises:
            ValueMismatchError: The text does not fit the type. ``text`` and ``path`` refer to the
                value, without the object that wraps it.
        """
        text = unwrapped(text, is_whole=True)
        if self._is_wrapped:
            name = f'{{"{_PROPERTY}": {self._codec.name}}}'
            text = bytes(read_json(text, _WRAPPER, name).value).decode()
        value: T = self._codec.decode(text)
        return value

    def partial(self, text: str) -> Any:
        """Decode the part of an incomplete answer that is certain; None if there is none yet.

        Never raises.
        """
        value = partial_value(unwrapped(text, is_whole=False))
        if not self._is_wrapped:
            return value
        return value.get(_PROPERTY) if is_object(value) else None


@overload
def response_type_of(tp: type[T]) -> ResponseType[T]: ...


@overload
def response_type_of(tp: object) -> ResponseType[Any]: ...


def response_type_of(tp: Any) -> ResponseType[Any]:
    """Return the response format of a type. It is cached, unless the type cannot be hashed.

    Args:
        tp: A type, as for the ``response_format`` of ``open_chat_stream``.

    Raises:
        TypeError: A strict schema cannot describe the type, or no library can read it. The message
            names the field.
    """
    try:
        hash(tp)
    except TypeError:
        return ResponseType(tp)
    return _cached(tp, repr(tp))


@lru_cache(maxsize=CACHED_TYPES)
def _cached(tp: Any, _spelling: str) -> ResponseType[Any]:  # as codec_of has it
    return ResponseType(tp)


def _wrap(schema: Schema) -> Schema:
    value = {key: each for key, each in schema.items() if key not in DEFINITIONS}
    definitions = {key: each for key, each in schema.items() if key in DEFINITIONS}
    return {
        "type": "object",
        "properties": {_PROPERTY: value},
        "required": [_PROPERTY],
        "additionalProperties": False,
    } | definitions


def _format_name(type_name: str) -> str:
    """The API takes letters, digits, ``_`` and ``-``, at most 64 of them."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", type_name)[:_MAX_NAME].strip("_")
    return name or _FALLBACK_NAME
