"""One JSON payload to one ``ChatCompletionChunk``: what the API and its look-alikes send.

The structs require nothing: servers leave out, null and misspell what they like. What a server
may send in several JSON types (content as blocks, arguments as an object, one tool call instead of
a list) is typed so, and read by ``state``. Fields that are not listed are skipped unread; they
stay reachable in the raw payload.
"""

# No annotations from __future__: msgspec would have to evaluate each of them for the decoder.

import re
from typing import Any, Final

import msgspec

from ..errors import APIResponseValidationError
from .json import MAX_DEPTH, is_array, is_deeper_than, is_object, mend_text, shorten

DEFAULT_MAX_DEPTH: Final = MAX_DEPTH


class _Part(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A part of a chunk or completion: immutable, and a tree, so no work for the collector.

    Of what is kept for each token, the sequences are tuples: the collector soon leaves those alone,
    while it would go through lists again and again, and the longer the stream, the more of them.
    """


class TopLogprob(_Part, frozen=True):
    """One of the likeliest tokens at a position."""

    token: str = ""
    logprob: float = 0.0
    bytes: tuple[int, ...] | None = None


class LogprobToken(_Part, frozen=True):
    """A token with its log probability and its likeliest rivals."""

    token: str = ""
    logprob: float = 0.0
    bytes: tuple[int, ...] | None = None
    top_logprobs: tuple[TopLogprob, ...] | None = None


class ChoiceLogprobs(_Part, frozen=True):
    """The tokens that one chunk, or a whole completion, brought."""

    content: list[LogprobToken] | None = None
    refusal: list[LogprobToken] | None = None


class ContentBlock(_Part, frozen=True):
    """An element of ``content`` where a server sends a list; only text blocks are text."""

    type: str | None = None
    text: str | None = None


class FunctionDelta(_Part, frozen=True):
    """The function's name, and a piece of its arguments: JSON text, or an object by some."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class ToolCallDelta(_Part, frozen=True):
    """A piece of a tool call."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionDelta | None = None
    extra_content: Any = None
    """What Gemini's compatible API wants back in the next turn."""


class Source(_Part, frozen=True):
    """A snippet from a Knowledge Graph."""

    file_id: str | None = None
    snippet: str | None = None


class Subquery(_Part, frozen=True):
    """A question that a Knowledge Graph tool asked on the way to its answer."""

    query: str | None = None
    answer: str | None = None
    sources: list[Source | None] | None = None


class FileReference(_Part, frozen=True, rename={"file_id": "fileId"}):
    """A file that the answer rests on."""

    file_id: str | None = None
    score: float | None = None
    text: str | None = None
    cite: str | None = None
    page: int | None = None


class WebReference(_Part, frozen=True):
    """A web page that the answer rests on."""

    url: str | None = None
    title: str | None = None
    score: float | None = None
    text: str | None = None


class References(_Part, frozen=True):
    """What the answer rests on, by kind."""

    files: list[FileReference] | None = None
    web: list[WebReference] | None = None


class GraphData(_Part, frozen=True):
    """What the Knowledge Graph tool reports."""

    status: str | None = None
    sources: list[Source | None] | None = None
    subqueries: list[Subquery | None] | None = None
    references: References | None = None


class LLMData(_Part, frozen=True):
    """What the model-delegation tool reports."""

    model: str | None = None
    prompt: str | None = None


class TranslationData(_Part, frozen=True):
    """What the translation tool reports."""

    source_language_code: str | None = None
    source_text: str | None = None
    target_language_code: str | None = None


class WebSearchSource(_Part, frozen=True):
    """A page that the web search read."""

    url: str | None = None
    raw_content: str | None = None


class WebSearchData(_Part, frozen=True):
    """What the web search tool reports."""

    sources: list[WebSearchSource] | None = None
    search_query: str | None = None
    search_depth: str | None = None
    query: str | None = None
    answer: str | None = None


class ChoiceDelta(_Part, frozen=True):
    """What a chunk adds to one choice."""

    role: str | None = None
    content: str | list[str | ContentBlock] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """Another spelling of ``reasoning_content``."""
    tool_calls: list[ToolCallDelta] | ToolCallDelta | None = None
    graph_data: GraphData | None = None
    llm_data: LLMData | None = None
    translation_data: TranslationData | None = None
    web_search_data: WebSearchData | None = None


class ChunkChoice(_Part, frozen=True):
    """One choice of a chunk.

    The deprecated ``message`` that Writer sends beside ``delta`` repeats it and is not read; it
    becomes the delta where a server sends no other.
    """

    index: int | None = None
    delta: ChoiceDelta | None = None
    finish_reason: str | None = None
    logprobs: ChoiceLogprobs | None = None


class TokenDetails(_Part, frozen=True):
    """How a token count came about."""

    reasoning_tokens: int | None = None
    cached_tokens: int | None = None


class Usage(_Part, frozen=True):
    """Token counts. Knowledge Graph work is not in them.

    Servers spell the details in two ways; both are read into the API's own spelling.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_token_details: TokenDetails | None = None
    completion_tokens_details: TokenDetails | None = None
    prompt_tokens_details: TokenDetails | None = None
    completion_token_details: TokenDetails | None = None

    def __post_init__(self) -> None:
        if self.prompt_token_details is None and self.prompt_tokens_details is not None:
            msgspec.structs.force_setattr(self, "prompt_token_details", self.prompt_tokens_details)
        if self.completion_tokens_details is None and self.completion_token_details is not None:
            msgspec.structs.force_setattr(
                self, "completion_tokens_details", self.completion_token_details
            )


class ChatCompletionChunk(_Part, frozen=True):
    """One piece of a streamed completion, as the server sent it.

    Chunks of one stream need not share an ``id``: Writer's do not.
    """

    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    usage: Usage | None = None
    choices: list[ChunkChoice] | None = None
    error: Any = None
    """An error where a server reports one inside a stream: an object or a string."""
    tpe: str | None = None
    errors: Any = None
    """With ``tpe``: an error in Writer's own form."""

    @property
    def is_error(self) -> bool:
        """Whether this is no piece of an answer but the report of an error."""
        return (
            self.error is not None
            or self.object == "error"
            or (self.tpe is not None and self.errors is not None)
        )


_decode: Final = msgspec.json.Decoder(ChatCompletionChunk).decode


def parse_chunk(payload: bytes, max_depth: int = DEFAULT_MAX_DEPTH) -> ChatCompletionChunk:
    """Decode the data of one server-sent event.

    What is not Unicode (bytes that are not UTF-8, escapes of half a surrogate pair) is read as
    U+FFFD. A field of the wrong JSON type is taken as missing where nothing depends on it (a date,
    a fingerprint, a usage count).

    Args:
        payload: JSON text.
        max_depth: How deeply arrays and objects may be nested.

    Raises:
        APIResponseValidationError: Not JSON, not an object, nested too deeply, or a wrong type
            where the value is needed (choices, indices, content, tool calls, finish reasons).
    """
    # Two bytes a level are the least that valid JSON needs, so short payloads need no look.
    if len(payload) > 2 * max_depth and is_deeper_than(payload, max_depth):
        raise _invalid(payload, f"it is nested more than {max_depth} levels deep")
    try:
        chunk = _decode(payload)
        for choice in chunk.choices or ():
            if choice.delta is None:
                return _parse_leniently(payload)
    except msgspec.ValidationError:
        return _parse_leniently(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        if (mended := mend_text(payload)) != payload:
            return parse_chunk(mended, max_depth)
        raise _invalid(payload, _reason(exc)) from exc
    return chunk


# Parts that an answer can do without: what is wrong inside one of them costs only that part.
_DISPENSABLE: Final = (
    r"\$(?:\.usage"
    r"|\.(?:id|object|created|model|system_fingerprint|service_tier|tpe)"
    r"|\.choices\[\d+\]\.logprobs"
    r"|\.choices\[\d+\]\.delta\.(?:role|reasoning|reasoning_content|graph_data|llm_data"
    r"|translation_data|web_search_data)"
    r"|\.choices\[\d+\]\.delta\.tool_calls(?:\[\d+\])?\.type)(?=[.\[]|$)"
)
_STEP: Final = r"\.(\w+)|\[(\d+)\]"
_WHERE: Final = r" - at `(.+)`$"


def _parse_leniently(payload: bytes) -> ChatCompletionChunk:
    """The slow way, for the chunks that the plain decoder cannot take as they are."""
    try:
        data = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        if (mended := mend_text(payload)) != payload:
            return _parse_leniently(mended)
        raise _invalid(payload, _reason(exc)) from exc
    if not is_object(data):
        raise _invalid(payload, f"it is not an object but {type(data).__name__}")
    if data.get("error") is not None:  # whatever else is wrong with it
        return ChatCompletionChunk(error=data["error"])
    choices: Any = data.get("choices")
    for choice in choices if is_array(choices) else ():
        if is_object(choice) and choice.get("delta") is None:
            choice["delta"] = choice.get("message")
    while True:
        try:
            return msgspec.convert(data, ChatCompletionChunk)
        except msgspec.ValidationError as exc:
            where = re.search(_WHERE, str(exc))
            part = re.match(_DISPENSABLE, where[1]) if where else None
            if part is None:
                raise _invalid(payload, str(exc)) from exc
            _remove(data, part[0])


def _remove(data: Any, path: str) -> None:
    """Delete what a path such as ``$.choices[0].logprobs`` leads to."""
    *steps, last = [name or int(index) for name, index in re.findall(_STEP, path)]
    for step in steps:
        data = data[step]
    del data[last]


def _reason(exc: Exception) -> str:
    return "it is nested too deeply" if isinstance(exc, RecursionError) else str(exc)


def _invalid(payload: bytes, reason: str) -> APIResponseValidationError:
    shown = shorten(payload)
    return APIResponseValidationError(f"Not a chunk of a chat stream: {reason}.", body=shown)
