"""One answer for any number of readers on any number of machines.

One process asks the model and publishes what it answers; others follow it, from the start, while
it runs or after it. ``RedisRelay`` stores answers in Redis or Valkey, ``MemoryRelay`` within the
process. ::

    async with RedisRelay("redis://localhost") as relay:
        async with relay.start_or_join("answer:42", lambda: writer.chat.stream(...)) as stream:
            async for event in stream: ...
"""

import sys as _sys
from typing import TYPE_CHECKING

from ..errors import KeyTakenError as KeyTakenError
from ..errors import LeaseLostError as LeaseLostError
from ..errors import ProducerFailedError as ProducerFailedError
from ..errors import ProducerLostError as ProducerLostError
from ..errors import ProducerStoppedError as ProducerStoppedError
from ..errors import RelayedAnswerGoneError as RelayedAnswerGoneError
from ..errors import RelayUnavailableError as RelayUnavailableError
from ..errors import UnknownKeyError as UnknownKeyError
from ..errors import WrongKindError as WrongKindError
from .base import ReaderOptions as ReaderOptions
from .base import Relay as Relay
from .log import Election as Election
from .log import Entry as Entry
from .log import Lease as Lease
from .log import Log as Log
from .log import Receipt as Receipt
from .log import RelayStatus as RelayStatus
from .memory import MemoryRelay as MemoryRelay
from .redis import RedisRelay as RedisRelay
from .replay import RelayedConversation as RelayedConversation
from .replay import RelayedStream as RelayedStream

if not TYPE_CHECKING:  # which reads the imports above instead
    __all__ = [
        name
        for name in globals()
        if not name.startswith("_")
        and name != "TYPE_CHECKING"
        and f"{__name__}.{name}" not in _sys.modules  # an import binds submodules, too
    ]
