"""Stream chat completions as typed events under structured concurrency.

``open_chat_stream`` opens one stream, ``AsyncWriter`` many over one pool of connections. See
``anyio_writer.protocol`` for the same without I/O and ``anyio_writer.testing`` for a server to
test against.
"""

import sys as _sys
from typing import TYPE_CHECKING

from ._version import __version__ as __version__
from .client import AsyncWriter as AsyncWriter
from .config import Configuration as Configuration
from .config import Limits as Limits
from .config import Timeouts as Timeouts
from .conversation import Conversation as Conversation
from .conversation import ConversationEvent as ConversationEvent
from .conversation import ConversationOptions as ConversationOptions
from .conversation import RoundStartedEvent as RoundStartedEvent
from .conversation import ToolResultEvent as ToolResultEvent
from .errors import APIConnectionError as APIConnectionError
from .errors import APIError as APIError
from .errors import APIResponseValidationError as APIResponseValidationError
from .errors import APIStatusError as APIStatusError
from .errors import APIStreamError as APIStreamError
from .errors import APITimeoutError as APITimeoutError
from .errors import AuthenticationError as AuthenticationError
from .errors import BadRequestError as BadRequestError
from .errors import ConfigurationError as ConfigurationError
from .errors import ConflictError as ConflictError
from .errors import ConnectTimeoutError as ConnectTimeoutError
from .errors import ConsumerLagError as ConsumerLagError
from .errors import ContentFilterFinishReasonError as ContentFilterFinishReasonError
from .errors import ContentParseError as ContentParseError
from .errors import ConversationLimitError as ConversationLimitError
from .errors import DetachedEventError as DetachedEventError
from .errors import FirstContentTimeoutError as FirstContentTimeoutError
from .errors import IdleTimeoutError as IdleTimeoutError
from .errors import InternalServerError as InternalServerError
from .errors import InvalidParameterError as InvalidParameterError
from .errors import KeyTakenError as KeyTakenError
from .errors import LeaseLostError as LeaseLostError
from .errors import LengthFinishReasonError as LengthFinishReasonError
from .errors import NotFoundError as NotFoundError
from .errors import PermissionDeniedError as PermissionDeniedError
from .errors import ProducerFailedError as ProducerFailedError
from .errors import ProducerLostError as ProducerLostError
from .errors import ProducerStoppedError as ProducerStoppedError
from .errors import RateLimitError as RateLimitError
from .errors import RelayedAnswerGoneError as RelayedAnswerGoneError
from .errors import RelayUnavailableError as RelayUnavailableError
from .errors import ResponseTooLargeError as ResponseTooLargeError
from .errors import StreamClosedError as StreamClosedError
from .errors import StreamTruncatedError as StreamTruncatedError
from .errors import TotalTimeoutError as TotalTimeoutError
from .errors import UnknownKeyError as UnknownKeyError
from .errors import UnprocessableEntityError as UnprocessableEntityError
from .errors import ValueMismatchError as ValueMismatchError
from .errors import WriterError as WriterError
from .errors import WrongKindError as WrongKindError
from .errors import WrongOrderError as WrongOrderError
from .errors import WrongTaskError as WrongTaskError
from .open import chat_stream_from as chat_stream_from
from .open import open_chat_stream as open_chat_stream
from .open import open_conversation as open_conversation
from .protocol import ChatCompletionChunk as ChatCompletionChunk
from .protocol import ChatCompletionStreamEvent as ChatCompletionStreamEvent
from .protocol import ChatCompletionStreamState as ChatCompletionStreamState
from .protocol import ChunkEvent as ChunkEvent
from .protocol import ContentDeltaEvent as ContentDeltaEvent
from .protocol import ContentDoneEvent as ContentDoneEvent
from .protocol import FunctionToolCallArgumentsDeltaEvent as FunctionToolCallArgumentsDeltaEvent
from .protocol import FunctionToolCallArgumentsDoneEvent as FunctionToolCallArgumentsDoneEvent
from .protocol import GraphData as GraphData
from .protocol import LLMData as LLMData
from .protocol import LogprobsContentDeltaEvent as LogprobsContentDeltaEvent
from .protocol import LogprobsContentDoneEvent as LogprobsContentDoneEvent
from .protocol import LogprobsRefusalDeltaEvent as LogprobsRefusalDeltaEvent
from .protocol import LogprobsRefusalDoneEvent as LogprobsRefusalDoneEvent
from .protocol import ParsedChatCompletion as ParsedChatCompletion
from .protocol import ParsedChatCompletionChoice as ParsedChatCompletionChoice
from .protocol import ParsedChatCompletionMessage as ParsedChatCompletionMessage
from .protocol import ParsedFunction as ParsedFunction
from .protocol import ParsedFunctionToolCall as ParsedFunctionToolCall
from .protocol import ReasoningDeltaEvent as ReasoningDeltaEvent
from .protocol import ReasoningDoneEvent as ReasoningDoneEvent
from .protocol import RefusalDeltaEvent as RefusalDeltaEvent
from .protocol import RefusalDoneEvent as RefusalDoneEvent
from .protocol import ServerSentEvent as ServerSentEvent
from .protocol import SSEDecoder as SSEDecoder
from .protocol import TranslationData as TranslationData
from .protocol import Usage as Usage
from .protocol import WebSearchData as WebSearchData
from .request.params import ChatRequest as ChatRequest
from .request.params import CustomTool as CustomTool
from .request.params import FunctionToolParam as FunctionToolParam
from .request.params import GraphTool as GraphTool
from .request.params import LLMTool as LLMTool
from .request.params import Message as Message
from .request.params import MessageParam as MessageParam
from .request.params import ResponseFormat as ResponseFormat
from .request.params import Tool as Tool
from .request.params import ToolChoice as ToolChoice
from .request.params import TranslationTool as TranslationTool
from .request.params import VisionTool as VisionTool
from .request.params import WebSearchTool as WebSearchTool
from .streaming.stream import AsyncChatCompletionStream as AsyncChatCompletionStream
from .streaming.stream import ChatCompletionStream as ChatCompletionStream
from .streaming.subscription import Subscription as Subscription
from .streaming.tool_runs import ToolResult as ToolResult
from .streaming.tool_runs import ToolRuns as ToolRuns
from .structured.response_format import ResponseType as ResponseType
from .structured.response_format import response_type_of as response_type_of
from .structured.tools import FunctionTool as FunctionTool
from .structured.tools import function_tool as function_tool
from .telemetry.logs import set_up_logging as _set_up_logging
from .telemetry.observer import StreamObserver as StreamObserver
from .telemetry.timings import Timings as Timings
from .transport.http import StreamingTransport as StreamingTransport

_set_up_logging()

if not TYPE_CHECKING:  # which reads the imports above instead
    __all__ = [
        name
        for name in globals()
        if not name.startswith("_")
        and name != "TYPE_CHECKING"
        and f"{__name__}.{name}" not in _sys.modules  # an import binds submodules, too
    ]
