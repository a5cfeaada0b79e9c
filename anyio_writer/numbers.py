"""Numbers that a caller gives, checked in one way and refused in the same words."""

from __future__ import annotations

from .errors import WriterError


def check_count(
    name: str, value: object, error: type[WriterError], *, least: int = 1, optional: bool = False
) -> None:
    """Raise ``error`` unless it is a whole number, ``least`` or more; or None, if ``optional``."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        or_none = ", or None" if optional else ""
        raise error(f"{name} must be a whole number, {least} or more{or_none}, not {value!r}.")


def check_positive(
    name: str, value: object, error: type[WriterError], *, optional: bool = False
) -> None:
    """Raise ``error`` unless it is a number above 0; or None, if ``optional``."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        or_none = ", or None" if optional else ""
        raise error(f"{name} must be a number above 0{or_none}, not {value!r}.")
