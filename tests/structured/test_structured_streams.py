"""Values out of streams: what is sent, what comes back, and what of it ends a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyio_writer import (
    AsyncWriter,
    ChatCompletionStream,
    ContentDoneEvent,
    ContentFilterFinishReasonError,
    ContentParseError,
    LengthFinishReasonError,
    StreamClosedError,
    StreamTruncatedError,
    ValueMismatchError,
    chat_stream_from,
    function_tool,
    open_chat_stream,
)
from anyio_writer.structured import response_format, tools
from anyio_writer.structured.schemas import Codec
from anyio_writer.testing import (
    ChatServer,
    Hold,
    chunks_reply,
    text_reply,
    tool_call_chunks,
    tool_call_reply,
    writer_chunks,
)
from tests.plugins.thoroughness import examples
from tests.streaming.helpers import DONE, REQUEST, STALL, USAGE, Body, chunk
from tests.structured.structured_answers import Answer, answers, cut, says_no_more_than

HANGS = 20
"""Seconds: a net under a hang, never what a test shows."""


class Person(msgspec.Struct):
    name: str
    age: int


class Model(pydantic.BaseModel):
    name: str


@function_tool
def weather(city: str, days: int = 1) -> None:
    """How the weather will be."""


ADA = '{"name": "Ada", "age": 36}'
WRONG = '{"name": "Ada", "age": "x"}'
WEB_SEARCH: dict[str, Any] = {"type": "web_search", "function": {"country": "italy"}}


# What is sent.


@pytest.mark.parametrize("through", ["open_chat_stream", "AsyncWriter"])
async def test_what_is_sent(through: str) -> None:
    asked: dict[str, Any] = {
        "model": "m",
        "messages": REQUEST["messages"],
        "response_format": list[Person],
        "tools": (tool for tool in [weather, WEB_SEARCH]),
    }
    async with ChatServer(text_reply('{"value": []}')) as server:
        if through == "AsyncWriter":
            async with AsyncWriter(api_key="key", base_url=server.url) as writer:
                async with writer.chat.stream(**asked) as stream:
                    await stream.until_done()
        else:
            async with open_chat_stream(**asked, api_key="key", base_url=server.url) as stream:
                await stream.until_done()
    assert server.requests[0].json() == {
        "model": "m",
        "messages": REQUEST["messages"],
        "stream": True,
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "list_Person",
                "strict": True,
                "schema": {
                    "type": "object",
                    "properties": {"value": {"type": "array", "items": {"$ref": "#/$defs/Person"}}},
                    "required": ["value"],
                    "additionalProperties": False,
                    "$defs": {
                        "Person": {
                            "title": "Person",
                            "type": "object",
                            "properties": {
                                "name": {"type": "string"},
                                "age": {"type": "integer"},
                            },
                            "required": ["name", "age"],
                            "additionalProperties": False,
                        }
                    },
                },
            },
        },
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "How the weather will be.",
                    "parameters": {
                        "title": "weather",
                        "type": "object",
                        "properties": {
                            "city": {"type": "string"},
                            "days": {"type": "integer", "default": 1},
                        },
                        "required": ["city", "days"],
                        "additionalProperties": False,
                    },
                },
            },
            WEB_SEARCH,
        ],
    }
    assert (await stream.get_final_completion()).choices[0].message.parsed == []


async def test_the_apis_own_dictionary_is_sent_as_it_is_and_nothing_is_parsed() -> None:
    given: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"a": 1}}}
    async with ChatServer(text_reply(WRONG)) as server:
        async with open_chat_stream(
            **REQUEST, base_url=server.url, response_format=given
        ) as stream:
            events = [event async for event in stream]
    assert server.requests[0].json()["response_format"] == given
    assert (await stream.get_final_completion()).choices[0].message.parsed is None
    parsed = [event.parsed for event in events if event.type in ("content.delta", "content.done")]
    assert len(parsed) > 1
    assert set(parsed) == {None}


async def test_what_cannot_be_told_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(TypeError, match="dict"):
        open_chat_stream(**REQUEST, response_format=dict[str, int])


async def test_a_message_with_values_goes_into_the_next_request_as_it_is() -> None:
    """Its values are this side's alone."""
    replies: list[Any] = [
        chunks_reply([*writer_chunks('{"name": "Ada"}')]),
        chunks_reply(tool_call_chunks([("weather", '{"city": "Rome"}')])),
        text_reply("Thanks"),
    ]
    messages: list[Any] = [*REQUEST["messages"]]
    async with (
        ChatServer(*replies) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
    ):
        for arguments in ({"response_format": Model}, {"tools": [weather]}, {}):
            async with writer.chat.stream(model="m", messages=messages, **arguments) as stream:
                messages.append((await stream.get_final_completion()).choices[0].message)
    assert messages[1].parsed == Model(name="Ada")
    assert messages[2].tool_calls[0].function.parsed_arguments is not None
    sent = server.requests[2].json()["messages"]
    assert sent[1] == {"role": "assistant", "content": '{"name": "Ada"}'}
    assert sent[2]["tool_calls"][0]["function"] == {
        "name": "weather",
        "arguments": '{"city": "Rome"}',
    }


# What comes back.


async def test_over_http_text_and_calls_come_back_typed() -> None:
    def reply(request: Any) -> Any:
        if "tools" in request.json():
            return tool_call_reply([("weather", '{"city": "Rome", "days": 3}')])(request)
        return text_reply(ADA, token_pattern="..?", logprobs=True, done=True)(request)

    async with (
        ChatServer(reply) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
    ):
        request: Any = {"model": "m", "messages": REQUEST["messages"]}
        async with writer.chat.stream(**request, response_format=Person) as stream:
            events = [event async for event in stream]
        (done,) = [event for event in events if event.type == "content.done"]
        assert done.parsed == Person("Ada", 36)
        parsed = [event.parsed for event in events if event.type == "content.delta"]
        assert parsed[0] is None or parsed[0] == {}
        assert {"name": "Ad"} in parsed
        assert (await stream.get_final_completion()).choices[0].message.parsed == done.parsed
        assert any(event.type == "logprobs.content.done" for event in events)

        async with writer.chat.stream(**request, tools=[weather]) as calling:
            called = [event async for event in calling]
        arguments = [
            event.parsed_arguments
            for event in called
            if event.type == "tool_calls.function.arguments.delta"
        ]
        assert arguments[0] is None
        assert arguments[-1] == {"city": "Rome", "days": 3}
        (call,) = [e for e in called if e.type == "tool_calls.function.arguments.done"]
        assert call.parsed_arguments == weather.arguments_type(city="Rome", days=3)


async def test_untyped_tools_are_not_parsed() -> None:
    body = chunks_reply(tool_call_chunks([("weather", '{"city": "Rome"}')]))
    untyped: Any = weather.to_param()
    async with ChatServer(body) as server:
        async with open_chat_stream(**REQUEST, base_url=server.url, tools=[untyped]) as stream:
            events: list[Any] = [event async for event in stream]
    kinds = ("tool_calls.function.arguments.delta", "tool_calls.function.arguments.done")
    parsed = [event.parsed_arguments for event in events if event.type in kinds]
    assert len(parsed) > 2
    assert set(parsed) == {None}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=examples(30))
@given(answers(), st.data())
def test_any_value_comes_back_from_any_pieces(
    backend: str, answer: Answer, data: st.DataObject
) -> None:
    whole = b"".join([*map(chunk, data.draw(cut(answer.text))), chunk(None, "stop"), USAGE, DONE])
    body = Body(*data.draw(cut(whole)))

    async def run() -> None:
        shown: list[Any] = []
        kept: list[Any] = []
        async with chat_stream_from(body, response_format=answer.type) as stream:
            async for event in stream:
                if event.type == "content.delta":
                    shown.append(event.parsed)
                    kept.append(event)
                elif event.type == "content.done":
                    answer.check(event.parsed)
                elif event.type == "chunk" and event.chunk.usage is None:
                    choice = event.snapshot.choices[0]
                    if choice.finish_reason is None:
                        assert choice.message.parsed is None
                    else:
                        answer.check(choice.message.parsed)
            completion = await stream.get_final_completion()
        answer.check_partial(shown)
        assert repr([event.parsed for event in kept]) == repr(shown)
        answer.check(completion.choices[0].message.parsed)

    anyio.run(run, backend=backend)


async def test_subscriptions_get_the_same_values() -> None:
    done: list[Any] = []

    async def listen(answers: Any) -> None:
        done.extend([event.parsed async for event in answers])

    body = Body(chunk(ADA[:9]), chunk(ADA[9:]), chunk(None, "stop"))
    async with chat_stream_from(body, response_format=Person) as stream:
        stream.start_soon(listen, stream.subscribe(ContentDoneEvent))
        stream.start_soon(listen, stream.subscribe(ContentDoneEvent))
        early = stream.subscribe()
        await stream.until_done()
        late = stream.subscribe()
    assert done == [Person("Ada", 36)] * 2
    assert done[0] is done[1]
    assert early.snapshot.choices == []
    assert late.snapshot.choices[0].message.parsed == Person("Ada", 36)


# What ends a stream.


async def iterate(stream: ChatCompletionStream[Any]) -> None:
    async for _ in stream:
        pass


async def batches(stream: ChatCompletionStream[Any]) -> None:
    async for _ in stream.batches():
        pass


async def text_deltas(stream: ChatCompletionStream[Any]) -> None:
    async for _ in stream.text_deltas():
        pass


async def subscription(stream: ChatCompletionStream[Any]) -> None:
    async for _ in stream.subscribe(ContentDoneEvent):
        pass


CONSUMERS: list[Callable[[ChatCompletionStream[Any]], Awaitable[Any]]] = [
    iterate,
    batches,
    text_deltas,
    subscription,
    ChatCompletionStream.until_done,
    ChatCompletionStream.get_final_completion,
    ChatCompletionStream.get_final_text,
]


def check_error(error: ContentParseError) -> None:
    assert (error.choice_index, error.text, error.path) == (0, WRONG, "$.age")
    assert error.reason == "Expected `int`, got `str`"
    assert isinstance(error.__cause__, ValueMismatchError)
    assert (error.__cause__.path, error.__cause__.text) == ("$.age", WRONG)
    assert error.completion is not None
    assert error.completion.choices[0].message.content == WRONG
    assert error.completion.choices[0].message.parsed is None
    assert error.completion.usage is not None  # it was read on to the end


@pytest.mark.parametrize("consume", CONSUMERS)
@pytest.mark.parametrize("end", [b"", DONE, STALL], ids=["ends", "[DONE]", "does not end"])
async def test_every_consumer_is_told(consume: Any, end: Any) -> None:
    body = Body(chunk(WRONG[:9]), chunk(WRONG[9:], "stop"), USAGE, end)
    grace = 0.01 if end is STALL else HANGS  # a busy machine may take longer for the usage
    with anyio.fail_after(HANGS):
        async with chat_stream_from(body, response_format=Person, end_grace=grace) as stream:
            with pytest.raises(ContentParseError) as caught:
                await consume(stream)
            check_error(caught.value)
            with pytest.raises(ContentParseError) as again:
                await stream.until_done()
            assert again.value is not caught.value
        with pytest.raises(ContentParseError):
            await stream.get_final_completion()  # also after the block
    assert stream.usage is not None


async def test_the_events_come_first() -> None:
    types: list[str] = []
    body = Body(chunk(WRONG[:9]), chunk(WRONG[9:]), chunk(None, "stop"), USAGE, DONE)
    with pytest.raises(ContentParseError):
        async with chat_stream_from(body, response_format=Person) as stream:
            async for event in stream:
                types.append(event.type)
                if event.type == "content.done":
                    assert event.content == WRONG
                    assert event.parsed is None
    assert types == [
        *("chunk", "content.delta", "chunk", "content.delta"),
        *("chunk", "content.done", "chunk"),
    ]


async def test_nobody_was_told_so_the_block_tells() -> None:
    gate = anyio.Event()
    body = Body(chunk(WRONG), gate, chunk(None, "stop"), USAGE, DONE)
    with pytest.raises(ContentParseError) as caught:
        async with chat_stream_from(body, response_format=Person) as stream:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(stream.until_done)
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()
            gate.set()
            await anyio.wait_all_tasks_blocked()
    check_error(caught.value)


async def test_who_stops_reading_a_whole_answer_is_told_when_asking() -> None:
    body = Body(chunk(WRONG, "stop") + USAGE + DONE)
    async with chat_stream_from(body, response_format=Person) as stream:
        async for event in stream:
            if event.type == "content.done":
                break
    with pytest.raises(ContentParseError):
        await stream.get_final_completion()


async def test_what_is_left_before_its_end_is_closed_and_no_more() -> None:
    async with chat_stream_from(Body(chunk(WRONG), STALL), response_format=Person) as stream:
        async for event in stream:
            if event.type == "content.delta":
                break
    with pytest.raises(StreamClosedError):
        await stream.get_final_completion()


async def test_other_choices_go_on() -> None:
    body = Body(
        chunk("no", "stop", index=1), chunk(ADA[:9]), chunk(ADA[9:]), chunk(None, "stop"), DONE
    )
    done: dict[int, Any] = {}
    async with chat_stream_from(body, n=2, response_format=Person) as stream:
        with pytest.raises(ContentParseError) as caught:
            async for event in stream:
                if event.type == "content.done":
                    done[event.choice_index] = event.parsed
    assert done == {0: Person("Ada", 36), 1: None}
    error = caught.value
    assert (error.choice_index, error.text, error.path) == (1, "no", "$")
    assert error.completion is not None
    parsed = [choice.message.parsed for choice in error.completion.choices]
    assert parsed == [Person("Ada", 36), None]


@pytest.mark.parametrize("done", [False, True])
async def test_the_error_knows_its_response_and_the_connection_lives_on(done: bool) -> None:
    told = anyio.Event()
    pieces: list[Any] = writer_chunks(WRONG, usage=True)
    if done:
        pieces += [DONE, Hold(told)]  # what is behind it is read after everybody knows
    async with ChatServer(chunks_reply(pieces), text_reply(ADA, done=done)) as server:
        async with AsyncWriter(api_key="key", base_url=server.url) as writer:
            request: Any = {"model": "m", "messages": REQUEST["messages"]}
            async with writer.chat.stream(**request, response_format=Person) as stream:
                with pytest.raises(ContentParseError) as caught:
                    await stream.until_done()
                told.set()
            async with writer.chat.stream(**request, response_format=Person) as good:
                completion = await good.get_final_completion()
    assert completion.choices[0].message.parsed == Person("Ada", 36)
    assert len(server.connections) == 1
    check_error(caught.value)
    error = caught.value
    assert error.response is stream.response is not None
    assert error.request is not None
    assert str(error.request.url) == f"{server.url}/v1/chat"
    assert (error.request_id, error.status_code) == ("req-0", 200)
    assert str(error).endswith("(request id: req-0)")


@pytest.mark.parametrize(
    ("reason", "error"),
    [("length", LengthFinishReasonError), ("content_filter", ContentFilterFinishReasonError)],
)
async def test_what_was_cut_off(reason: str, error: Any) -> None:
    text = Body(chunk(ADA[:9]), chunk(None, reason), DONE)
    events: list[str] = []
    with pytest.raises(error) as caught:
        async with chat_stream_from(text, response_format=Person) as stream:
            async for event in stream:
                events.append(event.type)
    assert events[-1] == "content.done"
    assert caught.value.completion.choices[0].message.content == ADA[:9]

    cut_off = tool_call_chunks([("weather", '{"city": "Ro')])
    cut_off[-1]["choices"][0]["finish_reason"] = reason
    asked: Any
    for asked in ([weather], [weather.to_param()]):
        async with ChatServer(chunks_reply(cut_off)) as server:
            async with open_chat_stream(**REQUEST, base_url=server.url, tools=asked) as stream:
                if asked == [weather]:
                    with pytest.raises(error, match="the arguments of weather"):
                        await stream.until_done()
                else:
                    await stream.until_done()

    async with chat_stream_from(Body(chunk("{", reason))) as plain:
        assert await plain.get_final_text() == "{"


@pytest.mark.parametrize(
    "delta",
    [
        {"refusal": "No."},
        {"refusal": "No.", "content": "no"},
        {"tool_calls": [{"index": 0, "id": "i", "function": {"name": "f", "arguments": "{}"}}]},
    ],
)
async def test_a_refusal_and_calls_take_the_place_of_a_value(delta: dict[str, Any]) -> None:
    text = delta.pop("content", None)
    body = Body(chunk(text, **delta), chunk(None, "stop"))
    async with chat_stream_from(body, response_format=Person) as stream:
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.parsed is None


@pytest.mark.parametrize("text", ["", None, " "])
async def test_an_answer_without_a_text_is_no_value(text: str | None) -> None:
    body = Body(chunk(text), chunk(None, "stop"), DONE)
    async with chat_stream_from(body, response_format=Person) as stream:
        with pytest.raises(ContentParseError) as caught:
            await stream.until_done()
    assert caught.value.text == (text or "")


async def test_arguments_that_do_not_fit_end_nothing() -> None:
    replies = chunks_reply(
        tool_call_chunks([("weather", '{"city": 1}'), ("weather", '{"city": "Rome"}')])
    )
    async with ChatServer(replies) as server:
        async with open_chat_stream(**REQUEST, base_url=server.url, tools=[weather]) as stream:
            completion = await stream.get_final_completion()
    calls = completion.choices[0].message.tool_calls
    assert calls is not None
    parsed = [call.function.parsed_arguments for call in calls]
    assert parsed == [None, weather.arguments_type(city="Rome")]


@pytest.mark.parametrize("text", [WRONG, ADA])
async def test_what_is_truncated_is_just_that(text: str) -> None:
    body = Body(chunk(text, "stop"), chunk(text, index=1))
    async with chat_stream_from(body, n=2, response_format=Person) as stream:
        with pytest.raises(StreamTruncatedError) as caught:
            await stream.until_done()
    assert caught.value.completion is not None
    parsed = [choice.message.parsed for choice in caught.value.completion.choices]
    assert parsed == [Person("Ada", 36) if text == ADA else None, None]


class Faulty(msgspec.Struct):
    name: str

    def __post_init__(self) -> None:
        raise ZeroDivisionError("a mistake of its author")


async def test_a_type_that_raises_what_it_likes_ends_the_stream_in_good_order() -> None:
    body = Body(chunk('{"name": "Ada"}', "stop"), USAGE, DONE)
    with anyio.fail_after(HANGS):
        with pytest.raises(ContentParseError, match="ZeroDivisionError: a mistake") as caught:
            async with chat_stream_from(body, response_format=Faulty) as stream:
                await stream.until_done()
        await stream.close()
    assert isinstance(caught.value.__cause__, ValueMismatchError)
    assert isinstance(caught.value.__cause__.__cause__, ZeroDivisionError)


# Without a request.


async def test_a_recording_has_types_too() -> None:
    calls = [{"index": 0, "id": "i", "function": {"name": "weather", "arguments": '{"city":'}}]
    more = [{"index": 0, "function": {"arguments": '"Rome"}'}}]
    body = Body(chunk(ADA, tool_calls=calls), chunk(tool_calls=more), chunk(None, "stop"), DONE)
    arguments: list[Any] = []
    async with chat_stream_from(
        body, response_format=Person, tools=(tool for tool in [weather])
    ) as stream:
        async for event in stream:
            if event.type.startswith("tool_calls"):
                arguments.append(event.parsed_arguments)  # type: ignore[union-attr]
        message = (await stream.get_final_completion()).choices[0].message
    assert message.parsed == Person("Ada", 36)
    rome = weather.arguments_type(city="Rome")
    assert arguments == [{}, {"city": "Rome"}, rome]
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.parsed_arguments == rome


async def test_a_recording_with_the_apis_own_dictionary() -> None:
    given: Any = {"type": "json_object"}
    async with chat_stream_from(Body(chunk("no", "stop")), response_format=given) as stream:
        assert (await stream.get_final_completion()).choices[0].message.parsed is None


# What it costs, in counts.


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often what costs time is called."""
    counted: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapper(*arguments: Any) -> Any:
            counted[f"{owner.__name__.rpartition('.')[2]}.{name}"] += 1
            return original(*arguments)

        monkeypatch.setattr(owner, name, wrapper)

    count(Codec, "__init__")
    count(response_format.ResponseType, "__init__")
    count(Codec, "decode")
    count(response_format, "partial_value")
    count(tools, "partial_value")
    return counted


@pytest.mark.parametrize("consume", CONSUMERS)
async def test_values_that_nobody_reads_cost_one_look_at_the_end(
    consume: Any, counts: Counter[str]
) -> None:
    calls = [{"index": 0, "id": "i", "function": {"name": "weather", "arguments": ""}}]
    more = [{"index": 0, "function": {"arguments": each}} for each in '{"city": "Rome"}']
    with_calls = [chunk(tool_calls=calls), *(chunk(tool_calls=[each]) for each in more)]
    texts = [chunk(each, index=1) for each in ADA]
    body = Body(*with_calls, *texts, chunk(None, "stop"), chunk(None, "stop", index=1), DONE)
    async with chat_stream_from(body, n=2, response_format=Person, tools=[weather]) as stream:
        counts.clear()  # making the type known is another matter
        await consume(stream)
        assert counts.keys() == {"Codec.decode"}
        # Whether the text fits decides how the stream ends; who takes the completion gets all of
        # its values: two choices and a call.
        assert 1 <= counts["Codec.decode"] <= 3
        for _ in range(3):
            await stream.get_final_completion()
        assert counts == {"Codec.decode": 3}


async def test_a_type_is_looked_at_once_for_all_streams(counts: Counter[str]) -> None:
    class Fresh(msgspec.Struct):
        name: str

    for _ in range(5):
        body = Body(chunk('{"name": "A"}', "stop"))
        async with chat_stream_from(body, response_format=Fresh, tools=[weather]) as stream:
            await stream.until_done()
    assert counts == {"ResponseType.__init__": 1, "Codec.__init__": 1, "Codec.decode": 5}


async def test_partial_values_are_parsed_when_they_are_read(counts: Counter[str]) -> None:
    body = Body(*map(chunk, ADA), chunk(None, "stop"))
    shown: list[Any] = []
    async with chat_stream_from(body, response_format=Person) as stream:
        async for event in stream:
            if event.type == "content.delta" and event.delta == '"':
                shown.append(event.parsed)
    assert counts["response_format.partial_value"] == len(shown) == ADA.count('"')
    assert all(map(says_no_more_than, shown, shown[1:]))
