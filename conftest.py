"""What every test shares: both event loops, and a look at what a test leaves behind."""

import os
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import settings

ROOT: Final = Path(__file__).parent
# At the end: an installed anyio_writer wins (in tox, the wheel), else this checkout is
# tested; and tests can import each other's helpers as ``tests.streaming.helpers``.
sys.path.append(str(ROOT))

pytest_plugins = ["pytester", "tests.plugins.leaks"]

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
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Run every async test on both event loops."""
    return request.param


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
                indirect=True,
            )
        )
