"""The rules of the state machine, as tables.

Each table answers one question, and docs/architecture.md shows it in the same order:

* what a finish reason means (``stop_of``),
* which choice is finished, and whether finish reasons prove anything (``AFTER``),
* which call a piece belongs to (``TARGETS``),
* when a call is done (``IS_DONE``).

The state machine only looks up; it decides nothing by itself.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

# What a finish reason means.


class Stop(Enum):
    """What a finish reason says about the end of a choice."""

    END = "the model was done"
    LENGTH = "the token limit cut the choice off"
    CONTENT_FILTER = "a content filter cut the choice off"
    FAILURE = "the server could not go on"

    @property
    def is_cut_short(self) -> bool:
        """Whether the model was stopped in the middle."""
        return self is not Stop.END


_NO_REASON: Final = frozenset({"null", "none", "unspecified", "notfinished"})
_STOPS: Final = {
    "length": Stop.LENGTH,
    "maxtokens": Stop.LENGTH,  # Anthropic, Bedrock, Gemini, Cohere
    "maxoutputtokens": Stop.LENGTH,  # OpenAI's Responses API
    "maxlength": Stop.LENGTH,
    "modellength": Stop.LENGTH,  # Mistral
    "modelcontextwindowexceeded": Stop.LENGTH,  # Anthropic
    "contextlengthexceeded": Stop.LENGTH,
    "contextwindowexceeded": Stop.LENGTH,
    "maxcontextlength": Stop.LENGTH,
    "maxnewtokens": Stop.LENGTH,
    "errorlimit": Stop.LENGTH,  # Cohere
    "tokenlimit": Stop.LENGTH,  # watsonx
    "tokenlimitreached": Stop.LENGTH,
    "contentfilter": Stop.CONTENT_FILTER,
    "contentfiltered": Stop.CONTENT_FILTER,  # Bedrock
    "guardrailintervened": Stop.CONTENT_FILTER,  # Bedrock
    "safety": Stop.CONTENT_FILTER,  # from here on Gemini
    "recitation": Stop.CONTENT_FILTER,
    "blocklist": Stop.CONTENT_FILTER,
    "prohibitedcontent": Stop.CONTENT_FILTER,
    "spii": Stop.CONTENT_FILTER,
    "imagesafety": Stop.CONTENT_FILTER,
    "language": Stop.CONTENT_FILTER,
    "sensitive": Stop.CONTENT_FILTER,  # Zhipu
    "errortoxic": Stop.CONTENT_FILTER,  # Cohere
    "refusal": Stop.CONTENT_FILTER,  # Anthropic
    "error": Stop.FAILURE,
    "servererror": Stop.FAILURE,
    "timeout": Stop.FAILURE,
    "timelimit": Stop.FAILURE,  # watsonx
    "cancelled": Stop.FAILURE,  # watsonx
    "canceled": Stop.FAILURE,
    "abort": Stop.FAILURE,  # vLLM
    "networkerror": Stop.FAILURE,  # Zhipu
    "insufficientsystemresource": Stop.FAILURE,  # DeepSeek
}


def _squeeze(reason: str) -> str:
    """``MAX_TOKENS``, ``max-tokens`` and ``FinishReason.MAX_TOKENS`` are the same word."""
    return re.sub(r"[^a-z]", "", reason.lower()).removeprefix("finishreason")


def is_finish_reason(reason: str | None) -> bool:
    """Whether it is a finish reason. Empty text and "null" are not."""
    return reason is not None and bool(reason.strip()) and _squeeze(reason) not in _NO_REASON


def stop_of(reason: str | None) -> Stop:
    """What a finish reason means in the words of any API; unknown words mean an ordinary end."""
    return _STOPS.get(_squeeze(reason or ""), Stop.END)


# Which choice is finished, and whether finish reasons prove anything.


class Reasons(Enum):
    """What is known of a server's finish reasons."""

    UNPROVEN = "all content so far came with a finish reason"
    RELIABLE = "content came without a finish reason, and none came after one"
    UNRELIABLE = "content came after a finish reason"


class Step(Enum):
    """What a chunk brings to a choice. Content is text, reasoning, a refusal or a call."""

    NOTHING = "neither content nor a finish reason"
    REASON = "a finish reason alone"
    CONTENT = "content, before any finish reason"
    CONTENT_AND_REASON = "content and the first finish reason"
    LATE_CONTENT = "content after a finish reason"
    LATE_CONTENT_AND_REASON = "content after a finish reason, and another one"

    @property
    def is_late(self) -> bool:
        """Whether it shows that an earlier finish reason did not end the choice."""
        return self in (Step.LATE_CONTENT, Step.LATE_CONTENT_AND_REASON)


def step_of(*, has_content: bool, has_reason: bool, had_reason: bool) -> Step:
    """The step of a chunk, for a choice that had a finish reason before or not."""
    if not has_content:
        return Step.REASON if has_reason else Step.NOTHING
    if had_reason:
        return Step.LATE_CONTENT_AND_REASON if has_reason else Step.LATE_CONTENT
    return Step.CONTENT_AND_REASON if has_reason else Step.CONTENT


IS_FINISHED: Final[dict[Step, bool | None]] = {
    Step.NOTHING: None,  # as before
    Step.REASON: True,
    Step.CONTENT: False,
    Step.CONTENT_AND_REASON: True,
    Step.LATE_CONTENT: False,
    Step.LATE_CONTENT_AND_REASON: True,
}
"""Whether a choice is finished after a step: it has a finish reason, and nothing came later."""

AFTER: Final[dict[tuple[Reasons, Step], Reasons]] = {
    (Reasons.UNPROVEN, Step.NOTHING): Reasons.UNPROVEN,
    (Reasons.UNPROVEN, Step.REASON): Reasons.UNPROVEN,
    (Reasons.UNPROVEN, Step.CONTENT): Reasons.RELIABLE,
    # Perhaps the whole answer in one chunk, perhaps a server with a reason on every chunk.
    (Reasons.UNPROVEN, Step.CONTENT_AND_REASON): Reasons.UNPROVEN,
    (Reasons.UNPROVEN, Step.LATE_CONTENT): Reasons.UNRELIABLE,
    (Reasons.UNPROVEN, Step.LATE_CONTENT_AND_REASON): Reasons.UNRELIABLE,
    (Reasons.RELIABLE, Step.NOTHING): Reasons.RELIABLE,
    (Reasons.RELIABLE, Step.REASON): Reasons.RELIABLE,
    (Reasons.RELIABLE, Step.CONTENT): Reasons.RELIABLE,
    (Reasons.RELIABLE, Step.CONTENT_AND_REASON): Reasons.RELIABLE,
    (Reasons.RELIABLE, Step.LATE_CONTENT): Reasons.UNRELIABLE,
    (Reasons.RELIABLE, Step.LATE_CONTENT_AND_REASON): Reasons.UNRELIABLE,
    (Reasons.UNRELIABLE, Step.NOTHING): Reasons.UNRELIABLE,
    (Reasons.UNRELIABLE, Step.REASON): Reasons.UNRELIABLE,
    (Reasons.UNRELIABLE, Step.CONTENT): Reasons.UNRELIABLE,
    (Reasons.UNRELIABLE, Step.CONTENT_AND_REASON): Reasons.UNRELIABLE,
    (Reasons.UNRELIABLE, Step.LATE_CONTENT): Reasons.UNRELIABLE,
    (Reasons.UNRELIABLE, Step.LATE_CONTENT_AND_REASON): Reasons.UNRELIABLE,
}
"""What is known of finish reasons after a step. A finished choice is over at once if they are
reliable, else when the stream is over."""


# Which call a piece belongs to.


class Index(Enum):
    """The ``index`` of a piece."""

    MISSING = "no index"
    NEW = "an index that no piece of the choice had"
    KNOWN = "the index of an earlier piece"


class ID(Enum):
    """The ``id`` of a piece."""

    MISSING = "no id"
    SAME = "the id of the call at its index"
    OTHER = "the id of another call"
    LATE = "a new id, and the call at its index has none yet"
    NEW = "a new id"


class Target(Enum):
    """The call that a piece goes to."""

    OPEN = "a new call"
    AT_INDEX = "the call at its index"
    WITH_ID = "the latest call with its id"
    LAST = "the last call to have begun"
    UNFINISHED = "the call at its index if that has its name and is unfinished, else a new call"


TARGETS: Final[dict[tuple[Index, ID, bool], Target]] = {
    # The third is whether the piece has a name.
    (Index.MISSING, ID.MISSING, False): Target.LAST,
    (Index.MISSING, ID.MISSING, True): Target.LAST,
    (Index.MISSING, ID.OTHER, False): Target.WITH_ID,
    (Index.MISSING, ID.OTHER, True): Target.WITH_ID,
    (Index.MISSING, ID.NEW, False): Target.LAST,  # some servers send a new id in each piece
    (Index.MISSING, ID.NEW, True): Target.OPEN,
    (Index.NEW, ID.MISSING, False): Target.LAST,  # some servers count pieces instead of calls
    (Index.NEW, ID.MISSING, True): Target.OPEN,
    (Index.NEW, ID.OTHER, False): Target.WITH_ID,
    (Index.NEW, ID.OTHER, True): Target.OPEN,  # some servers send one id for all calls
    (Index.NEW, ID.NEW, False): Target.OPEN,
    (Index.NEW, ID.NEW, True): Target.OPEN,
    (Index.KNOWN, ID.MISSING, False): Target.AT_INDEX,
    (Index.KNOWN, ID.MISSING, True): Target.AT_INDEX,
    (Index.KNOWN, ID.SAME, False): Target.AT_INDEX,
    (Index.KNOWN, ID.SAME, True): Target.AT_INDEX,
    (Index.KNOWN, ID.OTHER, False): Target.WITH_ID,  # some servers send one index for all calls
    (Index.KNOWN, ID.OTHER, True): Target.WITH_ID,
    (Index.KNOWN, ID.LATE, False): Target.AT_INDEX,
    (Index.KNOWN, ID.LATE, True): Target.AT_INDEX,
    (Index.KNOWN, ID.NEW, False): Target.AT_INDEX,  # some servers send a new id in each piece
    (Index.KNOWN, ID.NEW, True): Target.UNFINISHED,
}
"""Where a piece goes. It opens a new call if there is no such call, or if it begins the next one
(``BEGINS_NEXT``)."""


class Progress(Enum):
    """How complete the arguments are in the call that a piece with a name would continue."""

    NONE = "none, or an empty object, which may be a placeholder"
    BEGUN = "begun"
    WHOLE = "one whole JSON value"


class Adds(Enum):
    """What a piece with a name adds to the arguments."""

    NOTHING = "nothing"
    REPETITION = "the same arguments again"
    MORE = "other arguments"


BEGINS_NEXT: Final[dict[tuple[Progress, bool, Adds], bool]] = {
    # The second is whether the piece has the name of the call.
    (Progress.NONE, True, Adds.NOTHING): False,
    (Progress.NONE, True, Adds.REPETITION): False,
    (Progress.NONE, True, Adds.MORE): False,
    (Progress.NONE, False, Adds.NOTHING): True,
    (Progress.NONE, False, Adds.REPETITION): True,
    (Progress.NONE, False, Adds.MORE): True,
    (Progress.BEGUN, True, Adds.NOTHING): False,
    (Progress.BEGUN, True, Adds.REPETITION): False,
    (Progress.BEGUN, True, Adds.MORE): False,
    (Progress.BEGUN, False, Adds.NOTHING): False,
    (Progress.BEGUN, False, Adds.REPETITION): False,
    (Progress.BEGUN, False, Adds.MORE): False,
    (Progress.WHOLE, True, Adds.NOTHING): False,  # some servers repeat the name in each piece
    (Progress.WHOLE, True, Adds.REPETITION): False,
    (Progress.WHOLE, True, Adds.MORE): True,
    (Progress.WHOLE, False, Adds.NOTHING): True,
    (Progress.WHOLE, False, Adds.REPETITION): True,
    (Progress.WHOLE, False, Adds.MORE): True,
}
"""Whether a piece with a name begins the next call instead of continuing this one."""


# When a call is done.


class Arguments(Enum):
    """What the arguments of a call look like."""

    WHOLE = "one whole object, array or string of JSON"
    ENDED = "a number, or text that is not JSON"
    MISSING = "none, or an empty object in the piece that opened the call"
    BEGUN = "the start of a JSON value"


class Occasion(Enum):
    """When the state machine checks whether a call is done."""

    NEXT_CALL = "another call of the choice has begun"
    CHOICE_OVER = "the choice is over"
    STREAM_OVER = "the stream is over, and the model was done"
    CUT_SHORT = "the stream is over, and the model was stopped in the middle"


IS_DONE: Final[dict[tuple[Arguments, Occasion], bool]] = {
    (Arguments.WHOLE, Occasion.NEXT_CALL): True,
    (Arguments.WHOLE, Occasion.CHOICE_OVER): True,
    (Arguments.WHOLE, Occasion.STREAM_OVER): True,
    (Arguments.WHOLE, Occasion.CUT_SHORT): True,
    (Arguments.ENDED, Occasion.NEXT_CALL): False,
    (Arguments.ENDED, Occasion.CHOICE_OVER): True,
    (Arguments.ENDED, Occasion.STREAM_OVER): True,
    (Arguments.ENDED, Occasion.CUT_SHORT): True,
    # What follows may still change these. A finish reason can come before the arguments, and
    # gateways to APIs in which a call begins with an empty input open each call with {}.
    (Arguments.MISSING, Occasion.NEXT_CALL): False,
    (Arguments.MISSING, Occasion.CHOICE_OVER): False,
    (Arguments.MISSING, Occasion.STREAM_OVER): True,
    (Arguments.MISSING, Occasion.CUT_SHORT): False,
    (Arguments.BEGUN, Occasion.NEXT_CALL): False,
    (Arguments.BEGUN, Occasion.CHOICE_OVER): False,
    (Arguments.BEGUN, Occasion.STREAM_OVER): False,
    (Arguments.BEGUN, Occasion.CUT_SHORT): False,
}
"""Whether a call is done. One that is not done when the stream is over was cut off."""
