"""The lines that the logger ``anyio_writer`` gets for a stream. None holds a key or content."""

from __future__ import annotations

import logging
import os
from typing import Any, Final

from ..errors import APIError, printable
from .observer import Outcome
from .timings import Timings

logger: Final = logging.getLogger("anyio_writer")

_LEVELS: Final = {"info": logging.INFO, "debug": logging.DEBUG}


def set_up_logging() -> None:
    """Show the log on standard error if the environment says ``WRITER_LOG=info`` or ``debug``.

    This is for scripts. A handler that was set up before stays the only one.
    """
    level = _LEVELS.get(os.environ.get("WRITER_LOG", "").strip().lower())
    if level is not None:
        logging.basicConfig(format="[%(asctime)s - %(name)s - %(levelname)s] %(message)s")
        logger.setLevel(level)


def log_request(attempt: int, url: str) -> None:
    """A request goes out."""
    logger.debug("Sending a request to %s (attempt %d).", url, attempt)


def log_failure(attempt: int, error: Exception, wait: float | None) -> None:
    """A request failed. What costs nobody anything is not worth a warning."""
    if wait is None:
        logger.debug("Attempt %d failed with %s.", attempt, _name_of(error))
    elif wait:
        logger.warning(
            "Attempt %d failed with %s; the request is sent again in %.2f s.",
            attempt,
            _name_of(error),
            wait,
        )
    else:
        logger.debug("Attempt %d met a closed connection; the request is sent again.", attempt)


def log_end(
    outcome: Outcome,
    error: Exception | None,
    *,
    response: Any,
    request_id: str | None,
    timings: Timings,
) -> None:
    """Sum a stream up in one line."""
    facts = {
        "error": error and _name_of(error),
        "status": response and response.status_code,
        "request_id": request_id and printable(" ".join(request_id.split())),
        "attempts": timings.attempts,
        "chunks": timings.chunk_count,
        "first_content": _seconds(timings.first_content),
        "duration": _seconds(timings.ended),
    }
    said = " ".join(f"{name}={value}" for name, value in facts.items() if value is not None)
    logger.info("Stream %s: %s", outcome, said)


def _name_of(error: BaseException) -> str:
    """An error without what it says, which may be a server's words and hold content."""
    name = type(error).__name__
    if isinstance(error, APIError) and error.status_code is not None:
        return f"{name}[{error.status_code}]"
    return f"{name}[{type(error.__cause__).__name__}]" if error.__cause__ else name


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}s"
