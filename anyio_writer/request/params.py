"""What a request may hold: types alone, so that only who looks at them needs this at run time.

The fields are those of the chat completion API: https://dev.writer.com/api-reference/completion-api
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NotRequired, Required, TypeAlias, TypedDict

from ..protocol.completion import ParsedChatCompletionMessage
from ..structured.tools import FunctionTool


class TextFragment(TypedDict):
    """A piece of text in a message's content."""

    type: Literal["text"]
    text: str


class ImageURL(TypedDict):
    """Where an image is: an URL, ``data:`` included."""

    url: str


class ImageFragment(TypedDict):
    """An image in a message's content."""

    type: Literal["image_url"]
    image_url: ImageURL


ContentFragment: TypeAlias = TextFragment | ImageFragment


class FunctionCall(TypedDict):
    """A function call as it goes back to the model."""

    name: str
    arguments: str


class ToolCall(TypedDict, total=False):
    """A tool call of an earlier turn."""

    id: Required[str]
    type: Required[str]
    function: Required[FunctionCall]
    index: int


class Message(TypedDict, total=False):
    """One message of the conversation.

    A message of a completion (``completion.choices[0].message``) may stand in its place; a list of
    both is a list of ``MessageParam``. The API knows four roles, "developer" is for other servers.
    """

    role: Required[Literal["user", "assistant", "system", "tool", "developer"]]
    content: str | Iterable[ContentFragment] | None
    name: str | None
    tool_call_id: str | None
    tool_calls: Iterable[ToolCall] | None
    graph_data: Mapping[str, Any] | None
    refusal: str | None


MessageParam: TypeAlias = Message | ParsedChatCompletionMessage[Any]
"""What may be among a request's messages."""


class FunctionDefinition(TypedDict, total=False):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    name: Required[str]
    description: str
    parameters: Mapping[str, Any]
    strict: bool


class FunctionToolParam(TypedDict):
    """A tool that the caller runs. ``function_tool`` makes one of a Python function."""

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

    max_subquestions: int
    search_weight: float
    grounding_level: float
    max_snippets: int
    max_tokens: int
    keyword_threshold: float
    semantic_threshold: float
    inline_citations: bool


class GraphFunction(TypedDict, total=False):
    """Which Knowledge Graphs to ask; ``subqueries``: whether to report the steps."""

    graph_ids: Required[Iterable[str]]
    subqueries: Required[bool]
    description: str
    query_config: GraphQueryConfig


class GraphTool(TypedDict):
    """Lets the model ask Knowledge Graphs, on the server. What it did is in ``graph_data``."""

    type: Literal["graph"]
    function: GraphFunction


class LLMFunction(TypedDict):
    """Which model, and what it is good for."""

    description: str
    model: str


class LLMTool(TypedDict):
    """Lets the model ask another one, on the server. What it did is in ``llm_data``."""

    type: Literal["llm"]
    function: LLMFunction


class TranslationFunction(TypedDict, total=False):
    """How to translate; languages that are left out are told from the text."""

    model: Required[str]
    formality: Required[bool]
    length_control: Required[bool]
    mask_profanity: Required[bool]
    source_language_code: str
    target_language_code: str


class TranslationTool(TypedDict):
    """Lets the model translate, on the server. What it did is in ``translation_data``."""

    type: Literal["translation"]
    function: TranslationFunction


class VisionVariable(TypedDict):
    """A file, and the name that stands for it in messages: ``{{name}}``."""

    name: str
    file_id: str


class VisionFunction(TypedDict):
    """Which model is to look at which files."""

    model: str
    variables: Iterable[VisionVariable]


class VisionTool(TypedDict):
    """Lets the model look at images and documents, on the server."""

    type: Literal["vision"]
    function: VisionFunction


class WebSearchFunction(TypedDict, total=False):
    """Where to search; may be empty."""

    include_domains: Iterable[str]
    exclude_domains: Iterable[str]


class WebSearchTool(TypedDict):
    """Lets the model search the web, on the server. What it did is in ``web_search_data``."""

    type: Literal["web_search"]
    function: WebSearchFunction


BuiltInTool: TypeAlias = GraphTool | LLMTool | TranslationTool | VisionTool | WebSearchTool
Tool: TypeAlias = FunctionTool[..., Any] | FunctionToolParam | BuiltInTool


class NamedFunction(TypedDict):
    """A function by its name."""

    name: str


class NamedToolChoice(TypedDict):
    """Makes the model call one function."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedToolChoice | Mapping[str, Any]


class StreamOptionsParam(TypedDict):
    """``include_usage`` asks for a last chunk with the token counts."""

    include_usage: bool


class ResponseFormat(TypedDict):
    """The API's own form of a response format."""

    type: str
    json_schema: NotRequired[Mapping[str, Any]]


class ChatRequest(TypedDict, total=False):
    """The fields of a request, as keyword arguments. None leaves a field out.

    Attributes:
        messages: The conversation, at least one message. Messages of completions
            (``completion.choices[0].message``) may be among them.
        model: The model's name; any name is passed on.
        max_tokens: The most tokens to generate.
        temperature: 0 or more.
        top_p: 0 to 1.
        n: How many choices to generate.
        stop: Text, or several texts, at which to stop. What is given back ends with it.
        logprobs: Whether to send the tokens' log probabilities.
        tools: What the model may call: functions made tools by ``function_tool``, the API's own
            dictionaries, and of the tools that the server runs at most one kind.
        tool_choice: "auto", "none", "required", or one function of ``tools``.
        stream_options: ``{"include_usage": True}`` asks for the token counts.
        extra_headers: HTTP headers; they replace others of the same name, None takes one out.
        extra_query: Query parameters.
        extra_body: Fields that the API does not list, or that are to replace one.
    """

    messages: Required[Iterable[MessageParam]]
    model: Required[str]
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    n: int | None
    stop: str | Iterable[str] | None
    logprobs: bool | None
    tools: Iterable[Tool] | None
    tool_choice: ToolChoice | None
    stream_options: StreamOptionsParam | None
    extra_headers: Mapping[str, str | None] | None
    extra_query: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None
