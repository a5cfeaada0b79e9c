"""The exit codes, and which error leads to which."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from ..errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APIStreamError,
    APITimeoutError,
    AuthenticationError,
    ConfigurationError,
    InternalServerError,
    InvalidParameterError,
    KeyTakenError,
    LeaseLostError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    StreamClosedError,
    StreamTruncatedError,
    TotalTimeoutError,
    UnknownKeyError,
    WriterError,
)
from ..protocol.json import error_message, shorten
from ..transport.retries import is_used_up, server_wait
from .text import one_line


class Exit(IntEnum):
    """The exit codes."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    AUTHENTICATION = 3
    RATE_LIMIT = 4
    SERVER_ERROR = 5
    REJECTED = 6
    CONNECTION = 7
    TIMEOUT = 8
    BROKEN_ANSWER = 9
    NO_ANSWER = 10
    KEY_TAKEN = 11
    INTERRUPTED = 128 + signal.SIGINT
    PIPE = 141  # 128 + SIGPIPE, which not every system has
    TERMINATED = 128 + signal.SIGTERM


MEANINGS: Final[Mapping[Exit, str]] = {
    Exit.OK: "ok",
    Exit.UNEXPECTED: "something unexpected",
    Exit.USAGE: "wrong arguments or settings",
    Exit.AUTHENTICATION: "the key is wrong or may not do this (401, 403)",
    Exit.RATE_LIMIT: "too many requests, or no quota left (429)",
    Exit.SERVER_ERROR: "the server failed (500 and above)",
    Exit.REJECTED: "the server rejected the request (400, 404, 409, 422, others)",
    Exit.CONNECTION: "no connection, or it broke",
    Exit.TIMEOUT: "a time limit ran out",
    Exit.BROKEN_ANSWER: "the answer was cut off, or the server sent an error in it",
    Exit.NO_ANSWER: "the relay has no such answer, or it has no producer",
    Exit.KEY_TAKEN: "the relay's key has a producer, or an answer that has ended",
    Exit.INTERRUPTED: "Ctrl-C",
    Exit.PIPE: "the program that reads the output has ended",
    Exit.TERMINATED: "SIGTERM",
}


class Outcome(NamedTuple):
    """What an error means for the user.

    Attributes:
        exit_code: How the command ends.
        hint: What may help, or "".
    """

    exit_code: Exit
    hint: str = ""


OUTCOMES: Final[Mapping[type[WriterError], Outcome]] = {  # the first match counts
    ConfigurationError: Outcome(Exit.USAGE),
    InvalidParameterError: Outcome(Exit.USAGE),
    AuthenticationError: Outcome(Exit.AUTHENTICATION, "Is WRITER_API_KEY right?"),
    PermissionDeniedError: Outcome(
        Exit.AUTHENTICATION, "The key in WRITER_API_KEY has no permission for this."
    ),
    RateLimitError: Outcome(Exit.RATE_LIMIT, "Try again later."),
    InternalServerError: Outcome(Exit.SERVER_ERROR),
    NotFoundError: Outcome(Exit.REJECTED, "Are --model, --base-url and --path right?"),
    APIStatusError: Outcome(Exit.REJECTED),
    UnknownKeyError: Outcome(Exit.NO_ANSWER, "--wait SECONDS waits for its producer."),
    KeyTakenError: Outcome(Exit.KEY_TAKEN),
    LeaseLostError: Outcome(Exit.BROKEN_ANSWER),
    StreamTruncatedError: Outcome(Exit.BROKEN_ANSWER),
    TotalTimeoutError: Outcome(Exit.TIMEOUT, "--timeout allows more."),
    APITimeoutError: Outcome(Exit.TIMEOUT),
    APIConnectionError: Outcome(Exit.CONNECTION),
    APIStreamError: Outcome(Exit.BROKEN_ANSWER),
    APIResponseValidationError: Outcome(Exit.BROKEN_ANSWER),
    StreamClosedError: Outcome(Exit.BROKEN_ANSWER),
    APIError: Outcome(Exit.UNEXPECTED),
    WriterError: Outcome(Exit.UNEXPECTED),
}


class CommandError(Exception):
    """The command failed.

    Attributes:
        message: Why, in one line for its user.
        exit_code: How it ends.
    """

    def __init__(self, message: str, exit_code: Exit) -> None:
        super().__init__(message, exit_code)
        self.message = message
        self.exit_code = exit_code


class QuietEnd(Exception):  # not an error: the user ended it
    """The command was ended from outside. It has cleaned up, and prints nothing.

    Attributes:
        exit_code: How it ends.
    """

    def __init__(self, exit_code: Exit) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def explain(error: WriterError, *, characters: int = 0) -> CommandError:
    """Turn an error of the library into one line and an exit code.

    Args:
        error: What was raised.
        characters: How many characters of the answer had arrived.
    """
    outcome = next(found for cls, found in OUTCOMES.items() if isinstance(error, cls))
    said = one_line(_said(error))
    more = [_special_hint(error) or outcome.hint]
    if characters and "had arrived" not in said:  # some errors know it themselves
        more.append(f"({characters} characters of the answer had arrived.)")
    if any(more) and not said.endswith((".", "!", "?")):
        said += "."
    return CommandError(" ".join(filter(None, (said, *more))), outcome.exit_code)


def _special_hint(error: WriterError) -> str:
    """A hint for a special case of an error; "" in all other cases."""
    if isinstance(error, RateLimitError):
        if is_used_up(error.body):
            return "The quota is used up: trying again does not help."
        wait = server_wait(error)
        return f"The server asks to wait {wait:.0f} seconds." if wait else ""
    if isinstance(error, NotFoundError) and error.request is not None:
        first, second, *_ = [*error.request.url.path.strip("/").split("/"), "", ""]
        if first and first == second:  # such as /v1/v1/chat
            return f"--base-url ends in /{first}, and --path begins with it: leave one of them out."
    return ""


def _said(error: WriterError) -> str:
    said = str(error)
    if isinstance(error, APIStatusError) and error.body:
        # The sentence in the body instead of the body.
        return said.replace(shorten(str(error.body)), one_line(error_message(error.body), 200))
    if isinstance(error, APIConnectionError) and error.request is not None and not error.response:
        host = error.request.url.netloc.decode()  # netloc holds no password
        return said if host in said else f"{host}: {said}"
    return said
