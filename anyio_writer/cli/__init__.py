"""The command ``anyio-writer``: a client for people, a demonstration, and a server to try.

It needs the extra ``cli`` (typer and rich). The rest of the package never imports it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol, runtime_checkable

from .exits import CommandError, Exit, QuietEnd
from .text import one_line

_EXTRA: Final = frozenset({"click", "rich", "typer"})


@runtime_checkable
class _ArgumentError(Protocol):
    """What typer raises for wrong arguments; the class has no name that all versions share."""

    exit_code: int

    def format_message(self) -> str: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Those of the command line, unless others are given.

    Returns:
        The exit code, see ``anyio_writer.cli.exits``.
    """
    _prepare_streams()
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:  # before the event loop ran, or where it cannot receive signals
        return Exit.INTERRUPTED
    except (BrokenPipeError, SystemExit):  # the second is typer's word for the first
        _forget_stdout()
        return Exit.PIPE
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        from .app import app  # noqa: PLC0415 - it may be missing
        from .help import help_width  # noqa: PLC0415 - likewise
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in _EXTRA:
            raise
        return _fail('the command needs more: pip install "anyio-writer[cli]"', Exit.USAGE)
    try:
        return (
            app(
                list(arguments),
                prog_name="anyio-writer",
                standalone_mode=False,
                terminal_width=help_width(),
            )
            or 0
        )
    except QuietEnd as exc:
        return exc.exit_code
    except CommandError as exc:
        return _fail(exc.message, exc.exit_code)
    except Exception as exc:  # a traceback would help nobody at a prompt
        if isinstance(exc.__cause__, KeyboardInterrupt):  # some versions of typer wrap it
            raise exc.__cause__ from None
        if isinstance(exc, _ArgumentError):
            return _fail(f"{one_line(exc.format_message())} See --help.", exc.exit_code)
        said = one_line(f"{type(exc).__name__}: {exc}")
        return _fail(f"something unexpected went wrong: {said}", Exit.UNEXPECTED)


def _fail(message: str, code: int) -> int:
    with suppress(OSError):  # nobody is there to read it; the code still tells
        print(f"anyio-writer: {message}", file=sys.stderr, flush=True)
    return code


def _prepare_streams() -> None:
    """Make sure that there is a standard output that takes any text, and a standard error."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed before we started (``>&-``)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="replace")


def _forget_stdout() -> None:
    """Keep the interpreter from complaining of what it cannot flush when it exits."""
    try:
        fd = sys.stdout.fileno()
    except OSError:
        return
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), fd)
