"""Fixtures of the tests of the runner room."""

from tests.support.runs import cube  # noqa: F401
