"""The arguments of the command."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Annotated

import typer

from .. import __version__
from . import bounds, record, relay, run, serve
from . import demo as demonstration
from .export import exporting
from .help import Command, Group, ServeCommand
from .scripted import Style
from .supervise import Backend
from .supervise import run as supervise

app: typer.Typer = typer.Typer(
    help="Stream chat completions as they are written.",
    cls=Group,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


_Backend = Annotated[Backend, typer.Option(metavar="NAME", help="The event loop: asyncio or trio.")]
_Prompt = Annotated[
    str, typer.Argument(metavar="PROMPT", help="The prompt; - reads it from standard input.")
]
_Model = Annotated[str, typer.Option(metavar="NAME", help="The model.")]
_System = Annotated[str | None, typer.Option(metavar="TEXT", help="A system message.")]
_Temperature = Annotated[
    float | None,
    typer.Option(metavar="NUMBER", parser=bounds.amount, help="How random the answer is."),
]
_MaxTokens = Annotated[
    int | None,
    typer.Option(metavar="COUNT", parser=bounds.some, help="The maximum number of tokens."),
]
_BaseURL = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where the server is, without the path. Default: WRITER_BASE_URL, or else "
        "https://api.writer.com.",
    ),
]
_Path = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Default: /v1/chat. Most other servers want /v1/chat/completions.",
    ),
]
_MaxRetries = Annotated[
    int,
    typer.Option(
        metavar="COUNT",
        parser=bounds.count,
        help="How often to try again if the request fails before an answer has begun.",
    ),
]
_Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        parser=bounds.limit,
        help="A time limit for everything. Default: none.",
    ),
]
_Text = Annotated[
    str, typer.Option(metavar="TEXT", show_default=False, help="What the built-in server answers.")
]
_Pace = Annotated[
    float,
    typer.Option(metavar="SECONDS", parser=bounds.seconds, help="The time between two chunks."),
]


def _show_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"anyio-writer {__version__}")
        raise typer.Exit


@app.callback()
def common(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Stream chat completions as they are written."""


@app.command(cls=Command)
def demo(
    *,
    backend: _Backend = Backend.ASYNCIO,
    text: _Text = demonstration.TEXT,
    pace: _Pace = 0.03,
) -> None:
    """Stream an answer from a built-in server: no key, no network, no model."""
    supervise(partial(demonstration.demo, text, pace=pace), backend)


@app.command(cls=Command)
def chat(
    prompt: _Prompt,
    *,
    model: _Model = "palmyra-x5",
    system: _System = None,
    temperature: _Temperature = None,
    max_tokens: _MaxTokens = None,
    base_url: _BaseURL = None,
    path: _Path = None,
    max_retries: _MaxRetries = 2,
    timeout: _Timeout = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one event per line as JSON.")
    ] = False,
    stats: Annotated[
        bool | None,
        typer.Option(
            "--stats/--no-stats",
            show_default=False,
            help="Print a summary on standard error. The default on a terminal.",
        ),
    ] = None,
    otel: Annotated[
        bool,
        typer.Option("--otel", help="Export to OpenTelemetry, as its OTEL_* variables say."),
    ] = False,
    backend: _Backend = Backend.ASYNCIO,
) -> None:
    """Ask a model, and print its answer as it arrives.

    The key is read from the environment variable WRITER_API_KEY only.

    The answer goes to standard output, everything else to standard error.
    """
    question = run.Question(
        prompt=run.read_prompt(prompt),
        model=model,
        system=system,
        temperature=temperature,
        max_tokens=max_tokens,
        base_url=base_url,
        path=path,
        max_retries=max_retries,
        timeout=timeout,
    )
    with exporting() if otel else nullcontext() as observer:
        supervise(
            partial(run.chat, question, as_json=as_json, stats=stats, observer=observer), backend
        )


@app.command("record", cls=Command)
def record_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write the response.")],
    prompt: _Prompt,
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if there is one.")
    ] = False,
    model: _Model = "palmyra-x5",
    system: _System = None,
    temperature: _Temperature = None,
    max_tokens: _MaxTokens = None,
    base_url: _BaseURL = None,
    path: _Path = None,
    max_retries: _MaxRetries = 2,
    timeout: _Timeout = None,
    backend: _Backend = Backend.ASYNCIO,
) -> None:
    """Ask a model, and write the response to a file while its answer is printed.

    The file has the body of the response as the server sent it: an event stream, without HTTP's
    headers. chat_stream_from() reads it.

    The key is read from the environment variable WRITER_API_KEY only.
    """
    question = run.Question(
        prompt=run.read_prompt(prompt),
        model=model,
        system=system,
        temperature=temperature,
        max_tokens=max_tokens,
        base_url=base_url,
        path=path,
        max_retries=max_retries,
        timeout=timeout,
    )
    supervise(partial(record.record, file, question, overwrite=overwrite), backend)


@app.command("serve", cls=ServeCommand)
def serve_(
    *,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            metavar="PORT", parser=bounds.port, help="The port; 0 lets the system choose."
        ),
    ] = 8000,
    reply: Annotated[
        list[str],
        typer.Option(
            metavar="REPLY", help="What to answer; auto unless given. Repeat it for more replies."
        ),
    ] = [],  # noqa: B006 - typer reads it, and nobody changes it
    text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The same as --reply text:TEXT.")
    ] = None,
    pace: _Pace = 0.03,
    done: Annotated[
        bool, typer.Option("--done", help="End each stream with 'data: [DONE]'.")
    ] = False,
    backend: _Backend = Backend.ASYNCIO,
) -> None:
    """Run the built-in server on a port, to try clients against it, until Ctrl-C.

    The first request gets the first reply, and so on. After the last reply the first one is used
    again.
    """
    replies = [*reply, *([] if text is None else [f"text:{text}"])] or ["auto"]
    style = Style(text=demonstration.TEXT, pace=pace, done=done)
    supervise(partial(serve.serve, replies, style, host=host, port=port), backend)


# The relay.

relay_app: typer.Typer = typer.Typer(
    help="Publish an answer for readers on any machine, read it there, stop it.",
    cls=Group,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(relay_app, name="relay")

_Redis = Annotated[
    str,
    typer.Option(
        envvar="REDIS_URL",
        show_envvar=False,
        metavar="URL",
        help="Redis or Valkey, such as redis://localhost:6379/0. Default: REDIS_URL, which keeps a "
        "password out of the process list.",
    ),
]
_Prefix = Annotated[
    str, typer.Option(metavar="TEXT", help="The prefix of the relay's keys in Redis.")
]
_Key = Annotated[str, typer.Argument(metavar="KEY", help="The key of the answer.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@relay_app.command(cls=Command)
def publish(
    key: _Key,
    prompt: _Prompt,
    *,
    redis: _Redis,
    prefix: _Prefix = "anyio-writer",
    model: _Model = "palmyra-x5",
    system: _System = None,
    temperature: _Temperature = None,
    max_tokens: _MaxTokens = None,
    base_url: _BaseURL = None,
    path: _Path = None,
    max_retries: _MaxRetries = 2,
    timeout: _Timeout = None,
    as_json: _Json = False,
    backend: _Backend = Backend.ASYNCIO,
) -> None:
    """Ask a model, and publish its answer until it ends.

    Then print what the relay knows about it, as 'status' does. Ctrl-C stops the answer, also for
    its readers.
    """
    question = run.Question(
        prompt=run.read_prompt(prompt),
        model=model,
        system=system,
        temperature=temperature,
        max_tokens=max_tokens,
        base_url=base_url,
        path=path,
        max_retries=max_retries,
        timeout=timeout,
    )
    place = relay.Place(redis=redis, prefix=prefix, key=key)
    supervise(partial(relay.publish, place, question, as_json=as_json), backend)


@relay_app.command(cls=Command)
def read(
    key: _Key,
    *,
    redis: _Redis,
    prefix: _Prefix = "anyio-writer",
    skip: Annotated[
        int,
        typer.Option(
            metavar="COUNT", parser=bounds.count, help="How many events to leave out at the start."
        ),
    ] = 0,
    generation: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            parser=bounds.some,
            help="Which of the key's answers that is, as `relay status` prints it. Fail if the key "
            "has another one by now.",
        ),
    ] = None,
    wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            parser=bounds.seconds,
            help="How long to wait for an answer that has not started yet.",
        ),
    ] = 0.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one event per line as JSON.")
    ] = False,
    backend: _Backend = Backend.ASYNCIO,
) -> None:
    """Print an answer or a conversation from its start, while it runs or after it."""
    place = relay.Place(redis=redis, prefix=prefix, key=key)
    supervise(
        partial(relay.read, place, skip=skip, generation=generation, wait=wait, as_json=as_json),
        backend,
    )


@relay_app.command(cls=Command)
def stop(
    key: _Key,
    *,
    redis: _Redis,
    prefix: _Prefix = "anyio-writer",
    as_json: _Json = False,
    backend: _Backend = Backend.ASYNCIO,
) -> None:
    """Stop an answer, wherever its producer runs."""
    place = relay.Place(redis=redis, prefix=prefix, key=key)
    supervise(partial(relay.stop, place, as_json=as_json), backend)


@relay_app.command(cls=Command)
def status(
    key: _Key,
    *,
    redis: _Redis,
    prefix: _Prefix = "anyio-writer",
    as_json: _Json = False,
    backend: _Backend = Backend.ASYNCIO,
) -> None:
    """Show whether an answer is running, or how it ended."""
    place = relay.Place(redis=redis, prefix=prefix, key=key)
    supervise(partial(relay.status, place, as_json=as_json), backend)
