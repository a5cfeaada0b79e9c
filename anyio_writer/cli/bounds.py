"""The numbers that options take: one wording for whatever is out of bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import typer


def _number(
    text: object, kind: type[float], phrase: str, is_within: Callable[[float], bool]
) -> float:
    try:
        value = kind(str(text))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and is_within(value)):
        raise typer.BadParameter(f"it must be {phrase}, not {text}.")
    return value


_MOST_PORTS: Final = 65535


# typer calls these with what was typed, and with defaults.


def limit(text: object) -> float:
    """Seconds above 0."""
    return _number(text, float, "a number of seconds above 0", lambda value: value > 0)


def seconds(text: object) -> float:
    """Seconds, or none."""
    return _number(text, float, "a number of seconds, 0 or more", lambda value: value >= 0)


def amount(text: object) -> float:
    """A number that is not negative."""
    return _number(text, float, "a number, 0 or more", lambda value: value >= 0)


def count(text: object) -> int:
    """How many, or none."""
    return int(_number(text, int, "a whole number, 0 or more", lambda value: value >= 0))


def some(text: object) -> int:
    """How many, at least one."""
    return int(_number(text, int, "a whole number, 1 or more", lambda value: value >= 1))


def port(text: object) -> int:
    """A port."""
    phrase = f"a whole number from 0 to {_MOST_PORTS}"
    return int(_number(text, int, phrase, lambda value: 0 <= value <= _MOST_PORTS))
