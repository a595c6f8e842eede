"""Training data from cubes: the order of samples, the processes that make them, and what is refused."""

from __future__ import annotations

import gc
import pickle
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import tests.support.networks  # noqa: F401  adds its architectures
import xr_cloudfree
from xr_cloudfree import synthetic
from xr_cloudfree.errors import BandError, ModelError, OptionError, TimeError
from xr_cloudfree_training.data import Crop, CubeData, Steps
from xr_cloudfree_training.samples import TrainingBatch


def cube(seed=0, shape=(10, 4, 48, 64), **options) -> xr.Dataset:
    """A cube of a place of its own per seed."""
    made = synthetic.cube(shape=shape, seed=seed, cloud_share=0.3, **options)
    return made.assign_coords(x=made["x"] + 1e5 * seed)


def data(*cubes, **options) -> CubeData:
    how = {"architecture": "x-tiny", "size": 16, "batch_size": 2, "samples": 6, "validation": 4, "workers": 0}
    return CubeData(cubes or [cube()], **{**how, **options})


def same(a: TrainingBatch, b: TrainingBatch) -> bool:
    tensors = [(x.given.bands, x.given.target, x.given.day_offset, x.truth, x.hidden) for x in (a, b)]
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(*tensors, strict=True))


def test_batches_and_their_repetition() -> None:
    first, again, other = (list(data(seed=seed).train_dataloader()) for seed in (0, 0, 1))
    assert len(first) == 3 and all(batch.truth.shape[0] == 2 for batch in first)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not any(same(a, b) for a, b in zip(first, other, strict=True))
    assert len({batch.truth.numpy().tobytes() for batch in first}) == 3


def test_validation_is_always_the_same_and_of_all_tracks() -> None:
    sets = [list(data(seed=seed, validation=5).val_dataloader()) for seed in (0, 1)]
    assert [track for batch in sets[0] for track in batch.tracks] == ["partial", "gap", "full", "haze", "partial"]
    assert all(same(a, b) for a, b in zip(*sets, strict=True))


def test_a_batch_of_validation_is_of_one_place() -> None:
    small = cube(2, shape=(10, 4, 20, 18))
    made = data(cube(0), cube(1), small, holdout=["cube1", "cube2"], size=32, validation=7, vary_bands=False)
    batches = list(made.val_dataloader())
    # Four samples of the first and three of the second, each with its own size: nothing is filled up.
    assert [batch.truth.shape for batch in batches] == [(2, 4, 32, 32)] * 2 + [(2, 4, 20, 18), (1, 4, 20, 18)]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    one = cube()
    one.assign_coords(band=one["band"].astype(object)).to_zarr(tmp_path / "cube.zarr", consolidated=False)
    return tmp_path / "cube.zarr"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_worker_makes_the_same_samples(store: Path) -> None:
    alone, shared = data(store), data(store, workers=1)
    for a, b in zip(alone.train_dataloader(), shared.train_dataloader(), strict=True):
        assert same(a, b)


def test_cubes_beyond_the_memory_are_read_crop_by_crop(store: Path) -> None:
    held, read = data(store), data(store, memory=0.0, workers=1)
    assert held.train[0].in_memory and not read.train[0].in_memory
    # Open files do not survive a fork: such a place travels to another process.
    assert read.train_dataloader().multiprocessing_context.get_start_method() == "forkserver"
    samples = pickle.loads(pickle.dumps(read.sets["train"]))
    for i in range(3):
        np.testing.assert_array_equal(samples[i].given.bands, held.sets["train"][i].given.bands)


def test_a_pool_is_gone_through_again_in_another_order_and_turned(tmp_path: Path) -> None:
    made = data(pool=4, samples=4, cache=str(tmp_path))
    samples = made.sets["train"]
    days = [tuple(samples[i].given.day_offset.tolist()) + tuple(samples[i].common_names) for i in range(12)]
    # Each of the four comes once in each epoch.
    assert set(days[:4]) == set(days[4:8]) == set(days[8:]) and len(set(days)) == 4
    assert days[:4] != days[4:8] or days[4:8] != days[8:]
    assert len({samples[i].truth.tobytes() for i in range(12)}) > 6
    folders = sorted(path.name[: -len("-0123456789abcdef")] for path in tmp_path.iterdir())
    assert folders == ["cube0-held-out-validate", "cube0-train-train"]
    assert len(list(tmp_path.glob("*-train-*/*"))) == 4
    # The next run finds them, one with other settings does not.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-train-*/*")}
    [data(pool=4, samples=4, cache=str(tmp_path)).sets["train"][i] for i in range(4)]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-train-*/*")} == before
    data(pool=4, samples=4, cache=str(tmp_path), size=20).sets["train"][0]
    assert len(list(tmp_path.glob("*-train-*"))) == 2


def test_without_a_cache_nothing_stays() -> None:
    made = data(pool=2, samples=2)
    folder = made.sets["train"].sources[0].store.folder
    made.sets["train"][0]
    assert list(folder.iterdir())
    del made
    gc.collect()
    assert not folder.exists()


def test_numbers_go_on_where_training_stands() -> None:
    assert list(Steps(2, 3, lambda: (0, 0, 1))) == [[0, 1], [2, 3], [4, 5]]
    assert list(Steps(2, 3, lambda: (4, 0, 1))) == [[8, 9], [10, 11]]
    assert list(Steps(2, 3, lambda: (6, 0, 1))) == [[12, 13], [14, 15], [16, 17]]
    # Two processes share the numbers.
    both = [list(Steps(2, 2, lambda rank=rank: (1, rank, 2))) for rank in (0, 1)]
    assert both == [[[4, 5]], [[6, 7]]]


def test_bands_vary_or_are_those_of_all_places() -> None:
    places = cube(0), cube(1, shape=(10, 6, 48, 64), sensor="landsat")
    varied = [common_names for batch in data(*places).train_dataloader() for common_names in batch.common_names]
    assert len({len(common_names) for common_names in varied}) > 1 or len(set(varied)) > 3
    fixed = data(*places, vary_bands=False)
    assert fixed.bands == ("blue", "green", "red", "nir")
    assert {common_names for batch in fixed.train_dataloader() for common_names in batch.common_names} == {fixed.bands}
    named = data(*places, vary_bands=False, bands=["nir", "red"])
    assert named.bands == ("nir", "red") and next(iter(named.val_dataloader())).truth.shape[1] == 2
    assert data(*places).bands is None


def test_the_networks_own_preparation_is_used() -> None:
    own, plain = (next(iter(data(architecture=name).train_dataloader())) for name in ("x-own", "x-tiny"))
    assert torch.equal(own.given.bands, 2 * plain.given.bands)


def test_places_are_hidden_under_their_own_clouds_and_further_ones() -> None:
    clear, cloudy = cube(), cube(5, shape=(30, 4, 48, 64))
    clear["cloud_mask"][:] = 0
    ground = 1000 + (7 * np.arange(48)[:, None] + 3 * np.arange(64)) % 101  # one number over an area would be refused
    clear["reflectance"] = clear["reflectance"].where(clear["reflectance"] > 0, ground).astype("uint16")
    clear["reflectance"].attrs = cloudy["reflectance"].attrs

    def shapes(name: str, made: CubeData) -> list[np.ndarray]:
        (source,) = made.sets[name].sources
        return list(source.shapes)

    alone, more, own = data(clear), data(clear, masks=[cloudy]), data(cloudy)
    # A place without clouds gets shapes by chance.
    assert {shape.shape for name in ("train", "validate") for shape in shapes(name, alone)} == {(256, 256)}
    count = len([share for share in (~cloudy_clear(cloudy)).mean(axis=(1, 2)) if 0.1 <= share <= 0.8])
    assert [shape.shape for shape in shapes("train", more)[:count]] == [(48, 64)] * count and count > 5
    # Clouds that are validated under are not trained under: each part has its own columns.
    assert {32} <= {shape.shape[1] for shape in shapes("train", own)} <= {32, 256}
    assert {16} <= {shape.shape[1] for shape in shapes("validate", own)} <= {16, 256}


def cloudy_clear(cube: xr.Dataset) -> np.ndarray:
    return xr_cloudfree.clear_mask(cube).to_numpy()


def test_a_place_takes_its_turn_and_its_samples_do_not_depend_on_the_others() -> None:
    both = data(cube(0), cube(1), cube(2), holdout=["cube2"], vary_bands=False)
    first, second = both.sets["train"].sources
    assert [source.site.name for source in (first, second)] == ["cube0", "cube1"]
    alone = data(cube(0), cube(2), holdout=["cube1"], vary_bands=False).sets["train"]
    np.testing.assert_array_equal(both.sets["train"]._kept(6).truth, alone._kept(3).truth)
    assert both.sets["train"]._kept(7).truth.tobytes() != alone._kept(3).truth.tobytes()


def test_a_network_may_see_a_part_of_what_was_prepared() -> None:
    whole = data(cube(0, shape=(20, 6, 48, 96)), size=40, batch_size=1, pool=6)
    parts = data(cube(0, shape=(20, 6, 48, 96)), size=40, batch_size=1, pool=6, crop=Crop(16, bands=3, dates=5))
    shapes = set()
    for batch, cropped in zip(whole.train_dataloader(), parts.train_dataloader(), strict=True):
        bands, dates = cropped.given.bands.shape[2], cropped.given.bands.shape[1]
        assert cropped.truth.shape[2:] == (16, 16) and bands == 3 and dates <= 5
        # It is a part of the same sample: same values, the nearest dates among its dates.
        assert set(cropped.given.day_offset[0].tolist()) <= set(batch.given.day_offset[0].tolist())
        near = batch.given.day_offset[0].abs().min()
        assert near in cropped.given.day_offset[0].abs()
        assert np.isin(cropped.truth.numpy(), batch.truth.numpy()).all()
        assert cropped.hidden.mean() > 0.1 or batch.hidden.mean() < 0.3
        shapes.add(cropped.common_names[0])
    assert len(shapes) > 1
    assert all(batch.truth.shape[3] > 16 for batch in parts.val_dataloader())
    with pytest.raises(OptionError, match=r"crop\.size is 8"):
        Crop(8)


def test_what_cannot_be_used_is_refused_at_once() -> None:
    overcast = cube(3)
    overcast["cloud_mask"][:] = 1
    cases = [
        (dict(architecture="unet-minus"), ModelError, "unet-minus"),
        (dict(size=8), OptionError, "size is 8"),
        (dict(samples=1), OptionError, r"samples is 1.*at least 2"),
        (dict(bands=["blue", "swir16"]), BandError, "cube0 has no band 'swir16', but blue, green, red, nir"),
        (dict(holdout=["cube0"]), OptionError, "all sites are held out"),
    ]
    for options, error, found in cases:
        with pytest.raises(error, match=found):
            data(**options)
    with pytest.raises(TimeError, match="leave cube1 out"):
        data(cube(), overcast, holdout=["cube0"])
    with pytest.raises(BandError, match="no band in common"):
        data(cube().sel(band=["B02", "B03"]), cube(1).sel(band=["B04", "B08"]), vary_bands=False)


def test_samples_of_a_real_cube(portugal: xr.Dataset) -> None:
    made = data(portugal, size=64, samples=8)
    truth = portugal["reflectance"].to_numpy().astype(np.float32)
    for batch in islice(made.train_dataloader(), 4):
        value = batch.truth[0][batch.counted[0] > 0]
        assert np.isin(value.numpy(), truth).all() and 0 < value.mean() < 0.6
