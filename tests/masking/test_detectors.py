"""Detectors by name, and what of a cube they can be given: errors that say what to type, and that works."""

import importlib.util
import sys

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import make_cube
from tests.support.detectors import bright_pixels  # noqa: F401
from xr_cloudfree import synthetic
from xr_cloudfree.errors import BandError, MaskError, MissingDependencyError, ModelError, OptionError
from xr_cloudfree.masking.detectors import DetectorSpec, find
from xr_cloudfree.models import plugins

pytestmark = pytest.mark.usefixtures("bright_pixels")


def fails(error, cube, words, **options):
    """Return the error of `clear_mask`, which has to hold some words."""
    with pytest.raises(error, match=words) as caught:
        xr_cloudfree.clear_mask(cube, **options)
    return caught.value


def named(cube, names):
    """The cube under other names of bands."""
    return cube.assign_coords(band=names)


def test_the_detectors_of_this_package_are_entry_points():
    points = plugins.installed("xr_cloudfree.detectors")
    for name in ("csmask", "omnicloudmask", "s2cloudless"):
        spec = plugins.load(points[name])().spec
        assert spec.name == name and spec.package in spec.install.replace(f"[{name}]", f" {spec.package}")
        assert spec.source.startswith("https://doi.org/") and spec.license in spec.label()
        assert spec.reads.has_threshold == (spec.threshold is not None)


def test_a_variable_comes_before_a_detector():
    da, clear = make_cube()
    ds = da.to_dataset(name="reflectance").assign(bright=clear.astype("uint8"))
    read = xr_cloudfree.clear_mask(ds, mask="bright", scheme="cfmask", check=False)
    assert read.attrs["cloudfree_mask"] == "bright (cfmask)"
    assert find("bright", ["bright"]) is None and find("bright", []).spec.name == "bright"
    assert find(None, []) is None and find("SCL", []) is None and find(da, []) is None


@pytest.mark.parametrize("name, meant", [("brightt", "bright"), ("Likely", "likely"), ("likly_:there", "likely:there")])
def test_a_name_that_is_nearly_one_is_corrected(name, meant):
    da, _ = make_cube()
    error = fails(MaskError, da, "neither a variable nor a detector", mask=name)
    assert str(error.remedy) == f"mask={meant!r}"


def test_a_name_that_is_none_stays_a_variable():
    da, _ = make_cube()
    fails(MaskError, da.to_dataset(name="reflectance"), "no variable 'quality'", mask="quality")
    ds = da.to_dataset(name="reflectance").assign(brightness=make_cube()[1])
    fails(MaskError, ds, "no variable 'bright_ness'", mask="bright_ness")


def test_a_package_that_is_not_installed():
    da, _ = make_cube()
    error = fails(MissingDependencyError, da, "'lacking' needs no_such_module", mask="lacking")
    assert str(error.remedy) == "pip install bright-pixels" and "MIT" in error.needed


@pytest.mark.parametrize("name", ["csmask", "omnicloudmask", "s2cloudless"])
def test_the_packages_of_our_detectors_that_are_not_installed(name, monkeypatch):
    real = importlib.util.find_spec
    hidden = {"ukis_csmask", "omnicloudmask", "s2cloudless"}
    monkeypatch.setattr("xr_cloudfree.masking.detectors.find_spec", lambda m: None if m in hidden else real(m))
    error = fails(MissingDependencyError, make_cube()[0], "not installed", mask=name)
    assert str(error.remedy) == f'pip install "xr-cloudfree[{name}]"'


@pytest.mark.parametrize("name", ["nothing", "number"])
def test_an_entry_point_that_is_no_detector(name):
    fails(ModelError, make_cube()[0], "bright:.* (is not callable|makes a int)", mask=name)


def test_weights(tmp_path):
    da, _ = make_cube()
    alone = xr_cloudfree.clear_mask(da, mask="likely", repair=False)
    heavier = xr_cloudfree.clear_mask(da, mask=f"likely:{tmp_path}", repair=False)
    assert (heavier <= alone).all() and not heavier.equals(alone)
    error = fails(OptionError, da, "no folder '/nowhere'", mask="likely:/nowhere")
    assert "mask='likely'" in error.remedy
    error = fails(OptionError, da, "come with its package", mask=f"bright:{tmp_path}")
    assert str(error.remedy) == "mask='bright'"


def test_options_that_do_not_fit_the_scheme():
    da, _ = make_cube()
    for options in ({"scheme": "scl"}, {"threshold": 0.5}, {"strict": True}, {"snow": "not clear"}):
        error = fails(MaskError, da, "bright", mask="bright", **options)
        remedy = next(part for part in error.remedy.parts if getattr(part, "name", None) in options)
        fixed = options | {remedy.name: eval(remedy.value)}
        assert xr_cloudfree.clear_mask(da, mask="bright", **fixed).any()
    fails(MaskError, da, "both given", mask="bright", clear=make_cube()[1])
    xr.testing.assert_equal(
        xr_cloudfree.clear_mask(da, mask="bright", scheme="csmask"), xr_cloudfree.clear_mask(da, mask="bright")
    )


def test_a_band_that_is_missing_is_named():
    da, _ = make_cube()
    error = fails(BandError, da.isel(band=[0, 1]), "nir is not among the bands blue, red", mask="bright")
    assert str(error.remedy) == "load nir as well, or mask=None for the cube's own quality layer"


def test_a_band_of_another_name_can_be_renamed_as_the_error_says():
    da, _ = make_cube()
    expected = xr_cloudfree.clear_mask(da, mask="bright")
    array = named(da, ["blue", "red", "infrared"])
    cubes = {
        "cube": array,
        "ds": array.to_dataset(name="reflectance"),
        "cube ": array.rename(band="variable"),
    }
    for name, cube in cubes.items():
        error = fails(BandError, cube, "nir is not among the bands", mask="bright")
        renamed = eval(str(error.remedy).split(" if these")[0], {name.strip(): cube})
        np.testing.assert_array_equal(xr_cloudfree.clear_mask(renamed, mask="bright"), expected)
    ds = xr.Dataset({str(n): array.sel(band=n, drop=True) for n in array.band.values})
    error = fails(BandError, ds, "nir is not among the bands blue, red", mask="bright")
    renamed = eval(str(error.remedy).split(" if these")[0], {"ds": ds})
    assert str(error.remedy).startswith("ds.rename({'infrared': 'nir'})")
    np.testing.assert_array_equal(xr_cloudfree.clear_mask(renamed, mask="bright"), expected)


def test_either_near_infrared_band_serves_a_detector_that_needs_one():
    da, _ = make_cube()
    expected = xr_cloudfree.clear_mask(da, mask="bright")
    for names in (["B02", "B04", "B08"], ["B02", "B04", "B8A"], ["SR_B2", "SR_B4", "SR_B5"]):
        other = named(da, names)
        if names[0] == "SR_B2":
            other = other.assign_attrs(platform="landsat-8")
        np.testing.assert_array_equal(xr_cloudfree.clear_mask(other, mask="bright"), expected)
    four = xr.concat([da, named(da.sel(band=["nir"]) / 2, ["B8A"])], "band")
    four = named(four, ["B02", "B04", "B08", "B8A"])
    np.testing.assert_array_equal(xr_cloudfree.clear_mask(four, mask="bright", bands=["B02", "B04", "B08"]), expected)


def test_s2cloudless_needs_level_1c(monkeypatch):
    monkeypatch.setattr(DetectorSpec, "check_installed", lambda spec: None)
    ds = synthetic.cube(shape=(3, 10, 64, 64)).drop_vars("cloud_mask")
    error = fails(BandError, ds, "coastal, nir09, cirrus is not among", mask="s2cloudless")
    assert str(error.remedy).startswith("load coastal, nir09, cirrus as well")
    error = fails(MaskError, ds.assign_attrs({"processing:level": "L2A"}), "on surface", mask="s2cloudless")
    assert "Level-1C" in error.needed
    assert "clear=xr_cloudfree.clear_mask(other, mask='s2cloudless')" in error.remedy
    landsat = synthetic.cube(shape=(3, 6, 64, 64), sensor="landsat").assign_attrs(platform="landsat-8")
    fails(MaskError, landsat.drop_vars("cloud_mask"), "on a cube of landsat", mask="s2cloudless")


def test_nothing_is_imported_to_plan(monkeypatch):
    monkeypatch.setattr(DetectorSpec, "check_installed", lambda spec: None)
    for name in ("omnicloudmask", "ukis_csmask"):
        monkeypatch.setitem(sys.modules, name, None)
    ds = synthetic.cube(shape=(3, 6, 64, 64)).drop_vars("cloud_mask").chunk(y=32)
    for name in ("omnicloudmask", "csmask"):
        lazy = xr_cloudfree.clear_mask(ds, mask=name)
        assert lazy.chunks is not None and lazy.attrs["cloudfree_mask"].startswith(f"{name} (")


@pytest.mark.parametrize("name", ["fmask", "Series", "none"])
def test_names_of_what_is_no_detector_are_left_to_others(name):
    assert find(name, ["SCL"]) is None
