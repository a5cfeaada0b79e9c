"""The server, in a process of its own: bytes prepared once, a thread for each connection.

Its work is not counted. What is fast goes out in one write; what has a rate is written by one
thread that keeps all the schedules.
"""

from __future__ import annotations

import heapq
import itertools
import json
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from .bodies import END, FIRST, HEAD, HEAD_START, STAMP, Plan, framed, payloads, plan_of


@lru_cache(maxsize=4)
def pieces(shape: str, chunks: int) -> list[bytes]:
    return [framed(each) for each in payloads(shape, chunks)]


@lru_cache(maxsize=16)
def whole(shape: str, chunks: int) -> bytes:
    return b"".join([HEAD, *map(framed, payloads(shape, chunks)), END])


def stamped(data: bytes, shape: str) -> bytes:
    return data.replace(STAMP, b"%019d" % time.monotonic_ns()) if shape == "stamped" else data


class Due(NamedTuple):
    """A stream's next chunk."""

    when: float
    number: int  # of the stream: no two are the same
    position: int
    sock: socket.socket
    plan: Plan
    closes: bool
    """Whether the connection ends with the stream."""


class Pacer:
    """Writes every stream's next chunk when it is due."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[Due] = []
        self._opened: dict[Plan, list[tuple[socket.socket, bool]]] = {}
        self._numbers = itertools.count()
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, sock: socket.socket, plan: Plan, *, closes: bool) -> None:
        """Start a stream once all that belong together are open, evenly spread."""
        with self._changed:
            waiting = self._opened.setdefault(plan, [])
            waiting.append((sock, closes))
            if len(waiting) < plan.streams:
                return
            start = time.monotonic() + HEAD_START
            apart = 1 / (plan.streams * plan.rate)
            for place, (each, each_closes) in enumerate(self._opened.pop(plan)):
                number = next(self._numbers)
                due = Due(start + place * apart, number, FIRST, each, plan, each_closes)
                heapq.heappush(self._due, due)
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while True:
                if not self._due:
                    self._changed.wait()
                elif (early := self._due[0].when - time.monotonic()) > 0:
                    self._changed.wait(early)
                else:
                    due = self._due[0]
                    if write(due):
                        after = due.when + 1 / due.plan.rate
                        later = due._replace(when=after, position=due.position + 1)
                        heapq.heapreplace(self._due, later)
                    else:
                        heapq.heappop(self._due)


def write(due: Due) -> bool:
    """Write one chunk; returns whether more are to follow."""
    plan = due.plan
    data = pieces(plan.shape, plan.chunks)[due.position]
    more = due.position < plan.chunks - 1
    try:
        due.sock.sendall(stamped(data, plan.shape) + (b"" if more else END))
        if due.closes and not more:
            due.sock.shutdown(socket.SHUT_WR)
    except OSError:  # the client has left
        return False
    return more


def serve(sock: socket.socket, pacer: Pacer) -> None:
    """One connection, request after request."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with sock, sock.makefile("rb") as requests, suppress(OSError):
        while requests.readline():
            headers: dict[str, str] = {}
            while line := requests.readline().strip():
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            body: Any = json.loads(requests.read(int(headers["content-length"])))
            plan = plan_of(body["model"])
            closes = headers.get("connection") == "close"
            if not plan.rate:
                sock.sendall(whole(plan.shape, plan.chunks))
            else:
                first = b"".join(pieces(plan.shape, plan.chunks)[:FIRST])
                sock.sendall(HEAD + stamped(first, plan.shape))
                pacer.add(sock, plan, closes=closes)
            if closes and not plan.rate:
                return


def main() -> None:
    threading.stack_size(256 * 1024)
    pacer = Pacer()
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    # It lives as long as whoever started it keeps its standard input open.
    threading.Thread(target=accept, args=(listener, pacer), daemon=True).start()
    sys.stdin.read()


def accept(listener: socket.socket, pacer: Pacer) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock, pacer), daemon=True).start()


if __name__ == "__main__":
    main()
