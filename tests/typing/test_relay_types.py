"""What the relay's streams hold, by what they are told."""

from __future__ import annotations

from typing import Any, assert_type

import msgspec

from anyio_writer import AsyncWriter, Conversation
from anyio_writer.relay import (
    MemoryRelay,
    RedisRelay,
    Relay,
    RelayedConversation,
    RelayedStream,
    RelayStatus,
)


class Answer(msgspec.Struct):
    text: str


async def relays() -> None:
    async with RedisRelay("redis://localhost") as redis:
        assert_type(redis, RedisRelay)
    async with MemoryRelay() as memory:
        assert_type(memory, MemoryRelay)
        assert_type(await memory.status("key"), RelayStatus)
        assert_type(await memory.stop("key"), bool)


async def readers(relay: Relay) -> None:
    assert_type(relay.open_stream("key"), RelayedStream[None])
    assert_type(relay.open_stream("key", response_format=Answer, skip=3), RelayedStream[Answer])
    assert_type(relay.open_stream("key", response_format=Answer | int), RelayedStream[Any])
    assert_type(relay.open_conversation("key", response_format=Answer), RelayedConversation[Answer])
    async with relay.open_stream("key", response_format=Answer) as stream:
        assert_type(stream.generation, int)
        final = await stream.get_final_completion()
        assert_type(final.choices[0].message.parsed, Answer | None)


async def starters(relay: Relay, writer: AsyncWriter, talk: Conversation[Answer]) -> None:
    async with relay.start_or_join(
        "key", lambda: writer.chat.stream(messages=[], model="m")
    ) as stream:
        assert_type(stream, RelayedStream[None])
    async with relay.start_or_join(
        "key",
        lambda: writer.chat.stream(messages=[], model="m", response_format=Answer),
        response_format=Answer,
    ) as answers:
        assert_type(answers, RelayedStream[Answer])
    async with relay.start_or_join("key", lambda: talk, response_format=Answer) as conversation:
        assert_type(conversation, RelayedConversation[Answer])
