"""Whatever one event holds, the event loop goes on: a ticker beside the stream ticks."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import anyio
import pytest

from anyio_writer import APIError, chat_stream_from
from tests.streaming.helpers import chunk

SIZE: Final = 1024 * 1024
TICK: Final = 0.01  # seconds
LATE: Final = 0.1
"""How late a tick may be for each MiB of one event, in seconds."""
BUSY: Final = 100
"""By how many times ``json.loads`` of as many bytes a tick may be late, on a slow or busy machine.

What is quadratic takes thousands of times as long. Coverage slows down what is Python, three times
or more.
"""


def choices(entry: str) -> Callable[[], bytes]:
    return filled('{"choices":[%s]}', entry)


def deltas(entry: str, field: str = "tool_calls") -> Callable[[], bytes]:
    around = '{"choices":[{"index":0,"delta":{"FIELD":[%s]}}]}'
    return filled(around.replace("FIELD", field), entry)


def filled(around: str, entry: str, separator: str = ",") -> Callable[[], bytes]:
    """An event of ``SIZE``: a template with so many numbered entries."""

    def make() -> bytes:
        size = len(entry) + len(separator) + 2
        entries = (entry.replace("#", str(number)) for number in range(SIZE // size))
        return event(around % separator.join(entries))

    return make


def event(data: str) -> bytes:
    return b"data: " + data.encode() + b"\n\n"


def deep() -> bytes:
    return event('{"choices":[],"x":' + "[" * (SIZE // 2) + "]" * (SIZE // 2) + "}")


def wide() -> bytes:
    return event(json.dumps({f"k{number}": 1 for number in range(SIZE // 12)}))


def one_text() -> bytes:
    return chunk("x" * SIZE)


def escaped_text() -> bytes:
    return event('{"choices":[{"index":0,"delta":{"content":"%s"}}]}' % ("\\ud83d" * (SIZE // 6)))


def cut_off() -> bytes:
    return b'data: {"choices":[' + b"[1,{}]," * (SIZE // 7)


SHAPES: Final[dict[str, Callable[[], bytes]]] = {
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


def seconds_of_json(data: bytes) -> float:
    """How long the standard library takes for as many bytes of plain JSON."""
    text = json.dumps([{"index": 0, "delta": {}}] * (len(data) // 26))
    started = time.perf_counter()
    json.loads(text)
    return time.perf_counter() - started


async def source(body: bytes) -> AsyncIterator[bytes]:
    yield chunk("a")
    for start in range(0, len(body), 16_384):
        yield body[start : start + 16_384]
        await anyio.lowlevel.checkpoint()
    yield chunk("b", "stop")


async def lateness(body: bytes) -> float:
    """By how many seconds the latest tick beside this body was late."""
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            due = anyio.current_time() + TICK
            await anyio.sleep(TICK)
            worst = max(worst, anyio.current_time() - due)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        try:
            async with chat_stream_from(source(body)) as stream:
                async for _ in stream:
                    pass
        except APIError:
            pass  # to refuse it is as good, if it is quick
        await anyio.sleep(2 * TICK)  # the tick that was due meanwhile
        tasks.cancel_scope.cancel()
    return worst


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_ticker_ticks_beside_a_hostile_event(shape: str) -> None:
    body = SHAPES[shape]()
    assert SIZE / 2 < len(body) < 2 * SIZE
    gc.collect()
    gc.disable()  # Python's own collections are not what is measured here
    try:
        late = await lateness(body)
        allowed = max(LATE * len(body) / SIZE, BUSY * seconds_of_json(body))
        if late > allowed:  # perhaps the machine did something else
            late = await lateness(body)
    finally:
        gc.enable()
    assert late <= allowed
