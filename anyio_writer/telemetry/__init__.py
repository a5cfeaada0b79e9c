"""What streams report about themselves: timings, observers, log lines."""

from __future__ import annotations

from .observer import AttemptFailed as AttemptFailed
from .observer import BatchReceived as BatchReceived
from .observer import ContentStarted as ContentStarted
from .observer import ConversationEnded as ConversationEnded
from .observer import ConversationStarted as ConversationStarted
from .observer import HeadersReceived as HeadersReceived
from .observer import Outcome as Outcome
from .observer import RequestPrepared as RequestPrepared
from .observer import StreamEnded as StreamEnded
from .observer import StreamObserver as StreamObserver
from .observer import ToolEnded as ToolEnded
from .observer import ToolStarted as ToolStarted
from .timings import Timings as Timings
