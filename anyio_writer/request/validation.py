"""Checks a request before anything is sent, and makes its JSON object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final

from ..config import SETTINGS, check_headers
from ..errors import InvalidParameterError
from .checks import check_type
from .encoding import is_lazy, is_mapping, is_sequence, to_json_types
from .messages import read_messages
from .params import RequestBody
from .tools import check_tool_choice, read_tools

_NOT_IN_BODY: Final = frozenset({"extra_headers", "extra_query", "extra_body"})
_FIELDS: Final = frozenset(RequestBody.__annotations__)


def build_body(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request's JSON object, checked.

    Args:
        request: ``ChatRequest``, and ``response_format`` in the API's own form. ``tools`` may be
            what ``read_tools`` made.

    Raises:
        InvalidParameterError: A field is missing, wrong or unknown; the message names it.
    """
    for name in request:
        if name not in _FIELDS:
            raise InvalidParameterError(_unknown(name))
    tools = read_tools(request.get("tools"))
    body: dict[str, Any] = {}
    for name, value in {**request, "tools": tools.params or None}.items():
        if value is not None and name not in _NOT_IN_BODY:
            body[name] = _READERS.get(name, _read)(value, name)
    check_type(body, RequestBody)
    extra = {name: _mapping(name, request.get(name)) for name in _NOT_IN_BODY}
    if "tools" not in extra["extra_body"]:
        check_tool_choice(body.get("tool_choice"), tools)
    check_headers("extra_headers", extra["extra_headers"], InvalidParameterError)
    _check_query(extra["extra_query"])
    return {**body, "stream": True, **to_json_types(extra["extra_body"], "extra_body")}


def _read(value: Any, name: str) -> Any:
    return to_json_types(list(value) if is_lazy(value) else value, name)


_READERS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "messages": lambda messages, _: read_messages(messages),
    "tools": lambda tools, _: tools,  # read already
}


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not is_mapping(value):  # the value is not shown: it may hold a secret
        raise InvalidParameterError(f"{name} must be a mapping, not {type(value).__name__}.")
    return value


def _check_query(query: Mapping[str, Any]) -> None:
    for name, value in query.items():
        values = value if is_sequence(value) else (value,)
        if not all(isinstance(each, str | int | float | None) for each in values):
            raise InvalidParameterError(
                f"extra_query[{name!r}] must be text, a number or a list of these, "
                f"not {type(value).__name__}."
            )


_OF_CONVERSATIONS: Final = "it is a parameter of open_conversation() and chat.conversation()"
_ELSEWHERE: Final = {
    "max_rounds": _OF_CONVERSATIONS,
    "total_time": f"{_OF_CONVERSATIONS}; a stream has timeouts=Timeouts(total=...)",
    "tool_limit": f"{_OF_CONVERSATIONS}; a stream has run_tools(limit=...)",
    "on_tool_error": f"{_OF_CONVERSATIONS}; a stream has run_tools(on_error=...)",
    "limit": "it is a parameter of run_tools(); a conversation has tool_limit",
    "on_error": "it is a parameter of run_tools(); a conversation has on_tool_error",
}
_OF_THE_POOL: Final = frozenset({"client", "max_connections"})


def _unknown(name: str) -> str:
    if name == "stream":
        return "There is no parameter stream: the answer is always streamed."
    if name in SETTINGS:
        advice = "" if name in _OF_THE_POOL else f" Use writer.with_options({name}=...)."
        return f"{name} is a setting of AsyncWriter, not a field of a request.{advice}"
    if name in _ELSEWHERE:
        return f"{name} is not a field of a request: {_ELSEWHERE[name]}."
    matches = get_close_matches(name, sorted(_FIELDS | SETTINGS | _ELSEWHERE.keys()), n=1)
    suggestion = f" Did you mean {matches[0]}?" if matches else ""
    return (
        f"There is no parameter {name}.{suggestion} "
        "Fields that the API does not list belong in extra_body."
    )
