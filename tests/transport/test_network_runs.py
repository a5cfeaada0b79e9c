"""The network, when one event loop runs after the other."""

from __future__ import annotations

import socket
from typing import Any

import anyio
import pytest

from anyio_writer.transport.network import NetworkBackend
from tests.transport.network_helpers import HANGS

LOOPS = {"asyncio": ("asyncio", {}), "uvloop": ("asyncio", {"use_uvloop": True})}
LOOPS["trio"] = ("trio", {})


@pytest.mark.parametrize("then", LOOPS)
@pytest.mark.parametrize("first", LOOPS)
def test_a_connection_of_another_event_loop_is_not_used_again(first: str, then: str) -> None:
    """It counts as ended, and can be closed."""

    async def use() -> Any:
        stream = await NetworkBackend().connect_tcp("127.0.0.1", listener.getsockname()[1])
        theirs, _ = listener.accept()
        theirs.sendall(b"answer")
        assert await stream.read(100, timeout=HANGS) == b"answer"
        assert stream.get_extra_info("is_readable") is False
        return stream, theirs

    async def close(stream: Any) -> None:
        assert stream.get_extra_info("is_readable") is True
        await stream.aclose()

    def run(loop: str, *call: Any) -> Any:
        backend, options = LOOPS[loop]
        return anyio.run(*call, backend=backend, backend_options=options)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream, theirs = run(first, use)
        run(then, close, stream)
        with theirs:
            theirs.settimeout(HANGS)
            assert theirs.recv(100) == b""
