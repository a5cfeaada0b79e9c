"""One question for all who wait for the same reply, whoever of them leaves."""

from __future__ import annotations

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from anyio_writer import RelayUnavailableError
from anyio_writer.relay.sharing import SharedWaits

LONG = 3600.0


class Question:
    """Counts how often it is asked; waits until it may answer."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.may_answer = anyio.Event()
        self.reply: str | None = "reply"
        self.error: Exception | None = None

    async def __call__(self, seconds: float) -> str | None:
        self.asked.append(seconds)
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return self.reply


class Asking:
    """Tasks that ask."""

    def __init__(self, question: Question, waits: SharedWaits[str]) -> None:
        self.question, self.waits = question, waits
        self.replies: list[str | None] = []
        self.errors: list[Exception] = []

    async def ask(self, name: str = "name", seconds: float = LONG) -> None:
        try:
            self.replies.append(await self.waits.ask(name, seconds, self.question))
        except RelayUnavailableError as exc:
            self.errors.append(exc)


@pytest.fixture
def asking() -> Asking:
    return Asking(Question(), SharedWaits())


@pytest.mark.parametrize("reply", ["reply", None])
async def test_it_is_asked_once(asking: Asking, reply: str | None) -> None:
    asking.question.reply = reply
    async with anyio.create_task_group() as tg:
        for _ in range(5):
            tg.start_soon(asking.ask)
        await wait_all_tasks_blocked()
        asking.question.may_answer.set()
    assert asking.replies == [reply] * 5
    assert len(asking.question.asked) == 1
    await asking.ask()
    assert len(asking.question.asked) == 2


async def test_other_questions_are_others(asking: Asking) -> None:
    async with anyio.create_task_group() as tg:
        for name in "aab":
            tg.start_soon(asking.ask, name)
        await wait_all_tasks_blocked()
        assert len(asking.question.asked) == 2
        asking.question.may_answer.set()
    assert asking.replies == ["reply"] * 3


@pytest.mark.parametrize("leaving", range(4))
async def test_any_of_them_may_leave(asking: Asking, leaving: int) -> None:
    scopes = [anyio.CancelScope() for _ in range(4)]

    async def ask(scope: anyio.CancelScope) -> None:
        with scope:
            await asking.ask()

    async with anyio.create_task_group() as tg:
        for scope in scopes:
            tg.start_soon(ask, scope)
            await wait_all_tasks_blocked()
        scopes[leaving].cancel()
        await wait_all_tasks_blocked()
        assert len(asking.question.asked) == (2 if leaving == 0 else 1)
        asking.question.may_answer.set()
    assert asking.replies == ["reply"] * 3


async def test_all_of_them_leave(asking: Asking) -> None:
    async with anyio.create_task_group() as tg:
        for _ in range(3):
            tg.start_soon(asking.ask)
        await wait_all_tasks_blocked()
        tg.cancel_scope.cancel()
    assert asking.replies == []
    asking.question.may_answer.set()
    await asking.ask()
    assert asking.replies == ["reply"]


async def test_an_error_is_raised_to_each_as_its_own(asking: Asking) -> None:
    asking.question.error = RelayUnavailableError("it is away")
    async with anyio.create_task_group() as tg:
        for _ in range(3):
            tg.start_soon(asking.ask)
        await wait_all_tasks_blocked()
        asking.question.may_answer.set()
    assert [str(error) for error in asking.errors] == ["it is away"] * 3
    assert len({id(error) for error in asking.errors}) == 3
    assert len(asking.question.asked) == 1


async def test_nobody_waits_longer_than_it_wants_to(asking: Asking) -> None:
    async with anyio.create_task_group() as tg:
        tg.start_soon(asking.ask)
        await wait_all_tasks_blocked()
        await asking.ask(seconds=0.01)
        assert asking.replies == [None]
        asking.question.may_answer.set()
    assert asking.replies == [None, "reply"]
    assert len(asking.question.asked) == 1


async def test_who_asks_again_has_the_rest_of_its_time(asking: Asking) -> None:
    first = anyio.CancelScope()

    async def leave() -> None:
        with first:
            await asking.ask()

    async with anyio.create_task_group() as tg:
        tg.start_soon(leave)
        await wait_all_tasks_blocked()
        tg.start_soon(asking.ask, "name", 100.0)
        await wait_all_tasks_blocked()
        first.cancel()
        await wait_all_tasks_blocked()
        asking.question.may_answer.set()
    whole, rest = asking.question.asked
    assert whole > LONG - 1
    assert 99 < rest <= 100  # the clock of uvloop may stand still for so long
