"""What every relay must do, whatever it stores answers in.

Modules that test one of them import all of this, and have a fixture ``machine``.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from typing import Any, Final
from uuid import UUID

import anyio
import msgspec
import pytest
from anyio import wait_all_tasks_blocked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyio_writer import (
    APIConnectionError,
    APIResponseValidationError,
    APIStreamError,
    AsyncWriter,
    ChatCompletionStream,
    ContentDeltaEvent,
    ContentParseError,
    Conversation,
    ConversationLimitError,
    IdleTimeoutError,
    InvalidParameterError,
    KeyTakenError,
    LeaseLostError,
    ProducerFailedError,
    ProducerLostError,
    ProducerStoppedError,
    RateLimitError,
    RelayedAnswerGoneError,
    RelayUnavailableError,
    StreamClosedError,
    StreamTruncatedError,
    Timeouts,
    UnknownKeyError,
    WriterError,
    WrongKindError,
    chat_stream_from,
    function_tool,
)
from anyio_writer.relay import Lease, Receipt, Relay
from anyio_writer.relay.producing import Production
from anyio_writer.relay.records import End, Header, encode
from anyio_writer.testing import ChatServer, error_reply
from tests.plugins.thoroughness import examples
from tests.protocol.streams import scripts, wire
from tests.relay.relay_helpers import (
    HANGS,
    HELLO,
    LEASE,
    Machine,
    Seen,
    completion,
    follow,
    hello,
    in_time,
    publish,
    timed,
    told,
)
from tests.streaming.helpers import DONE, STALL, Body, chunk
from tests.tools.tools_helpers import CALLS, STOP, call

_numbers = count()


@pytest.fixture
def key() -> str:
    return new_key()


def new_key() -> str:
    return f"answer:{next(_numbers)}"


def whole(*texts: str) -> list[bytes]:
    return [*map(chunk, texts), chunk(None, "stop")]


class Sum(msgspec.Struct):
    a: int
    b: int


# The same events everywhere.


async def test_readers_before_during_and_after_see_the_same(machine: Machine, key: str) -> None:
    half_way = anyio.Event()
    early, late = Seen(), Seen()
    async with machine() as one, machine() as two, anyio.create_task_group() as tg:
        tg.start_soon(partial(follow, two, key, early, wait=5))
        await wait_all_tasks_blocked()

        async def join_half_way() -> None:
            await early.until(4)
            tg.start_soon(follow, two, key, late)
            await wait_all_tasks_blocked()
            half_way.set()

        tg.start_soon(join_half_way)
        seen = await publish(one, key, chat_stream_from(Body(*HELLO[:2], half_way, *HELLO[2:])))
        after = await follow(two, key)
        status = await two.status(key)
    assert len(seen.events) == 12
    assert seen.completion["usage"]["total_tokens"] == 3
    assert early.events == late.events == after.events == seen.events
    assert early.completion == late.completion == after.completion == seen.completion
    assert (status.state, status.events, status.lease_left) == ("complete", 12, 0)
    assert status.started_at is not None
    assert status.ended_at is not None
    assert 0 <= status.ended_at - status.started_at < HANGS


@dataclass
class Piece:
    """What is published together, and who joins before it.

    Attributes:
        frames: Server-sent events.
        skips: For each reader that joins, how many events it skips.
        waits: Whether all that can happen happens before the piece comes.
    """

    frames: list[bytes]
    skips: list[int]
    waits: bool


@st.composite
def stories(draw: st.DrawFn) -> list[Piece]:
    """A random stream, cut at random, and readers that join at random."""
    payloads = [json.dumps(each).encode() for each in wire(draw(scripts()))]
    frames = [
        b"".join(b"data: " + line + b"\n" for line in each.split(b"\n")) + b"\n"
        for each in payloads
    ]
    if draw(st.booleans()):
        frames.append(DONE)
    cuts = sorted(draw(st.lists(st.integers(0, len(frames)), max_size=4)))
    return [
        Piece(
            frames[start:end],
            draw(st.lists(st.integers(0, 12), max_size=2)),
            draw(st.booleans()),
        )
        for start, end in pairwise([0, *cuts, len(frames)])
    ]


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(pieces=stories(), flush_bytes=st.sampled_from([1, 200, 64 * 1024]))
async def test_random_streams_joined_at_random(
    machine: Machine, pieces: list[Piece], flush_bytes: int
) -> None:
    """Readers join after any number of events, and skip any number of them."""
    key = new_key()
    readers: list[tuple[int, Seen]] = []
    undisturbed: list[Seen] = []
    gates = [anyio.Event() for _ in pieces]
    gated = zip(gates, pieces, strict=True)
    body = Body(*(each for gate, piece in gated for each in (gate, *piece.frames)))
    async with (
        machine(flush=1e-6, flush_bytes=flush_bytes) as one,
        machine() as two,
        anyio.create_task_group() as tg,
    ):

        async def produce() -> None:
            undisturbed.append(await publish(one, key, chat_stream_from(body)))

        tg.start_soon(produce)
        for gate, piece in zip(gates, pieces, strict=True):
            for skip in piece.skips:
                readers.append((skip, Seen()))
                tg.start_soon(partial(follow, two, key, readers[-1][1], skip=skip, wait=5))
            if piece.waits:
                await wait_all_tasks_blocked()
            gate.set()
    (seen,) = undisturbed
    for skip, reader in readers:
        assert reader.events == seen.events[skip:]
        assert reader.end == seen.end
        assert reader.completion == seen.completion


async def test_payloads_stay_as_they_are(machine: Machine, key: str) -> None:
    """Line ends, bytes that are not UTF-8 and unknown fields included."""
    odd = (
        b'data: {"unknown": [1.50],\n'
        b'data:   "choices": [{"delta": {"content": "\xff \\ud83d"}}]}\n\n'
    )
    other = b'event: chunk\ndata:  {"choices": [{"delta": {"content": "\\ude00"}}]}\n\n'
    async with machine() as relay:
        seen = await publish(relay, key, chat_stream_from(Body(odd, other, STOP)))
        read = await follow(relay, key)
    raws = [event["raw"] for event in read.events if event["type"] == "chunk"]
    assert raws[0] == b'{"unknown": [1.50],\n  "choices": [{"delta": {"content": "\xff \\ud83d"}}]}'
    assert read.events == seen.events


async def test_every_way_to_read(machine: Machine, key: str) -> None:
    async with machine() as relay:
        await publish(relay, key, hello())
        async with relay.open_stream(key) as stream:
            deltas = stream.subscribe(ContentDeltaEvent)
            assert [text async for text in stream.text_deltas()] == ["Hel", "lo ", "world"]
            assert [event.snapshot async for event in deltas] == ["Hel", "Hello ", "Hello world"]
            assert (stream.response, stream.request_id) == (None, None)
            assert stream.generation == (await relay.status(key)).generation
        async with relay.open_stream(key) as stream:
            assert await stream.get_final_text() == "Hello world"
            assert stream.chunk_count == 6
            assert stream.usage is not None
        async with relay.open_stream(key) as stream:
            batches = [batch async for batch in stream.batches()]
            assert sum(map(len, batches)) == 12


async def test_values_are_read_by_the_reader(machine: Machine, key: str) -> None:
    async with machine() as relay:
        await publish(relay, key, chat_stream_from(Body(*whole('{"a": 1, ', '"b": 2}'))))
        async with relay.open_stream(key, response_format=Sum) as stream:
            partial_values = [event.parsed async for event in stream.subscribe(ContentDeltaEvent)]
            final = await stream.get_final_completion()
        assert partial_values == [{"a": 1}, {"a": 1, "b": 2}]
        assert final.choices[0].message.parsed == Sum(1, 2)
        async with relay.open_stream(key, response_format=list[int]) as stream:
            with pytest.raises(ContentParseError):
                await stream.until_done()


async def test_tools_can_be_run_by_a_reader(machine: Machine, key: str) -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    body = Body(call(0, "add", {"a": 1, "b": 2}), CALLS)
    async with machine() as relay:
        await publish(relay, key, chat_stream_from(body))
        async with relay.open_stream(key, tools=[function_tool(add)]) as stream:
            results = await stream.run_tools().results()
    assert [result.value for result in results] == [3]


async def test_a_long_answer(machine: Machine, key: str) -> None:
    """More than is buffered or read at once."""
    text = [f"{number} " for number in range(20_000)]
    body = Body(b"".join(whole(*text)))
    async with machine() as relay:
        async with anyio.create_task_group() as tg, chat_stream_from(body) as stream:
            tg.start_soon(relay.publish, key, stream)
            async with relay.open_stream(key, wait=5) as reader:
                assert [each async for each in reader.text_deltas()] == text
        async with relay.open_stream(key) as stream:
            assert await stream.get_final_text() == "".join(text)


# Skipping.


async def test_resuming_at_every_event(machine: Machine, key: str) -> None:
    """Each event once, with its snapshot; a late subscriber's snapshot holds what was skipped."""
    async with machine() as relay:
        seen = await publish(relay, key, hello())
        for number in range(len(seen.events) + 2):
            async with relay.open_stream(key, skip=number) as stream:
                subscription = stream.subscribe()
                first = Seen()
                async for event in stream:
                    first.events.append(told(event))
                    break
                read = first.events + [told(event) async for event in stream]
                assert read == seen.events[number:]
                assert completion(await stream.get_final_completion()) == seen.completion
                assert [told(event) async for event in subscription] == read
                joined = completion(subscription.snapshot)
            chunks = [each for each in seen.events[:number] if each["type"] == "chunk"]
            if number <= len(seen.events) and chunks:
                assert joined["usage"] == chunks[-1]["snapshot"]["usage"]
                text = joined["choices"][0]["message"]["content"]
                assert text == chunks[-1]["snapshot"]["choices"][0]["message"]["content"]
            if not number:
                assert joined["choices"] == []


async def test_a_generation_that_is_gone_is_not_resumed(machine: Machine, key: str) -> None:
    async with machine() as relay:
        await publish(relay, key, hello())
        generation = (await relay.status(key)).generation
        assert len((await follow(relay, key, skip=9, generation=generation)).events) == 3
        await relay.expire(key)
        await publish(relay, key, hello())
        assert (await relay.status(key)).generation > generation
        with pytest.raises(ProducerLostError, match="begun the answer anew"):
            async with relay.open_stream(key, skip=9, generation=generation):
                raise AssertionError


# Ends.


def rate_limited() -> ChatCompletionStream[None]:
    error = json.dumps({"error": {"message": "slow down", "n": 10**30}})
    return chat_stream_from(Body(chunk("Hel"), f"data: {error}\n\n".encode()))


ENDS: Final[dict[str, tuple[list[Any], type[Exception], dict[str, Any]]]] = {
    "cut off": ([chunk("Hel")], StreamTruncatedError, {}),
    "empty": ([], StreamTruncatedError, {}),
    "error frame": (
        [chunk("Hel"), b'data: {"error": {"message": "no", "big": 123456789012345678901}}\n\n'],
        APIStreamError,
        {},
    ),
    "error behind a complete answer": (
        [chunk("Hel"), STOP, b'event: error\ndata: {"message": "late"}\n\n'],
        APIStreamError,
        {},
    ),
    "nonsense": ([chunk("Hel"), b"data: {nonsense\n\n"], APIResponseValidationError, {}),
    "broken": ([chunk("Hel"), OSError("reset")], APIConnectionError, {}),
    "silent": (
        [chunk("Hel"), STALL],
        IdleTimeoutError,
        {"timeouts": Timeouts(idle=0.01)},
    ),
}


@pytest.mark.parametrize("case", ENDS)
async def test_an_error_is_the_same_everywhere(machine: Machine, key: str, case: str) -> None:
    script, expected, options = ENDS[case]
    async with machine() as relay:
        seen = await publish(relay, key, chat_stream_from(Body(*script), **options))
        read = await follow(relay, key)
        status = await relay.status(key)
    assert type(seen.error) is expected
    assert read.events == seen.events
    assert read.end == seen.end
    assert status.state == "failed"
    assert status.events == len(seen.events)


async def test_an_answer_that_is_complete_without_a_finish_reason(
    machine: Machine, key: str
) -> None:
    """How it ended is the producer's to say."""
    stream = chat_stream_from(Body(chunk("Hello")), require_finish=False)
    async with machine() as relay:
        seen = await publish(relay, key, stream)
        read = await follow(relay, key)
    assert seen.error is None
    assert read.events == seen.events
    assert [event["type"] for event in read.events] == ["chunk", "content.delta", "content.done"]


async def test_an_answer_that_does_not_fit_is_complete_for_others(
    machine: Machine, key: str
) -> None:
    stream = chat_stream_from(Body(*whole("text")), response_format=list[int])
    async with machine() as relay:
        async with stream:
            with pytest.raises(ContentParseError):
                await relay.publish(key, stream)
        read = await follow(relay, key)
        assert (await relay.status(key)).state == "complete"
        other = await follow(relay, key, response_format=list[int])
    assert read.error is None
    assert type(other.error) is ContentParseError
    assert other.error.text == "text"


async def test_an_answer_that_the_model_could_not_finish(machine: Machine, key: str) -> None:
    """Its last done events are there, and its error, whose text must not be read as a value."""
    body = Body(chunk("text"), chunk(None, "error"))
    stream = chat_stream_from(body, response_format=list[int])
    async with machine() as relay:
        seen = await publish(relay, key, stream)
        read = await follow(relay, key)
    assert type(seen.error) is StreamTruncatedError
    assert seen.events[-1]["type"] == "content.done"
    assert read.events == seen.events
    assert read.end == seen.end


async def test_a_status_error_of_the_model(machine: Machine, key: str) -> None:
    """The request that fails was sent by the relay's own task."""
    async with (
        ChatServer(error_reply(429, headers={"x-request-id": "r1"})) as server,
        AsyncWriter(api_key="key", base_url=server.url, max_retries=0) as writer,
        machine() as relay,
    ):
        open_stream = partial(
            writer.chat.stream, messages=[{"role": "user", "content": "?"}], model="m"
        )
        errors: list[RateLimitError] = []
        for _ in range(2):
            async with relay.start_or_join(key, open_stream) as stream:
                with pytest.raises(RateLimitError) as caught:
                    await stream.until_done()
            errors.append(caught.value)
        assert len(server.requests) == 1
    for error in errors:
        assert error.status_code == 429
        assert error.request_id == "r1"
        assert error.body is not None
        assert error.completion is None


async def test_a_foreign_error_is_told_by_its_name_only(
    machine: Machine, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(ChatCompletionStream[None]):
        async def __aenter__(self) -> Any:
            raise ValueError("secret")

    async with machine() as relay:
        async with relay.start_or_join(key, lambda: Odd(hello()._source, hello()._settings)) as s:
            with pytest.raises(ProducerFailedError, match="ValueError") as caught:
                await s.until_done()
    assert "secret" not in str(caught.value)
    assert "secret" in caplog.text  # of the machine on which it happened


async def test_an_error_with_keys_that_are_not_text(machine: Machine, key: str) -> None:
    """Requests may have them; they are text in JSON."""

    def open_conversation() -> Conversation[Any]:
        return Conversation(
            lambda _: chat_stream_from(Body(*ADD), tools=[function_tool(add)]),
            [{"role": "user", "content": "?", UUID(int=1): 2, 3: 4}],
            max_rounds=1,
        )

    async with (
        machine() as relay,
        relay.start_or_join(key, open_conversation) as conversation,
    ):
        with anyio.fail_after(HANGS), pytest.raises(ConversationLimitError) as caught:
            await conversation.until_done()
    message = {"role": "user", "content": "?", str(UUID(int=1)): 2, "3": 4}
    assert caught.value.messages[0] == message


async def test_readers_get_what_arrived_before_an_error(machine: Machine, key: str) -> None:
    async with machine() as relay:
        await publish(relay, key, chat_stream_from(Body(chunk("Hel"))))
        async with relay.open_stream(key) as stream:
            with pytest.raises(StreamTruncatedError) as caught:
                await stream.until_done()
    assert caught.value.completion is not None
    assert caught.value.completion.choices[0].message.content == "Hel"
    assert stream.current_completion_snapshot.choices[0].message.content == "Hel"


# Publishing.


async def test_a_key_has_one_answer(machine: Machine, key: str) -> None:
    async with machine() as one, machine() as two:
        body = Body(chunk("Hel"), STALL)
        async with anyio.create_task_group() as tg, chat_stream_from(body) as stream:
            tg.start_soon(one.publish, key, stream)
            async with two.open_stream(key, wait=5) as reader:
                await anext(reader)
            async with hello() as other:
                with pytest.raises(KeyTakenError, match=key):
                    await two.publish(key, other)
                assert len([event async for event in other]) == 12  # it goes on
            tg.cancel_scope.cancel()
        async with hello() as other:
            with pytest.raises(KeyTakenError, match=key):
                await two.publish(key, other)


async def test_a_stream_that_has_begun_is_refused(machine: Machine, key: str) -> None:
    async with machine() as relay, hello() as stream:
        await anext(stream)
        with pytest.raises(WriterError, match="has begun"):
            await relay.publish(key, stream)
        assert (await relay.status(key)).state == "unknown"


@pytest.mark.parametrize("wrong", ["", 1, None, b"key"])
async def test_wrong_keys(machine: Machine, wrong: Any) -> None:
    async with machine() as relay, hello() as stream:
        with pytest.raises(InvalidParameterError, match="key"):
            await relay.publish(wrong, stream)
        with pytest.raises(InvalidParameterError, match="key"):
            relay.open_stream(wrong)
        for ask in (relay.stop, relay.status, relay.expire):
            with pytest.raises(InvalidParameterError, match="key"):
                await ask(wrong)


async def test_what_is_no_stream(machine: Machine, key: str) -> None:
    wrong: Any = [1]
    async with machine() as relay:
        with pytest.raises(InvalidParameterError, match="list"):
            await relay.publish(key, wrong)
        with pytest.raises(InvalidParameterError, match=r"open_stream must return .* not list"):
            async with relay.start_or_join(key, lambda: wrong):
                raise AssertionError
        async with relay.start_or_join(key, hello) as stream:
            assert await stream.get_final_text() == "Hello world"


async def test_an_answer_is_relayed_on(machine: Machine, key: str) -> None:
    """A stream that comes from a relay can be published like any other."""
    async with machine() as relay:
        seen = await publish(relay, key, chat_stream_from(Body(*HELLO[:3])))
        again = new_key()
        other = await publish(relay, again, relay.open_stream(key))
        read = await follow(relay, again)
    assert other.events == read.events == seen.events
    assert other.end == read.end == seen.end


async def test_an_answer_without_its_first_events_is_not_relayed_on(
    machine: Machine, key: str
) -> None:
    """Its readers would take the remaining events for the whole answer."""
    async with machine() as relay:
        await publish(relay, key, hello())
        again = new_key()
        async with relay.open_stream(key, skip=2) as rest:
            with pytest.raises(InvalidParameterError, match="skip"):
                await relay.publish(again, rest)
        with pytest.raises(InvalidParameterError, match="skip"):
            async with relay.start_or_join(again, lambda: relay.open_stream(key, skip=2)):
                raise AssertionError
        async with relay.start_or_join(again, lambda: relay.open_stream(key)) as stream:
            assert await stream.get_final_text() == "Hello world"


async def test_a_cancelled_producer_publishes_what_was_read(machine: Machine, key: str) -> None:
    reader = Seen()
    async with machine() as one, machine() as two, anyio.create_task_group() as tg:
        async with anyio.create_task_group() as producing:
            stream = chat_stream_from(Body(chunk("Hel"), chunk("lo"), STALL))
            seen = Seen()

            async def produce() -> None:
                async with stream:
                    stream.start_soon(seen.watch, stream.subscribe())
                    await one.publish(key, stream)

            producing.start_soon(produce)
            tg.start_soon(partial(follow, two, key, reader, wait=5))
            await reader.until(4)
            producing.cancel_scope.cancel()
        status = await two.status(key)
    assert status.state == "stopped"
    assert type(reader.error) is ProducerStoppedError
    assert reader.error.by == "producer"
    assert reader.error.completion is not None
    assert reader.error.completion.choices[0].message.content == "Hello"
    assert reader.events == seen.events


async def test_a_producer_that_is_cancelled_at_any_step(machine: Machine) -> None:
    """Whatever it was doing, its key has no producer then, and readers get what was read."""
    states: set[str] = set()
    async with machine() as one, machine() as two:
        for steps in [*range(40), *range(40, 200, 10)]:
            key = new_key()
            seen = Seen()
            async with anyio.create_task_group() as tg:

                async def produce(key: str = key, seen: Seen = seen) -> None:
                    async with hello() as stream:
                        stream.start_soon(seen.watch, stream.subscribe())
                        await one.publish(key, stream)

                tg.start_soon(produce)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                tg.cancel_scope.cancel()
            status = await two.status(key)
            states.add(status.state)
            if status.state in {"unknown", "lost"}:
                async with two.start_or_join(key, hello) as stream:
                    assert await stream.get_final_text() == "Hello world"
                continue
            assert status.lease_left == 0
            read = await follow(two, key)
            assert read.events[: len(seen.events)] == seen.events
            if status.state == "stopped":
                assert type(read.error) is ProducerStoppedError
            else:
                assert read.error is None
                assert len(read.events) == 12
    assert states >= {"unknown", "stopped"}


async def test_a_reader_that_is_cancelled_at_any_step(machine: Machine, key: str) -> None:
    """The next one is none the worse for it."""
    async with machine() as relay:
        seen = await publish(relay, key, hello())
        for steps in range(60):
            async with anyio.create_task_group() as tg:
                tg.start_soon(follow, relay, key)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                tg.cancel_scope.cancel()
        assert (await follow(relay, key)).events == seen.events


async def test_who_starts_an_answer_is_cancelled_at_any_step(machine: Machine) -> None:
    """Then it goes on, or nobody has begun it; it is never left without a producer."""
    async with machine() as one, machine() as two:
        for steps in [*range(40), *range(40, 200, 10)]:
            key = new_key()
            opened: list[int] = []

            def open_stream(opened: list[int] = opened) -> ChatCompletionStream[None]:
                opened.append(1)
                return hello()

            async with anyio.create_task_group() as tg:

                async def start(key: str = key, open_stream: Any = open_stream) -> None:
                    async with one.start_or_join(key, open_stream) as stream:
                        await stream.until_done()

                tg.start_soon(start)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                tg.cancel_scope.cancel()
            with anyio.fail_after(3):  # far less than the lease
                async with two.start_or_join(key, open_stream) as stream:
                    assert await stream.get_final_text() == "Hello world"
            assert len(opened) == 1


async def test_a_closed_stream_is_a_stopped_answer(machine: Machine, key: str) -> None:
    async with machine() as relay, anyio.create_task_group() as tg:
        async with chat_stream_from(Body(chunk("Hel"), STALL)) as stream:

            async def produce() -> None:
                with pytest.raises(StreamClosedError):
                    await relay.publish(key, stream)

            tg.start_soon(produce)
            async with relay.open_stream(key, wait=5) as reader:
                await anext(reader)
                await stream.close()
                with pytest.raises(ProducerStoppedError, match="by its producer"):
                    await reader.until_done()


# Stopping.


@timed
async def test_stop_from_another_machine(machine: Machine, key: str) -> None:
    body = Body(chunk("Hel"), STALL)
    beside = Seen()
    async with machine() as one, machine() as two, anyio.create_task_group() as tg:

        async def produce() -> None:
            async with chat_stream_from(body) as stream:
                stream.start_soon(beside.watch, stream.subscribe())
                await one.publish(key, stream)  # and returns

        tg.start_soon(produce)
        async with two.open_stream(key, wait=5) as reader:
            await anext(reader)
            assert (await two.status(key)).state == "running"
            started = anyio.current_time()
            assert await two.stop(key) is True
            with pytest.raises(ProducerStoppedError, match=r"Relay.stop\(\)") as caught:
                await reader.until_done()
            in_time(started, 1)
        assert caught.value.by == "stop"
        assert await two.stop(key) is False
        assert await two.stop("no such key") is False
        status = await one.status(key)
    assert status.state == "stopped"
    assert body.closed or body.reads == 2
    assert type(beside.error) is StreamClosedError


async def test_stop_while_the_request_is_still_on_its_way(machine: Machine, key: str) -> None:
    entered = anyio.Event()

    class Slow(ChatCompletionStream[None]):
        async def __aenter__(self) -> Any:
            entered.set()
            await anyio.sleep_forever()

    async with machine() as relay:
        source = hello()
        make = partial(Slow, source._source, source._settings)
        async with relay.start_or_join(key, make) as stream:
            await entered.wait()
            assert await relay.stop(key)
            with anyio.fail_after(HANGS), pytest.raises(ProducerStoppedError):
                await stream.until_done()


# Leases.


@timed
async def test_a_producer_that_dies_is_noticed_in_time(machine: Machine, key: str) -> None:
    """A reader that waits, one that comes later, and one that has much to read first."""
    waiting, later = Seen(), Seen()
    async with machine(lease=LEASE) as one, machine(lease=LEASE) as two:
        lease = (await one.elect(key, "token")).lease
        assert lease is not None
        payload = chunk("Hel")[6:-2]
        await one.append(lease, 1, encode([Header("stream"), payload]), 2)
        died = anyio.current_time()
        async with anyio.create_task_group() as tg:
            tg.start_soon(follow, two, key, waiting)
            await anyio.sleep(LEASE / 2)
            tg.start_soon(follow, two, key, later)
        in_time(died, LEASE + 1, least=LEASE - 0.1)
        status = await two.status(key)
        with pytest.raises(LeaseLostError, match=key):
            await one.append(lease, 2, encode([payload]), 4)
        with pytest.raises(LeaseLostError):
            await one.finish(lease, 2, encode([End("complete")]), 2, "complete")
        after = await follow(two, key)
        assert await two.stop(key) is False
    assert status.state == "lost"
    for seen in (waiting, later, after):
        assert type(seen.error) is ProducerLostError
        assert len(seen.events) == 2
        assert seen.completion["choices"][0]["message"]["content"] == "Hel"


async def test_a_lost_answer_is_started_anew(machine: Machine, key: str) -> None:
    """Who follows the old one gets an error, and who comes then the new one, from its start."""
    async with machine(lease=LEASE) as one, machine(lease=LEASE) as two:
        lease = (await one.elect(key, "token")).lease
        assert lease is not None
        await one.append(lease, 1, encode([Header("stream"), chunk("Hel")[6:-2]]), 2)
        async with two.open_stream(key) as old:
            assert (await anext(old)).type == "chunk"
            first = old.generation
            await one.release(lease)
            assert (await two.status(key)).state == "lost"
            seen = await publish(two, key, hello())
            assert seen.error is None
            with pytest.raises(ProducerLostError):
                await old.until_done()
        with pytest.raises(LeaseLostError):
            await one.append(lease, 2, encode([b"{}"]), 3)
        await one.release(lease)  # does nothing to the other's
        new = await follow(two, key)
        generation = (await two.status(key)).generation
    assert new.events == seen.events
    assert generation > first


async def test_readers_of_a_lost_answer_get_the_rest_of_it(machine: Machine, key: str) -> None:
    """Also when another producer has begun anew before they read."""
    seen = Seen()
    async with machine() as one, machine() as two:
        lease = (await one.elect(key, "token")).lease
        assert lease is not None
        payload = b'{"choices": [{"delta": {"content": "Hi"}}]}'
        await one.append(lease, 1, encode([Header("stream"), payload]), 2)
        async with two.open_stream(key) as stream:
            await one.release(lease)
            await publish(one, key, hello())
            await seen.watch(stream)
        assert [event["type"] for event in seen.events] == ["chunk", "content.delta"]
        assert type(seen.error) is ProducerLostError
        assert len((await follow(two, key)).events) == 12


async def test_a_producer_whose_lease_is_gone_ends(machine: Machine, key: str) -> None:
    """Its stream and the other subscribers do not."""
    go_on = anyio.Event()
    body = Body(chunk("Hel"), go_on, chunk("lo"), STOP)
    async with machine() as relay, chat_stream_from(body) as stream:
        seen = Seen()
        stream.start_soon(seen.watch, stream.subscribe())

        async def forget() -> None:
            async with relay.open_stream(key, wait=5) as reader:
                await anext(reader)
                assert await relay.expire(key)
                with pytest.raises(RelayedAnswerGoneError):
                    await reader.until_done()

        stream.start_soon(forget)
        with anyio.fail_after(HANGS), pytest.raises(LeaseLostError, match=key):
            await relay.publish(key, stream)
        go_on.set()
        await stream.until_done()
    assert seen.error is None
    assert stream.chunk_count == 3


async def test_the_log_takes_each_entry_once(machine: Machine, key: str) -> None:
    """A second try after a lost reply changes nothing, and a gap is refused."""
    async with machine() as relay:
        lease = (await relay.elect(key, "token")).lease
        assert lease is not None
        assert (await relay.elect(key, "token")).lease == lease
        assert (await relay.elect(key, "other")) == (None, lease.generation)
        one, two = encode([Header("stream")]), encode([b"{}"])
        assert await relay.append(lease, 1, one, 0) == (1, False)
        assert await relay.append(lease, 1, one, 0) == (1, False)
        assert await relay.append(lease, 3, two, 9) == (1, False)  # 2 is missing
        assert await relay.append(lease, 0, b"", 9) == (1, False)
        assert (await relay.status(key)).events == 0
        assert await relay.append(lease, 2, two, 1) == (2, False)
        assert await relay.stop(key)
        assert await relay.append(lease, 2, two, 1) == (2, True)
        end = encode([End("complete")])
        assert (await relay.finish(lease, 4, end, 1, "complete")).entries == 2
        assert (await relay.status(key)).state == "running"
        assert (await relay.finish(lease, 3, end, 1, "complete")).entries == 3
        assert (await relay.finish(lease, 3, end, 1, "complete")).entries == 3
        with pytest.raises(LeaseLostError):
            await relay.append(lease, 4, two, 2)
        assert (await relay.elect(key, "other")).lease is None
        read = partial(relay.read, key, lease.generation)
        assert await read(0, 0) == [(1, one), (2, two), (3, end)]
        assert await read(2, 1) == [(3, end)]
        assert await read(3, 0) == []
        assert await relay.read(key, lease.generation - 1, 0, 0) == []
        assert await relay.read("no such key", 1, 0, 0) == []


async def test_a_read_waits_for_as_long_as_it_is_told(machine: Machine, key: str) -> None:
    async with machine() as one, machine() as two:
        lease = (await one.elect(key, "token")).lease
        assert lease is not None
        started = anyio.current_time()
        assert await two.read(key, lease.generation, 0, 0.2) == []
        assert 0.15 < anyio.current_time() - started < 2

        async with anyio.create_task_group() as tg:
            tg.start_soon(one.append, lease, 1, b"data", 0)
            with anyio.fail_after(HANGS):
                assert await two.read(key, lease.generation, 0, HANGS) == [(1, b"data")]
        await one.release(lease)


async def test_what_the_server_lost_is_sent_again(machine: Machine, key: str) -> None:
    """As in a failover to a replica that lacks the newest entries. Nothing is doubled."""
    async with machine(flush=1e-6) as relay:
        forgotten: list[int] = []

        class Forgetful:
            """Forgets entry 3 when the next one comes, twice."""

            async def append(self, lease: Lease, number: int, data: bytes, events: int) -> Receipt:
                if number == 4 and len(forgotten) < 2:
                    forgotten.append(number)
                    return Receipt(2, stop_wanted=False)
                return await relay.append(lease, number, data, events)

            def __getattr__(self, name: str) -> Any:
                return getattr(relay, name)

        lease = (await relay.elect(key, "token")).lease
        assert lease is not None
        log: Any = Forgetful()
        production = Production(log, key, lease_time=5, flush=1e-6, flush_bytes=1)
        async with anyio.create_task_group() as tg, hello() as stream:
            production.subscribe(stream)
            seen = Seen()
            stream.start_soon(seen.watch, stream.subscribe())

            async def produce() -> None:
                await production.begin(stream)
                await production.follow()

            await production.run(lease, tg, produce)
        read = await follow(relay, key)
    assert forgotten == [4, 4]
    assert read.events == seen.events
    assert read.error is None


async def test_a_late_reply_to_the_end(machine: Machine, key: str) -> None:
    """The lease was given up with the end, so nobody may try to renew it meanwhile."""
    async with machine() as relay:

        class Slow:
            async def finish(self, *args: Any) -> Receipt:
                receipt = await relay.finish(*args)
                await anyio.sleep(0.3)
                return receipt

            def __getattr__(self, name: str) -> Any:
                return getattr(relay, name)

        lease = (await relay.elect(key, "token")).lease
        assert lease is not None
        log: Any = Slow()
        production = Production(log, key, lease_time=0.3, flush=1e-6, flush_bytes=1)
        async with anyio.create_task_group() as tg, hello() as stream:
            production.subscribe(stream)

            async def produce() -> None:
                await production.begin(stream)
                await production.follow()

            await production.run(lease, tg, produce)
        assert (await relay.status(key)).state == "complete"


# Expiry.


async def test_a_cancellation_goes_on_though_the_end_cannot_be_recorded(
    machine: Machine, key: str
) -> None:
    async with machine() as relay:
        is_recording = anyio.Event()

        class Losing:
            async def finish(self, *args: Any) -> Receipt:
                if not is_recording.is_set():
                    is_recording.set()
                    await anyio.sleep_forever()
                raise LeaseLostError("gone")

            def __getattr__(self, name: str) -> Any:
                return getattr(relay, name)

        lease = (await relay.elect(key, "token")).lease
        assert lease is not None
        log: Any = Losing()
        production = Production(log, key, lease_time=5, flush=1e-6, flush_bytes=1)
        async with anyio.create_task_group() as tg, hello() as stream:
            production.subscribe(stream)
            scope = anyio.CancelScope()

            async def run() -> None:
                with scope:
                    await production.run(lease, tg, production.follow)

            tg.start_soon(run)
            with anyio.fail_after(HANGS):
                await is_recording.wait()
            scope.cancel()
    assert scope.cancelled_caught


async def test_answers_expire(machine: Machine, key: str) -> None:
    async with machine(lease=0.3, ttl=0.3) as relay:
        await publish(relay, key, hello())
        reader = Seen()
        async with relay.open_stream(key) as stream:
            await anyio.sleep(0.4)
            await reader.watch(stream)
        assert type(reader.error) is RelayedAnswerGoneError
        assert (await relay.status(key)).state == "unknown"
        with pytest.raises(UnknownKeyError):
            await follow(relay, key)
        assert await relay.expire(key) is False


async def test_expire_later(machine: Machine, key: str) -> None:
    async with machine() as relay:
        await publish(relay, key, hello())
        assert await relay.expire(key, 0.2) is True
        assert len((await follow(relay, key)).events) == 12
        await anyio.sleep(0.3)
        assert (await relay.status(key)).state == "unknown"


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf, "1", True])
async def test_expiring_at_no_time(machine: Machine, key: str, wrong: Any) -> None:
    async with machine() as relay:
        await publish(relay, key, hello())
        with pytest.raises(InvalidParameterError, match="after"):
            await relay.expire(key, wrong)
        assert (await relay.status(key)).state == "complete"


async def test_an_answer_that_goes_on_does_not_expire(machine: Machine, key: str) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for text in "abcdefghij":
            await anyio.sleep(0.1)
            yield chunk(text)
        yield STOP

    async with machine(lease=0.4, ttl=0.5) as relay:
        seen = await publish(relay, key, chat_stream_from(slow()))
        assert seen.error is None
        assert (await follow(relay, key)).events == seen.events


# Opening.


async def test_an_unknown_key(machine: Machine, key: str) -> None:
    async with machine() as relay:
        with pytest.raises(UnknownKeyError, match=key):
            await follow(relay, key)
        started = anyio.current_time()
        with pytest.raises(UnknownKeyError, match=r"within 0\.1 s"):
            await follow(relay, key, wait=0.1)
        assert anyio.current_time() - started >= 0.1
        status = await relay.status(key)
        assert (status.state, status.generation, status.started_at) == ("unknown", 0, None)


async def test_wrong_options(machine: Machine, key: str) -> None:
    async with machine() as relay:
        options: list[dict[str, Any]] = [{"skip": -1}, {"skip": 1.5}, {"wait": -1}]
        for wrong in [*options, {"generation": 0}]:
            with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
                relay.open_stream(key, **wrong)


async def test_the_readers_own_limits_count(machine: Machine, key: str) -> None:
    async with machine() as relay, anyio.create_task_group() as tg:
        async with chat_stream_from(Body(chunk("Hel"), STALL)) as stream:
            tg.start_soon(relay.publish, key, stream)
            seen = await follow(relay, key, wait=5, timeouts=Timeouts(idle=0.05))
            assert type(seen.error) is IdleTimeoutError
            tg.cancel_scope.cancel()


async def test_leaving_a_reader_early_stops_nothing(machine: Machine, key: str) -> None:
    go_on = anyio.Event()
    async with machine() as relay, anyio.create_task_group() as tg:
        stream = chat_stream_from(Body(chunk("Hel"), go_on, chunk("lo"), STOP))
        tg.start_soon(publish, relay, key, stream)
        async with relay.open_stream(key, wait=5) as reader:
            await anext(reader)
        with pytest.raises(StreamClosedError):
            await reader.get_final_completion()
        go_on.set()
        assert (await follow(relay, key)).error is None


async def test_a_cancelled_reader_stops_nothing(machine: Machine, key: str) -> None:
    go_on = anyio.Event()
    async with machine() as relay, anyio.create_task_group() as tg:
        stream = chat_stream_from(Body(chunk("Hel"), go_on, chunk("lo"), STOP))
        tg.start_soon(publish, relay, key, stream)
        for _ in range(5):
            with anyio.move_on_after(0.02):
                await follow(relay, key, wait=5)
        go_on.set()
        assert (await follow(relay, key, wait=5)).error is None


async def test_a_slow_reader_does_not_slow_the_producer(machine: Machine, key: str) -> None:
    body = whole(*map(str, range(500)))
    async with machine() as relay:
        async with anyio.create_task_group() as tg:

            async def read_little() -> None:
                async with relay.open_stream(key, wait=5) as reader:
                    slow = reader.subscribe(max_buffer=1)
                    await anext(slow)
                    done.set()
                    await anyio.sleep_forever()

            done = anyio.Event()
            tg.start_soon(read_little)
            seen = await publish(relay, key, chat_stream_from(Body(*body)))
            await done.wait()
            assert (await follow(relay, key)).events == seen.events
            tg.cancel_scope.cancel()


# Starting or joining.


async def test_one_starts_and_the_others_join(machine: Machine, key: str) -> None:
    opened: list[str] = []

    def open_stream(name: str) -> ChatCompletionStream[None]:
        opened.append(name)
        return hello()

    readers = [Seen() for _ in range(8)]

    async def race(relay: Relay, name: str, seen: Seen) -> None:
        async with relay.start_or_join(key, lambda: open_stream(name)) as stream:
            await seen.watch(stream)

    async with machine() as one, machine() as two, anyio.create_task_group() as tg:
        for number, seen in enumerate(readers):
            tg.start_soon(race, one if number % 2 else two, str(number), seen)
    assert len(opened) == 1
    assert all(seen.error is None for seen in readers)
    assert len(readers[0].events) == 12
    assert all(seen.events == readers[0].events for seen in readers)


async def test_the_answer_goes_on_when_its_starter_has_left(machine: Machine, key: str) -> None:
    go_on = anyio.Event()
    body = Body(chunk("Hel"), go_on, chunk("lo"), STOP)
    async with machine() as relay:
        async with relay.start_or_join(key, lambda: chat_stream_from(body)) as stream:
            await anext(stream)
        go_on.set()
        async with relay.start_or_join(key, hello) as stream:
            assert await stream.get_final_text() == "Hello"


async def test_leaving_the_relay_stops_what_it_produces(machine: Machine, key: str) -> None:
    async with machine() as two:
        reader = Seen()
        async with anyio.create_task_group() as tg:
            async with machine() as one:
                body = Body(chunk("Hel"), STALL)
                async with one.start_or_join(key, lambda: chat_stream_from(body)) as stream:
                    await anext(stream)
                if one is two:
                    return  # one process: it takes its readers along
                tg.start_soon(follow, two, key, reader)
                await reader.until(1)
        assert type(reader.error) is ProducerStoppedError
        assert len(reader.events) == 2
        assert (await two.status(key)).state == "stopped"


async def test_a_wrong_request_is_its_callers_error(machine: Machine, key: str) -> None:
    """Nobody has begun then, so the next caller does."""

    def wrong() -> ChatCompletionStream[None]:
        raise InvalidParameterError("wrong")

    async with machine() as one, machine() as two:
        with pytest.raises(InvalidParameterError, match="wrong"):
            async with one.start_or_join(key, wrong):
                raise AssertionError
        async with two.start_or_join(key, hello) as stream:
            assert await stream.get_final_text() == "Hello world"


@pytest.mark.parametrize(
    "wrong", [{"skip": -1}, {"generation": 0}, {"tools": [3]}, {"response_format": 3}, {"x": 1}]
)
async def test_nothing_is_started_for_wrong_options(
    machine: Machine, key: str, wrong: dict[str, Any]
) -> None:
    def open_stream() -> ChatCompletionStream[None]:
        raise AssertionError

    async with machine() as relay:
        with pytest.raises((WriterError, TypeError)):
            async with relay.start_or_join(key, open_stream, **wrong):
                pass
        assert (await relay.status(key)).state == "unknown"


async def test_an_answer_that_ended_is_joined(machine: Machine, key: str) -> None:
    async with machine() as relay:
        await publish(relay, key, chat_stream_from(Body(chunk("Hel"))))
        async with relay.start_or_join(key, hello) as stream:
            with pytest.raises(StreamTruncatedError):
                await stream.until_done()
        await relay.expire(key)
        async with relay.start_or_join(key, hello, skip=2) as stream:
            assert await stream.get_final_text() == "Hello world"


async def test_who_skips_events_of_a_lost_answer_gets_all_of_the_next(
    machine: Machine, key: str
) -> None:
    async with machine() as relay:
        lease = (await relay.elect(key, "token")).lease
        assert lease is not None
        await relay.append(lease, 1, encode([Header("stream"), chunk("Hi")]), 2)
        await relay.release(lease)
        seen: list[list[Any]] = []
        generation = lease.generation
        for _ in range(2):  # the first starts the next answer, the second goes on in it
            async with relay.start_or_join(key, hello, skip=2, generation=generation) as stream:
                generation = stream.generation
                seen.append([told(event) async for event in stream])
        whole = await follow(relay, key)
    assert seen == [whole.events, whole.events[2:]]


async def test_a_lost_answer_is_started_by_the_next(machine: Machine, key: str) -> None:
    async with machine() as relay:
        lease = (await relay.elect(key, "token")).lease
        assert lease is not None
        await relay.release(lease)
        async with relay.start_or_join(key, hello) as stream:
            assert await stream.get_final_text() == "Hello world"
            assert stream.generation > lease.generation


async def test_who_joins_a_producer_that_dies_before_it_began_starts(
    machine: Machine, key: str
) -> None:
    async with machine(lease=LEASE) as relay:
        assert (await relay.elect(key, "token")).lease
        with anyio.fail_after(HANGS):
            async with relay.start_or_join(key, hello) as stream:
                assert await stream.get_final_text() == "Hello world"


async def test_who_joins_an_answer_that_is_deleted_before_it_began_starts(
    machine: Machine, key: str
) -> None:
    async with machine(lease=LEASE) as one, machine(lease=LEASE) as two:
        assert (await one.elect(key, "token")).lease
        texts: list[str | None] = []

        async def join() -> None:
            async with two.start_or_join(key, hello) as stream:
                texts.append(await stream.get_final_text())

        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tg:
                tg.start_soon(join)
                await wait_all_tasks_blocked()
                assert await one.expire(key)
    assert texts == ["Hello world"]


# Conversations.


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def fail() -> None:
    raise ValueError("broken")


def talk(*scripts: list[Any], **options: Any) -> Conversation[Any]:
    bodies = iter([Body(*script) for script in scripts])
    tools = [function_tool(add), function_tool(fail)]
    return Conversation(
        lambda _: chat_stream_from(next(bodies), tools=tools),
        [{"role": "user", "content": "Hello"}],
        **options,
    )


ADD: Final = [call(0, "add", {"a": 1, "b": 2}), CALLS]
TWO: Final = [call(0, "add", {"a": 1, "b": 2}), call(1, "fail", "{}"), chunk("and"), CALLS]
END: Final = [chunk("It is "), chunk("3"), STOP]

TALKS: Final[dict[str, tuple[list[list[Any]], dict[str, Any]]]] = {
    "no call": ([END], {}),
    "one call": ([ADD, END], {}),
    "two calls, one early": ([TWO, END], {}),
    "three rounds": ([ADD, TWO, END], {}),
    "too many rounds": ([ADD, TWO], {"max_rounds": 2}),
    "cut off": ([ADD, [chunk("It")]], {}),
    "failed in a call": ([[call(0, "add", '{"a"')]], {}),
    "a call cut off": ([[call(0, "add", '{"a"'), chunk(None, "length")]], {}),
    "a tool that ends it": ([TWO, END], {"on_error": "raise"}),
}


@pytest.mark.parametrize("case", TALKS)
async def test_a_conversation_is_the_same_everywhere(machine: Machine, key: str, case: str) -> None:
    script, options = TALKS[case]
    async with machine(flush=1e-6) as relay:
        early = Seen()
        async with anyio.create_task_group() as tg:
            tg.start_soon(partial(follow, relay, key, early, conversation=True, wait=5))
            seen = await publish(relay, key, talk(*script, **options))
        late = await follow(relay, key, conversation=True)
        status = await relay.status(key)
    assert status.events == len(seen.events)
    assert early.events == late.events == seen.events
    if isinstance(seen.error, ExceptionGroup):
        assert type(late.error) is type(early.error) is ProducerFailedError
        return
    assert early.end == late.end == seen.end
    assert early.completion == late.completion == seen.completion
    if isinstance(seen.error, ConversationLimitError):
        assert isinstance(late.error, ConversationLimitError)
        assert late.error.messages == json.loads(json.dumps(seen.error.messages))
        assert late.error.completion is not None


async def test_results_amid_a_burst_stand_where_they_stood(machine: Machine, key: str) -> None:
    tiny = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
    calls = [call(number, "add", {"a": 1, "b": number}) for number in range(4)]
    body = [b"".join([*calls, *[tiny] * 3000]), CALLS]
    types: list[str] = []
    async with machine() as relay:
        async with talk(body, END) as conversation:

            async def watch() -> None:
                types.extend([event.type async for event in conversation.subscribe()])

            conversation.start_soon(watch)
            await relay.publish(key, conversation)
        async with relay.open_conversation(key) as reader:
            assert [event.type async for event in reader] == types
    assert types.count("tool.result") == 4


@pytest.mark.parametrize("index", [-1, 2**64, 10**30, -(10**30)])
async def test_a_call_with_any_number(machine: Machine, key: str, index: int) -> None:
    """Servers choose the numbers of their calls, and JSON has no largest one."""
    async with machine() as relay:
        with anyio.fail_after(HANGS):
            async with talk([call(index, "add", {"a": 1, "b": 2}), CALLS], END) as conversation:
                events = conversation.subscribe()
                await relay.publish(key, conversation)
                published = [msgspec.json.encode(each) async for each in events]
            async with relay.open_conversation(key) as reader:
                assert [msgspec.json.encode(each) async for each in reader] == published
    assert any(b"tool.result" in each for each in published)


async def test_resuming_a_conversation_at_every_event(machine: Machine, key: str) -> None:
    async with machine() as relay:
        seen = await publish(relay, key, talk(ADD, TWO, END))
        for number in range(len(seen.events) + 2):
            async with relay.open_conversation(key, skip=number) as conversation:
                subscription = conversation.subscribe()
                read = [told(event) async for event in conversation]
                assert read == seen.events[number:]
                assert len(conversation.completions) == 3
                assert conversation.generation
                joined = completion(subscription.snapshot)
            earlier = [each for each in seen.events[:number] if each["type"] != "tool.result"]
            if number > len(seen.events) or not earlier:
                continue
            if earlier[-1]["type"] == "round.started":
                assert joined["choices"] == []
            elif earlier[-1]["type"] == "chunk":
                assert joined == earlier[-1]["snapshot"]


async def test_a_conversation_is_started_and_joined(machine: Machine, key: str) -> None:
    async with machine() as one, machine() as two:
        async with one.start_or_join(key, lambda: talk(ADD, END)) as conversation:
            events = [told(event) async for event in conversation]
            final = await conversation.get_final_completion()
        async with two.start_or_join(key, lambda: talk(ADD, END)) as conversation:
            assert [told(event) async for event in conversation] == events
    assert final.choices[0].message.content == "It is 3"


async def test_a_key_of_the_other_kind(machine: Machine, key: str) -> None:
    async with machine() as relay:
        await publish(relay, key, talk(END))
        seen = await follow(relay, key)
        assert type(seen.error) is WrongKindError
        assert "open_conversation" in str(seen.error)
        other = new_key()
        await publish(relay, other, hello())
        seen = await follow(relay, other, conversation=True)
        assert type(seen.error) is WrongKindError


async def test_leaving_a_conversation_early(machine: Machine, key: str) -> None:
    async with machine() as relay, anyio.create_task_group() as tg:
        tg.start_soon(publish, relay, key, talk(ADD, [chunk("It"), STALL]))
        async with relay.open_conversation(key, wait=5) as conversation:
            async for event in conversation:
                if event.type == "content.delta":
                    break
        with pytest.raises(StreamClosedError):
            await conversation.get_final_completion()
        assert len(conversation.completions) == 1
        tg.cancel_scope.cancel()


async def test_a_conversation_in_a_format(machine: Machine, key: str) -> None:
    async with machine() as relay:
        await publish(relay, key, talk([chunk('{"a": 1, "b": 2}'), STOP]))
        async with relay.open_conversation(key, response_format=Sum) as conversation:
            final = await conversation.get_final_completion()
        assert final.choices[0].message.parsed == Sum(1, 2)
        seen = await follow(relay, key, conversation=True, response_format=list[int])
        assert type(seen.error) is ContentParseError


# The relay itself.


async def test_a_relay_is_used_inside_its_block(machine: Machine, key: str) -> None:
    async with machine() as relay:
        await publish(relay, key, hello())
        reader = relay.open_stream(key)
    for use in (reader.__aenter__, partial(relay.start_or_join(key, hello).__aenter__)):
        with pytest.raises(APIConnectionError, match="not open"):
            await use()
    async with hello() as stream:
        with pytest.raises(APIConnectionError, match="not open"):
            await relay.publish(key, stream)
    with pytest.raises(WriterError, match="only once"):
        await relay.__aenter__()


async def test_another_event_loop_is_refused(machine: Machine, key: str) -> None:
    async with machine() as relay:

        async def other() -> None:
            for ask in (relay.status, relay.stop, relay.expire):
                with pytest.raises(WriterError, match="event loop"):
                    await ask(key)

        with anyio.fail_after(HANGS):
            await anyio.to_thread.run_sync(anyio.run, other)


async def test_who_waits_when_a_relay_is_left(machine: Machine, key: str) -> None:
    """A reader and a producer in tasks of others get an error, and the end is recorded."""
    reader = Seen()
    errors: list[Exception] = []
    async with anyio.create_task_group() as tg:
        async with machine() as relay:

            async def produce() -> None:
                async with chat_stream_from(Body(chunk("Hel"), STALL)) as stream:
                    try:
                        await relay.publish(key, stream)
                    except RelayUnavailableError as exc:
                        errors.append(exc)

            tg.start_soon(produce)
            tg.start_soon(partial(follow, relay, key, reader, wait=5))
            await reader.until(2)
    assert len(errors) == 1
    assert type(reader.error) in {RelayUnavailableError, ProducerStoppedError}


async def test_the_blocks_error_comes_out_as_it_is(machine: Machine, key: str) -> None:
    error = ValueError("own")
    with pytest.raises(ValueError, match="own") as caught:
        async with machine() as relay:
            body = Body(chunk("Hel"), STALL)
            async with relay.start_or_join(key, lambda: chat_stream_from(body)) as stream:
                await anext(stream)
            raise error
    assert caught.value is error
