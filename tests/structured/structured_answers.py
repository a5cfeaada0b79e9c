"""Answers that are values, cut anywhere; and a reader of them that counts."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any, NamedTuple

import msgspec
from hypothesis import strategies as st

from anyio_writer.protocol.values import ValueReader
from anyio_writer.structured.schemas import codec_of
from tests.structured.structured_types import TYPES


class Counting:
    """A reader that counts what it is asked."""

    def __init__(self, reader: ValueReader[Any]) -> None:
        self.reader = reader
        self.counts: Counter[str] = Counter()

    def decode(self, text: str) -> Any:
        self.counts["decode"] += 1
        return self.reader.decode(text)

    def partial(self, text: str) -> Any:
        self.counts["partial"] += 1
        return self.reader.partial(text)


@st.composite
def cut(draw: st.DrawFn, whole: Any) -> list[Any]:
    """A text or bytes in pieces, some of them perhaps empty."""
    places = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return [whole[start:end] for start, end in itertools.pairwise([0, *places, len(whole)])]


def says_no_more_than(early: Any, late: Any) -> bool:
    """Whether all of the early value is in the late one, further along at the most."""
    if isinstance(early, dict):
        return isinstance(late, dict) and all(
            key in late and says_no_more_than(value, late[key]) for key, value in early.items()
        )
    if isinstance(early, list):
        return (
            isinstance(late, list)
            and len(early) <= len(late)
            and all(map(says_no_more_than, early, late))
        )
    if isinstance(early, str):
        return isinstance(late, str) and late.startswith(early)
    return repr(early) == repr(late)  # also tells 1 from True


class Answer(NamedTuple):
    """A type, a value of it, its plain JSON, and the text in which a model gives it."""

    type: Any
    value: Any
    plain: Any
    text: str

    def check(self, parsed: Any) -> None:
        """Assert that this is the value, typed."""
        assert parsed == self.value
        assert type(parsed) is type(self.value)

    def check_partial(self, shown: list[Any]) -> None:
        """Assert that what was shown only grew, and grew to be the value."""
        told = [each for each in shown if each is not None]
        for early, late in itertools.pairwise([*told, self.plain]):
            assert says_no_more_than(early, late)
        for early in told:  # also from afar
            assert says_no_more_than(early, self.plain)
        assert repr(shown[-1]) == repr(self.plain)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """Answers of every kind, in every spelling."""
    tp, values = draw(TYPES)
    value = draw(values)
    plain = json.loads(msgspec.json.encode(value))
    sent = plain if codec_of(tp).schema.get("type") == "object" else {"value": plain}
    text = json.dumps(
        sent, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))
    )
    return Answer(tp, value, plain, text)
