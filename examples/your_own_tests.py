"""Test code that uses anyio_writer, against a server that does what the test says.

pytest examples/your_own_tests.py

In this repository, that needs what the library's own tests need (CONTRIBUTING.md). A copy in a
folder of its own needs only pytest.

anyio's plugin for pytest runs each test on asyncio and on trio.
"""

import anyio
import pytest

from anyio_writer import APIError, AsyncWriter, FirstContentTimeoutError, RateLimitError, Timeouts
from anyio_writer.testing import (
    ChatServer,
    Cut,
    Reply,
    Stall,
    chunks_reply,
    error_reply,
    text_reply,
    writer_chunks,
)

pytestmark = pytest.mark.anyio


async def summary(writer: AsyncWriter, text: str) -> str:
    """The code under test: an answer, or as much of one as there is."""
    try:
        async with writer.chat.stream(
            model="palmyra-x5", messages=[{"role": "user", "content": f"In one line: {text}"}]
        ) as stream:
            return await stream.get_final_text()
    except APIError as exc:
        if exc.completion is None:  # it had not begun
            raise
        return f"{exc.completion.choices[0].message.content} …"


def writer_for(server: ChatServer) -> AsyncWriter:
    return AsyncWriter(
        api_key="test", base_url=server.url, max_retries=0, timeouts=Timeouts(first_content=1)
    )


async def test_it_asks_the_right_question() -> None:
    async with ChatServer(text_reply("Short.")) as server, writer_for(server) as writer:
        assert await summary(writer, "a long text") == "Short."
    assert server.requests[0].json()["messages"][0]["content"] == "In one line: a long text"


async def test_half_an_answer_is_marked() -> None:
    opening, word, *_ = writer_chunks("Short and sweet.")
    half = chunks_reply([opening, word, Cut()])
    async with ChatServer(half) as server, writer_for(server) as writer:
        assert await summary(writer, "a long text") == "Short …"


async def test_a_refusal_is_not_hidden() -> None:
    async with ChatServer(error_reply(429)) as server, writer_for(server) as writer:
        with pytest.raises(RateLimitError):
            await summary(writer, "a long text")


async def test_a_silent_server_is_given_up() -> None:
    async with ChatServer(Reply(body=[Stall()])) as server, writer_for(server) as writer:
        with anyio.fail_after(5), pytest.raises(FirstContentTimeoutError):
            await summary(writer, "a long text")
