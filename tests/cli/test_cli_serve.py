"""What ``serve`` answers, to the library's own requests."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings

from anyio_writer import (
    APIError,
    APIStreamError,
    ChatRequest,
    InternalServerError,
    RateLimitError,
    StreamTruncatedError,
    function_tool,
    open_chat_stream,
    open_conversation,
    response_type_of,
)
from anyio_writer.cli.samples import sample_of
from anyio_writer.cli.scripted import SYNTAX, Style, reply_for
from anyio_writer.testing import ChatServer
from tests import blocks
from tests.plugins.thoroughness import examples
from tests.structured.structured_types import TYPES, Typed, fits

STYLE = Style(text="A text.", pace=0, done=False)
QUESTION: ChatRequest = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


class Explanation(msgspec.Struct):
    summary: str
    keywords: list[str]


@function_tool
def temperature(city: str, unit: str = "C") -> float:
    """The temperature in a city.

    Args:
        city: Its name.
        unit: C or F.
    """
    return len(city + unit)


def server_for(*words: str) -> ChatServer:
    return ChatServer(*(reply_for(each, STYLE) for each in words))


# Replies in words.


async def test_a_text() -> None:
    async with (
        server_for("text:One: two.") as server,
        open_chat_stream(**QUESTION, api_key="k", base_url=server.url) as stream,
    ):
        assert await stream.get_final_text() == "One: two."


async def test_an_answer_in_json() -> None:
    async with (
        server_for('json:{"summary": "Short.", "keywords": ["a"]}') as server,
        open_chat_stream(
            **QUESTION, response_format=Explanation, api_key="k", base_url=server.url
        ) as stream,
    ):
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.parsed == Explanation("Short.", ["a"])


async def test_tool_calls() -> None:
    words = 'call:temperature {"city": "Lima"} temperature{"city": "O}slo"} '
    asked: ChatRequest = {**QUESTION, "tools": [temperature]}
    async with (
        server_for(words) as server,
        open_chat_stream(**asked, api_key="k", base_url=server.url) as stream,
    ):
        runs = stream.run_tools()
        results = await runs.results()
    assert [(result.name, result.value) for result in results] == [
        ("temperature", 5),
        ("temperature", 6),
    ]


@pytest.mark.parametrize(
    ("words", "error", "part"),
    [
        ("error:429 slow down", RateLimitError, "slow down"),
        ("error:503", InternalServerError, "503"),
        ("fail:out of memory", APIStreamError, "out of memory"),
        ("fail:", APIStreamError, "the model has failed"),
        ("cut:Half a", StreamTruncatedError, "characters"),
        ("cut:", StreamTruncatedError, "characters"),
    ],
)
async def test_an_error(words: str, error: type[APIError], part: str) -> None:
    async with server_for(words) as server:
        with pytest.raises(error, match=part) as caught:
            async with open_chat_stream(
                **QUESTION, api_key="k", base_url=server.url, max_retries=0
            ) as stream:
                await stream.until_done()
    if "error" not in words:
        assert caught.value.completion is not None
        said = words.partition(":")[2] if words.startswith("cut") else ""
        assert caught.value.completion.choices[0].message.content == (said or STYLE.text)


def test_every_kind_of_reply_is_explained() -> None:
    values = {"json": "{}", "call": "f {}", "error": "400"}
    for line in SYNTAX:
        kind = line.partition(":")[0]
        assert callable(reply_for(f"{kind}:{values.get(kind, '')}", STYLE))


# What the request asks for.


async def test_text_for_a_question() -> None:
    async with (
        server_for("auto") as server,
        open_chat_stream(**QUESTION, api_key="k", base_url=server.url) as stream,
    ):
        assert await stream.get_final_text() == "A text."


async def test_a_value_for_a_response_format() -> None:
    async with (
        server_for("auto") as server,
        open_chat_stream(
            **QUESTION, response_format=Explanation, api_key="k", base_url=server.url
        ) as stream,
    ):
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.parsed == Explanation("summary", ["keywords"])


async def test_calls_for_tools_then_an_answer() -> None:
    asked: ChatRequest = {**QUESTION, "tools": [temperature]}
    async with server_for("auto") as server:
        async with open_conversation(
            **asked, response_format=Explanation, api_key="k", base_url=server.url
        ) as conversation:
            completion = await conversation.get_final_completion()
    first, second = (request.json()["messages"] for request in server.requests)
    assert len(first) == 1
    assert [message["role"] for message in second] == ["user", "assistant", "tool"]
    assert second[-1]["content"] == "5"
    assert completion.choices[0].message.parsed == Explanation("summary", ["keywords"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"messages": []}',
        b'{"messages": [{"role": "user"}], "tools": [{"function": {}}]}',
        b'{"messages": [1]}',
        b'{"messages": [{"role": "user"}], "response_format": {"json_schema": 1}}',
        b'{"messages": [{"role": "user"}], "tools": [], "response_format": {"type": "text"}}',
    ],
)
async def test_a_text_for_what_is_no_request(body: bytes) -> None:
    async with server_for("auto") as server, httpx.AsyncClient(trust_env=False) as client:
        response = await client.post(server.url, content=body)
        assert "A" in response.text
        assert response.status_code == 200


async def test_the_programs_of_the_readme_run_against_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(blocks, "answer", reply_for("auto", STYLE))
    printed = await blocks.run_in_order(blocks.ROOT / "README.md", monkeypatch, capsys, tmp_path)
    print(printed)
    assert STYLE.text in printed
    assert "['keywords']" in printed  # structured output
    assert "temperature" in printed  # a call


# Samples.


@settings(max_examples=examples(200))
@given(made=TYPES)
def test_a_sample_fits_its_schema(made: Typed) -> None:
    tp, _ = made
    reader = response_type_of(tp)
    schema = reader.param["json_schema"]["schema"]
    sample = sample_of(schema)
    assert fits(sample, schema)


@dataclass
class Node:
    name: str
    next: Node | None
    others: list[Node]


class Formats(msgspec.Struct):
    day: dt.date
    moment: dt.datetime
    hour: dt.time
    id: uuid.UUID
    few: Annotated[list[int], msgspec.Meta(min_length=2)]
    count: Annotated[int, msgspec.Meta(gt=5, multiple_of=4)]
    small: Annotated[float, msgspec.Meta(lt=0)]
    between: Annotated[float, msgspec.Meta(gt=0, lt=1)]


@pytest.mark.parametrize("tp", [Node, Formats])
def test_a_sample_can_be_read(tp: type[Any]) -> None:
    reader = response_type_of(tp)
    reader.decode(json.dumps(sample_of(reader.param["json_schema"]["schema"])))


@pytest.mark.parametrize(
    ("schema", "sample"),
    [
        (None, "text"),
        ({}, "text"),
        ({"type": ["null", "integer"]}, 1),
        ({"type": ["null"]}, None),
        ({"allOf": [{"type": "string"}, {"minLength": 6}]}, "text.."),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, None),
        ({"$ref": "#/nowhere/a"}, "text"),
        ({"examples": [7], "type": "integer"}, 7),
        ({"type": "array", "items": {"const": 2}, "maxItems": 0}, []),
        ({"properties": {"a": {"type": "boolean"}, "b": {}}, "required": ["a"]}, {"a": True}),
    ],
)
def test_samples(schema: object, sample: object) -> None:
    assert sample_of(schema) == sample
