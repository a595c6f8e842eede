"""Simulate masks that are wrong, with known truth: the clouds of real dates are added to clear frames.

The other tracks (`xr_cloudfree.accuracy.simulate`) hide clear pixels, so that their mask is right by construction. Here
the target shows cloud, and its mask misses some of it, as real masks do:

``"clouds"``
    The cloud signal of another date of the series, the donor, is added to a clear frame, beyond the donor's mask as
    well. The given mask is the donor's own.
``"no mask"``
    As *clouds*, but all masks are thrown away: every pixel with a value counts as clear. Corrected, the masks are those
    that ``mask="series"`` makes.
``"wrong mask"``
    As *clouds*, but on every date 20 % of the cloud objects are missing from the mask, and 10 % of the clear pixels
    are masked, in blobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.accuracy import metrics
from xr_cloudfree.accuracy.simulate import Case, choose_frames, days_from, others
from xr_cloudfree.cube.masks import dilate_not_clear
from xr_cloudfree.errors import OptionError, TimeError, option
from xr_cloudfree.masking.repair import Repaired, repair
from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.protocol import Observations

MaskTrack = Literal["clouds", "no mask", "wrong mask"]
MASK_TRACKS: tuple[MaskTrack, ...] = get_args(MaskTrack)

# A donor's share of pixels that are not clear, and least share of pixels with a value.
DONOR_SHARE, DONOR_VALUES = (0.15, 0.8), 0.95
# A donor is at least so many days away: scenes of one pass may bear two dates.
DONOR_DAYS = 1.0
# The signal is kept up to so many pixels beyond the donor's mask, where it, smoothed by a Gaussian of a standard
# deviation of so many pixels, brightens or darkens all bands by more than so much.
RIM_PIXELS, RIM_SMOOTHING, RIM_SIGNAL = 10, 0.7, 0.008
# Range of reflectance of a cloudy pixel.
LIMITS = (0.005, 1.2)
# *wrong mask*: share of the cloud objects that are unmasked, share of the clear pixels that are masked, and standard
# deviation in pixels of the Gaussian that makes blobs of noise.
UNMASKED, FLAGGED, BLOB = 0.2, 0.1, 3.0


@dataclass(frozen=True, eq=False)
class MaskCase:
    """A clear frame with the clouds of another date, and the masks of its series.

    Parameters
    ----------
    track : {"clouds", "no mask", "wrong mask"}
        How the masks were made.
    frame, donor : int
        Indices of the target and of the donor in the original series.
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance of the input, the target with the donor's clouds; NaN where there is no value. Unlike those of a
        `Case`, values that are not clear are kept.
    usable : ndarray of bool, shape (time, y, x)
        Where every band has a value. Pixels of the target at which the donor's signal is unknown have none.
    given : ndarray of bool, shape (time, y, x)
        Clear according to the masks of the track.
    right : ndarray of bool, shape (time, y, x)
        Clear according to the masks of the series; on the target, according to its own and the donor's. The same as
        `given` in *clouds*.
    true : ndarray of bool, shape (time, y, x)
        The same as `right`, but on the target without the cloud and shadow that the donor's mask misses.
    day_offset : ndarray of float64, shape (time,)
        Signed days from the target date, increasing.
    target : int
        Index of the target in `bands`.
    truth : ndarray of float32, shape (band, y, x)
        The target as it was observed.
    scored : ndarray of bool, shape (y, x)
        Pixels at which the truth is clear, the input has a value, and another date is clear.
    """

    track: MaskTrack
    frame: int
    donor: int
    bands: NDArray[np.float32]
    usable: NDArray[np.bool_]
    given: NDArray[np.bool_]
    right: NDArray[np.bool_]
    true: NDArray[np.bool_]
    day_offset: NDArray[np.float64]
    target: int
    truth: NDArray[np.float32]
    scored: NDArray[np.bool_]

    @property
    def under(self) -> NDArray[np.bool_]:
        """Scored pixels under the donor's mask: ndarray of bool, shape (y, x)."""
        return np.asarray(self.scored & ~self.right[self.target])

    @property
    def rim(self) -> NDArray[np.bool_]:
        """Scored pixels with cloud or shadow that the donor's mask misses: ndarray of bool, shape (y, x)."""
        return np.asarray(self.scored & self.right[self.target] & ~self.true[self.target])


def cloud_signal(
    bands: NDArray[np.float32], clear: NDArray[np.bool_], days: NDArray[np.float64], donor: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Extract the clouds and shadows of one date: what differs from the prediction of the other dates.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance; NaN where there is no value.
    clear : ndarray of bool, shape (time, y, x)
        True where a pixel is clear according to its mask.
    days : ndarray of float64, shape (time,)
        Days from any date, increasing.
    donor : int
        Index of the date.

    Returns
    -------
    signal : ndarray of float32, shape (band, y, x)
        Reflectance of the date less its linear prediction from the clear pixels of the others; 0 outside of `cloud`.
    cloud : ndarray of bool, shape (y, x)
        Pixels that are not clear according to the mask, and those up to 10 pixels beyond it at which the smoothed
        signal brightens all bands, or darkens all, by more than 0.008.
    known : ndarray of bool, shape (y, x)
        False where the date has no value or no other date is clear.

    Examples
    --------
    Half of the second date is under a cloud of 0.3, masked but for one column:

    >>> bands = np.full((3, 2, 8, 8), 0.1, np.float32)
    >>> bands[1, :, :, :4] += 0.3
    >>> clear = np.ones((3, 8, 8), bool)
    >>> clear[1, :, :3] = False
    >>> signal, cloud, known = cloud_signal(bands, clear, np.array([0.0, 5.0, 10.0]), 1)
    >>> print(signal[0, 0].round(2))
    [0.3 0.3 0.3 0.3 0.  0.  0.  0. ]
    >>> bool(cloud[:, 3].all()), bool(known.all())
    (True, True)
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    elsewhere = clear.copy()
    elsewhere[donor] = False
    expected = Linear().predict([Observations(bands, elsewhere, days - days[donor])])[0]
    known = expected.known & np.isfinite(bands[donor]).all(axis=0)
    signal = np.where(known, bands[donor] - expected.bands, np.float32(0)).astype(np.float32)
    smooth = gaussian_filter(signal, (0, RIM_SMOOTHING, RIM_SMOOTHING))
    # Without a pixel to measure the distance from, scipy measures it from outside of the image.
    near = distance_transform_edt(clear[donor]) <= RIM_PIXELS if not clear[donor].all() else ~clear[donor]
    cloud = ~clear[donor] | (near & ((smooth > RIM_SIGNAL).all(axis=0) | (smooth < -RIM_SIGNAL).all(axis=0)))
    return np.where(cloud, signal, np.float32(0)), cloud, known


def donors(
    clear: NDArray[np.bool_], usable: NDArray[np.bool_], time: NDArray[np.datetime64], frame: int
) -> NDArray[np.intp]:
    """Return the dates whose clouds can be added to a frame.

    Parameters
    ----------
    clear, usable : ndarray of bool, shape (time, y, x)
        Clear according to the mask; a value in every band.
    time : ndarray of datetime64, shape (time,)
        Dates, increasing.
    frame : int
        Index of the frame.

    Returns
    -------
    ndarray of int
        Indices of the dates of other passes that are 15 to 80 % not clear, with values at more than 95 % of the pixels.
    """
    share = 1.0 - clear.mean(axis=(1, 2))
    partly = (share >= DONOR_SHARE[0]) & (share <= DONOR_SHARE[1]) & (usable.mean(axis=(1, 2)) > DONOR_VALUES)
    apart = np.abs(days_from(time, frame)) > DONOR_DAYS
    return np.flatnonzero(partly & apart & others(time, frame))


def unmask_objects(
    clear: NDArray[np.bool_], usable: NDArray[np.bool_], share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Take a share of the objects out of a mask, each as a whole.

    Parameters
    ----------
    clear : ndarray of bool, shape (y, x)
        True where clear.
    usable : ndarray of bool, shape (y, x)
        False where there is no value; such pixels are no cloud, and stay not clear.
    share : float
        Share of the objects, in [0, 1]. A fraction of an object is one more object with that probability.
    rng : numpy.random.Generator
        Random generator.

    Returns
    -------
    ndarray of bool, shape (y, x)
        The clear mask. Pixels that touch, also at a corner, are one object.
    """
    from scipy.ndimage import label

    objects, number = label(~clear & usable, np.ones((3, 3)))
    chosen = rng.permutation(number)[: int(share * number + rng.random())] + 1
    return np.asarray(clear | np.isin(objects, chosen))


def flag_blobs(clear: NDArray[np.bool_], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask a share of the clear pixels, in blobs of a few pixels.

    Parameters
    ----------
    clear : ndarray of bool, shape (y, x)
        True where clear.
    share : float
        Share of the clear pixels, in [0, 1], rounded to whole pixels.
    rng : numpy.random.Generator
        Random generator.

    Returns
    -------
    ndarray of bool, shape (y, x)
        The flagged pixels: those of the highest values of smoothed noise.
    """
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.standard_normal(clear.shape), BLOB, mode="wrap")
    flagged = np.zeros(clear.shape, bool)
    where = np.flatnonzero(clear)
    flagged.flat[where[np.argsort(-noise.flat[where], kind="stable")[: round(share * where.size)]]] = True
    return flagged


def make_mask_case(
    bands: NDArray[np.float32],
    clear: NDArray[np.bool_],
    time: NDArray[np.datetime64],
    frame: int,
    donor: int,
    track: MaskTrack,
    rng: np.random.Generator,
    *,
    limits: tuple[float, float] = LIMITS,
) -> MaskCase:
    """Add the clouds of one date to a clear frame, and make the masks of a track.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance, also where not clear; NaN where there is no value.
    clear : ndarray of bool, shape (time, y, x)
        True where a pixel is clear according to its mask, and has a value in every band.
    time : ndarray of datetime64, shape (time,)
        Dates, increasing. Other dates of the frame's day are left out.
    frame, donor : int
        Index of the target, and of the date that its clouds are from.
    track : {"clouds", "no mask", "wrong mask"}
        Which masks are given.
    rng : numpy.random.Generator
        Random generator, used by *wrong mask* only.
    limits : tuple of float
        Lowest and highest reflectance of a cloudy pixel.

    Returns
    -------
    MaskCase
        The input of a model, and the truth.

    Raises
    ------
    OptionError
        If the track is unknown.
    TimeError
        If the dates do not increase, or the donor is of the frame's day.
    """
    if track not in MASK_TRACKS:
        raise OptionError(f"track is {track!r}", f"one of {', '.join(MASK_TRACKS)}", option("track='clouds'"))
    days, keep = days_from(time, frame), others(time, frame)
    if not keep[donor]:
        raise TimeError(
            f"the donor {donor} is of the same day as the frame {frame}",
            "clouds of another pass",
            "donors(clear, usable, time, frame) for the dates that can be donors",
        )
    signal, cloud, known = cloud_signal(bands, clear, days, donor)
    keep[frame] = True
    target = int(keep[:frame].sum())
    values, right = bands[keep].astype(np.float32), clear[keep]
    cloudy = np.clip(bands[frame] + signal, *limits)
    values[target] = np.where(known, np.where(cloud, cloudy, bands[frame]), np.float32(np.nan))
    usable = np.asarray(np.isfinite(values).all(axis=1))
    right[target] = clear[frame] & clear[donor] & known
    true = right.copy()
    true[target] &= ~cloud
    given = right
    if track == "no mask":
        given = usable
    elif track == "wrong mask":
        given = np.stack(
            [
                unmask_objects(mask, there, UNMASKED, rng) & ~flag_blobs(mask, FLAGGED, rng)
                for mask, there in zip(right, usable, strict=True)
            ]
        )
    scored = np.asarray(clear[frame] & known & np.delete(true, target, axis=0).any(axis=0))
    truth = bands[frame].astype(np.float32)
    return MaskCase(track, frame, donor, values, usable, given, right, true, days[keep], target, truth, scored)


def make_mask_cases(
    bands: NDArray[np.float32],
    clear: NDArray[np.bool_],
    time: NDArray[np.datetime64],
    track: MaskTrack,
    *,
    suspect: NDArray[np.bool_] | None = None,
    limit: int | None = None,
    seed: int = 0,
    limits: tuple[float, float] = LIMITS,
) -> Iterator[MaskCase]:
    """Add the clouds of other dates to each frame that can serve as truth.

    Parameters
    ----------
    bands, clear, time, track, limits
        As for `make_mask_case`.
    suspect : ndarray of bool, shape (time,), optional
        Frames that cannot serve as truth.
    limit : int, optional
        Maximum number of frames, drawn at random.
    seed : int
        Seed of the random numbers; for one seed, a frame has the same clouds in every track.

    Yields
    ------
    MaskCase
        One per frame, in order of time. Frames without a donor or without a pixel to score are left out.

    Raises
    ------
    OptionError
        If the track is unknown.
    TimeError
        If the dates do not increase.
    """
    usable = np.asarray(np.isfinite(bands).all(axis=1))
    for frame in choose_frames(clear, suspect, limit, seed):
        possible = donors(clear, usable, time, int(frame))
        if not possible.size:
            continue
        rng = np.random.default_rng([seed, 4, int(frame)])
        donor = int(rng.choice(possible))
        case = make_mask_case(bands, clear, time, int(frame), donor, track, rng, limits=limits)
        if case.scored.any():
            yield case


def repaired(
    case: Case | MaskCase,
    from_series: bool = False,
) -> Repaired:
    """Correct the masks of a case by its series; for *no mask*, make them.

    Parameters
    ----------
    case : Case or MaskCase
        The case; a `Case` made with ``keep_values=True``, whose hidden pixels then have no value and stay hidden.
    from_series : bool
        Whether masks are made on other tracks, too.

    Returns
    -------
    Repaired
        Corrected masks of all dates of the case.
    """
    usable = np.asarray(np.isfinite(case.bands).all(axis=1))
    return repair(
        case.bands,
        case.clear if isinstance(case, Case) else case.given,
        case.day_offset,
        usable=usable,
        keep=~usable,
        from_series=from_series or case.track == "no mask",
    )


def dilated(case: MaskCase, pixels: int) -> NDArray[np.bool_]:
    """Return the given masks of a case without `pixels` pixels around cloud and shadow, as `dilate=` of `fill` does.

    Returns
    -------
    ndarray of bool, shape (time, y, x)
        True where clear.
    """
    return dilate_not_clear(case.given, ~case.usable, pixels)


def compose(
    case: MaskCase, clear: NDArray[np.bool_], predicted: NDArray[np.float32], known: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the filled image: observed where clear, else predicted.

    Parameters
    ----------
    case : MaskCase
        The case.
    clear : ndarray of bool, shape (time, y, x)
        The clear masks that the prediction was made with.
    predicted : ndarray of float32, shape (band, y, x)
        A model's prediction of the target.
    known : ndarray of bool, shape (y, x)
        Where there is a prediction.

    Returns
    -------
    ndarray of float32, shape (band, y, x)
        NaN where neither is known.
    """
    filled = np.where(known, predicted, np.float32(np.nan))
    return np.where(clear[case.target], case.bands[case.target], filled).astype(np.float32)


def image_scores(case: MaskCase, image: NDArray[np.float32]) -> dict[str, float]:
    """Compare a filled image with the truth: the whole image, under the given mask, and the missed rim.

    Parameters
    ----------
    case : MaskCase
        The case.
    image : ndarray of float32, shape (band, y, x)
        Filled image, see `compose`. NaN pixels are left out.

    Returns
    -------
    dict of str to float
        ``answered``, the share of the scored pixels that have a value, and PSNR in dB: ``whole``, ``under`` (the
        donor's mask) and ``rim`` (cloud that this mask misses); NaN where there is no such pixel.
    """
    answered = np.asarray(np.isfinite(image).all(axis=0))
    score = {"answered": float(answered[case.scored].mean())}
    for name, region in (("whole", case.scored), ("under", case.under), ("rim", case.rim)):
        where = region & answered
        score[name] = metrics.psnr(image, case.truth, where) if where.any() else float("nan")
    return score


def mask_scores(case: MaskCase, clear: NDArray[np.bool_]) -> dict[str, float]:
    """Compare clear masks with the true ones.

    Parameters
    ----------
    case : MaskCase
        The case.
    clear : ndarray of bool, shape (time, y, x)
        The masks, such as ``repaired(case).clear``.

    Returns
    -------
    dict of str to float
        Shares in [0, 1], NaN where there is no such pixel. Of the scored pixels of the target:

        - ``recall``: of those with cloud or shadow, the share that is masked;
        - ``precision``: of those that the mask calls clear, the share that is clear;
        - ``false_alarms``: of the clear ones, the share that is masked;
        - ``newly_masked``: of the clear ones, the share that is masked although the given mask calls them clear.

        Of all other dates, where only their own masks tell what is clear: ``others_recall``, ``others_precision`` and
        ``others_false_alarms``. Of all dates: ``restored``, the share of the pixels that *wrong mask* flagged that are
        clear again.
    """
    target, true = case.target, case.true[case.target]
    score = _compare(clear[target], true, case.scored)
    score["newly_masked"] = _share(~clear[target] & case.given[target], true & case.scored)
    rest = np.arange(len(clear)) != target
    score |= {
        f"others_{key}": value for key, value in _compare(clear[rest], case.right[rest], case.usable[rest]).items()
    }
    score["restored"] = _share(clear, case.true & ~case.given)
    return score


def _compare(clear: NDArray[np.bool_], true: NDArray[np.bool_], where: NDArray[np.bool_]) -> dict[str, float]:
    return {
        "recall": _share(~clear, ~true & where),
        "precision": _share(true, clear & where),
        "false_alarms": _share(~clear, true & where),
    }


def _share(found: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    return float(found[among].mean()) if among.any() else float("nan")
