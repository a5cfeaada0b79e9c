"""The plugin finds what a test leaves behind, and says what it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])

MODULE = """
import asyncio
import socket
import anyio
import pytest
import trio
import trio.testing

@pytest.fixture(scope="module", params=[{backend!r}])
def anyio_backend(request):
    return request.param

kept = []

class Loop:
    '''A cycle, which only the collector frees.'''
    def __init__(self, *held):
        self.held = [self, *held]

async def test_innocent():
    await anyio.lowlevel.checkpoint()

{mark}
async def test_guilty():
    {leak}

async def test_later():
    await anyio.lowlevel.checkpoint()
"""

GENERATOR = """
    async def numbers():
        yield 1
        yield 2
    generator = numbers()
    await anext(generator)
    Loop(generator)
"""
DROPPED_AT_ONCE = GENERATOR.replace("Loop(generator)", "del generator")
SOCKET = """
    left_open = socket.socket()
    Loop(left_open)
"""
FILE = """
    left_open = open(__file__)
    Loop(left_open)
"""
TRANSPORT = """
    ours, theirs = socket.socketpair()
    theirs.detach()  # stays open, so that nothing ends the connection
    await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
"""
ASYNCIO_TASK = """
    async def left_running():
        await anyio.sleep_forever()
    kept.append(asyncio.create_task(left_running()))
"""
TRIO_TASK = """
    async def left_running():
        await anyio.sleep_forever()
    trio.lowlevel.spawn_system_task(left_running)
"""
TASKS = {"asyncio": ASYNCIO_TASK, "trio": TRIO_TASK}


OPTIONS = (
    *("-p", "tests.plugins.leaks", "-p", "no:cacheprovider", "-p", "no:xdist"),
    *("-o", "anyio_mode=auto", "-W", "error"),
)
Run: TypeAlias = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    def run_module(backend: str, leak: str, *options: str, mark: str = "") -> pytest.RunResult:
        pytester.makepyfile(MODULE.format(backend=backend, leak=leak.strip(), mark=mark))
        return pytester.runpytest_inprocess(*OPTIONS, "-rA", *options)

    return run_module


@BACKENDS
@pytest.mark.parametrize(
    ("leak", "named"),
    [
        (GENERATOR, "*async_generator object*numbers*"),
        (SOCKET, "*ResourceWarning: unclosed <socket.socket fd=*"),
        (FILE, "*ResourceWarning: unclosed file*test_*py*"),
    ],
    ids=["generator", "socket", "file"],
)
class TestWhatIsLeaked:
    def test_fails_the_module(self, run: Run, backend: str, leak: str, named: str) -> None:
        result = run(backend, leak)
        result.assert_outcomes(passed=3, errors=1)
        result.stdout.fnmatch_lines(
            [named, "*--leaks-each finds*", f"ERROR *test_later[[]{backend}*"]
        )

    def test_fails_the_test_that_did_it(
        self, run: Run, backend: str, leak: str, named: str
    ) -> None:
        result = run(backend, leak, "--leaks-each")
        result.assert_outcomes(passed=2, failed=1)
        result.stdout.fnmatch_lines([named, "FAILED *test_guilty*"])
        result.stdout.no_fnmatch_line("*--leaks-each finds*")


@BACKENDS
def test_a_generator_that_needs_no_collection_fails_its_test(run: Run, backend: str) -> None:
    result = run(backend, DROPPED_AT_ONCE)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*async_generator object*numbers*", "FAILED *test_guilty*"])


@BACKENDS
def test_a_task_that_still_runs_fails_the_module(run: Run, backend: str) -> None:
    result = run(backend, TASKS[backend])
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*tasks still run: *left_running*"])


@BACKENDS
def test_a_task_that_still_runs_fails_the_test_that_started_it(run: Run, backend: str) -> None:
    """It still runs when the module is over, and is reported then again."""
    result = run(backend, TASKS[backend], "--leaks-each")
    result.assert_outcomes(passed=2, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*tasks still run: *left_running*", "FAILED *test_guilty*"])


def test_a_transport_is_found_when_the_event_loop_lets_go_of_it(run: Run) -> None:
    """The loop holds what it watches, so the collection after its end finds this."""
    result = run("asyncio", TRANSPORT)
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*ResourceWarning: unclosed transport*"])


@BACKENDS
def test_what_is_closed_is_no_leak(run: Run, backend: str) -> None:
    run(backend, "socket.socket().close()").assert_outcomes(passed=3)


def test_generators_can_be_forgiven(run: Run) -> None:
    result = run("asyncio", GENERATOR, mark="@pytest.mark.drops_generators('not ours')")
    result.assert_outcomes(passed=3)


def test_synchronous_tests_come_first(pytester: pytest.Pytester) -> None:
    """They may run event loops of their own, which trio forbids beside another one."""
    pytester.makepyfile(
        """
        import anyio
        async def test_shares_a_loop():
            pass
        def test_has_its_own():
            anyio.run(anyio.sleep, 0, backend="trio")
        """
    )
    result = pytester.runpytest_inprocess(*OPTIONS, "-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*test_has_its_own*", *["*test_shares_a_loop*"] * 2])
