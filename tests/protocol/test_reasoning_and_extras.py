"""What models think aloud, and the fields that the library does not know."""

import json
from typing import Any

import pytest

from anyio_writer import ReasoningDeltaEvent, ReasoningDoneEvent
from anyio_writer.protocol import ChatCompletionStreamState
from tests.protocol.driving import chunk, frames, run, said

STOP = chunk(reason="stop")


@pytest.mark.parametrize(
    ("delta", "key"),
    [
        ({"reasoning_content": "hm"}, "reasoning_content"),
        ({"reasoning": "hm"}, "reasoning"),
        ({"reasoning_content": "hm", "reasoning": "hm"}, "reasoning_content"),
        ({"content": [{"type": "thinking", "thinking": "hm"}]}, "reasoning"),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
            "reasoning",
        ),
        (
            {
                "content": [
                    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
                ]
            },
            "reasoning",
        ),
        ({"reasoning": {"content": "hm"}}, "reasoning"),
        ({"reasoning_content": [{"type": "text", "text": "hm"}]}, "reasoning_content"),
    ],
)
def test_reasoning_in_every_form(delta: dict[str, Any], key: str) -> None:
    outcome = run(frames(chunk(delta), chunk(delta), said("x"), STOP))
    message = outcome.completion.choices[0].message
    assert (message.reasoning_content, message.reasoning_key) == ("hmhm", key)
    assert message.content == "x"
    thoughts = [event for event in outcome.events if isinstance(event, ReasoningDeltaEvent)]
    assert [(event.delta, event.snapshot) for event in thoughts] == [("hm", "hm"), ("hm", "hmhm")]
    [done] = [event for event in outcome.events if isinstance(event, ReasoningDoneEvent)]
    assert done.reasoning == "hmhm"
    types = outcome.types()
    assert types.index("reasoning.done") < types.index("content.done")


def test_blocks_of_unknown_types_are_kept() -> None:
    image = {"type": "image_url", "image_url": {"url": "u"}}
    text = {"type": "text", "text": "x"}
    deltas = [{"content": text}, {"content": [image, text]}, {"content": [image]}]
    message = run(frames(*map(chunk, deltas), STOP)).completion.choices[0].message
    assert message.content == "xx"
    assert message.extra == {"content": [image, image]}


def test_without_reasoning_there_is_none() -> None:
    outcome = run(frames(chunk({"content": "x", "reasoning_content": "", "reasoning": None}), STOP))
    message = outcome.completion.choices[0].message
    assert (message.reasoning_content, message.reasoning_key) == (None, None)
    assert not any(kind.startswith("reasoning") for kind in outcome.types())


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "hm"},
        {"content": [{"type": "thinking", "thinking": "hm"}]},
        {"audio": {"data": "AAAA"}},
        {"content": [{"type": "image_url", "image_url": {"url": "u"}}]},
        {"content": "", "images": [{"type": "image_url"}]},
        {"content": "", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"function_call": {"name": "f"}},
        {"vendor": {"step": 1}},
    ],
)
def test_whatever_the_model_sends_is_content(delta: dict[str, Any]) -> None:
    state = ChatCompletionStreamState[Any]()
    for empty in ({"role": "assistant", "content": ""}, {"audio": None, "images": []}, {}):
        state.handle_chunk(json.dumps(chunk(empty)))
    assert not state._state.has_content
    state.handle_chunk(json.dumps(chunk(delta)))
    assert state._state.has_content


def test_unknown_fields_end_up_in_the_message() -> None:
    outcome = run(
        frames(
            chunk({"annotations": [{"url": "a"}], "audio": {"id": "1"}, "vendor": "x"}),
            chunk({"annotations": [], "audio": None, "vendor": "", "other": 0}),
            chunk({"annotations": [{"url": "b"}], "audio": {"id": "2"}, "reasoning_details": [1]}),
            chunk({"content": "x", "images": [1]}),
            STOP,
        )
    )
    message = outcome.completion.choices[0].message
    assert message.annotations == [{"url": "a"}, {"url": "b"}]
    assert message.audio == {"id": "2"}
    assert message.images == message.reasoning_details == [1]
    assert message.extra == {"vendor": "x", "other": 0}
    snapshots = [event.snapshot for event in outcome.events if event.type == "chunk"]
    assert [each.choices[0].message.annotations for each in snapshots] == [
        *[[{"url": "a"}]] * 2,
        *[[{"url": "a"}, {"url": "b"}]] * 3,
    ]


def test_a_list_behind_another_value_begins_anew() -> None:
    values: list[object] = [[1], "text", [2], [3]]
    outcome = run(frames(*[chunk({"vendor": value}) for value in values], STOP))
    assert outcome.completion.choices[0].message.extra == {"vendor": [2, 3]}
