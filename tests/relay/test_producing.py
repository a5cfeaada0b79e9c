"""The producer's side, over logs that are slow, stuck or forgetful."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup, TaskStatus

from anyio_writer import (
    LeaseLostError,
    ProducerStoppedError,
    RelayUnavailableError,
    StreamTruncatedError,
    WriterError,
    chat_stream_from,
)
from anyio_writer.relay import MemoryRelay, Receipt
from anyio_writer.relay.producing import Production
from anyio_writer.relay.records import End, Header, decode
from tests.relay.relay_helpers import HANGS, Seen, follow, hello, publish
from tests.streaming.helpers import STALL, Body, chunk
from tests.tools.tools_helpers import STOP


class Log(MemoryRelay):
    """A relay of which some methods do something else first.

    Args:
        before: By the name of a method, what is awaited before it.
    """

    def __init__(self, **before: Callable[..., Awaitable[Any]]) -> None:
        super().__init__(flush=1e-6)
        self.before = before

    async def append(self, *args: Any) -> Receipt:
        if "append" in self.before:
            await self.before["append"](*args)
        return await super().append(*args)

    async def finish(self, *args: Any) -> Receipt:
        if "finish" in self.before:
            await self.before["finish"](*args)
        return await super().finish(*args)


@pytest.mark.parametrize("native", [False, True])
async def test_a_cancellation_while_the_end_is_recorded(
    native: bool, anyio_backend_name: str
) -> None:
    """It is recorded all the same: the answer was complete."""
    if native and anyio_backend_name == "trio":
        native = False  # it has no other cancellation than that of a scope
    began = anyio.Event()

    async def hang_once(*_: Any) -> None:
        if not began.is_set():
            began.set()
            await anyio.sleep_forever()

    async with Log(finish=hang_once) as relay:

        async def produce() -> None:
            async with hello() as stream:
                await relay.publish("key", stream)

        if native:
            task = asyncio.create_task(produce())
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            async with anyio.create_task_group() as tg:
                tg.start_soon(produce)
                await began.wait()
                tg.cancel_scope.cancel()
        read = await follow(relay, "key")
        assert read.error is None
        assert len(read.events) == 12


async def test_a_log_that_hangs_does_not_hold_a_cancellation_up() -> None:
    async def hang(*_: Any) -> None:
        began.set()
        await anyio.sleep_forever()

    began = anyio.Event()
    async with Log(finish=hang) as relay, anyio.create_task_group() as tg:

        async def produce() -> None:
            async with chat_stream_from(Body(chunk("Hel"), STALL)) as stream:
                await relay.publish("key", stream)

        async with anyio.create_task_group() as producing:
            producing.start_soon(produce)
            async with relay.open_stream("key", wait=5) as reader:
                await anext(reader)
            started = anyio.current_time()
            producing.cancel_scope.cancel()
        assert began.is_set()
        assert anyio.current_time() - started < 2 + 3
        assert (await relay.status("key")).state == "running"  # until its lease runs out
        tg.cancel_scope.cancel()


async def test_more_was_lost_than_can_be_sent_again() -> None:
    async def forget(_: Any, number: int, *rest: Any) -> None:
        if number == 60:
            relay._answers["key"].entries.clear()

    pieces = [chunk("x" * 9000) for _ in range(100)]
    async with Log(append=forget) as relay:
        relay._flush_bytes = 1
        async with chat_stream_from(Body(*pieces, STOP)) as stream:
            with pytest.raises(RelayUnavailableError, match="from entry 1 on"):
                await relay.publish("key", stream)
            await stream.until_done()
        assert (await relay.status("key")).state == "lost"


async def test_the_streams_error_counts_more_than_the_logs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(*_: Any) -> None:
        raise RelayUnavailableError("no memory")

    async with Log(finish=fail) as relay:
        seen = await publish(relay, "key", chat_stream_from(Body(chunk("Hel"))))
    assert type(seen.error) is StreamTruncatedError
    assert "no memory" in caplog.text


async def test_a_bug_in_a_log_ends_what_is_produced() -> None:
    async def fail(_: Any, number: int, *rest: Any) -> None:
        if not number:
            raise ZeroDivisionError

    async with Log(append=fail) as relay:
        async with chat_stream_from(Body(chunk("Hel"), STALL)) as stream:
            with anyio.fail_after(HANGS), pytest.raises(ZeroDivisionError):
                await relay.publish("key", stream)


async def test_a_lease_that_is_lost_while_nothing_comes() -> None:
    async with MemoryRelay(lease=0.2) as relay, anyio.create_task_group() as tg:
        async with chat_stream_from(Body(chunk("Hel"), STALL)) as stream:

            async def lose() -> None:
                async with relay.open_stream("key", wait=5) as reader:
                    await anext(reader)
                relay._answers["key"].token = "other"

            tg.start_soon(lose)
            with anyio.fail_after(HANGS), pytest.raises(LeaseLostError):
                await relay.publish("key", stream)


async def test_many_producers_and_readers() -> None:
    """Each gets its own."""
    async with MemoryRelay() as relay, anyio.create_task_group() as tg:

        async def one(number: int) -> None:
            text = f"number {number}"
            async with anyio.create_task_group() as both:
                seen = Seen()
                both.start_soon(
                    lambda: follow(relay, str(number), seen, wait=5), name=f"reader {number}"
                )
                await publish(relay, str(number), chat_stream_from(Body(chunk(text), STOP)))
            assert seen.completion["choices"][0]["message"]["content"] == text

        for number in range(50):
            tg.start_soon(one, number)


async def test_a_producer_of_a_relay_that_was_left() -> None:
    """It is refused at once, and never hangs."""
    relay = MemoryRelay()
    async with relay:
        pass
    production = Production(relay, "key", lease_time=1, flush=1, flush_bytes=1)
    async with hello() as stream:
        production.subscribe(stream)
        with pytest.raises(RelayUnavailableError):
            await relay.elect("key", "token")
        await production.unsubscribe()
        assert len([event async for event in stream]) == 12


def test_another_event_loop(asyncio_backend: Any) -> None:
    relay = MemoryRelay()

    async def other() -> None:
        with pytest.raises(WriterError, match="event loop"):
            async with relay.start_or_join("key", hello):
                raise AssertionError

    async def main() -> None:
        async with relay:
            await anyio.to_thread.run_sync(anyio.run, other)

    anyio.run(main)


async def test_stop_comes_with_the_next_append() -> None:
    """Also while the producer has much to say."""
    pieces = [chunk("x") for _ in range(2000)]
    async with MemoryRelay() as relay, anyio.create_task_group() as tg:
        stream = chat_stream_from(Body(*pieces, STALL))
        tg.start_soon(publish, relay, "key", stream)
        async with relay.open_stream("key", wait=5) as reader:
            await anext(reader)
            assert await relay.stop("key")
            with pytest.raises(ProducerStoppedError):
                await reader.until_done()


async def test_nothing_comes_behind_an_end_that_is_recorded_at_the_second_try(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The relay is left, so the answer ends; then the producer is cancelled, too."""
    began, more = anyio.Event(), anyio.Event()

    async def hang_once(*_: Any) -> None:
        if not began.is_set():
            began.set()
            await anyio.sleep_forever()

    async def renew(*, task_status: TaskStatus[TaskGroup]) -> None:
        async with anyio.create_task_group() as group:
            task_status.started(group)
            await anyio.sleep_forever()

    async with Log(finish=hang_once) as relay, anyio.create_task_group() as others:
        renewing: TaskGroup = await others.start(renew)
        lease = (await relay.elect("key", "token")).lease
        assert lease is not None
        production = Production(relay, "key", lease_time=5, flush=1e-6, flush_bytes=1)
        seen = Seen()
        async with (
            chat_stream_from(Body(chunk("one"), more, chunk("two"), STALL)) as stream,
            anyio.create_task_group() as tg,
        ):
            production.subscribe(stream)
            tg.start_soon(seen.watch, stream.subscribe())

            async def produce() -> None:
                await production.begin(stream)
                await production.follow()

            tg.start_soon(production.run, lease, renewing, produce)
            await seen.until(2)
            renewing.cancel_scope.cancel()
            await began.wait()
            more.set()
            await seen.until(4)
            tg.cancel_scope.cancel()
        status = await relay.status("key")
    assert (status.state, status.events) == ("stopped", 2)
    assert not caplog.records


@pytest.mark.parametrize("stopped", [True, False])
async def test_what_comes_within_the_flush_interval_is_one_entry(stopped: bool) -> None:
    """Also if the interval does not end before the producer does."""
    go_on, seen = anyio.Event(), Seen()
    body = Body(chunk("A"), go_on, chunk("B"), chunk("C"), STALL)
    async with MemoryRelay(flush=9) as relay, chat_stream_from(body) as stream:
        production = anyio.CancelScope()

        async def produce() -> None:
            with production:
                await relay.publish("key", stream)

        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tg:
                tg.start_soon(produce)
                tg.start_soon(seen.watch, stream.subscribe())
                reader = Seen()
                tg.start_soon(partial(follow, relay, "key", reader, wait=5))
                await reader.until(2)
                go_on.set()
                await seen.until(6)
                await anyio.wait_all_tasks_blocked()
                assert len(reader.events) == 2
                if stopped:
                    await relay.stop("key")
                else:
                    production.cancel()
                await reader.until(6)
                await stream.close()
        generation = (await relay.status("key")).generation
        entries = [decode(data) for _, data in await relay.read("key", generation, 0, 0)]
    header, first, *rest = entries
    assert [type(each) for each in header] == [Header]
    assert first == [payload("A")]
    assert rest[0] == [payload("B"), payload("C")]
    assert [type(each) for each in rest[1]] == [End]
    assert len(rest) == 2


def payload(text: str) -> bytes:
    return chunk(text).removeprefix(b"data: ").strip()
