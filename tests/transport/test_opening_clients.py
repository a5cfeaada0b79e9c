"""Clients of the caller's, clients of our own, and ``AsyncWriter``, which keeps one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from anyio_writer import (
    APIConnectionError,
    AsyncWriter,
    ConfigurationError,
    ConnectTimeoutError,
    Limits,
    Timeouts,
    WriterError,
)
from anyio_writer.testing import (
    ChatServer,
    Encoding,
    Hold,
    Stall,
    chunks_reply,
    text_reply,
    writer_chunks,
)
from anyio_writer.transport.client import client_maker
from tests.transport.opening_helpers import HANGS, KEY, MESSAGES, WHOLE, mock_client, stream_to

BOTH = pytest.mark.parametrize("module", [httpx, httpx2])
ASK: dict[str, Any] = {"model": "m", "messages": MESSAGES}


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)


# The caller's.


@BOTH
async def test_the_callers_client_is_used_and_not_closed(module: Any) -> None:
    async with ChatServer(text_reply("Hi", done=True)) as server:
        client = module.AsyncClient(trust_env=False)
        for _ in range(2):
            async with stream_to(server, client=client) as stream:
                assert await stream.get_final_text() == "Hi"
                assert isinstance(stream.response, module.Response)
            assert not client.is_closed
        async with AsyncWriter(api_key=KEY, base_url=server.url, client=client) as writer:
            async with writer.chat.stream(**ASK) as stream:
                await stream.until_done()
        assert not client.is_closed
        assert (await client.post(server.url, json=ASK)).status_code == 200
        await client.aclose()
    assert len(server.requests) == 4
    assert len(server.connections) == 1


@BOTH
async def test_not_closed_either_when_something_goes_wrong(module: Any) -> None:
    async with (
        ChatServer(chunks_reply([*writer_chunks("Hi")[:2], Stall()])) as server,
        module.AsyncClient(trust_env=False) as client,
    ):
        with anyio.fail_after(HANGS):
            with pytest.raises(ZeroDivisionError):
                async with stream_to(server, client=client) as stream:
                    await anext(stream)
                    raise ZeroDivisionError
            await server.wait_disconnect(0)
        assert not client.is_closed


@BOTH
async def test_a_subclass_is_a_client_too(module: Any) -> None:
    class Mine(module.AsyncClient):  # type: ignore[misc]
        sent = 0

        async def send(self, *args: Any, **kwargs: Any) -> Any:
            self.sent += 1
            return await super().send(*args, **kwargs)

    async with ChatServer(text_reply("Hi", done=True)) as server, Mine(trust_env=False) as client:
        async with stream_to(server, client=client) as stream:
            assert await stream.get_final_text() == "Hi"
        assert client.sent == 1


@BOTH
@pytest.mark.parametrize("through_writer", [True, False])
async def test_a_closed_client_is_a_clear_error(module: Any, *, through_writer: bool) -> None:
    client = module.AsyncClient()
    await client.aclose()
    writer = AsyncWriter(api_key=KEY, client=client)
    stream = writer.chat.stream(**ASK) if through_writer else stream_to("http://x", client=client)
    with pytest.raises(WriterError, match="closed"):
        async with stream:
            raise AssertionError


@BOTH
async def test_the_clients_own_limits_do_not_end_a_stream(module: Any) -> None:
    """A model may think for longer than httpx's five seconds between two bytes."""
    async with (
        ChatServer(text_reply("Hi", headers_delay=0.05, pace=0.02)) as server,
        module.AsyncClient(timeout=0.001, trust_env=False) as client,
    ):
        async with stream_to(server, client=client, timeouts=Timeouts(connect=5)) as stream:
            assert await stream.get_final_text() == "Hi"


@BOTH
async def test_a_mock_transport_will_do(module: Any) -> None:
    def answer(request: Any) -> Any:
        return module.Response(200, content=WHOLE)

    async with module.AsyncClient(transport=module.MockTransport(answer)) as client:
        async with stream_to("http://x", client=client) as stream:
            assert await stream.get_final_text() == "Hi"


@BOTH
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_stream_is_unpacked_piece_by_piece(
    module: Any, encoding: Encoding
) -> None:
    """Asked not to, some servers compress all the same."""
    chunks = writer_chunks("Hello compressed world")
    seen = anyio.Event()
    reply = chunks_reply([*chunks[:3], Hold(seen), *chunks[3:]], encoding=encoding, done=True)
    async with ChatServer(reply) as server, module.AsyncClient(trust_env=False) as client:
        with anyio.fail_after(HANGS):
            async with stream_to(server, client=client) as stream:
                async for event in stream:
                    if event.type == "content.delta":
                        seen.set()
                assert await stream.get_final_text() == "Hello compressed world"


@BOTH
async def test_a_compressed_stream_can_be_left_early(module: Any) -> None:
    chunks = writer_chunks("Hello compressed world")
    reply = chunks_reply([*chunks[:3], Stall()], encoding="gzip")
    async with ChatServer(reply) as server, module.AsyncClient(trust_env=False) as client:
        with anyio.fail_after(HANGS):
            async with stream_to(server, client=client) as stream:
                await anext(stream)
            await server.wait_disconnect(0)


# Our own.


async def test_our_own_client_is_closed_with_the_stream() -> None:
    async with ChatServer(text_reply("Hi", done=True)) as server:
        async with stream_to(server) as stream:
            await stream.until_done()
        with anyio.fail_after(HANGS):
            await server.wait_disconnect(0)
    assert server.requests[0].answered


async def test_our_own_connections_are_kept_alive_by_tcp() -> None:
    async with (
        ChatServer(text_reply("Hi", done=True)) as server,
        AsyncWriter(api_key=KEY, base_url=server.url) as writer,
    ):
        for stream in (stream_to(server), writer.chat.stream(**ASK)):
            async with stream:
                assert stream.response is not None
                sock = stream.response.extensions["network_stream"].get_extra_info("socket")
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
                if sys.platform == "linux":
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
                await stream.until_done()


async def test_the_environments_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ChatServer(text_reply("Hi", done=True)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        async with stream_to("http://api.example.invalid/base") as stream:
            assert await stream.get_final_text() == "Hi"
        async with AsyncWriter(api_key=KEY, base_url="http://api.example.invalid") as writer:
            async with writer.chat.stream(**ASK) as stream:
                assert await stream.get_final_text() == "Hi"
    assert [request.target for request in proxy.requests] == [
        "http://api.example.invalid/base/v1/chat",
        "http://api.example.invalid/v1/chat",
    ]
    assert proxy.requests[0].header("host") == "api.example.invalid"


async def test_no_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with ChatServer(text_reply("Hi", done=True)) as server:
        async with stream_to(server) as stream:
            assert await stream.get_final_text() == "Hi"


def test_hosts_without_a_proxy_are_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    without = type(client_maker()(10)._transport)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert type(client_maker()(10)._transport) is without
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert type(client_maker()(10)._transport) is not without


@pytest.mark.parametrize("proxy", ["http://x:port", "ftp://x"])
async def test_a_proxy_that_makes_no_sense_is_a_configuration_error(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ConfigurationError, match=r"^No HTTP client can be made: "):
        async with stream_to("http://x"):
            raise AssertionError
    with pytest.raises(ConfigurationError, match=r"^No HTTP client can be made: "):
        AsyncWriter(api_key=KEY).chat.stream(**ASK)


async def test_connecting_has_its_own_limit() -> None:
    limits: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        limits.append(request.extensions["timeout"])
        raise httpx.ConnectTimeout("no answer")

    async with mock_client(answer) as client:
        with pytest.raises(ConnectTimeoutError):
            async with stream_to(
                "http://x", client=client, max_retries=0, timeouts=Timeouts(connect=1.5)
            ):
                raise AssertionError
    assert limits == [{"connect": 1.5, "read": None, "write": None, "pool": None}]


def test_what_an_import_brings_along() -> None:
    def loaded_by(*names: str) -> set[str]:
        code = f"import json, sys, {', '.join(names)}; print(json.dumps([*sys.modules]))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        return {name.partition(".")[0] for name in json.loads(done.stdout)}

    ours = loaded_by("anyio_writer")
    assert {"anyio_writer", "anyio", "httpx", "msgspec"} <= ours
    # httpx itself imports rich where it is installed, for a command line of its own.
    ours -= loaded_by("httpx")
    assert not ours & {"httpx2", "httpcore2", "trio", "rich", "typer", "pydantic", "writerai"}


# AsyncWriter.


async def test_no_more_streams_than_max_connections_are_open_at_once() -> None:
    first = anyio.Event()
    opened: list[str] = []
    close = {"a": anyio.Event(), "b": anyio.Event()}

    async def hold(writer: AsyncWriter, name: str) -> None:
        async with writer.chat.stream(**ASK) as stream:
            opened.append(name)
            await close[name].wait()
            await stream.until_done()

    async with (
        ChatServer(text_reply("Hi", done=True)) as server,
        AsyncWriter(api_key=KEY, base_url=server.url, max_connections=2) as writer,
    ):
        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hold, writer, "a")
                tasks.start_soon(hold, writer, "b")
                await server.wait_request(1)
                await anyio.wait_all_tasks_blocked()

                async def third() -> None:
                    async with writer.chat.stream(**ASK) as stream:
                        opened.append("c")
                        await stream.until_done()
                        first.set()

                tasks.start_soon(third)
                await anyio.wait_all_tasks_blocked()
                assert sorted(opened) == ["a", "b"]
                assert len(server.requests) == 2
                close["a"].set()
                await first.wait()
                assert opened[2:] == ["c"]
                close["b"].set()
        assert len(server.connections) == 2


async def test_a_stream_that_was_read_to_its_end_leaves_its_slot_to_the_next() -> None:
    async with (
        ChatServer(text_reply("Hi", done=True)) as server,
        AsyncWriter(api_key=KEY, base_url=server.url, max_connections=1) as writer,
    ):
        with anyio.fail_after(HANGS):
            async with writer.chat.stream(**ASK) as outer:
                await outer.until_done()
                async with writer.chat.stream(**ASK) as inner:  # asked within the other's block
                    assert await inner.get_final_text() == "Hi"


async def test_cancelling_those_that_wait_loses_no_slot() -> None:
    async def ask(writer: AsyncWriter) -> None:
        async with writer.chat.stream(**ASK):
            raise AssertionError

    async with (
        ChatServer(text_reply("Hi", done=True)) as server,
        AsyncWriter(api_key=KEY, base_url=server.url, max_connections=2) as writer,
    ):
        with anyio.fail_after(HANGS):
            async with writer.chat.stream(**ASK), writer.chat.stream(**ASK):
                for _ in range(3):
                    async with anyio.create_task_group() as tasks:
                        for _ in range(5):
                            tasks.start_soon(ask, writer)
                        await anyio.wait_all_tasks_blocked()
                        tasks.cancel_scope.cancel()
                assert len(server.requests) == 2
            # Both slots are there again: two streams at once, many times.
            for _ in range(3):
                async with writer.chat.stream(**ASK) as one, writer.chat.stream(**ASK) as two:
                    assert await one.get_final_text() == await two.get_final_text() == "Hi"


@pytest.mark.parametrize("through", ["break", "raise", "cancel", "connection"])
async def test_a_slot_comes_back_however_its_stream_ends(through: str) -> None:
    stall = chunks_reply([*writer_chunks("Hi")[:2], Stall()])
    cut = chunks_reply(writer_chunks("Hi"), cut_after=100)
    bad = cut if through == "connection" else stall
    async with (
        ChatServer(bad, bad, text_reply("Hi", done=True)) as server,
        AsyncWriter(api_key=KEY, base_url=server.url, max_connections=1) as writer,
    ):
        with anyio.fail_after(HANGS):
            for _ in range(2):
                try:
                    with anyio.CancelScope() as scope:
                        async with writer.chat.stream(**ASK) as stream:
                            if through == "connection":
                                await stream.until_done()
                            await anext(stream)
                            if through == "raise":
                                _ = 1 / 0
                            if through == "cancel":
                                scope.cancel()
                                await anyio.sleep_forever()
                except (ZeroDivisionError, APIConnectionError):
                    pass
            async with writer.chat.stream(**ASK) as stream:
                assert await stream.get_final_text() == "Hi"


async def test_closing_a_writer_closes_its_connections_and_can_be_repeated() -> None:
    async with ChatServer(text_reply("Hi", done=True)) as server:
        writer = AsyncWriter(api_key=KEY, base_url=server.url)
        async with writer.chat.stream(**ASK) as stream:
            await stream.until_done()
        assert server.connections[0].peer_left is None
        await writer.aclose()
        await writer.aclose()
        with anyio.fail_after(HANGS):
            await server.wait_disconnect(0)


async def test_a_writer_that_was_never_used_can_be_closed() -> None:
    async with AsyncWriter(api_key=KEY) as writer:
        pass
    await writer.aclose()


async def test_a_closed_writer_says_so() -> None:
    async with ChatServer(text_reply("Hi", done=True)) as server:
        async with AsyncWriter(api_key=KEY, base_url=server.url) as writer:
            made_before = writer.chat.stream(**ASK)
        with pytest.raises(WriterError, match=r"^This AsyncWriter is closed; make another one\.$"):
            writer.chat.stream(**ASK)
        with pytest.raises(WriterError, match="closed"):
            async with made_before:
                raise AssertionError
    assert server.connections == []


@pytest.mark.parametrize("late", [0, 0.005])
@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("client", [None, httpx, httpx2])
async def test_ten_streams_in_a_row_share_one_connection(
    client: Any, *, done: bool, late: float
) -> None:
    async with ChatServer(text_reply("Hi", done=done, terminator_delay=late)) as server:
        own = client and client.AsyncClient(trust_env=False)
        limits = Limits(drain_time=HANGS)  # however busy the machine is
        async with AsyncWriter(
            api_key=KEY, base_url=server.url, client=own, limits=limits
        ) as writer:
            for _ in range(10):
                async with writer.chat.stream(**ASK) as stream:
                    assert await stream.get_final_text() == "Hi"
        if own is not None:
            await own.aclose()
    assert len(server.requests) == 10
    assert len(server.connections) == 1


def test_one_writer_can_be_made_outside_of_any_event_loop() -> None:
    async def ask() -> str:
        async with ChatServer(text_reply("Hi", done=True)) as server:
            async with AsyncWriter(api_key=KEY, base_url=server.url) as writer:
                async with writer.chat.stream(**ASK) as stream:
                    return await stream.get_final_text()

    assert repr(AsyncWriter(api_key=KEY))
    for backend in ("asyncio", "trio"):
        assert anyio.run(ask, backend=backend) == "Hi"
