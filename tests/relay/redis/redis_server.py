"""A Redis of a test's own: a free port, a folder of its own, ended with it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio

PROGRAM: Final = shutil.which("redis-server")

_STARTS_WITHIN: Final = 20.0  # seconds


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class RedisServer:
    """A server that can be started, stopped, frozen and asked.

    Args:
        folder: Where it keeps what it keeps.
        options: Lines of its configuration.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.port: Final = free_port()
        self.folder = folder
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        assert PROGRAM is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"dir {self.folder}",
            'save ""',
            "logfile redis.log",
            "repl-diskless-sync-delay 0",
            *self.options,
        ]
        configuration = self.folder / "redis.conf"
        configuration.write_text("\n".join(lines))
        self._process = subprocess.Popen(
            [PROGRAM, str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + _STARTS_WITHIN
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError((self.folder / "redis.log").read_text())
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            reply = self.ask("PING")
        except OSError:
            return False
        return not reply.startswith(b"-LOADING")

    def kill(self) -> None:
        """End it at once, as a crash does."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *command: str, password: str | None = None) -> bytes:
        """Ask something by a client of the tests' own; returns the reply as it came."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            if password is not None:
                _ask(connection, ("AUTH", password))
            return _ask(connection, command)

    def lines(self, *command: str) -> list[str]:
        """The texts of a reply that is an array."""
        return self.ask(*command).decode(errors="surrogateescape").split("\r\n")[2::2]

    def connections(self) -> int:
        """How many there are, but for the one that asks."""
        return self.ask("CLIENT", "LIST").count(b" laddr=") - 1

    async def until_connections(self, count: int) -> None:
        """Wait until there are no more than these: the server learns of an end by and by."""
        with anyio.fail_after(20):
            while self.connections() > count:  # noqa: ASYNC110 - it is the server's to say
                await anyio.sleep(0.02)

    async def until_blocked(self, count: int) -> None:
        """Wait until so many clients wait for an entry."""
        said = f"blocked_clients:{count}\r\n".encode()
        with anyio.fail_after(20):
            while said not in self.ask("INFO", "clients"):  # noqa: ASYNC110 - as above
                await anyio.sleep(0.02)

    def keys_without_expiry(self) -> list[str]:
        """What would never go away; nothing may be among it."""
        return [key for key in self.lines("KEYS", "*") if self.ask("TTL", key) == b":-1\r\n"]


def _ask(connection: socket.socket, command: Sequence[str]) -> bytes:
    words = [each.encode(errors="surrogateescape") for each in command]
    parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    connection.sendall(b"*%d\r\n%s" % (len(parts), b"".join(parts)))
    reply = b""
    while not _is_whole(reply):
        data = connection.recv(64 * 1024)
        if not data:
            raise ConnectionResetError
        reply += data
    return reply


def _is_whole(reply: bytes) -> bool:
    """Whether this is one reply, of strings or of one array of them."""
    lines = reply.split(b"\r\n")
    if len(lines) < 2:
        return False
    if reply[:1] in b"+-:":
        return True
    if reply[:1] == b"$":
        return lines[0] == b"$-1" or len(reply) >= len(lines[0]) + 4 + int(lines[0][1:])
    return len(lines) == 2 + 2 * int(lines[0][1:])
