"""Frames payloads as server-sent events, and the known kinds of error."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, Literal, TypeAlias

DONE: Final = b"data: [DONE]\n\n"
"""What many servers send last. The API itself leaves it out."""

ErrorKind: TypeAlias = Literal["writer", "openai", "string", "object", "field", "event"]
"""The ways in which servers report an error in the middle of a stream, see `error_frame`."""

_ERROR_FRAMES: Final[Mapping[ErrorKind, str]] = {
    "writer": 'data: {"tpe":"CompletionModelInternalError","errors":[{"description":%s,'
    '"key":"fail.internalServerError","extras":{}}],"extras":{}}\n\n',
    "openai": 'data: {"error":{"message":%s,"type":"server_error","param":null,"code":500}}\n\n',
    "string": 'data: {"error":%s}\n\n',
    "object": 'data: {"object":"error","message":%s,"type":"InternalServerError","code":500}\n\n',
    "field": 'error: {"code":500,"message":%s,"type":"server_error"}\n\n',
    "event": 'event: error\ndata: {"code":500,"details":%s}\n\n',
}


def dumps(value: object) -> str:
    """JSON as servers write it: without spaces, non-ASCII characters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def sse_event(payload: Mapping[str, object] | str) -> bytes:
    """Make a server-sent event: ``data: <payload>`` and a blank line.

    Args:
        payload: A dictionary, which is written as JSON, or a string, which is used as it is.
    """
    text = payload if isinstance(payload, str) else dumps(payload)
    return f"data: {text}\n\n".encode()


def error_frame(kind: ErrorKind, message: str = "the model has failed") -> bytes:
    r"""Make an event that reports an error in the middle of a stream.

    Args:
        kind: The form of the error. ``writer`` is an object with ``tpe`` and ``errors``. ``openai``
            is an object under the key ``error``, and ``string`` a string under that key.
            ``object`` is an object with ``"object":"error"``. ``field`` is a line ``error: {...}``
            instead of ``data:``. ``event`` is an event named ``error``.
        message: The message for people.
    """
    return (_ERROR_FRAMES[kind] % dumps(message)).encode()


def reason(status: int) -> str:
    """The usual phrase for an HTTP status, such as ``Not Found``; else ``Unknown``."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def writer_error(
    status: int, description: str | None = None, *, tpe: str | None = None, key: str | None = None
) -> dict[str, object]:
    """Make the body of an error response, as the API sends it.

    Args:
        status: The HTTP status. It determines the defaults of the other arguments.
        description: The message for people.
        tpe: The kind of error, such as ``TooManyRequests``.
        key: The key of the error, such as ``fail.tooManyRequests``.

    Returns:
        A dictionary with ``tpe``, ``extras`` and ``errors``. The latter is a list of one dictionary
        with ``description``, ``key`` and ``extras``.
    """
    phrase = reason(status)
    name = phrase.title().replace(" ", "")
    error: dict[str, object] = {
        "description": description or phrase,
        "key": key or f"fail.{name[0].lower()}{name[1:]}",
        "extras": {},
    }
    return {"tpe": tpe or name, "errors": [error], "extras": {}}
