"""Regression by a forest of extremely randomised trees.

Every tree is grown on all samples. Each split is the best of a few candidates drawn at random from a built-in generator
with a fixed seed, so the same samples give the same forest on every machine.

References
----------
Geurts, Ernst and Wehenkel 2006, Extremely randomized trees, doi 10.1007/s10994-006-6226-1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

TREES = 8
# Candidate splits per node, and minimum number of samples in a leaf.
CANDIDATES, LEAF = 32, 2
# Maximum number of a node's samples, and of components of the values, that candidate splits are scored on.
SPLIT_SAMPLES, COMPONENTS = 256, 4


@dataclass(frozen=True, eq=False)
class Forest:
    """A fitted forest.

    Parameters
    ----------
    trees : tuple
        Per tree: feature, threshold and left child of each node (a leaf has feature -1), and the values of the
        leaves.
    """

    trees: tuple[tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]], ...]

    def __call__(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the mean and the standard deviation of the trees' predictions.

        Parameters
        ----------
        features : ndarray of float32, shape (pixel, feature)
            The features that the forest was grown on, in the same order.

        Returns
        -------
        mean, spread : ndarray of float32, shape (pixel, value)
            The prediction, and the standard deviation of the trees around it.
        """
        n, width = len(features), self.trees[0][3].shape[1]
        total, squares = np.zeros((n, width), np.float32), np.zeros((n, width), np.float32)
        for tree in self.trees:
            _add(features, *tree, total, squares)
        total /= len(self.trees)
        squares /= len(self.trees)
        spread = np.sqrt(np.maximum(squares - np.square(total), 0))
        return total, spread


def grow(
    features: NDArray[np.float32], values: NDArray[np.float32], weight: NDArray[np.float32], seed: int = 0
) -> Forest:
    """Grow a forest.

    Parameters
    ----------
    features : ndarray of float32, shape (sample, feature)
        Features to split by.
    values : ndarray of float32, shape (sample, value)
        Values to predict, all by the same trees.
    weight : ndarray of float32, shape (sample,)
        Weight of each sample, greater than 0.
    seed : int
        Seed of the random splits.

    Returns
    -------
    Forest
        The fitted forest.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.kernels.extra_trees import grow
    >>> x = np.linspace(0, 1, 200, dtype=np.float32)[:, None]
    >>> forest = grow(x, (x > 0.5).astype(np.float32), np.ones(200, np.float32))
    >>> mean, spread = forest(np.array([[0.1], [0.9]], np.float32))
    >>> mean.round(2).ravel().tolist()
    [0.0, 1.0]
    """
    n = len(features)
    features, values = np.ascontiguousarray(features, np.float32), np.ascontiguousarray(values, np.float32)
    components = _components(values)
    trees = []
    for number in range(TREES):
        feature, threshold = np.empty(2 * n, np.int32), np.empty(2 * n, np.float32)
        left, leaf = np.empty(2 * n, np.int32), np.zeros((2 * n, values.shape[1]), np.float32)
        start = seed * TREES + number + 1
        used = _grow(
            features, components, values, weight, start, CANDIDATES, LEAF, SPLIT_SAMPLES, feature, threshold, left, leaf
        )
        trees.append((feature[:used].copy(), threshold[:used].copy(), left[:used].copy(), leaf[:used].copy()))
    return Forest(tuple(trees))


def _components(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the leading principal components of the standardised values, on which splits are scored."""
    standard = values - values.mean(axis=0)
    standard /= standard.std(axis=0) + np.float32(1e-9)
    if values.shape[1] <= COMPONENTS:
        return np.asarray(standard)
    _, vectors = np.linalg.eigh((standard.T @ standard).astype(np.float64))
    leading = standard @ vectors[:, -COMPONENTS:].astype(np.float32)
    return np.ascontiguousarray(leading, np.float32)


@njit(cache=True)
def _random(state: np.uint64) -> np.uint64:
    """Advance a xorshift generator (Marsaglia 2003)."""
    state ^= state << np.uint64(13)
    state ^= state >> np.uint64(7)
    state ^= state << np.uint64(17)
    return state


@njit(cache=True, nogil=True)
def _grow(x, components, values, weight, seed, candidates, least, split_samples, feature, threshold, left, leaf):  # type: ignore[no-untyped-def]
    n, width = x.shape
    n_components, n_values = components.shape[1], values.shape[1]
    rows = np.arange(n)
    state = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x1234567)
    for i in range(n - 1, 0, -1):  # shuffled, so any run of rows is a random sample of its node
        state = _random(state)
        j = np.int64(state % np.uint64(i + 1))
        rows[i], rows[j] = rows[j], rows[i]
    stack = np.empty((2 * n + 2, 3), np.int64)
    stack[0, 0], stack[0, 1], stack[0, 2] = 0, n, 0
    depth, nodes = 1, 1
    total, part = np.empty(n_components), np.empty(n_components)
    while depth > 0:
        depth -= 1
        first, last, node = stack[depth, 0], stack[depth, 1], stack[depth, 2]
        best, chosen, cut = 0.0, np.int64(-1), np.float32(0)
        if last - first >= 2 * least:
            end = min(last, first + split_samples)
            total[:] = 0.0
            mass = 0.0
            for i in range(first, end):
                w = weight[rows[i]]
                mass += w
                for k in range(n_components):
                    total[k] += w * components[rows[i], k]
            whole = 0.0
            for k in range(n_components):
                whole += total[k] * total[k] / mass
            for _ in range(candidates):
                state = _random(state)
                f = np.int64(state % np.uint64(width))
                low = high = x[rows[first], f]
                for i in range(first + 1, end):
                    v = x[rows[i], f]
                    low, high = min(low, v), max(high, v)
                if not high > low:
                    continue
                state = _random(state)
                at = np.float32(low + (high - low) * (np.float64(state >> np.uint64(11)) / 9007199254740992.0))
                count, below = 0, 0.0
                part[:] = 0.0
                for i in range(first, end):
                    if x[rows[i], f] <= at:
                        w = weight[rows[i]]
                        below += w
                        count += 1
                        for k in range(n_components):
                            part[k] += w * components[rows[i], k]
                if count < least or end - first - count < least:
                    continue
                gain = -whole
                for k in range(n_components):
                    rest = total[k] - part[k]
                    gain += part[k] * part[k] / below + rest * rest / (mass - below)
                if gain > best:
                    best, chosen, cut = gain, f, at
        feature[node] = chosen
        if chosen < 0:
            mass = 0.0
            for i in range(first, last):
                w = weight[rows[i]]
                mass += w
                for k in range(n_values):
                    leaf[node, k] += w * values[rows[i], k]
            for k in range(n_values):
                leaf[node, k] /= mass
            continue
        i, j = first, last - 1
        while i <= j:
            if x[rows[i], chosen] <= cut:
                i += 1
            else:
                rows[i], rows[j] = rows[j], rows[i]
                j -= 1
        threshold[node], left[node] = cut, nodes
        stack[depth, 0], stack[depth, 1], stack[depth, 2] = first, i, nodes
        stack[depth + 1, 0], stack[depth + 1, 1], stack[depth + 1, 2] = i, last, nodes + 1
        depth += 2
        nodes += 2
    return nodes


@njit(cache=True, nogil=True)
def _add(x, feature, threshold, left, leaf, total, squares):  # type: ignore[no-untyped-def]
    for i in range(x.shape[0]):
        node = 0
        while feature[node] >= 0:
            node = left[node] + (0 if x[i, feature[node]] <= threshold[node] else 1)
        for k in range(leaf.shape[1]):
            v = leaf[node, k]
            total[i, k] += v
            squares[i, k] += v * v
