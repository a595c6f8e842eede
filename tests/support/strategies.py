"""Strategies of hypothesis."""

import numpy as np
from hypothesis import strategies as st

from tests.support.cubes import SIZES


@st.composite
def chunkings(draw):
    """Chunks of a cube of `make_cube`: of any sizes, also uneven ones."""

    def cut(size):
        cuts = sorted(draw(st.sets(st.integers(1, size - 1), max_size=3))) if size > 1 else []
        return tuple(int(n) for n in np.diff([0, *cuts, size]))

    return {dim: cut(size) for dim, size in SIZES.items()}
