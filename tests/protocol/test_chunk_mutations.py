"""One field of one chunk retyped, nulled or dropped: an answer or an error of ours, never more."""

import copy
from collections.abc import Iterator
from typing import Any, Final

import pytest

from anyio_writer.errors import APIError
from anyio_writer.testing import tool_call_chunks, writer_chunks
from tests.plugins.thoroughness import sampled
from tests.protocol.driving import Outcome, chunk, frames, run

DROP: Final = object()
VALUES: Final[list[Any]] = [DROP, None, 7, -1.5, "", "odd", [], [7], {}, {"odd": 1}, True, False]

GRAPH: Final = {
    "sources": [{"file_id": "f", "snippet": "s"}],
    "status": "finished",
    "subqueries": [{"query": "q", "answer": "a", "sources": [{"file_id": "g", "snippet": "t"}]}],
    "references": {
        "files": [{"fileId": "f", "score": 0.5, "text": "t", "cite": "c", "page": 1}],
        "web": [{"url": "u", "title": "t", "score": 0.5, "text": "t"}],
    },
}


def rich_chunks() -> list[dict[str, Any]]:
    """A stream with everything the API documents beside text and tools."""
    delta = {
        "role": "assistant",
        "content": "text",
        "refusal": "refusal",
        "reasoning_content": "thought",
        "graph_data": GRAPH,
        "llm_data": {"model": "m", "prompt": "p"},
        "translation_data": {
            "source_language_code": "en",
            "source_text": "s",
            "target_language_code": "de",
        },
        "web_search_data": {"sources": [{"url": "u", "raw_content": "r"}], "search_query": "q"},
    }
    token = {"token": "t", "logprob": -0.5, "bytes": [116], "top_logprobs": [{"token": "t"}]}
    first = chunk(delta, created=1, model="m", system_fingerprint="v1", service_tier="default")
    first["choices"][0]["logprobs"] = {"content": [token], "refusal": [token]}
    usage = {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "prompt_token_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    blocks = chunk({"content": [{"type": "text", "text": "more"}, "!"]})
    return [first, blocks, chunk(reason="stop"), {"id": "c1", "choices": [], "usage": usage}]


STREAMS: Final[dict[str, list[dict[str, Any]]]] = {
    "text": writer_chunks("one two", usage=True, logprobs=True),
    "choices": writer_chunks(["one", "two"]),
    "calls": tool_call_chunks([("f", '{"a": 1}'), ("g", "{}")], pieces=2, text="now", usage=True),
    "rich": rich_chunks(),
}


def paths(value: Any, so_far: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path into a value that leads to something."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (*so_far, key)
        yield from paths(inner, (*so_far, key))


def mutated(chunks: list[dict[str, Any]], path: tuple[Any, ...], value: Any) -> list[Any]:
    chunks = copy.deepcopy(chunks)
    *steps, last = path
    target: Any = chunks
    for step in steps:
        target = target[step]
    if value is DROP:
        del target[last]
    else:
        target[last] = value
    return chunks


def texts(outcome: Outcome) -> list[str | None]:
    return [choice.message.content for choice in outcome.completion.choices]


def calls(outcome: Outcome) -> list[list[tuple[str, str]]]:
    return [
        [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()]
        for choice in outcome.completion.choices
    ]


# What text and calls depend on. Anything else may be wrong without touching them.
TEXT_NEEDS: Final = {"choices", "index", "delta", "content", "type", "text"}
CALLS_NEED: Final = {"choices", "index", "delta", "tool_calls", "id", "function", "name"}
ARGUMENTS: Final = "arguments"


@pytest.mark.parametrize("name", STREAMS)
def test_one_wrong_field(name: str) -> None:
    chunks = STREAMS[name]
    n = 2 if name == "choices" else None
    plain = run(frames(*chunks), n=n)
    assert plain.error is None
    cases = [
        (path, keys, value)
        for path in paths(chunks)
        if (keys := [step for step in path if isinstance(step, str)])  # not a whole chunk
        for value in VALUES
    ]
    assert len(cases) > 300
    for path, keys, value in sampled(cases):
        beside = "message" in keys
        # Any exception that is not the library's own fails here.
        outcome = run(frames(*mutated(chunks, path, value)), n=n)
        context = (path, value, outcome.error)
        if outcome.error is not None:
            assert isinstance(outcome.error, APIError), context
            assert outcome.error.completion in (None, outcome.completion), context
            if keys[-1] not in TEXT_NEEDS:
                for got, whole in zip(texts(outcome), texts(plain), strict=False):
                    assert (whole or "").startswith(got or ""), context
            continue
        if beside or keys[-1] not in TEXT_NEEDS:
            assert texts(outcome) == texts(plain), context
        if beside or keys[-1] not in CALLS_NEED | {ARGUMENTS}:
            assert calls(outcome) == calls(plain), context


@pytest.mark.parametrize("name", STREAMS)
def test_the_deprecated_message_never_matters_beside_a_delta(name: str) -> None:
    plain = run(frames(*STREAMS[name]))
    for value in VALUES:
        chunks = copy.deepcopy(STREAMS[name])
        for each in chunks:
            for choice in each["choices"]:
                choice["message"] = {"content": "wrong"} if value is DROP else value
        outcome = run(frames(*chunks))
        assert outcome.completion == plain.completion
        assert outcome.types() == plain.types()
