"""The protocol without I/O: bytes in, events out. Drive it with any transport.

``SSEDecoder`` turns bytes into server-sent events, ``parse_chunk`` their data into typed chunks,
``ChatCompletionStreamState`` chunks into events and a completion. Nothing here awaits, reads a
clock or opens a socket.
"""

import sys as _sys
from typing import TYPE_CHECKING

from .chunks import JSON as JSON
from .chunks import ChatCompletionChunk as ChatCompletionChunk
from .chunks import ChoiceDelta as ChoiceDelta
from .chunks import ChoiceLogprobs as ChoiceLogprobs
from .chunks import ChunkChoice as ChunkChoice
from .chunks import FileReference as FileReference
from .chunks import FunctionDelta as FunctionDelta
from .chunks import GraphData as GraphData
from .chunks import LLMData as LLMData
from .chunks import LogprobToken as LogprobToken
from .chunks import References as References
from .chunks import Source as Source
from .chunks import Subquery as Subquery
from .chunks import TokenDetails as TokenDetails
from .chunks import ToolCallDelta as ToolCallDelta
from .chunks import TopLogprob as TopLogprob
from .chunks import TranslationData as TranslationData
from .chunks import Usage as Usage
from .chunks import WebReference as WebReference
from .chunks import WebSearchData as WebSearchData
from .chunks import WebSearchSource as WebSearchSource
from .completion import ParsedChatCompletion as ParsedChatCompletion
from .completion import ParsedChatCompletionChoice as ParsedChatCompletionChoice
from .completion import ParsedChatCompletionMessage as ParsedChatCompletionMessage
from .completion import ParsedFunction as ParsedFunction
from .completion import ParsedFunctionToolCall as ParsedFunctionToolCall
from .events import ChatCompletionStreamEvent as ChatCompletionStreamEvent
from .events import ChunkEvent as ChunkEvent
from .events import ContentDeltaEvent as ContentDeltaEvent
from .events import ContentDoneEvent as ContentDoneEvent
from .events import FunctionToolCallArgumentsDeltaEvent as FunctionToolCallArgumentsDeltaEvent
from .events import FunctionToolCallArgumentsDoneEvent as FunctionToolCallArgumentsDoneEvent
from .events import LogprobsContentDeltaEvent as LogprobsContentDeltaEvent
from .events import LogprobsContentDoneEvent as LogprobsContentDoneEvent
from .events import LogprobsRefusalDeltaEvent as LogprobsRefusalDeltaEvent
from .events import LogprobsRefusalDoneEvent as LogprobsRefusalDoneEvent
from .events import ReasoningDeltaEvent as ReasoningDeltaEvent
from .events import ReasoningDoneEvent as ReasoningDoneEvent
from .events import RefusalDeltaEvent as RefusalDeltaEvent
from .events import RefusalDoneEvent as RefusalDoneEvent
from .interface import ChatCompletionStreamState as ChatCompletionStreamState
from .parsing import parse_chunk as parse_chunk
from .sse import ServerSentEvent as ServerSentEvent
from .sse import SSEDecoder as SSEDecoder
from .values import ValueReader as ValueReader

if not TYPE_CHECKING:  # which reads the imports above instead
    __all__ = [
        name
        for name in globals()
        if not name.startswith("_")
        and name != "TYPE_CHECKING"
        and f"{__name__}.{name}" not in _sys.modules  # an import binds submodules, too
    ]
