"""llmock, a server that goes wrong as it is told, and then judges the client.

It plays OpenAI's API and, under paths of their own, that of others who imitate it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

import httpx
import pytest

from anyio_writer import (
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AsyncWriter,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    StreamTruncatedError,
    Timeouts,
    UnprocessableEntityError,
    function_tool,
)
from tests.interop.programs import Program

ASK: Final[Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
TEXT: Final = "one two three four five six"
TOOL: Final[Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
PROVIDERS: Final = {
    "openai": "",
    **{name: f"/{name}" for name in ("ai21", "mistral", "perplexity", "together", "xai")},
    "groq": "/groq/openai",
}


@pytest.fixture(params=["own client", "httpx client"])
async def writer(request: pytest.FixtureRequest, llmock: Program) -> AsyncGenerator[AsyncWriter]:
    async with httpx.AsyncClient() as plain:
        async with AsyncWriter(
            api_key="key",
            base_url=llmock.url,
            path="/v1/chat/completions",
            client=None if request.param == "own client" else plain,
            max_retries=0,
            timeouts=Timeouts(total=60),  # a net under a hang
        ) as writer:
            yield writer


async def told(llmock: Program, *behaviors: dict[str, Any]) -> None:
    """Have it do this with the next requests."""
    async with httpx.AsyncClient(base_url=llmock.url) as admin:
        response = await admin.post("/_llmock/scenario", json={"behaviors": list(behaviors)})
        response.raise_for_status()


async def judged(llmock: Program) -> list[str]:
    """What it found wrong with the client."""
    async with httpx.AsyncClient(base_url=llmock.url) as admin:
        verdict = (await admin.get("/_llmock/verdict")).json()
    return [finding["code"] for finding in verdict["findings"]]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_text(llmock: Program, provider: str) -> None:
    await told(llmock, {"type": "reply", "text": TEXT})
    async with AsyncWriter(
        api_key="key",
        base_url=f"{llmock.url}{PROVIDERS[provider]}",
        path="/v1/chat/completions",
        max_retries=0,
    ) as writer:
        async with writer.chat.stream(**ASK) as stream:
            deltas = [event.delta async for event in stream if event.type == "content.delta"]
        completion = await stream.get_final_completion()
    assert len(deltas) > 1
    assert "".join(deltas) == completion.choices[0].message.content == TEXT
    assert completion.choices[0].finish_reason == "stop"
    assert await judged(llmock) == []


async def test_two_choices_and_usage(llmock: Program, writer: AsyncWriter) -> None:
    await told(llmock, {"type": "reply", "text": TEXT})
    async with writer.chat.stream(**ASK, n=2, stream_options={"include_usage": True}) as stream:
        completion = await stream.get_final_completion()
    assert [choice.message.content for choice in completion.choices] == [TEXT, TEXT]
    assert completion.usage is not None
    assert completion.usage.completion_tokens > 0


async def test_calls(llmock: Program, writer: AsyncWriter) -> None:
    calls = [{"name": "get_weather", "arguments": {"city": city}} for city in ("Tromsø", "Rome")]
    await told(llmock, {"type": "reply", "tool_calls": calls})
    async with writer.chat.stream(**ASK, tools=[TOOL]) as stream:
        completion = await stream.get_final_completion()
    (choice,) = completion.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert [call.function.name for call in choice.message.tool_calls] == ["get_weather"] * 2
    assert "Troms" in choice.message.tool_calls[0].function.arguments


@pytest.mark.parametrize("after_chunks", [0, 1, 4])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("disconnect", StreamTruncatedError),
        ("truncate", StreamTruncatedError),
        ("malformed", APIResponseValidationError),
        ("stall", APITimeoutError),  # of the first content, or of the pause behind it
    ],
)
async def test_a_stream_that_breaks(
    llmock: Program,
    writer: AsyncWriter,
    kind: str,
    error: type[Exception],
    after_chunks: int,
) -> None:
    await told(
        llmock,
        {"type": "reply", "text": TEXT},
        {"type": "stream_fault", "kind": kind, "after_chunks": after_chunks, "stall_seconds": 5},
    )
    hasty = writer.with_options(timeouts=Timeouts(first_content=1, idle=0.3))
    got = ""
    with pytest.raises(error) as caught:
        async with hasty.chat.stream(**ASK) as stream:
            async for event in stream:
                if event.type == "content.delta":
                    got += event.delta
    assert TEXT.startswith(got)
    assert got != TEXT
    completion: Any = caught.value.completion  # type: ignore[attr-defined]
    kept = completion.choices[0].message.content if completion and completion.choices else None
    assert (kept or "") == got


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, UnprocessableEntityError),
        (429, RateLimitError),
        (500, InternalServerError),
        (503, InternalServerError),
        (529, InternalServerError),
    ],
)
async def test_a_status(
    llmock: Program, writer: AsyncWriter, status: int, error: type[APIStatusError]
) -> None:
    await told(llmock, {"type": "fail", "status": status, "message": "as you wished"})
    with pytest.raises(error, match="as you wished") as caught:
        async with writer.chat.stream(**ASK):
            pytest.fail("the block must not run")
    assert caught.value.status_code == status


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_retries(llmock: Program, writer: AsyncWriter, status: int) -> None:
    await told(
        llmock,
        {"type": "fail", "status": status, "times": 2, "retry_after": 0.1},
        {"type": "reply", "text": TEXT},
    )
    async with writer.with_options(max_retries=2).chat.stream(**ASK) as stream:
        assert await stream.get_final_text() == TEXT
    assert await judged(llmock) == []


@pytest.mark.parametrize("kind", ["malformed_arguments", "unknown_tool"])
async def test_a_broken_call_is_answered(llmock: Program, writer: AsyncWriter, kind: str) -> None:
    """With an error for the model, so that the conversation goes on."""
    ran: list[str] = []

    def get_weather(city: str) -> str:
        ran.append(city)
        return "fine"

    await told(llmock, {"type": "tool_fault", "kind": kind})
    async with writer.chat.stream(**ASK, tools=[function_tool(get_weather)]) as stream:
        run = stream.run_tools()
        results = await run.results()
    assert results
    assert all(result.error is not None for result in results)
    assert ran == []
