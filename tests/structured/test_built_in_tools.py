"""Tools in a request: those that the server runs, and what is said about those that are wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, assert_type

import pytest

from anyio_writer import InvalidParameterError, Tool
from anyio_writer.request.encoding import encode_body
from anyio_writer.request.params import (
    FunctionToolParam,
    GraphTool,
    LLMTool,
    TranslationTool,
    VisionTool,
    WebSearchTool,
)
from anyio_writer.request.validation import build_body
from anyio_writer.structured.tools import FunctionTool, function_tool

MESSAGES: list[Any] = [{"role": "user", "content": "Hi"}]

GRAPH: GraphTool = {
    "type": "graph",
    "function": {
        "graph_ids": ["g1", "g2"],
        "subqueries": True,
        "description": "What we know.",
        "query_config": {
            "max_subquestions": 10,
            "search_weight": 0,
            "grounding_level": 0.5,
            "max_snippets": 60,
            "max_tokens": 100,
            "keyword_threshold": 1,
            "semantic_threshold": 0.0,
            "inline_citations": False,
        },
    },
}
LLM: LLMTool = {"type": "llm", "function": {"description": "Knows law.", "model": "palmyra-x4"}}
TRANSLATION: TranslationTool = {
    "type": "translation",
    "function": {
        "model": "palmyra-translate",
        "formality": True,
        "length_control": False,
        "mask_profanity": True,
        "source_language_code": "en",
        "target_language_code": "fr-CA",
    },
}
VISION: VisionTool = {
    "type": "vision",
    "function": {
        "model": "palmyra-vision",
        "variables": [{"name": "bill", "file_id": "f1"}],
    },
}
WEB_SEARCH: WebSearchTool = {
    "type": "web_search",
    "function": {"include_domains": ["writer.com"], "exclude_domains": []},
}
FUNCTION: FunctionToolParam = {
    "type": "function",
    "function": {"name": "f", "description": "F.", "parameters": {"type": "object"}},
}
TRANSLATION_AT_LEAST: TranslationTool = {
    "type": "translation",
    "function": {
        "model": "m",
        "formality": False,
        "length_control": False,
        "mask_profanity": False,
    },
}


@function_tool
def temperature(city: str) -> float:
    """The temperature right now."""
    return len(city)


def sent(**fields: Any) -> dict[str, Any]:
    """What a request with these fields sends."""
    body = encode_body(build_body({"model": "m", "messages": MESSAGES} | fields))
    decoded: dict[str, Any] = json.loads(body)
    return decoded


def refusal(**fields: Any) -> str:
    with pytest.raises(InvalidParameterError) as caught:
        build_body({"model": "m", "messages": MESSAGES} | fields)
    return str(caught.value)


KNOWN: list[Tool] = [
    GRAPH,
    {"type": "graph", "function": {"graph_ids": ["g"], "subqueries": False}},
    LLM,
    TRANSLATION,
    TRANSLATION_AT_LEAST,
    VISION,
    WEB_SEARCH,
    {"type": "web_search", "function": {}},
    FUNCTION,
    {"type": "function", "function": {"name": "f"}},
]


@pytest.mark.parametrize("tool", KNOWN)
def test_a_tool_is_sent_as_it_is(tool: Any) -> None:
    assert sent(tools=[tool])["tools"] == [tool]
    assert sent(tools=[tool, FUNCTION | {"function": {"name": "g"}}])["tools"][0] == tool


def with_function(tool: Any, **fields: Any) -> Any:
    function = {**tool["function"], **fields}
    return {**tool, "function": {name: function[name] for name in function if function[name] != ""}}


@pytest.mark.parametrize("tool", [GRAPH, LLM, TRANSLATION, VISION, WEB_SEARCH, FUNCTION])
def test_fields_that_nobody_told_us_of_are_sent(tool: Any) -> None:
    more = with_function(tool, new_field=[1]) | {"beside": None}
    assert sent(tools=[more])["tools"] == [more]


def test_tools_that_nobody_told_us_of_are_sent() -> None:
    tools: list[Any] = [{"type": "code", "function": {"any": 1}}, FUNCTION]
    assert sent(tools=tools, tool_choice={"type": "code"})["tools"] == tools


def test_lists_may_be_any_iterable() -> None:
    def ids() -> Iterator[str]:
        yield "g"

    tool = {"type": "graph", "function": {"graph_ids": ids(), "subqueries": True}}
    assert sent(tools=iter([tool]))["tools"][0]["function"]["graph_ids"] == ["g"]


def graph(**query_config: Any) -> Any:
    return with_function(GRAPH, query_config=query_config)


# "" takes a field out.
WRONG: list[tuple[Any, str, str]] = [
    (with_function(GRAPH, graph_ids=""), " has no 'graph_ids'", "graph"),
    (with_function(GRAPH, subqueries=""), " has no 'subqueries'", "graph"),
    (
        with_function(GRAPH, graph_ids="g"),
        ".graph_ids is invalid: expected `list`, got `str`",
        "graph",
    ),
    (
        with_function(GRAPH, graph_ids=["g", 1]),
        ".graph_ids[1] is invalid: expected `str`, got `int`",
        "graph",
    ),
    (
        with_function(GRAPH, subqueries=1),
        ".subqueries is invalid: expected `bool`, got `int`",
        "graph",
    ),
    (
        with_function(GRAPH, description=1),
        ".description is invalid: expected `str | None`, got `int`",
        "graph",
    ),
    (
        with_function(GRAPH, query_config=[]),
        ".query_config is invalid: expected `dict | None`, got `list`",
        "graph",
    ),
    *(
        (graph(**{name: value}), f".query_config.{name} is invalid: expected {expected}", "graph")
        for name, value, expected in [
            ("max_subquestions", 0, "`int` >= 1"),
            ("max_subquestions", 11, "`int` <= 10"),
            ("max_subquestions", 1.5, "`int | None`, got `float`"),
            ("search_weight", -1, "`float` >= 0.0"),
            ("search_weight", 101, "`float` <= 100.0"),
            ("grounding_level", 1.1, "`float` <= 1.0"),
            ("grounding_level", "low", "`float | None`, got `str`"),
            ("max_snippets", 0, "`int` >= 1"),
            ("max_snippets", 61, "`int` <= 60"),
            ("max_tokens", 99, "`int` >= 100"),
            ("max_tokens", 8001, "`int` <= 8000"),
            ("keyword_threshold", -0.1, "`float` >= 0.0"),
            ("keyword_threshold", 1.1, "`float` <= 1.0"),
            ("semantic_threshold", -0.1, "`float` >= 0.0"),
            ("semantic_threshold", 1.1, "`float` <= 1.0"),
            ("inline_citations", "yes", "`bool | None`, got `str`"),
        ]
    ),
    (with_function(LLM, model=""), " has no 'model'", "llm"),
    (with_function(LLM, description=""), " has no 'description'", "llm"),
    (
        with_function(LLM, model=None),
        ".model is invalid: expected `str`, got `None`",
        "llm",
    ),
    *(
        (with_function(TRANSLATION, **{name: ""}), f" has no '{name}'", "translation")
        for name in ("model", "formality", "length_control", "mask_profanity")
    ),
    *(
        (
            with_function(TRANSLATION, **{name: "x"}),
            f".{name} is invalid: expected `bool`, got `str`",
            "translation",
        )
        for name in ("formality", "length_control", "mask_profanity")
    ),
    *(
        (
            with_function(TRANSLATION, **{name: 1}),
            f".{name} is invalid: expected `str | None`, got `int`",
            "translation",
        )
        for name in ("source_language_code", "target_language_code")
    ),
    (with_function(VISION, model=""), " has no 'model'", "vision"),
    (with_function(VISION, variables=""), " has no 'variables'", "vision"),
    (with_function(VISION, variables=[{"name": "a"}]), ".variables[0] has no 'file_id'", "vision"),
    (with_function(VISION, variables=[{"file_id": "a"}]), ".variables[0] has no 'name'", "vision"),
    (
        with_function(VISION, variables={"a": "b"}),
        ".variables is invalid: expected `list`, got `dict`",
        "vision",
    ),
    *(
        (
            with_function(WEB_SEARCH, **{name: "writer.com"}),
            f".{name} is invalid: expected `list | None`, got `str`",
            "web_search",
        )
        for name in ("include_domains", "exclude_domains")
    ),
    (with_function(FUNCTION, name=""), " has no 'name'", "function"),
    (
        with_function(FUNCTION, name=1),
        ".name is invalid: expected `str`, got `int`",
        "function",
    ),
    (
        with_function(FUNCTION, parameters=[]),
        ".parameters is invalid: expected `dict | None`, got `list`",
        "function",
    ),
    (
        with_function(FUNCTION, strict="yes"),
        ".strict is invalid: expected `bool | None`, got `str`",
        "function",
    ),
]


@pytest.mark.parametrize(("tool", "said", "kind"), WRONG)
def test_a_wrong_tool_is_named(tool: Any, said: str, kind: str) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    message = refusal(tools=[other, tool])
    assert message.startswith(f"tools[1].function{said}. For {kind!r} it is like {{")
    assert message.endswith("}.")


def test_only_one_kind_of_built_in_tool() -> None:
    assert sent(tools=[GRAPH, GRAPH, temperature])
    assert refusal(tools=[GRAPH, WEB_SEARCH]) == (
        "tools has several kinds of built-in tools (graph, web_search); the API takes one kind per "
        "request."
    )


# Functions.


def test_a_function_tool_is_sent_in_the_form_of_the_api() -> None:
    tools = sent(tools=[temperature, WEB_SEARCH, FUNCTION])["tools"]
    assert tools == [temperature.to_param(), WEB_SEARCH, FUNCTION]
    assert tools[0]["function"]["name"] == "temperature"
    assert sent(tools=(tool for tool in [temperature]))["tools"] == tools[:1]
    assert sent(extra_body={"tools": [temperature]})["tools"] == tools[:1]


def test_a_function_that_is_no_tool() -> None:
    def plain(a: int) -> None: ...

    assert refusal(tools=[temperature, plain]) == (
        "tools[1] is plain itself. Make it a tool: function_tool(plain)."
    )
    assert refusal(tools=[Listener()]).endswith(
        "Listener itself. Make it a tool: function_tool(...)."
    )
    assert refusal(tools=temperature) == "tools is a single tool. Put it into a list: tools=[...]."


class Listener:
    def __call__(self, a: int) -> None: ...


@pytest.mark.parametrize(
    "tools",
    [
        [temperature, temperature],
        [temperature, {"type": "function", "function": {"name": "temperature"}}],
        [FUNCTION, WEB_SEARCH, with_function(FUNCTION, description="G.")],
    ],
)
def test_two_functions_of_one_name(tools: list[Any]) -> None:
    name = "f" if tools[0] is FUNCTION else "temperature"
    assert refusal(tools=tools).startswith(f"tools has several functions named {name!r};")


def named(name: str) -> Any:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize(
    ("choice", "tools"),
    [
        ("auto", [temperature]),
        ("none", [WEB_SEARCH]),
        ("required", [temperature, FUNCTION]),
        ("value", [temperature]),
        (named("temperature"), [FUNCTION, temperature]),
        (named("f") | {"more": 1}, [FUNCTION, temperature]),
        ({"type": "web_search"}, [WEB_SEARCH]),
        ({"value": "auto"}, [temperature]),
        ({"value": named("g")}, [temperature]),
        ({"value": "auto"}, None),
    ],
)
def test_tool_choices(choice: Any, tools: Any) -> None:
    assert sent(tool_choice=choice, tools=tools)["tool_choice"] == choice


NOT_AMONG = "tool_choice names {!r}, which is not among the functions in tools; "
CHOICES = " It is 'auto', 'none', 'required', or {'type': 'function', 'function': {'name': ...}}."


@pytest.mark.parametrize(
    ("choice", "tools", "message"),
    [
        (
            named("g"),
            [FUNCTION, temperature, WEB_SEARCH],
            NOT_AMONG.format("g") + "they are 'f', 'temperature'.",
        ),
        (
            named("web_search"),
            [WEB_SEARCH],
            NOT_AMONG.format("web_search") + "there are none.",
        ),
        *(
            (choice, None, "tool_choice needs tools to choose from, and the request has none.")
            for choice in ("auto", "none", "my value", named("f"), {"type": "web_search"})
        ),
        ({}, [FUNCTION], "tool_choice has no 'type'." + CHOICES),
        ({"type": "function"}, [FUNCTION], "tool_choice has no 'function'." + CHOICES),
        ({"function": {"name": "f"}}, [FUNCTION], "tool_choice has no 'type'." + CHOICES),
        (
            {"type": "function", "function": "f"},
            [FUNCTION],
            "tool_choice.function is invalid: expected `dict`, got `str`." + CHOICES,
        ),
        (
            {"type": "function", "function": {}},
            [FUNCTION],
            "tool_choice.function has no 'name'." + CHOICES,
        ),
        (
            5,
            [FUNCTION],
            "tool_choice is invalid: expected `str | dict | None`, got `int`." + CHOICES,
        ),
    ],
)
def test_tool_choices_that_choose_nothing(choice: Any, tools: Any, message: str) -> None:
    assert refusal(tool_choice=choice, tools=tools) == message


def test_tools_in_the_extra_body_are_the_callers_own_affair() -> None:
    extra = {"tools": [{"type": "function", "function": {"name": "g"}}]}
    assert sent(tool_choice=named("g"), extra_body=extra)["tools"] == extra["tools"]
    assert sent(tool_choice=named("g"), tools=[FUNCTION], extra_body=extra)
    assert refusal(tool_choice=named("g"), extra_body={"seed": 1}).startswith("tool_choice needs")


def test_type_checkers_tell_tools_apart() -> None:
    """The types are what matters here; tests/typing has the checkers read such things."""

    def kind(tool: Tool) -> str:
        if isinstance(tool, FunctionTool):
            return tool.name
        if tool["type"] == "graph":
            assert_type(tool, GraphTool)
            return "graph"
        return str(tool["type"])

    assert [kind(tool) for tool in (temperature, GRAPH, VISION)] == [
        "temperature",
        "graph",
        "vision",
    ]


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "custom", "custom": {"name": "x"}},
        {"type": "web_search", "web_search": {"enable": True}},
        {"type": "web_search"},
        {"type": "mcp", "server_url": "http://x", "function": "not what it is elsewhere"},
    ],
)
def test_tools_of_other_servers_without_a_function_are_sent(tool: Any) -> None:
    assert sent(tools=[tool])["tools"] == [tool]
    assert sent(tools=[tool, FUNCTION, {"type": "code"}])["tools"] == [
        tool,
        FUNCTION,
        {"type": "code"},
    ]
