"""Text or tool calls -> chat completion chunks, shaped as the API shapes them."""

import copy
import itertools
import random
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Chunk: TypeAlias = dict[str, Any]
"""One chunk, ready for JSON: ``{"id": ..., "choices": [...], ...}``."""

DEFAULT_MODEL: Final = "palmyra-x5"

TOKEN_PATTERN: Final = r"\s*\S{1,8}|\s+"  # noqa: S105 - no such token
"""Every character is a space or not, so the matches cover any text without a gap."""

_CREATED: Final = 1_755_000_000  # seconds since 1970; fixed, as all here is reproducible
_PROMPT_TOKENS: Final = 12


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """What one chunk says about one choice."""

    content: str | None = None
    tool_call: dict[str, object] | None = None
    finish_reason: str | None = None
    logprobs: dict[str, object] | None = None

    def message(self) -> Chunk:
        # A new object each time, so that editing one chunk does not change the others.
        return {
            "content": self.content,
            "role": "assistant",  # the API repeats it in every delta
            "tool_calls": self.tool_call and [copy.deepcopy(self.tool_call)],
            "graph_data": {"sources": None, "status": None, "subqueries": None, "references": None},
            "llm_data": None,
            "image_data": None,
            "translation_data": None,
            "web_search_data": None,
            "trace_details": None,
            "refusal": None,
        }


@dataclass(frozen=True, kw_only=True)
class _Writer:
    """Wraps pieces into chunks, with ids out of a seeded source."""

    model: str
    source: random.Random

    def chunk(self, choices: list[dict[str, object]], usage: Chunk | None = None) -> Chunk:
        return {
            # Unlike other servers, this API gives every chunk an id of its own.
            "id": str(uuid.UUID(int=self.source.getrandbits(128), version=4)),
            "object": "chat.completion.chunk",
            "choices": choices,
            "created": _CREATED,
            "model": self.model,
            "usage": usage,
            "system_fingerprint": "v1",
            "service_tier": None,
        }

    def wrap(self, index: int, piece: _Piece) -> Chunk:
        return self.chunk(
            [
                {
                    "index": index,
                    "finish_reason": piece.finish_reason,
                    "message": piece.message(),  # deprecated by the API, and still sent
                    "delta": piece.message(),
                    "logprobs": piece.logprobs,
                }
            ]
        )

    def usage(self, completion_tokens: int) -> Chunk:
        counts: Chunk = {
            "prompt_tokens": _PROMPT_TOKENS,
            "completion_tokens": completion_tokens,
            "total_tokens": _PROMPT_TOKENS + completion_tokens,
            "prompt_token_details": None,
            "completion_tokens_details": None,
        }
        return self.chunk([], counts)

    def logprobs(self, token: str) -> dict[str, object]:
        entry: dict[str, object] = {
            "token": token,
            "logprob": round(-self.source.random(), 4),
            "bytes": list(token.encode()),
            "top_logprobs": [],
        }
        return {"content": [entry], "refusal": None}


def tokens(text: str, pattern: str = TOKEN_PATTERN) -> list[str]:
    """Split a text into tokens: pieces of words, with the spaces before them.

    Args:
        text: Any text.
        pattern: A regular expression. Each match is a token.

    Returns:
        The tokens. Joined, they are the text.

    Raises:
        ValueError: The pattern leaves out part of the text.
    """
    # Not findall(), which would return only the groups of a pattern that has some.
    found = [match[0] for match in re.finditer(pattern, text) if match[0]]
    if "".join(found) != text:
        raise ValueError(f"the pattern {pattern!r} does not cover the text")
    return found


def writer_chunks(
    text: str | Sequence[str],
    *,
    model: str = DEFAULT_MODEL,
    finish_reason: str = "stop",
    logprobs: bool = False,
    usage: bool = False,
    token_pattern: str = TOKEN_PATTERN,
    seed: int = 0,
) -> list[Chunk]:
    """Make the chunks of a text answer, as Writer's API sends them.

    Args:
        text: The text, or one text for each choice. The choices take turns, chunk by chunk.
        model: The model's name in the chunks.
        finish_reason: The finish reason in the last chunk of each choice.
        logprobs: Whether each token has a (synthetic) log probability.
        usage: Whether a last chunk without choices has the usage.
        token_pattern: What a token is, as in `tokens`.
        seed: The seed for the IDs. The same arguments make the same chunks.

    Returns:
        For each choice a chunk without content, one for each token, and one with the finish reason.

    Raises:
        ValueError: The pattern leaves out part of a text.
    """
    writer = _Writer(model=model, source=random.Random(seed))  # no secret
    texts = [text] if isinstance(text, str) else text
    split = [tokens(each, token_pattern) for each in texts]

    def said(choice: list[str]) -> Iterator[_Piece]:
        yield _Piece()
        for token in choice:
            yield _Piece(content=token, logprobs=writer.logprobs(token) if logprobs else None)
        yield _Piece(finish_reason=finish_reason)

    chunks = [
        writer.wrap(index, piece)
        for turn in itertools.zip_longest(*map(said, split))
        for index, piece in enumerate(turn)
        if piece is not None  # this choice was finished in an earlier turn
    ]
    if usage:
        chunks.append(writer.usage(sum(map(len, split))))
    return chunks


def tool_call_chunks(
    calls: Sequence[tuple[str, str]],
    *,
    pieces: int = 4,
    text: str = "",
    model: str = DEFAULT_MODEL,
    usage: bool = False,
    seed: int = 0,
) -> list[Chunk]:
    """Make the chunks of an answer that calls tools, as Writer's API sends them.

    Args:
        calls: The name and the arguments of each call. The arguments are JSON, or any other text.
        pieces: Into how many chunks the arguments of a call are cut, if they are long enough.
        text: What the model says before the calls.
        model: The model's name in the chunks.
        usage: Whether a last chunk without choices has the usage.
        seed: The seed for the IDs. The same arguments make the same chunks.

    Returns:
        A chunk without content and one for each token of the text; for each call, one that opens it
        and those with its arguments. The last of these also has the finish reason.
    """
    writer = _Writer(model=model, source=random.Random(seed))  # no secret
    said = [_Piece(), *(_Piece(content=token) for token in tokens(text))]
    for index, (name, arguments) in enumerate(calls):
        call_id = f"chatcmpl-tool-{writer.source.getrandbits(128):032x}"
        said.append(_Piece(tool_call=_call(index, None, call_id=call_id, name=name)))
        said += (_Piece(tool_call=_call(index, part)) for part in _parts(arguments, pieces))
    last = _Piece(
        content=said[-1].content, tool_call=said[-1].tool_call, finish_reason="tool_calls"
    )
    chunks = [writer.wrap(0, piece) for piece in (*said[:-1], last)]
    if usage:
        chunks.append(writer.usage(len(said)))
    return chunks


def _call(
    index: int, arguments: str | None, *, call_id: str | None = None, name: str | None = None
) -> dict[str, object]:
    return {
        "index": index,
        "id": call_id,
        "type": call_id and "function",  # null again once the call is open
        "function": {"name": name, "arguments": arguments},
    }


def _parts(text: str, count: int) -> list[str]:
    size = max(1, -(-len(text) // max(1, count)))
    return [text[start : start + size] for start in range(0, len(text), size)] or [""]
