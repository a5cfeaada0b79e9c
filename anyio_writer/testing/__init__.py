"""A scripted, Writer-compatible HTTP server on loopback, for tests and demonstrations.

It speaks HTTP/1.1 over real sockets, on asyncio and on trio, and goes wrong on demand:
slow, cut, reset, silent, compressed, malformed. It needs anyio and h11 only.
"""

import sys as _sys
from typing import TYPE_CHECKING

from .chunks import TOKEN_PATTERN as TOKEN_PATTERN
from .chunks import Chunk as Chunk
from .chunks import tokens as tokens
from .chunks import tool_call_chunks as tool_call_chunks
from .chunks import writer_chunks as writer_chunks
from .frames import DONE as DONE
from .frames import ErrorKind as ErrorKind
from .frames import error_frame as error_frame
from .frames import sse_event as sse_event
from .frames import writer_error as writer_error
from .records import RecordedConnection as RecordedConnection
from .records import RecordedRequest as RecordedRequest
from .replies import ReplyBuilder as ReplyBuilder
from .replies import chunks_reply as chunks_reply
from .replies import error_reply as error_reply
from .replies import text_reply as text_reply
from .replies import tool_call_reply as tool_call_reply
from .script import Cut as Cut
from .script import Encoding as Encoding
from .script import Framing as Framing
from .script import Headers as Headers
from .script import Hold as Hold
from .script import Raw as Raw
from .script import Reply as Reply
from .script import ReplyFields as ReplyFields
from .script import Reset as Reset
from .script import Sleep as Sleep
from .script import Stall as Stall
from .script import Step as Step
from .server import AnyReply as AnyReply
from .server import ChatServer as ChatServer
from .threadsafe import ThreadsafeEvent as ThreadsafeEvent

if not TYPE_CHECKING:  # which reads the imports above instead
    __all__ = [
        name
        for name in globals()
        if not name.startswith("_")
        and name != "TYPE_CHECKING"
        and f"{__name__}.{name}" not in _sys.modules  # an import binds submodules, too
    ]
