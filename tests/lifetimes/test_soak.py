"""Two thousand streams, many of them cancelled or failing: nothing grows with their number."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from anyio_writer import APIConnectionError, APIStatusError, AsyncWriter, ContentDeltaEvent
from tests.lifetimes.lifetime_helpers import (
    HANGS,
    busy_slots,
    clients_of,
    new_seed,
    seeded,
    tasks_of_clients,
)
from tests.plugins.thoroughness import examples

STREAMS = min(2000, examples(2000))
LOOKS = 10
"""How often it is looked at what there is."""

AT_A_TIME = 20
HERE = Path(__file__).parent
FILES = Path("/proc/self/fd")
MEMORY = Path("/proc/self/statm")


@asynccontextmanager
async def server_elsewhere() -> AsyncIterator[str]:
    path = os.pathsep.join(sys.path)
    command = [sys.executable, str(HERE / "soak_server.py")]
    async with await anyio.open_process(
        command, stderr=None, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        try:
            assert process.stdout is not None
            yield (await process.stdout.receive()).decode().strip()
        finally:
            process.kill()


async def one(writer: AsyncWriter, rng: random.Random) -> str:
    """A stream: about a third are cancelled, a tenth fails, the others come to a good end."""
    fate = rng.choices(["cancelled", "fails", "whole", "shared", "left"], [10, 3, 9, 4, 4])[0]
    fault = {"fails": rng.choice(["status", "cut", "reset"]), "cancelled": "slow"}.get(fate, "")
    messages: Any = [{"role": "user", "content": fault}]
    limit = rng.uniform(0, 0.03) if fate == "cancelled" else HANGS
    with anyio.move_on_after(limit):
        try:
            async with writer.chat.stream(model="m", messages=messages) as stream:
                if fate == "shared":
                    stream.start_soon(stream.until_done)
                    async for _ in stream.subscribe(ContentDeltaEvent, max_buffer=2):
                        pass
                elif fate == "left":
                    await anext(stream)
                else:
                    assert await stream.get_final_text() == "one two three four five"
        except (APIStatusError, APIConnectionError):
            assert fate == "fails"
        else:
            assert fate != "fails"
    return fate


async def many(writer: AsyncWriter, rng: random.Random, count: int) -> None:
    left = count

    async def one_after_the_other() -> None:
        nonlocal left
        while left:
            left -= 1
            await one(writer, rng)

    async with anyio.create_task_group() as group:
        for _ in range(AT_A_TIME):
            group.start_soon(one_after_the_other)


def look(writer: AsyncWriter) -> dict[str, int]:
    """What there is, when no stream is open."""
    assert not clients_of(writer).is_used
    assert busy_slots(*clients_of(writer).all) == []
    for _ in range(3):  # what one collection frees may hold more
        gc.collect()
    return {
        "tasks": len(tasks_of_clients()),
        "sockets": len(list(FILES.iterdir())),
        "objects": gc.get_freeze_count() + len(gc.get_objects()),
        "blocks of memory": sys.getallocatedblocks(),
        "bytes of memory": int(MEMORY.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
    }


@pytest.mark.skipif(not MEMORY.exists(), reason="reads /proc")
async def test_nothing_grows() -> None:
    seed = new_seed()
    rng = seeded(seed)
    looks: list[dict[str, int]] = []
    async with (
        server_elsewhere() as url,
        AsyncWriter(api_key="key", base_url=url, max_connections=AT_A_TIME // 2) as writer,
    ):
        with anyio.fail_after(5 * HANGS):
            for _ in range(LOOKS):
                await many(writer, rng, STREAMS // LOOKS)
                looks.append(look(writer))
    half = LOOKS // 2
    for what, leeway in {
        "tasks": 0.0,
        "sockets": AT_A_TIME // 2,  # connections that wait to be used again: some, never more
        "objects": 0.01,
        "blocks of memory": 0.01,
        "bytes of memory": 0.02,
    }.items():
        first = max(each[what] for each in looks[1:half])
        second = max(each[what] for each in looks[half:])
        allowed = leeway if leeway >= 1 else first * leeway
        assert second <= first + allowed, f"{what} grow, seed {seed}: {looks}"
