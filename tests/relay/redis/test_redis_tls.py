"""TLS to a server whose certificate is checked."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import trustme

from anyio_writer import RelayUnavailableError
from anyio_writer.relay import RedisRelay
from tests.relay.redis.redis_server import RedisServer, free_port
from tests.relay.relay_helpers import HANGS, follow, hello, publish


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    port = free_port()
    server = RedisServer(
        folder / "server",
        f"tls-port {port}",
        f"tls-cert-file {folder / 'server.pem'}",
        f"tls-key-file {folder / 'server.pem'}",
        f"tls-ca-cert-file {folder / 'ca.pem'}",
        "tls-auth-clients no",
        "requirepass p@ss",
    )
    server.start()
    yield f"rediss://:p%40ss@localhost:{port}"
    server.kill()


async def test_a_certificate_that_is_trusted(url: str, authority: trustme.CA) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with RedisRelay(url, ssl_context=context) as relay:
        seen = await publish(relay, "answer", hello())
        assert seen.error is None
        assert (await follow(relay, "answer")).events == seen.events
        assert await relay.expire("answer")


async def test_a_certificate_that_is_not(url: str, authority: trustme.CA) -> None:
    """By default it is checked, and so is the name; that is told at once."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with anyio.fail_after(HANGS):
        with pytest.raises(RelayUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            async with RedisRelay(url, lease=60):
                raise AssertionError
        with pytest.raises(RelayUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            async with RedisRelay(url.replace("localhost", "127.0.0.1"), ssl_context=context):
                raise AssertionError


async def test_a_server_that_speaks_no_tls(redis: RedisServer) -> None:
    with anyio.fail_after(HANGS), pytest.raises(RelayUnavailableError):
        async with RedisRelay(f"rediss://127.0.0.1:{redis.port}", lease=0.3):
            raise AssertionError
