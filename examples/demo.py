"""Fill a real, cloudy Sentinel-2 cube on two dates, measure how good that is, and keep the results.

    python examples/demo.py [OUTPUT_FOLDER]

It takes a minute or two and needs no internet connection: the cube is in the folder data/, and the weights of the
learned model come with the package. They were not trained on this place.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import rioxarray  # noqa: F401  (registers .rio, with which the GeoTIFF is written)
import xarray as xr

import xr_cloudfree  # noqa: F401  (registers .cloudfree)

CUBE = Path(__file__).resolve().parents[1] / "data" / "s2_portugal.zarr"
OBSERVED = "2021-07-23"  # two thirds under cloud
BETWEEN = "2021-07-26"  # no image was taken on this day
CLEAR = "2021-06-13"  # a clear date, hidden under the clouds of OBSERVED
MODELS = ["linear", "regress", "unet"]


def main(out: Path) -> None:
    """Run the demo and write its results into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    matplotlib.use("agg")  # pictures are written to files; there may be no display

    print(f"1. How the cube {CUBE.name} is interpreted:\n")
    ds = xr.open_zarr(CUBE, decode_coords="all").load()
    print(ds.cloudfree)

    print("\n2. Two dates without clouds")
    images = ds.cloudfree.fill(date=[OBSERVED, BETWEEN], layers="all")
    for date in (OBSERVED, BETWEEN):
        image = images.sel(time=date)
        half = 1.645 * float(image["uncertainty"].where(image["filled"] == 2).median())
        print(
            f"   {date}: {float((image['filled'] == 1).mean()):4.0%} of the pixels observed, "
            f"{float((image['filled'] == 2).mean()):4.0%} filled, {float((image['filled'] == 0).mean()):.0%} unknown; "
            f"90 % interval of a filled value ± {half:.3f} (median)"
        )
    print(f"   The model was {images.attrs['cloudfree_model']}, and the files say so.")

    print("\n3. Accuracy: clear pixels of this cube were hidden under its own clouds and filled\n")
    score = ds.cloudfree.evaluate(models=["nearest", "median", *MODELS], frames=5)
    print(score[["frames", "MAE", "RMSE", "PSNR", "SAM", "SSIM", "coverage90"]].round(4).to_string())
    print(
        "\n   MAE and RMSE in reflectance (0 to 1), SAM in degrees: lower is better. PSNR, SSIM: higher.\n"
        "   coverage90: the share of true values inside the 90 % interval, for models that give one.\n"
        "   partial: a part of a clear date was hidden. gap: the same, without the dates of 20 days around it.\n"
        "   full: the whole date was hidden. haze: the mask missed rims of clouds and some small clouds."
    )

    print("\n4. Files")
    tif, store = out / "filled.tif", out / "filled.zarr"
    picture, beside = out / "before_after.png", out / "models.png"
    image = images["reflectance"].sel(time=OBSERVED).astype("float32")
    image.rio.to_raster(tif, compress="deflate")
    print(f"   {tif}: {OBSERVED}, bands {', '.join(map(str, ds.band.values))}, to open in any GIS")
    with warnings.catch_warnings():
        # zarr warns that consolidated metadata are an extension of its format 3.
        warnings.filterwarnings("ignore", "Consolidated metadata")
        images.to_zarr(store, mode="w")
    layers = ", ".join(str(name) for name in images if name != "reflectance")
    print(f"   {store}: both dates, with the layers {layers}")
    ds.cloudfree.plot.before_after(OBSERVED).savefig(picture, dpi=110, bbox_inches="tight")
    print(f"   {picture}: {OBSERVED} before and after")
    compare(ds, beside)
    print(f"   {beside}: {CLEAR}, hidden under the clouds of {OBSERVED} and filled by {', '.join(MODELS)}")


def compare(ds: xr.Dataset, path: Path) -> None:
    """Draw a partly hidden clear date: the result of each model, its errors, and the uncertainty."""
    import matplotlib.pyplot as plt

    clear = ds.cloudfree.clear_mask()
    truth, own = ds["reflectance"].sel(time=CLEAR), clear.sel(time=CLEAR)
    reduced = clear.copy()
    reduced.loc[{"time": CLEAR}] = own.data & clear.sel(time=OBSERVED).data
    hidden = own & ~reduced.sel(time=CLEAR)

    def show(ax: plt.Axes, image: xr.DataArray, title: str) -> None:
        picture = image.sel(band=["B04", "B03", "B02"]).transpose("y", "x", "band")
        ax.imshow((picture / 0.25).clip(0, 1).fillna(0.7))
        ax.set_title(title)

    figure, axes = plt.subplots(2, 2 + len(MODELS), figsize=(14, 5.8), layout="constrained")
    for ax in axes.flat:
        ax.set_axis_off()
    show(axes[0, 0], truth, f"{CLEAR}, truth")
    show(axes[1, 0], truth.where(~hidden), "input of the models")
    style = {"cmap": "inferno", "vmin": 0, "vmax": 0.08}
    for (top, bottom), name in zip(axes[:, 1:-1].T, MODELS, strict=True):
        # `linear` has no uncertainty; the last of the models does.
        layers = ["filled", "uncertainty"] if name == MODELS[-1] else ["filled"]
        # What is hidden is clear in truth, and repair would restore it.
        filled = ds["reflectance"].cloudfree.fill(CLEAR, clear=reduced, model=name, layers=layers, repair=False)
        error = np.abs(filled["reflectance"] - truth).mean("band").where(hidden)
        show(top, filled["reflectance"], name)
        bottom.imshow(error, **style)
        bottom.set_title(f"mean error {float(error.mean()):.4f}")
    drawn = axes[1, -1].imshow(1.645 * filled["uncertainty"].mean("band").where(hidden), **style)
    axes[1, -1].set_title(f"{MODELS[-1]}: half of its 90 % interval")
    figure.colorbar(drawn, ax=axes[1, -1], shrink=0.9, label="reflectance, mean of bands")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("demo-output"), metavar="OUTPUT_FOLDER")
    main(parser.parse_args().out)
