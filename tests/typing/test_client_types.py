"""Whoever passes a client in, type-checked: both kinds are taken, and nothing else."""

from __future__ import annotations

from typing import Any

import httpx
import httpx2
import pytest

from anyio_writer import AsyncWriter, ConfigurationError, open_chat_stream

REQUEST: Any = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


async def test_clients_of_both_kinds() -> None:
    async with httpx.AsyncClient() as one, httpx2.AsyncClient() as other:
        AsyncWriter(api_key="key", client=one)
        AsyncWriter(api_key="key", client=other)
        open_chat_stream(**REQUEST, api_key="key", client=other)


def test_other_clients() -> None:
    with httpx.Client() as client, pytest.raises(ConfigurationError, match="client must be"):
        AsyncWriter(api_key="key", client=client)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="client must be"):
        AsyncWriter(api_key="key", client=5)  # type: ignore[arg-type]
