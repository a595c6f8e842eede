"""Cloud detectors of other packages: what one declares, how it is found by name, and what of a cube it can be given.

A detector sees one date at a time. It is found by the entry-point group ``xr_cloudfree.detectors``, whether it is one
of this package (`csmask`, `omnicloudmask`, `s2cloudless` are small files beside this one) or of another.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.conventions import Cube
from xr_cloudfree.cube.levels import Level
from xr_cloudfree.cube.quality import SERIES
from xr_cloudfree.cube.schemes import SCHEMES, Scheme
from xr_cloudfree.errors import (
    BandError,
    MaskError,
    MissingDependencyError,
    ModelError,
    OptionError,
    code,
    either,
    option,
)
from xr_cloudfree.models import plugins

GROUP = "xr_cloudfree.detectors"
# Landsat's only near-infrared band has either name.
_ALIAS = {"nir": "nir08", "nir08": "nir"}


@dataclass(frozen=True)
class DetectorSpec:
    """What a detector is and needs.

    Parameters
    ----------
    name : str
        Name, as given by ``mask=``.
    package : str
        The package that it runs, as pip names it.
    license : str
        Licence of that package and its weights, as SPDX names it.
    source : str
        Where it is described: a DOI.
    bands : tuple of str
        STAC common names of the bands that it needs, in the order in which it takes them.
    scheme : str
        How its values are read: a name of `xr_cloudfree.cube.schemes.SCHEMES`. Values of classes are uint8, those of
        a scheme with a threshold float32.
    more_bands : tuple of str
        Bands that it takes in addition, after the others, if a cube has all of them.
    threshold : float or None
        Default threshold, for a scheme with one.
    sensors : tuple of str
        Families of sensors that it is made for (`xr_cloudfree.cube.sensors.Sensor`); empty for any.
    level : {"toa", "surface"} or None
        Processing level that it is made for; None for any.
    modules : tuple of str
        Modules that it imports, to find out whether its package is installed.
    install : str
        The command that installs the package.
    takes_weights : bool
        Whether it accepts a folder with its weights, as ``mask="name:folder"``.
    core : int
        Edge of the square of pixels that is kept of a tile.
    margin : int
        Pixels around it that the detector sees as well.
    least : int
        Smallest edge of an image that it takes; smaller ones are continued by reflection.
    memory : int
        Bytes that it takes for one tile, with its weights and the libraries that it loads.
    """

    name: str
    package: str
    license: str
    source: str
    bands: tuple[str, ...]
    scheme: str
    more_bands: tuple[str, ...] = ()
    threshold: float | None = None
    sensors: tuple[str, ...] = ()
    level: Level | None = None
    modules: tuple[str, ...] = ()
    install: str = ""
    takes_weights: bool = False
    core: int = 512
    margin: int = 64
    least: int = 1
    memory: int = 256 * 2**20

    @property
    def reads(self) -> Scheme:
        """The scheme of its values."""
        return SCHEMES[self.scheme]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its values."""
        return np.dtype(np.float32 if self.reads.has_threshold else np.uint8)

    def label(self, threshold: float | None = None) -> str:
        """Return the detector with its package, version and licence, for attributes of an output.

        Examples
        --------
        >>> DetectorSpec("d", "a-package", "MIT", "", ("red",), "probability", threshold=0.4).label(0.5)
        'd (a-package, license MIT), threshold 0.5'
        """
        try:
            release = f" {version(self.package)}"
        except PackageNotFoundError:
            release = ""
        limit = "" if threshold is None else f", threshold {threshold:g}"
        return f"{self.name} ({self.package}{release}, license {self.license}){limit}"

    def check_installed(self) -> None:
        """Raise if a module is not installed; nothing is imported to find out.

        Raises
        ------
        MissingDependencyError
            If one is missing.
        """
        for module in self.modules:
            if find_spec(module) is None:
                raise MissingDependencyError(
                    f"mask={self.name!r} needs {module}, which is not installed",
                    f"the package {self.package} ({self.license})",
                    self.install or f"pip install {self.package}",
                )

    def check_product(self, sensor: str | None, level: Level | None) -> None:
        """Raise if the detector is not made for a product; what is not known is allowed.

        Raises
        ------
        MaskError
            If the sensor or the processing level is another one.
        """
        if sensor is not None and self.sensors and sensor not in self.sensors:
            raise MaskError(
                f"mask={self.name!r} on a cube of {sensor}",
                f"one of {', '.join(self.sensors)}",
                either(
                    option('mask="omnicloudmask"') + ", which takes any sensor",
                    option("mask=None") + " for the cube's own quality layer",
                ),
            )
        if self.level is not None and level is not None and level != self.level:
            names = {"toa": "top-of-atmosphere", "surface": "surface"}
            needed, found = names[self.level], names[level]
            raise MaskError(
                f"mask={self.name!r} on {found} reflectance",
                f"{needed} reflectance (Level-1C)" if self.level == "toa" else f"{needed} reflectance",
                either(
                    code(f"clear=xr_cloudfree.clear_mask(other, mask={self.name!r})")
                    + f", with the {needed} reflectance of the same scenes as other",
                    option("mask=None") + " for the cube's own quality layer",
                ),
            )


@runtime_checkable
class Detector(Protocol):
    """A cloud detector.

    An entry point of the group ``xr_cloudfree.detectors`` names a callable that returns one: without arguments, or
    with ``weights=folder`` if its spec takes weights. It is small when pickled, and has no state but caches.

    Examples
    --------
    >>> class Bright:
    ...     spec = DetectorSpec("bright", "a-package", "MIT", "", ("red",), "csmask")
    ...
    ...     def detect(self, image, bands, level):
    ...         return (np.nan_to_num(image[0]) > 0.3).astype(np.uint8)
    >>> isinstance(Bright(), Detector)
    True
    """

    @property
    def spec(self) -> DetectorSpec:
        """What the detector is and needs."""
        ...

    def detect(self, image: NDArray[np.float32], bands: tuple[str, ...], level: Level | None) -> NDArray[Any]:
        """Return the quality layer of one image, from these pixels alone; the same whenever it is called.

        Parameters
        ----------
        image : ndarray of float32, shape (band, y, x)
            Reflectance [1]; NaN where nothing was measured.
        bands : tuple of str
            Common names of its bands: `DetectorSpec.bands`, and `DetectorSpec.more_bands` if the cube has them.
        level : {"toa", "surface"} or None
            The processing level, None if it is not known.

        Returns
        -------
        ndarray, shape (y, x)
            Values of the spec's scheme and type. What is returned for pixels without any measurement is not used.
        """
        ...


def find(mask: object, variables: Collection[str]) -> Detector | None:
    """Return the detector that ``mask=`` names, None if it names a variable or no detector.

    Parameters
    ----------
    mask : object
        The option: a name, with ``:folder`` for weights.
    variables : collection of str
        Names of the cube's variables, which take precedence.

    Raises
    ------
    MaskError
        If neither a variable nor a detector has this name, but a detector nearly.
    OptionError
        If weights were given to a detector that takes none, or there is no such folder.
    MissingDependencyError
        If its package is not installed.
    ModelError
        If the entry point does not return a detector.

    Examples
    --------
    >>> find("SCL", ["SCL"]) is None
    True
    """
    if not isinstance(mask, str) or mask in variables:
        return None
    name, colon, folder = mask.partition(":")
    points = plugins.installed(GROUP)
    if name not in points:
        others = [*map(str.lower, variables), SERIES, *SCHEMES]  # which are no detectors either
        near = difflib.get_close_matches(name.lower(), [*others, *points], n=1)
        if near and near[0] in points:
            raise MaskError(
                f"there is neither a variable nor a detector {name!r}",
                f"a variable, or one of the detectors {', '.join(sorted(points))}",
                option(f"mask={near[0] + colon + folder!r}"),
            )
        return None
    detector = _create(name)
    detector.spec.check_installed()
    if not colon:
        return detector
    if not detector.spec.takes_weights:
        raise OptionError(
            f"mask={mask!r} names weights, but those of {name} come with its package",
            "the name alone",
            option(f"mask={name!r}"),
        )
    if not os.path.isdir(folder):
        raise OptionError(
            f"mask={mask!r}, and there is no folder {folder!r}",
            "the folder with the weights",
            either(option(f"mask='{name}:FOLDER'"), option(f"mask={name!r}") + " to let the package find them"),
        )
    return _create(name, weights=os.path.abspath(folder))


@lru_cache(maxsize=8)
def _create(name: str, **settings: str) -> Detector:
    point = plugins.installed(GROUP)[name]
    make = plugins.load(point)
    created = make(**settings) if callable(make) else None
    if isinstance(created, Detector) and isinstance(created.spec, DetectorSpec):
        return created
    found = f"makes a {type(created).__name__}" if callable(make) else "is not callable"
    raise ModelError(
        f"the entry point {point.value} of the detector {name!r} {found}",
        "a callable that makes a detector, an object with `spec` and `detect`",
        option(f"mask={name!r}") + " with another release of the package, or another mask",
    )


def choose_bands(spec: DetectorSpec, cube: Cube, others: Sequence[str] = ()) -> dict[str, int]:
    """Return the bands that a detector takes, in its order: common name, and position among the bands of a cube.

    Parameters
    ----------
    spec : DetectorSpec
        The detector.
    cube : Cube
        The cube, with all bands that it has.
    others : sequence of str
        Variables of its Dataset that are not recognised as bands, for the remedy.

    Raises
    ------
    BandError
        If the cube lacks one.
    """
    positions = {common: i for i, common in reversed(list(enumerate(cube.common_names))) if common is not None}

    def position(band: str) -> int | None:
        alias = _ALIAS.get(band)
        return positions.get(band, None if alias is None or alias in spec.bands else positions.get(alias))

    lacking = [band for band in spec.bands if position(band) is None]
    if lacking:
        raise BandError(
            f"mask={spec.name!r} needs {', '.join(spec.bands)}, and {', '.join(lacking)} is not among the bands "
            f"{', '.join(cube.bands)}",
            "all of these bands, under the names of a sensor or STAC common names",
            _rename(lacking, cube, others),
        )
    wanted = spec.bands + (spec.more_bands if all(position(band) is not None for band in spec.more_bands) else ())
    return {band: found for band in wanted if (found := position(band)) is not None}


def _rename(lacking: Sequence[str], cube: Cube, others: Sequence[str]) -> str:
    """Return the remedy for bands that are missing, or that have other names."""
    load = f"load {', '.join(lacking)} as well"
    own = option("mask=None") + " for the cube's own quality layer"
    unknown = [band for band, common in zip(cube.bands, cube.common_names, strict=True) if common is None]
    if cube.layout == "bands":
        new = dict(zip([*unknown, *others], lacking, strict=False))
        renamed = f"ds.rename({new})"
    else:
        new = dict(zip(unknown, lacking, strict=False)) if cube.layout != "layer" else {}
        name, dim = "ds" if cube.layout == "variable" else "cube", cube.dims.get("band", "band")
        renamed = f"{name}.assign_coords({dim}={[new.get(label, label) for label in cube.labels]})"
    return either(*([code(renamed) + " if these are the bands"] if new else []), load, own)
