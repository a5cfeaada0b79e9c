"""``with ChatServer(...)``: the same server in a thread, beside any event loop or none."""

import asyncio
import gc
import socket
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import httpx
import pytest
import trio

from anyio_writer import APIError, open_chat_stream
from anyio_writer.testing import (
    ChatServer,
    Hold,
    RecordedRequest,
    Reply,
    Stall,
    ThreadsafeEvent,
    chunks_reply,
    text_reply,
    writer_chunks,
)

HANGS = 10  # seconds; a net under a hang, not an assertion
PROMPT = 2  # seconds; a shutdown that waits for anything takes longer, or for ever


class ScriptError(Exception):
    """Raised by a reply."""


class BodyError(Exception):
    """Raised by the body of the ``with``."""


def post(server: ChatServer) -> httpx.Response:
    return httpx.post(server.url, json={}, trust_env=False, timeout=HANGS)


async def answer_of(server: ChatServer) -> str:
    async with open_chat_stream(
        model="m", messages=[{"role": "user", "content": "Hi"}], api_key="k", base_url=server.url
    ) as stream:
        return await stream.get_final_text()


def on_asyncio(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main(), debug=True)


RUNNERS: list[Callable[[Callable[[], Awaitable[None]]], None]] = [on_asyncio, trio.run]


def test_without_an_event_loop() -> None:
    with ChatServer(text_reply("Hello")) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert "Hello" in post(server).text
    assert [request.method for request in server.requests] == ["POST"]


@pytest.mark.parametrize("run", RUNNERS)
def test_an_event_loop_inside(run: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
    with ChatServer(text_reply("Hello there")) as server:

        async def work() -> None:
            assert await answer_of(server) == "Hello there"

        run(work)
        run(work)  # a second event loop, as with one for each test


@pytest.mark.parametrize("run", RUNNERS)
def test_inside_an_event_loop(run: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
    """As in a notebook, where one runs all the time."""

    async def work() -> None:
        with ChatServer(text_reply("Hello there")) as server:
            assert await answer_of(server) == "Hello there"

    run(work)


def test_leaving_is_prompt_and_leaves_nothing() -> None:
    threads = set(threading.enumerate())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ChatServer(chunks_reply([writer_chunks("Hello")[0], Stall()])) as server:
            port = httpx.URL(server.url).port or 0
            idle = socket.create_connection(("127.0.0.1", port))
            asking = socket.create_connection(("127.0.0.1", port))
            asking.sendall(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n")
            anyio.run(server.wait_request)
            began = time.perf_counter()
        assert time.perf_counter() - began < PROMPT
        assert set(threading.enumerate()) == threads
        assert [connection.closed for connection in server.connections] == [True, True]
        for peer in (idle, asking):
            peer.settimeout(HANGS)
            while peer.recv(65_536):  # to its end
                pass
            peer.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        gc.collect()


def test_what_goes_wrong_at_the_start_is_raised_there() -> None:
    threads = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="in use"):
            with ChatServer(port=taken.getsockname()[1]):
                pytest.fail("the port is taken")
    assert set(threading.enumerate()) == threads


def test_what_the_body_raises_comes_out_as_it_is() -> None:
    error = BodyError()
    with pytest.raises(BodyError) as caught:
        with ChatServer():
            raise error
    assert caught.value is error
    assert caught.value.__context__ is None


def broken(_: RecordedRequest) -> Reply:
    raise ScriptError


def test_what_the_script_raises_comes_out_at_the_end() -> None:
    with pytest.raises(ScriptError) as caught:
        with ChatServer(broken) as server:
            with pytest.raises(httpx.TransportError):
                post(server)
            with pytest.raises(RuntimeError, match="ended before request 1 arrived"):
                anyio.run(server.wait_request, 1)
    assert caught.value.__context__ is None


def test_the_cause_replaces_what_it_led_to() -> None:
    with pytest.raises(ScriptError) as caught:
        with ChatServer(broken) as server:
            post(server)
    assert isinstance(caught.value.__context__, httpx.TransportError)


@pytest.mark.parametrize("again", ["with", "async with"])
def test_it_is_entered_once(again: str) -> None:
    async def enter() -> None:
        async with server:
            pytest.fail("it was entered twice")

    with ChatServer() as server:
        pass
    with pytest.raises(RuntimeError, match="only once"):
        if again == "with":
            with server:
                pytest.fail("it was entered twice")
        else:
            anyio.run(enter)


async def test_tasks_wait_for_what_happens_in_the_thread() -> None:
    go_on = ThreadsafeEvent()
    opening, *others = writer_chunks("Hello")
    seen: list[str] = []

    async def ask(server: ChatServer) -> None:
        with pytest.raises(APIError):
            await answer_of(server)
        seen.append("broken off")

    async def watch(server: ChatServer) -> None:
        await server.wait_disconnect(1)
        seen.append("disconnected")

    with (
        anyio.fail_after(HANGS),
        ChatServer(chunks_reply([opening, Hold(go_on), *others])) as server,
    ):
        async with anyio.create_task_group() as tg:
            tg.start_soon(answer_of, server)
            request = await server.wait_request()
            assert not request.answered
            assert not go_on.is_set()
            go_on.set()
            go_on.set()
        assert (await server.wait_disconnect()).answered
        server.add(Reply(reset_after=0))
        async with anyio.create_task_group() as tg:
            tg.start_soon(watch, server)
            await anyio.wait_all_tasks_blocked()
            tg.start_soon(ask, server)
            await server.wait_request(1)
            tg.cancel_scope.shield = True
    assert "disconnected" in seen


async def test_an_event_of_threads_in_one_thread() -> None:
    event, got = ThreadsafeEvent(), list[str]()

    async def wait(name: str) -> None:
        await event.wait()
        got.append(name)

    async with anyio.create_task_group() as tg:
        tg.start_soon(wait, "first")
        await anyio.wait_all_tasks_blocked()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await event.wait()
        event.set()
        await event.wait()
        tg.start_soon(wait, "second")
    assert got == ["first", "second"]


async def test_every_wait_is_a_cancellation_point() -> None:
    event = ThreadsafeEvent()
    event.set()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await event.wait()
        pytest.fail("it was not cancelled")
    assert scope.cancelled_caught


async def test_a_waiter_whose_event_loop_has_ended_stops_nobody() -> None:
    event = ThreadsafeEvent()

    async def abandon() -> None:
        waiting = event.wait()
        waiting.send(None)  # waits in an event loop that then ends
        left.append(waiting)

    left: list[Coroutine[Any, Any, None]] = []
    thread = threading.Thread(target=lambda: asyncio.run(abandon()))
    thread.start()
    thread.join()
    event.set()
    left[0].close()
