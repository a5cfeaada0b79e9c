"""Streams that servers send and that the official SDK's helper does not take.

One table: what is sent, what the SDK (writer-sdk 3.0.0) makes of it, what this library makes of
it. The tests run both and hold the table to the truth; the page for people is made from it::

    python tests/comparison/cases.py > docs/compared-with-the-sdk.md
"""

import json
import sys
from dataclasses import dataclass
from typing import Any, Final


def data(*payloads: object) -> str:
    """Payloads as server-sent events."""
    texts = [each if isinstance(each, str) else json.dumps(each) for each in payloads]
    return "".join(f"data: {text}\n\n" for text in texts)


def chunk(delta: object, reason: str | None = None, index: object = 0, **rest: Any) -> Any:
    """A chunk with one choice."""
    choice = {"index": index, "delta": delta, "finish_reason": reason}
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "palmyra-x5"}
    return {**head, "choices": [choice], **rest}


def text(piece: str, reason: str | None = None, **rest: Any) -> Any:
    """A chunk with a piece of text."""
    return chunk({"role": "assistant", "content": piece}, reason, **rest)


def answer(choice: dict[str, object], reason: str = "stop") -> Any:
    """A last chunk, whose choice has other fields than the usual ones."""
    return {**chunk({}), "choices": [{"index": 0, "finish_reason": reason, **choice}]}


def call(reason: str | None = None, /, *, arguments: object = None, **head: object) -> Any:
    """A chunk with a piece of a tool call."""
    function: dict[str, object] = {"arguments": arguments}
    if "name" in head:
        function["name"] = head.pop("name")
    return chunk({"tool_calls": [{**head, "function": function}]}, reason)


STOP: Final = chunk({}, "stop")
CALLS: Final = chunk({}, "tool_calls")
USAGE: Final[dict[str, Any]] = {**chunk({}), "choices": [], "usage": {"total_tokens": 3}}
OPEN: Final = {"index": 0, "id": "c1", "type": "function", "name": "f"}
WHOLE: Final = {**OPEN, "arguments": '{"a":1}'}
NULLS: Final = {"index": 0, "id": None, "type": None, "name": None}
ROLE: Final = chunk({"role": "assistant", "content": ""})


@dataclass(frozen=True)
class Case:
    """One stream, and what comes of it."""

    name: str
    body: str
    sdk: str
    ours: str


HALF: Final = "StreamTruncatedError, keeping text 'Hel'"
HELLO: Final = "text 'Hello'; stop"
CALLED: Final = """call f '{"a":1}' (1 done); tool_calls"""

CASES: Final = [
    Case(
        "tool call whose later pieces have a null type, as the API sends them",
        data(
            ROLE,
            call(**OPEN),
            call(**NULLS, arguments='{"a"'),
            call("tool_calls", **NULLS, arguments=":1}"),
        ),
        "AssertionError",
        CALLED,
    ),
    Case(
        "whole tool call in the chunk with the finish reason",
        data(ROLE, call("tool_calls", **WHOLE)),
        """call f '{"a":1}' (0 done); tool_calls""",
        CALLED,
    ),
    Case(
        "first tool call has the index 1",
        data(ROLE, call(**{**WHOLE, "index": 1}), CALLS),
        "IndexError",
        CALLED,
    ),
    Case(
        "tool call without an index",
        data(ROLE, call(id="c1", type="function", name="f", arguments='{"a":1}'), CALLS),
        "TypeError",
        CALLED,
    ),
    Case(
        "id and name repeated in every piece",
        data(
            ROLE,
            call(**OPEN, arguments='{"a"'),
            call(**OPEN, arguments=":1}"),
            CALLS,
        ),
        """call ff '{"a":1}' (1 done); tool_calls""",
        CALLED,
    ),
    Case(
        "two calls under the same index, told apart by their ids",
        data(
            ROLE,
            call(**WHOLE),
            call(**{**WHOLE, "id": "c2", "name": "g"}),
            CALLS,
        ),
        """call fg '{"a":1}{"a":1}' (1 done); tool_calls""",
        """call f '{"a":1}', call g '{"a":1}' (2 done); tool_calls""",
    ),
    Case(
        "arguments as an object",
        data(ROLE, call(**OPEN, arguments={"a": 1}), CALLS),
        "call f {'a': 1} (1 done); tool_calls",
        CALLED,
    ),
    Case(
        "choices is null",
        data(text("Hel"), {**STOP, "choices": None}, text("lo", "stop")),
        "TypeError",
        HELLO,
    ),
    Case(
        "delta is null in the last chunk",
        data(text("Hel"), text("lo"), chunk(None, "stop")),
        "AttributeError",
        HELLO,
    ),
    Case(
        "the first choice to arrive has the index 1",
        data(text("lo", "stop", index=1), text("Hello", "stop")),
        "IndexError",
        "text 'Hello'; stop; text 'lo'; stop",
    ),
    Case(
        "Knowledge Graph sources in two chunks",
        data(
            chunk({"content": "", "graph_data": {"sources": [{"file_id": "a", "snippet": "s"}]}}),
            chunk({"content": "", "graph_data": {"sources": [{"file_id": "b", "snippet": "t"}]}}),
            text("Hello", "stop"),
        ),
        "RuntimeError",
        "text 'Hello'; stop; 1 source",
    ),
    Case(
        "Knowledge Graph status changes",
        data(
            chunk({"content": "", "graph_data": {"status": "processing"}}),
            chunk({"content": "Hello", "graph_data": {"status": "finished"}}),
            STOP,
        ),
        "text 'Hello'; stop; status 'processingfinished'",
        "text 'Hello'; stop; status 'finished'",
    ),
    Case(
        "a chunk without usage after the one with it",
        data(text("Hello"), STOP, USAGE, {**USAGE, "usage": None}),
        HELLO,
        f"{HELLO}; 3 tokens",
    ),
    Case("response ends in the middle of the answer", data(text("Hel")), "text 'Hel'; None", HALF),
    Case(
        "response ends in the middle of a tool call",
        data(ROLE, call(**OPEN, arguments='{"a"')),
        """text ''; call f '{"a"' (0 done); None""",
        """StreamTruncatedError, keeping text ''; call f '{"a"' (0 done)""",
    ),
    Case("nothing but [DONE]", data("[DONE]"), "AssertionError", "StreamTruncatedError"),
    Case("no event at all", "", "AssertionError", "StreamTruncatedError"),
    Case(
        "error object in the middle of the stream",
        data(text("Hel"), {"error": {"message": "overloaded"}}, "[DONE]"),
        "TypeError",
        "APIStreamError, keeping text 'Hel'",
    ),
    Case(
        "error in a chunk with a choice",
        data(text("Hel"), text("", "error", error={"message": "overloaded"})),
        "text 'Hel'; error",
        "APIStreamError, keeping text 'Hel'",
    ),
    Case(
        "error in an SSE field of its own",
        data(text("Hel")) + 'error: {"message":"overloaded"}\n\n',
        "text 'Hel'; None",
        "APIStreamError, keeping text 'Hel'",
    ),
    Case(
        "JSON error with status 200 and no events",
        '{"error":{"message":"Unexpected endpoint"}}',
        "AssertionError",
        "APIStreamError",
    ),
    Case(
        "events named message",
        data(text("Hello"), STOP).replace("data:", "event: message\ndata:"),
        "AssertionError",
        HELLO,
    ),
    Case(
        "byte order mark at the start",
        "\ufeff" + data(text("Hel"), text("lo", "stop")),
        "text 'lo'; stop",
        HELLO,
    ),
    Case(
        "comment after an event with an id",
        "id: 1\n" + data(text("Hello")) + ": ping\n\n" + data(STOP),
        "JSONDecodeError",
        HELLO,
    ),
    Case(
        "empty data as a heartbeat after an event with an id",
        "id: 1\n" + data(text("Hello"), "", STOP),
        "JSONDecodeError",
        HELLO,
    ),
    Case(
        "block with only a retry time",
        "retry: 3000\n\n" + data(text("Hello"), STOP),
        "JSONDecodeError",
        HELLO,
    ),
    Case(
        "comment sent as data",
        data(": keepalive", text("Hello"), STOP),
        "JSONDecodeError",
        HELLO,
    ),
    Case(
        "last event without its blank line",
        (data(text("Hello")) + data(STOP)).rstrip(),
        "text 'Hello'; None",
        HELLO,
    ),
    Case(
        "whole message instead of deltas",
        data(answer({"message": {"role": "assistant", "content": "Hello"}})),
        "AttributeError",
        HELLO,
    ),
    Case(
        "whole message after its deltas",
        data(
            text("Hel"),
            text("lo"),
            answer({"message": {"role": "assistant", "content": "Hello"}}),
        ),
        "AttributeError",
        HELLO,
    ),
    Case(
        "finish reason on every chunk",
        data(text("Hel", "stop"), text("lo", "stop"), "[DONE]"),
        "text 'Hello', but 'Hel' in content.done; stop",
        HELLO,
    ),
    Case(
        "tool call without an index, with a new id in each piece",
        data(
            ROLE,
            call(id="c1", type="function", name="f"),
            call(id="c2", arguments='{"a"'),
            call(id="c3", arguments=":1}"),
            CALLS,
        ),
        "TypeError",
        CALLED,
    ),
    Case(
        "empty object before the real arguments",
        data(
            ROLE,
            call(**OPEN, arguments="{}"),
            call(index=0, arguments='{"a"'),
            call(index=0, arguments=":1}"),
            CALLS,
        ),
        """call f '{}{"a":1}' (1 done); tool_calls""",
        CALLED,
    ),
    Case(
        "whole tool call sent twice",
        data(ROLE, call(**WHOLE), call(**WHOLE), CALLS),
        """call ff '{"a":1}{"a":1}' (1 done); tool_calls""",
        CALLED,
    ),
    Case(
        "empty list for no arguments, as PHP writes it",
        data(ROLE, call(**OPEN, arguments=[]), CALLS),
        "call f [] (1 done); tool_calls",
        "call f '{}' (1 done); tool_calls",
    ),
    Case(
        "id of a tool call is a number",
        data(ROLE, call(**{**WHOLE, "id": 7}), CALLS),
        """call f '{"a":1}' with the id 7 (1 done); tool_calls""",
        """call f '{"a":1}' (1 done); tool_calls""",
    ),
    Case(
        "tool call cut off in its arguments, under the reason tool_calls",
        data(ROLE, call(**OPEN, arguments='{"a"'), CALLS),
        """call f '{"a"' (1 done); tool_calls""",
        """call f '{"a"' (0 done); tool_calls""",
    ),
    Case(
        "tool call cut off by max_tokens",
        data(ROLE, call(**OPEN, arguments='{"a"'), chunk({}, "length")),
        """call f '{"a"' (1 done); length""",
        """call f '{"a"' (0 done); length""",
    ),
    Case(
        "deprecated function_call",
        data(
            chunk({"function_call": {"name": "f", "arguments": '{"a"'}}),
            chunk({"function_call": {"arguments": ":1}"}}),
            chunk({}, "function_call"),
        ),
        "function_call",
        """call f '{"a":1}' (1 done); function_call""",
    ),
    Case(
        "call of a custom tool",
        data(
            chunk(
                {
                    "tool_calls": [
                        {
                            "index": 0,
                            "id": "c1",
                            "type": "custom",
                            "custom": {"name": "f", "input": "ls"},
                        }
                    ]
                }
            ),
            CALLS,
        ),
        "AttributeError",
        "call f 'ls' (1 done); tool_calls",
    ),
    Case(
        "reasoning before the text",
        data(
            chunk({"reasoning_content": "h"}),
            chunk({"reasoning_content": "m"}),
            text("Hello"),
            STOP,
        ),
        "reasoning 'hm' (no event); text 'Hello'; stop",
        "reasoning 'hm'; text 'Hello'; stop",
    ),
    Case(
        "text in content blocks",
        data(
            chunk({"content": [{"type": "text", "text": "Hel"}]}),
            chunk({"content": [{"type": "text", "text": "lo"}]}),
            STOP,
        ),
        "RuntimeError",
        HELLO,
    ),
    Case(
        "thinking in content blocks, then text",
        data(
            chunk(
                {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}
            ),
            text("Hello"),
            STOP,
        ),
        "text [{'type': 'thinking', 'thinking': [{'type': 'text', 'text': 'hm'}]}]; stop",
        "reasoning 'hm'; text 'Hello'; stop",
    ),
    Case(
        "annotations in two chunks",
        data(
            chunk({"content": "Hello", "annotations": [{"url": "a"}]}),
            chunk({"annotations": [{"url": "b"}]}),
            STOP,
        ),
        "RuntimeError",
        HELLO,
    ),
    Case(
        "character cut between two chunks",
        data(text("a\ud83d"), text("\ude00", "stop")),
        r"text 'a\ud83d\ude00'; stop",
        "text 'a😀'; stop",
    ),
    Case(
        "usage inside the choice",
        data(text("Hello"), answer({"delta": {}, "usage": {"total_tokens": 3}})),
        HELLO,
        f"{HELLO}; 3 tokens",
    ),
    Case(
        "usage in a field of the server's own",
        data(text("Hello"), {**STOP, "x_groq": {"usage": {"total_tokens": 3}}}),
        HELLO,
        f"{HELLO}; 3 tokens",
    ),
    Case(
        "counts of tokens in two chunks",
        data(text("Hello"), STOP, USAGE, {**USAGE, "usage": {"prompt_tokens": 1}}),
        HELLO,
        f"{HELLO}; 3 tokens",
    ),
    Case(
        "counts of tokens as floats",
        data(text("Hello"), STOP, {**USAGE, "usage": {"total_tokens": 3.0}}),
        f"{HELLO}; 3.0 tokens",
        f"{HELLO}; 3 tokens",
    ),
    Case(
        "error inside a choice",
        data(text("Hel"), answer({"delta": {}, "error": {"message": "overloaded"}}, "error")),
        "text 'Hel'; error",
        "APIStreamError, keeping text 'Hel'",
    ),
    Case(
        "error without the key error",
        data(text("Hel"), {"code": "InvalidParameter", "message": "too long"}),
        "TypeError",
        "APIStreamError, keeping text 'Hel'",
    ),
    Case(
        "error in the field detail, with status 200",
        data({"detail": "overloaded"}),
        "KeyError",
        "APIStreamError",
    ),
]

HEAD: Final = """\
# Compared with the official SDK

Servers are known to send these streams. The table shows the results of the `chat.stream()` helper
of writer-sdk 3.0.0 and of this library. "Done" counts the `tool_calls.function.arguments.done`
events, which an application waits for before it runs a tool.

`tests/comparison` runs both on every row. The table is generated:
`python tests/comparison/cases.py > docs/compared-with-the-sdk.md`.

| The stream | writer-sdk | anyio-writer |
| --- | --- | --- |
"""


def page() -> str:
    """The page for people."""
    rows = [(case.name, f"`{case.sdk}`", f"`{case.ours}`") for case in CASES]
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    sys.stdout.write(page())
