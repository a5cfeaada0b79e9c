"""One payload to one chunk: what is read, what is forgiven, what is refused."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_writer.errors import APIError, APIResponseValidationError, APIStreamError
from anyio_writer.protocol import (
    ChatCompletionChunk,
    ChatCompletionStreamState,
    ServerSentEvent,
    TokenDetails,
    parse_chunk,
)
from anyio_writer.protocol.json import error_message, is_deeper_than, parse_json, shorten
from anyio_writer.testing import writer_chunks
from tests.protocol.driving import chunk, frames, run, said


def content_of(payload: bytes) -> object:
    parsed = parse_chunk(payload)
    assert parsed.choices
    delta = parsed.choices[0].delta
    assert delta is not None
    return delta.content


def test_a_chunk_of_the_api() -> None:
    [first, *_, usage] = writer_chunks("Hello", usage=True, logprobs=True)
    parsed = parse_chunk(json.dumps(first).encode())
    assert parsed.id == first["id"]
    assert parsed.object == "chat.completion.chunk"
    assert parsed.created == first["created"]
    assert parsed.model == "palmyra-x5"
    assert parsed.system_fingerprint == "v1"
    assert parsed.choices is not None
    assert parsed.choices[0].delta is not None
    assert parsed.choices[0].delta.role == "assistant"
    parsed = parse_chunk(json.dumps(usage).encode())
    assert parsed.choices == []
    assert parsed.usage is not None
    assert parsed.usage.total_tokens == usage["usage"]["total_tokens"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("prompt_token_details", "prompt_token_details"),
        ("prompt_tokens_details", "prompt_token_details"),
        ("completion_tokens_details", "completion_tokens_details"),
        ("completion_token_details", "completion_tokens_details"),
    ],
)
def test_both_spellings_of_the_token_details(written: str, read: str) -> None:
    parsed = parse_chunk(json.dumps({"usage": {written: {"cached_tokens": 3}}}).encode())
    assert getattr(parsed.usage, read) == TokenDetails(cached_tokens=3)


def test_the_apis_own_spelling_wins() -> None:
    usage = {
        "prompt_token_details": {"cached_tokens": 1},
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3},
        "completion_token_details": {"reasoning_tokens": 4},
    }
    parsed = parse_chunk(json.dumps({"usage": usage}).encode()).usage
    assert parsed is not None
    assert parsed.prompt_token_details == TokenDetails(cached_tokens=1)
    assert parsed.completion_tokens_details == TokenDetails(reasoning_tokens=3)


def test_names_that_differ_between_wire_and_python() -> None:
    graph = {"references": {"files": [{"fileId": "f1", "cite": "c"}], "web": [{"url": "u"}]}}
    parsed = parse_chunk(json.dumps(chunk({"graph_data": graph})).encode())
    assert parsed.choices
    assert parsed.choices[0].delta is not None
    data = parsed.choices[0].delta.graph_data
    assert data is not None
    assert data.references is not None
    assert data.references.files is not None
    assert data.references.files[0].file_id == "f1"
    assert data.references.web is not None
    assert data.references.web[0].url == "u"


# The deprecated ``message``.


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"message": {"content": "m"}}, "m"),
        ({"delta": None, "message": {"content": "m"}}, "m"),
        ({"delta": {}, "message": {"content": "m"}}, "m"),
        ({"delta": {"content": None}, "message": {"content": "m"}}, "m"),
        ({"delta": {"role": "assistant", "content": ""}, "message": {"content": "m"}}, "m"),
        ({"delta": {"graph_data": {}}, "message": {"content": "m"}}, "m"),
        ({"delta": {"reasoning": "d"}, "message": {"content": "m"}}, None),
        ({"delta": {"vendor": "d"}, "message": {"content": "m"}}, None),
        ({"delta": {}, "message": 7}, None),
        ({"delta": {}, "message": {"content": 7}}, None),
        ({"delta": {"content": "d"}, "message": {"content": "all of it"}}, "d"),
        ({"delta": {"content": "d"}, "message": 7}, "d"),
        ({"delta": None, "message": None}, None),
        ({}, None),
    ],
)
def test_message_counts_only_where_the_delta_says_nothing(
    choice: dict[str, Any], expected: str | None
) -> None:
    outcome = run(frames({"choices": [{**choice, "finish_reason": "stop"}]}))
    assert outcome.error is None
    assert outcome.text == expected
    assert outcome.reason == "stop"


def test_a_message_beside_an_empty_delta_counts_only_at_the_end() -> None:
    """Some servers send the whole message so far beside each delta."""
    so_far = {"choices": [{"delta": {"role": "assistant"}, "message": {"content": "a"}}]}
    outcome = run(frames(so_far, chunk({"content": "a"}), chunk(reason="stop")))
    assert outcome.text == "a"
    last = {"choices": [{"delta": {}, "message": {"content": "ab"}, "finish_reason": "stop"}]}
    outcome = run(frames(so_far, chunk({"content": "a"}), chunk({"content": "b"}), last))
    assert outcome.text == "ab"


def test_message_and_delta_side_by_side_in_one_chunk() -> None:
    choices = [
        {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"},
        {"index": 1, "message": {"content": "b"}, "finish_reason": "stop"},
    ]
    outcome = run(frames({"choices": choices}), n=2)
    assert [choice.message.content for choice in outcome.completion.choices] == ["a", "b"]


# What is refused.

REFUSED = [
    b"",
    b"x",
    b"{",
    b'{"choices":[',
    b'{"choices":[]} and more',
    b"[]",
    b"null",
    b'"text"',
    b"12",
    b"\xff",
    b'{"choices":{}}',
    b'{"choices":[null]}',
    b'{"choices":["x"]}',
    b'{"choices":[{"index":0.5,"delta":{}}]}',
    b'{"choices":[{"index":"first","delta":{}}]}',
    b'{"choices":[{"index":true,"delta":{}}]}',
    b'{"choices":[{"delta":"x"}]}',
    b'{"choices":[{"message":"x"}]}',
    b'{"choices":[{"delta":{"content":1}}]}',
    b'{"choices":[{"delta":{"content":{"text":"x"}}}]}',
    b'{"choices":[{"delta":{"content":[1]}}]}',
    b'{"choices":[{"delta":{"refusal":1}}]}',
    b'{"choices":[{"delta":{"tool_calls":"x"}}]}',
    b'{"choices":[{"delta":{"tool_calls":[{"index":"a"}]}}]}',
    b'{"choices":[{"delta":{"tool_calls":[{"function":"f"}]}}]}',
    b'{"choices":[{"delta":{"tool_calls":[{"function":{"name":5}}]}}]}',
    b'{"choices":[{"delta":{},"finish_reason":1}]}',
    # The wrong type comes first, so that the plain decoder never sees the rest.
    b'{"choices":5,"x":"\xff","y":',
    b'{"choices":5,"x":"\\ud83d","y":',
    b'{"model":5,"x":"\xff","y":',
    b'{"model":5,"x":' + b"[" * 100_000,
]


@pytest.mark.parametrize("payload", REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_understood(payload: bytes) -> None:
    with pytest.raises(APIResponseValidationError, match=r"^Not a chunk of a chat") as info:
        parse_chunk(payload)
    assert isinstance(info.value.body, str)
    assert len(info.value.body) < 2200  # shortened
    assert info.value.body.startswith(payload[:5].decode(errors="replace"))


def test_the_error_shows_the_start_of_a_long_payload() -> None:
    with pytest.raises(APIResponseValidationError) as info:
        parse_chunk(b'{"a": ' + b"x" * 9000)
    assert info.value.body == '{"a": ' + "x" * 1894 + "… (9006 bytes)"
    assert info.value.__cause__ is not None
    assert shorten(b"short") == "short"


# What is forgiven: a wrong type where nothing depends on the value.


DISPENSABLE = [
    "id",
    "object",
    "created",
    "model",
    "system_fingerprint",
    "service_tier",
    "tpe",
    "usage",
    "usage.prompt_tokens",
    "usage.completion_tokens_details",
    "usage.completion_tokens_details.reasoning_tokens",
    "choices.0.logprobs",
    "choices.0.logprobs.content",
    "choices.0.logprobs.content.0",
    "choices.0.logprobs.content.0.top_logprobs",
    "choices.0.delta.role",
    "choices.0.delta.reasoning",
    "choices.0.delta.reasoning_content",
    "choices.0.delta.graph_data",
    "choices.0.delta.graph_data.sources",
    "choices.0.delta.graph_data.references.files.0.page",
    "choices.0.delta.llm_data",
    "choices.0.delta.llm_data.prompt",
    "choices.0.delta.translation_data",
    "choices.0.delta.web_search_data",
    "choices.0.delta.tool_calls.0.type",
]


@pytest.mark.parametrize("wrong", [True, -1.5, [[7]], [{"sources": 1, "logprob": []}]])
@pytest.mark.parametrize("path", DISPENSABLE)
def test_an_answer_can_do_without(path: str, wrong: object) -> None:
    call = {"index": 0, "id": "i", "type": "function", "function": {"name": "f"}}
    delta: dict[str, Any] = {"content": "text", "tool_calls": [call]}
    delta["graph_data"] = {"references": {"files": [{"page": 1}]}}
    delta["llm_data"] = {"prompt": "p"}
    data: Any = chunk(delta, "stop", model="m")
    data["usage"] = {"prompt_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 1}}
    data["choices"][0]["logprobs"] = {"content": [{"token": "t", "top_logprobs": []}]}
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    target = data
    for step in steps:
        target = target[step]
    target[last] = wrong
    outcome = run(frames(data))
    assert outcome.error is None
    assert outcome.text == "text"
    assert outcome.reason == "stop"
    assert outcome.calls == [("i", "f", "")]
    if path != "model":
        assert outcome.completion.model == "m"  # only the wrong part is lost


def test_one_wrong_part_costs_no_other() -> None:
    data = chunk(
        {"content": "x", "role": 1, "llm_data": {"model": "m"}, "graph_data": 2},
        model=3,
        created="4",
        service_tier="t",
        usage={"total_tokens": 5},
    )
    outcome = run(frames(data, chunk(reason="stop")))
    message = outcome.completion.choices[0].message
    assert (message.content, message.role, message.graph_data) == ("x", "assistant", None)
    assert message.llm_data is not None
    assert message.llm_data.model == "m"
    assert (outcome.completion.model, outcome.completion.created) == ("", 4)
    assert outcome.completion.service_tier == "t"
    assert outcome.completion.usage is not None


@given(st.text(alphabet='{}[]"\\ax', max_size=40), st.integers(0, 5))
def test_depth_as_counted_character_by_character(text: str, limit: int) -> None:
    deepest = depth = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    assert is_deeper_than(text.encode(), limit) == (deepest > limit)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("key", [b"choices", b"unknown", b"error"])
def test_nesting_is_bounded(opening: bytes, key: bytes) -> None:
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]

    def payload(depth: int) -> bytes:
        inner = opening * (depth - 1) + b"null" + closing * (depth - 1)
        return b'{"choices":[],"x":"' + b"y" * 100 + b'","' + key + b'":' + inner + b"}"

    with pytest.raises(APIResponseValidationError, match="nested more than 16 levels deep"):
        parse_chunk(payload(17), max_depth=16)
    if key != b"choices":
        assert parse_chunk(payload(16), max_depth=16).is_error == (key == b"error")
    with pytest.raises(APIResponseValidationError, match="deep"):
        parse_chunk(payload(100_000))
    # Brackets inside a string are text.
    text = said("[" * 1000 + '"' + "{" * 1000)
    assert content_of(json.dumps(text).encode()) == text["choices"][0]["delta"]["content"]


def test_the_interpreters_own_limit_is_no_other_exception() -> None:
    deep = b'{"model":5,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(APIResponseValidationError, match="nested too deeply"):
        parse_chunk(deep, max_depth=10**9)
    assert parse_json(deep) == deep.decode()


# Text that is not Unicode.


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"a\xffb", "a\ufffdb"),
        (b"\xe2\x82", "\ufffd"),
        (b"\\ud83d", "\ufffd"),
        (b"\\uD83D", "\ufffd"),
        (b"\\ude00", "\ufffd"),
        (b"a\\ud83dbcdefg", "a\ufffdbcdefg"),
        (b"\\ud83d\\ud83d\\ude00", "\ufffd\U0001f600"),
        (b"\\ud83d\\u0041", "\ufffdA"),
        (b"\\ude00\\ud83d", "\ufffd\ufffd"),
        (b"\\ud83d\\n", "\ufffd\n"),
        (b"\\ud83d\\\\", "\ufffd\\"),
        (b"\\ud83d\\\\ude00", "\ufffd\\ude00"),
        (b"\\\\ud83d \\ud83d", "\\ud83d \ufffd"),
        (b"\\ud83d\xff", "\ufffd\ufffd"),
        (b"\\ud83d\\ude00", "\U0001f600"),
        (b"\\u0000", "\0"),
    ],
)
@pytest.mark.parametrize("head", [b"", b'"model":5,'], ids=["plain", "the slow way"])
def test_what_is_not_unicode_is_read_as_u_fffd(head: bytes, written: bytes, read: str) -> None:
    payload = b"{" + head + b'"choices":[{"delta":{"content":"' + written + b'"}}]}'
    assert content_of(payload) == read
    # In a field that nobody reads it does no harm either.
    payload = b"{" + head + b'"unknown":"' + written + b'","choices":[{"delta":{"content":"x"}}]}'
    assert content_of(payload) == "x"


def test_a_surrogate_pair_split_over_two_chunks() -> None:
    body = b'data: {"choices":[{"delta":{"content":"a\\ud83d"}}]}\n\n'
    body += b'data: {"choices":[{"delta":{"content":"\\ude00b"},"finish_reason":"stop"}]}\n\n'
    outcome = run(body)
    assert outcome.error is None
    assert outcome.text == "a\U0001f600b"


@given(st.text(alphabet='\\ud83Dec0"n/', max_size=24))
def test_escapes_are_read_as_python_reads_them(text: str) -> None:
    payload = '{"choices":[{"delta":{"content":"' + text + '"}}]}'
    try:
        expected = json.loads(payload)["choices"][0]["delta"]["content"]
    except ValueError:
        with pytest.raises(APIResponseValidationError):
            parse_chunk(payload.encode())
    else:
        shown = ("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in expected)
        assert content_of(payload.encode()) == "".join(shown)


# Errors inside the stream.


@pytest.mark.parametrize("event", ["error", "message"])
def test_an_error_nested_without_end_is_shown_as_text(event: str) -> None:
    depth = 900
    payload = '{"error":' * depth + '"no"' + "}" * depth
    assert parse_json(payload.encode()) == payload
    state = ChatCompletionStreamState[Any]()
    with pytest.raises(APIError) as info:
        state._state.feed([ServerSentEvent(payload.encode(), event)], [])
    assert payload[:40] in str(info.value.body)
    assert repr(info.value)


ERRORS = [
    ('{"error":{"message":"no","code":502}}', "no"),
    (
        '{"error":{"message":"no"},"choices":[{"delta":{"content":""},"finish_reason":"error"}]}',
        "no",
    ),
    ('{"error":"no"}', "no"),
    ('{"error":"no","error_type":"overloaded"}', "no"),
    ('{"object":"error","message":"no","code":400}', "no"),
    ('{"error":{"object":"error","message":"no","code":400}}', "no"),
    ('{"tpe":"CompletionModelInternalError","errors":[{"description":"no","key":"k"}]}', "no"),
    ('{"tpe":"TooManyRequests","errors":[{"description":"no","extras":null}],"extras":null}', "no"),
    # Whatever else is wrong with it.
    ('{"error":{"message":"no"},"choices":7}', "no"),
    ('{"error":{"message":"no"},"choices":null,"model":7}', "no"),
    ('{"error":{"message":"n\\ud83d"},"choices":7}', "n\ufffd"),
    ('{"error":5}', "5"),
    ('{"error":[]}', "{'error': []}"),
]


@pytest.mark.parametrize(("payload", "words"), ERRORS)
def test_an_error_inside_the_stream(payload: str, words: str) -> None:
    outcome = run(frames(said("good"), payload, said("bad")))
    assert type(outcome.error) is APIStreamError
    assert str(outcome.error) == f"The server reported an error inside the stream: {words}"
    assert outcome.error.completion == outcome.completion
    assert outcome.text == "good"
    assert outcome.types() == ["chunk", "content.delta"]
    assert outcome.error.body == json.loads(payload.replace("\\ud83d", "\\ufffd"))


@pytest.mark.parametrize(
    "payload",
    [
        {"error": None, **said("x")},
        {"tpe": "x", **said("x")},
        {"errors": ["y"], **said("x")},
        {"tpe": "x", "errors": None, **said("x")},
        {**said("x"), "object": "chat.completion"},
    ],
)
def test_what_is_no_error(payload: dict[str, Any]) -> None:
    assert not parse_chunk(json.dumps(payload).encode()).is_error
    outcome = run(frames(payload, chunk(reason="stop")))
    assert outcome.error is None
    assert outcome.text == "x"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"message": "m"}, "m"),
        ({"error": {"message": "m"}, "message": "other"}, "m"),
        ({"errors": [{"description": "d", "key": "k"}]}, "d"),
        ({"detail": [{"msg": "x"}]}, "{'msg': 'x'}"),
        ({"details": "d"}, "d"),
        ({"code": 1}, "{'code': 1}"),
        ([], "[]"),
        ("text", "text"),
        (None, "None"),
    ],
)
def test_the_sentence_in_an_error(body: object, expected: str) -> None:
    assert error_message(body) == expected


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"a":1}', {"a": 1}),
        (b"no json", "no json"),
        (b"\xff", "\ufffd"),
        (b'"\xff"', "\ufffd"),
        (b'"\\ud83d"', "\ufffd"),
        (b'{"a":"\\ud83d"', '{"a":"\\ud83d"'),
        (b"", ""),
    ],
)
def test_the_body_of_an_error_is_read_if_it_can_be(payload: bytes, expected: object) -> None:
    assert parse_json(payload) == expected


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\ud8n0 ', max_size=40).map(str.encode))
def test_bytes_are_a_chunk_or_an_error_of_ours(payload: bytes) -> None:
    state = ChatCompletionStreamState[Any]()
    for event in ("message", "other", "error"):
        try:
            state._state.feed([ServerSentEvent(payload, event)], [])
        except APIError as exc:
            assert exc.completion is None
    try:
        assert isinstance(parse_chunk(payload), ChatCompletionChunk)
    except APIResponseValidationError as exc:
        assert exc.body is not None
    parse_json(payload)


def test_chunks_are_immutable_and_leave_out_what_is_not_there() -> None:
    parsed = parse_chunk(b'{"id":"a","unknown":1,"choices":[]}')
    assert msgspec.json.encode(parsed) == b'{"id":"a","choices":[]}'
    with pytest.raises(AttributeError):
        parsed.id = "b"  # type: ignore[misc]
