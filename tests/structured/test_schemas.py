"""What each kind of type is in JSON: its schema beside the SDK's, its values, its errors."""

import copy
import datetime as dt
import decimal
import enum
import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    TypeVar,
)

import attrs
import msgspec
import pydantic
import pytest
import typing_extensions
from msgspec import UNSET, Meta, UnsetType
from pydantic import BaseModel, Field, TypeAdapter
from writerai.lib._pydantic import to_strict_json_schema

from anyio_writer.errors import ValueMismatchError, WriterError
from anyio_writer.structured.schemas import CACHED_TYPES, Codec, codec_of, type_name
from tests.structured.structured_types import check_strict

T = TypeVar("T")
Schema = dict[str, Any]
DOCS: Final = Path(__file__).parents[2] / "docs" / "structured-output.md"


class Colour(enum.Enum):
    """What it looks like."""

    RED = "red"
    GREEN = "green"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Address(msgspec.Struct):
    """Where somebody lives.

    More of it.
    """

    street: Annotated[str, Meta(description="With the number.", min_length=1)]
    zip_code: str | None = None


class Person(msgspec.Struct):
    name: str
    home: Address
    age: Annotated[int, Meta(ge=0, lt=200)] = 0
    tags: list[str] = msgspec.field(default_factory=list)
    work: Annotated[Address | None, Meta(description="If any.")] = None
    nick: str | UnsetType = UNSET


class Employee(Person, kw_only=True):
    colour: Colour = Colour.RED


class Tree(msgspec.Struct):
    value: int
    left: "Tree | None" = None
    others: "list[Tree]" = []


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str


class Box(msgspec.Struct, Generic[T]):
    item: T


class Cat(msgspec.Struct, tag_field="kind", tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag_field="kind", tag="dog"):
    name: str


@dataclass
class Pair:
    left: int
    right: str = "r"
    more: list[int] = field(default_factory=list)


@dataclass
class Documented:
    """A pair (of two)."""

    left: int


@attrs.define
class Size:
    width: int
    height: int = 1


class Film(TypedDict):
    title: str
    about: str
    year: NotRequired[int]


class Loose(TypedDict, total=False):
    z: Required[int]
    a: str


class Point(NamedTuple):
    x: int
    y: int = 0


class Row(msgspec.Struct, array_like=True):
    x: int
    y: str = ""


UserId = NewType("UserId", int)


# The same for pydantic


class P:
    class Address(BaseModel):
        """Where somebody lives.

        More of it.
        """

        street: str = Field(description="With the number.", min_length=1)
        zip_code: str | None = None

    class Person(BaseModel):
        name: str
        home: "P.Address"
        age: int = Field(0, ge=0, lt=200)
        tags: list[str] = Field(default_factory=list)
        work: Optional["P.Address"] = Field(None, description="If any.")
        nick: str

    class Employee(Person):
        colour: Colour = Colour.RED

    class Tree(BaseModel):
        value: int
        left: Optional["P.Tree"] = None
        others: "list[P.Tree]" = []

    class Renamed(BaseModel):
        first_name: str = Field(alias="firstName")

    class Box(BaseModel, Generic[T]):
        item: T

    class Cat(BaseModel):
        kind: Literal["cat"]
        lives: int

    class Dog(BaseModel):
        kind: Literal["dog"]
        name: str

    class Pair(BaseModel):
        left: int
        right: str = "r"
        more: list[int] = Field(default_factory=list)

    class Documented(BaseModel):
        """A pair (of two)."""

        left: int

    class Size(BaseModel):
        width: int
        height: int = 1

    class Film(typing_extensions.TypedDict):
        title: str
        about: str
        year: NotRequired[int]

    class Loose(typing_extensions.TypedDict, total=False):
        z: Required[int]
        a: str

    class Row(NamedTuple):
        x: int
        y: str = ""


for one in (P.Cat, P.Row):
    one.__qualname__ = one.__name__  # which gets into the names of generics
for model in (P.Person, P.Employee, P.Tree):
    model.model_rebuild()

# Each is what a bold line of docs/structured-output.md says, as a rule that makes the SDK's schema
# ours; nothing else may differ.


def _const(schema: Schema) -> None:
    """A single value is an `enum` with one member."""
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]


def _literal(schema: Schema) -> None:
    """A `Literal`'s values are sorted, and have their type."""
    if "enum" in schema and "title" not in schema:
        names = {str: "string", int: "integer", bool: "boolean", type(None): "null"}
        schema["enum"].sort(key=lambda value: (type(value).__name__, value))
        types = list(dict.fromkeys(names[type(value)] for value in schema["enum"]))
        schema["type"] = types if len(types) > 1 else types[0]


def _discriminator(schema: Schema) -> None:
    """A tagged union is an `anyOf`."""
    if "discriminator" in schema:
        del schema["discriminator"]
        schema["anyOf"] = schema.pop("oneOf")


def _decimal(schema: Schema) -> None:
    """A `Decimal` is a string of digits."""
    if [each.get("type") for each in schema.get("anyOf", ())] == ["number", "string"]:
        del schema["anyOf"]
        schema |= {"type": "string", "pattern": r"^-?\d+(\.\d+)?$"}


def _bytes(schema: Schema) -> None:
    """`bytes` are base64."""
    if schema.get("format") == "binary":
        del schema["format"]
        schema["contentEncoding"] = "base64"


def _duration(schema: Schema) -> None:
    """A `timedelta` has a pattern."""
    if schema.get("format") == "duration":
        schema["pattern"] = r"^-?P(\d+D)?(T(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?$"


def _named_tuple(schema: Schema) -> None:
    """A `NamedTuple` requires all its fields, and has a title."""
    for name, definition in schema.get("$defs", {}).items():
        if "prefixItems" in definition:
            definition |= {"title": name, "minItems": len(definition["prefixItems"])}


def _factory(schema: Schema) -> None:
    """A default of `[]` is left out."""
    if schema.get("default") == []:
        del schema["default"]


RULES: Final[Sequence[Callable[[Schema], None]]] = (
    _const,
    _literal,
    _discriminator,
    _decimal,
    _bytes,
    _duration,
    _named_tuple,
    _factory,
)


def _without_titles_of_fields(schema: Schema) -> Schema:
    """Fields have no titles."""
    types = {each.get("title") for each in schema.get("$defs", {}).values()}

    def walk(inner: Any, *, is_field: bool = False) -> Any:
        if isinstance(inner, list):
            return [walk(each) for each in inner]
        if not isinstance(inner, dict):
            return inner
        out = {key: walk(value) for key, value in inner.items()}
        if isinstance(inner.get("properties"), dict):
            fields = inner["properties"].items()
            out["properties"] = {name: walk(each, is_field=True) for name, each in fields}
        if "prefixItems" in inner:
            out["prefixItems"] = [walk(each, is_field=True) for each in inner["prefixItems"]]
        if is_field and out.get("title") not in types:
            out.pop("title", None)
        return out

    result: Schema = walk(schema)
    return result


def _without_unused(schema: Schema) -> Schema:
    """Definitions that nothing refers to are left out."""
    text = json.dumps(schema)
    used = {name: each for name, each in schema.get("$defs", {}).items() if f'/{name}"' in text}
    rest = {key: value for key, value in schema.items() if key != "$defs"}
    return rest | ({"$defs": used} if used else {})


def _everywhere(rule: Callable[[Schema], None]) -> Callable[[Any], Any]:
    def apply(schema: Any) -> Any:
        if isinstance(schema, list):
            return [apply(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        schema = {key: apply(value) for key, value in schema.items()}
        rule(schema)
        return schema

    return apply


DIFFERENCES: Final[dict[str | None, Callable[[Any], Any]]] = {
    _without_titles_of_fields.__doc__: _without_titles_of_fields,
    **{rule.__doc__: _everywhere(rule) for rule in RULES},
    _without_unused.__doc__: _without_unused,
}


def as_ours(tp: Any, differences: Iterable[Callable[[Any], Any]] = DIFFERENCES.values()) -> Any:
    schema: Any = to_strict_json_schema(TypeAdapter(tp))
    for difference in differences:
        schema = difference(schema)
    return schema


SAME: Final[dict[str, tuple[Any, Any]]] = {
    "struct": (Address, P.Address),
    "nested, with defaults and bounds": (Person, P.Person),
    "inherited": (Employee, P.Employee),
    "recursive": (Tree, P.Tree),
    "renamed": (Renamed, P.Renamed),
    "generic": (Box[int], P.Box[int]),
    "generic of a class": (Box[Cat], P.Box[P.Cat]),
    "tagged union": (
        list[Cat | Dog],
        list[Annotated[P.Cat | P.Dog, Field(discriminator="kind")]],
    ),
    "union": (int | str | None | list[Tree], int | str | None | list[P.Tree]),
    "dataclass": (Pair, P.Pair),
    "dataclass with a docstring": (Documented, P.Documented),
    "attrs": (Size, P.Size),
    "TypedDict": (Film, P.Film),
    "TypedDict, not total": (Loose, P.Loose),
    "NamedTuple": (Box[Row], P.Box[P.Row]),
    "enum": (list[Colour], list[Colour]),
    "enum of numbers": (list[Level], list[Level]),
    "Literal": (Literal["b", "a"], Literal["b", "a"]),
    "Literal of many types": (Literal["b", 2, 1, True, None], Literal["b", 2, 1, True, None]),  # noqa: PYI061
    "one Literal": (Literal[1], Literal[1]),
    "NewType": (UserId, UserId),
    "numbers": (
        list[Annotated[float, Meta(gt=0, le=1, multiple_of=0.5)]],
        list[Annotated[float, Field(gt=0, le=1, multiple_of=0.5)]],
    ),
    "text": (
        Annotated[str, Meta(min_length=1, max_length=2, pattern="^a")],
        Annotated[str, Field(min_length=1, max_length=2, pattern="^a")],
    ),
    "described": (
        Annotated[int, Meta(title="T", description="d", examples=[1], extra_json_schema={"x": 1})],
        Annotated[int, Field(title="T", description="d", examples=[1], json_schema_extra={"x": 1})],
    ),
    "lists": (
        Annotated[list[int], Meta(min_length=1, max_length=2)],
        Annotated[list[int], Field(min_length=1, max_length=2)],
    ),
    "sets": (set[int] | None, set[int] | None),
    "frozensets": (frozenset[int], frozenset[int]),
    "sequences": (Sequence[int], Sequence[int]),
    "tuples": (tuple[int, str], tuple[int, str]),
    "tuples of any length": (tuple[int, ...], tuple[int, ...]),
    "empty tuple": (tuple[()], tuple[()]),
    "bool": (bool, bool),
    "None": (None, type(None)),
    "datetime": (dt.datetime, dt.datetime),
    "datetime with an offset": (
        Annotated[dt.datetime, Meta(tz=True)],
        pydantic.AwareDatetime,
    ),
    "date": (dt.date, dt.date),
    "time": (dt.time, dt.time),
    "timedelta": (dt.timedelta, dt.timedelta),
    "UUID": (uuid.UUID, uuid.UUID),
    "Decimal": (decimal.Decimal, decimal.Decimal),
    "bytes": (bytes, bytes),
}


@pytest.mark.parametrize("kind", SAME)
def test_the_schema_is_the_sdks(kind: str) -> None:
    ours, theirs = SAME[kind]
    schema = codec_of(ours).schema
    check_strict(schema)
    assert schema == as_ours(theirs)


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_each_difference_shows(difference: str) -> None:
    others = [each for name, each in DIFFERENCES.items() if name != difference]
    assert any(codec_of(ours).schema != as_ours(theirs, others) for ours, theirs in SAME.values())


def test_each_difference_is_explained() -> None:
    heading = "## Compared with the SDK's schemas"
    section = DOCS.read_text().partition(heading)[2].partition("\n## ")[0]
    explained = set(re.findall(r"^- \*\*(.+?)\*\*", section, re.MULTILINE))
    assert explained == DIFFERENCES.keys() | {
        # These show in test_strict_schema.py.
        "`oneOf` and `prefixItems` are made strict, too.",
        "A recursive type with a description can be sent.",
        "What cannot be strict is refused.",
    }


# What only ours has


def test_fields_come_in_the_order_of_the_class() -> None:
    assert list(codec_of(Film).schema["properties"]) == ["title", "about", "year"]
    assert list(codec_of(Loose).schema["properties"]) == ["z", "a"]
    assert list(codec_of(Cat).schema["properties"]) == ["kind", "lives"]


def test_generated_docstrings_are_no_descriptions() -> None:
    for tp in (Pair, Point, Size, Film, Box[int], Level):
        assert "description" not in codec_of(tp).schema
    assert codec_of(Address).schema["description"] == "Where somebody lives.\n\nMore of it."
    assert codec_of(Colour).schema["description"] == "What it looks like."
    assert codec_of(Documented).schema["description"] == "A pair (of two)."


@pytest.mark.parametrize(
    ("tp", "schema"),
    [
        (
            Annotated[dt.datetime, Meta(tz=False)],
            {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?$"},
        ),
        (
            Annotated[dt.time, Meta(tz=False)],
            {"type": "string", "pattern": r"^\d{2}:\d{2}:\d{2}(\.\d{1,6})?$"},
        ),
        (
            Annotated[bytes, Meta(min_length=1, max_length=4)],
            {"type": "string", "contentEncoding": "base64", "minLength": 4, "maxLength": 8},
        ),
        (
            Row,
            {
                "title": "Row",
                "type": "array",
                "minItems": 2,
                "maxItems": 2,
                "prefixItems": [{"type": "integer"}, {"type": "string", "default": ""}],
            },
        ),
    ],
    ids=str,
)
def test_schemas_of_our_own(tp: Any, schema: Schema) -> None:
    assert codec_of(tp).schema == schema


def test_two_classes_of_one_name() -> None:
    def make(tp: Any) -> Any:
        return msgspec.defstruct("Same", [("x", tp)])

    schema = codec_of(tuple[make(int), make(str), make(bool)]).schema
    check_strict(schema)
    assert list(schema["$defs"]) == ["Same", "Same_2", "Same_3"]
    types = [schema["$defs"][name]["properties"]["x"]["type"] for name in schema["$defs"]]
    assert types == ["integer", "string", "boolean"]


def test_a_default_that_has_no_json_is_left_out() -> None:
    class Odd(msgspec.Struct):
        x: int = object()  # type: ignore[assignment]

    class Endless(msgspec.Struct):
        x: float = float("inf")

    class EndlessModel(BaseModel):
        x: float = Field(float("inf"), title="X")

    assert codec_of(Odd).schema["properties"] == {"x": {"type": "integer"}}
    assert codec_of(Endless).schema["properties"] == {"x": {"type": "number"}}
    assert codec_of(EndlessModel).schema["properties"] == {"x": {"type": "number", "title": "X"}}


# Values

VALUES: Final[list[tuple[Any, str, Any]]] = [
    (
        Person,
        '{"name": "Ada", "home": {"street": "1 Rd"}, "other": 1}',
        Person("Ada", Address("1 Rd")),
    ),
    (
        Employee,
        '{"name": "A", "home": {"street": "s"}, "colour": "blue"}',
        Employee("A", Address("s"), colour=Colour.BLUE),
    ),
    (Tree, '{"value": 1, "left": {"value": 2}}', Tree(1, Tree(2))),
    (Renamed, '{"firstName": "Ada"}', Renamed("Ada")),
    (Box[Cat], '{"item": {"kind": "cat", "lives": 9}}', Box(Cat(9))),
    (Cat | Dog, '{"kind": "dog", "name": "Rex"}', Dog("Rex")),
    (Pair, '{"left": 1}', Pair(1)),
    (Size, '{"width": 2}', Size(2)),
    (Film, '{"title": "t", "about": "a"}', {"title": "t", "about": "a"}),
    (Loose, '{"z": 1}', {"z": 1}),
    (Point, "[1]", Point(1)),
    (Row, '[1, "a"]', Row(1, "a")),
    (Colour, '"red"', Colour.RED),
    (Level, "2", Level.HIGH),
    (Literal["a", None], "null", None),  # noqa: PYI061
    (UserId, "7", 7),
    (
        dt.datetime,
        '"2024-02-29T10:00:00Z"',
        dt.datetime(2024, 2, 29, 10, tzinfo=dt.UTC),
    ),
    (
        uuid.UUID,
        '"12345678-1234-5678-1234-567812345678"',
        uuid.UUID("12345678-1234-5678-1234-567812345678"),
    ),
    (decimal.Decimal, '"0.10"', decimal.Decimal("0.10")),
    (bytes, '"YQ=="', b"a"),
    (set[int], "[1, 1]", {1}),
    (str, '"\\ud83d"', "\ufffd"),  # JSON allows half a pair, Unicode does not
    (str, '"\udc80"', "?"),
    (str, ' "a" \n', "a"),
    (P.Box[int], '{"item": "1"}', P.Box[int](item=1)),
    (list[P.Cat], '[{"kind": "cat", "lives": 9}]', [P.Cat(kind="cat", lives=9)]),
    (P.Cat | None, "null", None),
    (P.Renamed, '{"firstName": "Ada"}', P.Renamed(firstName="Ada")),
    (Annotated[int, Field(gt=0)], '"1"', 1),
    (list[P.Documented], '[{"left": 1}]', [P.Documented(left=1)]),
    (pydantic.RootModel[str], '"\\ud83d"', pydantic.RootModel[str]("\ufffd")),
]


@pytest.mark.parametrize(("tp", "text", "value"), VALUES, ids=str)
def test_values(tp: Any, text: str, value: Any) -> None:
    decoded = codec_of(tp).decode(text)
    assert decoded == value
    assert type(decoded) is type(value)


@pydantic.dataclasses.dataclass
class Checked:
    n: Annotated[int, Field(gt=0)]


@dataclass
class Holder:
    models: list[P.Cat]


class Held(typing_extensions.TypedDict):
    n: Annotated[int, Field(gt=0)]


CheckedId = NewType("CheckedId", Annotated[int, Field(gt=0)])  # type: ignore[valid-newtype]


@pytest.mark.parametrize(
    ("tp", "good", "bad"),
    [
        (Checked, '{"n": 1}', '{"n": 0}'),
        (list[Checked], '[{"n": 1}]', '[{"n": 0}]'),
        (Holder, '{"models": [{"kind": "cat", "lives": 1}]}', '{"models": [{}]}'),
        (Held, '{"n": 1}', '{"n": 0}'),
        (CheckedId, "1", "0"),
        (pydantic.PositiveInt, "1", "0"),
    ],
    ids=str,
)
def test_pydantic_where_it_hides(tp: Any, good: str, bad: str) -> None:
    codec_of(tp).decode(good)
    with pytest.raises(ValueMismatchError) as caught:
        codec_of(tp).decode(bad)
    assert isinstance(caught.value.__cause__, pydantic.ValidationError)


# Texts that do not fit


class Picky(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        if self.n == 0:
            raise ValueError("zero - at `$.nowhere`")
        if self.n == 1:
            raise LookupError("a bug")


class Zoo(BaseModel):
    animals: list[P.Cat | P.Dog] = []
    sizes: list[int] = []
    pair: tuple[int, str] = (1, "")
    json_text: pydantic.Json[list[int]] = []


DEEP: Final = '{"value": 1, "left": ' * 100_000

ERRORS: Final[list[tuple[Any, str, str, str]]] = [
    (Person, "", "$", "Input data was truncated"),
    (Person, "{", "$", "Input data was truncated"),
    (Person, "nonsense", "$", "JSON is malformed: invalid character"),
    (int, "1 2", "$", "JSON is malformed: trailing characters"),
    (int, '"1"', "$", "Expected `int`, got `str`"),
    (list[Person], '[{"name": 1}]', "$[0].name", "Expected `str`, got `int`"),
    (list[Person], '[{"name": ""}]', "$[0]", "Object missing required field `home`"),
    (Person, '{"home": {"street": ""}}', "$.home.street", "Expected `str` of length >= 1"),
    (list[Cat | Dog], '[{"kind": "cow"}]', "$[0].kind", "Invalid value 'cow'"),
    (Colour, '"pink"', "$", "Invalid enum value 'pink'"),
    (list[Picky], '[{"n": 0}]', "$[0]", "zero - at `$.nowhere`"),
    (Tree, DEEP, "$", "JSON is nested too deeply"),
    (Zoo, "", "$", "Invalid JSON: EOF while parsing a value"),
    (Zoo, "{} x", "$", "Invalid JSON: trailing characters"),
    (Zoo, "[" * 100_000, "$", "Invalid JSON: recursion limit exceeded"),
    (P.Address, "{}", "$.street", "Field required"),
    (list[P.Address], '[{"street": "s"}, {}]', "$[1].street", "Field required"),
    (
        Zoo,
        '{"sizes": [1, "x", "y"]}',
        "$.sizes[1]",
        "Input should be a valid integer, unable to parse string as an integer (and 1 more)",
    ),
    (
        Zoo,
        '{"animals": [{"kind": "cat", "lives": []}]}',
        "$.animals[0].lives",
        "Input should be a valid integer (and 2 more)",
    ),
    (Zoo, '{"pair": [1]}', "$.pair[1]", "Field required"),
    (Zoo, '{"json_text": "[1, []]"}', "$.json_text", "Input should be a valid integer"),
]


@pytest.mark.parametrize(
    ("tp", "text", "path", "reason"), ERRORS, ids=[f"{type_name(e[0])} {e[1][:30]}" for e in ERRORS]
)
def test_errors(tp: Any, text: str, path: str, reason: str) -> None:
    with pytest.raises(ValueMismatchError) as caught:
        codec_of(tp).decode(text)
    error = caught.value
    assert (error.text, error.path) == (text, path)
    assert error.reason.startswith(reason)  # the libraries count bytes in their own ways
    assert isinstance(error, WriterError)
    assert error.__cause__ is not None
    message = str(error)
    assert message.startswith(f"the text does not fit {type_name(tp)}: {error.reason}, at {path}; ")
    assert text[:300] in message
    assert len(message) < 1000
    assert copy.copy(error).path == path


def test_what_msgspec_quotes_is_shortened_too() -> None:
    text = json.dumps("x" * 100_000)
    with pytest.raises(ValueMismatchError) as caught:
        codec_of(Colour).decode(text)
    assert len(caught.value.reason) > 100_000
    assert len(str(caught.value)) < 1000


def test_a_bug_in_the_callers_class_comes_out() -> None:
    with pytest.raises(LookupError, match="a bug"):
        codec_of(Picky).decode('{"n": 1}')


# Types that are refused


class Extra(msgspec.Struct):
    extra: dict[str, int]


class Outer(msgspec.Struct):
    address: Extra


class Mixed(msgspec.Struct):
    models: list[P.Cat]


class Anything(BaseModel):
    x: Any


class Allowing(BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")


class Mapped(BaseModel):
    by_name: list[dict[str, int]]


class Lost(msgspec.Struct):
    x: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


class MixedEnum(enum.Enum):
    A = 1
    B = "b"


class Foreign:
    pass


@pytest.mark.parametrize(
    ("tp", "message"),
    [
        (Outer, "Outer.address.extra: a strict schema has no objects with arbitrary keys"),
        (list[Outer], "list[Outer][].address.extra: a strict schema has no objects"),
        (dict, "dict: a strict schema has no objects with arbitrary keys"),
        (Mapping[str, int], "Mapping[str, int]: a strict schema has no objects"),
        (tuple[int, Any], "tuple[int, Any][1]: any value may stand here"),
        (Any, "Any: any value may stand here"),
        (msgspec.Raw, "Raw: any value may stand here"),
        (list, "list[]: any value may stand here"),
        (Box, "Box.item: any value may stand here"),
        (object, "object: neither msgspec nor pydantic reads JSON as object here"),
        (Box[list[Foreign]], "Box[list[Foreign]].item[]: neither msgspec nor pydantic reads"),
        (msgspec.msgpack.Ext, "Ext: neither msgspec nor pydantic reads JSON as ExtType here"),
        (Mixed, "Mixed.models[]: neither msgspec nor pydantic reads JSON as Cat here"),
        (Anything, "Anything.x: any value may stand here"),
        (Allowing, "Allowing: a strict schema has no objects with arbitrary keys"),
        (list[Mapped], "list[Mapped][].by_name[]: a strict schema has no objects"),
    ],
    ids=str,
)
def test_refused_by_the_name_of_the_field(tp: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        codec_of(tp)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("tp", "message"),
    [
        (Pair | Size, "Pair | Size: msgspec cannot read JSON as this: Type unions may not"),
        (Lost, "Lost: msgspec cannot read JSON as this: name 'Nowhere' is not defined"),
        (list["Nowhere"], "list[Nowhere]: msgspec cannot read JSON as this: "),  # noqa: F821
        (MixedEnum, "MixedEnum: msgspec cannot read JSON as this: Enums must contain"),
        (list[P.Cat | Cat], "list[Cat | Cat]: pydantic cannot read JSON as this: "),
        (Annotated[Callable[[], int], Field()], "Callable[[], int]: pydantic cannot read JSON"),
    ],
    ids=str,
)
def test_refused_with_the_librarys_own_reason(tp: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        codec_of(tp)
    assert str(caught.value).startswith(message)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Size(1), "Size(width=1, height=1) is a value (Size)"),
        (P.Cat(kind="cat", lives=9), "Cat(kind='cat', lives=9) is a value (Cat)"),
        (7, "7 is a value (int)"),
        ("Person", "'Person' is a value (str)"),
        ([Person], f"[{Person!r}] is a value (list)"),
        ({"type": Person}, f"{{'type': {Person!r}}} is a value (dict)"),
        (len, "<built-in function len> is a value (builtin_function_or_method)"),
    ],
    ids=str,
)
def test_a_value_is_not_taken_for_a_type(value: object, shown: str) -> None:
    with pytest.raises(TypeError) as caught:
        codec_of(value)
    assert str(caught.value) == f"{shown}, not a type; pass a class itself, or list[...] of one"


def test_what_a_library_says_is_one_line_and_its_types_are_advised() -> None:
    with pytest.raises(TypeError) as msgspecs:
        codec_of(Lost)
    with pytest.raises(TypeError) as pydantics:
        codec_of(list[P.Cat | Cat])
    assert "'Nowhere' is not defined. Use a msgspec.Struct, " in str(msgspecs.value)
    assert ". Use pydantic's types alone, which cannot hold structs" in str(pydantics.value)
    for error in (msgspecs.value, pydantics.value):
        assert "\n" not in str(error)


# The cache


def test_made_once() -> None:
    assert codec_of(list[Person]) is codec_of(list[Person])
    assert repr(codec_of(list[Person])) == "Codec(list[Person])"
    assert codec_of(list[Person]).type == list[Person]


def test_the_cache_is_bounded() -> None:
    first = codec_of(Literal["first"])
    assert codec_of(Literal["first"]) is first
    for number in range(CACHED_TYPES):
        codec_of(Literal[number])
    assert codec_of(Literal["first"]) is not first


@pytest.mark.parametrize("wrap", [lambda tp: tp, lambda tp: list[tp], lambda tp: tp | None])
def test_types_that_are_nearly_equal(wrap: Callable[[Any], Any]) -> None:
    one, true = codec_of(wrap(Literal[1])), codec_of(wrap(Literal[True]))
    assert json.dumps(one.schema) == json.dumps(true.schema).replace("true", "1").replace(
        "boolean", "integer"
    )
    assert one.schema != true.schema
    assert codec_of(int | str).schema["anyOf"][0] == {"type": "integer"}
    assert codec_of(str | int).schema["anyOf"][0] == {"type": "string"}


def test_what_cannot_be_hashed_is_made_each_time() -> None:
    tp = Annotated[int, {"not": "hashable"}]
    assert codec_of(tp) is not codec_of(tp)
    assert codec_of(tp).decode("1") == 1


def test_a_failure_is_not_kept() -> None:
    class Later(msgspec.Struct):
        x: "Late"  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError):
        codec_of(Later)
    globals()["Late"] = int
    try:
        assert codec_of(Later).decode('{"x": 1}').x == 1
    finally:
        del globals()["Late"]


@pytest.mark.parametrize(
    ("tp", "name"),
    [
        (Person, "Person"),
        (None, "None"),
        (list[Person], "list[Person]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Optional[int], "int | None"),  # noqa: UP045
        (int | None, "int | None"),
        (Literal["a", 1], "Literal['a', 1]"),
        (Annotated[Box[int], Meta(title="t")], "Box[int]"),
        (UserId, "UserId"),
    ],
    ids=str,
)
def test_names(tp: Any, name: str) -> None:
    assert type_name(tp) == name
    assert Codec[Any](tp).name == name
