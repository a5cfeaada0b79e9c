"""How much a run tries. A profile of hypothesis says it: ``pytest --hypothesis-profile=NAME``.

``quick``: a quarter of the examples, and samples of long lists of cases. Before a commit.
``whole``: the default, and what CI runs.
``deep``: twenty times the examples, from other random seeds each time.
"""

import os
from collections.abc import Sequence
from typing import Final, TypeVar

from hypothesis import settings

T = TypeVar("T")

PERCENT: Final = {"quick": 25, "whole": 100, "deep": 2000}
SAMPLE: Final = 13  # a prime, so that the samples of regular lists are irregular

# The tests run beside other programs, so one slow example proves nothing. Where CI is set,
# hypothesis's own "ci" profile makes runs repeatable.
for _name, _percent in PERCENT.items():
    _is_repeatable = _name != "deep" and bool(os.environ.get("CI"))
    settings.register_profile(
        _name,
        settings.get_profile("ci" if _is_repeatable else "default"),
        max_examples=_percent,
        deadline=None,
        print_blob=True,
    )
settings.load_profile("whole")


def examples(number: int) -> int:
    """Scale a property test's own number of examples: ``settings(max_examples=examples(40))``."""
    return number * settings().max_examples // PERCENT["whole"]


def sampled(cases: Sequence[T]) -> Sequence[T]:
    """All of the cases; in a quick run every thirteenth and the last."""
    if settings().max_examples >= PERCENT["whole"]:
        return cases
    return [*cases[:-1:SAMPLE], cases[-1]]
