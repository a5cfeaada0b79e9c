"""A type as the format of an answer: what is sent, and what comes back."""

import enum
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypeVar

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_writer.errors import ValueMismatchError
from anyio_writer.protocol.values import ValueReader
from anyio_writer.structured.response_format import ResponseType, response_type_of
from anyio_writer.structured.schemas import CACHED_TYPES, codec_of
from tests.structured.structured_types import TYPES, Typed, check_strict, fits

T = TypeVar("T")


class Person(msgspec.Struct):
    name: str
    age: int = 0


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


class Point(NamedTuple):
    x: int
    y: int


class Row(msgspec.Struct, array_like=True):
    a: int
    b: str


class Colour(enum.Enum):
    RED = "red"


class Box(msgspec.Struct, Generic[T]):
    item: T


@dataclass
class Pair:
    left: int
    right: int


class Model(pydantic.BaseModel):
    name: str


Number = NewType("Number", int)


def test_an_object_is_sent_as_it_is() -> None:
    person = response_type_of(Person)
    assert person.type is Person
    assert person.param == {
        "type": "json_schema",
        "json_schema": {
            "name": "Person",
            "strict": True,
            "schema": {
                "title": "Person",
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "age": {"type": "integer", "default": 0},
                },
                "required": ["name", "age"],
                "additionalProperties": False,
            },
        },
    }
    assert person.decode('{"name": "Ada", "age": 36}') == Person("Ada", 36)


def test_what_is_no_object_travels_in_one() -> None:
    people = response_type_of(list[Person])
    items = {"$ref": "#/$defs/Person"}
    assert people.param["json_schema"]["schema"] == {
        "type": "object",
        "properties": {"value": {"type": "array", "items": items}},
        "required": ["value"],
        "additionalProperties": False,
        "$defs": {"Person": response_type_of(Person).param["json_schema"]["schema"]},
    }
    assert people.decode('{"value": [{"name": "Ada"}]}') == [Person("Ada")]


WRAPPED: dict[Any, tuple[Any, str]] = {
    list[int]: ([1, 2], "[1, 2]"),
    str: ("é\n", '"é\\n"'),
    int: (-1, "-1"),
    bool: (True, "true"),
    None: (None, "null"),
    Number: (1, "1"),
    Colour: (Colour.RED, '"red"'),
    Literal["a", 1]: ("a", '"a"'),
    Point: (Point(1, 2), "[1, 2]"),
    tuple[int, str]: ((1, "a"), '[1, "a"]'),
    Row: (Row(1, "a"), '[1, "a"]'),
    Person | None: (Person("Ada", 36), '{"name": "Ada", "age": 36}'),
    Cat | Dog: (Dog("Rex"), '{"type": "Dog", "name": "Rex"}'),
    int | None: (None, "null"),
    Model | None: (Model(name="Ada"), '{"name": "Ada"}'),
    list[Model]: ([Model(name="Ada")], '[{"name": "Ada"}]'),
    pydantic.RootModel[list[int]]: (pydantic.RootModel[list[int]]([1]), "[1]"),
}


@pytest.mark.parametrize("tp", WRAPPED, ids=str)
def test_wrapped_and_unwrapped(tp: Any) -> None:
    value, inner = WRAPPED[tp]
    response_type = response_type_of(tp)
    schema = response_type.param["json_schema"]["schema"]
    check_strict(schema)
    assert schema["type"] == "object"
    assert schema["required"] == ["value"]
    assert response_type.decode(f' {{"value": {inner} }} ') == value
    assert fits(json.loads(f'{{"value": {inner}}}'), schema)


@pytest.mark.parametrize("tp", [Person, Box[int], Pair, Model, Annotated[Person, "note"]], ids=str)
def test_not_wrapped(tp: Any) -> None:
    schema = response_type_of(tp).param["json_schema"]["schema"]
    check_strict(schema)
    assert schema == codec_of(tp).schema


def test_what_nobody_but_the_caller_knows_of_errors() -> None:
    """The path is one in the caller's value, not in the object around it."""
    with pytest.raises(ValueMismatchError) as caught:
        response_type_of(list[Person]).decode('{"value": [{"name": "Ada"}, {"name": 1}]}')
    assert caught.value.path == "$[1].name"
    assert caught.value.reason == "Expected `str`, got `int`"
    assert json.loads(caught.value.text)[1]["name"] == 1
    assert str(caught.value).startswith("the text does not fit list[Person]: Expected `str`")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Input data was truncated"),
        ("[1]", "Expected `object`, got `array`"),
        ("{}", "Object missing required field `value`"),
        ('{"value": [1]', "Input data was truncated"),
        ('{"value": [1]} x', "JSON is malformed: trailing characters (byte 16)"),
        ('{"value": ' + "[" * 100_000, "JSON is nested too deeply"),
    ],
    ids=["empty", "bare", "another", "cut off", "garbage", "deep"],
)
def test_no_object_around_the_value(text: str, reason: str) -> None:
    with pytest.raises(ValueMismatchError) as caught:
        response_type_of(list[int]).decode(text)
    error = caught.value
    assert (error.text, error.path, error.reason) == (text, "$", reason)
    assert str(error).startswith('the text does not fit {"value": list[int]}: ')
    assert len(str(error)) < 1000
    assert error.__cause__ is not None


@pytest.mark.parametrize(
    ("tp", "text", "value"),
    [
        (Person, "", None),
        (Person, '{"name": "Ada", "a', {"name": "Ada"}),
        (list[int], "", None),
        (list[int], "{", None),
        (list[int], '{"value": ', None),
        (list[int], '{"value": [1, 2, ', [1, 2]),
        (list[int], "[1, 2, ", None),
        (list[int], "nonsense", None),
        (int | None, '{"value": null}', None),
    ],
)
def test_partial(tp: Any, text: str, value: Any) -> None:
    assert response_type_of(tp).partial(text) == value


@pytest.mark.parametrize(
    ("tp", "name"),
    [
        (Person, "Person"),
        (Annotated[Person, msgspec.Meta(description="d")], "Person"),
        (Box[int], "Box_int"),
        (list[Person], "list_Person"),
        (tuple[int, ...], "tuple_int"),
        (int | None, "int_None"),
        (Literal["a b"], "Literal_a_b"),
        (None, "None"),
        (Number, "Number"),
        (msgspec.defstruct("Größe", []), "Gr_e"),
        (msgspec.defstruct("大", []), "answer"),
        (msgspec.defstruct("A" * 100, []), "A" * 64),
        (msgspec.defstruct("A" * 63 + "é" * 9 + "A", []), "A" * 63),
        (Model, "Model"),
        (pydantic.create_model("Box[int]", x=(int, ...)), "Box_int"),
    ],
    ids=str,
)
def test_names(tp: Any, name: str) -> None:
    assert response_type_of(tp).param["json_schema"]["name"] == name


def test_refused_by_the_name_of_the_field() -> None:
    class Bad(msgspec.Struct):
        extra: dict[str, int]

    with pytest.raises(TypeError, match=r"^list\[Bad\]\[\]\.extra: "):
        response_type_of(list[Bad])


def test_made_once() -> None:
    assert response_type_of(list[Person]) is response_type_of(list[Person])
    assert repr(response_type_of(list[Person])) == "ResponseType(list[Person])"


def test_types_that_are_equal_and_spelt_otherwise_are_told_apart() -> None:
    one, other = response_type_of(int | str), response_type_of(str | int)
    assert one.param != other.param  # in the order of the branches


def test_the_cache_is_bounded() -> None:
    first = response_type_of(Literal["first"])
    for number in range(CACHED_TYPES):
        response_type_of(Literal[number])
    assert response_type_of(Literal["first"]) is not first


def test_what_cannot_be_hashed() -> None:
    tp = Annotated[int, {"not": "hashable"}]
    assert response_type_of(tp) is not response_type_of(tp)
    assert response_type_of(tp).decode('{"value": 1}') == 1


def test_a_reader_of_values() -> None:
    reader: ValueReader[Person] = ResponseType[Person](Person)
    assert reader.decode('{"name": "Ada"}').name == "Ada"


@given(TYPES, st.data())
def test_what_fits_the_type_comes_back(typed: Typed, data: st.DataObject) -> None:
    tp, values = typed
    response_type = response_type_of(tp)
    schema = response_type.param["json_schema"]["schema"]
    check_strict(schema)
    value = data.draw(values)
    plain = json.loads(msgspec.json.encode(value))
    sent = plain if codec_of(tp).schema.get("type") == "object" else {"value": plain}
    text = json.dumps(sent)
    assert fits(sent, schema)
    back = response_type.decode(text)
    assert back == value
    assert type(back) is type(value)
    assert response_type.partial(text) == plain


@given(
    TYPES,
    st.text()
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.just("value"), inner),
    ).map(json.dumps),
)
def test_another_text_is_a_value_or_a_mismatch(typed: Typed, text: str) -> None:
    response_type = response_type_of(typed[0])
    try:
        response_type.decode(text)
    except ValueMismatchError as error:
        assert error.path.startswith("$")
        assert error.reason
    response_type.partial(text)


def test_pydantic_is_not_imported_without_need() -> None:
    program = """
import sys, msgspec
from anyio_writer.structured.response_format import response_type_of
class Person(msgspec.Struct):
    name: str
person = response_type_of(list[Person])
assert person.decode('{"value": [{"name": "Ada"}]}') == [Person("Ada")]
assert not [name for name in sys.modules if name.partition(".")[0] == "pydantic"]
"""
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
