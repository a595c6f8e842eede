"""Fill a real, cloudy Sentinel-2 cube on two dates, measure how good that is, and keep the results.

    python examples/demo.py [OUTPUT_FOLDER]

It takes less than a minute and needs nothing from the network: the cube is in the folder data/.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import matplotlib
import rioxarray  # noqa: F401  (registers .rio, with which the GeoTIFF is written)
import xarray as xr

import xr_cloudfree  # noqa: F401  (registers .cloudfree)

CUBE = Path(__file__).resolve().parents[1] / "data" / "s2_portugal.zarr"
OBSERVED = "2021-07-23"  # two thirds of this date lie under cloud
BETWEEN = "2021-07-26"  # no image was taken on this day


def main(out: Path) -> None:
    """Run the demo and write its results into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    matplotlib.use("agg")  # pictures go into files; there may be no display

    print(f"1. The cube {CUBE.name}, as it is understood:\n")
    ds = xr.open_zarr(CUBE, decode_coords="all").load()
    print(ds.cloudfree)

    print("\n2. Two dates without clouds")
    images = ds.cloudfree.fill(date=[OBSERVED, BETWEEN], layers="all")
    for date in (OBSERVED, BETWEEN):
        filled = images["filled"].sel(time=date)
        print(
            f"   {date}: {float((filled == 1).mean()):4.0%} of the pixels are the date's own, "
            f"{float((filled == 2).mean()):4.0%} filled, {float((filled == 0).mean()):.0%} unknown"
        )

    print("\n3. How good is that? Clear pixels of this cube were hidden under its own clouds and filled:\n")
    score = ds.cloudfree.evaluate(models=["nearest", "median", "linear", "regress"], frames=5)
    print(score[["frames", "MAE", "RMSE", "PSNR", "SAM", "SSIM"]].round(4).to_string())
    print(
        "\n   MAE and RMSE in reflectance (0 to 1), SAM in degrees: less is better. PSNR, SSIM: more.\n"
        "   partial: a part of a clear date was hidden. gap: the same, without the dates of 20 days around.\n"
        "   full: the whole date was hidden. haze: the mask missed the rims of clouds and some small ones."
    )

    print("\n4. Files")
    tif, store, picture = (out / name for name in ("filled.tif", "filled.zarr", "before_after.png"))
    image = images["reflectance"].sel(time=OBSERVED).astype("float32")
    image.rio.to_raster(tif, compress="deflate")
    print(f"   {tif}: {OBSERVED}, bands {', '.join(map(str, ds.band.values))}, to open in any GIS")
    with warnings.catch_warnings():
        # zarr notes that metadata in one piece is an extension of its format 3.
        warnings.filterwarnings("ignore", "Consolidated metadata")
        images.to_zarr(store, mode="w")
    layers = ", ".join(str(name) for name in images if name != "reflectance")
    print(f"   {store}: both dates, with what is known of each pixel: {layers}")
    ds.cloudfree.plot.before_after(OBSERVED).savefig(picture, dpi=110, bbox_inches="tight")
    print(f"   {picture}: {OBSERVED} before and after")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("demo-output"), metavar="OUTPUT_FOLDER")
    main(parser.parse_args().out)
