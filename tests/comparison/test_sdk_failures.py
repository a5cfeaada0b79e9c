"""Streams on which the official SDK fails and this library does not."""

from pathlib import Path
from typing import Any

import httpx
import pytest
import writerai

import anyio_writer
from tests.comparison.cases import CASES, Case, page

REQUEST: dict[str, Any] = {
    "model": "palmyra-x5",
    "messages": [{"role": "user", "content": "Hi"}],
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The SDK leaves generators behind that trio complains about."""
    return "asyncio"


def transport(body: str) -> httpx.MockTransport:
    headers = {"content-type": "text/event-stream"}
    return httpx.MockTransport(
        lambda _: httpx.Response(200, headers=headers, content=body.encode())
    )


def outcome(completion: Any, events: list[Any]) -> str:
    """What came of a stream, in words."""
    done = sum(event.type == "tool_calls.function.arguments.done" for event in events)
    parts: list[str] = []
    for choice in completion.choices:
        message = choice.message
        calls = [
            f"call {call.function.name} {call.function.arguments!r}"
            for call in message.tool_calls or ()
        ]
        if message.content is not None and (message.content or not choice.finish_reason):
            parts.append(f"text {message.content!r}")
        if calls:
            parts.append(f"{', '.join(calls)} ({done} done)")
        parts.append(str(choice.finish_reason))
        graph = getattr(message, "graph_data", None)
        if graph is not None and graph.status is not None:
            parts.append(f"status {graph.status!r}")
        if graph is not None and graph.sources:
            parts.append(f"{len(graph.sources)} source")
    if completion.usage is not None:
        parts.append(f"{completion.usage.total_tokens} tokens")
    return "; ".join(parts)


async def by_the_sdk(body: str) -> str:
    events: list[Any] = []
    http_client = httpx.AsyncClient(transport=transport(body))
    async with writerai.AsyncWriter(api_key="k", http_client=http_client) as client:
        try:
            async with client.chat.stream(**REQUEST) as stream:
                async for event in stream:
                    events.append(event)
                return outcome(stream.current_completion_snapshot, events)
        except Exception as exc:
            return type(exc).__name__


async def by_this_library(body: str) -> str:
    events: list[Any] = []
    async with httpx.AsyncClient(transport=transport(body)) as client:
        try:
            async with anyio_writer.open_chat_stream(
                **REQUEST, api_key="k", client=client
            ) as stream:
                async for event in stream:
                    events.append(event)
                return outcome(await stream.get_final_completion(), events)
        except anyio_writer.APIError as exc:
            name = type(exc).__name__
            if exc.completion is None or not exc.completion.choices:
                return name
            return f"{name}, keeping {outcome(exc.completion, events).removesuffix('; None')}"


@pytest.mark.drops_generators("the SDK closes only the outermost of its own")
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # arguments as an object
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_sdk_still_does_what_the_table_says(case: Case) -> None:
    assert await by_the_sdk(case.body) == case.sdk


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_this_library_does_what_the_table_says(case: Case) -> None:
    assert await by_this_library(case.body) == case.ours


def test_every_row_is_a_difference() -> None:
    assert all(case.sdk != case.ours for case in CASES)
    assert len({case.name for case in CASES}) == len(CASES)


def test_the_page_is_what_the_table_gives() -> None:
    path = Path(__file__).parents[2] / "docs" / "compared-with-the-sdk.md"
    assert path.read_text(encoding="utf-8") == page(), (
        "run: python tests/comparison/cases.py > docs/compared-with-the-sdk.md"
    )
