"""httpcore's connection pool as httpx wants it: ``httpx.AsyncHTTPTransport``, but for three things.

It connects with this library's own network, which httpx does not let one choose. It takes bodies in
HTTP chunks apart by the read, where httpx would put a generator around each chunk. And it gives
bodies out without the generator that httpx would put around each of them.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import httpcore
import httpx

from .body import DIRECT
from .chunked import body_of
from .network import NetworkBackend

_KEEPALIVE_EXPIRY: Final = 5.0
"""Seconds that a connection may lie idle, as in httpx."""


class PoolTransport(httpx.AsyncBaseTransport):
    """One pool of kept-alive connections.

    What goes wrong comes out as exceptions of httpcore's, which have the names of httpx's.
    """

    def __init__(
        self, *, max_connections: int, ssl_context: ssl.SSLContext, socket_options: Iterable[Any]
    ) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context,
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=_KEEPALIVE_EXPIRY,
            network_backend=NetworkBackend(),
            socket_options=socket_options,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the response's body is still to be read."""
        url = request.url
        sent = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        response = await self._pool.handle_async_request(sent)
        body = _Body(sent, response)
        extensions: Any = response.extensions  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=body,
            extensions={**extensions, DIRECT: body},
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, request: httpcore.Request, response: httpcore.Response) -> None:
        self._request = request
        self._response = response
        self._is_read = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._is_read:
            raise httpx.StreamConsumed
        self._is_read = True
        return body_of(self._request, self._response)

    async def aclose(self) -> None:
        """Close the response."""
        await self._response.aclose()
