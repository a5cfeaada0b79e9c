"""Streams to publish, readers that note what they see, and what both must agree on."""

from __future__ import annotations

import copy
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import msgspec

from anyio_writer import (
    APIError,
    ChatCompletionStream,
    Conversation,
    ParsedChatCompletion,
    WriterError,
    chat_stream_from,
)
from anyio_writer.relay import Relay
from tests.streaming.helpers import USAGE, Body, chunk

HANGS: Final = 20
"""Seconds: a net under a hang, never what a test shows."""

LEASE: Final = 0.4
"""A short lease, in seconds, for tests in which one runs out."""

Machine = Callable[..., AbstractAsyncContextManager[Relay]]
"""Makes a relay as another machine would have one: ``async with machine(lease=1) as relay``."""

_TRIES: Final = 3


class TooLate(AssertionError):
    """Something took longer than it may."""


def in_time(started: float, limit: float, *, least: float = 0.0) -> None:
    """Check what has passed since then, in seconds; only in a test that is ``timed``."""
    took = anyio.current_time() - started
    assert took >= least
    if took >= limit:
        raise TooLate(f"{took:.2f} s, not {limit} s")


def timed(test: Any) -> Any:
    """Let a test that measures try again: other programs may have the machine for seconds."""

    @functools.wraps(test)
    async def attempts(**fixtures: Any) -> None:
        for number in range(_TRIES):
            try:
                await test(**fixtures)
            except (TooLate, BaseExceptionGroup) as exc:
                late = not isinstance(exc, BaseExceptionGroup) or exc.subgroup(TooLate)
                if not late or number == _TRIES - 1:
                    raise
            else:
                return
            if "redis" in fixtures:
                fixtures["redis"].ask("FLUSHALL")
            if "key" in fixtures:
                fixtures["key"] += " again"

    return attempts


HELLO: Final = [
    chunk("Hel", role="assistant"),
    chunk("lo "),
    chunk("", reasoning_content="hm"),
    chunk("world"),
    chunk(None, "stop"),
    USAGE,
]


def hello() -> ChatCompletionStream[None]:
    return chat_stream_from(Body(*HELLO))


def plain(value: Any) -> Any:
    """Plain data, without the values that depend on what a reader knows of types."""
    if isinstance(value, dict):
        own = {"parsed", "parsed_arguments"}
        return {name: plain(each) for name, each in value.items() if name not in own}
    return [plain(each) for each in value] if isinstance(value, list) else value


def told(event: Any) -> Any:
    """All that an event can tell, its snapshot included, as plain data."""
    facts: dict[str, Any] = {"type": event.type, **plain(msgspec.to_builtins(event))}
    for name in ("snapshot", "arguments"):
        if hasattr(event, name):
            facts[name] = plain(msgspec.to_builtins(getattr(event, name)))
    return {**facts, "raw": event.raw} if event.type == "chunk" else facts


def completion(value: ParsedChatCompletion[Any]) -> Any:
    """A completion as plain data."""
    return plain(msgspec.to_builtins(value))


@dataclass
class Seen:
    """What somebody saw of a stream."""

    events: list[Any] = field(default_factory=list)
    error: Exception | None = None
    completion: Any = None
    changed: anyio.Event = field(default_factory=anyio.Event)

    async def until(self, count: int) -> None:
        """Wait until so many events were seen."""
        with anyio.fail_after(HANGS):
            while len(self.events) < count:
                await self.changed.wait()

    async def watch(self, events: AsyncIterator[Any]) -> None:
        """Note each event, and the error that they end with."""
        try:
            async for event in events:
                self.events.append(told(event))
                self.changed.set()
                self.changed = anyio.Event()
        except (WriterError, ExceptionGroup) as exc:
            self.error = exc
            if isinstance(exc, APIError) and exc.completion is not None:
                self.completion = completion(exc.completion)

    @property
    def end(self) -> Any:
        """The error, as far as all readers must agree on it."""
        error = self.error
        if error is None:
            return None
        plain = {"type": type(error), "says": str(error), "completion": self.completion}
        if isinstance(error, APIError):
            plain |= {
                "status": error.status_code,
                "body": copy.deepcopy(error.body),
                "request": error.request_id,
            }
        return plain


async def follow(
    relay: Relay, key: str, seen: Seen | None = None, *, conversation: bool = False, **options: Any
) -> Seen:
    """Read an answer to its end."""
    seen = seen or Seen()
    open_it: Any = relay.open_conversation if conversation else relay.open_stream
    with anyio.fail_after(HANGS):
        async with open_it(key, **options) as stream:
            await seen.watch(stream)
            if seen.error is None:
                seen.completion = completion(await stream.get_final_completion())
    return seen


async def publish(
    relay: Relay, key: str, stream: ChatCompletionStream[Any] | Conversation[Any]
) -> Seen:
    """Publish a stream; returns what an undisturbed subscriber beside it saw."""
    seen = Seen()

    async def watch() -> None:
        await seen.watch(stream.subscribe())
        if seen.error is None:
            seen.completion = completion(await stream.get_final_completion())

    with anyio.fail_after(HANGS):
        async with stream:
            stream.start_soon(watch)
            try:
                await relay.publish(key, stream)
            except (WriterError, ExceptionGroup) as exc:
                seen.error = seen.error or exc
    return seen
