"""The command as its users have it: a program of its own, on either event loop."""

import json
import os
import pty
import signal
import subprocess
import sys
from subprocess import PIPE

import anyio
import msgspec
import pytest

from anyio_writer import open_chat_stream
from anyio_writer.testing import (
    ChatServer,
    Hold,
    Reply,
    Stall,
    chunks_reply,
    error_reply,
    text_reply,
    writer_chunks,
)
from tests.cli.cli_helpers import (
    HANGS,
    chat_arguments,
    environment,
    errors_of,
    output_of,
    run_command,
    started,
    terminal_output,
)

TEXT = "Größe ≠ Länge\r\n\x1b[31m日本\n"


async def test_the_demonstration_needs_nothing(anyio_backend_name: str) -> None:
    nowhere = "http://127.0.0.1:9"  # a proxy, and a server that the demonstration must not ask
    done = await run_command(
        *("demo", "--backend", anyio_backend_name, "--pace", "0", "--text", "Tasks have parents."),
        WRITER_API_KEY="",
        WRITER_BASE_URL=nowhere,
        HTTP_PROXY=nowhere,
    )
    assert (done.returncode, done.stdout) == (0, b"Tasks have parents.\n")
    shown = done.stderr.decode()
    assert "A built-in server answers, not a model" in shown
    for fact in ("time to first content", "chunks/s", "stop", "12 prompt + 3 completion tokens"):
        assert fact in shown


async def test_a_pipe_gets_exactly_the_text(anyio_backend_name: str) -> None:
    async with ChatServer(text_reply(TEXT)) as server:
        arguments = chat_arguments(server, anyio_backend_name, "--system", "Be brief.", "-")
        done = await run_command(
            *arguments, stdin="Wie groß?\n".encode(), LC_ALL="C", PYTHONIOENCODING="ascii"
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode() == TEXT
        assert server.requests[0].json() == {
            "model": "palmyra-x5",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Wie groß?"},
            ],
            "stream": True,
        }
        assert server.requests[0].header("authorization") == "Bearer a-secret"


async def test_json_is_one_event_per_line(anyio_backend_name: str) -> None:
    async with ChatServer(text_reply("One, two.")) as server:
        done = await run_command(*chat_arguments(server, anyio_backend_name, "--json", "Hi"))
        stream = open_chat_stream(
            api_key="key",
            base_url=server.url,
            model="palmyra-x5",
            messages=[{"role": "user", "content": "Hi"}],
        )
        async with stream:
            events = [msgspec.json.encode(event) async for event in stream]
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines() == events
    assert {"type": "content.done", "choice_index": 0, "content": "One, two."} in [
        json.loads(line) for line in done.stdout.splitlines()
    ]


async def test_what_has_arrived_stays_when_the_rest_does_not(anyio_backend_name: str) -> None:
    cut = chunks_reply(writer_chunks("Hello wide world")[:3])
    async with ChatServer(cut) as server:
        done = await run_command(*chat_arguments(server, anyio_backend_name))
    assert done.returncode == 9
    assert done.stdout == b"Hello wide\n"
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("anyio-writer: ")
    assert "10 characters" in line


async def test_ctrl_c_in_mid_answer_closes_the_connection(anyio_backend_name: str) -> None:
    async with (
        ChatServer(chunks_reply([*writer_chunks("Hello wide world")[:3], Stall()])) as server,
        started(*chat_arguments(server, anyio_backend_name)) as process,
    ):
        await output_of(process, until=b"Hello wide")
        process.send_signal(signal.SIGINT)
        request = await server.wait_disconnect()
        assert await process.wait() == 130
        assert await errors_of(process) == b""
        assert not request.answered


async def test_sigterm_before_the_answer_closes_the_connection(anyio_backend_name: str) -> None:
    async with (
        ChatServer(Reply(headers_delay=HANGS)) as server,
        started(*chat_arguments(server, anyio_backend_name)) as process,
    ):
        await server.wait_request()
        process.send_signal(signal.SIGTERM)
        await server.wait_disconnect()
        assert await process.wait() == 143
        assert await errors_of(process) == b""


async def test_a_reader_that_leaves_ends_it_without_a_word(anyio_backend_name: str) -> None:
    left = anyio.Event()
    chunks = writer_chunks("Hello wide world")
    async with ChatServer(chunks_reply([*chunks[:2], Hold(left), *chunks[2:]])) as server:
        reading, writing = os.pipe()
        async with started(*chat_arguments(server, anyio_backend_name), stdout=writing) as process:
            os.close(writing)
            await anyio.wait_readable(reading)
            os.close(reading)
            left.set()
            assert await process.wait() == 141
            assert await errors_of(process) == b""


async def test_a_terminal_gets_a_spinner_and_then_harmless_text(anyio_backend_name: str) -> None:
    go_on = anyio.Event()
    reply = text_reply("\x1b]0;gotcha\x07 \x9b2J\r\nfine", headers_hold=go_on)
    async with ChatServer(reply) as server:
        master, slave = pty.openpty()
        try:
            async with started(
                *chat_arguments(server, anyio_backend_name), stdout=slave, stderr=slave
            ) as process:
                os.close(slave)
                before = await terminal_output(master, until=b"waiting for palmyra-x5")
                go_on.set()
                after = await terminal_output(master)
                assert await process.wait() == 0
        finally:
            os.close(master)
    assert b"gotcha" not in before
    shown = after.decode()
    assert "␛]0;gotcha␇ \N{REPLACEMENT CHARACTER}2J\r\nfine\r\n" in shown  # the tty adds CR
    assert "\x1b]" not in shown
    assert "\x9b" not in shown
    assert "stop · first content after" in shown


async def test_a_warning_does_not_run_into_the_spinner(anyio_backend_name: str) -> None:
    go_on = anyio.Event()
    busy = error_reply(503, headers_hold=go_on, headers={"retry-after-ms": "1"})
    async with ChatServer(busy, text_reply("fine")) as server:
        master, slave = pty.openpty()
        arguments = chat_arguments(server, anyio_backend_name, "--max-retries", "1", "Hi")
        try:
            async with started(*arguments, stdout=slave, stderr=slave) as process:
                os.close(slave)
                before = await terminal_output(master, until=b"waiting for palmyra-x5")
                go_on.set()
                shown = before + await terminal_output(master)
                assert await process.wait() == 0
        finally:
            os.close(master)
    notice = b"anyio-writer: Attempt 1 failed with InternalServerError[503]; the request is"
    above, _, below = shown.partition(notice)
    assert above.endswith(b"\x1b[2K")  # the line of the spinner was erased
    assert b"waiting" not in below
    assert b"\r\nfine\r\n" in below


async def test_a_warning_is_a_notice_in_a_file_too() -> None:
    busy = error_reply(503, headers={"retry-after-ms": "1"})
    async with ChatServer(busy, text_reply("fine")) as server:
        done = await run_command(*chat_arguments(server, "asyncio", "--max-retries", "1", "Hi"))
    assert done.stdout == b"fine\n"
    assert done.stderr.startswith(b"anyio-writer: Attempt 1 failed with InternalServerError[503]; ")


async def test_a_port_that_is_taken_is_said_plainly(anyio_backend_name: str) -> None:
    async with ChatServer() as server:
        port = server.url.rpartition(":")[2]
        done = await run_command("serve", "--port", port, "--backend", anyio_backend_name)
    assert done.returncode == 2
    said = f"anyio-writer: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert done.stderr.decode() == said


async def test_serve_serves_until_ctrl_c(anyio_backend_name: str) -> None:
    arguments = ("serve", "--port", "0", "--text", "Served.", "--pace", "0", "--done")
    async with started(*arguments, "--backend", anyio_backend_name) as process:
        said = (await output_of(process, until=b"Hello\n\n")).decode()
        base_url = said.split()[2].rstrip(":")
        assert f"curl -N {base_url}/v1/chat" in said
        async with open_chat_stream(
            api_key="key",
            base_url=base_url,
            model="m\x1b[31m",
            messages=[{"role": "user", "content": "Hi"}],
        ) as stream:
            assert await stream.get_final_text() == "Served."
        assert process.stderr is not None
        logged = (await process.stderr.receive()).decode()
        assert "POST /v1/chat model=m␛[31m" in logged
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        assert await errors_of(process) == b""


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_names_it(missing: str) -> None:
    program = (
        "import sys; sys.modules[sys.argv.pop()] = None; "
        "from anyio_writer.cli import main; sys.exit(main([]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, missing],
        check=False,
        env=environment(),
        capture_output=True,
    )
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.splitlines() == [
        b'anyio-writer: the command needs more: pip install "anyio-writer[cli]"'
    ]


def test_nobody_has_to_read_the_help() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "anyio_writer", "--help"],
        check=False,
        env=environment(),
        stdout=writing,
        stderr=PIPE,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
