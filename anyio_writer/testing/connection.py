"""One accepted socket: requests in, replies out.

The socket is used directly: only so is it certain which bytes make one write, and when FIN and RST
are sent. While a reply is being played, another task reads. A peer that leaves ends the reply at
once, whatever the reply is waiting for.
"""

import contextlib
import socket
import struct
import sys
from enum import Enum
from typing import Final, assert_never

import anyio
import anyio.lowlevel
import h11

from .framing import Frame, frame_for
from .groups import lone_error
from .records import RecordedConnection, RecordedRequest
from .script import Cut, Hold, Raw, Reply, Reset, Sleep, Stall

_READ_BYTES: Final = 65_536
_BODY_TOO_LONG: Final = 413
# Linger for zero seconds: close() then throws away what is unsent and sends RST.
_RESET_ON_CLOSE: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class PeerLeftError(Exception):
    """The peer has closed or broken the connection. Never leaves this package."""


class _Ending(Enum):
    """What follows a reply."""

    REUSE = "wait for the next request"
    CUT = "send FIN and wait for the peer's"
    RESET = "send RST"
    LEFT = "nothing, as the peer has gone"


class Connection:
    """Reads requests from a socket and plays replies to it.

    Args:
        sock: Non-blocking, connected. The caller closes it.
        record: Where to write down what happens.
        max_body_bytes: The longest body of a request that is accepted.
    """

    def __init__(
        self, sock: socket.socket, record: RecordedConnection, max_body_bytes: int
    ) -> None:
        self._sock = sock
        self._record = record
        self._max_body_bytes = max_body_bytes
        self._ahead = bytearray()  # what the peer sent beyond the request that is being answered

    async def receive(self) -> RecordedRequest:
        """Wait for the next request.

        Raises:
            PeerLeftError: None will come.
            h11.RemoteProtocolError: It is not HTTP, or its body is too long.
        """
        http = h11.Connection(h11.SERVER)  # a new one each time: it never hears of our reply
        if self._ahead:
            http.receive_data(bytes(self._ahead))
        head: h11.Request | None = None
        body = bytearray()
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._max_body_bytes:
                    raise h11.RemoteProtocolError(
                        f"The body is longer than max_body_bytes={self._max_body_bytes}.",
                        error_status_hint=_BODY_TOO_LONG,
                    )
            else:  # NEED_DATA: nothing else comes in the middle of a request
                if http.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    await self._send(http.send(go_on) or b"")
                http.receive_data(await self._receive())
        self._ahead = bytearray(http.trailing_data[0])
        self._record.requests += 1
        assert head is not None  # noqa: S101 - h11 never ends a message it has not begun
        return RecordedRequest(
            method=head.method.decode("ascii"),
            target=head.target.decode("ascii"),
            headers=list(head.headers),
            http_version=head.http_version.decode("ascii"),
            body=bytes(body),
            connection=self._record,
        )

    async def refuse(self, reply: Reply) -> bool:
        """Answer what could not be understood, and close; else as `answer`."""
        nobody = RecordedRequest(
            method="", target="", headers=[], http_version="1.0", body=b"", connection=self._record
        )
        return await self.answer(nobody, reply, request_id="")

    async def answer(self, request: RecordedRequest, reply: Reply, *, request_id: str) -> bool:
        """Play a reply while watching the peer.

        Returns:
            Whether the connection can serve another request.

        Raises:
            PeerLeftError: The peer left after our FIN, as it should.
            Exception: What the reply's body raised.
        """
        ending = _Ending.LEFT
        with lone_error():
            async with anyio.create_task_group() as tg:
                tg.start_soon(self._watch, tg.cancel_scope)
                with contextlib.suppress(PeerLeftError):
                    ending = await self._play(request, reply, request_id)
                tg.cancel_scope.cancel()
        if ending is _Ending.CUT:
            with contextlib.suppress(OSError):  # the peer was faster
                self._sock.shutdown(socket.SHUT_WR)
            # Closing at once would turn into RST if the peer had sent something more.
            while True:
                await self._receive()
        if ending is _Ending.RESET:
            with contextlib.suppress(OSError):  # the peer was faster
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        return ending is _Ending.REUSE

    async def _play(self, request: RecordedRequest, reply: Reply, request_id: str) -> _Ending:
        if reply.headers_delay:
            await anyio.sleep(reply.headers_delay)
        if reply.headers_hold is not None:
            await reply.headers_hold.wait()
        frame = frame_for(reply, request, request_id=request_id)
        await self._send(frame.head)
        if (ending := await self._follow(frame)) is not None:
            return ending
        if frame.terminator:
            await self._send(frame.terminator)
        # Nothing may wait between the last byte and this: peers can see that byte already.
        request.answered = True
        return _Ending.REUSE if frame.reuse else _Ending.CUT

    async def _follow(self, frame: Frame) -> _Ending | None:
        for step in frame.steps:
            match step:
                case bytes():
                    await self._send(frame.wrap(step))
                case Raw(data):
                    await self._send(data)
                case Sleep(seconds):
                    await anyio.sleep(seconds)
                case Hold(event):
                    await event.wait()
                case Stall():
                    await anyio.sleep_forever()
                case Cut():
                    return _Ending.CUT
                case Reset():
                    return _Ending.RESET
                case _:
                    assert_never(step)
        return None

    async def _watch(self, scope: anyio.CancelScope) -> None:
        with contextlib.suppress(PeerLeftError):
            while True:
                self._ahead += await self._receive()
                if len(self._ahead) > self._max_body_bytes + _READ_BYTES:
                    break  # Nobody sends so much before the answer, except to fill the memory.
        scope.cancel()

    async def _receive(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                data = self._sock.recv(_READ_BYTES)
            except BlockingIOError:
                await anyio.wait_readable(self._sock)
                continue
            except OSError as exc:
                raise self._left() from exc
            if not data:
                raise self._left()
            return data

    async def _send(self, data: bytes) -> None:
        # A long reply must let the others run, not least the task that watches the peer.
        await anyio.lowlevel.checkpoint()
        left = memoryview(data)
        while left:
            try:
                left = left[self._sock.send(left) :]
            except BlockingIOError:
                await anyio.wait_writable(self._sock)
            except OSError as exc:
                raise self._left() from exc

    def _left(self) -> PeerLeftError:
        if self._record.peer_left is None:
            self._record.peer_left = anyio.current_time()
        return PeerLeftError()
