"""The commands ``relay publish``, ``read``, ``stop`` and ``status``."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from ..errors import WriterError, WrongKindError
from ..relay import RedisRelay, Relay, RelayStatus
from .exits import CommandError, Exit, explain
from .output import Output
from .run import Question, failures_shown, json_of, open_question, show
from .text import harmless, harmless_json, one_line
from .view import Tally, spinner

_TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an answer is stored."""

    redis: str
    prefix: str
    key: str


async def publish(place: Place, question: Question, *, as_json: bool) -> None:
    """Ask, publish the answer until its end, and print what the relay knows about it then.

    Raises:
        CommandError: Any failure. Readers get the one that ended the answer, too.
    """
    out = Output(sys.stdout)
    async with _relay_at(place) as relay:
        async with open_question(question) as stream:
            await relay.publish(place.key, stream)
        await _print_status(await relay.status(place.key), out, as_json=as_json)


async def read(
    place: Place, *, skip: int, generation: int | None, wait: float, as_json: bool
) -> None:
    """Print an answer from its start, while it runs or after it.

    Raises:
        CommandError: Any failure, also that which ended the answer.
    """
    out = Output(sys.stdout)
    tally = Tally()
    label = f"waiting for {place.key}"
    async with _relay_at(place) as relay, failures_shown(out, tally, as_json=as_json):
        try:
            stream = relay.open_stream(place.key, skip=skip, generation=generation, wait=wait)
            await show(stream, out, tally, label=label, as_json=as_json)
        except WrongKindError:  # raised before the first event
            conversation = relay.open_conversation(place.key, skip=skip, generation=generation)
            await show(conversation, out, tally, label=label, as_json=as_json)


async def stop(place: Place, *, as_json: bool) -> None:
    """Ask the producer of an answer to stop.

    Raises:
        CommandError: Nobody produces it, or any failure.
    """
    out = Output(sys.stdout)
    async with _relay_at(place) as relay:
        is_running = await relay.stop(place.key)
    if as_json:
        await out.write(json_of({"key": place.key, "stopping": is_running}))
    if not is_running:
        raise CommandError(f"{one_line(place.key)} has no producer.", Exit.NO_ANSWER)
    if not as_json:
        await out.write(f"{harmless(place.key)} will stop within a second.\n")


async def status(place: Place, *, as_json: bool) -> None:
    """Print what the relay knows about an answer.

    Raises:
        CommandError: There is no answer, or something failed.
    """
    out = Output(sys.stdout)
    async with _relay_at(place) as relay:
        found = await relay.status(place.key)
    await _print_status(found, out, as_json=as_json)
    if found.state == "unknown":
        raise CommandError(f"the relay has no answer {one_line(place.key)}.", Exit.NO_ANSWER)


@asynccontextmanager
async def _relay_at(place: Place) -> AsyncGenerator[Relay]:
    try:
        async with AsyncExitStack() as stack:
            with spinner("connecting to Redis"):  # tried for as long as a lease
                relay = RedisRelay(place.redis, prefix=place.prefix)
                await stack.enter_async_context(relay)
            yield relay
    except WriterError as exc:
        raise explain(exc) from exc


async def _print_status(found: RelayStatus, out: Output, *, as_json: bool) -> None:
    if as_json:
        line = json_of(found)
        await out.write(harmless_json(line) if out.is_terminal else line)
        return
    facts = {
        "state": found.state,
        "events": str(found.events),
        "started": _local_time(found.started_at),
        "ended": _local_time(found.ended_at),
        "lease left": f"{found.lease_left:.1f} s" if found.lease_left else "-",
        "generation": str(found.generation),
    }
    width = max(map(len, facts))
    await out.write("".join(f"{name:<{width}}  {value}\n" for name, value in facts.items()))


def _local_time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime(_TIME_FORMAT)
