"""A status that is not 2xx becomes an exception that has everything the server said."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from anyio_writer import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AsyncWriter,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    Limits,
    NotFoundError,
    ParsedChatCompletion,
    PermissionDeniedError,
    RateLimitError,
    StreamClosedError,
    UnprocessableEntityError,
    WriterError,
    errors,
)
from anyio_writer.protocol.json import shorten
from anyio_writer.testing import (
    ChatServer,
    Cut,
    Encoding,
    Framing,
    Raw,
    Reply,
    Reset,
    Stall,
    error_reply,
    text_reply,
    writer_error,
)
from tests.transport.opening_helpers import HANGS, KEY, MESSAGES, mock_client, stream_to


async def failure(reply: Reply, **arguments: Any) -> APIStatusError:
    """The error that opening a stream raises when the server answers so."""
    with anyio.fail_after(HANGS):
        async with ChatServer(reply) as server:
            with pytest.raises(APIStatusError) as caught:
                async with stream_to(server, **{"max_retries": 0} | arguments):
                    raise AssertionError("the body must not begin")
    assert len(server.requests) == 1
    return caught.value


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (408, APIStatusError),
        (409, ConflictError),
        (410, APIStatusError),
        (413, APIStatusError),
        (418, APIStatusError),
        (422, UnprocessableEntityError),
        (429, RateLimitError),
        (500, InternalServerError),
        (503, InternalServerError),
        (507, InternalServerError),
        (529, InternalServerError),
        (304, APIStatusError),
    ],
)
async def test_each_status_has_its_class(status: int, cls: type[APIStatusError]) -> None:
    exc = await failure(error_reply(status))
    assert type(exc) is cls
    body = None if status == 304 else writer_error(status)
    said = f"Error code: {status} - {body}" if body else f"Error code: {status}"
    if status == 404:
        said += f" (from {exc.request.url})" if exc.request is not None else ""
    assert exc.message == said
    assert str(exc) == f"{said} (request id: req-0)"
    assert exc.args == (said,)
    assert exc.body == body
    assert exc.request_id == "req-0"
    assert exc.status_code == status
    assert exc.response is not None
    assert exc.response.status_code == status
    assert exc.response.is_closed
    assert exc.request is not None
    assert exc.request.method == "POST"
    assert exc.request.url.path == "/v1/chat"
    assert json.loads(exc.request.content)["model"] == "m"
    assert exc.completion is None
    assert exc.__cause__ is None
    assert exc.__context__ is None


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b'{"error": {"message": "no"}}', {"error": {"message": "no"}}),
        (b'["a"]', ["a"]),
        (b'"just text"', "just text"),
        (b"<html>Bad gateway</html>", "<html>Bad gateway</html>"),
        (b'{"cut": ', '{"cut": '),
        (b"caf\xe9", "caf\ufffd"),
        (b"[" * 5000, "[" * 5000),
        (b"", None),
        (b"{}", None),
    ],
)
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_the_body_is_json_else_text_else_none(
    data: bytes, body: object, framing: Framing
) -> None:
    exc = await failure(Reply(status=400, body=data, framing=framing))
    assert exc.body == body
    said = shorten(str(body))
    assert exc.message == (f"Error code: 400 - {said}" if body else "Error code: 400")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_body_is_unpacked(encoding: Encoding) -> None:
    exc = await failure(error_reply(400, encoding=encoding))
    assert exc.body == writer_error(400)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_only_claims_to_be_compressed(encoding: Encoding) -> None:
    exc = await failure(error_reply(400, "plain", headers={"content-encoding": encoding}))
    assert type(exc) is BadRequestError
    assert exc.message == "Error code: 400"


async def test_a_body_is_read_up_to_a_limit() -> None:
    limits = Limits(max_error_bytes=100)
    body = [b"x" * 40] * 10
    exc = await failure(Reply(status=500, body=[*body, Stall()]), limits=limits)
    assert exc.body == "x" * 100


async def test_the_limit_holds_for_what_was_unpacked() -> None:
    reply = Reply(status=500, body=b"x" * 10_000_000, encoding="gzip")
    exc = await failure(reply, limits=Limits(max_error_bytes=100))
    assert exc.body == "x" * 100


@pytest.mark.parametrize("body", [b"", b"the first words"])
async def test_a_body_that_stalls_is_not_waited_for(body: bytes) -> None:
    limits = Limits(error_body_time=0.05)
    exc = await failure(Reply(status=400, body=[body, Stall()]), limits=limits)
    assert type(exc) is BadRequestError
    assert exc.body == (body.decode() or None)


@pytest.mark.parametrize("end", [Cut(), Reset(), Raw(b"zzz\r\n")])
async def test_a_body_that_breaks_gives_what_there_is(end: Any) -> None:
    exc = await failure(Reply(status=422, body=[b"the first words", end]))
    assert type(exc) is UnprocessableEntityError
    # A reset may overtake what was sent before it.
    assert exc.body == "the first words" or (end == Reset() and exc.body is None)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-request-id": "a"}, "a"),
        ({"X-Request-ID": "a", "request-id": "b"}, "a"),
        ({"x-request-id": "", "request-id": "b"}, "b"),
        ({"request-id": "b", "cf-ray": "e"}, "b"),
        ({"x-amzn-RequestId": "c"}, "c"),
        ({"apim-request-id": "d"}, "d"),
        ({"cf-ray": "e"}, "e"),
        ({}, None),
    ],
)
async def test_the_request_id_has_many_names(headers: dict[str, str], expected: str | None) -> None:
    given = {"x-request-id": None, **headers}
    if "X-Request-ID" in headers:
        del given["x-request-id"]
    exc = await failure(error_reply(400, "no", headers=given))
    assert exc.request_id == expected
    assert str(exc) == "Error code: 400 - no" + (f" (request id: {expected})" if expected else "")
    async with ChatServer(text_reply(done=True, headers=given)) as server:
        async with stream_to(server) as stream:
            assert stream.request_id == expected


async def test_204_and_other_successes_are_no_errors_here() -> None:
    """What they lack is said when somebody reads."""
    async with ChatServer(Reply(status=204)) as server:
        with pytest.raises(APIConnectionError):
            async with stream_to(server) as stream:
                assert stream.response is not None
                assert stream.response.status_code == 204
                await stream.until_done()


# What stays behind: nothing.


@pytest.mark.parametrize("module", [httpx, httpx2])
async def test_a_connection_goes_on_after_a_4xx_that_was_read_whole(module: Any) -> None:
    async with (
        ChatServer(error_reply(400), error_reply(401, ""), text_reply(done=True)) as server,
        module.AsyncClient(trust_env=False) as client,
    ):
        for _ in range(2):
            with pytest.raises(APIStatusError):
                async with stream_to(server, client=client):
                    pass
        async with stream_to(server, client=client) as stream:
            await stream.until_done()
        assert len(server.connections) == 1
        assert server.connections[0].peer_left is None


@pytest.mark.parametrize("module", [httpx, httpx2])
@pytest.mark.parametrize("end", [Stall(), Cut(), b"x" * 300_000])
async def test_a_connection_with_an_error_that_was_not_read_whole_is_closed(
    module: Any, end: Any
) -> None:
    limits = Limits(error_body_time=0.05, max_error_bytes=1000)
    pool = module.Limits(max_connections=1)
    async with (
        ChatServer(Reply(status=400, body=[b"x", end]), text_reply("Hi", done=True)) as server,
        module.AsyncClient(trust_env=False, limits=pool) as client,
    ):
        with anyio.fail_after(HANGS):
            with pytest.raises(BadRequestError):
                async with stream_to(server, client=client, limits=limits):
                    pass
            await server.wait_disconnect(0)
            async with stream_to(server, client=client) as stream:  # its slot is free again
                assert await stream.get_final_text() == "Hi"


async def test_a_stream_of_its_own_closes_its_connection_after_an_error() -> None:
    async with ChatServer(error_reply(400)) as server:
        with pytest.raises(BadRequestError):
            async with stream_to(server):
                pass
        with anyio.fail_after(HANGS):
            request = await server.wait_disconnect(0)
        assert request.answered


async def test_a_failed_opening_gives_its_slot_back() -> None:
    async with (
        ChatServer(error_reply(400), text_reply("Hi", done=True)) as server,
        AsyncWriter(api_key=KEY, base_url=server.url, max_connections=1) as writer,
    ):
        for _ in range(3):
            server.add(error_reply(400))
        with anyio.fail_after(HANGS):
            with pytest.raises(BadRequestError):
                async with writer.chat.stream(model="m", messages=MESSAGES):
                    pass
            async with writer.chat.stream(model="m", messages=MESSAGES) as stream:
                assert await stream.get_final_text() == "Hi"


async def test_a_response_that_was_read_already_is_no_trouble() -> None:
    """Caching and logging transports do that."""
    body = {"error": "no"}
    async with mock_client(lambda _: httpx.Response(400, json=body)) as client:
        with pytest.raises(BadRequestError) as caught:
            async with stream_to("http://x", client=client):
                pass
    assert caught.value.body == body


# Copies.


def classes() -> list[type[WriterError]]:
    found = [each for _, each in inspect.getmembers(errors, inspect.isclass)]
    return [each for each in found if issubclass(each, WriterError)]


def filled(cls: type[WriterError]) -> WriterError:
    completion: ParsedChatCompletion[Any] = ParsedChatCompletion(id="c", model="m")
    if issubclass(cls, APIError):
        request = httpx.Request("POST", "http://x/v1/chat", headers={"authorization": KEY})
        return cls(
            "What happened.",
            request=request,
            response=httpx.Response(429, request=request, content=b"no", headers={"a": "b"}),
            body={"error": ["no"]},
            request_id="r",
            completion=completion,
        )
    if issubclass(cls, StreamClosedError):
        return cls("What happened.", completion=completion)
    return cls("What happened.")


@pytest.mark.parametrize("cls", classes())
@pytest.mark.parametrize(
    "clone",
    [copy.copy, copy.deepcopy, *(lambda e, p=p: pickle.loads(pickle.dumps(e, p)) for p in (2, 5))],  # noqa: S301
    ids=["copy", "deepcopy", "pickle 2", "pickle 5"],
)
def test_every_exception_can_be_copied_and_pickled(cls: type[WriterError], clone: Any) -> None:
    exc = filled(cls)
    again = clone(exc)
    assert type(again) is cls
    assert (str(again), again.args) == (str(exc), exc.args)
    assert vars(again).keys() == vars(exc).keys()
    for name in ("message", "body", "request_id", "completion", "status_code"):
        assert getattr(again, name, None) == getattr(exc, name, None)
    if isinstance(again, APIError):
        assert again.status_code == 429
        assert again.response is not None
        assert again.response.headers["a"] == "b"
        assert again.request is not None
        assert str(again.request.url) == "http://x/v1/chat"


def test_an_exception_can_be_made_of_a_message_alone() -> None:
    for cls in classes():
        exc = cls("What happened.")
        assert str(exc) == "What happened."
        assert getattr(exc, "status_code", None) is None


@pytest.mark.parametrize("module", [httpx, httpx2])
async def test_a_real_error_can_be_pickled(module: Any) -> None:
    async with ChatServer(error_reply(400)) as server, module.AsyncClient() as client:
        with pytest.raises(BadRequestError) as caught:
            async with stream_to(server, client=client):
                pass
    for again in (
        pickle.loads(pickle.dumps(caught.value)),  # noqa: S301 - our own
        copy.deepcopy(caught.value),
    ):
        assert (str(again), again.body) == (str(caught.value), writer_error(400))
        assert again.response.headers["x-request-id"] == "req-0"
        assert again.request.url == caught.value.request.url  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [404, 405])
async def test_where_nothing_was_found(status: int) -> None:
    exc = await failure(
        error_reply(status, "no"),
        path="/v1/chat/v1/chat",
        extra_query={"token": "hidden"},
    )
    assert exc.request is not None
    place = exc.request.url.copy_with(query=None)
    assert exc.message == f"Error code: {status} - no (from {place})"


async def test_a_long_body_is_shortened_in_the_message_alone() -> None:
    page = "<html>" + "x" * 50_000
    exc = await failure(error_reply(502, page))
    assert exc.body == page
    assert len(str(exc)) < 2_200
    assert str(exc).startswith("Error code: 502 - <html>xxx")
    assert "50006 bytes" in str(exc)
