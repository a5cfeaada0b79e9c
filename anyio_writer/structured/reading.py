"""The JSON that a model wrote, as a value.

Text that is valid by the schema is read even where the library below is stricter: ``3.0`` is an
integer in JSON Schema. So is null in place of a field with a default, which models write for "not
given", because a strict schema makes them write every field.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from ..errors import ValueMismatchError
from ..protocol.json import is_array, is_object, mend_text, shorten

ASK_AGAIN: Final = "ask again, or let the type allow for this"
_SHOWN_BYTES: Final = 300
_MAX_REPAIRS: Final = 100  # each decodes the text again
_DROPPED_ALONE: Final = 16  # nulls


class JSONReader(NamedTuple):
    """How one library reads a type, and what its errors mean."""

    read: Callable[[bytes], Any]
    error: type[Exception]
    blame: Callable[[Any, bytes], tuple[str, str]]  # an error -> its path and reason


def read_json(text: str, reader: JSONReader, name: str, advice: str = ASK_AGAIN) -> Any:
    """Decode a text with the reader of its type.

    Args:
        text: JSON.
        reader: Reads it.
        name: The name of the type, for errors.
        advice: What to do about it, for errors.

    Raises:
        ValueMismatchError: The text does not fit the type.
    """
    # JSON allows what Unicode does not, half a surrogate pair; both libraries refuse it.
    payload = mend_text(text.encode(errors="replace"))
    cause: Exception
    try:
        try:
            return reader.read(payload)
        except reader.error as exc:
            return _read_repaired(payload, reader, exc)
    except RecursionError as exc:
        cause, path, reason = exc, "$", "JSON is nested too deeply"
    except reader.error as exc:
        cause = exc
        path, reason = reader.blame(exc, payload)
    shown = shorten(payload, _SHOWN_BYTES)
    why = shorten(reason, _SHOWN_BYTES)  # msgspec quotes whole values
    raise ValueMismatchError(
        f"the text does not fit {name}: {why}, at {path}; {advice}: {shown}",
        text=text,
        path=path,
        reason=reason,
    ) from cause


def msgspec_reader(decoder: msgspec.json.Decoder[Any]) -> JSONReader:
    """The reader of a decoder of msgspec's."""
    return JSONReader(decoder.decode, msgspec.DecodeError, _blame)


_AT_PATH: Final = r"(?s)(?P<reason>.*) - at `(?P<path>\$.*)`"


def _blame(exc: msgspec.DecodeError, _: bytes) -> tuple[str, str]:
    if match := re.fullmatch(_AT_PATH, str(exc)):
        return match["path"], match["reason"]
    return "$", str(exc)


def unwrapped(text: str, *, is_whole: bool) -> str:
    """The text of a JSON object without the code fence and the thoughts around it.

    Models write these where the server treats a response format only as a hint.

    Args:
        text: What a model wrote.
        is_whole: Whether it has come to its end, so that a fence must be closed.
    """
    if re.match(r"\s*\{", text):
        return text
    inner = text.strip()
    if not inner.startswith(_FENCE) and (end := re.search(_THOUGHTS_END, inner)):
        if re.match(_THOUGHTS, inner[: end.start()]):
            inner = inner[end.end() :].strip()
    if inner.startswith(_FENCE) and (inner.endswith(_FENCE) or not is_whole):
        inner = inner.removeprefix(_FENCE).removesuffix(_FENCE)
        inner = re.sub(_LANGUAGE, "", inner)
    return inner or text


_FENCE: Final = "```"
_THOUGHTS_END: Final = r"</think(?:ing)?>"
_LANGUAGE: Final = r"\A[\w+-]*\s"
# Some chat templates write the opening tag themselves, so that the answer lacks it.
_THOUGHTS: Final = r"(?s)<think(?:ing)?>|(?!.*<think(?:ing)?>)"


def _read_repaired(payload: bytes, reader: JSONReader, error: Exception) -> Any:
    """Read whole numbers as integers, and drop nulls that do not fit.

    Raises:
        Exception: ``error`` or another ``reader.error``.
    """
    try:
        value = _decode_whole_numbers(payload)
    except (msgspec.DecodeError, RecursionError):
        raise error from None
    first: Exception | None = None
    for attempt in range(_MAX_REPAIRS):
        repaired = msgspec.json.encode(value)
        try:
            return reader.read(repaired)
        except reader.error as exc:
            first = first or exc  # later ones may be about a field whose null was dropped
            path, _reason = reader.blame(exc, repaired)
        if not _drop_nulls(value, path, everywhere=attempt >= _DROPPED_ALONE):
            break
    raise first or error


def _whole_number(text: str) -> int | msgspec.Raw:
    if math.isinf(float(text)):
        raise ValueError("a number out of range")
    with contextlib.suppress(ArithmeticError):  # an exponent of twenty digits
        if (number := Decimal(text)) == number.to_integral_value():
            return int(number)
    return msgspec.Raw(text)  # as it was written, since the type may be Decimal


_decode_whole_numbers: Final = msgspec.json.Decoder(float_hook=_whole_number).decode
_STEP: Final = r"\.([^.\[\]]+)|\[(\d+)\]"


def _drop_nulls(value: Any, path: str, *, everywhere: bool) -> bool:
    """Delete the null at a path.

    Args:
        value: Decoded JSON.
        path: Where the null is.
        everywhere: Whether to delete those at the same place of other items in the same lists,
            too. That takes one step for long lists, but the type may allow some of these nulls.
    """
    steps = re.findall(_STEP, path)
    if not steps or not re.fullmatch(rf"\$(?:{_STEP})+", path):
        return False
    parents = [value]
    for key, index in steps[:-1]:
        if key:
            parents = [each[key] for each in parents if is_object(each) and key in each]
        elif everywhere:
            parents = [item for each in parents if is_array(each) for item in each]
        else:
            parents = [each[int(index)] for each in parents if is_array(each)]
    last, _ = steps[-1]
    holders = [each for each in parents if is_object(each) and each.get(last, 0) is None]
    for holder in holders:
        del holder[last]
    return bool(holders)
