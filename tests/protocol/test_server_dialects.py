"""How servers differ, one row each: what they send, and what must come of it."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from anyio_writer.errors import APIResponseValidationError, APIStreamError, StreamTruncatedError
from tests.protocol.driving import called, chunk, frames, piece, run, said

STOP = chunk(reason="stop")
CALLS = chunk(reason="tool_calls")
DONE = "[DONE]"
USAGE = {"id": "", "choices": [], "usage": {"total_tokens": 3}}
MESSAGE = {"error": {"message": "no"}}


@dataclass
class Row:
    """One server's habit."""

    name: str
    payloads: tuple[object, ...]
    text: str | None = None
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    reason: str | None = "stop"
    error: type[Exception] | None = None
    raw: bool = False  # the payloads are the body as it is

    @property
    def body(self) -> bytes:
        if self.raw:
            return "".join(map(str, self.payloads)).encode()
        return frames(*self.payloads)


def raw(name: str, *parts: str, **expected: Any) -> Row:
    return Row(name, parts, raw=True, **expected)


def data(payload: object) -> str:
    return frames(payload).decode()


TRUNCATED: dict[str, Any] = {"reason": None, "error": StreamTruncatedError}
FAILED: dict[str, Any] = {"reason": None, "error": APIStreamError}
F = ("i1", "f", '{"a": 1}')
G = ("i2", "g", '{"b": 2}')
WHOLE_F = {"id": "i1", "type": "function", "name": "f", "arguments": '{"a": 1}'}
WHOLE_G = {"id": "i2", "type": "function", "name": "g", "arguments": '{"b": 2}'}

ROWS = [
    # Writer.
    Row(
        "writer: null first arguments, nulls afterwards, the reason with the last piece",
        (
            chunk({"role": "assistant", "content": "", "graph_data": {"sources": None}}),
            called(piece(0, id="i1", type="function", name="f", arguments=None)),
            said("\n"),
            called(piece(0, id=None, type=None, name=None, arguments='{"a":')),
            called(piece(0, id=None, type=None, name=None, arguments="")),
            called(piece(0, id=None, type=None, name=None, arguments=" 1}"), reason="tool_calls"),
        ),
        text="\n",
        calls=[F],
        reason="tool_calls",
    ),
    Row(
        "writer: built-in tools end with tool_calls and without a call",
        (chunk({"content": "x", "tool_calls": None}, "tool_calls"),),
        text="x",
        reason="tool_calls",
    ),
    Row("writer: no [DONE], usage behind the reason", (said("x"), STOP, USAGE), text="x"),
    Row("writer: empty choices without usage", (said("x"), {"choices": []}, STOP), text="x"),
    # OpenRouter.
    raw(
        "openrouter: comments while waiting",
        ": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n",
        data(said("x")),
        data(STOP),
        data(DONE),
        text="x",
    ),
    Row(
        "openrouter: an error beside a choice",
        (said("x"), {**MESSAGE, **chunk({"content": "!"}, "error")}),
        text="x",
        **FAILED,
    ),
    Row("openrouter: an error beside empty choices", ({**MESSAGE, "choices": []},), **FAILED),
    # Azure.
    Row(
        "azure: filter results first and in between",
        (
            {"id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
            said("x"),
            {"id": "", "choices": [{"index": 0, "content_filter_results": {}}]},
            chunk({"content": "y"}, "content_filter"),
        ),
        text="xy",
        reason="content_filter",
    ),
    # vLLM.
    Row("vllm: an error, then [DONE]", (said("x"), MESSAGE, DONE), text="x", **FAILED),
    Row("vllm: object error", ({"object": "error", "message": "no", "code": 400},), **FAILED),
    Row("vllm: only [DONE]", (DONE,), **TRUNCATED),
    Row("vllm: the last text with the reason", (chunk({"content": "x"}, "stop"),), text="x"),
    Row(
        "vllm: no key for the reason", ({"choices": [{"delta": {"content": "x"}}]}, STOP), text="x"
    ),
    Row(
        "vllm: continued by an empty id, index always 0",
        (
            called(piece(0, id="i1", type="function", name="f")),
            called(piece(0, id="", arguments='{"a":')),
            called(piece(0, id="", arguments=" 1}")),
            called(piece(0, id="i2", type="function", name="g")),
            called(piece(0, id="", arguments='{"b": 2}')),
            CALLS,
        ),
        calls=[F, G],
        reason="tool_calls",
    ),
    Row(
        "vllm: a named tool_choice ends with stop",
        (called(piece(0, **WHOLE_F)), STOP),
        calls=[F],
    ),
    Row(
        "vllm: two pieces of one call in a chunk",
        (
            called(piece(0, id="i1", name="f", arguments='{"a"'), piece(0, arguments=": 1}")),
            CALLS,
        ),
        calls=[F],
        reason="tool_calls",
    ),
    # SGLang.
    Row(
        "sglang: an empty reason is none",
        (chunk({"content": "x"}, ""), chunk({"content": "y"}, ""), STOP),
        text="xy",
    ),
    Row("sglang: cut off behind an empty reason", (chunk({"content": "x"}, ""),), "x", **TRUNCATED),
    Row("sglang: two chunks with a reason", (said("x"), STOP, chunk(reason="length")), text="x"),
    Row(
        "sglang: id and index 0 in every piece",
        (
            called(piece(0, id="i1", name="f", arguments="")),
            called(piece(0, id="i1", arguments='{"a":')),
            called(piece(0, id="i1", arguments=" 1}")),
            called(piece(0, id="i2", name="g", arguments="")),
            called(piece(0, id="i2", arguments='{"b": 2}')),
            CALLS,
        ),
        calls=[F, G],
        reason="tool_calls",
    ),
    Row("sglang: an error object in error", ({"error": {"object": "error"}}, DONE), **FAILED),
    # llama.cpp.
    raw(
        "llama.cpp: an error field", 'error: {"code":500,"message":"no"}\n\n', data(DONE), **FAILED
    ),
    Row("llama.cpp: first content null", (said(None), said("x"), STOP, DONE), text="x"),
    raw(
        "llama.cpp: pings and empty data",
        ": ping\n\n",
        data(said("x")),
        "data:\n\ndata: \n\ndata\n\n",
        data(STOP),
        data(DONE),
        text="x",
    ),
    raw(
        "llama.cpp: [DONE] without its blank line",
        data(said("x")),
        "data: [DONE]",
        text="x",
        reason=None,
    ),
    Row("llama.cpp: timings", (said("x"), chunk(reason="stop", timings={"ms": 1})), text="x"),
    # Ollama.
    Row(
        "ollama: whole calls, index always 0",
        (called(piece(0, **WHOLE_F)), called(piece(0, **WHOLE_G)), STOP, DONE),
        calls=[F, G],
    ),
    Row(
        "ollama: whole calls without an index",
        (called(piece(**WHOLE_F)), called(piece(**WHOLE_G)), STOP, DONE),
        calls=[F, G],
    ),
    Row("ollama: an error becomes an empty chunk", (said("x"), said("")), text="x", **TRUNCATED),
    # LiteLLM.
    Row(
        "litellm: index starts at 1",
        (
            called(piece(1, id="i1", name="f", arguments='{"a":')),
            called(piece(1, arguments=" 1}")),
            called(piece(2, **WHOLE_G)),
            CALLS,
        ),
        calls=[F, G],
        reason="tool_calls",
    ),
    Row(
        "bedrock gateway: index -1",
        (called(piece(-1, id="i1", name="f")), called(piece(-1, arguments='{"a": 1}')), CALLS),
        calls=[F],
        reason="tool_calls",
    ),
    Row("litellm: an empty success", (chunk({"role": "assistant"}),), **TRUNCATED),
    # LM Studio.
    Row("lm studio: an error without a type", ({**MESSAGE, "message": "no"},), **FAILED),
    Row("lm studio: error is a string", ({"error": "Unexpected endpoint"},), **FAILED),
    raw(
        "lm studio: event: error",
        data(said("x")),
        'event: error\ndata: {"error":{"message":"no"}}\n\n',
        text="x",
        **FAILED,
    ),
    # TGI.
    Row(
        "tgi: tool_calls is an object, arguments too",
        (
            chunk({"tool_calls": piece(0, id="i1", name="f", arguments={"a": 1})}),
            chunk(reason="eos_token"),
        ),
        calls=[("i1", "f", '{"a":1}')],
        reason="eos_token",
    ),
    Row(
        "tgi: the id repeated, the name once",
        (
            called(piece(0, id="i1", name="f", arguments='{"a"')),
            called(piece(0, id="i1", name=None, arguments=": 1}")),
            STOP,
            USAGE,
        ),
        calls=[F],
    ),
    Row("tgi: goes on after an error", (said("x"), MESSAGE, said("y"), DONE), text="x", **FAILED),
    Row("tgi: error is a string", ({"error": "no", "error_type": "x"}, DONE), **FAILED),
    # Gemini.
    Row(
        "gemini: no index, empty ids",
        (
            called(piece(id="", name="f", arguments='{"a": 1}')),
            called(piece(id="", name="g", arguments='{"b": 2}')),
            STOP,
        ),
        calls=[("", *F[1:]), ("", *G[1:])],
    ),
    Row(
        "gemini: null ids, the same function twice",
        (
            called(
                piece(id=None, name="f", arguments='{"a": 1}'),
                piece(id=None, name="f", arguments='{"a": 1}'),
            ),
            STOP,
        ),
        calls=[("", *F[1:]), ("", *F[1:])],
    ),
    Row(
        "gemini: nameless pieces without an index",
        (
            called(piece(id="i1", name="f")),
            called(piece(arguments='{"a":')),
            called(piece(arguments=" 1}")),
            called(piece(id="i2", name="g", arguments="")),
            called(piece(arguments='{"b": 2}')),
            STOP,
        ),
        calls=[F, G],
    ),
    Row(
        "gemini: finishReason",
        (said("x"), {"choices": [{"delta": {}, "finishReason": "stop"}]}, DONE),
        text="x",
        reason=None,
    ),
    # Mistral.
    Row(
        "mistral: whole calls, several in a delta",
        (called(piece(0, **WHOLE_F), piece(1, **WHOLE_G)), CALLS, DONE),
        calls=[F, G],
        reason="tool_calls",
    ),
    Row(
        "mistral: content is an array of blocks",
        (
            said([{"type": "text", "text": "x"}, {"type": "reference", "reference_ids": [1]}]),
            said([{"type": "thinking", "thinking": [{"type": "text", "text": "no"}]}]),
            said([{"text": "y"}, "z", {"type": "text", "text": None}, {"type": "text"}]),
            said([]),
            chunk({"role": None}, "model_length"),
        ),
        text="xyz",
        reason="model_length",
    ),
    Row("mistral: reason error", (said("x"), chunk(reason="error")), text="x", reason="error"),
    Row("mistral: a bare first chunk", ({"choices": [{"delta": {"role": "assistant"}}]}, STOP)),
    # DeepSeek, DashScope and others.
    raw("deepseek: keep-alive", ": keep-alive\n\n", data(said("x")), data(STOP), text="x"),
    Row(
        "deepseek: its own reason",
        (said("x"), chunk(reason="insufficient_system_resource")),
        text="x",
        reason="insufficient_system_resource",
    ),
    Row(
        "nim: calls and never a reason",
        (called(piece(0, **WHOLE_F)),),
        calls=[F],
        **TRUNCATED,
    ),
    Row(
        "perplexity: a growing message beside the delta, no [DONE]",
        (
            {"choices": [{"delta": {"content": "x"}, "message": {"content": "x"}}]},
            {"choices": [{"delta": {"content": "y"}, "message": {"content": "xy"}}]},
            {"choices": [{"delta": {}, "message": {"content": "xy"}, "finish_reason": "stop"}]},
        ),
        text="xy",
    ),
    Row(
        "koboldcpp: the reason null as a string",
        (chunk({"content": "x"}, "null"), chunk({"content": "y"}, "stop")),
        text="xy",
    ),
    Row("koboldcpp: cut off behind it", (chunk({"content": "x"}, "null"),), "x", **TRUNCATED),
    Row("openai: obfuscation", (chunk({"content": "x"}, obfuscation="abc"), STOP), text="x"),
    Row("openai: stop with calls", (called(piece(0, **WHOLE_F)), STOP, USAGE), calls=[F]),
    # By kind.
    raw(
        "data without the space",
        data(said("x")).replace(": {", ":{", 1),
        data(STOP).replace("data: ", "data:"),
        text="x",
    ),
    raw("a heartbeat of a comment only", ": heartbeat\n\n", data(said("x")), data(STOP), text="x"),
    Row("a re-wrapped comment", (": keepalive", said("x"), ":", STOP, ": OPENROUTER"), text="x"),
    Row(
        "data that is not JSON",
        (said("x"), "error: text"),
        text="x",
        reason=None,
        error=APIResponseValidationError,
    ),
    raw(
        "event: error with code and details",
        'event: error\ndata: {"code":500,"details":"no"}\n\n',
        **FAILED,
    ),
    raw(
        "event: message",
        f"event: message\n{data(said('x'))}event: message\n{data(STOP)}",
        text="x",
    ),
    raw(
        "another event name around chunks",
        f"event: completion\n{data(said('x'))}event: completion\n{data(STOP)}",
        text="x",
    ),
    raw(
        "other events between",
        'event: ping\ndata: {"type":"ping"}\n\n',
        data(said("x")),
        "event: status\ndata: working\n\nevent: list\ndata: [1]\n\n",
        data(STOP),
        text="x",
    ),
    raw(
        "an error under another event name",
        data(said("x")),
        f"event: failure\n{data(MESSAGE)}",
        text="x",
        **FAILED,
    ),
    Row("no [DONE]; the last frame is marked", (said("x"), STOP, {"lastOne": True}), text="x"),
    Row("[DONE] and no reason", (said("x"), DONE), text="x", reason=None),
    Row("[DONE] with spaces", (said("x"), " [DONE] "), text="x", reason=None),
    Row("nothing counts after [DONE]", (said("x"), STOP, DONE, said("y"), "junk"), text="x"),
    Row("a proxy adds [DONE] to nothing", ({"choices": []}, DONE), **TRUNCATED),
    Row("empty chunks after usage", (said("x"), STOP, USAGE, {"choices": []}, {}), text="x"),
    Row(
        "tool_calls, then stop",
        (called(piece(0, **WHOLE_F)), CALLS, STOP),
        calls=[F],
        reason="tool_calls",
    ),
    Row(
        "id and arguments under different indices",
        (
            called(piece(0, id="i1", name="f")),
            called(piece(1, arguments='{"a":')),
            called(piece(1, arguments=" 1}")),
            CALLS,
        ),
        calls=[F],
        reason="tool_calls",
    ),
    Row(
        "the name repeated in every piece",
        (
            called(piece(0, id="i1", name="f", arguments='{"a":')),
            called(piece(0, id="i1", name="f", arguments=" 1}")),
            called(piece(0, id="i1", name="f", arguments="")),
            CALLS,
        ),
        calls=[F],
        reason="tool_calls",
    ),
    Row(
        "empty name and id do not blank",
        (
            called(piece(0, id="i1", name="f", arguments='{"a":')),
            called(piece(0, id="", name="", arguments=" 1}")),
            CALLS,
        ),
        calls=[F],
        reason="tool_calls",
    ),
    Row(
        "whole arguments, then a new name at the same index",
        (
            called(piece(0, name="f", arguments='{"a": 1}')),
            called(piece(0, name="g", arguments='{"b": 2}')),
            CALLS,
        ),
        calls=[("", *F[1:]), ("", *G[1:])],
        reason="tool_calls",
    ),
    Row(
        "calls without arguments, told apart by their names",
        (called(piece(name="f")), called(piece(name="g", arguments=None)), CALLS),
        calls=[("", "f", ""), ("", "g", "")],
        reason="tool_calls",
    ),
    Row(
        "the id comes late",
        (
            called(piece(0, name="f", arguments='{"a":')),
            called(piece(0, id="i1", arguments=" 1}")),
            called(piece(1, name="g", arguments='{"b": 2}')),
            called(piece(1, id="i2")),
            CALLS,
        ),
        calls=[F, G],
        reason="tool_calls",
    ),
    Row(
        "a piece that is null all over",
        (
            called(piece(0, id="i1", name="f", arguments='{"a":')),
            called({"index": 0, "id": None, "type": None, "function": None}),
            called({}),
            called(piece(0, arguments=" 1}")),
            CALLS,
        ),
        calls=[F],
        reason="tool_calls",
    ),
    Row("choices null", ({"choices": None}, said("x"), {"id": "y"}, STOP), text="x"),
    Row(
        "delta null",
        ({"choices": [{"index": 0, "delta": None}]}, said("x"), STOP),
        text="x",
    ),
    Row("nothing at all", (), **TRUNCATED),
    raw("only comments", ": a\n\n: b\n\n", **TRUNCATED),
    raw("the last block without its blank line", data(said("x")), data(STOP).rstrip(), text="x"),
    raw("the last block cut", data(said("x")), data(STOP)[:-9], text="x", **TRUNCATED),
    raw("a byte order mark", "\ufeff", data(said("x")), data(STOP), text="x"),
    raw("a comment after an id", "id: 1\n\n: c\n\n", data(said("x")), data(STOP), text="x"),
    raw("only a retry", "retry: 1000\n\n", data(said("x")), data(STOP), text="x"),
    Row(
        "line separators in the text",
        (said("a\u2028b\u2029c\x85d\x0b\x0c\x1c\x1d\x1ee"), STOP),
        text="a\u2028b\u2029c\x85d\x0b\x0c\x1c\x1d\x1ee",
    ),
]


@pytest.mark.parametrize("eol", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_dialect(row: Row, eol: str) -> None:
    body = row.body.decode().replace("\n", eol).encode()
    for bodies in ([body], [body[i : i + 1] for i in range(len(body))]):
        outcome = run(*bodies)
        assert type(outcome.error) is (row.error or type(None))
        assert (outcome.text or None) == row.text
        assert outcome.calls == row.calls
        assert outcome.reason == row.reason
        if outcome.error is not None:
            arrived = outcome.completion if outcome.completion.choices else None
            assert outcome.error.completion == arrived
        else:
            # One done event each, whole calls only, in order.
            assert outcome.done_calls == row.calls
            assert outcome.types().count("content.done") == (row.text is not None)


def test_names_of_the_rows_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_extra_content_must_be_sent_back() -> None:
    signature = {"google": {"thought_signature": "s"}}
    outcome = run(
        frames(
            called(piece(id="i1", name="f", arguments="{}", extra_content=signature)),
            called(piece(id="i1", extra_content=None)),
            STOP,
        )
    )
    calls = outcome.completion.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].extra_content == signature
    assert outcome.completion.choices[0].message.to_param()["tool_calls"] == [
        {
            "id": "i1",
            "type": "function",
            "function": {"name": "f", "arguments": "{}"},
            "index": 0,
            "extra_content": signature,
        }
    ]


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_reasoning_in_both_spellings(key: str) -> None:
    outcome = run(frames(chunk({key: "a"}), chunk({key: "b", "content": None}), said("x"), STOP))
    assert outcome.completion.choices[0].message.reasoning_content == "ab"
    assert outcome.text == "x"
    assert "content.delta" in outcome.types()


def test_servers_without_any_reason_need_the_named_way_out() -> None:
    body = frames(said("x"), called(piece(0, **WHOLE_F)))
    assert type(run(body).error) is StreamTruncatedError
    outcome = run(body, require_finish=False)
    assert outcome.error is None
    assert outcome.types()[-2:] == ["content.done", "tool_calls.function.arguments.done"]
    # Nothing is still nothing.
    for empty in (frames(), frames(DONE), frames({"choices": []})):
        assert type(run(empty, require_finish=False).error) is StreamTruncatedError
