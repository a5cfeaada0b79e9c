"""Whatever comes later, what was shown of a JSON text stays true."""

from __future__ import annotations

import itertools
import json
import string
from typing import Any
from unittest import mock

import jiter
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anyio_writer.structured.partial import partial_value

CASES: list[tuple[str, Any]] = [
    # Nothing yet.
    ("", None),
    (" \r\n\t", None),
    ('"', ""),
    ("{", {}),
    ("[", []),
    ("\n [", []),
    # Strings, as far as they came.
    ('"Ro', "Ro"),
    ('["Ro', ["Ro"]),
    ('{"city": "Ro', {"city": "Ro"}),
    ('"a\\', "a"),
    ('"a\\n', "a\n"),
    ('"a\\u12', "a"),
    ('"a\\u00e9', "aé"),
    ('"a\\u00a1', "a¡"),
    ('"a\\u00a15', "a¡5"),
    ('"\\ud83d', ""),
    ('"\\ud83d\\', ""),
    ('"\\ud83d\\ude', ""),
    ('"\\ud83d\\ude00', "😀"),
    # Keys, not before their value.
    ('{"ci', {}),
    ('{"ci\\u00', {}),
    ('{"city"', {}),
    ('{"city": ', {}),
    ('{"city": "Rome", "co', {"city": "Rome"}),
    ('{"city": "Rome", "12', {"city": "Rome"}),
    ('{"12', {}),
    ('{": 12', {}),
    # Numbers, not before their end.
    ("12", None),
    ("12 ", 12),
    ("-", None),
    (" 0", None),
    ("[1", []),
    ("[1,", [1]),
    ("[1, -", [1]),
    ("[1, 2.", [1]),
    ("[1, 2.5e", [1]),
    ("[1, 2.5e+3", [1]),
    ("[1, 2E5", [1]),
    ("[1, 2.5e+3]", [1, 2500.0]),
    ('{"a": 1', {}),
    ('{"a": 1\n', {"a": 1}),
    ('{"a": 1, "b": [2, 3', {"a": 1, "b": [2]}),
    ("[-0.0]", [-0.0]),
    (f"[{10**300}]", [10**300]),
    # What looks like a number in a string.
    ('"12', "12"),
    ('"-', "-"),
    ('"at 10:30', "at 10:30"),
    ('["[1, 2', ["[1, 2"]),
    ('{"a": "b: 1e5', {"a": "b: 1e5"}),
    ('{"a": 1, "b": "x, -', {"a": 1, "b": "x, -"}),
    ('"1"', "1"),
    ('["1", 1', ["1"]),
    ('["1, \\\\", 1', ["1, \\"]),
    # Literals, not before their end.
    ("tru", None),
    ("true", True),
    ("false", False),
    ("null", None),
    ("[t", []),
    ("[true", [True]),
    ("[null, fals", [None]),
    ('{"a": nul', {}),
    # A key that comes twice.
    ('{"a": "x", "a": ', {"a": "x"}),
    ('{"a": "x", "a": "', {"a": ""}),
    # No JSON.
    ("Rome", None),
    ("NaN", None),
    ("[NaN", None),
    ("[-Infinity", None),
    ("{'a': 1}", None),
    ('{"a": [1, 2], b', None),
    ("[1,,", None),
    ("[01,", None),
    ("[+1,", None),
    ('"\\x', None),
    ('"a\n', None),
    ('"\\ud83dx', None),
    ('"\\ude00', None),
    ('"\ud83d', None),
    ("\ufeff{", None),
    ("[" * 1000, None),
    (f"[{'1' * 10_000},", None),
    # JSON up to some point.
    ('{"a": 1} and more', {"a": 1}),
    ("[1 2", [1]),
    ('{"a": 1 "b": 2}', {"a": 1}),
]


@pytest.mark.parametrize(("text", "value"), CASES)
def test_what_a_text_says(text: str, value: Any) -> None:
    found = partial_value(text)
    assert repr(found) == repr(value)  # also tells 1 from 1.0 and from True


NUMBERS = st.one_of(
    st.integers().map(str),
    st.integers(min_value=-(10**40), max_value=10**40).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"-?(0|[1-9][0-9]{0,5})(\.[0-9]{1,5})?([eE][+-]?[0-9]{1,2})?", fullmatch=True),
)
# Digits and brackets more often than chance would bring them.
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])), st.text('0123456789-+.eE,:[]{}"\\ é😀')
)
SPACE = st.text(" \t\n\r", max_size=2)
STRINGS = st.builds(json.dumps, TEXTS, ensure_ascii=st.booleans())


def spaced(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*itertools.chain.from_iterable((part, SPACE) for part in parts)).map("".join)


def listed(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return spaced(
        st.just("["), st.lists(spaced(SPACE, items), max_size=4).map(",".join), st.just("]")
    )


def keyed(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def member(pair: tuple[str, str]) -> st.SearchStrategy[str]:
        return spaced(SPACE, st.just(pair[0]), st.just(":"), st.just(pair[1]))

    # Keys apart as values, not only as texts: "\u00e9" is "é".
    pairs = st.lists(st.tuples(STRINGS, items), max_size=4, unique_by=lambda x: json.loads(x[0]))
    members = pairs.flatmap(lambda pairs: st.tuples(*map(member, pairs)))
    return spaced(st.just("{"), members.map(",".join), st.just("}"))


JSON_TEXTS = spaced(
    SPACE,
    st.recursive(
        NUMBERS | STRINGS | st.sampled_from(["true", "false", "null"]),
        lambda items: listed(items) | keyed(items),
        max_leaves=12,
    ),
)


def check_growth(early: Any, late: Any) -> None:
    """Everything in the early value is in the late one, further along at the most."""
    if isinstance(early, dict):
        assert isinstance(late, dict)
        assert list(early) == list(late)[: len(early)]
        for key in early:
            check_growth(early[key], late[key])
    elif isinstance(early, list):
        assert isinstance(late, list)
        assert len(early) <= len(late)
        for one, other in zip(early, late, strict=False):
            check_growth(one, other)
    elif isinstance(early, str):
        assert isinstance(late, str)
        assert late.startswith(early)
    else:
        assert repr(early) == repr(late)


@given(JSON_TEXTS)
@example('{"a: 1": [12, -0.0e-1, true, "\\ud83d\\ude00 1, 2"], "\\u00312": {"": null}} ')
@example('" 5"')
def test_no_prefix_says_what_the_whole_text_does_not(text: str) -> None:
    whole = json.loads(text)
    shown = [partial_value(text[:end]) for end in range(len(text) + 1)]
    for early, late in itertools.pairwise([*shown, whole]):
        if early is not None:
            check_growth(early, late)
    for early in shown:  # also from afar
        if early is not None:
            check_growth(early, whole)
    assert repr(partial_value(text + " ")) == repr(whole)
    if text[-1] not in string.digits:
        assert repr(shown[-1]) == repr(whole)
    else:
        assert shown[-1] is None  # a number that may go on


@given(JSON_TEXTS, st.integers(min_value=0))
def test_a_string_is_shown_as_far_as_it_came(text: str, at: int) -> None:
    """Not only nothing wrong, but all that can be said."""
    encoded = json.dumps(text, ensure_ascii=False)
    cut = encoded[: 1 + at % len(encoded)]
    shown = partial_value(cut)
    assert text.startswith(shown)
    # At most one escape is cut, and the longest is \\u0000.
    assert len(json.dumps(shown, ensure_ascii=False)) >= len(cut) - 4
    if "\\" not in cut:
        assert shown == cut.strip('"')


@given(
    st.text(st.characters()) | st.text('0123456789-+.eE,:[]{}"\\ utrfalsn\ud83d\ude00', max_size=30)
)
def test_it_takes_any_text(text: str) -> None:
    partial_value(text)


def passes(text: str) -> int:
    with mock.patch.object(jiter, "from_json", wraps=jiter.from_json) as parse:
        partial_value(text)
    return parse.call_count


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": "b', 1),
        ('{"a": [1, 2], "b": "page 12', 1),
        ('{"a": "1, 2', 1),
        ('{"a": true', 1),
        ('{"a": 12', 1),
        ("[1, 2", 1),
        ("[01, 2", 1),
        (r'{"a\n": "1, 2', 1),
        (r'{"a\n": 12', 2),
        (r'["\"", 2', 2),
    ],
)
def test_how_often_a_text_is_read(text: str, expected: int) -> None:
    assert passes(text) == expected
