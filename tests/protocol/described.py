"""Events and completions of the library in the words of the model in ``streams.py``."""

import copy
from typing import Any

import msgspec

from anyio_writer.protocol import ChatCompletionStreamEvent, LogprobToken, ParsedChatCompletion


def tokens(items: list[LogprobToken]) -> list[str]:
    return [item.token for item in items]


def completion(value: ParsedChatCompletion[Any]) -> dict[str, Any]:
    """A completion as plain data, with the fields that the model knows."""
    plain = msgspec.to_builtins(value)
    choices = []
    for choice in plain["choices"]:
        message = choice["message"]
        calls = message["tool_calls"] and [
            {"index": call["index"], "id": call["id"], **call["function"]}
            for call in message["tool_calls"]
        ]
        for call in calls or ():
            assert call.pop("parsed_arguments") is None
        choices.append(
            {
                "index": choice["index"],
                "content": message["content"],
                "refusal": message["refusal"],
                "reasoning_content": message["reasoning_content"],
                "tool_calls": calls,
                "finish_reason": choice["finish_reason"],
                "logprobs": choice["logprobs"],
            }
        )
        assert message["role"] == "assistant"
    names = ("id", "created", "model", "system_fingerprint", "service_tier", "usage")
    return {**{name: plain[name] for name in names}, "choices": choices}


def snapshot(event: ChatCompletionStreamEvent[Any]) -> object:
    """What the event can tell beyond its own fields; None if nothing."""
    if event.type == "chunk":
        return completion(event.snapshot)
    if event.type in {"content.delta", "refusal.delta", "reasoning.delta"}:
        return event.snapshot
    if event.type in {"logprobs.content.delta", "logprobs.refusal.delta"}:
        return tokens(event.snapshot)
    if event.type == "tool_calls.function.arguments.delta":
        return event.arguments
    return None


def described(event: ChatCompletionStreamEvent[Any]) -> dict[str, Any]:
    """An event in the words of the model, its snapshot read now."""
    plain: dict[str, Any] = {"type": event.type}
    if event.type != "chunk":
        plain["choice_index"] = event.choice_index
    match event.type:
        case "content.delta" | "refusal.delta" | "reasoning.delta":
            plain["delta"] = event.delta
        case "content.done":
            plain["whole"] = event.content
            assert event.parsed is None
        case "reasoning.done":
            plain["whole"] = event.reasoning
        case "refusal.done":
            plain["whole"] = event.refusal
        case "logprobs.content.delta":
            plain["tokens"] = tokens(event.content)
        case "logprobs.refusal.delta":
            plain["tokens"] = tokens(event.refusal)
        case "logprobs.content.done":
            plain["whole"] = tokens(event.content)
        case "logprobs.refusal.done":
            plain["whole"] = tokens(event.refusal)
        case "tool_calls.function.arguments.delta":
            plain |= {"index": event.index, "name": event.name, "delta": event.arguments_delta}
        case "tool_calls.function.arguments.done":
            plain |= {"index": event.index, "name": event.name, "arguments": event.arguments}
            plain["id"] = event.tool_call_snapshot_id
    told = snapshot(event)
    if told is not None:
        plain["snapshot"] = copy.deepcopy(told)
    return plain
