"""The server as an ordinary HTTP client sees it."""

import json

import anyio
import httpx
import pytest

from anyio_writer.testing import (
    ChatServer,
    Encoding,
    RecordedRequest,
    Reply,
    chunks_reply,
    error_frame,
    error_reply,
    text_reply,
)

HANGS = 10  # seconds; a net under a hang, not an assertion
ASK = {"model": "palmyra-x5", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


def client_for(server: ChatServer, *, read: float = HANGS) -> httpx.AsyncClient:
    timeout = httpx.Timeout(HANGS, read=read)
    return httpx.AsyncClient(base_url=server.url, timeout=timeout, trust_env=False)


def text_of(response: httpx.Response) -> str:
    lines = [line for line in response.text.split("\n") if line.startswith("data: {")]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    return "".join(
        choice["delta"]["content"] or "" for chunk in chunks for choice in chunk["choices"]
    )


async def test_with_nothing_to_say_it_says_hello() -> None:
    async with ChatServer() as server, client_for(server) as client:
        response = await client.post("/v1/chat", json=ASK)
        assert response.status_code == 200
        assert response.headers["x-request-id"] == "req-0"
        assert text_of(response) == "Hello world"
    assert server.requests[0].json() == ASK
    assert server.requests[0].header("Content-Type") == "application/json"


async def test_replies_are_used_in_order_and_the_last_one_stays() -> None:
    async with (
        ChatServer(error_reply(503), text_reply("a")) as server,
        client_for(server) as client,
    ):
        server.add(text_reply("b"))
        got = [await client.post("/", json=ASK) for _ in range(4)]
    assert [response.status_code for response in got] == [503, 200, 200, 200]
    assert [text_of(response) for response in got[1:]] == ["a", "b", "b"]
    assert got[0].json()["tpe"] == "ServiceUnavailable"


async def test_a_default_takes_over_when_none_is_left() -> None:
    server = ChatServer(text_reply("a"), default=error_reply(500, "down"))
    async with server, client_for(server) as client:
        got = [await client.post("/", json=ASK) for _ in range(3)]
    assert [response.status_code for response in got] == [200, 500, 500]
    assert got[1].text == "down"


async def test_a_reply_may_depend_on_the_request() -> None:
    def echo(request: RecordedRequest) -> Reply:
        return chunks_reply([request.json()], done=True)

    async with ChatServer(echo) as server, client_for(server) as client:
        for question in ({"a": 1}, {"b": "é"}):
            response = await client.post("/", json=question)
            first, done, _ = response.text.split("\n\n")
            assert json.loads(first.removeprefix("data: ")) == question
            assert done == "data: [DONE]"


async def test_requests_in_a_row_share_one_connection() -> None:
    async with ChatServer(text_reply("a b c", terminator_delay=0.001)) as server:
        async with client_for(server) as client:
            for _ in range(5):
                await client.post("/", json=ASK)
        await server.wait_disconnect(4)
    assert [connection.requests for connection in server.connections] == [5]
    assert all(request.answered for request in server.requests)
    assert server.connections[0].closed


async def test_a_body_that_ends_with_the_connection_costs_one() -> None:
    async with ChatServer(text_reply("a", framing="close")) as server, client_for(server) as client:
        assert [text_of(await client.post("/", json=ASK)) for _ in range(3)] == ["a"] * 3
    assert [connection.requests for connection in server.connections] == [1, 1, 1]


async def test_many_requests_at_once() -> None:
    async with ChatServer(text_reply("a b c d")) as server, client_for(server) as client:
        got: list[str] = []

        async def ask() -> None:
            got.append(text_of(await client.post("/", json=ASK)))

        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tg:
                for _ in range(50):
                    tg.start_soon(ask)
    assert got == ["a b c d"] * 50
    assert len(server.requests) == 50


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
@pytest.mark.parametrize("flush", [True, False])
async def test_a_compressed_body_is_understood(encoding: Encoding, *, flush: bool) -> None:
    reply = text_reply("né à la carte", encoding=encoding, flush_pieces=flush)
    async with ChatServer(reply) as server, client_for(server) as client:
        response = await client.post("/", json=ASK)
    assert text_of(response) == "né à la carte"
    assert response.headers.get("content-encoding", "identity") == encoding


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (text_reply("a b c", cut_after=1000), httpx.RemoteProtocolError),
        (text_reply("a b c", cut_after=1000, framing="length"), httpx.RemoteProtocolError),
        (text_reply("a b c", reset_after=1000), httpx.ReadError),
        (text_reply("a b c", stall_after=1000), httpx.ReadTimeout),
        (Reply(headers_delay=3600), httpx.ReadTimeout),
        (Reply(framing="none"), httpx.RemoteProtocolError),
        (Reply(framing="none", body=b"220 smtp ready\r\n"), httpx.RemoteProtocolError),
    ],
)
async def test_a_fault_reaches_the_client_as_its_error(
    reply: Reply, error: type[Exception]
) -> None:
    async with ChatServer(reply) as server, client_for(server, read=0.05) as client:
        with pytest.raises(error):
            await client.post("/", json=ASK)
        with anyio.fail_after(HANGS):
            await server.wait_disconnect()


async def test_a_cut_body_that_ends_with_the_connection_looks_whole() -> None:
    reply = text_reply("a b c", cut_after=1000, framing="close")
    async with ChatServer(reply) as server, client_for(server) as client:
        assert len((await client.post("/", json=ASK)).content) == 1000
    assert not server.requests[0].answered


async def test_each_piece_is_read_on_its_own() -> None:
    async with (
        ChatServer(text_reply("a b", pace=0.01)) as server,
        client_for(server) as client,
        client.stream("POST", "/", json=ASK) as response,
    ):
        pieces = [piece async for piece in response.aiter_raw()]
    assert len(pieces) == 4
    assert all(piece.startswith(b"data: ") and piece.endswith(b"\n\n") for piece in pieces)


async def test_a_client_that_stops_reading_is_seen_to_leave() -> None:
    reply = chunks_reply([{"choices": []}, error_frame("writer")], never_end=True)
    async with ChatServer(reply) as server, client_for(server) as client:
        async with client.stream("POST", "/", json=ASK) as response:
            assert response.status_code == 200
            assert server.requests[0].peer_left is None
        with anyio.fail_after(HANGS):
            assert (await server.wait_disconnect()).peer_left is not None


async def test_a_strict_server_wants_a_key_and_a_question() -> None:
    async with ChatServer(strict=True) as server, client_for(server) as client:
        key = {"authorization": "Bearer k"}
        got = [
            await client.post("/", json=ASK),
            await client.post("/", json=ASK | {"messages": []}, headers=key),
            await client.post("/", content=b"{", headers=key),
            await client.post("/", json=ASK, headers=key),
        ]
    assert [response.status_code for response in got] == [401, 422, 422, 200]
    assert got[0].json()["errors"][0]["key"] == "fail.unauthorized.badToken"
    assert text_of(got[3]) == "Hello world"
