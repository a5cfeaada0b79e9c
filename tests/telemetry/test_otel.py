"""``OpenTelemetryObserver``: spans and metrics, for every ending, never mixed up."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any

import anyio
import httpx
import pytest
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from anyio_writer import (
    AsyncWriter,
    StreamTruncatedError,
    chat_stream_from,
    function_tool,
    open_chat_stream,
    open_conversation,
)
from anyio_writer.telemetry import OpenTelemetryObserver
from anyio_writer.testing import ChatServer, error_reply, text_reply
from tests.streaming.helpers import DONE, QUESTION, REQUEST, STALL, USAGE, Body, chunk, client_for
from tests.telemetry.conftest import SDK
from tests.telemetry.endings import ENDINGS, WHOLE, read
from tests.telemetry.tour import PARAMETERS, SECRETS, calling, detailed, tools_of, tour

BASE = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "writer",
    "gen_ai.request.model": "m",
    "server.address": "api.writer.com",
    "server.port": 443,
}
STARTED = {
    **BASE,
    "gen_ai.response.model": "m",
    "gen_ai.response.id": "chunk-0",
    "gen_ai.request.stream": True,
}
WITH_USAGE = {"gen_ai.usage.input_tokens": 1, "gen_ai.usage.output_tokens": 2}
FIRST = "gen_ai.response.time_to_first_chunk"
EXPECTED: dict[str, dict[str, Any]] = {
    "complete": {**STARTED, **WITH_USAGE, "gen_ai.response.finish_reasons": ("stop",)},
    "retried": {**STARTED, **WITH_USAGE, "gen_ai.response.finish_reasons": ("stop",)},
    **{
        name: {**BASE, "gen_ai.request.stream": True}
        for name in (
            *("status error", "no connection", "retried in vain", "no answer", "not a chunk"),
            "cancelled on entry",
        )
    },
}
CUT_OFF = {**STARTED, "gen_ai.response.finish_reasons": ("error",)}


@pytest.mark.parametrize("name", ENDINGS)
async def test_the_span_of_each_ending(name: str, sdk: SDK) -> None:
    ending = ENDINGS[name]
    is_error = ending.outcome in ("truncated", "timeout", "failed")
    with sdk.tracer.start_as_current_span("caller") as caller:
        async with ending.client() as client:
            stream = open_chat_stream(
                client=client, observer=sdk.observer(), **REQUEST, **ending.arguments
            )
            await ending.use(stream)
        assert trace.get_current_span() is caller
    span = sdk.span("chat")
    assert span.name == "chat m"
    assert span.kind is SpanKind.CLIENT
    assert span.parent == caller.get_span_context()
    attributes = dict(span.attributes or {})
    assert attributes.pop(FIRST, None) == stream.timings.first_chunk
    expected = {**EXPECTED.get(name, CUT_OFF), "anyio_writer.outcome": ending.outcome}
    if is_error:
        expected["error.type"] = ending.error
    assert attributes == expected
    assert span.status.status_code is (StatusCode.ERROR if is_error else StatusCode.UNSET)
    retried = [each for each in span.events if each.name == "anyio_writer.retry"]
    assert [each.attributes and {**each.attributes} for each in retried] == [
        {
            "error.type": "InternalServerError",
            "http.request.resend_count": 1,
            "anyio_writer.retry.wait": pytest.approx(0.001, rel=0.1),
        }
    ] * (ending.attempts - 1)
    assert len(span.events) == len(retried)


@pytest.mark.parametrize("name", ENDINGS)
async def test_the_metrics_of_each_ending(name: str, sdk: SDK) -> None:
    ending = ENDINGS[name]
    async with ending.client() as client:
        stream = open_chat_stream(
            client=client, observer=sdk.observer(), **REQUEST, **ending.arguments
        )
        await ending.use(stream)
    timings = stream.timings
    model = {"gen_ai.response.model": "m"} if timings.first_chunk is not None else {}
    shared = {**BASE, **model}
    duration = sdk.point("gen_ai.client.inference.duration")
    assert duration.sum == timings.ended
    error = {"error.type": ending.error} if ending.outcome not in ("complete", "closed") else {}
    if ending.outcome == "cancelled":
        error = {}
    assert dict(duration.attributes) == {**shared, **error, "anyio_writer.outcome": ending.outcome}
    first = sdk.points("gen_ai.client.inference.time_to_first_chunk")
    assert [each.sum for each in first] == ([timings.first_chunk] if model else [])
    assert all(dict(each.attributes) == shared for each in first)
    between = sdk.points("gen_ai.client.inference.time_per_output_chunk")
    assert sum(each.count for each in between) == max(0, timings.chunk_count - 1)
    retries = sdk.points("anyio_writer.client.retries")
    assert [each.value for each in retries] == [1] * (ending.attempts - 1)
    usage = stream.usage
    for kind, count in (("input", 1), ("output", 2)):
        counters = sdk.points(f"gen_ai.client.inference.usage.{kind}_tokens")
        histograms = sdk.points(f"gen_ai.client.inference.operation.{kind}_tokens")
        assert [each.value for each in counters] == ([count] if usage else [])
        assert [each.sum for each in histograms] == ([count] if usage else [])
        for each in counters:
            assert dict(each.attributes) == {**shared, "gen_ai.token.modality": "unknown"}


class KeepingMeter(metrics.NoOpMeter):
    """Keeps the attributes of a histogram as earlier SDKs do: the dictionary itself."""

    def __init__(self) -> None:
        super().__init__("keeping")
        self.kept: list[tuple[Any, dict[str, Any]]] = []

    def create_histogram(self, *args: Any, **options: Any) -> metrics.Histogram:
        kept = self.kept

        class Keeping(metrics.NoOpHistogram):
            def record(self, amount: float, attributes: Any = None, context: Any = None) -> None:
                kept.append((attributes, dict(attributes)))

        return Keeping("keeping")


async def test_attributes_that_were_recorded_do_not_change() -> None:
    meter = KeepingMeter()
    provider: Any = type("Provider", (), {"get_meter": lambda *_args, **_options: meter})()
    observer = OpenTelemetryObserver(meter_provider=provider)
    for body in (Body(*WHOLE), Body(chunk("cut"))):
        async with client_for(body) as client:
            stream = open_chat_stream(client=client, observer=observer, **REQUEST)
            with suppress(StreamTruncatedError):
                await read(stream)
    assert len(meter.kept) > 6
    assert all(now == then for now, then in meter.kept)


async def test_the_time_between_chunks_adds_up(sdk: SDK) -> None:
    source = client_for(Body(OPEN_AND_MORE, chunk("c"), chunk(None, "stop"), DONE))
    async with source as client:
        stream = open_chat_stream(client=client, observer=sdk.observer(), **REQUEST)
        await read(stream)
    timings = stream.timings
    point = sdk.point("gen_ai.client.inference.time_per_output_chunk")
    assert point.count == timings.chunk_count - 1 == 4
    assert timings.first_chunk is not None
    assert timings.last_content is not None
    assert point.sum == pytest.approx(timings.last_content - timings.first_chunk)
    assert point.min == 0  # three of them came in one read


OPEN_AND_MORE = chunk("", role="assistant") + chunk("a") + chunk("b")


async def test_what_is_said_of_a_request_and_its_usage(sdk: SDK) -> None:
    async with client_for(detailed()) as client:
        stream = open_chat_stream(
            client=client,
            api_key="key",
            base_url="http://127.0.0.1:8080",
            observer=sdk.observer(provider="else"),
            **PARAMETERS,
        )
        await read(stream)
    attributes = dict(sdk.span("chat big").attributes or {})
    attributes.pop(FIRST)
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "else",
        "gen_ai.request.model": "big",
        "gen_ai.response.model": "m",
        "gen_ai.response.id": "chunk-0",
        "server.address": "127.0.0.1",
        "server.port": 8080,
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 5,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.25,
        "gen_ai.request.top_k": 3,
        "gen_ai.request.seed": 7,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.stop_sequences": ("a", "b"),
        "gen_ai.request.frequency_penalty": 0.1,
        "gen_ai.request.presence_penalty": 0.2,
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.output.type": "json",
        "gen_ai.response.finish_reasons": ("stop", "length"),
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 4,
        "anyio_writer.outcome": "complete",
    }
    for name, count in (("cache_read.input", 3), ("reasoning.output", 4)):
        assert sdk.point(f"gen_ai.client.inference.usage.{name}_tokens").value == count


@pytest.mark.parametrize(
    "extra", [{"stop": 3}, {"response_format": "text"}, {"model": None}, {"temperature": "hot"}]
)
async def test_odd_requests_have_spans_too(extra: Any, sdk: SDK) -> None:
    async with client_for(Body(*WHOLE)) as client:
        await read(
            open_chat_stream(client=client, observer=sdk.observer(), extra_body=extra, **REQUEST)
        )
    assert sdk.span("chat").attributes


async def test_numbers_that_no_exporter_can_carry_are_not_reported(sdk: SDK) -> None:
    """OTLP has 64 bits. A larger total would stop the export of all metrics of the process."""
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1%s,"completion_tokens":7}}\n\n'
    seeds = [2**70, -(2**70), 2**63 - 1]
    bodies = [Body(*WHOLE[:-2], usage % (b"0" * 24), DONE) for _ in seeds]
    async with client_for(*bodies) as client:
        observer = sdk.observer()
        for seed in seeds:
            await read(open_chat_stream(client=client, observer=observer, seed=seed, **REQUEST))
    reported = [dict(span.attributes or {}) for span in sdk.spans("chat")]
    assert [each.get("gen_ai.request.seed") for each in reported] == [None, None, 2**63 - 1]
    assert not any("gen_ai.usage.input_tokens" in each for each in reported)
    assert sdk.points("gen_ai.client.inference.usage.input_tokens") == []
    assert sdk.points("gen_ai.client.inference.operation.input_tokens") == []
    assert sdk.point("gen_ai.client.inference.usage.output_tokens").value == 21


# Contexts.


def header_of(span: Any) -> str:
    """What a request sends of a span."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def is_retried(name: str) -> bool:
    return name.endswith(("1", "3", "5"))


async def test_the_trace_context_goes_out_with_each_attempt(sdk: SDK) -> None:
    busy = error_reply(503, headers={"retry-after-ms": "1"})
    async with ChatServer(busy, text_reply()) as server:
        await read(open_chat_stream(base_url=server.url, observer=sdk.observer(), **REQUEST))
    span = sdk.span("chat")
    assert [each.header("traceparent") for each in server.requests] == [header_of(span)] * 2


async def test_the_spans_of_httpx_are_below(sdk: SDK) -> None:
    instrumentor = HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=sdk.tracer_provider, meter_provider=sdk.meter_provider)
    try:
        async with ChatServer(text_reply()) as server:
            async with AsyncWriter(
                api_key="key", base_url=server.url, observer=sdk.observer()
            ) as writer:
                await read(writer.chat.stream(**QUESTION))
    finally:
        instrumentor.uninstrument()
    chat, post = sdk.span("chat"), sdk.span("POST")
    assert post.parent == chat.get_span_context()
    (request,) = server.requests
    assert request.header("traceparent") == header_of(post)


async def test_contexts_never_mix(sdk: SDK) -> None:
    """200 streams at once, each below a span of its own, some of them sent again."""
    count = 200
    observer = sdk.observer()
    everybody_waits = anyio.Event()
    waiting = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal waiting
        waiting += 1
        if waiting == count:
            everybody_waits.set()
        await everybody_waits.wait()
        name = json.loads(request.content)["model"]
        sent.setdefault(name, []).append(request.headers["traceparent"])
        current = trace.get_current_span()
        assert header_of(current) == request.headers["traceparent"]
        await anyio.lowlevel.checkpoint()
        assert trace.get_current_span() is current
        if is_retried(name) and len(sent[name]) == 1:
            return httpx.Response(503, headers={"retry-after-ms": "1"})
        return httpx.Response(200, stream=Body(chunk(name), chunk(None, "stop"), USAGE, DONE))

    sent: dict[str, list[str]] = {}
    parents: dict[str, Any] = {}

    async def one(name: str) -> None:
        with sdk.tracer.start_as_current_span(name) as parent:
            parents[name] = parent
            request = {**QUESTION, "model": name}
            async with writer.chat.stream(**request) as stream:
                assert trace.get_current_span() is parent
                async for _ in stream:
                    assert trace.get_current_span() is parent
                assert await stream.get_final_text() == name
            assert trace.get_current_span() is parent

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport) as client:
        async with AsyncWriter(client=client, api_key="key", observer=observer) as writer:
            async with anyio.create_task_group() as tasks:
                for number in range(count):
                    tasks.start_soon(one, f"model-{number}")
    spans = {each.name.removeprefix("chat "): each for each in sdk.spans("chat ")}
    assert len(spans) == len(parents) == count
    for name, span in spans.items():
        assert span.parent == parents[name].get_span_context()
        assert sent[name] == [header_of(span)] * (1 + is_retried(name))
    assert sdk.metrics()["gen_ai.client.inference.duration"]


async def test_observers_hold_nothing_of_streams_that_have_ended(sdk: SDK) -> None:
    observer = sdk.observer()
    for ending in ENDINGS.values():
        async with ending.client() as client:
            stream = open_chat_stream(
                client=client, observer=observer, **REQUEST, **ending.arguments
            )
            await ending.use(stream)
    kept = [each for each in vars(observer).values() if isinstance(each, dict)]
    assert kept == [{}, {}, {}]
    assert len(sdk.spans()) == len(ENDINGS)


async def test_bytes_from_elsewhere_are_no_inference(sdk: SDK) -> None:
    async with chat_stream_from(Body(*WHOLE), observer=sdk.observer()) as stream:
        await stream.until_done()
    assert not sdk.spans()
    assert not sdk.metrics()


async def test_without_an_sdk_nothing_happens() -> None:
    async with client_for(Body(*WHOLE)) as client:
        stream = open_chat_stream(client=client, observer=OpenTelemetryObserver(), **REQUEST)
        await read(stream)
    assert stream.timings.chunk_count == 5


# Tools and conversations.


def parent_of(span: ReadableSpan, sdk: SDK) -> str:
    assert span.parent is not None
    (found,) = [
        each.name
        for each in sdk.spans()
        if each.get_span_context().span_id == span.parent.span_id  # type: ignore[union-attr]
    ]
    return found


async def test_tools_have_spans_that_are_current_in_them(sdk: SDK) -> None:
    source = calling("slow", "threaded", "broken", "unknown")
    with sdk.tracer.start_as_current_span("caller"):
        async with client_for(source) as client:
            stream = open_chat_stream(
                client=client, observer=sdk.observer(), tools=tools_of(sdk), **REQUEST
            )
            async with stream:
                results = await stream.run_tools().results()
    assert len(results) == 4
    spans = {each.name: each for each in sdk.spans("execute_tool")}
    assert spans.keys() == {"execute_tool slow", "execute_tool threaded", "execute_tool broken"}
    for name in ("slow", "threaded"):
        assert parent_of(spans[f"execute_tool {name}"], sdk) == "caller"
        assert parent_of(sdk.span(f"inside {name}"), sdk) == f"execute_tool {name}"
        assert dict(spans[f"execute_tool {name}"].attributes or {}) == {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": f"id-{name}",
            "anyio_writer.outcome": "complete",
        }
    broken = spans["execute_tool broken"]
    assert (broken.attributes or {})["error.type"] == "LookupError"
    assert broken.status.status_code is StatusCode.ERROR
    assert broken.kind is SpanKind.INTERNAL
    durations = {
        each.attributes["gen_ai.tool.name"]: each
        for each in sdk.points("gen_ai.execute_tool.duration")
    }
    assert durations.keys() == {"slow", "threaded", "broken"}
    assert durations["broken"].attributes["error.type"] == "LookupError"


async def test_a_cancelled_tool_is_no_error(sdk: SDK) -> None:
    @function_tool
    async def slow() -> None:
        await anyio.sleep_forever()

    async with client_for(calling("slow")) as client:
        stream = open_chat_stream(client=client, observer=sdk.observer(), tools=[slow], **REQUEST)
        async with stream:
            stream.run_tools()
            await stream.until_done()
            await anyio.wait_all_tasks_blocked()
            await stream.close()
    span = sdk.span("execute_tool")
    assert (span.attributes or {})["anyio_writer.outcome"] == "cancelled"
    assert span.status.status_code is StatusCode.UNSET


async def test_a_conversation_is_a_span_around_its_rounds_and_tools(sdk: SDK) -> None:
    with sdk.tracer.start_as_current_span("caller") as caller:
        async with client_for(calling("slow", "threaded"), Body(*WHOLE)) as client:
            conversation = open_conversation(
                client=client, observer=sdk.observer(), tools=tools_of(sdk), **REQUEST
            )
            async with conversation:
                await conversation.until_done()
                assert trace.get_current_span() is caller
    agent = sdk.span("invoke_agent")
    assert agent.kind is SpanKind.INTERNAL
    assert parent_of(agent, sdk) == "caller"
    assert dict(agent.attributes or {}) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.usage.input_tokens": 2,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.response.finish_reasons": ("stop",),
        "anyio_writer.outcome": "complete",
    }
    for name in ("chat", "execute_tool"):
        spans = sdk.spans(name)
        assert len(spans) == 2
        assert {parent_of(each, sdk) for each in spans} == {"invoke_agent"}
    assert sdk.point("gen_ai.invoke_agent.inference_calls").sum == 2
    assert sdk.point("gen_ai.invoke_agent.tool_calls").sum == 2
    assert sdk.point("gen_ai.invoke_agent.duration").count == 1


async def test_a_conversation_that_fails(sdk: SDK) -> None:
    async with client_for(calling("slow"), Body(chunk("Hel"))) as client:
        conversation = open_conversation(
            client=client, observer=sdk.observer(), tools=tools_of(sdk), **REQUEST
        )
        with pytest.raises(Exception, match="ended before"):
            async with conversation:
                await conversation.until_done()
    agent = sdk.span("invoke_agent")
    assert (agent.attributes or {})["error.type"] == "StreamTruncatedError"
    assert agent.status.status_code is StatusCode.ERROR
    point = sdk.point("gen_ai.invoke_agent.duration")
    assert point.attributes["error.type"] == "StreamTruncatedError"


# Content.


async def test_content_is_not_reported_unless_asked_for(
    sdk: SDK, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", raising=False)
    await tour(sdk, sdk.observer())
    said = "".join(each.to_json() for each in sdk.spans()) + str(sdk.metrics())
    assert len(sdk.spans()) > len(ENDINGS)
    for secret in SECRETS:
        assert secret not in said


@pytest.mark.parametrize("switch", ["argument", "true", "SPAN_ONLY", "SPAN_AND_EVENT"])
async def test_content_in_the_form_of_the_conventions(
    switch: str, sdk: SDK, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {}
    if switch == "argument":
        arguments["capture_content"] = True
    else:
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", switch)
    call = {"id": "c", "type": "function", "function": {"name": "slow", "arguments": '{"a":1}'}}
    image = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What?"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "words"},
    ]
    asked = chunk(reasoning_content="Hm.")
    calls = [{"index": 0, "id": "d", "function": {"name": "slow", "arguments": "{}"}}]
    answer = Body(asked, chunk("Well,"), chunk(tool_calls=calls), chunk(None, "tool_calls"), DONE)
    async with client_for(answer) as client:
        async with open_chat_stream(
            client=client,
            api_key="key",
            model="m",
            messages=messages,
            tools=tools_of(sdk)[:1],
            observer=sdk.observer(**arguments),
        ) as stream:
            await stream.run_tools().results()
    attributes = sdk.span("chat").attributes or {}
    assert json.loads(str(attributes["gen_ai.input.messages"])) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "What?"}, image]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c", "name": "slow", "arguments": {"a": 1}}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c", "response": "words"}]},
    ]
    assert json.loads(str(attributes["gen_ai.output.messages"])) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Hm."},
                {"type": "text", "content": "Well,"},
                {"type": "tool_call", "id": "d", "name": "slow", "arguments": {}},
            ],
        }
    ]
    assert json.loads(str(attributes["gen_ai.tool.definitions"])) == [
        {"type": "function", "name": "slow"}
    ]
    tool = sdk.span("execute_tool").attributes or {}
    assert tool["gen_ai.tool.call.arguments"] == "{}"
    assert tool["gen_ai.tool.call.result"] == "secret words"


@pytest.mark.parametrize("switch", ["", "no_content", "event_only", "false"])
def test_the_switch_may_say_no(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", switch)
    assert not vars(OpenTelemetryObserver())["_captures"]
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    assert not vars(OpenTelemetryObserver(capture_content=False))["_captures"]


def test_without_the_extra_the_error_says_what_to_install() -> None:
    program = """
import sys
sys.modules["opentelemetry"] = None
import anyio_writer.telemetry
try:
    anyio_writer.telemetry.OpenTelemetryObserver
except ModuleNotFoundError as exc:
    print(exc)
try:
    anyio_writer.telemetry.OpenTelemetry
except AttributeError as exc:
    print(exc)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        'OpenTelemetryObserver needs more: pip install "anyio-writer[otel]"\n'
        "module 'anyio_writer.telemetry' has no attribute 'OpenTelemetry'\n"
    )


async def test_a_stream_that_is_open_has_no_span_yet(sdk: SDK) -> None:
    async with client_for(Body(chunk("a"), STALL)) as client:
        async with open_chat_stream(client=client, observer=sdk.observer(), **REQUEST):
            assert not sdk.spans()
    assert sdk.span("chat").end_time is not None


async def test_the_trace_context_goes_out_with_httpx2_too(sdk: SDK) -> None:
    httpx2 = pytest.importorskip("httpx2")
    sent: list[str] = []

    def answer(request: Any) -> Any:
        sent.append(request.headers["traceparent"])
        return httpx2.Response(200, content=b"".join(WHOLE))

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        await read(open_chat_stream(client=client, observer=sdk.observer(), **REQUEST))
    assert sent == [header_of(sdk.span("chat"))]


async def test_the_trace_context_follows_a_redirect(sdk: SDK) -> None:
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["traceparent"])
        if len(sent) == 1:
            return httpx.Response(307, headers={"location": "/v2/chat"})
        return httpx.Response(200, stream=Body(*WHOLE))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        stream = open_chat_stream(client=client, observer=sdk.observer(), **REQUEST)
        await read(stream)
    assert sent == [header_of(sdk.span("chat"))] * 2
    assert stream.timings.attempts == 1
