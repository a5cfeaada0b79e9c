"""Streams from, and through, a LiteLLM proxy.

Its manners, as version 1.106.2 shows them: only the first of several choices ever gets a
finish reason; the usage comes in a chunk with an empty delta instead of no choices; every
piece of a tool call says its ``type`` again; an error in mid-stream is a frame whose code
is a string, without ``[DONE]``; chunks handed on from Writer keep an id each. A stream that
its upstream ends too early, but in good order, it finishes itself, with ``"stop"``: that
cut no client can see.
"""

from collections.abc import AsyncGenerator
from typing import Final

import anyio
import pytest

from anyio_writer import (
    APIStatusError,
    APIStreamError,
    AsyncWriter,
    BadRequestError,
    InternalServerError,
    Message,
    RateLimitError,
    Timeouts,
    open_chat_stream,
)
from anyio_writer.testing import (
    ChatServer,
    Hold,
    Reset,
    Stall,
    chunks_reply,
    error_reply,
    text_reply,
    tool_call_reply,
    writer_chunks,
)
from tests.interop.conftest import KEY, MOCK_TEXT
from tests.interop.programs import Program

PATH: Final = "/v1/chat/completions"
MESSAGES: Final[list[Message]] = [{"role": "user", "content": "hi"}]
LONG_TEXT: Final = "".join(f"token {number}, naïve 😀; " for number in range(500))
# Chunks of a text that goes on: all but the one with the finish reason.
UNFINISHED: Final = list(writer_chunks("so far"))[:-1]


@pytest.fixture
async def client(litellm: Program) -> AsyncGenerator[AsyncWriter]:
    async with AsyncWriter(
        api_key=KEY,
        base_url=litellm.url,
        path=PATH,
        max_retries=0,
        timeouts=Timeouts(total=60),  # a net under a hang
    ) as client:
        yield client


async def test_an_answer(litellm: Program) -> None:
    deltas: list[str] = []
    done: list[str] = []
    async with open_chat_stream(
        api_key=KEY,
        base_url=litellm.url,
        path=PATH,
        model="fake",
        messages=MESSAGES,
        stream_options={"include_usage": True},
    ) as stream:
        async for event in stream:
            if event.type == "content.delta":
                deltas.append(event.delta)
            elif event.type == "content.done":
                done.append(event.content)
    completion = await stream.get_final_completion()

    assert len(deltas) > 1
    assert "".join(deltas) == MOCK_TEXT
    assert done == [MOCK_TEXT]
    assert completion.model == "fake"
    (choice,) = completion.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == MOCK_TEXT
    assert choice.finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.completion_tokens > 0
    assert completion.usage.total_tokens == (
        completion.usage.prompt_tokens + completion.usage.completion_tokens
    )


async def test_two_choices_of_which_one_never_gets_its_finish_reason(client: AsyncWriter) -> None:
    async with client.chat.stream(model="fake", messages=MESSAGES, n=2) as stream:
        done = [
            (event.choice_index, event.content)
            async for event in stream
            if event.type == "content.done"
        ]
    completion = await stream.get_final_completion()

    assert [choice.message.content for choice in completion.choices] == [MOCK_TEXT] * 2
    assert [choice.finish_reason for choice in completion.choices] == ["stop", None]
    assert sorted(done) == [(0, MOCK_TEXT), (1, MOCK_TEXT)]


async def test_one_client_many_streams(client: AsyncWriter) -> None:
    for _ in range(3):
        async with client.chat.stream(model="fake", messages=MESSAGES) as stream:
            assert await stream.get_final_text() == MOCK_TEXT

    texts: list[str] = []

    async def ask() -> None:
        async with client.chat.stream(model="fake", messages=MESSAGES) as stream:
            texts.append(await stream.get_final_text())

    async with anyio.create_task_group() as tg:
        for _ in range(20):
            tg.start_soon(ask)
    assert texts == [MOCK_TEXT] * 20


async def test_an_unknown_model(client: AsyncWriter) -> None:
    with pytest.raises(BadRequestError) as caught:
        async with client.chat.stream(model="nobody", messages=MESSAGES):
            pass
    assert caught.value.status_code == 400
    assert "nobody" in str(caught.value.body)


async def test_a_wrong_key(litellm: Program) -> None:
    with pytest.raises(APIStatusError) as caught:
        async with open_chat_stream(
            api_key="sk-wrong", base_url=litellm.url, path=PATH, model="fake", messages=MESSAGES
        ):
            pass
    # Not 401: it would look the key up in a database, and has none.
    assert caught.value.status_code in range(400, 500)
    assert "sk-wrong" not in str(caught.value)


async def test_a_rate_limit(client: AsyncWriter) -> None:
    with pytest.raises(RateLimitError) as caught:
        async with client.chat.stream(model="limited", messages=MESSAGES):
            pass
    assert caught.value.status_code == 429


async def test_a_long_text_from_writer_passes_through(
    client: AsyncWriter, behind_litellm: ChatServer
) -> None:
    behind_litellm.add(text_reply(LONG_TEXT))
    async with client.chat.stream(
        model="upstream-long", messages=MESSAGES, stream_options={"include_usage": True}
    ) as stream:
        deltas = [event.delta async for event in stream if event.type == "content.delta"]
    completion = await stream.get_final_completion()

    assert "".join(deltas) == LONG_TEXT
    assert completion.choices[0].message.content == LONG_TEXT
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert behind_litellm.requests[0].json()["messages"] == MESSAGES


async def test_tool_calls_pass_through(client: AsyncWriter, behind_litellm: ChatServer) -> None:
    calls = [("get_weather", '{"city": "Tromsø"}'), ("get_time", "{}")]
    behind_litellm.add(tool_call_reply(calls, done=True))
    async with client.chat.stream(model="upstream-tools", messages=MESSAGES) as stream:
        done = [
            (event.name, event.arguments)
            async for event in stream
            if event.type == "tool_calls.function.arguments.done"
        ]
    completion = await stream.get_final_completion()

    (choice,) = completion.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert [(c.function.name, c.function.arguments) for c in choice.message.tool_calls] == calls
    assert [call.type for call in choice.message.tool_calls] == ["function"] * 2
    assert done == calls


async def test_leaving_early_reaches_the_server_behind(
    client: AsyncWriter, behind_litellm: ChatServer
) -> None:
    behind_litellm.add(chunks_reply([*UNFINISHED, Stall()]), text_reply("next"))
    async with client.chat.stream(model="upstream-left", messages=MESSAGES) as stream:
        async for event in stream:
            if event.type == "content.delta":
                break
    with anyio.fail_after(30):
        request = await behind_litellm.wait_disconnect()
    assert request.peer_left is not None
    assert not request.answered

    async with client.chat.stream(model="upstream-next", messages=MESSAGES) as stream:
        assert await stream.get_final_text() == "next"


async def test_an_error_in_mid_stream(client: AsyncWriter, behind_litellm: ChatServer) -> None:
    behind_litellm.add(chunks_reply([*UNFINISHED, {"error": {"message": "out of luck"}}]))
    await _fails_after_the_text(client, says="out of luck")


async def test_a_server_behind_that_breaks_off(
    client: AsyncWriter, behind_litellm: ChatServer
) -> None:
    arrived = anyio.Event()
    behind_litellm.add(chunks_reply([*UNFINISHED, Hold(arrived), Reset()]))
    await _fails_after_the_text(client, says="reset", arrived=arrived)


async def _fails_after_the_text(
    client: AsyncWriter, *, says: str, arrived: anyio.Event | None = None
) -> None:
    text = ""
    with pytest.raises(APIStreamError) as caught:
        async with client.chat.stream(model="upstream-broken", messages=MESSAGES) as stream:
            async for event in stream:
                if event.type == "content.delta":
                    text += event.delta
                if text == "so far" and arrived is not None:
                    arrived.set()
    assert text == "so far"
    assert says in str(caught.value.body)
    assert caught.value.completion is not None
    assert caught.value.completion.choices[0].message.content == "so far"
    assert caught.value.completion.choices[0].finish_reason is None


async def test_a_server_behind_that_is_down(client: AsyncWriter) -> None:
    with pytest.raises(InternalServerError):
        async with client.chat.stream(model="upstream-down", messages=MESSAGES):
            pass


async def test_a_retry_when_the_server_behind_was_busy(
    litellm: Program, behind_litellm: ChatServer
) -> None:
    behind_litellm.add(error_reply(503), text_reply("at last"))
    async with open_chat_stream(
        api_key=KEY,
        base_url=litellm.url,
        path=PATH,
        model="upstream-busy",
        messages=MESSAGES,
        max_retries=1,
    ) as stream:
        assert await stream.get_final_text() == "at last"
    assert len(behind_litellm.requests) == 2
