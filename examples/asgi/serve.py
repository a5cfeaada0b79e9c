"""Serve app.py with Hypercorn on trio.

python -m examples.asgi.serve --demo    a built-in server answers: no key, no model
python -m examples.asgi.serve           the API answers; needs WRITER_API_KEY
"""

import argparse
import os
import signal
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, cast

import anyio
from hypercorn.config import Config
from hypercorn.trio import serve  # pyright: ignore[reportUnknownVariableType]

from anyio_writer.testing import ChatServer, text_reply
from examples.asgi.app import app

ANSWER = (
    "Every window that shows this topic reads the same stream. Open another one now: it begins "
    "with the text so far and goes on from here, word by word, at the same time as this one. "
    "Close one, and the other does not notice. Close them all before the end, and the stream is "
    "closed on the spot: what nobody reads, nobody pays for. "
)


async def stopped() -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            return


async def main(*, demo: bool, port: int) -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    async with AsyncExitStack() as stack:
        if demo:
            server = await stack.enter_async_context(ChatServer(text_reply(ANSWER * 2, pace=0.15)))
            os.environ |= {"WRITER_API_KEY": "demo", "WRITER_BASE_URL": server.url, "NO_PROXY": "*"}
        await serve(cast("Any", app), config, shutdown_trigger=stopped)  # prints where it listens


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--demo", action="store_true", help="answer from a built-in server")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    anyio.run(partial(main, demo=arguments.demo, port=arguments.port), backend="trio")
