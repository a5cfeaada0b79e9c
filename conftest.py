"""What every test shares: both event loops, and a look at what a test leaves behind."""

import functools
import gc
import inspect
import os
import sys
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

ROOT: Final = Path(__file__).parent
# At the end: an installed anyio_writer wins (in tox, the wheel), else this checkout is
# tested; and tests can import each other's helpers as ``tests.streaming.helpers``.
sys.path.append(str(ROOT))

# Nothing here has sockets, tasks or generators to leak. A full collection after every
# single test would cost more than those tests do.
PURE: Final = ROOT / "tests/protocol"

# The tests run beside other programs, so one slow example proves nothing. Where CI
# is set, hypothesis's own "ci" profile makes runs repeatable.
settings.register_profile(
    "anyio_writer",
    settings.get_profile("ci" if os.environ.get("CI") else "default"),
    deadline=None,
    print_blob=True,
)
settings.load_profile("anyio_writer")


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every async test on both event loops."""
    backend: str = request.param
    return backend


def pytest_configure(config: pytest.Config) -> None:
    """Announce the markers, since ``--strict-markers`` refuses others."""
    config.addinivalue_line("markers", "uvloop: run this async test on uvloop as well")


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests marked ``uvloop`` their third event loop."""
    if metafunc.definition.get_closest_marker("uvloop") is not None:
        # As a mark of the test, and ahead of pytest's own look at the marks: only a
        # mark takes precedence over the parameters of the fixture.
        metafunc.definition.add_marker(
            pytest.mark.parametrize(
                "anyio_backend",
                ["asyncio", ("asyncio", {"use_uvloop": True}), "trio"],
                ids=["asyncio", "uvloop", "trio"],
            )
        )


def pytest_collection_finish() -> None:
    """Take what is imported out of the collector's sight, which makes the looks below cheap."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Make an async test end with a collection, while its event loop still runs.

    A leaked socket or async generator warns when it is collected, warnings are errors
    here, and pytest lays those on the test at hand. Once the loop is closed it is too
    late: trio and asyncio then finalize what generators are left without a word.
    """
    if (
        isinstance(item, pytest.Function)
        and inspect.iscoroutinefunction(item.obj)
        and not item.path.is_relative_to(PURE)
    ):
        test = item.obj

        @functools.wraps(test)
        async def test_and_collect(**fixtures: object) -> None:
            await test(**fixtures)
            gc.collect()

        item.obj = test_and_collect
