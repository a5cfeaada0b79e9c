"""The relay within one process keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from anyio_writer.relay import MemoryRelay, Relay
from tests.relay.contract import *  # noqa: F403 - all of it
from tests.relay.relay_helpers import Machine


@pytest.fixture
def machine() -> Machine:
    """There is only one machine: all of a test's share a relay, that of the first."""
    shared: list[Relay] = []

    @asynccontextmanager
    async def enter(**options: Any) -> AsyncIterator[Relay]:
        async with AsyncExitStack() as stack:
            if not shared:
                shared.append(await stack.enter_async_context(MemoryRelay(**options)))
                stack.callback(shared.clear)
            yield shared[0]

    return enter
