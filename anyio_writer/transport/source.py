"""Where the bytes come from: one HTTP response, or any iterable. Opens, reads, closes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Awaitable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

from .._version import __version__
from ..config import Endpoint, StreamSettings, check_headers
from ..errors import (
    MAX_REQUEST_ID,
    APIConnectionError,
    APIError,
    APIStatusError,
    ConfigurationError,
    StreamClosedError,
    WriterError,
    printable,
    status_error_class,
)
from ..protocol.json import parse_json, shorten
from ..request.encoding import encode_body
from ..telemetry.logs import logger
from ..telemetry.recorder import Recorder
from .body import Body, body_of, closing
from .chunked import Reader
from .client import (
    Client,
    build_request,
    client_maker,
    is_transport_error,
    proxy_note,
    rejected_response,
    translate,
)
from .redaction import Redaction
from .retries import pause_before_retry
from .slots import Slot, Slots

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


class Clock(Protocol):
    """The time limits that run while a request is sent."""

    def opening(self) -> None:
        """A free connection, or the time of a retry, is awaited."""
        ...

    def request_sent(self) -> None:
        """A request goes out."""
        ...


class ByteSource(ABC):
    """What a stream reads from. All of it runs in one task.

    Attributes:
        response: What the server answered, as far as it has.
        request: What was sent.
    """

    response: httpx.Response | None = None
    request: httpx.Request | None = None

    @abstractmethod
    async def open(self, clock: Clock, recorder: Recorder) -> None:
        """Get to the first byte of the body."""

    @abstractmethod
    def read(self) -> Awaitable[bytes]:
        """The next bytes; empty at the end. Raises whatever the transport raises."""

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of everything. The caller shields and bounds this."""

    def translate(self, exc: Exception) -> Exception:
        """The exception of ours that stands for one that came out of ``read``."""
        return exc

    def redact(self, said: Any) -> Any:
        """What a server said without what must not be repeated."""
        return said


class IterableSource(ByteSource):
    """Any asynchronous iterable of bytes: a recording, a relay, another client."""

    def __init__(self, source: AsyncIterable[bytes]) -> None:
        self._body = Body(aiter(source))

    async def open(self, clock: Clock, recorder: Recorder) -> None:
        """Nothing has to be opened."""
        clock.request_sent()
        recorder.opened()

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        piece: object = await self._body.read()
        if type(piece) is bytes:
            return piece
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise APIConnectionError(
                f"The source of the stream gave {type(piece).__name__}, not bytes."
            )
        return bytes(piece)

    def translate(self, exc: Exception) -> Exception:
        """Whatever the source raises is a connection that broke."""
        if isinstance(exc, APIError):
            return exc
        if is_transport_error(exc):
            return translate(exc)
        return APIConnectionError(f"The source of the stream failed: {exc!r}.")

    async def aclose(self) -> None:
        """Close the source, if it is a generator."""
        await self._body.aclose()


class HTTPSource(ByteSource):
    """One streaming request.

    It goes out with the client that is given, with one of an ``AsyncWriter``'s, or with a client of
    its own.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        settings: StreamSettings,
        body: dict[str, Any],
        *,
        client: Client | Slots | None,
        extra_headers: Mapping[str, str | None],
        extra_query: Mapping[str, Any] | None,
    ) -> None:
        self._redaction = Redaction(endpoint.api_key)
        self._endpoint = endpoint
        self._limits = settings.limits
        self._connect_timeout = settings.timeouts.connect
        self._content = encode_body(body)
        self._client = client
        self._own_client: httpx.AsyncClient | None = None
        self._slot: Slot | None = None
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
        self._body: Reader | None = None

    async def open(self, clock: Clock, recorder: Recorder) -> None:
        """Send the request, again if need be, until a response with status 2xx is there.

        Raises:
            APIStatusError: Another status, with the error's body.
            APIConnectionError: No response.
        """
        client = self._client
        if isinstance(client, Slots):
            self._slot = await client.acquire(self)
            client = self._slot.client
        elif client is None:
            client = self._own_client = client_maker()(1)
        retries = 0
        while True:
            clock.request_sent()
            try:
                await self._send(client, recorder)
                break
            except Exception as exc:
                pause = pause_before_retry(exc, retries, self._endpoint.max_retries)
                if pause:
                    clock.opening()
                recorder.attempt_failed(exc, pause)
                if pause is None:
                    raise
            if pause:
                retries += 1
                await anyio.sleep(pause)
        # Thousands of streams may be open, and none is sent again.
        self._content, self._headers = b"", {}

    def read(self) -> Awaitable[bytes]:
        """The next bytes of the body; empty at the end."""
        if self._body is None:
            raise StreamClosedError("The response is closed.")
        return self._body.read()

    def translate(self, exc: Exception) -> Exception:
        """What the HTTP library raises is mapped; bugs in a client's own transport are not."""
        self._redaction.clean_exception(exc)
        return translate(exc) if is_transport_error(exc) else exc

    def redact(self, said: Any) -> Any:
        """What a server said without the API key and other credentials."""
        return self._redaction(said)

    async def aclose(self) -> None:
        """Close the response and what was made for it, then give the slot back."""
        try:
            await self._close_response()
            if self._own_client is not None:
                with closing("The HTTP client of a stream"):
                    await self._own_client.aclose()
        finally:
            slot, self._slot = self._slot, None
            if slot is not None:
                slot.release(self)

    async def _send(self, client: Client, recorder: Recorder) -> None:
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
        _add_headers(request, recorder.request_prepared(_shown_url(request), self._content))
        redirects = 0
        while True:
            self.request = request
            try:
                response = await self._exchange(client, request)
            finally:
                self._redaction.clean_request(request)
            self._redaction.clean_headers(response)
            self.response = response
            recorder.headers_received(response)
            if response.status_code in _SUCCESS:
                self._body = body_of(response)
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
            await self._leave_response()
            target.stream = request.stream
            request = target
        error = await self._status_error(response)
        await self._leave_response()
        raise error

    async def _exchange(self, client: Any, request: httpx.Request) -> Any:
        """Send a request; returns the response, of which the body is still to be read."""
        try:
            return await client.send(request, stream=True, follow_redirects=False)
        except Exception as exc:
            if (response := rejected_response(exc, request)) is not None:
                return response
            self._redaction.learn(request)
            self._redaction.clean_exception(exc)
            clients = None if self._slot is None else self._slot.clients
            if is_transport_error(exc):
                error = translate(exc, self.redact(_shown_url(request)))
                if self._own_client is not None or (clients is not None and clients.is_ours):
                    error.message += proxy_note(request.url.host)
                    error.args = (error.message,)
                raise error from exc
            if clients is not None and clients.was_elsewhere and type(exc) is RuntimeError:
                raise WriterError(
                    "The client that was given to this AsyncWriter was used in another event loop "
                    "before, and has connections of it. Make a client for each event loop."
                ) from exc
            raise

    async def _status_error(self, response: Any) -> APIStatusError:
        data = b""
        if not response.is_closed or response.is_stream_consumed:
            with anyio.move_on_after(self._limits.error_body_time), suppress(Exception):
                # However it ends, the status says enough.
                body = self._body = body_of(response)
                while len(data) < self._limits.max_error_bytes and (piece := await body.read()):
                    data += piece
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
        response.next_request = None  # it has the key
        return status_error_class(status)(
            message,
            request=self.request,
            response=response,
            body=said,
            request_id=request_id_of(response),
        )

    async def _leave_response(self) -> None:
        """Close the response of an attempt that was not the last."""
        with anyio.move_on_after(self._limits.cleanup_time, shield=True):
            await self._close_response()

    async def _close_response(self) -> None:
        body, self._body = self._body, None
        try:
            if body is not None:
                await body.aclose()
        finally:
            if self.response is not None:
                with closing("A response"):
                    await self.response.aclose()


def _add_headers(request: httpx.Request, headers: Mapping[str, str | None]) -> None:
    """Add what observers give, as far as HTTP can carry it, to what a request has already."""
    for name, value in headers.items():
        try:
            check_headers("An observer's headers", {name: value}, ConfigurationError)
        except ConfigurationError as exc:
            logger.error("A header is left out: %s", exc)
        else:
            if value is not None:  # which takes a header out elsewhere, and adds none
                request.headers.setdefault(name, value)


def _merge_headers(*parts: Mapping[str, str | None]) -> dict[str, str | None]:
    """Later ones win, whatever their case."""
    return {name.lower(): value for part in parts for name, value in part.items()}


def request_id_of(response: httpx.Response | None) -> str | None:
    """The server's request ID, under the spelling that it uses."""
    if response is not None:
        for name in _REQUEST_ID_HEADERS:
            if value := response.headers.get(name):
                return printable(str(value), MAX_REQUEST_ID)
    return None


def _shown_url(request: Any) -> str:
    """Where a request goes, without a password and without parameters, which may be secret."""
    url = request.url
    return f"{url.scheme}://{url.netloc.decode()}{url.path}"  # netloc holds no password


def _origin(request: Any) -> tuple[str, str, int | None]:
    url = request.url
    return (url.scheme, url.host, url.port)
