"""A JSON schema -> the smallest value that fits it, for answers that no model wrote."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from ..protocol.json import is_object

_MAX_DEPTH: Final = 8  # types that hold themselves have no end
_FORMATS: Final[Mapping[str, str]] = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "hostname": "example.com",
}
_GUESSES: Final = ("1", "A", "a", *_FORMATS.values())
"""Texts that a ``pattern`` may mean."""


def sample_of(schema: object, name: str = "text") -> Any:
    """The smallest value that fits a schema, as Python's JSON has it.

    Texts say the name of their property. Optional properties are left out. Only common patterns of
    texts are obeyed, and what is no schema gives a text.

    Args:
        schema: The schema. What it refers to stands in its ``$defs``.
        name: What to call a text.
    """
    return _Sampler(schema).sample(schema, name, 0)


class _Sampler:
    def __init__(self, root: object) -> None:
        self._root = root

    def sample(self, schema: object, name: str, depth: int) -> Any:
        if not is_object(schema):
            return name
        if "$ref" in schema:
            return self._referred(schema, name, depth)
        if given := _given(schema):
            return given[0]
        for keyword in ("anyOf", "oneOf"):
            if members := _items(schema.get(keyword)):
                return self.sample(_chosen(members, depth), name, depth)
        if parts := _items(schema.get("allOf")):
            merged = {
                key: value for part in parts if is_object(part) for key, value in part.items()
            }
            return self.sample(merged, name, depth)
        return self._of_type(schema, name, depth)

    def _referred(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        target: Any = self._root
        for key in str(schema["$ref"]).removeprefix("#").split("/")[1:]:
            target = target.get(key) if is_object(target) else None
        # Deeper also for a definition that only refers to itself.
        return self.sample(target, name, depth + 1) if depth < _MAX_DEPTH * 2 else None

    def _of_type(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        match _type_of(schema, depth):
            case "object":
                properties = schema.get("properties")
                required = _items(schema.get("required"))
                return {
                    key: self.sample(each, key, depth + 1)
                    for key, each in (properties if is_object(properties) else {}).items()
                    if key in required
                }
            case "array":
                return self._array(schema, name, depth)
            case "integer" | "number" as kind:
                return _number(schema, is_whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return _text(schema, name)

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        items = _items(schema.get("prefixItems"))
        least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        usual = min(1, most) if depth < _MAX_DEPTH and "items" in schema else 0
        repeated = max(least, usual) - len(items)
        items = items + [schema.get("items")] * max(0, repeated)
        return [self.sample(each, name, depth + 1) for each in items]


def _given(schema: Mapping[str, Any]) -> list[Any]:
    """The values that a schema itself names."""
    single = [schema[keyword] for keyword in ("const", "default") if keyword in schema]
    return single + _items(schema.get("enum")) + _items(schema.get("examples"))


def _items(value: object) -> list[Any]:
    return value if _is_list(value) else []


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _chosen(members: list[Any], depth: int) -> Any:
    """The first that is not null, unless it is time to come to an end."""
    nulls = [each for each in members if is_object(each) and each.get("type") == "null"]
    others = [each for each in members if each not in nulls]
    first, second = (nulls, others) if depth >= _MAX_DEPTH else (others, nulls)
    return (first or second)[0]


def _type_of(schema: Mapping[str, Any], depth: int) -> object:
    kinds = _items(schema.get("type"))
    if not kinds:
        return schema.get("type", "object" if "properties" in schema else None)
    others = [kind for kind in kinds if kind != "null"]
    ends_here = depth >= _MAX_DEPTH and "null" in kinds
    return others[0] if others and not ends_here else "null"


def _number(schema: Mapping[str, Any], *, is_whole: bool) -> float:
    low, high = -math.inf, math.inf
    for keyword, beyond in (("minimum", 0), ("exclusiveMinimum", 1)):
        if keyword in schema:
            low = max(low, schema[keyword] + beyond)
    for keyword, beyond in (("maximum", 0), ("exclusiveMaximum", 1)):
        if keyword in schema:
            high = min(high, schema[keyword] - beyond)
    value = (low + high) / 2 if low > high else min(max(1, low), high)
    step = schema.get("multipleOf", 1 if is_whole else None)
    if step:
        value = math.ceil(value / step) * step
    return value


def _text(schema: Mapping[str, Any], name: str) -> str:
    if known := _FORMATS.get(str(schema.get("format"))):
        return known
    if pattern := schema.get("pattern"):
        return next((each for each in (name, *_GUESSES) if re.search(pattern, each)), name)
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    return name.ljust(least, ".")[:most]
