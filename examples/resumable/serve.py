"""Serve app.py with Hypercorn on trio, as one process or as a demonstration of two.

python -m examples.resumable.serve --demo    Redis, a built-in model, and two servers: no key
python -m examples.resumable.serve           one server; needs WRITER_API_KEY and REDIS_URL
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import partial
from typing import Any, Final, cast

import anyio
from hypercorn.config import Config
from hypercorn.trio import serve  # pyright: ignore[reportUnknownVariableType]

from anyio_writer.testing import ChatServer, text_reply

ANSWER: Final = (
    "One server asks the model, and every server can show what it says. Load this page again: all "
    "of the text is back, and it goes on. Open its address in a second tab, or at the other "
    "server: both go on at the same time. Press Stop in either of them. Or kill the server that "
    "asks the model: the text stays, the page says what happened, and you can ask again. "
)
PAUSE: Final = 3.0  # seconds until a server that was killed is started again


async def stopped() -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            return


async def serve_one(port: int) -> None:
    from examples.resumable.app import app  # noqa: PLC0415 - the demonstration needs no Redis yet

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    await serve(cast("Any", app), config, shutdown_trigger=stopped)  # prints where it listens


async def demonstrate(port: int) -> None:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        sys.exit("The demonstration wants Redis or Valkey: apt-get install redis-server")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        redis_port = listener.getsockname()[1]
    async with ChatServer(text_reply(ANSWER * 3, pace=0.15)) as model:
        environment = os.environ | {
            "WRITER_API_KEY": "demo",
            "WRITER_BASE_URL": model.url,
            "REDIS_URL": f"redis://127.0.0.1:{redis_port}",
            "NO_PROXY": "*",
        }
        with tempfile.TemporaryDirectory() as folder:
            redis = f"{program} --bind 127.0.0.1 --port {redis_port} --dir {folder} --save".split()
            async with anyio.create_task_group() as outer:
                outer.start_soon(keep_running, "Redis", [*redis, ""], environment)
                await listening(redis_port)
                async with anyio.create_task_group() as servers:  # they end before Redis does
                    for name, each in (("a server", port), ("another server", port and port + 1)):
                        command = [sys.executable, "-m", __spec__.name, "--port", str(each)]
                        servers.start_soon(keep_running, name, command, environment)
                    print("Ask at one of them, and open the page's address at the other one, too.")
                    await stopped()
                    servers.cancel_scope.cancel()
                outer.cancel_scope.cancel()


async def keep_running(name: str, command: list[str], environment: dict[str, str]) -> None:
    """Run a program, again and again; end it when this is cancelled."""
    while True:
        async with await anyio.open_process(
            command, stdout=subprocess.DEVNULL, stderr=None, env=environment
        ) as process:
            print(f"Process {process.pid} is {name}", flush=True)
            try:
                await process.wait()
            finally:
                if process.returncode is None:
                    process.terminate()
                    with anyio.move_on_after(PAUSE, shield=True):
                        await process.wait()
        print(f"Process {process.pid} has ended, another one follows", flush=True)
        await anyio.sleep(PAUSE)


async def listening(port: int) -> None:
    with anyio.fail_after(10):
        while True:
            try:
                stream = await anyio.connect_tcp("127.0.0.1", port)
            except OSError:
                await anyio.sleep(0.05)
            else:
                return await stream.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--demo", action="store_true", help="two servers, and all that they need")
    parser.add_argument("--port", type=int, default=8080, help="0 lets the system choose")
    arguments = parser.parse_args()
    run = demonstrate if arguments.demo else serve_one
    anyio.run(partial(run, arguments.port), backend="trio")
