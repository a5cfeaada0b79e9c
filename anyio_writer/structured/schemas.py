"""What a Python type is in JSON: its strict schema, and its decoder, made once per type.

msgspec does the work wherever it can. Types made of pydantic's go through pydantic, which is not a
dependency: it is imported only when a type brings it along.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
import typing
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import lru_cache
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec
import msgspec.inspect as mi

from ..errors import ValueMismatchError
from ..protocol.json import is_array, is_object, mend_text, parse_json, shorten
from .strict_schema import Schema, strict_schema

if TYPE_CHECKING:
    import pydantic

T = TypeVar("T")

CACHED_TYPES: Final = 256
_SHOWN_BYTES: Final = 300
_ADVICE: Final = "ask again, or let the type allow for this"


class JSONReader(NamedTuple):
    """How one library reads a type, and what its errors mean."""

    read: Callable[[bytes], Any]
    error: type[Exception]
    blame: Callable[[Any, bytes], tuple[str, str]]  # an error -> its path and reason


def read_json(text: str, reader: JSONReader, name: str, advice: str = _ADVICE) -> Any:
    """The value of a text, whatever it is made of.

    Args:
        text: JSON.
        reader: Reads it.
        name: What people call the type.
        advice: What whoever reads the error can do.

    Raises:
        ValueMismatchError: The text does not fit the type.
    """
    # JSON allows what Unicode does not, half a surrogate pair; both libraries refuse it.
    payload = mend_text(text.encode(errors="replace"))
    cause: Exception
    try:
        return reader.read(payload)
    except RecursionError as exc:
        cause, path, reason = exc, "$", "JSON is nested too deeply"
    except reader.error as exc:
        cause = exc
        path, reason = reader.blame(exc, payload)
    shown = shorten(payload, _SHOWN_BYTES)
    why = shorten(reason, _SHOWN_BYTES)  # msgspec quotes whole values
    raise ValueMismatchError(
        f"the text does not fit {name}: {why}, at {path}; {advice}: {shown}",
        text=text,
        path=path,
        reason=reason,
    ) from cause


class Codec(Generic[T]):
    """A type's JSON: the schema that a model is held to, and the reading of what it wrote.

    Attributes:
        type: The type.
        name: What people call it.
        schema: Its strict schema; ``$defs`` only where something refers to them.
    """

    __slots__ = ("_advice", "_reader", "name", "schema", "type")

    def __init__(self, tp: Any, *, advice: str = _ADVICE) -> None:
        """Describe a type; errors of texts that do not fit it give the advice.

        Raises:
            TypeError: It cannot be told in a strict schema, or cannot be read; says which field.
        """
        self.type: Any = tp
        self._advice = advice
        self.name = type_name(tp)
        make = _pydantic_reader if _made_of_pydantic(tp) else _msgspec_reader
        schema, self._reader = make(tp, self.name)
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
        TypeError: It cannot be told in a strict schema, or cannot be read; says which field.
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


def type_name(tp: Any) -> str:
    """What people call a type: ``Person``, ``list[Person]``, ``int | None``."""
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
def _errors_of(library: str, tp: Any, name: str) -> Generator[None]:
    try:
        yield
    # A look at annotations raises whatever they raise, such as a name that is not there yet.
    except Exception as exc:
        if _is_value(tp):
            shown = shorten(repr(tp), _SHOWN_BYTES)
            raise TypeError(
                f"{shown} is a value ({type(tp).__name__}), not a type; give a class itself, or"
                " list[...] of one"
            ) from exc
        # The first line: pydantic goes on about hooks of its own.
        reason = str(exc).partition("\n")[0].rstrip(".")
        raise TypeError(
            f"{name}: {library} cannot read JSON as this: {reason}. Use {_KNOWN[library]}, with"
            " annotations that can be looked up"
        ) from exc


def _is_value(tp: Any) -> bool:
    """Whether what no library can read is not even a type."""
    is_special = type(tp).__module__ in ("typing", "typing_extensions", "types")
    return not (inspect.isclass(tp) or is_special or typing.get_origin(tp))


# msgspec


def _msgspec_reader(tp: Any, name: str) -> tuple[Schema, JSONReader]:
    with _errors_of("msgspec", tp, name):
        decoder = msgspec.json.Decoder(tp)
        (info,) = mi.multi_type_info([tp])
    describer = _Describer()
    schema = describer.schema(info, name) | {"$defs": describer.definitions}
    return schema, msgspec_reader(decoder)


def msgspec_reader(decoder: msgspec.json.Decoder[Any]) -> JSONReader:
    """What msgspec decodes."""
    return JSONReader(decoder.decode, msgspec.DecodeError, _blame)


_PLACE: Final = r"(?s)(?P<reason>.*) - at `(?P<path>\$.*)`"


def _blame(exc: msgspec.DecodeError, _: bytes) -> tuple[str, str]:
    if match := re.fullmatch(_PLACE, str(exc)):
        return match["path"], match["reason"]
    return "$", str(exc)


_DATE: Final = r"\d{4}-\d{2}-\d{2}"
_TIME: Final = r"\d{2}:\d{2}:\d{2}(\.\d{1,6})?"
_BASE64: Final = {"type": "string", "contentEncoding": "base64"}

_PLAIN: Final[dict[type[mi.Type], Schema]] = {
    # The first three leave open what a strict schema has to say, and are refused for it.
    mi.AnyType: {},
    mi.RawType: {},
    mi.DictType: {"type": "object", "additionalProperties": True},
    mi.NoneType: {"type": "null"},
    mi.BoolType: {"type": "boolean"},
    mi.IntType: {"type": "integer"},
    mi.FloatType: {"type": "number"},
    mi.StrType: {"type": "string"},
    mi.BytesType: _BASE64,
    mi.ByteArrayType: _BASE64,
    mi.MemoryViewType: _BASE64,
    mi.DateTimeType: {"type": "string", "format": "date-time"},
    mi.TimeType: {"type": "string", "format": "time"},
    mi.DateType: {"type": "string", "format": "date"},
    # The format has years, months and weeks as well, which msgspec does not read.
    mi.TimeDeltaType: {
        "type": "string",
        "format": "duration",
        "pattern": r"^-?P(\d+D)?(T(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?$",
    },
    mi.UUIDType: {"type": "string", "format": "uuid"},
    # Digits in a string: a number might pass through somebody's binary fractions.
    mi.DecimalType: {"type": "string", "pattern": r"^-?\d+(\.\d+)?$"},
    mi.ListType: {"type": "array"},
    mi.VarTupleType: {"type": "array"},
    mi.SetType: {"type": "array", "uniqueItems": True},
    mi.FrozenSetType: {"type": "array", "uniqueItems": True},
}
# Both formats want an offset, which msgspec does not read with tz=False.
_NAIVE: Final[dict[type[mi.Type], Schema]] = {
    mi.DateTimeType: {"type": "string", "pattern": f"^{_DATE}T{_TIME}$"},
    mi.TimeType: {"type": "string", "pattern": f"^{_TIME}$"},
}
_BOUNDS: Final = {
    "number": {
        "ge": "minimum",
        "gt": "exclusiveMinimum",
        "le": "maximum",
        "lt": "exclusiveMaximum",
        "multiple_of": "multipleOf",
    },
    "string": {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"},
    "array": {"min_length": "minItems", "max_length": "maxItems"},
}
_BOUNDS["integer"] = _BOUNDS["number"]
# A bool is an int, too.
_JSON_TYPES: Final = {bool: "boolean", int: "integer", str: "string", type(None): "null"}


class _Describer:
    """msgspec's view of a type as a JSON schema.

    ``msgspec.json.schema`` cannot say which field a type stands in that it does not know, sorts
    the fields of a ``TypedDict`` (a model writes them in the order of the schema) and leaves the
    ``type`` out beside an ``enum``.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._names: dict[Any, str] = {}  # a class -> its name among the definitions

    def schema(self, info: mi.Type, where: str) -> Schema:
        """The schema of a type; errors name the place ``where``."""
        match info:
            case mi.Metadata():
                extra: Schema = info.extra_json_schema or {}  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
                return self.schema(info.type, where) | extra
            case mi.UnionType():
                types = sorted(info.types, key=lambda each: isinstance(each, mi.NoneType))
                return {"anyOf": [self.schema(each, where) for each in types]}  # null at the end
            case mi.LiteralType():
                return _one_of(info.values)
            case mi.TupleType():
                places = enumerate(info.item_types)
                return _fixed_array([self.schema(item, f"{where}[{i}]") for i, item in places])
            case (
                mi.EnumType()
                | mi.StructType()
                | mi.TypedDictType()
                | mi.DataclassType()
                | mi.NamedTupleType()
            ):
                return {"$ref": f"#/$defs/{self._define(info, where)}"}
            case _:
                return self._plain(info, where)

    def _plain(self, info: mi.Type, where: str) -> Schema:
        plain = (_NAIVE if getattr(info, "tz", None) is False else _PLAIN).get(type(info))
        if plain is None:
            unknown = type_name(getattr(info, "cls", type(info)))
            raise TypeError(
                f"{where}: neither msgspec nor pydantic reads JSON as {unknown} here; use a type"
                " that msgspec decodes, or make the whole of it of pydantic's types"
            )
        schema = plain | _bounds(info, plain)
        if isinstance(info, mi.CollectionType):
            schema["items"] = self.schema(info.item_type, f"{where}[]")
        return schema

    def _define(self, info: _Named, where: str) -> str:
        name = self._names.get(info.cls)
        if name is None:
            self._names[info.cls] = name = self._free_name(info.cls)
            self.definitions[name] = {}  # holds the place: the type may contain itself
            self.definitions[name] = _heading(info) | self._body(info, where)
        return name

    def _free_name(self, cls: Any) -> str:
        stem = name = re.sub(r"[^\w.-]", "_", type_name(cls), flags=re.ASCII)
        number = 1
        while name in self.definitions:
            number += 1
            name = f"{stem}_{number}"
        return name

    def _body(self, info: _Named, where: str) -> Schema:
        if isinstance(info, mi.EnumType):
            return _one_of([member.value for member in info.cls])
        properties: dict[str, Schema] = {}
        if isinstance(info, mi.StructType) and info.tag_field is not None:
            properties[info.tag_field] = _one_of([info.tag])
        for field in _in_order(info):
            name = field.encode_name
            properties[name] = self.schema(field.type, f"{where}.{name}") | _default(field)
        if isinstance(info, mi.NamedTupleType) or getattr(info, "array_like", False):
            return _fixed_array(list(properties.values()))
        return {"type": "object", "properties": properties, "required": list(properties)}


_Named: TypeAlias = (
    mi.EnumType | mi.StructType | mi.TypedDictType | mi.DataclassType | mi.NamedTupleType
)


def _bounds(info: mi.Type, plain: Schema) -> Schema:
    bounds = {
        keyword: bound
        for attribute, keyword in _BOUNDS.get(plain.get("type", ""), {}).items()
        if (bound := getattr(info, attribute, None)) is not None
    }
    if "contentEncoding" in plain:  # msgspec counts bytes, the schema characters of base64
        return {keyword: -(-bound // 3) * 4 for keyword, bound in bounds.items()}
    return bounds


def _one_of(values: Iterable[Any]) -> Schema:
    values = list(values)
    kinds = [next(kind for kind in _JSON_TYPES if isinstance(value, kind)) for value in values]
    types = list(dict.fromkeys(_JSON_TYPES[kind] for kind in kinds))
    return {"type": types[0] if len(types) == 1 else types, "enum": values}


def _fixed_array(items: list[Schema]) -> Schema:
    schema: Schema = {"type": "array", "minItems": len(items), "maxItems": len(items)}
    return schema | {"prefixItems": items} if items else schema


def _in_order(info: Any) -> Iterable[mi.Field]:
    if not isinstance(info, mi.TypedDictType):
        fields: tuple[mi.Field, ...] = info.fields
        return fields
    order = list(getattr(info.cls, "__origin__", info.cls).__annotations__)
    return sorted(info.fields, key=lambda field: order.index(field.name))


def _default(field: mi.Field) -> Schema:
    if field.default is msgspec.NODEFAULT:
        return {}
    try:
        return {"default": msgspec.to_builtins(field.default, str_keys=True)}
    except TypeError:  # a sentinel of the caller's has no JSON
        return {}


def _heading(info: _Named) -> Schema:
    cls = getattr(info.cls, "__origin__", info.cls)
    heading = {"title": type_name(info.cls)}
    doc = inspect.cleandoc(cls.__doc__ or "")
    # What Python writes itself into a class without a docstring: ``Point(x: int, y: int)``.
    generated = doc.startswith(f"{cls.__name__}(") and doc.endswith(")")
    if doc and not (generated and isinstance(info, mi.DataclassType | mi.NamedTupleType)):
        heading["description"] = doc
    return heading


# pydantic

_PYDANTIC: Final = frozenset({"pydantic", "pydantic_core", "annotated_types"})
_ALIASES: Final = ("__value__", "__supertype__")  # of ``type X = ...`` and NewType
# Dataclasses, TypedDict, NamedTuple. Not structs: pydantic cannot read those.
_HAS_FIELDS: Final = ("__dataclass_fields__", "__total__", "_fields")


def _made_of_pydantic(tp: Any) -> bool:
    # A type cannot be made of what nobody has imported.
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
    # Names that are not there yet are for the library to complain about.
    with contextlib.suppress(Exception):
        inner += [getattr(origin, way) for way in _ALIASES if hasattr(origin, way)]
        if any(hasattr(origin, mark) for mark in _HAS_FIELDS):
            inner += typing.get_type_hints(origin, include_extras=True).values()
    for part in inner:
        yield from _parts(part, seen)


def _pydantic_reader(tp: Any, name: str) -> tuple[Schema, JSONReader]:
    import pydantic  # noqa: PLC0415 - see the head of this file

    with _errors_of("pydantic", tp, name):
        adapter = pydantic.TypeAdapter[Any](tp)
        schema = adapter.json_schema()
    return schema, JSONReader(adapter.validate_json, pydantic.ValidationError, _blame_first)


def _blame_first(exc: pydantic.ValidationError, payload: bytes) -> tuple[str, str]:
    first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
    # Between keys and indices pydantic names branches of unions, and functions; only what the
    # text has is a place in it.
    path, value = "$", parse_json(payload)
    for part in first["loc"]:
        if is_array(value) and isinstance(part, int) and part < len(value):
            path, value = f"{path}[{part}]", value[part]
        elif is_object(value) and part in value:
            path, value = f"{path}.{part}", value[str(part)]
    if first["type"] == "missing":  # which the text has not
        last = first["loc"][-1]
        path = f"{path}[{last}]" if isinstance(last, int) else f"{path}.{last}"
    others = exc.error_count() - 1
    return path, f"{first['msg']} (and {others} more)" if others else first["msg"]
