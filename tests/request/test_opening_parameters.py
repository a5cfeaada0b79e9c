"""What is wrong or missing is said in words, before anything is sent."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from anyio_writer import (
    AsyncWriter,
    ConfigurationError,
    InvalidParameterError,
    Limits,
    Timeouts,
    chat_stream_from,
    open_chat_stream,
)
from anyio_writer.testing import ChatServer
from tests.transport.opening_helpers import KEY, MESSAGES, stream_to

MESSAGE = " It is a list of messages such as {'role': 'user', 'content': 'Hello'}."
CONTENT = " It is text, or a list such as [{'type': 'text', 'text': 'Hello'}]."
ROLE = " It is 'user', 'assistant', 'system' or 'tool'; other servers also know 'developer'."
TOOL = (
    " It is a list of what function_tool(f) makes, or of {'type': 'function', 'function': {...}}; "
    "leave tools out to send none."
)
FORMAT = " It is a type, such as a dataclass, or {'type': 'json_schema', 'json_schema': {...}}."
USAGE = " It is {'include_usage': True}."
EXTRA = " Fields that the API does not list belong in extra_body."
NO_FIELD = "is not a field of a request:"
LEFT_OUT = object()


def user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def function(**fields: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f"} | fields}]}


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


async def later() -> AsyncIterator[Any]:
    yield MESSAGES[0]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": LEFT_OUT}, "model is missing."),
    ({"model": None}, "model is missing."),
    ({"model": ""}, "model is invalid: expected `str` of length >= 1."),
    ({"model": 5}, "model is invalid: expected `str`, got `int`."),
    ({"messages": LEFT_OUT}, "messages is missing." + MESSAGE),
    ({"messages": None}, "messages is missing." + MESSAGE),
    ({"messages": []}, "messages is invalid: expected `list` of length >= 1." + MESSAGE),
    ({"messages": iter(())}, "messages is invalid: expected `list` of length >= 1." + MESSAGE),
    ({"messages": "Hi"}, "messages is invalid: expected `list`, got `str`." + MESSAGE),
    ({"messages": MESSAGES[0]}, "messages is invalid: expected `list`, got `dict`." + MESSAGE),
    ({"messages": ["Hi"]}, "messages[0] is invalid: expected `dict`, got `str`." + MESSAGE),
    ({"messages": 5}, "messages is invalid: expected `list`, got `int`." + MESSAGE),
    (
        {"messages": later},
        "messages cannot be sent as JSON: objects of type function are not supported",
    ),
    ({"messages": [*MESSAGES, {"content": "a"}]}, "messages[1] has no 'role'." + MESSAGE),
    ({"messages": [{}]}, "messages[0] has no 'role'." + MESSAGE),
    (
        {"messages": [*MESSAGES, {1: "a"}]},
        "a key of messages[1] is invalid: expected `str`." + MESSAGE,
    ),
    (
        {"messages": [*MESSAGES, {"role": "user", "content": "a", "when": object()}]},
        "messages[1] cannot be sent as JSON: objects of type object are not supported." + MESSAGE,
    ),
    (
        {"messages": [{"role": "devloper", "content": "a"}]},
        "messages[0].role is invalid: invalid enum value 'devloper'." + ROLE,
    ),
    (
        {"messages": [{"role": 1, "content": "a"}]},
        "messages[0].role is invalid: expected `str`, got `int`." + ROLE,
    ),
    (
        user(5),
        "messages[0].content is invalid: expected `str | list | None`, got `int`." + CONTENT,
    ),
    (
        user({"type": "text"}),
        "messages[0].content is invalid: expected `str | list | None`, got `dict`." + CONTENT,
    ),
    (
        user(b"Hi"),
        "messages[0].content is invalid: expected `str | list | None`, got `bytes`." + CONTENT,
    ),
    (user(["Hi"]), "messages[0].content[0] is invalid: expected `dict`, got `str`." + CONTENT),
    (user([{"text": "Hi"}]), "messages[0].content[0] has no 'type'." + CONTENT),
    (
        {"messages": [{"role": "tool", "content": "a", "tool_call_id": 7}]},
        "messages[0].tool_call_id is invalid: expected `str | None`, got `int`." + MESSAGE,
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": {}}]},
        "messages[0].tool_calls is invalid: expected `list | None`, got `dict`." + MESSAGE,
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": ["f"]}]},
        "messages[0].tool_calls[0] is invalid: expected `dict`, got `str`." + MESSAGE,
    ),
    ({"temperature": "1"}, "temperature is invalid: expected `float | None`, got `str`."),
    ({"temperature": True}, "temperature is invalid: expected `float | None`, got `bool`."),
    ({"temperature": -1}, "temperature is invalid: expected `float` >= 0.0."),
    ({"temperature": math.nan}, "temperature is invalid: expected `float` >= 0.0."),
    (
        {"temperature": math.inf},
        "temperature cannot be sent as JSON: Out of range float values are not JSON compliant",
    ),
    ({"top_p": 2}, "top_p is invalid: expected `float` <= 1.0."),
    ({"top_p": -0.1}, "top_p is invalid: expected `float` >= 0.0."),
    ({"n": 0}, "n is invalid: expected `int` >= 1."),
    ({"n": True}, "n is invalid: expected `int | None`, got `bool`."),
    ({"n": 1.5}, "n is invalid: expected `int | None`, got `float`."),
    ({"n": "1"}, "n is invalid: expected `int | None`, got `str`."),
    ({"max_tokens": 0}, "max_tokens is invalid: expected `int` >= 1."),
    ({"max_tokens": 2.0}, "max_tokens is invalid: expected `int | None`, got `float`."),
    ({"stop": 5}, "stop is invalid: expected `str | list | None`, got `int`."),
    ({"stop": b"x"}, "stop is invalid: expected `str | list | None`, got `bytes`."),
    ({"stop": ["a", 1]}, "stop[1] is invalid: expected `str`, got `int`."),
    ({"logprobs": 1}, "logprobs is invalid: expected `bool | None`, got `int`."),
    ({"tools": {"type": "x"}}, "tools is invalid: expected `list | None`, got `dict`." + TOOL),
    ({"tools": [{"type": "function"}]}, "tools[0] has no 'function'." + TOOL),
    ({"tools": [{"function": {}}]}, "tools[0] has no 'type'." + TOOL),
    (
        {"tools": [{"type": "function", "function": "f"}]},
        "tools[0].function is invalid: expected `dict`, got `str`." + TOOL,
    ),
    (
        {"tools": [{"type": "llm", "function": {}}, {"type": "graph", "function": {}}]},
        "tools has several kinds of built-in tools (graph, llm); the API takes one kind ",
    ),
    ({"tools": [print]}, "tools[0] is print itself. Make it a tool: function_tool(print)."),
    ({"tools": print}, "tools is print itself. Make it a tool: [function_tool(print)]."),
    ({"tools": [lambda: 1]}, "tools[0] is <lambda> itself. Make it a tool: function_tool(...)."),
    (
        {"tools": [dict]},
        "tools[0] is the class dict. Tools are made of functions. The type that an answer ",
    ),
    (
        {"tools": object()},
        "tools cannot be sent as JSON: objects of type object are not supported." + TOOL,
    ),
    (function(parameters=object()), "tools[0] cannot be sent as JSON: objects of type object are "),
    (
        function(parameters=b"{}"),
        "tools[0].function.parameters is invalid: expected `dict | None`, got `bytes`.",
    ),
    (function(title=b"{}"), "tools[0] cannot be sent as JSON: Object of type bytes is not "),
    (function(parameters=endless()), "tools is nested too deeply to be sent as JSON."),
    (function(maximum=math.nan), "tools[0] cannot be sent as JSON: Out of range float values "),
    ({"tool_choice": 5}, "tool_choice is invalid: expected `str | dict | None`, got `int`."),
    ({"tool_choice": []}, "tool_choice is invalid: expected `str | dict | None`, got `list`."),
    (
        {"response_format": "json"},
        "response_format is invalid: expected `dict | None`, got `str`." + FORMAT,
    ),
    ({"response_format": {}}, "response_format has no 'type'." + FORMAT),
    (
        {"response_format": {"type": "json_schema", "json_schema": "x"}},
        "response_format.json_schema is invalid: expected `dict | None`, got `str`." + FORMAT,
    ),
    ({"stream_options": {}}, "stream_options has no 'include_usage'." + USAGE),
    (
        {"stream_options": True},
        "stream_options is invalid: expected `dict | None`, got `bool`." + USAGE,
    ),
    (
        {"stream_options": {"include_usage": "yes"}},
        "stream_options.include_usage is invalid: expected `bool`, got `str`." + USAGE,
    ),
    (user("\ud800"), "messages[0] cannot be sent as JSON: 'utf-8' codec can't encode character "),
    ({"model": "\udfff"}, "model cannot be sent as JSON: 'utf-8' codec can't encode character "),
    ({"temprature": 1}, "There is no parameter temprature. Did you mean temperature?" + EXTRA),
    ({"max_token": 1}, "There is no parameter max_token. Did you mean max_tokens?" + EXTRA),
    ({"mesages": []}, "There is no parameter mesages. Did you mean messages?" + EXTRA),
    (
        {"response_fromat": None},
        "There is no parameter response_fromat. Did you mean response_format?" + EXTRA,
    ),
    ({"timeout": 5}, "There is no parameter timeout. Did you mean timeouts?" + EXTRA),
    ({"base_urll": ""}, "There is no parameter base_urll. Did you mean base_url?" + EXTRA),
    ({"max_round": 1}, "There is no parameter max_round. Did you mean max_rounds?" + EXTRA),
    ({"seeed": 1}, "There is no parameter seeed. Did you mean seed?" + EXTRA),
    ({"qqq": 1}, "There is no parameter qqq." + EXTRA),
    *(
        (
            {name: 1},
            f"{name} {NO_FIELD} it is a parameter of open_conversation() and ch",
        )
        for name in ("max_rounds", "total_time", "tool_limit", "on_tool_error")
    ),
    *(
        (
            {name: 1},
            f"{name} {NO_FIELD} it is a parameter of run_tools(); a conversation has {instead}.",
        )
        for name, instead in (("limit", "tool_limit"), ("on_error", "on_tool_error"))
    ),
    (
        {"max_completion_token": 1},
        "There is no parameter max_completion_token. Did you mean max_completion_tokens?" + EXTRA,
    ),
    ({"max_completion_tokens": 0}, "max_completion_tokens is invalid: expected `int` >= 1."),
    ({"seed": 1.5}, "seed is invalid: expected `int | None`, got `float`."),
    ({"seed": True}, "seed is invalid: expected `int | None`, got `bool`."),
    (
        {"parallel_tool_calls": 1},
        "parallel_tool_calls is invalid: expected `bool | None`, got `int`",
    ),
    ({"top_logprobs": -1}, "top_logprobs is invalid: expected `int` >= 0."),
    ({"frequency_penalty": 2.5}, "frequency_penalty is invalid: expected `float` <= 2.0."),
    ({"presence_penalty": -3}, "presence_penalty is invalid: expected `float` >= -2.0."),
    ({"repetition_penalty": 0}, "repetition_penalty is invalid: expected `float` > 0.0."),
    ({"logit_bias": {50256: -100}}, "a key of logit_bias is invalid: expected `str`, got `int`."),
    ({"reasoning_effort": 1}, "reasoning_effort is invalid: expected `str | None`, got `int`."),
    ({"metadata": "a"}, "metadata is invalid: expected `dict | None`, got `str`."),
    ({"modalities": "text"}, "modalities is invalid: expected `list | None`, got `str`."),
    ({"store": "yes"}, "store is invalid: expected `bool | None`, got `str`."),
    ({"min_p": 2}, "min_p is invalid: expected `float` <= 1.0."),
    ({"stream": True}, "There is no parameter stream: the answer is always streamed."),
    ({"max_connections": 1}, "max_connections is a setting of AsyncWriter, not a field of a req"),
    ({"extra_headers": 0}, "extra_headers must be a mapping, not int."),
    ({"extra_headers": [("a", KEY)]}, "extra_headers must be a mapping, not list."),
    ({"extra_headers": {"a": 5}}, "extra_headers['a'] must be text or None, not int."),
    ({"extra_headers": {"a": KEY.encode()}}, "extra_headers['a'] must be text or None, not bytes."),
    ({"extra_headers": {5: "a"}}, "extra_headers holds 5, which cannot be the name of an HTTP he"),
    ({"extra_headers": {"a b": ""}}, "extra_headers holds 'a b', which cannot be the name of an"),
    ({"extra_headers": {"": ""}}, "extra_headers holds '', which cannot be the name of an HTTP "),
    ({"extra_headers": {"a\n": ""}}, "extra_headers holds 'a\\n', which cannot be the name of"),
    (
        {"extra_headers": {"a": f"{KEY}\r\nb: c"}},
        "extra_headers['a'] holds a control character or one that is not ASCII, which no HTTP",
    ),
    ({"extra_headers": {"a": f"{KEY}…"}}, "extra_headers['a'] holds a control character or one "),
    ({"extra_query": "a=b"}, "extra_query must be a mapping, not str."),
    ({"extra_query": False}, "extra_query must be a mapping, not bool."),
    (
        {"extra_query": {"a": {"b": 1}}},
        "extra_query['a'] must be text, a number or a list of these, not dict.",
    ),
    ({"extra_query": {"a": [object()]}}, "extra_query['a'] must be text, a number or a list of "),
    ({"extra_body": [("a", 1)]}, "extra_body must be a mapping, not list."),
    ({"extra_body": ""}, "extra_body must be a mapping, not str."),
    (
        {"extra_body": {"a": object()}},
        "extra_body cannot be sent as JSON: objects of type object are not supported",
    ),
    ({"extra_body": {"a": b""}}, "a cannot be sent as JSON: Object of type bytes is not JSON "),
    ({"extra_body": {"a": math.nan}}, "a cannot be sent as JSON: Out of range float values are "),
]


def case_id(value: object) -> str:
    return ascii(value)[:60] if isinstance(value, str) else ""


@pytest.mark.parametrize(("given", "message"), WRONG, ids=case_id)
def test_a_wrong_parameter_is_named(given: dict[str, Any], message: str) -> None:
    request = {"model": "m", "messages": MESSAGES} | given
    request = {name: value for name, value in request.items() if value is not LEFT_OUT}
    with pytest.raises(InvalidParameterError) as caught:
        # No event loop runs here, so nothing can have been sent.
        open_chat_stream(api_key=KEY, base_url="http://127.0.0.1:1", **request)
    assert str(caught.value).startswith(message)
    assert KEY not in str(caught.value)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(InvalidParameterError) as again:
        AsyncWriter(api_key=KEY).chat.stream(**request)
    assert str(again.value) == str(caught.value)


@pytest.mark.parametrize(
    "name", ["api_key", "base_url", "path", "headers", "max_retries", "timeouts", "client"]
)
def test_a_setting_in_the_request_of_a_writer_is_sent_to_the_writer(name: str) -> None:
    request = {"model": "m", "messages": MESSAGES, name: None}
    with pytest.raises(InvalidParameterError, match=f"^{name} is a setting of AsyncWriter"):
        AsyncWriter(api_key=KEY).chat.stream(**request)


def test_an_error_of_the_callers_own_generator_is_the_callers() -> None:
    def messages() -> Iterator[Any]:
        yield MESSAGES[0]
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        stream_to("http://127.0.0.1:1", messages=messages())


WRONG_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"timeouts": 5}, "timeouts must be a Timeouts, not 5."),
    ({"timeouts": None}, "timeouts must be a Timeouts, not None."),
    ({"timeouts": httpx.Timeout(5)}, "timeouts must be a Timeouts, not Timeout("),
    ({"limits": {}}, "limits must be a Limits, not {}."),
    ({"limits": httpx.Limits()}, "limits must be a Limits, not Limits("),
    ({"require_finish": 1}, "require_finish must be a bool, not 1."),
    ({"end_grace": -1}, "end_grace must be a number above 0, not -1."),
    ({"end_grace": None}, "end_grace must be a number above 0, not None."),
    ({"max_retries": -1}, "max_retries must be a whole number, 0 or more, not -1."),
    ({"max_retries": True}, "max_retries must be a whole number, 0 or more, not True."),
    ({"max_retries": 1.5}, "max_retries must be a whole number, 0 or more, not 1.5."),
    ({"max_retries": None}, "max_retries must be a whole number, 0 or more, not None."),
    ({"headers": 5}, "headers must be a mapping, not int."),
    ({"headers": [("a", KEY)]}, "headers must be a mapping, not list."),
    ({"headers": {"a": 5}}, "headers['a'] must be text or None, not int."),
    ({"headers": {"a": f"{KEY}\n"}}, "headers['a'] holds a control character or one that is not "),
    ({"headers": {"a:": ""}}, "headers holds 'a:', which cannot be the name of an HTTP header."),
    ({"api_key": 5}, "api_key must be a string, not int."),
    ({"api_key": KEY.encode()}, "api_key must be a string, not bytes."),
    ({"path": 5}, "path must be a string, not int."),
    ({"base_url": 5}, "base_url must be a string, not int."),
    ({"base_url": b"http://x"}, "base_url must be a string, not bytes."),
    ({"base_url": httpx.URL("http://x")}, "base_url must be a string, not URL."),
    *(
        ({"base_url": url}, f"base_url must be like 'https://api.writer.com', not {shown!r}.")
        for url, shown in [
            *((each, each) for each in ("api.writer.com", "/v1", "ftp://x", "http://", "https:x")),
            *((each, each) for each in ("http://[::1", "http://x:port", "http://x:99999")),
            *((each, each) for each in ("http://x?a=1", "http://x/#a", "http://x y", "http://x:0")),
            ("http://a\nb", "http://a\nb"),
        ]
    ),
    ({"client": object()}, "client must be an httpx.AsyncClient or an httpx2.AsyncClient, not bu"),
    ({"client": httpx.AsyncClient}, "client must be an httpx.AsyncClient or an httpx2.AsyncClient"),
]


@pytest.mark.parametrize(("given", "message"), WRONG_SETTINGS, ids=case_id)
def test_a_wrong_setting_is_named(given: dict[str, Any], message: str) -> None:
    request: dict[str, Any] = {"model": "m", "messages": MESSAGES}
    settings = {"api_key": KEY, **given}
    with pytest.raises(ConfigurationError) as caught:
        open_chat_stream(**settings, **request)
    assert str(caught.value).startswith(message)
    assert KEY not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(ConfigurationError) as again:
        AsyncWriter(**settings)
    assert str(again.value) == str(caught.value)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1", None])
def test_max_connections_is_checked(value: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^max_connections must be a whole number, 1 or more, not "
    ):
        AsyncWriter(api_key=KEY, max_connections=value)


def test_an_unknown_setting_of_a_writer_is_named_and_the_known_ones_are_listed() -> None:
    unknown: dict[str, Any] = {"timeout": 5, "apikey": KEY}
    with pytest.raises(ConfigurationError) as caught:
        AsyncWriter(api_key=KEY, **unknown)
    assert str(caught.value) == (
        "There is no setting apikey, timeout; the settings are api_key, base_url, client, "
        "end_grace, headers, limits, max_connections, max_retries, observer, path, require_finish, "
        "timeouts."
    )


class LikeRequests:
    """Has the methods of a client, but not their meaning."""

    def post(self) -> None: ...

    send = build_request = post


def test_a_client_of_another_kind_is_refused() -> None:
    with httpx.Client() as sync, pytest.raises(ConfigurationError, match=r"not httpx\.Client\.$"):
        AsyncWriter(api_key=KEY, client=sync)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"not .*LikeRequests\.$"):
        AsyncWriter(api_key=KEY, client=LikeRequests())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", Timeouts.__struct_fields__)
@pytest.mark.parametrize("value", [0, -1, math.nan, True, "5"])
def test_a_time_limit_is_a_number_above_zero_or_none(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^Timeouts\.{name} must be a number above 0"):
        Timeouts(**{name: value})
    assert getattr(Timeouts(**{name: None}), name) is None


@pytest.mark.parametrize("name", Limits.__struct_fields__)
@pytest.mark.parametrize("value", [0, -1, math.nan, True, "5", None])
def test_a_limit_is_a_number_above_zero(name: str, value: Any) -> None:
    if (name, value) == ("max_answer_bytes", None):
        assert Limits(max_answer_bytes=None).max_answer_bytes is None
        return
    with pytest.raises(ConfigurationError, match=rf"^Limits\.{name} must be a "):
        Limits(**{name: value})


@pytest.mark.parametrize("name", [n for n in Limits.__struct_fields__ if "time" not in n])
@pytest.mark.parametrize("value", [1.5, math.inf])
def test_what_is_counted_is_whole(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"^Limits\.{name} must be a whole number, 1 or "):
        Limits(**{name: value})


@pytest.mark.parametrize("given", [{"timeouts": 5}, {"limits": 5}, {"end_grace": 0}])
def test_reading_from_elsewhere_is_checked_alike(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(given))):
        chat_stream_from(later(), **given)


def test_bytes_are_no_source() -> None:
    with pytest.raises(ConfigurationError, match=r"^source must be an asynchronous iterable of by"):
        chat_stream_from(b"data: {}")  # type: ignore[arg-type]


async def test_nothing_wrong_reaches_the_server() -> None:
    """The same once more where a server would notice."""
    async with ChatServer() as server:
        for given, _ in WRONG:
            request = {"model": "m", "messages": MESSAGES} | given
            request = {name: value for name, value in request.items() if value is not LEFT_OUT}
            with pytest.raises(InvalidParameterError):
                async with open_chat_stream(api_key=KEY, base_url=server.url, **request):
                    pass
        for given, _ in WRONG_SETTINGS:
            with pytest.raises(ConfigurationError):
                async with stream_to(server, **given):
                    pass
    assert server.connections == []
