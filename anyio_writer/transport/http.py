"""``StreamingTransport``: httpx's own transport over connections that read streams cheaply."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, Self

import httpx

P = ParamSpec("P")


def _takes_arguments_of(
    base: Callable[P, None],
) -> Callable[[Callable[..., None]], Callable[P, None]]:
    """Show readers and type checkers the parameters that are passed on to another function."""
    return wraps(base)


class StreamingTransport(httpx.AsyncHTTPTransport):
    """``httpx.AsyncHTTPTransport`` for long streams of small chunks, with the same arguments.

    ::

        transport = StreamingTransport(limits=httpx.Limits(max_connections=10))
        async with httpx.AsyncClient(transport=transport) as client:
            async with open_chat_stream(client=client, ...) as stream:
                ...

    Everything that wraps or patches the base class (instrumentation, mocks) sees every request. If
    a future httpx no longer lets its pool use another network, this behaves like the base class.
    """

    @_takes_arguments_of(httpx.AsyncHTTPTransport.__init__)
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # httpcore takes half a second to import, and is by the line above.
        from .wire import Network

        self._network = Network()
        pool: Any = getattr(self, "_pool", None)
        if hasattr(pool, "_network_backend"):
            pool._network_backend = self._network  # noqa: SLF001 - httpx has no argument for it

    async def __aenter__(self) -> Self:
        """Allow connections, also after an earlier client has closed this, as httpx's own does."""
        self._network.is_closed = False
        return await super().__aenter__()

    async def aclose(self) -> None:
        """Close all connections, also those that are still being made."""
        self._network.is_closed = True
        await super().aclose()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()  # which httpx goes past
