"""What goes back in the next request: messages of earlier completions, and their stored JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_writer import (
    InvalidParameterError,
    ParsedChatCompletionMessage,
    ParsedFunction,
    ParsedFunctionToolCall,
    ToolResult,
)
from anyio_writer.protocol.history import arguments_param
from anyio_writer.request.encoding import encode_body
from anyio_writer.request.validation import build_body

USER: dict[str, Any] = {"role": "user", "content": "Hello"}
Message = ParsedChatCompletionMessage[Any]


def sent(*messages: Any) -> list[dict[str, Any]]:
    """The messages that a request with these sends."""
    body = encode_body(build_body({"model": "m", "messages": messages}))
    decoded: list[dict[str, Any]] = json.loads(body)["messages"]
    return decoded


def call(index: int = 0, tool_call_id: str = "", name: str = "f", arguments: str = "{}") -> Any:
    function = ParsedFunction(name=name, arguments=arguments)
    return ParsedFunctionToolCall(index=index, id=tool_call_id, function=function)


def answer(index: int = 0, tool_call_id: str = "", name: str = "f") -> Any:
    return ToolResult(
        index=index, tool_call_id=tool_call_id, name=name, content=str(index)
    ).message()


def ids(messages: list[dict[str, Any]]) -> list[tuple[list[str], list[str]]]:
    """Of each round: the ids of the calls, and of the answers."""
    rounds: list[tuple[list[str], list[str]]] = []
    for message in messages:
        if message["role"] == "assistant":
            rounds.append(([each["id"] for each in message["tool_calls"]], []))
        elif message["role"] == "tool":
            rounds[-1][1].append(message["tool_call_id"])
    return rounds


@pytest.mark.parametrize("text", ["", " \n", "null", '""', '"{}"'])
def test_no_arguments_are_an_empty_object(text: str) -> None:
    assert arguments_param(text) == "{}"


@pytest.mark.parametrize(
    "text", ['{"a": }', '{"a": 1}{"b": 2}', "[1]", "5", '"x', "{", '{"a": NaN}', "[" * 5000]
)
def test_malformed_arguments_become_an_object_that_says_so(text: str) -> None:
    assert json.loads(arguments_param(text)) == {
        "error": "The arguments were not one JSON object.",
        "arguments": text,
    }


@pytest.mark.parametrize(
    "text", ['{"a": 1}', '{"a": {"b": [1e300]}}', '{"a": "\\u00e9\\ud83d\\ude00"}']
)
def test_an_object_is_sent_as_it_was_written(text: str) -> None:
    assert arguments_param(f" {text}\n") == text


def test_an_object_in_a_string_is_sent_as_the_object() -> None:
    assert arguments_param(json.dumps(json.dumps({"a": 1}))) == '{"a": 1}'


@given(
    st.text()
    | st.text(alphabet='{}[]":,\\u0dD1a ')
    | st.none()
    | st.dictionaries(st.text(), st.integers())
)
def test_whatever_the_arguments_are_they_go_back_as_one_object(arguments: Any) -> None:
    assert isinstance(json.loads(arguments_param(arguments)), dict)


def test_arguments_are_an_object_in_the_callers_own_messages_too() -> None:
    function = {"name": "f", "arguments": ""}
    message = {
        "role": "assistant",
        "tool_calls": [{"id": "i", "type": "function", "function": function}],
    }
    (got,) = sent(message)
    assert got["tool_calls"][0]["function"]["arguments"] == "{}"
    assert function["arguments"] == ""  # the caller's stays as it is


def test_calls_without_ids_get_distinct_ones_and_so_do_their_answers() -> None:
    one_round = [Message(tool_calls=[call(0), call(1)]), answer(0), answer(1)]
    first, second = ids(sent(USER, *one_round, USER, *one_round))
    assert first[0] == first[1]
    assert second[0] == second[1]
    assert len({*first[0], *second[0]}) == 4
    assert all([*first[0], *second[0]])


def test_messages_and_answers_agree_on_the_id_outside_of_requests() -> None:
    param = Message(tool_calls=[call(0), call(1)]).to_param()
    assert [each["id"] for each in param["tool_calls"]] == [
        answer(0)["tool_call_id"],
        answer(1)["tool_call_id"],
    ]


def test_ids_are_left_out_of_the_callers_own_messages() -> None:
    calls = [{"type": "function", "function": {"name": name, "arguments": "{}"}} for name in "fg"]
    answers = [{"role": "tool", "name": name, "content": name} for name in "gf"]
    messages = sent({"role": "assistant", "tool_calls": calls}, *answers)
    (given_ids, answered) = ids(messages)[0]
    assert len({*given_ids}) == 2
    assert answered == given_ids[::-1]  # by their names


def test_calls_of_one_message_with_the_same_id_are_told_apart() -> None:
    calls = [call(0, "x", "f"), call(1, "x", "g"), call(2, "y", "h")]
    answers = [answer(1, "x", "g"), answer(0, "x", "f"), answer(2, "y", "h")]
    (given_ids, answered) = ids(sent(Message(tool_calls=calls), *answers))[0]
    assert len({*given_ids}) == 3
    assert given_ids[0] == "x"
    assert answered == [given_ids[1], given_ids[0], "y"]


def test_an_id_that_the_server_uses_again_in_a_later_message_is_kept() -> None:
    one_round = [Message(tool_calls=[call(0, "x")]), answer(0, "x")]
    assert ids(sent(*one_round, *one_round)) == [(["x"], ["x"])] * 2


@pytest.mark.parametrize("role", ["model", "ai", "Assistant", "bot", ""])
def test_a_role_that_the_api_does_not_know_goes_back_as_assistant(role: str) -> None:
    message = Message(role=role, content="a")
    stored = json.loads(msgspec.json.encode(message))
    assert sent(message, stored) == [{"role": "assistant", "content": "a"}] * 2


def test_a_role_of_the_callers_own_is_checked() -> None:
    with pytest.raises(InvalidParameterError, match=r"messages\[0\].role is invalid"):
        sent({"role": "model", "content": "a"})


@pytest.mark.parametrize("given", [["i"], {"i": 1}, 5])
def test_an_id_that_is_no_text_is_named(given: Any) -> None:
    calls = [{"id": given, "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    with pytest.raises(InvalidParameterError, match=r"messages\[0\].tool_calls\[0\].id is inv"):
        sent({"role": "assistant", "content": None, "tool_calls": calls})


def test_a_role_in_a_stored_message_may_be_anything() -> None:
    (message,) = sent({"role": ["assistant"], "content": "a", "parsed": None})
    assert message == {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    "message",
    [
        Message(content='{"a": 1}', parsed={"a": 1}),
        Message(content="a", reasoning_content="hm"),
        Message(refusal="no"),
        Message(tool_calls=[call(0, "i", arguments='{"a":1}'), call(1, "j", arguments="")]),
        Message(tool_calls=[call(0)], reasoning_content="hm"),
    ],
)
def test_a_stored_message_goes_back_as_the_message_itself(message: Any) -> None:
    stored = json.loads(msgspec.json.encode(message))
    assert "parsed" in stored
    (first,), (second,), (third,) = map(sent, [message, stored, msgspec.to_builtins(message)])
    assert first == second == third == message.to_param()
    assert "parsed" not in first
    assert None not in [first[name] for name in first if name != "content"]


def test_nulls_are_not_sent() -> None:
    assert sent({**USER, "name": None, "tool_calls": None, "refusal": None}) == [USER]


STORED: dict[str, Any] = {"role": "assistant", "content": None, "parsed": None}
CALLS = [{"id": "i", "type": "function", "function": {"name": "f", "arguments": "{}"}, "index": 0}]


@pytest.mark.parametrize(
    ("fields", "sent_back"),
    [
        ({"reasoning_content": "hm", "reasoning_key": "reasoning_content"}, {"reasoning_content"}),
        ({"reasoning_content": "hm"}, {"reasoning_content"}),
        ({"reasoning_content": "hm", "reasoning_key": "reasoning"}, set()),
        ({"reasoning_content": "hm", "reasoning_key": None}, set()),
        ({"reasoning_details": [{"type": "x"}]}, {"reasoning_details"}),
        ({"llm_data": {"model": "m"}, "extra": {"a": 1}, "annotations": [1]}, set()),
    ],
)
def test_reasoning_goes_back_with_tool_calls_under_the_key_it_came_with(
    fields: dict[str, Any], sent_back: set[str]
) -> None:
    assert sent({**STORED, **fields, "content": "a"}) == [{"role": "assistant", "content": "a"}]
    (message,) = sent({**STORED, **fields, "tool_calls": CALLS})
    assert message == {"role": "assistant", "content": None, "tool_calls": CALLS} | {
        name: fields[name] for name in sent_back
    }


def test_a_custom_call_goes_back_as_one() -> None:
    function = {"name": "grep", "arguments": "a|b", "parsed_arguments": None}
    calls = [{"index": 0, "id": "i", "type": "custom", "function": function}]
    (message,) = sent({**STORED, "tool_calls": calls})
    custom = {"index": 0, "id": "i", "type": "custom", "custom": {"name": "grep", "input": "a|b"}}
    assert message["tool_calls"] == [custom]
    assert sent({"role": "assistant", "tool_calls": [custom]})[0]["tool_calls"] == [custom]
