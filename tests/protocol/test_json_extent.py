"""Whether a JSON text that arrives in pieces is whole."""

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anyio_writer.protocol.extent import JSONExtent, Wholeness, wholeness

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | FLOATS
    | st.text(alphabet='ab"\\{}[]é\ud83d\n', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(alphabet='a"}', max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


def ends(text: str) -> list[bool]:
    """``closed`` after each character."""
    extent = JSONExtent()
    seen = []
    for char in text:
        extent.feed(char)
        seen.append(extent.closed)
    return seen


@given(VALUES, st.booleans())
@example('"\\', True)
@example("\ud83d", True)
def test_closed_with_the_last_character_and_not_before(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    says_its_end = isinstance(value, str | list | dict)
    seen = ends(text)
    assert not any(seen[:-1])
    assert seen[-1] == says_its_end
    if ascii_only:
        assert wholeness(text) is Wholeness.WHOLE
        assert wholeness(f" {text}\n") is Wholeness.WHOLE
        if says_its_end:
            for end in range(len(text)):
                assert wholeness(text[:end]) is Wholeness.TRUNCATED, text[:end]


def test_a_backslash_outside_a_string_escapes_nothing() -> None:
    assert ends('\\"a"') == [False, False, False, True]


@given(VALUES, st.data())
def test_pieces_do_not_matter(value: object, data: st.DataObject) -> None:
    text = json.dumps([value])
    cut = data.draw(st.integers(0, len(text)))
    extent = JSONExtent()
    extent.feed(text[:cut])
    assert extent.closed == (cut == len(text))
    extent.feed("")
    extent.feed(text[cut:])
    assert extent.closed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Wholeness.TRUNCATED),
        (" ", Wholeness.TRUNCATED),
        ("{", Wholeness.TRUNCATED),
        ("tru", Wholeness.TRUNCATED),
        ("-", Wholeness.TRUNCATED),
        ("[1.", Wholeness.TRUNCATED),
        ('{"a": 1E', Wholeness.TRUNCATED),
        ("[-1.5e-", Wholeness.TRUNCATED),
        ("[1e+", Wholeness.TRUNCATED),
        ("nonsense-", Wholeness.MALFORMED),
        ("{-", Wholeness.MALFORMED),
        ("1..", Wholeness.MALFORMED),
        ("12", Wholeness.WHOLE),
        ("true", Wholeness.WHOLE),
        ('"a"', Wholeness.WHOLE),
        ('"\\ud83d"', Wholeness.WHOLE),
        ('{"a":"\\ud83d","b":"\\ude00"}', Wholeness.WHOLE),
        ('"\\ud83d', Wholeness.TRUNCATED),
        ('"\\ud8', Wholeness.TRUNCATED),
        ('"\\ud83d\\ude0', Wholeness.TRUNCATED),
        ('"\\ud83d" x', Wholeness.MALFORMED),
        ("{}{}", Wholeness.MALFORMED),
        ("]", Wholeness.MALFORMED),
        ("{'a': 1}", Wholeness.MALFORMED),
        ("nonsense", Wholeness.MALFORMED),
        ("[" * 100_000, Wholeness.MALFORMED),
    ],
)
def test_wholeness(text: str, expected: Wholeness) -> None:
    assert wholeness(text) is expected


def test_the_words_by_which_truncation_is_told() -> None:
    """The only thing that tells a truncated text from a malformed one is this wording."""
    with pytest.raises(msgspec.DecodeError, match=r"^Input data was truncated$"):
        msgspec.json.decode("[1")
