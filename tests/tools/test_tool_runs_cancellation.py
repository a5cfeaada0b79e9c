"""Streams that run tools, cancelled one step later each time until they get through."""

from __future__ import annotations

import itertools
import threading
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anyio_writer import chat_stream_from
from anyio_writer.conversation import Conversation
from anyio_writer.structured.tools import function_tool
from tests.lifetimes.lifetime_helpers import tasks_of_clients
from tests.lifetimes.test_cancel_at_every_step import WAYS, cancelled_at
from tests.streaming.helpers import Body, chunk
from tests.tools.tools_helpers import CALLS, STOP, call


class Watch:
    """Tools that count how many of them have begun and how many are over."""

    def __init__(self) -> None:
        self.begun = 0
        self.over = 0
        self.bodies: list[Body] = []

        async def waits(x: int = 0) -> int:
            self.begun += 1
            try:
                for _ in range(3):
                    await checkpoint()
            finally:
                self.over += 1
            return x

        async def fails() -> None:
            await checkpoint()
            raise ValueError("no")

        def blocks(x: int = 0) -> int:
            return x + threading.get_ident() * 0

        self.tools = [function_tool(each) for each in (waits, fails, blocks)]

    def stream(self, *script: Any) -> Any:
        body = Body(*script)
        self.bodies.append(body)
        return chat_stream_from(body, tools=self.tools)

    def nothing_runs(self, tasks: set[str]) -> None:
        assert self.begun == self.over
        assert tasks_of_clients() <= tasks


SCRIPT = [
    call(0, "waits", {"x": 1}) + call(1, "fails"),
    chunk("a"),
    call(2, "waits", {"x": 2}),
    call(3, "waits", {"x": 3}),
    CALLS,
]
THREADED = [call(0, "blocks", {"x": 1}), call(1, "waits"), CALLS]


async def whole(watch: Watch, script: list[bytes], *, limit: int | None) -> None:
    async with watch.stream(*script) as stream:
        runs = stream.run_tools(limit=limit)
        async for _ in stream:
            pass
        messages = await runs.messages()
    assert len(messages) == len(await runs.results())


async def left_early(watch: Watch, script: list[bytes], *, limit: int | None) -> None:
    async with watch.stream(*script) as stream:
        stream.run_tools(limit=limit)
        async for event in stream:
            if event.type == "tool_calls.function.arguments.done":
                break


async def asked_by_a_task(watch: Watch, script: list[bytes], *, limit: int | None) -> None:
    async with watch.stream(*script) as stream:
        runs = stream.run_tools(limit=limit)
        stream.start_soon(runs.messages)
        stream.start_soon(runs.results)


async def run_at_every_step(scenario: Any, backend: str, least: int) -> None:
    tasks = tasks_of_clients()
    for way in WAYS[backend]:
        for step in itertools.count(1):
            watch = Watch()
            got_through = await cancelled_at(step, way, partial(scenario, watch))
            watch.nothing_runs(tasks)
            if got_through:
                break
        assert step > least, "the scenario is not cancelled anywhere"


@pytest.mark.parametrize("limit", [1, None])
@pytest.mark.parametrize("scenario", [whole, left_early, asked_by_a_task])
async def test_no_tool_outlives_its_stream(
    scenario: Any, limit: int | None, anyio_backend_name: str
) -> None:
    await run_at_every_step(
        partial(scenario, script=SCRIPT, limit=limit), anyio_backend_name, least=5
    )


async def test_threads(anyio_backend_name: str) -> None:
    """How many steps a thread takes is not told beforehand; each is tried."""
    await run_at_every_step(partial(whole, script=THREADED, limit=2), anyio_backend_name, least=5)


async def converse(watch: Watch) -> None:
    scripts = iter([SCRIPT, [call(0, "waits"), CALLS], [chunk("end"), STOP]])
    conversation: Conversation[None] = Conversation(
        lambda _: watch.stream(*next(scripts)), [{"role": "user", "content": "Hello"}]
    )
    async with conversation:
        results = 0
        async for event in conversation:
            results += event.type == "tool.result"
    assert results == 5
    assert len(conversation.completions) == 3


async def converse_and_leave(watch: Watch) -> None:
    scripts = iter([SCRIPT, [call(0, "waits"), CALLS], [chunk("end"), STOP]])
    conversation: Conversation[None] = Conversation(
        lambda _: watch.stream(*next(scripts)), [{"role": "user", "content": "Hello"}]
    )
    async with conversation:
        async for event in conversation:
            if event.type == "round.started" and event.round == 1:
                break


@pytest.mark.parametrize("scenario", [converse, converse_and_leave])
async def test_no_round_outlives_its_conversation(scenario: Any, anyio_backend_name: str) -> None:
    await run_at_every_step(scenario, anyio_backend_name, least=10)


async def test_cancelled_consumers_of_a_conversation_lose_nothing(anyio_backend_name: str) -> None:
    """What one did not get when it was cancelled, the next task finds in the same place."""
    for way in WAYS[anyio_backend_name]:
        for step in itertools.count(1):
            watch = Watch()
            mine: list[Any] = []
            scripts = iter([SCRIPT, [chunk("end"), STOP]])
            async with Conversation[None](
                lambda _, w=watch, s=scripts: w.stream(*next(s)), [{"role": "user"}]
            ) as conversation:
                everything = conversation.subscribe(max_buffer=10_000)

                async def read(conversation: Any = conversation, mine: Any = mine) -> None:
                    async for event in conversation:
                        mine.append(event)

                got_through = await cancelled_at(step, way, read)
                await read()
                expected = [id(event) async for event in everything]
            assert [id(event) for event in mine] == expected
            assert len(expected) > 15
            if got_through:
                break
        assert step > 3, "the consumer is not cancelled anywhere"


async def test_a_tool_is_not_begun_once_its_stream_is_being_left() -> None:
    """Its first step comes after the cancellation: what it would have done is left undone."""
    begun: list[int] = []

    async def act() -> None:
        begun.append(1)  # with no await before it

    class Own(Exception):
        pass

    with pytest.raises(Own):
        async with chat_stream_from(
            Body(call(0, "act"), CALLS), tools=[function_tool(act)]
        ) as stream:
            await stream.until_done()
            stream.run_tools()  # starts the task, which has not run yet
            raise Own
    assert not begun


async def test_a_cancelled_wait_for_results_leaves_the_tools_alone() -> None:
    watch = Watch()
    async with watch.stream(call(0, "waits", {"x": 5}), CALLS) as stream:
        runs = stream.run_tools()
        await stream.until_done()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await runs.results()
        assert [each.value for each in await runs.results()] == [5]
