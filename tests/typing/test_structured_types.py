"""What type checkers see of response formats and tools; see test_narrowing."""

# pyright: reportUnnecessaryTypeIgnoreComment=error

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict, assert_never, assert_type

import attrs
import msgspec
import pydantic
import pytest

from anyio_writer import (
    AsyncWriter,
    ChatCompletionStream,
    ChatCompletionStreamEvent,
    ChunkEvent,
    ContentDeltaEvent,
    ContentDoneEvent,
    Conversation,
    ConversationEvent,
    FunctionTool,
    FunctionToolCallArgumentsDeltaEvent,
    FunctionToolCallArgumentsDoneEvent,
    InvalidParameterError,
    LogprobsContentDeltaEvent,
    LogprobsContentDoneEvent,
    LogprobsRefusalDeltaEvent,
    LogprobsRefusalDoneEvent,
    Message,
    ParsedChatCompletion,
    ReasoningDeltaEvent,
    ReasoningDoneEvent,
    RefusalDeltaEvent,
    RefusalDoneEvent,
    ResponseType,
    RoundStartedEvent,
    Subscription,
    Tool,
    ToolResult,
    ToolResultEvent,
    ToolRuns,
    chat_stream_from,
    function_tool,
    open_chat_stream,
    open_conversation,
    response_type_of,
)
from anyio_writer.protocol.values import ValueReader
from anyio_writer.testing import ChatServer, text_reply, tool_call_reply


class Person(msgspec.Struct):
    name: str


@dataclass
class Place:
    name: str


@attrs.define
class Size:
    width: int


class Options(TypedDict):
    deep: bool


class Pair(NamedTuple):
    left: int
    right: int


class Model(pydantic.BaseModel):
    name: str


MESSAGES: list[Message] = [{"role": "user", "content": "Hello"}]


async def bytes_of_nothing() -> AsyncIterator[bytes]:
    for piece in (b"",):
        yield piece


def test_the_stream_has_the_type_of_its_response_format() -> None:
    def opened(**more: Any) -> Any:  # what it gives at run time, for all kinds of types
        return open_chat_stream(model="m", messages=MESSAGES, api_key="key", **more)

    for kind in (Person, Place, Size, Options, Pair, Model, list[int], int | str):
        assert isinstance(opened(response_format=kind), ChatCompletionStream)

    def checked() -> None:
        assert_type(
            open_chat_stream(model="m", messages=MESSAGES, response_format=Person),
            ChatCompletionStream[Person],
        )
        assert_type(
            open_chat_stream(model="m", messages=MESSAGES, response_format=Place),
            ChatCompletionStream[Place],
        )
        assert_type(
            open_chat_stream(model="m", messages=MESSAGES, response_format=Size),
            ChatCompletionStream[Size],
        )
        assert_type(
            open_chat_stream(model="m", messages=MESSAGES, response_format=Options),
            ChatCompletionStream[Options],
        )
        assert_type(
            open_chat_stream(model="m", messages=MESSAGES, response_format=Pair),
            ChatCompletionStream[Pair],
        )
        assert_type(
            open_chat_stream(model="m", messages=MESSAGES, response_format=Model),
            ChatCompletionStream[Model],
        )
        assert_type(
            open_chat_stream(model="m", messages=MESSAGES, response_format=list[int]),
            ChatCompletionStream[list[int]],
        )
        # A union is no class; until there are type forms, checkers cannot follow it.
        assert_type(
            open_chat_stream(model="m", messages=MESSAGES, response_format=int | str),
            ChatCompletionStream[Any],
        )
        assert_type(
            open_chat_stream(model="m", messages=MESSAGES, response_format={"type": "text"}),
            ChatCompletionStream[None],
        )
        assert_type(
            open_chat_stream(model="m", messages=MESSAGES, response_format=None),
            ChatCompletionStream[None],
        )
        assert_type(open_chat_stream(model="m", messages=MESSAGES), ChatCompletionStream[None])
        assert_type(
            chat_stream_from(bytes_of_nothing(), response_format=Person),
            ChatCompletionStream[Person],
        )
        assert_type(chat_stream_from(bytes_of_nothing()), ChatCompletionStream[None])

    assert callable(checked)


async def test_what_is_parsed_has_the_type() -> None:
    async with (
        ChatServer(text_reply('{"name": "Ada"}')) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
        writer.chat.stream(model="m", messages=MESSAGES, response_format=Person) as stream,
    ):
        assert_type(stream, ChatCompletionStream[Person])
        done = stream.subscribe(ContentDoneEvent[Person])
        assert_type(done, Subscription[ContentDoneEvent[Person]])
        parsed: list[Person | None] = []
        async for event in stream:
            assert_type(event, ChatCompletionStreamEvent[Person])
            if event.type == "content.done":
                assert_type(event, ContentDoneEvent[Person])
                assert_type(event.parsed, Person | None)
                parsed.append(event.parsed)
            elif isinstance(event, ContentDeltaEvent):
                assert_type(event.parsed, Any)
            elif isinstance(event, FunctionToolCallArgumentsDoneEvent):
                assert_type(event.parsed_arguments, Any)
        async for event in done:
            assert_type(event.parsed, Person | None)
            parsed.append(event.parsed)
        completion = await stream.get_final_completion()
        assert_type(completion, ParsedChatCompletion[Person])
        assert_type(completion.choices[0].message.parsed, Person | None)
        parsed.append(completion.choices[0].message.parsed)
    assert parsed == [Person("Ada")] * 3


def test_a_tool_is_called_like_its_function() -> None:
    @function_tool
    def half(number: int, *, rounded: bool = False) -> float:
        """Half of a number."""
        return number // 2 if rounded else number / 2

    @function_tool(name="twice")
    async def double(number: int) -> int:
        """Twice a number."""
        return number * 2

    assert_type(half(3), float)
    assert half(3, rounded=True) == 1
    with pytest.raises(TypeError):
        half("3")  # type: ignore[arg-type]
    assert_type(half.decode('{"number": 4}'), msgspec.Struct)
    reader: ValueReader[msgspec.Struct] = half
    tools: list[Tool] = [half, double, {"type": "function", "function": {"name": "f"}}]
    assert isinstance(double, FunctionTool)
    assert reader.partial('{"number": 4,') == {"number": 4}
    assert len(tools) == 3


def test_built_in_tools_are_told_apart_by_their_type() -> None:
    def ids(tool: Tool) -> list[str]:
        if not isinstance(tool, FunctionTool) and tool["type"] == "graph":
            return list(tool["function"]["graph_ids"])
        return []

    graph: Tool = {"type": "graph", "function": {"graph_ids": ["g"], "subqueries": False}}
    assert ids(graph) == ["g"]


def kind_of(event: ConversationEvent[Person]) -> str:
    if event.type == "round.started":
        assert_type(event, RoundStartedEvent)
        assert_type(event.round, int)
        return "conversation"
    if event.type == "tool.result":
        assert_type(event, ToolResultEvent)
        assert_type(event.content, str)
        assert_type(event.is_error, bool)
        return "conversation"
    assert_type(event, ChatCompletionStreamEvent[Person])
    if event.type == "content.done":
        assert_type(event.parsed, Person | None)
    return "stream"


def kind_by_class(event: ConversationEvent[Person]) -> str:
    match event:
        case RoundStartedEvent() | ToolResultEvent():
            return "conversation"
        case (
            ChunkEvent()
            | ContentDeltaEvent()
            | ContentDoneEvent()
            | RefusalDeltaEvent()
            | RefusalDoneEvent()
            | ReasoningDeltaEvent()
            | ReasoningDoneEvent()
            | LogprobsContentDeltaEvent()
            | LogprobsContentDoneEvent()
            | LogprobsRefusalDeltaEvent()
            | LogprobsRefusalDoneEvent()
            | FunctionToolCallArgumentsDeltaEvent()
            | FunctionToolCallArgumentsDoneEvent()
        ):
            return "stream"
        case _:
            assert_never(event)


def test_the_conversation_has_the_type_of_its_response_format() -> None:
    writer = AsyncWriter(api_key="key")
    conversation = open_conversation(model="m", messages=MESSAGES, api_key="key")
    assert_type(conversation, Conversation[None])
    assert isinstance(conversation, Conversation)
    with pytest.raises(InvalidParameterError):
        open_conversation(model="m", messages=MESSAGES, api_key="key", on_tool_error="log")  # type: ignore[call-overload]

    def checked() -> None:
        assert_type(
            open_conversation(model="m", messages=MESSAGES, response_format=Person),
            Conversation[Person],
        )
        assert_type(
            open_conversation(model="m", messages=MESSAGES, response_format=int | str),
            Conversation[Any],
        )
        assert_type(
            open_conversation(model="m", messages=MESSAGES, response_format={"type": "text"}),
            Conversation[None],
        )
        assert_type(
            writer.chat.conversation(model="m", messages=MESSAGES, response_format=Person),
            Conversation[Person],
        )
        assert_type(
            writer.chat.conversation(model="m", messages=MESSAGES, response_format=int | str),
            Conversation[Any],
        )
        assert_type(
            writer.chat.conversation(model="m", messages=MESSAGES, max_rounds=2, total_time=5),
            Conversation[None],
        )

    assert callable(checked)


async def test_what_a_conversation_gives_has_the_type() -> None:
    @function_tool
    def half(number: int) -> float:
        """Half of a number."""
        return number / 2

    replies = tool_call_reply([("half", '{"number": 4}')]), text_reply('{"name": "Ada"}')
    async with (
        ChatServer(*replies) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
        writer.chat.conversation(
            model="m", messages=MESSAGES, tools=[half], response_format=Person
        ) as conversation,
    ):
        assert_type(conversation, Conversation[Person])
        results = conversation.subscribe(ToolResultEvent)
        assert_type(results, Subscription[ToolResultEvent])
        kinds: set[str] = set()
        async for event in conversation:
            assert_type(event, ConversationEvent[Person])
            assert kind_of(event) == kind_by_class(event)
            kinds.add(kind_of(event))
        assert [result.content async for result in results] == ["2.0"]
        assert_type(await conversation.until_done(), Conversation[Person])
        completion = await conversation.get_final_completion()
        assert_type(completion, ParsedChatCompletion[Person])
        assert_type(conversation.completions, list[ParsedChatCompletion[Person]])
    assert kinds == {"conversation", "stream"}
    assert completion.choices[0].message.parsed == Person("Ada")


async def test_what_tools_give_has_the_type() -> None:
    async with (
        ChatServer(tool_call_reply([("half", '{"number": 4}')])) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
        writer.chat.stream(model="m", messages=MESSAGES) as stream,
    ):

        @function_tool
        def half(number: int) -> float:
            """Half of a number."""
            return number / 2

        with pytest.raises(InvalidParameterError):
            stream.run_tools(on_error="log")  # type: ignore[arg-type]
        runs = stream.run_tools([half], limit=None)
        assert_type(runs, ToolRuns)
        results = await runs.results()
        assert_type(results, list[ToolResult])
        assert_type(results[0].error, Exception | None)
        assert_type(runs.results_so_far(), list[ToolResult])
    assert [result.value for result in results] == [2.0]


def test_a_response_type_by_itself() -> None:
    reader: ResponseType[Person] = response_type_of(Person)
    assert_type(reader.decode('{"name": "Ada"}'), Person)
    assert reader.decode('{"name": "Ada"}') == Person("Ada")
