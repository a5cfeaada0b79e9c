"""The command ``record``: writes the body of a response to a file while its answer is shown.

The file has the bytes of the body as the server sent them: an event stream, without HTTP's headers
and chunk sizes. That is what ``curl -N`` prints, and what ``chat_stream_from`` reads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager

import anyio
import httpx

from .exits import CommandError, Exit
from .run import Question, chat
from .text import one_line
from .view import notice


async def record(path: str, question: Question, *, overwrite: bool) -> None:
    """Ask, print the answer as it comes, and write the response to a file.

    The file is made, or overwritten, once the server has accepted the request. If the answer fails,
    the file has what arrived of it.

    Raises:
        CommandError: Any failure.
    """
    if not overwrite and await anyio.Path(path).exists():
        raise CommandError(f"{one_line(path)} exists. --overwrite replaces it.", Exit.USAGE)
    recordings: list[_RecordedBody] = []

    async def begin(response: httpx.Response) -> None:
        if response.is_success:
            body = await _recorded(response, path)
            recordings.append(body)
            response.stream = body

    async with httpx.AsyncClient(event_hooks={"response": [begin]}) as client:
        try:
            await chat(question, as_json=False, client=client)
        finally:
            for recording in recordings:
                notice(f"{recording.size:,} bytes recorded in {one_line(path)}")


class _RecordedBody(httpx.AsyncByteStream):
    """A body that is copied to a file while it is read.

    Attributes:
        size: Bytes copied so far.
    """

    def __init__(
        self, body: httpx.AsyncByteStream, file: anyio.AsyncFile[bytes], path: str
    ) -> None:
        self.size = 0
        self._body = body
        self._file = file
        self._path = path

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._body:
            with _file_errors(self._path):
                await self._file.write(data)
            self.size += len(data)
            yield data

    async def aclose(self) -> None:
        try:
            await self._file.aclose()
        finally:
            await self._body.aclose()


async def _recorded(response: httpx.Response, path: str) -> _RecordedBody:
    encoding = response.headers.get("content-encoding", "identity")
    body = response.stream
    if encoding != "identity" or not isinstance(body, httpx.AsyncByteStream):
        raise CommandError(
            f"the response is encoded as {one_line(encoding)}, although identity was asked for. "
            "Only a response that is not compressed can be recorded.",
            Exit.BROKEN_ANSWER,
        )
    with _file_errors(path):
        # Unbuffered, so that the file can be followed while it grows.
        return _RecordedBody(body, await anyio.open_file(path, "wb", buffering=0), path)


@contextmanager
def _file_errors(path: str) -> Generator[None]:
    """Name the file in errors: else they would be taken for errors of the network."""
    try:
        yield
    except OSError as exc:
        said = f"cannot write {one_line(path)}: {exc.strerror or exc}"
        raise CommandError(said, Exit.UNEXPECTED) from exc
