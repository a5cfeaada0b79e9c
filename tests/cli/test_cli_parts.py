"""The parts of the command, in this process."""

import io
import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import BinaryIO, cast

import anyio
import httpx
import msgspec
import pytest

from anyio_writer import APIConnectionError, APIError, AuthenticationError, WriterError, errors
from anyio_writer.cli import demo, main, run, scripted, serve, supervise
from anyio_writer.cli.exits import MEANINGS, OUTCOMES, CommandError, Exit, QuietEnd, explain
from anyio_writer.cli.output import Output
from anyio_writer.cli.supervise import Backend
from anyio_writer.cli.text import harmless, harmless_json, one_line
from anyio_writer.testing import (
    AnyReply,
    ChatServer,
    Reply,
    chunks_reply,
    error_frame,
    error_reply,
    text_reply,
    writer_chunks,
    writer_error,
)
from tests.cli.cli_helpers import chat_arguments, pipe

SCREEN_BYTES = 65_536
HELLO = writer_chunks("Hello wide world")


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WRITER_BASE_URL", raising=False)
    monkeypatch.setenv("WRITER_API_KEY", "a-secret")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(params=list(Backend))
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.param
    return found


def the_line(text: str) -> str:
    (line,) = text.splitlines()
    assert line.startswith("anyio-writer: ")
    return line.removeprefix("anyio-writer: ")


# Text.


def test_only_control_characters_change() -> None:
    assert (
        harmless("a\tb\r\nc \x1b[31m\x00\x7f\x9b é 日")
        == "a\tb\nc ␛[31m␀␡\N{REPLACEMENT CHARACTER} é 日"
    )
    assert one_line(" a\n\n b\x1b\tc ") == "a b␛ c"
    assert one_line("x" * 10, limit=5) == "xxxx…"


def test_json_says_the_same_without_control_characters() -> None:
    line = msgspec.json.encode({"text": "\x1b \x7f \x9b é"}).decode()
    safe = harmless_json(line)
    assert not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in safe)
    assert msgspec.json.decode(safe) == msgspec.json.decode(line)


# Errors and exit codes.


def public_errors() -> Iterator[type[WriterError]]:
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, WriterError):
            yield value


def test_every_error_has_its_outcome_and_every_code_its_meaning() -> None:
    for earlier, later in combinations(OUTCOMES, 2):
        assert not issubclass(later, earlier), "the earlier one hides the later one"
    for cls in public_errors():
        assert explain(cls("words")).message.startswith("words")
    assert explain(WriterError("words")).exit_code is Exit.UNEXPECTED
    assert set(MEANINGS) == set(Exit)


def test_an_error_says_how_much_had_arrived() -> None:
    assert explain(APIError("Words."), characters=3).message == (
        "Words. (3 characters of the answer had arrived.)"
    )
    assert explain(APIError("3 characters had arrived."), characters=3).message == (
        "3 characters had arrived."
    )
    assert explain(APIConnectionError("Words.")).message == "Words."
    assert explain(AuthenticationError("Words.")).message == "Words. Is WRITER_API_KEY right?"


FAILURES: list[tuple[AnyReply, Exit, str]] = [
    (
        error_reply(401, writer_error(401, "bad\nkey \x1b[31m")),
        Exit.AUTHENTICATION,
        "bad key ␛[31m",
    ),
    (error_reply(403), Exit.AUTHENTICATION, "has no permission"),
    (error_reply(429), Exit.RATE_LIMIT, "429"),
    (error_reply(500, "<html>\n\n<b>oops</b>\n" + "x" * 999), Exit.SERVER_ERROR, "<html> <b>oops"),
    (error_reply(503), Exit.SERVER_ERROR, "503"),
    (error_reply(400), Exit.REJECTED, "400"),
    (error_reply(404), Exit.REJECTED, "--path"),
    (error_reply(409), Exit.REJECTED, "409"),
    (error_reply(422), Exit.REJECTED, "422"),
    (error_reply(418, ""), Exit.REJECTED, "418"),
    (error_reply(307, headers={"location": "http://x/"}), Exit.REJECTED, "http://x/"),
    (Reply(reset_after=0, framing="none"), Exit.CONNECTION, "127.0.0.1:"),
    (Reply(stall_after=0), Exit.TIMEOUT, "--timeout"),
    (chunks_reply(HELLO[:3]), Exit.BROKEN_ANSWER, "10 characters"),
    (chunks_reply([*HELLO[:3], error_frame("openai", "no\nmore")]), Exit.BROKEN_ANSWER, "no more"),
    (chunks_reply([*HELLO[:3], "{nonsense"]), Exit.BROKEN_ANSWER, "10 characters"),
    (Reply(body=b"{}", headers={"content-type": "application/json"}), Exit.BROKEN_ANSWER, "{}"),
]


@pytest.mark.parametrize(("reply", "code", "part"), FAILURES)
def test_each_failure_has_its_code_and_one_line(
    reply: AnyReply, code: Exit, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    timeout = "0.1" if code is Exit.TIMEOUT else "30"
    with ChatServer(reply) as server:
        assert main(chat_arguments(server, "asyncio", "--timeout", timeout, "Hi")) == code
    shown = capsys.readouterr()
    line = the_line(shown.err)
    assert part in line
    assert "Traceback" not in line
    assert len(line) < 700
    assert shown.out in ("", "Hello wide\n")


def test_json_ends_with_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    with ChatServer(chunks_reply(HELLO[:3])) as server:
        assert main(chat_arguments(server, "trio", "--json", "Hi")) == Exit.BROKEN_ANSWER
    shown = capsys.readouterr()
    *_, delta, last = map(msgspec.json.decode, shown.out.splitlines())
    assert delta == {"type": "content.delta", "choice_index": 0, "delta": " wide"}
    message = the_line(shown.err)
    error = {"class": "StreamTruncatedError", "message": message}
    assert last == {"type": "error", "error": error}


WRONG: dict[tuple[str, ...], str] = {
    (): "Missing command",
    ("nonsense",): "nonsense",
    ("chat",): "PROMPT",
    ("chat", "Hi", "--nonsense"): "--nonsense",
    ("chat", " \n"): "the prompt is empty",
    ("chat", "\udcff"): "not UTF-8",
    ("chat", "Hi", "--system", "\udcff"): "not UTF-8",
    ("chat", "Hi", "--model", ""): "model",
    (
        "chat",
        "Hi",
        "--temperature",
        "-1",
    ): "it must be a number, 0 or more, not -1. ",
    ("chat", "Hi", "--temperature", "warm"): "it must be a number, 0 or more, not warm. ",
    ("chat", "Hi", "--max-tokens", "0"): "it must be a whole number, 1 or more, not 0. ",
    ("chat", "Hi", "--max-tokens", "1.5"): "it must be a whole number, 1 or more, not 1.5. ",
    ("chat", "Hi", "--max-retries", "-1"): "it must be a whole number, 0 or more, not -1. ",
    ("chat", "Hi", "--base-url", "nonsense"): "nonsense",
    ("chat", "Hi", "--timeout", "0"): "it must be a number of seconds above 0, not 0. ",
    ("chat", "Hi", "--timeout", "-1"): "it must be a number of seconds above 0, not -1. ",
    ("chat", "Hi", "--timeout", "nan"): "it must be a number of seconds above 0, not nan. ",
    ("chat", "Hi", "--timeout", "inf"): "it must be a number of seconds above 0, not inf. ",
    ("chat", "Hi", "--backend", "twisted"): "twisted",
    ("demo", "--pace", "-1"): "it must be a number of seconds, 0 or more, not -1. ",
    ("serve", "--port", "65536"): "it must be a whole number from 0 to 65535, not 65536. ",
    ("serve", "--reply", "nonsense"): "not one of: auto",
    ("serve", "--reply", "auto:x"): "'auto' takes nothing",
    ("serve", "--reply", "json:{"): "not JSON",
    ("serve", "--reply", "call:weather"): "a tool's name and its arguments",
    ("serve", "--reply", "call:{}"): "a tool's name and its arguments",
    ("serve", "--reply", "call:weather {1}"): "the arguments of weather are not JSON",
    ("serve", "--reply", "error:200"): "from 400 to 599",
    ("serve", "--reply", "error:x"): "from 400 to 599",
    ("record", __file__, "Hi"): "--overwrite",
    ("record", "x", " "): "the prompt is empty",
    ("serve", "--host", "192.0.2.1", "--port", "0"): "cannot listen on 192.0.2.1:0",
}


def test_standard_input_that_is_not_utf_8(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xff\n")))
    assert main(["chat", "-"]) == Exit.USAGE
    assert "not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_arguments_get_one_line(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == Exit.USAGE
    shown = capsys.readouterr()
    assert WRONG[arguments] in the_line(shown.err)
    assert shown.out == ""


@pytest.mark.parametrize("key", ["", " "])
def test_without_a_key_it_says_where_to_put_it(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WRITER_API_KEY", key)
    assert main(["chat", "Hi", "--json"]) == Exit.USAGE
    shown = capsys.readouterr()
    line = the_line(shown.err)
    assert "WRITER_API_KEY" in line
    assert "anyio-writer demo" in line
    error = {"class": "ConfigurationError", "message": line}
    assert msgspec.json.decode(shown.out) == {"type": "error", "error": error}


def test_what_nobody_foresaw_gets_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(question: run.Question, **_options: object) -> None:
        raise LookupError("two\nlines")

    monkeypatch.setattr(run, "chat", fail)
    assert main(["chat", "Hi"]) == Exit.UNEXPECTED
    assert "LookupError: two lines" in the_line(capsys.readouterr().err)


@pytest.mark.parametrize("cause", [KeyboardInterrupt(), RuntimeError("wrapped")])
def test_ctrl_c_at_the_prompt(cause: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(argument: str) -> str:
        if isinstance(cause, KeyboardInterrupt):
            raise cause
        raise cause from KeyboardInterrupt()

    monkeypatch.setattr(run, "read_prompt", interrupted)
    assert main(["chat", "-"]) == Exit.INTERRUPTED


def test_a_missing_module_that_is_not_of_the_extra_is_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "anyio_writer.cli.app", None)
    with pytest.raises(ModuleNotFoundError, match="anyio_writer"):
        main(["demo"])


# Answers.


@pytest.mark.parametrize(
    ("reply", "out", "err"),
    [
        (text_reply("Hello"), "Hello\n", None),
        (text_reply("Hello\n"), "Hello\n", None),
        (text_reply(["Hello", "Bye"]), "Hello\n", None),
        (text_reply("Hel", finish_reason="length"), "Hel\n", "max_tokens"),
        (text_reply("Hel", finish_reason="content_filter"), "Hel\n", "content filter"),
        (text_reply(""), "", "no text (finish reason: stop)"),
        (
            chunks_reply([{"choices": [{"delta": {"role": "assistant"}}]}, "[DONE]"]),
            "",
            "no text (finish reason: none)",
        ),
        (
            chunks_reply(
                [{"choices": [{"delta": {"refusal": "I\nwill not."}, "finish_reason": "stop"}]}]
            ),
            "",
            "the model refused: I will not.",
        ),
    ],
)
def test_what_an_answer_looks_like_on_a_pipe(
    reply: AnyReply, out: str, err: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    with ChatServer(reply) as server:
        assert main(chat_arguments(server, "trio")) == Exit.OK
    shown = capfd.readouterr()
    assert shown.out == out
    assert shown.err == "" if err is None else err in the_line(shown.err)


@pytest.mark.parametrize("typed", [True, False])
def test_the_prompt_comes_from_standard_input(
    typed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO("¿Qué?\nSí.\r\n".encode()), encoding="ascii")
    monkeypatch.setattr(stdin, "isatty", lambda: typed)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert run.read_prompt("-") == "¿Qué?\nSí."
    assert ("Ctrl-D" in capsys.readouterr().err) is typed


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, kind: str = "xterm") -> Generator[BinaryIO]:
    """Make standard output and error a terminal; what it shows can be read, once it is there."""
    master, slave = os.openpty()
    with (
        os.fdopen(master, "rb", buffering=0) as screen,
        os.fdopen(slave, "w", encoding="utf-8") as file,
        monkeypatch.context() as patch,
    ):
        patch.setenv("TERM", kind)
        patch.setattr(sys, "stdout", file)
        patch.setattr(sys, "stderr", file)
        yield cast("BinaryIO", screen)


def written_to(screen: BinaryIO) -> bytes:
    """All that was written to a terminal: one read may give only the first part of it."""
    mark = "(that is all)"
    sys.stdout.write(mark)
    sys.stdout.flush()
    data = b""
    while not data.endswith(mark.encode()):
        data += screen.read(SCREEN_BYTES)
    return data.removesuffix(mark.encode())


def test_a_terminal_shows_no_control_characters_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(text_reply("\x9b2J")) as server, terminal(monkeypatch) as screen:
        assert main(chat_arguments(server, "asyncio", "--json", "Hi")) == Exit.OK
        shown = written_to(screen).decode()
    assert r'"delta":"\u009b2J"' in shown
    assert "\x9b" not in shown


def thinking_reply() -> AnyReply:
    deltas = [{"reasoning_content": "h\x1bm"}, {"reasoning_content": "."}, {"content": "42"}]
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return chunks_reply([*chunks, {"choices": [{"index": 0, "finish_reason": "MAX_TOKENS"}]}])


def test_a_terminal_shows_reasoning_dimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(thinking_reply()) as server, terminal(monkeypatch) as screen:
        assert main(chat_arguments(server, "asyncio")) == Exit.OK
        shown = written_to(screen).decode()
    assert "\x1b[2mh␛m\x1b[22m\x1b[2m.\x1b[22m\r\n\r\n42\r\n" in shown
    assert "reached the limit of max_tokens" in shown


def test_elsewhere_only_the_answer_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with ChatServer(thinking_reply(), thinking_reply()) as server:
        assert main(chat_arguments(server, "asyncio")) == Exit.OK
        assert capfd.readouterr().out == "42\n"
        assert main(chat_arguments(server, "asyncio", "--json", "Hi")) == Exit.OK
    events = [msgspec.json.decode(line) for line in capfd.readouterr().out.splitlines()]
    assert [event["delta"] for event in events if event["type"] == "reasoning.delta"] == [
        "h\x1bm",
        ".",
    ]
    assert [event["reasoning"] for event in events if event["type"] == "reasoning.done"] == [
        "h\x1bm."
    ]


def test_a_terminal_gets_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(text_reply("\x1b[31mHi", usage=True)) as server:
        with terminal(monkeypatch) as screen:
            assert main(chat_arguments(server, "asyncio")) == Exit.OK
            shown = written_to(screen).decode()
    assert "␛[31mHi\r\n" in shown
    assert "4 chunks in" in shown
    assert "12 prompt + 1 completion tokens" in shown


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Error code: 401 - no", "Error code: 401 - no. Is WRITER_API_KEY right?"),
        ("Error code: 401 - No!", "Error code: 401 - No! Is WRITER_API_KEY right?"),
    ],
)
def test_a_hint_begins_a_sentence(message: str, shown: str) -> None:
    assert explain(AuthenticationError(message)).message == shown


def test_a_simple_terminal_gets_no_spinner(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(text_reply("Hi")) as server, terminal(monkeypatch, "dumb") as screen:
        assert main(chat_arguments(server, "asyncio")) == Exit.OK
        assert b"waiting" not in written_to(screen)


def test_the_demonstration(capsys: pytest.CaptureFixture[str], backend: Backend) -> None:
    assert main(["demo", "--pace", "0", "--backend", backend]) == Exit.OK
    shown = capsys.readouterr()
    assert shown.out == demo.TEXT
    assert "built-in server" in shown.err
    assert "finish reason" in shown.err


def test_the_version_and_the_exit_codes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == Exit.OK
    assert capsys.readouterr().out.startswith("anyio-writer ")
    assert main(["--help"]) == Exit.OK
    assert "130  Ctrl-C" in capsys.readouterr().out


async def test_serve_logs_what_it_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(self: Output, text: str) -> None:
        said.append(text)
        serving.set()

    said: list[str] = []
    serving = anyio.Event()
    style = scripted.Style(text="Hi", pace=0, done=True)
    monkeypatch.setattr(Output, "write", write)
    async with anyio.create_task_group() as tg:
        tg.start_soon(partial(serve.serve, ["auto"], style, host="127.0.0.1", port=0))
        with anyio.fail_after(5):
            await serving.wait()
        url = said[0].split()[2].rstrip(":")
        async with httpx.AsyncClient(trust_env=False) as client:
            for body in ('{"model": "m\\u001b"}', "[]", "nonsense"):
                response = await client.post(f"{url}/v1/chat", content=body)
                assert response.text.endswith("data: [DONE]\n\n")
        await anyio.wait_all_tasks_blocked()
        tg.cancel_scope.cancel()
    logged = capsys.readouterr().err.splitlines()
    assert [line[9:] for line in logged] == [
        "POST /v1/chat model=m␛ 20 bytes",
        "POST /v1/chat model=- 2 bytes",
        "POST /v1/chat model=- 8 bytes",
    ]


# Signals.


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)],
)
def test_a_signal_cancels_and_cleanup_is_left_alone(
    signum: signal.Signals, code: Exit, backend: Backend
) -> None:
    before = signal.getsignal(signal.SIGINT)
    steps: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signum)
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                os.kill(os.getpid(), signal.SIGINT)
                await anyio.wait_all_tasks_blocked()
                steps.append("cleaned up")

    with pytest.raises(QuietEnd) as info:
        supervise.run(work, backend)
    assert info.value.exit_code is code
    assert steps == ["cleaned up"]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_comes_out_as_itself(backend: Backend) -> None:
    async def work() -> None:
        raise LookupError("words")

    with pytest.raises(LookupError, match="words"):
        supervise.run(work, backend)


def test_it_runs_where_signals_cannot_be_received(
    monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    def missing(*signals: signal.Signals) -> None:
        raise NotImplementedError

    ran: list[str] = []

    async def work() -> None:
        await anyio.wait_all_tasks_blocked()
        ran.append("work")

    monkeypatch.setattr(anyio, "open_signal_receiver", missing)
    supervise.run(work, backend)
    assert ran == ["work"]


def test_ctrl_c_ends_the_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    async def write_and_interrupt(self: Output, text: str) -> None:
        await write(self, text)
        if "wide" in text:
            os.kill(os.getpid(), signal.SIGINT)
            await anyio.sleep_forever()

    write = Output.write
    monkeypatch.setattr(Output, "write", write_and_interrupt)
    with ChatServer(text_reply("Hello wide world")) as server:
        with terminal(monkeypatch) as screen:
            assert main(chat_arguments(server, "asyncio")) == Exit.INTERRUPTED
            assert written_to(screen).endswith(b"Hello wide\r\n")


# Output.


async def test_a_full_pipe_does_not_hold_a_cancellation_up() -> None:
    with pipe() as (_, writer), anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            tg.start_soon(Output(writer).write, "x" * 1_000_000)
            await anyio.wait_all_tasks_blocked()
            tg.cancel_scope.cancel()


async def test_a_slow_reader_gets_everything() -> None:
    text = "é" * 100_000
    got = b""
    with pipe() as (reader, writer), anyio.fail_after(5):
        os.set_blocking(writer.fileno(), False)  # as another program may have left it
        async with anyio.create_task_group() as tg:
            tg.start_soon(Output(writer).write, text)
            while len(got) < len(text.encode()):
                await anyio.wait_readable(reader)
                got += reader.read(65_536)
    assert got.decode() == text


async def test_a_pipe_that_fills_up_between_look_and_write(monkeypatch: pytest.MonkeyPatch) -> None:
    write, refused = os.write, [True]

    def racing(fd: int, data: bytes) -> int:
        if refused and fd == writer.fileno():
            refused.clear()
            raise BlockingIOError
        return write(fd, data)

    with pipe() as (reader, writer):
        monkeypatch.setattr(os, "write", racing)
        await Output(writer).write("text")
        assert reader.read(SCREEN_BYTES) == b"text"


@pytest.mark.parametrize(
    ("before", "after"), [("half", "half\n"), ("whole\n", "whole\n"), ("", "")]
)
async def test_a_line_on_a_terminal_is_ended_once(before: str, after: str) -> None:
    memory = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    out = Output(memory)
    out.is_terminal = True
    await out.write(before)
    out.end_line_on_terminal()
    out.end_line_on_terminal()
    assert memory.buffer.getvalue() == after.encode()


async def test_files_and_stand_ins_get_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "answer"
    with path.open("w", encoding="ascii") as file:
        await Output(file).write("é" * 1000)
    assert path.read_text("utf-8") == "é" * 1000
    memory = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    out = Output(memory)
    await out.write("é \udc80")
    await out.end_line()
    await out.end_line()
    out.end_line_on_terminal()
    assert memory.buffer.getvalue() == "é ?\n".encode()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a full device")
async def test_a_full_disk_is_named() -> None:
    file = Path("/dev/full").open("w", encoding="utf-8")  # noqa: ASYNC230, SIM115
    with file, pytest.raises(CommandError, match="No space left") as info:
        await Output(file).write("text")
    assert info.value.exit_code is Exit.UNEXPECTED


def test_a_closed_standard_error_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["chat", ""]) == Exit.USAGE
    sys.stderr.close()


def test_an_unreadable_complaint_leaves_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    class Left(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Left())
    assert main(["chat", ""]) == Exit.USAGE


@pytest.mark.parametrize("arguments", [["--version"], ["demo"]])
def test_nobody_reads(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe() as (reader, writer):
        reader.close()
        monkeypatch.setattr(sys, "stdout", writer)
        assert main(arguments) == Exit.PIPE
        monkeypatch.undo()


def test_nobody_reads_what_has_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class Left(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Left())
    assert main(["--version"]) == Exit.PIPE
