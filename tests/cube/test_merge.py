"""Merging of scenes: the scene of each pixel, and identical results of everything computed from merged dates."""

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import DATES, as_dataset, make_cube, no_compute
from xr_cloudfree import api
from xr_cloudfree.errors import ChangedError, OptionError, TimeError
from xr_cloudfree.options import ReadOptions
from xr_cloudfree.stores import resume

TARGET = "2021-06-03"
NOW, LATER = np.timedelta64(0, "s"), np.timedelta64(40, "s")
ORDERS = [list(range(14)), list(range(13, -1, -1)), np.random.default_rng(4).permutation(14).tolist()]
KINDS = ["array", "bands", "coarse mask"]


def whole(kind, dtype="float32"):
    """Return a cube with one scene per date, and its options: a boolean mask, SCL, or SCL of 20 m."""
    da, clear = make_cube(shape=(20, 24), dtype=dtype)
    da = da.drop_vars("platform").assign_coords(time=DATES + np.timedelta64(11, "h"), tile=("time", ["T1"] * 7))
    clear = clear.assign_coords(time=da.time, tile=da.tile)
    if kind == "bands":
        return as_dataset(da, clear), {}
    if kind == "array":
        return da, {"clear": clear}
    scl = xr.where(clear[:, ::2, ::2], np.uint8(4), np.uint8(9)).rename("SCL")
    return da, {"mask": scl.assign_coords(y=scl.y - 5, x=scl.x + 5)}


def halves(layer, fill, later, order):
    """Return a layer as two half swaths that overlap by eight columns."""
    if isinstance(layer, xr.Dataset):
        return layer.map(lambda v: halves(v, 0 if v.name == "SCL" else fill, later, order), keep_attrs=True)
    left = layer.where(layer.x < 500_000 + 160, fill)
    right = layer.where(layer.x > 500_000 + 80, fill)
    right = right.assign_coords(time=right.time + later, tile=("time", ["T2"] * 7))
    joined = xr.concat([left, right], "time").isel(time=order).astype(layer.dtype)
    return joined.assign_attrs(layer.attrs)


def in_halves(kind, dtype="float32", later=NOW, order=ORDERS[0]):
    obj, how = whole(kind, dtype)
    fills = {"clear": False, "mask": 0}
    cut = halves(obj, np.nan if dtype == "float32" else 0, later, order)
    return cut, {name: halves(layer, fills[name], later, order) for name, layer in how.items()}


def chunked(obj, how, chunks):
    if chunks is None:
        return obj, how
    return obj.chunk(chunks), {name: layer.chunk({"time": 3, "x": 5}) for name, layer in how.items()}


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("order", "chunks", "later"),
    [(0, None, NOW), (1, None, LATER), (2, None, NOW), (0, {"time": 3, "x": 7}, LATER), (2, {"time": 14, "y": 6}, NOW)],
)
def test_two_half_swaths_are_filled_as_the_whole(kind, dtype, order, chunks, later):
    plain, how = whole(kind, dtype)
    dates = [TARGET, "2021-06-15"]
    expected = xr_cloudfree.fill(plain, dates, model="linear", layers="all", **how)
    obj, how = chunked(*in_halves(kind, dtype, later, ORDERS[order]), chunks)
    with dask.config.set(scheduler=no_compute) if chunks else dask.config.set():
        found = xr_cloudfree.fill(obj, dates, model="linear", layers="all", merge="day", block=16, **how)
    assert (found["filled"].chunks is None) == (chunks is None)
    for name in expected.data_vars:
        assert found[name].dtype == expected[name].dtype and found[name].attrs == expected[name].attrs
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_stamp_and_coordinates_are_those_of_the_earliest_scene():
    for order in ORDERS:
        obj, how = in_halves("array", later=LATER, order=order)
        found = xr_cloudfree.fill(obj, model="linear", merge="day", **how)
        np.testing.assert_array_equal(found.time, DATES + np.timedelta64(11, "h"))
        assert (found.tile == "T1").all()
        clear = xr_cloudfree.clear_mask(obj, merge="day", **how)
        xr.testing.assert_identical(
            clear.drop_attrs(), xr_cloudfree.clear_mask(whole("array")[0], **whole("array")[1]).drop_attrs()
        )


@pytest.mark.parametrize("kind", ["bands", "coarse mask"])
def test_cloud_grows_across_the_seam(kind):
    plain, how = whole(kind)
    expected = xr_cloudfree.fill(plain, TARGET, model="linear", layers="filled", dilate=2, **how)
    for block in (16, 7):
        obj, how = in_halves(kind)
        found = xr_cloudfree.fill(
            obj, TARGET, model="linear", layers="filled", dilate=2, merge="day", block=block, **how
        )
        xr.testing.assert_equal(found.drop_vars(["time", "tile"]), expected.drop_vars(["time", "tile"]))


def days(n_scenes, dtype="float32", stamps="apart", seed=0):
    """Return scenes of three days with different values, and gaps in all or some bands."""
    rng = np.random.default_rng(seed)
    n, shape = 3 * n_scenes, (9, 11)
    values = rng.integers(500, 503, (n, 2, *shape)).astype("float64") / 1e4
    values[rng.random(values.shape) < 0.25] = np.nan
    if dtype != "float32":
        values = np.nan_to_num(values * 1e4)
    step = {"apart": 600, "equal": 0}[stamps]
    seconds = [86400 * 8 * (i // n_scenes) + 36000 + step * (i % n_scenes) for i in range(n)]
    da = xr.DataArray(
        values.astype(dtype),
        dims=("time", "band", "y", "x"),
        coords={
            "time": np.datetime64("2021-05-01", "ns") + np.array(seconds) * np.timedelta64(1, "s"),
            "band": ["red", "nir"],
            "y": -10.0 * np.arange(9),
            "x": 10.0 * np.arange(11),
        },
        attrs={} if dtype == "float32" else {"scale_factor": 1e-4, "_FillValue": 0},
        name="reflectance",
    )
    scl = xr.DataArray(rng.choice([4, 9, 11, 0], (n, *shape)).astype("uint8"), dims=("time", "y", "x"), name="SCL")
    return da.to_dataset().assign(SCL=scl)


def by_hand(ds, n_scenes):
    """Return the merged scenes by the rule, pixel by pixel."""
    values, scl = ds["reflectance"].values, ds["SCL"].values
    out = np.empty((3, *values.shape[1:]), values.dtype), np.empty((3, *scl.shape[1:]), bool)
    order = np.argsort(ds.time.values, kind="stable")
    nodata = ds["reflectance"].attrs.get("_FillValue", np.nan)
    for day in range(3):
        scenes = order[day * n_scenes : (day + 1) * n_scenes]
        for y, x in np.ndindex(scl.shape[1:]):

            def key(i, y=y, x=x):
                bands = values[i, :, y, x]
                known = ~np.isnan(bands) if np.isnan(nodata) else bands != nodata
                clear = scl[i, y, x] in (4, 11)
                return (
                    -known.sum(),
                    not clear,
                    ds.time.values[i],
                    *np.where(np.isnan(bands), np.inf, bands),
                    scl[i, y, x] == 11,
                )

            best = min(scenes, key=key)
            out[0][day, :, y, x] = values[best, :, y, x]
            out[1][day, y, x] = scl[best, y, x] in (4, 11) and key(best)[0] == -2
    return out


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize("stamps", ["apart", "equal"])
@pytest.mark.parametrize("n_scenes", [1, 2, 3])
def test_each_pixel_is_taken_by_the_rule_in_any_order(dtype, stamps, n_scenes):
    ds = days(n_scenes, dtype, stamps)
    values, clear = by_hand(ds, n_scenes)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(ds.sizes["time"])
        found = api.merge_days(api.read(ds.isel(time=order), ReadOptions(merge="day", repair=False)))
        np.testing.assert_array_equal(found.cube.arrays[0], values)
        np.testing.assert_array_equal(found.quality, clear)
        lazy = api.merge_days(
            api.read(ds.isel(time=order).chunk({"time": 2, "x": 4}), ReadOptions(merge="day", repair=False))
        )
        np.testing.assert_array_equal(lazy.cube.arrays[0], values)


def test_a_mask_comes_from_the_scene_of_its_values():
    ds = days(2)
    snow = xr_cloudfree.fill(ds, "2021-05-01", model="linear", layers=["snow", "filled"], merge="day", repair=False)
    values, clear = by_hand(ds, 2)
    np.testing.assert_array_equal(snow["filled"] == 1, clear[0])
    np.testing.assert_array_equal(snow["reflectance"].values[:, clear[0]], values[0][:, clear[0]])
    assert snow["snow"].any() and not (snow["snow"] & ~clear[0]).any()


def test_scenes_of_one_time_are_ordered_by_coordinates_for_coordinates_only():
    ds = days(2, stamps="equal").assign_coords(tile=("time", ["T2", "T1"] * 3))
    plain = api.merge_days(api.read(ds.drop_vars("tile"), ReadOptions(merge="day"))).cube.arrays[0]
    for order in ([0, 1, 2, 3, 4, 5], [5, 2, 3, 4, 1, 0]):
        for chunks in (None, {"time": 2}):
            given = ds.isel(time=order) if chunks is None else ds.isel(time=order).chunk(chunks)
            found = api.merge_days(api.read(given, ReadOptions(merge="day"))).cube.arrays[0]
            np.testing.assert_array_equal(found, plain)
            if chunks is None:
                assert (found.tile == "T1").all()


def test_a_day_ends_at_midnight_in_utc():
    ds = days(2).isel(time=[0, 1])
    ds = ds.assign_coords(time=np.array(["2021-05-01T23:59:59", "2021-05-02T00:00:01"], "M8[ns]"))
    assert xr_cloudfree.clear_mask(ds, merge="day").sizes["time"] == 2


@pytest.mark.parametrize("later", [NOW, LATER], ids=["doubled", "later"])
def test_the_error_has_a_remedy(later):
    obj, how = in_halves("array", later=later)
    with pytest.raises(TimeError) as info:
        xr_cloudfree.fill(obj, TARGET, model="linear", **how)
    remedy = info.value.remedy
    assert remedy.startswith('merge="day"') and "groupby='solar_day'" in remedy and "drop_duplicates" not in remedy
    image = xr_cloudfree.fill(obj, TARGET, model="linear", **how, **eval(f"dict({remedy.split(',')[0]})"))
    plain, how = whole("array")
    np.testing.assert_array_equal(image, xr_cloudfree.fill(plain, TARGET, model="linear", **how))


def test_a_mask_in_another_order_is_not_guessed():
    obj, how = in_halves("array")
    mixed = how["clear"].isel(time=[7, 1, 2, 3, 4, 5, 6, 0, 8, 9, 10, 11, 12, 13])
    with pytest.raises(TimeError, match="another order"):
        xr_cloudfree.fill(obj, TARGET, clear=mixed.sortby("time"), merge="day")
    with pytest.raises(OptionError, match='"day"'):
        xr_cloudfree.fill(obj, TARGET, merge=True, **how)


@pytest.mark.parametrize("kind", ["bands", "variable"])
def test_runs_over_regions_go_on_and_are_the_same(tmp_path, kind):
    obj, _ = in_halves("bands", "uint16", order=ORDERS[2])
    obj = obj.drop_vars("tile")
    if kind == "variable":
        obj = obj[["B02", "B04", "B08"]].to_dataarray("band").to_dataset(name="reflectance").assign(SCL=obj["SCL"])
        obj["reflectance"].attrs = {"scale_factor": 1e-4, "_FillValue": np.uint16(0)}
        obj = obj.drop_vars("band")
    obj.chunk({"time": 1, "y": 8}).to_zarr(tmp_path / "in.zarr", zarr_format=2)
    how = {"date": "2021-06", "model": "linear", "layers": "filled"}
    image = xr_cloudfree.to_zarr(tmp_path / "in.zarr", tmp_path / "out.zarr", merge="day", shard=16, **how)
    expected = xr_cloudfree.fill(xr_cloudfree.io.open_cube(tmp_path / "in.zarr"), merge="day", **how)
    xr.testing.assert_allclose(image, expected, rtol=0, atol=5.1e-5)  # what is written is packed
    np.testing.assert_array_equal(image["filled"], expected["filled"])
    assert (image["filled"] == 0).mean() < 0.1
    xr.testing.assert_identical(resume(tmp_path / "out.zarr", progress=False), image)
    late = obj.assign_coords(time=obj.time + np.arange(14) * np.timedelta64(1, "h"))
    with pytest.raises(ChangedError):
        xr_cloudfree.to_zarr(late, tmp_path / "out.zarr", merge="day", shard=16, **how)


def test_scores_of_a_merged_cube_are_those_of_the_whole():
    table = []
    for make, more in ((whole, {}), (in_halves, {"merge": "day"})):
        obj, how = make("array")
        how["repair"] = False
        how["clear"] = how["clear"] | (obj.isel(band=0, drop=True).notnull() & (obj.time.dt.dayofyear % 2 == 1))
        table.append(
            xr_cloudfree.evaluate(obj, ["linear"], tracks=["full"], frames=1, check=False, **how, **more).drop(
                columns="seconds"
            )
        )
    pd.testing.assert_frame_equal(*table)


def test_plots_show_the_day_as_one():
    pytest.importorskip("matplotlib")
    from matplotlib import pyplot as plt

    (plain, how), (obj, cut) = whole("array"), in_halves("array")
    pictures = []
    for cube, given in ((plain, how), (obj, {**cut, "merge": "day"})):
        figure = cube.cloudfree.plot.before_after(TARGET, model="linear", **given)
        stems = cube.cloudfree.plot.timeline(**given)
        merge = {"merge": given["merge"]} if "merge" in given else {}
        picture = cube.cloudfree.plot.rgb(TARGET, **merge)
        pictures.append([*(ax.images[0].get_array() for ax in (*figure.axes, picture)), stems.lines[0].get_ydata()])
        plt.close("all")
    for one, other in zip(*pictures, strict=True):
        np.testing.assert_array_equal(one, other)
