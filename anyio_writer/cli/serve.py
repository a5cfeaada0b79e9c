"""The command ``serve``: runs the test server on a port, to try clients against it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack
from itertools import count, cycle
from time import strftime
from typing import Final

from ..testing import ChatServer, RecordedRequest, Reply, ReplyBuilder
from .exits import CommandError, Exit
from .output import Output
from .scripted import Style, reply_for
from .terminal import wrapped
from .text import one_line

_BODY: Final = json.dumps(
    {
        "model": "palmyra-x5",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
    }
)
_AUTO: Final = "it sends synthetic answers that fit the requests"
_INTRODUCTION: Final = "Serving on {url}: there is no model, {answers}. Ctrl-C ends it."
_COMMANDS: Final = """

    curl -N {url}/v1/chat -H 'content-type: application/json' -d '{body}'
    WRITER_API_KEY=any anyio-writer chat --base-url {url} Hello

"""


async def serve(replies: Iterable[str], style: Style, *, host: str, port: int) -> None:
    """Serve until cancelled, and log each request in one line on standard error.

    Args:
        replies: One for each request, in the words of ``scripted.SYNTAX``; after the last one
            the first one again.
        style: What they have in common.
        host: The address to listen on.
        port: The port; 0 lets the system choose.

    Raises:
        CommandError: A reply cannot be understood, or the server cannot listen there.
    """
    out = Output(sys.stdout)
    words = list(replies)
    try:
        builders = [reply_for(each, style) for each in words]
    except ValueError as exc:
        raise CommandError(f"--reply: {one_line(str(exc))}", Exit.USAGE) from exc
    server = ChatServer(_in_turn(builders), host=host, port=port)
    async with AsyncExitStack() as running:
        try:
            await running.enter_async_context(server)
        except OSError as exc:
            # An event loop adds the address to what the system says. A name that is not known has
            # a number of its own.
            number = exc.errno or 0
            said = os.strerror(number) if number > 0 else exc.strerror or str(exc)
            said = one_line(f"cannot listen on {host}:{port}: {said}")
            raise CommandError(said, Exit.USAGE) from exc
        answers = _AUTO if words == ["auto"] else one_line(f"it answers {' · '.join(words)}", 80)
        sentence = _INTRODUCTION.format(url=server.url, answers=answers)
        commands = _COMMANDS.format(url=server.url, body=_BODY)  # not wrapped, to be copied
        await out.write(wrapped(sentence, sys.stdout) + commands)
        for index in count():
            request = await server.wait_request(index)
            print(strftime("%H:%M:%S"), _logged(request), file=sys.stderr, flush=True)


def _in_turn(builders: Iterable[ReplyBuilder]) -> ReplyBuilder:
    turn = cycle(builders)

    def build(request: RecordedRequest) -> Reply:
        return next(turn)(request)

    return build


def _logged(request: RecordedRequest) -> str:
    try:
        model = str(request.json()["model"])
    except (ValueError, KeyError, TypeError, RecursionError):
        model = "-"
    facts = f"{request.method} {request.target} model={model} {len(request.body)} bytes"
    return one_line(facts, 200)
