"""Quality layers of detectors: tiles that start at pixel (0, 0), whatever the chunks; each date read once."""

import pickle

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import contents, make_cube
from tests.support.detectors import bright_by_hand, bright_pixels  # noqa: F401
from xr_cloudfree import io
from xr_cloudfree.engine import detection
from xr_cloudfree.engine.kept import KEPT_BYTES, Kept
from xr_cloudfree.errors import MaskError
from xr_cloudfree.options import ReadOptions
from xr_cloudfree.plan import read
from xr_cloudfree.runner.plan import plan_run
from xr_cloudfree.stores import resume

pytestmark = pytest.mark.usefixtures("bright_pixels")
TARGET = "2021-06-03"


def layer_of(cube, **options):
    """The quality layer that a detector makes of a cube."""
    return read(cube, ReadOptions(**{"mask": "bright"} | options)).quality


def as_bands(da):
    """The cube as a Dataset of bands."""
    return xr.Dataset({str(name): da.sel(band=name, drop=True) for name in da.band.values})


def store(da, path):
    """Write the cube into a store."""
    io.for_zarr(da.to_dataset(name="reflectance")).to_zarr(path, zarr_format=3, consolidated=False)
    return path


def test_the_layer_is_made_of_tiles_that_start_at_the_first_pixel():
    da, _ = make_cube()
    seen = da.sel(band=["red", "nir"])
    expected = bright_by_hand(da, seen.values, seen.isnull().all("band").values)
    np.testing.assert_array_equal(layer_of(da).values, expected)
    assert {0, 1, 2, 255} == set(np.unique(expected))


@pytest.mark.parametrize("chunks", [{"time": 1, "y": 16, "x": 16}, {"time": 3, "y": 23, "x": 19}, {"y": 50, "band": 1}])
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize("layout", ["array", "bands"])
@pytest.mark.parametrize("repair", [False, True])
def test_chunks_do_not_matter(chunks, dtype, layout, repair):
    da, _ = make_cube(dtype=dtype)
    cube = da if layout == "array" else as_bands(da)
    how = {"mask": "bright", "dilate": 2, "repair": repair}
    at_once = xr_cloudfree.clear_mask(cube, **how)
    known = {dim: size for dim, size in chunks.items() if dim in cube.dims}
    lazy = xr_cloudfree.clear_mask(cube.chunk(known), **how)
    assert lazy.chunks is not None and not at_once.all() and at_once.any()
    xr.testing.assert_identical(lazy.compute(scheduler="synchronous"), at_once)
    xr.testing.assert_identical(
        lazy.isel(y=slice(20, 40), x=slice(7, 9)).compute(), at_once.isel(y=slice(20, 40), x=slice(7, 9))
    )


def test_parts_of_the_layer_are_those_of_the_whole():
    da, _ = make_cube()
    whole = layer_of(da).values
    fresh = layer_of(da)
    for key in [
        np.s_[2, 5:9, 40:],
        np.s_[[4, 1], :, 3],
        np.s_[::2, ::-1, [7, 60, 8]],
        np.s_[3:3, :, :],
        np.s_[0, 0, 0],
    ]:
        part = fresh.isel(dict(zip(("time", "y", "x"), key, strict=True)))
        np.testing.assert_array_equal(
            part.values, whole[key[0]][..., key[1], :][..., key[2]] if part.ndim else whole[key]
        )
        assert part.dtype == np.uint8


def test_only_what_is_asked_for_is_detected_and_only_once(monkeypatch):
    da, _ = make_cube()
    tiles = []
    real = detection.DetectJob._layer
    monkeypatch.setattr(detection.DetectJob, "_layer", lambda job, stored: tiles.append(1) or real(job, stored))
    layer = layer_of(da)
    assert not tiles
    for _ in range(2):
        layer.isel(time=3, y=slice(14, 18), x=0).load()  # the cores of two tiles
        assert len(tiles) == 2
    layer.isel(time=3, y=slice(0, 30), x=slice(0, 20)).load()  # four, of which two are kept
    assert len(tiles) == 4
    again = pickle.loads(pickle.dumps(layer.variable))  # without what is kept
    again[3, 14:18, 0].load()
    assert len(tiles) == 6


def test_tiles_are_forgotten_when_they_take_too_much_memory(monkeypatch):
    da, _ = make_cube()
    whole = layer_of(da).values
    monkeypatch.setattr(detection, "Kept", lambda: Kept(limit=200))
    small = layer_of(da)
    np.testing.assert_array_equal(small.values, whole)
    kept = detection.detection_of(small.variable)._kept
    assert 1 <= len(kept) < 28 and kept.size <= 200


def test_the_image_of_a_date_is_read_once(monkeypatch):
    da, _ = make_cube()
    reads = []
    real = detection._read
    monkeypatch.setattr(detection, "_read", lambda v, date, box: reads.append((date, box)) or real(v, date, box))
    xr_cloudfree.clear_mask(da, mask="bright")
    assert [date for date, _ in reads] == list(range(da.sizes["time"]))
    assert {tuple(box) for _, box in reads} == {(0, 53, 0, 61)}


def test_a_date_alone_makes_a_task_if_memory_is_short(monkeypatch):
    da, _ = make_cube()
    expected = xr_cloudfree.clear_mask(da, mask="bright")
    monkeypatch.setattr(detection, "_TASK_BYTES", 3 * 24 * 24 * 3 * 4)
    lazy = layer_of(da.chunk(y=20))
    made = detection.detection_of(lazy.variable).chunked(lambda variable: variable.data)
    assert made.chunks == ((3, 3, 1), (16, 16, 16, 5), (16, 16, 16, 13))
    np.testing.assert_array_equal(xr_cloudfree.clear_mask(da.chunk(y=20), mask="bright"), expected)


def test_fill_reads_the_layer_as_any_mask():
    da, _ = make_cube()
    layer = layer_of(da).load().rename("csmask")
    by_name = xr_cloudfree.fill(da, TARGET, mask="bright", model="linear", dilate=1, layers=["filled"])
    by_hand = xr_cloudfree.fill(da, TARGET, mask=layer, model="linear", dilate=1, layers=["filled"])
    label = "bright (bright-pixels 1.5, license MIT)"
    assert by_name.attrs["cloudfree_mask"] == by_name.reflectance.attrs["cloudfree_mask"] == label
    xr.testing.assert_equal(by_name, by_hand)
    lazy = xr_cloudfree.fill(da.chunk(time=2, y=30), TARGET, mask="bright", model="linear", dilate=1, layers=["filled"])
    xr.testing.assert_identical(lazy.compute(), by_name)
    assert xr_cloudfree.clear_mask(da, mask="bright").attrs["cloudfree_mask"] == label


def test_bands_that_are_not_filled_are_seen():
    da, _ = make_cube()
    for cube in (da, as_bands(da), da.to_dataset(name="reflectance")):
        whole = xr_cloudfree.fill(cube, TARGET, mask="bright", model="linear", repair=False)
        blue = xr_cloudfree.fill(cube, TARGET, mask="bright", model="linear", bands=["blue"], repair=False)
        chosen = whole.sel(band=["blue"]) if "band" in whole.dims else whole[["blue"]]
        xr.testing.assert_equal(blue, chosen)


def test_order_and_names_of_dimensions_do_not_matter():
    da, _ = make_cube()
    other = da.rename(time="t", y="lat", x="lon").transpose("lat", "lon", "band", "t")
    expected = xr_cloudfree.clear_mask(da, mask="bright")
    np.testing.assert_array_equal(xr_cloudfree.clear_mask(other, mask="bright").transpose("t", "lat", "lon"), expected)


def test_a_probability_has_its_own_threshold():
    da, _ = make_cube()
    brightest = da.sel(band=["red", "nir"]).max("band")
    clear = xr_cloudfree.clear_mask(da, mask="likely", threshold=0.3, repair=False)
    np.testing.assert_array_equal(clear, (brightest < 0.3) & da.notnull().all("band"))
    assert clear.attrs["cloudfree_mask"] == "likely (bright-pixels 1.5, license MIT), threshold 0.3"
    assert xr_cloudfree.clear_mask(da, mask="likely").attrs["cloudfree_mask"].endswith("threshold 0.6")


def test_scenes_of_a_day_are_seen_one_by_one():
    da, _ = make_cube()
    two = da.isel(time=[0, 1, 2]).assign_coords(
        time=np.array(["2021-05-01T10", "2021-05-01T11", "2021-05-09"], "M8[ns]")
    )
    merged = xr_cloudfree.clear_mask(two, mask="bright", merge="day", repair=False)
    alone = xr_cloudfree.clear_mask(da, mask="bright", repair=False)
    np.testing.assert_array_equal(merged[0], alone[0] | alone[1])
    lazy = xr_cloudfree.clear_mask(two.chunk(x=30), mask="bright", merge="day", repair=False)
    xr.testing.assert_identical(lazy.compute(), merged)


def test_to_zarr_from_files_from_dask_and_from_memory(tmp_path):
    da, _ = make_cube(dtype="uint16")
    ds, path = da.to_dataset(name="reflectance"), store(da, tmp_path / "cube.zarr")
    how = {"mask": "bright", "model": "linear", "dilate": 1, "layers": ["filled"]}
    whole = xr_cloudfree.fill(ds, TARGET, **how)
    opened = xr.open_zarr(path, consolidated=False, decode_coords="all", chunks=None)
    cubes = {
        "memory": ds,
        "dask": ds.chunk(y=20, time=3),
        "opened": opened,
        "chunked": io.open_cube(path),
        "path": path,
    }
    for name, cube in cubes.items():
        stored = xr_cloudfree.to_zarr(cube, tmp_path / f"{name}.zarr", TARGET, shard=32, **how)
        packed = xr.open_zarr(tmp_path / f"{name}.zarr", consolidated=False, mask_and_scale=False)
        np.testing.assert_array_equal(packed.filled, whole.filled, err_msg=name)
        apart = abs(packed.reflectance.astype(int) - whole.reflectance.astype(int))
        assert apart.max() <= 1  # estimates from decoded numbers are rounded differently
        assert stored.attrs["cloudfree_mask"] == whole.attrs["cloudfree_mask"]


def test_a_run_is_continued_with_the_same_detector_only(tmp_path):
    da, _ = make_cube()
    path = store(da, tmp_path / "cube.zarr")
    how = {"model": "linear", "shard": 32}
    xr_cloudfree.to_zarr(path, tmp_path / "out.zarr", TARGET, mask="bright", **how)
    before = contents(tmp_path / "out.zarr")
    resume(tmp_path / "out.zarr")
    assert contents(tmp_path / "out.zarr") == before
    with pytest.raises(xr_cloudfree.errors.ChangedError, match="mask"):
        xr_cloudfree.to_zarr(path, tmp_path / "out.zarr", TARGET, mask="likely", **how)


def test_batch_makes_the_same(tmp_path):
    distributed = pytest.importorskip("distributed")
    da, _ = make_cube()
    ds = da.to_dataset(name="reflectance")
    whole = xr_cloudfree.fill(ds, TARGET, mask="bright", model="linear")
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0") as client:
        stored = xr_cloudfree.batch(
            ds, tmp_path / "out.zarr", TARGET, mask="bright", model="linear", shard=32, client=client, progress=False
        )
    np.testing.assert_array_equal(stored.reflectance, whole.reflectance)


def test_the_memory_of_a_region_counts_the_detector():
    da, _ = make_cube()
    with_layer, _ = plan_run(
        da, TARGET, ReadOptions(mask=layer_of(da).load().rename("csmask")), model="linear", shard=32
    )
    detecting, _ = plan_run(da, TARGET, ReadOptions(mask="bright"), model="linear", shard=32)
    kept = KEPT_BYTES + detection.detection_of(detecting.quality).job.detector.spec.memory
    assert kept < detecting.memory - with_layer.memory < kept + da.isel(time=0).nbytes + 1


def test_what_the_layer_depends_on_changes_its_stamp():
    from xr_cloudfree.runner import windows

    da, _ = make_cube()
    stamps = [
        windows.stamp(layer_of(da).variable),
        windows.stamp(layer_of(da, mask="likely").variable),
        windows.stamp(layer_of(da, scale=0.5).variable),
        windows.stamp(layer_of(da + 0.01).variable),
        windows.stamp(layer_of(da.chunk(y=10)).variable),
    ]
    assert len(set(stamps)) == len(stamps)
    assert windows.stamp(layer_of(da).variable) == stamps[0]


@pytest.mark.parametrize("name, words", [("failing", "RuntimeError: out of order"), ("cropping", "returned the shape")])
def test_a_detector_that_fails_is_named(name, words):
    da, _ = make_cube()
    for cube in (da, da.chunk(y=10)):
        with pytest.raises(MaskError, match=f"{name}.*{words}"):
            xr_cloudfree.clear_mask(cube, mask=name).compute()


def test_nothing_is_detected_where_nothing_was_measured(monkeypatch):
    da, _ = make_cube()
    empty = da.copy(data=np.full(da.shape, np.nan, "float32"))
    monkeypatch.setattr(detection.DetectJob, "_detected", lambda *_: pytest.fail("called"))
    assert (layer_of(empty) == 255).all() and layer_of(empty, mask="likely").isnull().all()
