"""What a request may hold: the types that callers see and that a request is checked against.

msgspec reads the bounds in ``Meta``. It checks that objects hold what they must. Fields that a type
does not list are sent as they are, because servers know more fields than these.

Source: https://dev.writer.com/api-reference/completion-api
"""

# No annotations from __future__: msgspec would have to evaluate each of them.

from collections.abc import Mapping
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypeAlias,
    TypedDict,
)

from msgspec import Meta, Struct

from ..protocol.completion import ParsedChatCompletionMessage
from ..protocol.history import Role
from ..structured.tools import FunctionTool

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    # mypy gives up on the overloads of a function, and infers Any, if an unpacked request has Any
    # anywhere in its type. So a request has none.
    _Value: TypeAlias = object

    class _CompletionMessage(Protocol):
        """``ParsedChatCompletionMessage``, whatever it was parsed as."""

        @property
        def parsed(self) -> object: ...
        def to_param(self) -> dict[str, Any]: ...

    class _FunctionTool(Protocol):
        """``FunctionTool``, whatever its function takes and returns."""

        def decode(self, text: str) -> Struct: ...
        def to_param(self) -> dict[str, Any]: ...

else:
    Iterable = list  # which is what they are when msgspec, which knows no Iterable, checks them
    _Value = Any

Name: TypeAlias = Annotated[str, Meta(min_length=1)]
Count: TypeAlias = Annotated[int, Meta(ge=1)]
Fraction: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]


class TypedObject(TypedDict):
    """What content fragments and tools of all types have in common."""

    type: Name


class TextFragment(TypedDict):
    """A piece of text in a message's content."""

    type: Literal["text"]
    text: str


class ImageURL(TypedDict):
    """Where an image is: a URL, ``data:`` included."""

    url: str


class ImageFragment(TypedDict):
    """An image in a message's content."""

    type: Literal["image_url"]
    image_url: ImageURL


ContentFragment: TypeAlias = TextFragment | ImageFragment

if TYPE_CHECKING:
    _Content: TypeAlias = str | Iterable[ContentFragment]
else:
    # msgspec cannot check a union of TypedDicts. Fragments of other types are passed on.
    _Content = str | list[TypedObject]


class FunctionCall(TypedDict):
    """A function call as it goes back to the model."""

    name: str
    arguments: str


class ToolCall(TypedDict, total=False):
    """A tool call of an earlier answer. Type "custom" has ``custom`` in place of ``function``."""

    id: Required[str]
    type: Required[Name]
    function: FunctionCall
    custom: Mapping[str, _Value]
    index: int


class Message(TypedDict, total=False):
    """One message of the conversation.

    A request also takes messages of completions (``completion.choices[0].message``). A list of both
    is a ``list[MessageParam]``.

    Attributes:
        role: "system", "user", "assistant" or "tool". "developer" is not in Writer's API.
        content: The text, or a list of fragments: ``{"type": "text", "text": ...}`` and
            ``{"type": "image_url", "image_url": {"url": ...}}``.
        name: A name for the author.
        tool_call_id: In a "tool" message, the ID of the call that it answers.
        tool_calls: In an "assistant" message, the calls that the model made.
        graph_data: In an "assistant" message, what the Knowledge Graph tool reported.
        refusal: In an "assistant" message, the text with which the model refused.
        reasoning_content: Not in Writer's API. What DeepSeek and others sent with tool calls.
        reasoning_details: Not in Writer's API. What OpenRouter sent with tool calls.
    """

    role: Required[Role]
    content: _Content | None
    name: str | None
    tool_call_id: str | None
    tool_calls: Iterable[ToolCall] | None
    graph_data: Mapping[str, _Value] | None
    refusal: str | None
    reasoning_content: str | None
    reasoning_details: Iterable[Mapping[str, _Value]] | None


MessageParam: TypeAlias = Message | ParsedChatCompletionMessage[Any]
"""What may be among a request's messages."""


class FunctionDefinition(TypedDict, total=False):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    name: Required[Name]
    description: str | None
    parameters: Mapping[str, _Value] | None
    strict: bool | None


class FunctionToolParam(TypedDict):
    """A tool that you run, in the API's own form. Use ``function_tool`` for a Python function.

    Attributes:
        type: "function".
        function: ``name`` and, optionally, ``description``, ``parameters`` (a JSON schema) and
            ``strict``.
    """

    type: Literal["function"]
    function: FunctionDefinition


class GraphQueryConfig(TypedDict, total=False):
    """How Knowledge Graphs are searched, and how closely the answer keeps to what is found.

    Attributes:
        max_subquestions: 1 to 10.
        search_weight: 0 (by meaning) to 100 (by keywords).
        grounding_level: 0 (close to the sources) to 1.
        max_snippets: 1 to 60.
        max_tokens: Of the graph's answer, 100 to 8000.
        keyword_threshold: 0 to 1; more is stricter.
        semantic_threshold: 0 to 1; more is stricter.
        inline_citations: Whether the answer's text names its sources.
    """

    max_subquestions: Annotated[int, Meta(ge=1, le=10)] | None
    search_weight: Annotated[float, Meta(ge=0, le=100)] | None
    grounding_level: Fraction | None
    max_snippets: Annotated[int, Meta(ge=1, le=60)] | None
    max_tokens: Annotated[int, Meta(ge=100, le=8000)] | None
    keyword_threshold: Fraction | None
    semantic_threshold: Fraction | None
    inline_citations: bool | None


class GraphFunction(TypedDict, total=False):
    """Which Knowledge Graphs to ask; ``subqueries``: whether to report the steps."""

    graph_ids: Required[Iterable[str]]
    subqueries: Required[bool]
    description: str | None
    query_config: GraphQueryConfig | None


class GraphTool(TypedDict):
    """Lets the model ask Knowledge Graphs, on the server. The message's ``graph_data`` reports it.

    Attributes:
        type: "graph".
        function: ``graph_ids``, ``subqueries`` (whether to report the steps) and, optionally,
            ``description`` and ``query_config``.
    """

    type: Literal["graph"]
    function: GraphFunction


class LLMFunction(TypedDict):
    """Which model, and what it is good for."""

    description: str
    model: Name


class LLMTool(TypedDict):
    """Lets the model ask another model, on the server. The message's ``llm_data`` reports it.

    Attributes:
        type: "llm".
        function: ``model``, and ``description``, which says what that model is good for.
    """

    type: Literal["llm"]
    function: LLMFunction


class TranslationFunction(TypedDict, total=False):
    """How to translate; the server detects the languages that are left out."""

    model: Required[Name]
    formality: Required[bool]
    length_control: Required[bool]
    mask_profanity: Required[bool]
    source_language_code: str | None
    target_language_code: str | None


class TranslationTool(TypedDict):
    """Lets the model translate, on the server. The message's ``translation_data`` reports it.

    Attributes:
        type: "translation".
        function: ``model``, ``formality``, ``length_control``, ``mask_profanity`` and, optionally,
            ``source_language_code`` and ``target_language_code``. The server detects a language
            that is left out.
    """

    type: Literal["translation"]
    function: TranslationFunction


class VisionVariable(TypedDict):
    """A file, and the name that stands for it in messages: ``{{name}}``."""

    name: Name
    file_id: Name


class VisionFunction(TypedDict):
    """Which model is to look at which files."""

    model: Name
    variables: Iterable[VisionVariable]


class VisionTool(TypedDict):
    """Lets the model look at images and documents, on the server.

    Attributes:
        type: "vision".
        function: ``model``, and ``variables``: a list of files, each with its ``file_id`` and the
            ``name`` that stands for it in messages, as ``{{name}}``.
    """

    type: Literal["vision"]
    function: VisionFunction


class WebSearchFunction(TypedDict, total=False):
    """Where to search; may be empty."""

    include_domains: Iterable[str] | None
    exclude_domains: Iterable[str] | None


class WebSearchTool(TypedDict):
    """Lets the model search the web, on the server. The message's ``web_search_data`` reports it.

    Attributes:
        type: "web_search".
        function: ``include_domains`` and ``exclude_domains``, both optional.
        web_search: Not in Writer's API. The options on servers without ``function``.
    """

    type: Literal["web_search"]
    function: NotRequired[WebSearchFunction]
    web_search: NotRequired[Mapping[str, _Value]]


class CustomTool(TypedDict):
    """A tool that takes free text instead of JSON. Not in Writer's API.

    Attributes:
        type: "custom".
        custom: ``name`` and, optionally, ``description`` and ``format``.
    """

    type: Literal["custom"]
    custom: Mapping[str, _Value]


BuiltInTool: TypeAlias = GraphTool | LLMTool | TranslationTool | VisionTool | WebSearchTool
Tool: TypeAlias = FunctionTool[..., Any] | FunctionToolParam | BuiltInTool | CustomTool


class NamedFunction(TypedDict):
    """A function by its name."""

    name: Name


class NamedToolChoice(TypedDict):
    """Makes the model call one function. Other types are sent as they are."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedToolChoice | Mapping[str, _Value]


class StreamOptionsParam(TypedDict):
    """``include_usage`` asks for a last chunk with the token counts."""

    include_usage: bool


class ResponseFormat(TypedDict):
    """The API's own form of a response format.

    Attributes:
        type: "text", "json_object" or "json_schema", as far as the server knows them.
        json_schema: For "json_schema": the ``name``, the ``schema`` and, optionally, ``strict``.
    """

    type: Name
    json_schema: NotRequired[Mapping[str, _Value] | None]


if TYPE_CHECKING:
    _Messages: TypeAlias = Iterable[Message | _CompletionMessage]
    _Tools: TypeAlias = Iterable[_FunctionTool | FunctionToolParam | BuiltInTool | CustomTool]
    _ToolChoice: TypeAlias = ToolChoice
else:
    # What is checked are the forms in which they are sent. ``tools`` checks the tools themselves.
    _Messages = Annotated[list[Message], Meta(min_length=1)]
    _Tools = list[TypedObject]
    _ToolChoice = str | dict[str, Any]


class ChatRequest(TypedDict, total=False):
    """The fields of a request, as keyword arguments. None leaves a field out.

    The fields from ``seed`` on are not in Writer's API. They are for other servers with an
    OpenAI-compatible API, and sent only if you give them.

    Attributes:
        messages: The messages so far, at least one. Messages of completions
            (``completion.choices[0].message``) may be among them.
        model: The name of the model. Any name is sent as it is.
        max_tokens: The maximum number of tokens to generate.
        temperature: 0 or more.
        top_p: 0 to 1.
        n: How many choices to generate.
        stop: One or several texts at which the model stops. In Writer's API the answer ends with
            that text; others leave it out.
        logprobs: Whether to send the tokens' log probabilities.
        tools: What the model may call: tools made with ``function_tool``, or the API's own
            dictionaries. A request can contain only one kind of the tools that the server runs. An
            empty list means none.
        tool_choice: "auto", "none", "required", or one function of ``tools``.
        stream_options: ``{"include_usage": True}`` asks for the token counts.
        extra_headers: HTTP headers. They replace others of the same name; None removes one.
        extra_query: Query parameters.
        extra_body: Fields that are not listed here, or that replace one that is.
        seed: Makes sampling repeatable, as far as the server can.
        max_completion_tokens: The maximum number of tokens to generate, reasoning included.
        reasoning_effort: How much the model reasons, such as "low", "medium" or "high".
        parallel_tool_calls: Whether the model may call several tools at once.
        top_logprobs: How many of the most likely tokens to send for each position.
        frequency_penalty: -2 to 2. The higher, the less likely are frequent tokens.
        presence_penalty: -2 to 2. The higher, the less likely are tokens that occurred before.
        repetition_penalty: Above 0. A penalty that vLLM and others know.
        logit_bias: Token IDs, as text, with what is added to their logits.
        top_k: How many of the most likely tokens to choose from.
        min_p: 0 to 1; the lowest probability of a token, relative to the most likely one.
        user: Who asks, for the server's records.
        safety_identifier: Who asks, for the detection of misuse.
        metadata: Keys and values that are stored with the completion.
        store: Whether the server stores the completion.
        service_tier: How the server processes the request, such as "flex" or "priority".
        prompt_cache_key: Requests with the same key are more likely to share a prompt cache.
        verbosity: How long the answer should be, such as "low", "medium" or "high".
        modalities: What the model should generate, such as ["text", "audio"].
        audio: The voice and the format of generated audio.
        prediction: Text that much of the answer is expected to match.
        web_search_options: How the server's own web search works.
        thinking: An object that says whether, and how much, the model should reason.
        chat_template_kwargs: What vLLM and others pass to the model's chat template.
    """

    messages: Required[_Messages]
    model: Required[Name]
    max_tokens: Count | None
    temperature: Annotated[float, Meta(ge=0)] | None
    top_p: Fraction | None
    n: Count | None
    stop: str | Iterable[str] | None
    logprobs: bool | None
    tools: _Tools | None
    tool_choice: _ToolChoice | None
    stream_options: StreamOptionsParam | None
    extra_headers: Mapping[str, str | None] | None
    extra_query: Mapping[str, _Value] | None
    extra_body: Mapping[str, _Value] | None

    seed: int | None
    max_completion_tokens: Count | None
    reasoning_effort: str | None
    parallel_tool_calls: bool | None
    top_logprobs: Annotated[int, Meta(ge=0)] | None
    frequency_penalty: Penalty | None
    presence_penalty: Penalty | None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None
    logit_bias: Mapping[str, float] | None
    top_k: int | None
    min_p: Fraction | None
    user: str | None
    safety_identifier: str | None
    metadata: Mapping[str, _Value] | None
    store: bool | None
    service_tier: str | None
    prompt_cache_key: str | None
    verbosity: str | None
    modalities: Iterable[str] | None
    audio: Mapping[str, _Value] | None
    prediction: Mapping[str, _Value] | None
    web_search_options: Mapping[str, _Value] | None
    thinking: Mapping[str, _Value] | None
    chat_template_kwargs: Mapping[str, _Value] | None


class RequestBody(ChatRequest, total=False):
    """The fields of a request, with the response format in the API's own form."""

    response_format: ResponseFormat | None
