"""Objects that belong to one process, and say so when somebody pickles or copies them."""

from __future__ import annotations

from typing import ClassVar, NoReturn, SupportsIndex


class Uncopied:
    """Cannot be pickled or copied: a copy would share tasks, connections or an API key."""

    __slots__ = ()

    _copy_instead: ClassVar[str]
    """What to do instead, as a sentence."""

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        name = type(self).__name__
        raise TypeError(f"{name} objects cannot be pickled or copied. {self._copy_instead}")
