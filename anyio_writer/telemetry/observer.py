"""The observers of a stream, and what they receive."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, Union, cast

import anyio
import httpx
import msgspec

from ..errors import ConfigurationError
from ..protocol.events import ChatCompletionStreamEvent, FunctionToolCallArgumentsDoneEvent
from .timings import Timings

if TYPE_CHECKING:
    from ..conversation import Conversation
    from ..protocol.chunks import Usage
    from ..protocol.completion import ParsedChatCompletion
    from ..streaming.stream import ChatCompletionStream
    from ..streaming.tool_runs import ToolResult
else:
    # What is observed stands above this module. msgspec evaluates annotations for ``help()``, which
    # shows Any for these: ``Union[Any]`` is Any.
    ChatCompletionStream = Conversation = Union
    ToolResult = Any

Outcome: TypeAlias = Literal["complete", "truncated", "timeout", "failed", "closed", "cancelled"]
"""How a stream or a conversation ended: as it should; cut off by the server; by a time limit; with
another error; left or closed before its end; or cancelled together with the code around it."""

_logger: Final = logging.getLogger("anyio_writer")


class Observation(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Something that happened. The class says what."""


class RequestPrepared(Observation, frozen=True, kw_only=True, eq=False):
    """A request is about to be sent, for the first time or again.

    Attributes:
        stream: The stream that sends the request.
        attempt: The number of the attempt, from 1.
        url: Where the request goes, without query and password.
        content: The body of the request, as JSON text.
        headers: An empty dictionary. Headers that you put into it are added to the request. They
            do not replace headers that the request already has.
    """

    stream: ChatCompletionStream[Any]
    attempt: int
    url: str
    content: bytes
    headers: dict[str, str]

    @property
    def body(self) -> Any:
        """``content``, decoded."""
        return msgspec.json.decode(self.content)


class HeadersReceived(Observation, frozen=True, kw_only=True, eq=False):
    """The headers of a response arrived, whatever its status.

    Attributes:
        stream: The stream that sent the request.
        response: The response, for its status and headers. Do not read its body.
    """

    stream: ChatCompletionStream[Any]
    response: httpx.Response


class AttemptFailed(Observation, frozen=True, kw_only=True, eq=False):
    """A request failed before its answer began.

    Attributes:
        stream: The stream that sent the request.
        attempt: The number of the attempt, from 1.
        error: Why it failed.
        wait: After how many seconds the request is sent again. This is 0 if a kept-alive
            connection turned out to be closed. None if it is not sent again; the stream then ends
            with ``error``.
    """

    stream: ChatCompletionStream[Any]
    attempt: int
    error: Exception
    wait: float | None


class ContentStarted(Observation, frozen=True, kw_only=True, eq=False):
    """The first content arrived.

    Attributes:
        stream: The stream.
        seconds: The time since the request was first sent.
    """

    stream: ChatCompletionStream[Any]
    seconds: float


class BatchReceived(Observation, frozen=True, kw_only=True, eq=False):
    """One read brought one or more chunks.

    Attributes:
        stream: The stream.
        seconds: The time since the request was first sent.
        chunk_count: How many chunks there were.
        events: Their events. Empty while the stream has no subscriber, because then none are made.
    """

    stream: ChatCompletionStream[Any]
    seconds: float
    chunk_count: int
    events: Sequence[ChatCompletionStreamEvent[Any]]


class ToolStarted(Observation, frozen=True, kw_only=True, eq=False):
    """A tool is about to run. Observers are called in the task in which it runs.

    Attributes:
        stream: The stream with the call.
        call: The call.
    """

    stream: ChatCompletionStream[Any]
    call: FunctionToolCallArgumentsDoneEvent


class ToolEnded(Observation, frozen=True, kw_only=True, eq=False):
    """A tool has ended, for whatever reason. Observers are called in the task in which it ran.

    Attributes:
        stream: The stream with the call.
        call: The call.
        result: The result; None if the tool was cancelled, or failed under ``on_error="raise"``.
        error: Why it failed, or the exception that cancelled it.
    """

    stream: ChatCompletionStream[Any]
    call: FunctionToolCallArgumentsDoneEvent
    result: ToolResult | None
    error: BaseException | None


class StreamEnded(Observation, frozen=True, kw_only=True, eq=False):
    """A stream has ended. Only the ends of its tools may follow.

    Attributes:
        stream: The stream.
        outcome: How it ended.
        error: The error that ended it; None if the answer is complete.
        timings: When things happened.
    """

    stream: ChatCompletionStream[Any]
    outcome: Outcome
    error: Exception | None
    timings: Timings

    @property
    def completion(self) -> ParsedChatCompletion[Any]:
        """What had arrived. It has no choices if nothing had."""
        return self.stream.current_completion_snapshot

    @property
    def usage(self) -> Usage | None:
        """The token counts, or None while they are unknown."""
        return self.stream.usage


class ConversationStarted(Observation, frozen=True, kw_only=True, eq=False):
    """A conversation was entered. Its streams and tools follow.

    Attributes:
        conversation: The conversation.
    """

    conversation: Conversation[Any]


class ConversationEnded(Observation, frozen=True, kw_only=True, eq=False):
    """A conversation has ended.

    Attributes:
        conversation: The conversation.
        outcome: How it ended.
        error: The error that ended it; None if the model has answered.
    """

    conversation: Conversation[Any]
    outcome: Outcome
    error: Exception | None


class StreamObserver:
    """Is notified of what streams do. Subclass it, and override the methods that you need.

    Any object that has one of these methods will do, too. The methods are plain functions, called
    in the task of the stream, or in that of the tool. So they must not block. Their exceptions are
    logged, once for each kind, and do not affect the stream. One observer may serve any number of
    streams at once. ``observed.stream`` tells them apart.

    ``stream_ended`` is called once for each stream that was entered.
    """

    def request_prepared(self, observed: RequestPrepared) -> None:
        """A request is about to be sent. You can add headers to it."""

    def headers_received(self, observed: HeadersReceived) -> None:
        """The headers of a response arrived."""

    def attempt_failed(self, observed: AttemptFailed) -> None:
        """A request failed before its answer began, and may be sent again."""

    def content_started(self, observed: ContentStarted) -> None:
        """The first content arrived."""

    def batch_received(self, observed: BatchReceived) -> None:
        """Chunks arrived. This is called for each read, so it has to be quick."""

    def tool_started(self, observed: ToolStarted) -> None:
        """A tool is about to run."""

    def tool_ended(self, observed: ToolEnded) -> None:
        """A tool has ended."""

    def stream_ended(self, observed: StreamEnded) -> None:
        """A stream has ended."""

    def conversation_started(self, observed: ConversationStarted) -> None:
        """A conversation was entered."""

    def conversation_ended(self, observed: ConversationEnded) -> None:
        """A conversation has ended."""


ObserverArgument: TypeAlias = "StreamObserver | Iterable[StreamObserver] | None"
"""One observer, several, or none."""

_METHODS: Final[Mapping[type[Observation], str]] = {
    RequestPrepared: "request_prepared",
    HeadersReceived: "headers_received",
    AttemptFailed: "attempt_failed",
    ContentStarted: "content_started",
    BatchReceived: "batch_received",
    ToolStarted: "tool_started",
    ToolEnded: "tool_ended",
    StreamEnded: "stream_ended",
    ConversationStarted: "conversation_started",
    ConversationEnded: "conversation_ended",
}


class Observers:
    """The observers of a configuration, in order, by what they want to hear of."""

    def __init__(self, observers: Iterable[object]) -> None:
        self._methods: dict[type[Observation], list[Callable[[Any], object]]] = {}
        self._logged: set[tuple[str, type[BaseException]]] = set()
        for observer in observers:
            self._add(observer)

    def wants(self, kind: type[Observation]) -> bool:
        """Whether there is an observer of this kind."""
        return kind in self._methods

    def notify(self, observation: Observation) -> None:
        """Call the observers of this kind. Only errors that end the process are raised."""
        for method in self._methods.get(type(observation), ()):
            try:
                method(observation)
            # Theirs; the stream goes on. A plain function cannot be cancelled, but may raise what
            # it got from a future that was.
            except (Exception, anyio.get_cancelled_exc_class()) as exc:
                self._log(method, exc)

    def _add(self, observer: object) -> None:
        if isinstance(observer, type):
            raise ConfigurationError(
                f"observer must be an object, not a class: {observer.__name__}(...)."
            )
        found = False
        for kind, name in _METHODS.items():
            method = getattr(observer, name, None)
            if method is None:
                continue
            found = True
            if not callable(method) or inspect.iscoroutinefunction(method):
                raise ConfigurationError(
                    f"An observer's {name} must be a plain function, which cannot wait; that of "
                    f"{type(observer).__name__} is not."
                )
            if getattr(method, "__func__", None) is not getattr(StreamObserver, name):
                self._methods.setdefault(kind, []).append(method)
        if not found:
            raise ConfigurationError(
                f"{type(observer).__name__} is no observer: it has none of the methods of "
                f"StreamObserver ({', '.join(_METHODS.values())})."
            )

    def _log(self, method: Callable[..., object], exc: BaseException) -> None:
        name = getattr(method, "__qualname__", repr(method))
        if (name, type(exc)) not in self._logged:
            self._logged.add((name, type(exc)))
            _logger.error(
                "The observer %s raised %s; this kind is not logged again.",
                name,
                type(exc).__name__,
                exc_info=exc,
            )


def observers_of(given: object) -> Observers | None:
    """Whom ``observer=`` names; None if nobody.

    Raises:
        ConfigurationError: Something there is no observer.
    """
    if given is None or isinstance(given, Observers):
        return given
    if isinstance(given, Iterable) and not isinstance(given, type):
        several = list(cast("Iterable[object]", given))
        return Observers(several) if several else None
    return Observers([given])
