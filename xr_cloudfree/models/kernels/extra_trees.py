"""Regression by a forest of extremely randomised trees.

Every tree is grown on all samples. Each split is the best of a few candidates drawn at random from a built-in generator
with a fixed seed, so the same samples give the same forest on every machine.

References
----------
Geurts, Ernst and Wehenkel 2006, Extremely randomized trees, doi 10.1007/s10994-006-6226-1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

TREES = 8
# Candidate splits per node, and minimum number of samples in a leaf.
CANDIDATES, LEAF = 32, 2
# Maximum number of a node's samples that candidate splits are scored on, and of the components of the values; fewer
# components are padded, because sums over four of them stay in registers.
SPLIT_SAMPLES, COMPONENTS = 256, 4
# Pixels that go down a tree together.
TOGETHER = 16


@dataclass(frozen=True, eq=False)
class Forest:
    """A fitted forest; the nodes of all trees follow each other.

    Parameters
    ----------
    start : ndarray of int64, shape (tree,)
        First node of each tree.
    feature : ndarray of int32, shape (node,)
        The feature that a node splits by; -1 for a leaf.
    threshold : ndarray of float32, shape (node,)
        Samples up to it go to the left child; infinite for a leaf.
    left : ndarray of int32, shape (node,)
        The left child, which the right one follows; for a leaf the leaf itself.
    leaf : ndarray of float32, shape (node, value)
        Values of the leaves.
    """

    start: NDArray[np.int64]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    left: NDArray[np.int32]
    leaf: NDArray[np.float32]

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
        n, width = len(features), self.leaf.shape[1]
        total, squares = np.zeros((n, width), np.float32), np.zeros((n, width), np.float32)
        _add(features, self.start, self.feature, self.threshold, self.left, self.leaf, total, squares)
        total /= len(self.start)
        squares /= len(self.start)
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
    columns, values = np.ascontiguousarray(features.T, np.float32), np.ascontiguousarray(values, np.float32)
    weight = np.asarray(weight, np.float32)
    scored = np.zeros((n, COMPONENTS), np.float32)
    components = _components(values)
    scored[:, : components.shape[1]] = weight[:, None] * components
    start, parts, nodes = [], [], 0
    for number in range(TREES):
        feature, threshold = np.empty(2 * n, np.int32), np.empty(2 * n, np.float32)
        left, leaf = np.empty(2 * n, np.int32), np.zeros((2 * n, values.shape[1]), np.float32)
        own = seed * TREES + number + 1
        used = _grow(
            columns, scored, values, weight, own, CANDIDATES, LEAF, SPLIT_SAMPLES, feature, threshold, left, leaf
        )
        start.append(nodes)
        parts.append((feature[:used], threshold[:used], left[:used] + np.int32(nodes), leaf[:used]))
        nodes += used
    return Forest(np.array(start), *(np.concatenate(part) for part in zip(*parts, strict=True)))


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
def _grow(x, scored, values, weight, seed, candidates, least, split_samples, feature, threshold, left, leaf):  # type: ignore[no-untyped-def]
    """Grow a tree; `x` is (feature, sample), and `scored` (sample, COMPONENTS) are the weighted components."""
    width, n = x.shape
    n_values = values.shape[1]
    rows = np.arange(n).astype(np.uint32)  # unsigned indices need no test for negative ones
    state = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x1234567)
    for i in range(n - 1, 0, -1):  # shuffled, so any run of rows is a random sample of its node
        state = _random(state)
        j = np.int64(state % np.uint64(i + 1))
        rows[i], rows[j] = rows[j], rows[i]
    stack = np.empty((2 * n + 2, 3), np.int64)
    stack[0, 0], stack[0, 1], stack[0, 2] = 0, n, 0
    depth, nodes = 1, 1
    # What a node's candidates share is gathered once; sums run over it without branches.
    column, masses = np.empty(split_samples, np.float32), np.empty(split_samples)
    parts = np.empty((split_samples, 4))
    while depth > 0:
        depth -= 1
        first, last, node = stack[depth, 0], stack[depth, 1], stack[depth, 2]
        best, chosen, cut = 0.0, np.int64(-1), np.float32(0)
        if last - first >= 2 * least:
            size = min(last - first, split_samples)
            a0 = a1 = a2 = a3 = mass = 0.0
            for i in range(size):
                row = rows[first + i]
                masses[i] = weight[row]
                parts[i, 0], parts[i, 1] = scored[row, 0], scored[row, 1]
                parts[i, 2], parts[i, 3] = scored[row, 2], scored[row, 3]
                mass += masses[i]
                a0, a1, a2, a3 = a0 + parts[i, 0], a1 + parts[i, 1], a2 + parts[i, 2], a3 + parts[i, 3]
            whole = (a0 * a0 + a1 * a1 + a2 * a2 + a3 * a3) / mass
            for _ in range(min(candidates, 2 * size)):  # few samples have few ways to be split
                state = _random(state)
                f = ((state >> np.uint64(32)) * np.uint64(width)) >> np.uint64(32)
                low = high = x[f, rows[first]]
                for i in range(size):
                    v = x[f, rows[first + i]]
                    column[i] = v
                    low, high = min(low, v), max(high, v)
                if not high > low:
                    continue
                state = _random(state)
                at = np.float32(low + (high - low) * (np.float64(state >> np.uint64(11)) / 9007199254740992.0))
                count, below = 0, 0.0
                b0 = b1 = b2 = b3 = 0.0
                for i in range(size):
                    inside = column[i] <= at
                    share = 1.0 if inside else 0.0
                    count += 1 if inside else 0
                    below += share * masses[i]
                    b0, b1 = b0 + share * parts[i, 0], b1 + share * parts[i, 1]
                    b2, b3 = b2 + share * parts[i, 2], b3 + share * parts[i, 3]
                if count < least or size - count < least:
                    continue
                r0, r1, r2, r3 = a0 - b0, a1 - b1, a2 - b2, a3 - b3
                gain = (b0 * b0 + b1 * b1 + b2 * b2 + b3 * b3) / below
                gain += (r0 * r0 + r1 * r1 + r2 * r2 + r3 * r3) / (mass - below) - whole
                if gain > best:
                    best, chosen, cut = gain, np.int64(f), at
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
            left[node], threshold[node] = node, np.inf  # a step from a leaf leads to itself
            continue
        i, j = first, last - 1
        while i <= j:
            if x[chosen, rows[i]] <= cut:
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
def _add(x, start, feature, threshold, left, leaf, total, squares):  # type: ignore[no-untyped-def]
    """Add the values and squared values of the trees, the nodes of which follow each other, the first at `start`.

    A few pixels at a time take their steps in turn, so that no step waits for the memory of the one before.
    """
    n, width = x.shape[0], leaf.shape[1]
    at = np.empty(TOGETHER, np.int64)
    for begin in range(0, n, TOGETHER):
        size = min(TOGETHER, n - begin)
        for tree in range(len(start)):
            at[:] = start[tree]
            going = True
            while going:
                going = False
                for i in range(size):
                    node = at[i]
                    f = feature[node]
                    going |= f >= 0
                    at[i] = left[node] + (0 if x[begin + i, max(f, 0)] <= threshold[node] else 1)
            for i in range(size):
                for k in range(width):
                    v = leaf[at[i], k]
                    total[begin + i, k] += v
                    squares[begin + i, k] += v * v
