"""On streams that the official SDK understands, its events are this library's events.

Where the two differ on purpose, the differences are taken out here, in ``of_the_sdk``,
``says_something`` and ``of_this_library``, and nowhere else:

* A piece of text that is empty yields no delta event here, and a text that stayed empty no done
  event; the same for empty lists of logprobs.
* So does a piece of a tool call without arguments, unless it opens the call.
* Text, refusal and logprobs are done when their choice has its finish reason; in the SDK already
  when its first tool call begins. So these done events are compared apart from the others.
* Events say here which choice they belong to.
* Arguments that have not begun are "" here and None in the SDK.
* Usage and system_fingerprint are kept here; the SDK clears them with each chunk without them.
* ``get_final_completion`` raises in the SDK for the finish reasons ``length`` and
  ``content_filter``, so the SDK's last snapshot is compared.
"""

import copy
import json
from typing import Any, Final

import msgspec
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from writerai import omit
from writerai._models import construct_type
from writerai.lib.streaming.chat._completions import ChatCompletionStreamState as SDKState
from writerai.types.chat_completion_chunk import ChatCompletionChunk as SDKChunk

from anyio_writer.protocol import ChatCompletionStreamState
from anyio_writer.protocol.extent import is_empty_object
from anyio_writer.testing import writer_chunks
from tests.plugins.thoroughness import examples
from tests.protocol.streams import Script, scripts, wire

THOROUGH: Final = settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))

MOVED: Final = {
    "content.done",
    "refusal.done",
    "logprobs.content.done",
    "logprobs.refusal.done",
}

# What an event can tell beside its JSON. Other deltas have a snapshot.
TOLD: Final = {
    "content.delta": ("snapshot", "parsed"),
    "content.done": ("parsed",),
    "tool_calls.function.arguments.delta": ("arguments", "parsed_arguments"),
    "tool_calls.function.arguments.done": ("parsed_arguments",),
}

Plain = dict[str, Any]


def tokens(items: Any) -> list[tuple[str, float]]:
    return [(item["token"], item["logprob"]) for item in items or ()]


def plain_completion(value: Plain) -> Plain:
    """The fields of a completion that both have."""
    choices = []
    for choice in value["choices"]:
        message = choice["message"]
        logprobs = choice.get("logprobs") or {}
        calls = [
            {
                "index": call["index"],
                "id": call["id"],
                "type": call["type"],
                "name": call["function"]["name"],
                "arguments": call["function"]["arguments"] or "",
            }
            for call in message.get("tool_calls") or ()
        ]
        choices.append(
            {
                "index": choice["index"],
                "finish_reason": choice.get("finish_reason"),
                "role": message["role"],
                "content": message.get("content"),
                "refusal": message.get("refusal"),
                "tool_calls": calls,
                "logprobs": [tokens(logprobs.get(key)) for key in ("content", "refusal")],
            }
        )
    head = {name: value[name] for name in ("id", "object", "created", "model")}
    return {**head, "choices": choices}


def of_the_sdk(event: Any) -> Plain | None:
    """An event of the SDK, copied at once, since the SDK goes on writing to it."""
    plain: Plain = copy.deepcopy(event.model_dump())
    kind = plain["type"]
    if kind == "chunk":
        return {"type": kind, "snapshot": plain_completion(plain["snapshot"])}
    if kind in {"content.delta", "refusal.delta"} and not plain["delta"]:
        return None
    if kind == "refusal.done" and not plain["refusal"]:
        return None
    for key in ("content", "refusal"):
        if kind.startswith(f"logprobs.{key}"):
            plain[key] = tokens(plain[key])
            if not plain[key]:
                return None
            if "snapshot" in plain:
                plain["snapshot"] = tokens(plain["snapshot"])
    if "arguments" in plain:
        plain["arguments"] = plain["arguments"] or ""
    return plain


def says_something(event: Plain, choices: list[Plain], opened: set[tuple[int, int]]) -> bool:
    """Whether an event is more than an empty piece of a call that is open already."""
    if event["type"] != "tool_calls.function.arguments.delta":
        return True
    [choice] = choices  # the streams compared here have one choice a chunk
    call = (choice["index"], event["index"])
    opens = call not in opened
    opened.add(call)
    return opens or bool(event["arguments_delta"])


def of_this_library(event: Any) -> Plain:
    """An event of this library with all it can tell, under the SDK's names."""
    plain: Plain = msgspec.to_builtins(event)
    kind = plain["type"]
    if kind == "chunk":
        snapshot = msgspec.to_builtins(event.snapshot)
        return {"type": kind, "snapshot": plain_completion(snapshot)}
    del plain["choice_index"]
    default = ("snapshot",) if kind.endswith(".delta") else ()
    names = TOLD.get(kind, default)
    plain |= {name: msgspec.to_builtins(getattr(event, name)) for name in names}
    for key in ("content", "refusal"):
        if kind.startswith(f"logprobs.{key}"):
            plain[key] = tokens(plain[key])
            if "snapshot" in plain:
                plain["snapshot"] = tokens(plain["snapshot"])
    return plain


def compare(chunks: list[Plain]) -> None:
    sdk = SDKState(response_format=omit, input_tools=omit)
    state = ChatCompletionStreamState[Any]()
    moved: tuple[list[Plain], list[Plain]] = ([], [])
    opened: set[tuple[int, int]] = set()
    for chunk in chunks:
        parsed: Any = construct_type(type_=SDKChunk, value=copy.deepcopy(chunk))
        theirs = [plain for each in sdk.handle_chunk(parsed) if (plain := of_the_sdk(each))]
        theirs = [each for each in theirs if says_something(each, chunk["choices"], opened)]
        ours = [
            of_this_library(each)
            for each in state.handle_chunk(json.dumps(chunk))
            if not each.type.startswith("reasoning.")  # which the SDK does not know
        ]
        for seen, elsewhere in zip((theirs, ours), moved, strict=True):
            elsewhere += [event for event in seen if event["type"] in MOVED]
            seen[:] = [event for event in seen if event["type"] not in MOVED]
        assert ours == theirs

    last_events = [of_this_library(event) for event in state.finish()]
    moved[1].extend(event for event in last_events if event["type"] in MOVED)

    def order(event: Plain) -> str:
        return json.dumps(event, sort_keys=True)

    assert sorted(moved[1], key=order) == sorted(moved[0], key=order)
    final = state.get_final_completion()
    last: Plain = sdk.current_completion_snapshot.model_dump()
    assert plain_completion(msgspec.to_builtins(final)) == plain_completion(last)
    if last["usage"] is not None:
        assert final.usage is not None
        assert final.usage.total_tokens == last["usage"]["total_tokens"]
    if last["system_fingerprint"] is not None:
        assert final.system_fingerprint == last["system_fingerprint"]


def as_openai_writes(script: Script) -> list[Plain]:
    """The chunks without nulls, which the SDK takes for values."""
    chunks = wire(script)
    for chunk in chunks:
        chunk.update(id="c1", object="chat.completion.chunk", created=1, model="m")
        chunk["system_fingerprint"] = "v1"
        for choice in chunk["choices"]:
            choice["delta"]["role"] = "assistant"
            for call in choice["delta"].get("tool_calls", ()):
                for part in (call, call["function"]):
                    for key in [key for key, value in part.items() if value is None]:
                        if key != "arguments":
                            del part[key]
    return chunks


@THOROUGH
@given(scripts(plain=True))
def test_the_same_events_and_completion(script: Script) -> None:
    # An empty object counts when its call is done, because some servers send one before the real
    # arguments. The SDK puts both together, which is no JSON.
    entries = [entry for _, entries in script.chunks for entry in entries]
    pieces = [piece for entry in entries for piece in entry.pieces]
    assume(not any(is_empty_object(piece.added) for piece in pieces))
    compare(as_openai_writes(script))


def test_an_empty_object_comes_when_its_call_is_done() -> None:
    state = ChatCompletionStreamState[Any]()
    opens = {"index": 0, "id": "i", "type": "function", "function": {"name": "f"}}
    empty = {"index": 0, "function": {"arguments": "{}"}}
    deltas = [{"tool_calls": [opens]}, {"tool_calls": [empty]}, {}]
    told = []
    for delta, reason in zip(deltas, [None, None, "tool_calls"], strict=True):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        told.append(
            [
                (event.type.rpartition(".")[2], event.arguments)
                for event in state.handle_chunk(json.dumps({"choices": [choice]}))
                if event.type.startswith("tool_calls")
            ]
        )
    last = [(event.type, getattr(event, "arguments", "")) for event in state.finish()]
    assert told[:2] == [[("delta", "")], []]
    assert [*told[2], *[(kind.rpartition(".")[2], text) for kind, text in last]] == [
        ("delta", "{}"),
        ("done", "{}"),
    ]


@THOROUGH
@given(
    st.lists(st.text(max_size=30), min_size=1, max_size=3),
    st.sampled_from(["stop", "length", "content_filter"]),
    st.booleans(),
)
def test_the_same_for_text_as_the_api_sends_it(
    texts: list[str],
    reason: str,
    usage: bool,
) -> None:
    compare(writer_chunks(texts, finish_reason=reason, usage=usage))
