"""Check for inverted masks: pixels masked as cloud have to be bright."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.masks import MaskRule
from xr_cloudfree.cube.merge import MaskedWindow
from xr_cloudfree.cube.scaling import Scaling, to_reflectance, valid
from xr_cloudfree.errors import warn

_VISIBLE = ("blue", "green", "red")
_SAMPLE = 1024  # pixels of a window
_ENOUGH = 256  # samples each of clear and cloudy pixels
_DATES = 3  # dates each with clear and with cloudy samples
_DARKER = 0.05  # reflectance by which a sample has to be darker than the pixel's median clear value
_SHARE = 0.8  # share of darker samples: at least 0.85 for inverted masks, at most 0.03 for others
_DARK = 0.3  # median reflectance of ground without snow; if cloud is brighter, the clear pixels may be snow


def check_polarity(
    bands: NDArray[Any],
    clear: NDArray[np.bool_],
    seen: MaskedWindow,
    scaling: Scaling,
    common_names: Sequence[str | None],
    rule: MaskRule,
) -> None:
    """Warn if cloudy pixels are darker than clear ones nearly everywhere.

    Only boolean layers, probabilities and scores are checked, since classes and bits define their own meaning. Each
    cloudy value is compared with the median clear value of its pixel in the visible bands. There is no warning without
    visible bands, with few samples or dates, or if cloud is brighter than ground without snow.

    Parameters
    ----------
    bands : ndarray, shape (time, band, y, x)
        Values as stored.
    clear : ndarray of bool, shape (time, y, x)
        Clear pixels with measurements.
    seen : MaskedWindow
        The decoded quality layer: pixels that are neither clear nor missing count as cloud or shadow.
    scaling : Scaling
        How the values are stored.
    common_names : sequence of (str or None)
        STAC common name per band.
    rule : MaskRule
        How the quality layer is read.

    Warns
    -----
    CloudfreeWarning
        If the layer seems to be inverted. The text is the same for all windows of a cube.
    """
    visible = [i for i, name in enumerate(common_names) if name in _VISIBLE]
    if not visible or not (rule.scheme is None or rule.scheme.has_threshold):
        return
    step = max(1, math.ceil(math.sqrt(clear.shape[1] * clear.shape[2] / _SAMPLE)))
    clear = clear[:, ::step, ::step]
    cloudy = ~(seen.clear[:, ::step, ::step] | seen.missing[:, ::step, ::step])
    cloudy &= valid(bands[:, :, ::step, ::step], scaling).all(axis=1)
    for samples in (clear, cloudy):
        if samples.sum() < _ENOUGH or samples.any(axis=(1, 2)).sum() < _DATES:
            return
    bright = to_reflectance(bands[:, visible, ::step, ::step], scaling).mean(axis=1)
    both = clear.any(axis=0) & cloudy.any(axis=0)
    bright, clear, cloudy = bright[:, both], clear[:, both], cloudy[:, both]
    if cloudy.sum() < _ENOUGH:
        return
    level = np.nanmedian(np.where(clear, bright, np.nan), axis=0)
    darker = (bright - level)[cloudy] < -_DARKER
    if np.median(bright[cloudy]) >= _DARK or darker.mean() < _SHARE:
        return
    warn(
        f"the cloudy pixels of {rule.label} are darker than the clear ones nearly everywhere: the mask seems to be "
        f"inverted. Try: {_inverted(rule)}; or check=False if it is right"
    )


def _inverted(rule: MaskRule) -> str:
    """Return the options that invert a mask."""
    if rule.scheme is None:
        return f"clear=~{rule.typed}"
    other = "clear_score" if rule.scheme.name == "probability" else "probability"
    return f'mask={rule.typed}.rename("{other}"), scheme="{other}"'
