"""OpenTelemetry: spans and metrics of streams, tools and conversations.

This needs the extra ``otel``, which is the package ``opentelemetry-api``. Without an SDK that an
application sets up, everything here does nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextvars import Token
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
from opentelemetry import context, metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode

from .._version import __version__
from ..errors import APIError
from ..protocol.chunks import Usage
from ..protocol.completion import ParsedChatCompletion
from ..protocol.json import is_array, is_object
from . import conventions as names
from .content import input_messages, output_messages, tool_definitions
from .observer import (
    AttemptFailed,
    BatchReceived,
    ConversationEnded,
    ConversationStarted,
    Outcome,
    RequestPrepared,
    StreamEnded,
    StreamObserver,
    ToolEnded,
    ToolStarted,
)

if TYPE_CHECKING:
    from ..conversation import Conversation
    from ..streaming.stream import ChatCompletionStream

Attributes = dict[str, Any]

_CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_CAPTURING: Final = frozenset({"true", "span_only", "span_and_event"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_BITS: Final = 64
"""How many an integer has in OTLP, the sign included."""
_MOST_TOKENS: Final = 2**40
"""What a server could mean. A total of more than 64 bits would stop the export of all metrics."""
_NO_ERRORS: Final = frozenset({"complete", "closed", "cancelled"})
"""These outcomes are what somebody here wanted."""


class _Request(msgspec.Struct):
    """What is reported of a request; the rest, messages above all, is not even decoded."""

    model: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    temperature: Any = None
    top_p: Any = None
    top_k: Any = None
    n: Any = None
    stop: Any = None
    seed: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    reasoning_effort: Any = None
    stream: Any = None
    response_format: Any = None


_DECODER: Final = msgspec.json.Decoder(_Request)


class _Running:
    """A span that has not ended, and is current in its task.

    Attributes:
        span: The span.
        attributes: Those that its metrics share. It is replaced and never changed, for earlier
            SDKs keep the dictionary itself, and would export the change.
        started: When, in seconds of ``time.perf_counter``.
        last_chunk: When the last chunk came, in seconds since the request was sent.
    """

    __slots__ = ("_token", "attributes", "last_chunk", "span", "started")

    def __init__(self, span: trace.Span, attributes: Attributes) -> None:
        self.span = span
        self.attributes = attributes
        self.started = time.perf_counter()
        self.last_chunk: float | None = None
        self._token: Token[Context] = context.attach(trace.set_span_in_context(span))

    def name_model(self, completion: ParsedChatCompletion[Any]) -> None:
        """Add the model that answers, if the server has named it."""
        if completion.model:
            self.attributes = {**self.attributes, names.RESPONSE_MODEL: completion.model}

    def end(self, outcome: Outcome, error: BaseException | None) -> None:
        """End the span, which stays current for what is still recorded."""
        self.attributes = {**self.attributes, names.OUTCOME: outcome}
        self.span.set_attribute(names.OUTCOME, outcome)
        if error is not None and outcome not in _NO_ERRORS:
            # What the error says may be the server's words.
            self.attributes[names.ERROR_TYPE] = name = type(error).__name__
            self.span.set_attribute(names.ERROR_TYPE, name)
            code = error.status_code if isinstance(error, APIError) else None
            self.span.set_status(Status(StatusCode.ERROR, f"{name} ({code})" if code else name))
        self.span.end()

    def leave(self) -> None:
        """Let the span be current no longer, in the task that it was made in."""
        context.detach(self._token)


class OpenTelemetryObserver(StreamObserver):
    """Reports streams, tools and conversations to OpenTelemetry.

    ::

        writer = AsyncWriter(observer=OpenTelemetryObserver())

    The names are those of OpenTelemetry's GenAI conventions, release v0.1.0. Each stream with a
    request has a client span, from its first request to its end. This span is current in the
    stream's task. So the spans of an instrumented httpx are its children, and the request carries
    the trace context. A stream from ``chat_stream_from`` has no span.

    One observer may serve any number of streams, in any number of event loops.

    Args:
        tracer_provider: Where spans go; by default the global provider.
        meter_provider: Where metrics go; by default the global provider.
        capture_content: Whether spans have messages, answers, tools, and the arguments and results
            of tools as attributes. By default the environment variable
            ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` decides, or else False.
        provider: The provider of the API, for ``gen_ai.provider.name``.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        capture_content: bool | None = None,  # noqa: FBT001 - the order is that of instrumentations
        *,
        provider: str = "writer",
    ) -> None:
        self._tracer = trace.get_tracer("anyio_writer", __version__, tracer_provider)
        self._metrics = _Metrics(metrics.get_meter("anyio_writer", __version__, meter_provider))
        if capture_content is None:
            capture_content = os.environ.get(_CAPTURE, "").strip().lower() in _CAPTURING
        self._captures = capture_content
        self._provider = provider
        self._streams: dict[ChatCompletionStream[Any], _Running] = {}
        self._conversations: dict[Conversation[Any], _Running] = {}
        self._tools: dict[int, _Running] = {}

    # Streams.

    def request_prepared(self, observed: RequestPrepared) -> None:
        """Start the span with the first request; send the trace context with each."""
        if observed.stream not in self._streams:
            self._streams[observed.stream] = self._start_stream(observed)
        propagate.inject(observed.headers)

    def attempt_failed(self, observed: AttemptFailed) -> None:
        """Add an event if the request is sent again."""
        running = self._streams.get(observed.stream)
        if running is None or observed.wait is None:
            return
        error = {names.ERROR_TYPE: type(observed.error).__name__}
        running.span.add_event(
            names.RETRY,
            {**error, names.RESEND_COUNT: observed.attempt, names.RETRY_WAIT: observed.wait},
        )
        self._metrics.retries.add(1, {**running.attributes, **error})

    def batch_received(self, observed: BatchReceived) -> None:
        """Measure the time to the first chunk, and between any two."""
        running = self._streams.get(observed.stream)
        if running is None:
            return
        seconds, instruments = observed.seconds, self._metrics
        if running.last_chunk is None:
            running.name_model(observed.stream.current_completion_snapshot)
            instruments.time_to_first_chunk.record(seconds, running.attributes)
        else:
            pause = seconds - running.last_chunk
            instruments.time_per_output_chunk.record(pause, running.attributes)
        for _ in range(observed.chunk_count - 1):  # what came in one read came at once
            instruments.time_per_output_chunk.record(0.0, running.attributes)
        running.last_chunk = seconds

    def stream_ended(self, observed: StreamEnded) -> None:
        """End the span."""
        running = self._streams.pop(observed.stream, None)
        if running is None:
            return
        span, completion, usage = running.span, observed.completion, observed.usage
        running.name_model(completion)
        shared = running.attributes
        try:
            if span.is_recording():
                span.set_attributes(_response_attributes(completion, observed.outcome))
                span.set_attributes({names.USAGE + kind: count for kind, count in _tokens(usage)})
                if (first := observed.timings.first_chunk) is not None:
                    span.set_attribute(names.FIRST_CHUNK, first)
                if self._captures and completion.choices:
                    span.set_attribute(names.OUTPUT_MESSAGES, output_messages(completion))
        finally:  # whatever is wrong with an attribute, the span ends
            running.end(observed.outcome, observed.error)
        self._metrics.duration.record(observed.timings.ended or 0.0, running.attributes)
        self._metrics.count_tokens(usage, shared)
        running.leave()

    def _start_stream(self, observed: RequestPrepared) -> _Running:
        request = _DECODER.decode(observed.content)
        url = urlsplit(observed.url)
        attributes: Attributes = {
            names.OPERATION: names.CHAT,
            names.PROVIDER: self._provider,
            names.REQUEST_MODEL: str(request.model),
            names.SERVER_ADDRESS: url.hostname or "",
            names.SERVER_PORT: url.port or _DEFAULT_PORTS.get(url.scheme, 0),
        }
        span = self._tracer.start_span(
            f"{names.CHAT} {request.model}",
            kind=SpanKind.CLIENT,
            attributes={**attributes, **_request_attributes(request)},
        )
        if self._captures and span.is_recording():
            body = observed.body
            span.set_attribute(names.INPUT_MESSAGES, input_messages(body.get("messages")))
            if tools := body.get("tools"):
                span.set_attribute(names.TOOL_DEFINITIONS, tool_definitions(tools))
        return _Running(span, attributes)

    # Tools.

    def tool_started(self, observed: ToolStarted) -> None:
        """Start a span, current in the tool's own task."""
        call = observed.call
        attributes: Attributes = {
            names.OPERATION: names.EXECUTE_TOOL,
            names.TOOL_NAME: call.name,
            names.TOOL_TYPE: "function",
        }
        span = self._tracer.start_span(
            f"{names.EXECUTE_TOOL} {call.name}", kind=SpanKind.INTERNAL, attributes=attributes
        )
        if call.tool_call_snapshot_id:
            span.set_attribute(names.TOOL_CALL_ID, call.tool_call_snapshot_id)
        if self._captures:
            span.set_attribute(names.TOOL_ARGUMENTS, call.arguments)
        del attributes[names.OPERATION]  # its metric has none
        self._tools[id(call)] = _Running(span, attributes)

    def tool_ended(self, observed: ToolEnded) -> None:
        """End its span."""
        running = self._tools.pop(id(observed.call), None)
        if running is None:
            return
        result, error = observed.result, observed.error
        if self._captures and result is not None:
            running.span.set_attribute(names.TOOL_RESULT, result.content)
        is_failure = isinstance(error, Exception)
        running.end("failed" if is_failure else "cancelled" if error else "complete", error)
        seconds = time.perf_counter() - running.started
        self._metrics.tool_duration.record(seconds, running.attributes)
        running.leave()

    # Conversations.

    def conversation_started(self, observed: ConversationStarted) -> None:
        """Start a span around the rounds and tools, current in the conversation's task."""
        attributes: Attributes = {names.OPERATION: names.INVOKE_AGENT}
        span = self._tracer.start_span(
            names.INVOKE_AGENT, kind=SpanKind.INTERNAL, attributes=attributes
        )
        # Its metric has the operation, too: the conventions report workflows there as well.
        self._conversations[observed.conversation] = _Running(span, attributes)

    def conversation_ended(self, observed: ConversationEnded) -> None:
        """End the span."""
        running = self._conversations.pop(observed.conversation, None)
        if running is None:
            return
        completions = observed.conversation.completions
        totals: dict[str, int] = {}
        for completion in completions:
            for kind, count in _tokens(completion.usage):
                if kind in (names.INPUT_TOKENS, names.OUTPUT_TOKENS):
                    totals[names.USAGE + kind] = totals.get(names.USAGE + kind, 0) + count
        running.span.set_attributes(totals)
        if completions and (reasons := _finish_reasons(completions[-1], observed.outcome)):
            running.span.set_attribute(names.FINISH_REASONS, reasons)
        running.end(observed.outcome, observed.error)
        self._metrics.agent_duration.record(
            time.perf_counter() - running.started, running.attributes
        )
        inferences = sum(each.attempts > 0 for each in observed.conversation.timings)
        self._metrics.agent_inferences.record(inferences)
        self._metrics.agent_tool_calls.record(
            sum(
                len(choice.message.tool_calls or ())
                for completion in completions
                for choice in completion.choices
            )
        )
        running.leave()


class _Metrics:
    """The instruments."""

    def __init__(self, meter: metrics.Meter) -> None:
        def histogram(
            name: str, unit: str, buckets: list[Any], description: str
        ) -> metrics.Histogram:
            return meter.create_histogram(
                name, unit, description, explicit_bucket_boundaries_advisory=buckets
            )

        self.duration = histogram(
            names.DURATION, "s", names.SECONDS, "How long a request took, answer included."
        )
        self.time_to_first_chunk = histogram(
            names.TIME_TO_FIRST_CHUNK,
            "s",
            names.SECONDS,
            "How long the first chunk of an answer took.",
        )
        self.time_per_output_chunk = histogram(
            names.TIME_PER_OUTPUT_CHUNK,
            "s",
            names.SECONDS,
            "How long each chunk but the first took, since the one before.",
        )
        self.tool_duration = histogram(
            names.TOOL_DURATION, "s", names.SECONDS, "How long a tool took."
        )
        self.agent_duration = histogram(
            names.AGENT_DURATION, "s", names.LONG_SECONDS, "How long a conversation took."
        )
        self.agent_inferences = histogram(
            names.AGENT_INFERENCES,
            "{inference_call}",
            names.CALLS,
            "How many requests a conversation made.",
        )
        self.agent_tool_calls = histogram(
            names.AGENT_TOOL_CALLS,
            "{tool_call}",
            names.CALLS,
            "How many calls of tools a conversation had.",
        )
        self.retries = meter.create_counter(
            names.RETRIES, "{retry}", "How often a request was sent again."
        )
        self._token_counters = {
            kind: meter.create_counter(
                names.USED + kind, "{token}", f"How many tokens were used: {kind}."
            )
            for kind in _TOKENS
        }
        self._token_histograms = {
            kind: histogram(
                names.USED_PER_OPERATION + kind,
                "{token}",
                names.TOKENS,
                f"How many tokens a request used: {kind}.",
            )
            for kind in (names.INPUT_TOKENS, names.OUTPUT_TOKENS)
        }

    def count_tokens(self, usage: Usage | None, attributes: Attributes) -> None:
        """Count what the server said; nothing is estimated."""
        for kind, count in _tokens(usage):
            self._token_counters[kind].add(
                count, {**attributes, names.MODALITY: names.UNKNOWN_MODALITY}
            )
            if (histogram := self._token_histograms.get(kind)) is not None:
                histogram.record(count, attributes)


_TOKENS: Final = (
    names.INPUT_TOKENS,
    names.OUTPUT_TOKENS,
    names.CACHE_READ_TOKENS,
    names.REASONING_TOKENS,
)


def _tokens(usage: Usage | None) -> Iterable[tuple[str, int]]:
    """The token counts that are known, by their names in the conventions."""
    if usage is None:
        return
    prompt, completion = usage.prompt_token_details, usage.completion_tokens_details
    counts = (
        usage.prompt_tokens,
        usage.completion_tokens,
        None if prompt is None else prompt.cached_tokens,
        None if completion is None else completion.reasoning_tokens,
    )
    for kind, count in zip(_TOKENS, counts, strict=True):
        if count is not None and 0 <= count <= _MOST_TOKENS:
            yield kind, count


def _request_attributes(request: _Request) -> Mapping[str, Any]:
    """The attributes that only the span has."""
    found: Attributes = {
        attribute: value
        for field, attribute in names.REQUEST.items()
        if isinstance(value := getattr(request, field), str | int | float)
    }
    if isinstance(request.max_completion_tokens, int):
        found[names.REQUEST["max_tokens"]] = request.max_completion_tokens
    if isinstance(request.n, int) and request.n != 1:
        found[names.CHOICE_COUNT] = request.n
    stop = [request.stop] if isinstance(request.stop, str) else request.stop
    if is_array(stop):
        found[names.STOP_SEQUENCES] = [str(each) for each in stop]
    if is_object(request.response_format):
        is_text = request.response_format.get("type") == "text"
        found[names.OUTPUT_TYPE] = "text" if is_text else "json"
    return {name: value for name, value in found.items() if _fits(value)}


def _fits(value: object) -> bool:
    return not isinstance(value, int) or value.bit_length() < _BITS


def _response_attributes(
    completion: ParsedChatCompletion[Any], outcome: Outcome
) -> Mapping[str, Any]:
    found: Attributes = {}
    if completion.id:
        found[names.RESPONSE_ID] = completion.id
    if completion.model:
        found[names.RESPONSE_MODEL] = completion.model
    if reasons := _finish_reasons(completion, outcome):
        found[names.FINISH_REASONS] = reasons
    return found


def _finish_reasons(completion: ParsedChatCompletion[Any], outcome: Outcome) -> list[str]:
    """One for each choice: "error" for one that was cut off.

    Empty if a server ends complete answers without any.
    """
    reasons = [choice.finish_reason for choice in completion.choices]
    if outcome == "complete" and None in reasons:
        return []
    return [reason or "error" for reason in reasons]
