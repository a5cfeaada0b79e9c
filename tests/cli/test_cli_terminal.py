"""What a terminal gets, whatever its width; and streams that are closed."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from anyio_writer.cli import main
from anyio_writer.cli.exits import Exit
from anyio_writer.cli.terminal import columns_of, wrapped
from anyio_writer.cli.text import harmless, harmless_json
from anyio_writer.cli.wrap import WordWrap
from anyio_writer.testing import ChatServer, Reply, error_reply, text_reply
from tests.cli.cli_helpers import COMMAND, environment
from tests.plugins.thoroughness import examples


def set_width(file: TextIO, columns: int) -> None:
    fcntl.ioctl(file, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as file:
        yield file
    os.close(master)


class Screen:
    """A terminal that knows what WordWrap writes."""

    def __init__(self) -> None:
        self.lines = [""]

    def write(self, text: str) -> None:
        for back, erase, char in re.findall(r"\x1b\[(\d+)D|(\x1b\[K)|([^\x1b])", text):
            if back:
                line = self.lines[-1]
                while cell_len(self.lines[-1]) > cell_len(line) - int(back):
                    self.lines[-1] = self.lines[-1][:-1]
            elif char == "\n":
                self.lines.append("")
            elif char:
                self.lines[-1] += char
            else:
                assert erase


# Words.


def shown(pieces: list[str], terminal: TextIO, columns: int) -> list[str]:
    set_width(terminal, columns)
    wrap, screen = WordWrap(terminal), Screen()
    for piece in pieces:
        screen.write(wrap(piece))
    return screen.lines


def test_a_line_ends_between_words(terminal: TextIO) -> None:
    pieces = ["The quick bro", "wn fox", " jumps", " over"]
    assert shown(pieces, terminal, 14) == ["The quick ", "brown fox ", "jumps over"]
    assert shown(pieces, terminal, 16) == ["The quick brown", "fox jumps over"]


def test_a_word_as_long_as_a_line_is_cut(terminal: TextIO) -> None:
    assert shown(["a https://exam", "ple.com/ b"], terminal, 11) == [
        "a ",
        "https://ex",
        "ample.com/",
        "b",
    ]


def test_wide_characters_end_a_line_anywhere(terminal: TextIO) -> None:
    assert shown(["日本語の文章です"], terminal, 8) == ["日本語", "の文章", "です"]


def test_tabs_and_lines_of_the_text_itself(terminal: TextIO) -> None:
    assert shown(["a\tb\n\nlong", "er c\n"], terminal, 11) == ["a\tb", "", "longer c", ""]


def test_another_width_on_the_way(terminal: TextIO) -> None:
    wrap, screen = WordWrap(terminal), Screen()
    for columns, piece in ((40, "one two three "), (10, "four five")):
        set_width(terminal, columns)
        screen.write(wrap(piece))
    assert screen.lines == ["one two three ", "four five"]


WORDS = st.text(st.sampled_from("abé日́ "), max_size=30)


@settings(max_examples=examples(200))
@given(pieces=st.lists(WORDS, max_size=8), columns=st.integers(4, 30))
def test_nothing_is_lost_and_no_line_is_too_long(pieces: list[str], columns: int) -> None:
    master, slave = os.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as file, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        lines = shown(pieces, file, columns)
    os.close(master)
    text = "".join(pieces)
    assert all(cell_len(line) < columns for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    whole = {word for line in lines for word in line.split()}
    for word in text.split():
        if "日" not in word and cell_len(word[0]) and cell_len(word) < columns:
            assert word in whole


@pytest.mark.parametrize("kind", ["dumb", ""])
def test_a_terminal_without_escape_sequences_gets_the_text(
    kind: str, terminal: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", kind)
    assert shown(["one two three"], terminal, 5) == ["one two three"]
    assert wrapped("one two three", terminal) == "one two three"


def test_no_width(terminal: TextIO, tmp_path: Path) -> None:
    assert columns_of(terminal) is None
    with (tmp_path / "file").open("w") as file:
        assert columns_of(file) is None


def test_a_sentence_is_wrapped(terminal: TextIO) -> None:
    set_width(terminal, 12)
    assert wrapped("anyio-writer: one two", terminal) == "anyio-writer:\none two"


# Text that changes the order of other text.

BIDIRECTIONAL = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def test_bidirectional_controls_are_neutralised() -> None:
    assert harmless(f"a{BIDIRECTIONAL}b") == "a" + "\N{REPLACEMENT CHARACTER}" * 9 + "b"
    assert harmless("שלום\u200f!") == "שלום\u200f!"
    line = harmless_json(f'"{BIDIRECTIONAL}"')
    assert line.isascii()
    assert line.startswith('"\\u202a')


# Help.


@pytest.mark.parametrize("columns", [40, 60, 120])
@pytest.mark.parametrize("command", ["", "demo", "chat", "record", "serve"])
def test_help_fits(
    command: str,
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([*filter(None, [command]), "--help"]) == Exit.OK
    text = capsys.readouterr().out
    assert all(len(line) <= columns for line in text.splitlines()), text
    for word in (
        "--temperature",
        "/v1/chat/completions",
        "https://api.writer.com",
        "WRITER_API_KEY",
    ):
        assert word in text or command not in ("chat", "record"), word
    assert "…" not in text
    assert "{}" not in text
    assert "..." not in text.replace("[ARGS]...", "").replace("JSON ...]", "")


# Errors with the hint that fits.


@pytest.mark.parametrize(
    ("reply", "hint"),
    [
        (error_reply(429), "Try again later."),
        (error_reply(429, headers={"retry-after": "90"}), "The server asks to wait 90 seconds."),
        (error_reply(429, {"error": {"code": "insufficient_quota"}}), "The quota is used up:"),
        (error_reply(403), "The key in WRITER_API_KEY has no permission for this."),
        (error_reply(404), "Are --model, --base-url and --path right?"),
    ],
)
def test_a_hint_fits_its_error(
    reply: Reply,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WRITER_API_KEY", "a-secret")
    with ChatServer(reply) as server:
        main(["chat", "Hi", "--base-url", server.url, "--max-retries", "0"])
    assert hint in capsys.readouterr().err


def test_a_base_url_with_the_beginning_of_the_path_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WRITER_API_KEY", "a-secret")
    with ChatServer(error_reply(404)) as server:
        main(["chat", "Hi", "--base-url", f"{server.url}/v1"])
        assert server.requests[0].path == "/v1/v1/chat"
    said = capsys.readouterr().err
    assert "--base-url ends in /v1, and --path begins with it: leave one of them out." in said


# Closed standard streams, as only a program has them.


def run(line: str, **changes: str) -> subprocess.CompletedProcess[bytes]:
    program = " ".join(f"'{word}'" for word in COMMAND)
    return subprocess.run(
        ["sh", "-c", line.replace("anyio-writer", program)],
        check=False,
        capture_output=True,
        timeout=30,
        env=environment(**changes),
    )


def test_standard_input_is_closed() -> None:
    done = run("anyio-writer chat - <&-")
    assert done.returncode == Exit.USAGE
    assert done.stderr == (
        b"anyio-writer: standard input is closed: give the prompt as an argument.\n"
    )


@pytest.mark.parametrize("arguments", ["chat Hi", "demo", "serve", "--help", "record x Hi"])
def test_standard_output_is_closed(arguments: str) -> None:
    with ChatServer() as server:
        done = run(f"anyio-writer {arguments} >&-", WRITER_BASE_URL=server.url)
        assert not server.requests
    assert done.returncode == Exit.USAGE
    assert done.stderr == (
        b"anyio-writer: standard output is closed, so there is nowhere to write to.\n"
    )


def test_nothing_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """Else a notice would be written into the recording, or to the server."""
    with ChatServer(text_reply("Hello", finish_reason="length")) as server:
        path = tmp_path / "answer.sse"
        done = run(f"anyio-writer record {path} Hi <&- 2>&-", WRITER_BASE_URL=server.url)
    assert (done.returncode, done.stdout) == (0, b"Hello\n")
    assert b"anyio-writer" not in path.read_bytes()


# Completion by a shell.


def test_a_shell_completes_commands_and_options() -> None:
    asked = {"_ANYIO_WRITER_COMPLETE": "complete_bash"}
    done = run("anyio-writer", **asked, COMP_WORDS="anyio-writer re", COMP_CWORD="1")
    assert (done.returncode, done.stdout.split()) == (0, [b"record", b"relay"])
    done = run("anyio-writer", **asked, COMP_WORDS="anyio-writer chat --t", COMP_CWORD="2")
    assert done.returncode == 0
    assert {b"--temperature", b"--timeout"} <= set(done.stdout.split())


def test_a_shell_that_is_not_known() -> None:
    done = run("anyio-writer", _ANYIO_WRITER_COMPLETE="complete_nonsense")
    assert done.returncode == 1


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_the_version_needs_no_extra(missing: str) -> None:
    program = (
        "import sys; sys.modules[sys.argv.pop()] = None; "
        "from anyio_writer.cli import main; sys.exit(main(['--version']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, missing],
        check=False,
        env=environment(),
        capture_output=True,
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b"anyio-writer 0.")
