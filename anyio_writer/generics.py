"""The type parameter of streams and completions: the type that an answer is read as."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import TypeVar  # in typing from Python 3.13 on

    # ``stream: ChatCompletionStream`` is then a complete annotation, for strict type checkers too.
    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")
