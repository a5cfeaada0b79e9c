"""The command ``serve``: the test server on a port, for trying clients against it."""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack
from itertools import count
from time import strftime
from typing import Final

from ..testing import ChatServer, RecordedRequest, text_reply
from .exits import CommandError, Exit
from .output import Output
from .text import one_line

_BODY: Final = json.dumps(
    {
        "model": "palmyra-x5",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
    }
)
_INTRODUCTION: Final = """\
Serving on {url}: every POST gets the same answer, there is no model. Ctrl-C ends it.

    curl -N {url}/v1/chat -H 'content-type: application/json' -d '{body}'
    WRITER_API_KEY=any anyio-writer chat --base-url {url} Hello

"""


async def serve(text: str, *, host: str, port: int, pace: float, done: bool) -> None:
    """Serve until cancelled, and log each request in one line on standard error.

    Raises:
        CommandError: The server cannot listen there.
    """
    out = Output(sys.stdout)
    server = ChatServer(text_reply(text, pace=pace, done=done), host=host, port=port)
    async with AsyncExitStack() as running:
        try:
            await running.enter_async_context(server)
        except OSError as exc:
            said = one_line(f"cannot listen on {host}:{port}: {exc.strerror or exc}")
            raise CommandError(said, Exit.USAGE) from exc
        await out.write(_INTRODUCTION.format(url=server.url, body=_BODY))
        for index in count():
            request = await server.wait_request(index)
            print(strftime("%H:%M:%S"), _logged(request), file=sys.stderr, flush=True)


def _logged(request: RecordedRequest) -> str:
    try:
        model = str(request.json()["model"])
    except (ValueError, KeyError, TypeError, RecursionError):
        model = "-"
    facts = f"{request.method} {request.target} model={model} {len(request.body)} bytes"
    return one_line(facts, 200)
