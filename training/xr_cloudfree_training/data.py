"""Lightning data module that draws training and validation samples from cubes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from xr_cloudfree.accuracy.simulate import fractal_shapes, real_masks
from xr_cloudfree.errors import BandError, CloudfreeError, OptionError, either
from xr_cloudfree.models.networks import architectures
from xr_cloudfree.models.networks.network import Network
from xr_cloudfree.options import parse_count
from xr_cloudfree_training.cases import Mixture, draw, examine
from xr_cloudfree_training.samples import Sample, Store, TrainingBatch, fingerprint
from xr_cloudfree_training.sites import Site, cloud_shapes, find_cubes, read_sites, split

MIXTURE = Mixture()
_GIBIBYTE = 2.0**30
# Number and edge of the crops of a site not held in memory from which cloud shapes are taken.
_WINDOWS, _WINDOW = 8, 512
# Independent random streams under one seed.
_PERMUTE, _TURN, _LOOK, _VALIDATE = 1, 2, 3, 4
_POOL = 0
PREFETCH = 4
"""Number of batches that each worker prefetches."""
# Sites with fewer cloud shapes than this get random shapes in addition.
_FEW_SHAPES = 12


@dataclass(frozen=True, eq=False)
class Source:
    """A site with the cloud shapes that hide its samples, and the store of the samples.

    A sample depends on its site, its number and the settings only. Stored samples of a site can therefore be reused
    whatever the other sites of a training are.
    """

    site: Site
    shapes: Sequence[NDArray[np.bool_]]
    store: Store | None


@dataclass(frozen=True)
class Crop:
    """Random crop of a prepared sample, drawn anew each time the sample is used.

    Parameters
    ----------
    size : int
        Edge in pixels.
    bands, dates : int, optional
        Largest number of bands and dates; all by default.
    """

    size: int
    bands: int | None = None
    dates: int | None = None

    def __post_init__(self) -> None:
        parse_count("crop.size", self.size, 16, "--data.crop.size 48")
        for name, value in (("bands", self.bands), ("dates", self.dates)):
            if value is not None:
                parse_count(f"crop.{name}", value, 1, f"--data.crop.{name} 4")


class Samples(Dataset[Sample]):
    """Map-style dataset of samples: unlimited for training, fixed for validation. Sites alternate.

    Parameters
    ----------
    sources : sequence of Source
        Sites to draw from.
    network : type
        Class of the network, which defines how its input is prepared.
    seed : int
        Seed of the order of a pool, and of flips, rotations and crops.
    chance : int
        Seed of the contents of a sample, together with its number.
    size : int
        Edge in pixels.
    bands : tuple of str or None
        The bands of all samples; None draws a random subset for each.
    mixture : Mixture or None
        Kinds of training gaps; None gives validation samples.
    pool : int
        Number of training samples that are made once and reused in another order, flipped and rotated; 0 makes each
        sample anew.
    crop : Crop or None
        Random crop of a training sample.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        network: type[Network],
        *,
        seed: int,
        chance: int,
        size: int,
        bands: tuple[str, ...] | None,
        mixture: Mixture | None,
        pool: int = 0,
        crop: Crop | None = None,
    ) -> None:
        self.sources, self.network = sources, network
        self.seed, self.chance, self.size, self.bands, self.mixture = seed, chance, size, bands, mixture
        self.pool, self.crop = pool, crop

    def __getitem__(self, number: int) -> Sample:
        """Return a sample by its number, counted from the start of the training."""
        if self.mixture is None:
            return self._described(self._kept(number))
        rng = np.random.default_rng([self.seed, number, _TURN])
        if self.pool:
            number = int(_order(self.seed, number // self.pool, self.pool)[number % self.pool])
        sample = self._kept(number).turned(int(rng.integers(8)))
        if self.crop is not None:
            sample = sample.cropped(self.crop.size, self.crop.bands, self.crop.dates, rng)
        return self._described(sample)

    def _described(self, sample: Sample) -> Sample:
        return replace(sample, given=self.network.describe(sample.given, sample.common_names))

    def _kept(self, number: int) -> Sample:
        i, turn = divmod(number, len(self.sources))
        source = self.sources[turn]
        return self._make(source, i) if source.store is None else source.store.get(i, lambda: self._make(source, i))

    def _make(self, source: Source, i: int) -> Sample:
        where: dict[str, Any] = {"size": self.size, "bands": self.bands}
        if self.mixture is None:
            drawn = examine([source.site], source.shapes, self.chance, i, **where)
        else:
            drawn = draw([source.site], source.shapes, self.chance, i, mixture=self.mixture, **where)
        return Sample.of(drawn, self.network.prepare)


@lru_cache(maxsize=2)
def _order(seed: int, turn: int, pool: int) -> NDArray[np.intp]:
    """Return the order of the pool in its `turn`-th pass."""
    return np.random.default_rng([seed, turn, _PERMUTE]).permutation(pool)


class Steps(Sampler[list[int]]):
    """Batch sampler that starts at the current training step.

    A training resumed from a checkpoint therefore sees the same samples as an uninterrupted one.

    Parameters
    ----------
    batch_size : int
        Samples per batch and process.
    steps : int
        Batches per epoch.
    position : callable
        Returns the number of batches trained so far, the rank of this process, and the number of processes.
    """

    def __init__(self, batch_size: int, steps: int, position: Callable[[], tuple[int, int, int]]) -> None:
        self.batch_size, self.steps, self.position = batch_size, steps, position

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the remaining batches of the epoch."""
        done, rank, world = self.position()
        for step in range(done, (done // self.steps + 1) * self.steps):
            first = (step * world + rank) * self.batch_size
            yield list(range(first, first + self.batch_size))


class ResumableLoader(DataLoader[Sample]):
    """Data loader that Lightning can resume; it has no state, because its sampler knows the position."""

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Ignore the state."""


class CubeData(LightningDataModule):
    """Training and validation samples from any number of cubes.

    The cubes are read, checked and split when the object is constructed, so that errors are raised before training.
    Validation uses sites that are not trained on, or a part of the only site, with a buffer between the parts.

    Parameters
    ----------
    cubes : sequence of str, path, DataArray or Dataset
        Zarr stores or NetCDF files, folders or glob patterns of them, or opened cubes. One cube is one site;
        overlapping cubes count as one.
    holdout : sequence of str, optional
        Names of the sites for validation: the file names without suffix. By default a random fifth of the sites, or
        a quarter of the only one.
    masks : sequence of str or path
        Further cubes that supply cloud shapes for training only. Samples of a site are hidden under its own cloud
        shapes and these; random shapes are added where there are few.
    reading : dict
        Mask and scaling options of `xr_cloudfree.fill`, from `clear` to `nodata`, and `repair`: masks are taken as they
        are given unless it says otherwise.
    s1 : str, optional
        Name of the variable that holds Sentinel-1 in decibels, or of two separated by a comma, as in
        `xr_cloudfree.fill`; for a network with ``s1: true``. Samples of cubes without it have none.
    architecture : str
        Name of the network for which samples are prepared.
    bands : sequence of str, optional
        Common names of the bands to use; by default all bands of a site.
    vary_bands : bool
        True: each training sample has a random subset of at least three bands in random order, for networks that take
        any bands. False: all samples have the bands that all sites have in common.
    mixture : Mixture
        Kinds of training gaps and probabilities of dropping dates.
    size : int
        Edge of a prepared sample in pixels.
    crop : Crop, optional
        Random crop shown to the network; the whole sample by default.
    batch_size : int
        Samples per step.
    samples : int
        Number of training samples per epoch.
    validation : int
        Number of validation samples, which are fixed.
    pool : int
        Number of training samples that are made once and reused, flipped and rotated, in another order: for networks
        whose inputs take long to prepare. 0 makes each sample anew.
    cache : str, optional
        Folder in which pooled and validation samples are kept for later runs with the same data and settings. By
        default they are removed with this object.
    workers : int, optional
        Number of worker processes; by default one less than the number of cores.
    memory : float
        Gibibytes of cubes held in memory; other_shapes cubes are read crop by crop.
    seed : int
        Seed of the split and of all samples.

    Raises
    ------
    CloudfreeError
        If a cube or an option cannot be used.

    Examples
    --------
    >>> from xr_cloudfree import synthetic
    >>> from xr_cloudfree_training.data import CubeData
    >>> data = CubeData([synthetic.cube(shape=(12, 4, 64, 64), seed=1)], size=32, batch_size=2, workers=0)
    >>> batch = next(iter(data.train_dataloader()))
    >>> batch.given.bands.shape[0], batch.truth.shape[2:]
    (2, torch.Size([32, 32]))
    """

    def __init__(
        self,
        cubes: Sequence[Any] = (),
        *,
        holdout: Sequence[str] | None = None,
        masks: Sequence[str] = (),
        reading: Mapping[str, Any] | None = None,
        s1: str | None = None,
        architecture: str = "unet-plus",
        bands: Sequence[str] | None = None,
        vary_bands: bool = True,
        mixture: Mixture = MIXTURE,
        size: int = 128,
        crop: Crop | None = None,
        batch_size: int = 4,
        samples: int = 1000,
        validation: int = 64,
        pool: int = 0,
        cache: str | None = None,
        workers: int | None = None,
        memory: float = 4.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        counts = {"size": (size, 16), "batch_size": (batch_size, 1), "samples": (samples, batch_size)}
        counts |= {"validation": (validation, 1), "pool": (pool, 0), "workers": (workers or 0, 0)}
        for name, (value, least) in counts.items():
            parse_count(name, value, least, f"--data.{name} {least}")
        self.batch_size, self.samples, self.validation, self.seed = batch_size, samples, validation, seed
        self.workers = max(_cores() - 1, 0) if workers is None else workers
        self.mixture = mixture
        network = architectures.find(architecture)
        reading = reading or {}
        sites = _of_bands(read_sites(find_cubes(cubes), reading, memory * _GIBIBYTE, s1), bands)
        self.bands = None if vary_bands else _common_bands(sites)
        self.sites = tuple(site.name for site in sites)
        self.train, self.held_out = split(sites, holdout, seed)
        self.has_s1 = any(site.s1 for site in self.train)
        if s1 is not None and not self.has_s1:
            raise OptionError(
                f"all sites with the variables {s1!r} are held out",
                "Sentinel-1 at some of the training sites",
                f"--data.holdout [{self.train[0].name}], or no --data.s1",
            )
        other_shapes = [shape for mask in (find_cubes(masks) if masks else ()) for shape in cloud_shapes(mask, reading)]
        how: dict[str, Any] = {"size": size, "bands": self.bands}
        self.sets: dict[str, Samples] = {}
        for name, group, kind in (("train", self.train, self.mixture), ("validate", self.held_out, None)):
            keep = kind is None or pool > 0
            # Validation samples and the contents of a pool do not depend on the seed.
            chance = (_POOL if pool else seed) if kind else _VALIDATE
            sources = []
            for site in group:
                shapes = _shapes(site, chance)
                if kind is not None:
                    shapes = [*shapes, *other_shapes]
                shapes += fractal_shapes(max(_FEW_SHAPES - len(shapes), 0), chance)
                key_parts: tuple[Any, ...] = (site.name, site.bands, site.suspect.tolist())
                arrays = [*site.arrays, site.seen, *shapes]
                if site.s1 is not None:
                    # Added only where present, so that samples stored earlier stay valid.
                    key_parts, arrays = (*key_parts, "s1", site.s1.times.tolist()), [*arrays, *site.s1.arrays]
                key = fingerprint(arrays, network, key_parts, how, kind, chance) if keep else ""
                folder = Path(cache) / f"{site.name}-{name}-{key}" if cache else None
                sources.append(Source(site, shapes, Store(folder) if keep else None))
            self.sets[name] = Samples(
                sources, network, seed=seed, chance=chance, mixture=kind, pool=pool, crop=crop if kind else None, **how
            )
            for source in sources:
                _check_site(source, kind, how)

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader of training samples, starting at the trainer's current step."""
        steps = Steps(self.batch_size, self.samples // self.batch_size, self._position)
        return ResumableLoader(self.sets["train"], batch_sampler=steps, **self._loading())

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of validation samples."""
        count = len(self.sets["validate"].sources)
        # Each batch comes from one site, so that no sample is padded to another site's size; fills do not pad either.
        turns = [range(turn, self.validation, count) for turn in range(count)]
        batches = [list(turn[i : i + self.batch_size]) for turn in turns for i in range(0, len(turn), self.batch_size)]
        return DataLoader(self.sets["validate"], batch_sampler=batches, **self._loading())

    def _position(self) -> tuple[int, int, int]:
        if self.trainer is None:
            return 0, 0, 1
        total: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return total.processed, self.trainer.global_rank, self.trainer.world_size

    def _loading(self) -> dict[str, Any]:
        how: dict[str, Any] = {"collate_fn": TrainingBatch.of, "num_workers": self.workers}
        if self.workers:
            how |= {"prefetch_factor": PREFETCH, "persistent_workers": True}
            if not all(site.in_memory for site in (*self.train, *self.held_out)):
                how["multiprocessing_context"] = "forkserver"  # files that are open do not survive a fork
        return how


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _of_bands(sites: Sequence[Site], bands: Sequence[str] | None) -> list[Site]:
    """Return the sites restricted to the wanted bands."""
    if bands is None:
        return list(sites)
    for site in sites:
        lacking = [band for band in bands if band not in site.bands]
        if lacking:
            raise BandError(
                f"{site.name} has no band {lacking[0]!r}, but {', '.join(site.bands)}",
                f"cubes with the bands {', '.join(bands)}",
                "other cubes, or fewer bands: --data.bands [blue, green, red]",
            )
    return [site.of_bands(bands) for site in sites]


def _common_bands(sites: Sequence[Site]) -> tuple[str, ...]:
    """Return the bands that all sites have, in the order of the first."""
    common = tuple(band for band in sites[0].bands if all(band in site.bands for site in sites))
    if not common:
        raise BandError(
            "the cubes have no band in common: " + "; ".join(f"{p.name} has {', '.join(p.bands)}" for p in sites),
            "bands that all cubes have, for a network with a fixed number of them",
            "cubes of one sensor, or --config unet-plus",
        )
    return common


def _shapes(site: Site, seed: int) -> list[NDArray[np.bool_]]:
    """Return the shapes of the site's own clouds."""
    if site.in_memory or max(site.shape) <= _WINDOW:
        return real_masks(site.clear((slice(None), slice(None))))
    rng = np.random.default_rng([seed, _LOOK])
    found = []
    for _ in range(_WINDOWS):
        first = [int(rng.integers(max(n - _WINDOW, 0) + 1)) for n in site.shape]
        found += real_masks(site.clear((slice(first[0], first[0] + _WINDOW), slice(first[1], first[1] + _WINDOW))))
    return found


def _check_site(source: Source, mixture: Mixture | None, how: Mapping[str, Any]) -> None:
    """Raise if no sample can be drawn from a site."""
    try:
        if mixture is None:
            examine([source.site], source.shapes, _LOOK, 0, **how)
        else:
            draw([source.site], source.shapes, _LOOK, 0, mixture=mixture, **how)
    except CloudfreeError as error:
        raise type(error)(
            error.found, error.needed, either(f"leave {source.site.name} out", error.remedy, by="; ")
        ) from error
