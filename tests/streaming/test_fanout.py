"""Many consumers of one stream."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from anyio_writer import (
    ChatCompletionStream,
    ChunkEvent,
    ConsumerLagError,
    ContentDeltaEvent,
    ContentDoneEvent,
    InvalidParameterError,
    Limits,
    StreamClosedError,
    StreamObserver,
    StreamTruncatedError,
    Subscription,
    WriterError,
    chat_stream_from,
)
from anyio_writer.streaming.channel import Channel
from anyio_writer.streaming.fanout import Fanout
from tests.streaming.helpers import STALL, USAGE, Body, chunk

WORDS = [f"{number} " for number in range(40)]
SCRIPT = [*(chunk(word) for word in WORDS), chunk(None, "stop")]


def texts(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "content.delta")


async def collect(consumer: Any, into: list[Any]) -> None:
    async for event in consumer:
        into.append(event)


async def test_all_consumers_get_the_same_objects_in_order() -> None:
    got: list[list[Any]] = [[] for _ in range(5)]
    async with chat_stream_from(Body(*SCRIPT)) as stream:
        async with anyio.create_task_group() as tasks:
            for mine in got[:4]:
                tasks.start_soon(collect, stream.subscribe(), mine)
            tasks.start_soon(collect, stream, got[4])
    assert texts(got[0]) == "".join(WORDS)
    for other in got[1:]:
        assert [id(event) for event in other] == [id(event) for event in got[0]]


async def test_a_hundred_consumers() -> None:
    got: list[list[Any]] = [[] for _ in range(100)]
    async with chat_stream_from(Body(*SCRIPT)) as stream:
        for mine in got:
            stream.start_soon(collect, stream.subscribe(), mine)
    assert all(texts(mine) == "".join(WORDS) for mine in got)


async def test_filters_are_by_type() -> None:
    async with chat_stream_from(Body(*SCRIPT)) as stream:
        deltas = stream.subscribe(ContentDeltaEvent)
        ends = stream.subscribe(ContentDoneEvent, ChunkEvent)
        await stream.until_done()
        assert {type(event) async for event in deltas} == {ContentDeltaEvent}
        assert {type(event) async for event in ends} == {ContentDoneEvent, ChunkEvent}


async def test_what_is_filtered_out_takes_no_room() -> None:
    async with chat_stream_from(Body(*SCRIPT)) as stream:
        ends = stream.subscribe(ContentDoneEvent, max_buffer=1)
        await stream.until_done()
        assert [event.content async for event in ends] == ["".join(WORDS)]


async def test_events_are_not_built_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    original = ChunkEvent

    def counting(value: Any) -> ChunkEvent:
        made.append(value)
        return original(value)

    monkeypatch.setattr("anyio_writer.protocol.machine.ChunkEvent", counting)
    async with chat_stream_from(Body(*SCRIPT)) as stream:
        consumer = stream.subscribe()
        await anext(consumer)
        await consumer.aclose()
        await stream.until_done()
    assert 0 < len(made) < len(SCRIPT)


async def test_a_late_one_has_the_snapshot_and_then_the_rest() -> None:
    gate = anyio.Event()
    body = Body(*SCRIPT[:10], gate, *SCRIPT[10:])
    first: list[Any] = []
    async with chat_stream_from(body) as stream:
        stream.start_soon(collect, stream, first)
        await wait_all_tasks_blocked()
        late = stream.subscribe()
        had = late.snapshot.choices[0].message.content
        gate.set()
        rest: list[Any] = []
        await collect(late, rest)
    assert had == "".join(WORDS[:10])
    assert texts(rest) == "".join(WORDS[10:])
    assert late.snapshot.choices[0].message.content == had  # as it stood then
    assert texts(first) == "".join(WORDS)


async def test_joining_while_a_batch_waits_for_room_gives_nothing_twice() -> None:
    body = Body(b"".join(SCRIPT))
    async with chat_stream_from(body) as stream:
        slow = stream.subscribe(max_buffer=10)
        await anext(slow)
        await wait_all_tasks_blocked()  # the rest of the batch waits for room
        late = stream.subscribe()
        joined = late.snapshot.choices[0].message.content or ""
        got: list[Any] = []
        stream.start_soon(collect, late, got)
        async for _ in slow:
            pass
    assert joined + texts(got) == "".join(WORDS)


@pytest.mark.parametrize("when", ["content_started", "batch_received"])
async def test_an_observer_that_subscribes_gets_nothing_twice(when: str) -> None:
    late: list[Subscription[Any]] = []

    def subscribe(observed: Any) -> None:
        if not late:
            late.append(observed.stream.subscribe())

    observer = StreamObserver()
    setattr(observer, when, subscribe)
    async with chat_stream_from(Body(*SCRIPT), observer=observer) as stream:
        async for _ in stream:
            pass
        got: list[Any] = []
        await collect(late[0], got)
    joined = late[0].snapshot.choices[0].message.content or ""
    assert joined == WORDS[0]
    assert texts(got) == "".join(WORDS[1:])


async def test_wait_holds_the_stream_back() -> None:
    body = Body(*SCRIPT)
    async with chat_stream_from(body) as stream:
        slow = stream.subscribe(max_buffer=4)
        fast: list[Any] = []
        stream.start_soon(collect, stream, fast)
        await wait_all_tasks_blocked()
        assert body.reads <= 4
        assert len(fast) <= 8
        events = [event async for event in slow]
        assert texts(events) == "".join(WORDS)
        assert slow.dropped == 0


@pytest.mark.parametrize("max_buffer", [1, 3, 10])
async def test_drop_oldest_keeps_the_newest_and_counts(max_buffer: int) -> None:
    script = [b"".join(SCRIPT[:7]), *SCRIPT[7:30], b"".join(SCRIPT[30:])]
    everything: list[Any] = []
    async with chat_stream_from(Body(*script)) as stream:
        lossy = stream.subscribe(max_buffer=max_buffer, on_full="drop_oldest")
        await collect(stream, everything)
        kept = [event async for event in lossy]
    assert kept == everything[-max_buffer:]
    assert lossy.dropped == len(everything) - max_buffer


async def test_fail_tells_only_the_one_that_lags() -> None:
    everything: list[Any] = []
    async with chat_stream_from(Body(*SCRIPT)) as stream:
        slow = stream.subscribe(max_buffer=6, on_full="fail")
        await collect(stream, everything)
        assert texts(everything) == "".join(WORDS)
        got: list[Any] = []
        with pytest.raises(ConsumerLagError, match=r"test_fanout\.py"):
            await collect(slow, got)
        assert got == everything[:6]  # what it had comes first
        with pytest.raises(ConsumerLagError):
            await anext(slow)
        await stream.until_done()


async def test_no_consumer_that_leaves_stalls_or_shortens_the_others() -> None:
    async def fail(consumer: Any) -> None:
        await anext(consumer)
        raise ValueError

    async def read_on(consumer: Any) -> None:
        async for _ in consumer:
            await anyio.sleep_forever()

    async def cancel_one(stream: ChatCompletionStream[Any]) -> None:
        async with anyio.create_task_group() as tasks:  # which remembers its tasks
            tasks.start_soon(read_on, stream.subscribe(max_buffer=2))
            await wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        gc.collect()  # such a subscriber leaves when it is finalised

    async def leave(stream: ChatCompletionStream[Any]) -> None:
        async with stream.subscribe(max_buffer=2) as closed:
            await anext(closed)
        dropped = stream.subscribe(max_buffer=2)
        await anext(dropped)
        del dropped
        stream.subscribe(max_buffer=2)  # never even kept
        await cancel_one(stream)
        with pytest.raises(ValueError):
            await fail(stream.subscribe(max_buffer=2))

    got: list[Any] = []
    async with chat_stream_from(Body(*SCRIPT)) as stream:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(collect, stream.subscribe(), got)
                tasks.start_soon(leave, stream)
    assert texts(got) == "".join(WORDS)


async def test_a_consumer_dropped_while_the_stream_waits_for_it() -> None:
    got: list[Any] = []
    async with chat_stream_from(Body(*SCRIPT)) as stream:
        forgotten = stream.subscribe(max_buffer=2)
        stream.start_soon(collect, stream, got)
        await wait_all_tasks_blocked()
        assert len(got) <= 4
        del forgotten
        gc.collect()
        with anyio.fail_after(5):
            await stream.until_done()


async def test_one_that_holds_the_stream_back_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="anyio_writer")
    limits = Limits(slow_consumer_time=0.01)
    async with chat_stream_from(Body(*SCRIPT), limits=limits) as stream:
        forgotten = stream.subscribe(max_buffer=2)  # the place
        with anyio.move_on_after(0.1):
            await stream.until_done()
        await forgotten.aclose()
        await stream.until_done()
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    source = await anyio.Path(__file__).read_text()
    line = source[: source.index("# the place")].count("\n") + 1
    assert f"test_fanout.py:{line}" in message
    assert f"test_fanout.py:{line}" in repr(forgotten)


async def test_a_subscriber_is_called_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="anyio_writer")
    limits = Limits(slow_consumer_time=0.01)
    async with chat_stream_from(Body(*SCRIPT), limits=limits) as stream:
        slow = stream.subscribe(max_buffer=2, name="audit log")
        strict = stream.subscribe(max_buffer=2, on_full="fail", name="live view")
        with anyio.move_on_after(0.1):
            await stream.until_done()
        assert "audit log" in repr(slow)
        with pytest.raises(ConsumerLagError, match="live view"):
            await collect(strict, [])
    [record] = caplog.records
    assert "'audit log'" in record.getMessage()
    assert "test_fanout.py" in record.getMessage()


async def test_batches_of_a_subscription() -> None:
    async with chat_stream_from(Body(SCRIPT[0] + SCRIPT[1], *SCRIPT[2:])) as stream:
        first, second = stream.subscribe(ContentDeltaEvent), stream.subscribe(ContentDeltaEvent)
        await stream.until_done()
        batches = [batch async for batch in first.batches()]
        batches[0].clear()  # one's own list
        assert [len(batch) async for batch in second.batches()] == [40]


async def test_two_tasks_share_a_subscription() -> None:
    got: list[list[Any]] = [[], []]

    async def slowly(consumer: Any, mine: list[Any]) -> None:
        async for event in consumer:
            mine.append(event)
            await anyio.lowlevel.checkpoint()

    async with chat_stream_from(Body(*SCRIPT)) as stream:
        shared = stream.subscribe(ContentDeltaEvent)
        for mine in got:
            stream.start_soon(slowly, shared, mine)
    together = sorted(got[0] + got[1], key=lambda event: int(event.delta))
    assert texts(together) == "".join(WORDS)


@pytest.mark.parametrize("per_read", [1, 30, 1000])
async def test_what_is_buffered_is_not_taken_without_a_turn_for_others(per_read: int) -> None:
    chunks = [*(chunk("word ") for _ in range(1000)), chunk(None, "stop")]
    reads = [b"".join(chunks[start : start + per_read]) for start in range(0, 1001, per_read)]
    turns, at_turn = 0, []

    async def others(scope: anyio.CancelScope) -> None:
        nonlocal turns
        with scope:
            while True:
                turns += 1
                await anyio.lowlevel.checkpoint()

    async with chat_stream_from(Body(*reads)) as stream:
        consumer = stream.subscribe(max_buffer=10_000)
        await stream.until_done()
        scope = anyio.CancelScope()
        stream.start_soon(others, scope)
        async for _ in consumer:
            at_turn.append(turns)
        scope.cancel()
    assert len(at_turn) > 2000
    # Fewer than 128 at a time, and trio may let a task run twice before another.
    assert max(Counter(at_turn).values()) < 256


async def test_a_read_taken_partly_one_by_one_and_then_in_batches() -> None:
    async with chat_stream_from(Body(b"".join(SCRIPT * 5))) as stream:
        consumer, beside = stream.subscribe(), stream.subscribe()
        got = [await anext(consumer) for _ in range(3)]
        async for batch in consumer.batches():
            got += batch
            if len(got) < 150:
                got.append(await anext(consumer))
        assert got == [event async for event in beside]


async def test_what_is_buffered_can_be_had_without_waiting() -> None:
    async with chat_stream_from(Body(*SCRIPT)) as stream:
        consumer, beside = stream.subscribe(), stream.subscribe()
        assert consumer.batch_nowait() == []
        await stream.until_done()
        got = [await anext(consumer), *consumer.batch_nowait()]
        assert consumer.batch_nowait() == []
        assert got == [event async for event in beside]


async def test_nothing_comes_out_of_a_closed_subscription() -> None:
    async with chat_stream_from(Body(*SCRIPT)) as stream:
        consumer = stream.subscribe()
        await stream.until_done()
        await consumer.aclose()
        assert consumer.batch_nowait() == []
        assert [event async for event in consumer] == []


async def test_one_task_that_reads_in_batches_beside_one_that_does_not_gets_them_in_order() -> None:
    got: list[int] = []

    async def one(consumer: Subscription[ContentDeltaEvent]) -> None:
        async for _ in consumer:
            break

    async def in_batches(consumer: Subscription[ContentDeltaEvent]) -> None:
        async for batch in consumer.batches():
            got.extend(int(event.delta) for event in batch)

    body = b"".join([*(chunk(f"{number} ") for number in range(100)), chunk(None, "stop")])
    async with chat_stream_from(Body(body)) as stream:
        shared = stream.subscribe(ContentDeltaEvent)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, shared)
            tasks.start_soon(in_batches, shared)
    assert got == sorted(got)
    assert len(got) in (99, 100)  # trio may begin with either


# After the end, after an error, after close(): each has one outcome.


async def test_subscribing_after_the_end() -> None:
    async with chat_stream_from(Body(*SCRIPT)) as stream:
        await stream.until_done()
        late = stream.subscribe()
        assert [event async for event in late] == []
        assert late.snapshot.choices[0].message.content == "".join(WORDS)
        assert [text async for text in stream.text_deltas()] == []
    after = stream.subscribe()
    assert [event async for event in after] == []


async def test_subscribing_after_an_error() -> None:
    async with chat_stream_from(Body(SCRIPT[0])) as stream:
        with pytest.raises(StreamTruncatedError):
            await stream.until_done()
        late = stream.subscribe()
        with pytest.raises(StreamTruncatedError):
            await anext(late)
        with pytest.raises(StreamTruncatedError):
            await anext(stream.text_deltas())
        assert late.snapshot.choices[0].message.content == WORDS[0]


async def test_subscribing_after_close() -> None:
    async with chat_stream_from(Body(SCRIPT[0], STALL)) as stream:
        early = stream.subscribe()
        await anext(early)
        await stream.close()
        with pytest.raises(StreamClosedError):
            await anext(stream.subscribe())
        rest: list[Any] = []
        with pytest.raises(StreamClosedError):  # after what had arrived
            await collect(early, rest)
        assert texts(rest) == WORDS[0]
        with pytest.raises(StreamClosedError):
            await anext(stream.text_deltas())


async def test_a_closed_subscription_just_ends() -> None:
    async with chat_stream_from(Body(SCRIPT[0], STALL)) as stream:
        consumer: Subscription[Any] = stream.subscribe()
        await anext(consumer)
        await consumer.aclose()
        await consumer.aclose()
        assert [event async for event in consumer] == []


async def test_closing_a_subscription_wakes_its_reader() -> None:
    got: list[Any] = []
    async with chat_stream_from(Body(SCRIPT[0], STALL)) as stream:
        consumer = stream.subscribe()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect, consumer, got)
            await wait_all_tasks_blocked()
            await consumer.aclose()
    assert texts(got) == WORDS[0]


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["content.delta"], {}),
        ([int], {}),
        ([[ContentDeltaEvent]], {}),
        ([ContentDeltaEvent | ContentDoneEvent], {}),
        ([], {"max_buffer": 0}),
        ([], {"max_buffer": True}),
        ([], {"max_buffer": 1.5}),
        ([], {"on_full": "block"}),
        ([], {"name": 1}),
    ],
)
async def test_wrong_arguments_are_named(arguments: Any, settings: Any) -> None:
    async with chat_stream_from(Body()) as stream:
        with pytest.raises(InvalidParameterError):
            stream.subscribe(*arguments, **settings)
    with pytest.raises(WriterError, match="async with"):
        chat_stream_from(Body()).subscribe()


async def test_everyone_wakes_when_the_stream_ends() -> None:
    """Each waiter has the outcome at once, not one after the other."""
    outcomes: list[str] = []

    async def wait(consumer: Any, name: str) -> None:
        with pytest.raises(StreamTruncatedError):
            async for _ in consumer:
                pass
        outcomes.append(name)

    async def final(stream: ChatCompletionStream[Any]) -> None:
        with pytest.raises(StreamTruncatedError):
            await stream.get_final_completion()
        outcomes.append("final")

    gate = anyio.Event()
    async with chat_stream_from(Body(SCRIPT[0], gate)) as stream:
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(wait, stream.subscribe(), f"consumer {number}")
            tasks.start_soon(final, stream)
            await wait_all_tasks_blocked()
            gate.set()
            await wait_all_tasks_blocked()
            assert sorted(outcomes) == ["consumer 0", "consumer 1", "consumer 2", "final"]


async def test_what_was_not_handed_on_is_no_quiet_end() -> None:
    """The answer is complete, but not all of it has got to this consumer."""
    async with chat_stream_from(Body(b"".join(SCRIPT))) as stream:
        slow = stream.subscribe(max_buffer=2)
        await anext(slow)
        await wait_all_tasks_blocked()
    rest: list[Any] = []
    with pytest.raises(StreamClosedError):
        await collect(slow, rest)
    assert len(rest) < len(SCRIPT)


@pytest.mark.parametrize("is_complete", [False, True])
async def test_a_cancellation_from_outside_while_one_is_waited_for(*, is_complete: bool) -> None:
    """Others get nothing twice, and who misses something is told."""
    outcomes: list[str] = []

    async def read(consumer: Any, into: list[Any]) -> None:
        try:
            await collect(consumer, into)
        except StreamClosedError:
            outcomes.append("told")

    ready: list[Any] = []
    late: list[Any] = []
    # The answer's last part fits for the one, and one event of it is too many for the other.
    words = SCRIPT[:3] + SCRIPT[-1:] if is_complete else SCRIPT[:4]
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            async with chat_stream_from(Body(*words, STALL)) as stream:
                tasks.start_soon(read, stream.subscribe(), ready)
                slow = stream.subscribe(max_buffer=7)
                await wait_all_tasks_blocked()
                scope.cancel()
                await anyio.sleep_forever()
        tasks.start_soon(read, slow, late)
    assert len(set(map(id, ready))) == len(ready) == 8
    assert late == ready[: len(late)]
    assert len(late) < 8
    assert outcomes == ["told", "told"]


@pytest.mark.parametrize("way", ["close", "leave"])
async def test_a_stop_while_the_last_events_wait_for_room_is_no_quiet_end(way: str) -> None:
    last = SCRIPT[1] + b"data: [DONE]\n\n"  # makes the done event that has no room
    async with chat_stream_from(Body(SCRIPT[0], last)) as stream:
        slow = stream.subscribe(max_buffer=2)
        got = [await anext(slow), await anext(slow)]
        await wait_all_tasks_blocked()
        if way == "close":
            await stream.close()
    with pytest.raises(StreamClosedError):
        await collect(slow, got)
    assert [event.type for event in got] == ["chunk", "content.delta"] * 2
    with pytest.raises(StreamClosedError):
        await stream.until_done()


@pytest.mark.parametrize("per_read", [1, 10, 400])
@pytest.mark.parametrize("max_buffer", [16, 100, 1024])
@pytest.mark.parametrize("way", ["one by one", "batches"])
@pytest.mark.parametrize("on_full", ["fail", "drop_oldest"])
async def test_who_does_nothing_but_read_loses_nothing(
    on_full: Any, way: str, max_buffer: int, per_read: int
) -> None:
    count = 1200
    pieces = [chunk("x") * per_read] * (count // per_read)

    async def source() -> AsyncIterator[bytes]:  # without a wait
        for piece in pieces:
            yield piece
        yield chunk(None, "stop")

    got = 0
    async with chat_stream_from(source()) as stream:
        consumer = stream.subscribe(max_buffer=max_buffer, on_full=on_full)

        async def read() -> None:
            nonlocal got
            if way == "batches":
                async for batch in consumer.batches():
                    got += len(batch)
            else:
                async for _ in consumer:
                    got += 1

        stream.start_soon(read)
        await wait_all_tasks_blocked()
        await stream.until_done()
    assert consumer.dropped == 0
    assert got == 2 * count + 2


@pytest.mark.parametrize("max_buffer", [1, 2, 5, 7, 1024])
@pytest.mark.parametrize("on_full", ["fail", "drop_oldest"])
async def test_who_is_not_waited_for_takes_nothing_from_a_complete_answer(
    on_full: Any, max_buffer: int
) -> None:
    async with chat_stream_from(Body(SCRIPT[0], SCRIPT[-1] + USAGE)) as stream:
        unread = stream.subscribe(max_buffer=max_buffer, on_full=on_full)
        waited_for = stream.subscribe()
        async for event in stream:
            if event.type == "content.done":
                break
    assert await stream.get_final_text() == WORDS[0]
    assert stream.usage is not None
    assert [event.type async for event in waited_for][-1] == "chunk"
    await unread.aclose()


@pytest.mark.parametrize("count", [1, 50])
@pytest.mark.parametrize("on_full", ["fail", "drop_oldest"])
async def test_who_is_not_waited_for_and_does_not_read_slows_nobody(
    on_full: Any, count: int
) -> None:
    turns = 0

    async def pieces() -> AsyncIterator[bytes]:  # without a wait
        for _ in range(2000):
            yield SCRIPT[0]
        yield SCRIPT[-1]

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with chat_stream_from(pieces()) as stream:
        idle = [stream.subscribe(max_buffer=1, on_full=on_full) for _ in range(count)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_turns)
            await stream.get_final_completion()
            tasks.cancel_scope.cancel()
        for consumer in idle:
            await consumer.aclose()
    assert turns < 100


@pytest.mark.parametrize("max_buffer", [5, 1024])
async def test_who_is_not_waited_for_does_not_wait_for_the_slow(max_buffer: int) -> None:
    got: list[Any] = []
    async with chat_stream_from(Body(*SCRIPT[:3], STALL)) as stream:
        slow = stream.subscribe(max_buffer=2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                collect, stream.subscribe(max_buffer=max_buffer, on_full="drop_oldest"), got
            )
            await wait_all_tasks_blocked()
            assert len(got) == 4  # the last two have no room in the other channel
            await slow.aclose()
            await wait_all_tasks_blocked()
            assert len(got) == 6
            tasks.cancel_scope.cancel()


async def test_who_is_dropped_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    async with chat_stream_from(Body(*SCRIPT), limits=Limits(slow_consumer_time=60)) as stream:
        consumer = stream.subscribe(max_buffer=5)
        cycle: list[Any] = [consumer]
        cycle.append(cycle)
        del consumer, cycle
        stream.start_soon(stream.until_done)
        await wait_all_tasks_blocked()
        gc.collect()
        await stream.until_done()
    assert "blocked its stream" not in caplog.text


async def test_the_end_comes_behind_what_another_task_took_and_did_not_give_out() -> None:
    go_on = anyio.Event()
    got: list[str] = []

    async def take(stop_at: int) -> None:
        async for event in stream:
            got.append(event.type)
            if len(got) == stop_at:
                return

    async with (
        chat_stream_from(Body(chunk("a"), go_on, chunk("b", finish="stop"))) as stream,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(2):
            tasks.start_soon(take, 3)  # the first of the second read's events
        await anyio.wait_all_tasks_blocked()
        go_on.set()
    assert got == ["chunk", "content.delta"] * 2 + ["content.done"]


async def test_a_consumer_may_be_dropped_in_a_thread(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody can be woken from there, but what is held back goes on."""
    pieces = [chunk("a") for _ in range(5)]
    consumers: list[Any] = []
    async with chat_stream_from(
        Body(*pieces, chunk(finish="stop")), limits=Limits(slow_consumer_time=0.01)
    ) as stream:
        consumers.append(stream.subscribe(max_buffer=1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.until_done)
            while not caplog.records:
                await anyio.lowlevel.checkpoint()
            await anyio.to_thread.run_sync(consumers.clear)
    assert (await stream.get_final_completion()).choices[0].message.content == "aaaaa"


async def test_events_of_other_types_do_not_wait_for_a_lossy_subscriber() -> None:
    fanout = Fanout(1.0)
    channel = Channel(types=frozenset({str}), max_buffer=16, on_full="drop_oldest")
    fanout.add(channel)
    await fanout.publish(["a", "b"])
    await fanout.publish(["c"])  # its reader had a chance to run before
    assert channel.buffered == 3
    assert fanout.publish_nowait([1]) == []
    assert fanout.publish_nowait(["d"]) == [(channel, ["d"])]
    channel.close()
