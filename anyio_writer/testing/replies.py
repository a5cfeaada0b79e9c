"""Makes replies of texts, tool calls, chunks and errors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, Unpack, cast

from .chunks import DEFAULT_MODEL, TOKEN_PATTERN, tool_call_chunks, writer_chunks
from .frames import DONE, dumps, sse_event, writer_error
from .records import RecordedRequest
from .script import Reply, ReplyFields, Step, with_defaults

ReplyBuilder: TypeAlias = Callable[[RecordedRequest], Reply]
"""Makes the reply once the request is known. It runs in the server and must not block."""


_MAX_CHOICES: Final = 128  # so that no request can fill the memory


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a request asks for, as far as these replies depend on it."""

    model: str
    n: int
    logprobs: bool
    usage: bool


def text_reply(
    text: str | Sequence[str] = "Hello world",
    *,
    model: str | None = None,
    finish_reason: str = "stop",
    logprobs: bool | None = None,
    usage: bool | None = None,
    done: bool = False,
    token_pattern: str = TOKEN_PATTERN,
    **fields: Unpack[ReplyFields],
) -> ReplyBuilder:
    """Answer with a text, one token per chunk. The answer is always a stream.

    Arguments that are None follow the request.

    Args:
        text: The text for each of the ``n`` choices of the request, or one text for each choice.
        model: The model's name in the chunks.
        finish_reason: The finish reason in the last chunk of each choice.
        logprobs: Whether each token has a log probability.
        usage: Whether a last chunk has the usage.
        done: Whether the stream ends with ``data: [DONE]``.
        token_pattern: A regular expression. Each match is a token, and together they must be the
            whole text.
        **fields: Further fields of the `Reply`, such as ``pace``.
    """

    def build(request: RecordedRequest) -> Reply:
        asked = _asked_by(request)
        chunks = writer_chunks(
            [text] * asked.n if isinstance(text, str) else text,
            model=asked.model if model is None else model,
            finish_reason=finish_reason,
            logprobs=asked.logprobs if logprobs is None else logprobs,
            usage=asked.usage if usage is None else usage,
            token_pattern=token_pattern,
        )
        return chunks_reply(chunks, done=done, **fields)

    return build


def tool_call_reply(
    calls: Sequence[tuple[str, str]],
    *,
    pieces: int = 4,
    text: str = "",
    model: str | None = None,
    usage: bool | None = None,
    done: bool = False,
    **fields: Unpack[ReplyFields],
) -> ReplyBuilder:
    """Answer with tool calls. The answer is always a stream.

    Arguments that are None follow the request.

    Args:
        calls: The name and the arguments (as JSON text) of each call.
        pieces: Into how many chunks the arguments of a call are cut, if they are long enough.
        text: What the model says before the calls.
        model: The model's name in the chunks.
        usage: Whether a last chunk has the usage.
        done: Whether the stream ends with ``data: [DONE]``.
        **fields: Further fields of the `Reply`, such as ``pace``.
    """

    def build(request: RecordedRequest) -> Reply:
        asked = _asked_by(request)
        chunks = tool_call_chunks(
            calls,
            pieces=pieces,
            text=text,
            model=asked.model if model is None else model,
            usage=asked.usage if usage is None else usage,
        )
        return chunks_reply(chunks, done=done, **fields)

    return build


def chunks_reply(
    chunks: Iterable[Mapping[str, object] | str | bytes | Step],
    *,
    done: bool = False,
    **fields: Unpack[ReplyFields],
) -> Reply:
    """Answer with these chunks, one event and one write each.

    Args:
        chunks: A dictionary is sent as the JSON of a ``data:`` event, and a string as the data of
            one. Bytes, such as an `error_frame`, are sent as they are, without ``data:``. Steps
            happen at their place.
        done: Whether the stream ends with ``data: [DONE]``.
        **fields: Further fields of the `Reply`, such as ``cut_after``.
    """
    body = [sse_event(each) if isinstance(each, str | Mapping) else each for each in chunks]
    if done:
        body.append(DONE)
    return Reply(body=body, **fields)


def error_reply(
    status: int,
    body: Mapping[str, object] | str | None = None,
    **fields: Unpack[ReplyFields],
) -> Reply:
    """Answer with an error.

    Args:
        status: The HTTP status.
        body: A dictionary is sent as JSON, a string as plain text. None sends what the API would
            send, see `writer_error`.
        **fields: Further fields of the `Reply`, such as ``headers``.
    """
    if isinstance(body, str):
        kind, text = "text/plain; charset=utf-8", body
    else:
        kind, text = "application/json", dumps(writer_error(status) if body is None else body)
    fields.setdefault("framing", "length")
    fields["headers"] = with_defaults({"content-type": kind}, fields.get("headers", ()))
    return Reply(status=status, body=text.encode(), **fields)


def refusal_of(request: RecordedRequest) -> Reply | None:
    """The error that the API sends for a request that it cannot use; None if it can."""
    if not (request.header("authorization") or "").removeprefix("Bearer").strip():
        return error_reply(401, writer_error(401, "no API key", key="fail.unauthorized.badToken"))
    asked = _object_in(request)
    problems = {
        "the body is not a JSON object": asked is None,
        "model is required": not (asked or {}).get("model"),
        "messages is required, with one message at least": not (asked or {}).get("messages"),
    }
    for problem, found in problems.items():
        if found:
            return error_reply(422, writer_error(422, problem))
    return None


def _object_in(request: RecordedRequest) -> dict[str, object] | None:
    try:
        found: object = request.json()
    except (ValueError, RecursionError):  # the second: nested too deeply
        return None
    return _object(found)


def _object(value: object) -> dict[str, object] | None:
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def _asked_by(request: RecordedRequest) -> _Asked:
    asked = _object_in(request) or {}
    model, count = asked.get("model"), asked.get("n")
    options = _object(asked.get("stream_options")) or {}
    return _Asked(
        model=model if isinstance(model, str) else DEFAULT_MODEL,
        n=min(max(count, 1), _MAX_CHOICES) if isinstance(count, int) else 1,
        logprobs=asked.get("logprobs") is True,
        usage=options.get("include_usage") is True,
    )
