"""The ways to a stream: a request, or bytes from anywhere."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping
from typing import Any, Unpack

from ..config import (
    Configuration,
    Endpoint,
    ReadingConfiguration,
    StreamSettings,
    resolve,
    resolve_reading,
)
from ..errors import ConfigurationError
from ..params import ChatRequest, ResponseFormat, build_body
from .connection import Gate, HTTPSource, IterableSource
from .http import Client, http_module
from .stream import ChatCompletionStream


class OpenArguments(ChatRequest, Configuration, total=False):
    """A request and where it goes, as keyword arguments."""


def open_chat_stream(
    *,
    client: Client | None = None,
    response_format: ResponseFormat | None = None,
    **arguments: Unpack[OpenArguments],
) -> ChatCompletionStream[None]:
    """Ask for a chat completion and stream the answer.

    ::

        async with open_chat_stream(model="palmyra-x5", messages=[...]) as stream:
            async for event in stream:
                if event.type == "content.delta":
                    print(event.content, end="", flush=True)

    Everything is checked here; the request is sent when the stream is entered.

    Args:
        client: Your own ``httpx.AsyncClient`` or ``httpx2.AsyncClient``, never closed here.
            Without one the stream makes its own and closes it. Who opens many streams is better
            off with an ``AsyncWriter``, which keeps connections.
        response_format: The API's own dictionary.
        arguments: The request's fields, see ``ChatRequest``, and where it goes and how the
            answer is read, see ``Configuration``.

    Raises:
        InvalidParameterError: A field of the request is missing, wrong or unknown.
        ConfigurationError: Something else is; for example there is no API key.
    """
    request: dict[str, Any] = {"response_format": response_format}
    configuration: dict[str, Any] = {}
    for name, value in arguments.items():
        # What is neither is reported as an unknown field of the request.
        known = name in Configuration.__annotations__
        (configuration if known else request)[name] = value
    endpoint, settings = resolve(configuration)
    return make_stream(request, endpoint, settings, client=client)


def chat_stream_from(
    source: AsyncIterable[bytes], *, n: int | None = None, **reading: Unpack[ReadingConfiguration]
) -> ChatCompletionStream[None]:
    """The same stream over bytes from anywhere: a recording, a relay, another client.

    Args:
        source: The body of a response, cut anywhere. A generator is closed at the end; other
            iterables belong to whoever made them.
        n: How many choices the request asked for, if known.
        reading: How it is read, see ``StreamSettings``.

    Raises:
        ConfigurationError: A setting is wrong or unknown.
    """
    given: object = source
    if not isinstance(given, AsyncIterable):
        raise ConfigurationError(
            f"source must be an asynchronous iterable of bytes, not {type(source).__name__}."
        )
    return ChatCompletionStream(IterableSource(source), resolve_reading(reading), n=n)


def make_stream(
    request: Mapping[str, Any],
    endpoint: Endpoint,
    settings: StreamSettings,
    *,
    client: Client | None,
    gate: Gate | None = None,
) -> ChatCompletionStream[None]:
    """A stream for a request: checked, and not yet sent."""
    body = build_body(request)
    if client is not None:
        http_module(client)  # a wrong kind of client is an error now, not when it is used
    source = HTTPSource(
        endpoint,
        body,
        client=client,
        gate=gate,
        limits=settings.limits,
        connect_timeout=settings.timeouts.connect,
        extra_headers=request.get("extra_headers") or {},
        extra_query=request.get("extra_query"),
    )
    return ChatCompletionStream(source, settings, n=body.get("n"))
