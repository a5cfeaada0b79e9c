"""Servers that are not ours, each a process of its own. None needs the network.

LiteLLM's mock models answer by themselves. What it is asked of a model named ``upstream-...``
it hands on to a server that the test itself plays. nginx hands everything on to such a server.
llmock answers by itself, and goes wrong as it is told.
"""

import json
import shutil
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from anyio_writer.testing import ChatServer
from tests.interop.programs import Program, free_port, running

KEY: Final = "sk-interop-0123456789abcdef"
MOCK_TEXT: Final = "Hello from a proxy: one two three, naïve 😀."
UVICORN_IS_READY: Final = r"Uvicorn running on (http://[\d.:]+)"


def beside_python(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def litellm_config(upstream_port: int) -> str:
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


@pytest.fixture(scope="session")
def running_litellm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("litellm")
    program = Program(upstream_port=free_port())
    (folder / "config.yaml").write_text(litellm_config(program.upstream_port), encoding="utf-8")
    address = ("--host", "127.0.0.1", "--port", "0")
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches one
        "LITELLM_MASTER_KEY": KEY,
    }
    command = (beside_python("litellm"), "--config", "config.yaml", *address)
    with running(command, folder, ready=UVICORN_IS_READY, program=program, env=env):
        yield program


NGINX: Final = """
daemon off;
{user}
worker_processes 1;
pid nginx.pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    server {{
        listen 127.0.0.1:{port};
        location /buffered/ {{
            proxy_pass http://127.0.0.1:{upstream_port}/;
        }}
        location /unbuffered/ {{
            proxy_pass http://127.0.0.1:{upstream_port}/;
            proxy_buffering off;
        }}
        location /impatient/ {{
            proxy_pass http://127.0.0.1:{upstream_port}/;
            proxy_buffering off;
            proxy_read_timeout 300ms;
        }}
        location /gzip/ {{
            proxy_pass http://127.0.0.1:{upstream_port}/;
            gzip on;
            gzip_min_length 0;
            gzip_proxied any;
            gzip_types text/event-stream;
        }}
        location /closing/ {{
            proxy_pass http://127.0.0.1:{upstream_port}/;
            keepalive_timeout 0;
        }}
    }}
}}
"""


@pytest.fixture(scope="session")
def running_nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    # Debian keeps it where only root looks.
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        pytest.skip("there is no nginx")
    folder = tmp_path_factory.mktemp("nginx")
    port = free_port()
    program = Program(url=f"http://127.0.0.1:{port}", upstream_port=free_port())
    # Workers of root's nginx belong to somebody else, unless told so.
    user = "user root;" if folder.owner() == "root" else ""
    config = NGINX.format(user=user, port=port, upstream_port=program.upstream_port)
    (folder / "nginx.conf").write_text(config, encoding="utf-8")
    command = (nginx, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr")
    with running(command, folder, ready="start worker process ", program=program):
        yield program


@pytest.fixture(scope="session")
def running_llmock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    command = (beside_python("llmock"), "serve", "--port", "0")
    folder = tmp_path_factory.mktemp("llmock")
    with running(command, folder, ready=UVICORN_IS_READY, program=Program()) as program:
        yield program


def printing_its_log(program: Program) -> Iterator[Program]:
    """If the test fails, pytest shows what the program printed meanwhile."""
    start = len(program.log)
    yield program
    print("".join(program.log[start:]))


@pytest.fixture
def litellm(running_litellm: Program) -> Iterator[Program]:
    yield from printing_its_log(running_litellm)


@pytest.fixture
def nginx(running_nginx: Program) -> Iterator[Program]:
    yield from printing_its_log(running_nginx)


@pytest.fixture
async def llmock(running_llmock: Program) -> AsyncGenerator[Program]:
    """Without what an earlier test had it do."""
    async with httpx.AsyncClient(base_url=running_llmock.url) as admin:
        (await admin.post("/_llmock/reset")).raise_for_status()
    for program in printing_its_log(running_llmock):
        yield program


@pytest.fixture
async def behind_litellm(litellm: Program) -> AsyncGenerator[ChatServer]:
    async with ChatServer(port=litellm.upstream_port) as server:
        yield server


@pytest.fixture
async def behind_nginx(nginx: Program) -> AsyncGenerator[ChatServer]:
    async with ChatServer(port=nginx.upstream_port) as server:
        yield server
