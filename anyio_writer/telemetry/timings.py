"""When what happened in a stream: the record that users read."""

from __future__ import annotations

import msgspec


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """When things happened, in seconds since the request was first sent; None if they have not.

    The times come from the event loop's clock, which is monotonic. The times of a stream without a
    request (``chat_stream_from``) count from when it was opened; it has no headers.

    Attributes:
        started_at: When the request was first sent, in seconds since 1970.
        request_sent: When the request was last sent. This is 0 unless it was sent again.
        headers: When the headers of the response arrived.
        first_chunk: When the first chunk arrived.
        first_content: When the first content arrived: text, reasoning, a refusal, a tool call or a
            finish reason. ``Timeouts.first_content`` limits this time. Keep-alives and empty
            chunks are not content.
        last_content: When the last content arrived.
        ended: When the stream ended. If a subscriber was slow, the last bytes may have arrived
            earlier.
        attempts: How often the request was sent.
        chunk_count: How many chunks arrived.
        bytes_received: How many bytes of the body arrived.
        completion_tokens: How many tokens the model generated, if the server reported it.
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
        """The speed of the model: its tokens, divided by the time from first to last content.

        None while the token count is unknown (``stream_options={"include_usage": True}`` asks for
        it), or if all content arrived at once.
        """
        if self.completion_tokens is None or self.first_content is None:
            return None
        seconds = (self.last_content or 0.0) - self.first_content
        return self.completion_tokens / seconds if seconds > 0 else None
