"""What models write in place of the JSON that the schema asks for, and is read all the same."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anyio_writer import ValueMismatchError, function_tool, response_type_of
from anyio_writer.structured.reading import unwrapped


class Item(msgspec.Struct):
    n: int
    unit: str = "C"
    note: str | None = "none"


class Numbers(msgspec.Struct):
    whole: int
    share: float = 0.5
    either: int | float = 1
    small: Annotated[int, msgspec.Meta(le=10)] = 1
    items: list[Item] = []


class Model(pydantic.BaseModel):
    n: int
    unit: str = "C"
    items: list[Item2] = []


class Item2(pydantic.BaseModel):
    n: int
    unit: str = "C"


Model.model_rebuild()


@dataclasses.dataclass
class Point:
    x: int
    y: int = 7


@function_tool
def count(n: int, unit: str = "C", note: str | None = "x", item: Item | None = None) -> int:
    """Count."""
    return n


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3.0", 3),
        ("-3.0", -3),
        ("3e0", 3),
        ("1.5E1", 15),
        ("9007199254740993.0", 9007199254740993),  # more digits than a float has
        ("1e20", 10**20),
    ],
)
def test_a_whole_number_may_be_written_as_a_float(text: str, expected: int) -> None:
    numbers = response_type_of(Numbers).decode(f'{{"whole": {text}, "share": 3.0}}')
    assert numbers.whole == expected
    assert type(numbers.whole) is int
    assert type(numbers.share) is float
    assert response_type_of(int).decode(f'{{"value": {text}}}') == expected
    assert response_type_of(list[int]).decode(f'{{"value": [1, {text}]}}') == [1, expected]


@pytest.mark.parametrize(
    "text",
    [
        *("3.5", "1e-1", '"3"', "1e400", "true", "3.0.0"),
        "9007199254740993.5",  # which is whole as a float
        "1e-99999999999999999999",  # and this is zero, but no Decimal
    ],
)
def test_what_is_no_whole_number_is_not_read_as_one(text: str) -> None:
    with pytest.raises(ValueMismatchError):
        response_type_of(Numbers).decode(f'{{"whole": {text}}}')


def test_bounds_hold_for_whole_numbers_written_as_floats() -> None:
    assert response_type_of(Numbers).decode('{"whole": 1, "small": 10.0}').small == 10
    with pytest.raises(ValueMismatchError, match="<= 10"):
        response_type_of(Numbers).decode('{"whole": 1, "small": 11.0}')


def test_a_number_out_of_range_does_not_become_another_value() -> None:
    with pytest.raises(ValueMismatchError):
        response_type_of(Numbers).decode('{"whole": 3.0, "share": 1e400}')


def test_other_numbers_in_the_text_keep_their_digits() -> None:
    class Price(msgspec.Struct):
        amount: Decimal
        factor: float
        pieces: int = 1

    price = response_type_of(Price).decode(
        '{"amount": 12345678901234567890.0123456789, "factor": 1e-400, "pieces": 2.0}'
    )
    assert price == Price(Decimal("12345678901234567890.0123456789"), 0.0, 2)
    text = '{"amount": 1, "factor": 0e99999999999999999999, "pieces": null}'
    assert response_type_of(Price).decode(text) == Price(Decimal(1), 0.0)


def test_null_for_a_field_with_a_default_is_the_default() -> None:
    text = '{"whole": 1, "share": null, "items": [{"n": 1, "unit": null}, {"n": 2.0, "unit": "F"}]}'
    numbers = response_type_of(Numbers).decode(text)
    assert numbers == Numbers(1, items=[Item(1), Item(2, "F")])
    many = [{"n": 1, "unit": None, "note": None}] * 1000
    text = json.dumps({"whole": 1, "items": many})
    assert response_type_of(Numbers).decode(text).items == [Item(1, note=None)] * 1000
    assert response_type_of(Point).decode('{"x": 1, "y": null}') == Point(1)


def test_null_where_the_type_allows_it_stays_null() -> None:
    assert response_type_of(Item).decode('{"n": 1, "unit": null, "note": null}').note is None


class Shape(msgspec.Struct, tag=True):
    label: str = "shape"


class Photo(msgspec.Struct, tag=True):
    label: str | None


class Sound(msgspec.Struct, tag=True):
    label: str | None = "sound"


def test_null_for_a_default_says_nothing_of_other_types_in_the_list() -> None:
    names = ["Shape", "Photo", "Sound", "Shape"]
    text = json.dumps({"value": [{"type": name, "label": None} for name in names]})
    expected = [Shape(), Photo(None), Sound(None), Shape()]
    assert response_type_of(list[Shape | Photo | Sound]).decode(text) == expected
    assert response_type_of(tuple[Shape, Photo, Sound, Shape]).decode(text) == tuple(expected)


@pytest.mark.parametrize("text", ['{"n": null}', '{"n": 1, "unit": 5}', "null", "[null]"])
def test_null_without_a_default_and_other_types_are_errors(text: str) -> None:
    with pytest.raises(ValueMismatchError) as caught:
        response_type_of(Item).decode(text)
    assert caught.value.text == text


def test_the_error_is_that_of_the_text_as_it_was_written() -> None:
    with pytest.raises(ValueMismatchError, match=r"Expected `int`, got `float`, at \$.n"):
        response_type_of(Item).decode('{"n": 3.5, "unit": null}')


def test_arguments_of_tools() -> None:
    for text in ('{"n": 3.0, "unit": null, "item": {"n": 2.0, "unit": null}}',):
        args, kwargs = count.bind(count.decode(text))
        assert (args, kwargs) == ((), {"n": 3, "unit": "C", "note": "x", "item": Item(2)})
    assert count.bind(count.decode('{"n": 1, "note": null}'))[1]["note"] is None
    with pytest.raises(ValueMismatchError, match=r"at \$.n"):
        count.decode('{"n": null}')


def test_types_that_pydantic_reads() -> None:
    text = '{"n": 3.0, "unit": null, "items": [{"n": 1, "unit": null}, {"n": 2, "unit": null}]}'
    assert response_type_of(Model).decode(text) == Model(n=3, items=[Item2(n=1), Item2(n=2)])

    @function_tool
    def page(url: pydantic.HttpUrl, depth: int = 1) -> str:
        """Read."""
        return str(url)

    arguments: Any = page.decode('{"url": "https://example.org", "depth": null}')
    assert arguments.depth == 1
    with pytest.raises(ValueMismatchError, match=r"at \$.url"):
        page.decode('{"url": null, "depth": null}')


WRAPPED = [
    '```json\n{"n": 1}\n```',
    '```\n{"n": 1}\n```\n',
    '  ```JSON\r\n{"n": 1}\r\n```',
    '```{"n": 1}```',
    '<think>hm {"n": 2}</think>\n{"n": 1}',
    '<think>\n\n</think>\n\n{"n": 1}',
    '<thinking>hm</thinking>{"n": 1}',
    'hm, so\n</think>\n{"n": 1}',
    '<think>```json\n{"n": 2}\n```</think>\n```json\n{"n": 1}\n```',
]


@pytest.mark.parametrize("text", WRAPPED)
def test_a_fence_and_thoughts_around_the_json_are_left_out(text: str) -> None:
    response_type = response_type_of(Item)
    assert response_type.decode(text) == Item(1)
    assert response_type.partial(text) == {"n": 1}
    for end in range(len(text)):  # nothing in between contradicts the whole
        assert response_type.partial(text[:end]) in (None, {}, {"n": 1}), text[:end]


@pytest.mark.parametrize(
    "text",
    [
        'Here it is: ```json\n{"n": 1}\n```',
        '```json\n{"n": 1}\n```\nI hope this helps.',
        '```json\n{"n": 1}\n',
        '```json\n{"n": 1}\n```\n```json\n{"n": 2}\n```',
        'So: <think>hm</think>{"n": 1}',
        '<think>hm</think> Here: {"n": 1}',
        '<think>hm {"n": 1}',
        "``````",
        "```",
        "",
    ],
)
def test_other_text_around_the_json_is_an_error(text: str) -> None:
    with pytest.raises(ValueMismatchError):
        response_type_of(Item).decode(text)


def test_what_looks_like_a_fence_in_a_string_is_text() -> None:
    text = json.dumps({"n": 1, "unit": "```x```</think>"})
    assert response_type_of(Item).decode(text).unit == "```x```</think>"
    assert response_type_of(Item).decode(f"```json\n{text}\n```").unit == "```x```</think>"


@given(st.text(alphabet='`<think>/{}" \n1a:') | st.text())
def test_leaving_out_never_fails(text: str) -> None:
    for is_whole in (False, True):
        assert isinstance(unwrapped(text, is_whole=is_whole), str)


@example({"n": 5.91108262710635e16, "unit": ""})
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["n", "unit", "note"]), inner)
        ),
    )
)
def test_whatever_is_read_fits_the_type(value: Any) -> None:
    try:
        item = response_type_of(Item).decode(json.dumps(value))
    except ValueMismatchError:
        return
    assert type(item.n) is int
    assert item.n == Decimal(json.dumps(value["n"]))  # what stands in the text, above 2**53 too
    assert isinstance(item.unit, str)
