"""Every exception this library raises on purpose.

The names are those of the official SDK where it has one, so that ``except`` clauses survive a
migration. Nothing here imports an HTTP library: requests and responses are only carried.

All of them can be copied and pickled: everything but the message is a keyword and lives in
``__dict__``, which is how ``copy.copy`` and ``pickle`` rebuild an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import httpx

    from .protocol.completion import ParsedChatCompletion
    from .telemetry.timings import Timings


# Control characters but for tabs and line ends; what a server says must not steer a terminal.
_CONTROL: Final = dict.fromkeys({*range(32), *range(127, 160)} - {9, 10}, "�")


def printable(text: str, limit: int | None = None) -> str:
    """A text that is safe to show, cut to the limit."""
    text = text.translate(_CONTROL)
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


MAX_MESSAGE: Final = 2000
"""How long an error's message gets, in characters; a part of it may come from the server."""

MAX_REQUEST_ID: Final = 200
"""How long a request ID gets, in characters."""


class WriterError(Exception):
    """The base of everything this library raises on purpose."""


class ConfigurationError(WriterError, ValueError):
    """A setting is missing or invalid (key, base URL, limits); nothing was sent."""


class InvalidParameterError(WriterError, ValueError):
    """A parameter of the request is missing or invalid; nothing was sent."""


class APIError(WriterError):
    """Something failed between the request and the end of its answer.

    Attributes:
        message: What happened, in one sentence.
        request: The request that was sent, if there was one.
        response: The response whose headers had arrived, if any.
        body: What the server said about the error: decoded JSON, else text, else None.
        request_id: The server's request ID, if it sent one.
        completion: What had arrived of the answer; None if there was no choice yet.
        timings: When things happened, up to the error; None if it is not the error of a stream.
    """

    def __init__(
        self,
        message: str,
        *,
        request: httpx.Request | None = None,
        response: httpx.Response | None = None,
        body: object = None,
        request_id: str | None = None,
        completion: ParsedChatCompletion[Any] | None = None,
    ) -> None:
        message = printable(message, MAX_MESSAGE)
        super().__init__(message)
        self.message = message
        self.request = request
        self.response = response
        self.body = body
        self.request_id: str | None = (
            None if request_id is None else printable(request_id, MAX_REQUEST_ID)
        )
        self.completion = completion
        self.timings: Timings | None = None

    @property
    def status_code(self) -> int | None:
        """The HTTP status of the response, or None before there was one."""
        return None if self.response is None else self.response.status_code

    def __str__(self) -> str:
        if self.request_id is None:
            return self.message
        return f"{self.message} (request id: {self.request_id})"


class APIStatusError(APIError):
    """The server answered with a status that is not 2xx."""


class BadRequestError(APIStatusError):
    """400: the server did not accept the request as it is."""


class AuthenticationError(APIStatusError):
    """401: the key is missing or invalid."""


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this."""


class NotFoundError(APIStatusError):
    """404: no such path or model."""


class ConflictError(APIStatusError):
    """409: the request conflicts with something else that the server does."""


class UnprocessableEntityError(APIStatusError):
    """422: the request was understood, but is not valid."""


class RateLimitError(APIStatusError):
    """429: too many requests, or a used-up quota."""


class InternalServerError(APIStatusError):
    """500 and above: the server failed."""


_BY_STATUS: Final[dict[int, type[APIStatusError]]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}
SERVER_ERROR: Final = 500


def status_error_class(status_code: int) -> type[APIStatusError]:
    """The class that stands for an HTTP status."""
    fallback = InternalServerError if status_code >= SERVER_ERROR else APIStatusError
    return _BY_STATUS.get(status_code, fallback)


class APIConnectionError(APIError):
    """The connection could not be made, or broke."""


class StreamTruncatedError(APIConnectionError):
    """The response ended before the answer did.

    ``completion`` holds what had arrived; it is not the model's whole answer.
    """


class APITimeoutError(APIConnectionError):
    """One of the time limits ran out. See ``Timeouts``."""


class ConnectTimeoutError(APITimeoutError):
    """The connection was not made within ``Timeouts.connect``."""


class FirstContentTimeoutError(APITimeoutError):
    """No content came within ``Timeouts.first_content``; keep-alives do not count as content."""


class IdleTimeoutError(APITimeoutError):
    """No chunk came for ``Timeouts.idle`` seconds after the one before."""


class TotalTimeoutError(APITimeoutError):
    """The answer was not complete within ``Timeouts.total``, retries and their waits included."""


class RelayUnavailableError(APIConnectionError):
    """A relay's server cannot be reached, refuses a command, or the relay is closed."""


class ProducerLostError(StreamTruncatedError):
    """The producer of a relayed answer is gone, or was replaced, before it recorded an end."""


class ProducerStoppedError(StreamTruncatedError):
    """The producer of a relayed answer was stopped before the answer was complete.

    Attributes:
        by: "stop" if somebody called ``Relay.stop()``; "producer" if the producer itself was
            cancelled, or closed its stream.
    """

    def __init__(self, message: str, *, by: str = "producer", **context: Any) -> None:
        super().__init__(message, **context)
        self.by = by


class ProducerFailedError(StreamTruncatedError):
    """The producer of a relayed answer failed with an error of its own code."""


class RelayedAnswerGoneError(StreamTruncatedError):
    """What a relay had stored of an answer is gone: it expired, or was deleted or evicted."""


class APIStreamError(APIError):
    """The server reported an error inside a response that had begun with status 200."""


class APIResponseValidationError(APIError):
    """The server sent something that cannot be understood as part of a chat stream.

    ``body`` holds the offending payload, shortened.
    """


class ResponseTooLargeError(APIResponseValidationError):
    """A line, an event, the number of choices or calls, or the answer exceeds its ``Limits``."""


class LengthFinishReasonError(APIError):
    """``max_tokens`` cut off an answer that had to be parsed."""


class ContentFilterFinishReasonError(APIError):
    """A content filter cut off an answer that had to be parsed."""


class ContentParseError(APIError):
    """A choice's text does not fit the request's response format.

    ``completion`` has all choices. Those whose text fits have their value.

    Attributes:
        choice_index: The index of the choice.
        text: The text.
        path: The place of the error in the value, such as ``$.people[1].age``; ``$`` is the whole.
        reason: What is invalid there.
    """

    def __init__(
        self,
        message: str,
        *,
        choice_index: int = 0,
        text: str = "",
        path: str = "$",
        reason: str = "",
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.choice_index = choice_index
        self.text = text
        self.path = path
        self.reason = reason


class ValueMismatchError(WriterError, ValueError):
    """A text does not fit the type that it should be decoded as.

    Attributes:
        text: The text.
        path: The place of the error in the value, such as ``$.people[1].age``; ``$`` is the whole.
        reason: What is invalid there.
    """

    def __init__(self, message: str, *, text: str = "", path: str = "$", reason: str = "") -> None:
        super().__init__(message)
        self.text = text
        self.path = path
        self.reason = reason


class ConversationLimitError(WriterError):
    """A conversation used up its rounds or its time before the model had answered.

    The time can run out at any point: while tools run, in the middle of an answer, or before
    anybody reads.

    Attributes:
        messages: The messages so far, in the form of the next request's ``messages``. An answer
            that had not ended is not among them.
        completion: What had arrived of the last answer; None if nothing had.
    """

    def __init__(
        self,
        message: str,
        *,
        messages: Sequence[Any] = (),
        completion: ParsedChatCompletion[Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.messages = messages
        self.completion = completion


class WrongTaskError(WriterError):
    """A task left a stream that another task had entered."""


class WrongOrderError(WriterError):
    """A stream was left before one that the same task had entered later."""


class DetachedEventError(WriterError, AttributeError):
    """The event has no stream, because it was unpickled, decoded or made by hand.

    It has all its fields. Properties that need the stream, such as ``snapshot`` and ``parsed``,
    raise this error.
    """


class ConsumerLagError(WriterError):
    """A subscriber with ``on_full="fail"`` was too slow, so it has lost the rest of its stream.

    The stream and the other subscribers go on.
    """


class StreamClosedError(WriterError):
    """The stream was left or closed before its answer was complete.

    Attributes:
        completion: What had arrived by then.
        timings: When things happened; None for a conversation.
    """

    def __init__(
        self, message: str, *, completion: ParsedChatCompletion[Any] | None = None
    ) -> None:
        super().__init__(message)
        self.completion = completion
        self.timings: Timings | None = None


class KeyTakenError(WriterError):
    """A relay's key already has a producer, or an answer that has ended."""


class UnknownKeyError(WriterError):
    """A relay has no answer under this key: none was started, or it has expired."""


class LeaseLostError(WriterError):
    """A producer's lease on a relay's key ran out, so what it publishes is no longer accepted.

    It did not renew the lease in time, or the key was deleted. Another producer may have taken the
    key over.
    """


class WrongKindError(WriterError):
    """A relay's key holds a conversation where an answer was asked for, or the reverse."""
