"""Lets a single error leave a task group as itself."""

from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def lone_error() -> Generator[None]:
    """Let a single error leave a task group as itself, not as a group of one."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        error = group.exceptions[0]
        context = error.__context__
    else:
        return
    try:
        raise error
    finally:
        error.__context__ = context  # else the group would hang on its own member
