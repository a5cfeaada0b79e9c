"""What httpx and httpx2 have in common, and where they differ: two modules, the same names.

httpx2 is never imported here; a client that was passed in brings its own module along.
"""

from __future__ import annotations

import codecs
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from functools import cache, lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol, cast
from urllib.request import getproxies, proxy_bypass

import httpx

from ..errors import (
    APIConnectionError,
    APITimeoutError,
    ConfigurationError,
    ConnectTimeoutError,
    StreamTruncatedError,
)
from .http import StreamingTransport


class Client(Protocol):
    """An ``httpx.AsyncClient`` or an ``httpx2.AsyncClient``: what they have in common.

    Type checkers know these without httpx2, and can distinguish them from synchronous clients.
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


class _NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        pass


_NO_COOKIES: Final = _NoCookies()


class _DefaultClient(httpx.AsyncClient):
    """A client without settings of its own: a request is sent as it is."""

    @property
    def cookies(self) -> httpx.Cookies:
        """None are kept or sent: one user's would go out with the next one's request."""
        return _NO_COOKIES

    @cookies.setter
    def cookies(self, cookies: object) -> None:
        pass


_KEEPALIVE_IDLE_SECONDS: Final = 60
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


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


def client_maker() -> Callable[[int], httpx.AsyncClient]:
    """What makes clients for long, quiet streams, each for so many connections.

    What they need of the environment is read here, and what takes long is done here and with the
    first client: imports, certificates.

    Raises:
        ConfigurationError: The environment names certificates that cannot be used.
    """
    codecs.lookup("idna")  # which ``socket.getaddrinfo`` would import
    return partial(_make_client, _ssl_context(), _proxy_settings())


def _make_client(context: ssl.SSLContext, proxies: str, max_connections: int) -> httpx.AsyncClient:
    """A client that keeps all of its connections.

    Raises:
        ConfigurationError: The environment names a proxy that cannot be used.
    """
    limits = httpx.Limits(
        max_connections=max_connections, max_keepalive_connections=max_connections
    )
    try:
        if proxies:
            # httpx reads the proxies of the environment only for a transport of its own making.
            return _DefaultClient(verify=context, limits=limits)
        transport = StreamingTransport(
            verify=context, limits=limits, socket_options=_socket_options()
        )
    except Exception as exc:  # half a dozen types, ImportError for SOCKS among them
        where = f" The environment says {proxies}." if proxies else ""
        raise ConfigurationError(f"No HTTP client can be made: {exc}.{where}") from exc
    return _DefaultClient(transport=transport)


def _ssl_context() -> ssl.SSLContext:
    """The context of a client, by what the environment says now."""
    source: list[Any] = []
    for name in _CERTIFICATES:
        if path := os.environ.get(name):
            try:
                status = Path(path).stat()
            except OSError as exc:
                raise _unusable(name, path, exc) from exc
            source += [name, path, status.st_mtime_ns, status.st_size, status.st_ino]
    return _make_ssl_context(*source)


@lru_cache(maxsize=8)
def _make_ssl_context(name: str = "", path: str = "", *_version: object) -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context()  # 10 to 30 ms, so once for the same certificates
    except (OSError, ValueError) as exc:
        raise _unusable(name, path, exc) from exc


def _unusable(name: str, path: str, exc: Exception) -> ConfigurationError:
    where = f" The environment says {name}={path!r}." if name else ""
    return ConfigurationError(f"No HTTP client can be made: the certificates: {exc}.{where}")


def _proxy_settings() -> str:
    """The environment's proxies as they are written there; "" without any."""
    proxies = getproxies()
    if not proxies.keys() - {"no"}:  # which names hosts that need none
        return ""
    said = {
        f"{scheme}_proxy": "…@" + value.rpartition("@")[2] if "@" in value else value
        for scheme, value in proxies.items()
    }
    return ", ".join(
        f"{name if name in os.environ else name.upper()}={value!r}" for name, value in said.items()
    )


def _text_of(exc: BaseException | None) -> str:
    """What an exception says, or else what caused it: httpcore's on trio are often empty."""
    while exc is not None and not str(exc):
        exc = exc.__cause__ or exc.__context__  # httpcore suppresses the cause
    return "" if exc is None else str(exc)


def proxy_note(host: str) -> str:
    """What to add to a failure to connect: the proxies that the environment says to use, if any."""
    proxies = _proxy_settings()
    if not proxies or proxy_bypass(host):
        return ""
    return f" The environment sends requests through a proxy: {proxies}."


def _socket_options() -> list[tuple[int, int, int]]:
    """TCP keep-alive: a model may think longer than a NAT remembers a silent connection."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE"):  # Linux and Windows, macOS
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), _KEEPALIVE_IDLE_SECONDS))
            break
    return options


class _RequestBody:
    """One piece, and no generator: there is nothing to finalise when sending is cut short."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._left = self._data  # a redirect sends it again
        return self

    async def __anext__(self) -> bytes:
        data, self._left = self._left, b""
        if not data:
            raise StopAsyncIteration
        return data


@cache
def _body_class(module: ModuleType) -> Any:
    return type("RequestBody", (_RequestBody, module.AsyncByteStream), {})


@cache
def _url_class(module: ModuleType) -> Any:
    """Makes URLs; most requests go to the same few, and parsing one takes long."""
    return lru_cache(maxsize=16)(module.URL)


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
    is_default = isinstance(client, _DefaultClient)  # has nothing to add
    its_params: Any = None if is_default else getattr(client, "params", None)
    try:
        target = _url_class(module)(url)
        request: Any = (httpx.Request if is_default else client.build_request)(
            "POST",
            target,
            content=content,
            headers={name: value for name, value in headers.items() if value is not None},
            # The client would let these, or its own, replace those of the URL.
            params=target.params.merge(dict(params)) or None if params or its_params else None,
            extensions={
                "timeout": {"connect": connect_timeout, "read": None, "write": None, "pool": None}
            },
        )
    except Exception as exc:  # bad URLs and headers have half a dozen types
        raise ConfigurationError(f"The request cannot be built: {exc}") from exc
    for name, value in headers.items():
        if value is None:
            request.headers.pop(name, None)
    request.stream = _body_class(module)(content)
    return cast("httpx.Request", request)


_LIBRARIES: Final = frozenset(
    {"httpx", "httpx2", "httpcore", "httpcore2", "h11", "anyio", "socksio", "ssl"}
)

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


def is_transport_error(exc: Exception) -> bool:
    """Whether an exception comes from an HTTP library or from what lies below it."""
    return isinstance(exc, OSError) or any(
        is_of_a_library(cls.__module__) for cls in type(exc).__mro__
    )


def is_of_a_library(module: str) -> bool:
    """Whether a module belongs to an HTTP library or to what lies below it."""
    return module.partition(".")[0] in _LIBRARIES


def rejected_response(exc: Exception, request: Any) -> Any:
    """The response that an event hook of the client refused with ``raise_for_status``, or None."""
    if type(exc).__name__ != "HTTPStatusError" or not is_transport_error(exc):
        return None
    response: Any = getattr(exc, "response", None)
    if response is None or response.request is not request or response.is_success:
        return None
    return response


def translate(exc: Exception, address: str = "") -> APIConnectionError:
    """The exception of ours that stands for one of the transport's.

    Args:
        exc: That one.
        address: Where the connection goes, for the message.
    """
    name = type(exc).__name__
    text = _text_of(exc)
    said = f"{name}: {text}" if text else name
    if any(words in str(exc) for words in _CUT):
        return StreamTruncatedError(
            f"The connection was closed in the middle of the answer ({said})."
        )
    cls = _BY_NAME.get(name, APIConnectionError)
    target = f" to {address}" if address else ""
    return cls(f"The connection{target} failed ({said}).")
