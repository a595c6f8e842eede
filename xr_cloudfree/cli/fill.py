"""The command ``cloudfree fill``, and the report that it prints."""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xr_cloudfree.cli.commands import plain_errors
from xr_cloudfree.cli.options import (
    OUTPUT,
    AnyCube,
    Block,
    Check,
    Debug,
    Filling,
    Loading,
    Overwrite,
    Quiet,
    Reading,
    grouped,
)
from xr_cloudfree.cli.preview import draw, picture_paths
from xr_cloudfree.cli.progress import progress_bar, reading_bar
from xr_cloudfree.storage.locations import local

if TYPE_CHECKING:
    import xarray as xr

_MAX_LINES = 12


@grouped
def fill(
    cube: AnyCube = None,
    *,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="OUT.zarr: one store. OUT.tif: a GeoTIFF for each date, and one for each layer.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ],
    filling: Filling,
    loading: Loading,
    preview: Annotated[
        str | None,
        typer.Option(metavar="PNG", help="Draw each date before and after filling.", rich_help_panel=OUTPUT),
    ] = None,
    overwrite: Overwrite = False,
    reading: Reading,
    check: Check = True,
    block: Block = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fill the clouds of one date, several dates or all dates.

    Clear pixels are kept as they are; the others are estimated from the other dates.
    The layer 'filled' tells them apart: 1 observed, 2 filled, 3 filled in some bands only, 0 not filled (nodata).

    [bold]Examples[/bold]

    [cyan]cloudfree fill cube.zarr --date 2021-07-08 --out july.tif
    cloudfree fill cube.zarr --out filled.zarr --model regress --layers all
    cloudfree fill s2.nc -d 2021-07-08 -d 2021-08-02 -o s2.tif --preview s2.png
    cloudfree fill cube.zarr --date 2021-05/2021-07 --freq 10D --out summer.zarr
    cloudfree fill --collection sentinel-2-c1-l2a --bbox=-8.5,40.1,-8.4,40.2 --time 2021 -d 2021-07-08 -o july.tif
    cloudfree fill s2.nc --mask SCL --scale 1e-4 --offset -0.1 -o filled.zarr[/cyan]
    """
    with plain_errors(debug):
        from xr_cloudfree import api, io
        from xr_cloudfree.inputs import finest_of, open_s1
        from xr_cloudfree.labels import restore_kind
        from xr_cloudfree.options import ReadOptions
        from xr_cloudfree.plan import plan_fill
        from xr_cloudfree.runner import windows

        target, drawn = local(out), None if preview is None else local(preview, "preview")
        io.refuse_source(target, windows.sources(cube, filling.s1, *(filling.others or ())))
        options, read = filling.options(), reading.options()
        options["s1"], opened = open_s1(filling.s1, loading.open(cube, reading))
        opened, options["others"] = finest_of(opened, options["others"])
        plan = plan_fill(opened, reading=ReadOptions(**read), check=check, block=block, **options)
        image = restore_kind(plan, api.run(plan))
        pictures = picture_paths(drawn, image, overwrite)
        start = clock.perf_counter()
        with reading_bar(quiet) if cube is None else progress_bar(quiet):
            files = io.write(image, target, scaling=plan.job.scaling, overwrite=overwrite)
        seconds = clock.perf_counter() - start
        written = _open_written(image, files)
        if not quiet:
            _report(written, files, seconds)
        for (time, single), picture in zip(written, pictures, strict=False):
            draw(opened, plan.info.cube, time, single, picture, {**read, "check": check})
            if not quiet:
                typer.echo(f"Drew {picture}")


def _open_written(image: xr.Dataset, files: Sequence[Path]) -> list[tuple[Any, xr.Dataset]]:
    """Open the outputs again: for each date, the date and its image with 'filled'."""
    from xr_cloudfree import io
    from xr_cloudfree.cube.dims import time_of

    time = str(time_of(image))
    times = image[time].to_numpy()
    if files[0].suffix != ".zarr":
        return [(day, io.open_image(file, like=image)) for day, file in zip(times.reshape(-1), files, strict=False)]
    store = io.open_image(files[0], like=image)
    if times.ndim == 0:
        return [(times[()], store)]
    return [(day, store.isel({time: i})) for i, day in enumerate(times)]


def _report(written: Sequence[tuple[Any, xr.Dataset]], files: Sequence[Path], seconds: float) -> None:
    """Print how many pixels were observed and filled, counted in what was written, and the files."""
    from dask.base import compute

    from xr_cloudfree.layers import FILLED, NOT_FILLED, OBSERVED, PARTLY

    states = (OBSERVED, FILLED, PARTLY, NOT_FILLED)
    counts = compute([[(single["filled"] == state).sum() for state in states] for _, single in written])[0]
    lines = [
        (str(time.astype("datetime64[D]")), [int(n) for n in count])
        for (time, _), count in zip(written, counts, strict=True)
    ]
    total = [sum(column) for column in zip(*(count for _, count in lines), strict=True)]
    model = written[0][1].attrs["cloudfree_model"]
    if len(lines) > 1:
        lines = [*(lines if len(lines) <= _MAX_LINES else []), (f"All {len(lines)} dates", total)]
    for label, count in lines:
        observed, filled, partly, missing = (f"{n:,} ({_percent(n / sum(count))})" if n else "0" for n in count)
        some = f"{partly} filled in some bands only, " if count[2] else ""
        typer.echo(f"{label}: {observed} pixels observed, {filled} filled by {model}, {some}{missing} not filled")
    if total[-1]:
        typer.echo("Pixels not filled hold nodata: they have no clear observation in the window. Try a wider --window.")
    more = f" and {len(files) - _MAX_LINES} more files" if len(files) > _MAX_LINES else ""
    typer.echo(f"Wrote {', '.join(str(file) for file in files[:_MAX_LINES])}{more} in {seconds:.1f} s")


def _percent(share: float) -> str:
    """Return a share in percent, never rounded to all or nothing."""
    return "100 %" if share == 1 else f"{100 * min(max(share, 0.001), 0.999):.1f} %"
