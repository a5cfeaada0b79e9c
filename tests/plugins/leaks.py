"""Looks for what tests leave behind: sockets and files, async generators, tasks.

All async tests of a module share one event loop for each backend. After the last of them,
while that loop still runs, everything unreachable is collected. A socket that was not closed
warns when it is collected, and warnings are errors here. The module fails with what was found.

A collection after each test would take far longer than the tests. ``--leaks-each`` does it,
to learn which test of a module is to blame.
"""

import asyncio
import contextlib
import functools
import gc
import inspect
import sys
from collections.abc import AsyncGenerator, Generator, Iterator
from typing import Any, Final

import anyio
import pytest

_generators: Final[list[str]] = []
"""Async generators that were collected before they had finished."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("leaks").addoption(
        "--leaks-each",
        action="store_true",
        help="look for leaks after each async test instead of once per module",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "drops_generators(reason): this test may leave async generators unfinished"
    )


def pytest_collection_finish() -> None:
    """Exempt what is imported from later collections, which makes them cheap."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: Any) -> None:
    """Let each async test use the module's event loop."""
    if collector.istestfunction(obj, name):
        test = obj.hypothesis.inner_test if hasattr(obj, "hypothesis") else obj
        if inspect.iscoroutinefunction(test):
            pytest.mark.usefixtures("shared_event_loop")(obj)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Run each module's synchronous tests first: some run event loops of their own.

    trio allows none beside the shared one.
    """
    modules = {path: number for number, path in enumerate(dict.fromkeys(i.path for i in items))}
    items.sort(key=lambda item: (modules[item.path], "shared_event_loop" in item.fixturenames))


@pytest.fixture(scope="module")
def _collected_after_the_loop() -> Iterator[None]:
    """Look once more when the event loop is closed: it holds what is registered with it."""
    yield
    gc.collect()
    _raise_generators()


@pytest.fixture(scope="module")
async def shared_event_loop(
    _collected_after_the_loop: None, anyio_backend: Any
) -> AsyncGenerator[None]:
    """Keep the event loop open between the module's tests, and look for leaks after the last."""
    before = _tasks()
    yield
    await _look(before)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Record async generators that the test drops; with ``--leaks-each``, look after it."""
    if not isinstance(item, pytest.Function) or not inspect.iscoroutinefunction(item.obj):
        return
    test = item.obj
    each = item.config.getoption("leaks_each")
    forgiven = item.get_closest_marker("drops_generators") is not None

    @functools.wraps(test)
    async def watched(**fixtures: object) -> None:
        before = _tasks()
        with contextlib.nullcontext() if forgiven else _generators_recorded():
            await test(**fixtures)
            if each:
                await _look(before)
            else:
                _raise_generators()

    item.obj = watched


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where only the module is known, say how to find the test."""
    report = yield
    if call.when == "teardown" and report.failed and not item.config.getoption("leaks_each"):
        report.sections.append(
            ("Leaks", "Found after the module's last test; --leaks-each finds the one to blame.")
        )
    return report


@contextlib.contextmanager
def _generators_recorded() -> Iterator[None]:
    """On asyncio, record each async generator that is dropped unfinished. trio warns of them.

    asyncio sets its own hooks whenever it starts to run, hence this is needed for each test.
    """
    theirs = sys.get_asyncgen_hooks()

    def finalize(generator: AsyncGenerator[Any, Any]) -> None:
        _generators.append(repr(generator))
        assert theirs.finalizer is not None
        theirs.finalizer(generator)

    if _on_asyncio():
        sys.set_asyncgen_hooks(finalizer=finalize)
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(*theirs)


def _on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _tasks() -> set[str]:
    """The functions that tasks run."""
    return {
        getattr(task.coro, "__qualname__", repr(task.coro)) for task in anyio.get_running_tasks()
    }


async def _look(before: set[str]) -> None:
    gc.collect()
    await anyio.wait_all_tasks_blocked()  # what finalizes generators may take some steps
    left = sorted(_tasks() - before)
    assert not left, f"tasks still run: {left}"
    _raise_generators()


def _raise_generators() -> None:
    dropped = _generators.copy()
    _generators.clear()
    assert not dropped, f"async generators were dropped unfinished: {dropped}"
