"""What docs/guides/relay.md says of Redis."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import anyio

from anyio_writer import ProducerStoppedError, chat_stream_from
from anyio_writer.relay import RedisRelay
from tests.relay.redis.redis_server import RedisServer
from tests.relay.relay_helpers import Seen, follow, hello, publish
from tests.streaming.helpers import STALL, Body, chunk

GUIDE = Path(__file__).parents[3] / "docs/guides/relay.md"


async def test_a_user_with_the_permissions_of_the_guide(redis: RedisServer) -> None:
    (rules,) = re.findall(r"^`(~\{anyio-writer:\* .*)`", GUIDE.read_text("utf-8"), re.MULTILINE)
    redis.ask("ACL", "SETUSER", "relay", "reset", "on", ">password", *rules.split())
    url = redis.url.replace("redis://", "redis://relay:password@")
    try:
        async with RedisRelay(url) as relay, anyio.create_task_group() as tg:
            assert (await publish(relay, "whole", hello())).error is None
            assert len((await follow(relay, "whole")).events) == 12
            assert (await relay.status("whole")).state == "complete"
            assert await relay.expire("whole", after=60)
            assert await relay.expire("whole")
            reader = Seen()
            tg.start_soon(partial(follow, relay, "stopped", reader, wait=5))
            tg.start_soon(publish, relay, "stopped", chat_stream_from(Body(chunk("Hel"), STALL)))
            await reader.until(2)
            assert await relay.stop("stopped")
            lease = (await relay.elect("released", "token")).lease
            assert lease is not None
            await relay.release(lease)
        assert type(reader.error) is ProducerStoppedError
    finally:
        redis.ask("ACL", "DELUSER", "relay")
