"""Losses: values by hand, weights of 0 have no influence, and gradients are finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xr_cloudfree.accuracy import losses, metrics
from xr_cloudfree.errors import MissingDependencyError, ModelError, OptionError

PLAIN = {
    "mse": losses.mse,
    "charbonnier": losses.charbonnier,
    "ssim": losses.ssim,
    "spectral_angle": losses.spectral_angle,
    "feature": losses.feature,
    "log_error": losses.log_error,
    "laplace": lambda a, b, where: losses.laplace_nll(a, b, torch.full_like(a, 0.02), where),
    "gaussian": lambda a, b, where: losses.gaussian_nll(a, b, torch.full_like(a, 0.02), where),
}


def image(*bands: float, shape: tuple[int, int] = (1, 1)) -> Tensor:
    """A batch of one image, each band of one value."""
    return torch.tensor(bands, dtype=torch.float32).reshape(1, -1, 1, 1).expand(1, len(bands), *shape).contiguous()


def random(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 0.4


def test_by_hand() -> None:
    a, b, one = image(0.5, 0.1), image(0.1, 0.4), torch.ones(1, 1, 1, 1)
    assert losses.mse(a, b, one).item() == pytest.approx((0.16 + 0.09) / 2)
    # sqrt(0.4² + 0.3²) = 0.5 and sqrt(0.3² + 0.3²) = 0.3 sqrt 2
    expected = (0.5 - 0.3 + 0.3 * math.sqrt(2) - 0.3) / 2
    assert losses.charbonnier(a, b, one, epsilon=0.3).item() == pytest.approx(expected)
    angle = math.acos((0.05 + 0.04) / math.sqrt(0.26 * 0.17))
    assert losses.spectral_angle(a, b, one).item() == pytest.approx(angle, rel=1e-6)
    sigma = image(0.2, 0.2)
    normal = [0.5 * (e / 0.2) ** 2 + math.log(0.2 * math.sqrt(2 * math.pi)) for e in (0.4, 0.3)]
    assert losses.gaussian_nll(a, b, sigma, one).item() == pytest.approx(np.mean(normal))
    scale = 0.2 * 1.6448536 / math.log(10)
    laplace = [e / scale + math.log(2 * scale) for e in (0.4, 0.3)]
    assert losses.laplace_nll(a, b, sigma, one).item() == pytest.approx(np.mean(laplace))


def test_weights_are_those_of_a_mean() -> None:
    a, b = torch.tensor([0.1, 0.2, 0.3]).reshape(1, 1, 1, 3), torch.zeros(1, 1, 1, 3)
    where = torch.tensor([1.0, 3.0, 0.0]).reshape(1, 1, 1, 3)
    assert losses.mse(a, b, where).item() == pytest.approx((0.01 + 3 * 0.04) / 4)
    # Per band: of two bands only the first counts.
    two = losses.mse(image(0.5, 0.1), image(0.1, 0.4), torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1))
    assert two.item() == pytest.approx(0.16)
    # A band that does not count is no part of the spectrum: (1, 0) and (1, 1), whatever stands third.
    angle = losses.spectral_angle(image(1, 0, 9), image(1, 1, -5), torch.tensor([1.0, 1, 0]).reshape(1, 3, 1, 1))
    assert angle.item() == pytest.approx(math.pi / 4)


def test_angle_ignores_brightness_and_ssim_is_the_metric() -> None:
    a, b = random(0, 2, 4, 24, 24), random(1, 2, 4, 24, 24)
    one = torch.ones(2, 1, 24, 24)
    assert losses.spectral_angle(a, 3 * a, one).item() < 1e-3
    assert losses.spectral_angle(a, b, one).item() == pytest.approx(
        np.deg2rad(np.mean([metrics.sam(x, y) for x, y in zip(a.numpy(), b.numpy(), strict=True)])), rel=1e-5
    )
    # The two differ in how they go on beyond the border (mirrored with and without the outermost row), so only
    # pixels whose window lies inside are compared.
    inside = torch.zeros(24, 24)
    inside[5:-5, 5:-5] = 1
    span = torch.tensor([0.3, 0.2, 0.4, 0.1]).reshape(4, 1, 1)
    found = losses.ssim_map(a, b, span)[:, :, 5:-5, 5:-5].mean().item()
    expected = [metrics.ssim(x, y, inside, span.flatten()) for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    assert found == pytest.approx(np.mean(expected), abs=1e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_what_does_not_count_has_no_say(name: str) -> None:
    truth, predicted = random(0, 2, 4, 32, 32), random(1, 2, 4, 32, 32).requires_grad_()
    where = (random(2, 2, 1, 32, 32) > 0.25).float()
    other = torch.where(where > 0, predicted, 7.0)
    loss = PLAIN[name](predicted, truth, where)
    assert loss.shape == () and PLAIN[name](other, truth, where).item() == pytest.approx(loss.item(), rel=1e-6)
    (slope,) = torch.autograd.grad(loss, predicted)
    assert (slope[(where == 0).expand_as(slope)] == 0).all()
    assert (slope[(where > 0).expand_as(slope)] != 0).float().mean() > 0.9


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("case", ["equal", "dark", "nothing counts", "bright"])
def test_gradients_are_finite(name: str, case: str) -> None:
    truth = torch.zeros(1, 4, 24, 24) if case == "dark" else random(0, 1, 4, 24, 24)
    start = 1e3 * truth + 1 if case == "bright" else truth
    predicted = start.clone().requires_grad_()
    where = torch.full((1, 1, 24, 24), 0.0 if case == "nothing counts" else 1.0)
    loss = PLAIN[name](predicted, truth, where)
    (slope,) = torch.autograd.grad(loss, predicted)
    assert torch.isfinite(loss) and torch.isfinite(slope).all()
    if case == "nothing counts":
        assert loss.item() == 0 and (slope == 0).all()
    elif case == "equal" and name not in ("laplace", "gaussian", "log_error"):
        assert loss.item() == pytest.approx(0, abs=1e-5)


def test_log_error_weighs_images_alike() -> None:
    truth = torch.zeros(3, 1, 1, 2)
    predicted = torch.tensor([[0.01, 0.01], [0.1, 0.3], [7.0, 7.0]]).reshape(3, 1, 1, 2)
    where = torch.tensor([1.0, 1.0, 0.0]).reshape(3, 1, 1, 1)
    # Half the logarithms of RMSE and MAE: ln 0.01, and of sqrt(0.05) and 0.2; the third image does not count.
    expected = (math.log(0.01) + (math.log(math.sqrt(0.05)) + math.log(0.2)) / 2) / 2
    assert losses.log_error(predicted, truth, where, floor=0.0).item() == pytest.approx(expected, rel=1e-5)
    assert losses.log_error(truth, truth, where, floor=0.01).item() == pytest.approx(math.log(0.01), rel=1e-5)


def test_interval_is_least_where_it_covers_its_share() -> None:
    error = torch.linspace(0.001, 0.1, 100).reshape(1, 1, 10, 10)
    truth, one = torch.zeros_like(error), torch.ones(1, 1, 10, 10)
    predicted = error.clone().requires_grad_()
    widths = torch.arange(0.01, 0.12, 0.001)
    found = [losses.interval(predicted, truth, torch.full_like(truth, w / 1.6448536), one).item() for w in widths]
    assert widths[int(np.argmin(found))] == pytest.approx(0.09, abs=0.0015)
    # Half of the errors lie beyond 0.05: 0.9 of the way beyond, 0.1 of the way within, by the mean error.
    e = error.numpy()
    by_hand = np.where(e > 0.05, 0.9 * (e - 0.05), 0.1 * (0.05 - e)).mean() / (e.mean() + 1e-3)
    loss = losses.interval(predicted, truth, torch.full_like(truth, 0.05 / 1.6448536), one)
    assert loss.item() == pytest.approx(by_hand, rel=1e-4)
    assert not loss.requires_grad  # no gradient flows to the prediction
    spread = torch.full_like(truth, 0.02).requires_grad_()
    (slope,) = torch.autograd.grad(losses.interval(predicted, truth, spread, one * 0), spread)
    assert (slope == 0).all()


def test_tiny_uncertainty_is_bounded() -> None:
    one = torch.ones(1, 1, 1, 1)
    for loss in (losses.laplace_nll, losses.gaussian_nll):
        assert loss(one, one, one * 0, one) == loss(one, one, one * 1e-4, one)


# -- FEAT


class Thirds(nn.Module):
    """The mean of three bands, four times smaller, and twice that."""

    def forward(self, image: Tensor) -> list[Tensor]:
        small = nn.functional.avg_pool2d(image.mean(dim=1, keepdim=True), 4)
        return [small, 2 * small]


def test_feature_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "feature_network", lambda name, device: Thirds())
    truth, one = image(0, 0, 0, 0, shape=(16, 16)), torch.ones(1, 1, 16, 16)
    # Bands 1 to 3 have a mean of 0.2; band 4 stands for itself three times: 0.4. Smooth L1 is half a square.
    found = losses.feature(image(0.1, 0.2, 0.3, 0.4, shape=(16, 16)), truth, one)
    assert found.item() == pytest.approx(sum(0.5 * (k * m) ** 2 for k in (1, 2) for m in (0.2, 0.4)))
    # Half of the pixels count, in whole places of the map: the mean over these is the same.
    half = one.clone()
    half[..., 8:] = 0
    assert losses.feature(image(0.1, 0.2, 0.3, 0.4, shape=(16, 16)), truth, half).item() == pytest.approx(found.item())
    # A band that does not count leaves its group, here the fourth band its own group.
    weight = torch.tensor([1.0, 1, 1, 0]).reshape(1, 4, 1, 1).expand(1, 4, 16, 16)
    found = losses.feature(image(0.1, 0.2, 0.3, 0.4, shape=(16, 16)), truth, weight)
    assert found.item() == pytest.approx(sum(0.5 * (k * 0.2) ** 2 for k in (1, 2)))


def test_lite0_is_the_network_that_knows_photographs() -> None:
    see = losses.feature_network("efficientnet-lite0", torch.device("cpu"))
    assert not any(p.requires_grad for p in see.parameters()) and not see.training
    maps = see(random(0, 1, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(1, 24, 16, 24), (1, 40, 8, 12), (1, 112, 4, 6)]
    # It is loaded once, and a structure differs more than a brightness does.
    assert losses.feature_network("efficientnet-lite0", torch.device("cpu")) is see
    truth, one = random(0, 1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    blurred = nn.functional.avg_pool2d(truth, 5, 1, 2, count_include_pad=False)
    shift = (blurred - truth).square().mean().sqrt()
    assert losses.feature(blurred, truth, one) > losses.feature(truth + shift, truth, one)


def test_all_weights_of_lite0_are_named() -> None:
    import timm

    losses.feature_network("efficientnet-lite0", torch.device("cpu"))  # strict: none is lacking, none too many
    sizes = [len(stage) for stage in timm.create_model("efficientnet_lite0").blocks]
    assert losses._timm_name("_blocks.0._project_conv.weight", sizes) == "blocks.0.0.conv_pw.weight"
    assert losses._timm_name("_blocks.15._bn2.bias", sizes) == "blocks.6.0.bn3.bias"
    assert losses._timm_name("_fc.bias", sizes) == "classifier.bias"


def test_weights_that_are_not_known_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_LITE0_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="SHA-256 579344248a93"):
        losses._efficientnet_lite0()


def test_vgg16_gives_the_ends_of_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import VGG16_Weights, vgg16

    with torch.device("meta"):
        whole = vgg16()
    nothing = torch.zeros(())
    state = {  # the layers behind the features are large, and not looked at
        name: 0.2 * random(i, *like.shape) - 0.04 if name.startswith("features") else nothing.expand(like.shape)
        for i, (name, like) in enumerate(whole.state_dict().items())
    }
    options_used = {}

    def get_state_dict(self: VGG16_Weights, **options: bool) -> dict[str, Tensor]:
        options_used.update(options)
        return state

    monkeypatch.setattr(VGG16_Weights, "get_state_dict", get_state_dict)
    see = losses.FeatureMaps(losses._vgg16())
    assert options_used["check_hash"] and options_used["weights_only"]
    picture = random(0, 1, 3, 32, 48)
    maps = see(picture)
    assert [tuple(m.shape) for m in maps] == [(1, 256, 8, 12), (1, 512, 4, 6), (1, 512, 2, 3)]
    whole.load_state_dict(state, assign=True)
    photo = (picture * 3 - see.mean) / see.std
    for found, end in zip(maps, (16, 23, 30), strict=True):
        torch.testing.assert_close(found, whole.features[:end](photo))


def test_vgg16_without_a_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import VGG16_Weights

    def unreachable(self: VGG16_Weights, **options: bool) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(VGG16_Weights, "get_state_dict", unreachable)
    losses.feature_network.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"VGG-16.*efficientnet-lite0"):
        losses.feature(random(0, 1, 3, 16, 16), random(1, 1, 3, 16, 16), torch.ones(1, 1, 16, 16), "vgg16")


def test_what_cannot_be_seen_is_refused() -> None:
    small = random(0, 1, 3, 5, 20)
    with pytest.raises(OptionError, match="5 by 20"):
        losses.feature(small, small, torch.ones(1, 1, 5, 20))
    with pytest.raises(OptionError, match="5 by 20"):
        losses.ssim(small, small, torch.ones(1, 1, 5, 20))
    with pytest.raises(OptionError, match="vgg19"):
        losses.feature_network("vgg19", torch.device("cpu"))
