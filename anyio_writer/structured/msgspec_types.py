"""A type that msgspec reads, as a JSON schema."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import msgspec
import msgspec.inspect as mi

from .reading import JSONReader, msgspec_reader
from .strict_schema import Schema
from .type_names import errors_of, type_name


def describe_for_msgspec(tp: Any, name: str) -> tuple[Schema, JSONReader]:
    """The schema of a type, and its reader.

    Raises:
        TypeError: msgspec cannot read it; the message says which field.
    """
    with errors_of("msgspec", tp, name):
        decoder = msgspec.json.Decoder(tp)
        (info,) = mi.multi_type_info([tp])
    describer = _Describer()
    schema = describer.schema(info, name) | {"$defs": describer.definitions}
    return schema, msgspec_reader(decoder)


_DATE: Final = r"\d{4}-\d{2}-\d{2}"
_TIME: Final = r"\d{2}:\d{2}:\d{2}(\.\d{1,6})?"
_BASE64: Final = {"type": "string", "contentEncoding": "base64"}

_PLAIN: Final[dict[type[mi.Type], Schema]] = {
    # A strict schema must be specific, so the first three raise later on.
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
    # Digits in a string: a number might be turned into a float on its way.
    mi.DecimalType: {"type": "string", "pattern": r"^-?\d+(\.\d+)?$"},
    mi.ListType: {"type": "array"},
    mi.VarTupleType: {"type": "array"},
    mi.SetType: {"type": "array", "uniqueItems": True},
    mi.FrozenSetType: {"type": "array", "uniqueItems": True},
}
# Both formats require an offset, which msgspec does not read with tz=False.
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
        """The schema of a type. ``where`` is its path, for errors."""
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
                items = enumerate(info.item_types)
                return _fixed_array([self.schema(item, f"{where}[{i}]") for i, item in items])
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
            self.definitions[name] = {}  # a placeholder: the type may contain itself
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
    # The docstring that Python generates for a class without one: ``Point(x: int, y: int)``.
    generated = doc.startswith(f"{cls.__name__}(") and doc.endswith(")")
    if doc and not (generated and isinstance(info, mi.DataclassType | mi.NamedTupleType)):
        heading["description"] = doc
    return heading
