"""Synthetic cubes do not depend on chunks, and have the properties that they state."""

from __future__ import annotations

import numpy as np
import pytest
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_cloudfree import synthetic
from xr_cloudfree.errors import OptionError

SHAPE = (5, 3, 70, 90)
WHOLE = synthetic.cube(SHAPE, seed=3)


@settings(max_examples=15, deadline=None)
@given(
    chunks=st.fixed_dictionaries(
        {}, optional={name: st.integers(1, n) for name, n in zip(("time", "band"), SHAPE[:2], strict=True)}
    ),
    y=st.integers(17, 70),
    x=st.integers(19, 90),
)
def test_any_chunks_give_the_same_cube(chunks: dict[str, int], y: int, x: int) -> None:
    lazy = synthetic.cube(SHAPE, seed=3, chunks={**chunks, "y": y, "x": x})
    assert lazy["reflectance"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), WHOLE)


@settings(max_examples=15, deadline=None)
@given(y=st.integers(0, 69), x=st.slices(90), t=st.integers(-5, 4))
def test_a_part_of_a_lazy_cube_is_that_part(y: int, x: slice, t: int) -> None:
    lazy = synthetic.cube(SHAPE, seed=3, chunks=40)
    part = {"time": t, "y": y, "x": x}
    np.testing.assert_array_equal(lazy["reflectance"].isel(part), WHOLE["reflectance"].isel(part))
    np.testing.assert_array_equal(lazy["cloud_mask"].isel(part), WHOLE["cloud_mask"].isel(part))


def test_float_and_integers_tell_the_same_reflectance() -> None:
    floats = synthetic.cube(SHAPE, seed=3, dtype="float32")["reflectance"]
    stored = WHOLE["reflectance"]
    assert stored.dtype == np.uint16 and floats.dtype == np.float32
    decoded = stored.where(stored != 0) * stored.attrs["scale_factor"]
    # Half a digital number, and the rounding of float32.
    np.testing.assert_allclose(decoded, floats, atol=0.51e-4)


def test_another_seed_is_another_cube_and_the_same_seed_the_same() -> None:
    xr.testing.assert_identical(synthetic.cube(SHAPE, seed=3), WHOLE)
    assert (synthetic.cube(SHAPE, seed=4)["reflectance"] != WHOLE["reflectance"]).mean() > 0.9


def test_clear_pixels_show_the_truth_and_clouds_hide_it() -> None:
    cube = synthetic.cube((6, 4, 96, 96), seed=5, dtype="float32")
    for date in range(6):
        image = cube.isel(time=date)
        error = abs(image["reflectance"] - synthetic.truth(str(image.time.values), (1, 4, 96, 96), seed=5))
        # Clear: the sensor's noise is at most 0.003, and nothing else was added.
        assert float(error.where(image["cloud_mask"] == 0).max()) < 0.0031
    bright = cube["reflectance"].sel(band="B02").where(cube["cloud_mask"] == 1).median()
    assert float(bright) > 0.5


@pytest.mark.parametrize("share", [0.0, 0.2, 0.45, 0.8, 1.0])
def test_cloud_share_is_kept(share: float) -> None:
    mask = synthetic.cube((24, 1, 512, 512), seed=1, cloud_share=share, chunks=512)["cloud_mask"]
    seen = mask != 4
    found = float(((mask == 1) & seen).sum() / seen.sum())
    # Some hundred clouds are a small sample; the extremes are exact.
    assert found == share if share in (0.0, 1.0) else abs(found - share) < 0.06


def test_clear_sky_is_clear_everywhere() -> None:
    assert not synthetic.cube((12, 1, 64, 64), cloud_share=0)["cloud_mask"].any()


def test_vegetation_greens_up_and_goes() -> None:
    def ndvi(date: str) -> xr.DataArray:
        image = synthetic.truth(date, (1, 4, 128, 128))
        nir, red = image.sel(band="B08", drop=True), image.sel(band="B04", drop=True)
        return (nir - red) / (nir + red)

    spring, summer, winter = (float(ndvi(d).mean()) for d in ("2023-05-20", "2023-07-15", "2023-12-20"))
    assert min(spring, summer) > winter + 0.15


def test_cube_carries_its_grid() -> None:
    assert WHOLE.rio.crs.to_epsg() == 32629
    np.testing.assert_array_equal(np.diff(WHOLE["x"]), 10)
    np.testing.assert_array_equal(np.diff(WHOLE["y"]), -10)
    landsat = synthetic.cube((2, 6, 16, 16), sensor="landsat")
    assert list(landsat["band"].values) == ["blue", "green", "red", "nir", "swir16", "swir22"]
    np.testing.assert_array_equal(np.diff(landsat["x"]), 30)


def test_a_huge_cube_costs_nothing_until_it_is_computed() -> None:
    lazy = synthetic.cube((40, 4, 20_000, 20_000), chunks={"time": 1, "y": 1000, "x": 1000})
    assert lazy.nbytes > 100e9
    corner = lazy["reflectance"].isel(time=39, band=0, y=slice(-4, None), x=slice(-4, None)).compute()
    assert corner.shape == (4, 4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": (4, 4, 64)},
        {"shape": (4, 0, 64, 64)},
        {"shape": (4, 11, 64, 64)},
        {"sensor": "modis"},
        {"dtype": "float64"},
        {"cloud_share": 1.5},
        {"days": 0},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="Needed:"):
        synthetic.cube(**{"shape": (2, 2, 16, 16), **wrong})
