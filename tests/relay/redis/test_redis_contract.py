"""The relay on a real Redis keeps the contract."""

from tests.relay.contract import *  # noqa: F403 - all of it
