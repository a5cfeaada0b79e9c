"""When an answer is complete, and what else it can be."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from anyio_writer import (
    APIConnectionError,
    APIResponseValidationError,
    APIStreamError,
    AsyncWriter,
    ConfigurationError,
    IdleTimeoutError,
    Limits,
    ResponseTooLargeError,
    StreamClosedError,
    StreamTruncatedError,
    Timeouts,
    chat_stream_from,
    open_chat_stream,
)
from anyio_writer.testing import (
    ChatServer,
    Raw,
    Reply,
    Reset,
    Stall,
    error_frame,
    sse_event,
    text_reply,
    tool_call_chunks,
    tool_call_reply,
    writer_chunks,
)
from tests.plugins.thoroughness import sampled
from tests.streaming.helpers import DONE, REQUEST, STALL, USAGE, Body, chunk, client_for


async def read(*script: Any, **settings: Any) -> str:
    async with chat_stream_from(Body(*script), **settings) as stream:
        return await stream.get_final_text()


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([chunk("a", "stop")], id="finish reason"),
        pytest.param([chunk("a"), chunk(None, "stop")], id="finish reason of its own"),
        pytest.param([chunk("a"), DONE], id="DONE without a finish reason"),
        pytest.param([chunk("a"), chunk("", "stop"), chunk("", "stop")], id="twice"),
        pytest.param([chunk("a"), chunk(None, "stop")[:-2]], id="no blank line"),
        pytest.param([chunk("a"), DONE[:-2]], id="DONE without its blank line"),
        pytest.param([chunk("a"), DONE.rstrip().replace(b" ", b"")], id="DONE without a space"),
        pytest.param([chunk("a", "eos_token")], id="unknown reason"),
        pytest.param([chunk("a", "stop"), STALL], id="a server that never closes"),
        pytest.param([chunk("a", "stop"), httpx.ReadError("reset")], id="broken behind it"),
        pytest.param([chunk("a", "stop"), USAGE[:20]], id="cut in the usage"),
        pytest.param([chunk("a"), DONE, chunk("b")], id="chunks behind DONE"),
        pytest.param([chunk("a"), DONE, STALL], id="DONE and then silence"),
        pytest.param([chunk("a"), DONE, httpx.ReadError("reset")], id="DONE and then broken"),
    ],
)
async def test_complete(script: list[Any]) -> None:
    with anyio.fail_after(5):
        assert await read(*script, end_grace=0.01) == "a"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([], id="nothing"),
        pytest.param([DONE], id="only DONE"),
        pytest.param([b": ping\n\n"], id="only comments"),
        pytest.param([USAGE], id="only usage"),
        pytest.param([chunk("a")], id="no finish reason"),
        pytest.param([chunk("a", "")], id="empty finish reason"),
        pytest.param([chunk("a", "null")], id="the string null"),
        pytest.param([chunk("a"), chunk(None, "stop")[:-5]], id="cut in the last chunk"),
        pytest.param([b'data: {"cho'], id="cut in the first chunk"),
        pytest.param([b"da"], id="cut in the first word"),
        pytest.param([chunk("a"), DONE[:-4]], id="cut in DONE"),
        pytest.param(
            [
                chunk("a"),
                httpx.RemoteProtocolError(
                    "peer closed connection without sending complete message body"
                ),
            ],
            id="framing not whole",
        ),
    ],
)
async def test_truncated(script: list[Any]) -> None:
    with pytest.raises(StreamTruncatedError) as caught:
        await read(*script)
    if script and script[0] == chunk("a"):
        assert caught.value.completion is not None
        assert caught.value.completion.choices[0].message.content == "a"
        assert "1 characters" in str(caught.value)
    if script and isinstance(script[-1], Exception):
        assert caught.value.__cause__ is script[-1]


async def test_all_choices_must_finish() -> None:
    script = [chunk("a", "stop"), chunk("b", index=1)]
    with pytest.raises(StreamTruncatedError, match="choice 1"):
        await read(*script)
    with pytest.raises(StreamTruncatedError, match="only 1 of 2"):
        await read(script[0], n=2)
    assert await read(*script, chunk(None, "stop", index=1), n=2) == "a"


async def test_the_way_out_for_servers_that_never_finish() -> None:
    assert await read(chunk("a"), require_finish=False) == "a"
    with pytest.raises(StreamTruncatedError):
        await read(b": ping\n\n", require_finish=False)


async def test_a_reset_is_a_connection_error_with_what_had_arrived() -> None:
    cause = httpx.ReadError("reset by peer")
    with pytest.raises(APIConnectionError, match="reset by peer") as caught:
        await read(chunk("a"), cause)
    assert type(caught.value) is APIConnectionError
    assert caught.value.__cause__ is cause
    assert caught.value.completion is not None
    assert caught.value.completion.choices[0].message.content == "a"


@pytest.mark.parametrize("behind", [(), (httpx.ReadError("reset"),)], ids=["end", "reset"])
async def test_the_events_of_a_whole_last_block_come_before_the_error(behind: Any) -> None:
    got: list[str] = []
    with pytest.raises(APIConnectionError) as caught:
        async with chat_stream_from(Body(chunk("a"), chunk("b").rstrip(), *behind)) as stream:
            async for text in stream.text_deltas():
                got.append(text)
    assert got == ["a", "b"]
    assert caught.value.completion is not None
    assert caught.value.completion.choices[0].message.content == "ab"


async def test_a_whole_last_block_counts_when_the_connection_breaks_behind_it() -> None:
    assert await read(chunk("a", "stop")[:-2], httpx.ReadError("reset")) == "a"


STREAMS = {
    "text": [sse_event(c) for c in writer_chunks("Héllo wörld 👋", usage=True)],
    "two choices": [sse_event(c) for c in writer_chunks(["Hi", "Ho"])],
    "tools": [
        sse_event(c)
        for c in tool_call_chunks([("a", '{"x": 1}'), ("b", "{}"), ("c", '{"y": "z"}')], pieces=2)
    ],
}
FINISHES = {"text": 1, "two choices": 2, "tools": 1}


@pytest.mark.parametrize("ending", ["eof", "cut"])
@pytest.mark.parametrize("name", STREAMS)
async def test_cut_at_every_byte(name: str, ending: str) -> None:
    """A cut stream is either a complete answer or an error, and never anything else."""
    wire = b"".join(STREAMS[name])
    async with chat_stream_from(Body(wire), n=FINISHES[name]) as stream:
        whole = await stream.get_final_completion()
    # The answer is complete with the last byte of the JSON that holds the last finish reason.
    enough = wire.rindex(b'"finish_reason":"')
    enough = wire.index(b"\n\n", enough)
    broken = httpx.RemoteProtocolError(
        "peer closed connection without sending complete message body"
    )
    for cut in sampled(range(len(wire))):
        script: list[Any] = [wire[:cut]] if ending == "eof" else [wire[:cut], broken]
        async with chat_stream_from(Body(*script), n=FINISHES[name]) as stream:
            if cut >= enough:
                completion = await stream.get_final_completion()
                assert completion.choices == whole.choices
                continue
            with pytest.raises(StreamTruncatedError) as caught:
                await stream.get_final_completion()
            had = caught.value.completion
            if had is not None:
                for choice, all_of_it in zip(had.choices, whole.choices, strict=False):
                    assert (all_of_it.message.content or "").startswith(
                        choice.message.content or ""
                    )


async def test_the_same_over_http() -> None:
    wire = b"".join(STREAMS["text"])
    finish = wire.index(b"\n\n", wire.rindex(b'"finish_reason":"'))
    cuts = [*range(0, len(wire), 331), finish - 1, finish, len(wire)]
    replies = [Reply(body=[wire], cut_after=cut) for cut in cuts]
    with anyio.fail_after(60):
        async with (
            ChatServer(*replies) as server,
            AsyncWriter(api_key="key", base_url=server.url) as writer,
        ):
            for cut in cuts:
                async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
                    try:
                        await stream.until_done()
                    except StreamTruncatedError as exc:
                        assert cut < finish
                        assert exc.__cause__ is not None
                        assert exc.request_id is not None
                        assert exc.status_code == 200
                    else:
                        assert cut >= finish


@pytest.mark.parametrize("kind", ["writer", "openai", "string", "object", "field", "event"])
async def test_errors_inside_the_stream(kind: Any) -> None:
    script = [chunk("so far"), error_frame(kind, "the model has failed")]
    with pytest.raises(APIStreamError, match="the model has failed") as caught:
        await read(*script, DONE)
    assert caught.value.completion is not None
    assert caught.value.completion.choices[0].message.content == "so far"
    assert caught.value.body


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"error": {"message": "no such model"}}', "It says: no such model"),
        (b'\n\n{"error": "Unexpected endpoint"}', "It says: Unexpected endpoint"),
        (b"<html><body>Bad gateway</body></html>", "Bad gateway"),
        (b"upstream connect error or disconnect", "upstream connect error"),
        (b"\xff\xfe\x00garbage", "garbage"),
        (b"Unauthorized", "Unauthorized"),
        (b'{"id": "1", "choices": []}' * 9000, "choices"),
    ],
)
@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_body_that_is_no_event_stream(body: bytes, says: str, pieces: int) -> None:
    size = len(body) // pieces + 1
    script = [body[start : start + size] for start in range(0, len(body), size)]
    with pytest.raises(APIStreamError, match="not an event stream") as caught:
        await read(*script)
    assert says in str(caught.value)
    assert caught.value.body


async def test_a_body_that_is_no_event_stream_is_read_within_bounds() -> None:
    body = Body(b'{"error": ', STALL)
    with anyio.fail_after(5), pytest.raises(APIStreamError, match="not an event stream"):
        async with chat_stream_from(body, limits=Limits(error_body_time=0.01)) as stream:
            await stream.until_done()


@pytest.mark.parametrize(
    "payload",
    [b"nonsense", b"[1]", b"5", b'{"choices": 5}', b'{"choices":[{"delta":{"content":1}}]}'],
)
async def test_what_cannot_be_understood(payload: bytes) -> None:
    events = []
    async with chat_stream_from(Body(chunk("a") + b"data: " + payload + b"\n\n")) as stream:
        with pytest.raises(APIResponseValidationError) as caught:
            async for event in stream:
                events.append(event.type)
    assert events == ["chunk", "content.delta"]  # the good ones first
    assert caught.value.completion is not None
    assert caught.value.completion.choices[0].message.content == "a"
    assert payload.decode() in str(caught.value.body)


async def test_limits_are_errors_and_not_memory() -> None:
    limits = Limits(max_event_bytes=1000, max_depth=20)
    for script in (
        [chunk("a"), b"data: " + b"x" * 1000],
        [chunk("a"), *[b"data: " + b"x" * 90 + b"\n"] * 12],
        [chunk("a") + b"data: " + b"x" * 1001 + b"\n\n", STALL],
    ):
        with pytest.raises(ResponseTooLargeError, match="1000 bytes") as caught:
            await read(*script, limits=limits)
        assert caught.value.completion is not None
    deep = b'data: {"choices":[],"x":' + b"[" * 30 + b"]" * 30 + b"}\n\n"
    with pytest.raises(APIResponseValidationError, match="20 levels"):
        await read(chunk("a"), deep, limits=limits)


@pytest.mark.parametrize("behind", [b"data: %b\n\n", b"data: %b"], ids=["event", "line"])
@pytest.mark.parametrize("pieces", [1, 200])
async def test_what_is_too_long_behind_the_end_spoils_nothing(pieces: int, behind: bytes) -> None:
    """Nothing behind [DONE] counts, also when it comes in the same piece of the body."""
    limits = Limits(max_event_bytes=1000)
    body = chunk("a") * pieces + chunk(None, "stop") + DONE + behind % (b"x" * 1001)
    assert await read(body, limits=limits) == "a" * pieces


async def test_what_a_source_raises_is_mapped() -> None:
    with pytest.raises(APIConnectionError, match="ValueError") as caught:
        await read(chunk("a"), ValueError("boo"))
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(APIConnectionError, match="str, not bytes"):
        await read("text")
    with pytest.raises(APIConnectionError, match="OSError"):
        await read(chunk("a"), OSError("disk"))


async def test_keep_alives_and_foreign_events_are_skipped() -> None:
    script = [
        b": OPENROUTER PROCESSING\n\n",
        b"data:\n\n",
        b"data: : keepalive\n\n",
        b'event: ping\ndata: {"type": "ping"}\n\n',
        b"event: ping\ndata: nonsense\n\n",
        b"id: 7\nretry: 10\n\n",
        b"event: chunk\n" + chunk("a"),
        b"event: message\n" + chunk("b", "stop"),
    ]
    assert await read(*script) == "ab"


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("delay", [0.0, 0.005])
async def test_ten_streams_share_one_connection(done: bool, delay: float) -> None:
    reply = text_reply("Hello there", done=done, terminator_delay=delay)
    async with (
        ChatServer(reply) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
    ):
        for turn in range(10):
            async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
                if turn % 2:
                    assert await stream.get_final_text() == "Hello there"
                else:
                    async for _ in stream:
                        pass
        assert len(server.connections) == 1
        assert server.connections[0].requests == 10


async def test_leaving_behind_the_last_finish_reason_saves_the_connection() -> None:
    reply = text_reply("Hello there", terminator_delay=0.005)
    async with (
        ChatServer(reply) as server,
        AsyncWriter(api_key="key", base_url=server.url) as writer,
    ):
        for _ in range(3):
            async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
                async for event in stream:
                    if event.type == "content.done":
                        break
            assert await stream.get_final_text() == "Hello there"
        assert len(server.connections) == 1


@pytest.mark.parametrize("done", [False, True])
async def test_a_server_that_never_ends_does_not_hold_the_exit_up(done: bool) -> None:
    reply = text_reply("Hello there", done=done, never_end=True)
    async with ChatServer(reply) as server:
        with anyio.fail_after(5):
            async with open_chat_stream(
                **REQUEST, base_url=server.url, end_grace=0.05, limits=Limits(drain_time=0.05)
            ) as stream:
                assert await stream.get_final_text() == "Hello there"
            await server.wait_disconnect()


async def test_the_drain_is_bounded_in_bytes() -> None:
    async def endless() -> Any:
        yield chunk("a") + DONE
        while True:
            await anyio.lowlevel.checkpoint()
            yield b":" + b"x" * 999 + b"\n"

    with anyio.fail_after(5):
        async with chat_stream_from(endless(), limits=Limits(drain_time=100)) as stream:
            assert await stream.get_final_text() == "a"


async def test_resets_and_garbage_over_http() -> None:
    first = sse_event(writer_chunks("Hello")[1])
    replies = [
        Reply(body=[first, Reset()]),
        Reply(body=[first, Raw(b"zz\r\nnonsense")]),
        Reply(body=[Reset()], framing="none"),
        tool_call_reply([("f", "{}")]),
    ]
    async with (
        ChatServer(*replies) as server,
        AsyncWriter(api_key="key", base_url=server.url, max_retries=0) as writer,
    ):
        for number in range(2):
            async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
                with pytest.raises(APIConnectionError) as caught:
                    await stream.until_done()
                assert not isinstance(caught.value, StreamTruncatedError), number
                assert caught.value.__cause__ is not None
                assert caught.value.completion is not None
        with pytest.raises(APIConnectionError):
            async with writer.chat.stream(model="m", messages=REQUEST["messages"]):
                pytest.fail("the block must not run")
        async with writer.chat.stream(model="m", messages=REQUEST["messages"]) as stream:
            completion = await stream.get_final_completion()
        assert completion.choices[0].message.tool_calls


async def test_close_from_another_task_wakes_the_reader() -> None:
    outcome: list[Exception] = []

    async def read_all(stream: Any) -> None:
        try:
            async for _ in stream:
                pass
        except StreamClosedError as exc:
            outcome.append(exc)

    body = Body(chunk("a"), STALL)
    async with chat_stream_from(body) as stream, anyio.create_task_group() as tasks:
        tasks.start_soon(read_all, stream)
        await anyio.wait_all_tasks_blocked()
        await stream.close()
        await stream.close()
        with pytest.raises(StreamClosedError):
            await stream.until_done()
    assert len(outcome) == 1


async def test_close_after_the_end_changes_nothing() -> None:
    async with chat_stream_from(Body(chunk("a", "stop"))) as stream:
        await stream.until_done()
        await stream.close()
        assert await stream.get_final_text() == "a"


async def test_closing_before_reading() -> None:
    body = Body(chunk("a", "stop"))
    async with client_for(body) as client, open_chat_stream(**REQUEST, client=client) as stream:
        await stream.close()
        assert body.closed
        assert body.reads == 0
        with pytest.raises(StreamClosedError):
            await stream.get_final_completion()


async def test_an_error_nobody_was_told_of_comes_out_of_the_block() -> None:
    gate = anyio.Event()
    body = Body(chunk("a"), gate)
    with pytest.raises(StreamTruncatedError):
        async with chat_stream_from(body) as stream:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(stream.until_done)
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()
            gate.set()
            await anyio.wait_all_tasks_blocked()


async def test_an_error_left_unread_by_choice_stays_inside() -> None:
    async with chat_stream_from(Body(chunk("a"), b"data: nonsense\n\n")) as stream:
        async for _ in stream:
            break
        await anyio.wait_all_tasks_blocked()


async def test_stalling_over_http_is_ended_by_leaving() -> None:
    reply = Reply(body=[sse_event(writer_chunks("Hello")[1]), Stall()])
    async with ChatServer(reply) as server:
        async with open_chat_stream(**REQUEST, base_url=server.url) as stream:
            async for event in stream:
                if event.type == "content.delta":
                    break
        with anyio.fail_after(5):
            await server.wait_disconnect()
    with pytest.raises(StreamClosedError):
        await stream.get_final_completion()


async def test_a_reset_is_no_end_for_servers_that_never_finish() -> None:
    with pytest.raises(APIConnectionError, match="reset"):
        await read(chunk("a"), httpx.ReadError("reset"), require_finish=False)


async def test_a_wrong_setting_of_a_recording_is_named() -> None:
    with pytest.raises(ConfigurationError, match="tiemouts"):
        chat_stream_from(Body(), tiemouts=1)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="asynchronous iterable"):
        chat_stream_from([b"data: x"])  # type: ignore[arg-type]


CALL = {"index": 0, "id": "i", "function": {"name": "f"}}
LATE_CALL = (chunk("x"), chunk(tool_calls=[CALL]), chunk(None, "stop"), STALL)
"""Ends with a call whose arguments may still come, as long as the response goes on."""
BEFORE_THE_END = [
    *("chunk", "content.delta", "chunk", "tool_calls.function.arguments.delta"),
    *("chunk", "content.done"),
]


async def test_what_is_done_last_is_done_also_when_the_response_never_ends() -> None:
    async with chat_stream_from(Body(*LATE_CALL), end_grace=0.01) as stream:
        types = [event.type async for event in stream]
    assert types == [*BEFORE_THE_END, "tool_calls.function.arguments.done"]


async def test_content_after_a_finish_reason_makes_the_idle_limit_run_again() -> None:
    body = Body(chunk(None, "stop"), chunk("late"), STALL)
    async with chat_stream_from(body, end_grace=0.001, timeouts=Timeouts(idle=0.05)) as stream:
        with pytest.raises(IdleTimeoutError) as info:
            await stream.until_done()
    assert info.value.completion is not None
    assert info.value.completion.choices[0].message.content == "late"


async def test_a_consumer_without_room_for_the_last_events_is_told() -> None:
    async with chat_stream_from(Body(*LATE_CALL), end_grace=0.01) as stream:
        slow = stream.subscribe(max_buffer=6)  # has room for all but the done event
        with pytest.raises(StreamClosedError):
            await stream.until_done()
        got = []
        with pytest.raises(StreamClosedError):
            async for event in slow:
                got.append(event.type)
    assert got == BEFORE_THE_END


async def test_a_lossy_consumer_with_room_for_the_last_events_gets_them() -> None:
    async with chat_stream_from(Body(*LATE_CALL), end_grace=0.01) as stream:
        lossy = stream.subscribe(max_buffer=16, on_full="drop_oldest")  # more than one part of it
        await stream.until_done()
        got = [event.type async for event in lossy]
    assert got == [*BEFORE_THE_END, "tool_calls.function.arguments.done"]
