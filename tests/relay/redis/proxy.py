"""A proxy between a relay and its server that cuts, stalls and refuses when it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
from anyio.abc import SocketAttribute, SocketStream

BROKEN: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)


class Proxy:
    """Passes bytes on.

    Attributes:
        upstream: The port of the server for new connections.
        port: Its own.
        passed: How many pieces were passed on, in either direction.
        cut_at: When so many were passed, what comes next is not, and all connections are cut.
        stall_at: When so many were passed, what comes next on that connection never arrives.
        is_refusing: Whether new connections are closed at once.
        rewrite: What is made of the bytes that pass.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self.passed = 0
        self.cut_at: int | None = None
        self.stall_at: int | None = None
        self.is_refusing = False
        self.rewrite: Callable[[bytes], bytes] = bytes
        self._flows = anyio.Event()
        self._flows.set()
        self._scopes: set[anyio.CancelScope] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def stall(self) -> None:
        """Pass nothing on, without a word."""
        self._flows = anyio.Event()

    def flow(self) -> None:
        """Go on after ``stall``."""
        self._flows.set()

    def cut(self) -> None:
        """End all connections."""
        for scope in self._scopes:
            scope.cancel()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Proxy]:
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as tg,
        ):
            self.port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - not Django's
            tg.start_soon(listener.serve, self._serve)
            yield self
            tg.cancel_scope.cancel()

    async def _serve(self, client: SocketStream) -> None:
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with client:
                    if not self.is_refusing:
                        with suppress(*BROKEN):
                            await self._connect(client)
            finally:
                self._scopes.discard(scope)

    async def _connect(self, client: SocketStream) -> None:
        async with (
            await anyio.connect_tcp("127.0.0.1", self.upstream) as server,
            anyio.create_task_group() as tg,
        ):
            tg.start_soon(self._pass_on, client, server, tg)
            await self._pass_on(server, client, tg)

    async def _pass_on(
        self, source: SocketStream, target: SocketStream, tg: anyio.abc.TaskGroup
    ) -> None:
        with suppress(*BROKEN):
            while True:
                data = await source.receive()
                await self._flows.wait()
                self.passed += 1
                if self.cut_at is not None and self.passed >= self.cut_at:
                    self.cut_at = None
                    self.cut()
                    return
                if self.stall_at is not None and self.passed >= self.stall_at:
                    self.stall_at = None
                    await anyio.sleep_forever()
                await target.send(self.rewrite(data))
        tg.cancel_scope.cancel()
