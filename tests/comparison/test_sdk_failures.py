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
    parts: list[str] = []
    texts = [choice.message.content for choice in completion.choices]
    for choice in completion.choices:
        message = choice.message
        if reasoning := getattr(message, "reasoning_content", None):
            has_event = any(event.type == "reasoning.delta" for event in events)
            parts.append(f"reasoning {reasoning!r}{'' if has_event else ' (no event)'}")
        if message.content is not None and (message.content or not choice.finish_reason):
            parts.append(f"text {message.content!r}{early_text(texts, events)}")
        if message.tool_calls:
            parts.append(calls_in_words(message.tool_calls, events))
        parts.append(str(choice.finish_reason))
        graph = getattr(message, "graph_data", None)
        if graph is not None and graph.status is not None:
            parts.append(f"status {graph.status!r}")
        if graph is not None and graph.sources:
            parts.append(f"{len(graph.sources)} source")
    if completion.usage is not None and completion.usage.total_tokens is not None:
        parts.append(f"{completion.usage.total_tokens} tokens")
    return "; ".join(parts)


def early_text(texts: list[object], events: list[Any]) -> str:
    """The text of the first ``content.done`` event that is the text of no choice."""
    for event in events:
        if event.type == "content.done" and event.content not in texts:
            return f", but {event.content!r} in content.done"
    return ""


def calls_in_words(calls: list[Any], events: list[Any]) -> str:
    done = sum(each.type == "tool_calls.function.arguments.done" for each in events)
    words: list[str] = []
    for call in calls:
        id_ = "" if isinstance(call.id, str) else f" with the id {call.id}"
        words.append(f"call {call.function.name} {call.function.arguments!r}{id_}")
    return f"{', '.join(words)} ({done} done)"


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
