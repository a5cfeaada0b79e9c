"""Everything that there is to report to OpenTelemetry, once."""

from __future__ import annotations

from typing import Any, Final

import anyio

from anyio_writer import function_tool, open_chat_stream, open_conversation
from anyio_writer.telemetry import OpenTelemetryObserver
from tests.streaming.helpers import DONE, QUESTION, REQUEST, USAGE, Body, chunk, client_for
from tests.telemetry.conftest import SDK
from tests.telemetry.endings import ENDINGS, WHOLE, read

DETAILS: Final = (
    b'data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":20,'
    b'"prompt_tokens_details":{"cached_tokens":3},'
    b'"completion_tokens_details":{"reasoning_tokens":4}}}\n\n'
)
KEY: Final = "sk-secret-0123456789"
SECRETS: Final = ("Hel", "secret words", "nonsense", "refused", KEY)
"""Content, and the key."""

PARAMETERS: Final[dict[str, Any]] = {
    "model": "big",
    "messages": QUESTION["messages"],
    "max_tokens": 5,
    "temperature": 0.5,
    "top_p": 0.25,
    "n": 2,
    "stop": ["a", "b"],
    "seed": 7,
    "top_k": 3,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.2,
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
}
"""A request with all that is reported of requests."""


def calling(*names: str) -> Body:
    """An answer that calls these functions."""
    calls = [
        {"index": index, "id": f"id-{name}", "function": {"name": name, "arguments": "{}"}}
        for index, name in enumerate(names)
    ]
    return Body(chunk(tool_calls=calls), chunk(None, "tool_calls"), USAGE, DONE)


def tools_of(sdk: SDK) -> list[Any]:
    """An asynchronous function, one for a thread, and one that fails."""

    @function_tool
    async def slow() -> str:
        with sdk.tracer.start_as_current_span("inside slow"):
            await anyio.lowlevel.checkpoint()
        return "secret words"

    @function_tool
    def threaded() -> str:
        with sdk.tracer.start_as_current_span("inside threaded"):
            return "done"

    @function_tool
    def broken() -> None:
        raise LookupError("secret words")

    return [slow, threaded, broken]


def detailed() -> Body:
    """An answer to ``PARAMETERS``."""
    return Body(chunk("{}", "stop"), chunk("a", "length", index=1), DETAILS, DONE)


async def tour(sdk: SDK, observer: OpenTelemetryObserver) -> None:
    """Run a stream of each ending, tools and conversations."""
    question: dict[str, Any] = {"role": "user", "content": "secret words"}
    for ending in ENDINGS.values():
        async with ending.client() as client:
            stream = open_chat_stream(
                client=client,
                api_key=KEY,
                model="m",
                messages=[question],
                observer=observer,
                **ending.arguments,
            )
            await ending.use(stream)
    async with client_for(detailed()) as client:
        await read(open_chat_stream(client=client, api_key=KEY, observer=observer, **PARAMETERS))
    for answers in ((calling("slow", "broken"), Body(*WHOLE)), (Body(chunk("Hel")),)):
        async with client_for(*answers) as client:
            conversation = open_conversation(
                client=client, observer=observer, tools=tools_of(sdk), **REQUEST
            )
            try:
                async with conversation:
                    await conversation.until_done()
            except Exception:  # noqa: S110 - one is to fail
                pass
