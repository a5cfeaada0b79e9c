"""Hostile events of a MiB: each takes more work for its bytes than what models send."""

import json
import sys
import time
from collections.abc import Callable
from typing import Final

Shape = Callable[[], bytes]
SIZE: Final = 1024 * 1024
SECONDS: Final = 0.1
"""The CPU time that an event of ``SIZE`` may take."""
SLOW: Final = 25
"""By how many times ``json.loads`` of as many bytes it may be, where that is more: on a slow
machine. What is quadratic takes thousands of times as long.
"""
TRACED: Final = 5
"""By how many times longer each line of Python takes while coverage traces it."""


def allowed_seconds(size: int) -> float:
    """The CPU time that an event of so many bytes may take, on this machine, as it is now."""
    text = json.dumps([{"index": 0, "delta": {}}] * (size // 26))
    started = time.process_time()
    json.loads(text)
    seconds = max(SECONDS * size / SIZE, SLOW * (time.process_time() - started))
    return seconds * TRACED if sys.gettrace() else seconds


def choices(entry: str) -> Shape:
    return filled('{"choices":[%s]}', entry)


def deltas(entry: str, field: str = "tool_calls") -> Shape:
    around = '{"choices":[{"index":0,"delta":{"FIELD":[%s]}}]}'
    return filled(around.replace("FIELD", field), entry)


def filled(around: str, entry: str, separator: str = ",") -> Shape:
    """An event of ``SIZE``: a template with so many numbered entries."""

    def make() -> bytes:
        size = len(entry) + len(separator) + 2
        entries = (entry.replace("#", str(number)) for number in range(SIZE // size))
        return event(around % separator.join(entries))

    return make


def event(data: str) -> bytes:
    return b"data: " + data.encode() + b"\n\n"


def delta(fields: str) -> bytes:
    return event('{"choices":[{"index":0,"delta":{' + fields + "}}]}")


def text(written: str) -> Shape:
    """A text that is a piece of JSON again and again."""
    return lambda: delta('"content":"%s"' % (written * (SIZE // len(written))))


def arguments(written: str) -> Shape:
    around = '"tool_calls":[{"index":0,"function":{"name":"f","arguments":"%s"}}]'
    return lambda: delta(around % (written * (SIZE // len(written))))


def fields(entry: str) -> Shape:
    return filled('{"choices":[{"index":0,"delta":{%s}}]}', entry)


def nested(opening: str, closing: str, *, depth: int = 400) -> str:
    return opening * depth + "1" + closing * depth


def deep() -> bytes:
    return event('{"choices":[],"x":' + "[" * (SIZE // 2) + "]" * (SIZE // 2) + "}")


def wide() -> bytes:
    return event(json.dumps({f"k{number}": 1 for number in range(SIZE // 12)}))


def one_text() -> bytes:
    return delta('"content":"%s"' % ("x" * SIZE))


def escaped_text() -> bytes:
    return event('{"choices":[{"index":0,"delta":{"content":"%s"}}]}' % ("\\ud83d" * (SIZE // 6)))


def cut_off() -> bytes:
    return b'data: {"choices":[' + b"[1,{}]," * (SIZE // 7)


SHAPES: Final[dict[str, Shape]] = {
    "choices": choices('{"index":#,"delta":{}}'),
    "choices with text": choices('{"index":#,"delta":{"content":"a"},"finish_reason":"stop"}'),
    "choices of one index": choices('{"index":0,"delta":{"content":"a"}}'),
    "odd logprobs": choices('{"index":0,"delta":{},"logprobs":1}'),
    "odd roles": choices('{"index":#,"delta":{"role":1}}'),
    "odd choices": choices("[[[]]]"),
    "numbers": choices("1"),
    "calls": deltas('{"index":#,"id":"a#","function":{"name":"f","arguments":"{}"}}'),
    "calls of one index": deltas('{"index":0,"id":"a#"}'),
    "calls of one id": deltas('{"index":#,"id":"a"}'),
    "calls without index": deltas('{"id":"a#","function":{"name":"f"}}'),
    "arguments in pieces": deltas('{"index":0,"function":{"arguments":"{}"}}'),
    "odd calls": deltas('{"type":1}'),
    "content blocks": deltas('{"type":"text","text":"a"}', "content"),
    "thinking": deltas('{"type":"thinking","thinking":[{"text":"x"}]}', "content"),
    "unknown": deltas('{"a#":NaN}', "vendor"),
    "log probabilities": filled(
        '{"choices":[{"index":0,"delta":{},"logprobs":{"content":[%s]}}]}',
        '{"token":"a","logprob":-1,"bytes":null,"top_logprobs":[]}',
    ),
    "usage": filled('{"choices":[],"usage":{%s}}', '"a#":"b"'),
    "an error": filled('{"error":{"message":[%s]}}', '{"a":#}'),
    "data lines": filled('{"choices":[]%s}', " ", "\ndata: "),
    "empty data lines": filled("%s", "", "\ndata:"),
    "comments": filled("{}%s", "", "\n:"),
    "blank lines": filled("{}\n\n%s", "", "\n\n"),
    "carriage returns": filled("{}%s", "", "\r:\r"),
    "deep": deep,
    "wide": wide,
    "one text": one_text,
    "escapes": escaped_text,
    "cut off": cut_off,
}

MORE_SHAPES: Final[dict[str, Shape]] = {
    "high halves": text("a\\ud83d"),
    "low halves": text("\\ude00"),
    "pairs": text("\\ud83d\\ude00"),
    "other escapes": text("\\n\\u0041"),
    "bytes that are no UTF-8": lambda: one_text().replace(b"xx", b"\xffx"),
    "halves as bytes": lambda: one_text().replace(b"xxx", b"\xed\xa0\xbd"),
    "halves in keys": filled('{"choices":[],%s}', '"\\ud83d#":1'),
    "halves in calls": deltas('{"index":0,"function":{"arguments":"\\ud83d"}}'),
    "halves in choices": choices('{"index":0,"delta":{"content":"\\ud83d"}}'),
    "halves in an error": filled('{"error":{"message":"%s"}}', "\\ud83d", ""),
    "large exponents": deltas("3e298", "vendor"),
    "large exponents in logprobs": filled(
        '{"choices":[{"index":0,"delta":{},"logprobs":{"content":[%s]}}]}', '{"logprob":3e298}'
    ),
    "large exponents in an error": filled('{"error":[%s]}', "3e298"),
    "large exponents in references": filled(
        '{"choices":[{"delta":{"graph_data":{"references":{"files":[%s]}}}}]}', '{"score":3e298}'
    ),
    "small exponents": deltas("7.7e-308", "vendor"),
    "many digits": deltas("1." + "3" * 700 + "e-300", "vendor"),
    "large numbers": deltas("1" * 4000, "vendor"),
    "numbers too large": deltas("1" * 5000, "vendor"),
    "one number": lambda: event('{"choices":[],"created":%s}' % ("1" * SIZE)),
    "large indices": choices('{"index":%s}' % ("1" * 4000)),
    "small numbers": deltas("1", "vendor"),
    "not numbers": deltas("NaN", "vendor"),
    "unknown fields": fields('"a#":1'),
    "long keys": fields('"%s#":1' % ("k" * 500)),
    "the same key": filled("{%s}", '"choices":[{"delta":{}}]'),
    "the same content": fields('"content":"a"'),
    "wide and not strict": filled('{"x":NaN,"choices":[],%s}', '"a#":1'),
    "deep objects": filled('{"choices":[],"x":[%s]}', nested('{"a":', "}")),
    "deep unknown objects": deltas(nested('{"a":', "}"), "vendor"),
    "deep reasoning": deltas(nested('{"text":', "}"), "reasoning"),
    "brackets in a text": filled('{"choices":[],"x":[%s]}', '"[\\"["'),
    "calls of many names": deltas('{"function":{"name":"f#"}}'),
    "calls with objects": deltas('{"index":#,"function":{"name":"f","arguments":{}}}'),
    "calls with numbers": deltas('{"index":"#","id":#}'),
    "custom calls": deltas('{"index":#,"custom":{"name":"f","input":"a"}}'),
    "empty calls": deltas("{}"),
    "one call's object": filled(
        '{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":{%s}}}]}}]}', '"a#":1'
    ),
    "brackets in arguments": arguments("[]"),
    "deep arguments": arguments("["),
    "quotes in arguments": arguments('\\"'),
    "backslashes in arguments": arguments("\\\\"),
    "escaped quotes in an open string": arguments('\\\\\\"'),
    "counts of the wrong type": filled(
        '{"choices":[],"usage":{"prompt_tokens":"x",%s}}', '"a#":[]'
    ),
    "details of the wrong type": filled(
        '{"choices":[],"usage":{"total_tokens":1,"prompt_tokens_details":[%s]}}', '{"a#":1}'
    ),
    "usage in choices": choices('{"usage":{"total_tokens":#}}'),
    "logprobs of the wrong type": choices('{"index":0,"delta":{},"logprobs":[]}'),
    "one token of the wrong type": filled(
        '{"choices":[{"delta":{},"logprobs":{"content":[%s,1]}}]}', '{"token":"a"}'
    ),
    "arrays for deltas": choices('{"delta":[]}'),
    "arrays for choices": choices("[]"),
    "empty choices": choices("{}"),
    "messages": choices('{"message":{"content":"a"}}'),
    "sources of the wrong type": filled(
        '{"choices":[{"delta":{"graph_data":{"sources":[%s]}}}]}', "1"
    ),
    "mixed blocks": deltas(
        '{"type":"text","text":"a"},"b",{"type":"thinking","thinking":"x"},{"type":"image"}',
        "content",
    ),
    "empty blocks": deltas("{}", "content"),
    "nested thinking": deltas(
        '{"type":"thinking","thinking":[{"summary":[{"content":["x"]}]}]}', "content"
    ),
    "reasoning blocks": deltas('{"type":"a","text":"b"}', "reasoning_details"),
    "error texts": filled('{"error":{"message":"%s"}}', "x", ""),
    "many texts": filled('{"choices":[],"x":[%s]}', '""'),
    "unknown lines": lambda: b"a\n" * (SIZE // 2),
    "ids": lambda: b"id:1\n" * (SIZE // 5),
    "an array": filled("[%s]", "1"),
}
