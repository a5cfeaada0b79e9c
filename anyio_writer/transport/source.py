"""Where the bytes come from: one HTTP response, or any iterable. Opens, reads, closes."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

from .._version import __version__
from ..config import Endpoint, Limits
from ..errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    WriterError,
    status_error_class,
)
from ..protocol.json import is_array, is_object, parse_json, shorten
from ..request.encoding import encode_body
from .body import Body, closing
from .client import (
    Client,
    build_request,
    is_transport_error,
    make_client,
    translate,
    translated_errors,
)
from .retries import with_retries

if TYPE_CHECKING:
    import httpx

_REQUEST_ID_HEADERS: Final = (
    "x-request-id",
    "request-id",
    "x-amzn-requestid",
    "apim-request-id",
    "cf-ray",
)
_SUCCESS: Final = range(200, 300)
_MISDIRECTED: Final = (404, 405)
"""Of these, the URL may well be the reason."""
_SAME_METHOD_REDIRECTS: Final = (307, 308)
_MAX_REDIRECTS: Final = 5
_SHORTEST_SECRET: Final = 8  # "test" is no secret, and stands in many a sentence


class Clock(Protocol):
    """The time limits that run while a request is sent."""

    def opening(self) -> None:
        """A free connection, or the time of a retry, is awaited."""
        ...

    def request_sent(self) -> None:
        """A request goes out."""
        ...


class ByteSource(Protocol):
    """What a stream reads from. All of it runs in one task."""

    @property
    def response(self) -> httpx.Response | None:
        """What the server answered, as far as it has."""
        ...

    @property
    def request(self) -> httpx.Request | None:
        """What was sent."""
        ...

    async def open(self, clock: Clock) -> None:
        """Get to the first byte of the body."""
        ...

    def read(self) -> Awaitable[bytes]:
        """The next bytes; empty at the end. Raises whatever the transport raises."""
        ...

    def __aiter__(self) -> AsyncIterator[Any]:
        """The same without a layer in between: the pieces as they come, perhaps empty."""
        ...

    def as_bytes(self, piece: Any) -> bytes:
        """A piece that is not of type ``bytes`` as bytes; raises if it has none."""
        ...

    def translate(self, exc: Exception) -> Exception:
        """The exception of ours that stands for one that came out of ``read``."""
        ...

    def redact(self, said: Any) -> Any:
        """What a server said, without what must not be repeated."""
        ...

    async def aclose(self) -> None:
        """Let go of everything. The caller shields and bounds this."""
        ...


class Gate(Protocol):
    """What limits how many streams may be open."""

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Wait for a slot."""
        ...

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give it back."""
        ...


class IterableSource:
    """Any asynchronous iterable of bytes: a recording, a relay, another client."""

    response = None
    request = None

    def __init__(self, source: AsyncIterable[bytes]) -> None:
        self._body = Body(aiter(source))

    async def open(self, clock: Clock) -> None:
        """Nothing has to be opened."""
        clock.request_sent()

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        return self.as_bytes(await self._body.read())

    def __aiter__(self) -> AsyncIterator[Any]:
        """The pieces as they come."""
        return self._body.pieces()

    def as_bytes(self, piece: Any) -> bytes:
        """Views of bytes are bytes, too."""
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise APIConnectionError(
                f"The source of the stream gave {type(piece).__name__}, not bytes."
            )
        return bytes(piece)  # pyright: ignore[reportUnknownArgumentType]

    def translate(self, exc: Exception) -> Exception:
        """Whatever the source raises is a connection that broke."""
        if isinstance(exc, APIError):
            return exc
        if is_transport_error(exc):
            return translate(exc)
        return APIConnectionError(f"The source of the stream failed: {exc!r}.")

    def redact(self, said: Any) -> Any:
        """No secret is known here."""
        return said

    async def aclose(self) -> None:
        """Close the source, if it is a generator."""
        await self._body.aclose()


class HTTPSource:
    """One streaming request."""

    def __init__(
        self,
        endpoint: Endpoint,
        body: dict[str, Any],
        *,
        client: Client | None,
        gate: Gate | None,
        limits: Limits,
        connect_timeout: float | None,
        extra_headers: Mapping[str, str | None],
        extra_query: Mapping[str, Any] | None,
    ) -> None:
        self.response: httpx.Response | None = None
        self.request: httpx.Request | None = None
        self._endpoint = endpoint
        self._content = encode_body(body)
        self._client = client
        self._own_client: httpx.AsyncClient | None = None
        self._gate = gate
        self._holds_slot = False
        self._limits = limits
        self._connect_timeout = connect_timeout
        self._headers = _merge_headers(
            {
                "accept": "text/event-stream",
                # Compression would hold tokens back until its window fills.
                "accept-encoding": "identity",
                "content-type": "application/json",
                "user-agent": f"anyio_writer/{__version__}",
                "authorization": f"Bearer {endpoint.api_key}",
            },
            endpoint.headers,
            extra_headers,
        )
        self._query = extra_query
        self._body = Body()

    async def open(self, clock: Clock) -> None:
        """Send the request, again if need be, until a response with status 2xx is there.

        Raises:
            APIStatusError: Another status, with the error's body.
            APIConnectionError: No response.
        """
        client = self._client
        if client is None:
            client = self._own_client = make_client(max_connections=1)
        if self._gate is not None:
            # A request that is cancelled while it queues inside httpx's pool keeps its slot for
            # ever, so nobody queues there.
            await self._gate.acquire_on_behalf_of(self)
            self._holds_slot = True

        async def attempt() -> None:
            clock.request_sent()
            await self._send(client)

        await with_retries(
            attempt,
            max_retries=self._endpoint.max_retries,
            before_wait=clock.opening,
        )
        # Thousands of streams may be open, and none is sent again.
        self._content, self._headers = b"", {}

    def read(self) -> Awaitable[bytes]:
        """The next bytes of the body; empty at the end."""
        return self._body.read()

    def __aiter__(self) -> AsyncIterator[Any]:
        """The pieces of the body as they come."""
        return self._body.pieces()

    def as_bytes(self, piece: Any) -> bytes:
        """An HTTP library gives bytes, or a kind of them."""
        return bytes(memoryview(piece))

    def translate(self, exc: Exception) -> Exception:
        """What the HTTP library raises is mapped; bugs in a client's own transport are not."""
        return translate(exc) if is_transport_error(exc) else exc

    async def aclose(self) -> None:
        """Close the response and what was made for it, then give the slot back."""
        try:
            await self._close_response()
            if self._own_client is not None:
                with closing("The HTTP client of a stream"):
                    await self._own_client.aclose()
        finally:
            if self._holds_slot and self._gate is not None:
                self._holds_slot = False
                self._gate.release_on_behalf_of(self)

    async def _send(self, client: Client) -> None:
        if client.is_closed:
            raise WriterError("The HTTP client is closed, so nothing can be sent with it.")
        request = build_request(
            client,
            self._endpoint.url,
            content=self._content,
            headers=self._headers,
            params=self._query or {},
            connect_timeout=self._connect_timeout,
        )
        self.response = None  # of an earlier attempt
        redirects = 0
        while True:
            self.request = request
            with translated_errors(self.redact(_shown_url(request))):
                response: Any = await client.send(
                    request,
                    stream=True,
                    follow_redirects=False,
                )
            self.response = response
            if response.status_code in _SUCCESS:
                self._body = Body.of(response)
                return
            target = response.next_request
            redirects += 1
            if (
                target is None
                or redirects > _MAX_REDIRECTS
                or response.status_code not in _SAME_METHOD_REDIRECTS
                or _origin(target) != _origin(request)
            ):
                break
            await self._close_response()
            target.stream = request.stream
            request = target
        error = await self._status_error(response)
        await self._close_response()
        raise error

    async def _status_error(self, response: httpx.Response) -> APIStatusError:
        data = b""
        body = self._body = Body.of(response)
        with anyio.move_on_after(self._limits.error_body_time):
            try:
                with translated_errors():
                    while len(data) < self._limits.max_error_bytes and (piece := await body.read()):
                        data += piece
            except APIConnectionError:
                pass  # the status says enough
        said = self.redact(parse_json(data[: self._limits.max_error_bytes])) or None
        status = response.status_code
        # The whole of it is in ``body``.
        message = (
            f"Error code: {status} - {shorten(str(said))}" if said else f"Error code: {status}"
        )
        if response.has_redirect_location:
            target = self.redact(response.headers["location"])
            message += f" (a redirect to {target}, which is not followed)"
        elif status in _MISDIRECTED:
            message += f" (from {self.redact(_shown_url(self.request))})"
        return status_error_class(status)(
            message,
            request=self.request,
            response=response,
            body=said,
            request_id=request_id_of(response),
        )

    def redact(self, said: Any) -> Any:
        """Take the key out: some servers repeat it in their refusal of it."""
        key = self._endpoint.api_key
        return _without(key, said) if len(key) >= _SHORTEST_SECRET else said

    async def _close_response(self) -> None:
        with anyio.move_on_after(self._limits.cleanup_time, shield=True):
            try:
                await self._body.aclose()
            finally:
                if self.response is not None:
                    with closing("A response"):
                        await self.response.aclose()


def _without(secret: str, value: Any) -> Any:
    """A decoded JSON value with the secret taken out of its texts, however they were escaped."""
    if isinstance(value, str):
        return value.replace(secret, "[the API key]")
    if is_array(value):
        return [_without(secret, item) for item in value]
    if is_object(value):
        return {_without(secret, name): _without(secret, item) for name, item in value.items()}
    return value


def _merge_headers(*parts: Mapping[str, str | None]) -> dict[str, str | None]:
    """Later ones win, whatever their case."""
    return {name.lower(): value for part in parts for name, value in part.items()}


def request_id_of(response: httpx.Response | None) -> str | None:
    """The server's name for a request, under the spelling it uses."""
    if response is not None:
        for name in _REQUEST_ID_HEADERS:
            if value := response.headers.get(name):
                return str(value)
    return None


def _shown_url(request: Any) -> str:
    """Where a request goes, without a password and without parameters, which may be secret."""
    url = request.url
    return f"{url.scheme}://{url.netloc.decode()}{url.path}"  # netloc holds no password


def _origin(request: Any) -> tuple[str, str, int | None]:
    url = request.url
    return (url.scheme, url.host, url.port)
