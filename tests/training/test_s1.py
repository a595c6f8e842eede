"""Sentinel-1 in training: each sample has the nearest observation, and batches mix samples with and without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import tests.support.networks  # noqa: F401  adds its architectures
from tests.support.sites import make_place
from tests.support.training import SMALL, run
from xr_cloudfree import errors, io, synthetic
from xr_cloudfree.accuracy.simulate import real_masks
from xr_cloudfree.cube.radar import Radar
from xr_cloudfree.models.networks.features import compute_features
from xr_cloudfree_training.cases import Mixture, draw, examine
from xr_cloudfree_training.data import CubeData
from xr_cloudfree_training.samples import Sample, Store, TrainingBatch

SHAPE = (40, 48)


def decibels(blue):
    """VV and VH that tell which pixel of which date they are of."""
    return np.stack([-10 - blue, -17 - blue], axis=1).astype(np.float32)


def with_radar(place):
    """The place with Sentinel-1 a day after each of its dates; nothing was seen in the first columns."""
    values = decibels(place.arrays[0].isel(band=0).to_numpy())
    values[..., :5] = np.nan
    array = xr.DataArray(values, dims=("time", "band", "y", "x"))
    return replace(place, s1=Radar((array,), place.time + np.timedelta64(1, "D")))


PLACE = make_place(shape=SHAPE)
SHAPES = real_masks(PLACE.clear((slice(None), slice(None))))
HOW = {"size": 32, "bands": ("blue", "red", "nir")}


def drawn(place, i, kind=draw):
    more = {"mixture": Mixture()} if kind is draw else {}
    return kind([place], SHAPES, 0, i, **HOW, **more)


def sample(place=PLACE, i=0):
    return Sample.of(drawn(place, i), compute_features)


def radar_of(one: Sample):
    """VV as it is told, and as it follows from the truth where it was seen."""
    told, seen = one.given.features["s1"], one.given.features["s1 seen"][0] > 0
    return told[0], np.where(seen, -10 - one.truth[0], 0).astype(np.float32), seen


@pytest.mark.parametrize("kind", [draw, examine])
def test_a_sample_has_what_was_nearest_and_is_otherwise_the_same(kind):
    place = with_radar(PLACE)
    some = 0
    for i in range(8):
        plain, told = drawn(PLACE, i, kind), drawn(place, i, kind)
        assert plain.s1 is None
        for name in ("bands", "clear", "day_offset", "truth", "scored"):
            np.testing.assert_array_equal(getattr(plain.case, name), getattr(told.case, name))
        seen = np.isfinite(told.s1).all(axis=0)
        expected = decibels(told.case.truth[None, 0])[0]
        np.testing.assert_array_equal(told.s1[:, seen], expected[:, seen])
        some += (~seen).any()
    assert 0 < some


def test_a_part_of_a_place_has_its_part_of_it():
    place = with_radar(PLACE)
    part = place.cut((slice(8, 30), slice(2, 40)), "part")
    whole, cut = place.radar((slice(10, 20), slice(4, 12)), 3), part.radar((slice(2, 12), slice(2, 10)), 3)
    np.testing.assert_array_equal(whole, cut)
    assert np.isnan(cut[:, :, 0]).all() and np.isfinite(cut[:, :, 1:]).all()
    far = replace(place, s1=replace(place.s1, times=place.time + np.timedelta64(400, "D")))
    assert np.isnan(far.radar((slice(4), slice(4)), 0)).all() and PLACE.radar((slice(4), slice(4)), 0) is None


def test_it_is_turned_cropped_filled_up_and_kept_with_the_rest(tmp_path: Path):
    one = sample(with_radar(PLACE), 2)
    told, expected, seen = radar_of(one)
    np.testing.assert_array_equal(told, expected)
    assert 0 < seen.mean() < 1
    for way in range(8):
        told, expected, _ = radar_of(one.turned(way))
        np.testing.assert_array_equal(told, expected)
    rng = np.random.default_rng(0)
    for _ in range(5):
        part = one.cropped(16, None, 3, rng)
        told, expected, _ = radar_of(part)
        np.testing.assert_array_equal(told, expected)
        assert one.cropped(16, 2, 3, rng).given.features["s1"].shape == (2, 16, 16)
    more = one.filled_up((36, 40)).given.features
    assert not more["s1 seen"][:, 32:].any() and not more["s1"][:, :, 32:].any()
    back = Store(tmp_path).get(0, lambda: one)
    for name in ("s1", "s1 seen"):
        np.testing.assert_array_equal(back.given.features[name], one.given.features[name])


def test_a_batch_of_some_with_and_some_without():
    batch = TrainingBatch.of([sample(i=1), sample(with_radar(PLACE), 2)])
    assert not batch.given.features["s1 seen"][0].any() and not batch.given.features["s1"][0].any()
    assert batch.given.features["s1 seen"][1].any()
    assert not {"s1", "s1 seen"} & set(TrainingBatch.of([sample(i=1), sample(i=2)]).given.features)


def cube(seed=0, radar=True, shape=(10, 4, 48, 80)):
    made = synthetic.cube(shape=shape, seed=seed, cloud_share=0.3)
    made = made.assign_coords(x=made["x"] + 1e5 * seed, band=made["band"].astype(object))
    if radar:
        rng = np.random.default_rng(seed)
        for name, level in (("s1_vv", -12.0), ("s1_vh", -19.0)):
            values = rng.normal(level, 2, (3, *shape[2:])).astype(np.float32)
            made[name] = (("t", "y", "x"), values)
        made = made.assign_coords(t=made.time.to_numpy()[[1, 4, 7]] + np.timedelta64(30, "h"))
    return made


def data(*cubes, **options) -> CubeData:
    how = {"architecture": "x-radar", "size": 16, "batch_size": 2, "samples": 6, "validation": 4, "workers": 0}
    return CubeData(cubes, **{**how, **options})


class TestCubeData:
    def test_nothing_changes_by_default(self):
        plain, with_it = data(cube(radar=False)), data(cube())
        for a, b in zip(plain.train_dataloader(), with_it.train_dataloader(), strict=True):
            assert torch.equal(a.given.bands, b.given.bands) and torch.equal(a.truth, b.truth)
            assert set(a.given.features) == set(b.given.features) == set()
        assert not plain.has_s1 and not with_it.has_s1

    @pytest.mark.parametrize("memory", [4.0, 0.0])
    def test_places_with_and_without_it(self, memory, tmp_path):
        for i, radar in enumerate((True, False, True)):
            cube(i, radar).to_zarr(tmp_path / f"place{i}.zarr", consolidated=False)
        how = {"holdout": ["place2"], "memory": memory}
        told = data(tmp_path, s1="s1_vv,s1_vh", **how)
        plain = data(tmp_path, **how)
        assert told.has_s1 and told.train[0].s1 is not None and told.train[1].s1 is None
        assert told.train[0].in_memory == (memory > 0)
        for a, b in zip(told.train_dataloader(), plain.train_dataloader(), strict=True):
            assert torch.equal(a.given.bands, b.given.bands) and torch.equal(a.truth, b.truth)
            # The places take turns: the first of a batch is of a place that has it.
            assert a.given.features["s1"].shape == (2, 2, 16, 16)
            assert not a.given.features["s1 seen"][1].any() and "s1" not in b.given.features
        assert any(batch.given.features["s1 seen"].any() for batch in told.val_dataloader())

    def test_what_was_kept_follows_from_the_option(self, tmp_path):
        def kept(s1):
            made = data(cube(0), cube(1, radar=False), cube(2), holdout=["cube2"], pool=2, cache=str(tmp_path), s1=s1)
            return [source.store.folder.name for source in made.sets["train"].sources], made

        (first, second), _ = kept(None)
        (third, fourth), made = kept("s1_vv,s1_vh")
        assert first != third and second == fourth
        again = [made.sets["train"][i].given.features for i in (0, 2)]
        assert kept("s1_vv,s1_vh")[0] == [third, fourth]
        other = kept("s1_vv,s1_vh")[1]
        for i, features in zip((0, 2), again, strict=True):
            for name, values in other.sets["train"][i].given.features.items():
                np.testing.assert_array_equal(values, features[name])

    def test_what_is_refused(self):
        with pytest.raises(errors.OptionError, match="no cube has the variables 'vv,vh'"):
            data(cube(), s1="vv,vh")
        with pytest.raises(errors.OptionError, match=r"all sites with the variables .* are held out"):
            data(cube(0, radar=False), cube(1), s1="s1_vv,s1_vh", holdout=["cube1"])
        power = cube()
        power["s1_vv"], power["s1_vh"] = 10 ** (power["s1_vv"] / 10), 10 ** (power["s1_vh"] / 10)
        with pytest.raises(errors.ScalingError, match=r"cube0: all values of s1 .* linear power"):
            data(power, s1="s1_vv,s1_vh")
        with pytest.raises(errors.BandError, match="no band VH"):
            data(cube(), s1="s1_vv")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["cloudfree"])
    for i, radar in enumerate((True, False, True)):
        cube(i, radar).to_zarr(f"place{i}.zarr", consolidated=False)
    return tmp_path


CONFIG = ["--model.config", "{size: tiny, encoder: terramind, s1: true}"]
FIT = ["terramind", "fit", "--config", "terramind-tiny-scratch", "--data", "place0.zarr", "place1.zarr", "place2.zarr"]
KEPT = ["--data.crop", "{size: 32, bands: 4, dates: 4}", "--data.pool", "4", "--data.cache", "kept"]
S1 = ["--data.s1", "s1_vv,s1_vh"]


class TestCommandLine:
    def test_a_run_for_trial(self, folder: Path) -> None:
        pytest.importorskip("terratorch")
        for config in (CONFIG, ["--model.config.s1", "true"]):
            output = run(*FIT, *SMALL, *KEPT, *config, *S1, "--trainer.fast_dev_run", "true")
            assert "nothing is saved" in output

    def test_both_or_neither(self, folder: Path) -> None:
        pytest.importorskip("terratorch")
        trial = [*SMALL, *KEPT, "--trainer.fast_dev_run", "true"]
        assert "and the network does not look at it" in run(*FIT, *trial, *S1, code=2)
        assert "and the network looks at it" in run(*FIT, *trial, *CONFIG, code=2)
        assert "an encoder, which uses Sentinel-1" in run(
            *FIT, *trial, "--model.config", "{encoder: none, s1: true}", *S1, code=2
        )

    def test_what_was_trained_with_it_fills_with_it(self, folder: Path) -> None:
        pytest.importorskip("terratorch")
        import xr_cloudfree

        quick = [*SMALL, *KEPT, "--data.samples", "16", "--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1"]
        fast = ["--model.stages", "[{share: 1.0, encoder: full, lr: 2.0e-2, encoder_lr: 2.0e-2}]"]
        run(*FIT, *quick, *fast, *CONFIG, *S1, "--data.holdout", "[place2]", "--out", "mine")
        card = Path("mine/README.md").read_text()
        assert "- Sentinel-1 beside them: place0\n" in card
        cube = io.open_cube("place2.zarr").load()
        how = {"model": "local-dir:mine", "layers": ["filled"]}
        plain = xr_cloudfree.fill(cube, "2023-05-11", **how)
        told = xr_cloudfree.fill(cube, "2023-05-11", s1="s1_vv,s1_vh", **how)
        assert told.attrs["cloudfree_s1"] == "2023-05-12"
        assert "cloudfree_s1" not in plain.attrs and (plain["reflectance"] != told["reflectance"]).any()
