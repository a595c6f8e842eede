"""What several tests of faults start from."""

import pytest


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    """A cube in a store, which each test leaves as it was."""
    from tests.support import runs

    path = tmp_path_factory.mktemp("cube") / "cube.zarr"
    runs.make_cube(path)
    return path
