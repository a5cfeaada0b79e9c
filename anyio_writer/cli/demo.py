"""The command ``demo``: a stream without a key, a network or a model."""

from __future__ import annotations

import sys
from typing import Final

import httpx
from rich.text import Text

from ..open import open_chat_stream
from ..testing import ChatServer, text_reply
from .output import Output
from .run import show
from .view import Tally, note, statistics_table

TEXT: Final = (
    "Structured concurrency gives every task a parent that waits for it. A block that starts "
    "tasks does not end before they do, so no task is forgotten and left running. An error in one "
    "task cancels its siblings, and is raised where they were started. Cancelling a block cancels "
    "everything inside it, and each part cleans up after itself. Press Ctrl-C, and the connection "
    "that brings this text is closed before the program ends.\n"
)


async def demo(text: str, *, pace: float) -> None:
    """Stream an answer over HTTP from a server in this process, and say how that went."""
    out = Output(sys.stdout)
    async with ChatServer(text_reply(text, pace=pace)) as server:
        introduction = f"A built-in server answers, not a model: {server.url}"
        note(Text(introduction, style="dim"), "")
        # A client of our own, as no proxy of the environment leads to this machine.
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:  # noqa: S501 - no TLS
            tally = Tally()
            stream = open_chat_stream(
                client=client,
                api_key="demo",
                base_url=server.url,
                model="demo",
                messages=[{"role": "user", "content": "What is structured concurrency?"}],
                stream_options={"include_usage": True},
            )
            await show(stream, out, tally, label="waiting")
        note("", statistics_table(stream, tally))
