"""What is shown on standard error: a spinner, one line of statistics, tables, notices."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Final

from rich.console import Console, RenderableType
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from ..conversation import ConversationEvent
from ..protocol.completion import ParsedChatCompletion
from ..protocol.events import ContentDeltaEvent
from ..streaming.stream import ChatCompletionStream
from .terminal import wrapped
from .text import one_line

_logger: Final = logging.getLogger("anyio_writer")

# rich's yellow can hardly be read on a light background.
_COLOURS: Final = Theme({"progress.spinner": "none", "progress.elapsed": "dim"})


class Tally:
    """Counts what comes of one answer; its times are the stream's.

    Attributes:
        events: How many events have come.
        characters: How many characters of text.
    """

    def __init__(self) -> None:
        self.events: int = 0
        self.characters: int = 0

    def count(self, event: ConversationEvent[None]) -> None:
        """Count an event."""
        self.events += 1
        if isinstance(event, ContentDeltaEvent):
            self.characters += len(event.delta)


def notice(message: str) -> None:
    """Print a sentence on standard error."""
    print(wrapped(f"anyio-writer: {message}", sys.stderr), file=sys.stderr, flush=True)


@contextmanager
def spinner(label: str) -> Generator[Callable[[], None]]:
    """Show a spinner on standard error, if that is a terminal.

    Yields:
        A function that stops it and removes it from the screen. Leaving the block does so, too.
    """
    console = Console(file=sys.stderr, theme=_COLOURS)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield lambda: None
        return
    columns = (
        SpinnerColumn("dots" if console.encoding.startswith("utf") else "line"),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    progress = Progress(
        *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
    )
    progress.add_task(one_line(label), total=None)

    def make_room(_: logging.LogRecord) -> bool:
        progress.stop()
        return True

    _logger.addFilter(make_room)  # it is called before a line of the log is written
    try:
        with progress:
            yield progress.stop
    finally:
        _logger.removeFilter(make_room)


class _Notices(logging.Handler):
    """Prints what is logged as notices."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a notice."""
        notice(self.format(record))


@contextmanager
def warnings_shown() -> Generator[None]:
    """Show warnings of the library as notices, unless ``WRITER_LOG`` shows the whole log."""
    if _logger.hasHandlers():
        yield
        return
    handler = _Notices()
    _logger.addHandler(handler)
    try:
        yield
    finally:
        _logger.removeHandler(handler)


def show_statistics(stream: ChatCompletionStream[None]) -> None:
    """Print a summary of an answer in one line on standard error."""
    timings = stream.timings
    facts = [
        finish_reason_of(stream.current_completion_snapshot) or "no finish reason",
        f"first content after {_seconds(timings.first_content)}",
        f"{timings.chunk_count} chunks in {_seconds(timings.ended)}",
        *usage_of(stream),
    ]
    if (speed := timings.tokens_per_second()) is not None:
        facts.append(f"{speed:.0f} tokens/s")
    if timings.attempts > 1:
        facts.append(f"{timings.attempts} attempts")
    Console(file=sys.stderr, highlight=False).print(
        Text(" · ".join(facts), style="dim"), soft_wrap=not sys.stderr.isatty()
    )


def statistics_table(stream: ChatCompletionStream[None], tally: Tally) -> Table:
    """The figures of an answer."""
    table = Table(show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    timings = stream.timings
    speed = timings.tokens_per_second()
    rows = {
        "time to headers": _seconds(timings.headers),
        "time to first content": _seconds(timings.first_content),
        "time to the end": _seconds(timings.ended),
        "chunks": str(timings.chunk_count),
        "events": str(tally.events),
        "bytes": f"{timings.bytes_received:,}",
        "chunks/s": f"{timings.chunk_count / timings.ended:.0f}" if timings.ended else "-",
        "tokens/s": "-" if speed is None else f"{speed:.0f}",
        "finish reason": finish_reason_of(stream.current_completion_snapshot) or "-",
        "usage": "".join(usage_of(stream)) or "-",
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def note(*things: RenderableType) -> None:
    """Print things on standard error."""
    console = Console(file=sys.stderr, highlight=False)
    for thing in things:
        console.print(thing)


def finish_reason_of(completion: ParsedChatCompletion[None]) -> str | None:
    """The finish reason of the first choice."""
    for choice in completion.choices:
        if choice.finish_reason is not None:
            return one_line(choice.finish_reason)
    return None


def usage_of(stream: ChatCompletionStream[None]) -> Iterable[str]:
    """The token counts, if the server sent them."""
    usage = stream.current_completion_snapshot.usage
    if usage is not None:
        counts = [
            f"{count} {name}"
            for name, count in (
                ("prompt", usage.prompt_tokens),
                ("completion", usage.completion_tokens),
            )
            if count is not None
        ]
        if counts:
            yield f"{' + '.join(counts)} tokens"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
