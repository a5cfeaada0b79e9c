"""The command ``anyio-writer``: a client for people, a demonstration, and a server to try.

It needs the extra ``cli`` (typer and rich). The rest of the package never imports it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from .._version import __version__
from .exits import CommandError, Exit, QuietEnd
from .terminal import wrapped
from .text import one_line

_EXTRA: Final = frozenset({"click", "rich", "typer"})
_STDERR: Final = 2
_COMPLETING: Final = "_ANYIO_WRITER_COMPLETE"
"""What a shell sets to ask for completions."""


@runtime_checkable
class _ArgumentError(Protocol):
    """What typer raises for invalid arguments. The class has a different name in each version."""

    exit_code: int

    def format_message(self) -> str: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Those of the command line, unless others are given.

    Returns:
        The exit code, see ``anyio_writer.cli.exits``.
    """
    if not _prepare_streams():
        return _fail("standard output is closed, so there is nowhere to write to.", Exit.USAGE)
    try:
        code = _start(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:  # before the event loop ran, or where it cannot receive signals
        return Exit.INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return Exit.PIPE
    except SystemExit as exc:
        if _COMPLETING in os.environ:  # typer has answered the shell
            return exc.code if isinstance(exc.code, int) else Exit.OK
        _forget_stdout()  # typer turns a broken pipe into this
        return Exit.PIPE
    return code


def _start(arguments: list[str]) -> int:
    if arguments == ["--version"]:  # also without the extra
        print(f"anyio-writer {__version__}")
        return Exit.OK
    try:
        from .app import app  # it may be missing
        from .help import help_width  # it may be missing
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in _EXTRA:
            raise
        return _fail('the command needs more: pip install "anyio-writer[cli]"', Exit.USAGE)
    run = partial(
        app,
        arguments,
        prog_name="anyio-writer",
        standalone_mode=False,
        terminal_width=help_width(),
    )
    return _run(run)


def _run(command: Callable[[], int | None]) -> int:
    try:
        return command() or Exit.OK
    except QuietEnd as exc:
        return exc.exit_code
    except CommandError as exc:
        return _fail(exc.message, exc.exit_code)
    except Exception as exc:  # a traceback does not help at a prompt
        if isinstance(exc.__cause__, KeyboardInterrupt):  # some versions of typer wrap it
            raise exc.__cause__ from None
        if isinstance(exc, _ArgumentError):
            said = one_line(exc.format_message()).removesuffix(".")
            return _fail(f"{said}. See --help.", exc.exit_code)
        said = one_line(f"{type(exc).__name__}: {exc}")
        return _fail(f"something unexpected went wrong: {said}", Exit.UNEXPECTED)


def _fail(message: str, code: int) -> int:
    with suppress(OSError):  # nobody can read it; the exit code remains
        print(wrapped(f"anyio-writer: {message}", sys.stderr), file=sys.stderr, flush=True)
    return code


def _prepare_streams() -> bool:
    """Make standard output take any text, and make sure that there is a standard error.

    Returns:
        Whether there is a standard output.
    """
    # The file descriptor of a stream that was closed before we started (``>&-``) goes to the next
    # file or socket, which would then get whatever is written to that stream.
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= _STDERR:
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for good
    if sys.stdout is None:
        return False
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="replace")
    return True


def _forget_stdout() -> None:
    """Keep the interpreter from complaining about output that it cannot flush when it exits."""
    try:
        fd = sys.stdout.fileno()
    except OSError:
        return
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), fd)
