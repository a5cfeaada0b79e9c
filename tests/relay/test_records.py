"""What entries hold: it comes out as it went in, and what is not ours is an error."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_writer import (
    APIError,
    APIStatusError,
    ContentParseError,
    ConversationLimitError,
    ProducerFailedError,
    ProducerStoppedError,
    RateLimitError,
    RelayUnavailableError,
    ToolResultEvent,
    WriterError,
    errors,
)
from anyio_writer.relay import MemoryRelay
from anyio_writer.relay.records import (
    End,
    Header,
    RecordedError,
    RoundStarted,
    ToolResulted,
    decode,
    encode,
    rebuild_error,
    record_error,
    split,
    stopped_error,
)
from tests.relay.relay_helpers import follow

TOOL_RESULTS = st.builds(
    ToolResultEvent,
    st.integers(0, 9),
    st.integers(),
    st.text(),
    st.text(),
    st.text(),
    st.booleans(),
)
RECORDS = st.one_of(
    st.binary(max_size=40),
    st.builds(Header, st.sampled_from(["stream", "conversation"]), st.integers(1, 9)),
    st.builds(RoundStarted, st.integers(0, 9)),
    st.builds(ToolResulted.of, TOOL_RESULTS, st.integers(0, 9)),
    st.builds(End, st.sampled_from(["complete", "failed", "stopped"]), st.integers(0, 9)),
)


@given(st.lists(RECORDS))
def test_records_come_out_as_they_went_in(records: list[Any]) -> None:
    assert decode(encode(records)) == records


@given(TOOL_RESULTS)
def test_a_result_comes_out_as_it_went_in(event: ToolResultEvent) -> None:
    (record,) = decode(encode([ToolResulted.of(event, 3)]))
    assert isinstance(record, ToolResulted)
    assert record.event() == event


@given(st.lists(st.binary(max_size=30)), st.integers(1, 60))
def test_entries_are_cut_at_their_size(records: list[bytes], size: int) -> None:
    parts = list(split(records, size))
    assert [record for part in parts for record in part] == records
    for part in parts:
        assert part
        assert len(part) == 1 or sum(map(len, part)) <= size


@given(st.binary(max_size=60))
def test_what_is_not_ours(data: bytes) -> None:
    with suppress(RelayUnavailableError):
        decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        msgspec.msgpack.encode([{"type": "new"}]),
        encode([Header("stream", 1, 99)]),
    ],
)
async def test_a_log_of_another_version(data: bytes) -> None:
    async with MemoryRelay() as relay:
        lease = (await relay.elect("key", "token")).lease
        assert lease is not None
        await relay.append(lease, 1, data, 0)
        seen = await follow(relay, "key")
        assert type(seen.error) is RelayUnavailableError


@pytest.mark.parametrize("data", [encode([]), encode([b"{}"])])
async def test_a_log_without_its_header(data: bytes) -> None:
    async with MemoryRelay() as relay:
        lease = (await relay.elect("key", "token")).lease
        assert lease is not None
        await relay.append(lease, 1, data, 0)
        with pytest.raises(RelayUnavailableError, match="does not begin"):
            async with relay.start_or_join("key", lambda: None):  # type: ignore[arg-type,return-value]
                raise AssertionError


def again(error: BaseException) -> WriterError:
    """The error as it comes out of an entry."""
    (record,) = decode(encode([End("failed", error=record_error(error))]))
    assert isinstance(record, End)
    assert record.error is not None
    return rebuild_error(record.error)


CLASSES = sorted(
    (
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, WriterError)
    ),
    key=lambda cls: cls.__name__,
)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_keeps_its_class_and_its_words(cls: type[WriterError]) -> None:
    rebuilt = again(cls("what happened"))
    assert type(rebuilt) is cls
    assert str(rebuilt) == "what happened"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(JSON, st.none() | st.integers(100, 599), st.none() | st.text(min_size=1))
def test_errors_keep_what_the_server_said(body: Any, status: int | None, name: str | None) -> None:
    response = None if status is None else httpx.Response(status)
    error = APIStatusError("no", response=response, body=body, request_id=name)
    rebuilt = again(error)
    assert isinstance(rebuilt, APIStatusError)
    assert rebuilt.body == body
    assert type(rebuilt.body) is type(body)
    assert rebuilt.status_code == status
    assert rebuilt.request_id == error.request_id


def test_errors_keep_their_details() -> None:
    parse = again(ContentParseError("no", choice_index=2, text="a", path="$.b", reason="c"))
    assert isinstance(parse, ContentParseError)
    assert (parse.choice_index, parse.text, parse.path, parse.reason) == (2, "a", "$.b", "c")
    messages = [{"role": "user", "content": "Hi", "extra": {1, 2}, "more": object()}]
    limit = again(ConversationLimitError("no", messages=messages))
    assert isinstance(limit, ConversationLimitError)
    assert json.dumps(limit.messages)
    stopped = again(ProducerStoppedError("no", by="stop"))
    assert isinstance(stopped, ProducerStoppedError)
    assert stopped.by == "stop"
    assert stopped_error(End("stopped")).by == "producer"


def test_classes_that_are_not_known_here() -> None:
    class Own(RateLimitError):
        pass

    class Foreign(Exception):
        pass

    assert type(again(Own("slow down"))) is RateLimitError
    foreign = again(Foreign("a secret"))
    assert type(foreign) is ProducerFailedError
    assert "Foreign" in str(foreign)
    assert "secret" not in str(foreign)


def test_details_of_a_newer_producer_are_left_out() -> None:
    details = '{"text": "x", "new": 1}'
    error = rebuild_error(RecordedError("ContentParseError", "said", details=details))
    assert type(error) is ContentParseError
    assert (str(error), error.text, error.path) == ("said", "x", "$")


def test_an_error_of_a_newer_producer_is_one_of_the_api() -> None:
    error = rebuild_error(RecordedError("NewError", "said", status=418, details='{"new": 1}'))
    assert type(error) is APIError
    assert (str(error), error.status_code) == ("said", 418)


def test_details_that_an_older_producer_lacks_have_their_defaults() -> None:
    error = rebuild_error(RecordedError("ProducerStoppedError", "said"))
    assert type(error) is ProducerStoppedError
    assert error.by == "producer"
