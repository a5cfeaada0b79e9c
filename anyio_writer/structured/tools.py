"""A Python function as a tool of the model: its description, and the arguments of its calls."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import re
import typing
from collections.abc import Callable
from enum import Enum
from functools import partial, update_wrapper
from types import CodeType, SimpleNamespace
from typing import Annotated, Any, Final, Generic, ParamSpec, TypeVar, overload

import msgspec

from ..protocol.history import object_text
from ..protocol.json import is_object
from .arguments import ArgumentsBase, register_arguments
from .partial import partial_value
from .schemas import Codec

P = ParamSpec("P")
R = TypeVar("R")
# Not P and R: function_tool(name=...) itself is not called with a function.
DecoratedP = ParamSpec("DecoratedP")
DecoratedR = TypeVar("DecoratedR")

_NAME: Final = r"[a-zA-Z0-9_-]{1,64}"
_ADVICE: Final = "call it again with arguments that fit, not with"  # read by the model


class FunctionTool(Generic[P, R]):
    """A function that the model may call. Made by ``function_tool``. Call it like the function.

    Attributes:
        name: The name that the model sees.
        description: The description that the model sees; may be empty.
        arguments_type: A frozen struct with a field for each parameter.
        is_async: Whether a call returns an awaitable.
        strict: The value that is sent as ``strict``; None sends none.
    """

    __name__: str
    __wrapped__: Callable[P, R]

    def __init__(
        self,
        function: Callable[P, R],
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool | None = None,
    ) -> None:
        """Make a tool of a function; see ``function_tool``."""
        if isinstance(function, FunctionTool):  # the same function under another name
            function = function.__wrapped__
        plain, own_name, docstring = _behind(function)
        update_wrapper(self, plain, updated=())
        self.__name__ = own_name
        self.__wrapped__ = function
        self.name: Final = _checked_name(own_name if name is None else name)
        for option, value, kind in (("description", description, str), ("strict", strict, bool)):
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{self.name}: {option} must be a {kind.__name__}, not {value!r}")
        documented, about_parameters = _read_docstring(docstring)
        self.description: Final = documented if description is None else description
        self.strict: Final = strict
        self.is_async: Final = any(map(inspect.iscoroutinefunction, (function, plain)))
        if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
            raise TypeError(
                f"{self.name}: a tool returns one result, but this is a generator; return a list"
            )
        parameters = _parameters_of(function, self.name)
        self._by_position = [each.name for each in parameters if each.kind is each.POSITIONAL_ONLY]
        self._by_name = [each.name for each in parameters if each.kind is not each.POSITIONAL_ONLY]
        resolve = _Annotations(plain)
        self.arguments_type: Final[type[msgspec.Struct]] = msgspec.defstruct(
            re.sub(r"\W|^(?=\d)", "_", self.name),
            [
                _field(each, resolve(each, self.name), about_parameters.get(each.name))
                for each in parameters
            ],
            bases=(ArgumentsBase,),
            kw_only=True,
            frozen=True,
            module=self.__module__,
        )
        register_arguments(self.arguments_type, getattr(plain, "__qualname__", own_name))
        self._codec = _codec_of_arguments(self.arguments_type)

    # A function may have a parameter of its own that is called self.
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        return self.__wrapped__(*args, **kwargs)

    def __repr__(self) -> str:
        fields = ", ".join(self.arguments_type.__struct_fields__)
        return f"<{type(self).__name__} {self.name}({fields})>"

    def to_param(self) -> dict[str, Any]:
        """Return the tool in the API's own form, for ``tools``."""
        function: dict[str, Any] = {"name": self.name}
        if self.description:
            function["description"] = self.description
        function["parameters"] = copy.deepcopy(self._codec.schema)
        if self.strict is not None:
            function["strict"] = self.strict
        return {"type": "function", "function": function}

    def decode(self, text: str) -> msgspec.Struct:
        """Decode the arguments of a call, as an ``arguments_type``.

        An empty text or null means no arguments, and JSON inside a JSON string is accepted, because
        some models write that. Parameters that are left out get their defaults.

        Raises:
            ValueMismatchError: The arguments do not fit the parameters.
        """
        decoded = self._codec.decode(object_text(text))
        if isinstance(decoded, self.arguments_type):
            return decoded
        names = self.arguments_type.__struct_fields__
        return self.arguments_type(**{name: getattr(decoded, name) for name in names})

    def partial(self, text: str) -> Any:
        """Decode the part of incomplete arguments that is certain, as a dictionary.

        Returns None if nothing is certain yet. Never raises.
        """
        value = partial_value(text)
        while isinstance(value, str):  # JSON in a JSON string
            value = partial_value(value)
        return value if is_object(value) else None

    def bind(self, arguments: msgspec.Struct) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Turn decoded arguments into those of a call: ``args, kwargs = tool.bind(arguments)``."""
        return (
            tuple(getattr(arguments, name) for name in self._by_position),
            {name: getattr(arguments, name) for name in self._by_name},
        )


@overload
def function_tool(
    function: Callable[P, R],
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
) -> FunctionTool[P, R]: ...


@overload
def function_tool(
    *, name: str | None = None, description: str | None = None, strict: bool | None = None
) -> Callable[[Callable[DecoratedP, DecoratedR]], FunctionTool[DecoratedP, DecoratedR]]: ...


def function_tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
) -> Any:
    """Turn a function into a tool that the model may call.

    ::

        @function_tool
        async def temperature(city: str, unit: Literal["C", "F"] = "C") -> float:
            \"\"\"The temperature right now.\"\"\"

    The annotations become a strict JSON schema, so every parameter needs one. The docstring
    describes the function and its parameters, in the style of Google, numpy or reST. A description
    in ``Annotated[str, msgspec.Meta(description=...)]`` takes precedence.

    Args:
        function: Any function, method or object with ``__call__``, ``async`` or not, or a
            ``functools.partial`` of one. The model does not see the arguments that a ``partial``
            fixes.
        name: The name that the model sees; by default that of the function.
        description: The description that the model sees; by default the docstring without its
            sections.
        strict: The value to send as ``strict``. By default none is sent, because not every server
            knows it.

    Raises:
        TypeError: An option has the wrong type, or the function cannot be a tool: it has ``*args``
            or ``**kwargs``, a parameter without an annotation, or one whose annotation cannot be
            resolved or described in a strict schema; or it is a generator, or a lambda without
            ``name``. The message names the function and the parameter.
    """
    make: Any = partial(FunctionTool, name=name, description=description, strict=strict)
    return make if function is None else make(function)


def _behind(function: Any) -> tuple[Any, str, str]:
    """What carries a callable's code and annotations; its name, and its docstring."""
    while isinstance(function, partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if inspect.isclass(function) or not callable(function):
        advice = (
            "use function_tool(name=...) to set the name"
            if isinstance(function, str)
            else "a tool is made of a function, a bound method or an object with __call__"
        )
        raise TypeError(f"{function!r} is not a function; {advice}")
    if inspect.isroutine(function):
        return function, function.__name__, inspect.getdoc(function) or ""
    kind = type(function)
    return (
        kind.__call__,
        kind.__name__,
        inspect.cleandoc(kind.__call__.__doc__ or kind.__doc__ or ""),
    )


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        raise TypeError(
            f"{name!r} cannot be the name of a tool, which has up to 64 ASCII letters, digits, _ "
            "and -; set another with function_tool(..., name=...)"
        )
    return name


def _parameters_of(function: Callable[..., Any], tool: str) -> list[inspect.Parameter]:
    """The parameters that the model sets."""
    try:
        signature = inspect.signature(function)
    except ValueError as exc:
        raise TypeError(
            f"{tool}: its parameters are not known: {exc}; make the tool of a function around it"
        ) from exc
    fixed: set[str] = set()
    while isinstance(function, partial):
        fixed.update(function.keywords)
        function = function.func
    parameters = [each for each in signature.parameters.values() if each.name not in fixed]
    for each in parameters:
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            raise TypeError(
                f"{tool}.{each.name}: a strict schema cannot describe {each}; name each parameter"
            )
        if each.name.startswith("__"):  # msgspec cannot make a field of it
            raise TypeError(
                f"{tool}.{each.name}: its name begins with two underscores; give it another"
            )
        if each.annotation is each.empty:
            if each.name in ("self", "cls"):
                advice = "make a tool of the bound method"
            elif getattr(function, "__name__", None) == "<lambda>":
                advice = "a lambda has none: write it with def"
            else:
                advice = f"write {each.name}: str, or whatever type it has"
            raise TypeError(f"{tool}.{each.name}: it has no annotation; {advice}")
    return parameters


class _Annotations:
    """Resolves annotations that are text, by the names that the function can see."""

    def __init__(self, function: Any) -> None:
        function = inspect.unwrap(function)
        self._globals: dict[str, Any] = getattr(function, "__globals__", {})
        self._locals = _names_around(getattr(function, "__code__", None))

    def __call__(self, parameter: inspect.Parameter, tool: str) -> Any:
        # One by one, for errors that name the parameter; the result's type does not matter.
        annotated = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
        try:
            hints = typing.get_type_hints(
                annotated, self._globals, self._locals, include_extras=True
            )
        except Exception as exc:  # whatever evaluating it raises
            raise TypeError(
                f"{tool}.{parameter.name}: its annotation {parameter.annotation!r} cannot be "
                f"resolved where the tool is made: {exc}; it is needed there when the program runs"
            ) from exc
        tp = hints[parameter.name]
        if not hasattr(tp, "__module__"):  # [int], (int, str), 5
            raise TypeError(f"{tool}.{parameter.name}: its annotation {tp!r} is not a type")
        return tp


def _names_around(code: CodeType | None) -> dict[str, Any]:
    """The local names around a function that is being defined right now, the inner ones first.

    Annotations that are text may mean them, and Python keeps no other way to them.
    """
    names: dict[str, Any] = {}
    frame = inspect.currentframe() if code is not None else None
    while frame is not None:
        if code in frame.f_code.co_consts:
            names = {**frame.f_locals, **names}
            code = frame.f_code
        frame = frame.f_back
    return names


def _field(parameter: inspect.Parameter, tp: Any, description: str | None) -> tuple[str, Any, Any]:
    extras = tp.__metadata__ if typing.get_origin(tp) is Annotated else ()
    if description and not any(getattr(each, "description", None) for each in extras):
        tp = Annotated[tp, msgspec.Meta(description=description)]
    return parameter.name, tp, _default(parameter.default)


_CONTAINERS: Final = (list, dict, set, bytearray)
_MARKS_OF_DATA: Final = ("__struct_fields__", "__dataclass_fields__", "__pydantic_fields__")


def _default(value: Any) -> Any:
    if value is inspect.Parameter.empty:
        return msgspec.field()
    if value is None or isinstance(value, bool | int | float | str | Enum):
        return msgspec.field(default=value)
    if _is_data(value):
        # A call that changes its arguments must not change those of the next.
        return msgspec.field(default_factory=partial(copy.deepcopy, value))
    # The same object: it may be a sentinel, which is compared with `is`.
    return msgspec.field(default_factory=lambda: value)


def _is_data(value: object) -> bool:
    return isinstance(value, _CONTAINERS) or any(hasattr(value, mark) for mark in _MARKS_OF_DATA)


def _codec_of_arguments(arguments_type: type[msgspec.Struct]) -> Codec[Any]:
    with contextlib.suppress(TypeError):
        return Codec(arguments_type, advice=_ADVICE)
    # The reason may be pydantic's types, and pydantic reads no structs. Else this raises as well.
    return Codec(_as_dataclass(arguments_type), advice=_ADVICE)


_OF_META: Final = (
    *("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern"),
    *("title", "description", "examples"),
)


def _as_dataclass(struct: type[msgspec.Struct]) -> type:
    """The same fields as pydantic can read them, and what ``msgspec.Meta`` says about them."""
    fields: list[tuple[str, Any, Any]] = []
    for each in msgspec.structs.fields(struct):
        metas = each.type.__metadata__ if typing.get_origin(each.type) is Annotated else ()
        metadata = {
            name: value
            for meta in metas
            if isinstance(meta, msgspec.Meta)
            for name in _OF_META
            if (value := getattr(meta, name)) is not None
        }
        defaults = {
            name: value
            for name in ("default", "default_factory")
            if (value := getattr(each, name)) is not msgspec.NODEFAULT
        }
        fields.append((each.name, each.type, dataclasses.field(metadata=metadata, **defaults)))
    return dataclasses.make_dataclass(struct.__name__, fields, kw_only=True)


def _read_docstring(docstring: str) -> tuple[str, dict[str, str]]:
    """The description in a docstring, and those of the parameters by their names."""
    if not docstring:
        return "", {}
    import docstring_parser  # a thirtieth of the time to import everything else

    try:
        # The blank line keeps the indentation, which is taken away a second time, if the first line
        # is that of a section.
        parsed = docstring_parser.parse(f"\n{docstring}")
    except (docstring_parser.ParseError, LookupError):  # ":  :" is an IndexError
        return docstring, {}
    parts = filter(None, [parsed.short_description, parsed.long_description])
    between = "\n\n" if parsed.blank_after_short_description else "\n"
    return between.join(each.strip() for each in parts), {
        name.strip(): " ".join(each.description.split())
        for each in parsed.params
        if each.description
        for name in each.arg_name.split(",")  # numpy has "x, y : int"
    }
