"""However a stream ends, everybody who waits for it hears of it, and hears the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from anyio_writer import (
    APIConnectionError,
    APIStreamError,
    ChatCompletionStream,
    Limits,
    StreamClosedError,
    StreamTruncatedError,
    chat_stream_from,
)
from tests.lifetimes.lifetime_helpers import HANGS, tasks_of_clients
from tests.streaming.helpers import STALL, Body, chunk


class Boom(Exception):
    """What the block raises."""


async def iterate(iterator: Any) -> None:
    async for _ in iterator:
        pass


WAITERS: dict[str, Callable[[ChatCompletionStream[Any]], Awaitable[Any]]] = {
    "the stream": iterate,
    "the stream, too": iterate,
    "batches": lambda stream: iterate(stream.batches()),
    "texts": lambda stream: iterate(stream.text_deltas()),
    "until_done": lambda stream: stream.until_done(),
    "get_final_completion": lambda stream: stream.get_final_completion(),
    "get_final_text": lambda stream: stream.get_final_text(),
    "subscription": lambda stream: iterate(stream.subscribe()),
    "its batches": lambda stream: iterate(stream.subscribe().batches()),
    "a small one": lambda stream: iterate(stream.subscribe(max_buffer=1)),
    "a lossy one": lambda stream: iterate(stream.subscribe(max_buffer=1, on_full="drop_oldest")),
    "a strict one": lambda stream: iterate(stream.subscribe(on_full="fail")),
}

GO = object()
"""In a script: the moment at which everything happens."""

ENDS: list[tuple[str, list[Any], type[Exception] | None]] = [
    ("good end", [GO, chunk(None, "stop")], None),
    ("cut", [GO], StreamTruncatedError),
    ("error", [GO, b'event: error\ndata: {"error": "no"}\n\n'], APIStreamError),
    ("failing source", [GO, ZeroDivisionError()], APIConnectionError),
    ("close", [STALL], StreamClosedError),
    ("close elsewhere", [STALL], StreamClosedError),
    ("block ends", [STALL], StreamClosedError),
    ("block raises", [STALL], StreamClosedError),
    ("block is cancelled", [STALL], StreamClosedError),
    ("close once complete", [chunk(None, "stop"), STALL], None),
]


class Case:
    """One stream, the task that holds it, and all who wait for it."""

    def __init__(self, end: str, script: list[Any]) -> None:
        self.end = end
        self.script = script
        self.now, self.opened, self.closed, self.told = (anyio.Event() for _ in range(4))
        self.scope = anyio.CancelScope()
        self.stream: ChatCompletionStream[Any]
        self.outcomes: dict[str, BaseException | None] = {}

    async def hold(self) -> None:
        steps = [self.now if step is GO else step for step in self.script]
        body = Body(chunk("a"), *steps)
        with self.scope, suppress(Boom):
            async with chat_stream_from(body, limits=Limits(drain_time=0.01)) as stream:
                self.stream = stream
                self.opened.set()
                await self.now.wait()
                if self.end == "block raises":
                    raise Boom
                if self.end == "block ends":
                    return
                if self.end in ("close", "close once complete"):
                    await stream.close()
                self.closed.set()
                await self.told.wait()

    async def wait(self, name: str) -> None:
        try:
            await WAITERS[name](self.stream)
        except Exception as exc:
            self.outcomes[name] = exc
        else:
            self.outcomes[name] = None

    async def run(self, names: list[str]) -> dict[str, BaseException | None]:
        """Returns who had been told what when all was quiet again."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.hold)
            await self.opened.wait()
            for name in names:
                group.start_soon(self.wait, name)
            await wait_all_tasks_blocked()
            assert self.outcomes == {}
            self.now.set()
            if self.end == "block is cancelled":
                self.scope.cancel()
            if self.end == "close elsewhere":
                await self.stream.close()
            if self.end == "close once complete":  # it is given a moment for a good end
                await self.closed.wait()
            await wait_all_tasks_blocked()
            outcomes = dict(self.outcomes)
            self.told.set()
        return outcomes


ITERATE_THE_STREAM = {"the stream", "the stream, too", "batches", "texts"}


@pytest.mark.parametrize(("end", "script", "error"), ENDS, ids=[each[0] for each in ENDS])
async def test_at_once_and_with_the_same_outcome(
    end: str, script: list[Any], error: type[Exception] | None
) -> None:
    tasks = tasks_of_clients()
    # Without a consumer of its own a stream waits in another way.
    for names in (set(WAITERS), set(WAITERS) - ITERATE_THE_STREAM):
        with anyio.fail_after(HANGS):
            told = await Case(end, script).run(sorted(names))
        assert told.keys() == names
        kinds = {(type(each), str(each)) for each in told.values()}
        assert len(kinds) == 1
        if error is None:
            assert set(told.values()) == {None}
        else:
            assert type(told["subscription"]) is error
            # Each has an exception of its own.
            assert len({id(each) for each in told.values()}) == len(names)
        assert tasks_of_clients() == tasks
