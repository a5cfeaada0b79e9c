"""Both ends of a connection over the library's network."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from anyio_writer.transport.wire import Network, Wire

HANGS = 10
"""Seconds: a net under a hang, never what a test shows."""


@dataclass
class Ends:
    """Both ends of a connection; theirs does not block."""

    stream: Wire
    theirs: socket.socket

    def reset(self) -> None:
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.theirs.close()

    async def received(self, size: int = 1) -> bytes:
        """So many bytes at their end, or what there is until its end."""
        got = bytearray()
        with anyio.fail_after(HANGS):
            while len(got) < size:
                await anyio.wait_readable(self.theirs)
                if not (data := self.theirs.recv(1_000_000)):
                    break
                got += data
        return bytes(got)


@asynccontextmanager
async def connected(network: Network | None = None) -> AsyncGenerator[Ends]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connect = (network or Network()).connect_tcp
        stream = await connect("127.0.0.1", listener.getsockname()[1], timeout=HANGS)
        with listener.accept()[0] as theirs:
            theirs.setblocking(False)
            assert isinstance(stream, Wire)
            yield Ends(stream, theirs)
            await stream.aclose()


async def outcome_of(action: Awaitable[object], into: list[object]) -> None:
    try:
        into.append(await action)
    except Exception as exc:
        into.append(exc)
