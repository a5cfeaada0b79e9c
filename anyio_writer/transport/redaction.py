"""Taking a secret out of what is shown, pickled or logged."""

from __future__ import annotations

from typing import Any, Final

from ..protocol.json import is_array, is_object

_SHORTEST_SECRET: Final = 8  # "test" is no secret, and stands in many a sentence
_LONGEST_CHAIN: Final = 20
_INSTEAD: Final = "[the API key]"


class Redaction:
    """Takes one secret out of values, messages and exceptions."""

    def __init__(self, secret: str) -> None:
        self._secret = secret if len(secret) >= _SHORTEST_SECRET else ""

    def __call__(self, value: Any) -> Any:
        """A decoded JSON value without the secret in its texts, however they were escaped."""
        return _without(self._secret, value) if self._secret else value

    def clean_headers(self, message: Any) -> None:
        """Take it out of the headers of a request or a response."""
        if not self._secret:
            return
        for name, value in message.headers.multi_items():
            if self._secret in value:
                message.headers[name] = value.replace(self._secret, _INSTEAD)

    def clean_request(self, request: Any) -> None:
        """Take it out of a request that was sent: errors carry it, and are pickled."""
        self.clean_headers(request)
        if self._secret and self._secret in str(request.url):
            request.url = type(request.url)(str(request.url).replace(self._secret, "redacted"))

    def clean_exception(self, exc: BaseException) -> None:
        """Take it out of an exception and what it was caused by."""
        seen: BaseException | None = exc
        for _ in range(_LONGEST_CHAIN):
            if seen is None or not self._secret:
                return
            seen.args = tuple(map(self, seen.args))
            if notes := getattr(seen, "__notes__", None):
                notes[:] = map(self, notes)
            seen = seen.__cause__ or seen.__context__


def _without(secret: str, value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(secret, _INSTEAD)
    if is_array(value):
        return [_without(secret, item) for item in value]
    if is_object(value):
        return {_without(secret, name): _without(secret, item) for name, item in value.items()}
    return value
