"""``record``: the response in a file, byte for byte."""

import runpy
import sys
from pathlib import Path

import pytest

from anyio_writer.cli import main
from anyio_writer.cli.exits import Exit
from anyio_writer.testing import (
    AnyReply,
    ChatServer,
    Reply,
    chunks_reply,
    error_reply,
    sse_event,
    text_reply,
    writer_chunks,
)

FROM_RECORDING = Path(__file__).parents[2] / "examples" / "from_recording.py"
CHUNKS = writer_chunks("Hello wide world")
BODY = b": a comment\r\n\r\n" + b"".join(map(sse_event, CHUNKS))


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WRITER_BASE_URL", raising=False)
    monkeypatch.setenv("WRITER_API_KEY", "a-secret")


def record(reply: AnyReply, path: Path, *more: str) -> int:
    with ChatServer(reply) as server:
        options = ("--base-url", server.url, "--max-retries", "0", "--timeout", "30")
        return main(["record", str(path), "Hi", *options, *more])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_file_has_the_body(
    backend: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answer.sse"
    assert record(Reply(body=[BODY[:50], BODY[50:]]), path, "--backend", backend) == Exit.OK
    assert path.read_bytes() == BODY
    shown = capfd.readouterr()
    assert shown.out == "Hello wide world\n"
    assert shown.err == f"anyio-writer: {len(BODY):,} bytes recorded in {path}\n"


def test_the_example_reads_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answer.sse"
    assert record(text_reply("Hello there"), path) == Exit.OK
    capfd.readouterr()
    monkeypatch.setattr(sys, "argv", ["from_recording.py", str(path)])
    runpy.run_path(str(FROM_RECORDING), run_name="__main__")
    assert "choice 0 (stop): Hello there" in capfd.readouterr().out


def test_what_arrived_of_a_failed_answer_is_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answer.sse"
    assert record(chunks_reply(CHUNKS[:3]), path) == Exit.BROKEN_ANSWER
    assert path.read_bytes() == b"".join(map(sse_event, CHUNKS[:3]))
    shown = capfd.readouterr()
    assert shown.out == "Hello wide\n"
    recorded, failed = shown.err.splitlines()
    assert "bytes recorded" in recorded
    assert "10 characters" in failed


def test_a_refused_request_leaves_no_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answer.sse"
    assert record(error_reply(401), path) == Exit.AUTHENTICATION
    assert not path.exists()
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_file_is_replaced_only_on_request(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answer.sse"
    path.write_text("precious")
    assert record(Reply(body=BODY), path) == Exit.USAGE
    assert path.read_text() == "precious"
    assert "--overwrite" in capfd.readouterr().err
    assert record(Reply(body=BODY), path, "--overwrite") == Exit.OK
    assert path.read_bytes() == BODY


def test_a_compressed_response_is_not_recorded(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answer.sse"
    assert record(Reply(body=BODY, encoding="gzip"), path) == Exit.BROKEN_ANSWER
    assert "gzip" in capfd.readouterr().err
    assert not path.exists()


def test_a_file_that_cannot_be_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "missing" / "answer.sse"
    assert record(Reply(body=BODY), path) == Exit.UNEXPECTED
    line = capfd.readouterr().err
    assert f"cannot write {path}: No such file" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a full device")
def test_a_full_disk(capfd: pytest.CaptureFixture[str]) -> None:
    assert record(Reply(body=BODY), Path("/dev/full"), "--overwrite") == Exit.UNEXPECTED
    assert "cannot write /dev/full: No space left" in capfd.readouterr().err
