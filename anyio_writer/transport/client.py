"""What httpx and httpx2 have in common, and where they differ: two modules, the same names.

httpx2 is never imported here; a client that was passed in brings its own module along.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, Final, Protocol
from urllib.request import getproxies

import httpx

from ..errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    ConfigurationError,
    ConnectTimeoutError,
    StreamTruncatedError,
)
from .sharding import POOL_SIZE, ShardedTransport


class Client(Protocol):
    """An ``httpx.AsyncClient`` or an ``httpx2.AsyncClient``: what they have in common.

    Type checkers know these without httpx2, and tell them from synchronous clients.
    """

    @property
    def is_closed(self) -> bool:
        """Whether it has been closed."""
        ...

    @property
    def build_request(self) -> Callable[..., Any]:
        """Makes a request."""
        ...

    @property
    def send(self) -> Callable[..., Any]:
        """Sends a request."""
        ...

    async def aclose(self) -> None:
        """Close it."""


_KEEPALIVE_IDLE_SECONDS: Final = 60


def http_module(client: object) -> ModuleType:
    """The module, httpx or httpx2, that a client belongs to.

    Raises:
        ConfigurationError: It is neither kind of asynchronous client.
    """
    for cls in type(client).__mro__:
        module = sys.modules.get(cls.__module__.partition(".")[0])
        if module is not None and cls is getattr(module, "AsyncClient", None):
            if module.__name__ in ("httpx", "httpx2"):
                return module
    raise ConfigurationError(
        "client must be an httpx.AsyncClient or an httpx2.AsyncClient, "
        f"not {type(client).__module__}.{type(client).__qualname__}."
    )


def make_client(*, max_connections: int) -> httpx.AsyncClient:
    """A client for long, quiet streams: as many kept-alive connections as there may be.

    Raises:
        ConfigurationError: The environment names a proxy or certificates that cannot be used.
    """
    try:
        if getproxies().keys() - {"no"}:  # which names hosts that need none
            # httpx reads the proxies of the environment only for a transport of its own making.
            return httpx.AsyncClient(verify=_ssl_context(), limits=_limits(max_connections))
        transport: httpx.AsyncBaseTransport
        if max_connections > POOL_SIZE:
            transport = ShardedTransport(_make_pool, max_connections=max_connections)
        else:
            transport = _make_pool(max_connections)
    except Exception as exc:  # half a dozen types, ImportError for SOCKS among them
        raise ConfigurationError(f"No HTTP client can be made: {exc}") from exc
    return httpx.AsyncClient(transport=transport)


def _make_pool(max_connections: int) -> httpx.AsyncBaseTransport:
    if sys.platform == "win32":  # where an event loop may need a thread to wait for a socket
        return httpx.AsyncHTTPTransport(
            verify=_ssl_context(),
            limits=_limits(max_connections),
            socket_options=_socket_options(),
        )
    from .pool import PoolTransport  # noqa: PLC0415 - httpx, too, loads httpcore only now

    return PoolTransport(
        max_connections=max_connections,
        ssl_context=_ssl_context(),
        socket_options=_socket_options(),
    )


def _limits(max_connections: int) -> httpx.Limits:
    return httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)


@cache
def _ssl_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # 10 to 30 ms, so once


def _socket_options() -> list[tuple[int, int, int]]:
    """TCP keep-alive: a model may think longer than a NAT remembers a silent connection."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE"):  # Linux and Windows, macOS
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), _KEEPALIVE_IDLE_SECONDS))
            break
    return options


class _Pieces:
    """An iterator over one piece that is no generator: nothing to finalise when a send is cut."""

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data, self._data = self._data, None
        if data is None:
            raise StopAsyncIteration
        return data


@cache
def _body_class(module: ModuleType) -> Any:
    base: Any = module.AsyncByteStream

    class RequestBody(base):  # type: ignore[misc]
        def __init__(self, data: bytes) -> None:
            self._data = data

        def __aiter__(self) -> AsyncIterator[bytes]:
            return _Pieces(self._data)

    return RequestBody


def build_request(
    client: Client,
    url: str,
    *,
    content: bytes,
    headers: dict[str, str | None],
    params: Mapping[str, Any],
    connect_timeout: float | None,
) -> httpx.Request:
    """A POST whose only time limit inside the HTTP library is the one for connecting.

    A header that is None is left out, also where the client would add one.
    """
    module = http_module(client)
    try:
        request: Any = client.build_request(
            "POST",
            url,
            content=content,
            headers={name: value for name, value in headers.items() if value is not None},
            # The client would let these, or its own, replace those of the URL.
            params=module.URL(url).params.merge(dict(params)) or None,
            timeout=module.Timeout(None, connect=connect_timeout),
        )
    except Exception as exc:  # bad URLs and headers have half a dozen types
        raise ConfigurationError(f"The request cannot be built: {exc}") from exc
    for name, value in headers.items():
        if value is None:
            request.headers.pop(name, None)
    request.stream = _body_class(module)(content)
    return request  # type: ignore[no-any-return]


_LIBRARIES: Final = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "h11", "anyio", "ssl"})

_BY_NAME: Final[dict[str, type[APIConnectionError]]] = {
    "ConnectTimeout": ConnectTimeoutError,
    # No request of ours has these limits, but a transport may have its own.
    "ReadTimeout": APITimeoutError,
    "WriteTimeout": APITimeoutError,
    "PoolTimeout": APITimeoutError,
}
# The connection was closed in the middle of the body: h11's words, in both libraries. The second
# are those for an end within the line before an HTTP chunk.
_CUT: Final = ("without sending complete message body", "peer unexpectedly closed connection")


@contextmanager
def translated_errors(place: str = "") -> Generator[None]:
    """Turn what the HTTP library and the layers below it raise into our exceptions.

    Args:
        place: Where the connection goes, for their messages.
    """
    try:
        yield
    except APIError:
        raise
    except Exception as exc:
        if not is_transport_error(exc):
            raise
        raise translate(exc, place) from exc


def is_transport_error(exc: Exception) -> bool:
    """Whether an exception comes from an HTTP library or from what lies below it."""
    return isinstance(exc, OSError) or any(
        is_of_a_library(cls.__module__) for cls in type(exc).__mro__
    )


def is_of_a_library(module: str) -> bool:
    """Whether a module belongs to an HTTP library or to what lies below it."""
    return module.partition(".")[0] in _LIBRARIES


def translate(exc: Exception, place: str = "") -> APIConnectionError:
    """The exception of ours that stands for one of the transport's."""
    name = type(exc).__name__
    said = f"{name}: {exc}" if str(exc) else name
    if any(words in str(exc) for words in _CUT):
        return StreamTruncatedError(f"The connection was closed in mid-answer ({said}).")
    cls = _BY_NAME.get(name, APIConnectionError)
    target = f" to {place}" if place else ""
    return cls(f"The connection{target} failed ({said}).")
