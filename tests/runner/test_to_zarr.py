"""A fill into a store equals that in memory, however it is divided, ordered or interrupted."""

import json
import os
import pickle
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xr_cloudfree
from tests.support.cubes import as_dataset, contents, make_cube
from tests.support.models import model_of
from tests.support.strategies import chunkings
from xr_cloudfree import errors, io, stores, synthetic
from xr_cloudfree.compat import raw_data, split_decoding
from xr_cloudfree.engine.grid import Box
from xr_cloudfree.options import ReadOptions
from xr_cloudfree.runner import local, regions, runs, windows
from xr_cloudfree.runner.plan import plan_run
from xr_cloudfree.runner.store import Layout
from xr_cloudfree.runner.verify import store_digest

DATE = "2021-06-03"


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Waiting for the disk is what most of these tests would do."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def save(cube, path):
    io.for_zarr(cube).to_zarr(path, zarr_format=3, consolidated=False)


def scl(clear):
    return xr.where(clear, np.uint8(4), np.uint8(9)).astype("uint8")


def given_as(how):
    """A cube in one of the forms that `fill` takes, and the options that go with it."""
    if how == "float array":
        da, clear = make_cube()
        return da, {"clear": clear}
    da, clear = make_cube(dtype="uint16")
    if how == "integer array":
        return da, {"clear": clear, "nodata": 0}
    if how == "bands":
        return as_dataset(da, clear), {"nodata": 0}
    return da.to_dataset().assign(SCL=scl(clear)).rename(y="lat", x="lon"), {"nodata": 0}


def in_memory(obj, folder, date, **how):
    """What `fill` gives, as a store has it: written in one piece and opened."""
    image = xr_cloudfree.fill(obj, date, **how)
    image = image if isinstance(image, xr.Dataset) else image.to_dataset()
    io.write(image.compute(), folder / "memory.zarr", overwrite=True)
    return io.open_store(folder / "memory.zarr").compute()


@pytest.mark.parametrize("how", ["float array", "integer array", "bands", "variable"])
@pytest.mark.parametrize("date", [DATE, [DATE, "2021-06-15"]], ids=["one date", "two dates"])
def test_a_store_is_what_fill_gives(tmp_path, how, date):
    obj, options = given_as(how)
    options |= {"model": "linear", "layers": "all"}
    expected = in_memory(obj, tmp_path, date, **options)
    found = xr_cloudfree.to_zarr(obj, tmp_path / "out.zarr", date, shard=40, **options)
    xr.testing.assert_identical(found.compute(), expected)
    assert {name: found[name].dtype for name in found.variables} == {
        name: expected[name].dtype for name in expected.variables
    }
    assert found[next(iter(found.data_vars))].rio.crs.to_epsg() == 32629
    assert xr_cloudfree.verify(tmp_path / "out.zarr").ok


def test_packed_floats_are_packed_again(tmp_path, portugal):
    cube = portugal.isel(y=slice(48), x=slice(48))
    expected = in_memory(cube, tmp_path, "2021-07-23", model="median", layers="filled")
    found = cube.cloudfree.to_zarr(tmp_path / "out.zarr", "2021-07-23", model="median", layers="filled", shard=32)
    xr.testing.assert_identical(found.compute(), expected)
    assert found.reflectance.encoding["dtype"] == "int16"


@pytest.mark.parametrize("model", ["median", "tilewide", "blended", "learned", "learned, blended"])
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_one_digest(tmp_path_factory, model, data):
    """Any chunks of the cube, any shards (and so blocks), any order of regions, interrupted anywhere: one answer."""
    folder = tmp_path_factory.mktemp("one")
    da, clear = make_cube(dtype="uint16")
    chosen = model_of(model)
    stride = xr_cloudfree.create_model(chosen).spec.stride or 16
    options = {"model": chosen, "layers": "all", "nodata": 0, "clear": clear, "shard": 2 * stride}
    whole = runs.prepare(da, folder / "whole.zarr", DATE, **options)
    with runs.started(whole) as missing:
        local.fill_locally(whole, missing)
        digest = runs.finish(whole)
    assert store_digest(whole.path) == digest
    expected = in_memory(da, folder, DATE, **{k: v for k, v in options.items() if k != "shard"})
    xr.testing.assert_identical(io.open_store(whole.path).compute(), expected)

    # Another shape of shards gives the same values,
    edges = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)), label="shard")
    other = xr_cloudfree.to_zarr(
        da, folder / "other.zarr", DATE, **options | {"shard": (edges[0] * stride, edges[1] * stride)}
    )
    xr.testing.assert_identical(other.compute(), expected)

    # and other chunks and another order, stopped at some point, the same bytes.
    chunks = data.draw(chunkings(), label="chunks")
    run = runs.prepare(da.chunk(chunks), folder / "cut.zarr", DATE, **options)
    order = data.draw(st.permutations(range(run.plan.n_regions)), label="order")
    stop = data.draw(st.integers(0, len(order)), label="stop")
    with runs.started(run) as missing:
        assert list(missing) == list(range(run.plan.n_regions))
        local.fill_locally(run, order[:stop])
    with runs.started(run) as missing:
        assert sorted(missing) == sorted(order[stop:])
        local.fill_locally(run, order[stop:])
        assert runs.finish(run) == digest
    assert contents(run.path) == contents(whole.path)


def test_a_store_holds_neither_times_nor_places(tmp_path):
    obj, options = given_as("bands")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        xr_cloudfree.to_zarr(obj, tmp_path / name / "out.zarr", DATE, model="linear", **options)
    assert contents(tmp_path / "a" / "out.zarr") == contents(tmp_path / "b" / "out.zarr")


@pytest.mark.parametrize("when", ["before the shard", "before the marker", "after the marker"])
def test_killed_and_resumed(tmp_path, when):
    cube = synthetic.cube(shape=(6, 3, 96, 96), seed=3)
    save(cube, tmp_path / "cube.zarr")
    options = {"model": "linear", "shard": 32, "layers": "all"}
    date = str(cube.time.values[2])[:10]
    whole = xr_cloudfree.to_zarr(tmp_path / "cube.zarr", tmp_path / "whole.zarr", date, **options)
    which = {"before the shard": "0/1/", "before the marker": "0000004", "after the marker": "0000005"}[when]
    code = f"""
        import os, signal, xr_cloudfree
        replace = os.replace
        def dies(source, target):
            if {which!r} in str(target):
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)
        os.replace = dies
        xr_cloudfree.to_zarr({str(tmp_path / "cube.zarr")!r}, {str(tmp_path / "out.zarr")!r}, {date!r}, **{options!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    report = xr_cloudfree.verify(tmp_path / "out.zarr")
    assert not report.ok and not report.problems and report.unfinished
    again = xr_cloudfree.to_zarr(tmp_path / "cube.zarr", tmp_path / "out.zarr", date, **options)
    xr.testing.assert_identical(again.compute(), whole.compute())
    assert contents(tmp_path / "out.zarr") == contents(tmp_path / "whole.zarr")
    assert not list((tmp_path / "out.zarr.journal").rglob("*.partial"))


class TestWhatIsThere:
    def fill(self, store, date=DATE, seed=0, **more):
        da, clear = make_cube(seed)
        return xr_cloudfree.to_zarr(da, store, date, clear=clear, **{"model": "linear", "shard": 40} | more)

    def test_a_finished_run_is_only_opened(self, tmp_path, monkeypatch):
        first = self.fill(tmp_path / "out.zarr")
        monkeypatch.setattr(local, "fill_region", None)
        xr.testing.assert_identical(self.fill(tmp_path / "out.zarr").compute(), first.compute())

    @pytest.mark.parametrize(
        ("other", "told"),
        [
            ({"model": "median"}, "model"),
            ({"date": "2021-06-15"}, "dates"),
            ({"seed": 1}, "values of the cube: changed since"),
            ({"layers": "filled"}, "layers: 'none' then, 'filled' now"),
            ({"window": 40}, "window"),
            ({"dilate": 1}, "mask"),
            ({"repair": True}, "repair: 'False' then, 'True' now"),
            ({"shard": 64}, "shards: '40 x 40' then, '64 x 64' now"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_another_run_is_refused_and_told_apart(self, tmp_path, other, told):
        self.fill(tmp_path / "out.zarr")
        before = contents(tmp_path / "out.zarr")
        with pytest.raises(errors.ChangedError, match=told) as caught:
            self.fill(tmp_path / "out.zarr", **other)
        assert "overwrite=True" in str(caught.value)
        assert not re.search("[0-9a-f]{12}", caught.value.found)
        assert contents(tmp_path / "out.zarr") == before
        self.fill(tmp_path / "out.zarr", **other, overwrite=True)
        assert xr_cloudfree.verify(tmp_path / "out.zarr").ok

    def test_resume_can_be_declined(self, tmp_path):
        self.fill(tmp_path / "out.zarr")
        with pytest.raises(errors.OutputError, match="overwrite=True"):
            self.fill(tmp_path / "out.zarr", resume=False)

    def test_other_things_are_left_alone(self, tmp_path):
        (tmp_path / "folder.zarr").mkdir()
        (tmp_path / "folder.zarr" / "thesis.txt").write_text("mine")
        (tmp_path / "file.zarr").write_text("mine")
        xr.Dataset({"a": ("x", [1])}).to_zarr(tmp_path / "store.zarr", zarr_format=3, consolidated=False)
        for name in ("folder", "file", "store"):
            with pytest.raises(errors.OutputError):
                self.fill(tmp_path / f"{name}.zarr")
        with pytest.raises(errors.OutputError):
            self.fill(tmp_path / "folder.zarr", overwrite=True)
        assert (tmp_path / "folder.zarr" / "thesis.txt").read_text() == "mine"
        with pytest.raises(errors.OutputError, match="ending"):
            self.fill(tmp_path / "out.tif")

    def test_a_second_driver_is_refused(self, tmp_path):
        da, clear = make_cube()
        run = runs.prepare(da, tmp_path / "out.zarr", DATE, clear=clear, model="linear", shard=40)
        with runs.started(run), pytest.raises(errors.LockedError, match=f"process {os.getpid()} on"):
            self.fill(tmp_path / "out.zarr")
        self.fill(tmp_path / "out.zarr")

    def test_a_store_begun_anew_gets_no_shards_of_the_old_run(self, tmp_path):
        da, clear = make_cube()
        old = runs.prepare(da, tmp_path / "out.zarr", DATE, clear=clear, model="linear", shard=40)
        with runs.started(old):
            pass
        self.fill(tmp_path / "out.zarr", model="median", overwrite=True)
        with pytest.raises(errors.StoreError, match="another run"):
            regions.fill_region(old.plan, old.path, 0)
        assert xr_cloudfree.verify(old.path).ok


class TestRegions:
    def test_only_whole_shards_are_written(self):
        layout = Layout((300, 500), (128, 128), (("red", ()),))
        assert [layout.index(layout.box(i)) for i in range(layout.n_regions)] == list(range(12))
        rng = np.random.default_rng(0)
        for _ in range(50):
            y0, x0 = rng.integers(0, 299), rng.integers(0, 499)
            box = Box(int(y0), int(rng.integers(y0 + 1, 301)), int(x0), int(rng.integers(x0 + 1, 501)))
            if box in [layout.box(i) for i in range(layout.n_regions)]:
                continue
            with pytest.raises(errors.StoreError, match="not a whole shard"):
                layout.index(box)

    def test_all_chunks_are_written_with_a_checksum(self, tmp_path):
        da, clear = make_cube(dtype="uint16")
        nothing = xr.zeros_like(clear)
        xr_cloudfree.to_zarr(da, tmp_path / "out.zarr", DATE, clear=nothing, nodata=0, model="linear", shard=64)
        metadata = json.loads((tmp_path / "out.zarr/reflectance/zarr.json").read_text())
        [sharding] = metadata["codecs"]
        assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes", "blosc", "crc32c"]
        assert (io.open_store(tmp_path / "out.zarr").reflectance.isnull()).all()
        assert (tmp_path / "out.zarr/reflectance/c/0/0/0").stat().st_size > 3 * 16

    def test_a_flipped_bit_does_not_read(self, tmp_path):
        da, clear = make_cube()
        xr_cloudfree.to_zarr(da, tmp_path / "out.zarr", DATE, clear=clear, model="linear", shard=64)
        shard = tmp_path / "out.zarr/reflectance/c/0/0/0"
        data = bytearray(shard.read_bytes())
        data[100] ^= 1
        shard.write_bytes(data)
        with pytest.raises(ValueError, match="checksum"):
            io.open_store(tmp_path / "out.zarr").load()

    def test_regions_that_fail_do_not_stop_the_others(self, tmp_path, monkeypatch):
        da, clear = make_cube()
        run = runs.prepare(da, tmp_path / "out.zarr", DATE, clear=clear, model="linear", shard=24)
        right = regions.read_windows

        def read(plan, index):
            if index in (2, 5):
                raise OSError("truncated")
            return right(plan, index)

        monkeypatch.setattr(local, "read_windows", read)
        with runs.started(run) as missing, pytest.raises(errors.RunError, match=r"regions 2, 5 failed, and 7 were"):
            local.fill_locally(run, missing)
        monkeypatch.undo()
        with runs.started(run) as missing:
            assert list(missing) == [2, 5]
            with pytest.raises(errors.StoreError, match="2 of 9 regions"):
                runs.finish(run)

    def test_a_gpu_without_a_cluster_is_refused(self, tmp_path):
        da, clear = make_cube()
        with pytest.raises(errors.OptionError, match="no cluster"):
            xr_cloudfree.batch(da, tmp_path / "out.zarr", DATE, clear=clear, model="linear", gpu=True, progress=False)
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize("call", [xr_cloudfree.to_zarr, xr_cloudfree.batch])
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_an_output_never_replaces_what_it_is_made_from(self, tmp_path, monkeypatch, call, overwrite):
        da, clear = make_cube()
        monkeypatch.chdir(tmp_path)
        io.for_zarr(da.to_dataset(name="reflectance")).to_zarr("cube.zarr", consolidated=False)
        clear.to_dataset(name="good").to_zarr("mask.zarr", consolidated=False)
        before = contents(tmp_path)
        cube, mask = (
            xr.open_zarr(f"{name}.zarr", consolidated=False, decode_coords="all") for name in ("cube", "mask")
        )
        good = mask["good"]
        for obj, layer, out in (
            (cube, clear, "cube.zarr"),
            (cube, clear, tmp_path / "cube.zarr"),
            (cube, clear, "cube.zarr/out.zarr"),
            ("cube.zarr", clear, "cube.zarr"),
            (cube["reflectance"] * 1, clear, "cube.zarr"),
            (io.open_cube("cube.zarr")["reflectance"], clear, "cube.zarr"),
            (da, good, "mask.zarr"),
            (da, good & True, "mask.zarr"),
        ):
            with pytest.raises(errors.OutputError, match="which it is made from"):
                call(obj, out, DATE, clear=layer, model="linear", overwrite=overwrite)
        assert contents(tmp_path) == before
        call(cube, "out.zarr", DATE, clear=good, model="linear", overwrite=overwrite)

    def test_an_option_that_does_not_exist_is_named(self, tmp_path):
        da, clear = make_cube()
        for call, name, near in (
            (xr_cloudfree.to_zarr, "dilat", "dilate=..."),
            (xr_cloudfree.batch, "modle", "model=..."),
            (xr_cloudfree.to_zarr, "client", "leave client out"),
        ):
            with pytest.raises(errors.OptionTypeError, match=f"no option '{name}'") as info:
                call(da, tmp_path / "out.zarr", DATE, clear=clear, **{name: 2})
            assert info.value.remedy == near
        assert not any(tmp_path.iterdir())

    def test_a_wrong_cube_is_the_error_that_fill_raises(self, tmp_path):
        da, clear = make_cube()
        with pytest.raises(errors.ScalingError):
            xr_cloudfree.to_zarr(da * 1e4, tmp_path / "out.zarr", DATE, clear=clear, model="linear", shard=40)

    def test_a_plan_of_an_opened_cube_is_small_and_has_no_graph(self, tmp_path):
        da, clear = make_cube()
        ds = da.to_dataset().assign(SCL=scl(clear))
        save(ds, tmp_path / "cube.zarr")
        opened = io.open_cube(tmp_path / "cube.zarr")
        plan, _ = plan_run(opened, DATE, ReadOptions(bands=["red", "nir"]), model="linear")
        assert plan.bands[0].chunks is None and plan.quality.chunks is None
        assert len(pickle.dumps(plan)) < 20_000
        changed = opened.assign(reflectance=opened.reflectance * 1)
        assert windows.from_files(changed).reflectance.chunks is not None
        run = runs.prepare(opened, tmp_path / "out.zarr", DATE, model="linear")
        assert run.call is not None and run.call["cube"] == str(tmp_path / "cube.zarr")
        assert runs.prepare(changed, tmp_path / "out.zarr", DATE, model="linear").call is None
        assert runs.prepare(opened.isel(x=slice(9)), tmp_path / "out.zarr", DATE, model="linear").call is None

    def test_a_region_of_many_chunks_reads_each_once(self, tmp_path, monkeypatch):
        da, clear = make_cube(shape=(128, 128))
        ds = da.chunk(time=1, band=1, y=64, x=64).to_dataset().assign(SCL=scl(clear))
        save(ds, tmp_path / "cube.zarr")
        reading = ReadOptions(repair=False)  # which would take a margin of neighbouring chunks
        plan, _ = plan_run(io.open_cube(tmp_path / "cube.zarr"), DATE, reading, model="linear", shard=64)
        from zarr.storage import LocalStore

        read, get = [], LocalStore.get

        async def counted(self, key, *args, **kwargs):
            read.append(key)
            return await get(self, key, *args, **kwargs)

        monkeypatch.setattr(LocalStore, "get", counted)
        for index in range(plan.n_regions):
            regions.read_windows(plan, index)
        chunks = [key for key in read if "reflectance/c/" in key]
        assert len(chunks) == len(set(chunks)) == 7 * 3 * 4

    def test_what_xarray_decodes_is_held_as_stored_and_answers_the_same(self, tmp_path):
        da, clear = make_cube(shape=(128, 128), dtype="uint16")
        save(da.to_dataset().assign(SCL=scl(clear)), tmp_path / "cube.zarr")
        opened = io.open_cube(tmp_path / "cube.zarr")
        plan, _ = plan_run(opened, DATE, model="linear")
        window = regions.read_windows(plan, 0).bands[0]
        assert opened.reflectance.dtype.kind == "f" and isinstance(window, windows.Stored)
        assert window.values.dtype == np.uint16 and len(window.decode) == 2
        loaded = opened.load()
        np.testing.assert_array_equal(window[...], loaded.reflectance.to_numpy())
        options = {"model": "linear", "layers": "all"}
        expected = in_memory(loaded, tmp_path, DATE, **options)
        found = xr_cloudfree.to_zarr(tmp_path / "cube.zarr", tmp_path / "out.zarr", DATE, shard=64, **options)
        xr.testing.assert_identical(found.compute(), expected)

    @pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", ">i2", "int32", "float32"])
    def test_a_part_is_decoded_as_xarray_decodes_it(self, dtype):
        rng = np.random.default_rng(0)
        low, high = (-1000, 1000) if np.dtype(dtype).kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        stored = rng.integers(low, high, (2, 4, 5), endpoint=True).astype(dtype)
        stored[0, 0, :3] = low
        attrs = {"scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": stored.dtype.type(low)}
        packed = xr.Dataset({"band": (("time", "y", "x"), stored, attrs)})
        expected = xr.decode_cf(packed).band
        held = windows.Stored(stored, split_decoding(raw_data(expected.variable))[1])
        for part in (..., (slice(1, 2), slice(1, 3), slice(None, None, 2)), (np.array([1, 0]), slice(3))):
            found = held[part]
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected.to_numpy()[part])
        assert np.isnan(held[0, 0, :3]).all()

    def test_a_cube_without_end_is_refused_before_anything_is_allocated(self, tmp_path):
        import dask.array as da

        shape = (3, 10**9, 10**9)
        times = np.datetime64("2021-06-01", "ns") + np.arange(3) * np.timedelta64(5, "D")
        cube = xr.Dataset(
            {name: (("time", "y", "x"), da.zeros(shape, dtype="uint16", chunks=(3, 10**8, 10**8))) for name in ["B02"]},
            coords={"time": times},
        )
        cube["SCL"] = cube.B02.astype("uint8")
        with pytest.raises(errors.SizeError, match="regions"):
            xr_cloudfree.to_zarr(cube, tmp_path / "out.zarr", "2021-06-06", model="linear", scale=1e-4, nodata=0)
        assert not list(tmp_path.iterdir())


class TestVerifyAndRepair:
    @pytest.fixture
    def store(self, tmp_path):
        cube = synthetic.cube(shape=(6, 3, 96, 96), seed=3)
        save(cube, tmp_path / "cube.zarr")
        date = str(cube.time.values[2])[:10]
        xr_cloudfree.to_zarr(
            io.open_cube(tmp_path / "cube.zarr"), tmp_path / "out.zarr", date, model="linear", shard=32, layers="filled"
        )
        return tmp_path / "out.zarr"

    @pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
    def test_every_file_is_looked_at_and_mended(self, store, harm):
        before, digest = contents(store), store_digest(store)
        rng = np.random.default_rng(1)
        for key in sorted(before):
            path = store / key
            data = bytearray(before[key])
            if harm == "flip":
                data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            if harm == "delete":
                path.unlink()
            else:
                path.write_bytes(data if harm == "flip" else data[: rng.integers(len(data))])
            report = xr_cloudfree.verify(store)
            [problem] = report.problems
            assert problem.key == key and problem.what == ("missing" if harm == "delete" else "changed")
            assert not report.ok and report.digest != digest
            path.write_bytes(before[key])
        for key in list(before)[::3]:
            (store / key).write_bytes(b"")
        assert not xr_cloudfree.repair(store).ok
        assert xr_cloudfree.verify(store).ok and contents(store) == before and store_digest(store) == digest

    @pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
    def test_markers_are_looked_at_too(self, store, harm):
        rng = np.random.default_rng(2)
        before = contents(store)
        markers = sorted((store.parent / "out.zarr.journal" / "done").rglob("*.json"))
        assert len(markers) == 9
        for path in markers:
            data = bytearray(path.read_bytes())
            if harm == "flip":
                data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            path.unlink()
            if harm != "delete":
                path.write_bytes(data if harm == "flip" else data[: rng.integers(len(data))])
        report = xr_cloudfree.verify(store)
        assert report.regions == tuple(range(9))
        xr_cloudfree.repair(store)
        assert xr_cloudfree.verify(store).ok and contents(store) == before

    @pytest.mark.parametrize("crs", ["all", True])
    @pytest.mark.parametrize("decoded", [True, False])
    def test_a_cube_is_opened_again_as_it_was(self, tmp_path, crs, decoded):
        cube = synthetic.cube(shape=(6, 3, 96, 96), seed=3)
        save(cube, tmp_path / "cube.zarr")
        opened = xr.open_zarr(tmp_path / "cube.zarr", decode_coords=crs, mask_and_scale=decoded, consolidated=False)
        assert (opened.reflectance.dtype.kind == "f") == decoded
        date, options = str(cube.time.values[2])[:10], {"model": "linear", "shard": 32, "layers": "filled"}
        xr_cloudfree.to_zarr(opened, tmp_path / "whole.zarr", date, **options)
        before = contents(tmp_path / "whole.zarr")

        store = tmp_path / "out.zarr"
        run = runs.prepare(opened, store, date, **options)
        with runs.started(run) as missing:
            local.fill_locally(run, missing[:4])
        stores.resume(store, progress=False)
        assert contents(store) == before
        for key in sorted(before)[::4]:
            (store / key).unlink()
        xr_cloudfree.repair(store)
        assert contents(store) == before and xr_cloudfree.verify(store).ok

    def test_without_its_cube_a_store_is_mended_by_the_same_call(self, tmp_path):
        da, clear = make_cube()
        options = {"clear": clear, "model": "linear", "shard": 40}
        xr_cloudfree.to_zarr(da, tmp_path / "out.zarr", DATE, **options)
        before = contents(tmp_path / "out.zarr")
        (tmp_path / "out.zarr/reflectance/c/0/1/0").unlink()
        with pytest.raises(errors.StoreError, match=r"cube\.cloudfree\.to_zarr"):
            xr_cloudfree.repair(tmp_path / "out.zarr")
        xr_cloudfree.to_zarr(da, tmp_path / "out.zarr", DATE, **options)
        assert contents(tmp_path / "out.zarr") == before and xr_cloudfree.verify(tmp_path / "out.zarr").ok

    def test_a_store_of_another_kind_is_a_typed_error(self, tmp_path):
        xr.Dataset({"a": ("x", [1])}).to_zarr(tmp_path / "store.zarr", zarr_format=3, consolidated=False)
        for function in (xr_cloudfree.verify, xr_cloudfree.repair):
            with pytest.raises(errors.StoreError, match="no journal"):
                function(tmp_path / "store.zarr")
