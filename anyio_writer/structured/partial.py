"""JSON that was cut off, as the values that are certain so far."""

from __future__ import annotations

from typing import Any, Final

import jiter

_IN_NUMBERS: Final = "0123456789+-.eE"
_NUMBER_STARTS: Final = frozenset("-0123456789")
_SPACE: Final = " \t\n\r"
_BEFORE_VALUES: Final = ("[", ",", ":")


def partial_value(text: str) -> Any:
    """The values that are certain from the start of a JSON text, in plain lists and dicts.

    Text that follows only adds to them: strings and lists grow at their end, objects get more keys.
    A string is included as far as it came, without a cut escape or surrogate pair. A literal is
    included once it is whole, and a number once another character follows it. Until then a list
    lacks the element and an object the key. One exception: if an object has a key twice, the later
    value replaces the earlier one, as in other decoders.

    None means that no value has begun yet, or that the text is not the start of any JSON: prose,
    NaN, a mistake in the middle, half of a surrogate pair, more than 200 levels. A missing comma
    ends the list or object, and text behind a whole value is ignored.

    Never raises. Takes one pass of the parser, or two if a number may end a text with escapes.
    """
    head = text.rstrip(_IN_NUMBERS)
    tail = text[len(head) :]
    try:
        if tail and tail[0] in _NUMBER_STARTS and _may_precede_a_value(head):
            # A number that may go on, or the end of a string such as "It is 12, 1".
            if "\\" not in head:  # then every quote begins a string or ends one
                return _parse(text if head.count('"') % 2 else head)
            # An escape for the first digit means the same to a string and is an error elsewhere.
            try:
                return _parse(f"{head}\\u{ord(tail[0]):04x}{tail[1:]}")
            except ValueError:
                return _parse(head)
        return _parse(text)
    except ValueError:
        return None


def _may_precede_a_value(text: str) -> bool:
    text = text.rstrip(_SPACE)
    return not text or text.endswith(_BEFORE_VALUES)


def _parse(text: str) -> Any:
    return jiter.from_json(text.encode(), allow_inf_nan=False, partial_mode="trailing-strings")
