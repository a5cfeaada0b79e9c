"""A JSON schema becomes strict, or is refused by the name of the field."""

import copy
import json
from typing import Annotated, Any, Final, Literal, Optional

import pytest
from pydantic import BaseModel, Field, TypeAdapter
from writerai.lib._pydantic import to_strict_json_schema

from anyio_writer.structured.strict_schema import strict_schema
from tests.structured.structured_types import check_strict

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "number"}
LIST: Final[Schema] = {"type": "array", "items": NUMBER}
CLOSED: Final[Schema] = {
    "type": "object",
    "properties": {"a": TEXT},
    "required": ["a"],
    "additionalProperties": False,
}
OPEN: Final[Schema] = {"type": "object", "properties": {"a": TEXT}}

RULES: Final[dict[str, tuple[Schema, Schema]]] = {
    "an object is closed and wants all": (OPEN, CLOSED),
    "what was required before does not matter": ({**OPEN, "required": []}, CLOSED),
    "an object that is nullable as well": (
        {**OPEN, "type": ["object", "null"]},
        {**CLOSED, "type": ["object", "null"]},
    ),
    "an object without properties is empty": (
        {"type": "object"},
        {"type": "object", "additionalProperties": False},
    ),
    "in properties": (
        {"type": "object", "properties": {"x": OPEN}},
        {**CLOSED, "properties": {"x": CLOSED}, "required": ["x"]},
    ),
    "in items": ({"type": "array", "items": OPEN}, {"type": "array", "items": CLOSED}),
    "in prefixItems": (
        {"type": "array", "prefixItems": [TEXT, OPEN], "items": False},
        {"type": "array", "prefixItems": [TEXT, CLOSED], "items": False},
    ),
    "in anyOf": ({"anyOf": [TEXT, OPEN]}, {"anyOf": [TEXT, CLOSED]}),
    "in oneOf": ({"oneOf": [TEXT, OPEN]}, {"oneOf": [TEXT, CLOSED]}),
    "in allOf": ({"allOf": [OPEN, OPEN]}, {"allOf": [CLOSED, CLOSED]}),
    "a single allOf is the schema": (
        {"description": "d", "allOf": [TEXT]},
        TEXT | {"description": "d"},
    ),
    "a single allOf wins": (
        {"description": "outer", "allOf": [{"allOf": [TEXT | {"description": "inner"}]}]},
        TEXT | {"description": "inner"},
    ),
    "a default of null goes": (TEXT | {"default": None}, TEXT),
    "a default of infinity goes": (NUMBER | {"default": float("inf")}, NUMBER),
    "a default that holds no number goes": (LIST | {"default": [float("nan")]}, LIST),
    "another default stays": (TEXT | {"default": ""}, TEXT | {"default": ""}),
    "a root that is a reference": ({"$ref": "#/$defs/A", "$defs": {"A": OPEN}}, CLOSED),
    "a root that turns out to be a reference": (
        {"allOf": [{"$ref": "#/$defs/A", "default": None}], "$defs": {"A": OPEN}},
        CLOSED,
    ),
    "a root that is a reference to a reference": (
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": OPEN}},
        CLOSED,
    ),
    "a root that is a reference and more": (
        {"$ref": "#/$defs/A", "description": "d", "$defs": {"A": OPEN}},
        CLOSED | {"description": "d"},
    ),
    "nothing refers to it": (TEXT | {"$defs": {"A": OPEN}, "definitions": {"B": OPEN}}, TEXT),
    "in $defs": (
        {"type": "array", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": OPEN}},
        {"type": "array", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": CLOSED}},
    ),
    "in definitions": (
        {"anyOf": [{"$ref": "#/definitions/A"}], "definitions": {"A": OPEN}},
        {"anyOf": [{"$ref": "#/definitions/A"}], "definitions": {"A": CLOSED}},
    ),
    "a reference among others is inlined": (
        {"anyOf": [{"$ref": "#/$defs/A", "description": "d"}], "$defs": {"A": OPEN}},
        {"anyOf": [CLOSED | {"description": "d"}]},
    ),
    "what stands beside a reference wins": (
        {
            "anyOf": [{"$ref": "#/$defs/A", "description": "here"}],
            "$defs": {"A": TEXT | {"description": "there"}},
        },
        {"anyOf": [TEXT | {"description": "here"}]},
    ),
    "a reference with a default of null is alone": (
        {"anyOf": [{"$ref": "#/$defs/A", "default": None}], "$defs": {"A": TEXT}},
        {"anyOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": TEXT}},
    ),
    "a property may have any name": (
        {"type": "object", "properties": {"$ref": TEXT, "default": TEXT, "properties": OPEN}},
        {
            "type": "object",
            "properties": {"$ref": TEXT, "default": TEXT, "properties": CLOSED},
            "required": ["$ref", "default", "properties"],
            "additionalProperties": False,
        },
    ),
    "an empty tuple has no items": (
        {"type": "array", "minItems": 0, "maxItems": 0},
        {"type": "array", "minItems": 0, "maxItems": 0},
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules(rule: str) -> None:
    given, expected = RULES[rule]
    assert strict_schema(given) == expected


@pytest.mark.parametrize("rule", RULES)
def test_the_argument_is_left_alone(rule: str) -> None:
    given, _ = RULES[rule]
    before = copy.deepcopy(given)
    strict = strict_schema(given)
    assert given == before
    assert not _mutable_parts(given) & _mutable_parts(strict)


def _mutable_parts(value: Any) -> set[int]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = {id(value)} if isinstance(value, dict | list) else set()
    return own.union(*map(_mutable_parts, inner))


def test_plain_data_is_copied() -> None:
    given = TEXT | {"examples": [{"a": None}], "enum": ["a"]}
    strict = strict_schema(given)
    assert strict == given
    assert not _mutable_parts(given) & _mutable_parts(strict)


@pytest.mark.parametrize("rule", RULES)
def test_a_strict_schema_is_left_as_it_is(rule: str) -> None:
    strict = strict_schema(RULES[rule][0])
    assert strict_schema(strict) == strict


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({}, "T"),
        ({"description": "anything", "default": 1}, "T"),
        (True, "T"),
        ({"type": "object", "additionalProperties": True}, "T"),
        ({"type": "object", "additionalProperties": TEXT}, "T"),
        ({"type": "object", "patternProperties": {"^a": TEXT}}, "T"),
        ({"type": "array"}, "T"),
        ({"type": "array", "items": True}, "T[]"),
        ({"type": "array", "items": {}}, "T[]"),
        ({"type": "array", "prefixItems": [TEXT, {}]}, "T[1]"),
        ({"anyOf": [TEXT, {}]}, "T"),
        ({"oneOf": [{}]}, "T"),
        ({"allOf": [{}, {}]}, "T"),
        ({"allOf": [{}]}, "T"),
        ({"$ref": "#/$defs/B", "title": "x"}, "T"),
        ({"$ref": "#/$defs/B"}, "T"),
        ({"$ref": "http://example.com/"}, "T"),
        ({"$ref": "#"}, "T"),
    ],
    ids=str,
)
def test_refused(schema: Any, path: str) -> None:
    fields = {"type": "object", "properties": {"fine": TEXT, "wrong": schema}}
    if isinstance(schema, dict):
        with pytest.raises(TypeError, match=r"^T(\[.*\])?: \w"):
            strict_schema(schema, name="T")
    for given in (fields, {"$ref": "#/$defs/A", "$defs": {"A": fields}}):
        with pytest.raises(TypeError) as caught:
            strict_schema({"type": "array", "items": given} | _definitions(given), name="T")
        assert str(caught.value).startswith(f"T[].wrong{path.removeprefix('T')}: ")


def _definitions(schema: Schema) -> Schema:
    return {"$defs": schema.pop("$defs")} if "$defs" in schema else {}


def test_a_definition_of_nothing_but_itself() -> None:
    circle = {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}
    with pytest.raises(TypeError, match=r"^T: #/\$defs/A is defined as nothing but itself"):
        strict_schema({"$ref": "#/$defs/A", "$defs": circle}, name="T")


def test_a_definition_that_nothing_refers_to_may_be_anything() -> None:
    assert strict_schema(TEXT | {"$defs": {"A": {}}}) == TEXT


def test_a_described_reference_to_itself_ends() -> None:
    """To inline it would never end; the SDK's transform makes a dict that contains itself."""
    node = {
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/Node", "description": "the next one"}},
    }
    given = {"$ref": "#/$defs/Node", "$defs": {"Node": node}}
    strict = strict_schema(given)
    expected = {
        "type": "object",
        "properties": {
            "next": {"anyOf": [{"$ref": "#/$defs/Node"}], "description": "the next one"}
        },
        "required": ["next"],
        "additionalProperties": False,
    }
    assert strict == expected | {"$defs": {"Node": expected}}

    class Node(BaseModel):
        next: Optional["Node"] = Field(None, description="the next one")
        first: "Node" = Field(description="the first one")

    Node.model_rebuild(_types_namespace={"Node": Node})
    json.dumps(strict_schema(Node.model_json_schema()))
    with pytest.raises(ValueError, match="Circular reference"):
        json.dumps(to_strict_json_schema(Node))


def test_described_references_in_a_circle_end() -> None:
    def to(name: str) -> Schema:
        return {
            "type": "object",
            "properties": {"next": {"$ref": f"#/$defs/{name}", "description": f"to {name}"}},
        }

    strict = strict_schema(
        {"type": "array", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": to("B"), "B": to("A")}}
    )
    check_strict(strict)
    assert strict["$defs"].keys() == {"A"}
    inlined = strict["$defs"]["A"]["properties"]["next"]
    assert inlined["description"] == "to B"
    assert inlined["properties"]["next"] == {
        "anyOf": [{"$ref": "#/$defs/A"}],
        "description": "to A",
    }


# Against the official SDK


class Address(BaseModel):
    """Where somebody lives."""

    street: str
    number: int | None = None


class Person(BaseModel):
    name: str = Field(description="In full.", min_length=1)
    home: Address = Field(description="The first one.")
    others: list[Address] = []
    kind: Literal["a", "b"] = "a"


class Tree(BaseModel):
    value: int
    children: "list[Tree]" = []
    parent: Optional["Tree"] = None


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


@pytest.mark.parametrize(
    "tp", [Address, Person, Tree, list[Person], Person | Address | None, tuple[int, Cat]], ids=str
)
def test_like_the_sdk(tp: Any) -> None:
    sdk = to_strict_json_schema(TypeAdapter(tp))
    refs = json.dumps(sdk)
    # One difference: it keeps what nothing refers to any more.
    kept = {name: each for name, each in sdk.pop("$defs", {}).items() if f'/{name}"' in refs}
    assert strict_schema(TypeAdapter(tp).json_schema()) == sdk | ({"$defs": kept} if kept else {})


def test_unlike_the_sdk() -> None:
    """The SDK leaves oneOf as it is, so that its objects are open."""

    class Owner(BaseModel):
        pet: Annotated[Cat | Dog, Field(discriminator="kind")]

    check_strict(strict_schema(Owner.model_json_schema()))
    mapping = strict_schema(Owner.model_json_schema())["properties"]["pet"]["discriminator"]
    assert mapping["mapping"] == {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}

    class Pair(BaseModel):
        both: Annotated[tuple[int, str], Field(json_schema_extra={"prefixItems": [OPEN, TEXT]})]

    both = strict_schema(Pair.model_json_schema())["properties"]["both"]
    assert both["prefixItems"] == [CLOSED, TEXT]
    assert to_strict_json_schema(Pair)["properties"]["both"]["prefixItems"] == [OPEN, TEXT]
