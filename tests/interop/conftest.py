"""A LiteLLM proxy as a process of its own: an OpenAI-compatible server that is not ours.

Its mock models need no network. What it is asked of a model named ``upstream-...`` it
hands on to a server that the test itself plays, at ``LiteLLM.upstream_port``.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

KEY: Final = "sk-interop-0123456789abcdef"
MOCK_TEXT: Final = "Hello from a proxy: one two three, naïve 😀."
START_TIMEOUT: Final = 120  # seconds; it imports for ten on a good day
STOP_TIMEOUT: Final = 20  # seconds


@dataclass(kw_only=True)
class LiteLLM:
    """The running program.

    Attributes:
        url: Where it listens.
        upstream_port: Where it expects the server behind its ``upstream-...`` models.
        log: The lines it has printed.
    """

    url: str = ""
    upstream_port: int
    log: list[str] = field(default_factory=list)


def config(upstream_port: int) -> str:
    """The proxy's configuration: YAML, of which JSON is a part (but for its escapes)."""

    def model(name: str, **params: str) -> dict[str, object]:
        return {"model_name": name, "litellm_params": {"api_key": "none", **params}}

    upstream = f"http://127.0.0.1:{upstream_port}/v1"
    models = [
        model("fake", model="openai/fake", mock_response=MOCK_TEXT),
        model("limited", model="openai/fake", mock_response="litellm.RateLimitError"),
        model("upstream-*", model="openai/*", api_base=upstream),
    ]
    # A test that makes a model fail must not take it away from the next one.
    router = {"num_retries": 0, "disable_cooldowns": True}
    return json.dumps({"model_list": models, "router_settings": router}, ensure_ascii=False)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def running_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteLLM]:
    folder = tmp_path_factory.mktemp("litellm")
    proxy = LiteLLM(upstream_port=free_port())
    (folder / "config.yaml").write_text(config(proxy.upstream_port), encoding="utf-8")
    # Nothing of our own environment, which may hold keys, proxies and databases.
    env = {
        "HOME": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches one
        "LITELLM_MASTER_KEY": KEY,
        "PATH": os.environ["PATH"],
        "PYTHONUNBUFFERED": "1",
    }
    program = Path(sys.executable).with_name("litellm")
    ready = threading.Event()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            proxy.log.append(line)
            if found := re.search(r"Uvicorn running on (http://[\d.:]+)", line):
                proxy.url = found[1]
                ready.set()
        ready.set()  # it has ended

    with subprocess.Popen(
        [program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", "0"],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        listener = threading.Thread(target=listen)
        listener.start()
        try:
            ready.wait(START_TIMEOUT)
            assert proxy.url, f"litellm did not start:\n{''.join(proxy.log)}"
            yield proxy
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
            listener.join()


@pytest.fixture
def proxy(running_proxy: LiteLLM) -> Iterator[LiteLLM]:
    """The proxy; if the test fails, pytest shows what the proxy printed meanwhile."""
    start = len(running_proxy.log)
    yield running_proxy
    print("".join(running_proxy.log[start:]))
