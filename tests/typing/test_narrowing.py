"""What type checkers see. mypy and pyright read this strictly; running it shows little.

Where something must not type-check, an ignore comment stands for the error: both checkers report
a comment that nothing needs.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=error

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, assert_never, assert_type

import anyio
import httpx
import pytest

from anyio_writer import (
    APIError,
    AsyncWriter,
    ChatCompletionChunk,
    ChatCompletionStream,
    ChatCompletionStreamEvent,
    ChatCompletionStreamState,
    ChatRequest,
    ChunkEvent,
    ConfigurationError,
    ContentDeltaEvent,
    ContentDoneEvent,
    FunctionToolCallArgumentsDeltaEvent,
    FunctionToolCallArgumentsDoneEvent,
    InvalidParameterError,
    LogprobsContentDeltaEvent,
    LogprobsContentDoneEvent,
    LogprobsRefusalDeltaEvent,
    LogprobsRefusalDoneEvent,
    Message,
    MessageParam,
    ParsedChatCompletion,
    ParsedChatCompletionChoice,
    ParsedChatCompletionMessage,
    ParsedFunctionToolCall,
    ReasoningDeltaEvent,
    ReasoningDoneEvent,
    RefusalDeltaEvent,
    RefusalDoneEvent,
    ServerSentEvent,
    SSEDecoder,
    StreamClosedError,
    Subscription,
    Timeouts,
    Usage,
    chat_stream_from,
    open_chat_stream,
)
from anyio_writer.protocol import LogprobToken
from anyio_writer.testing import ChatServer, text_reply

Event = ChatCompletionStreamEvent[None]

EVENTS: list[Event] = [
    ChunkEvent(ChatCompletionChunk()),
    ContentDeltaEvent(0, "a"),
    ContentDoneEvent(0, "a"),
    RefusalDeltaEvent(0, "a"),
    RefusalDoneEvent(0, "a"),
    LogprobsContentDeltaEvent(0, []),
    LogprobsContentDoneEvent(0, []),
    LogprobsRefusalDeltaEvent(0, []),
    LogprobsRefusalDoneEvent(0, []),
    FunctionToolCallArgumentsDeltaEvent(0, 0, "f", ""),
    FunctionToolCallArgumentsDoneEvent(0, 0, "f", "id", ""),
]


def by_type(event: Event) -> str:  # noqa: PLR0912 - there are thirteen
    if event.type == "chunk":
        assert_type(event, ChunkEvent)
        assert_type(event.chunk, ChatCompletionChunk)
    elif event.type == "content.delta":
        assert_type(event, ContentDeltaEvent)
        assert_type(event.choice_index, int)
        assert_type(event.delta, str)
        assert_type(event.content, str)
    elif event.type == "content.done":
        assert_type(event, ContentDoneEvent[None])
        assert_type(event.content, str)
    elif event.type == "refusal.delta":
        assert_type(event, RefusalDeltaEvent)
        assert_type(event.delta, str)
    elif event.type == "refusal.done":
        assert_type(event, RefusalDoneEvent)
        assert_type(event.refusal, str)
    elif event.type == "reasoning.delta":
        assert_type(event, ReasoningDeltaEvent)
        assert_type(event.delta, str)
    elif event.type == "reasoning.done":
        assert_type(event, ReasoningDoneEvent)
        assert_type(event.reasoning, str)
    elif event.type == "logprobs.content.delta":
        assert_type(event, LogprobsContentDeltaEvent)
        assert_type(event.content, list[LogprobToken])
    elif event.type == "logprobs.content.done":
        assert_type(event, LogprobsContentDoneEvent)
        assert_type(event.content, list[LogprobToken])
    elif event.type == "logprobs.refusal.delta":
        assert_type(event, LogprobsRefusalDeltaEvent)
        assert_type(event.refusal, list[LogprobToken])
    elif event.type == "logprobs.refusal.done":
        assert_type(event, LogprobsRefusalDoneEvent)
        assert_type(event.refusal, list[LogprobToken])
    elif event.type == "tool_calls.function.arguments.delta":
        assert_type(event, FunctionToolCallArgumentsDeltaEvent)
        assert_type(event.index, int)
        assert_type(event.name, str)
        assert_type(event.arguments_delta, str)
    elif event.type == "tool_calls.function.arguments.done":
        assert_type(event, FunctionToolCallArgumentsDoneEvent)
        assert_type(event.tool_call_snapshot_id, str)
        assert_type(event.arguments, str)
    else:
        assert_never(event)
    return event.type


def by_class(event: Event) -> str:  # noqa: PLR0911, PLR0912 - there are thirteen
    match event:
        case ChunkEvent():
            return "chunk"
        case ContentDeltaEvent(choice_index=choice, delta=delta):
            assert_type(choice, int)
            assert_type(delta, str)
            return "content.delta"
        case ContentDoneEvent():
            assert_type(event, ContentDoneEvent[None])
            return "content.done"
        case RefusalDeltaEvent():
            return "refusal.delta"
        case RefusalDoneEvent():
            return "refusal.done"
        case ReasoningDeltaEvent():
            return "reasoning.delta"
        case ReasoningDoneEvent():
            return "reasoning.done"
        case LogprobsContentDeltaEvent():
            return "logprobs.content.delta"
        case LogprobsContentDoneEvent():
            return "logprobs.content.done"
        case LogprobsRefusalDeltaEvent():
            return "logprobs.refusal.delta"
        case LogprobsRefusalDoneEvent():
            return "logprobs.refusal.done"
        case FunctionToolCallArgumentsDeltaEvent():
            return "tool_calls.function.arguments.delta"
        case FunctionToolCallArgumentsDoneEvent():
            return "tool_calls.function.arguments.done"
        case _:
            assert_never(event)


def what_is_so_far(event: Event) -> None:
    """Read from a stream only: an event made by hand stands for no moment of one."""
    match event:
        case ChunkEvent():
            assert_type(event.snapshot, ParsedChatCompletion[Any])
            assert_type(event.raw, bytes)
        case ContentDeltaEvent() | RefusalDeltaEvent():
            assert_type(event.snapshot, str)
        case LogprobsContentDeltaEvent() | LogprobsRefusalDeltaEvent():
            assert_type(event.snapshot, list[LogprobToken])
        case FunctionToolCallArgumentsDeltaEvent():
            assert_type(event.arguments, str)
        case _:
            pass


def no_such_field(event: Event) -> object:
    if event.type == "content.done":
        # A done event carries all there is, so it has no text so far.
        return event.snapshot  # type: ignore[attr-defined]
    if event.type == "content.delta":
        event.delta = ""  # type: ignore[misc]
    return None


def not_all_events(event: Event) -> None:
    match event:
        case ChunkEvent() | ContentDeltaEvent() | ContentDoneEvent():
            pass
        case _:
            # What is forgotten shows where the function says that nothing is.
            assert_never(event)  # type: ignore[arg-type]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_narrowing(event: Event) -> None:
    assert by_type(event) == by_class(event) == event.type


def test_events_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        no_such_field(ContentDeltaEvent(0, "a"))


async def look_at(stream: ChatCompletionStream[None]) -> None:
    assert_type(aiter(stream), AsyncIterator[Event])
    assert_type(await anext(stream, None), Event | None)
    async for event in stream:
        assert_type(event, Event)
        what_is_so_far(event)
    async for batch in stream.batches():
        assert_type(batch, list[Event])
    async for piece in stream.text_deltas():
        assert_type(piece, str)
    assert_type(await stream.until_done(), ChatCompletionStream[None])
    assert_type(await stream.get_final_text(), str)
    completion = await stream.get_final_completion()
    assert_type(completion, ParsedChatCompletion[None])
    assert_type(completion.usage, Usage | None)
    assert_type(completion.choices, list[ParsedChatCompletionChoice[None]])
    choice = completion.choices[0]
    assert_type(choice.finish_reason, str | None)
    assert_type(choice.message, ParsedChatCompletionMessage[None])
    assert_type(choice.message.content, str | None)
    assert_type(choice.message.tool_calls, list[ParsedFunctionToolCall] | None)
    assert_type(stream.current_completion_snapshot, ParsedChatCompletion[None])
    assert_type(stream.response, httpx.Response | None)
    assert_type(stream.request_id, str | None)
    assert_type(stream.bytes_received, int)
    assert_type(stream.chunk_count, int)


async def subscribe(stream: ChatCompletionStream[None]) -> None:
    everything = stream.subscribe()
    assert_type(everything, Subscription[Event])
    deltas = stream.subscribe(ContentDeltaEvent, max_buffer=10, on_full="drop_oldest")
    assert_type(deltas, Subscription[ContentDeltaEvent])
    async with deltas:
        async for event in deltas:
            assert_type(event, ContentDeltaEvent)
        async for batch in deltas.batches():
            assert_type(batch, list[ContentDeltaEvent])
    assert_type(deltas.dropped, int)
    assert_type(deltas.snapshot, ParsedChatCompletion[Any])
    with pytest.raises(InvalidParameterError):
        stream.subscribe(on_full="forget")  # type: ignore[call-overload]
    texts = stream.subscribe(ContentDeltaEvent, RefusalDeltaEvent, max_buffer=4)
    assert_type(texts, Subscription[ContentDeltaEvent | RefusalDeltaEvent])
    async with texts:
        async for said in texts:
            assert_type(said.delta, str)
    assert_type(
        stream.subscribe(ContentDeltaEvent, RefusalDeltaEvent, ChunkEvent),
        Subscription[ContentDeltaEvent | RefusalDeltaEvent | ChunkEvent],
    )
    assert_type(
        stream.subscribe(ContentDeltaEvent, RefusalDeltaEvent, ChunkEvent, RefusalDoneEvent),
        Subscription[ContentDeltaEvent | RefusalDeltaEvent | ChunkEvent | RefusalDoneEvent],
    )
    five = (ContentDeltaEvent, RefusalDeltaEvent, ChunkEvent, RefusalDoneEvent, ContentDoneEvent)
    assert_type(stream.subscribe(*five), Subscription[Any])


async def wait_for(moment: anyio.Event, name: str) -> None:
    await moment.wait()
    assert name


async def start(stream: ChatCompletionStream[None]) -> None:
    moment = anyio.Event()
    stream.start_soon(wait_for, moment, "name")
    moment.set()


def wrong_arguments_of_a_task(stream: ChatCompletionStream[None]) -> None:
    stream.start_soon(wait_for, "name")  # type: ignore[arg-type]


async def text_of(stream: ChatCompletionStream[None]) -> str:
    # A block that might swallow exceptions would need a return behind it.
    async with stream:
        return await stream.get_final_text()


async def test_streams() -> None:
    request: ChatRequest = {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
        "n": 1,
    }
    async with (
        ChatServer(text_reply("a")) as server,
        AsyncWriter(api_key="key", base_url=server.url, timeouts=Timeouts(idle=None)) as writer,
    ):
        assert_type(writer, AsyncWriter)
        opened = open_chat_stream(**request, api_key="key", base_url=server.url)
        assert_type(opened, ChatCompletionStream[None])
        async with opened as stream:
            assert_type(stream, ChatCompletionStream[None])
            await subscribe(stream)
            await start(stream)
            await stream.until_done()
        await look_at(stream)
        warmer: ChatRequest = {**request, "temperature": 0.9, "seed": 1}
        assert_type(writer.chat.stream(**warmer), ChatCompletionStream[None])
        patient = writer.with_options(timeouts=Timeouts(idle=None), max_retries=0)
        assert_type(patient, AsyncWriter)
        assert_type(patient.chat.stream(**request), ChatCompletionStream[None])
        asked = writer.chat.stream(**request)
        assert_type(asked, ChatCompletionStream[None])
        assert_type(await text_of(asked), str)

    async def recording() -> AsyncIterator[bytes]:
        yield b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}\n\n'

    async with chat_stream_from(recording(), end_grace=1) as stream:
        assert_type(stream, ChatCompletionStream[None])
        await look_at(stream)
    assert stream.chunk_count == 1


def test_protocol() -> None:
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for sse in SSEDecoder().feed(b'data: {"choices": [{"finish_reason": "stop"}]}\n\n'):
        assert_type(sse, ServerSentEvent)
        assert_type(state.handle_chunk(sse), list[Event])
    assert_type(state.finish(), list[Event])
    assert_type(state.get_final_completion(), ParsedChatCompletion[None])


async def keep_talking(writer: AsyncWriter, questions: list[str]) -> None:
    messages: list[MessageParam] = []
    for question in questions:
        messages.append({"role": "user", "content": question})
        async with writer.chat.stream(model="m", messages=messages) as stream:
            completion = await stream.get_final_completion()
        messages.append(completion.choices[0].message)


async def test_what_was_said_goes_back() -> None:
    replies = (text_reply("One"), text_reply("Two"))
    async with (
        ChatServer(*replies) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
    ):
        await keep_talking(writer, ["First", "Second"])
    asked = server.requests[1].json()["messages"]
    assert [message["content"] for message in asked] == ["First", "One", "Second"]


def test_wrong_arguments() -> None:
    messages: list[Message] = [{"role": "user", "content": "Hello"}]
    writer = AsyncWriter(api_key="key")
    with pytest.raises(InvalidParameterError, match="modle"):
        open_chat_stream(modle="m", messages=messages, api_key="key")  # type: ignore[call-overload]
    with pytest.raises(InvalidParameterError, match="model"):
        open_chat_stream(messages=messages, api_key="key")  # type: ignore[call-overload]
    with pytest.raises(InvalidParameterError, match="messages"):
        open_chat_stream(model="m", messages="Hello", api_key="key")  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="role"):
        open_chat_stream(
            model="m",
            messages=[{"role": "nobody", "content": "Hello"}],  # type: ignore[list-item]
            api_key="key",
        )
    with pytest.raises(ConfigurationError, match="timeouts"):
        open_chat_stream(model="m", messages=messages, timeouts=5, api_key="key")  # type: ignore[call-overload]
    with pytest.raises(InvalidParameterError, match="timeouts"):
        writer.chat.stream(model="m", messages=messages, timeouts=Timeouts())  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="modle"):
        AsyncWriter(api_key="key", modle="m")  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="timeout"):
        writer.with_options(timeout=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Timeouts(first=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        open_chat_stream("m", messages)  # type: ignore[call-overload]


def what_an_error_carries(error: APIError | StreamClosedError) -> None:
    assert_type(error.completion, ParsedChatCompletion[Any] | None)
    if isinstance(error, APIError):
        assert_type(error.request, httpx.Request | None)
        assert_type(error.response, httpx.Response | None)
        assert_type(error.status_code, int | None)
        assert_type(error.request_id, str | None)
        assert_type(error.body, object)


def test_errors() -> None:
    what_an_error_carries(APIError("x"))
    what_an_error_carries(StreamClosedError("x"))
