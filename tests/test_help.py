"""``help()`` and ``inspect.signature`` name all that can be given."""

from __future__ import annotations

import inspect
import pydoc
from typing import Any

import pytest

import anyio_writer
from anyio_writer import (
    AsyncWriter,
    ChatRequest,
    Configuration,
    ConversationOptions,
    chat_stream_from,
    open_chat_stream,
    open_conversation,
    protocol,
    testing,
)
from anyio_writer.client import Chat
from anyio_writer.telemetry import observer

REQUEST = ChatRequest.__annotations__.keys()
CONFIGURATION = Configuration.__annotations__.keys()
READING = {"timeouts", "limits", "end_grace", "require_finish", "observer"}
CONVERSATION = {"max_rounds", "total_time", "tool_limit", "on_tool_error"}


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (open_chat_stream, {*REQUEST, *CONFIGURATION, "client", "response_format"}),
        (open_conversation, {*REQUEST, *CONFIGURATION, *CONVERSATION, "client", "response_format"}),
        (chat_stream_from, {*READING, "source", "n", "response_format", "tools"}),
        (AsyncWriter, {*CONFIGURATION, "client", "max_connections"}),
        (AsyncWriter.with_options, {*CONFIGURATION, "self"}),
        (Chat.stream, {*REQUEST, "self", "response_format"}),
        (Chat.conversation, {*REQUEST, *CONVERSATION, "self", "response_format"}),
    ],
)
def test_a_signature_names_every_argument(function: Any, names: set[str]) -> None:
    parameters = inspect.signature(function).parameters
    assert parameters.keys() == names
    required = {name for name, each in parameters.items() if each.default is each.empty}
    assert required - {"self", "source"} == {"model", "messages"} & names


def test_what_observers_get_shows_its_fields() -> None:
    """Also those whose types are above the module, and not there when ``help()`` wants them."""
    kinds = observer.Observation.__subclasses__()
    assert len(kinds) == 10
    for kind in kinds:
        assert [*inspect.signature(kind).parameters] == [*kind.__struct_fields__]
        assert f"class {kind.__name__}" in pydoc.plain(pydoc.render_doc(kind))


@pytest.mark.parametrize("described", [ChatRequest, Configuration, ConversationOptions])
def test_a_docstring_describes_every_argument(described: Any) -> None:
    for name in described.__annotations__:
        assert f"    {name}: " in (described.__doc__ or ""), name


@pytest.mark.parametrize("module", [anyio_writer, protocol, testing])
def test_a_package_shows_its_public_names(module: Any) -> None:
    shown = pydoc.plain(pydoc.render_doc(module))
    assert len(module.__all__) > 15
    assert "TYPE_CHECKING" not in module.__all__
    for name in module.__all__:
        value = getattr(module, name)
        assert not inspect.ismodule(value)
        if inspect.isclass(value) and value.__name__ == name:  # not an alias
            assert f"class {name}(" in shown or f"class {name}\n" in shown, name
