"""What the chunks add up to, and what goes into the next request."""

from typing import Any

import msgspec
import pytest

from anyio_writer.protocol import (
    GraphData,
    ParsedChatCompletion,
    ParsedChatCompletionMessage,
    ParsedFunction,
    ParsedFunctionToolCall,
    Source,
)
from tests.protocol.driving import called, chunk, frames, piece, run, said


def test_a_message_goes_back_as_it_came() -> None:
    outcome = run(
        frames(
            said("a"),
            called(piece(0, id="i", type="function", name="f", arguments='{"a": 1}')),
            called(piece(1, id="j", name="g")),
            chunk(reason="tool_calls"),
        )
    )
    assert outcome.completion.choices[0].message.to_param() == {
        "role": "assistant",
        "content": "a",
        "tool_calls": [
            {
                "id": "i",
                "type": "function",
                "function": {"name": "f", "arguments": '{"a": 1}'},
                "index": 0,
            },
            {
                "id": "j",
                "type": "function",
                "function": {"name": "g", "arguments": "{}"},
                "index": 1,
            },
        ],
    }


@pytest.mark.parametrize(
    ("message", "extra"),
    [
        (ParsedChatCompletionMessage[Any](), {"content": ""}),
        (ParsedChatCompletionMessage[Any](reasoning_content="hm"), {"content": ""}),
        (ParsedChatCompletionMessage[Any](refusal="no"), {"refusal": "no"}),
        (ParsedChatCompletionMessage[Any](refusal=""), {"content": ""}),
        (ParsedChatCompletionMessage[Any](tool_calls=[]), {"content": ""}),
        (
            ParsedChatCompletionMessage[Any](graph_data=GraphData(sources=[Source("f", "s")])),
            {"content": "", "graph_data": {"sources": [{"file_id": "f", "snippet": "s"}]}},
        ),
    ],
)
def test_only_what_is_there_goes_back(
    message: ParsedChatCompletionMessage[Any], extra: dict[str, Any]
) -> None:
    assert message.to_param() == {"role": "assistant", "content": None, **extra}


def test_a_completion_is_a_value() -> None:
    body = frames(said("a"), chunk(reason="stop"))
    first, second = run(body).completion, run(body).completion
    assert first == second
    assert first.object == "chat.completion"
    assert msgspec.json.decode(msgspec.json.encode(first), type=ParsedChatCompletion[Any]) == first
    with pytest.raises(AttributeError):
        first.id = "other"  # type: ignore[misc]


def test_nothing_is_shared_between_completions() -> None:
    one, other = ParsedChatCompletion[Any](), ParsedChatCompletion[Any]()
    one.choices.append(None)  # type: ignore[arg-type]
    assert other.choices == []
    assert ParsedFunctionToolCall(0).function == ParsedFunction()


def test_unknown_usage_is_never_zero() -> None:
    outcome = run(frames(said("a"), chunk(reason="stop")))
    assert outcome.completion.usage is None
    outcome = run(frames(said("a"), chunk(reason="stop"), {"usage": {"prompt_tokens": 5}}))
    assert outcome.completion.usage is not None
    assert outcome.completion.usage.prompt_tokens == 5
