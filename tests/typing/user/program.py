"""A program of a user's, which strict type checkers accept with the installed package alone."""

from __future__ import annotations

import logging
from typing import Any, TypedDict, assert_type

import anyio
import httpx
import msgspec

from anyio_writer import (
    AsyncWriter,
    ChatCompletionStream,
    ChatCompletionStreamState,
    ChatRequest,
    ContentDeltaEvent,
    ContentDoneEvent,
    Conversation,
    MessageParam,
    ParsedChatCompletion,
    RefusalDeltaEvent,
    StreamingTransport,
    Subscription,
    chat_stream_from,
    open_chat_stream,
    open_conversation,
)
from anyio_writer.testing import ChatServer, Hold, ThreadsafeEvent, chunks_reply, writer_chunks


class Question(TypedDict):
    """What two requests have in common."""

    model: str
    messages: list[MessageParam]


class Explanation(msgspec.Struct):
    """Why something is as it is."""

    summary: str
    keywords: list[str]


REQUEST: ChatRequest = {
    "model": "palmyra-x5",
    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    "stream_options": {"include_usage": True},
}
QUESTION: Question = {
    "model": "palmyra-x5",
    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
}
PLAIN: dict[str, Any] = {"model": "palmyra-x5", "messages": []}


async def fields_beside_a_dictionary(writer: AsyncWriter) -> None:
    """Fields stand beside an unpacked dictionary that does not declare them."""
    assert_type(open_chat_stream(**QUESTION, temperature=0.2), ChatCompletionStream[None])
    assert_type(open_chat_stream(**PLAIN, temperature=0.2), ChatCompletionStream[Any])
    assert_type(writer.chat.stream(**QUESTION, temperature=0.2), ChatCompletionStream[None])
    assert_type(open_conversation(**QUESTION, max_rounds=2), Conversation[None])
    warmer: ChatRequest = {**REQUEST, "temperature": 0.9}
    assert_type(open_chat_stream(**warmer), ChatCompletionStream[None])


async def structured() -> None:
    """The answer has the type of the response format."""
    async with open_chat_stream(**REQUEST, response_format=Explanation) as stream:
        async for event in stream:
            if event.type == "content.delta":
                print(event.parsed)
        message = (await stream.get_final_completion()).choices[0].message
    if message.parsed is not None:
        assert_type(message.parsed.keywords, list[str])


async def log(answers: Subscription[ContentDoneEvent]) -> None:
    """A type parameter may be left out."""
    async for event in answers:
        logging.getLogger("answers").info(event.content)


async def log_texts(answers: Subscription[ContentDoneEvent[None]]) -> None:
    """Or be given."""
    async for event in answers:
        assert_type(event.parsed, None)


async def subscribe(stream: ChatCompletionStream) -> ParsedChatCompletion:
    """Subscribers get the events that they asked for."""
    stream.start_soon(log, stream.subscribe(ContentDoneEvent))
    stream.start_soon(log_texts, stream.subscribe(ContentDoneEvent))
    async for event in stream.subscribe(ContentDeltaEvent, RefusalDeltaEvent):
        assert_type(event.delta, str)
    return await stream.get_final_completion()


async def own_client() -> None:
    """A client of one's own."""
    transport = StreamingTransport(limits=httpx.Limits(max_connections=20))
    async with (
        httpx.AsyncClient(transport=transport) as client,
        AsyncWriter(client=client, max_connections=20) as writer,
        writer.chat.stream(**REQUEST) as stream,
    ):
        await subscribe(stream)
        assert_type(stream.response, httpx.Response | None)


async def recorded() -> None:
    """A stream of bytes."""
    async with await anyio.open_file("answer.sse", "rb") as recording:
        async with chat_stream_from(recording) as stream:
            assert_type(await stream.get_final_text(), str)
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    assert_type(state.get_final_completion().choices[0].message.parsed, None)


def tested() -> None:
    """The server for tests, in a thread."""
    go_on = ThreadsafeEvent()
    with ChatServer(chunks_reply([*writer_chunks("Hello"), Hold(go_on)])) as server:
        assert_type(server.url, str)
