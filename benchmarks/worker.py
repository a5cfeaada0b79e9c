"""One client in a process of its own: tasks come in as lines of JSON, numbers go out."""

from __future__ import annotations

import importlib
import json
import logging
import resource
import sys
import traceback
from typing import Any

import anyio

from . import relay
from .clients import CLIENTS
from .measures import measure


def options(backend: str) -> tuple[str, dict[str, Any]]:
    """The backend as ``anyio.run`` wants it."""
    if backend != "uvloop":
        return backend, {}
    import uvloop

    return "asyncio", {"loop_factory": uvloop.new_event_loop}


async def bounded(run: Any, limit: float) -> Any:
    """What was measured; or that it took more than so many seconds, which is a result, too."""
    with anyio.move_on_after(limit):
        return await run()
    return {"gave_up_s": limit}


def main(url: str, client: str, backend: str) -> None:
    logging.disable()
    allow_many_files()
    name, backend_options = options(backend)
    importlib.import_module(CLIENTS[client].module)
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            task = json.loads(line)
            run = (
                relay.TASKS[task["measure"]](url, client, **task["arguments"])
                if task["measure"] in relay.TASKS
                else measure(url, client, task)
            )
            answer = anyio.run(
                bounded, run, task["limit"], backend=name, backend_options=backend_options
            )
        except Exception as exc:
            traceback.print_exc()
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer), flush=True)


def allow_many_files() -> None:
    """A thousand streams are a thousand files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16384 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, 65536)), hard))


if __name__ == "__main__":
    main(*sys.argv[1:])
