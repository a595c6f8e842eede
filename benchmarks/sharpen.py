"""Errors of sharpening on real series, against bicubic interpolation and regression with residual kriging (ATPRK).

``python -m benchmarks.sharpen --data folder`` prints the table of `docs/guide/sharpening.md`.

Everything is measured at reduced resolution: coarse bands and guide are degraded by the same factor, so that the coarse
bands themselves are the truth (Wald's protocol). Some archives repeat the pixels of 20 m bands at 10 m; they are taken
back to 20 m first. Rows *10 m* hide a band of 10 m instead, at its full resolution, which is harder: the guide is only
green and red (or what the series has), and its relation to near infrared depends on the ground.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import zoom
from scipy.optimize import nnls

from xr_cloudfree.accuracy import metrics
from xr_cloudfree.sharpening.fit import Tile, sharpen_tile
from xr_cloudfree.sharpening.operators import degrade, response_of

Image = NDArray[np.float32]
Method = Callable[[Image, Image, int], Image]

TEN = ["B02", "B03", "B04", "B08"]
# Series: file, guide, coarse bands, whether the file repeats the pixels of the coarse bands, every how many-th frame.
SERIES = (
    ("Bouconne", "s2_l3a_bouconne_10m.nc", TEN, ["B05", "B06", "B07", "B8A", "B11", "B12"], True, 1),
    ("monthly", "s2s1_monthly_10m.nc", TEN, ["B05", "B06", "B07", "B11", "B12"], True, 1),
    ("Portugal", "s2_portugal_29SND.nc", ["B02", "B03", "B04"], ["B8A"], False, 2),
    ("Landsat", "landsat57_sr_pnw_30m_2000_2003.nc", ["blue", "green", "red"], ["nir", "swir1", "swir2"], False, 5),
)
ROMANIA = ("s2_romania_10m_2015_2019.nc", "s2_romania_20m_2015_2019.nc")


def bicubic(coarse: Image, guide: Image, factor: int) -> Image:
    """Interpolate by cubic splines."""
    return np.stack([zoom(band, factor, order=3, mode="nearest", grid_mode=True) for band in coarse])


def atprk(coarse: Image, guide: Image, factor: int) -> Image:
    """Regress each band on the degraded guide, and krige the residual from area to point.

    References
    ----------
    Wang et al. 2015, Area-to-point regression kriging for pan-sharpening, doi 10.1016/j.isprsjprs.2015.11.004, and
    2016, Fusion of Sentinel-2 images, doi 10.1016/j.rse.2016.10.030.
    """
    small = degrade(guide, factor).reshape(len(guide), -1)
    design = np.vstack([small, np.ones(small.shape[1])]).T.astype(np.float64)
    full = np.vstack([guide.reshape(len(guide), -1), np.ones(guide[0].size)]).T
    out = np.empty((len(coarse), *guide.shape[1:]), np.float32)
    for i, band in enumerate(coarse):
        slope = np.linalg.lstsq(design, band.ravel(), rcond=None)[0]
        residual = band - (design @ slope).reshape(band.shape)
        out[i] = (full @ slope).reshape(guide.shape[1:]) + _krige(residual, factor)
    return out


_REACH = 2  # neighbours of a coarse pixel to each side that are kriged from
_RANGES = (0.3, 0.6, 1.0, 2.0, 4.0)  # of the exponential covariance, in coarse pixels


def _krige(residual: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Krige a residual with the covariance whose regularised variogram is most like the residual's."""
    lags = range(1, _REACH + 1)
    seen = np.array(
        [
            np.mean((residual[:, k:] - residual[:, :-k]) ** 2) + np.mean((residual[k:] - residual[:-k]) ** 2)
            for k in lags
        ]
    )
    models = [_weights(factor, reach) for reach in _RANGES]
    weights, _ = min(models, key=lambda model: float(np.sum((model[1] - seen / seen[0]) ** 2)))
    padded = np.pad(residual, _REACH, mode="symmetric")
    views = np.lib.stride_tricks.sliding_window_view(padded, (2 * _REACH + 1,) * 2)
    fine = np.einsum("yxij,abij->yaxb", views, weights)
    return fine.reshape(residual.shape[0] * factor, residual.shape[1] * factor)


@lru_cache
def _weights(factor: int, reach: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the kriging weights of the fine pixels of a coarse one, and the regularised variogram over its first.

    The exponential covariance is written as a sum of Gaussians, which separate along the axes.
    """
    response, margin = response_of(factor)
    n = 2 * _REACH + 1
    support = np.zeros((n, (n - 1) * factor + len(response)))
    for i in range(n):
        support[i, i * factor : i * factor + len(response)] = response
    fine = _REACH * factor + margin + np.arange(factor)
    distance = np.abs(np.subtract.outer(np.arange(support.shape[1]), np.arange(support.shape[1])))
    scale = reach * factor
    widths = np.geomspace(0.3, 30, 24) * scale
    lag = np.linspace(0, 8 * scale, 200)
    shares, _ = nnls(np.exp(-((lag[:, None] / widths) ** 2) / 2), np.exp(-lag / scale))
    between, to_point = np.zeros((n * n, n * n)), np.zeros((factor**2, n * n))
    for share, width in zip(shares, widths, strict=True):
        covariance = np.exp(-((distance / width) ** 2) / 2)
        area, point = support @ covariance @ support.T, covariance[fine] @ support.T
        between += share * np.einsum("ij,kl->ikjl", area, area).reshape(between.shape)
        to_point += share * np.einsum("ij,kl->ikjl", point, point).reshape(to_point.shape)
    system = np.ones((n * n + 1, n * n + 1))
    system[-1, -1] = 0
    system[:-1, :-1] = between + 1e-3 * between[0, 0] * np.eye(n * n)
    right = np.hstack([to_point, np.ones((factor**2, 1))])
    weights = np.linalg.solve(system, right.T).T[:, :-1].reshape(factor, factor, n, n)
    middle = n * n // 2
    variogram = np.array([between[middle, middle] - between[middle, middle + k] for k in range(1, _REACH + 1)])
    return weights, variogram / variogram[0]


def sharpen(coarse: Image, guide: Image, factor: int) -> Image:
    """Sharpen one tile."""
    known = np.ones(coarse.shape, bool)
    return sharpen_tile(Tile(guide, np.ones(guide.shape[1:], bool), coarse, known, factor))[0]


METHODS: dict[str, Method] = {"bicubic": bicubic, "ATPRK": atprk, "sharpen": sharpen}


def _frames(path: Path, every: int) -> tuple[xr.Dataset, NDArray[np.intp]]:
    ds = xr.open_dataset(path)
    good = (ds.clear_fraction.values > 0.95) & np.isfinite(ds.reflectance.values).all(axis=(1, 2, 3))
    if "suspect" in ds:
        good &= ds.suspect.values == 0
    return ds, np.flatnonzero(good)[::every]


def _crop(image: Image, unit: int) -> Image:
    return image[..., : image.shape[-2] // unit * unit, : image.shape[-1] // unit * unit]


def cases(folder: Path) -> Iterator[tuple[str, str, int, Image, Image]]:
    """Yield place, case, factor, guide and truth (time, band, y, x), on one grid."""
    found = {path.name: path for path in sorted(folder.rglob("*.nc"))}
    for place, file, fine, coarse, repeated, every in SERIES:
        ds, frames = _frames(found[file], every)
        values = ds.reflectance.isel(time=frames).astype(np.float32)
        guide, truth = values.sel(band=fine).values, values.sel(band=coarse).values
        if repeated:
            even, own = _crop(guide, 2), _crop(truth, 2)
            for factor in (2, 6) if place == "Bouconne" else (2,):
                yield place, "20 m", factor, degrade(even, 2), own[..., ::2, ::2]
            for factor in (2, 6):
                yield place, "10 m", factor, guide[:, 1:3], guide[:, [0, 3]]
        else:
            for factor in (2, 6):
                yield place, "30 m" if place == "Landsat" else "20 m", factor, guide, truth
    (ten, frames), (twenty, also) = (_frames(found[file], 1) for file in ROMANIA)
    frames = np.intersect1d(frames, also)[::4]
    guide = ten.reflectance.isel(time=frames).sel(band=TEN).values.astype(np.float32)
    truth = twenty.reflectance.isel(time=frames).sel(band=["B8A", "B11"]).values.astype(np.float32)
    yield "Romania", "20 m", 2, degrade(guide, 2), truth
    for factor in (2, 6):
        yield "Romania", "10 m", factor, guide[:, 1:3], guide[:, [0, 3]]


def ergas(image: Image, truth: Image, factor: int) -> float:
    """Return the relative global error (Wald 2002); lower is better."""
    relative = np.square(image - truth).mean(axis=(1, 2)) / np.square(truth.mean(axis=(1, 2)))
    return float(100 / factor * np.sqrt(relative.mean()))


def measure(folder: Path, noise: float = 0.0) -> pd.DataFrame:
    """Measure all methods on all frames of all cases.

    Parameters
    ----------
    folder : Path
        Folder with the series.
    noise : float
        Standard deviation of noise that is added to the coarse bands, in reflectance.
    """
    rows = []
    for place, case, factor, guide, truth in cases(folder):
        guide, truth = (
            _crop(guide, factor**2 if factor == 2 else factor),
            _crop(truth, factor**2 if factor == 2 else factor),
        )
        rng = np.random.default_rng(0)
        for date, (g, t) in enumerate(zip(guide, truth, strict=True)):
            coarse = degrade(t, factor) + rng.normal(0, noise, degrade(t, factor).shape).astype(np.float32) * (
                noise > 0
            )
            for name, method in METHODS.items():
                began = time.process_time()
                image = method(coarse.astype(np.float32), g, factor)
                rows.append(
                    {
                        "place": place,
                        "case": case,
                        "factor": factor,
                        "date": date,
                        "method": name,
                        "PSNR": metrics.psnr(image, t),
                        "SSIM": metrics.ssim(image, t, data_range=metrics.data_range(t)),
                        "ERGAS": ergas(image, t, factor),
                        "SAM": metrics.sam(image, t) if len(t) > 1 else np.nan,
                        "consistency": float(np.sqrt(np.square(degrade(image, factor) - coarse).mean())),
                        "seconds": time.process_time() - began,
                    }
                )
    return pd.DataFrame(rows)


def table(scores: pd.DataFrame) -> str:
    """Return the means over frames as a table in Markdown, and the mean over the cases."""
    columns = ["PSNR", "SSIM", "ERGAS", "SAM"]
    means = scores.groupby(["place", "case", "factor", "method"], sort=False)[
        [*columns, "consistency", "seconds"]
    ].mean()
    wide = means.unstack("method")
    names = list(METHODS)
    lines = [
        "| place | hidden | factor | " + " | ".join(f"{column}: {' / '.join(names)}" for column in columns) + " |",
        "|---" * (3 + len(columns)) + "|",
    ]
    digits = {"PSNR": 2, "SSIM": 3, "ERGAS": 2, "SAM": 2}

    def cells(row: pd.Series) -> str:
        texts = []
        for column in columns:
            values = [row[column, name] for name in names]
            texts.append(
                "" if np.isnan(values).any() else " / ".join(f"{value:.{digits[column]}f}" for value in values)
            )
        return " | ".join(texts)

    for (place, case, factor), row in wide.iterrows():
        lines.append(f"| {place} | {case} | {factor} | {cells(row)} |")
    lines.append(f"| **mean** | | | {cells(wide.mean())} |")
    gain = wide["PSNR", "sharpen"] - wide["PSNR", "ATPRK"]
    lines += ["", f"Least gain over ATPRK: {gain.min():+.2f} dB ({' '.join(map(str, gain.idxmin()))})"]
    lines += [f"Largest consistency RMSE of sharpen: {wide['consistency', 'sharpen'].max():.5f}"]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the series")
    parser.add_argument("--noise", type=float, default=0.0, help="noise added to the coarse bands, in reflectance")
    options = parser.parse_args()
    print(table(measure(options.data, options.noise)))
