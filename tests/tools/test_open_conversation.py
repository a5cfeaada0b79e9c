"""The two ways to a conversation, from a request to its end, on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from anyio_writer import (
    AsyncWriter,
    ConfigurationError,
    Conversation,
    InvalidParameterError,
    function_tool,
    open_conversation,
)
from anyio_writer.testing import ChatServer, text_reply, tool_call_reply


class Weather(msgspec.Struct):
    degrees: int


@function_tool
async def temperature(city: str) -> int:
    """The temperature in a city."""
    return len(city)


@asynccontextmanager
async def opened(way: str, url: str, **arguments: Any) -> AsyncIterator[Conversation[Any]]:
    request: dict[str, Any] = {"model": "m", **arguments}
    if way == "open_conversation":
        async with open_conversation(api_key="key", base_url=url, **request) as conversation:
            yield conversation
    else:
        async with (
            AsyncWriter(api_key="key", base_url=url) as writer,
            writer.chat.conversation(**request) as conversation,
        ):
            yield conversation


@pytest.mark.parametrize("way", ["open_conversation", "writer.chat.conversation"])
async def test_two_rounds_and_a_typed_answer(way: str) -> None:
    calls = [("temperature", '{"city": "Rome"}'), ("temperature", '{"city": "Lima!"}')]
    async with (
        ChatServer(tool_call_reply(calls), text_reply('{"degrees": 5}')) as server,
        opened(
            way,
            server.url,
            messages=({"role": "user", "content": each} for each in ["Hello"]),  # read once
            tools=(tool for tool in [temperature]),
            response_format=Weather,
        ) as conversation,
    ):
        events = [event async for event in conversation]
        completion = await conversation.get_final_completion()
    assert completion.choices[0].message.parsed == Weather(5)
    assert [event.round for event in events if event.type == "round.started"] == [0, 1]
    assert [event.content for event in events if event.type == "tool.result"] == ["4", "5"]
    first, second = (request.json() for request in server.requests)
    assert first["tools"] == second["tools"] == [temperature.to_param()]
    assert first["response_format"] == second["response_format"]
    assert [message["role"] for message in second["messages"]] == [
        *("user", "assistant", "tool", "tool"),
    ]
    assert [message["content"] for message in second["messages"][2:]] == ["4", "5"]
    assert [message["role"] for message in conversation.messages][-1] == "assistant"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, r"tools\[0\] is a diction"),
        ({"tools": temperature}, "Put it into a list"),
        ({"tools": [print]}, r"Make it a tool: function_tool\(print\)"),
        ({"n": 2}, "n must be 1"),
        ({"max_rounds": 0}, "max_rounds"),
        ({"total_time": 0}, "total_time"),
        ({"tool_limit": 0}, "tool_limit"),
        ({"on_tool_error": "log"}, "on_tool_error"),
        ({"max_round": 3}, "max_round"),
    ],
)
@pytest.mark.parametrize("way", ["open_conversation", "writer.chat.conversation"])
async def test_what_is_wrong_is_named_before_anything_is_sent(
    way: str, wrong: dict[str, Any], said: str
) -> None:
    arguments = {"messages": [{"role": "user", "content": "Hello"}], "tools": [temperature]}
    async with ChatServer(text_reply()) as server:
        with pytest.raises((InvalidParameterError, ConfigurationError), match=said):
            async with opened(way, server.url, **(arguments | wrong)):
                pass
    assert not server.requests
