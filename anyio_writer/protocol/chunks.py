"""One chunk of a streamed completion, in the one form that the rest of the library reads.

The structs require nothing: servers leave out, null and misspell what they like. They hold the
normal form. What a server may send in another form (content as blocks, arguments as an object, the
usage inside a choice) is typed here as ``None``, which makes the fast decoder refuse it, and
``parsing`` then reads it the slow way into the fields where it belongs. So the usual chunk pays
nothing for the forms that are rare. Fields of a chunk or choice that are not listed are skipped
unread; they stay reachable in the raw payload.
"""

# No annotations from __future__: msgspec would have to evaluate each of them for the decoder.

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | float | bool | None"
    """A decoded JSON value of no known shape."""
else:
    JSON = Any  # msgspec cannot decode a type that refers to itself


class _Part(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A part of a chunk or completion: immutable, and a tree, so no work for the collector.

    Of what is kept for each token, the sequences are tuples: the collector soon leaves those alone,
    while it would go through lists again and again, and the longer the stream, the more of them.
    """


class TopLogprob(_Part, frozen=True, omit_defaults=False):
    """One of the most likely tokens at a position."""

    token: str = ""
    logprob: float = 0.0
    bytes: tuple[int, ...] | None = None


class LogprobToken(_Part, frozen=True, omit_defaults=False):
    """A token, its log probability, and the most likely tokens at its position."""

    token: str = ""
    logprob: float = 0.0
    bytes: tuple[int, ...] | None = None
    top_logprobs: tuple[TopLogprob, ...] | None = None


class ChoiceLogprobs(_Part, frozen=True):
    """The log probabilities in a chunk, or in a whole completion."""

    content: list[LogprobToken] | None = None
    refusal: list[LogprobToken] | None = None


class FunctionDelta(_Part, frozen=True):
    """The function's name, and a piece of its arguments as JSON text."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(_Part, frozen=True):
    """A piece of a tool call.

    OpenAI's custom tool calls have the ``type`` "custom". Their name and input are in
    ``function.name`` and ``function.arguments``.
    """

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionDelta | None = None
    custom: None = None
    extra_content: Any = None
    """What Gemini's compatible API requires back in the next request."""


class Source(_Part, frozen=True):
    """A snippet from a Knowledge Graph."""

    file_id: str | None = None
    snippet: str | None = None


class Subquery(_Part, frozen=True):
    """A question that a Knowledge Graph tool asked to find its answer."""

    query: str | None = None
    answer: str | None = None
    sources: list[Source | None] | None = None


class FileReference(_Part, frozen=True, rename={"file_id": "fileId"}):
    """A file that the answer is based on."""

    file_id: str | None = None
    score: float | None = None
    text: str | None = None
    cite: str | None = None
    page: int | None = None


class WebReference(_Part, frozen=True):
    """A web page that the answer is based on."""

    url: str | None = None
    title: str | None = None
    score: float | None = None
    text: str | None = None


class References(_Part, frozen=True):
    """The sources that the answer is based on."""

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


class ChoiceDelta(_Part, frozen=True, forbid_unknown_fields=True):
    """What a chunk adds to one choice.

    If a server sends ``content`` as a list of blocks, ``content`` has the text of the text blocks,
    and ``reasoning`` that of the thinking blocks.
    """

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """Another spelling of ``reasoning_content``."""
    tool_calls: list[ToolCallDelta] | None = None
    graph_data: GraphData | None = None
    llm_data: LLMData | None = None
    translation_data: TranslationData | None = None
    web_search_data: WebSearchData | None = None
    extra: dict[str, Any] | None = None
    """All other fields that were not empty, as the server sent them."""

    # Some servers send these as null in every delta. With a value they are read the slow way.
    annotations: None = None
    audio: None = None
    function_call: None = None
    image_data: None = None
    images: None = None
    name: None = None
    provider_specific_fields: None = None
    reasoning_details: None = None
    thinking_blocks: None = None
    tool_call_id: None = None
    trace_details: None = None


class ChunkChoice(_Part, frozen=True):
    """One choice of a chunk.

    Writer also sends a deprecated ``message``, which repeats ``delta``. It is read only if the
    delta is missing, or is empty in a chunk with a finish reason.
    """

    index: int | None = None
    delta: ChoiceDelta | None = None
    whole_message: ChoiceDelta | None = None
    """The ``message`` of a choice without a delta, or with an empty one at its end."""
    finish_reason: str | None = None
    logprobs: ChoiceLogprobs | None = None
    error: None = None
    """Always None. An error that a server puts here becomes the chunk's ``error``."""
    usage: None = None
    """Always None. A usage that a server puts here becomes the chunk's ``usage``."""


class TokenDetails(_Part, frozen=True):
    """The parts of a token count."""

    reasoning_tokens: int | None = None
    cached_tokens: int | None = None


class Usage(_Part, frozen=True):
    """Token counts; None if the server sent none. Work in Knowledge Graphs is not counted.

    Servers use two names for the details. Both are also available under the names of Writer's API,
    ``prompt_token_details`` and ``completion_tokens_details``.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
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

    def merge(self, later: "Usage") -> "Usage":
        """Return these counts, replaced by those of ``later`` that are known."""
        merged: Usage = _merge(self, later)
        return merged


def _merge(earlier: Any, later: Any) -> Any:
    known = {
        name: value
        for name in later.__struct_fields__
        if (value := getattr(later, name)) is not None
    }
    for name, value in known.items():
        before = getattr(earlier, name)
        if before is not None and isinstance(value, TokenDetails):
            known[name] = _merge(before, value)
    return msgspec.structs.replace(earlier, **known)


class ChatCompletionChunk(_Part, frozen=True):
    """One piece of a streamed completion, as the server sent it.

    The chunks of one stream may have different IDs, as Writer's do.
    """

    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    usage: Usage | None = None
    choices: list[ChunkChoice] | None = None
    x_groq: None = None
    """Always None. The usage in it becomes the chunk's ``usage``."""
    error: Any = None
    """An error that the server reports inside a stream, as an object or a string."""
    tpe: str | None = None
    errors: Any = None
    """Together with ``tpe``, an error in the form of Writer's API."""

    @property
    def is_error(self) -> bool:
        """Whether the chunk reports an error."""
        return (
            bool(self.error)
            # Some servers write an empty error beside the choices.
            or (self.error is not None and self.choices is None)
            or self.object == "error"
            or (self.tpe is not None and self.errors is not None)
        )
