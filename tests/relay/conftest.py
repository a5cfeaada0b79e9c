"""Lets the tests that modules here share say what was wrong."""

import pytest

pytest.register_assert_rewrite("tests.relay.contract", "tests.relay.relay_helpers")
