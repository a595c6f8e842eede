"""Whether what a layer calls cloud looks like cloud: a mask given the wrong way round is noticed by its brightness."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.masks import MaskRule
from xr_cloudfree.cube.merge import MaskedWindow
from xr_cloudfree.cube.scaling import Scaling, to_reflectance, valid
from xr_cloudfree.errors import CloudfreeWarning

_VISIBLE = ("blue", "green", "red")
_SAMPLE = 1024  # pixels of a window
_ENOUGH = 256  # samples of either kind
_DATES = 3  # dates with samples of either kind
_DARKER = 0.05  # reflectance by which cloud lies below the pixel's own clear values where it is none
_SHARE = 0.8  # of the samples that are darker: at least 0.85 where a mask is inverted, at most 0.03 where it is not
_DARK = 0.3  # median reflectance of ground without snow; where cloud is brighter, the clear pixels may be snow


def check_polarity(
    bands: NDArray[Any],
    clear: NDArray[np.bool_],
    seen: MaskedWindow,
    scaling: Scaling,
    common_names: Sequence[str | None],
    rule: MaskRule,
) -> None:
    """Warn if what a layer calls cloud is darker than what it calls clear, nearly everywhere.

    Only boolean layers, probabilities and scores are looked at: classes and bits say themselves what they mean. Each
    cloudy value is compared with the median of the clear values of its own pixel, in visible bands. Nothing is said
    where these are lacking, where samples or dates are few, and where cloud is brighter than ground without snow.

    Parameters
    ----------
    bands : ndarray, shape (time, band, y, x)
        Values as stored.
    clear : ndarray of bool, shape (time, y, x)
        Pixels that are clear and hold measurements.
    seen : MaskedWindow
        What the quality layer says: pixels that are neither clear nor missing count as cloud or shadow.
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
    visible = [i for i, role in enumerate(common_names) if role in _VISIBLE]
    if not visible or not (rule.scheme is None or rule.scheme.has_threshold):
        return
    step = max(1, math.ceil(math.sqrt(clear.shape[1] * clear.shape[2] / _SAMPLE)))
    clear = clear[:, ::step, ::step]
    cloudy = ~(seen.clear[:, ::step, ::step] | seen.missing[:, ::step, ::step])
    cloudy &= valid(bands[:, :, ::step, ::step], scaling).all(axis=1)
    for kind in (clear, cloudy):
        if kind.sum() < _ENOUGH or kind.any(axis=(1, 2)).sum() < _DATES:
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
    warnings.warn(
        f"what {rule.label} calls cloud is darker than what it calls clear, nearly everywhere: it seems to be the "
        f"other way round. Try: {_other_way(rule)}; or check=False if it is right",
        CloudfreeWarning,
        stacklevel=2,
    )


def _other_way(rule: MaskRule) -> str:
    """What to type to read a layer the other way round."""
    if rule.scheme is None:
        return f"clear=~{rule.typed}"
    other = "clear_score" if rule.scheme.name == "probability" else "probability"
    return f'mask={rule.typed}.rename("{other}"), scheme="{other}"'
