"""Whatever bytes arrive, the outcome is events or one of our errors, within the limits."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyio_writer import Limits, WriterError, chat_stream_from
from anyio_writer.testing import error_frame, sse_event, tool_call_chunks, writer_chunks
from tests.plugins.thoroughness import examples
from tests.streaming.helpers import DONE, Body

FRAMES = [
    *(sse_event(c) for c in writer_chunks(["Héllo", "👋"], usage=True, logprobs=True)),
    *(sse_event(c) for c in tool_call_chunks([("f", '{"a": [1]}'), ("g", "{}")])),
    error_frame("openai"),
    error_frame("field"),
    DONE,
    b": ping\n\n",
    b"data:\r\rdata: {}\n\n",
]
BREAKS = [httpx.ReadError("reset"), OSError("disk"), ValueError("bug"), EOFError()]


@st.composite
def bodies(draw: st.DrawFn) -> list[Any]:
    """Frames that are cut, mixed up, damaged and between pieces of noise."""
    pieces: list[Any] = []
    for _ in range(draw(st.integers(0, 8))):
        piece = draw(st.binary(max_size=40) | st.sampled_from(FRAMES))
        if piece and draw(st.integers(0, 3)) == 0:
            place = draw(st.integers(0, len(piece) - 1))
            piece = piece[:place] + draw(st.binary(max_size=3)) + piece[place + 1 :]
        cut = draw(st.integers(0, len(piece)))
        pieces += [piece[:cut], piece[cut:]]
    if draw(st.booleans()):
        pieces.append(draw(st.sampled_from(BREAKS)))
    return pieces


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=examples(150))
@given(
    pieces=bodies(),
    iterate=st.booleans(),
    limits=st.builds(
        Limits, max_event_bytes=st.sampled_from([100, 10_000]), max_depth=st.sampled_from([2, 500])
    ),
)
def test_any_bytes(backend: str, pieces: list[Any], iterate: bool, limits: Limits) -> None:
    async def run() -> None:
        text: dict[int, str] = {}
        stream = chat_stream_from(Body(*pieces), limits=limits)
        try:
            async with stream:
                if iterate:
                    async for event in stream:
                        if event.type == "content.delta":
                            text.setdefault(event.choice_index, "")
                            text[event.choice_index] += event.delta
                            assert event.snapshot == text[event.choice_index]
                completion = await stream.get_final_completion()
        except WriterError as exc:
            assert str(exc)
            had = getattr(exc, "completion", None)
            completion = had or stream.current_completion_snapshot
        if iterate:
            assert text == {
                choice.index: choice.message.content
                for choice in completion.choices
                if choice.message.content
            }

    anyio.run(run, backend=backend)
