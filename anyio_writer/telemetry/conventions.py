"""The names that OpenTelemetry's conventions for generative AI give to what is reported.

The release is v0.1.0 of ``open-telemetry/semantic-conventions-genai``, the first of that
repository, which builds on v1.45.0 of the general conventions. docs/guides/observability.md lists
what is used of it.
What has no name there has one of ours, which begins with ``anyio_writer.``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

RELEASE: Final = "v0.1.0"
"""Of the conventions."""

# Operations, which are also how the names of spans begin.

CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"
INVOKE_AGENT: Final = "invoke_agent"

# Attributes.

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
RESEND_COUNT: Final = "http.request.resend_count"

REQUEST: Final[Mapping[str, str]] = {  # fields of a request that are reported as they are
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "reasoning_effort": "gen_ai.request.reasoning.level",
    "stream": "gen_ai.request.stream",
}
CHOICE_COUNT: Final = "gen_ai.request.choice.count"
STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
OUTPUT_TYPE: Final = "gen_ai.output.type"

RESPONSE_ID: Final = "gen_ai.response.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"

INPUT_TOKENS: Final = "input_tokens"
OUTPUT_TOKENS: Final = "output_tokens"
CACHE_READ_TOKENS: Final = "cache_read.input_tokens"
REASONING_TOKENS: Final = "reasoning.output_tokens"
USAGE: Final = "gen_ai.usage."
"""Before each of these, in attributes."""

TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"

MODALITY: Final = "gen_ai.token.modality"
UNKNOWN_MODALITY: Final = "unknown"

# Attributes that hold content.

INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"

# Our own.

OUTCOME: Final = "anyio_writer.outcome"
RETRY: Final = "anyio_writer.retry"
RETRY_WAIT: Final = "anyio_writer.retry.wait"

# Metrics.

DURATION: Final = "gen_ai.client.inference.duration"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.client.inference.time_to_first_chunk"
TIME_PER_OUTPUT_CHUNK: Final = "gen_ai.client.inference.time_per_output_chunk"
USED: Final = "gen_ai.client.inference.usage."
USED_PER_OPERATION: Final = "gen_ai.client.inference.operation."
"""Before the kinds of tokens, in metrics: counters for totals, histograms for percentiles."""
TOOL_DURATION: Final = "gen_ai.execute_tool.duration"
AGENT_DURATION: Final = "gen_ai.invoke_agent.duration"
AGENT_INFERENCES: Final = "gen_ai.invoke_agent.inference_calls"
AGENT_TOOL_CALLS: Final = "gen_ai.invoke_agent.tool_calls"
RETRIES: Final = "anyio_writer.client.retries"

# The buckets that the conventions recommend for their histograms.

SECONDS: Final = [0.01 * 2**power for power in range(14)]
LONG_SECONDS: Final = [0.1 * 2**power for power in range(13)]
TOKENS: Final = [4**power for power in range(14)]
CALLS: Final = [2**power for power in range(8)]
