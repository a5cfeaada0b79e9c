"""Every test here ends in time."""

import functools
import inspect
from pathlib import Path
from typing import Final

import anyio
import pytest

from tests.tools.tools_helpers import HANGS

HERE: Final = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Put a net under hangs."""
    if not isinstance(item, pytest.Function) or not item.path.is_relative_to(HERE):
        return
    if inspect.iscoroutinefunction(item.obj):
        test = item.obj

        @functools.wraps(test)
        async def test_in_time(**fixtures: object) -> None:
            with anyio.fail_after(HANGS):
                await test(**fixtures)

        item.obj = test_in_time
