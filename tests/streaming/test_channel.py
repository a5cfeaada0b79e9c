"""One subscriber's channel: its bound, its ends, and what a finaliser may do to it."""

from __future__ import annotations

import asyncio
import gc
import random
import warnings
import weakref
from typing import Any

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_writer import chat_stream_from
from anyio_writer.streaming.channel import Channel
from anyio_writer.streaming.subscription import Subscription
from tests.streaming.helpers import Body, chunk

BATCHES = st.lists(st.one_of(st.integers(1, 9), st.none()), max_size=30)


class Ended:
    """The lifetime of a stream that has ended well."""

    def demand(self) -> None:
        pass

    async def raise_end(self) -> None:
        pass


def subscription_of(channel: Channel) -> Subscription[int]:
    lifetime: Any = Ended()
    snapshot: Any = None
    return Subscription(lifetime, channel, snapshot)


@pytest.mark.parametrize("on_full", ["wait", "drop_oldest", "fail"])
@given(steps=BATCHES, max_buffer=st.integers(1, 12))
def test_what_is_sent_and_received(steps: list[int | None], max_buffer: int, on_full: Any) -> None:
    """Numbers send as many events; None receives."""
    channel = Channel(max_buffer=max_buffer, on_full=on_full)
    buffered: list[int] = []
    number = lost = 0
    for step in steps:
        if step is None:
            assert channel.receive_nowait() == buffered
            buffered = []
        else:
            events = list(range(number, number + step))
            number += step
            unsent = channel.send_nowait(events)
            if on_full == "wait":
                fitting = max_buffer - len(buffered)
                assert unsent == events[fitting:]
                buffered += events[:fitting]
            elif on_full == "drop_oldest":
                buffered += events
                lost += len(buffered[:-max_buffer])
                buffered = buffered[-max_buffer:]
            elif len(buffered) + len(events) > max_buffer or channel.is_lagging:
                assert channel.is_lagging
                assert channel.has_ended
            else:
                buffered += events
            assert unsent == [] or on_full == "wait"
        assert channel.buffered == len(buffered) <= max_buffer
        assert channel.dropped == lost
    channel.end()
    assert channel.receive_nowait() == buffered
    channel.close()
    assert channel.send_nowait([1]) == []


async def test_what_comes_behind_the_end_or_the_close_is_discarded() -> None:
    channel = Channel()
    channel.send_nowait([1])
    channel.end()
    channel.send_nowait([2])
    assert channel.receive_nowait() == [1]
    channel.close()
    channel.send_nowait([3])
    assert (channel.buffered, channel.receive_nowait()) == (0, [])


@pytest.mark.parametrize("in_cycle", [False, True])
async def test_a_dropped_subscription_warns_of_nothing(*, in_cycle: bool) -> None:
    channel = Channel()
    channel.send_nowait([1])
    subscription: Any = subscription_of(channel)
    holder: list[Any] = [subscription, channel]
    if in_cycle:
        holder.append(holder)
    gone = weakref.ref(subscription)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        del subscription, holder
        gc.collect()
        assert gone() is None
        assert channel.is_closed
        del channel
        gc.collect()
    assert seen == []


async def test_a_finaliser_touches_no_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the loop's own thread nor in another."""
    for in_thread in (False, True):
        channel = Channel(max_buffer=1)
        subscriptions = [subscription_of(channel)]
        channel.send_nowait([1])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.wait_for_change)
            await anyio.wait_all_tasks_blocked()
            if in_thread:
                await anyio.to_thread.run_sync(subscriptions.clear)
            else:
                subscriptions.clear()
            assert channel.is_closed
            await anyio.wait_all_tasks_blocked()
            assert channel.send_nowait([2]) == []
            statistics = tasks.cancel_scope
            statistics.cancel()  # who waited was not woken


async def test_a_finaliser_may_run_while_the_oldest_events_are_dropped() -> None:
    channel = Channel(max_buffer=2, on_full="drop_oldest")

    class Finalising(list[int]):
        def __getitem__(self, key: Any) -> Any:
            channel.close_unnoticed()
            return super().__getitem__(key)

    channel.send_nowait(Finalising([1]))
    channel.send_nowait([2])
    assert channel.send_nowait([3, 4]) == []
    assert channel.send_nowait([5]) == []


def test_a_subscription_dropped_in_a_thread_in_debug_mode() -> None:
    """asyncio's debug mode checks in which thread the event loop is called."""

    async def main() -> str:
        body = Body(*(chunk("a") for _ in range(5)), chunk(None, "stop"))
        async with chat_stream_from(body) as stream:
            kept = [stream.subscribe(max_buffer=1)]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.until_done)
                await anyio.wait_all_tasks_blocked()
                await anyio.to_thread.run_sync(kept.clear)
            return await stream.get_final_text()

    assert asyncio.run(main(), debug=True) == "aaaaa"


def test_native_cancellations_lose_nothing() -> None:
    """An item handed over to a task that is cancelled just then would be lost."""

    async def storm(seed: int) -> list[int]:
        rng = random.Random(seed)
        channel = Channel(max_buffer=6)
        subscription = subscription_of(channel)
        got: list[int] = []

        async def consume() -> None:
            async for event in subscription:
                got.append(event)

        async def produce() -> None:
            number = 0
            while number < 200:
                events = list(range(number, min(number + rng.randint(1, 4), 200)))
                number += len(events)
                while events := channel.send_nowait(events):
                    await channel.wait_for_change()
                if rng.random() < 0.3:
                    await asyncio.sleep(0)
            channel.end()

        producer = asyncio.create_task(produce())
        consumer = asyncio.create_task(consume())
        while True:
            for _ in range(rng.randint(1, 4)):
                await asyncio.sleep(0)
            if consumer.done():
                break
            consumer.cancel()
            await asyncio.gather(consumer, return_exceptions=True)
            consumer = asyncio.create_task(consume())
        await producer
        channel.close()
        return got

    for seed in range(100):
        assert asyncio.run(storm(seed)) == list(range(200)), seed


@pytest.mark.parametrize("on_full", ["wait", "drop_oldest", "fail"])
def test_a_channel_that_was_left_counts_and_fails_no_more(on_full: Any) -> None:
    channel = Channel(max_buffer=1, on_full=on_full)
    channel.close()
    assert channel.send_nowait([1, 2]) == []
    assert (channel.dropped, channel.is_lagging) == (0, False)
