"""Streams through nginx: as it comes, unbuffered, with gzip, closing, and cutting off.

What it cannot pass on, it says with a status of its own (502, 504), but only while the head of
the response has not gone out. After that it can do nothing but cut the connection.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

import anyio
import httpx
import pytest

from anyio_writer import (
    AsyncWriter,
    InternalServerError,
    Message,
    StreamTruncatedError,
    Timeouts,
)
from anyio_writer.testing import (
    ChatServer,
    Cut,
    Hold,
    Reply,
    Reset,
    Stall,
    chunks_reply,
    text_reply,
    tool_call_reply,
    writer_chunks,
)
from tests.interop.programs import Program

HANGS: Final = 60  # seconds; a net under a hang
MESSAGES: Final[list[Message]] = [{"role": "user", "content": "hi"}]
ASK: Final[Any] = {"model": "m", "messages": MESSAGES}
UNFINISHED: Final = list(writer_chunks("so far"))[:-1]
LONG_TEXT: Final = "".join(f"token {number}, naïve 😀; " for number in range(2000))

WAYS: Final = ["buffered", "unbuffered", "gzip", "closing"]
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(params=["own client", "httpx client"])
async def writer(
    request: pytest.FixtureRequest, nginx: Program, way: str
) -> AsyncGenerator[AsyncWriter]:
    async with httpx.AsyncClient() as plain:
        async with AsyncWriter(
            api_key="key",
            base_url=f"{nginx.url}/{way}",
            client=None if request.param == "own client" else plain,
            max_retries=0,
            timeouts=Timeouts(total=HANGS),
        ) as writer:
            yield writer


@every_way
async def test_a_long_answer(writer: AsyncWriter, behind_nginx: ChatServer) -> None:
    behind_nginx.add(text_reply(LONG_TEXT))
    async with writer.chat.stream(**ASK, stream_options={"include_usage": True}) as stream:
        deltas = [event.delta async for event in stream if event.type == "content.delta"]
    completion = await stream.get_final_completion()
    assert "".join(deltas) == LONG_TEXT
    assert completion.choices[0].message.content == LONG_TEXT
    assert completion.usage is not None
    assert behind_nginx.requests[0].json()["messages"] == MESSAGES


@every_way
async def test_two_choices_and_calls(writer: AsyncWriter, behind_nginx: ChatServer) -> None:
    calls = [("get_weather", '{"city": "Tromsø"}'), ("get_time", "{}")]
    behind_nginx.add(text_reply(["Hi", "Ho"]), tool_call_reply(calls, done=True))
    async with writer.chat.stream(**ASK, n=2) as stream:
        completion = await stream.get_final_completion()
    assert [choice.message.content for choice in completion.choices] == ["Hi", "Ho"]
    async with writer.chat.stream(**ASK) as stream:
        completion = await stream.get_final_completion()
    found = completion.choices[0].message.tool_calls
    assert found is not None
    assert [(call.function.name, call.function.arguments) for call in found] == calls


@every_way
async def test_many_at_once_and_one_after_the_other(
    writer: AsyncWriter, behind_nginx: ChatServer
) -> None:
    texts: list[str] = []

    async def ask() -> None:
        async with writer.chat.stream(**ASK) as stream:
            texts.append(await stream.get_final_text())

    behind_nginx.add(*[text_reply("Hello")] * 35)
    async with anyio.create_task_group() as tasks:
        for _ in range(30):
            tasks.start_soon(ask)
    for _ in range(5):
        await ask()
    assert texts == ["Hello"] * 35


@pytest.mark.parametrize("way", ["unbuffered"])
async def test_each_piece_comes_when_it_was_sent(
    writer: AsyncWriter, behind_nginx: ChatServer
) -> None:
    go_on = anyio.Event()
    first, *rest = writer_chunks("one two")[1:]
    behind_nginx.add(chunks_reply([first, Hold(go_on), *rest]))
    async with writer.chat.stream(**ASK) as stream:
        async for event in stream:
            if event.type == "content.delta":
                go_on.set()  # the rest is not even written before
        assert await stream.get_final_text() == "one two"


@every_way
@pytest.mark.parametrize("fault", [Cut(), Reset()], ids=["cut", "reset"])
async def test_a_server_behind_that_breaks_off(
    writer: AsyncWriter, behind_nginx: ChatServer, fault: Any
) -> None:
    behind_nginx.add(chunks_reply([*UNFINISHED, fault]))
    with pytest.raises(StreamTruncatedError) as caught:
        async with writer.chat.stream(**ASK) as stream:
            await stream.until_done()
    completion = caught.value.completion
    # nginx drops what it still holds when the server behind it resets the connection.
    if completion is not None and completion.choices:
        assert "so far".startswith(completion.choices[0].message.content or "")
        assert completion.choices[0].finish_reason is None


@pytest.mark.parametrize("way", ["unbuffered"])
async def test_what_was_read_before_the_break_is_kept(
    writer: AsyncWriter, behind_nginx: ChatServer
) -> None:
    arrived = anyio.Event()
    behind_nginx.add(chunks_reply([*UNFINISHED, Hold(arrived), Reset()]))
    text = ""
    with pytest.raises(StreamTruncatedError) as caught:
        async with writer.chat.stream(**ASK) as stream:
            async for event in stream:
                if event.type == "content.delta":
                    text += event.delta
                if text == "so far":
                    arrived.set()
    assert caught.value.completion is not None
    assert caught.value.completion.choices[0].message.content == text == "so far"


@every_way
async def test_nobody_behind_is_a_502(writer: AsyncWriter) -> None:
    with pytest.raises(InternalServerError) as caught:
        async with writer.chat.stream(**ASK):
            pytest.fail("the block must not run")
    assert caught.value.status_code == 502
    assert "502 Bad Gateway" in str(caught.value.body)


@pytest.mark.parametrize("way", ["impatient"])
async def test_a_late_head_is_a_504(writer: AsyncWriter, behind_nginx: ChatServer) -> None:
    behind_nginx.add(Reply(headers_hold=anyio.Event()))
    with pytest.raises(InternalServerError) as caught:
        async with writer.chat.stream(**ASK):
            pytest.fail("the block must not run")
    assert caught.value.status_code == 504
    assert "504 Gateway" in str(caught.value.body)


@pytest.mark.parametrize("way", ["impatient"])
async def test_a_late_head_is_asked_for_again(
    writer: AsyncWriter, behind_nginx: ChatServer
) -> None:
    behind_nginx.add(Reply(headers_hold=anyio.Event()), text_reply("at last"))
    async with writer.with_options(max_retries=1).chat.stream(**ASK) as stream:
        assert await stream.get_final_text() == "at last"
    assert len(behind_nginx.requests) == 2


@pytest.mark.parametrize("way", ["impatient"])
async def test_a_server_behind_that_stalls(writer: AsyncWriter, behind_nginx: ChatServer) -> None:
    """Too late for a 504: nginx cuts the answer off."""
    behind_nginx.add(chunks_reply([*UNFINISHED, Stall()]))
    with pytest.raises(StreamTruncatedError) as caught:
        async with writer.chat.stream(**ASK) as stream:
            await stream.until_done()
    assert caught.value.completion is not None
    assert caught.value.completion.choices[0].message.content == "so far"


@pytest.mark.parametrize("way", ["unbuffered", "closing"])
async def test_leaving_early_reaches_the_server_behind(
    writer: AsyncWriter, behind_nginx: ChatServer, way: str
) -> None:
    behind_nginx.add(chunks_reply([*UNFINISHED, Stall()]), text_reply("next"))
    headers = {"X-Accel-Buffering": "no"}
    async with writer.chat.stream(**ASK, extra_headers=headers) as stream:
        with anyio.move_on_after(0.05):
            await stream.until_done()
    with anyio.fail_after(HANGS):
        request = await behind_nginx.wait_disconnect()
    assert not request.answered
    async with writer.chat.stream(**ASK) as stream:
        assert await stream.get_final_text() == "next"
