"""What can be pickled and copied, and what says that it cannot."""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from anyio_writer import (
    AsyncWriter,
    Limits,
    StreamTruncatedError,
    Timeouts,
    chat_stream_from,
    open_chat_stream,
    open_conversation,
    response_type_of,
)
from anyio_writer.testing import ChatServer, sse_event, text_reply, writer_chunks

REQUEST: Any = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
WAYS: list[Callable[[Any], Any]] = [
    lambda thing: pickle.loads(pickle.dumps(thing)),  # noqa: S301 - made here
    copy.copy,
    copy.deepcopy,
]


async def body() -> AsyncIterator[bytes]:
    for chunk in writer_chunks("Hello"):
        yield sse_event(chunk)


@pytest.mark.parametrize("way", WAYS, ids=["pickle", "copy", "deepcopy"])
async def test_what_belongs_to_a_process_says_so(way: Callable[[Any], Any]) -> None:
    async with AsyncWriter(api_key="a-secret") as writer, chat_stream_from(body()) as stream:
        things: list[Any] = [
            writer,
            writer.with_options(max_retries=0),
            writer.chat,
            stream,
            stream.subscribe(),
            stream.batches(),
            stream.run_tools([]),
            open_conversation(**REQUEST, api_key="a-secret"),
            ChatServer(),
        ]
        for thing in things:
            with pytest.raises(TypeError, match="cannot be pickled or copied") as caught:
                way(thing)
            assert "a-secret" not in str(caught.value)
        await stream.until_done()


@pytest.mark.parametrize("way", WAYS, ids=["pickle", "copy", "deepcopy"])
async def test_data_can_be_taken_along(way: Callable[[Any], Any]) -> None:
    async with ChatServer(text_reply('{"value": [1, 2]}')) as server:
        async with open_chat_stream(
            **REQUEST, response_format=list[int], api_key="k", base_url=server.url
        ) as stream:
            events = [event async for event in stream]
            completion = await stream.get_final_completion()
    for thing in (completion, *events, Limits(), Timeouts(), server.requests[0].headers):
        assert way(thing) == thing
    assert way(completion).choices[0].message.parsed == [1, 2]
    format_ = response_type_of(list[int])
    assert way(format_).decode('{"value": [3]}') == [3]
    error = way(StreamTruncatedError("words", completion=completion))
    assert error.completion == completion
