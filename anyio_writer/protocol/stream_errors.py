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

_ERROR_KEYS: Final = frozenset(
    {
        *("error", "errors", "Error", "err", "exception", "fault", "failure", "detail"),
        *("error_message", "errorMessage", "error_description"),
        *("error_msg", "errorMsg", "err_msg", "errMsg", "errmsg"),
        *("error_code", "errorCode", "err_code", "errCode", "errcode", "error_type", "errorType"),
    }
)
"""Keys that report an error wherever they stand, unless their value is empty or a good word."""
_EXCEPTION: Final = ("exception", "Exception")
"""The ends of the keys under which Bedrock reports an error: ``throttlingException``."""
_SENTENCE_KEYS: Final = frozenset({"message", "Message", "msg", "reason", "title"})
"""Keys that hold a sentence. It is about an error if one of the next keys says so."""
_CODE_KEYS: Final = frozenset(
    {
        *("code", "Code", "status", "status_code", "statusCode", "type", "__type", "request_id"),
        *("ret", "retcode"),
    }
)
_WORD_KEYS: Final = frozenset({"status", "type", "request_id"})
_WRAPPERS: Final = frozenset({"response", "data", "result", "output", "body", "header"})
"""Keys of objects that may hold the error in turn."""
_GOOD_WORDS: Final = frozenset(
    {
        *("", "0", "200", "ok", "success", "succeeded", "completed", "false", "none"),
        *("pending", "processing", "queued", "in_queue", "waiting", "loading", "started"),
        *("starting", "running", "in_progress", "progress", "status", "info", "message"),
        *("ping", "heartbeat", "keepalive", "keep-alive", "keep_alive"),
    }
)
_BAD_WORDS: Final = frozenset({"error", "failed", "failure"})
_MOST_KEYS: Final = 16  # that an error has at its top


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
    rb'\\|xception"|"(?:%b|success|status|type|base_resp)"'
    % "|".join(sorted(_ERROR_KEYS | _SENTENCE_KEYS)).encode()
)


def reports_error(payload: bytes) -> bool:
    """Whether a payload without choices reports an error."""
    if not re.search(_MAY_REPORT, payload):
        return False
    body = parse_json(payload)
    if not is_object(body):
        return False
    return (
        _has_error(body)
        or _has_code(body, _CODE_KEYS)
        or body.get("success") is False
        or _is_bad(body.get("status"))
        or _is_bad(body.get("type"))
        or (body.keys() <= _SENTENCE_KEYS and _has_sentence(body))
        or any(
            is_object(inner := body[key])
            # Progress has a status and a sentence, too.
            and (_has_error(inner) or _has_code(inner, _CODE_KEYS - _WORD_KEYS))
            for key in _WRAPPERS & body.keys()
        )
    )


def _has_error(body: dict[str, Any]) -> bool:
    """Whether an object holds an error."""
    if any(_says_something(body[key]) for key in _ERROR_KEYS & body.keys()):
        return True
    if len(body) <= _MOST_KEYS and any(body[key] for key in body if key.endswith(_EXCEPTION)):
        return True
    base = body.get("base_resp")  # MiniMax
    return is_object(base) and bool(base.get("status_code"))


def _has_code(body: dict[str, Any], keys: frozenset[str]) -> bool:
    """Whether an object holds a sentence beside the code of an error."""
    codes = [code for key in keys & body.keys() if (code := body[key]) is not None]
    return bool(codes) and all(map(_says_something, codes)) and _has_sentence(body)


def _has_sentence(body: dict[str, Any]) -> bool:
    return any(isinstance(body[key], str) and body[key] for key in _SENTENCE_KEYS & body.keys())


def _says_something(value: Any) -> bool:
    """Whether the value of a key is more than empty, and no word for success or progress."""
    if isinstance(value, str | int | float):
        return str(value).lower() not in _GOOD_WORDS
    return bool(value)


def _is_bad(word: Any) -> bool:
    # OpenAI's Responses API writes "response.failed".
    return isinstance(word, str) and word.lower().removeprefix("response.") in _BAD_WORDS


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
