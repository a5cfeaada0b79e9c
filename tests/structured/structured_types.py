"""Random types with values that fit them, and two looks at a schema: is it strict, does JSON fit.

The tests of ``tests/structured`` share them.
"""

import datetime as dt
import decimal
import enum
import itertools
import re
import string
import uuid
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, Literal, Union

import msgspec
from hypothesis import strategies as st

Typed = tuple[Any, st.SearchStrategy[Any]]
"""A type, and what makes values that fit it."""

_serial = itertools.count()
_NAMES: Final = st.text(string.ascii_lowercase, min_size=1, max_size=3).map("f_{}".format)


# Is it strict


def check_strict(schema: dict[str, Any]) -> None:
    """Assert the rules for strict schemas, everywhere in one that has been made strict."""
    for definition in schema.get("$defs", {}).values():
        _check(definition, schema)
    _check({key: value for key, value in schema.items() if key != "$defs"}, schema)
    assert set(references(schema)) == {f"#/$defs/{name}" for name in schema.get("$defs", {})}


def _check(schema: Any, root: dict[str, Any]) -> None:
    assert isinstance(schema, dict)
    assert schema.keys() & {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"}
    assert schema.get("default", "not null") is not None
    assert len(schema.get("allOf", "two")) > 1
    if "$ref" in schema:
        assert schema.keys() == {"$ref"}
        assert schema["$ref"].removeprefix("#/$defs/") in root["$defs"]
    if schema.get("type") == "object":
        assert schema["additionalProperties"] is False
        assert schema["required"] == list(schema["properties"])
    if schema.get("type") == "array":
        assert "items" in schema or "prefixItems" in schema or schema["maxItems"] == 0
    inner = [*schema.get("properties", {}).values(), *schema.get("prefixItems", ())]
    for keyword in ("anyOf", "oneOf", "allOf"):
        inner += schema.get(keyword, ())
    if schema.get("items", False) is not False:
        inner.append(schema["items"])
    for each in inner:
        _check(each, root)


def references(value: Any) -> list[str]:
    """Every ``$ref`` in a schema."""
    if isinstance(value, list):
        return [ref for each in value for ref in references(each)]
    if not isinstance(value, dict):
        return []
    refs = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return refs + [ref for each in value.values() for ref in references(each)]


# Does JSON fit

_JSON_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_BOUNDS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "minimum": lambda value, bound: value >= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
    "multipleOf": lambda value, bound: value % bound == 0,
    "minLength": lambda value, bound: len(value) >= bound,
    "maxLength": lambda value, bound: len(value) <= bound,
    "minItems": lambda value, bound: len(value) >= bound,
    "maxItems": lambda value, bound: len(value) <= bound,
    "pattern": lambda value, bound: re.search(bound, value) is not None,
    # 1 is not true
    "enum": lambda value, bound: any(value == v and type(value) is type(v) for v in bound),
}


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None) -> bool:
    """Whether a decoded value is what a strict schema asks for."""
    root = schema if root is None else root
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in schema:
        return any(fits(value, each, root) for each in schema["anyOf"])
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    bounds = ((check, schema[key]) for key, check in _BOUNDS.items() if key in schema)
    if not any(_JSON_TYPES[each](value) for each in types):
        return False
    if not all(check(value, bound) for check, bound in bounds):
        return False
    inner: Iterable[tuple[Any, dict[str, Any]]] = ()
    if isinstance(value, dict):
        if value.keys() != schema["properties"].keys():
            return False
        inner = [(each, schema["properties"][key]) for key, each in value.items()]
    elif "prefixItems" in schema:
        inner = zip(value, schema["prefixItems"], strict=True)
    elif "items" in schema:
        inner = [(each, schema["items"]) for each in value]
    return all(fits(each, its, root) for each, its in inner)


# Random types


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


_TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_INT: Final = st.integers(-(2**63), 2**64 - 1)


@st.composite
def _bounded_int(draw: st.DrawFn) -> Typed:
    low, high = sorted((draw(st.integers(-100, 100)), draw(st.integers(-100, 100))))
    return Annotated[int, msgspec.Meta(ge=low, le=high)], st.integers(low, high)


@st.composite
def _bounded_text(draw: st.DrawFn) -> Typed:
    low, high = sorted((draw(st.integers(0, 5)), draw(st.integers(0, 5))))
    meta = msgspec.Meta(min_length=low, max_length=high, description="some text")
    return Annotated[str, meta], st.text(string.ascii_letters, min_size=low, max_size=high)


@st.composite
def _literal(draw: st.DrawFn) -> Typed:
    one = st.one_of(st.integers(-9, 9), st.text(string.ascii_lowercase, max_size=3))
    values = draw(st.lists(one, min_size=1, max_size=4, unique=True))
    return Literal[tuple(values)], st.sampled_from(values)


_INTS: Final = st.one_of(
    st.just((int, _INT)), _bounded_int(), st.just((Level, st.sampled_from(Level)))
)
_TEXTS: Final = st.one_of(
    st.just((str, _TEXT)),
    _bounded_text(),
    st.just((Colour, st.sampled_from(Colour))),
    st.just((bytes, st.binary(max_size=5))),
    st.just((uuid.UUID, st.uuids())),
    st.just((dt.date, st.dates())),
    st.just((dt.datetime, st.datetimes(timezones=st.just(dt.UTC)))),
    st.just((dt.timedelta, st.timedeltas(dt.timedelta(0), dt.timedelta(99)))),
    st.just((decimal.Decimal, st.decimals(-1000, 1000, places=2))),
)
_LEAVES: Final = st.one_of(
    _INTS,
    _TEXTS,
    _literal(),
    st.just((bool, st.booleans())),
    st.just((float, st.floats(allow_nan=False, allow_infinity=False))),
)


@st.composite
def _struct(draw: st.DrawFn, inner: st.SearchStrategy[Typed], *, tag: bool = False) -> Typed:
    fields = draw(st.dictionaries(_NAMES, inner, max_size=4))
    name = f"Struct{next(_serial)}"
    cls = msgspec.defstruct(
        name,
        [(field, tp) for field, (tp, _) in fields.items()],
        tag=tag,
        rename=draw(st.sampled_from([None, "camel", "upper"])),
    )
    values = {field: made for field, (_, made) in fields.items()}
    return cls, st.fixed_dictionaries(values).map(lambda given: cls(**given))


def _list(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    return inner.map(lambda made: (list[made[0]], st.lists(made[1], max_size=3)))


def _tuple(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    return st.lists(inner, max_size=3).map(
        lambda made: (tuple[tuple(tp for tp, _ in made)], st.tuples(*(each for _, each in made)))
    )


@st.composite
def _union(draw: st.DrawFn, inner: st.SearchStrategy[Typed]) -> Typed:
    # msgspec tells the members of a union apart by their kind, and structs by their tag. No
    # tuples: beside a number or text with bounds they crash msgspec 0.22, interpreter and all.
    kinds: list[st.SearchStrategy[Typed]] = [
        _INTS,
        _TEXTS,
        st.just((bool, st.booleans())),
        st.just((None, st.none())),
        _list(inner),
    ]
    chosen = draw(st.lists(st.sampled_from(kinds), max_size=3, unique_by=id))
    members = [draw(kind) for kind in chosen]
    structs = draw(st.integers(0 if len(members) > 1 else 2, 3))
    members += [draw(_struct(inner, tag=True)) for _ in range(structs)]
    union = Union[tuple(tp for tp, _ in members)]  # noqa: UP007 - made of a list
    return union, st.one_of(*(values for _, values in members))


def _extended(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    optional = inner.map(lambda made: (made[0] | None, st.none() | made[1]))
    return st.one_of(_struct(inner), _list(inner), _tuple(inner), _union(inner), optional)


TYPES: Final[st.SearchStrategy[Typed]] = st.recursive(_LEAVES, _extended, max_leaves=8)
"""Types of every kind, nested in one another, each with values that fit it."""
