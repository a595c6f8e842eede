"""Fixtures of the tests of faults."""

import pytest


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    """Write a cube into a store and return its path; no test changes it."""
    from tests.support import runs

    path = tmp_path_factory.mktemp("cube") / "cube.zarr"
    runs.make_cube(path)
    return path
