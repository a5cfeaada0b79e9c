"""One stream from the API for any number of listeners, for any framework and event loop."""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Generator
from typing import Final, TypeAlias

import anyio
import msgspec
from anyio.abc import TaskGroup

from anyio_writer import (
    APIError,
    APITimeoutError,
    AsyncWriter,
    ChatCompletionStream,
    ConsumerLagError,
    ContentDeltaEvent,
    ParsedChatCompletion,
    RateLimitError,
    StreamClosedError,
    WriterError,
)

MODEL: Final = "palmyra-x5"
MOST_WAITING: Final = 256  # pieces of text that a slow listener may be behind

Emit: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Sends server-sent events to one listener, and returns when it can take more."""

logger: Final = logging.getLogger(__name__)


class Broadcast:
    """One stream from the API, and how many listen to it."""

    def __init__(self, stream: ChatCompletionStream[None]) -> None:
        self.stream = stream
        self.listeners = 0
        self.is_over = False
        self.scope = anyio.CancelScope()
        self.opened = anyio.Event()  # the API has answered, or never will

    async def run(self) -> None:
        """Own the stream. The task that enters a stream leaves it: so none of a listener's."""
        try:
            with self.scope:
                async with self.stream:
                    self.opened.set()
                    await self.stream.until_done()
        except WriterError as exc:  # each listener gets it from its own subscription
            logger.warning("A stream failed: %s", exc)
        except Exception:  # a bug in one answer must not take all the others along
            logger.exception("A stream failed")
        finally:
            self.opened.set()

    async def send_to(self, emit: Emit) -> None:
        """Send one listener all there is: the text so far, the new pieces, and how it ended."""
        await self.opened.wait()
        while True:
            # A slow listener waits in its own emit(). "fail" never holds the stream back for it:
            # when its buffer is full, that ends this subscription alone, and the next one begins
            # with a new snapshot, which makes up for what was lost.
            deltas = self.stream.subscribe(
                ContentDeltaEvent, max_buffer=MOST_WAITING, on_full="fail"
            )
            await emit(frame("snapshot", text_of(deltas.snapshot)))
            try:
                async for batch in deltas.batches():
                    await emit(b"".join(frame("delta", event) for event in batch))
            except ConsumerLagError:
                continue
            except WriterError as exc:
                self.is_over = True
                await emit(frame("error", explain(exc)))
            else:
                self.is_over = True
                choice = self.stream.current_completion_snapshot.choices[0]
                await emit(frame("done", choice.finish_reason))
            return


class Broadcasts:
    """The streams that run now, by topic.

    Args:
        writer: Opens them.
        tasks: Where they run; it must outlive every listener.
    """

    def __init__(self, writer: AsyncWriter, tasks: TaskGroup) -> None:
        self._writer = writer
        self._tasks = tasks
        self._running: dict[str, Broadcast] = {}

    async def send_to(self, topic: str, emit: Emit) -> None:
        """Be a listener until the answer ends. To leave before, be cancelled."""
        with self._join(topic) as broadcast:
            await emit(b": joined\n\n")
            await broadcast.send_to(emit)

    @contextlib.contextmanager
    def _join(self, topic: str) -> Generator[Broadcast]:
        broadcast = self._running.get(topic)
        if broadcast is None:
            stream = self._writer.chat.stream(
                model=MODEL, messages=[{"role": "user", "content": topic}]
            )
            broadcast = self._running[topic] = Broadcast(stream)
            self._tasks.start_soon(self._run, topic, broadcast)
        broadcast.listeners += 1
        try:
            yield broadcast
        finally:
            broadcast.listeners -= 1
            if not broadcast.listeners:
                self._forget(topic, broadcast)
                if not broadcast.is_over:
                    broadcast.scope.cancel()

    async def _run(self, topic: str, broadcast: Broadcast) -> None:
        try:
            await broadcast.run()
        finally:
            self._forget(topic, broadcast)

    def _forget(self, topic: str, broadcast: Broadcast) -> None:
        """Whoever asks from now on gets a new stream."""
        if self._running.get(topic) is broadcast:
            del self._running[topic]


def frame(name: str, data: object) -> bytes:
    """One server-sent event; its data is JSON, which is never empty and has no line breaks."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


def text_of(completion: ParsedChatCompletion[None]) -> str:
    return "".join(choice.message.content or "" for choice in completion.choices)


def explain(error: WriterError) -> str:
    """One line for the public. Addresses, request ids and the like stay in the log."""
    if isinstance(error, RateLimitError):
        return "The model is busy. Please try again in a minute."
    if isinstance(error, APITimeoutError):
        return "The model took too long to answer."
    if isinstance(error, StreamClosedError):
        return "The service is stopping. Please try again in a moment."
    if isinstance(error, APIError) and error.completion is not None:
        return "The answer broke off."
    return "The model cannot answer now."
