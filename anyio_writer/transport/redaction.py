"""Taking secrets out of what is shown, pickled or logged."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from ..protocol.json import is_array, is_object

_SHORTEST_SECRET: Final = 8  # "test" is no secret, and stands in many a sentence
_LONGEST_CHAIN: Final = 20
_INSTEAD: Final = "[the API key]"
_INSTEAD_OF_OTHERS: Final = "[a credential]"

# Names of headers and parameters for credentials, as gateways and clouds use them. An idempotency
# key is not one.
_CREDENTIAL: Final = re.compile(
    r"(?i)(?:proxy-)?authorization|(?:.*[-_])?cookie|key"
    r"|(?:.*[-_])?(?:api|subscription|access|auth)[-_]?key|(?:.*[-_])?(?:token|secret|password)"
)


@lru_cache(maxsize=256)
def _is_credential(name: str) -> bool:
    return _CREDENTIAL.fullmatch(name) is not None


def _items(headers: Any) -> list[tuple[str, str]]:
    """As ``headers.multi_items()``, which looks for the encoding twice a header."""
    encoding = headers.encoding
    return [(name.decode(encoding), value.decode(encoding)) for name, value in headers.raw]


class Redaction:
    """Takes secrets out of values, messages and exceptions.

    Args:
        api_key: The first of them.
    """

    def __init__(self, api_key: str) -> None:
        self._secrets: dict[str, str] = {}  # and what stands in their place
        self._add(api_key, _INSTEAD)

    def learn(self, request: Any) -> None:
        """Take out the credentials of this request, too: not every server wants the API key.

        Once it was sent: a client's ``auth`` adds its own while it sends.
        """
        self._learn(_items(request.headers), request.url)

    def _learn(self, headers: list[tuple[str, str]], url: Any) -> None:
        for name, value in headers:
            if _is_credential(name):
                # Behind the name of a scheme, as in "Basic ...".
                is_cookie = name.lower().endswith("cookie")
                self._add(value if is_cookie else value.rpartition(" ")[2], _INSTEAD_OF_OTHERS)
        if url.query:
            for name, value in url.params.multi_items():
                if _is_credential(name):
                    self._add(value, _INSTEAD_OF_OTHERS)

    def _add(self, secret: str, instead: str) -> None:
        if len(secret) >= _SHORTEST_SECRET:
            self._secrets.setdefault(secret, instead)

    def __call__(self, value: Any) -> Any:
        """A decoded JSON value without the secrets in its texts, however they were escaped."""
        if isinstance(value, str):
            for secret, instead in self._secrets.items():
                value = value.replace(secret, instead)
            return value
        if is_array(value):
            return [self(item) for item in value]
        if is_object(value):
            return {self(name): self(item) for name, item in value.items()}
        return value

    def clean_headers(self, response: Any) -> None:
        """Take them out of the headers of a response."""
        self._clean(response, _items(response.headers))

    def _clean(self, message: Any, headers: list[tuple[str, str]]) -> None:
        for secret in self._secrets:
            for name, value in headers:
                if secret in value:
                    message.headers[name] = self(value)

    def clean_request(self, request: Any) -> None:
        """Take them out of a request that was sent: errors carry it, and are pickled."""
        headers = _items(request.headers)
        self._learn(headers, request.url)
        self._clean(request, headers)
        url = cleaned = str(request.url)
        for secret in self._secrets:
            cleaned = cleaned.replace(secret, "redacted")
            if "%" in url:
                cleaned = cleaned.replace(quote(secret, safe=""), "redacted")
        if cleaned != url:
            request.url = type(request.url)(cleaned)

    def clean_exception(self, exc: BaseException) -> None:
        """Take them out of an exception and what it was caused by."""
        seen: BaseException | None = exc
        for _ in range(_LONGEST_CHAIN):
            if seen is None:
                return
            seen.args = tuple(map(self, seen.args))
            if notes := getattr(seen, "__notes__", None):
                notes[:] = map(self, notes)
            seen = seen.__cause__ or seen.__context__
