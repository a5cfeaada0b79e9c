"""What streams report about themselves: timings, observers, log lines, OpenTelemetry."""

from __future__ import annotations

import sys as _sys
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from .otel import OpenTelemetryObserver as OpenTelemetryObserver
else:  # which reads the imports above instead
    __all__ = [
        name
        for name in globals()
        if not name.startswith("_")
        and name not in ("TYPE_CHECKING", "Any", "annotations")
        and f"{__name__}.{name}" not in _sys.modules  # an import binds submodules, too
    ]


def __getattr__(name: str) -> Any:
    if name != "OpenTelemetryObserver":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .otel import OpenTelemetryObserver  # it needs an extra
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise ModuleNotFoundError(
            'OpenTelemetryObserver needs more: pip install "anyio-writer[otel]"', name=exc.name
        ) from exc
    return OpenTelemetryObserver
