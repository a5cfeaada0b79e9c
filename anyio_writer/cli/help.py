"""The text of ``--help``, without boxes, for terminals of any width."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import Any, Final

from typer.core import TyperCommand, TyperGroup

from .exits import MEANINGS
from .scripted import SYNTAX

_LEAST, _MOST = 30, 100  # columns
_NARROW: Final = 60


def help_width() -> int:
    """How wide the text may be, in columns."""
    return min(max(shutil.get_terminal_size().columns, _LEAST), _MOST)


def _write_table(formatter: Any, title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Write two columns; on a narrow terminal the second one below the first."""
    with formatter.section(title):
        if formatter.width >= _NARROW:
            formatter.write_dl(rows)
            return
        for first, second in rows:
            formatter.write_text(first)
            with formatter.indentation():
                formatter.write_text(second)


def _write_options(command: TyperCommand | TyperGroup, context: Any, formatter: Any) -> None:
    tables: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is not None:
            title = "Arguments" if param.param_type_name == "argument" else "Options"
            tables[title].append(record)
    for title, rows in tables.items():
        if rows:
            _write_table(formatter, title, rows)


class Command(TyperCommand):
    """A command with this help."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the tables of the help."""
        _write_options(self, ctx, formatter)


class ServeCommand(Command):
    """The command whose help also explains the replies."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the tables of the help, the replies first."""
        _write_table(formatter, "Replies", SYNTAX.items())
        super().format_options(ctx, formatter)


class Group(TyperGroup):
    """``anyio-writer`` itself, whose help also has commands and exit codes."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the tables of the help, that of exit codes last."""
        _write_options(self, ctx, formatter)
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _first_sentence(each)) for name, each in commands]
        _write_table(formatter, "Commands", rows)
        codes = [(f"{code:d}", meaning) for code, meaning in MEANINGS.items()]
        with formatter.section("Exit codes"):
            formatter.write_dl(codes)


def _first_sentence(command: Any) -> str:
    return str(command.help or "").partition("\n\n")[0].replace("\n", " ")
