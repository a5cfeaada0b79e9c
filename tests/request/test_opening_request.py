"""The request as the server sees it."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections import UserList, deque
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import anyio
import httpx
import httpx2
import msgspec
import pytest
from writerai.types import ChatCompletionMessage

from anyio_writer import AsyncWriter, ConfigurationError, __version__
from anyio_writer.testing import ChatServer, RecordedRequest, text_reply, tool_call_reply
from tests.transport.opening_helpers import HANGS, KEY, MESSAGES, stream_to


async def sent(**arguments: Any) -> RecordedRequest:
    """What arrives when a stream with these arguments is opened."""
    with anyio.fail_after(HANGS):
        async with ChatServer(text_reply("Hi", done=True)) as server:
            async with stream_to(server, **arguments) as stream:
                assert await stream.get_final_text()
            assert len(server.requests) == 1
            return server.requests[0]


async def body_with(**arguments: Any) -> Any:
    return (await sent(**arguments)).json()


# The target.


async def test_it_is_a_post_to_the_apis_path() -> None:
    request = await sent()
    assert (request.method, request.target, request.http_version) == ("POST", "/v1/chat", "1.1")


@pytest.mark.parametrize(
    ("base", "path", "target"),
    [
        ("", None, "/v1/chat"),
        ("/", None, "/v1/chat"),
        ("//", None, "/v1/chat"),
        ("/proxy", None, "/proxy/v1/chat"),
        ("/proxy/", None, "/proxy/v1/chat"),
        ("/a/b/", "v1/chat/completions", "/a/b/v1/chat/completions"),
        ("", "/v1/chat/completions", "/v1/chat/completions"),
        ("/a", "//x", "/a/x"),
        ("/a", "/x/", "/a/x/"),
        ("/a", "", "/a/"),
        ("", "/chat?api-version=2", "/chat?api-version=2"),
        ("/a%20b", None, "/a%20b/v1/chat"),
        (" \n", None, "/v1/chat"),
    ],
)
async def test_base_url_and_path_are_joined_by_one_slash(
    base: str, path: str | None, target: str
) -> None:
    async with ChatServer(text_reply(done=True)) as server:
        async with stream_to(server.url + base, path=path) as stream:
            await stream.until_done()
    assert server.requests[0].target == target


async def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ChatServer(text_reply(done=True)) as server:
        monkeypatch.setenv("WRITER_BASE_URL", f" {server.url}/env/ \n")
        async with stream_to("", base_url=None) as stream:
            await stream.until_done()
        monkeypatch.setenv("WRITER_BASE_URL", "http://nobody.invalid")
        async with stream_to(server) as stream:
            await stream.until_done()
    assert [request.target for request in server.requests] == ["/env/v1/chat", "/v1/chat"]


async def test_without_a_base_url_it_is_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WRITER_BASE_URL", raising=False)
    writer = AsyncWriter(api_key=KEY)
    assert repr(writer) == "AsyncWriter(url='https://api.writer.com/v1/chat', max_connections=1000)"


@pytest.mark.parametrize("module", [httpx, httpx2])
async def test_extra_query_joins_what_the_path_and_the_client_have(module: Any) -> None:
    async with (
        ChatServer(text_reply(done=True)) as server,
        module.AsyncClient(params={"from": "client", "x": "client"}, trust_env=False) as client,
    ):
        query = {"x": "extra", "none": None, "flag": True, "many": [1, "b c"]}
        async with stream_to(server, client=client, path="/p?v=1", extra_query=query) as stream:
            await stream.until_done()
        async with stream_to(server, client=client, path="/p?v=1") as stream:
            await stream.until_done()
    first, second = (httpx.QueryParams(request.query) for request in server.requests)
    assert first.multi_items() == [
        ("from", "client"),
        ("x", "extra"),
        ("v", "1"),
        ("none", ""),
        ("flag", "true"),
        ("many", "1"),
        ("many", "b c"),
    ]
    assert second.multi_items() == [("from", "client"), ("x", "client"), ("v", "1")]


# The body.


async def test_the_body_has_the_given_fields_and_stream_and_nothing_else() -> None:
    assert await body_with() == {"model": "m", "messages": MESSAGES, "stream": True}


async def test_none_leaves_a_field_out() -> None:
    nothing = dict.fromkeys(
        [
            *("max_tokens", "temperature", "top_p", "n", "stop", "logprobs", "tools"),
            *("tool_choice", "stream_options", "response_format"),
            *("extra_headers", "extra_query", "extra_body"),
        ]
    )
    assert await body_with(**nothing) == {"model": "m", "messages": MESSAGES, "stream": True}


async def test_every_field_is_sent_as_it_was_given() -> None:
    fields: dict[str, Any] = {
        "model": "any/model:name",
        "messages": [
            {"role": "system", "content": "Be brief.", "name": "boss"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
                "unknown": {"kept": [None, 1.5]},
            },
            {"role": "tool", "tool_call_id": "1", "content": "é\n\u2028😀"},
        ],
        "max_tokens": 1,
        "temperature": 0,
        "top_p": 1.0,
        "n": 2,
        "stop": ["a", ""],
        "logprobs": False,
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
            {"type": "function", "function": {"name": "g"}},
            {"type": "graph", "function": {"graph_ids": ["x"], "subqueries": True}},
            {"type": "graph", "function": {"graph_ids": ["y"], "subqueries": False}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "stream_options": {"include_usage": True, "more": 1},
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "null"}}},
    }
    request = await sent(**fields)
    assert request.json() == {**fields, "stream": True}
    assert "😀".encode() in request.body  # as UTF-8, not as escapes
    assert int(request.header("content-length") or 0) == len(request.body)


async def test_extra_body_comes_last_and_may_replace() -> None:
    extra = {"seed": 7, "model": "other", "nested": {"a": (1, 2)}, "nothing": None}
    body = await body_with(extra_body=extra, temperature=1)
    assert body == {
        "model": "other",
        "messages": MESSAGES,
        "temperature": 1,
        "stream": True,
        "seed": 7,
        "nested": {"a": [1, 2]},
        "nothing": None,
    }


@dataclasses.dataclass
class DataclassMessage:
    role: str
    content: str


class StructMessage(msgspec.Struct):
    role: str
    content: str


class Role(enum.StrEnum):
    USER = "user"


class Text(str):
    """What libraries for templates return."""

    __slots__ = ()


class Number(float):
    """What libraries for numbers return."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: iter(MESSAGES),
        lambda: (message for message in MESSAGES),
        lambda: tuple(MESSAGES),
        lambda: deque(MESSAGES, maxlen=5),
        lambda: UserList(MESSAGES),
        lambda: dict(enumerate(MESSAGES)).values(),
        lambda: [MappingProxyType(MESSAGES[0])],
        lambda: [DataclassMessage("user", "Hello")],
        lambda: [StructMessage("user", "Hello")],
        lambda: (StructMessage(*each) for each in [("user", "Hello")]),
        lambda: [{"role": Role.USER, "content": Text("Hello")}],
    ],
    ids=[
        *("iterator", "generator", "tuple", "deque", "UserList", "view"),
        *("proxy", "dataclass", "struct", "generator of structs", "subclasses of str"),
    ],
)
async def test_messages_in_any_wrapping(make: Any) -> None:
    assert (await body_with(messages=make()))["messages"] == MESSAGES


async def test_iterables_inside() -> None:
    def parts() -> Iterator[dict[str, str]]:
        yield {"type": "text", "text": "a"}

    def stops() -> Iterator[str]:
        yield "b"

    body = await body_with(
        model=Text("m"),
        temperature=Number(0.5),
        messages=[{"role": "user", "content": parts()}],
        stop=stops(),
        tools=(tool for tool in [{"type": "web_search", "function": MappingProxyType({})}]),
    )
    assert body == {
        "model": "m",
        "temperature": 0.5,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        "stop": ["b"],
        "tools": [{"type": "web_search", "function": {}}],
        "stream": True,
    }


async def test_a_message_of_the_official_sdk() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    data = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"index": 0, **call}],
        "graph_data": {
            "sources": [{"file_id": "x", "snippet": "s"}],
            "references": {"files": [{"fileId": "1", "score": 0.5, "text": "t"}]},
        },
    }
    message = ChatCompletionMessage.model_validate(data)
    got = (await body_with(messages=[*MESSAGES, message]))["messages"]
    assert got == [*MESSAGES, data]


async def test_the_message_of_a_finished_stream_goes_back() -> None:
    async with ChatServer(
        tool_call_reply([("weather", '{"city":"Paris"}'), ("time", "")], text="Let me see."),
        text_reply("Sunny"),
    ) as server:
        async with stream_to(server) as stream:
            message = (await stream.get_final_completion()).choices[0].message
        assert message.tool_calls is not None
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": "?"} for call in message.tool_calls
        ]
        async with stream_to(server, messages=(*MESSAGES, message, *results)) as stream:
            assert await stream.get_final_text() == "Sunny"
    assert server.requests[1].json()["messages"] == [
        *MESSAGES,
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {
                    "id": message.tool_calls[0].id,
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
                    "index": 0,
                },
                {
                    "id": message.tool_calls[1].id,
                    "type": "function",
                    "function": {"name": "time", "arguments": "{}"},
                    "index": 1,
                },
            ],
        },
        *results,
    ]


async def test_the_callers_objects_are_not_changed() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    extra = {"stream": True, "a": [1]}
    before = json.dumps([messages, extra])
    await sent(messages=messages, extra_body=extra)
    assert json.dumps([messages, extra]) == before


# The headers.


async def test_the_headers_are_these() -> None:
    request = await sent()
    headers = {name.decode(): value.decode() for name, value in request.headers}
    assert len(headers) == len(request.headers)  # none twice
    assert headers == {
        "host": headers["host"],
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "content-length": str(len(request.body)),
        "user-agent": f"anyio_writer/{__version__}",
    }


async def test_headers_replace_in_order_whatever_their_case() -> None:
    request = await sent(
        headers={"X-A": "configuration", "x-b": "configuration", "User-Agent": "mine"},
        extra_headers={"x-a": "request", "AUTHORIZATION": "Basic abc", "X-New": ""},
    )
    values = {name: request.header(name) for name in ("x-a", "x-b", "x-new", "authorization")}
    assert values == {
        "x-a": "request",
        "x-b": "configuration",
        "x-new": "",
        "authorization": "Basic abc",
    }
    assert request.header("user-agent") == "mine"
    names = [name for name, _ in request.headers]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "name", ["Authorization", "User-Agent", "Accept", "ACCEPT-ENCODING", "content-type", "X-A"]
)
@pytest.mark.parametrize("where", ["headers", "extra_headers"])
async def test_none_takes_a_header_out(name: str, where: str) -> None:
    request = await sent(**{"headers": {"x-a": "1"}} | {where: {name: None}})
    assert request.header(name) is None


async def test_none_takes_out_the_clients_own_header_too() -> None:
    async with httpx.AsyncClient(headers={"x-client": "1", "accept": "a/b"}) as client:
        assert (await sent(client=client)).header("x-client") == "1"
        request = await sent(client=client, extra_headers={"X-Client": None})
    assert request.header("x-client") is None
    assert request.header("accept") == "text/event-stream"


async def test_a_writers_headers_go_with_every_request() -> None:
    async with (
        ChatServer(text_reply(done=True)) as server,
        AsyncWriter(api_key=KEY, base_url=server.url, headers={"X-Team": "a"}) as writer,
    ):
        for extra in (None, {"x-team": "b"}, None):
            async with writer.chat.stream(
                model="m", messages=MESSAGES, extra_headers=extra
            ) as stream:
                await stream.until_done()
    assert [request.header("x-team") for request in server.requests] == ["a", "b", "a"]


@pytest.mark.parametrize(
    "base_url",
    ["http://a" + "b" * 70_000, "http://256.1.1.1", "http://[v1.x]", "http://xn--a"],
)
def test_a_url_that_only_httpx_finds_wrong_is_ours_to_report(base_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^base_url cannot be used as a URL: "):
        stream_to(base_url)


@pytest.mark.parametrize("path", ["http://api/chat", "/chat#top", "/a\nb"])
def test_a_path_that_is_none(path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^path must be like '/v1/chat'") as caught:
        stream_to("http://127.0.0.1:1", path=path)
    assert repr(path) in str(caught.value)


def test_a_path_that_httpx_finds_wrong() -> None:
    with pytest.raises(ConfigurationError, match=r"^base_url and path cannot be used as a URL"):
        stream_to("http://127.0.0.1:1", path="/" + "a" * 70_000)


async def test_what_cannot_be_built_is_ours_to_report() -> None:
    with pytest.raises(ConfigurationError, match="cannot be built"):
        async with stream_to("http://127.0.0.1:1", extra_query={"a": "\ud800"}):
            pass


async def test_fields_of_other_servers_are_sent_if_given() -> None:
    fields: dict[str, Any] = {
        "seed": 7,
        "max_completion_tokens": 100,
        "reasoning_effort": "low",
        "parallel_tool_calls": False,
        "top_logprobs": 0,
        "frequency_penalty": -2,
        "presence_penalty": 2,
        "repetition_penalty": 1.1,
        "logit_bias": {"50256": -100},
        "top_k": -1,
        "min_p": 0,
        "user": "u",
        "safety_identifier": "s",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "verbosity": "low",
        "modalities": ["text"],
        "audio": {"voice": "v", "format": "wav"},
        "prediction": {"type": "content", "content": "x"},
        "web_search_options": {},
        "thinking": {"type": "enabled"},
        "chat_template_kwargs": {"enable_thinking": False},
    }
    plain = await body_with()
    assert await body_with(**fields) == plain | fields
    assert await body_with(**dict.fromkeys(fields)) == plain


@pytest.mark.parametrize("tools", [None, [], (), iter(())])
async def test_no_tools_are_not_sent(tools: Any) -> None:
    assert "tools" not in await body_with(tools=tools)
