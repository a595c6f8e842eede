"""Plots: panels, pixels, and which dates are read."""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.clouded import CLOUDED, clouded
from tests.support.clouded import DATES as CLOUDED_DATES
from tests.support.cubes import DATES, as_dataset, make_cube
from xr_cloudfree import plot
from xr_cloudfree.errors import BandError, MissingDependencyError, OptionError, TimeError
from xr_cloudfree.plot.picture import NEUTRAL


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def steady() -> xr.Dataset:
    """Three dates of 4 x 6 pixels, increasing from 0.1 to 0.2; the left half of the second is cloud, 0.9."""
    columns = np.broadcast_to(np.linspace(0.1, 0.2, 6), (3, 3, 4, 6)).copy()
    columns[1, :, :, :3] = 0.9
    clear = np.ones((3, 4, 6), bool)
    clear[1, :, :3] = False
    coords = {
        "time": np.array(["2021-05-01", "2021-05-11", "2021-05-21"], "M8[ns]"),
        "band": ["B02", "B03", "B04"],
        "y": 4_000_000 - 10.0 * np.arange(4),
        "x": 500_000 + 10.0 * np.arange(6),
    }
    da = xr.DataArray(columns, dims=("time", "band", "y", "x"), coords=coords).rio.write_crs("EPSG:32629")
    return xr.Dataset({"reflectance": da, "clear": (("time", "y", "x"), clear)})


def pixels(ax) -> np.ndarray:
    return np.asarray(ax.get_images()[0].get_array())


def toned(share):
    """Return the tone in a colour picture of a value between the lower (0) and the upper percentile (1)."""
    return ((np.asarray(share) + 0.1) / 1.1) ** 0.8


# -- before and after


def test_before_after_shows_the_observation_the_origin_and_the_filled_image(steady) -> None:
    figure = plot.before_after(steady, "2021-05-11", model="linear", clear="clear", stretch=(0, 100), repair=False)
    before, origin, after = figure.axes
    assert figure.get_suptitle() == "2021-05-11: 50 % filled by linear"
    assert before.get_title() == "As observed, 50 % clear (hatched: not clear)"
    assert [text.get_text() for text in origin.get_legend().get_texts()] == ["observed 50 %", "filled 50 %"]
    assert after.get_xlabel() == "true colour (B04, B03, B02)"
    assert (before.get_xlabel(), before.get_ylabel()) == ("easting [m]", "northing [m]")
    # The clear pixels run from 0.16 to 0.20, which become dark and white; cloud is white, the rest black.
    right = np.broadcast_to(toned([0.0, 0.5, 1.0])[:, None], (4, 3, 3))
    assert right.min() > 0.1
    np.testing.assert_allclose(pixels(before), np.concatenate([np.ones((4, 3, 3)), right], axis=1), atol=1e-5)
    np.testing.assert_allclose(pixels(after), np.concatenate([np.zeros((4, 3, 3)), right], axis=1), atol=1e-5)
    halves = pixels(origin)
    assert len(np.unique(halves[:, :3].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(halves[:, 3:].reshape(-1, 3), axis=0)) == 1
    assert (halves[0, 0] != halves[0, 5]).any()


def test_before_after_of_a_date_between_shows_the_nearest(steady) -> None:
    figure = plot.before_after(steady, "2021-05-13", model="linear", clear="clear", repair=False)
    assert figure.get_suptitle() == (
        "2021-05-13, not observed (nearest observation 2 days before): 100 % filled by linear"
    )
    assert figure.axes[0].get_title() == "Observed 2021-05-11, 50 % clear (hatched: not clear)"
    assert (pixels(figure.axes[0])[:, :3] == 1).all()  # the cloud of the 11th


def test_before_after_shows_pixels_without_data(steady) -> None:
    steady["clear"][:, 0, 0] = False
    figure = plot.before_after(steady, "2021-05-11", model="linear", clear="clear", repair=False)
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert labels == ["observed 50 %", "filled 46 %", "not filled 4 %"]
    np.testing.assert_allclose(pixels(figure.axes[2])[0, 0], NEUTRAL, rtol=1e-6)
    assert (pixels(figure.axes[2])[0, 1:] != np.float32(NEUTRAL)).any()


def test_before_after_takes_a_filled_image(steady) -> None:
    image = xr_cloudfree.fill(steady, "2021-05-11", model="linear", clear="clear", layers="filled", repair=False)
    image["reflectance"][:] = 0.2
    figure = plot.before_after(steady, "2021-05-11", image=image, clear="clear", stretch=(0, 100), repair=False)
    assert (pixels(figure.axes[2]) == 1).all()
    with pytest.raises(OptionError, match="image"):
        plot.before_after(steady, "2021-05-11", image=image.drop_vars("filled"), clear="clear")


def test_before_after_of_bands_as_variables() -> None:
    da, clear = make_cube(dtype="uint16")
    figure = plot.before_after(as_dataset(da, clear), str(DATES[3])[:10], model="linear", repair=False)
    filled = float((~clear[3] & clear.any("time")).mean())
    assert figure.get_suptitle() == f"2021-06-03: {filled:.0%} filled by linear".replace("%", " %")
    assert figure.axes[2].get_xlabel() == "B02, B04, B08"


def test_before_after_of_one_date_only(steady) -> None:
    with pytest.raises(OptionError, match="one date"):
        plot.before_after(steady, ["2021-05-11"], clear="clear")
    with pytest.raises(BandError, match="B99"):
        plot.before_after(steady, "2021-05-11", bands=["B99"], clear="clear")
    with pytest.raises(OptionError, match="stretch"):
        plot.before_after(steady, "2021-05-11", clear="clear", stretch=(98, 2))


@pytest.mark.parametrize("cube", ["portugal", "landsat"])
def test_plots_of_real_cubes_can_be_drawn(cube, request) -> None:
    cube = request.getfixturevalue(cube).chunk({"y": 40, "x": 40})
    day = cube["time"][7].dt.strftime("%Y-%m-%d").item()
    cube.cloudfree.plot.before_after(day, model="linear").canvas.draw()
    cube.cloudfree.plot.mask(day).canvas.draw()
    cube.cloudfree.plot.timeline().figure.canvas.draw()
    cube.cloudfree.plot.rgb().figure.canvas.draw()


# -- mask


def test_mask_shows_the_image_the_given_mask_and_what_the_series_changed() -> None:
    da, clear = clouded()
    figure = plot.mask(da, str(CLOUDED_DATES[CLOUDED])[:10], clear=clear)
    image, given, corrected = figure.axes
    masks = xr_cloudfree.clear_mask(da, clear=clear, repair=True, layers="mask_change").isel(time=CLOUDED)
    was_clear, change = clear[CLOUDED].to_numpy(), masks["mask_change"].to_numpy()
    assert len(np.unique(change)) == 4
    assert given.get_title() == f"Given mask, {was_clear.mean():.0%} clear".replace("%", " %")
    assert corrected.get_title() == f"Corrected by the series, {masks['clear'].mean().item():.0%} clear".replace(
        "%", " %"
    )
    masked, restored = np.isin(change, (1, 2)).mean(), (change == 3).mean()
    said = f"2021-06-03: {masked:.0%} masked and {restored:.0%} restored by the series"
    assert figure.get_suptitle() == said.replace("%", " %")
    # One colour per kind of pixel, and each kind has its own.
    kinds = np.where(change == 0, was_clear * 10, change)
    colours = {kind: np.unique(pixels(corrected)[kinds == kind], axis=0) for kind in np.unique(kinds)}
    assert all(len(colour) == 1 for colour in colours.values())
    assert len({tuple(colour[0]) for colour in colours.values()}) == 5
    [box] = figure.legends
    words = " ".join(text.get_text() for text in box.get_texts())
    for name in ("clear as given", "restored", "not clear as given", "masked: cloud", "masked: shadow"):
        assert name in words
    np.testing.assert_array_equal(pixels(given)[was_clear], colours[10][0][None].repeat(was_clear.sum(), axis=0))
    assert image.get_title() == "As observed, false colour (nir, red, green)"


def test_mask_made_from_the_series_has_no_given_one() -> None:
    figure = plot.mask(clouded()[0], "2021-06-03", mask="series")
    assert figure.axes[1].get_title() == "No mask given"
    assert figure.axes[2].get_title().startswith("Made from the series")
    assert "restored" not in figure.get_suptitle()


def test_mask_of_some_bands_is_corrected_by_all() -> None:
    da, clear = clouded()
    grey = plot.mask(da, "2021-06-03", clear=clear, bands=["red"])
    np.testing.assert_array_equal(pixels(grey.axes[2]), pixels(plot.mask(da, "2021-06-03", clear=clear).axes[2]))
    assert (pixels(grey.axes[0])[..., 0] == pixels(grey.axes[0])[..., 2]).all()


def test_mask_needs_an_observed_date_and_a_correction() -> None:
    da, clear = clouded()
    with pytest.raises(TimeError, match="2021-06-04"):
        plot.mask(da, "2021-06-04", clear=clear)
    with pytest.raises(OptionError, match="repair=False"):
        plot.mask(da, "2021-06-03", clear=clear, repair=False)


def test_mask_of_too_few_dates_is_as_given(steady) -> None:
    figure = plot.mask(steady.isel(time=[0, 1]), "2021-05-11", clear="clear")
    assert figure.get_suptitle() == "2021-05-11: 0 % masked and 0 % restored by the series"
    np.testing.assert_array_equal(pixels(figure.axes[1]), pixels(figure.axes[2]))


def test_lazy_cubes_give_the_same_picture_of_the_mask() -> None:
    da, clear = clouded()
    lazy = plot.mask(da.chunk(y=70, x=50, time=3), "2021-06-03", clear=clear.chunk(x=64))
    for ax, expected in zip(lazy.axes, plot.mask(da, "2021-06-03", clear=clear).axes, strict=True):
        np.testing.assert_array_equal(pixels(ax), pixels(expected))


# -- rgb


def test_rgb_of_a_date_and_of_a_filled_image(steady) -> None:
    ax = plot.rgb(steady, "2021-05-21", stretch=(0, 100))
    assert ax.get_title() == "2021-05-21: true colour (B04, B03, B02)"
    np.testing.assert_allclose(pixels(ax)[0, :, 0], toned(np.linspace(0, 1, 6)), atol=1e-6)
    assert ax.get_images()[0].get_extent() == [499_995, 500_055, 3_999_965, 4_000_005]
    image = xr_cloudfree.fill(steady, "2021-05-11", model="linear", clear="clear")
    for filled in (image, image["reflectance"]):
        again = filled.cloudfree.plot.rgb(stretch=(0, 100))
        assert again.get_title().startswith("2021-05-11")
        np.testing.assert_allclose(pixels(again), pixels(ax), atol=1e-5)


def test_rgb_without_a_date_is_the_last_whatever_the_order(steady) -> None:
    assert plot.rgb(steady.isel(time=[2, 0, 1])).get_title().startswith("2021-05-21")


def test_rgb_is_stretched_from_clear_pixels_if_they_are_known(steady) -> None:
    """The cloud of the second date, 0.9, is no part of the stretch; without the mask it is white and the rest black."""
    known = steady.drop_vars("clear").assign(cloud_mask=(~steady["clear"]).astype(np.uint8))
    known["cloud_mask"].attrs = {"flag_values": [0, 1], "flag_meanings": "clear cloud"}
    shown = pixels(plot.rgb(known, "2021-05-11", stretch=(0, 100)))
    np.testing.assert_allclose(shown[0, 3:, 0], toned([0, 0.5, 1]), atol=1e-6)
    unknown = pixels(plot.rgb(steady, "2021-05-11", stretch=(0, 100)))
    assert unknown[0, 3:, 0].max() < 0.25
    # A layer that cannot be read, or a date without clear pixels, is no error.
    known["cloud_mask"][1] = 1
    np.testing.assert_array_equal(pixels(plot.rgb(known, "2021-05-11", stretch=(0, 100))), unknown)
    known["cloud_mask"][1] = 99
    np.testing.assert_array_equal(pixels(plot.rgb(known, "2021-05-11", stretch=(0, 100))), unknown)


def test_rgb_draws_on_given_axes_and_in_grey(steady) -> None:
    _, given = plt.subplots()
    ax = plot.rgb(steady, bands=["B02"], ax=given)
    assert ax is given
    assert (pixels(ax)[..., 0] == pixels(ax)[..., 2]).all()


def test_rgb_shows_nodata_in_neutral_grey() -> None:
    da, _ = make_cube(dtype="uint16")
    da = da.copy()
    da[0, :, 5, 7] = 0
    shown = pixels(plot.rgb(da, "2021-05-01"))
    np.testing.assert_allclose(shown[5, 7], NEUTRAL, rtol=1e-6)
    assert (np.abs(shown - np.float32(NEUTRAL)) < 1e-6).all(axis=-1).sum() == 1


def test_rgb_refuses_a_date_that_was_not_observed(steady) -> None:
    with pytest.raises(TimeError, match="2021-05-13") as caught:
        plot.rgb(steady, "2021-05-13")
    assert "2021-05-11" in caught.value.remedy and "fill" in caught.value.remedy


def test_north_is_up_and_east_is_right(steady) -> None:
    values = np.arange(24.0).reshape(4, 6)
    steady["reflectance"][:] = values
    for turned in (steady, steady.isel(y=slice(None, None, -1)), steady.isel(x=slice(None, None, -1))):
        shown = pixels(plot.rgb(turned, bands=["B02"], stretch=(0, 100)))[..., 0]
        np.testing.assert_allclose(shown, values / 23, atol=1e-6)


def test_a_cube_without_coordinates_is_drawn_in_pixels(steady) -> None:
    ax = plot.rgb(steady.drop_vars(["y", "x", "spatial_ref"]))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("column", "row")
    assert ax.get_images()[0].get_extent() == [0, 6, 4, 0]


# -- timeline


@pytest.mark.parametrize("n", [5, 250])
def test_timeline_shows_the_clear_share_of_each_date(n) -> None:
    share = np.linspace(0, 1, n)
    clear = np.arange(1000).reshape(25, 40)[None] < np.round(1000 * share)[:, None, None]
    times = np.datetime64("2019-01-01", "ns") + np.arange(n) * np.timedelta64(5, "D")
    da = xr.DataArray(
        np.full((n, 1, 25, 40), 0.1, np.float32),
        dims=("time", "band", "lat", "lon"),
        coords={"time": times, "band": ["red"]},
    )
    mask = xr.DataArray(clear, dims=("time", "lat", "lon"), coords={"time": times})
    shuffled = np.random.default_rng(0).permutation(n)
    ax = plot.timeline(da.isel(time=shuffled), clear=mask.isel(time=shuffled), repair=False)
    [dots] = ax.get_lines()
    np.testing.assert_allclose(dots.get_ydata(), share, atol=6e-4)
    np.testing.assert_array_equal(dots.get_xdata(), times)
    assert ax.get_title(loc="left").startswith(f"{n} dates, {(share > 0.95).sum()} of them")
    ax.figure.canvas.draw()


# -- laziness


def watched(steady, seen) -> xr.Dataset:
    """Return the cube in one chunk per date, and record the chunks that are computed."""

    def record(block, name, block_info=None):
        if block_info:
            seen.add((name, block_info[0]["chunk-location"][0]))
        return block

    steady = steady.chunk({"time": 1})
    for name in ("reflectance", "clear"):
        data = steady[name].data
        steady[name].data = data.map_blocks(record, name, dtype=data.dtype, meta=data._meta)
    return steady


def test_plots_read_only_the_dates_that_they_need(steady) -> None:
    seen: set[tuple[str, int]] = set()
    cube = watched(steady, seen)
    plot.rgb(cube, "2021-05-11")
    assert seen == {("reflectance", 1)}
    seen.clear()
    plot.before_after(cube, "2021-05-11", model="linear", window=(10, 0), clear="clear", repair=False)
    assert seen == {(name, date) for name in ("reflectance", "clear") for date in (0, 1)}
    seen.clear()
    image = xr_cloudfree.fill(steady, "2021-05-18", model="linear", clear="clear", layers="filled")
    plot.before_after(cube, "2021-05-18", image=image, clear="clear", repair=False)
    assert seen == {("reflectance", 2), ("clear", 2)}
    seen.clear()
    # The quality layer is read for the stretch, of the same date.
    layer = xr.where(cube["clear"], 4, 8).astype(np.uint8)
    plot.rgb(cube.drop_vars("clear").assign(SCL=layer), "2021-05-11")
    assert seen == {("reflectance", 1), ("clear", 1)}


def test_without_matplotlib_the_remedy_is_given(steady, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingDependencyError, match="matplotlib") as caught:
        plot.rgb(steady)
    assert caught.value.remedy == 'pip install "xr-cloudfree[viz]"'
