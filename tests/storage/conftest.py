"""Fixtures of the tests of the storage room."""

from tests.support.runs import cube  # noqa: F401
