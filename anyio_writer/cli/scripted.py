"""What ``serve`` answers: the replies of ``--reply``, or what a request asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..testing import (
    Cut,
    RecordedRequest,
    Reply,
    ReplyBuilder,
    chunks_reply,
    error_frame,
    error_reply,
    text_reply,
    tool_call_reply,
    writer_chunks,
    writer_error,
)
from .samples import sample_of

SYNTAX: Final[Mapping[str, str]] = {
    "auto": "what the request asks for: JSON that fits its response_format, calls of its tools, "
    "else a text",
    "text:TEXT": "a text",
    "json:JSON": "an answer in JSON",
    "call:NAME JSON [NAME JSON ...]": "tool calls, each with its arguments",
    "error:STATUS [TEXT]": "an error, such as 'error:429 slow down'",
    "fail:TEXT": "an answer that ends with the error TEXT",
    "cut:TEXT": "a text whose end is missing",
}
_STATUSES: Final = range(400, 600)
_MAX_CALLS: Final = 8


@dataclass(frozen=True, kw_only=True)
class Style:
    """What all replies have in common.

    Attributes:
        text: The text of answers that are given no other.
        pace: Seconds between two chunks.
        done: Whether ``data: [DONE]`` ends a stream.
    """

    text: str
    pace: float
    done: bool


def reply_for(words: str, style: Style) -> ReplyBuilder:
    """Make the reply that a ``--reply`` describes, see ``SYNTAX``.

    Raises:
        ValueError: It describes none; the message says what is expected.
    """
    kind, _, value = words.partition(":")
    if kind not in _KINDS:
        raise ValueError(f"{words!r} is not one of: {' · '.join(SYNTAX)}")
    return _KINDS[kind](value, style)


def _auto(value: str, style: Style) -> ReplyBuilder:
    if value:
        raise ValueError(f"'auto' takes nothing, not {value!r}")

    def build(request: RecordedRequest) -> Reply:
        try:
            reply = _requested(request.json(), style)
        except Exception:  # a client's mistake must not end the server
            reply = None
        return (reply or _text(style.text, style))(request)

    return build


def _requested(asked: Any, style: Style) -> ReplyBuilder | None:
    """What a request asks for; None if that is a text."""
    *_, last = asked["messages"]
    functions = [tool["function"] for tool in asked.get("tools") or () if "function" in tool]
    if functions and last["role"] == "user" and asked.get("tool_choice") != "none":
        calls = [
            (function["name"], json.dumps(sample_of(function.get("parameters"))))
            for function in functions[:_MAX_CALLS]
        ]
        return _calls(calls, style)
    if "json_schema" in (asked.get("response_format") or {}):
        wanted = asked["response_format"]["json_schema"]
        return _text(json.dumps(sample_of(wanted.get("schema"))), style)
    return None


def _text(value: str, style: Style) -> ReplyBuilder:
    return text_reply(value, pace=style.pace, done=style.done)


def _json(value: str, style: Style) -> ReplyBuilder:
    try:
        json.loads(value)
    except ValueError as exc:
        raise ValueError(f"not JSON: {exc}") from exc
    return _text(value, style)


def _call(value: str, style: Style) -> ReplyBuilder:
    return _calls(list(_parse_calls(value)), style)


def _parse_calls(value: str) -> Iterator[tuple[str, str]]:
    rest = value.strip()
    while True:
        name, brace, _ = rest.partition("{")
        if not (name.strip() and brace):
            raise ValueError(f"expected a tool's name and its arguments, a JSON object: {rest!r}")
        try:
            _, end = json.JSONDecoder().raw_decode(rest, len(name))
        except ValueError as exc:
            raise ValueError(f"the arguments of {name.strip()} are not JSON: {exc}") from exc
        yield name.strip(), rest[len(name) : end]
        rest = rest[end:].strip()
        if not rest:
            return


def _calls(calls: list[tuple[str, str]], style: Style) -> ReplyBuilder:
    return tool_call_reply(calls, pace=style.pace, done=style.done)


def _error(value: str, style: Style) -> ReplyBuilder:
    del style
    status, _, words = value.partition(" ")
    if not (status.isdecimal() and int(status) in _STATUSES):
        raise ValueError(f"expected a status from 400 to 599, not {status!r}")
    return _same(error_reply(int(status), writer_error(int(status), words or None)))


def _fail(value: str, style: Style) -> ReplyBuilder:
    return _broken(style.text, style, error_frame("writer", *filter(None, [value])))


def _cut(value: str, style: Style) -> ReplyBuilder:
    return _broken(value or style.text, style, Cut())


def _broken(text: str, style: Style, end: bytes | Cut) -> ReplyBuilder:
    *chunks, _ = writer_chunks(text)  # without the one that has the finish reason
    return _same(chunks_reply([*chunks, end], pace=style.pace))


def _same(reply: Reply) -> ReplyBuilder:
    def build(_: RecordedRequest) -> Reply:
        return reply

    return build


_KINDS: Final[Mapping[str, Callable[[str, Style], ReplyBuilder]]] = {
    "auto": _auto,
    "text": _text,
    "json": _json,
    "call": _call,
    "error": _error,
    "fail": _fail,
    "cut": _cut,
}
