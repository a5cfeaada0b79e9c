"""What a stream holds while it waits for more, in counts: thousands of them may be open at once."""

from __future__ import annotations

import gc
import json
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from anyio_writer import ChatCompletionStreamState, chat_stream_from
from anyio_writer.protocol.logs import NEVER, NO_DATA, NO_ITEMS, NO_TEXT
from tests.streaming.helpers import STALL, Body, chunk

STREAMS = 10

OWNED = {
    "Accumulator": 1,
    "ChoiceLog": 1,
    "LatestLog": 4,  # id, created, model, role
    "TextLog": 1,
    "Deadlines": 1,
    "Fanout": 1,
    "Channel": 1,
    "Lifetime": 1,
    "Pump": 1,
    "Subscription": 1,
}
NOT_OWNED = ("DataLog", "ItemLog", "ToolCallLog", "Value")


def objects() -> Counter[str]:
    gc.collect()
    types = [type(each) for each in gc.get_objects()]
    return Counter(cls.__name__ for cls in types if str(cls.__module__).startswith("anyio_writer."))


async def test_an_idle_stream_owns_what_it_uses() -> None:
    before = objects()
    async with AsyncExitStack() as open_streams:
        for _ in range(STREAMS):
            body = Body(chunk("Rayleigh", role="assistant"), STALL)
            stream = await open_streams.enter_async_context(chat_stream_from(body))
            while (await anext(stream)).type != "content.delta":
                pass
        after = objects()
    grown = {name: (after[name] - before[name]) / STREAMS for name in (*OWNED, *NOT_OWNED)}
    assert grown == OWNED | dict.fromkeys(NOT_OWNED, 0)


EVERYTHING = {
    "content": "a",
    "refusal": "b",
    "reasoning_content": "c",
    "graph_data": {"status": "d"},
    "llm_data": {"prompt": "e", "model": "f"},
    "tool_calls": [{"index": 0, "id": "g", "function": {"name": "h", "arguments": "{}"}}],
}
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
LOGPROBS = {"content": [{"token": "i", "logprob": 0}], "refusal": [{"token": "j", "logprob": 0}]}


@pytest.mark.parametrize("times", [1, 2])
def test_what_is_shared_stays_empty(times: int) -> None:
    """There is one empty log of each kind for all streams: what comes must not end up in it."""
    choice = {"index": 0, "delta": EVERYTHING, "logprobs": LOGPROBS, "finish_reason": "stop"}
    state, untouched = ChatCompletionStreamState(), ChatCompletionStreamState()
    nothing = untouched.current_completion_snapshot
    for _ in range(times):
        state.handle_chunk(json.dumps({"id": "k", "usage": USAGE, "choices": [choice]}))
    message = state.current_completion_snapshot.choices[0].message
    assert message.content == "a" * times
    assert message.refusal == "b" * times
    assert message.reasoning_content == "c" * times
    assert message.graph_data is not None
    assert (NO_TEXT.at(), NO_TEXT.optional_at(1), NO_TEXT.done) == ("", None, False)
    assert (NO_ITEMS.at(), NO_ITEMS.done) == ([], False)
    assert NEVER.value is NO_DATA.value is None
    assert untouched.current_completion_snapshot == nothing
