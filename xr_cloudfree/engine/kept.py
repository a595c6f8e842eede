"""Parts of a layer that are kept in memory, compressed, for the windows beside them."""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

# Bytes, compressed, that are kept of a layer.
KEPT_BYTES = 128 * 2**20


class Kept:
    """Arrays by key, in place of those that were not needed for longest; several threads may share it.

    Parameters
    ----------
    limit : int
        Bytes, compressed, of all arrays; one array may take more.

    Attributes
    ----------
    size : int
        Bytes, compressed, that they take.

    Examples
    --------
    >>> kept = Kept()
    >>> kept.keep("a", np.arange(3))
    >>> kept.take("a"), kept.take("b")
    (array([0, 1, 2]), None)
    """

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self.limit, self.size = limit, 0
        self._kept: OrderedDict[Hashable, tuple[bytes, np.dtype[np.generic], tuple[int, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self._kept)

    def take(self, key: Hashable) -> Array | None:
        """Return the array of a key, None if it is not kept."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
        data, dtype, shape = found
        return np.frombuffer(zlib.decompress(data), dtype).reshape(shape)

    def keep(self, key: Hashable, values: Array) -> None:
        """Keep an array."""
        data = zlib.compress(np.ascontiguousarray(values).tobytes(), level=1)
        with self._lock:
            before = self._kept.pop(key, None)
            self._kept[key] = data, values.dtype, values.shape
            self.size += len(data) - (0 if before is None else len(before[0]))
            while self.size > self.limit and len(self._kept) > 1:
                self.size -= len(self._kept.popitem(last=False)[1][0])
