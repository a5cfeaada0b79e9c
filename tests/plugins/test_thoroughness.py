"""A profile scales the examples of property tests, and samples the long lists of cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

MODULE = """
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.thoroughness import examples, sampled

tried = []

@settings(max_examples=examples(40), database=None)
@given(st.integers())
def test_of_forty_examples(number):
    tried.append(number)

def test_what_was_tried():
    assert len(tried) == {examples}
    assert settings().max_examples == {by_default}
    assert list(sampled(range(30))) == {sample}
"""
EVERY = list(range(30))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["--hypothesis-profile=quick"],
            {"examples": 10, "by_default": 25, "sample": [0, 13, 26, 29]},
        ),
        ([], {"examples": 40, "by_default": 100, "sample": EVERY}),
        (["--hypothesis-profile=deep"], {"examples": 800, "by_default": 2000, "sample": EVERY}),
    ],
    ids=["quick", "whole", "deep"],
)
def test_a_profile(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    expected: dict[str, Any],
) -> None:
    pytester.makepyfile(MODULE.format(**expected))
    # In a process of its own, because profiles are the process's.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    result = pytester.runpytest_subprocess(
        "-p", "tests.plugins.thoroughness", "-p", "no:xdist", "-W", "error", *options
    )
    result.assert_outcomes(passed=2)
