"""``dir()`` shows what users may use, and nothing else."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

import anyio_writer
from anyio_writer import (
    AsyncWriter,
    ChatCompletionStreamState,
    SSEDecoder,
    StreamingTransport,
    StreamObserver,
    chat_stream_from,
    function_tool,
    open_conversation,
    protocol,
    response_type_of,
    testing,
)
from anyio_writer.testing import ChatServer, ThreadsafeEvent

PUBLISHER = "aclose batches close has_begun start_soon subscribe timings until_done"
RESULT = "current_completion_snapshot get_final_completion"
DOCUMENTED = {
    "AsyncWriter": "aclose chat with_options",
    "Chat": "conversation stream",
    "ChatCompletionStream": f"{PUBLISHER} {RESULT} bytes_received chunk_count get_final_text n "
    "request_id response run_tools text_deltas usage",
    "Conversation": f"{PUBLISHER} {RESULT} completions messages",
    "Subscription": "aclose batch_nowait batches dropped is_closed snapshot",
    "Steps": "aclose",
    "ToolRuns": "messages results results_after results_so_far",
    "ResponseType": "decode param partial type",
    "FunctionTool": "arguments_type bind decode description is_async name partial strict to_param",
    "StreamingTransport": " ".join(
        name for name in dir(httpx.AsyncHTTPTransport) if not name.startswith("_")
    ),
    "SSEDecoder": "feed last_event_id max_event_bytes pending reconnection_time",
    "ChatCompletionStreamState": f"{RESULT} chunk_count complete done_received finish "
    "handle_chunk n usage",
    "ChatServer": "add connections requests url wait_disconnect wait_request",
    "ThreadsafeEvent": "is_set set wait",
    "StreamObserver": "attempt_failed batch_received content_started conversation_ended "
    "conversation_started headers_received request_prepared stream_ended tool_ended tool_started",
}
"""Classes that are neither structs, errors, dictionaries nor dataclasses: what their users call."""

CLASSES = {
    value
    for module in (anyio_writer, protocol, testing)
    for name in module.__all__
    if inspect.isclass(value := getattr(module, name)) and value is not Any
}


def shown(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def _tool(a: int) -> int:
    """A tool."""
    return a


async def test_an_instance_shows_what_is_documented() -> None:
    message: Any = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    async with AsyncWriter(api_key="key") as writer, StreamingTransport() as transport:
        with pytest.raises(anyio_writer.StreamTruncatedError):
            async with chat_stream_from(_nothing()) as stream:
                subscription = stream.subscribe()
                instances: list[Any] = [
                    writer,
                    writer.chat,
                    transport,
                    stream,
                    subscription,
                    stream.batches(),
                    stream.run_tools([]),
                    open_conversation(**message, api_key="key"),
                    response_type_of(int),
                    function_tool(_tool),
                    SSEDecoder(),
                    ChatCompletionStreamState[None](),
                    ChatServer(),
                    ThreadsafeEvent(),
                    StreamObserver(),
                ]
                await stream.until_done()
    assert {type(each).__name__ for each in instances} == DOCUMENTED.keys()
    for each in instances:
        assert shown(each) == set(DOCUMENTED[type(each).__name__].split()), type(each)


def _is_plain(cls: type[Any]) -> bool:
    return not (
        issubclass(cls, (BaseException, msgspec.Struct))
        or dataclasses.is_dataclass(cls)
        or typing.is_typeddict(cls)
        or getattr(cls, "_is_protocol", False)
    )


def test_every_class_is_among_them() -> None:
    plain = {cls.__name__ for cls in CLASSES if _is_plain(cls)}
    assert plain <= DOCUMENTED.keys()


DATA = sorted(
    (cls for cls in CLASSES if not _is_plain(cls) and not typing.is_typeddict(cls)),
    key=lambda cls: cls.__name__,
)


@pytest.mark.parametrize("cls", DATA, ids=lambda cls: cls.__name__)
def test_data_shows_fields_and_what_has_a_docstring(cls: type[Any]) -> None:
    fields = {name for each in cls.__mro__ for name in inspect.get_annotations(each)}
    documented = " ".join(filter(None, (each.__doc__ for each in cls.__mro__[:-1])))
    names = shown(cls)
    if issubclass(cls, BaseException):
        names = shown(cls("words")) - shown(AttributeError())  # attributes are set by __init__
        fields = set()
    for name in names:
        value = inspect.getattr_static(cls, name, None)
        has_docstring = isinstance(value, (property, staticmethod, classmethod)) or callable(value)
        assert (
            name in fields
            or f"{name}:" in documented
            or (has_docstring and inspect.getdoc(getattr(value, "fget", value)))
        ), name
