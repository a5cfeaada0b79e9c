"""Reads the tools of a request: what is sent, and what runs in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from ..errors import InvalidParameterError
from ..structured.tools import FunctionTool
from . import params
from .checks import check_type
from .encoding import is_lazy, is_sequence, to_json_types


class Tools(NamedTuple):
    """The tools of a request.

    Attributes:
        params: All of them in the API's own form, in the order in which they were given.
        functions: Those of ``function_tool``, by name.
    """

    params: list[dict[str, Any]]
    functions: dict[str, FunctionTool[..., Any]]


# By the tool's type: the type of its function, and an example. Other types are sent as they are.
_FUNCTIONS: Final[dict[str, tuple[Any, str]]] = {
    "function": (
        params.FunctionDefinition,
        "{'name': 'f', 'description': '...', 'parameters': {...}}",
    ),
    "graph": (params.GraphFunction, "{'graph_ids': ['...'], 'subqueries': True}"),
    "llm": (params.LLMFunction, "{'description': '...', 'model': 'palmyra-x5'}"),
    "translation": (
        params.TranslationFunction,
        "{'model': '...', 'formality': False, 'length_control': False, 'mask_profanity': False}",
    ),
    "vision": (
        params.VisionFunction,
        "{'model': 'palmyra-vision', 'variables': [{'name': '...', 'file_id': '...'}]}",
    ),
    "web_search": (params.WebSearchFunction, "{'include_domains': ['...']}"),
}
_TOOL_LIST: Final = list[params.TypedObject] | None
_BUILT_IN: Final = _FUNCTIONS.keys() - {"function"}
# Other servers have tools of this type without a function.
_MAY_LACK_FUNCTION: Final = frozenset({"web_search"})


def read_tools(tools: Any) -> Tools:
    """Read a request's ``tools``. What this function returned before is returned as it is.

    Raises:
        InvalidParameterError: Something among them cannot be sent; the message says which.
    """
    if isinstance(tools, Tools):
        return tools
    if tools is None:
        return Tools([], {})
    if is_lazy(tools):
        tools = list(tools)
    _refuse_functions(tools)
    given = to_json_types(tools, "tools")
    check_type(given, _TOOL_LIST, "tools")
    read = Tools(
        params=given,
        functions={tool.name: tool for tool in tools if isinstance(tool, FunctionTool)},
    )
    _check_tools(read.params)
    return read


def functions_by_name(tools: Any) -> dict[str, FunctionTool[..., Any]]:
    """Read tools that must all come from ``function_tool``; returns them by name.

    Raises:
        InvalidParameterError: Something else is among them, or two have the same name.
    """
    tools = list(tools) if is_lazy(tools) else tools
    _refuse_functions(tools)
    found: dict[str, FunctionTool[..., Any]] = {}
    for position, tool in enumerate(tools if is_sequence(tools) else [tools]):
        if not isinstance(tool, FunctionTool):
            raise InvalidParameterError(
                f"tools[{position}] is not a function tool ({type(tool).__name__}). Only what "
                "function_tool makes can be run and read here."
            )
        if tool.name in found:
            raise _not_unique(tool.name)
        found[tool.name] = tool
    return found


def check_tool_choice(choice: Any, tools: Tools) -> None:
    """Check that a tool choice, in JSON types, names one of the tools.

    Raises:
        InvalidParameterError: It does not.
    """
    # The specification has a form with "value", which no example uses. It is sent as it is.
    if choice is None or (not isinstance(choice, str) and "value" in choice):
        return
    if not tools.params:
        raise InvalidParameterError(
            "tool_choice needs tools to choose from, and the request has none."
        )
    if isinstance(choice, str) or choice.get("type", "function") != "function":
        return
    check_type(choice, _NamedToolChoice, "tool_choice")
    name, names = choice["function"]["name"], _function_names(tools.params)
    if name not in names:
        among = f"they are {', '.join(map(repr, names))}" if names else "there are none"
        raise InvalidParameterError(
            f"tool_choice names {name!r}, which is not among the functions in tools; {among}."
        )


class _NamedToolChoice(params.TypedObject):
    function: params.NamedFunction


class _WithFunction(params.TypedObject):
    function: Mapping[str, Any]


def _refuse_functions(tools: Any) -> None:
    """Refuse plain functions: the caller needs the tool, too, so it cannot be made here."""
    is_list = is_sequence(tools)
    if isinstance(tools, FunctionTool):
        raise InvalidParameterError("tools is a single tool. Put it into a list: tools=[...].")
    for position, tool in enumerate(tools if is_list else [tools]):
        path = f"tools[{position}]" if is_list else "tools"
        if isinstance(tool, type):
            raise InvalidParameterError(
                f"{path} is the class {tool.__name__}. Tools are made of functions. The type "
                "that an answer is to have belongs in response_format."
            )
        if callable(tool) and not isinstance(tool, FunctionTool):
            own = getattr(tool, "__name__", "")  # none: a partial, or an object with __call__
            name = own or type(tool).__name__
            made = f"function_tool({own if own.isidentifier() else '...'})"
            raise InvalidParameterError(
                f"{path} is {name} itself. Make it a tool: {made if is_list else f'[{made}]'}."
            )


def _check_tools(tools: list[dict[str, Any]]) -> None:
    built_in = {tool["type"] for tool in tools} & _BUILT_IN
    if len(built_in) > 1:
        raise InvalidParameterError(
            f"tools has several kinds of built-in tools ({', '.join(sorted(built_in))}); the API "
            "takes one kind per request."
        )
    for position, tool in enumerate(tools):
        kind = tool["type"]
        if kind not in _FUNCTIONS or (kind in _MAY_LACK_FUNCTION and "function" not in tool):
            continue
        path = f"tools[{position}]"
        check_type(tool, _WithFunction, path)
        expected, example = _FUNCTIONS[kind]
        hint = f"For {kind!r} it is like {example}."
        check_type(tool["function"], expected, f"{path}.function", hint)
    (name, count), *_ = [*Counter(_function_names(tools)).most_common(1), ("", 0)]
    if count > 1:
        raise _not_unique(name)


def _function_names(tools: Iterable[Mapping[str, Any]]) -> list[str]:
    return [tool["function"]["name"] for tool in tools if tool["type"] == "function"]


def _not_unique(name: str) -> InvalidParameterError:
    return InvalidParameterError(
        f"tools has several functions named {name!r}; each needs a name of its own."
    )
