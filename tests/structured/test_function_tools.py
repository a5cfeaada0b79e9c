"""Python functions as tools: what the model is told, and what it answers read back."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import json
import subprocess
import sys
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec
import pydantic
import pytest

from anyio_writer import InvalidParameterError, ValueMismatchError
from anyio_writer.protocol.values import ValueReader
from anyio_writer.request.tools import functions_by_name
from anyio_writer.structured.tools import FunctionTool, function_tool

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypeCheckers

Celsius = Annotated[float, msgspec.Meta(ge=-273.15, description="In °C.")]


class Unit(enum.StrEnum):
    C = "celsius"
    F = "fahrenheit"


class Place(msgspec.Struct):
    city: str
    country: str | None = None


@dataclasses.dataclass
class Span:
    days: int


def schema_of(tool: FunctionTool[..., Any]) -> dict[str, Any]:
    schema: dict[str, Any] = tool.to_param()["function"]["parameters"]
    return schema


def called(tool: FunctionTool[..., Any], arguments: str) -> Any:
    args, kwargs = tool.bind(tool.decode(arguments))
    return tool(*args, **kwargs)


# What the model is told.


def test_the_whole_of_a_tool() -> None:
    @function_tool
    def forecast(
        place: Place, unit: Literal["C", "F"], days: Annotated[int, msgspec.Meta(ge=1)]
    ) -> str:
        """How the weather will be.

        Not for the past.

        Args:
            place: Where.
            days: For how long,
                from today.

        Returns:
            A sentence.
        """
        return f"{place.city} {unit} {days}"

    param = forecast.to_param()
    parameters = param["function"].pop("parameters")
    assert param == {
        "type": "function",
        "function": {
            "name": "forecast",
            "description": "How the weather will be.\n\nNot for the past.",
        },
    }
    properties = parameters["properties"]
    assert list(properties) == parameters["required"] == ["place", "unit", "days"]
    assert parameters["additionalProperties"] is False
    assert properties["place"]["description"] == "Where."
    assert properties["unit"] == {"type": "string", "enum": ["C", "F"]}
    assert properties["days"] == {
        "type": "integer",
        "minimum": 1,
        "description": "For how long, from today.",
    }
    assert called(forecast, '{"place": {"city": "Rome"}, "unit": "C", "days": 2}') == "Rome C 2"


GOOGLE = """Find it.

    More words.

    Args:
        what (str): The thing,
            as text.
        where: The place.
    """
NUMPY = """Find it.

    More words.

    Parameters
    ----------
    what : str
        The thing,
        as text.
    where
        The place.

    Returns
    -------
    str
        Never mind.
    """
REST = """Find it.

    More words.

    :param what: The thing,
        as text.
    :param where: The place.
    :returns: Never mind.
    """


@pytest.mark.parametrize("docstring", [GOOGLE, NUMPY, REST])
def test_docstrings_describe_parameters(docstring: str) -> None:
    def find(what: str, where: str, why: str) -> None: ...

    find.__doc__ = docstring
    tool = function_tool(find)
    assert tool.description == "Find it.\n\nMore words."
    properties = schema_of(tool)["properties"]
    assert properties == {
        "what": {"type": "string", "description": "The thing, as text."},
        "where": {"type": "string", "description": "The place."},
        "why": {"type": "string"},
    }


def test_parameters_that_numpy_describes_together() -> None:
    @function_tool
    def add(x: int, y: int) -> None:
        """Add them.

        Parameters
        ----------
        x, y : int
            A term.
        """

    assert {each["description"] for each in schema_of(add)["properties"].values()} == {"A term."}
    assert len(schema_of(add)["properties"]) == 2


def test_a_docstring_that_begins_with_its_parameters() -> None:
    @function_tool(description="Find it.")
    def find(what: str) -> None:
        """
        Args:
            what: The thing.
        """

    assert schema_of(find)["properties"]["what"]["description"] == "The thing."
    assert function_tool(find).description == ""


def test_a_sentence_of_two_lines_is_one_paragraph() -> None:
    @function_tool
    def find(what: str) -> None:
        """Find it
        quickly.

        More words.

        Args:
            what: The thing.
        """

    assert find.description == "Find it\nquickly.\n\nMore words."


def test_an_annotation_describes_before_the_docstring() -> None:
    def heat(to: Celsius, start: Annotated[float, msgspec.Meta(lt=0)]) -> None:
        """Heat.

        Args:
            to: Not this.
            start: This.
        """

    properties = schema_of(function_tool(heat))["properties"]
    assert properties["to"] == {"type": "number", "minimum": -273.15, "description": "In °C."}
    assert properties["start"]["description"] == "This."
    assert properties["start"]["exclusiveMaximum"] == 0


@pytest.mark.parametrize(
    ("docstring", "description"),
    [
        (None, ""),
        ("", ""),
        ("Says: hello.", "Says: hello."),
        ("One.\n\n    Two: three.\n    Four.", "One.\n\nTwo: three.\nFour."),
        # No section that the parser knows: better too much than nothing.
        (":param", ":param"),
        ("Odd:\n\n    :  :", "Odd:\n\n:  :"),
    ],
)
def test_descriptions_of_all_sorts(docstring: str | None, description: str) -> None:
    def f() -> None: ...

    f.__doc__ = docstring
    tool = function_tool(f)
    assert tool.description == description
    assert tool.to_param()["function"].get("description", "") == description
    assert ("description" in tool.to_param()["function"]) == bool(description)


def test_options() -> None:
    @function_tool(name="look-up", description="Looks it up.", strict=True)
    def f(what: str) -> str:
        """Something else."""
        return what.upper()

    assert f("a") == "A"
    assert f.name == "look-up"
    function = f.to_param()["function"]
    assert (function["name"], function["description"]) == ("look-up", "Looks it up.")
    assert function["strict"] is True
    assert called(f, '{"what": "b"}') == "B"

    @function_tool()
    def g() -> None:
        """Kept."""

    assert g.description == "Kept."
    assert "strict" not in g.to_param()["function"]
    off = function_tool(f, description="", strict=False).to_param()["function"]
    assert off["strict"] is False
    assert off["name"] == "f"
    assert "description" not in off


def test_the_schema_is_made_once_and_cannot_be_changed_from_outside() -> None:
    @function_tool
    def f(a: int) -> None: ...

    first = f.to_param()
    first["function"]["parameters"]["properties"].clear()
    assert list(schema_of(f)["properties"]) == ["a"]


# Which functions.


def test_a_tool_is_still_the_function() -> None:
    @function_tool
    def add(a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    assert add(1) == 2
    assert add(1, b=2) == 3
    assert isinstance(add, FunctionTool)
    assert add.__name__ == "add"
    assert add.__doc__ == "Add."
    assert add.__module__ == __name__
    assert add.__qualname__.endswith("<locals>.add")
    assert [*inspect.signature(add).parameters] == ["a", "b"]
    assert repr(add) == "<FunctionTool add(a, b)>"
    reader: ValueReader[msgspec.Struct] = add
    assert reader.partial('{"a": 1, ') == {"a": 1}


class Shop:
    def __init__(self, stock: int) -> None:
        self.stock = stock

    def take(self, count: int) -> int:
        """Take some.

        Args:
            count: How many.
        """
        self.stock -= count
        return self.stock

    async def later(self, count: int) -> int:
        return self.take(count)

    @staticmethod
    def price(of: str) -> int:
        return len(of)

    @classmethod
    def named(cls, name: str) -> str:
        return cls.__name__ + name

    def missing(self) -> None: ...


class Calculator:
    """Never mind."""

    def __call__(self, a: int, /, *, b: int = 2) -> int:
        """Multiply."""
        return a * b


class AsyncCalculator:
    """Adds, in its time."""

    async def __call__(self, a: int) -> int:
        return a + 1


def test_methods() -> None:
    shop = Shop(5)
    take = function_tool(shop.take)
    assert (take.name, take.description, take.is_async) == ("take", "Take some.", False)
    assert called(take, '{"count": 2}') == shop.stock == 3
    assert schema_of(take)["properties"]["count"]["description"] == "How many."
    assert called(function_tool(Shop.price), '{"of": "abc"}') == 3
    assert called(function_tool(Shop.named), '{"name": "!"}') == "Shop!"


def test_objects_that_can_be_called() -> None:
    tool = function_tool(Calculator())
    assert (tool.name, tool.description, tool.is_async) == ("Calculator", "Multiply.", False)
    assert tool.__name__ == "Calculator"
    assert called(tool, '{"a": 3}') == 6
    slow = function_tool(AsyncCalculator())
    assert (slow.description, slow.is_async) == ("Adds, in its time.", True)


def test_partials_hide_what_they_fix() -> None:
    def search(index: object, text: str, limit: int = 10, *, exact: bool = False) -> Any:
        """Search."""
        return index, text, limit, exact

    index = object()
    tool = function_tool(functools.partial(search, index, exact=True))
    assert (tool.name, tool.description) == ("search", "Search.")
    assert list(schema_of(tool)["properties"]) == ["text", "limit"]
    assert called(tool, '{"text": "a"}') == (index, "a", 10, True)
    middle = function_tool(functools.partial(functools.partial(search, index=index), text="b"))
    assert list(schema_of(middle)["properties"]) == ["limit", "exact"]
    assert called(middle, '{"limit": 1}') == (index, "b", 1, False)
    of_object = function_tool(functools.partial(Calculator(), b=5))
    assert (of_object.name, called(of_object, '{"a": 2}')) == ("Calculator", 10)


async def test_what_has_to_be_awaited() -> None:
    @function_tool
    async def plain(a: int) -> int:
        return a

    shop = Shop(1)
    tools = [plain, function_tool(shop.later, name="x"), function_tool(AsyncCalculator())]
    tools.append(function_tool(functools.partial(shop.later, 1)))
    for tool in tools:
        assert tool.is_async
    assert await plain(1) == 1
    assert await called(tools[3], "{}") == 0


def test_wrapped_functions() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @function_tool
    @logged
    @functools.cache
    def twice(a: Unit) -> str:
        """Twice."""
        return a * 2

    assert (twice.name, twice.description) == ("twice", "Twice.")
    assert called(twice, '{"a": "celsius"}') == "celsiuscelsius"


def test_positional_only_parameters_and_defaults() -> None:
    @function_tool
    def f(a: int, b: int = 2, /, c: int = 3, *, d: int = 4) -> tuple[int, ...]:
        return a, b, c, d

    assert called(f, '{"a": 1}') == (1, 2, 3, 4)
    assert called(f, '{"d": 40, "b": 20, "a": 10}') == (10, 20, 3, 40)
    assert f.bind(f.decode('{"a": 1, "c": 0}')) == ((1, 2), {"c": 0, "d": 4})


def test_a_parameter_called_self() -> None:
    @function_tool
    def f(other: int, self: int = 1) -> int:
        return other - self

    assert called(f, '{"other": 5, "self": 2}') == 3
    assert f(other=5, self=2) == 3


# The arguments.


def test_the_type_of_the_arguments() -> None:
    @function_tool
    def f(place: Place, span: Span, unit: Unit = Unit.C) -> None: ...

    arguments = f.decode('{"span": {"days": 3}, "place": {"city": "Rome"}}')
    assert type(arguments) is f.arguments_type
    assert msgspec.structs.asdict(arguments) == {
        "place": Place("Rome"),
        "span": Span(3),
        "unit": Unit.C,
    }
    assert arguments == f.arguments_type(place=Place("Rome"), span=Span(3), unit=Unit.C)
    with pytest.raises(AttributeError, match="immutable"):
        arguments.unit = Unit.F  # type: ignore[attr-defined]
    assert f.arguments_type.__struct_defaults__ == (Unit.C,)
    assert repr(arguments).startswith("f(place=")


MISSING = object()


def test_defaults_are_the_functions_own() -> None:
    struct, span = Place("Rome"), Span(1)

    @function_tool
    def f(  # noqa: PLR0917
        a: list[int] = [1],  # noqa: B006
        b: Place = struct,
        c: int = MISSING,  # type: ignore[assignment]
        d: str | None = None,
        e: tuple[int, ...] = (1,),
        g: float = float("inf"),
        h: Span = span,
    ) -> Any:
        return a, b, c, d, e, g, h

    assert called(f, "{}") == ([1], struct, MISSING, None, (1,), float("inf"), span)
    a, b, *_, h = called(f, "{}")
    a.append(2)  # a call that changes its arguments
    b.city = "Oslo"
    h.days = 2
    assert called(f, "{}") == ([1], Place("Rome"), MISSING, None, (1,), float("inf"), Span(1))
    assert (struct.city, span.days) == ("Rome", 1)
    assert len(schema_of(f)["required"]) == 7  # a strict schema wants all, whatever is accepted
    json.dumps(f.to_param())


@pytest.mark.parametrize(
    "arguments",
    [
        '{"city": "Rome"}',
        ' \n{"city":"Rome"}\t',
        '"{\\"city\\": \\"Rome\\"}"',
        json.dumps(json.dumps(json.dumps({"city": "Rome"}))),
        ' "\\n{\\"city\\": \\"Rome\\"} " ',
        '{"city": "Rome", "more": [1]}',
    ],
)
def test_arguments_as_models_write_them(arguments: str) -> None:
    @function_tool
    def f(city: str) -> str:
        return city

    assert called(f, arguments) == "Rome"


@pytest.mark.parametrize("arguments", ["", "null", " ", "{}", " null\n", '""', '"{}"', '"null"'])
def test_no_arguments_as_models_write_them(arguments: str) -> None:
    @function_tool
    def f(a: int = 1) -> int:
        return a

    assert called(f, arguments) == 1
    assert called(function_tool(Shop(0).missing), arguments) is None


@pytest.mark.parametrize(
    ("arguments", "path", "reason"),
    [
        ("", "$", "missing required field `city`"),
        ("null", "$", "missing required field `city`"),
        ('"{}"', "$", "missing required field `city`"),
        ('{"city": 5}', "$.city", "Expected `str`, got `int`"),
        ('"{\\"city\\": 5}"', "$.city", "Expected `str`, got `int`"),
        ('{"city": "Rome", "place": {"city": []}}', "$.place.city", "Expected `str`, got `array`"),
        ("[]", "$", "Expected `object`, got `array`"),
        ("5", "$", "Expected `object`, got `int`"),
        ('{"city": "Ro', "$", "truncated"),
        ('"{\\"city\\": \\"Ro', "$", "truncated"),
        ('"Rome"', "$", "malformed"),
        ("{'city': 'Rome'}", "$", "malformed"),
        ("\ud800", "$", "malformed"),
        ('"\ud800', "$", "truncated"),
    ],
)
def test_arguments_that_do_not_fit(arguments: str, path: str, reason: str) -> None:
    @function_tool
    def f(city: str, place: Place | None = None) -> None: ...

    with pytest.raises(ValueMismatchError) as caught:
        f.decode(arguments)
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert "; call it again with arguments that fit, not with: " in str(caught.value)
    f.partial(arguments)


def test_partial_arguments() -> None:
    @function_tool
    def f(city: str, days: int) -> None: ...

    whole = {"city": 'Rome: "12', "days": 12}
    once = json.dumps(whole)
    for encoded in (once, json.dumps(once), json.dumps(json.dumps(once))):
        shown = [f.partial(encoded[:end]) for end in range(len(encoded) + 1)]
        assert shown[0] is None
        assert shown[-1] == whole
        steps = [value for value in shown if value is not None]
        assert all(isinstance(value, dict) for value in steps)
        cities = [value["city"] for value in steps if "city" in value]
        assert {*cities} == {'Rome: "12'[:end] for end in range(10)}
        assert cities == sorted(cities, key=len)
        assert {value.get("days") for value in steps} == {None, 12}
    for nothing in ("", "null", "[1", '"', '"Rome', '"[1', "12 ", "prose"):
        assert f.partial(nothing) is None


class Model(pydantic.BaseModel):
    a: int


MODEL = Model(a=0)


def test_parameters_of_pydantics_types() -> None:
    @function_tool
    def f(
        model: Model,
        models: list[Model] = [MODEL],  # noqa: B006
        count: Annotated[int, msgspec.Meta(ge=1)] = 1,
        size: Annotated[int, pydantic.Field(ge=0, description="How large.")] = 0,
    ) -> Any:
        """Do it.

        Args:
            model: The model.
            count: How many.
            size: Not this.
        """
        return model, models, count, size

    properties = schema_of(f)["properties"]
    assert list(properties) == schema_of(f)["required"] == ["model", "models", "count", "size"]
    assert properties["model"]["description"] == "The model."
    assert properties["count"]["description"] == "How many."
    assert properties["count"]["minimum"] == 1
    assert properties["size"]["description"] == "How large."
    arguments = f.decode('"{\\"model\\": {\\"a\\": 1}}"')
    assert type(arguments) is f.arguments_type
    assert called(f, '{"model": {"a": 1}}') == (Model(a=1), [Model(a=0)], 1, 0)
    assert f.partial('{"model": {"a": 1}') == {"model": {"a": 1}}
    for wrong, path in [
        ('{"model": {}}', "$.model.a"),
        ('{"model": {"a": 1}, "count": 0}', "$.count"),
        ('{"model": {"a": 1}, "size": -1}', "$.size"),
    ]:
        with pytest.raises(ValueMismatchError) as caught:
            f.decode(wrong)
        assert caught.value.path == path


# What cannot be a tool.


def unresolved(a: OnlyForTypeCheckers) -> None: ...
def unannotated(a, b: int) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
def variadic(*rest: int) -> None: ...
def keywords(**rest: int) -> None: ...
def anything(a: int, b: Any) -> None: ...
def mapping(a: dict[str, int]) -> None: ...
def foreign(a: Callable[[], None]) -> None: ...
def nonsense(a: nowhere.to.be) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def broken(a: 1 / 0) -> None: ...  # type: ignore[valid-type]
def underscored(__a: int) -> None: ...  # noqa: PYI063
def café(a: int) -> None: ...  # noqa: PLC2401


def no_type(a: int) -> None: ...


no_type.__annotations__["a"] = [int]  # as without the import from __future__


def generator(a: int) -> Iterator[int]:
    yield a


async def async_generator(a: int) -> AsyncIterator[int]:
    yield a


def of_both(a: Model, b: Place) -> None: ...


WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: function_tool(lambda: 1), r"^'<lambda>' cannot be the name of a tool.*name=\.\.\."),
    (lambda: function_tool(café), "^'café' cannot be the name of a tool"),
    (lambda: function_tool(Shop.price, name=5), "^5 cannot be the name of a tool"),
    (lambda: function_tool(Shop.price, strict="yes"), "^price: strict must be a bool, not 'yes'"),
    (lambda: function_tool(Shop.price, description=5), "^price: description must be a str, not 5"),
    (lambda: function_tool(Shop.price, name=""), "^'' cannot be the name of a tool"),
    (lambda: function_tool(Shop.price, name="a" * 65), "^'a+' cannot be the name of a tool"),
    (lambda: function_tool(Shop.price, name="a b"), "^'a b' cannot be the name of a tool"),
    (lambda: function_tool(Shop.price, name="a\n"), r"^'a\\n' cannot be the name of a tool"),
    (lambda: function_tool(lambda a: a, name="f"), r"^f\.a: .*; a lambda has none: .* with def$"),
    (
        lambda: function_tool(functools.partial(lambda a, b: a, 1), name="f"),
        r"^f\.b: .*; a lambda has none: .* with def$",
    ),
    (lambda: function_tool(5), "^5 is not a function; a tool is made of"),  # type: ignore[arg-type]
    (lambda: function_tool("f"), r"^'f' .*; use function_tool"),  # type: ignore[call-overload]
    (lambda: function_tool(Shop), "Shop'> is not a function; a tool is made of a function, a bou"),
    (lambda: function_tool(unannotated), r"^unannotated\.a: it has no annotation; write a: str"),
    (lambda: function_tool(Shop.take), r"^take\.self: .*; make a tool of the bound method"),
    (lambda: function_tool(variadic), r"^variadic\.rest: .* \*rest: 'int'; name each parameter"),
    (lambda: function_tool(keywords), r"^keywords\.rest: .* \*\*rest: 'int'; name each parameter"),
    (
        lambda: function_tool(underscored),
        r"^underscored\.__a: its name begins with .*; give it another$",
    ),
    (lambda: function_tool(no_type), r"^no_type\.a: its annotation \[<class 'int'>\] is not a"),
    (lambda: function_tool(generator), "^generator: .* generator; return a list$"),
    (lambda: function_tool(async_generator), "^async_generator: .* generator"),
    (lambda: function_tool(functools.partial(async_generator, 1)), "^async_generator: .* gener"),
    (lambda: function_tool(anything), r"^anything\.b: any value may stand here"),
    (lambda: function_tool(mapping), r"^mapping\.a: .*arbitrary keys"),
    (lambda: function_tool(foreign), r"^foreign\b.*Callable"),
    (lambda: function_tool(of_both), r"^of_both\b.*Place"),
    (lambda: function_tool(nonsense), r"^nonsense\.a: its annotation 'nowhere\.to\.be' cannot be"),
    (lambda: function_tool(broken), r"^broken\.a: .*division by zero"),
    (
        lambda: function_tool(unresolved),
        r"^unresolved\.a: its annotation 'OnlyForTypeCheckers' cannot be .* defined; it is needed",
    ),
    (lambda: function_tool(min), "^min: its parameters are .*: no signature .*; make the tool of"),
    (lambda: function_tool(anything, name="y"), r"^y\.b: "),
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_cannot_be_a_tool(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


def test_a_lambda_with_a_name() -> None:
    assert called(function_tool(lambda: 7, name="seven"), "") == 7


# Annotations that are text, as all are in this file.


def test_annotations_see_the_names_around_the_function() -> None:
    class Point(NamedTuple):
        x: int

    def inner() -> FunctionTool[..., Any]:
        Here = Point  # noqa: N806

        class Holder:
            Depth = int

            @function_tool
            @staticmethod
            def f(a: Here, b: list[Point], c: Depth) -> Nowhere:  # type: ignore  # noqa: F821, PGH003
                return a, b, c

        return Holder.f

    assert called(inner(), '{"a": [1], "b": [[2]], "c": 3}') == (Point(1), [Point(2)], 3)


def test_names_around_the_caller_do_not_count() -> None:
    """Only those around the function: the caller may use the same name for something else."""
    Unit = int  # noqa: F841, N806
    Place = str  # noqa: F841, N806
    tool = function_tool(at_module_level)
    assert schema_of(tool)["$defs"]["Unit"]["enum"] == ["celsius", "fahrenheit"]


def at_module_level(unit: Unit) -> None: ...


def test_the_type_of_the_result_need_not_be_known() -> None:
    @function_tool
    def f(a: int) -> OnlyForTypeCheckers: ...  # type: ignore[empty-body]

    with pytest.raises(NameError):
        typing.get_type_hints(f.__wrapped__)
    assert list(schema_of(f)["properties"]) == ["a"]


def test_what_making_no_tool_does_not_import() -> None:
    code = "import sys, anyio_writer.structured.tools; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "anyio_writer.structured.tools" in done.stdout.split()
    assert not {"docstring_parser", "pydantic"} & {*done.stdout.split()}


def shout(text: str) -> str:
    """Say it louder."""
    return text.upper()


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ([len], r"tools\[0\] is len itself. Make it a tool: function_tool\(len\)"),
        (["x"], r"tools\[0\] is not a function tool \(str\)"),
        (
            [{"type": "function", "function": {"name": "f"}}],
            r"tools\[0\] is not a function tool \(dict\)",
        ),
        (function_tool(shout), "Put it into a list"),
        (None, r"tools\[0\] is not a function tool \(NoneType\)"),
        ((function_tool(shout) for _ in range(2)), "several functions named 'shout'"),
    ],
)
def test_tools_that_are_to_be_run_are_functions(tools: Any, said: str) -> None:
    with pytest.raises(InvalidParameterError, match=said):
        functions_by_name(tools)
