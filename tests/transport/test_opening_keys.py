"""Where the key comes from, and where it never goes."""

from __future__ import annotations

import json
import logging
import pickle
import pprint
import traceback
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import anyio
import httpx
import httpx2
import pytest
from rich.pretty import pretty_repr

from anyio_writer import (
    APIError,
    APIStatusError,
    AsyncWriter,
    AuthenticationError,
    ConfigurationError,
    InternalServerError,
    WriterError,
    open_chat_stream,
)
from anyio_writer.config import resolve_endpoint
from anyio_writer.testing import (
    ChatServer,
    RecordedRequest,
    Reply,
    error_frame,
    error_reply,
    text_reply,
)
from tests.transport.opening_helpers import HANGS, KEY, MESSAGES, mock_client, stream_to

REQUEST: dict[str, Any] = {"model": "m", "messages": MESSAGES}


@pytest.fixture(autouse=True)
def _no_key_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WRITER_API_KEY", raising=False)


# Where it comes from.


@pytest.mark.parametrize("key", [None, "", "  ", "\r\n"])
@pytest.mark.parametrize("environment", [None, "", " \n"])
def test_a_missing_key_is_an_error_before_any_socket(
    key: str | None, environment: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment is not None:
        monkeypatch.setenv("WRITER_API_KEY", environment)
    message = "^There is no API key: pass api_key=.* set the environment variable WRITER_API_KEY.$"
    with pytest.raises(ConfigurationError, match=message):
        AsyncWriter(api_key=key)
    with pytest.raises(ConfigurationError, match=message):
        open_chat_stream(api_key=key, **REQUEST)


@pytest.mark.parametrize(
    ("argument", "environment", "expected"),
    [
        ("given", "environment", "given"),
        (None, "environment", "environment"),
        (" given\r\n", None, "given"),
        (None, "\tenvironment \n", "environment"),
        ("with space", None, "with space"),
    ],
)
async def test_the_argument_goes_before_the_environment_and_both_are_trimmed(
    argument: str | None,
    environment: str | None,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if environment is not None:
        monkeypatch.setenv("WRITER_API_KEY", environment)
    async with ChatServer(text_reply(done=True)) as server:
        async with open_chat_stream(api_key=argument, base_url=server.url, **REQUEST) as stream:
            await stream.until_done()
    assert server.requests[0].header("authorization") == f"Bearer {expected}"


@pytest.mark.parametrize("inside", ["\n", "\0", "\x7f", "\t", "é", "…", "\u200b", "\ud800"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(
    inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = f"sk-first{inside}second"
    monkeypatch.setattr("os.environ", {"WRITER_API_KEY": key})  # the real one takes less
    for given in (key, None):
        with pytest.raises(ConfigurationError, match="holds a control character or one") as caught:
            AsyncWriter(api_key=given)
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.args)
        assert "sk-first" not in shown.replace(__file__, "")
        assert caught.value.__cause__ is None


# Where it never goes.


def test_it_is_in_no_repr() -> None:
    writer = AsyncWriter(api_key=KEY, base_url="https://example.com")
    endpoint = resolve_endpoint(api_key=KEY, base_url="https://example.com")
    for thing in (writer, writer.chat, endpoint, writer.chat.stream(**REQUEST)):
        for shown in (repr(thing), str(thing), f"{thing}", pprint.pformat(thing)):
            assert KEY not in shown
        assert KEY not in pretty_repr(thing)  # msgspec tells rich more than it tells repr
    assert repr(endpoint) == "Endpoint(url='https://example.com/v1/chat', max_retries=2)"


@pytest.mark.parametrize(
    "url",
    [
        "https://me:s3cr3t@example.com",
        "https://s3cr3t@example.com/v1",
        "https://me:s3@cr3t@example.com",
        "https://me:s3cr3t/x@example.com",
        "ftp://me:s3cr3t@x",
        "me:p@s3cr3t@x",
    ],
)
@pytest.mark.parametrize("where", ["argument", "environment"])
def test_a_password_in_the_url_is_refused_unseen(
    url: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take the place of the key, and httpx would log it."""
    given: Any = {"base_url": url}
    if where == "environment":
        monkeypatch.setenv("WRITER_BASE_URL", given.pop("base_url"))
    with pytest.raises(ConfigurationError, match="user name or a password") as caught:
        AsyncWriter(api_key=KEY, **given)
    assert "cr3t" not in "".join(traceback.format_exception(caught.value))


def test_an_at_sign_in_the_path_is_no_password() -> None:
    assert AsyncWriter(api_key=KEY, base_url="https://example.com/@me")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def everything_shown(exc: BaseException) -> str:
    """All that a logger, a debugger's first look or a crash report would print of it."""
    parts = [*traceback.format_exception(exc)]
    seen: BaseException | None = exc
    while seen is not None:
        parts += [str(seen), repr(seen), repr(seen.args), pprint.pformat(vars(seen))]
        if isinstance(seen, APIError):
            assert seen.request is not None
            parts += [repr(seen.request), str(seen.request), repr(seen.request.headers)]
            parts += [str(seen.request.headers), repr(seen.response), repr(seen.body)]
            parts += [pretty_repr(seen.request), pretty_repr(seen.response)]
        if isinstance(seen, APIError) and seen.response is not None:
            parts += [repr(seen.response.headers), repr(seen.response.request.headers)]
        seen = seen.__cause__ or seen.__context__
    return "\n".join(parts)


def echo(status: int, *, kind: str) -> Any:
    """A server that repeats the header in its refusal."""

    def reply(request: RecordedRequest) -> Reply:
        said = f"wrong: {request.header('authorization')}"
        body: Any = said if kind == "text" else {"error": {"message": said, said: [said]}}
        return error_reply(status, body)

    return reply


@pytest.mark.parametrize("kind", ["text", "json"])
@pytest.mark.parametrize("module", [httpx, httpx2])
async def test_a_server_that_repeats_it_does_not_get_it_shown(
    kind: str, module: Any, log: pytest.LogCaptureFixture
) -> None:
    async with (
        ChatServer(echo(401, kind=kind)) as server,
        module.AsyncClient(trust_env=False) as client,
    ):
        with pytest.raises(AuthenticationError) as caught:
            async with stream_to(server, client=client):
                pass
    assert server.requests[0].header("authorization") == f"Bearer {KEY}"  # it was the real one
    assert KEY not in everything_shown(caught.value)
    assert "[the API key]" in str(caught.value.body)
    assert log.records
    assert KEY not in log.text
    assert all(KEY not in repr(vars(record)) for record in log.records)


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("sk/with/slashes/in/it", r"sk\/with\/slashes\/in\/it"),
        ('sk"with\\quotes-in-it', r"sk\"with\\quotes-in-it"),
        ("sk-plain-key-0123", r"sk\u002dplain\u002dkey\u002d0123"),
    ],
)
async def test_nor_if_it_is_repeated_in_escapes(key: str, written: str) -> None:
    body = f'{{"error": "key {written} is wrong"}}'
    async with ChatServer(error_reply(401, body)) as server:
        with pytest.raises(AuthenticationError) as caught:
            async with stream_to(server, api_key=key):
                pass
    assert key not in str(caught.value)
    assert caught.value.body == {"error": "key [the API key] is wrong"}


SECRET = "other+9876543210/="

CREDENTIALS: dict[str, Any] = {
    "authorization in headers": {"headers": {"Authorization": f"Basic {SECRET}"}},
    "authorization in extra_headers": {"extra_headers": {"authorization": f"Bearer {SECRET}"}},
    "a key of a gateway": {"headers": {"api-key": SECRET}},
    "a key by another name": {"extra_headers": {"Ocp-Apim-Subscription-Key": SECRET}},
    "a token": {"headers": {"X-Auth-Token": SECRET}},
    "a cookie": {"headers": {"cookie": SECRET}},
    "a proxy's": {"headers": {"proxy-authorization": f"Basic {SECRET}"}},
    "in the query": {"extra_query": {"api_key": SECRET}},
}


def echo_all(status: int) -> Any:
    """A server that repeats all it got: in the body, in a header, and as the request's id."""

    def reply(request: RecordedRequest) -> Reply:
        got = f"{dict(request.headers)} {unquote(request.target)}"
        assert SECRET in got
        frame = f"data: {json.dumps({'error': {'message': got}})}\n\n"
        headers = {"x-request-id": SECRET, "x-you-are": got}
        if status == 200:
            return Reply(body=frame.encode(), headers=headers)
        return error_reply(status, {"error": {"message": got}}, headers=headers)

    return reply


@pytest.mark.parametrize("status", [200, 401, 500])
@pytest.mark.parametrize("given", CREDENTIALS.values(), ids=CREDENTIALS)
async def test_other_credentials_are_not_shown_either(given: Any, status: int) -> None:
    """They come in headers and in the query, under the names that are usual for them."""
    async with ChatServer(echo_all(status)) as server:
        with pytest.raises(APIError) as caught:
            async with stream_to(server, max_retries=0, **given) as stream:
                await stream.until_done()
    assert SECRET not in unquote(everything_shown(caught.value))
    assert caught.value.request is not None
    assert SECRET not in unquote(str(caught.value.request.url))
    assert SECRET.encode() not in pickle.dumps(caught.value)
    assert "[a credential]" in str(caught.value.body)


@pytest.mark.parametrize("module", [httpx, httpx2])
async def test_nor_those_of_a_client_of_ones_own(module: Any) -> None:
    """Its ``auth`` puts them in while it sends."""
    password = "another-9876543210"
    basic = b64encode(f"me:{password}".encode()).decode()
    async with (
        ChatServer(echo(401, kind="text")) as server,
        module.AsyncClient(trust_env=False, auth=("me", password)) as client,
    ):
        with pytest.raises(AuthenticationError) as caught:
            async with stream_to(server, client=client):
                pass
    assert server.requests[0].header("authorization") == f"Basic {basic}"
    assert basic not in everything_shown(caught.value)
    assert basic.encode() not in pickle.dumps(caught.value)


async def test_other_headers_are_shown() -> None:
    headers = {"idempotency-key": "a-key-of-mine-0123", "x-tenant": "tenant-0123456789"}
    async with ChatServer(error_reply(401)) as server:
        with pytest.raises(APIError) as caught:
            async with stream_to(server, headers=headers):
                pass
    assert caught.value.request is not None
    assert headers.items() <= dict(caught.value.request.headers).items()


async def test_nor_in_the_place_of_a_redirect() -> None:
    location = f"http://elsewhere.invalid/?key={KEY}"
    async with ChatServer(Reply(status=307, headers={"location": location})) as server:
        with pytest.raises(APIStatusError) as caught:
            async with stream_to(server):
                pass
    assert "elsewhere.invalid" in str(caught.value)
    assert KEY not in str(caught.value)


async def test_it_is_in_nothing_printed_when_a_connection_fails(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    async with mock_client(answer) as client:
        with pytest.raises(APIError) as caught:
            async with stream_to("http://host.invalid", client=client, max_retries=0):
                pass
    assert KEY not in everything_shown(caught.value)
    assert KEY not in log.text


async def test_it_is_in_no_log_of_a_good_stream(log: pytest.LogCaptureFixture) -> None:
    async with ChatServer(text_reply(done=True)) as server:
        async with stream_to(server) as stream:
            await stream.until_done()
            assert KEY not in repr(stream)
            assert KEY not in repr(stream.response)
    assert {record.name.partition(".")[0] for record in log.records} >= {"httpx", "httpcore"}
    assert KEY not in log.text
    assert all(KEY not in repr(vars(record)) for record in log.records)


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_it_never_follows_a_redirect_to_another_origin(status: int) -> None:
    async with ChatServer(text_reply(done=True)) as other:
        location = f"{other.url}/v1/chat"
        async with ChatServer(Reply(status=status, headers={"location": location})) as server:
            with pytest.raises(APIStatusError) as caught:
                async with stream_to(server):
                    pass
        assert caught.value.status_code == status
        assert str(caught.value).startswith(
            f"Error code: {status} (a redirect to {location}, which is not followed)"
        )
        assert len(server.requests) == 1
        assert other.connections == []


@pytest.mark.parametrize("follow_redirects", [True, False])
@pytest.mark.parametrize("module", [httpx, httpx2])
async def test_not_even_with_a_client_that_follows_redirects(
    module: Any, *, follow_redirects: bool
) -> None:
    async with ChatServer(text_reply(done=True)) as other:
        reply = Reply(status=307, headers={"location": other.url})
        async with (
            ChatServer(reply) as server,
            module.AsyncClient(follow_redirects=follow_redirects, trust_env=False) as client,
        ):
            with pytest.raises(APIStatusError):
                async with stream_to(server, client=client):
                    pass
        assert other.connections == []


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("where", ["/new", "new", "?a=b", "{url}/new"])
async def test_a_redirect_at_home_is_followed_with_body_and_key(status: int, where: str) -> None:
    with anyio.fail_after(HANGS):
        async with ChatServer() as server:
            location = where.format(url=server.url)
            server.add(
                Reply(status=status, headers={"location": location}, body=b"over there"),
                text_reply("Found", done=True),
            )
            async with stream_to(server) as stream:
                assert await stream.get_final_text() == "Found"
                assert stream.response is not None
                assert stream.response.status_code == 200
    first, second = server.requests
    assert second.target == {"/new": "/new", "new": "/v1/new", "?a=b": "/v1/chat?a=b"}.get(
        where, "/new"
    )
    assert second.method == "POST"
    assert second.body == first.body
    for name in ("authorization", "content-type", "accept", "accept-encoding", "user-agent"):
        assert second.header(name) == first.header(name)


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_redirect_that_would_make_it_a_get_is_not_followed(status: int) -> None:
    async with ChatServer(Reply(status=status, headers={"location": "/new"})) as server:
        with pytest.raises(APIStatusError, match=f"^Error code: {status} "):
            async with stream_to(server):
                pass
    assert len(server.requests) == 1


async def test_a_circle_of_redirects_ends() -> None:
    async with ChatServer(Reply(status=307, headers={"location": "/v1/chat"})) as server:
        with anyio.fail_after(HANGS), pytest.raises(APIStatusError, match=r"^Error code: 307 "):
            async with stream_to(server):
                pass
    assert len(server.requests) == 6


@pytest.mark.parametrize("headers", [{}, {"location": ""}, {"location": "http://[::1"}])
async def test_a_redirect_to_nowhere_is_an_error_of_ours(headers: dict[str, str]) -> None:
    async with ChatServer(Reply(status=307, headers=headers)) as server:
        with pytest.raises(APIError):
            async with stream_to(server, max_retries=0):
                pass


async def test_a_redirected_request_that_fails_is_tried_again_from_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def at_once(seconds: float) -> None:
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(anyio, "sleep", at_once)
    redirect = Reply(status=308, headers={"location": "/new"})
    async with ChatServer(
        redirect, error_reply(503), redirect, text_reply("Found", done=True)
    ) as server:
        async with stream_to(server) as stream:
            assert await stream.get_final_text() == "Found"
    assert [request.path for request in server.requests] == ["/v1/chat", "/new"] * 2


async def test_pickling_an_error_is_the_callers_own_decision() -> None:
    """What is printed hides the key; the request object itself is whole, as httpx made it."""
    async with ChatServer(error_reply(500)) as server:
        with pytest.raises(InternalServerError) as caught:
            async with stream_to(server, max_retries=0):
                pass
    again: WriterError = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert KEY not in everything_shown(again)


@pytest.mark.parametrize(
    "body",
    [
        error_frame("openai", f"bad key {KEY}"),
        error_frame("string", f"bad key {KEY}"),
        b"data: nonsense " + KEY.encode() + b"\n\n",
        b'{"error": {"message": "bad key ' + KEY.encode() + b'"}}',
        b"bad key " + KEY.encode(),
    ],
)
async def test_errors_inside_a_200_do_not_show_it_either(body: bytes) -> None:
    async with ChatServer(Reply(body=[body])) as server:
        with pytest.raises(APIError) as caught:
            async with open_chat_stream(api_key=KEY, base_url=server.url, **REQUEST) as stream:
                await stream.until_done()
    shown = "".join(traceback.format_exception(caught.value, chain=False))
    assert "the API key" in shown + repr(caught.value.body)
    assert KEY not in shown + repr(caught.value.body) + repr(caught.value.args)
