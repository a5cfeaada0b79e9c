"""When what happened in a stream: the record that users read."""

from __future__ import annotations

import msgspec


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """When what happened, in seconds since the request was first sent; None for what has not.

    The times are those of the event loop's clock, which is monotonic. A stream over bytes from
    elsewhere counts from when it was opened; it has no request and no headers.

    Attributes:
        started_at: When the request was first sent, in seconds since 1970.
        request_sent: When it was sent for the last time: 0, unless it had to be sent again.
        headers: When the headers of the response to that came.
        first_chunk: When the first chunk came.
        first_content: When the first content came. Content is what the time limit of this name
            waits for: text, reasoning, a refusal, a tool call, a finish reason. Keep-alives and
            empty chunks are not content.
        last_content: When the last content came.
        ended: When it was known how the stream ended. What it ended with may have been read
            before that, if a subscriber was slow.
        attempts: How often the request was sent.
        chunk_count: How many chunks came.
        bytes_received: How many bytes of the body came.
        completion_tokens: How many tokens the model generated, if the server has said so.
    """

    started_at: float | None = None
    request_sent: float | None = None
    headers: float | None = None
    first_chunk: float | None = None
    first_content: float | None = None
    last_content: float | None = None
    ended: float | None = None
    attempts: int = 0
    chunk_count: int = 0
    bytes_received: int = 0
    completion_tokens: int | None = None

    def tokens_per_second(self) -> float | None:
        """How fast the model wrote: its tokens over the time from the first content to the last.

        None while the token count is unknown (``stream_options={"include_usage": True}`` asks for
        it), and where all content came at once.
        """
        if self.completion_tokens is None or self.first_content is None:
            return None
        seconds = (self.last_content or 0.0) - self.first_content
        return self.completion_tokens / seconds if seconds > 0 else None
