"""The programs in examples/ run, on both event loops, against the scripted server."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from anyio_writer.testing import (
    DONE,
    ChatServer,
    error_reply,
    sse_event,
    text_reply,
    tool_call_reply,
    writer_chunks,
)

EXAMPLES: Final = Path(__file__).parent.parent / "examples"


async def run(
    monkeypatch: pytest.MonkeyPatch, server: ChatServer, program: str, *arguments: str
) -> None:
    """Run a program as it stands, but on the event loop of the test."""
    monkeypatch.setenv("WRITER_API_KEY", "key")
    monkeypatch.setenv("WRITER_BASE_URL", server.url)
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    mains: list[Any] = []
    monkeypatch.setattr(anyio, "run", mains.append)
    runpy.run_path(str(EXAMPLES / program), run_name="__main__")
    (main,) = mains
    with anyio.fail_after(30):
        await main()


async def test_print_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with ChatServer(text_reply("Because."), error_reply(401)) as server:
        await run(monkeypatch, server, "print_answer.py", "Why", "so?")
        assert server.requests[0].json()["messages"] == [{"role": "user", "content": "Why so?"}]
        assert capsys.readouterr().out == "Because.\n"
        with pytest.raises(SystemExit, match="Error code: 401"):
            await run(monkeypatch, server, "print_answer.py")


async def test_many_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = [f"Question {number}?" for number in range(5)]
    async with ChatServer(error_reply(400), default=text_reply("Because.")) as server:
        await run(monkeypatch, server, "many_at_once.py", *questions)
        assert len(server.connections) <= 3
    printed = capsys.readouterr().out
    assert printed.count("?\nBecause.\n\n") == 4
    assert printed.count("?\nfailed: Error code: 400") == 1


async def test_call_a_tool(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = [("temperature", '{"city": "Lima"}'), ("temperature", '{"city": "Oslo"}')]
    async with ChatServer(tool_call_reply(calls), text_reply("No.")) as server:
        await run(monkeypatch, server, "call_a_tool.py")
        first, second = server.requests
    assert [tool["function"]["name"] for tool in first.json()["tools"]] == ["temperature"]
    _, answer, *results = second.json()["messages"]
    ids = [call["id"] for call in answer["tool_calls"]]
    assert [result["tool_call_id"] for result in results] == ids
    assert [result["content"] for result in results] == ["4 degrees in Lima", "4 degrees in Oslo"]
    lines = [f"[{name} {arguments}]\n" for name, arguments in calls]
    assert capsys.readouterr().out == "".join([*lines, "No.\n"])


@pytest.mark.parametrize("end", [DONE, b""])
async def test_from_recording(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    end: bytes,
) -> None:
    chunks = list(writer_chunks("One two"))
    pieces = [sse_event(chunk) for chunk in chunks[: None if end else -1]]
    path = tmp_path / "answer.sse"
    path.write_bytes(b"".join(pieces) + end)
    async with ChatServer() as server:
        await run(monkeypatch, server, "from_recording.py", str(path))
    printed = capsys.readouterr().out
    assert f"{len(pieces):6d}  chunk\n" in printed
    assert ("StreamTruncatedError: " in printed) is (not end)
    assert printed.endswith(f"choice 0 ({'stop' if end else None}): One two\n")


def test_your_own_tests(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", EXAMPLES / "your_own_tests.py"],
        cwd=tmp_path,  # not the checkout, which would go ahead of an installed package
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stdout
    assert " 8 passed" in finished.stdout
