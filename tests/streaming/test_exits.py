"""Every way out of a stream leaves nothing behind, and lets the body's exception out as it is."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_writer import (
    APIConnectionError,
    APIResponseValidationError,
    APIStreamError,
    AsyncWriter,
    BadRequestError,
    ChatCompletionStream,
    InternalServerError,
    InvalidParameterError,
    Limits,
    StreamClosedError,
    StreamTruncatedError,
    Timeouts,
    WriterError,
    chat_stream_from,
    open_chat_stream,
)
from anyio_writer.testing import (
    ChatServer,
    Hold,
    Reply,
    Stall,
    chunks_reply,
    error_reply,
    sse_event,
    text_reply,
    writer_chunks,
)
from tests.lifetimes.lifetime_helpers import busy_slots, clients_of
from tests.streaming.helpers import QUESTION, REQUEST, STALL, Body, chunk, client_for

FIRST = sse_event(writer_chunks("Hello there")[1])


class Boom(Exception):
    """What the body raises."""


async def end(stream: ChatCompletionStream[Any], server: ChatServer) -> None:
    async for _ in stream:
        pass


async def break_out(stream: ChatCompletionStream[Any], server: ChatServer) -> None:
    async for _ in stream:
        break


async def not_read(stream: ChatCompletionStream[Any], server: ChatServer) -> None:
    pass


async def close(stream: ChatCompletionStream[Any], server: ChatServer) -> None:
    await anext(stream)
    await stream.close()


async def fail(stream: ChatCompletionStream[Any], server: ChatServer) -> None:
    await anext(stream)
    raise Boom


async def fail_unread(stream: ChatCompletionStream[Any], server: ChatServer) -> None:
    raise Boom


async def cancel_waiting(stream: ChatCompletionStream[Any], server: ChatServer) -> None:
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_drain, stream)
            await wait_all_tasks_blocked()
            scope.cancel()


async def _drain(stream: ChatCompletionStream[Any]) -> None:
    async for _ in stream:
        pass


async def read_to_the_error(stream: ChatCompletionStream[Any], server: ChatServer) -> None:
    await stream.get_final_completion()


def whole() -> Any:
    return text_reply("Hello there")


def stalled() -> Any:
    return Reply(body=[FIRST * 3, Stall()])


EXITS: list[tuple[str, Callable[[], Any], Any, type[Exception] | None]] = [
    ("end", whole, end, None),
    ("break", stalled, break_out, None),
    ("break with all there", whole, break_out, None),
    ("not read", stalled, not_read, None),
    ("closed", stalled, close, None),
    ("body raises", stalled, fail, Boom),
    ("body raises, unread", stalled, fail_unread, Boom),
    ("body raises, all there", whole, fail, Boom),
    ("cancelled while waiting", stalled, cancel_waiting, None),
    ("400", lambda: error_reply(400), end, BadRequestError),
    ("500", lambda: error_reply(500), end, InternalServerError),
    ("not a stream", lambda: Reply(body=[b"<html>", Stall()]), read_to_the_error, APIStreamError),
    (
        "garbage",
        lambda: chunks_reply(["nonsense"], never_end=True),
        read_to_the_error,
        APIResponseValidationError,
    ),
    ("cut", lambda: Reply(body=[FIRST], cut_after=10), read_to_the_error, StreamTruncatedError),
]


@pytest.mark.parametrize("module", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize(
    ("reply", "body", "error"), [e[1:] for e in EXITS], ids=[e[0] for e in EXITS]
)
async def test_nothing_is_left(reply: Any, body: Any, error: Any, module: Any) -> None:
    limits = Limits(error_body_time=0.05)
    async with ChatServer(reply(), whole()) as server, module.AsyncClient() as client:
        with anyio.fail_after(10):
            try:
                async with open_chat_stream(
                    **REQUEST, base_url=server.url, client=client, max_retries=0, limits=limits
                ) as stream:
                    await body(stream, server)
            except Exception as exc:
                assert error is not None
                assert type(exc) is error
            else:
                assert error is None
            assert not busy_slots(client)
            gc.collect()
            # The next request on the same client works, and the pool still has all its slots.
            async with open_chat_stream(**REQUEST, base_url=server.url, client=client) as stream:
                assert await stream.get_final_text() == "Hello there"
        assert not busy_slots(client)


async def test_what_the_body_raises_comes_out_as_the_same_object() -> None:
    boom = Boom()
    cause = KeyError()
    for error in (boom, BaseExceptionGroup("mine", [Boom()]), StreamTruncatedError("theirs")):
        with pytest.raises(type(error)) as caught:
            async with chat_stream_from(Body(chunk("a"), STALL)) as stream:
                await anext(stream)
                raise error from cause
        assert caught.value is error
        assert error.__cause__ is cause
        assert error.__context__ is None
        names = [entry.name for entry in caught.traceback]
        assert names[:1] == ["test_what_the_body_raises_comes_out_as_the_same_object"]
        assert len(names) == 1


async def test_the_body_s_exception_wins_over_the_stream_s() -> None:
    with pytest.raises(Boom) as caught:
        async with chat_stream_from(Body(chunk("a"), b"data: nonsense\n\n")) as stream:
            async for event in stream:
                if event.type == "content.delta":
                    break
            await wait_all_tasks_blocked()  # by now the stream has failed
            raise Boom
    assert caught.value.__context__ is None


async def test_who_left_a_subscription_is_not_told_how_the_stream_failed() -> None:
    gate = anyio.Event()
    async with chat_stream_from(Body(chunk("a"), gate, Boom())) as stream:
        async with stream.subscribe() as events:
            await anext(events)
        gate.set()
        await wait_all_tasks_blocked()
    with pytest.raises(APIConnectionError):
        await stream.until_done()


async def test_an_error_that_was_read_keeps_its_context_clean() -> None:
    with pytest.raises(StreamTruncatedError) as caught:
        async with chat_stream_from(Body(chunk("a"))) as stream:
            await stream.until_done()
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("where", ["connecting", "headers", "first byte", "mid body", "buffered"])
async def test_cancelling_anywhere(where: str) -> None:
    """The opener is cancelled at each point; the server sees it leave; the client goes on."""
    never = anyio.Event()
    replies = {
        "connecting": Reply(body=[FIRST]),
        "headers": Reply(headers_hold=never),
        "first byte": Reply(body=[Stall()]),
        "mid body": Reply(body=[FIRST, Stall()]),
        "buffered": Reply(body=[FIRST * 2000, Stall()]),
    }
    reading = anyio.Event()

    async def run(scope: anyio.CancelScope, writer: AsyncWriter) -> None:
        with scope:
            async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
                async for event in stream:
                    if event.type == "content.delta":
                        reading.set()
                        if where == "buffered":
                            await anyio.sleep_forever()

    async with (
        ChatServer(replies[where], text_reply("Hello there")) as server,
        AsyncWriter(api_key="key", base_url=server.url, max_connections=1) as writer,
    ):
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                scope = anyio.CancelScope()
                tasks.start_soon(run, scope, writer)
                if where == "connecting":
                    await anyio.lowlevel.checkpoint()
                else:
                    await server.wait_request()
                    if where in ("mid body", "buffered"):
                        await reading.wait()
                    await wait_all_tasks_blocked()
                scope.cancel()
            assert scope.cancelled_caught
            if where != "connecting":
                await server.wait_disconnect()
            server.add(text_reply("Hello there"))
            async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
                # the first reply may not have been used up
                try:
                    await stream.until_done()
                except StreamTruncatedError:
                    assert where == "connecting"
            assert not clients_of(writer).is_used
            assert not busy_slots(*clients_of(writer).all)


async def test_a_hanging_close_does_not_hold_the_exit_up() -> None:
    body = Body(chunk("a"), STALL)
    body.close_hangs = True
    with anyio.fail_after(5):
        async with (
            client_for(body) as client,
            open_chat_stream(**REQUEST, client=client, limits=Limits(cleanup_time=0.02)) as stream,
        ):
            await anext(stream)


@pytest.mark.parametrize("how", ["leave", "close"])
async def test_a_body_is_read_by_its_stream_alone(how: str) -> None:
    """Who else tries is told so, and neither the block nor its connection suffers."""
    raised: list[Exception] = []

    async def read(response: Any) -> None:
        try:
            await response.aread()
        except Exception as exc:
            raised.append(exc)

    replies = Reply(body=[FIRST, Stall()]), text_reply("Hello")
    async with (
        ChatServer(*replies) as server,
        AsyncWriter(api_key="key", base_url=server.url, max_connections=1) as writer,
        anyio.create_task_group() as tasks,
    ):
        with anyio.fail_after(10):
            async with writer.chat.stream(**QUESTION) as stream:
                await anext(stream)
                tasks.start_soon(read, stream.response)
                await wait_all_tasks_blocked()
                if how == "close":
                    await stream.close()
            async with writer.chat.stream(**QUESTION) as stream:
                assert await stream.get_final_text() == "Hello"
    assert [type(exc) for exc in raised] == [httpx.StreamConsumed]


async def test_a_generator_that_somebody_else_runs_is_left_to_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    got: list[bytes] = []
    go = anyio.Event()

    async def pieces() -> AsyncGenerator[bytes]:
        await go.wait()
        yield FIRST

    async def read(generator: AsyncGenerator[bytes]) -> None:
        got.append(await anext(generator))

    async with anyio.create_task_group() as tasks:
        generator = pieces()
        async with chat_stream_from(generator):
            tasks.start_soon(read, generator)
            await wait_all_tasks_blocked()
        go.set()
    assert got == [FIRST]
    assert caplog.records == []
    await generator.aclose()


async def test_a_generator_of_the_caller_s_does_not_go_on() -> None:
    made = 0

    async def pieces() -> AsyncGenerator[bytes]:
        nonlocal made
        while True:
            made += 1  # a log line, a message that is now acknowledged
            yield FIRST

    async with chat_stream_from(pieces()) as stream:
        await anext(stream)
        before = made
    assert made == before


class Clinging(httpx.AsyncByteStream):
    """A body that cannot be closed."""

    def __init__(self, error: Exception, *, is_whole: bool = False, data: bytes = FIRST) -> None:
        self._error = error
        self._is_whole = is_whole
        self._data = data

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        yield self._data
        if not self._is_whole:
            await anyio.sleep_forever()

    async def aclose(self) -> None:
        raise self._error


def clinging_client(status: int, body: Clinging) -> httpx.AsyncClient:
    answer = httpx.MockTransport(lambda _: httpx.Response(status, stream=body))
    return httpx.AsyncClient(transport=answer)


class Plain:
    """An iterator that is no generator, and never ends."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await checkpoint()
        return chunk("a")


@pytest.mark.parametrize("source", [Body(chunk("a")), Plain()], ids=["ended", "no generator"])
async def test_nothing_is_logged_about_a_source_that_needs_no_closing(
    source: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with chat_stream_from(source, require_finish=False) as stream:
        async for _ in stream:
            if isinstance(source, Plain):
                break
    assert caplog.records == []


# A connection that breaks when it is closed is nothing to warn of, and a bug is.
CLOSE_ERRORS = [
    (httpx.CloseError("gone"), logging.DEBUG),
    (OSError("gone"), logging.DEBUG),
    (Boom("gone"), logging.WARNING),
]


@pytest.mark.parametrize(("error", "level"), CLOSE_ERRORS)
@pytest.mark.parametrize("body", [end, break_out, close, not_read])
async def test_a_response_that_fails_to_close_takes_nothing_away(
    body: Any, error: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="anyio_writer")
    answer = b"".join(map(sse_event, writer_chunks("Hello")))
    clinging = Clinging(error, is_whole=body is end, data=answer)
    async with clinging_client(200, clinging) as client:
        with anyio.fail_after(10):
            async with open_chat_stream(client=client, **REQUEST) as stream:
                await body(stream, None)
    said = [each for each in caplog.records if "A response could not be closed" in each.message]
    assert [each.levelno for each in said] == [level]
    if body is end:
        assert await stream.get_final_text() == "Hello"


@pytest.mark.parametrize(("error", "level"), CLOSE_ERRORS)
async def test_a_response_that_fails_to_close_takes_no_other_error_s_place(
    error: Exception, level: int
) -> None:
    async with clinging_client(200, Clinging(error)) as client:
        with pytest.raises(KeyError, match="mine"):
            async with open_chat_stream(client=client, **REQUEST) as stream:
                await anext(stream)
                raise KeyError("mine")
    refusal = Clinging(error, is_whole=True, data=b'{"error": "no"}')
    async with clinging_client(400, refusal) as client:
        with pytest.raises(BadRequestError, match="no"):
            async with open_chat_stream(client=client, **REQUEST):
                pass


async def test_a_source_whose_clean_up_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield FIRST
        finally:
            raise Boom

    async with chat_stream_from(pieces()) as stream:
        await anext(stream)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "Boom" in caplog.text


async def test_a_response_that_fails_to_close_leaves_nobody_waiting() -> None:
    closed = anyio.Event()

    async def close(stream: ChatCompletionStream[Any]) -> None:
        with suppress(WriterError):
            await stream.close()
        closed.set()

    async with clinging_client(200, Clinging(Boom())) as client, anyio.create_task_group() as out:
        with anyio.fail_after(10):
            async with open_chat_stream(client=client, **REQUEST) as stream:
                await anext(stream)
                out.start_soon(close, stream)
                await closed.wait()


async def test_waiting_consumers_in_other_tasks_are_told_when_the_block_ends() -> None:
    outcomes: list[str] = []

    async def read(stream: ChatCompletionStream[Any]) -> None:
        try:
            async for _ in stream:
                pass
        except StreamClosedError:
            outcomes.append("closed")

    async def final(stream: ChatCompletionStream[Any]) -> None:
        with pytest.raises(StreamClosedError):
            await stream.get_final_completion()
        outcomes.append("closed")

    async with anyio.create_task_group() as tasks:
        async with chat_stream_from(Body(chunk("a"), STALL)) as stream:
            tasks.start_soon(read, stream)
            tasks.start_soon(read, stream)
            tasks.start_soon(final, stream)
            await wait_all_tasks_blocked()
    assert outcomes == ["closed"] * 3


async def test_a_failed_opening_leaves_no_task(anyio_backend_name: str) -> None:
    class Transport(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise ZeroDivisionError("a bug in somebody's transport")

    async with httpx.AsyncClient(transport=Transport()) as client:
        with pytest.raises(ZeroDivisionError, match="somebody"):
            async with open_chat_stream(**REQUEST, client=client):
                pytest.fail("the block must not run")


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("where", ["headers", "mid body"])
async def test_native_cancellation(where: str, times: int, anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        return  # only asyncio's tasks can be cancelled one by one, and repeatedly
    reply = (
        Reply(headers_hold=anyio.Event()) if where == "headers" else Reply(body=[FIRST, Stall()])
    )
    async with (
        ChatServer(reply, text_reply("Hello there")) as server,
        AsyncWriter(api_key="key", base_url=server.url, max_connections=1) as writer,
    ):

        async def run() -> None:
            async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
                await stream.until_done()

        with anyio.fail_after(10):
            task = asyncio.create_task(run())
            await server.wait_request()
            await wait_all_tasks_blocked()
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await task
            async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
                assert await stream.get_final_text() == "Hello there"
            assert not busy_slots(*clients_of(writer).all)


async def slow_to_close(closing: anyio.Event) -> AsyncGenerator[bytes]:
    """A source that says when it is being closed, and then takes its time."""
    try:
        yield FIRST
        await anyio.sleep_forever()
    finally:
        closing.set()
        with anyio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("way", ["raise", "cancel", "leave"])
async def test_native_cancellation_while_it_is_cleaned_up(
    way: str, anyio_backend_name: str
) -> None:
    """asyncio says it once: whoever swallows it leaves a task that nobody can end."""
    if anyio_backend_name != "asyncio":
        return
    closing = anyio.Event()

    async def run() -> None:
        with suppress(Boom), anyio.CancelScope() as scope:
            async with chat_stream_from(slow_to_close(closing)) as stream:
                await anext(stream)
                if way == "cancel":
                    scope.cancel()
                elif way == "raise":
                    raise Boom
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with anyio.fail_after(10):
        task = asyncio.create_task(run())
        await closing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()


async def test_a_scope_s_cancellation_while_it_is_cleaned_up_lets_the_error_out() -> None:
    closing = anyio.Event()

    async def cancel(scope: anyio.CancelScope) -> None:
        await closing.wait()
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(cancel, scope)
            with pytest.raises(Boom):
                async with chat_stream_from(slow_to_close(closing)) as stream:
                    await anext(stream)
                    raise Boom
        assert scope.cancel_called


async def test_a_retried_failure_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_wait(delay: float) -> None:
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr("anyio_writer.transport.source.anyio.sleep", no_wait)
    async with (
        ChatServer(error_reply(503), error_reply(429), text_reply("Hello there")) as server,
        AsyncWriter(api_key="key", base_url=server.url, max_connections=5) as writer,
    ):
        async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
            assert await stream.get_final_text() == "Hello there"
        assert len(server.requests) == 3
        assert len(server.connections) == 1
        assert not busy_slots(*clients_of(writer).all)


async def test_the_server_sees_an_early_exit_at_once() -> None:
    hold = anyio.Event()
    async with ChatServer(Reply(body=[FIRST, Hold(hold), FIRST])) as server:
        async with open_chat_stream(**REQUEST, base_url=server.url) as stream:
            async for event in stream:
                if event.type == "content.delta":
                    break
        with anyio.fail_after(1):
            await server.wait_disconnect()


async def test_nobody_spins_after_a_cancel(anyio_backend_name: str) -> None:
    """Whoever waits, waits: the event loop has nothing to do between two events."""
    if anyio_backend_name != "asyncio":
        return
    loop = asyncio.get_running_loop()
    if not hasattr(loop, "_run_once"):
        return  # uvloop shows no iterations
    iterations = 0
    original = loop._run_once  # type: ignore[attr-defined]

    def counted() -> None:
        nonlocal iterations
        iterations += 1
        original()

    body = Body(chunk("a"), STALL)
    body.close_hangs = True
    async with client_for(body) as client:
        with anyio.move_on_after(0.05):
            async with open_chat_stream(
                **REQUEST, client=client, limits=Limits(cleanup_time=0.2)
            ) as stream:
                loop._run_once = counted  # type: ignore[attr-defined]
                await stream.until_done()
        loop._run_once = original  # type: ignore[attr-defined]
    assert iterations < 60


async def test_a_time_limit_leaves_nothing() -> None:
    async with ChatServer(Reply(body=[Stall()])) as server, httpx.AsyncClient() as client:
        with pytest.raises(WriterError):
            async with open_chat_stream(
                **REQUEST, base_url=server.url, client=client, timeouts=Timeouts(first_content=0.3)
            ) as stream:
                await stream.until_done()
        assert not busy_slots(client)
        with anyio.fail_after(1):
            await server.wait_disconnect()


@pytest.mark.parametrize("function", [5, None, "end"])
async def test_what_cannot_be_called_is_no_task(function: Any) -> None:
    async with chat_stream_from(Body(FIRST)) as stream:
        with pytest.raises(InvalidParameterError, match=rf"not {function!r}\.$"):
            stream.start_soon(function)


async def test_a_function_that_cannot_be_awaited_is_named() -> None:
    calls: list[str] = []

    def record(what: str) -> None:
        calls.append(what)

    with pytest.raises(ExceptionGroup) as caught:
        async with chat_stream_from(Body(FIRST)) as stream:
            stream.start_soon(record, "it")  # type: ignore[arg-type]
    said = str(caught.value.exceptions[0])
    assert calls == ["it"]
    assert "record" in said
    assert "gave NoneType, which cannot be awaited" in said
