"""Samples: rotated, padded, stored on disk and put into batches."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.sites import make_place
from xr_cloudfree.accuracy.simulate import real_masks
from xr_cloudfree.models.networks.inputs import NetworkInput, prepare
from xr_cloudfree.models.networks.learned_gate import CONDITION
from xr_cloudfree.models.networks.network import Network
from xr_cloudfree.models.networks.terramind.network import TerraMindNet
from xr_cloudfree.models.networks.unet import FusionUNet
from xr_cloudfree_training import samples
from xr_cloudfree_training.cases import Mixture, draw
from xr_cloudfree_training.samples import Sample, Store, TrainingBatch, fingerprint

PLACE = make_place(shape=(20, 28))
SHAPES = real_masks(PLACE.clear((slice(None), slice(None))))


def with_features(obs):
    """NetworkInput with a map per band, and one number per band that no turn may touch."""
    made = prepare(obs)
    source = np.zeros(made.target.shape[1:], np.int16)
    return replace(made, features={"half": made.target / 2, "level": made.target.mean(axis=(1, 2))}, source=source)


def sample(i=0, size=64, prepared=with_features, **options):
    return Sample.of(draw([PLACE], SHAPES, 0, i, size=size, mixture=Mixture(), **options), prepared)


def arrays(one: Sample) -> dict[str, np.ndarray]:
    assert one.given.source is None
    found = {f"given.{f.name}": getattr(one.given, f.name) for f in fields(NetworkInput)[:-2]}
    found |= {f"feature.{name}": array for name, array in one.given.features.items()}
    return found | {name: getattr(one, name) for name in ("truth", "hidden", "clear", "measured")}


def assert_same(a: Sample, b: Sample) -> None:
    assert (a.track, a.common_names) == (b.track, b.common_names)
    for (name, x), y in zip(arrays(a).items(), arrays(b).values(), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)
        assert x.dtype == y.dtype


def test_a_sample_is_the_case() -> None:
    drawn = draw([PLACE], SHAPES, 0, 3, size=64, mixture=Mixture())
    one, case = Sample.of(drawn, prepare), drawn.case
    np.testing.assert_array_equal(one.hidden[0] > 0, case.scored)
    np.testing.assert_array_equal(one.clear[0] > 0, case.truth_clear)
    np.testing.assert_array_equal(one.truth, case.truth)
    np.testing.assert_array_equal(one.given.target_clear[0] > 0, case.clear[case.target])
    assert one.measured.all() and len(one.given.day_offset) == len(case.day_offset) - 1


def test_what_was_not_measured_is_zero() -> None:
    drawn = draw([PLACE], SHAPES, 0, 3, size=64, mixture=Mixture())
    truth = drawn.case.truth.copy()
    truth[1, 2, 3] = np.nan
    one = Sample.of(replace(drawn, case=replace(drawn.case, truth=truth)), prepare)
    assert one.measured[0, 2, 3] == 0 and one.measured.sum() == 20 * 28 - 1 and (one.truth[:, 2, 3] == 0).all()


def test_eight_ways_to_turn() -> None:
    one = sample()
    ways = [one.turned(way) for way in range(8)]
    assert_same(ways[0], one)
    assert len({way.truth.tobytes() for way in ways}) == 8
    assert [way.shape for way in ways] == [(20, 28)] * 4 + [(28, 20)] * 4
    np.testing.assert_array_equal(ways[3].truth, one.truth[:, ::-1, ::-1])
    for way in ways:
        # All maps turn together, and what is no map stays.
        np.testing.assert_array_equal(way.given.features["half"], way.given.target / 2)
        np.testing.assert_array_equal(way.given.features["level"], one.given.features["level"])
        seen = np.broadcast_to(way.given.target_clear > 0, way.truth.shape)
        np.testing.assert_array_equal(way.given.target[seen] > 0, np.ones(seen.sum(), bool))
        np.testing.assert_array_equal(way.given.day_offset, one.given.day_offset)
    for way in (1, 2, 3, 4):  # flips, a half turn and a transpose undo themselves
        assert_same(ways[way].turned(way), one)


def test_filled_up_where_nothing_is_clear() -> None:
    one = sample()
    more = one.filled_up((32, 30))
    assert more.shape == (32, 30)
    assert_same(more.mapped(lambda image: image[..., :20, :28]), one)
    for name, array in arrays(more).items():
        if array.ndim > 1:
            assert not array[..., 20:, :].any() and not array[..., 28:].any(), name


def test_a_batch_of_samples_of_any_size_and_bands() -> None:
    samples = [sample(0, 16), sample(1, 24), sample(2, 64)]
    batch = TrainingBatch.of(samples)
    bands = max(len(s.truth) for s in samples)
    assert batch.truth.shape == batch.given.target.shape == (3, bands, 20, 28)
    assert batch.tracks == tuple(s.track for s in samples) and batch.common_names == tuple(
        s.common_names for s in samples
    )
    for i, s in enumerate(samples):
        y, x = s.shape
        np.testing.assert_array_equal(batch.truth[i, : len(s.truth), :y, :x].numpy(), s.truth)
        assert batch.truth[i].sum() == pytest.approx(s.truth.sum(), rel=1e-5)
        # A value counts where its pixel is hidden and its band is there.
        assert batch.counted[i].sum() == s.hidden.sum() * len(s.truth)
    told = batch.conditioned().features[CONDITION]
    assert torch.equal(told, torch.cat([batch.clear, batch.clear, batch.measured], dim=1))
    assert CONDITION not in batch.given.features and "half" in batch.conditioned().features
    moved = batch.to("meta")
    assert moved.truth.is_meta and moved.given.bands.is_meta and moved.tracks == batch.tracks


def test_a_sample_is_made_once_and_is_always_what_was_kept(tmp_path: Path) -> None:
    made = []

    def make(i: int = 0) -> Sample:
        made.append(i)
        return sample(i)

    store = Store(tmp_path / "kept")
    first = store.get(7, make)
    assert_same(store.get(7, make), first)
    assert_same(Store(tmp_path / "kept").get(7, make), first)
    assert made == [0]
    original = sample(0)
    for name, array in arrays(original).items():
        # 11 binary digits of reflectance are kept, all of masks and features.
        exact = name.rpartition(".")[2] not in ("bands", "target", "truth")
        np.testing.assert_allclose(arrays(first)[name], array, rtol=0 if exact else 2**-11, atol=1e-7, err_msg=name)
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(file.read_bytes()[:200])  # as a killed process may leave it
    assert_same(store.get(7, make), first)
    assert made == [0, 0] and len(list((tmp_path / "kept").iterdir())) == 1


class Own(Network):
    """A network with an input of its own."""

    prepare = staticmethod(with_features)


def test_a_fingerprint_follows_data_settings_and_features(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(place=PLACE, network=Network, *settings):
        return fingerprint([*place.arrays, place.seen], network, *settings)

    assert name() == name(make_place(shape=(20, 28)))
    others = {name(make_place(shape=(20, 28), seed=1)), name(PLACE, Network, "size 5"), name(PLACE, Own)}
    assert len(others | {name()}) == 4
    # Networks that share the function share the samples.
    assert name(PLACE, TerraMindNet) == name(PLACE, FusionUNet) != name()
    before = name(PLACE, Own)
    monkeypatch.setattr(Own, "input_version", Own.input_version + 1)
    assert name(PLACE, Own) != before
    before = name()
    monkeypatch.setattr(samples, "FEATURES_VERSION", samples.FEATURES_VERSION + 1)
    assert name() != before
