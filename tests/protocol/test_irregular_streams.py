"""Irregular streams that real servers send, and what must come of them."""

import json
from typing import Any

import msgspec
import pytest

from anyio_writer.errors import (
    APIStreamError,
    ContentParseError,
    LengthFinishReasonError,
    StreamTruncatedError,
)
from anyio_writer.protocol import ChatCompletionStreamState, TokenDetails, Usage
from anyio_writer.structured.response_format import ResponseType
from tests.protocol.driving import Outcome, called, chunk, frames, piece, run, said

STOP = chunk(reason="stop")
CALLS = chunk(reason="tool_calls")


def arguments(*payloads: object) -> list[str]:
    outcome = run(frames(*payloads))
    assert outcome.error is None
    deltas = [event for event in outcome.events if event.type.endswith("arguments.delta")]
    for call in outcome.completion.choices[0].message.tool_calls or ():
        added = [event.arguments_delta for event in deltas if event.index == call.index]  # type: ignore[union-attr]
        assert "".join(added) == call.function.arguments
    assert sorted(outcome.done_calls) == sorted(outcome.calls)
    return [call[2] for call in outcome.calls]


# A whole message.


@pytest.mark.parametrize(
    ("delta", "message"),
    [
        ({"content": "Hello"}, {"content": "Hello"}),
        ({"reasoning_content": "hm", "content": "x"}, {"reasoning_content": "hm", "content": "x"}),
        ({"content": "x"}, {"content": "x", "reasoning_content": "new"}),
        ({"refusal": "no"}, {"refusal": "no"}),
        (
            {"tool_calls": [piece(0, id="i", name="f", arguments="[1]")]},
            {"tool_calls": [piece(id="i", name="f", arguments="[1]")]},
        ),
        ({"tool_calls": [piece(0, id="i", name="f")]}, {"tool_calls": [piece(id="j", name="g")]}),
    ],
)
def test_a_whole_message_does_not_count_behind_deltas(
    delta: dict[str, Any], message: dict[str, Any]
) -> None:
    final = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    outcome = run(frames(chunk(delta), final))
    alone = run(frames(chunk(delta), STOP))
    assert outcome.error is None
    assert outcome.completion.choices == alone.completion.choices
    assert outcome.types() == alone.types()


def test_a_whole_message_counts_for_a_choice_without_deltas() -> None:
    message = {"role": "assistant", "content": "b", "reasoning": "r"}
    final = {
        "choices": [
            {"index": 0, "message": {"content": "again"}, "finish_reason": "stop"},
            {"index": 1, "message": message, "finish_reason": "stop"},
        ]
    }
    outcome = run(frames(said("a"), chunk({"role": "assistant"}, index=1), final), n=2)
    first, second = outcome.completion.choices
    assert (first.message.content, second.message.content) == ("a", "b")
    assert second.message.reasoning_content == "r"


# A finish reason on every chunk.


def test_done_events_come_when_a_stream_with_reasons_everywhere_is_over() -> None:
    outcome = run(frames(*[chunk({"content": text}, "stop") for text in "abc"], "[DONE]"))
    assert outcome.error is None
    done = [event for event in outcome.events if event.type == "content.done"]
    assert [event.content for event in done] == ["abc"]  # type: ignore[union-attr]
    assert outcome.types()[-1] == "content.done"


def test_the_last_of_many_reasons_counts() -> None:
    outcome = run(frames(chunk({"content": "a"}, "stop"), chunk({"content": "b"}, "length")))
    assert outcome.reason == "length"
    outcome = run(frames(said("a"), STOP, chunk(reason="length")))
    assert outcome.reason == "stop"


@pytest.mark.parametrize("placeholder", ["{}", {}])
@pytest.mark.parametrize("reason", ["stop", "tool_calls", "STOP"])
def test_an_empty_object_and_a_reason_before_the_arguments(
    placeholder: object, reason: str
) -> None:
    opened = piece(0, id="i", name="f", arguments=placeholder)
    rest = piece(0, arguments='{"a": 1}')
    payloads = [called(opened, reason=reason), called(rest, reason=reason)]
    outcome = run(frames(*payloads, "[DONE]"))
    assert outcome.done_calls == outcome.calls == [("i", "f", '{"a": 1}')]


@pytest.mark.parametrize("placeholder", [None, "", " "])
@pytest.mark.parametrize("reason", ["stop", "tool_calls", "STOP"])
def test_a_reason_before_the_arguments(placeholder: object, reason: str) -> None:
    opened = piece(0, id="i", name="f", arguments=placeholder)
    rest = piece(0, arguments='{"a": 1}')
    for payloads in (
        [called(opened, reason=reason), called(rest, reason=reason)],
        [called(opened), chunk(reason=reason), called(rest)],
        [said("x"), called(opened), chunk(reason=reason), called(rest)],
        [called(opened), chunk(reason=reason), called(rest), chunk(reason=reason)],
    ):
        outcome = run(frames(*payloads, "[DONE]"))
        assert [call[2].strip() for call in outcome.done_calls] == ['{"a": 1}']
        assert len(outcome.calls) == 1


# Usage.


def usage_of(*payloads: object) -> Usage | None:
    return run(frames(said("x"), *payloads, STOP)).completion.usage


FULL = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}


@pytest.mark.parametrize(
    "payload",
    [
        {"choices": [], "usage": FULL},
        chunk({}, usage=FULL),
        {"choices": [{"index": 0, "delta": {}, "usage": FULL}]},
        {"choices": [], "x_groq": {"id": "r", "usage": FULL}},
        {"choices": [{"index": 0, "delta": {}, "usage": FULL}], "usage": None},
        {"choices": [], "usage": {**FULL, "prompt_tokens_details": []}},
        {"choices": [], "usage": {**FULL, "completion_tokens_details": 0, "odd": [1]}},
        {"choices": [], "usage": {name: float(count) for name, count in FULL.items()}},
        {"choices": [], "usage": {name: str(count) for name, count in FULL.items()}},
    ],
)
def test_usage_wherever_it_is(payload: object) -> None:
    usage = usage_of(payload)
    assert usage is not None
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    assert counts == (10, 2, 12)


def test_usage_merges_field_by_field() -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 3}}
    more = {"prompt_tokens_details": {"reasoning_tokens": 4, "cached_tokens": "odd"}}
    parts = [{"prompt_tokens": 10}, {"completion_tokens": 0}, details, more, {"total_tokens": None}]
    usage = usage_of(*[{"choices": [], "usage": part} for part in parts])
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (10, 0, None)
    assert usage.prompt_token_details == TokenDetails(cached_tokens=3, reasoning_tokens=4)
    assert usage_of({"choices": [], "usage": {"prompt_tokens": "odd"}}) is None
    assert usage_of({"choices": [], "usage": {}}) is None


# Tool calls.


def whole(name: str, text: object, **rest: object) -> dict[str, Any]:
    return {"type": "function", "name": name, "arguments": text, **rest}


@pytest.mark.parametrize(
    ("name", "payloads", "expected"),
    [
        (
            "one id for all calls",
            [
                called(
                    piece(0, **whole("f", "[1]", id="c")), piece(1, **whole("g", "[2]", id="c"))
                ),
                called(piece(2, **whole("f", "[3]", id="c"))),
            ],
            ["[1]", "[2]", "[3]"],
        ),
        (
            "one id for all calls, in pieces",
            [
                called(piece(0, id="c", name="f"), piece(1, id="c", name="f")),
                called(piece(0, id="c", arguments="[1"), piece(1, id="c", arguments="[2")),
                called(piece(1, id="c", arguments="]"), piece(0, id="c", arguments="]")),
            ],
            ["[1]", "[2]"],
        ),
        (
            "one id and one index for all calls",
            [
                called(piece(0, **whole(name, f"[{number}]", id="c")))
                for number, name in enumerate("fgg")
            ],
            ["[0]", "[1]", "[2]"],
        ),
        (
            "a new id in each piece",
            [
                called(piece(0, id="x1", name="f", arguments="")),
                called(piece(0, id="x2", arguments="[")),
                called(piece(0, id="x3", arguments="1]")),
                called(piece(1, id="x4", name="f", arguments="")),
                called(piece(1, id="x5", arguments="[2]")),
            ],
            ["[1]", "[2]"],
        ),
        (
            "a new id in each piece, and no index",
            [
                called(piece(id="x1", name="f", arguments="")),
                called(piece(id="x2", arguments="[1")),
                called(piece(id="x3", arguments="]")),
            ],
            ["[1]"],
        ),
        (
            "the whole call once more",
            [called(piece(0, **whole("f", "[1]", id="i"))) for _ in range(3)],
            ["[1]"],
        ),
        (
            "the whole arguments once more, in another spelling",
            [
                called(piece(0, id="i", name="f", arguments='{"a":')),
                called(piece(0, arguments=" [1, 2]}")),
                called(piece(0, id="i", name="f", arguments={"a": [1, 2]})),
            ],
            ['{"a": [1, 2]}'],
        ),
        (
            "an empty object in front of the arguments of two calls",
            [
                called(piece(0, id="i", name="f", arguments={})),
                called(piece(0, arguments="[1"), piece(0, arguments="]")),
                called(piece(1, id="j", name="g", arguments="{}")),
                called(piece(1, arguments="[2]")),
            ],
            ["[1]", "[2]"],
        ),
        (
            "an empty object behind the arguments",
            [called(piece(0, id="i", name="f", arguments="[1]")), called(piece(0, arguments={}))],
            ["[1]"],
        ),
        (
            "an empty object is all",
            [called(piece(0, id="i", name="f", arguments="{}")), called(piece(1, name="g"))],
            ["{}", ""],
        ),
        (
            "a new id and the name in each piece",
            [
                called(piece(0, id="x1", name="f")),
                called(piece(0, id="x2", name="f", arguments="[")),
                called(piece(0, id="x3", name="f", arguments="1]")),
                called(piece(1, id="x4", name="f")),
                called(piece(1, id="x5", name="f", arguments="[2]")),
            ],
            ["[1]", "[2]"],
        ),
        (
            "one index for all calls, and an id of its own for each",
            [
                called(piece(0, **whole("f", "[1]", id="a")), piece(0, **whole("f", {}, id="b"))),
                called(piece(0, **whole("f", {}, id="c")), piece(0, **whole("f", "[2]", id="d"))),
                called(
                    piece(0, **whole("f", "[3]", id="e")), piece(0, **whole("g", "[4]", id="f"))
                ),
            ],
            ["[1]", "{}", "{}", "[2]", "[3]", "[4]"],
        ),
        (
            "an empty object in pieces, and once more",
            [
                called(piece(0, id="i", name="f", arguments="{")),
                called(piece(0, arguments="}")),
                called(piece(0, arguments="{}")),
                called(piece(0, id="i", name="f", arguments={})),
            ],
            ["{}"],
        ),
        (
            "odd types",
            [
                called({"index": "0", "id": 5, "function": {"name": "f", "arguments": []}}),
                called({"index": 1.0, "id": "j", "function": {"name": "g", "arguments": [1]}}),
            ],
            ["{}", "[1]"],
        ),
        (
            "the old function_call",
            [
                chunk({"function_call": {"name": "f", "arguments": ""}}),
                chunk({"function_call": {"arguments": "[1"}}),
                chunk({"function_call": {"arguments": "]"}}),
                chunk({"function_call": None}),
            ],
            ["[1]"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pieces_of_calls(name: str, payloads: list[object], expected: list[str]) -> None:
    assert arguments(*payloads, CALLS) == expected


def test_custom_tool_calls() -> None:
    outcome = run(
        frames(
            called({"index": 0, "id": "i", "type": "custom", "custom": {"name": "run"}}),
            called({"index": 0, "custom": {"input": "if x: ["}}),
            called({"index": 0, "custom": {"input": "if x: ["}}),
            CALLS,
        )
    )
    assert outcome.done_calls == outcome.calls == [("i", "run", "if x: [if x: [")]
    assert (outcome.completion.choices[0].message.tool_calls or [])[0].type == "custom"


def test_a_numeric_id_is_that_text() -> None:
    outcome = run(frames(called(piece(0, id=123, name="f", arguments="[]")), CALLS))
    assert outcome.calls == [("123", "f", "[]")]


# What was cut off.


class Answer(msgspec.Struct):
    a: int


@pytest.mark.parametrize("reason", ["tool_calls", "stop", "end_turn"])
def test_a_call_that_was_cut_off_behind_an_ordinary_reason(reason: str) -> None:
    state = ChatCompletionStreamState[Any]()
    events: list[Any] = []
    state._state.feed_data(
        json.dumps(called(piece(0, id="i", name="f", arguments='{"a'))).encode(), events
    )
    state._state.feed_data(json.dumps(chunk(reason=reason)).encode(), events)
    events += state.finish()
    assert not any(event.type.endswith("arguments.done") for event in events)
    [call] = state._state.cut_off_calls()
    assert (call.name, call.tool_call_snapshot_id, call.arguments) == ("f", "i", '{"a')
    assert state._state.done_calls() == []
    assert state._state.parse_error is None


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("max_tokens", LengthFinishReasonError),
        ("MAX_TOKENS", LengthFinishReasonError),
        ("model_length", LengthFinishReasonError),
        ("error", StreamTruncatedError),
        ("stop", ContentParseError),
    ],
)
def test_json_that_was_cut_off(reason: str, error: type[Exception]) -> None:
    state = ChatCompletionStreamState(response_format=ResponseType(Answer))
    state.handle_chunk(json.dumps(chunk({"content": '{"a":'}, reason)))
    assert state.complete
    assert type(state._state.parse_error) is error
    assert state.current_completion_snapshot.choices[0].finish_reason == reason


# Errors.

ERRORS: list[dict[str, Any]] = [
    {"id": "", "choices": None, "error_type": "BadRequestError", "error_message": "too long"},
    {"code": "InvalidParameter", "message": "too long", "request_id": "r"},
    {"id": "x", "choices": None, "base_resp": {"status_code": 1008, "status_msg": "too long"}},
    {"detail": "too long"},
    {"detail": [{"loc": ["body"], "msg": "too long", "type": "value_error"}]},
    {"message": "too long"},
    {"type": "error", "message": "too long"},
    {"status": 503, "title": "too long"},
    {"success": False, "msg": "too long"},
    {"errors": [{"message": "too long"}]},
    {"error_code": 17, "error_msg": "too long"},
    {"x_groq": {"id": "r", "error": "too long"}},
    chunk({"content": ""}, "error", error=None)
    | {"choices": [{"delta": {"content": "!"}, "error": {"code": 502, "message": "too long"}}]},
    {"choices": [{"delta": {"error": "too long"}, "finish_reason": "error"}]},
    {"choices": [{"message": {"error": {"message": "too long"}}, "finish_reason": "error"}]},
    {"Error": "too long"},
    {"errcode": 1, "errmsg": "too long"},
    {"err_msg": "too long"},
    {"failure": {"message": "too long"}},
    {"code": 500, "Message": "too long"},
    {"ret": -1, "msg": "too long"},
    {"__type": "ThrottlingException", "message": "too long"},
    {"modelStreamErrorException": {"message": "too long"}},
    {"type": "response.failed", "response": {"error": {"message": "too long"}}},
    {"data": {"error": "too long"}},
    {"header": {"code": 10013, "message": "too long", "sid": "s"}},
]


@pytest.mark.parametrize("payload", ERRORS, ids=json.dumps)
@pytest.mark.parametrize("before", [(), (said("x"),)], ids=["alone", "behind text"])
@pytest.mark.parametrize("behind", [(), ("[DONE]",)], ids=["end", "DONE"])
def test_an_error_in_any_shape(
    payload: object, before: tuple[object, ...], behind: tuple[object, ...]
) -> None:
    outcome = run(frames(*before, payload, *behind))
    assert type(outcome.error) is APIStreamError
    assert "too long" in str(outcome.error)
    assert outcome.text == ("x" if before else None)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"choices": []},
        {"id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        {"lastOne": True},
        {"type": "ping"},
        {"code": 0, "message": "success"},
        {"status": "processing", "message": "queued"},
        {"choices": [], "base_resp": {"status_code": 0, "status_msg": ""}},
        {"choices": [], "error": None, "errors": [], "detail": ""},
        {"citations": ["u"]},
        {"errcode": 0, "errmsg": "ok"},
        {"error_code": "0", "error_msg": "Success"},
        {"type": "heartbeat", "message": "keepalive"},
        {"status": "in_queue", "message": "waiting"},
        {"event": "progress", "data": {"message": "searching"}},
        {"event": "progress", "data": {"status": "searching", "message": "two pages"}},
        {"header": {"code": 0, "message": "Success"}},
        {"choices": [], "error": {}},
        {"choices": [{"index": 0, "delta": {}}], "error": {}},
        {"choices": [{"index": 0, "delta": {}}], "error": ""},
        {"choices": [{"index": 0, "delta": {}}], "error": False},
    ],
    ids=json.dumps,
)
def test_what_is_no_error(payload: object) -> None:
    outcome = run(frames(payload, said("x"), payload, STOP, payload))
    assert outcome.error is None
    assert outcome.text == "x"


def test_messages_are_bounded() -> None:
    for payload in (
        {"error": {"message": "no" * 100_000}},
        {"message": "no" * 100_000},
        {"choices": [{"index": "x" * 100_000, "delta": {}}]},
    ):
        outcome = run(frames(payload))
        assert outcome.error is not None
        assert len(str(outcome.error)) <= 2000
        assert len(str(outcome.error.body)) < 300_000


# JSON that Python reads.


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1" * 5000, "1e400"])
@pytest.mark.parametrize(
    "where",
    [
        '"x":%s',
        '"logprobs":{"content":[{"token":"a","logprob":%s,"top_logprobs":[]}]}',
        '"delta_":{"a":[%s]}',
    ],
)
def test_numbers_that_json_does_not_have(value: str, where: str) -> None:
    payload = '{"choices":[{"index":0,"delta":{"content":"a"},' + where % value + "}]}"
    outcome = run(frames(payload, STOP))
    assert outcome.error is None
    assert outcome.text == "a"


SMILE = "\U0001f600"


def escaped(field: str, text: str) -> str:
    return '{"choices":[{"index":0,"delta":{"' + field + '":"' + text + '"}}]}'


@pytest.mark.parametrize("field", ["content", "refusal", "reasoning_content", "reasoning"])
@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["a\\ud83d", "\\ude00b"], f"a{SMILE}b"),
        (["\\ud83d", "\\ude00"], SMILE),
        (["\\ud83d", "", "\\ude00"], SMILE),
        (["\\ud83d", "\\ude00\\ud83d", "\\ude00"], SMILE * 2),
        (["\\ud83d", "x"], "\ufffdx"),
        (["\\ude00", "x"], "\ufffdx"),
        (["x\\ud83d"], "x\ufffd"),
        (["\\ud83d", "\\ud83d\\ude00"], f"\ufffd{SMILE}"),
    ],
)
@pytest.mark.parametrize("end", [STOP, "[DONE]"], ids=["reason", "DONE"])
def test_halves_of_a_pair_in_two_chunks(
    field: str, pieces: list[str], expected: str, end: object
) -> None:
    outcome = run(frames(*[escaped(field, each) for each in pieces], end))
    assert outcome.error is None
    message = outcome.completion.choices[0].message
    name = "reasoning_content" if field.startswith("reasoning") else field
    assert getattr(message, name) == expected
    assert "".join(deltas(outcome)) == expected
    for event in outcome.events:
        event_json = json.dumps(str(event))
        assert "\\ud83d\\ude00" in event_json or "\\ud8" not in event_json


@pytest.mark.parametrize("reason", ["stop", "null", ""])
@pytest.mark.parametrize("before", [(), (said("x"),)], ids=["unproven", "reliable"])
def test_halves_under_a_finish_reason_on_every_chunk(
    before: tuple[object, ...], reason: str
) -> None:
    """They are joined, unless the finish reason has ended the text."""
    pieces = [
        escaped("content", each).replace('"delta"', f'"finish_reason":"{reason}","delta"')
        for each in ("\\ud83d", "\\ude00")
    ]
    outcome = run(frames(*before, *pieces, "[DONE]"))
    assert outcome.error is None
    is_ended = before and reason == "stop"
    begin = "x" if before else ""
    assert outcome.text == begin + ("\ufffd\ufffd" if is_ended else SMILE)
    [done] = [event for event in outcome.events if event.type == "content.done"]
    assert done.content == (f"{begin}\ufffd" if is_ended else outcome.text)  # type: ignore[union-attr]
    outcome = run(frames(*before, pieces[0], "[DONE]"))
    assert outcome.text == f"{begin}\ufffd"
    assert outcome.types()[-1] == "content.done"
    assert "".join(deltas(outcome)) == outcome.text


def deltas(outcome: Outcome) -> list[str]:
    kinds = {"content.delta", "refusal.delta", "reasoning.delta"}
    return [event.delta for event in outcome.events if event.type in kinds]  # type: ignore[union-attr]


def test_halves_in_blocks_of_content() -> None:
    def blocks(*texts: str) -> str:
        written = ",".join(
            f'{{"type":"{kind}","{kind}":"{text}"}}'
            for kind, text in zip(kinds, texts, strict=True)
        )
        return '{"choices":[{"delta":{"content":[' + written + "]}}]}"

    kinds = ("thinking", "text", "text")
    outcome = run(
        frames(
            blocks("\\ud83d", "a\\ud83d", "\\ude00\\ud83d"), blocks("\\ude00", "\\ude00", "b"), STOP
        )
    )
    message = outcome.completion.choices[0].message
    assert (message.reasoning_content, message.content) == (SMILE, f"a{SMILE}{SMILE}b")
    outcome = run(frames(blocks("\\ud83d", "a", "\\ud83d"), STOP))
    message = outcome.completion.choices[0].message
    assert (message.reasoning_content, message.content) == ("\ufffd", "a\ufffd")


def test_halves_in_arguments() -> None:
    first = '{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"i","function":{"name":"f",'
    first += '"arguments":"[\\"\\ud83d"}}]}}]}'
    second = '{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":'
    second += '"\\ude00\\"]"}}]}}]}'
    outcome = run(frames(first, second, CALLS))
    assert outcome.done_calls == [("i", "f", f'["{SMILE}"]')]
