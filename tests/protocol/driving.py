"""What the tests of this folder share: a body in, its outcome out."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from anyio_writer.errors import APIError
from anyio_writer.protocol import (
    ChatCompletionStreamEvent,
    ChatCompletionStreamState,
    ParsedChatCompletion,
)
from anyio_writer.protocol.extent import Wholeness, wholeness
from anyio_writer.protocol.sse import ChatSSEDecoder, ServerSentEvent

Event = ChatCompletionStreamEvent[Any]


def frames(*payloads: object) -> bytes:
    """Payloads as the body of a response: strings as they are, the rest as JSON."""
    texts = [
        payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
        for payload in payloads
    ]
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def chunk(
    delta: object = None, reason: object = None, *, index: object = 0, **rest: object
) -> dict[str, Any]:
    """A plain chunk with one choice."""
    choice: dict[str, object] = {"index": index, "delta": {} if delta is None else delta}
    choice["finish_reason"] = reason
    return {"id": "c1", "object": "chat.completion.chunk", "choices": [choice], **rest}


def said(text: object) -> dict[str, Any]:
    """A plain chunk with a piece of text."""
    return chunk({"content": text})


def called(*pieces: object, reason: object = None) -> dict[str, Any]:
    """A plain chunk with pieces of tool calls."""
    return chunk({"tool_calls": list(pieces)}, reason)


def piece(index: object = None, /, **parts: object) -> dict[str, Any]:
    """A piece of a tool call: ``id``, ``type``; ``name`` and ``arguments`` of its function."""
    function = {key: parts.pop(key) for key in ("name", "arguments") if key in parts}
    head = {} if index is None else {"index": index}
    return {**head, **parts, **({"function": function} if function else {})}


@dataclass
class Outcome:
    """How a stream ended, and what had come of it."""

    events: list[Event] = field(default_factory=list)
    error: APIError | None = None
    completion: ParsedChatCompletion[Any] = field(default_factory=ParsedChatCompletion)

    @property
    def text(self) -> str | None:
        return self.completion.choices[0].message.content if self.completion.choices else None

    @property
    def reason(self) -> str | None:
        return self.completion.choices[0].finish_reason if self.completion.choices else None

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        if not self.completion.choices:
            return []
        calls = self.completion.choices[0].message.tool_calls or []
        return [(call.id, call.function.name, call.function.arguments) for call in calls]

    @property
    def done_calls(self) -> list[tuple[str, str, str]]:
        return [
            (event.tool_call_snapshot_id, event.name, event.arguments)
            for event in self.events
            if event.type == "tool_calls.function.arguments.done"
        ]

    def types(self) -> list[str]:
        return [event.type for event in self.events]


def is_whole(tail: ServerSentEvent) -> bool:
    """Whether a block whose blank line never came can be taken as an event."""
    return tail.data.strip() == b"[DONE]" or wholeness(tail.text) is Wholeness.WHOLE


def run(*bodies: bytes, n: int | None = None, require_finish: bool = True) -> Outcome:
    """Drive decoder and state over a whole response, as anything with a socket would."""
    state = ChatCompletionStreamState[Any](n=n, require_finish=require_finish)
    decoder = ChatSSEDecoder()
    outcome = Outcome()
    try:
        for body in bodies:
            state._state.feed(decoder.feed(body), outcome.events)
        tail = decoder.pending()
        if tail is not None and is_whole(tail):
            state._state.feed([tail], outcome.events)
        outcome.events += state.finish()
    except APIError as exc:
        outcome.error = exc
    outcome.completion = state.current_completion_snapshot
    return outcome


def handle(payloads: Iterable[object]) -> Outcome:
    """Drive the state alone, chunk by chunk."""
    return run(*(frames(payload) for payload in payloads))
