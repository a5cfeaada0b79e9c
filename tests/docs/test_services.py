"""The services of the guides: a browser that leaves ends its stream, and nothing complains."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import httpx
import pytest

from anyio_writer.testing import ChatServer, text_reply
from tests.blocks import ROOT, blocks_of

from .test_pages import free_port, wait_for

SERVICES: Final = [
    ("tutorial.md", "service:app", "uvicorn"),
    ("guides/web-services.md", "service:app", "uvicorn"),
    ("guides/web-services.md", "starlette_service:app", "uvicorn"),
    ("guides/web-services.md", "service:app", "hypercorn-trio"),
    ("guides/quart-and-hypercorn.md", "quart_service:app", "hypercorn-trio"),
]
COMMANDS: Final = {
    "uvicorn": ("uvicorn", "--port", "{port}"),
    "hypercorn-trio": ("hypercorn", "--worker-class", "trio", "--bind", "127.0.0.1:{port}"),
}
COMPLAINTS: Final = ("Traceback", "Error", "never awaited", "not closed")


@pytest.mark.parametrize(("page", "app", "command"), SERVICES)
def test_a_browser_that_leaves(page: str, app: str, command: str, tmp_path: Path) -> None:
    for block in blocks_of(ROOT / "docs" / page):
        if block.file:
            (tmp_path / block.file).write_text(block.source)
    log = tmp_path / "log"
    port = free_port()
    with ChatServer(text_reply("word " * 1000, pace=0.01)) as server, log.open("wb") as output:
        settings = {"WRITER_API_KEY": "any", "WRITER_BASE_URL": server.url, "NO_PROXY": "*"}
        with subprocess.Popen(
            [sys.executable, "-m", *(each.format(port=port) for each in COMMANDS[command]), app],
            cwd=tmp_path,
            env={**os.environ, **settings},
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                wait_for(port, process)
                leave_early(f"http://127.0.0.1:{port}/ask?question=Why")
                wait_until_closed(server)
            finally:
                process.terminate()
    said = log.read_text(encoding="utf-8")
    assert not [complaint for complaint in COMPLAINTS if complaint in said], said


def leave_early(url: str) -> None:
    with httpx.stream("GET", url, timeout=10) as response:
        assert response.status_code == 200
        assert any("word" in text for text in response.iter_text())  # reads up to that one


def wait_until_closed(server: ChatServer) -> None:
    """The service is another process, so the only way to learn that it has left is to look."""
    deadline = time.monotonic() + 5
    while not server.connections[0].closed:
        assert time.monotonic() < deadline, "the stream goes on"
        time.sleep(0.02)
