"""The logger ``anyio_writer``: one line a stream, and never a key or content."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys

import httpx
import pytest

from anyio_writer import open_chat_stream
from anyio_writer.testing import ChatServer, error_reply, text_reply
from tests.streaming.helpers import DONE, QUESTION, Body, chunk
from tests.telemetry.endings import ENDINGS, read

KEY = "sk-secret-0123456789"
LINE = re.compile(
    r"Stream (?P<outcome>\w+): (?:error=(?P<error>\S+) )?(?:status=(?P<status>\d+) )?"
    r"(?:request_id=(?P<request_id>.*?) )?attempts=(?P<attempts>\d+) chunks=(?P<chunks>\d+)"
    r"(?: first_content=\d+\.\d{3}s)? duration=\d+\.\d{3}s"
)


@pytest.mark.parametrize("name", ENDINGS)
async def test_one_line_a_stream(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "anyio_writer")
    ending = ENDINGS[name]
    async with ending.client() as client:
        stream = open_chat_stream(client=client, api_key=KEY, **QUESTION, **ending.arguments)
        await ending.use(stream)
    infos = [each.getMessage() for each in caplog.records if each.levelno == logging.INFO]
    infos = [line for line in infos if line.startswith("Stream ")]
    (line,) = infos
    found = LINE.fullmatch(line)
    assert found, line
    assert found["outcome"] == ending.outcome
    assert (found["error"] or "").partition("[")[0] == (ending.error or "")
    assert int(found["attempts"]) == ending.attempts
    assert int(found["chunks"]) == stream.chunk_count
    response = stream.response
    assert found["status"] == (str(response.status_code) if response is not None else None)
    assert found["request_id"] == stream.request_id
    warnings = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(warnings) == ending.attempts - 1
    for each in warnings:
        assert re.fullmatch(
            r"Attempt 1 failed with InternalServerError\[503\]; "
            r"the request is sent again in 0\.00 s\.",
            each.getMessage(),
        )


@pytest.mark.parametrize("name", ENDINGS)
async def test_neither_the_key_nor_content_is_logged(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "anyio_writer")
    ending = ENDINGS[name]
    async with ending.client() as client:
        question = {"model": "m", "messages": [{"role": "user", "content": "my question"}]}
        stream = open_chat_stream(client=client, api_key=KEY, **question, **ending.arguments)
        await ending.use(stream)
    said = "\n".join(each.getMessage() for each in caplog.records if each.name == "anyio_writer")
    assert "Sending a request to https://api.writer.com/v1/chat (attempt 1)." in said
    for secret in (KEY, "question", "Hel", "secret words", "nonsense", "refused"):
        assert secret not in said


async def test_a_request_id_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "anyio_writer")

    def answer(request: httpx.Request) -> httpx.Response:
        headers = {"x-request-id": f"a\tb\nStream complete: \x1b[2J{KEY}" + "x" * 1000}
        return httpx.Response(200, headers=headers, stream=Body(chunk("a", "stop"), DONE))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        await read(open_chat_stream(client=client, api_key=KEY, **QUESTION))
    line = caplog.records[-1].getMessage()
    assert "request_id=a b Stream complete: �[2J[the API key]xxx" in line
    assert line.isprintable()
    assert len(line) < 400


async def test_nothing_is_made_for_a_log_that_nobody_reads(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "anyio_writer")
    ending = ENDINGS["complete"]
    async with ending.client() as client:
        await ending.use(open_chat_stream(client=client, api_key=KEY, **QUESTION))
    assert not [each for each in caplog.records if each.name == "anyio_writer"]


PROGRAM = """
import sys, anyio, anyio_writer, httpx
async def main():
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(int(sys.argv[2])):
            async with anyio_writer.open_chat_stream(
                client=client, api_key="key", base_url=sys.argv[1], model="m",
                messages=[{"role": "user", "content": "Hello"}],
            ) as stream:
                await stream.until_done()
anyio.run(main)
"""


async def run_program(server: ChatServer, level: str) -> str:
    import anyio

    environment = {**os.environ, "WRITER_LOG": level}
    process = await anyio.run_process(
        [sys.executable, "-c", PROGRAM, server.url, "1"], env=environment, stderr=subprocess.PIPE
    )
    return process.stderr.decode()


async def test_the_environment_shows_the_log() -> None:
    failed = error_reply(503, headers={"retry-after-ms": "1"})
    async with ChatServer(failed, text_reply(), failed, text_reply()) as server:
        info = await run_program(server, "info")
        debug = await run_program(server, "DEBUG")
    async with ChatServer(text_reply()) as server:
        assert await run_program(server, "") == await run_program(server, "loud") == ""
    assert re.search(
        r"^\[.* - anyio_writer - INFO\] Stream complete: status=200", info, re.MULTILINE
    )
    assert " - WARNING] Attempt 1 failed" in info
    assert "Sending" not in info
    assert debug.count("Sending a request to") == 2
