"""Networks in training: losses, metrics, resuming and saving."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

import tests.support.networks
import tests.support.training_networks  # noqa: F401  adds its architecture
import xr_cloudfree
from tests.support.training import EachStep, Recorder, trainer
from xr_cloudfree import synthetic
from xr_cloudfree.accuracy import metrics
from xr_cloudfree.errors import ModelError, OptionError
from xr_cloudfree.models.networks.learned_gate import CONDITION
from xr_cloudfree_training.data import CubeData
from xr_cloudfree_training.lit import LOSSES, Averaging, FusionModule, rate


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return synthetic.cube(shape=(10, 4, 48, 64), seed=0, cloud_share=0.3)


def data(cube: xr.Dataset, **options: Any) -> CubeData:
    how = {"size": 16, "batch_size": 2, "samples": 8, "validation": 4, "workers": 0, "seed": 3, "vary_bands": False}
    return CubeData([cube], architecture="x-noisy", **{**how, **options})


def module(**options: Any) -> FusionModule:
    torch.manual_seed(0)
    return FusionModule("x-noisy", bands=("blue", "green", "red", "nir"), seed=3, **options)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")
@pytest.mark.parametrize(("crash", "saved"), [(6, "step"), (9, "last")])
def test_an_interrupted_training_goes_on_with_the_same_losses(tmp_path, cube, crash: int, saved: str) -> None:
    whole = Recorder()
    run = trainer(tmp_path / "whole", whole)
    first = module(loss={"mse": 1.0, "laplace": 0.01})
    run.fit(first, data(cube))
    assert sorted(whole.losses) == list(range(1, 13)) and len(set(whole.losses.values())) == 12

    broken = Recorder(crash)

    def steps() -> EachStep:
        return EachStep(tmp_path / "steps", "{step}", every_n_train_steps=1, save_top_k=-1)

    with pytest.raises(RuntimeError, match="the power is gone"):
        trainer(tmp_path / "broken", broken, steps()).fit(module(loss={"mse": 1.0, "laplace": 0.01}), data(cube))
    # Either of the last step, in the middle of the second epoch, or of the last validation, after the second.
    path = tmp_path / ("steps/step=6.ckpt" if saved == "step" else "broken/checkpoints/last.ckpt")

    rest = Recorder()
    second = module(loss={"mse": 1.0, "laplace": 0.01})
    again = trainer(tmp_path / "broken", rest, steps())
    # A worker makes samples ahead of their time: also then it is the right ones.
    again.fit(second, data(cube, workers=1), ckpt_path=path, weights_only=True)
    start = 7 if saved == "step" else 9
    assert rest.losses == {step: loss for step, loss in whole.losses.items() if step >= start}
    # Both end with the averaged weights, which have to be the same as well.
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
    assert run.callback_metrics["val/psnr"] == again.callback_metrics["val/psnr"]


def test_the_average_follows_the_weights() -> None:
    follow = Averaging(0.9)._kwargs["avg_fn"]
    average, count, expected = torch.tensor(0.0), 1, 0.0
    for count in range(1, 200):
        decay = min(0.9, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay)
        average = follow(average, torch.tensor(1.0), count)
    assert average.item() == pytest.approx(expected, rel=1e-5) and expected > 0.999
    # The first steps count almost wholly: 1 - 2/11.
    assert follow(torch.tensor(0.0), torch.tensor(1.0), 1).item() == pytest.approx(9 / 11)


def test_validation_measures_what_evaluate_measures(tmp_path, cube) -> None:
    made, samples = module(ema=None), data(cube)
    run = trainer(tmp_path)
    run.validate(made, samples, verbose=False)
    batches = list(samples.val_dataloader())
    made.eval()
    frames: dict[str, list[tuple[float, ...]]] = {}
    pixels = []
    for batch in batches:
        with torch.no_grad():
            output = made.network(batch.given)
        for i, track in enumerate(batch.tracks):
            image, truth = output.reflectance[i].numpy(), batch.truth[i].numpy()
            where, clear = batch.hidden[i, 0].numpy() > 0, batch.clear[i, 0].numpy() > 0
            covered, _ = metrics.interval_coverage(image, truth, output.uncertainty[i].numpy(), where)
            frames.setdefault(track, []).append((metrics.psnr(image, truth, where), covered))
            pixels.append((image[:, where] - truth[:, where]).ravel())
            span = np.maximum(metrics.data_range(truth, clear), 1e-3)
            similar = metrics.ssim(np.where(where, image, truth), truth, where, span)
            found = run.callback_metrics[f"val-{track}/ssim"].item()
            assert found == pytest.approx(similar, abs=0.05)  # they go on differently beyond the border
    error = np.concatenate(pixels)
    told = {name: value.item() for name, value in run.callback_metrics.items()}
    assert told["val/mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert told["val/rmse"] == pytest.approx(np.sqrt(np.square(error).mean()), rel=1e-5)
    every = [frame for track in frames.values() for frame in track]
    assert told["val/psnr"] == pytest.approx(np.mean([psnr for psnr, _ in every]), rel=1e-5)
    assert told["val/coverage90"] == pytest.approx(np.mean([covered for _, covered in every]), rel=1e-5)
    assert told["val-full/psnr"] == pytest.approx(frames["full"][0][0], rel=1e-5)


def test_hidden_pixels_count_or_all_that_were_measured(tmp_path, cube) -> None:
    for counted in ("hidden", "measured"):
        made, samples = module(ema=None, loss={"mse": 1.0}, counted=counted), data(cube, samples=2)
        record = Recorder()
        trainer(tmp_path / counted, record, max_epochs=1).fit(made, samples)
        batch = next(iter(data(cube).train_dataloader()))
        (given,) = made.network.given
        assert torch.equal(given.bands, batch.given.bands)
        assert (CONDITION in given.features) == (counted == "measured")
        # The network's answer in that step, from its own weights before it, and the loss by hand.
        fresh = module(ema=None).network.train()
        torch.manual_seed(3 * 1_000_003)
        image = fresh(given).reflectance
        where = batch.hidden if counted == "hidden" else batch.measured
        error = ((image - batch.truth).square() * where).sum() / (4 * where.sum())
        assert record.losses[1] == pytest.approx(error.item(), rel=1e-5)
        assert where.mean() > (0.95 if counted == "measured" else 0)


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_can_be_learned_from(tmp_path, cube, name: str, monkeypatch) -> None:
    if name == "feat-vgg16":
        monkeypatch.setattr("xr_cloudfree.accuracy.losses._vgg16", lambda: [torch.nn.Conv2d(3, 4, 3, 2, 1)] * 1)
    made = module(loss={name: 1.0})
    before = {n: p.clone() for n, p in made.network.named_parameters()}
    run = trainer(tmp_path, max_epochs=1)
    run.fit(made, data(cube, samples=4))
    assert run.callback_metrics[f"train/{name}"].isfinite()
    changed = [n for n, p in made.network.named_parameters() if not torch.equal(p, before[n])]
    assert ("spread" in changed) == (name in ("interval", "laplace", "gaussian"))
    assert (len(changed) > 4) == (name != "interval") and all(p.isfinite().all() for p in made.network.parameters())


def test_logs_and_pictures(tmp_path, cube) -> None:
    loggers = [CSVLogger(tmp_path, "log", "0"), TensorBoardLogger(tmp_path, "log", "0")]
    trainer(tmp_path, logger=loggers, log_every_n_steps=1, max_epochs=1).fit(module(), data(cube))
    log = (tmp_path / "log" / "0" / "metrics.csv").read_text()
    assert all(name in log.splitlines()[0] for name in ("train/loss", "val/psnr", "val-haze/rmse", "val/coverage90"))
    (picture,) = (tmp_path / "log" / "0" / "pictures").iterdir()
    from PIL import Image

    assert picture.name == "step-0000004.png"
    # Two samples of the first batch below each other, three images side by side, of 16 pixels each.
    with Image.open(picture) as image:
        assert image.size == (48, 32)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"last.ckpt"}


def test_what_was_trained_fills_a_cube(tmp_path, cube) -> None:
    made = module(spec={"tile": 32, "stride": 16, "summary": "mine", "window_days": 60.0})
    trainer(tmp_path, max_epochs=1).fit(made, data(cube))
    spec = made.save_bundle(tmp_path / "bundle", "mine", "# Mine\n")
    assert (spec.name, spec.tile, spec.summary, spec.layers) == ("mine", 32, "mine", ("uncertainty",))
    assert spec.bands == ("blue", "green", "red", "nir") and dict(spec.config) == {"bands": 4}
    image = xr_cloudfree.fill(cube, "2023-06-10", model=f"local-dir:{tmp_path / 'bundle'}", layers=["uncertainty"])
    assert image.attrs["cloudfree_model"] == "mine" and float(image["uncertainty"].max()) == pytest.approx(0.02)
    # Weights that are saved are the averaged ones that the training ended with.
    from safetensors.torch import load_file

    weights = load_file(tmp_path / "bundle" / "weights.safetensors")
    assert all(torch.equal(weights[n], p) for n, p in made.network.state_dict().items())


def test_schedules() -> None:
    assert [rate("late-linear", n, 10) for n in (0, 5, 9, 10, 11)] == pytest.approx([1, 1, 0.2, 0, 0])
    assert {rate("constant", n, 10) for n in range(11)} == {1.0}
    cycle = [rate("one-cycle", n, 1000) for n in range(1001)]
    assert np.argmax(cycle) == 100 and cycle[0] == 0.04 and cycle[-1] == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("options", "error", "found"),
    [
        ({"loss": {"mes": 1.0}}, OptionError, "no loss 'mes'"),
        ({"spec": {"tiles": 3}}, OptionError, "tiles"),
        ({"spec": {"tile": 0, "stride": 0}}, OptionError, "stride"),
        ({"spec": {"window_days": "x"}}, ModelError, "window_days is 'x'"),
        ({"config": {"depth": 3}}, ModelError, r"does not take its config.*--model\.config"),
        ({"pretrained": True}, OptionError, "has no encoder"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], error: type[Exception], found: str) -> None:
    with pytest.raises(error, match=found):
        module(**options)


def test_a_likelihood_needs_an_uncertainty(tmp_path, cube) -> None:
    torch.manual_seed(0)
    made = FusionModule("x-per-band", bands=("blue", "green", "red", "nir"), loss={"gaussian": 1.0})
    with pytest.raises(ModelError, match="does not predict uncertainty"):
        trainer(tmp_path, max_steps=1).fit(made, data(cube))
