"""Fills with images of another sensor: one answer under any chunking, blocks and order; layers; bad input."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xr_cloudfree
from tests.support.other_sensors import TARGET, two_sensors
from xr_cloudfree import synthetic
from xr_cloudfree.errors import (
    BandError,
    CloudfreeWarning,
    DimensionError,
    GridError,
    MaskError,
    OptionTypeError,
    ScalingError,
    TimeError,
)
from xr_cloudfree.models.classical import enhance

SMALL = two_sensors((10, 2, 60, 70))


@pytest.fixture
def sensors(monkeypatch):
    """Small tiles, so that blocks share some."""
    monkeypatch.setattr(enhance, "TILE", 48)
    monkeypatch.setattr(enhance, "STRIDE", 32)
    return two_sensors()


def rmse(image, truth):
    return float(np.sqrt(np.square(image - truth).mean()))


def fill(cube, seen, date=TARGET, model="linear", **options):
    return xr_cloudfree.fill(cube, date, model=model, others=seen, **options)


def same(one, other):
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("model", ["linear", "regress", "median"])
def test_a_day_under_cloud_is_told_by_the_other_sensor(sensors, model):
    cube, seen, truth = sensors
    found, without = fill(cube, seen, model=model), xr_cloudfree.fill(cube, TARGET, model=model)
    assert rmse(found.reflectance, truth) < 0.75 * rmse(without.reflectance, truth)
    assert found.attrs["cloudfree_others"].endswith(TARGET)
    assert found.attrs["cloudfree_model"] == model


def test_layers(sensors):
    cube, seen, truth = sensors
    found = fill(cube, seen, model="regress", layers="all")
    assert (found.source_sensor == 1).all()
    assert rmse(found.consistency, 0) < 0.005
    assert found.consistency.dims == ("band", "y", "x")
    without = xr_cloudfree.fill(cube, TARGET, model="regress", layers="uncertainty")
    assert float(found.uncertainty.mean()) < float(without.uncertainty.mean())
    inside = abs(found.reflectance - truth) <= 1.645 * found.uncertainty
    assert float(inside.mean()) > 0.8


@given(
    chunk=st.integers(13, 64),
    other=st.integers(5, 40),
    block=st.sampled_from([32, 64, 96]),
    order=st.permutations(range(10)),
)
@settings(max_examples=8, deadline=None)
def test_one_answer_under_any_chunking_and_order(chunk, other, block, order):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enhance, "TILE", 48)
        patch.setattr(enhance, "STRIDE", 32)
        cube, seen, _ = SMALL
        layers = ["source_sensor", "consistency"]
        expected = fill(cube, seen, layers=layers)
        cube = cube.isel(time=list(order)).chunk(y=chunk, x=chunk)
        seen = seen.isel(time=list(order)).chunk(y=other, x=other)
        same(expected, fill(cube, seen, layers=layers, block=block).compute())


def test_one_of_several_dates_is_what_it_is_alone(sensors):
    cube, seen, _ = sensors
    several = fill(cube, seen, [TARGET, "2023-06-10"])
    np.testing.assert_array_equal(several.reflectance.sel(time=TARGET), fill(cube, seen).reflectance)


def test_observed_pixels_come_back_bit_for_bit(sensors):
    cube, seen, _ = sensors
    found = fill(cube, seen, "2023-05-21", layers=["filled", "source_sensor"])
    observed = found.filled == 1
    assert observed.any()
    kept = cube.reflectance.sel(time="2023-05-21")
    np.testing.assert_array_equal(found.reflectance.where(observed), kept.where(observed))
    assert not found.source_sensor.where(observed, 0).any()


@pytest.mark.parametrize("dim", ["y", "x"])
def test_rows_and_columns_in_the_other_direction(sensors, dim):
    cube, seen, _ = sensors
    turned = seen.isel({dim: slice(None, None, -1)})
    same(fill(cube, seen), fill(cube, turned))


def test_stored_numbers_and_bands_as_variables(sensors):
    """As Landsat comes: digital numbers with scale and offset, bands by their own names, a quality layer of bits."""
    cube, seen, truth = sensors
    numbers = ((seen.reflectance + 0.2) / 2.75e-5).round().fillna(0).astype("uint16")
    bands = {
        f"SR_B{i + 2}": numbers.isel(band=i, drop=True).assign_attrs(scale_factor=2.75e-5, add_offset=-0.2)
        for i in range(3)
    }
    qa = xr.where(seen.cloud_mask == 0, 21824, 22280).astype("uint16")
    landsat = xr.Dataset({**bands, "QA_PIXEL": qa}).assign_coords(platform=("time", ["landsat-8"] * 10))
    found = fill(cube, landsat)
    assert found.attrs["cloudfree_others"].startswith("landsat")
    # Published coefficients and those of this made-up sensor differ: pairs of images tell.
    without = xr_cloudfree.fill(cube, TARGET, model="linear")
    assert rmse(found.reflectance, truth) < 0.85 * rmse(without.reflectance, truth)


def test_an_other_sensor_that_covers_a_part(sensors):
    cube, seen, _ = sensors
    found, without = fill(cube, seen.isel(x=slice(0, 12))), xr_cloudfree.fill(cube, TARGET, model="linear")
    right = slice(66, None)
    np.testing.assert_allclose(found.reflectance[..., right], without.reflectance[..., right], atol=1e-6)
    assert (found.reflectance[..., :20] != without.reflectance[..., :20]).any()


def test_two_others(sensors):
    cube, seen, truth = sensors
    two = fill(cube, [seen.isel(time=[0]), seen], layers=["source_sensor"])
    assert (two.source_sensor == 2).all()
    assert rmse(two.reflectance, truth) < 1.05 * rmse(fill(cube, seen).reflectance, truth)


def test_no_image_near_the_target_is_a_warning(sensors):
    cube, seen, _ = sensors
    with pytest.warns(CloudfreeWarning, match="no image of others is within 2.5 days"):
        found = fill(cube, seen.isel(time=[0, 9]))
    assert found.attrs["cloudfree_others"].endswith("none within 2.5 days")


BAD = {
    "finer pixels": (
        lambda s: s.assign_coords(y=s.y / 10 + s.y[0] * 0.9, x=s.x / 10 + s.x[0] * 0.9),
        GridError,
        "of the cube's",
    ),
    "elsewhere": (lambda s: s.assign_coords(x=s.x + 1e6), GridError, "beside the cube"),
    "another crs": (
        lambda s: s.assign_coords(spatial_ref=xr.DataArray(0, attrs={"crs_wkt": "EPSG:4326"})),
        GridError,
        "CRS",
    ),
    "no mask": (lambda s: s.drop_vars("cloud_mask"), MaskError, "no quality layer"),
    "no common band": (lambda s: s.assign_coords(band=["x1", "x2", "x3"]), BandError, "no band of the cube"),
    "no dates": (lambda s: s.isel(time=0, drop=True), Exception, "others"),
    "a date twice": (lambda s: xr.concat([s, s.isel(time=[0])], "time"), TimeError, "others"),
    "digital numbers": (lambda s: s.assign(reflectance=s.reflectance * 10_000), ScalingError, "reflectance|digital"),
    "a number": (lambda s: 3, OptionTypeError, "others holds a int"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(sensors, case):
    change, error, found = BAD[case]
    cube, seen, _ = sensors
    with pytest.raises(error, match=found) as raised:
        fill(cube, change(seen))
    assert isinstance(raised.value, xr_cloudfree.errors.CloudfreeError)


def test_a_tree_of_cubes_is_filled_at_its_smallest_pixels(sensors, tmp_path):
    cube, seen, _ = sensors
    tree = xr.DataTree.from_dict({"landsat": seen, "sentinel": cube})
    found = tree.cloudfree.fill(TARGET, model="linear")
    same(found, fill(cube, seen))
    same(xr_cloudfree.fill(tree, TARGET, model="linear"), found)
    assert "filled:" in repr(tree.cloudfree) and "others[0]:" in repr(tree.cloudfree)
    score = tree.cloudfree.evaluate(models=["linear"], tracks=["full"], frames=1, check=False)
    assert score.index.get_level_values("model").tolist() == ["linear"]
    store = tree.cloudfree.to_zarr(tmp_path / "out.zarr", TARGET, model="linear")
    np.testing.assert_array_equal(store.reflectance, found.reflectance)
    with pytest.raises(DimensionError, match="no cube"):
        xr.DataTree().cloudfree.fill(TARGET)


def test_evaluate_scores_what_the_other_sensor_is_worth():
    cube = synthetic.cube((8, 3, 60, 70), seed=3, dtype="float32", cloud_share=0.0)
    seen = synthetic.coarser(cube.reflectance, cube.cloudfree.clear_mask())
    how = {"models": ["linear"], "tracks": ["full"], "frames": None}
    without, found = (cube.cloudfree.evaluate(**how, others=others).loc["full"] for others in (None, seen))
    assert (found.frames == without.frames).all()
    assert (found.PSNR > without.PSNR + 1).all()


def test_a_cube_from_a_file_is_known_as_in_memory(tmp_path):
    """The platform is a coordinate of the file, which dask wraps."""
    cube, seen, _ = SMALL
    landsat = seen.assign_coords(platform=("time", ["landsat-8"] * 10), band=["blue", "green"])
    landsat.to_netcdf(tmp_path / "landsat.nc")
    expected = fill(cube, landsat)
    assert expected.attrs["cloudfree_others"].startswith("landsat")
    same(expected, fill(cube, tmp_path / "landsat.nc"))
    with xr.open_dataset(tmp_path / "landsat.nc", chunks={}) as opened:
        same(expected, fill(cube, opened.isel(time=slice(None))).compute())


def test_others_may_be_a_tree_and_layers_of_theirs_need_them():
    cube, seen, _ = SMALL
    same(fill(cube, seen), fill(cube, xr.DataTree.from_dict({"landsat": seen})))
    for layers in (["source_sensor"], "consistency"):
        with pytest.raises(xr_cloudfree.errors.OptionError, match="there are no others") as raised:
            xr_cloudfree.fill(cube, TARGET, model="linear", layers=layers)
        assert "others=" in raised.value.remedy


def test_evaluate_says_that_no_image_is_near():
    cube = synthetic.cube((8, 3, 60, 70), seed=3, dtype="float32", cloud_share=0.0)
    seen = synthetic.coarser(cube.reflectance, cube.cloudfree.clear_mask())
    later = seen.assign_coords(time=seen.time + np.timedelta64(4, "D"))
    with pytest.warns(CloudfreeWarning, match="as without others"):
        cube.cloudfree.evaluate(models=["linear"], tracks=["full"], frames=1, others=later)
