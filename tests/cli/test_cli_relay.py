"""``relay``: publish, read, stop and status, with a relay in this process in place of Redis.

Commands that meet in Redis are in tests/relay/redis.
"""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, ClassVar, Final, Self

import pytest

from anyio_writer import (
    ChatCompletionStream,
    ConfigurationError,
    Conversation,
    RelayUnavailableError,
    WriterError,
    chat_stream_from,
    function_tool,
    open_conversation,
)
from anyio_writer.cli import main
from anyio_writer.cli import relay as command
from anyio_writer.cli.exits import Exit
from anyio_writer.relay import MemoryRelay
from anyio_writer.testing import (
    AnyReply,
    ChatServer,
    error_reply,
    sse_event,
    text_reply,
    tool_call_reply,
    writer_chunks,
)

CHUNKS: Final = writer_chunks("Hello wide world")
URL: Final = "redis://127.0.0.1"

Published = ChatCompletionStream[Any] | Conversation[Any]


class Filled(MemoryRelay):
    """Begins with what ``source`` makes, under the key "answer"."""

    source: ClassVar[Callable[[], Published] | None]
    arguments: ClassVar[list[tuple[str, str]]]

    def __init__(self, url: str, *, prefix: str) -> None:
        super().__init__()
        self.arguments.append((url, prefix))

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        if Filled.source is not None:
            async with Filled.source() as stream:
                with suppress(WriterError):  # readers get it
                    await self.publish("answer", stream)
        return self


class Running(Filled):
    """Begins with an answer that somebody else produces."""

    async def __aenter__(self) -> Self:
        await super(Filled, self).__aenter__()
        await self.elect("answer", "a token")
        return self


class Unavailable(Filled):
    async def __aenter__(self) -> Self:
        raise RelayUnavailableError("it is away")


class Uninstalled(Filled):
    async def __aenter__(self) -> Self:
        raise ConfigurationError("it needs coredis")


def answer(*chunks: Any) -> Callable[[], Published]:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield sse_event(chunk)

    return lambda: chat_stream_from(body())


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WRITER_BASE_URL", raising=False)
    monkeypatch.setenv("WRITER_API_KEY", "a-secret")
    monkeypatch.setenv("REDIS_URL", URL)
    monkeypatch.setattr(Filled, "source", answer(*CHUNKS), raising=False)
    monkeypatch.setattr(Filled, "arguments", [], raising=False)
    monkeypatch.setattr(command, "RedisRelay", Filled)


def publish(reply: AnyReply, *more: str) -> int:
    with ChatServer(reply) as server:
        options = ("--base-url", server.url, "--max-retries", "0", "--timeout", "30")
        return main(["relay", "publish", *(more or ("new",)), "Hi", *options])


# Reading.


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_text_is_read(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["relay", "read", "answer", "--backend", backend]) == Exit.OK
    assert capfd.readouterr() == ("Hello wide world\n", "")


def test_where_it_reads(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["relay", "status", "answer"]) == Exit.OK
    more = ("--redis", "redis://other", "--prefix", "chat")
    assert main(["relay", "status", "answer", *more]) == Exit.OK
    assert Filled.arguments == [(URL, "anyio-writer"), ("redis://other", "chat")]
    monkeypatch.delenv("REDIS_URL")
    capfd.readouterr()
    assert main(["relay", "status", "answer"]) == Exit.USAGE
    assert "--redis" in capfd.readouterr().err


def test_events_are_read(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["relay", "read", "answer", "--json"]) == Exit.OK
    lines = capfd.readouterr().out.splitlines()
    types = [json.loads(line)["type"] for line in lines]
    assert types[:3] == ["chunk", "chunk", "content.delta"]
    assert types[-1] == "content.done"
    assert main(["relay", "read", "answer", "--json", "--skip", "3"]) == Exit.OK
    assert capfd.readouterr().out.splitlines() == lines[3:]


def test_an_answer_is_not_taken_for_an_earlier_one(capfd: pytest.CaptureFixture[str]) -> None:
    asked = ["relay", "read", "answer", "--skip", "3", "--generation"]
    assert main([*asked, "1"]) == Exit.BROKEN_ANSWER
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "another one has begun" in shown.err
    assert main([*asked, "0"]) == Exit.USAGE


def test_what_had_arrived_before_a_failure_is_read(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Filled, "source", answer(*CHUNKS[:3]))
    assert main(["relay", "read", "answer"]) == Exit.BROKEN_ANSWER
    shown = capfd.readouterr()
    assert shown.out == "Hello wide\n"
    assert "10 characters" in shown.err
    assert main(["relay", "read", "answer", "--json"]) == Exit.BROKEN_ANSWER
    last = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert last["error"]["class"] == "StreamTruncatedError"


def test_a_conversation_is_read(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    @function_tool
    async def temperature(city: str) -> str:
        return f"warm in {city}"

    replies = [tool_call_reply([("temperature", '{"city": "Lima"}')]), text_reply("Warm.")]
    with ChatServer(*replies * 2) as server:
        monkeypatch.setattr(
            Filled,
            "source",
            lambda: open_conversation(
                base_url=server.url,
                model="m",
                messages=[{"role": "user", "content": "Lima?"}],
                tools=[temperature],
            ),
        )
        assert main(["relay", "read", "answer"]) == Exit.OK
        assert capfd.readouterr().out == "\nWarm.\n"
        assert main(["relay", "read", "answer", "--json", "--skip", "1"]) == Exit.OK
    types = [json.loads(line)["type"] for line in capfd.readouterr().out.splitlines()]
    assert types[0] == "chunk"
    assert types.count("round.started") == types.count("tool.result") == 1


def test_an_answer_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in (["read", "none"], ["status", "none"], ["stop", "none"], ["stop", "answer"]):
        assert main(["relay", *arguments]) == Exit.NO_ANSWER
        shown = capfd.readouterr()
        assert arguments[1] in shown.err
        assert len(shown.err.splitlines()) == 1
    assert main(["relay", "read", "none", "--wait", "0.01"]) == Exit.NO_ANSWER


def test_control_characters_in_a_key_do_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("read", "status", "stop"):
        assert main(["relay", name, "a\x1b[31m"]) == Exit.NO_ANSWER
        assert "\x1b" not in "".join(capfd.readouterr())


# Status and stop.


def test_the_status_in_words(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["relay", "status", "answer"]) == Exit.OK
    shown = dict(re.split(r" {2,}", line) for line in capfd.readouterr().out.splitlines())
    assert list(shown) == ["state", "events", "started", "ended", "lease left", "generation"]
    assert (shown["state"], shown["events"], shown["lease left"]) == ("complete", "9", "-")
    for name in ("started", "ended"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown[name])


def test_the_status_of_one_that_runs(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "RedisRelay", Running)
    assert main(["relay", "status", "answer"]) == Exit.OK
    shown = dict(re.split(r" {2,}", line) for line in capfd.readouterr().out.splitlines())
    assert (shown["state"], shown["ended"]) == ("running", "-")
    assert re.fullmatch(r"\d+\.\d s", shown["lease left"])


def test_the_status_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["relay", "status", "answer", "--json"]) == Exit.OK
    found = json.loads(capfd.readouterr().out)
    assert (found["key"], found["state"], found["events"]) == ("answer", "complete", 9)
    assert main(["relay", "status", "none", "--json"]) == Exit.NO_ANSWER
    assert json.loads(capfd.readouterr().out)["state"] == "unknown"


def test_stop(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "RedisRelay", Running)
    assert main(["relay", "stop", "answer"]) == Exit.OK
    assert capfd.readouterr() == ("answer will stop within a second.\n", "")
    assert main(["relay", "stop", "answer", "--json"]) == Exit.OK
    assert json.loads(capfd.readouterr().out) == {"key": "answer", "stopping": True}
    assert main(["relay", "stop", "none", "--json"]) == Exit.NO_ANSWER
    assert json.loads(capfd.readouterr().out) == {"key": "none", "stopping": False}


# Publishing.


def test_publish(capfd: pytest.CaptureFixture[str]) -> None:
    assert publish(text_reply("Hello wide world")) == Exit.OK
    shown = capfd.readouterr()
    assert re.match(r"state +complete\nevents +9\n", shown.out)
    assert shown.err == ""
    assert publish(text_reply(), "new", "--json") == Exit.OK
    assert json.loads(capfd.readouterr().out)["state"] == "complete"


@pytest.mark.parametrize(
    ("reply", "code"),
    [(error_reply(401), Exit.AUTHENTICATION), (error_reply(429), Exit.RATE_LIMIT)],
)
def test_what_cannot_be_published(
    reply: AnyReply, code: Exit, capfd: pytest.CaptureFixture[str]
) -> None:
    assert publish(reply) == code
    shown = capfd.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1


def test_a_key_that_is_taken(capfd: pytest.CaptureFixture[str]) -> None:
    assert publish(text_reply(), "answer") == Exit.KEY_TAKEN
    assert "'answer'" in capfd.readouterr().err


def test_no_key_of_the_api(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WRITER_API_KEY")
    assert publish(text_reply()) == Exit.USAGE
    assert "WRITER_API_KEY" in capfd.readouterr().err


# The relay itself.


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (Unavailable, (Exit.CONNECTION, "it is away")),
        (Uninstalled, (Exit.USAGE, "it needs coredis")),
    ],
)
@pytest.mark.parametrize("name", ["read", "status", "stop"])
def test_a_relay_that_cannot_be_used(
    cls: type[Filled],
    expected: tuple[Exit, str],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "RedisRelay", cls)
    code, said = expected
    assert main(["relay", name, "answer"]) == code
    assert capfd.readouterr() == ("", f"anyio-writer: {said}\n")
