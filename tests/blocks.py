"""The code blocks of a document, and how they are run."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import pytest

from anyio_writer.testing import (
    DONE,
    ChatServer,
    RecordedRequest,
    Reply,
    sse_event,
    text_reply,
    tool_call_reply,
    writer_chunks,
)

ROOT: Final = Path(__file__).parent.parent
ANSWER: Final = "Because of Rayleigh scattering."
RECORD: Final = '{"summary": "Because of Rayleigh scattering.", "keywords": ["light", "air"]}'
CITIES: Final = ("Lima", "Oslo")
RECORDING: Final = b"".join(map(sse_event, writer_chunks("From a file."))) + DONE


def answer(request: RecordedRequest) -> Reply:
    """What a model would say: a record, calls, or text."""
    asked = request.json()
    if "response_format" in asked:
        return text_reply(RECORD)(request)
    if "tools" in asked and asked["messages"][-1]["role"] == "user":
        calls = [("temperature", json.dumps({"city": city})) for city in CITIES]
        return tool_call_reply(calls)(request)
    return text_reply(ANSWER)(request)


class Block(NamedTuple):
    """A fenced block of a document.

    Attributes:
        language: What stands behind the fence.
        source: The lines between the fences.
        line: The number of the first of them.
        file: The name of the file that it is, from a first line such as ``# service.py``.
    """

    language: str
    source: str
    line: int
    file: str | None


def blocks_of(document: Path) -> Iterator[Block]:
    text = document.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        name = re.match(r"# ([\w/]+\.py)\n", found[2])
        line = text.count("\n", 0, found.start()) + 2
        yield Block(found[1], found[2], line, name[1] if name else None)


async def run_in_order(
    document: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
) -> str:
    """Run a document's Python blocks one after another in one namespace, on the test's event loop.

    As a reader would go on from one to the next. ``await`` may stand outside of functions. What a
    block gives to ``anyio.run`` is run, and so are tests that it defines. A ``text`` block behind
    it is what it prints. Requests go to a server that answers as a model would. Blocks that are
    files are left out.

    Returns:
        All that was printed.
    """
    (folder / "answer.sse").write_bytes(RECORDING)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WRITER_API_KEY", "key")
    programs: list[Any] = []
    monkeypatch.setattr(anyio, "run", lambda main, *_, **__: programs.append(main))
    namespace: dict[str, Any] = {"__name__": "block"}
    everything = ""
    printed: str | None = None
    async with ChatServer(answer) as server:
        monkeypatch.setenv("WRITER_BASE_URL", server.url)
        for block in blocks_of(document):
            if block.language == "text" and printed is not None:
                assert_output(block, printed)
            if block.language != "python" or block.file:
                printed = None
                continue
            code = compile(
                "\n" * (block.line - 1)
                + re.sub(r"http://127\.0\.0\.1:\d+", server.url, block.source),
                str(document),
                "exec",
                flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
                dont_inherit=True,
            )
            with anyio.fail_after(30):
                running = eval(code, namespace)  # noqa: S307 - our own words
                if inspect.iscoroutine(running):
                    await running
                while programs:
                    await programs.pop()()
                for name in [name for name in namespace if name.startswith("test_")]:
                    await namespace.pop(name)()
            printed = capsys.readouterr().out
            everything += printed
    return everything


def assert_output(block: Block, printed: str) -> None:
    """Hold what a program printed against a document, where ``...`` stands for anything."""
    text = "\n".join(line.rstrip() for line in block.source.strip().splitlines())
    expected = re.escape(text).replace(re.escape("..."), ".*")
    shown = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    assert re.fullmatch(expected, shown, re.DOTALL), f"line {block.line}: {shown}"
