"""The pictures of ``cloudfree fill --preview``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from xr_cloudfree.errors import OutputError
from xr_cloudfree.storage.files import aside

if TYPE_CHECKING:
    import xarray as xr

    from xr_cloudfree.cube.conventions import Cube

_FORMATS = (".png", ".jpg", ".pdf", ".svg", ".webp")


def picture_paths(preview: Path | None, image: xr.Dataset, overwrite: bool) -> list[Path]:
    """Return one path per date (none without a preview); raise early if a path cannot be written.

    Raises
    ------
    OutputError
        If the file name has no ending of a picture, or a file exists that may not be overwritten.
    MissingDependencyError
        If matplotlib is not installed.
    """
    if preview is None:
        return []
    from xr_cloudfree import io
    from xr_cloudfree.cube.dims import time_of
    from xr_cloudfree.plot.drawing import pyplot

    # Figures are drawn into files: no window opens, with or without a display.
    pyplot().switch_backend("agg")
    if preview.suffix.lower() not in _FORMATS:
        raise OutputError(
            f"the preview is called {preview.name}", f"an ending of {_FORMATS}", f"--preview {preview.stem}.png"
        )
    paths = io.dated_paths(preview, image[str(time_of(image))].to_numpy())
    io.check_free(paths, overwrite)
    return paths


def draw(obj: Any, cube: Cube, time: Any, image: xr.Dataset, picture: Path, options: dict[str, Any]) -> None:
    """Draw a date before and after filling.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube as opened.
    cube : Cube
        The same cube, parsed.
    time : numpy.datetime64
        The date.
    image : Dataset
        Its filled image.
    picture : path
        The file to write.
    options : dict
        Options of `xr_cloudfree.fill` with which the cube was read.
    """
    from xr_cloudfree.plot import before_after
    from xr_cloudfree.plot.drawing import pyplot
    from xr_cloudfree.plot.picture import choose_bands

    shown = [cube.bands[i] for i in choose_bands(cube).index]
    figure = before_after(obj, time, image=image, **{**options, "bands": shown})
    with aside([picture]) as parts:
        figure.savefig(parts[picture], dpi=150)
    pyplot().close(figure)
