"""Both ends of a connection, and a look at what our end asks of its socket."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from anyio_writer.transport.network import NetworkStream, SocketStream

HANGS = 10


class Counted(socket.socket):
    """A socket that counts what is asked of it."""

    recvs = sends = 0

    def recv(self, *arguments: Any) -> bytes:
        self.recvs += 1
        return super().recv(*arguments)

    def send(self, *arguments: Any) -> int:
        self.sends += 1
        return super().send(*arguments)


@dataclass
class Ends:
    """Both ends of a connection."""

    stream: NetworkStream
    ours: Counted
    theirs: socket.socket
    make: Callable[[socket.socket], SocketStream]

    def reset(self) -> None:
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.theirs.close()


@asynccontextmanager
async def connected(
    listener: socket.socket, make: Callable[[socket.socket], SocketStream]
) -> AsyncGenerator[Ends]:
    connection = socket.create_connection(listener.getsockname())
    with Counted(fileno=connection.detach()) as ours, listener.accept()[0] as theirs:
        ours.setblocking(False)
        stream = NetworkStream(make(ours))
        yield Ends(stream, ours, theirs, make)
        await stream.aclose()


async def outcome_of(action: Awaitable[object], into: list[object]) -> None:
    try:
        into.append(await action)
    except Exception as exc:
        into.append(exc)
