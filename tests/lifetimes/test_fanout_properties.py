"""Random streams, random consumers: each one's own promise holds, whatever the others do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
import trio.testing
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyio_writer import (
    ChatCompletionStream,
    ChunkEvent,
    ConsumerLagError,
    ContentDeltaEvent,
    ContentDoneEvent,
    FunctionToolCallArgumentsDeltaEvent,
    ParsedChatCompletion,
    StreamTruncatedError,
    Subscription,
    chat_stream_from,
)
from tests.lifetimes.lifetime_helpers import seeded
from tests.plugins.thoroughness import examples
from tests.streaming.helpers import DONE, USAGE, chunk

EVERYTHING = 100_000
FILTERS: list[tuple[type, ...]] = [
    (),
    (ContentDeltaEvent,),
    (FunctionToolCallArgumentsDeltaEvent,),
    (ContentDeltaEvent, FunctionToolCallArgumentsDeltaEvent),
    (ChunkEvent, ContentDoneEvent),
]


@dataclass
class Plan:
    """What one consumer does. Times are in steps of the source; a pause is one, too."""

    joins: int
    types: tuple[type, ...]
    on_full: Any
    max_buffer: int
    pause: int
    stays: int | None  # for so many events; None: to the end
    batches: bool


@dataclass
class Seen:
    plan: Plan
    subscription: Subscription[Any]
    expected: Subscription[Any]  # made at the same moment, never full
    got: list[Any] = field(default_factory=list)
    end: type[BaseException] | None = None


pieces = st.text(st.characters(codec="utf-8", categories=["L", "P", "Zs"]), min_size=1, max_size=5)


@st.composite
def wires(draw: Any) -> tuple[list[tuple[bytes, int]], bool]:
    """Reads of a stream with texts and tool calls, each with a pause, and whether it is whole."""
    choices = draw(st.integers(1, 3))
    events: list[bytes] = []
    begun: set[tuple[int, int]] = set()
    for index in range(choices):
        events.append(chunk("", index=index))
    for index, call, piece in draw(
        st.lists(st.tuples(st.integers(0, choices - 1), st.integers(-1, 1), pieces), max_size=40)
    ):
        if call < 0:
            events.append(chunk(piece, index=index))
            continue
        function = {"arguments": piece}
        opening: dict[str, Any] = {}
        if (index, call) not in begun:
            begun.add((index, call))
            function["name"] = f"tool_{call}"
            opening = {"id": f"call_{index}_{call}", "type": "function"}
        calls = [{"index": call, "function": function, **opening}]
        events.append(chunk(index=index, tool_calls=calls))
    whole = draw(st.booleans())
    if whole:
        events += [chunk(None, "stop", index=index) for index in range(choices)]
        events += draw(st.sampled_from([[], [USAGE], [DONE], [USAGE, DONE]]))
    wire = b"".join(events)
    cuts = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=25)))
    reads = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    pauses = draw(st.lists(st.integers(0, 2), min_size=len(reads), max_size=len(reads)))
    return list(zip(reads, pauses, strict=True)), whole


plans = st.builds(
    Plan,
    joins=st.integers(0, 20),
    types=st.sampled_from(FILTERS),
    on_full=st.sampled_from(["wait", "drop_oldest", "fail"]),
    max_buffer=st.sampled_from([1, 2, 3, 7, 50, 1024]),
    pause=st.integers(0, 3),
    stays=st.none() | st.integers(0, 12),
    batches=st.booleans(),
)


async def pause(steps: int, backend: str) -> None:
    if backend == "trio":
        await anyio.sleep(steps)  # on a clock that jumps
    else:
        for _ in range(steps):
            await checkpoint()


async def play(reads: list[tuple[bytes, int]], backend: str) -> AsyncIterator[bytes]:
    for data, steps in reads:
        await pause(steps, backend)
        yield data


async def consume(seen: Seen, backend: str) -> None:
    plan, got = seen.plan, seen.got
    try:
        if plan.batches:
            async for batch in seen.subscription.batches():
                got += batch
                await pause(plan.pause, backend)
                if plan.stays is not None and len(got) >= plan.stays:
                    break
        else:
            async for event in seen.subscription:
                got.append(event)
                await pause(plan.pause, backend)
                if plan.stays is not None and len(got) >= plan.stays:
                    break
    except Exception as exc:
        seen.end = type(exc)
    else:
        if plan.stays is not None and len(got) >= plan.stays:
            await seen.subscription.aclose()
            return
        seen.end = StopAsyncIteration


async def run(
    reads: list[tuple[bytes, int]], all_plans: list[Plan], backend: str
) -> tuple[list[Seen], list[Any], ParsedChatCompletion[Any]]:
    everybody: list[Seen] = []

    async def join(stream: ChatCompletionStream[Any], plan: Plan) -> None:
        await pause(plan.joins, backend)
        mine = stream.subscribe(*plan.types, max_buffer=plan.max_buffer, on_full=plan.on_full)
        seen = Seen(plan, mine, stream.subscribe(*plan.types, max_buffer=EVERYTHING))
        everybody.append(seen)
        await consume(seen, backend)

    with anyio.fail_after(10_000 if backend == "trio" else 20):
        async with chat_stream_from(play(reads, backend)) as stream:
            reference = stream.subscribe(max_buffer=EVERYTHING)
            for plan in all_plans:
                stream.start_soon(join, stream, plan)
            stream.start_soon(until_done, stream)
        everything = [event async for event in _to_the_end(reference)]
        for seen in everybody:
            seen.expected = [  # type: ignore[assignment]
                event async for event in _to_the_end(seen.expected)
            ]
    return everybody, everything, stream.current_completion_snapshot


async def until_done(stream: ChatCompletionStream[Any]) -> None:
    with suppress(StreamTruncatedError):
        await stream.until_done()


async def _to_the_end(subscription: Subscription[Any]) -> AsyncIterator[Any]:
    try:
        async for event in subscription:
            yield event
    except StreamTruncatedError:
        pass


def said(completion: ParsedChatCompletion[Any]) -> dict[Any, str]:
    """The text of each choice and the arguments of each of its calls."""
    found: dict[Any, str] = {}
    for choice in completion.choices:
        found[choice.index] = choice.message.content or ""
        for call in choice.message.tool_calls or ():
            found[choice.index, call.index] = call.function.arguments
    return {name: text for name, text in found.items() if text}


def with_deltas(completion: ParsedChatCompletion[Any], events: list[Any]) -> dict[Any, str]:
    found = said(completion)
    for event in events:
        if isinstance(event, ContentDeltaEvent):
            name: Any = event.choice_index
            delta = event.delta
        elif isinstance(event, FunctionToolCallArgumentsDeltaEvent):
            name, delta = (event.choice_index, event.index), event.arguments_delta
        else:
            continue
        found[name] = found.get(name, "") + delta
    return {name: text for name, text in found.items() if text}


def ids(events: list[Any]) -> list[int]:
    return [id(event) for event in events]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow])
@given(stream=wires(), all_plans=st.lists(plans, min_size=1, max_size=6), seed=st.integers(0, 999))
def test_everybody_gets_what_was_promised(
    backend: str, stream: tuple[list[tuple[bytes, int]], bool], all_plans: list[Plan], seed: int
) -> None:
    reads, whole = stream
    options: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        if backend == "trio":
            options["clock"] = trio.testing.MockClock(autojump_threshold=0)
            # trio shuffles whoever is ready; so that an example can be played again:
            patch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
            patch.setattr("trio._core._run._r", seeded(seed))
        everybody, everything, final = anyio.run(
            run, reads, all_plans, backend, backend=backend, backend_options=options
        )

    assert len(everybody) == len(all_plans)
    for seen in everybody:
        plan, got = seen.plan, seen.got
        expected: list[Any] = seen.expected  # type: ignore[assignment]
        # From when it joined: the end of everything, and with its snapshot the whole.
        passing = [event for event in everything if not plan.types or type(event) in plan.types]
        assert ids(expected) == ids(passing[len(passing) - len(expected) :])
        since = with_deltas(seen.subscription.snapshot, expected)
        for name, text in said(final).items():
            kind = (
                ContentDeltaEvent if isinstance(name, int) else FunctionToolCallArgumentsDeltaEvent
            )
            if not plan.types or kind in plan.types:
                assert since.get(name, "") == text
        ended = {True: StopAsyncIteration, False: StreamTruncatedError}[whole]
        if plan.on_full == "drop_oldest":
            left = iter(ids(expected))
            assert all(each in left for each in ids(got))  # in order, none twice
            if seen.end is not None:
                assert seen.subscription.dropped == len(expected) - len(got)
        else:
            assert ids(got) == ids(expected[: len(got)])
            assert seen.subscription.dropped == 0
        if seen.end is None:
            continue  # it left early
        if seen.end is ConsumerLagError:
            assert plan.on_full == "fail"
            assert len(got) < len(expected)
        else:
            assert seen.end is ended
            if plan.on_full != "drop_oldest":
                assert len(got) == len(expected)
