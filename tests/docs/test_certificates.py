"""The program with certificates in docs/guides/network.md, against a server that asks for them."""

from __future__ import annotations

import os
import ssl
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import pytest
import trustme
from anyio.abc import ByteStream
from anyio.streams.tls import TLSListener, TLSStream

from anyio_writer.testing import ChatServer, text_reply
from tests.blocks import ROOT, blocks_of

from .test_pages import free_port


@pytest.mark.anyio
async def test_both_sides_show_a_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    client = authority.issue_cert("client.example.org")
    client.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    (source,) = (
        block.source
        for block in blocks_of(ROOT / "docs/guides/network.md")
        if block.file == "mtls.py"
    )
    (tmp_path / "mtls.py").write_text(source)
    port = free_port()
    async with (
        ChatServer(text_reply("Trusted.")) as server,
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port) as listener,
        anyio.create_task_group() as tasks,
    ):
        encrypted = TLSListener(listener, context, standard_compatible=False)
        tasks.start_soon(encrypted.serve, partial(pass_on, url=server.url))
        settings = {
            "WRITER_API_KEY": "any",
            "WRITER_BASE_URL": f"https://localhost:{port}",
            "NO_PROXY": "*",
        }
        with anyio.fail_after(60):
            finished = await anyio.run_process(
                [sys.executable, "mtls.py"],
                cwd=tmp_path,
                env={**os.environ, **settings},
                stderr=None,
            )
        tasks.cancel_scope.cancel()
    assert finished.stdout == b"Trusted.\n"


async def pass_on(client: TLSStream, *, url: str) -> None:
    """What the client sends and gets, without its TLS."""
    host, _, port = url.removeprefix("http://").partition(":")
    async with client, await anyio.connect_tcp(host, int(port)) as server:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(copy, client, server)
            await copy(server, client)
            tasks.cancel_scope.cancel()


async def copy(source: ByteStream, sink: ByteStream) -> None:
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async for data in source:
            await sink.send(data)
