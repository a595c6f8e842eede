"""On a GPU, results agree with the processor's but for the last digits. Skipped without one."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("there is no GPU", allow_module_level=True)

import xr_cloudfree  # noqa: E402
from tests.support.season import observations  # noqa: E402
from xr_cloudfree import io, synthetic  # noqa: E402
from xr_cloudfree.errors import SizeError  # noqa: E402
from xr_cloudfree.models.networks import features, on_device  # noqa: E402
from xr_cloudfree.models.protocol import Observations  # noqa: E402
from xr_cloudfree.runner.journal import Journal  # noqa: E402
from xr_cloudfree.runner.verify import store_digest  # noqa: E402
from xr_cloudfree.storage.locations import journal_folder  # noqa: E402

pytestmark = pytest.mark.xdist_group("gpu")
# In reflectance. Convolutions of a GPU keep ten bits of what they multiply.
CLOSE = 1e-3


def need_encoder() -> None:
    if find_spec("terratorch") is None:
        pytest.skip("terratorch is not installed")


@pytest.fixture(scope="module", autouse=True)
def nothing_left():
    """What is kept of memory goes back, for whoever comes next."""
    yield
    torch.cuda.empty_cache()


@pytest.fixture(params=["unet", "terramind"])
def name(request) -> str:
    if request.param == "terramind":
        need_encoder()
    return request.param


@pytest.fixture
def date(portugal) -> np.datetime64:
    """The date whose clouds come next to two fifths."""
    clouds = 1 - portugal.cloudfree.clear_mask().mean(("y", "x")).to_numpy()
    return portugal.time.values[int(abs(clouds - 0.4).argmin())]


@pytest.fixture
def wide() -> xr.Dataset:
    """A cube of four regions."""
    made = synthetic.cube(shape=(10, 4, 340, 400), seed=0, cloud_share=0.3)
    return made.assign_coords(band=made["band"].astype(object))


@pytest.fixture
def store(wide, tmp_path) -> Path:
    path = tmp_path / "cube.zarr"
    wide.chunk({"time": 1, "y": 64, "x": 64}).to_zarr(path, consolidated=False)
    return path


def test_it_is_taken_where_there_is_one(portugal, date, name) -> None:
    model = xr_cloudfree.from_pretrained(name)
    assert model._network()[1].type == "cuda"
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    portugal.cloudfree.fill(date=date, model=model)
    assert torch.cuda.max_memory_allocated() > before + 2**20


def test_it_answers_as_a_cpu_does(portugal, date, name) -> None:
    models = {
        "cpu": xr_cloudfree.from_pretrained(name, device="cpu"),
        "gpu": xr_cloudfree.from_pretrained(name, device="cuda"),
        "half": xr_cloudfree.from_pretrained(name, device="cuda", precision="bf16"),
    }
    made = {key: portugal.cloudfree.fill(date=date, model=model, layers="all") for key, model in models.items()}
    for other in ("gpu", "half"):
        error = abs(made[other].reflectance - made["cpu"].reflectance)
        print(name, other, "mean", float(error.mean()), "most", float(error.max()))
        assert float(error.max()) < CLOSE and float(error.mean()) < CLOSE / 10
        # What is observed passes through untouched.
        observed = made["cpu"].filled == 1
        xr.testing.assert_equal(made[other].filled == 1, observed)
        xr.testing.assert_equal(made[other].reflectance.where(observed), made["cpu"].reflectance.where(observed))


@pytest.mark.parametrize("edge", [64, 256])
def test_it_prepares_what_a_cpu_prepares(edge) -> None:
    obs = observations(seed=edge, edge=edge)
    expected = features.compute_features(obs, 60)
    found = on_device.compute_features(obs, 60, torch.device("cuda"))
    assert found.bands.device.type == "cuda"
    np.testing.assert_array_equal(found.source, expected.source)
    for name, feature in expected.features.items():
        other = torch.as_tensor(found.features[name]).cpu().numpy()
        # Forests that are grown on other samples differ by more.
        np.testing.assert_allclose(other, feature, atol=CLOSE / 10, rtol=0, err_msg=name)


def test_one_answer_for_any_chunking(wide, name) -> None:
    model = xr_cloudfree.from_pretrained(name, device="cuda")
    cube = xr.decode_cf(wide)
    date = cube.time.values[5]
    whole = cube.cloudfree.fill(date=date, model=model)
    for chunks in ({"y": 50, "x": 300}, {"y": 137, "x": 141}):
        part = cube.chunk(chunks).cloudfree.fill(date=date, model=model, block=320).compute()
        # Batches of other sizes go through other kernels.
        assert float(abs(part.reflectance - whole.reflectance).max()) < CLOSE


def test_batches_that_do_not_fit_are_halved(name) -> None:
    model = xr_cloudfree.from_pretrained(name, device="cuda")
    model.spec = replace(model.spec, batch=16)
    days = np.arange(-60.0, 61.0, 12.0)
    shape = (len(days), 4, 192, 192)

    def tile(seed: int) -> Observations:
        rng = np.random.default_rng(seed)
        bands = rng.uniform(0.05, 0.4, shape).astype(np.float32)
        clear = rng.random((shape[0], *shape[2:])) > 0.3
        bands[~np.broadcast_to(clear[:, None], shape)] = np.nan
        return Observations(bands, clear, days, 5, common_names=("blue", "green", "red", "nir"))

    tiles = [tile(seed) for seed in range(16)]
    model.predict(tiles[:1])
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    expected = model.predict(tiles)
    needed = torch.cuda.max_memory_allocated() - before
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction((before + needed * 0.6) / total)
        torch.cuda.reset_peak_memory_stats()
        answers = model.predict(tiles)
        assert torch.cuda.max_memory_allocated() - before < 0.6 * needed
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((before + needed / 64) / total)
        with pytest.raises(SizeError, match="a single tile of 10 dates, 4 bands and 192 x 192 pixels"):
            model.predict(tiles)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    for answer, wanted in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer.bands, wanted.bands, atol=CLOSE)


def test_a_run_on_a_gpu_is_resumed_and_verified(store, tmp_path) -> None:
    out, cube = tmp_path / "out.zarr", io.open_cube(store)
    options = {"date": cube.time.values[5], "model": "unet", "shard": 320}
    written = xr_cloudfree.to_zarr(cube, out, **options).compute()
    digest = store_digest(out)
    for index in (1, 2):
        (journal_folder(Path(out)) / Journal(out).marker(index)).unlink()
    again = xr_cloudfree.to_zarr(cube, out, resume=True, **options)
    assert store_digest(out) == digest and xr_cloudfree.verify(out).ok
    xr.testing.assert_equal(written, again.compute())
    image = cube.cloudfree.fill(date=options["date"], model="unet").compute()
    assert float(abs(written.reflectance - image.reflectance).max()) < CLOSE


def test_workers_with_a_gpu_fill_on_it(store, wide, tmp_path) -> None:
    distributed = pytest.importorskip("distributed")
    date, options = wide.time.values[5], {"model": "unet", "shard": 320, "progress": False}
    alone = xr_cloudfree.batch(store, tmp_path / "alone.zarr", date, **options).compute()

    def used() -> int:
        import torch

        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0

    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0", resources={"GPU": 1}
        ) as local,
        distributed.Client(local) as client,
    ):
        filled = xr_cloudfree.batch(store, tmp_path / "out.zarr", date, client=client, gpu=True, **options).compute()
        assert min(client.run(used).values()) > 2**20
    assert float(abs(filled.reflectance - alone.reflectance).max()) < CLOSE


@pytest.mark.parametrize(
    ("pathway", "recipe"), [("unet", "unet-plus"), ("unet", "unet-paper-mse"), ("terramind", "terramind-tiny-scratch")]
)
def test_training_takes_it_and_halves_its_numbers(
    pathway: str, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lightning")
    if pathway == "terramind":
        need_encoder()
    from xr_cloudfree_training import run
    from xr_cloudfree_training.cli import translate

    monkeypatch.chdir(tmp_path)
    made = synthetic.cube(shape=(10, 4, 48, 80), seed=0, cloud_share=0.3)
    made.assign_coords(band=made["band"].astype(object)).to_zarr("field.zarr", consolidated=False)
    small = ["--data.size=32", "--data.batch_size=2", "--data.validation=2", "--data.workers=0", "--data.samples=4"]
    small += [
        "--trainer.devices=1",
        "--trainer.max_epochs=1",
        "--trainer.log_every_n_steps=1",
        "--trainer.check_val_every_n_epoch=1",
    ]
    if recipe == "unet-paper-mse":
        small += ["--model.pretrained=false"]
    found, own = [], run.TrainingCLI.after_fit

    def after_fit(self) -> None:
        found.append((self.trainer.strategy.root_device.type, self.trainer.precision))
        own(self)

    monkeypatch.setattr(run.TrainingCLI, "after_fit", after_fit)
    run.run(translate(["fit", "--config", recipe, "--data", "field.zarr", "--out=bundle", *small], recipe), pathway)
    assert found == [("cuda", "bf16-mixed")]
    image = made.cloudfree.fill(date=made.time.values[5], model="local-dir:bundle")
    assert math.isfinite(float(image.reflectance.mean()))
