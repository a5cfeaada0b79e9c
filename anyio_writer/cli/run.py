"""The command ``chat``: one request, its answer on standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio
import httpx
import msgspec

from ..config import Timeouts
from ..conversation import ConversationEvent, RoundStartedEvent
from ..errors import ConfigurationError, InvalidParameterError, WriterError
from ..open import open_chat_stream
from ..protocol.completion import ParsedChatCompletion
from ..protocol.events import ContentDeltaEvent, ReasoningDeltaEvent
from ..protocol.rules import Stop, stop_of
from ..request.params import Message
from ..streaming.publisher import Publisher
from ..streaming.stream import ChatCompletionStream
from ..telemetry.observer import StreamObserver
from .exits import CommandError, Exit, explain
from .output import Output
from .text import harmless, harmless_json, one_line
from .view import Tally, finish_reason_of, notice, show_statistics, spinner
from .wrap import WordWrap

_KEY: Final = "WRITER_API_KEY"
_REFUSAL_SHOWN: Final = 10_000

_CUT: Final = {
    Stop.LENGTH: "the answer was cut off: it reached the limit of max_tokens (--max-tokens)",
    Stop.CONTENT_FILTER: "the answer was cut off by the server's content filter",
    Stop.FAILURE: "the answer was cut off: the server could not go on",
}
_DIM: Final = "\x1b[2m"
_NOT_DIM: Final = "\x1b[22m"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What to ask, of which server, and for how long."""

    prompt: str
    model: str
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    base_url: str | None = None
    path: str | None = None
    max_retries: int = 2
    timeout: float | None = None


class Transcript:
    """The first choice as it is printed: its text, on a terminal after its reasoning.

    Args:
        wrap: Breaks the lines for a terminal; None if there is no terminal. On a terminal, control
            characters are replaced, and reasoning is shown, dimmed.
    """

    def __init__(self, wrap: WordWrap | None) -> None:
        self._wrap = wrap
        self._is_amid_reasoning = False

    def __call__(self, event: ConversationEvent[None]) -> str:
        """What an event adds."""
        if isinstance(event, RoundStartedEvent) and event.round:
            return "\n"
        if isinstance(event, ContentDeltaEvent) and event.choice_index == 0:
            if self._wrap is None:
                return event.delta
            gap = "\n\n" if self._is_amid_reasoning else ""
            self._is_amid_reasoning = False
            return self._wrap(gap + harmless(event.delta))
        if self._wrap is None or not isinstance(event, ReasoningDeltaEvent):
            return ""
        if event.choice_index != 0:
            return ""
        self._is_amid_reasoning = True
        return f"{_DIM}{self._wrap(harmless(event.delta))}{_NOT_DIM}"


def json_of(event: object) -> str:
    """An event as one line of JSON."""
    return msgspec.json.encode(event).decode() + "\n"


async def show(
    stream: Publisher[ConversationEvent[None]] | ChatCompletionStream[None],
    out: Output,
    tally: Tally,
    *,
    label: str,
    as_json: bool = False,
) -> None:
    """Enter a stream and print its answer.

    A pipe or a file gets exactly the text. On a terminal, control characters are replaced.
    """
    written = Transcript(WordWrap(sys.stdout) if out.is_terminal else None)
    try:
        with spinner(label) as stop_spinner:
            async with stream:
                async for event in stream:
                    tally.count(event)
                    if as_json:
                        line = json_of(event)
                        text = harmless_json(line) if out.is_terminal else line
                    else:
                        text = written(event)
                    if text:
                        stop_spinner()
                        await out.write(text)
        await out.end_line()
    except anyio.get_cancelled_exc_class():
        out.end_line_on_terminal()
        raise


def read_prompt(argument: str) -> str:
    """The prompt: the argument itself, or standard input for ``-``.

    Raises:
        CommandError: Standard input is closed.
    """
    if argument != "-":
        return argument
    if sys.stdin is None:  # closed before we started (``<&-``)
        raise CommandError("standard input is closed: give the prompt as an argument.", Exit.USAGE)
    if sys.stdin.isatty():
        notice("type the prompt, then Ctrl-D on a line of its own")
    # What is piped in is UTF-8, even where the locale (and so sys.stdin) says otherwise.
    text = sys.stdin.buffer.read().decode(errors="surrogateescape")
    return text.rstrip("\r\n")  # echo and editors add it


async def chat(
    question: Question,
    *,
    as_json: bool,
    stats: bool | None = None,
    observer: StreamObserver | None = None,
    client: httpx.AsyncClient | None = None,
) -> None:
    """Ask, and print the answer as it comes.

    Args:
        question: What to ask.
        as_json: Whether to print events instead of text.
        stats: Whether to sum the answer up; by default if text is printed, and somebody sees it.
        observer: Is notified of what the stream does.
        client: What sends the request, if not the library's own client.

    Raises:
        CommandError: Any failure.
    """
    out = Output(sys.stdout)
    tally = Tally()
    stream: ChatCompletionStream[None] | None = None
    try:
        async with failures_shown(out, tally, as_json=as_json):
            stream = open_question(question, client, observer, usage=bool(stats))
            await show(stream, out, tally, label=f"waiting for {question.model}", as_json=as_json)
    except CommandError:
        if stats and stream is not None and stream.timings.attempts:
            show_statistics(stream)
        raise
    for sentence in _peculiarities(stream.current_completion_snapshot):
        notice(sentence)
    if stats is None:
        stats = sys.stderr.isatty() and not as_json
    if stats:
        show_statistics(stream)


@asynccontextmanager
async def failures_shown(out: Output, tally: Tally, *, as_json: bool) -> AsyncGenerator[None]:
    """Turn an error of the library into one of the command, behind what was printed so far.

    Args:
        out: Where the answer is printed.
        tally: What was printed.
        as_json: Whether the error is to be an event, too.

    Raises:
        CommandError: The block raised an error of the library.
    """
    try:
        yield
    except WriterError as exc:
        error = explain(exc, characters=tally.characters)
        await out.end_line()
        if as_json:
            said = {"class": type(exc).__name__, "message": error.message}
            await out.write(json_of({"type": "error", "error": said}))
        raise error from exc


def _peculiarities(completion: ParsedChatCompletion[None]) -> Iterator[str]:
    """What the user should know about an answer that is not an error."""
    message = completion.choices[0].message if completion.choices else None
    reason = finish_reason_of(completion) or ""
    if message and message.refusal:
        yield f"the model refused: {one_line(message.refusal, _REFUSAL_SHOWN)}"
    elif not (message and message.content):
        yield f"the answer holds no text (finish reason: {reason or 'none'})"
    if (stop := stop_of(reason)) in _CUT:
        yield _CUT[stop]


def open_question(
    question: Question,
    client: httpx.AsyncClient | None = None,
    observer: StreamObserver | None = None,
    *,
    usage: bool = False,
) -> ChatCompletionStream[None]:
    """A stream that is not yet entered.

    Raises:
        ConfigurationError: There is no key, or a setting is wrong.
        InvalidParameterError: The question is.
    """
    if not question.prompt.strip():
        raise InvalidParameterError("the prompt is empty.")
    for text in (question.prompt, question.system or "", question.model):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidParameterError("the prompt or an option is not UTF-8.") from None
    if not os.environ.get(_KEY, "").strip():
        raise ConfigurationError(
            f"there is no API key: set the environment variable {_KEY}. If the server needs "
            "none, set it to any value. 'anyio-writer demo' works without a key."
        )
    messages: list[Message] = [{"role": "user", "content": question.prompt}]
    if question.system is not None:
        messages.insert(0, {"role": "system", "content": question.system})
    return open_chat_stream(
        client=client,
        messages=messages,
        model=question.model,
        temperature=question.temperature,
        max_tokens=question.max_tokens,
        base_url=question.base_url,
        path=question.path,
        max_retries=question.max_retries,
        stream_options={"include_usage": True} if usage else None,
        observer=observer,
        timeouts=Timeouts(total=question.timeout),
    )
