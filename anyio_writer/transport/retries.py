"""Which failures are worth another try, and how long to wait before it."""

from __future__ import annotations

import random
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Final

from ..errors import (
    SERVER_ERROR,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ConnectTimeoutError,
)
from ..protocol.json import is_object

_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 8.0
_LONGEST_SERVER_WAIT: Final = 60.0
_JITTER: Final = 0.25

_RETRYABLE: Final = frozenset({408, 409, 429})
# A used-up quota answers 429 like a rate limit, but waiting does not help.
_USED_UP: Final = frozenset({"CompletionModelQuotaError", "insufficient_quota"})


class StaleConnection(Exception):  # a mark, carried by an error of the HTTP library
    """Marks the failure of a kept-alive connection that ended before a response had begun."""


def pause_before_retry(exc: Exception, retries: int, max_retries: int) -> float | None:
    """Seconds until a request that failed is sent again; None if it is not.

    It is 0 if a kept-alive connection had ended while it was idle. That is no failure of this
    request, so it does not count as a retry.

    Args:
        exc: The failure.
        retries: How often it was sent again so far.
        max_retries: How often, at most.
    """
    if _is_stale(exc):
        return 0.0
    if retries == max_retries or not is_retryable(exc):
        return None
    wish = server_wait(exc) if isinstance(exc, APIStatusError) else None
    spread = random.uniform(0, _JITTER)  # no secret
    if wish is not None:
        return wish * (1 + spread * 0.2)  # upwards only: never sooner than the server asked
    doubled: float = _FIRST_WAIT * 2 ** min(retries, 10)
    return min(doubled, _LONGEST_WAIT) * (1 - spread)


def _is_stale(exc: BaseException | None) -> bool:
    while exc is not None and not isinstance(exc, StaleConnection):
        exc = exc.__cause__
    return exc is not None


def is_retryable(exc: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(exc, APITimeoutError):
        return isinstance(exc, ConnectTimeoutError)
    if isinstance(exc, APIConnectionError):
        return True
    if not isinstance(exc, APIStatusError) or exc.response is None:
        return False
    wish = server_wait(exc)
    if wish is not None and wish > _LONGEST_SERVER_WAIT:
        return False
    decided = exc.response.headers.get("x-should-retry")
    if decided in ("true", "false"):
        return bool(decided == "true")
    status = exc.response.status_code
    return (status in _RETRYABLE or status >= SERVER_ERROR) and not is_used_up(exc.body)


def server_wait(exc: APIStatusError) -> float | None:
    """The wait that the server asks for, in seconds, or None.

    ``retry-after`` is in seconds or a date (RFC 9110, section 10.2.3), ``retry-after-ms`` in
    milliseconds.
    """
    headers: Any = {} if exc.response is None else exc.response.headers
    milliseconds = _number(headers.get("retry-after-ms"))
    seconds = _number(headers.get("retry-after")) if milliseconds is None else milliseconds / 1000
    if seconds is None:
        try:
            seconds = parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time()
        except (TypeError, ValueError, OverflowError):  # a date of any digits
            return None
    return seconds if seconds > 0 else None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def is_used_up(body: Any) -> bool:
    """Whether the body of an error says that a quota is used up."""
    if not is_object(body):
        return False
    error = body.get("error")
    names = [error.get("code"), error.get("type")] if is_object(error) else []
    return not _USED_UP.isdisjoint(str(name) for name in [body.get("tpe"), *names])
