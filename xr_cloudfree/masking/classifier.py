"""The classifier of the correction of masks: a small perceptron, with its weights beside this file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.masking import kernels


@dataclass(frozen=True, eq=False)
class Classifier:
    """A perceptron with one hidden layer of rectified units.

    Parameters
    ----------
    first, bias : ndarray of float32, shapes (hidden, input) and (hidden,)
        The hidden layer.
    last : ndarray of float32, shape (hidden,)
        The output layer.
    shift : float
        Its bias.
    """

    first: NDArray[np.float32]
    bias: NDArray[np.float32]
    last: NDArray[np.float32]
    shift: float

    def __call__(self, inputs: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the log-odds of cloud or shadow, shape (y, x); 0 outside `where`.

        Parameters
        ----------
        inputs : ndarray of float32, shape (input, y, x)
            See `detector.evidence`.
        where : ndarray of bool, shape (y, x)
            The pixels for which it is computed.
        """
        flat = inputs.reshape(len(inputs), -1)
        odds = kernels.perceptron(flat, np.flatnonzero(where), self.first, self.bias, self.last, self.shift)
        return odds.reshape(where.shape)


def parse(stored: Mapping[str, Any]) -> Classifier:
    """Return a classifier from its weights.

    Parameters
    ----------
    stored : mapping
        ``first`` (hidden, input), ``bias`` and ``last`` (hidden,), and ``shift``.
    """
    first, bias, last = (np.asarray(stored[name], np.float32) for name in ("first", "bias", "last"))
    return Classifier(first, bias, last, float(stored["shift"]))


@cache
def load() -> Classifier:
    """Return the classifier that comes with the package."""
    return parse(json.loads(files(__package__).joinpath("classifier.json").read_text(encoding="utf-8")))
