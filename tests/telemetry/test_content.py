"""Content in the form of the conventions: of whatever a request holds."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from anyio_writer.telemetry.content import input_messages, tool_definitions

WORDS = st.sampled_from(["role", "content", "tool_calls", "function", "name", "type", "tool", "x"])
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)


@given(ANYTHING)
def test_whatever_a_request_holds_there_is_json(value: Any) -> None:
    for message in json.loads(input_messages(value)):
        assert message.keys() == {"role", "parts"}
        for part in message["parts"]:
            assert isinstance(part, dict)
    for tool in json.loads(tool_definitions(value)):
        assert tool.keys() == {"type", "name"}


def test_arguments_that_are_no_json_stay_text() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": "not json"}}
    (message,) = json.loads(input_messages([{"role": "assistant", "tool_calls": [call]}]))
    assert message["parts"] == [
        {"type": "tool_call", "id": "c", "name": "f", "arguments": "not json"}
    ]
