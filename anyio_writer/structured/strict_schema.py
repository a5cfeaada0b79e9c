"""A JSON schema in the strict form that the API requires for structured answers.

Strict means: every object names its properties, requires all of them and allows no others. A schema
that cannot follow this rule raises before anything is sent, with the name of the field.

Source: the rules of the official SDK's own transform; docs/structured-output.md lists the
differences and why they are there.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from ..protocol.json import is_array, is_object

Schema: TypeAlias = dict[str, Any]

DEFINITIONS: Final = ("$defs", "definitions")
# Without one of these a schema lets everything through.
_MEANING: Final = frozenset({"type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf"})


def strict_schema(schema: Schema, *, name: str = "$") -> Schema:
    """The strict form of a schema, as a copy.

    Its root is never just a reference, and unused definitions are left out.

    Args:
        schema: A JSON schema as msgspec or pydantic make them: references lead to its own
            ``$defs`` or ``definitions``.
        name: What errors call the root.

    Raises:
        TypeError: A strict schema cannot express it. It has, for example, an object with
            arbitrary keys. The message begins with the path of the field: ``Person.extra: …``.
    """
    return _Transform(schema).root(name)


_Strict: TypeAlias = Callable[[Any, str], Schema]  # a schema and its place -> its strict form


def _by_name(value: Any, where: str, strict: _Strict) -> Any:
    return {name: strict(each, f"{where}.{name}") for name, each in value.items()}


def _by_index(value: Any, where: str, strict: _Strict) -> Any:
    return [strict(each, f"{where}[{index}]") for index, each in enumerate(value)]


def _for_all_items(value: Any, where: str, strict: _Strict) -> Any:
    return value if value is False else strict(value, f"{where}[]")


def _in_place(value: Any, where: str, strict: _Strict) -> Any:
    return [strict(each, where) for each in value]


def _copy(value: Any, _where: str, _strict: _Strict) -> Any:
    return copy.deepcopy(value)  # so that the caller's is never shared


# Where schemas stand in a schema.
_WALKS: Final[dict[str, Callable[[Any, str, _Strict], Any]]] = {
    "properties": _by_name,
    "prefixItems": _by_index,
    "items": _for_all_items,
    "anyOf": _in_place,
    "oneOf": _in_place,
    "allOf": _in_place,
}


class _Transform:
    """Follows a schema from its root, so that a path can be named; each definition once."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._definitions: dict[str, dict[str, Schema]] = {}

    def root(self, name: str) -> Schema:
        root = {key: value for key, value in self._schema.items() if key not in DEFINITIONS}
        root = _simplified(root)
        inside: frozenset[str] = frozenset()
        while is_object(root) and root.keys() == {"$ref"}:
            ref: str = root["$ref"]
            if ref in inside:
                raise TypeError(f"{name}: {ref} is defined as nothing but itself")
            inside |= {ref}
            root = _simplified(self._definition(ref, name))
        return self._strict(root, name, inside) | self._definitions

    def _strict(self, schema: Any, where: str, inside: frozenset[str]) -> Schema:
        """The strict form of one schema.

        ``inside`` holds the definitions around it. Inlining one of them again would never end.
        """
        schema = _simplified(schema)
        if not is_object(schema) or _MEANING.isdisjoint(schema):
            raise TypeError(
                f"{where}: any value may stand here (Any, Raw, list without brackets), and a strict"
                " schema has to say which; give it a narrower type"
            )
        if "$ref" in schema:
            return self._reference(schema, where, inside)
        types = schema.get("type")
        types = types if is_array(types) else [types]
        if "object" in types:
            _check_object(schema, where)
            schema = schema | {"additionalProperties": False}
        if "array" in types:
            _check_array(schema, where)
        strict = {
            key: _WALKS.get(key, _copy)(
                value, where, lambda inner, place: self._strict(inner, place, inside)
            )
            for key, value in schema.items()
        }
        if "properties" in strict:
            strict["required"] = list(strict["properties"])
        return strict

    def _reference(self, schema: Schema, where: str, inside: frozenset[str]) -> Schema:
        ref: str = schema["$ref"]
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        # The API takes no keywords beside a reference.
        if beside and ref not in inside:
            return self._strict(self._definition(ref, where) | beside, where, inside | {ref})
        definition = self._definition(ref, where)
        _, keyword, name = ref.split("/")
        definitions = self._definitions.setdefault(keyword, {})
        if name not in definitions:
            definitions[name] = {}  # a placeholder: it may refer to itself
            definitions[name] = self._strict(definition, where, frozenset({ref}))
        return {"anyOf": [{"$ref": ref}]} | copy.deepcopy(beside) if beside else {"$ref": ref}

    def _definition(self, ref: str, where: str) -> Schema:
        root, _, path = ref.partition("/")
        keyword, _, name = path.partition("/")
        definitions: dict[str, Schema] = self._schema.get(keyword, {})
        if root != "#" or keyword not in DEFINITIONS or name not in definitions:
            raise TypeError(f"{where}: the schema refers to {ref}, which is not among its $defs")
        return definitions[name]


def _simplified(schema: Any) -> Any:
    """The schema without redundant parts."""
    while is_object(schema) and len(schema.get("allOf", ())) == 1:
        (only,) = schema["allOf"]
        schema = {key: value for key, value in schema.items() if key != "allOf"} | only
    if is_object(schema) and "default" in schema and not _is_worth_saying(schema["default"]):
        schema = {key: value for key, value in schema.items() if key != "default"}
    return schema


def _is_worth_saying(default: Any) -> bool:
    if default is None:  # the type allows null, or the default is invalid
        return False
    try:
        json.dumps(default, allow_nan=False)
    except ValueError:  # infinity and the like, which JSON does not have
        return False
    return True


def _check_object(schema: Schema, where: str) -> None:
    if schema.get("additionalProperties", False) is not False or schema.get("patternProperties"):
        raise TypeError(
            f"{where}: a strict schema has no objects with arbitrary keys (dict, extra='allow');"
            " name the fields, or use a list of pairs"
        )


def _check_array(schema: Schema, where: str) -> None:
    if "items" not in schema and "prefixItems" not in schema and schema.get("maxItems") != 0:
        raise TypeError(
            f"{where}: a strict schema has to say what the items are; write list[int] or the like"
        )
