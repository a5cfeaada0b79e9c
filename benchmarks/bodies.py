"""The bytes that every client gets: chunks as Writer sends them, framed once."""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import cycle, islice
from typing import Any, Final, NamedTuple

from anyio_writer.testing import sse_event, tool_call_chunks, writer_chunks

HEAD: Final = (
    b"HTTP/1.1 200 OK\r\n"
    b"content-type: text/event-stream\r\n"
    b"transfer-encoding: chunked\r\n"
    b"x-request-id: benchmark\r\n\r\n"
)
END: Final = b"0\r\n\r\n"
STAMP: Final = b"0" * 19
"""Where the server puts its clock, in nanoseconds, when it writes a stamped chunk."""
FIRST: Final = 2
"""How many chunks a stream that is not fast starts with: one that is empty, one token."""
FEWEST: Final = 3
"""The chunks of the shortest stream: one that is empty, one token, the finish reason."""
HEAD_START: Final = 0.1
"""Seconds between the opening of the last of many streams and the chunks behind the first token."""

_WORDS: Final = (
    "The",
    "sky",
    "looks",
    "blue",
    "since",
    "air",
    "scatters",
    "short",
    "waves",
    "more",
)
_PIECE: Final = 6  # characters of JSON in one chunk
_STEP: Final = '{"title":"look","text":"The sky looks blue","minutes":5}'


def _text(count: int) -> str:
    return " ".join(islice(cycle(_WORDS), count))


def _arguments(count: int) -> str:
    filler = _text(count * 2)[: count * _PIECE - len('{"text":""}')]
    return json.dumps({"text": filler}, separators=(",", ":"))


def json_answer(pieces: int) -> tuple[str, int]:
    """An answer of the type ``Answer`` in clients.py, and how much of it goes into one chunk.

    Its length is exactly that of the pieces, each as short as in a tool call if possible.
    """
    shortest = len('{"steps":[],"note":""}')
    size = max(_PIECE, -(-shortest // pieces))
    room = pieces * size - shortest
    steps = ",".join([_STEP] * (room // (len(_STEP) + 1)))
    note = _text(pieces * size)[: room - len(steps)]
    return f'{{"steps":[{steps}],"note":"{note}"}}', size


def _json(count: int) -> list[Any]:
    text, size = json_answer(count)
    return writer_chunks(text, token_pattern=f".{{{size}}}")


def _tool_call(count: int) -> list[Any]:
    """Without the nulls that Writer sends for a call's id, type and name: the SDKs fail on them."""
    chunks = tool_call_chunks([("note", _arguments(count))], pieces=count)
    for chunk in chunks:
        for part in ("delta", "message"):
            calls = chunk["choices"][0][part]["tool_calls"] or ()
            for call in calls:
                call["function"] = _said(call["function"])
            chunk["choices"][0][part]["tool_calls"] = [_said(call) for call in calls] or None
    return chunks


def _said(value: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in value.items() if each is not None}


_SHAPES: Final = {
    "text": lambda count: writer_chunks(_text(count)),
    "logprobs": lambda count: writer_chunks(_text(count), logprobs=True),
    "tool call": _tool_call,
    "json": _json,
    "stamped": lambda count: writer_chunks(STAMP.decode() * count, token_pattern=r"\d{19}"),
}


class Plan(NamedTuple):
    """What the server shall do. Travels as the request's model, which every client can set."""

    shape: str = "text"
    chunks: int = FEWEST
    rate: float = 0.0
    """Chunks per second; 0 is as fast as possible."""
    streams: int = 1
    """Streams with a rate go on behind their first token when so many of them are open."""
    run: int = 0
    """Tells apart what waits for each other."""

    def model(self) -> str:
        """The plan as the name of a model."""
        return json.dumps(self)


def plan_of(model: str) -> Plan:
    return Plan(*json.loads(model))


@lru_cache(maxsize=16)  # the longest ones take 100 MB and more
def payloads(shape: str, chunks: int) -> list[bytes]:
    """The server-sent events of a stream."""
    made = [sse_event(chunk) for chunk in _SHAPES[shape](chunks - 2)]
    assert len(made) == chunks
    return made


def framed(payload: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


class Amounts(NamedTuple):
    """What a client has got of a stream at its first token, at its last one, and at its end."""

    first: int
    last: int
    total: int


def amounts(plan: Plan, unit: str) -> Amounts:
    """In pieces of the answer, in bytes of the body, or in bytes on the wire."""
    if unit == "pieces":
        return Amounts(1, plan.chunks - 2, plan.chunks - 2)
    events = payloads(plan.shape, plan.chunks)
    sizes, head, end = [len(each) for each in events], 0, 0
    if unit == "wire":
        sizes = [len(framed(each)) for each in events]
        head, end = len(HEAD), len(END)
    return Amounts(head + sum(sizes[:FIRST]), head + sum(sizes[:-1]), head + sum(sizes) + end)
