"""``chat --stats`` and ``chat --otel``."""

from __future__ import annotations

import json
import re

import pytest

from anyio_writer.cli import main
from anyio_writer.cli.exits import Exit
from anyio_writer.testing import ChatServer, Cut, Reply, error_reply, text_reply
from tests.cli.cli_helpers import chat_arguments, run_command


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRITER_API_KEY", "a-secret")


def test_a_pipe_gets_statistics_if_it_asks(capsys: pytest.CaptureFixture[str]) -> None:
    busy = error_reply(503, headers={"retry-after-ms": "1"})
    with ChatServer(busy, text_reply("Well, hello there", pace=0.001)) as server:
        arguments = chat_arguments(server, "asyncio", "--max-retries", "1", "--stats", "Hi")
        assert main(arguments) == Exit.OK
        assert server.requests[-1].json()["stream_options"] == {"include_usage": True}
    shown = capsys.readouterr()
    assert shown.out == "Well, hello there\n"
    assert re.fullmatch(
        r"stop · first content after \d\.\d\d s · \d+ chunks in \d\.\d\d s · "
        r"12 prompt \+ \d+ completion tokens · \d+ tokens/s · 2 attempts\n",
        shown.err,
    )


@pytest.mark.parametrize("option", [[], ["--no-stats"]])
def test_a_pipe_gets_none_otherwise(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with ChatServer(text_reply("Hi")) as server:
        assert main(chat_arguments(server, "asyncio", *option, "Hi")) == Exit.OK
        assert "stream_options" not in server.requests[0].json()
    assert capsys.readouterr().err == ""


def test_a_failure_has_statistics_too(capsys: pytest.CaptureFixture[str]) -> None:
    with ChatServer(Reply(body=[b": hello\n\n", Cut()])) as server:
        arguments = chat_arguments(server, "asyncio", "--stats", "Hi")
        assert main(arguments) == Exit.BROKEN_ANSWER
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("no finish reason · first content after - · 0 chunks in")
    assert second.startswith("anyio-writer: ")


async def test_it_exports_as_the_environment_says(anyio_backend_name: str) -> None:
    async with ChatServer(text_reply("Hi", usage=True)) as server:
        arguments = chat_arguments(server, anyio_backend_name, "--otel", "Hi")
        done = await run_command(
            *arguments,
            OTEL_TRACES_EXPORTER="console",
            OTEL_METRICS_EXPORTER="console",
            OTEL_SERVICE_NAME="mine",
        )
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode()
    assert shown.startswith("Hi\n{")
    span, _ = json.JSONDecoder().raw_decode(shown.removeprefix("Hi\n"))
    assert span["name"] == "chat palmyra-x5"
    assert span["resource"]["attributes"]["service.name"] == "mine"
    assert "gen_ai.client.inference.duration" in shown
    (request,) = server.requests
    assert span["context"]["trace_id"].removeprefix("0x") in (request.header("traceparent") or "")


async def test_it_exports_nothing_to_none() -> None:
    async with ChatServer(text_reply("Hi")) as server:
        done = await run_command(
            *chat_arguments(server, "asyncio", "--otel", "Hi"),
            OTEL_TRACES_EXPORTER="none",
            OTEL_METRICS_EXPORTER="none",
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"Hi\n", b"")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "the traces exporter 'otlp'"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "the traces exporter 'otlp'"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "the traces exporter 'zipkin'"),
        (
            {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "nowhere"},
            "the metrics exporter 'nowhere'",
        ),
    ],
)
def test_an_exporter_that_is_missing_is_named(
    variables: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["chat", "--otel", "Hi"]) == Exit.USAGE
    assert f"--otel needs {said}, which is not installed: pip install" in capsys.readouterr().err


def test_an_sdk_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.metrics", None)
    assert main(["chat", "--otel", "Hi"]) == Exit.USAGE
    assert "--otel needs the OpenTelemetry SDK, which is not installed" in capsys.readouterr().err
