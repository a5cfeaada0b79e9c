"""What docs/guides/relay.md says of Redis."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest

from anyio_writer import ProducerStoppedError, RelayUnavailableError, chat_stream_from
from anyio_writer.relay import RedisRelay
from tests.relay.redis.redis_server import RedisServer
from tests.relay.relay_helpers import HANGS, Seen, follow, hello, publish
from tests.streaming.helpers import STALL, Body, chunk

GUIDE = Path(__file__).parents[3] / "docs/guides/relay.md"


(RULES,) = re.findall(r"^`(~\{anyio-writer:\* .*)`", GUIDE.read_text("utf-8"), re.MULTILINE)


@contextmanager
def user(redis: RedisServer, *rules: str) -> Iterator[str]:
    """A user of the server's; the URL that logs in as this one."""
    redis.ask("ACL", "SETUSER", "relay", "reset", "on", ">password", *rules)
    try:
        yield redis.url.replace("redis://", "redis://relay:password@")
    finally:
        redis.ask("ACL", "DELUSER", "relay")


async def use(url: str) -> None:
    """Do all that a relay can do."""
    reader = Seen()
    async with RedisRelay(url) as relay, anyio.create_task_group() as tg:
        seen = await publish(relay, "whole", hello())
        if seen.error is None:
            seen = await follow(relay, "whole")
        if seen.error is not None:
            raise seen.error
        assert len(seen.events) == 12
        assert (await relay.status("whole")).state == "complete"
        assert await relay.expire("whole", after=60)
        assert await relay.expire("whole")
        tg.start_soon(partial(follow, relay, "stopped", reader, wait=5))
        tg.start_soon(publish, relay, "stopped", chat_stream_from(Body(chunk("Hel"), STALL)))
        await reader.until(2)
        assert await relay.stop("stopped")
        lease = (await relay.elect("released", "token")).lease
        assert lease is not None
        await relay.release(lease)
    assert type(reader.error) is ProducerStoppedError


async def test_a_user_with_the_permissions_of_the_guide(redis: RedisServer) -> None:
    with user(redis, *RULES.split()) as url:
        await use(url)


# The connection says hello before it is this user's.
@pytest.mark.parametrize("command", sorted({*re.findall(r"\+(\w+)", RULES)} - {"hello"}))
async def test_a_user_who_lacks_one_of_them(redis: RedisServer, command: str) -> None:
    """It is refused at once, and nothing stays for ever, as the fixture checks."""
    redis.ask("SCRIPT", "FLUSH")
    with user(redis, *RULES.split(), f"-{command}") as url, anyio.fail_after(HANGS):
        try:
            await use(url)
        except* RelayUnavailableError as exc:
            assert "refused" in repr(exc.exceptions)
        else:
            raise AssertionError
        assert redis.keys_without_expiry() == []
