"""``StreamingTransport``: httpx's own transport, seen by whatever patches it, over our network."""

from __future__ import annotations

import gc
import inspect
import itertools
import json
import pickle
import socket
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
import trustme
from anyio import wait_all_tasks_blocked
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSListener

import anyio_writer.transport
from anyio_writer import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    AsyncWriter,
    AuthenticationError,
    ChatCompletionStream,
    ConfigurationError,
    ContentDeltaEvent,
    InternalServerError,
    Limits,
    RateLimitError,
    ResponseTooLargeError,
    StreamingTransport,
    StreamTruncatedError,
    WriterError,
    open_chat_stream,
)
from anyio_writer.testing import (
    ChatServer,
    Cut,
    Hold,
    Raw,
    Reply,
    Reset,
    error_reply,
    sse_event,
    text_reply,
    writer_chunks,
)
from anyio_writer.transport.chunked import ChunkedBody
from anyio_writer.transport.wire import Network
from tests.lifetimes.lifetime_helpers import WAYS, busy_slots, cancelled_at, clients_of, until
from tests.transport.opening_helpers import HANGS, KEY, MESSAGES, WHOLE, mock_client, stream_to

ASK: dict[str, Any] = {"model": "m", "messages": MESSAGES}
TEXT = "The sky is blue."
PIECES = [*map(sse_event, writer_chunks(TEXT)), sse_event("[DONE]")]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)


# What it is.


def test_it_is_public() -> None:
    assert anyio_writer.transport.StreamingTransport is StreamingTransport


def test_it_leaves_requests_to_its_base() -> None:
    assert "handle_async_request" not in vars(StreamingTransport)


def test_its_arguments_are_those_of_its_base() -> None:
    ours = inspect.signature(StreamingTransport).parameters
    theirs = inspect.signature(httpx.AsyncHTTPTransport).parameters
    assert [(each.name, each.default) for each in ours.values()] == [
        (each.name, each.default) for each in theirs.values()
    ]


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:1", "https://127.0.0.1:1"])
def test_httpx_and_httpcore_take_the_network_where_it_is_put(proxy: str | None) -> None:
    """It is the only private attribute: if this fails, the library below has changed."""
    transport: Any = StreamingTransport(proxy=proxy)
    assert type(transport._pool._network_backend) is Network
    assert "_network_backend" in vars(httpx.AsyncHTTPTransport()._pool)  # type: ignore[attr-defined]


async def test_without_that_attribute_it_is_plain_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    original = httpx.AsyncHTTPTransport.__init__

    def changed(self: Any, **arguments: Any) -> None:
        original(self, **arguments)
        pool, self._pool = self._pool, None
        self._other_name = pool

    async def handle(self: Any, request: httpx.Request) -> httpx.Response:
        await checkpoint()
        return httpx.Response(200, content=WHOLE)

    async def aclose(self: Any) -> None:
        await self._other_name.aclose()

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "__init__", changed)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "aclose", aclose)
    async with AsyncWriter(api_key=KEY) as writer, writer.chat.stream(**ASK) as stream:
        assert await stream.get_final_text() == "Hi"


async def test_one_client_after_another_can_have_it() -> None:
    transport = StreamingTransport()
    async with ChatServer(default=Reply(body=PIECES)) as server:
        for _ in range(2):
            async with httpx.AsyncClient(transport=transport) as client:
                async with stream_to(server, client=client, max_retries=0) as stream:
                    assert await stream.get_final_text() == TEXT
            await until(lambda: all(connection.closed for connection in server.connections))


@pytest.mark.parametrize("kind", ["default", "of the caller's", "plain httpx"])
async def test_what_is_read_past_h11(kind: str) -> None:
    transport = None if kind == "plain httpx" else StreamingTransport()
    client = httpx.AsyncClient(transport=transport, trust_env=False)
    hooked: list[int] = []

    async def hook(response: httpx.Response) -> None:
        await checkpoint()
        hooked.append(response.status_code)

    client.event_hooks = {"response": [hook]}
    async with client, ChatServer(text_reply(TEXT, done=True)) as server:
        given = None if kind == "default" else client
        async with AsyncWriter(api_key=KEY, base_url=server.url, client=given) as writer:
            for _ in range(3):
                async with writer.chat.stream(**ASK) as stream:
                    body = stream._source._body  # type: ignore[attr-defined]
                    assert isinstance(body, ChunkedBody) == (kind != "plain httpx")
                    assert await stream.get_final_text() == TEXT
        assert len(server.connections) == 1 or kind == "plain httpx"
    assert hooked == ([] if kind == "default" else [200] * 3)


# What patches and wraps httpx.


@pytest.mark.parametrize("connections", [1, 1000])
@pytest.mark.parametrize("how", ["writer", "helper"])
async def test_a_mock_sees_every_request(
    how: str, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pytest-httpx and vcrpy do it: in place of the method, for all clients."""
    seen: list[str] = []

    async def mocked(transport: Any, request: httpx.Request) -> httpx.Response:
        await checkpoint()
        seen.append(str(request.url))
        return httpx.Response(200, content=WHOLE)

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", mocked)
    if how == "helper":
        async with stream_to("http://nobody.invalid") as stream:
            assert await stream.get_final_text() == "Hi"
    else:
        async with AsyncWriter(
            api_key=KEY, base_url="http://nobody.invalid", max_connections=connections
        ) as writer:
            async with writer.chat.stream(**ASK) as stream:
                assert await stream.get_final_text() == "Hi"
    assert seen == ["http://nobody.invalid/v1/chat"]


async def test_instrumentation_wraps_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenTelemetry does it: around the method, with a header added."""
    original = httpx.AsyncHTTPTransport.handle_async_request
    spans: list[int] = []

    async def wrapped(transport: Any, request: httpx.Request) -> httpx.Response:
        request.headers["traceparent"] = "00-1-2-01"
        response = await original(transport, request)
        spans.append(response.status_code)
        return response

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", wrapped)
    async with ChatServer(text_reply(TEXT, done=True)) as server:
        async with AsyncWriter(api_key=KEY, base_url=server.url) as writer:
            async with writer.chat.stream(**ASK) as stream:
                assert await stream.get_final_text() == TEXT
    assert spans == [200]
    assert server.requests[0].header("traceparent") == "00-1-2-01"


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize(("status", "cls"), [(401, AuthenticationError), (404, APIStatusError)])
async def test_a_hook_that_raises_for_status(
    status: int, cls: type[APIStatusError], reads: bool
) -> None:
    """httpx's own recipe. It is the status error, and the request is sent once."""

    async def hook(response: httpx.Response) -> None:
        if reads:
            await response.aread()
        response.raise_for_status()

    async with (
        ChatServer(default=error_reply(status)) as server,
        httpx.AsyncClient(event_hooks={"response": [hook]}, trust_env=False) as client,
    ):
        with pytest.raises(cls) as caught:
            async with stream_to(server, client=client):
                pass
        assert (caught.value.status_code, len(server.requests)) == (status, 1)
        assert (caught.value.body is not None) == reads
        assert caught.value.request_id == "req-0"


async def test_a_hook_that_raises_for_a_status_worth_a_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def at_once(seconds: float) -> None:
        await checkpoint()

    async def hook(response: httpx.Response) -> None:
        await checkpoint()
        response.raise_for_status()

    monkeypatch.setattr(anyio, "sleep", at_once)
    async with (
        ChatServer(error_reply(503), text_reply(TEXT, done=True)) as server,
        httpx.AsyncClient(event_hooks={"response": [hook]}, trust_env=False) as client,
    ):
        async with stream_to(server, client=client) as stream:
            assert await stream.get_final_text() == TEXT


# Connections that cannot be used again.


ANSWER = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in PIECES)
    + b"0\r\n\r\n"
)


async def closes_with_the_next_request(sock: ByteStream) -> None:
    """Answers one request, and closes when the next one comes."""
    await read_request(sock)
    await sock.send(ANSWER)
    await read_request(sock)


async def read_request(sock: ByteStream) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await sock.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    (size,) = (
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    )
    while len(body) < size:
        body += await sock.receive()


@asynccontextmanager
async def listening(handle: Any) -> AsyncGenerator[tuple[str, list[ByteStream]]]:
    """A server of bare TCP: its URL, and the connections that it got."""
    accepted: list[ByteStream] = []

    async def each(sock: ByteStream) -> None:
        accepted.append(sock)
        async with sock:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await handle(sock)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, each)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - no query
            yield f"http://127.0.0.1:{port}", accepted
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("own", [True, False])
async def test_a_stale_connection_costs_no_retry(own: bool) -> None:
    async with listening(closes_with_the_next_request) as (url, accepted):
        async with httpx.AsyncClient(transport=StreamingTransport()) as client:
            given = None if own else client
            writer = AsyncWriter(api_key=KEY, base_url=url, max_retries=0, client=given)
            async with writer:
                for _ in range(5):
                    async with writer.chat.stream(**ASK) as stream:
                        assert await stream.get_final_text() == TEXT
        assert len(accepted) == 5


async def test_one_that_has_begun_to_answer_does() -> None:
    """The server may have worked on it."""

    async def begins(sock: ByteStream) -> None:
        await closes_with_the_next_request(sock)
        await sock.send(b"HTTP/1.1 200 O")

    async with listening(begins) as (url, accepted):
        async with AsyncWriter(api_key=KEY, base_url=url, max_retries=0) as writer:
            async with writer.chat.stream(**ASK) as stream:
                await stream.until_done()
            with pytest.raises(APIConnectionError, match="disconnected"):
                async with writer.chat.stream(**ASK):
                    pass
        assert len(accepted) == 1


async def test_a_new_connection_that_ends_does() -> None:
    async with listening(read_request) as (url, accepted):
        with pytest.raises(APIConnectionError, match="disconnected"):
            async with stream_to(url, max_retries=0):
                pass
        assert len(accepted) == 1


@pytest.mark.parametrize("framing", ["chunked", "length", "error"])
async def test_bytes_behind_a_response_end_its_connection(framing: str) -> None:
    """They would be the answer to the next user's question."""
    again = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE)
    replies = {
        "chunked": Reply(body=[WHOLE, Raw(b"0\r\n\r\n" + again)], framing="none"),
        "length": Reply(body=[again, Raw(again)], framing="none"),
        "error": Reply(
            body=[Raw(b"HTTP/1.1 404 X\r\ncontent-length: 2\r\n\r\n{}" + again)], framing="none"
        ),
    }
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%b\r\n" % (len(WHOLE), WHOLE)
    replies["chunked"] = Reply(body=[head + chunk + b"0\r\n\r\n" + again], framing="none")
    replies["length"] = Reply(body=[again + again], framing="none")
    async with ChatServer(replies[framing], text_reply("mine", done=True)) as server:
        async with AsyncWriter(api_key=KEY, base_url=server.url) as writer:
            try:
                async with writer.chat.stream(**ASK) as stream:
                    assert await stream.get_final_text() == "Hi"
            except APIStatusError:
                assert framing == "error"
            async with writer.chat.stream(**ASK) as stream:
                assert await stream.get_final_text() == "mine"
        assert len(server.connections) == 2


@pytest.mark.parametrize("turns", range(8))
async def test_no_connection_outlives_a_writer_that_is_closed_while_it_is_made(turns: int) -> None:
    said: list[str] = []

    async def ask(writer: AsyncWriter) -> None:
        try:
            async with writer.chat.stream(**ASK) as stream:
                said.append(await stream.get_final_text())
        except WriterError as exc:
            said.append(type(exc).__name__)

    async with ChatServer(text_reply("Hi", done=True)) as server:
        writer = AsyncWriter(api_key=KEY, base_url=server.url, max_connections=10, max_retries=0)
        await ask(writer)
        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(ask, writer)
                for _ in range(turns):
                    await checkpoint()
                await writer.aclose()
        assert len(said) == 11
        await until(lambda: all(connection.closed for connection in server.connections))


# Event loops.


@pytest.fixture
def url() -> Iterator[str]:
    """A server in a thread of its own, as event loops here come and go."""
    import threading

    ready, over = threading.Event(), threading.Event()
    urls: list[str] = []

    async def serve() -> None:
        async with ChatServer(default=text_reply("Hi", done=True)) as server:
            urls.append(server.url)
            ready.set()
            await anyio.to_thread.run_sync(over.wait)

    thread = threading.Thread(target=anyio.run, args=(serve,))
    thread.start()
    ready.wait()
    yield urls[0]
    over.set()
    thread.join()


async def ask_once(writer: AsyncWriter) -> str:
    async with writer.chat.stream(**ASK) as stream:
        return await stream.get_final_text()


LOOPS = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}


@pytest.mark.parametrize("order", list(itertools.permutations(LOOPS, 2)), ids="-".join)
@pytest.mark.parametrize("again", [True, False])
def test_one_writer_in_one_event_loop_after_another(
    order: tuple[str, str], again: bool, url: str
) -> None:
    """Nothing is left open in any of them: that would warn, and warnings are errors."""
    writer = AsyncWriter(api_key=KEY, base_url=url)
    for name in order * (2 if again else 1):
        assert anyio.run(ask_once, writer, **LOOPS[name]) == "Hi"  # type: ignore[arg-type]
    anyio.run(writer.aclose)
    with pytest.raises(WriterError, match="closed"):
        anyio.run(ask_once, writer)


def test_one_writer_in_several_threads(url: str) -> None:
    import threading

    writer = AsyncWriter(api_key=KEY, base_url=url, max_connections=2)
    said: list[str] = []
    threads = [
        threading.Thread(target=lambda: said.append(anyio.run(ask_once, writer))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANGS)
    assert said == ["Hi"] * 6


async def test_a_given_client_serves_one_event_loop_at_a_time() -> None:
    opened, over = anyio.Event(), anyio.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=WHOLE)

    async with mock_client(answer) as client:
        writer = AsyncWriter(api_key=KEY, client=client)

        async def hold() -> None:
            async with writer.chat.stream(**ASK):
                opened.set()
                await over.wait()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold)
            await opened.wait()
            with pytest.raises(WriterError, match="in use in another event loop"):
                await anyio.to_thread.run_sync(anyio.run, ask_once, writer)
            over.set()
        assert await anyio.to_thread.run_sync(anyio.run, ask_once, writer) == "Hi"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # httpx's own connection of a past loop
def test_a_given_client_with_connections_of_another_loop_says_so(url: str) -> None:
    def use() -> None:
        client = httpx.AsyncClient(trust_env=False)
        writer = AsyncWriter(api_key=KEY, base_url=url, client=client)
        assert anyio.run(ask_once, writer) == "Hi"
        with pytest.raises(WriterError, match="another event loop"):
            anyio.run(ask_once, writer)

    use()
    gc.collect()


async def test_a_runtime_error_of_a_given_client_comes_out_as_it_is() -> None:
    mistake = RuntimeError("a transport of one's own")

    def fail(request: httpx.Request) -> httpx.Response:
        raise mistake

    async with mock_client(fail) as client:
        with pytest.raises(RuntimeError) as caught:
            await ask_once(AsyncWriter(api_key=KEY, client=client))
    assert caught.value is mistake


def test_any_other_error_in_another_loop_comes_out_as_it_is() -> None:
    mistake = LookupError("a transport of one's own")

    def answer(request: httpx.Request) -> httpx.Response:
        if not first:
            raise mistake
        return httpx.Response(200, content=first.pop())

    first = [WHOLE]
    writer = AsyncWriter(api_key=KEY, client=mock_client(answer))
    assert anyio.run(ask_once, writer) == "Hi"
    with pytest.raises(LookupError) as caught:
        anyio.run(ask_once, writer)
    assert caught.value is mistake


# Compression and size.


def deflated(data: bytes, wbits: int) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return squeeze.compress(data) + squeeze.flush()


FORMS = {"gzip": ("gzip", 31), "zlib": ("deflate", 15), "raw deflate": ("deflate", -15)}


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("form", FORMS)
async def test_a_compressed_answer_is_inflated(form: str, size: int) -> None:
    encoding, wbits = FORMS[form]
    data = deflated(WHOLE, wbits)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    reply = Reply(body=pieces, headers={"content-encoding": encoding})
    async with ChatServer(reply) as server, stream_to(server) as stream:
        assert await stream.get_final_text() == "Hi"


async def test_gzip_of_several_members() -> None:
    data = deflated(WHOLE[:20], 31) + deflated(WHOLE[20:], 31)
    reply = Reply(body=data, headers={"content-encoding": "x-gzip"})
    async with ChatServer(reply) as server, stream_to(server) as stream:
        assert await stream.get_final_text() == "Hi"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "gzip,br"])
async def test_another_encoding_is_a_clear_error(encoding: str) -> None:
    reply = Reply(body=WHOLE, headers={"content-encoding": encoding})
    async with ChatServer(reply) as server:
        with pytest.raises(APIResponseValidationError, match="identity was asked"):
            async with stream_to(server):
                pass
        assert len(server.requests) == 1
        server.add(Reply(status=500, body=WHOLE, headers={"content-encoding": encoding}))
        with pytest.raises(InternalServerError) as caught:
            async with stream_to(server, max_retries=0):
                pass
        assert caught.value.body is None


@pytest.mark.parametrize("form", FORMS)
async def test_a_compressed_answer_that_is_cut_is_truncated(form: str) -> None:
    encoding, wbits = FORMS[form]
    data = deflated(PIECES[0] + PIECES[1], wbits)
    reply = Reply(body=data[:-5], headers={"content-encoding": encoding})
    async with ChatServer(reply) as server:
        with pytest.raises(StreamTruncatedError):
            async with stream_to(server) as stream:
                await stream.until_done()


@pytest.mark.parametrize("form", FORMS)
async def test_the_end_of_a_compressed_answer_counts_though_no_finish_reason_came(
    form: str,
) -> None:
    encoding, wbits = FORMS[form]
    data = deflated(PIECES[0] + PIECES[1], wbits)
    whole = Reply(body=data, headers={"content-encoding": encoding})
    cut = Reply(body=data[:-1], headers={"content-encoding": encoding})
    async with ChatServer(whole, cut) as server:
        async with stream_to(server, require_finish=False) as stream:
            await stream.until_done()
        with pytest.raises(StreamTruncatedError):
            async with stream_to(server, require_finish=False) as stream:
                await stream.until_done()


@pytest.mark.parametrize("more", [b"more", deflated(b"more", 31)], ids=["anything", "gzip"])
async def test_something_behind_a_deflated_answer_is_an_error(more: bytes) -> None:
    reply = Reply(body=deflated(PIECES[0], 15) + more, headers={"content-encoding": "deflate"})
    async with ChatServer(reply) as server:
        with pytest.raises(APIConnectionError, match="not compressed as its header says"):
            async with stream_to(server) as stream:
                await stream.until_done()


async def test_a_few_bytes_that_stand_for_many_are_bounded() -> None:
    """In each step and in all; others run in between."""
    ticks = 0
    over = anyio.Event()

    async def tick() -> None:
        nonlocal ticks
        while not over.is_set():
            ticks += 1
            await checkpoint()

    bomb = deflated(PIECES[0] + PIECES[1] + (b": " + b" " * 1021 + b"\n") * 100_000, 31)
    assert len(bomb) < 250_000
    reply = Reply(body=bomb, headers={"content-encoding": "gzip"}, framing="length")
    async with ChatServer(reply) as server:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            with pytest.raises(ResponseTooLargeError, match="max_answer_bytes") as caught:
                async with stream_to(server, limits=Limits(max_answer_bytes=3_000_000)) as stream:
                    before = ticks
                    await stream.until_done()
            assert ticks > before + 40
            over.set()
    assert caught.value.completion is not None
    assert stream.bytes_received < 3_000_000 + 70_000


async def test_the_whole_of_an_answer_is_bounded() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield PIECES[1]
            await checkpoint()

    from anyio_writer import chat_stream_from

    with pytest.raises(ResponseTooLargeError, match="max_answer_bytes") as caught:
        async with chat_stream_from(endless(), limits=Limits(max_answer_bytes=10_000)) as stream:
            await stream.until_done()
    assert caught.value.completion is not None


# What the environment says.


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_certificates_that_are_missing_are_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "/nonexistent/certificates")
    with pytest.raises(ConfigurationError, match=f"{name}='/nonexistent/certificates'"):
        AsyncWriter(api_key=KEY)
    with pytest.raises(ConfigurationError, match=f"{name}='/nonexistent/certificates'"):
        async with stream_to("http://127.0.0.1:1"):
            pass


async def test_certificates_that_are_none_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "nonsense.pem"
    path.write_text("nonsense")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(ConfigurationError, match=r"SSL_CERT_FILE='.*nonsense\.pem'"):
        AsyncWriter(api_key=KEY)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
async def test_proxy_settings_that_make_no_sense_are_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://me:s3cr3t@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "localhost,[::1]")
    with pytest.raises(ConfigurationError, match=r"no_proxy='localhost,\[::1\]'") as caught:
        AsyncWriter(api_key=KEY)
    assert f"{name}='…@127.0.0.1:9'" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


async def test_a_proxy_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(APIConnectionError, match=f"http_proxy='{proxy}'"):
            async with stream_to("http://api.example.invalid", max_retries=0):
                pass


async def test_no_cookies_are_kept_or_sent() -> None:
    reply = Reply(body=PIECES, headers={"set-cookie": "a=b"})
    async with ChatServer(reply) as server:
        async with AsyncWriter(api_key=KEY, base_url=server.url) as writer:
            for _ in range(3):
                await ask_once(writer)
    assert [request.header("cookie") for request in server.requests] == [None] * 3


# What must not be shown.


@pytest.mark.parametrize("where", ["request id", "body", "status line", "location"])
async def test_a_key_that_the_server_repeats_is_in_no_form_of_the_error(where: str) -> None:
    body = json.dumps({"error": {"message": f"wrong key {KEY}"}}).encode()
    reply = {
        "request id": Reply(status=401, headers={"x-request-id": KEY}, body=body),
        "body": Reply(status=500, body=[b"\x1b[31m" + KEY.encode()]),
        "status line": Reply(body=[f"HTTP/1.1 {KEY} x\r\n\r\n".encode()], framing="none"),
        "location": Reply(status=307, headers={"location": f"http://a.invalid/{KEY}"}),
    }[where]
    async with ChatServer(reply) as server:
        with pytest.raises(APIError) as caught:
            async with stream_to(server, max_retries=0, extra_query={"key": KEY}):
                pass
    error: BaseException | None = caught.value
    assert KEY.encode() not in pickle.dumps(error)
    assert "\x1b" not in str(error)
    while error is not None:
        assert KEY not in f"{error} {error!r} {vars(error)}"
        error = error.__cause__


async def test_a_good_response_does_not_hold_the_key_either() -> None:
    async with ChatServer(text_reply(done=True)) as server, stream_to(server) as stream:
        await stream.until_done()
        assert stream.response is not None
        assert KEY.encode() not in pickle.dumps(stream.response)
    assert server.requests[0].header("authorization") == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "date",
    [
        "Wed, 21 Oct 99999999999999999999 07:28:00 GMT",
        "Wed, 21 Oct 2015 99999999999999999999:28:00 GMT",
        "Wed, 21 Oct 2015 07:28:00 +99999999999999",
        *("9" * 400, "-1", "nan", "inf", "1e999"),
    ],
)
async def test_an_absurd_retry_after_is_no_reason_for_another_error(
    date: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(seconds: float) -> None:
        assert seconds <= 60
        await checkpoint()

    monkeypatch.setattr(anyio, "sleep", at_once)
    async with ChatServer(error_reply(429, headers={"retry-after": date})) as server:
        with pytest.raises(RateLimitError):
            async with stream_to(server, max_retries=1):
                pass


# The machine at its limits.


async def test_a_process_without_descriptors_gets_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import resource

    waits: list[float] = []

    async def at_once(seconds: float) -> None:
        waits.append(seconds)
        await checkpoint()

    monkeypatch.setattr(anyio, "sleep", at_once)
    async with (
        ChatServer(text_reply("Hi", done=True)) as server,
        AsyncWriter(api_key=KEY, base_url=server.url) as writer,
    ):
        assert await ask_once(writer) == "Hi"
        async with writer.chat.stream(**ASK):  # which has the connection that there is
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
            try:
                with pytest.raises(APIConnectionError):
                    await ask_once(writer)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert len(waits) == 2
        assert await ask_once(writer) == "Hi"


def test_what_takes_long_is_done_when_the_writer_is_made() -> None:
    """And not by its first stream, on the event loop."""
    import subprocess
    import sys

    code = """
import sys
from anyio_writer import AsyncWriter
assert "httpcore" not in sys.modules
AsyncWriter(api_key="key")
assert {"httpcore", "anyio_writer.transport.sockets", "encodings.idna"} <= sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# Whole streams, in clear and encrypted.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names the authority, as it would one of a company's own."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


@asynccontextmanager
async def behind_tls(port: int, context: ssl.SSLContext) -> AsyncGenerator[int]:
    """A port whose connections are decrypted and handed on to another one; ends do not wait."""

    async def pump(source: ByteStream, target: ByteStream, scope: anyio.CancelScope) -> None:
        try:
            async for data in source:
                await target.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            pass
        scope.cancel()

    async def hand_on(front: ByteStream) -> None:
        async with front, await anyio.connect_tcp("127.0.0.1", port) as back:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pump, front, back, tasks.cancel_scope)
                tasks.start_soon(pump, back, front, tasks.cancel_scope)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as plain:
        listener = TLSListener(plain, context, standard_compatible=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, hand_on)
            yield plain.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - no query
            tasks.cancel_scope.cancel()


@pytest.fixture(params=["clear", "encrypted"])
def scheme(request: pytest.FixtureRequest, trusted: None) -> str:
    return {"clear": "http", "encrypted": "https"}[request.param]


@asynccontextmanager
async def serving(
    scheme: str, context: ssl.SSLContext, *replies: Reply, **options: Any
) -> AsyncGenerator[tuple[ChatServer, AsyncWriter]]:
    async with ChatServer(*replies, **options) as server:
        port = int(server.url.rpartition(":")[2])
        async with behind_tls(port, context) as encrypted_port:
            if scheme == "https":
                port = encrypted_port
            url = f"{scheme}://localhost:{port}"
            async with AsyncWriter(api_key="key", base_url=url, max_retries=0) as writer:
                with anyio.fail_after(HANGS):
                    yield server, writer


def stream_of(writer: AsyncWriter, content: str = "Hello") -> ChatCompletionStream[None]:
    return writer.chat.stream(model="m", messages=[{"role": "user", "content": content}])


async def test_whole_streams_share_a_connection(
    scheme: str, server_context: ssl.SSLContext
) -> None:
    async with serving(scheme, server_context, Reply(body=PIECES)) as (server, writer):
        for _ in range(3):
            async with stream_of(writer) as stream:
                assert await stream.get_final_text() == TEXT
        assert len(server.connections) == 1


async def test_a_large_request_and_a_large_answer(
    scheme: str, server_context: ssl.SSLContext
) -> None:
    said = "word " * 500
    reply = Reply(body=[*map(sse_event, writer_chunks(said))])
    async with serving(scheme, server_context, reply) as (server, writer):
        question = "x" * 5_000_000
        async with stream_of(writer, question) as stream:
            assert await stream.get_final_text() == said
        assert server.requests[0].json()["messages"][0]["content"] == question


async def test_cancelled_at_every_step_before_the_headers(
    scheme: str, authority: trustme.CA, anyio_backend_name: str
) -> None:
    """Also where a connection is just made, and httpcore has not begun to look after it."""
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.maximum_version = ssl.TLSVersion.TLSv1_2  # its handshake ends with a wait
    authority.issue_cert("localhost").configure_cert(server_context)
    reply = Reply(body=PIECES, headers={"connection": "close"})
    async with serving(scheme, server_context, default=reply) as (_, writer):

        async def enter() -> None:
            async with stream_of(writer):
                pass

        for way in WAYS[anyio_backend_name]:
            for step in itertools.count(1):
                got_through = await cancelled_at(step, way, enter)
                clients = clients_of(writer)
                assert clients is None or not busy_slots(*clients.all)
                if got_through:
                    break
            assert step > 5, "nothing was cancelled"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [(Cut(), StreamTruncatedError), (Reset(), APIConnectionError)],
    ids=["cut", "reset"],
)
async def test_a_connection_that_ends_in_mid_answer(
    scheme: str, server_context: ssl.SSLContext, fault: Cut | Reset, expected: type[Exception]
) -> None:
    seen = anyio.Event()
    reply = Reply(body=[*PIECES[:3], Hold(seen), fault])
    async with serving(scheme, server_context, reply) as (server, writer):
        with pytest.raises(expected) as caught:
            async with stream_of(writer) as stream:
                async for event in stream:
                    if isinstance(event, ContentDeltaEvent):
                        seen.set()
        assert isinstance(caught.value, APIConnectionError)
        assert caught.value.completion is not None
        assert TEXT.startswith(caught.value.completion.choices[0].message.content or "-")
        server.add(Reply(body=PIECES))
        async with stream_of(writer) as stream:
            assert await stream.get_final_text() == TEXT


async def test_an_idle_connection_that_the_server_ended_is_not_used_again(
    scheme: str, server_context: ssl.SSLContext
) -> None:
    end = anyio.Event()
    ending = Reply(body=[*PIECES, Hold(end), Cut()], framing="length")
    replies = (ending, Reply(body=PIECES))
    async with serving(scheme, server_context, *replies) as (server, writer):
        for _ in range(2):
            async with stream_of(writer) as stream:
                assert await stream.get_final_text() == TEXT
            end.set()
            await wait_all_tasks_blocked()
        assert len(server.connections) == 2


async def test_the_writer_is_closed_while_a_stream_reads(
    scheme: str, server_context: ssl.SSLContext
) -> None:
    reply = Reply(body=[*PIECES[:3], Hold(anyio.Event())])
    got: list[str] = []

    async def read() -> None:
        with pytest.raises(APIConnectionError) as caught:
            async with stream_of(writer) as stream:
                async for piece in stream.text_deltas():
                    got.append(piece)
        assert caught.value.completion is not None

    async with serving(scheme, server_context, reply) as (server, writer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await server.wait_request()
            await wait_all_tasks_blocked()
            assert got
            await writer.aclose()
        await server.wait_disconnect()


async def test_a_certificate_that_is_not_trusted(server_context: ssl.SSLContext) -> None:
    async with serving("https", server_context, Reply(body=PIECES)) as (server, writer):
        with pytest.raises(APIConnectionError, match="certificate verify failed"):
            async with stream_of(writer):
                pass
        assert not server.connections


async def test_certificates_are_read_anew_for_each_client(
    server_context: ssl.SSLContext,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "authority.pem"
    async with serving("https", server_context, Reply(body=PIECES)) as (_, writer):
        url = writer._opener.endpoint.url.removesuffix("/v1/chat")
        with pytest.raises(APIConnectionError, match="certificate verify failed"):
            async with stream_of(writer):
                pass
        for trusted in (authority, trustme.CA(), authority):
            trusted.cert_pem.write_to_path(path)
            monkeypatch.setenv("SSL_CERT_FILE", str(path))
            stream = open_chat_stream(**ASK, api_key=KEY, base_url=url, max_retries=0)
            if trusted is authority:
                async with stream:
                    assert await stream.get_final_text() == TEXT
            else:
                with pytest.raises(APIConnectionError, match="certificate verify failed"):
                    async with stream:
                        pass


@pytest.mark.usefixtures("trusted")
async def test_a_certificate_of_another_host(authority: trustme.CA) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.test").configure_cert(context)
    async with serving("https", context, Reply(body=PIECES)) as (server, writer):
        with pytest.raises(APIConnectionError, match=r"(?i)hostname mismatch"):
            async with stream_of(writer):
                pass
        assert not server.connections


async def test_a_tunnel_through_a_proxy(
    server_context: ssl.SSLContext, authority: trustme.CA
) -> None:
    """TLS begins within a connection that has spoken HTTP before."""
    targets: list[bytes] = []

    async def proxy(sock: ByteStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await sock.receive()
        targets.append(head.split()[1])
        port = int(targets[0].rpartition(b":")[2])
        await sock.send(b"HTTP/1.1 200 OK\r\n\r\n")
        async with await anyio.connect_tcp("127.0.0.1", port) as back:
            async with anyio.create_task_group() as tasks:

                async def pump(source: ByteStream, target: ByteStream) -> None:
                    async for data in source:
                        await target.send(data)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(pump, sock, back)
                tasks.start_soon(pump, back, sock)

    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with ChatServer(Reply(body=PIECES)) as server, listening(proxy) as (proxy_url, _):
        async with behind_tls(int(server.url.rpartition(":")[2]), server_context) as port:
            transport = StreamingTransport(verify=trusting, proxy=proxy_url)
            async with httpx.AsyncClient(transport=transport) as client:
                for _ in range(2):
                    async with stream_to(f"https://localhost:{port}", client=client) as stream:
                        assert isinstance(stream._source._body, ChunkedBody)  # type: ignore[attr-defined]
                        assert await stream.get_final_text() == TEXT
            assert targets == [b"localhost:%d" % port]


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
async def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    def answer() -> None:
        # In a thread: anyio's Unix sockets, cancelled just when they become readable, fail.
        sock, _ = listener.accept()
        with sock:
            request = b""
            # Its JSON, too: what is not read when a socket is closed resets the connection.
            while not request.endswith(b"}"):
                request += sock.recv(65536)
            sock.sendall(ANSWER)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        async with anyio.create_task_group() as tg:
            tg.start_soon(anyio.to_thread.run_sync, answer)
            async with httpx.AsyncClient(transport=StreamingTransport(uds=path)) as client:
                async with stream_to("http://localhost", client=client) as stream:
                    assert await stream.get_final_text() == TEXT
