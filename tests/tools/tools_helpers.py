"""Answers that call tools, as bytes; and tools that can be stopped half-way."""

from __future__ import annotations

import json
from typing import Any

import anyio

from anyio_writer.structured.tools import function_tool
from tests.streaming.helpers import chunk

HANGS = 20
"""Seconds: a net under a hang, never what a test shows."""

CALLS = chunk(None, "tool_calls")
STOP = chunk(None, "stop")


def part(
    index: int | None, name: str | None = None, arguments: Any = None, call_id: str | None = None
) -> dict[str, Any]:
    """One piece of a call, as it stands in a chunk."""
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": call_id, "type": call_id and "function", "function": function}


def pieces(*parts: dict[str, Any], finish: str | None = None, choice: int = 0) -> bytes:
    """A chunk with pieces of calls."""
    return chunk(None, finish, index=choice, tool_calls=list(parts))


def call(
    index: int, name: str, arguments: Any = "{}", *, finish: str | None = None, choice: int = 0
) -> bytes:
    """A chunk with a whole call; it is done when the next one begins, or by its finish reason.

    It has two pieces: ``{}`` in the one that opens a call may stand for arguments to come.
    """
    if not isinstance(arguments, str | None):
        arguments = json.dumps(arguments)
    opening = part(index, name, None, f"id{choice}{index}")
    return pieces(opening, part(index, None, arguments), finish=finish, choice=choice)


class Gates:
    """Tools that say when they have begun and go on when they are told to.

    Attributes:
        began: The names in the order of their beginnings; ``ended`` likewise, however they ended.
    """

    def __init__(self, *names: str) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []
        self.finished: list[str] = []
        self.running = 0
        self.most = 0
        self.gate = {name: anyio.Event() for name in names}
        self.begun = {name: anyio.Event() for name in names}
        self.tools = [function_tool(self._make(name), name=name) for name in names]

    def _make(self, name: str) -> Any:
        async def tool() -> str:
            self.began.append(name)
            self.running += 1
            self.most = max(self.most, self.running)
            self.begun[name].set()
            try:
                await self.gate[name].wait()
                self.finished.append(name)
            finally:
                self.running -= 1
                self.ended.append(name)
            return f"said {name}"

        return tool

    def open(self, *names: str) -> None:
        for name in names or self.gate:
            self.gate[name].set()
