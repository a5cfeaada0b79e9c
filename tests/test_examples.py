"""The programs in examples/ run, on both event loops, against the scripted server."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from anyio_writer.testing import (
    DONE,
    AnyReply,
    ChatServer,
    chunks_reply,
    error_reply,
    sse_event,
    text_reply,
    tool_call_reply,
    writer_chunks,
)

EXAMPLES: Final = Path(__file__).parent.parent / "examples"


def test_the_readme_lists_them_all() -> None:
    linked = re.findall(r"\]\(([^)]+)\)", (EXAMPLES / "README.md").read_text(encoding="utf-8"))
    programs = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.glob("*.py")}
    services = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.glob("*/app.py")}
    assert {*linked} == programs | services


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


RECIPE: Final = (
    '{"title": "Shortbread", "ingredients": [{"name": "butter", "grams": 120},'
    ' {"name": "flour", "grams": 250}], "minutes": 40}'
)


async def test_extract_a_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with ChatServer(text_reply(RECIPE, token_pattern=".{1,16}")) as server:
        await run(monkeypatch, server, "extract_a_record.py")
        (request,) = server.requests
    response_format = request.json()["response_format"]["json_schema"]
    assert response_format["name"] == "Recipe"
    assert set(response_format["schema"]["properties"]) == {"title", "ingredients", "minutes"}
    assert capsys.readouterr().out.splitlines() == [
        "Short ...",  # as far as it had come
        "Shortbread ...",
        "Shortbread: 1 so far",
        "Shortbread: 2 so far",
        "   120 g  butter",
        "   250 g  flour",
        "   370 g  Shortbread",
    ]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            text_reply(RECIPE.replace("250", '"some"')),
            r"does not fit .* \$\.ingredients\[1\]\.grams",
        ),
        (text_reply(RECIPE[:40], finish_reason="length"), "max_tokens cut off its text"),
        (
            chunks_reply([{"choices": [{"delta": {"refusal": "No."}, "finish_reason": "stop"}]}]),
            r"No\.$",
        ),
    ],
    ids=["wrong", "cut off", "refused"],
)
async def test_extract_a_record_in_vain(
    monkeypatch: pytest.MonkeyPatch, reply: AnyReply, said: str
) -> None:
    async with ChatServer(reply) as server:
        with pytest.raises(SystemExit, match=said):
            await run(monkeypatch, server, "extract_a_record.py")


async def test_run_tools(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither call ends before the other has begun."""
    cities = ["Lima", "Reykjavik"]
    asked = 0
    both = anyio.Event()
    sleep = anyio.sleep

    async def sleep_until_both_ask(seconds: float) -> None:
        nonlocal asked
        if seconds != 1:  # not the example's
            return await sleep(seconds)
        asked += 1
        if asked == len(cities):
            both.set()
        return await both.wait()

    monkeypatch.setattr(anyio, "sleep", sleep_until_both_ask)
    calls = [("temperature", json.dumps({"city": city})) for city in cities]
    async with ChatServer(tool_call_reply(calls), text_reply("Reykjavik.")) as server:
        await run(monkeypatch, server, "run_tools.py")
        first, second = server.requests
    (tool,) = first.json()["tools"]
    assert tool["function"]["name"] == "temperature"
    city = tool["function"]["parameters"]["properties"]["city"]
    assert city["description"] == "Its name, in English."
    _, answer, *results = second.json()["messages"]
    ids = [call["id"] for call in answer["tool_calls"]]
    assert [result["tool_call_id"] for result in results] == ids
    assert [result["content"] for result in results] == [
        "16 degrees Celsius",
        "36 degrees Celsius",
    ]
    *asked_first, _, _, last = capsys.readouterr().out.splitlines()
    assert asked_first == [f"[{city}: asked]" for city in cities]
    assert last == "Reykjavik."


async def test_run_tools_without_a_call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with ChatServer(text_reply("No idea.")) as server:
        await run(monkeypatch, server, "run_tools.py")
        assert len(server.requests) == 1
    assert capsys.readouterr().out == "No idea.\n"


async def test_hold_a_conversation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = [
        tool_call_reply([("orders_of", '{"customer": "Ada"}')]),
        tool_call_reply([("state_of", '{"order": 7}'), ("state_of", '{"order": 8}')]),
        text_reply("One is there, one is coming."),
    ]
    async with ChatServer(*replies) as server:
        await run(monkeypatch, server, "hold_a_conversation.py", "Where are Ada's orders?")
        sent = [request.json()["messages"] for request in server.requests]
    assert sent[0] == [{"role": "user", "content": "Where are Ada's orders?"}]
    assert [message["content"] for message in sent[2] if message["role"] == "tool"] == [
        "[7,8]",
        "delivered",
        "on its way",
    ]
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if "said" not in line] == [
        "[round 0]",
        '[orders_of {"customer": "Ada"}]',
        "[round 1]",
        '[state_of {"order": 7}]',
        '[state_of {"order": 8}]',
        "[round 2]",
        "One is there, one is coming.",
    ]
    # A result comes when it is there, perhaps before the next call.
    assert printed.index("[orders_of said [7,8]]") < printed.index("[round 1]")
    second = printed[printed.index("[round 1]") : printed.index("[round 2]")]
    assert {"[state_of said delivered]", "[state_of said on its way]"} < {*second}


async def test_hold_a_conversation_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ChatServer(tool_call_reply([("orders_of", '{"customer": "Bob"}')])) as server:
        with pytest.raises(SystemExit, match=r"5 rounds \(max_rounds\)"):
            await run(monkeypatch, server, "hold_a_conversation.py")
        assert len(server.requests) == 5
        assert server.requests[1].json()["messages"][-1]["content"] == "Error: KeyError: 'Bob'"


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
