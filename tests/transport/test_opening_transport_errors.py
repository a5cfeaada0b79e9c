"""Whatever a transport raises, at whatever point, comes out as one of our exceptions."""

from __future__ import annotations

import inspect
import ssl
import zlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
import h11
import httpcore
import httpcore2
import httpx
import httpx2
import pytest

from anyio_writer import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ConnectTimeoutError,
    StreamTruncatedError,
    WriterError,
)
from tests.transport.opening_helpers import HANGS, KEY, WHOLE, stream_to

SAID = "the transport's own words"
PIECE = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'


def errors_of(module: Any) -> list[Exception]:
    """One of each class of exception that a library exports."""
    found: list[Exception] = []
    for _, cls in inspect.getmembers(module, inspect.isclass):
        if issubclass(cls, Exception) and not issubclass(cls, Warning):
            try:
                found.append(cls(SAID))
            except TypeError:  # it wants a request and a response, or nothing at all
                try:
                    request = module.Request("POST", "http://x")
                    found.append(
                        cls(SAID, request=request, response=module.Response(500, request=request))
                    )
                except (TypeError, AttributeError):
                    found.append(cls())
    return found


LOW_LEVEL: list[Exception] = [
    *(ConnectionResetError(104, SAID), BrokenPipeError(32, SAID), OSError(113, SAID)),
    *(TimeoutError(110, SAID), ssl.SSLError(1, SAID), ssl.SSLCertVerificationError(SAID)),
    *(anyio.BrokenResourceError(), anyio.ClosedResourceError(), anyio.EndOfStream()),
    *(h11.RemoteProtocolError(SAID), h11.LocalProtocolError(SAID)),
]
ALL = [
    *((httpx, exc) for exc in [*errors_of(httpx), *errors_of(httpcore), *LOW_LEVEL]),
    *((httpx2, exc) for exc in [*errors_of(httpx2), *errors_of(httpcore2)]),
]
EVERY = pytest.mark.parametrize(
    ("module", "exc"),
    ALL,
    ids=[f"{type(exc).__module__.partition('.')[0]}.{type(exc).__name__}" for _, exc in ALL],
)


def test_the_libraries_export_what_is_expected() -> None:
    for module in (httpx, httpx2):
        names = {type(exc).__name__ for exc in errors_of(module)}
        assert names >= {
            *("ConnectError", "ConnectTimeout", "ReadError", "ReadTimeout", "WriteError"),
            *("WriteTimeout", "PoolTimeout", "CloseError", "ProxyError", "UnsupportedProtocol"),
            *("LocalProtocolError", "RemoteProtocolError", "DecodingError", "TooManyRedirects"),
            *("InvalidURL", "StreamError", "StreamConsumed", "StreamClosed", "ResponseNotRead"),
            *("RequestNotRead", "CookieConflict", "HTTPStatusError", "HTTPError"),
        }


def client_that_raises(module: Any, exc: Exception, *pieces: bytes) -> tuple[Any, list[str]]:
    """A client whose transport fails: while sending, or after some pieces of a body."""
    closed: list[str] = []

    class Body(module.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in pieces:
                if piece:
                    yield piece
            raise exc

        async def aclose(self) -> None:
            closed.append("body")

    class Transport(module.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            if not pieces:
                raise exc
            return module.Response(200, stream=Body())

    return module.AsyncClient(transport=Transport()), closed


def check(error: WriterError, exc: Exception, *, completion: bool) -> None:
    assert isinstance(error, APIConnectionError)
    assert error.__cause__ is exc
    assert not isinstance(error, APIStatusError)
    assert type(exc).__name__ in str(error)
    assert (str(exc) in str(error)) or not str(exc)
    assert error.request is not None
    assert error.request.method == "POST"
    assert (error.completion is not None) == completion
    assert KEY not in str(error)
    name = type(exc).__name__
    if name == "ConnectTimeout":
        assert type(error) is ConnectTimeoutError
    assert isinstance(error, APITimeoutError) == (
        name in ("ConnectTimeout", "ReadTimeout", "WriteTimeout", "PoolTimeout")
    )


@EVERY
async def test_while_sending(module: Any, exc: Exception) -> None:
    client, _ = client_that_raises(module, exc)
    async with client:
        with anyio.fail_after(HANGS), pytest.raises(WriterError) as caught:
            async with stream_to("http://x", client=client, max_retries=0):
                raise AssertionError
    check(caught.value, exc, completion=False)
    assert caught.value.response is None  # type: ignore[attr-defined]


@EVERY
@pytest.mark.parametrize("pieces", [(b"",), (PIECE,)], ids=["first read", "mid body"])
async def test_while_reading(module: Any, exc: Exception, pieces: tuple[bytes, ...]) -> None:
    client, closed = client_that_raises(module, exc, *pieces)
    types: list[str] = []
    async with client:
        with anyio.fail_after(HANGS), pytest.raises(WriterError) as caught:
            async with stream_to("http://x", client=client) as stream:
                async for event in stream:
                    types.append(event.type)
    check(caught.value, exc, completion=bool(pieces[0]))
    assert types == (["chunk", "content.delta"] if pieces[0] else [])
    assert closed
    assert caught.value.response.status_code == 200  # type: ignore[attr-defined]


@EVERY
async def test_after_the_answer_is_complete_it_does_not_matter(module: Any, exc: Exception) -> None:
    client, closed = client_that_raises(module, exc, WHOLE)
    async with client, stream_to("http://x", client=client) as stream:
        assert await stream.get_final_text() == "Hi"
    assert closed


@pytest.mark.parametrize("module", [httpx, httpx2])
@pytest.mark.parametrize("exc", [ValueError("mine"), RuntimeError("mine"), KeyError("mine")])
async def test_an_error_of_the_callers_own_transport_is_not_renamed(
    module: Any, exc: Exception
) -> None:
    client, _ = client_that_raises(module, exc)
    async with client:
        with pytest.raises(type(exc)) as caught:
            async with stream_to("http://x", client=client):
                raise AssertionError
    assert caught.value is exc


@pytest.mark.parametrize("module", [httpx, httpx2])
async def test_a_body_that_is_cut_is_truncated(module: Any) -> None:
    words = "peer closed connection without sending complete message body (incomplete chunked read)"
    client, _ = client_that_raises(module, module.RemoteProtocolError(words), PIECE)
    async with client:
        with pytest.raises(StreamTruncatedError) as caught:
            async with stream_to("http://x", client=client) as stream:
                await stream.until_done()
    assert isinstance(caught.value.__cause__, module.RemoteProtocolError)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("module", [httpx, httpx2])
@pytest.mark.parametrize("status", [200, 400])
async def test_a_body_that_is_not_compressed_as_it_claims(
    module: Any, encoding: str, status: int
) -> None:
    def answer(request: Any) -> Any:
        async def body() -> AsyncIterator[bytes]:
            yield b"this is not compressed"
            yield b"at all"

        headers = {"content-encoding": encoding}
        return module.Response(status, headers=headers, content=body())

    async with module.AsyncClient(transport=module.MockTransport(answer)) as client:
        with pytest.raises(APIConnectionError if status == 200 else APIStatusError) as caught:
            async with stream_to("http://x", client=client) as stream:
                await stream.until_done()
    if status == 200:
        assert isinstance(caught.value.__cause__, zlib.error)
