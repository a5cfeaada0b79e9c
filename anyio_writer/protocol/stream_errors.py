"""The errors of a stream: what a server reports inside it, and answers that cannot be parsed."""

from __future__ import annotations

import re
from typing import Any, Final

from ..errors import (
    APIError,
    APIStreamError,
    ContentFilterFinishReasonError,
    ContentParseError,
    LengthFinishReasonError,
    StreamTruncatedError,
)
from .accumulator import ChoiceLog
from .calls import is_done
from .json import error_message, is_object, parse_json, shorten
from .rules import Occasion, Stop

_LARGEST_BODY: Final = 64 * 1024

_ERROR_KEYS: Final = (
    "error",
    "errors",
    "error_message",
    "error_msg",
    "errorMessage",
    "error_type",
    "error_code",
    "errorCode",
    "exception",
    "fault",
    "detail",
)
"""Keys that hold an error wherever they stand, if they hold anything."""
_SENTENCE_KEYS: Final = ("message", "msg", "reason", "title")
"""Keys that hold a sentence, which is one about an error if one of the next keys says so."""
_CODE_KEYS: Final = ("code", "status", "status_code", "statusCode", "type", "request_id")
_GOOD_CODES: Final = ("", "0", "200", "ok", "success", "succeeded", "pending", "processing", "ping")
_BAD_WORDS: Final = ("error", "failed", "failure")


def stream_error(payload: bytes) -> APIStreamError:
    """The error that a payload reports."""
    body: Any = parse_json(payload)
    said = error_message(body)
    if len(payload) > _LARGEST_BODY:
        body = shorten(payload)
    return APIStreamError(
        f"The server reported an error inside the stream: {shorten(said)}", body=body
    )


# An escape could hide a key.
_MAY_REPORT: Final = (
    rb'\\|"(?:%b|success|status|type|base_resp)"'
    % "|".join((*_ERROR_KEYS, *_SENTENCE_KEYS)).encode()
)


def reports_error(payload: bytes) -> bool:
    """Whether a payload without choices reports an error."""
    if not re.search(_MAY_REPORT, payload):
        return False
    body = parse_json(payload)
    if not is_object(body):
        return False
    base = body.get("base_resp")  # MiniMax
    return (
        any(body.get(key) for key in _ERROR_KEYS)
        or body.get("success") is False
        or _is_bad(body.get("status"))
        or _is_bad(body.get("type"))
        or (is_object(base) and bool(base.get("status_code")))
        or _is_bad_sentence(body)
    )


def _is_bad_sentence(body: dict[str, Any]) -> bool:
    """Whether a sentence stands beside the code of an error, or alone."""
    if not any(isinstance(body.get(key), str) and body[key] for key in _SENTENCE_KEYS):
        return False
    codes = [body[key] for key in _CODE_KEYS if body.get(key) is not None]
    if codes:
        return not any(str(code).lower() in _GOOD_CODES for code in codes)
    return body.keys() <= set(_SENTENCE_KEYS)


def _is_bad(word: Any) -> bool:
    return isinstance(word, str) and word.lower() in _BAD_WORDS


# Answers that cannot be parsed.

_CUT_OFF: Final[dict[Stop, type[APIError]]] = {
    Stop.LENGTH: LengthFinishReasonError,
    Stop.CONTENT_FILTER: ContentFilterFinishReasonError,
    Stop.FAILURE: StreamTruncatedError,
}
_BY_WHAT: Final = {
    Stop.LENGTH: "max_tokens cut off {what}. Allow more tokens",
    Stop.CONTENT_FILTER: "the server's content filter cut off {what}",
    Stop.FAILURE: "the server could not go on, which cut off {what}",
}
_SHOWN_BYTES: Final = 300


def parse_error_of(choice: ChoiceLog) -> APIError | None:
    """Why a choice that had to be parsed could not be; None if it could, or did not have to."""
    where = f"Choice {choice.index}"
    if (stop := choice.stop) in _CUT_OFF:
        what = _what_was_cut_off(choice)
        if what is None:
            return None
        return _CUT_OFF[stop](f"{where} cannot be parsed: {_BY_WHAT[stop].format(what=what)}.")
    if (mismatch := choice.mismatch) is None:
        return None
    shown = shorten(mismatch.text, _SHOWN_BYTES)
    said = f"It says: {shown}" if mismatch.text.strip() else "It has no text."
    error = ContentParseError(
        f"{where} does not fit the response format: {mismatch.reason}, at {mismatch.path}. {said}",
        choice_index=choice.index,
        text=mismatch.text,
        path=mismatch.path,
        reason=mismatch.reason,
    )
    error.__cause__ = mismatch
    return error


def _what_was_cut_off(choice: ChoiceLog) -> str | None:
    if choice.reader is not None and not choice.refusal and not choice.calls:
        return "its text"
    for call in choice.calls:
        if call.reader_at() is not None and not is_done(call, Occasion.CUT_SHORT):
            return f"the arguments of {call.name.value}"
    return None
