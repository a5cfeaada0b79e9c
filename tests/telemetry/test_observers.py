"""``observer=``: who is told what, in which order, and that it harms nobody."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint

from anyio_writer import (
    AsyncWriter,
    ChatCompletionStream,
    ConfigurationError,
    StreamObserver,
    chat_stream_from,
    function_tool,
    open_chat_stream,
    open_conversation,
)
from anyio_writer.relay import MemoryRelay
from anyio_writer.telemetry import (
    AttemptFailed,
    BatchReceived,
    ContentStarted,
    ConversationEnded,
    ConversationStarted,
    HeadersReceived,
    RequestPrepared,
    StreamEnded,
    ToolEnded,
    ToolStarted,
)
from anyio_writer.testing import ChatServer, error_reply, text_reply
from anyio_writer.transport import retries
from tests.streaming.helpers import DONE, QUESTION, REQUEST, STALL, Body, chunk, client_for
from tests.telemetry.endings import ENDINGS, WHOLE, read


class Everything(StreamObserver):
    """Writes down all that it is told, and by whose task."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.tasks: set[str | None] = set()

    def _tell(self, observed: Any) -> None:
        self.told.append(observed)
        self.tasks.add(anyio.get_current_task().name)

    request_prepared = headers_received = attempt_failed = content_started = _tell
    batch_received = tool_started = tool_ended = stream_ended = _tell
    conversation_started = conversation_ended = _tell

    def kinds(self) -> list[type]:
        return [type(each) for each in self.told]

    def only(self, kind: type) -> Any:
        (found,) = [each for each in self.told if type(each) is kind]
        return found


FIRST = [RequestPrepared, HeadersReceived]
CONTENT = [ContentStarted, BatchReceived]
ORDER: dict[str, list[type]] = {
    "complete": [*FIRST, BatchReceived, *CONTENT, *[BatchReceived] * 3, StreamEnded],
    "truncated": [*FIRST, BatchReceived, *CONTENT, StreamEnded],
    "error in 200": [*FIRST, *CONTENT, StreamEnded],
    "not a chunk": [*FIRST, StreamEnded],
    "status error": [*FIRST, AttemptFailed, StreamEnded],
    "no connection": [RequestPrepared, AttemptFailed, StreamEnded],
    "retried": [
        *(*FIRST, AttemptFailed),
        *(*FIRST, BatchReceived, *CONTENT, *[BatchReceived] * 3, StreamEnded),
    ],
    "retried in vain": [*FIRST, AttemptFailed, *FIRST, AttemptFailed, StreamEnded],
    "timeout": [*FIRST, *CONTENT, StreamEnded],
    "no answer": [RequestPrepared, StreamEnded],
    "cancelled": [*FIRST, *CONTENT, StreamEnded],
    "cancelled on entry": [RequestPrepared, StreamEnded],
    "closed": [*FIRST, *CONTENT, StreamEnded],
    "left early": [*FIRST, *CONTENT, StreamEnded],
    "left by an exception": [*FIRST, *CONTENT, StreamEnded],
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_every_ending_is_told_once_and_last(name: str) -> None:
    ending = ENDINGS[name]
    seen = Everything()
    async with ending.client() as client:
        stream = open_chat_stream(client=client, observer=seen, **REQUEST, **ending.arguments)
        await ending.use(stream)
    assert seen.kinds() == ORDER[name]
    assert {id(each.stream) for each in seen.told} == {id(stream)}
    assert seen.tasks == {"anyio_writer stream"}
    ended = seen.told[-1]
    assert ended.outcome == ending.outcome
    assert (ended.error and type(ended.error).__name__) == ending.error
    assert ended.timings == stream.timings
    assert ended.timings.attempts == ending.attempts
    assert ended.completion == stream.current_completion_snapshot
    assert ended.usage == stream.usage
    requests = [each for each in seen.told if type(each) is RequestPrepared]
    assert [each.attempt for each in requests] == [*range(1, ending.attempts + 1)]


async def test_what_observers_are_told_of_a_stream() -> None:
    seen = Everything()
    async with client_for(Body(*WHOLE)) as client:
        stream = open_chat_stream(client=client, observer=[seen], **REQUEST)
        await read(stream)
    request = seen.only(RequestPrepared)
    assert request.url == "https://api.writer.com/v1/chat"
    assert request.body == {**QUESTION, "stream": True}
    assert json.loads(request.content) == request.body
    assert seen.only(HeadersReceived).response is stream.response
    batches = [each for each in seen.told if type(each) is BatchReceived]
    assert [each.chunk_count for each in batches] == [1] * 5
    assert [event.type for each in batches for event in each.events] == [
        *("chunk", "chunk", "content.delta", "chunk", "content.delta"),
        *("chunk", "content.done", "chunk"),
    ]
    assert seen.only(ContentStarted).seconds == batches[1].seconds == stream.timings.first_content
    assert seen.only(StreamEnded).usage.completion_tokens == 2


async def test_no_events_are_made_for_observers_alone() -> None:
    seen = Everything()
    async with chat_stream_from(Body(*WHOLE), observer=seen) as stream:
        await stream.get_final_completion()
    batches = [each for each in seen.told if type(each) is BatchReceived]
    assert sum(each.chunk_count for each in batches) == 5
    assert all(each.events == () for each in batches)
    assert seen.kinds()[-1] is StreamEnded


async def test_why_a_request_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_JITTER", 0)
    seen = Everything()
    ending = ENDINGS["retried in vain"]
    async with ending.client() as client:
        stream = open_chat_stream(client=client, observer=seen, **REQUEST, **ending.arguments)
        await ending.use(stream)
    failures = [each for each in seen.told if type(each) is AttemptFailed]
    assert [(each.attempt, each.wait) for each in failures] == [(1, 0.001), (2, None)]
    assert [each.error.status_code for each in failures] == [503, 503]
    assert failures[1].error is seen.told[-1].error


class Adding(StreamObserver):
    def __init__(self, **headers: Any) -> None:
        self.headers = headers

    def request_prepared(self, observed: RequestPrepared) -> None:
        observed.headers.update(self.headers)


async def test_observers_may_add_headers_but_replace_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Ids(StreamObserver):
        def request_prepared(self, observed: RequestPrepared) -> None:
            observed.headers["x-attempt"] = str(observed.attempt)

    bad = Adding(evil="a\r\nb", number=3, nothing=None, **{"no name": "x"})
    greedy = Adding(authorization="mine", accept="*/*")
    async with ChatServer(
        error_reply(503, headers={"retry-after-ms": "1"}), text_reply()
    ) as server:
        stream = open_chat_stream(base_url=server.url, observer=[bad, greedy, Ids()], **REQUEST)
        await read(stream)
    first, second = server.requests
    assert (first.header("x-attempt"), second.header("x-attempt")) == ("1", "2")
    for request in (first, second):
        assert request.header("authorization") == "Bearer key"
        assert request.header("accept") == "text/event-stream"
        for name in ("evil", "number", "nothing", "no name"):
            assert request.header(name) is None
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) == 6


async def test_what_observers_raise_is_logged_once_and_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(StreamObserver):
        def batch_received(self, observed: BatchReceived) -> None:
            raise ValueError("mine")

        def stream_ended(self, observed: StreamEnded) -> None:
            raise StopIteration

        def request_prepared(self, observed: RequestPrepared) -> None:
            raise [KeyError, IndexError][observed.attempt - 1]

    seen = Everything()
    observers = [Broken(), seen]
    ending = ENDINGS["retried"]
    async with (
        ending.client() as client,
        AsyncWriter(client=client, api_key="key", observer=observers) as writer,
    ):
        await read(writer.chat.stream(**QUESTION))
    assert seen.kinds() == ORDER["retried"]
    errors = [each for each in caplog.records if each.levelno == logging.ERROR]
    said = [each.getMessage() for each in errors]
    assert [line.partition("raised ")[2].partition(";")[0] for line in said] == [
        *("KeyError", "IndexError", "ValueError", "StopIteration")
    ]
    assert "Broken.batch_received" in said[2]
    assert errors[2].exc_info


@pytest.mark.parametrize(
    "name", ["request_prepared", "headers_received", "batch_received", "stream_ended"]
)
async def test_a_cancellation_out_of_an_observer_is_its_own(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as that of a future which the observer asks for its result."""
    cancelled: list[BaseException] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except anyio.get_cancelled_exc_class() as exc:
            cancelled.append(exc)
            raise

    def ask(observed: object) -> None:
        raise cancelled[0]

    observer: Any = type("Asking", (), {name: staticmethod(ask)})()
    async with client_for(Body(*WHOLE)) as client:
        stream = open_chat_stream(client=client, observer=observer, **REQUEST)
        with anyio.fail_after(5):
            async with stream:
                assert await stream.get_final_text() == "Hello"
    assert [each.levelname for each in caplog.records] == ["ERROR"]


class Stop(BaseException):
    pass


async def test_only_exceptions_are_caught() -> None:
    class Stopping(StreamObserver):
        def content_started(self, observed: ContentStarted) -> None:
            raise Stop

    body = Body(*WHOLE)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with client_for(body) as client:
            async with open_chat_stream(client=client, observer=Stopping(), **REQUEST) as stream:
                await stream.until_done()
    assert caught.value.subgroup(Stop) is not None
    assert body.closed


async def test_the_response_is_closed_whatever_an_observer_raises_at_the_end() -> None:
    class Stopping(StreamObserver):
        def stream_ended(self, observed: StreamEnded) -> None:
            raise Stop

    body = Body(*WHOLE[:1], STALL)
    with pytest.raises(BaseException) as caught, anyio.fail_after(5):
        async with client_for(body) as client:
            with anyio.CancelScope() as scope:
                async with open_chat_stream(
                    client=client, observer=Stopping(), **REQUEST
                ) as stream:
                    await anext(stream)
                    scope.cancel()
                    await anext(stream)
    group = caught.value
    assert isinstance(group, Stop) or (
        isinstance(group, BaseExceptionGroup) and group.subgroup(Stop) is not None
    )
    assert body.closed


async def test_any_object_with_one_of_the_methods_will_do() -> None:
    ended: list[Any] = []

    class Duck:
        def stream_ended(self, observed: StreamEnded) -> None:
            ended.append(observed.outcome)

    duck: Any = Duck()
    async with chat_stream_from(Body(*WHOLE), observer=duck) as stream:
        await stream.until_done()
    assert ended == ["complete"]


@pytest.mark.parametrize(
    ("observer", "said"),
    [
        (3, "int is no observer: it has none of the methods"),
        ([object()], "object is no observer"),
        (Everything, "not a class: Everything(...)"),
        ([Everything], "not a class: Everything(...)"),
        (type("Late", (), {"stream_ended": read})(), "stream_ended must be a plain function"),
        (type("Odd", (), {"stream_ended": 3})(), "that of Odd is not"),
    ],
)
def test_what_is_no_observer_is_refused(observer: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_chat_stream(observer=observer, **REQUEST)
    assert said in str(caught.value)
    with pytest.raises(ConfigurationError):
        AsyncWriter(api_key="key", observer=observer)
    with pytest.raises(ConfigurationError):
        chat_stream_from(Body(), observer=observer)


@pytest.mark.parametrize("nobody", [None, [], ()])
async def test_nobody_is_told_nothing(nobody: Any) -> None:
    async with chat_stream_from(Body(*WHOLE), observer=nobody) as stream:
        await stream.until_done()
    assert stream.timings.ended is not None


async def test_options_replace_the_observer() -> None:
    mine, other = Everything(), Everything()
    async with client_for(Body(*WHOLE)) as client:
        async with AsyncWriter(client=client, api_key="key", observer=mine) as writer:
            await read(writer.with_options(max_retries=0).chat.stream(**QUESTION))
            assert mine.kinds() == ORDER["complete"]
            client._transport.handler = client_for(Body(*WHOLE))._transport.handler  # type: ignore[attr-defined]
            await read(writer.with_options(observer=other).chat.stream(**QUESTION))
    assert mine.kinds() == other.kinds() == ORDER["complete"]


async def test_a_stream_that_was_never_entered_tells_nothing() -> None:
    seen = Everything()
    open_chat_stream(observer=seen, **REQUEST)
    async with chat_stream_from(Body(STALL), observer=seen):
        assert not seen.told
    assert seen.kinds() == [StreamEnded]
    assert seen.told[0].outcome == "closed"


async def test_readers_of_a_relay_are_observed_as_streams_without_a_request() -> None:
    seen = Everything()
    async with MemoryRelay() as relay:
        async with chat_stream_from(Body(*WHOLE)) as stream:
            await relay.publish("key", stream)
        async with relay.open_stream("key", observer=seen) as reader:
            await reader.until_done()
    kinds = seen.kinds()
    assert kinds[-1] is StreamEnded
    assert kinds.count(ContentStarted) == kinds.count(StreamEnded) == 1
    assert not {RequestPrepared, HeadersReceived} & {*kinds}
    assert reader.timings.chunk_count == 5
    assert reader.timings.attempts == 0


# Tools and conversations.

CALLS = {"double": '{"number":1}', "fail": "{}"}


def calling(*names: str) -> Body:
    calls = [
        {"index": index, "id": f"id-{name}", "function": {"name": name, "arguments": CALLS[name]}}
        for index, name in enumerate(names)
    ]
    return Body(chunk(tool_calls=calls), chunk(None, "tool_calls"), DONE)


@function_tool
async def double(number: int) -> int:
    await anyio.lowlevel.checkpoint()
    return 2 * number


@function_tool
def fail() -> None:
    raise LookupError("gone")


async def test_each_tool_is_told_of_in_its_own_task() -> None:
    seen = Everything()
    source = calling("double", "fail")
    stream: ChatCompletionStream[Any] = chat_stream_from(
        source, tools=[double, fail], observer=seen
    )
    async with stream:
        await stream.run_tools().results()
    tools = [each for each in seen.told if type(each) in (ToolStarted, ToolEnded)]
    by_name = {
        name: [each for each in tools if each.call.name == name] for name in ("double", "fail")
    }
    for started, ended in by_name.values():
        assert (type(started), type(ended)) == (ToolStarted, ToolEnded)
        assert started.stream is stream
    assert by_name["double"][1].result.value == 2
    assert by_name["double"][1].error is None
    assert isinstance(by_name["fail"][1].error, LookupError)
    assert by_name["fail"][1].result.content == "Error: LookupError: gone"
    assert seen.tasks == {"anyio_writer stream", "tool double", "tool fail"}


async def test_a_tool_that_is_cancelled_or_raises_has_ended_too() -> None:
    @function_tool(name="double")
    async def stalls(number: int) -> None:
        await anyio.sleep_forever()

    seen = Everything()
    stream = chat_stream_from(calling("double"), tools=[stalls], observer=seen)
    async with stream:
        stream.run_tools()
        await stream.until_done()
        await anyio.wait_all_tasks_blocked()
        await stream.close()
    ended = seen.only(ToolEnded)
    assert ended.result is None
    assert isinstance(ended.error, anyio.get_cancelled_exc_class())

    seen = Everything()
    stream = chat_stream_from(calling("fail"), tools=[fail], observer=seen)
    with pytest.raises(ExceptionGroup):
        async with stream:
            stream.run_tools(on_error="raise")
            await stream.until_done()
            await anyio.sleep_forever()
    assert isinstance(seen.only(ToolEnded).error, LookupError)


async def test_a_call_that_was_cut_off_is_not_run_and_not_told_of() -> None:
    half = {"index": 0, "id": "c", "function": {"name": "double", "arguments": '{"num'}}
    seen = Everything()
    source = Body(chunk(tool_calls=[half]), chunk(None, "length"), DONE)
    async with chat_stream_from(source, observer=seen) as stream:
        (result,) = await stream.run_tools([double]).results()
    assert result.error is not None
    assert not {ToolStarted, ToolEnded} & {*seen.kinds()}


def conversation_with(seen: Any, client: httpx.AsyncClient, **arguments: Any) -> Any:
    return open_conversation(
        client=client, api_key="key", tools=[double, fail], observer=seen, **QUESTION, **arguments
    )


async def test_a_conversation_is_told_of_around_its_rounds() -> None:
    seen = Everything()
    async with client_for(calling("double"), Body(*WHOLE)) as client:
        async with conversation_with(seen, client) as conversation:
            await conversation.until_done()
    kinds = seen.kinds()
    assert kinds[0] is ConversationStarted
    assert kinds[-1] is ConversationEnded
    assert kinds.count(StreamEnded) == kinds.count(RequestPrepared) == 2
    assert kinds.count(ToolStarted) == kinds.count(ToolEnded) == 1
    assert seen.told[0].conversation is seen.told[-1].conversation is conversation
    assert seen.told[-1].outcome == "complete"
    assert len(conversation.timings) == 2


async def _leave(conversation: Any) -> None:
    async with conversation:
        await anext(aiter(conversation))


async def _cancel(conversation: Any) -> None:
    with anyio.CancelScope() as scope:
        async with conversation:
            await anext(aiter(conversation))
            scope.cancel()
            await anyio.sleep_forever()


async def _use_up(conversation: Any) -> None:
    with pytest.raises(Exception, match=r"max_rounds|ended before"):
        async with conversation:
            await conversation.until_done()


@pytest.mark.parametrize(
    ("use", "outcome", "bodies"),
    [
        (_leave, "closed", (Body(chunk("Hel"), STALL),)),
        (_cancel, "cancelled", (Body(chunk("Hel"), STALL),)),
        (_use_up, "failed", (calling("double"), calling("fail"))),
        (_use_up, "truncated", (calling("double"), Body(chunk("Hel")))),
    ],
)
async def test_how_conversations_end(
    use: Callable[[Any], Any], outcome: str, bodies: tuple[Body, ...]
) -> None:
    seen = Everything()
    async with client_for(*bodies) as client:
        await use(conversation_with(seen, client, max_rounds=2))
    assert seen.told[-1].outcome == outcome
    assert seen.kinds().count(ConversationEnded) == 1
