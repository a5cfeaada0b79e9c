"""Signatures that name each argument of ``**arguments: Unpack[...]``, for ``help()``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class _LeftOut:
    def __repr__(self) -> str:
        return "..."


_LEFT_OUT: Final = _LeftOut()  # the default of an argument that need not be given


def shows_arguments_of(arguments: Any) -> Callable[[F], F]:
    """Make a function's signature name the keys of the TypedDict that its ``**`` parameter unpacks.

    Args:
        arguments: The TypedDict.
    """

    def show(function: F) -> F:
        signature = inspect.signature(function)
        given = [each for each in signature.parameters.values() if each.kind != each.VAR_KEYWORD]
        named = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=signature.empty if name in arguments.__required_keys__ else _LEFT_OUT,
            )
            for name in arguments.__annotations__
        ]
        function.__dict__["__signature__"] = signature.replace(parameters=[*given, *named])
        return function

    return show
