"""The server of the soak test, in a process of its own: what it remembers is not measured."""

from __future__ import annotations

import anyio

from anyio_writer.testing import (
    ChatServer,
    RecordedRequest,
    Reply,
    error_reply,
    sse_event,
    writer_chunks,
)

PIECES = [sse_event(each) for each in writer_chunks("one two three four five", usage=True)]


def reply(request: RecordedRequest) -> Reply:
    """What the request's one message asks for."""
    fault = request.json()["messages"][0]["content"]
    if fault == "status":
        return error_reply(400)
    return Reply(
        body=PIECES,
        pace=0.001 if fault == "slow" else 0,
        cut_after=len(PIECES[0]) + 20 if fault == "cut" else None,
        reset_after=len(PIECES[0]) + 20 if fault == "reset" else None,
    )


async def serve() -> None:
    async with ChatServer(default=reply) as server:
        print(server.url, flush=True)
        while True:  # what it has seen is of no interest
            await anyio.sleep(1)
            server.requests.clear()
            server.connections.clear()


if __name__ == "__main__":
    anyio.run(serve)
