"""The detectors of other packages themselves, where they are installed: on real images, by name."""

import csv
import socket
from importlib import resources

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.detectors import level_1c, needs
from xr_cloudfree import synthetic
from xr_cloudfree.errors import WeightsError


def lazily(cube, name, **options):
    """The clear mask from chunks that fit nothing, and a check that it is that of the cube in memory."""
    at_once = xr_cloudfree.clear_mask(cube, mask=name, repair=False, **options)
    lazy = xr_cloudfree.clear_mask(cube.chunk(time=1, y=50, x=70), mask=name, repair=False, **options)
    assert lazy.chunks is not None
    xr.testing.assert_identical(lazy.compute(), at_once)
    return at_once


@needs("csmask")
class TestCSmask:
    def test_sentinel_2(self, portugal):
        """On dates of all kinds it agrees with the masks of the sample, which another network made."""
        cube = portugal[["reflectance"]].isel(time=[0, 7, 10, 17])
        given = xr_cloudfree.clear_mask(portugal.isel(time=[0, 7, 10, 17]), repair=False)
        clear = lazily(cube, "csmask")
        assert 0.2 < given.mean() < 0.8
        assert (clear == given).mean() > 0.95
        label = clear.attrs["cloudfree_mask"]
        assert label.startswith("csmask (ukis-csmask ") and label.endswith(", license Apache-2.0)")

    def test_landsat_with_six_bands(self, landsat):
        cube = landsat.isel(time=slice(0, 2))
        clear = xr_cloudfree.clear_mask(cube[["reflectance"]], mask="csmask", repair=False)
        assert (clear == xr_cloudfree.clear_mask(cube, repair=False)).mean() > 0.9

    def test_the_level_decides_between_its_networks(self, portugal):
        cube = portugal[["reflectance"]].isel(time=[14]).drop_attrs(deep=False)
        surface = xr_cloudfree.clear_mask(cube, mask="csmask", repair=False)
        xr.testing.assert_equal(
            xr_cloudfree.clear_mask(cube.assign_attrs({"processing:level": "L2A"}), mask="csmask", repair=False),
            surface,
        )
        toa = xr_cloudfree.clear_mask(cube.assign_attrs({"processing:level": "L1C"}), mask="csmask", repair=False)
        assert not toa.equals(surface)

    def test_it_is_what_the_package_says(self, portugal):
        """In a cube that is one tile of 256 pixels, the layer is that of the package called by hand."""
        from ukis_csmask.mask import CSmask

        cube = portugal[["reflectance"]].isel(time=[14])
        wide = cube.pad(y=(0, 128), x=(0, 128), mode="symmetric").assign_coords(
            y=cube.y.values[0] - 1e-4 * np.arange(256), x=cube.x.values[0] + 1e-4 * np.arange(256)
        )
        image = np.nan_to_num(np.moveaxis(wide.reflectance.values[0], 0, -1).astype(np.float32))
        by_hand = CSmask(image, ["blue", "green", "red", "nir"], "l2a", providers=["CPUExecutionProvider"]).csm[..., 0]
        expected = (by_hand == 0) & wide.reflectance[0].notnull().all("band")
        np.testing.assert_array_equal(xr_cloudfree.clear_mask(wide, mask="csmask", repair=False)[0], expected)
        assert (by_hand > 0).any() and (by_hand == 0).any()

    def test_several_tiles(self):
        cube = synthetic.cube(shape=(1, 6, 120, 560)).drop_vars("cloud_mask")
        lazy = xr_cloudfree.clear_mask(cube.chunk(y=50, x=300), mask="csmask", repair=False)
        xr.testing.assert_identical(lazy.compute(), xr_cloudfree.clear_mask(cube, mask="csmask", repair=False))


@needs("s2cloudless")
class TestS2Cloudless:
    def test_on_bands_made_up_from_real_ones(self, portugal):
        which = portugal.isel(time=[0, 7, 10, 17])
        cube = level_1c(which.reflectance)
        given = (which.cloud_mask != 1) & cube.notnull().all("band")
        clear = lazily(cube, "s2cloudless")
        assert (clear == given).mean() > 0.9
        label = clear.attrs["cloudfree_mask"]
        assert label.startswith("s2cloudless (s2cloudless ") and label.endswith("license CC-BY-SA-4.0), threshold 0.4")

    def test_it_is_what_the_package_says(self, portugal):
        from s2cloudless import S2PixelCloudDetector

        cube = level_1c(portugal.reflectance.isel(time=[14]))
        images = np.moveaxis(cube.values.astype(np.float32), 1, -1)
        probability = S2PixelCloudDetector().get_cloud_probability_maps(images)
        for threshold in (0.2, 0.7):
            clear = xr_cloudfree.clear_mask(cube, mask="s2cloudless", repair=False, threshold=threshold)
            np.testing.assert_array_equal(clear, (probability < threshold) & cube.notnull().all("band"))


@needs("omnicloudmask")
class TestOmniCloudMask:
    @pytest.fixture
    def weights(self, tmp_path):
        """Networks as the package builds, names and stores them, with weights that were never trained."""
        torch = pytest.importorskip("torch")
        smp = pytest.importorskip("segmentation_models_pytorch")
        from safetensors.torch import save_file

        with (resources.files("omnicloudmask") / "model_download_links.csv").open() as table:
            rows = list(csv.DictReader(table))
        latest = max(float(row["version"]) for row in rows)
        for row in rows:
            if float(row["version"]) == latest:
                torch.manual_seed(0)
                network = smp.Unet(row["timm_model_name"], encoder_weights=None, in_channels=3, classes=4)
                save_file(network.state_dict(), tmp_path / row["file_name"])
        return tmp_path

    def test_weights_in_a_folder(self, portugal, weights):
        """The package's own loading and tiling, with networks that know nothing."""
        from omnicloudmask import predict_from_array

        cube = portugal[["reflectance"]].isel(time=[0, 14])
        clear = lazily(cube, f"omnicloudmask:{weights}")
        images = np.nan_to_num(cube.reflectance.sel(band=["B04", "B03", "B8A"]).values.astype(np.float32))
        by_hand = [
            predict_from_array(image, patch_size=128, patch_overlap=64, destination_model_dir=weights)[0]
            for image in images
        ]
        np.testing.assert_array_equal(clear, (np.array(by_hand) == 0) & cube.reflectance.notnull().all("band"))
        assert clear.any() and not clear.all()
        label = clear.attrs["cloudfree_mask"]
        assert label.startswith("omnicloudmask (omnicloudmask ") and label.endswith(", license MIT)")

    def test_weights_that_cannot_be_had(self, portugal, tmp_path, monkeypatch):
        def no_network(*_, **__):
            raise OSError("no network in this test")

        monkeypatch.setattr(socket.socket, "connect", no_network)
        monkeypatch.setattr(socket, "getaddrinfo", no_network)
        cube = portugal[["reflectance"]].isel(time=[0])
        with pytest.raises(WeightsError, match="cannot be downloaded") as caught:
            xr_cloudfree.clear_mask(cube, mask=f"omnicloudmask:{tmp_path}")
        assert str(tmp_path) in str(caught.value) and "mask='omnicloudmask:FOLDER'" in caught.value.remedy
