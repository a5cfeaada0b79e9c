"""``StreamingTransport``: httpx's own transport over connections that read streams cheaply."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import httpx


class StreamingTransport(httpx.AsyncHTTPTransport):
    """``httpx.AsyncHTTPTransport`` for long streams of small chunks, with the same arguments.

    ::

        transport = StreamingTransport(limits=httpx.Limits(max_connections=10))
        async with httpx.AsyncClient(transport=transport) as client:
            async with open_chat_stream(client=client, ...) as stream:
                ...

    What wraps or patches the base class (instrumentation, mocks) sees every request. If httpx does
    not let its pool have another network any more, this is the base class and nothing else.
    """

    def __init__(
        self,
        verify: ssl.SSLContext | str | bool = True,
        cert: str | tuple[str, str] | tuple[str, str, str] | None = None,
        trust_env: bool = True,
        http1: bool = True,
        http2: bool = False,
        limits: httpx.Limits = httpx.Limits(max_connections=100, max_keepalive_connections=20),
        proxy: str | httpx.URL | httpx.Proxy | None = None,
        uds: str | None = None,
        local_address: str | None = None,
        retries: int = 0,
        socket_options: Iterable[Any] | None = None,
    ) -> None:
        super().__init__(
            verify=verify,
            cert=cert,
            trust_env=trust_env,
            http1=http1,
            http2=http2,
            limits=limits,
            proxy=proxy,
            uds=uds,
            local_address=local_address,
            retries=retries,
            socket_options=socket_options,
        )
        # httpcore takes half a second to import, and is by the line above.
        from .wire import Network

        self._network = Network()
        pool: Any = getattr(self, "_pool", None)
        if hasattr(pool, "_network_backend"):
            pool._network_backend = self._network  # noqa: SLF001 - httpx has no argument for it

    async def aclose(self) -> None:
        """Close all connections, also those that are still being made."""
        self._network.is_closed = True
        await super().aclose()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._network.is_closed = True
        await super().__aexit__(exc_type, exc_value, traceback)
