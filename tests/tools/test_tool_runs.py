"""Tools that run while the stream goes on: when they begin, what they are told and say."""

from __future__ import annotations

import asyncio
import contextvars
import enum
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
import msgspec
import pydantic
import pytest
import trio
import trio.testing
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_writer import (
    ChatCompletionStream,
    InvalidParameterError,
    LengthFinishReasonError,
    StreamClosedError,
    StreamTruncatedError,
    ToolRuns,
    ValueMismatchError,
    WriterError,
    chat_stream_from,
    open_chat_stream,
)
from anyio_writer.structured.tools import function_tool
from anyio_writer.testing import ChatServer, tool_call_reply
from tests.streaming.helpers import DONE, REQUEST, STALL, Body, chunk
from tests.tools.tools_helpers import CALLS, HANGS, STOP, Gates, call, part, pieces


def stream_of(*script: Any, tools: Any = (), n: int | None = None) -> ChatCompletionStream[None]:
    return chat_stream_from(Body(*script), n=n, tools=tools)


class Counted:
    """A tool that remembers what it was called with."""

    def __init__(self) -> None:
        self.calls: list[int] = []

        async def count(x: int = 0) -> int:
            self.calls.append(x)
            return x

        self.tool = function_tool(count)


# When they run.


async def test_a_call_runs_while_the_stream_goes_on() -> None:
    """The body goes on only once the tool has begun, and the tool only once the body is over."""
    gates = Gates("f", "g")
    script = [call(0, "f"), call(1, "g"), gates.begun["f"], CALLS, chunk("bye"), DONE]
    async with stream_of(*script, tools=gates.tools) as stream:
        runs = stream.run_tools()
        types = [event.type async for event in stream]
        assert types.count("tool_calls.function.arguments.done") == 2
        assert not gates.ended
        gates.open()
        assert [each["content"] for each in await runs.messages()] == ["said f", "said g"]
    assert gates.began[0] == "f"


def test_the_time_of_tools_and_stream_is_not_added_up() -> None:
    """Four seconds of stream, two tools of five: it takes eight seconds, not 14."""
    log: list[tuple[float, str]] = []

    def note(what: str) -> None:
        log.append((trio.current_time() - start, what))

    async def slow(name: str) -> None:
        note(f"{name} begins")
        await trio.sleep(5)
        note(f"{name} ends")

    async def body() -> AsyncIterator[bytes]:
        for data in (call(0, "slow", {"name": "f"}), call(1, "slow", {"name": "g"}), CALLS):
            await trio.sleep(1)
            yield data
        await trio.sleep(1)
        yield DONE

    async def main() -> None:
        nonlocal start
        start = trio.current_time()
        async with chat_stream_from(body(), tools=[function_tool(slow)]) as stream:
            runs = stream.run_tools()
            await stream.until_done()
            note("the stream ends")
            await runs.results()

    start = 0.0
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    expected = [
        (2, "f begins"),  # when another call begins
        (3, "g begins"),  # with the finish reason
        (4, "the stream ends"),
        (7, "f ends"),
        (8, "g ends"),
    ]
    assert [(pytest.approx(at), what) for at, what in log] == expected


async def test_what_was_done_before_runs_too_and_once() -> None:
    """Whenever the runs are asked for: each call runs exactly once."""
    script = [
        call(0, "count", {"x": 0}) + call(1, "count", {"x": 1}),
        chunk("a"),
        call(2, "count", {"x": 2}) + chunk("b") + call(3, "count", {"x": 3}),
        CALLS,
    ]
    async with stream_of(*script) as stream:
        total = len([event async for event in stream])
    for joined_after in range(total + 1):
        counted = Counted()
        async with stream_of(*script, tools=[counted.tool]) as stream:
            for _ in range(joined_after):
                await anext(stream)
            runs = stream.run_tools()
            results = await runs.results()
        assert [result.value for result in results] == [0, 1, 2, 3], joined_after
        assert sorted(counted.calls) == [0, 1, 2, 3]


async def test_joining_while_a_batch_waits_for_a_slow_consumer() -> None:
    """The calls of a batch in hand are done and not handed on: they run once all the same."""
    counted = Counted()
    script = b"".join([*(call(i, "count", {"x": i}) for i in range(5)), CALLS])
    async with stream_of(script, tools=[counted.tool]) as stream:
        slow = stream.subscribe(max_buffer=2)
        await anext(slow)
        await wait_all_tasks_blocked()  # the stream's task has the batch in hand
        runs = stream.run_tools()
        stream.start_soon(drain, slow)
        assert [result.value for result in await runs.results()] == [0, 1, 2, 3, 4]
    assert sorted(counted.calls) == [0, 1, 2, 3, 4]


async def drain(events: Any) -> None:
    async for _ in events:
        pass


async def test_it_does_not_start_the_reading() -> None:
    counted = Counted()
    body = Body(call(0, "count"), CALLS)
    async with chat_stream_from(body, tools=[counted.tool]) as stream:
        runs = stream.run_tools()
        await wait_all_tasks_blocked()
        assert body.reads == 0
        events = [event async for event in stream]
        assert events[0].type == "chunk"  # nothing was lost meanwhile
        await runs.results()
    assert counted.calls == [0]


@pytest.mark.parametrize(
    "ask", [ToolRuns.results, ToolRuns.messages, lambda runs: runs.results_after(0)]
)
async def test_asking_starts_the_reading(ask: Any) -> None:
    async with stream_of(call(0, "count"), CALLS, tools=[Counted().tool]) as stream:
        with anyio.fail_after(HANGS):
            assert len(await ask(stream.run_tools())) == 1


async def test_a_slow_tool_never_holds_the_stream_back() -> None:
    """Far more calls than the limit and than a consumer's buffer: the stream ends all the same."""
    count = 3000
    gates = Gates("f")
    script = [b"".join(call(i, "f") for i in range(count)), CALLS]
    async with stream_of(*script, tools=gates.tools) as stream:
        runs = stream.run_tools(limit=2)
        await stream.until_done()
        await wait_all_tasks_blocked()
        assert gates.running == 2
        gates.open()
        assert len(await runs.results()) == count
    assert gates.most == 2


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (3, 3), (None, 20)])
async def test_the_limit(limit: int | None, most: int) -> None:
    gates = Gates("f")
    script = [*(call(i, "f") for i in range(20)), CALLS]
    async with stream_of(*script, tools=gates.tools) as stream:
        runs = stream.run_tools(limit=limit)
        await stream.until_done()
        await wait_all_tasks_blocked()
        assert gates.running == most
        gates.open()
        await runs.results()
    assert gates.most == most


async def test_with_a_limit_of_one_they_run_in_the_order_of_the_calls() -> None:
    counted = Counted()
    script = b"".join([*(call(i, "count", {"x": i}) for i in range(9)), CALLS])
    async with stream_of(script, tools=[counted.tool]) as stream:
        await stream.run_tools(limit=1).results()
    assert counted.calls == list(range(9))


async def test_results_are_in_the_order_of_the_calls() -> None:
    gates = Gates("f", "g", "h")
    async with stream_of(
        call(0, "f"), call(1, "g"), call(2, "h"), CALLS, tools=gates.tools
    ) as stream:
        runs = stream.run_tools()
        await stream.until_done()
        for name in ("h", "f", "g"):
            await gates.begun[name].wait()
            gates.open(name)
            await wait_all_tasks_blocked()
        assert [each.name for each in await runs.results_after(0)] == ["h", "f", "g"]
        assert gates.finished == ["h", "f", "g"]
        results = await runs.results()
        assert [(each.index, each.name) for each in results] == [(0, "f"), (1, "g"), (2, "h")]
        assert await runs.results_after(3) == []


async def test_asked_again_from_several_tasks_and_after_the_block() -> None:
    gates = Gates("f")
    got: list[list[dict[str, Any]]] = []

    async with stream_of(call(0, "f"), CALLS, tools=gates.tools) as stream:
        runs = stream.run_tools()

        async def ask() -> None:
            got.append(await runs.messages())

        stream.start_soon(ask)
        stream.start_soon(ask)
        await drain(stream)
        await wait_all_tasks_blocked()
        assert not got
        assert repr(runs) == "<ToolRuns: 1 running, 0 waiting, 0 ended>"
        gates.open()
        got.append(await runs.messages())
    got.append(await runs.messages())
    expected = [{"role": "tool", "tool_call_id": "id00", "name": "f", "content": "said f"}]
    assert got == [expected] * 4


async def test_the_other_reader_of_the_stream_keeps_its_events() -> None:
    """Waiting for results in one task takes nothing from a task that iterates the stream."""
    gates = Gates("f")
    texts: list[str] = []
    async with stream_of(
        call(0, "f"), CALLS, chunk("a"), chunk("b"), DONE, tools=gates.tools
    ) as stream:
        runs = stream.run_tools()

        async def read() -> None:
            texts.extend([each async for each in stream.text_deltas()])

        stream.start_soon(read)
        await wait_all_tasks_blocked()
        gates.open()
        await runs.results()
    assert texts == ["a", "b"]


async def test_a_reader_that_stopped_and_then_waits_for_results() -> None:
    """What it left unread, far more than a buffer holds, does not hold the stream back."""
    counted = Counted()
    script = [chunk("a"), *(chunk("x") for _ in range(3000)), call(0, "count"), CALLS]
    async with stream_of(*script, tools=[counted.tool]) as stream:
        runs = stream.run_tools()
        async for _ in stream:
            break
        assert len(await runs.results()) == 1


# What they are given.

WHOLE = {"id": "i", "type": "function"}
ARGUMENTS: list[tuple[str, list[Any], Any]] = [
    ("null", [part(0, "f", None, "i")], 7),
    ("empty", [part(0, "f", "", "i")], 7),
    ("the text null", [part(0, "f", "null", "i")], 7),
    ("an object", [part(0, "f", {"x": 1}, "i")], 1),
    ("JSON in JSON", [part(0, "f", '"{\\"x\\": 2}"', "i")], 2),
    ("in pieces", [part(0, "f", None, "i"), part(0, None, '{"x":'), part(0, None, " 3}")], 3),
    ("no index", [part(None, "f", '{"x": 4}', "i")], 4),
    ("no id", [part(0, "f", '{"x": 5}')], 5),
]


@pytest.mark.parametrize(
    ("parts", "expected"), [row[1:] for row in ARGUMENTS], ids=[row[0] for row in ARGUMENTS]
)
@pytest.mark.parametrize("last_has_reason", [False, True])
async def test_arguments_however_they_come(
    parts: Any, expected: Any, last_has_reason: bool
) -> None:
    async def f(x: int = 7) -> int:
        return x

    script = [pieces(each) for each in parts]
    if last_has_reason:
        script[-1] = pieces(parts[-1], finish="tool_calls")
    else:
        script.append(CALLS)
    async with stream_of(*script, tools=[function_tool(f)]) as stream:
        runs = stream.run_tools()
        (result,) = await runs.results()
        (message,) = await runs.messages()
    assert result.value == expected
    assert result.error is None
    assert result.tool_call_id == (parts[0]["id"] or "")
    assert message["tool_call_id"] == (parts[0]["id"] or "call_0")


async def test_seven_calls_interleaved() -> None:
    """Their pieces take turns; one call after the other is done, and none is mixed up."""
    counted = Counted()
    opened = [pieces(part(i, "count", "", f"id{i}")) for i in range(7)]
    first = [pieces(*(part(i, None, '{"x": ') for i in range(7)))]
    second = [pieces(part(i, None, f"{i * 10}}}")) for i in (3, 0, 6, 2, 5, 1, 4)]
    async with stream_of(*opened, *first, *second, CALLS, tools=[counted.tool]) as stream:
        messages = await stream.run_tools().messages()
    assert [each["content"] for each in messages] == [str(i * 10) for i in range(7)]
    assert [each["tool_call_id"] for each in messages] == [f"id{i}" for i in range(7)]


async def test_an_id_that_comes_behind_its_call_is_in_the_message() -> None:
    count = Counted()
    late = [
        pieces(part(0, "count", '{"x": 1}')),
        pieces(part(1, "count", '{"x": 2}')),
        pieces(part(0, call_id="late")),
    ]
    async with stream_of(*late, CALLS, tools=[count.tool]) as stream:
        runs = stream.run_tools()
        message = (await stream.get_final_completion()).choices[0].message.to_param()
        assert [each["id"] for each in message["tool_calls"]] == ["late", "call_1"]
        assert [each["tool_call_id"] for each in await runs.messages()] == ["late", "call_1"]
    assert [each.tool_call_id for each in runs.results_so_far()] == ["late", ""]


async def test_an_id_that_comes_late_is_that_of_its_choice() -> None:
    count = Counted()
    late = [
        piece
        for choice in (0, 1)
        for piece in (
            pieces(part(0, "count", '{"x": 1}'), part(1, "count", "{}"), choice=choice),
            pieces(part(0, call_id=f"late{choice}"), finish="tool_calls", choice=choice),
        )
    ]
    async with stream_of(*late, tools=[count.tool]) as stream:
        runs = stream.run_tools()
        for choice in (0, 1):
            assert (await runs.results(choice))[0].tool_call_id == f"late{choice}"


async def test_several_choices() -> None:
    counted = Counted()
    script = [
        call(0, "count", {"x": 1}, choice=1) + call(0, "count", {"x": 2}),
        chunk(None, "tool_calls", index=1),
        CALLS,
    ]
    async with stream_of(*script, tools=[counted.tool], n=2) as stream:
        runs = stream.run_tools()
        assert [each.value for each in await runs.results()] == [2]
        assert [each.value for each in await runs.results(1)] == [1]
        assert await runs.results(2) == []


async def test_over_a_socket_from_the_requests_own_tools() -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    reply = tool_call_reply([("add", '{"a": 1, "b": 2}'), ("add", '{"a": 3, "b": 4}')])
    async with ChatServer(reply) as server:
        async with open_chat_stream(
            **REQUEST, base_url=server.url, tools=[function_tool(add)]
        ) as stream:
            messages = await stream.run_tools().messages()
        sent = server.requests[0].json()
    assert sent["tools"][0]["function"]["name"] == "add"
    assert [each["content"] for each in messages] == ["3", "7"]


async def test_other_tools_than_the_requests() -> None:
    counted = Counted()

    async def other(x: int) -> str:
        return f"other {x}"

    async with stream_of(call(0, "count", {"x": 1}), CALLS, tools=[counted.tool]) as stream:
        runs = stream.run_tools([function_tool(other, name="count")])
        assert (await runs.messages())[0]["content"] == "other 1"
    assert counted.calls == []


# What the model is told.


class Point(msgspec.Struct):
    x: int
    y: list[int]


class Model(pydantic.BaseModel):
    name: str


@dataclass
class Data:
    a: int


class Colour(str, enum.Enum):  # noqa: UP042 - another str() than a StrEnum's
    RED = "red"


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not this"


CONTENTS: list[tuple[Any, str]] = [
    ("as it is\n", "as it is\n"),
    ("", ""),
    (None, "null"),
    (3, "3"),
    (True, "true"),
    ([1, "a", None], '[1,"a",null]'),
    ({"a": {"b": 1}}, '{"a":{"b":1}}'),
    (Point(1, [2]), '{"x":1,"y":[2]}'),
    ([Point(1, [2])], '[{"x":1,"y":[2]}]'),
    (Model(name="m"), '{"name":"m"}'),
    ({"models": [Model(name="m")]}, '{"models":[{"name":"m"}]}'),
    (Data(1), '{"a":1}'),
    (Colour.RED, "red"),
    (Text("this"), "this"),
    (range(3), "[0,1,2]"),
    ("é\u2028😀", "é\u2028😀"),
]


@pytest.mark.parametrize(("value", "content"), CONTENTS, ids=repr)
async def test_contents(value: Any, content: str) -> None:
    async def f() -> Any:
        return value

    async with stream_of(call(0, "f"), CALLS, tools=[function_tool(f)]) as stream:
        (result,) = await stream.run_tools().results()
    assert result.content == content
    assert type(result.content) is str
    assert result.error is None
    assert result.value is value


class Boom(Exception):
    pass


async def boom() -> None:
    raise Boom("it broke")


async def mute() -> None:
    raise Boom


def threaded() -> None:
    raise KeyError("Paris")


async def grouped() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(boom)


async def strict(x: int) -> int:
    return x


async def odd() -> object:
    return object()


async def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


async def surrogate() -> str:
    return "\ud800"


async def surrogate_error() -> None:
    raise Boom("\ud800")


def stopped() -> None:
    raise StopIteration


class Wordless(Exception):
    def __str__(self) -> str:
        raise LookupError("no text for this")


async def wordless() -> None:
    raise Wordless


FAILURES: list[tuple[str, bytes, type[Exception], list[str]]] = [
    ("it raises", call(0, "boom"), Boom, ["Error: Boom: it broke"]),
    ("it raises without a word", call(0, "mute"), Boom, ["Error: Boom"]),
    ("in a thread", call(0, "threaded"), KeyError, ["Error: KeyError: 'Paris'"]),
    ("in a task group", call(0, "grouped"), ExceptionGroup, ["Error: Boom: it broke"]),
    ("a wrong argument", call(0, "strict", {"x": "a"}), ValueMismatchError, ["Error: ", "x"]),
    ("a missing argument", call(0, "strict"), ValueMismatchError, ["Error: ", "x"]),
    ("no object", call(0, "strict", "[1]"), ValueMismatchError, ["Error: "]),
    ("no JSON", call(0, "strict", "{x}"), ValueMismatchError, ["Error: "]),
    ("unknown", call(0, "fly"), WriterError, ["Error: ", "'fly'", "boom, ", "strict"]),
    ("no name", call(0, ""), WriterError, ["Error: ", "''"]),
    ("no JSON form", call(0, "odd"), WriterError, ["Error: ", "odd", "object"]),
    ("endless", call(0, "endless"), WriterError, ["Error: ", "endless", "recursion"]),
    ("half a character", call(0, "surrogate"), WriterError, ["Error: ", "surrogate"]),
    ("half a character in an error", call(0, "surrogate_error"), Boom, ["Error: Boom: ?"]),
    ("StopIteration in a thread", call(0, "stopped"), RuntimeError, ["Error: ", "StopIteration"]),
    ("an error that has no text", call(0, "wordless"), Wordless, ["Error: Wordless"]),
]
FAILING = [
    function_tool(each)
    for each in (
        boom,
        mute,
        threaded,
        grouped,
        strict,
        odd,
        endless,
        surrogate,
        surrogate_error,
        stopped,
        wordless,
    )
]
on_failures = pytest.mark.parametrize(
    ("script", "error", "said"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES]
)


async def test_a_call_where_there_are_no_functions() -> None:
    async with stream_of(call(0, "fly"), CALLS) as stream:
        (result,) = await stream.run_tools().results()
    assert result.content.endswith("'fly'. The functions are: none.")


@on_failures
async def test_failures_are_told_to_the_model(script: bytes, error: Any, said: Any) -> None:
    good = Counted()
    script += call(1, "count", {"x": 1})
    async with stream_of(script, CALLS, tools=[*FAILING, good.tool]) as stream:
        runs = stream.run_tools()
        result, other = await runs.results()
    assert type(result.error) is error
    assert result.content.isprintable()
    assert "Traceback" not in result.content
    for each in said:
        assert each in result.content
    assert other.content == "1"
    assert other.error is None
    result.content.encode()  # it can be sent


@on_failures
async def test_failures_are_raised(script: bytes, error: Any, said: Any) -> None:
    """By the rules of start_soon: the block is cancelled, and a group comes out."""
    reached = False
    with pytest.raises(ExceptionGroup) as caught:
        async with stream_of(script, CALLS, STALL, tools=FAILING) as stream:
            stream.run_tools(on_error="raise")
            await stream.until_done()
            reached = True
    assert not reached
    (raised,) = caught.value.exceptions
    assert type(raised) is error


async def test_a_failure_and_the_blocks_own() -> None:
    class Own(Exception):
        pass

    gates = Gates("f")
    with pytest.raises(ExceptionGroup) as caught:
        async with stream_of(call(0, "boom"), CALLS, tools=FAILING) as stream:
            stream.run_tools(on_error="raise")
            try:
                await stream.until_done()
                await anyio.sleep_forever()
            finally:
                raise Own
    assert {type(each) for each in caught.value.exceptions} == {Own, Boom}
    assert not gates.began


async def test_after_a_raised_failure_nobody_waits_for_ever() -> None:
    gates = Gates("f")
    heard: list[type[Exception]] = []

    async def ask(runs: Any) -> None:
        try:
            await runs.results()
        except Exception as exc:
            heard.append(type(exc))

    script = [call(0, "f") + call(1, "boom"), CALLS]
    async with anyio.create_task_group() as outside:
        with pytest.raises(ExceptionGroup):
            async with stream_of(*script, tools=[*FAILING, *gates.tools]) as stream:
                runs = stream.run_tools(on_error="raise", limit=1)
                outside.start_soon(ask, runs)
                await stream.until_done()
                await gates.begun["f"].wait()
                await wait_all_tasks_blocked()
                gates.open()
                await anyio.sleep_forever()
    await ask(runs)
    assert heard == [StreamClosedError] * 2


async def test_base_exceptions_propagate_in_either_way() -> None:
    class Odd(BaseException):
        pass

    async def f() -> None:
        raise Odd

    with pytest.raises(BaseExceptionGroup) as caught:
        async with stream_of(call(0, "f"), CALLS, tools=[function_tool(f)]) as stream:
            stream.run_tools()
            await stream.until_done()
            await anyio.sleep_forever()
    assert [type(each) for each in caught.value.exceptions] == [Odd]


@function_tool
async def given_up() -> None:
    """It waits for what somebody else has cancelled."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


@function_tool
def given_up_in_a_thread() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    "anyio_backend", ["asyncio"], indirect=True
)  # trio cancels nothing but scopes
@pytest.mark.parametrize("tool", [given_up, given_up_in_a_thread])
async def test_a_cancellation_that_is_not_the_streams_own_is_a_failure(tool: Any) -> None:
    """What a cancelled task or future raises looks like one; the block must not end of it."""
    async with stream_of(call(0, tool.name), CALLS, tools=[tool]) as stream:
        (result,) = await stream.run_tools().results()
    assert isinstance(result.error, WriterError)
    assert result.content == f"Error: {tool.name} waited for something that was cancelled."
    assert isinstance(result.error.__cause__, asyncio.CancelledError)

    with pytest.raises(ExceptionGroup) as caught:
        async with stream_of(call(0, tool.name), CALLS, tools=[tool]) as stream:
            stream.run_tools(on_error="raise")
            await stream.until_done()
            await anyio.sleep_forever()
    assert [type(each) for each in caught.value.exceptions] == [WriterError]


# Functions that are not async.


async def test_plain_functions_run_in_threads_and_side_by_side() -> None:
    barrier = threading.Barrier(3, timeout=HANGS)
    threads: list[int] = []

    def meet() -> str:
        barrier.wait()  # gets through only if three are here at once
        threads.append(threading.get_ident())
        return "met"

    script = [*(call(i, "meet") for i in range(3)), CALLS]
    async with stream_of(*script, tools=[function_tool(meet)]) as stream:
        messages = await stream.run_tools(limit=3).messages()
    assert [each["content"] for each in messages] == ["met"] * 3
    assert threading.get_ident() not in threads


async def test_they_take_no_threads_from_others() -> None:
    """The threads that a process shares for files and the like stay free."""
    shared = anyio.to_thread.current_default_thread_limiter()
    seen: list[float] = []

    async def look() -> None:
        seen.append(shared.borrowed_tokens)

    release = threading.Event()
    script = [*(call(i, "wait") for i in range(5)), CALLS]

    def wait() -> None:
        assert release.wait(HANGS)

    async with stream_of(*script, tools=[function_tool(wait)]) as stream:
        runs = stream.run_tools()
        await stream.until_done()
        await look()
        release.set()
        await runs.results()
    assert seen == [0]


async def test_a_plain_function_that_returns_a_coroutine() -> None:
    async def twice(x: int) -> int:
        await checkpoint()
        return x * 2

    def f(x: int) -> Any:
        return twice(x)

    async with stream_of(call(0, "f", {"x": 4}), CALLS, tools=[function_tool(f)]) as stream:
        assert (await stream.run_tools().messages())[0]["content"] == "8"


async def test_tools_see_the_callers_context() -> None:
    trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="none")

    async def in_loop() -> str:
        return trace.get()

    def in_thread() -> str:
        return trace.get()

    tools = [function_tool(in_loop), function_tool(in_thread)]
    script = [call(0, "in_loop"), call(1, "in_thread"), call(2, "in_loop"), CALLS]
    async with stream_of(*script, tools=tools) as stream:
        trace.set("here")
        runs = stream.run_tools(limit=1)
        trace.set("later")
        assert [each.value for each in await runs.results()] == ["here"] * 3


# Streams that fail, and calls that were cut off.


async def test_a_call_that_was_cut_off_is_not_run() -> None:
    counted = Counted()
    script = [call(0, "count", {"x": 1}), pieces(part(1, "count", '{"x": ', "i1"))]
    async with stream_of(*script, tools=[counted.tool]) as stream:
        runs = stream.run_tools()
        with pytest.raises(StreamTruncatedError):
            await runs.results()
        with pytest.raises(StreamTruncatedError):
            await runs.messages()
    assert counted.calls == [1]


async def test_a_call_that_max_tokens_cut_off_is_not_run() -> None:
    counted = Counted()
    script = [call(0, "count", {"x": 1}), pieces(part(1, "count", '{"x": ', "i1"), finish="length")]
    async with stream_of(*script, tools=[counted.tool]) as stream:
        with pytest.raises(LengthFinishReasonError):
            await stream.run_tools().results()
    assert counted.calls == [1]


async def test_when_the_stream_fails_what_runs_goes_on_to_its_end() -> None:
    gates = Gates("f")
    async with stream_of(call(0, "f"), call(1, "f"), tools=gates.tools) as stream:
        runs = stream.run_tools()
        with pytest.raises(StreamTruncatedError):
            await runs.results()
        await gates.begun["f"].wait()
        gates.open()
    assert gates.finished == ["f"]
    assert [each.content for each in runs.results_so_far()] == ["said f"]
    with pytest.raises(StreamTruncatedError):
        await runs.results()


async def test_an_error_that_leaves_the_block_cancels_them() -> None:
    gates = Gates("f")
    with pytest.raises(StreamTruncatedError):
        async with stream_of(call(0, "f"), call(1, "f"), tools=gates.tools) as stream:
            runs = stream.run_tools()
            await anext(stream)
            await gates.begun["f"].wait()
            await runs.results()
    assert gates.began == gates.ended == ["f"]
    assert not gates.finished


async def test_a_call_that_comes_behind_the_end_when_an_error_has_left_the_block() -> None:
    """What is left of the response is still read then, but no tool may hold the error up."""
    gates = Gates("f", "g")
    gates.open("f")
    fail, late, left = anyio.Event(), anyio.Event(), anyio.Event()
    script = [chunk("x"), call(0, "f", finish="tool_calls"), late, call(1, "g"), DONE]

    async def leave() -> None:
        with pytest.raises(ZeroDivisionError):
            async with stream_of(*script, tools=gates.tools) as stream:
                stream.run_tools()
                await anext(stream)
                await fail.wait()
                raise ZeroDivisionError
        left.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        for step in (fail, late):
            await wait_all_tasks_blocked()
            assert not left.is_set()
            step.set()
        await wait_all_tasks_blocked()
        assert left.is_set()
    assert gates.finished == gates.began == ["f"]


# Leaving.


async def test_leaving_early_waits_for_what_runs_and_no_more() -> None:
    """The stream is closed first: no call comes while the tool is waited for."""
    gates = Gates("f", "g")
    body = Body(call(0, "f"), call(1, "g"), STALL)
    left = anyio.Event()
    results: list[Any] = []

    async def leave() -> None:
        async with chat_stream_from(body, tools=gates.tools) as stream:
            results.append(stream.run_tools())
            async for event in stream:
                if event.type == "tool_calls.function.arguments.done":
                    break
        left.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        await gates.begun["f"].wait()
        await wait_all_tasks_blocked()
        assert not left.is_set()
        with pytest.raises(StreamClosedError):
            await results[0].messages()
        gates.open()
    assert gates.finished == ["f"]
    assert [each.name for each in results[0].results_so_far()] == ["f"]


async def test_leaving_early_with_a_full_buffer_of_unread_events() -> None:
    gates = Gates("f")
    script = [call(0, "f"), call(1, "f"), *(chunk("x") for _ in range(3000)), CALLS]
    async with stream_of(*script, tools=gates.tools) as stream:
        runs = stream.run_tools()
        await anext(stream)
        await gates.begun["f"].wait()
        gates.open()
    with pytest.raises(StreamClosedError):
        await runs.messages()
    assert gates.finished == ["f"]


async def test_leaving_without_reading_runs_nothing() -> None:
    counted = Counted()
    async with stream_of(call(0, "count"), CALLS, tools=[counted.tool]) as stream:
        runs = stream.run_tools()
    assert not counted.calls
    with pytest.raises(StreamClosedError):
        await runs.results()


async def test_calls_that_wait_for_the_limit_are_waited_for_too() -> None:
    gates = Gates("f")
    async with stream_of(*(call(i, "f") for i in range(4)), CALLS, tools=gates.tools) as stream:
        runs = stream.run_tools(limit=1)
        await stream.until_done()
        await gates.begun["f"].wait()
        gates.open()
    assert gates.finished == ["f"] * 4
    assert len(await runs.results()) == 4


async def test_tasks_of_the_block_see_the_stream_through() -> None:
    """While one waits for the messages the stream goes on, though the body has ended."""
    counted = Counted()
    got: list[Any] = []
    async with stream_of(call(0, "count"), chunk("x"), CALLS, tools=[counted.tool]) as stream:
        runs = stream.run_tools()

        async def ask() -> None:
            got.extend(await runs.messages())

        stream.start_soon(ask)
    assert len(got) == 1


async def test_close_drops_the_tools_that_wait_for_the_limit() -> None:
    gates = Gates("f", "g")
    async with stream_of(call(0, "f"), call(1, "g"), CALLS, DONE, tools=gates.tools) as stream:
        stream.run_tools(limit=1)
        await stream.until_done()
        await gates.begun["f"].wait()
        await stream.close()
        await wait_all_tasks_blocked()
        assert gates.ended == ["f"]
        assert gates.began == ["f"]


async def test_close_cancels_running_tools_and_tells_who_waits() -> None:
    gates = Gates("f")
    heard: list[type[Exception]] = []
    async with stream_of(call(0, "f"), call(1, "f"), STALL, tools=gates.tools) as stream:
        runs = stream.run_tools()

        async def ask() -> None:
            try:
                await runs.messages()
            except WriterError as exc:
                heard.append(type(exc))

        stream.start_soon(ask)
        await gates.begun["f"].wait()
        await stream.close()
        await wait_all_tasks_blocked()
        assert heard == [StreamClosedError]
        assert gates.running == 0
    assert gates.began == gates.ended == ["f"]
    assert gates.finished == []
    with pytest.raises(StreamClosedError):
        await runs.messages()


async def test_a_thread_is_left_behind_when_the_block_is_left_by_an_error() -> None:
    begun, release = threading.Event(), threading.Event()
    went_on = threading.Event()

    def wait() -> None:
        begun.set()
        assert release.wait(HANGS)
        went_on.set()

    class Own(Exception):
        pass

    with pytest.raises(Own):
        async with stream_of(call(0, "wait"), CALLS, tools=[function_tool(wait)]) as stream:
            runs = stream.run_tools()
            await stream.until_done()
            await anyio.to_thread.run_sync(begun.wait, HANGS)
            raise Own
    assert not went_on.is_set()  # nobody waited for it
    with pytest.raises(StreamClosedError):
        await runs.results()
    release.set()
    assert await anyio.to_thread.run_sync(went_on.wait, HANGS)
    assert runs.results_so_far() == []


# Using it wrongly.


@pytest.mark.parametrize(
    "wrong",
    [{"limit": 0}, {"limit": -1}, {"limit": True}, {"limit": 1.5}, {"on_error": "ignore"}],
    ids=str,
)
async def test_wrong_options(wrong: Any) -> None:
    async with stream_of(STOP) as stream:
        with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
            stream.run_tools(**wrong)
        stream.run_tools()  # the wrong call has left nothing behind


async def test_wrong_times() -> None:
    stream = stream_of(chunk("a"), STOP)
    with pytest.raises(WriterError, match="not open"):
        stream.run_tools()
    async with stream:
        runs = stream.run_tools()
        with pytest.raises(WriterError, match="already"):
            stream.run_tools()
        assert await runs.results() == []
    with pytest.raises(WriterError, match="has ended"):
        stream.run_tools()


async def test_asked_for_after_the_end_but_inside_the_block() -> None:
    counted = Counted()
    async with stream_of(call(0, "count"), CALLS, tools=[counted.tool]) as stream:
        await stream.until_done()
        assert len(await stream.run_tools().results()) == 1


# Calls that were cut off.

CUT = [call(0, "f"), pieces(part(1, "f", '{"a', "cut"))]


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
async def test_a_call_that_was_cut_off_fails_without_having_run(
    finish: str, *, is_late: bool
) -> None:
    gates = Gates("f")
    gates.open()
    async with stream_of(*CUT, chunk(None, finish), tools=gates.tools) as stream:
        if is_late:
            await stream.until_done()
        results = await stream.run_tools().results()
    assert [result.error is None for result in results] == [True, False]
    assert "cut off" in results[1].message()["content"]
    assert results[1].arguments == '{"a'
    assert gates.began == ["f"]


async def test_a_call_that_was_cut_off_is_a_failure_to_raise() -> None:
    gates = Gates("f")
    gates.open()
    with pytest.raises(ExceptionGroup) as caught:
        async with stream_of(*CUT, CALLS, tools=gates.tools) as stream:
            stream.run_tools(on_error="raise", limit=1)
            await stream.until_done()
            await anyio.sleep_forever()
    assert "cut off" in str(caught.value.exceptions[0])
