"""What every test shares: both event loops, and what tests/plugins adds to pytest."""

import asyncio
import sys
from pathlib import Path
from typing import Any, Final

import pytest

# At the end: an installed anyio_writer wins (in tox, the wheel), else this checkout is
# tested; and tests can import each other's helpers as ``tests.streaming.helpers``.
sys.path.append(str(Path(__file__).parent))

pytest_plugins = ["pytester", "tests.plugins.leaks", "tests.plugins.thoroughness"]


def eager_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose tasks run up to their first wait before ``create_task`` returns."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # Python 3.12
    return loop


# What stands for asyncio, as anyio names it.
ASYNCIO: Final[dict[str, Any]] = {
    "plain": "asyncio",
    "debug": ("asyncio", {"debug": True}),
    "eager": ("asyncio", {"loop_factory": eager_loop}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let each Python in tox.ini run the tests in another variant of asyncio."""
    parser.addoption(
        "--asyncio", choices=ASYNCIO, default="plain", help="the variant of asyncio to test with"
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Say what the tests named ``asyncio`` ran on."""
    return f"asyncio: {config.getoption('asyncio')}"


@pytest.fixture(scope="session")
def asyncio_backend(pytestconfig: pytest.Config) -> Any:
    """The variant of asyncio that this run tests with."""
    return ASYNCIO[pytestconfig.getoption("asyncio")]


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest, asyncio_backend: Any) -> Any:
    """Run every async test on both event loops."""
    return asyncio_backend if request.param == "asyncio" else request.param
