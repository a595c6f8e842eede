"""Tiles prepared by torch are those that NumPy prepares."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

import xr_cloudfree  # noqa: E402
from tests.support.season import observations  # noqa: E402
from xr_cloudfree import synthetic  # noqa: E402
from xr_cloudfree.models.classical import conformal, regress  # noqa: E402
from xr_cloudfree.models.classical.series import Series  # noqa: E402
from xr_cloudfree.models.kernels import extra_trees  # noqa: E402
from xr_cloudfree.models.networks import features, inputs, on_device  # noqa: E402
from xr_cloudfree.models.networks.batch import Batch  # noqa: E402
from xr_cloudfree.models.networks.network import Network  # noqa: E402
from xr_cloudfree.models.networks.terramind.network import TerraMindNet  # noqa: E402
from xr_cloudfree.models.networks.unet import FusionUNet  # noqa: E402
from xr_cloudfree.models.pretrained import model as pretrained  # noqa: E402
from xr_cloudfree.models.pretrained import runtime  # noqa: E402
from xr_cloudfree.models.protocol import Observations  # noqa: E402

CPU = torch.device("cpu")
# In reflectance, as promised for a CPU.
CLOSE = 1e-5


def scattered(seed: int, bands: int, shape: tuple[int, int], dates: int = 9) -> Observations:
    """Random dates with clouds of a few pixels; some pixels are clear on no date, and hidden values are NaN."""
    rng = np.random.default_rng(seed)
    days = np.sort(rng.choice(np.arange(-90, 91), dates, replace=False)).astype(np.float64)
    y, x = np.indices(shape) / 20
    trend = rng.normal(0, 1e-3, (bands, *shape))
    values = 0.2 + 0.1 * np.sin(y + np.cos(x)) + days[:, None, None, None] * trend
    values = (values + rng.normal(0, 4e-3, values.shape)).astype(np.float32)
    clouds = rng.normal(size=(dates, -(-shape[0] // 8), -(-shape[1] // 8))).repeat(8, 1).repeat(8, 2)
    clear = clouds[:, : shape[0], : shape[1]] > -0.3
    clear[:, :5, :7] = False
    values[~np.broadcast_to(clear[:, None], values.shape)] = np.nan
    return Observations(values, clear, days, int(rng.integers(dates)))


def same(expected: inputs.NetworkInput, found: inputs.NetworkInput, close: float = CLOSE) -> None:
    """Both inputs are equal, features but for `close`."""
    for name in ("bands", "clear", "day_offset", "date_valid", "target", "target_clear", "band_valid", "source"):
        np.testing.assert_array_equal(np.asarray(getattr(found, name)), getattr(expected, name), err_msg=name)
    assert found.features.keys() == expected.features.keys()
    for name, feature in expected.features.items():
        other = np.asarray(found.features[name])
        assert other.dtype == feature.dtype == np.float32 and other.shape == feature.shape
        np.testing.assert_allclose(other, feature, atol=close, rtol=0, err_msg=name)


def prepared(obs: Observations, max_dates: int = inputs.MAX_DATES) -> inputs.NetworkInput:
    """Return the input that torch prepares, and check that it did."""
    found = on_device.compute_features(obs, max_dates, CPU)
    assert torch.is_tensor(found.bands)
    return found


@pytest.mark.parametrize(("bands", "edge"), [(4, 48), (3, 96), (2, 130), (7, 50)])
def test_tiles_of_a_season(bands, edge):
    obs = observations(seed=edge, bands=bands, edge=edge)
    same(features.compute_features(obs), prepared(obs))


@pytest.mark.parametrize("seed", range(6))
def test_scattered_clouds_and_uneven_shapes(seed):
    bands, shape = 1 + seed % 3, (41 + 9 * seed, 88 - 11 * seed)
    obs = scattered(seed, bands, shape)
    same(features.compute_features(obs), prepared(obs))


def test_a_tile_of_the_size_that_the_network_takes():
    """Many samples: none of them may be on the other side of any split."""
    obs = scattered(0, 4, (256, 256), dates=12)
    same(features.compute_features(obs), prepared(obs))


@pytest.mark.parametrize("target", [0, 10])
def test_a_target_with_dates_on_one_side_only(target):
    obs = observations(target=target)
    same(features.compute_features(obs), prepared(obs))


def test_the_nearest_dates_alone_and_radar():
    s1 = np.random.default_rng(0).normal(-12, 2, (2, 48, 48)).astype(np.float32)
    s1[:, :4] = np.nan
    obs = replace(observations(), s1=s1)
    for max_dates in (1, 4):
        same(features.compute_features(obs, max_dates), prepared(obs, max_dates))


@pytest.mark.parametrize("hidden", [slice(None), slice(3, None)], ids=["all", "all but a strip"])
def test_without_a_fit_the_processor_prepares(hidden):
    whole = observations()
    clear = whole.clear.copy()
    clear[whole.target, hidden] = False
    for obs in (replace(whole, clear=clear), replace(whole, target=-1)):
        found = on_device.compute_features(obs, inputs.MAX_DATES, CPU)
        assert isinstance(found.bands, np.ndarray)
        same(features.compute_features(obs), found, close=0)


def test_what_does_not_fit_into_the_memory_of_a_device_is_prepared_by_the_processor(monkeypatch):
    def full(*given):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(on_device, "_spread", full)
    obs = observations()
    found = on_device.compute_features(obs, inputs.MAX_DATES, CPU)
    assert isinstance(found.bands, np.ndarray)
    same(features.compute_features(obs), found, close=0)


def test_features_of_the_regression_are_equal_bit_for_bit():
    """The forests are grown on them, and a last digit may change a split."""
    obs = scattered(3, 3, (60, 70))
    expected = Series.of(obs)
    clear = torch.from_numpy(expected.clear)
    found = on_device.DeviceSeries.of(obs.shape, torch.from_numpy(expected.bands), clear, obs.day_offset)
    for name in ("before", "after", "source", "image", "change"):
        np.testing.assert_array_equal(getattr(found, name).numpy(), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(found.features().numpy(), expected.features())


def test_forests_answer_alike():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 5)).astype(np.float32)
    values = np.stack([np.sin(x[:, 0]), x[:, 1] > 0, x[:, 2]], axis=1).astype(np.float32)
    forest = extra_trees.grow(x[:400], values[:400], np.ones(400, np.float32))
    mean, spread = forest(x[400:])
    found, variance = on_device._answer(forest, torch.from_numpy(x[400:]))
    np.testing.assert_array_equal(found.numpy(), mean)
    np.testing.assert_allclose(variance.sqrt().numpy(), spread, rtol=1e-6)


@pytest.mark.parametrize("shape", [(64, 64), (37, 90), (3, 2)])
def test_residuals_are_spread_alike(shape):
    rng = np.random.default_rng(0)
    residual, weight = rng.normal(0, 0.02, (2, *shape)), rng.random(shape) * (rng.random(shape) > 0.5)
    expected = regress._spread(residual.reshape(2, -1), weight.ravel(), shape).reshape(2, *shape)
    found = on_device._spread(torch.from_numpy(residual).float(), torch.from_numpy(weight).float())
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-7)


def test_widths_of_intervals_are_interpolated_alike():
    none, one, equal = [], [0.1], [0.0, 0.0, 0.1, 0.3]
    sizes = tuple(np.array(part, np.float64) for part in (none, one, equal))
    widths = conformal.Widths(sizes, tuple(np.arange(1.0, 1 + len(part)) for part in sizes))
    size = np.linspace(0, 0.4, 41, dtype=np.float32)[None].repeat(3, axis=0)
    found = on_device._widths(widths, torch.from_numpy(size)).numpy()
    np.testing.assert_allclose(found, widths(size), rtol=1e-6)
    assert np.isnan(found[0]).all() and (found[1] == 1).all() and found[2, 0] == 2


def test_only_networks_with_these_features_are_prepared_on_a_device():
    class Plain(Network):
        pass

    obs = observations()
    assert isinstance(Plain.make_input(obs, 5, CPU).bands, np.ndarray)
    assert torch.is_tensor(FusionUNet.make_input(obs, 5, CPU).bands)
    assert isinstance(FusionUNet.make_input(obs, 5).bands, np.ndarray)


def test_what_terramind_adds_joins_the_batch():
    obs = observations()
    found, expected = (Batch.of([TerraMindNet.make_input(obs, 5, device)]) for device in (CPU, None))
    assert found.features.keys() == expected.features.keys() >= {"one_hot", "candidates"}
    for name, feature in expected.features.items():
        torch.testing.assert_close(found.features[name], feature, atol=CLOSE, rtol=0)


def test_tensors_and_arrays_share_a_batch():
    many, few = scattered(0, 3, (48, 48), dates=9), scattered(1, 2, (48, 48), dates=5)
    without = replace(few, target=-1)
    tiles = [features.compute_features(obs) for obs in (many, few, without)]
    mixed = Batch.of([prepared(many), prepared(few), tiles[2]])
    expected = Batch.of(tiles)
    for name in ("bands", "clear", "day_offset", "date_valid", "target", "target_clear", "band_valid"):
        assert torch.equal(getattr(mixed, name), getattr(expected, name)), name
    for name, feature in expected.features.items():
        torch.testing.assert_close(mixed.features[name], feature, atol=CLOSE, rtol=0)


def test_predictions_are_the_same(monkeypatch):
    """As on a GPU: tiles of several sizes, in batches, in several threads."""
    tiles = [observations(seed, edge=edge) for seed, edge in enumerate((64, 48, 64, 48, 64))]
    tiles.append(replace(tiles[0], target=-1))
    model = xr_cloudfree.from_pretrained("unet", device="cpu")
    expected = model.predict(tiles)
    calls, compute = [], on_device.compute_features
    monkeypatch.setattr(on_device, "compute_features", lambda *given: calls.append(given) or compute(*given))
    monkeypatch.setattr(runtime, "prepares_on", lambda device: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    batches = pretrained._batches
    monkeypatch.setattr(pretrained, "_batches", lambda tiles, batch: batches(tiles, 2))
    for found, answer in zip(model.predict(tiles), expected, strict=True):
        np.testing.assert_array_equal(found.known, answer.known)
        np.testing.assert_array_equal(found.source, answer.source)
        np.testing.assert_allclose(found.bands, answer.bands, atol=CLOSE, rtol=0)
        np.testing.assert_allclose(found.uncertainty, answer.uncertainty, atol=CLOSE, rtol=0)
    assert len(calls) == len(tiles)


def test_a_fill_as_on_a_gpu_is_the_same(monkeypatch, tmp_path):
    """In memory and streamed: tiles that blocks share, cut while others are predicted, prepared by torch."""
    cube = synthetic.cube((9, 3, 330, 420), seed=1, cloud_share=0.4)
    cube["reflectance"] = cube["reflectance"].astype(np.float32) * 1e-4
    cube["reflectance"].attrs = {}
    model = xr_cloudfree.from_pretrained("unet", device="cpu")
    how = dict(date=cube["time"].to_numpy()[4], model=model, layers=("uncertainty", "filled"), block=320)
    expected = xr_cloudfree.fill(cube, **how)
    compute, devices = on_device.compute_features, []
    monkeypatch.setattr(on_device, "compute_features", lambda *given: devices.append(given[2]) or compute(*given))
    monkeypatch.setattr(runtime, "prepares_on", lambda device: True)
    assert model.overlaps
    streamed = xr_cloudfree.to_zarr(cube, tmp_path / "out.zarr", shard=320, **how)
    for found in (xr_cloudfree.fill(cube, **how), streamed):
        np.testing.assert_array_equal(found["filled"], expected["filled"])
        for name in ("reflectance", "uncertainty"):
            np.testing.assert_allclose(found[name], expected[name], atol=CLOSE, rtol=0)
    assert len(devices) >= 4 and set(devices) == {CPU}
