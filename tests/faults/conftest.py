"""Fixtures of the tests of faults."""

from tests.support.runs import cube  # noqa: F401
