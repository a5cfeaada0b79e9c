"""Conversations: rounds of requests and tools, their limits, their ends, their consumers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import msgspec
import pytest
import trio
import trio.testing
from anyio import wait_all_tasks_blocked

from anyio_writer import (
    APIStatusError,
    APIStreamError,
    AsyncWriter,
    ContentFilterFinishReasonError,
    ContentParseError,
    ConversationLimitError,
    InternalServerError,
    InvalidParameterError,
    LengthFinishReasonError,
    StreamClosedError,
    StreamTruncatedError,
    WriterError,
    WrongTaskError,
    chat_stream_from,
)
from anyio_writer.conversation import (
    Conversation,
    RoundStartedEvent,
    ToolResultEvent,
)
from anyio_writer.streaming.channel import DEFAULT_MAX_BUFFER
from anyio_writer.structured.tools import function_tool
from anyio_writer.testing import ChatServer, Hold, error_reply, sse_event, text_reply
from anyio_writer.testing import Reply as ServerReply
from anyio_writer.testing import tool_call_chunks as chunks_of_calls
from anyio_writer.testing import tool_call_reply as calls_reply
from tests.lifetimes.lifetime_helpers import HANGS
from tests.streaming.helpers import STALL, Body, chunk
from tests.tools.tools_helpers import CALLS, STOP, Gates, call, part, pieces

HELLO = {"role": "user", "content": "Hello"}
END = [chunk("The end"), STOP]


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def fail() -> None:
    raise ValueError("broken")


TOOLS = [function_tool(add), function_tool(fail)]


class Rounds:
    """Opens streams over scripts, one per round, and keeps what it was given."""

    def __init__(self, *scripts: Any, tools: Any = TOOLS, **options: Any) -> None:
        self.bodies = [Body(*script) for script in scripts]
        self.given: list[list[Any]] = []
        self._tools = tools
        self._options = options

    def __call__(self, messages: list[Any]) -> Any:
        self.given.append(messages)
        body = self.bodies[len(self.given) - 1]
        return chat_stream_from(body, tools=self._tools, **self._options)


def talk(*scripts: Any, tools: Any = TOOLS, **options: Any) -> Conversation[None]:
    return Conversation(Rounds(*scripts, tools=tools), [HELLO], **options)


ADD = [call(0, "add", {"a": 1, "b": 2}), CALLS]


# Over the network.


def over(server: ChatServer, writer: AsyncWriter, **options: Any) -> Conversation[Any]:
    request = {"model": "m", "tools": TOOLS, **options.pop("request", {})}
    return Conversation(
        lambda messages: writer.chat.stream(messages=messages, **request), [HELLO], **options
    )


async def test_three_rounds() -> None:
    calls = [("add", '{"a": 1, "b": 2}'), ("fail", "{}"), ("fly", "{}")]
    async with (
        ChatServer(
            calls_reply(calls), calls_reply([("add", '{"a": 3, "b": 4}')]), text_reply("It is 7")
        ) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
    ):
        async with over(server, writer) as conversation:
            events = [event async for event in conversation]
        final = await conversation.get_final_completion()
        sent = [request.json()["messages"] for request in server.requests]
    assert final.choices[0].message.content == "It is 7"
    rounds = [event for event in events if event.type == "round.started"]
    assert rounds == [RoundStartedEvent(0), RoundStartedEvent(1), RoundStartedEvent(2)]
    results = [event for event in events if isinstance(event, ToolResultEvent)]
    assert sorted((each.round, each.index, each.is_error) for each in results) == [
        (0, 0, False),
        (0, 1, True),
        (0, 2, True),
        (1, 0, False),
    ]
    assert [len(each) for each in sent] == [1, 5, 7]
    assert sent[2][:5] == sent[1]
    assert [each["role"] for each in sent[2][1:]] == [
        "assistant",
        "tool",
        "tool",
        "tool",
        "assistant",
        "tool",
    ]
    ids = [each["id"] for each in sent[1][1]["tool_calls"]]
    assert [each["tool_call_id"] for each in sent[1][2:]] == ids
    assert [each["name"] for each in sent[1][2:]] == ["add", "fail", "fly"]
    assert sent[1][2]["content"] == "3"
    assert sent[1][3]["content"] == "Error: ValueError: broken"
    assert conversation.messages[:-1] == sent[2]
    assert conversation.messages[-1] == {"role": "assistant", "content": "It is 7"}
    assert len(conversation.completions) == 3
    assert conversation.completions[-1] == final


async def test_the_next_conversation_goes_on_from_the_messages() -> None:
    async with (
        ChatServer(calls_reply([("add", '{"a": 1, "b": 2}')]), text_reply("three")) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
    ):
        async with over(server, writer) as conversation:
            await conversation.until_done()
        more = [*conversation.messages, {"role": "user", "content": "And then?"}]
        async with writer.chat.stream(model="m", messages=more) as stream:
            await stream.until_done()
        assert server.requests[2].json()["messages"] == more


async def test_a_first_request_that_is_refused_is_raised_on_entering() -> None:
    async with (
        ChatServer(error_reply(400)) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
    ):
        with pytest.raises(APIStatusError):
            async with over(server, writer):
                raise AssertionError("not reached")


async def test_a_refusal_in_the_second_round() -> None:
    """It comes out as it is; what was said until then is there to try again with."""
    async with (
        ChatServer(calls_reply([("add", '{"a": 1, "b": 2}')]), error_reply(500)) as server,
        AsyncWriter(api_key="key", base_url=server.url, max_retries=0) as writer,
    ):
        types: list[str] = []
        async with over(server, writer) as conversation:
            with pytest.raises(InternalServerError) as caught:
                async for event in conversation:
                    types.append(event.type)
            with pytest.raises(InternalServerError):
                await conversation.get_final_completion()
        assert caught.value.status_code == 500
        assert types[-1] == "tool.result"
        assert [each["role"] for each in conversation.messages] == ["user", "assistant", "tool"]


async def test_leaving_closes_the_connection_of_the_round() -> None:
    first, *_ = chunks_of_calls([("add", '{"a": 1, "b": 2}')])
    hold = Hold(anyio.Event())
    async with (
        ChatServer(
            calls_reply([("add", '{"a": 1, "b": 2}')]), ServerReply(body=[sse_event(first), hold])
        ) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
    ):
        async with over(server, writer) as conversation:
            async for event in conversation:
                if event.type == "round.started" and event.round == 1:
                    break
        await server.wait_disconnect(1)
        with pytest.raises(StreamClosedError):
            await conversation.until_done()


# When it goes on, and when it ends.


async def test_calls_decide_and_not_the_finish_reason() -> None:
    """Calls under "stop" are answered; "tool_calls" without a call is an end."""
    rounds = Rounds(
        [call(0, "add", {"a": 1, "b": 2}, finish="stop")], [chunk("found it"), CALLS], END
    )
    async with Conversation(rounds, [HELLO]) as conversation:
        final = await conversation.get_final_completion()
    assert final.choices[0].message.content == "found it"
    assert len(rounds.given) == 2


async def test_an_id_that_comes_behind_its_call_is_in_the_answer() -> None:
    """The call is done, and may be answered, when the next one begins."""
    arguments = '{"a": 1, "b": 2}'
    late = [
        pieces(part(0, "add", arguments)),
        pieces(part(1, "add", arguments)),
        pieces(part(0, call_id="late")),
    ]
    rounds = Rounds([*late, CALLS], END)
    async with Conversation(rounds, [HELLO]) as conversation:
        await conversation.until_done()
    _, asked, *answers = rounds.given[1]
    assert [each["id"] for each in asked["tool_calls"]] == ["late", "call_1"]
    assert [each["tool_call_id"] for each in answers] == ["late", "call_1"]


async def test_a_result_comes_after_its_call() -> None:
    """However fast the tool is, and however slow who is told."""
    more = anyio.Event()
    async with talk([chunk("let me see"), more, *ADD], END) as conversation:
        async with conversation.subscribe(max_buffer=1) as slow:
            assert (await anext(slow)).type == "round.started"
            await wait_all_tasks_blocked()  # one event is there, and one waits for its turn
            more.set()
            await wait_all_tasks_blocked()
            types = [event.type async for event in slow]
    assert types.index("tool.result") == types.index("tool_calls.function.arguments.done") + 1


class Answer(msgspec.Struct):
    value: int


async def test_only_the_final_answer_is_parsed() -> None:
    rounds = Rounds(
        [chunk("let me see"), *ADD], [chunk('{"value": 3}'), STOP], response_format=Answer
    )
    async with Conversation[Answer](rounds, [HELLO]) as conversation:
        final = await conversation.get_final_completion()
    assert final.choices[0].message.parsed == Answer(3)


async def test_a_final_answer_that_does_not_fit() -> None:
    rounds = Rounds(ADD, [chunk('{"value": "x"}'), STOP], response_format=Answer)
    async with Conversation[Answer](rounds, [HELLO]) as conversation:
        with pytest.raises(ContentParseError):
            await conversation.until_done()


@pytest.mark.parametrize(
    ("finish", "error"),
    [
        ("length", LengthFinishReasonError),
        ("MAX_TOKENS", LengthFinishReasonError),
        ("content_filter", ContentFilterFinishReasonError),
        ("abort", StreamTruncatedError),
    ],
)
@pytest.mark.parametrize("known", [True, False])
async def test_a_call_that_was_cut_off(finish: str, error: Any, known: bool) -> None:
    name = "add" if known else "fly"
    script = [*ADD[:1], pieces(part(1, name, '{"a": 1, "b', "i1"), finish=finish)]
    async with talk(script, END) as conversation:
        with pytest.raises(error) as caught:
            await conversation.until_done()
        assert caught.value.completion is not None
    assert conversation.messages == [HELLO]


@pytest.mark.parametrize("arguments", ["", '{"a": 1, "b', '{"a": 1, "b": 2}'])
@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
async def test_the_model_is_told_of_a_call_that_was_cut_off_behind_an_ordinary_reason(
    finish: str, arguments: str
) -> None:
    """Its arguments are not known to be whole, so it is not run, unless they are."""
    script = [*ADD[:1], pieces(part(1, "add", arguments, "i1"), finish=finish)]
    async with talk(script, END) as conversation:
        events = [event async for event in conversation]
    answers = [message for message in conversation.messages if message["role"] == "tool"]
    assert [answer["tool_call_id"] for answer in answers] == ["id00", "i1"]
    told = [event.content for event in events if isinstance(event, ToolResultEvent)]
    assert sorted(told) == sorted(answer["content"] for answer in answers)
    assert answers[0]["content"] == "3"
    if arguments.endswith("}"):
        assert answers[1]["content"] == "3"
    elif arguments:
        assert "cut off" in answers[1]["content"]
    else:
        assert answers[1]["content"].startswith("Error")


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ([chunk("a")], StreamTruncatedError),
        ([chunk("a"), b'data: {"error": {"message": "no"}}\n\n'], APIStreamError),
        ([call(0, "add", {"a": 1, "b": 2}), call(1, "add")], StreamTruncatedError),
    ],
)
@pytest.mark.parametrize("rounds", [0, 1])
async def test_a_round_that_fails(script: Any, error: Any, rounds: int) -> None:
    """Its good events come, then its error, to everybody alike."""
    async with talk(*[ADD] * rounds, script) as conversation:
        other = conversation.subscribe()
        heard: list[Exception] = []
        seen: list[list[str]] = []
        for consumer in (conversation, other):
            types: list[str] = []
            seen.append(types)
            try:
                async for event in consumer:
                    types.append(event.type)
            except WriterError as exc:
                heard.append(exc)
    assert [type(each) for each in heard] == [error, error]
    assert heard[0] is not heard[1]
    assert seen[0] == seen[1]
    assert seen[0][:2] == ["round.started", "chunk"]
    assert len(conversation.completions) == rounds


_SMALL = sse_event({"choices": [{"index": 0, "delta": {"content": "x"}}]})


async def test_a_result_comes_behind_a_last_read_that_just_fills_the_buffer() -> None:
    """More of a read may be missing whenever a buffer was full; not behind the end."""
    script = [call(0, "add", {"a": 1, "b": 2}), CALLS]
    while (count := len(await _events_of(script))) < DEFAULT_MAX_BUFFER:
        script = [_SMALL] * ((DEFAULT_MAX_BUFFER - count) // 2 or 1) + script
    assert count == DEFAULT_MAX_BUFFER
    with anyio.fail_after(HANGS):
        async with talk([b"".join(script)], END) as conversation:
            types = [event.type async for event in conversation]
    assert types.count("tool.result") == 1


async def _events_of(script: list[bytes]) -> list[Any]:
    async with chat_stream_from(Body(b"".join(script))) as stream:
        return [event async for event in stream]


async def test_an_error_that_nobody_heard_comes_out_of_the_block() -> None:
    with pytest.raises(StreamTruncatedError):
        async with talk([chunk("a")]) as conversation:
            conversation._entered().demand()
            await wait_all_tasks_blocked()


async def test_a_tool_that_raises_ends_it() -> None:
    async with talk([call(0, "fail"), CALLS, STALL], on_error="raise") as conversation:
        with pytest.raises(ExceptionGroup) as caught:
            await conversation.until_done()
        with pytest.raises(ExceptionGroup) as again:
            await conversation.until_done()
    assert [type(each) for each in caught.value.exceptions] == [ValueError]
    assert again.value.exceptions == caught.value.exceptions
    assert again.value is not caught.value  # each has a traceback of its own


async def test_the_error_of_a_tool_counts_once_however_many_tasks_it_comes_out_of() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with talk([call(0, "fail"), CALLS, STALL], on_error="raise") as conversation:
            for _ in range(2):
                conversation.start_soon(conversation.until_done)
    assert [type(each) for each in caught.value.exceptions] == [ValueError]


@pytest.mark.parametrize(
    "anyio_backend", ["asyncio"], indirect=True
)  # trio cancels nothing but scopes
async def test_a_tool_whose_task_is_cancelled_closes_it() -> None:
    """The task group of the round then ends without an error, and without an answer."""

    async def cancelled() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await anyio.sleep_forever()

    script = [call(0, "cancelled"), CALLS, STALL]
    async with talk(script, tools=[function_tool(cancelled)]) as conversation:
        with pytest.raises(StreamClosedError) as caught:
            await conversation.until_done()
    assert caught.value.completion is not None
    assert conversation.messages == [HELLO]


# Limits.


async def test_rounds_used_up() -> None:
    """The last round's tools have run, so one can go on from the messages."""
    async with talk(ADD, ADD, END, max_rounds=2) as conversation:
        with pytest.raises(ConversationLimitError, match="2 rounds") as caught:
            await conversation.until_done()
    error = caught.value
    assert [each["role"] for each in error.messages] == ["user", *["assistant", "tool"] * 2]
    assert error.messages[-1]["content"] == "3"
    assert error.messages == conversation.messages
    assert error.completion == conversation.completions[-1]


async def test_the_last_round_may_be_the_answer() -> None:
    async with talk(ADD, END, max_rounds=2) as conversation:
        await conversation.until_done()
    assert len(conversation.completions) == 2


def on_a_jumping_clock(main: Callable[[], Any]) -> float:
    """Run it on trio; returns how long it took."""

    async def timed() -> float:
        start = trio.current_time()
        await main()
        return trio.current_time() - start

    return trio.run(timed, clock=trio.testing.MockClock(autojump_threshold=0))


async def paced(*script: bytes) -> AsyncIterator[bytes]:
    for data in script:
        await trio.sleep(1)
        yield data


async def slow(seconds: int) -> str:
    await trio.sleep(seconds)
    return f"slept {seconds}"


def slow_calls(*seconds: int) -> list[bytes]:
    return [*(call(i, "slow", {"seconds": each}) for i, each in enumerate(seconds)), CALLS]


def slow_talk(*scripts: list[bytes], **options: Any) -> Conversation[None]:
    each = iter(scripts)
    tools = [function_tool(slow)]
    return Conversation(
        lambda _: chat_stream_from(paced(*next(each)), tools=tools), [HELLO], **options
    )


def test_time_used_up_by_a_tool() -> None:
    """What the other tool said is not lost, and each call has its answer."""

    async def main() -> None:
        async with slow_talk(slow_calls(1, 100), END, total_time=10) as conversation:
            with pytest.raises(ConversationLimitError, match="10 s") as caught:
                await conversation.until_done()
        messages = caught.value.messages
        assert [each["role"] for each in messages] == ["user", "assistant", "tool", "tool"]
        assert [each.get("content") for each in messages[2:]] == [
            "slept 1",
            "Error: there was no answer in time.",
        ]
        assert caught.value.completion == conversation.completions[0]
        assert conversation.messages == messages

    assert on_a_jumping_clock(main) == pytest.approx(10)


def test_time_used_up_by_a_stream() -> None:
    async def main() -> None:
        words = [chunk("a") for _ in range(50)]
        async with slow_talk(slow_calls(1), words, total_time=10) as conversation:
            with pytest.raises(ConversationLimitError) as caught:
                await conversation.until_done()
        assert [each["role"] for each in caught.value.messages] == ["user", "assistant", "tool"]
        completion = caught.value.completion
        assert completion is not None
        text = completion.choices[0].message.content
        assert text
        assert set(text) == {"a"}

    assert on_a_jumping_clock(main) == pytest.approx(10)


def test_time_used_up_before_anybody_reads() -> None:
    async def main() -> None:
        async with slow_talk(END, total_time=10) as conversation:
            await trio.sleep(20)
            with pytest.raises(ConversationLimitError) as caught:
                await anext(conversation)
        assert caught.value.completion is None
        assert caught.value.messages == [HELLO]

    assert on_a_jumping_clock(main) == pytest.approx(20)


def test_time_that_suffices() -> None:
    async def main() -> None:
        async with slow_talk(slow_calls(3), END, total_time=10) as conversation:
            await conversation.until_done()

    assert on_a_jumping_clock(main) < 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_rounds": 0},
        {"max_rounds": True},
        {"max_rounds": None},
        {"total_time": 0},
        {"total_time": "1"},
        {"n": 2},
        {"limit": 0},
        {"on_error": "ignore"},
    ],
    ids=str,
)
def test_wrong_options(wrong: Any) -> None:
    with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
        talk(END, **wrong)


async def test_several_choices_are_refused_once_they_are_seen() -> None:
    script = [chunk("a"), chunk("b", "stop", index=1), STOP]
    async with Conversation(Rounds(script, n=2), [HELLO]) as conversation:
        with pytest.raises(InvalidParameterError, match="n must be 1"):
            await conversation.until_done()


# Consumers.


async def test_reading_starts_with_the_first_demand() -> None:
    rounds = Rounds(ADD, END)
    async with Conversation(rounds, [HELLO]) as conversation:
        await wait_all_tasks_blocked()
        assert rounds.bodies[0].reads == 0
        assert (await anext(conversation)).type == "round.started"


async def test_results_come_while_the_round_still_streams() -> None:
    """The body goes on only when the consumer has seen the first result."""
    seen = anyio.Event()
    script = [call(0, "add", {"a": 1, "b": 2}), call(1, "fail"), seen, chunk("more"), CALLS]
    types: list[str] = []
    async with talk(script, END) as conversation:
        async for event in conversation:
            types.append(event.type)
            if event.type == "tool.result":
                seen.set()
    assert types.index("tool.result") < types.index("content.delta")


async def test_two_consumers_get_the_same_in_the_same_order() -> None:
    async with talk(ADD, ADD, END) as conversation:
        seen: list[list[int]] = [[], []]

        async def read(place: int, consumer: Any) -> None:
            async for event in consumer:
                seen[place].append(id(event))

        conversation.start_soon(read, 0, conversation.subscribe(max_buffer=1))
        conversation.start_soon(read, 1, conversation.subscribe())
        kept = [event async for event in conversation]
    assert seen[0] == seen[1] == [id(event) for event in kept]


async def test_only_some_events() -> None:
    async with talk(ADD, ADD, END) as conversation:
        results = conversation.subscribe(ToolResultEvent)
        await conversation.until_done()
        assert [event.round async for event in results] == [0, 1]
        with pytest.raises(InvalidParameterError):
            conversation.subscribe(int)


async def test_batches() -> None:
    async with talk(ADD, END) as conversation:
        batches = [batch async for batch in conversation.batches()]
    assert all(batches)
    assert [event.type for event in batches[0]] == ["round.started"]


async def test_a_late_consumer_finds_what_it_missed_in_its_snapshot() -> None:
    """At whatever event it joins: its snapshot and the round's further deltas are the text."""
    script = [chunk(letter) for letter in "abcdef"]
    joined_after = 0
    while True:
        async with talk([*script, STOP]) as conversation:
            own = aiter(conversation.subscribe(max_buffer=1))
            ended = False
            for _ in range(joined_after):
                if await anext(own, None) is None:
                    ended = True
            await wait_all_tasks_blocked()
            late = conversation.subscribe()
            conversation.start_soon(read_all, own)
            choices = late.snapshot.choices
            text = (choices[0].message.content or "") if choices else ""
            async for event in late:
                if event.type == "content.delta":
                    text += event.delta
        assert text == "abcdef", joined_after
        if ended:
            break
        joined_after += 1
    assert joined_after > 10


async def read_all(events: Any) -> None:
    async for _ in events:
        pass


async def test_a_slow_consumer_holds_the_server_back() -> None:
    """What piles up on the way is bounded: the round's stream stops reading."""
    words = [chunk("a") for _ in range(10_000)]
    rounds = Rounds(ADD, [*words, STOP])
    async with Conversation(rounds, [HELLO]) as conversation:
        slow = conversation.subscribe(max_buffer=10)
        async for event in slow:
            if event.type == "round.started" and event.round == 1:
                break
        await wait_all_tasks_blocked()
        assert rounds.bodies[1].reads < 2000
        await read_all(slow)
        assert rounds.bodies[1].reads > 10_000
    final = await conversation.get_final_completion()
    assert final.choices[0].message.content == "a" * 10_000


# Leaving.


async def test_leaving_in_the_middle_of_a_tool_cancels_it() -> None:
    gates = Gates("f")
    async with talk([call(0, "f"), CALLS], tools=gates.tools) as conversation:
        async for event in conversation:
            if event.type == "tool_calls.function.arguments.done":
                await gates.begun["f"].wait()
                break
    assert gates.ended == ["f"]
    assert not gates.finished
    with pytest.raises(StreamClosedError):
        await conversation.get_final_completion()
    assert conversation.messages == [HELLO]


class Own(Exception):
    pass


@pytest.mark.parametrize("reads", [0, 1, 5])
async def test_the_blocks_exception_comes_out_as_it_is(reads: int) -> None:
    gates = Gates("f")
    mine = Own()
    with pytest.raises(Own) as caught:
        async with talk([call(0, "f"), CALLS, STALL], tools=gates.tools) as conversation:
            for _ in range(reads):
                await anext(conversation)
            raise mine
    assert caught.value is mine
    assert mine.__context__ is None
    assert gates.began == gates.ended


async def test_close_from_another_task() -> None:
    gates = Gates("f")
    async with talk([call(0, "f"), CALLS], tools=gates.tools) as conversation:

        async def close() -> None:
            await gates.begun["f"].wait()
            await conversation.close()

        conversation.start_soon(close)
        with pytest.raises(StreamClosedError) as caught:
            await conversation.until_done()
        assert caught.value.completion is not None
        assert gates.ended == ["f"]


async def test_everybody_who_waits_is_told() -> None:
    heard: list[type[Exception]] = []
    gates = Gates("f")
    async with talk([call(0, "f"), CALLS], tools=gates.tools) as conversation:

        async def wait(how: Callable[[], Any]) -> None:
            try:
                await how()
            except WriterError as exc:
                heard.append(type(exc))

        other = conversation.subscribe()
        for how in (
            conversation.until_done,
            conversation.get_final_completion,
            lambda: read_all(conversation),
            lambda: read_all(other),
        ):
            conversation.start_soon(wait, how)
        await gates.begun["f"].wait()
        await conversation.close()
    assert heard == [StreamClosedError] * 4


async def test_left_by_another_task() -> None:
    conversation = talk([chunk("a"), STALL])
    await conversation.__aenter__()
    errors: list[str] = []

    async def leave() -> None:
        try:
            await conversation.__aexit__(None, None, None)
        except WrongTaskError as exc:
            errors.append(str(exc))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
    await conversation.__aexit__(None, None, None)
    assert len(errors) == 1
    assert errors[0].startswith("A conversation must be left")


async def test_not_open_or_opened_twice() -> None:
    conversation = talk(END)
    with pytest.raises(WriterError, match="conversation is not open"):
        await conversation.until_done()
    async with conversation:
        with pytest.raises(WriterError, match="only once"):
            await conversation.__aenter__()
        await conversation.until_done()
    assert conversation.current_completion_snapshot == await conversation.get_final_completion()


def test_a_wrong_request_is_an_error_before_it_is_entered() -> None:
    writer = AsyncWriter(api_key="key")
    with pytest.raises(InvalidParameterError):
        Conversation(lambda messages: writer.chat.stream(model="m", messages=messages), [])


def test_its_events_as_json() -> None:
    result = ToolResultEvent(round=1, index=0, name="f", tool_call_id="i", content="3")
    assert msgspec.json.decode(msgspec.json.encode(result)) == {
        "type": "tool.result",
        "round": 1,
        "index": 0,
        "name": "f",
        "tool_call_id": "i",
        "content": "3",
        "is_error": False,
    }
    assert msgspec.json.encode(RoundStartedEvent(2)) == b'{"type":"round.started","round":2}'
    assert result.type == "tool.result"


@pytest.mark.parametrize("on_full", ["fail", "drop_oldest"])
async def test_who_does_nothing_but_read_loses_nothing(on_full: Any) -> None:
    """Nobody waits for it, and one read of the response brings many times its channel."""
    words = 500
    got: list[str] = []
    async with talk([chunk("word ") * words + chunk(None, "stop")]) as conversation:
        consumer = conversation.subscribe(max_buffer=64, on_full=on_full)

        async def read() -> None:
            got.extend([event.type async for event in consumer])

        conversation.start_soon(read)
        await wait_all_tasks_blocked()
        await conversation.get_final_completion()
    assert consumer.dropped == 0
    assert got.count("content.delta") == words


async def test_a_result_stands_between_two_chunks() -> None:
    """Though the events of a burst reach the conversation in parts, cut anywhere."""
    tiny = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
    calls = [call(number, "add", {"a": 1, "b": number}) for number in range(4)]
    for tail in range(2):
        burst = b"".join([*calls[: 3 + tail], *[tiny] * 3000])
        async with talk([burst, CALLS], END) as conversation:
            types = [event.type async for event in conversation]
        assert types.count("tool.result") == 3 + tail
        for position, name in enumerate(types[:-1]):
            if name == "tool.result":
                assert types[position + 1] != "content.delta"
