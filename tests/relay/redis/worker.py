"""A process of its own that produces, follows or races: ``python worker.py WHAT URL KEY ...``.

It writes a line of JSON for each thing that happens.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[3]))  # behind an installed package

import anyio

from anyio_writer import AsyncWriter, WriterError, chat_stream_from
from anyio_writer.relay import RedisRelay
from tests.relay.relay_helpers import told
from tests.streaming.helpers import chunk
from tests.tools.tools_helpers import STOP


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def ticking(count: int, pause: float) -> AsyncIterator[bytes]:
    for number in range(count):
        yield chunk(f"{number} ")
        await anyio.sleep(pause)
    yield STOP


async def produce(url: str, key: str, lease: float, count: int, pause: float) -> None:
    async with RedisRelay(url, lease=lease) as relay:
        async with chat_stream_from(ticking(count, pause)) as stream:
            say(began=True)
            try:
                await relay.publish(key, stream)
            except WriterError as exc:
                say(error=type(exc).__name__)
            else:
                say(error=None)


async def follow(url: str, key: str, lease: float, skip: int, most: int) -> None:
    """Say each event; stop after so many, if that is not 0."""
    async with RedisRelay(url, lease=lease) as relay:
        async with relay.open_stream(key, skip=skip, wait=60) as stream:
            try:
                async for event in stream:
                    say(event={**told(event), "raw": None})
                    most -= 1
                    if most == 0:
                        return
            except WriterError as exc:
                say(error=type(exc).__name__)
            else:
                say(error=None)


async def race(url: str, prefix: str, lease: float, count: int, base_url: str) -> None:
    """Start or join ``count`` answers, each when the one before has ended."""
    async with (
        RedisRelay(url, lease=lease) as relay,
        AsyncWriter(api_key="key", base_url=base_url) as writer,
    ):
        say(began=True)
        sys.stdin.readline()
        for number in range(count):
            request: Any = {"messages": [{"role": "user", "content": str(number)}], "model": "m"}
            open_stream = partial(writer.chat.stream, **request)
            async with relay.start_or_join(f"{prefix}{number}", open_stream) as stream:
                say(text=await stream.get_final_text())


async def main(what: str, url: str, key: str, lease: str, *args: str) -> None:
    does: Any = {"produce": produce, "follow": follow, "race": race}[what]
    numbers = [arg if arg.startswith("http") else json.loads(arg) for arg in args]
    await does(url, key, float(lease), *numbers)


if __name__ == "__main__":
    backend, *arguments = sys.argv[1:]
    anyio.run(partial(main, *arguments), backend=backend)
