"""``with_options()``: other settings, the same connections."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from anyio_writer import (
    AsyncWriter,
    ConfigurationError,
    FirstContentTimeoutError,
    InternalServerError,
    StreamTruncatedError,
    Timeouts,
    WriterError,
    function_tool,
)
from anyio_writer.testing import (
    ChatServer,
    Stall,
    chunks_reply,
    error_reply,
    text_reply,
    tool_call_reply,
)
from tests.transport.opening_helpers import KEY, MESSAGES

REQUEST: Any = {"model": "m", "messages": MESSAGES}


def writer_to(server: ChatServer, **configuration: Any) -> AsyncWriter:
    return AsyncWriter(**{"api_key": KEY, "base_url": server.url} | configuration)


async def text_of(writer: AsyncWriter) -> str:
    async with writer.chat.stream(**REQUEST) as stream:
        return await stream.get_final_text()


async def test_requests_go_with_the_options_over_the_same_connection() -> None:
    async with (
        ChatServer(text_reply(done=True)) as server,
        writer_to(server, headers={"x-a": "1", "x-b": "1"}) as writer,
    ):
        view = writer.with_options(
            api_key="other", path="/v2/chat", headers={"X-A": "2", "x-b": None, "x-c": "3"}
        )
        for each in (writer, view, view.with_options(headers={"x-c": None}), writer):
            await text_of(each)
    assert len(server.connections) == 1
    seen = [
        (
            request.target,
            request.header("authorization"),
            *(request.header(name) for name in ("x-a", "x-b", "x-c")),
        )
        for request in server.requests
    ]
    own = ("/v1/chat", f"Bearer {KEY}", "1", "1", None)
    assert seen == [
        own,
        ("/v2/chat", "Bearer other", "2", None, "3"),
        ("/v2/chat", "Bearer other", "2", None, None),
        own,
    ]


async def test_the_server_and_the_key_do_not_follow_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ChatServer(text_reply(done=True)) as server:
        monkeypatch.setenv("WRITER_BASE_URL", server.url)
        monkeypatch.setenv("WRITER_API_KEY", "before")
        async with AsyncWriter() as writer:
            monkeypatch.setenv("WRITER_BASE_URL", "http://nobody.invalid")
            monkeypatch.setenv("WRITER_API_KEY", "after")
            await text_of(writer.with_options(path="/p"))
    assert server.requests[0].target == "/p"
    assert server.requests[0].header("authorization") == "Bearer before"


async def test_another_server() -> None:
    async with (
        ChatServer(text_reply("one", done=True)) as server,
        ChatServer(text_reply("two", done=True)) as other,
        writer_to(server, path="/p") as writer,
    ):
        view = writer.with_options(base_url=other.url)
        assert [await text_of(writer), await text_of(view)] == ["one", "two"]
    assert other.requests[0].target == "/p"


async def test_retries() -> None:
    async with (
        ChatServer(error_reply(500), text_reply("a", done=True)) as server,
        writer_to(server) as writer,
    ):
        with pytest.raises(InternalServerError):
            await text_of(writer.with_options(max_retries=0))
        assert await text_of(writer) == "a"
    assert len(server.requests) == 2


async def test_time_limits() -> None:
    async with ChatServer(chunks_reply([Stall()])) as server, writer_to(server) as writer:
        view = writer.with_options(timeouts=Timeouts(first_content=0.05))
        with pytest.raises(FirstContentTimeoutError):
            await text_of(view)


async def test_whether_an_end_is_required() -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
    async with ChatServer(chunks_reply([chunk])) as server, writer_to(server) as writer:
        assert await text_of(writer.with_options(require_finish=False)) == "a"
        with pytest.raises(StreamTruncatedError):
            await text_of(writer)


async def test_conversations() -> None:
    @function_tool
    def now() -> str:
        """The time."""
        return "12:00"

    async with (
        ChatServer(tool_call_reply([("now", "{}")]), text_reply("noon", done=True)) as server,
        writer_to(server) as writer,
    ):
        view = writer.with_options(headers={"x-a": "1"})
        async with view.chat.conversation(**REQUEST, tools=[now]) as conversation:
            completion = await conversation.get_final_completion()
    assert completion.choices[0].message.content == "noon"
    assert [request.header("x-a") for request in server.requests] == ["1", "1"]


async def test_streams_of_all_views_wait_for_the_same_slots() -> None:
    async with (
        ChatServer(text_reply(done=True)) as server,
        writer_to(server, max_connections=1) as writer,
    ):
        async with anyio.create_task_group() as tg:
            async with writer.chat.stream(**REQUEST) as stream:
                tg.start_soon(text_of, writer.with_options(path="/p"))
                await anyio.wait_all_tasks_blocked()
                assert len(server.requests) == 1
                await stream.until_done()
    assert len(server.requests) == 2


async def test_closing_a_view_closes_it_alone() -> None:
    async with ChatServer(text_reply("a", done=True)) as server, writer_to(server) as writer:
        async with writer.with_options(path="/p") as view:
            await text_of(view)
        with pytest.raises(WriterError, match="closed"):
            view.chat.stream(**REQUEST)
        assert await text_of(writer) == "a"
        assert await text_of(writer.with_options(path="/p")) == "a"
        assert len(server.connections) == 1


async def test_closing_the_writer_closes_its_views() -> None:
    async with ChatServer(text_reply("a", done=True)) as server:
        async with writer_to(server) as writer:
            view = writer.with_options(path="/p").with_options(max_retries=1)
        with pytest.raises(WriterError, match="closed"):
            view.chat.stream(**REQUEST)


async def test_a_client_of_the_callers_own_is_shared() -> None:
    async with (
        ChatServer(text_reply("a", done=True)) as server,
        httpx.AsyncClient(headers={"x-client": "1"}) as client,
        writer_to(server, client=client) as writer,
    ):
        await text_of(writer.with_options(path="/p"))
        assert not client.is_closed
    assert server.requests[0].header("x-client") == "1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client": None}, "client belongs to the connections"),
        ({"max_connections": 5}, "max_connections belongs to the connections"),
        ({"timeout": 5}, "There is no setting timeout"),
        ({"timeouts": 5}, "timeouts must be a Timeouts, not 5"),
        ({"headers": 5}, "headers must be a mapping, not int"),
        ({"headers": {"a": 5}}, r"headers\['a'\] must be text or None, not int"),
        ({"max_retries": None}, "max_retries must be a whole number"),
        ({"base_url": "x"}, "base_url must be like"),
        ({"api_key": " "}, "There is no API key"),
    ],
)
def test_wrong_options_are_named(options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        AsyncWriter(api_key=KEY).with_options(**options)


def test_its_repr_shows_where_it_goes() -> None:
    view = AsyncWriter(api_key=KEY, max_connections=5).with_options(base_url="https://c.d")
    assert repr(view) == "AsyncWriter(url='https://c.d/v1/chat', max_connections=5)"
