"""Input that changes between two calls, in each kind of store, is noticed before anything is written."""

import functools
import http.server
import os
import shutil
import threading
import time

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from xr_cloudfree import errors, io, synthetic
from xr_cloudfree.runner import fingerprints
from xr_cloudfree.runner.local import fill_locally
from xr_cloudfree.runner.runs import prepare, started
from xr_cloudfree.runner.verify import verify
from xr_cloudfree.runner.windows import stamp

HOW = {"date": "2023-05-05", "model": "linear", "shard": 16, "layers": ["filled"]}


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Waiting for the disk is what most of these tests would do."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def cube(plus=0.0):
    ds = synthetic.cube(shape=(4, 1, 32, 48)).load()
    ds["reflectance"] = (ds["reflectance"] + np.float32(plus)).assign_attrs(ds["reflectance"].attrs)
    ds["band"] = ds["band"].astype(object)
    for name, chunks in (("reflectance", (1, 1, 16, 16)), ("cloud_mask", (1, 16, 16))):
        ds[name].encoding = {"chunks": chunks, "grid_mapping": "spatial_ref", "compressors": None}
    return ds


def save(store, plus=0.0, **how):
    cube(plus).to_zarr(store, zarr_format=3, consolidated=False, **how)


class Kind:
    """A store of some kind, in which one chunk can be written anew."""

    def __init__(self, folder):
        self.folder, self.path = folder, folder / "cube.zarr"
        save(self.path)

    def open(self):
        return xr.open_zarr(self.store(), consolidated=False, decode_coords="all")

    def store(self):
        return str(self.path)

    def chunk(self):
        """The bytes of a chunk as they will be: of the same size, because nothing is compressed here."""
        key = "reflectance/c/3/0/1/2"
        other = self.folder / "other.zarr"
        if not other.exists():
            save(other, plus=0.01)
        return key, (other / key).read_bytes()

    def change(self):
        key, data = self.chunk()
        (self.path / key).write_bytes(data)

    def close(self):
        pass


class Local(Kind):
    pass


class Linked(Kind):
    """Chunks of an array lie elsewhere, behind a link."""

    def __init__(self, folder):
        super().__init__(folder)
        (folder / "scratch").mkdir()
        shutil.move(self.path / "reflectance" / "c", folder / "scratch" / "c")
        (self.path / "reflectance" / "c").symlink_to(folder / "scratch" / "c")


class Zip(Kind):
    def store(self):
        from zarr.storage import ZipStore

        archive = shutil.make_archive(str(self.folder / "cube"), "zip", self.path)
        if (self.folder / "kept.zip").exists():
            archive = self.folder / "kept.zip"
        else:
            shutil.copy2(archive, self.folder / "kept.zip")
        return ZipStore(self.folder / "kept.zip", mode="r")

    def change(self):
        super().change()
        (self.folder / "kept.zip").unlink()


class Memory(Kind):
    def __init__(self, folder):
        from zarr.storage import MemoryStore

        super().__init__(folder)
        self.held = MemoryStore()
        save(self.held)

    def store(self):
        return self.held

    def change(self):
        from zarr.core.buffer import default_buffer_prototype

        key, data = self.chunk()
        assert key in self.held._store_dict
        self.held._store_dict[key] = default_buffer_prototype().buffer.from_bytes(data)


class Logged(Memory):
    """A store in a store."""

    def store(self):
        from zarr.storage import WrapperStore

        return WrapperStore(self.held)


class Icechunk(Kind):
    def __init__(self, folder):
        self.icechunk = pytest.importorskip("icechunk")
        self.folder = folder
        self.repository = self.icechunk.Repository.create(self.icechunk.in_memory_storage())
        self.commit(0.0)

    def commit(self, plus):
        session = self.repository.writable_session("main")
        save(session.store, plus, mode="w")
        session.commit(f"{plus}")

    def store(self):
        return self.repository.readonly_session("main").store

    def change(self):
        self.commit(0.01)


class Uncommitted(Icechunk):
    """What was not committed has no name yet."""

    def __init__(self, folder):
        super().__init__(folder)
        self.session = self.repository.writable_session("main")

    def store(self):
        return self.session.store

    def change(self):
        save(self.session.store, 0.01, mode="w")


class Fsspec(Kind):
    """A file system that lists sizes and times of change."""

    def store(self):
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(f"file://{self.path}", read_only=True)


class Http(Kind):
    """A server of files, which has to be asked about each."""

    def __init__(self, folder):
        pytest.importorskip("aiohttp")
        super().__init__(folder)

        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *told):
                pass

        class Patient(http.server.ThreadingHTTPServer):
            request_queue_size = 128

        self.server = Patient(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def store(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}/cube.zarr"

    def change(self):
        super().change()
        later = time.time() + 2  # the server tells seconds
        os.utime(self.path / self.chunk()[0], (later, later))

    def close(self):
        self.server.shutdown()
        self.server.server_close()


KINDS = [Local, Linked, Zip, Memory, Logged, Icechunk, Uncommitted, Fsspec, Http]


INTERPOLATORS = {
    "as opened": lambda ds: ds,
    "a part of it": lambda ds: ds.isel(y=slice(0, 32), x=slice(16, 48)),
    "some dates of it": lambda ds: ds.isel(time=[0, 1, 3]),
    "opened without dask": None,
    "calculated": lambda ds: ds.assign(reflectance=ds["reflectance"] * np.float32(1)),
}


def opened(kind, way):
    if INTERPOLATORS[way] is None:
        return xr.open_zarr(kind.store(), consolidated=False, decode_coords="all", chunks=None).isel(x=slice(0, 48))
    return INTERPOLATORS[way](kind.open())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("made", "way"),
    [
        *((kind, "as opened") for kind in KINDS),
        # dask names what is computed from a session that may be written to anew each time: no such run is gone on with.
        *((kind, "a part of it") for kind in KINDS if kind is not Uncommitted),
        *((Local, way) for way in list(INTERPOLATORS)[2:]),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_chunk_that_is_written_anew_between_two_calls_is_seen(made, way, tmp_path):
    store, kind = tmp_path / "out.zarr", made(tmp_path)
    try:
        check(kind, way, store)
    finally:
        kind.close()


def check(kind, way, store):
    first = runs_half(opened(kind, way), store)
    assert verify(store).unfinished
    same = prepare(opened(kind, way), store, **HOW)
    assert same.plan.fingerprint == first.plan.fingerprint  # nothing has changed yet
    kind.change()
    with pytest.raises(errors.ChangedError, match="values of the cube: changed since"):
        xr_cloudfree.to_zarr(opened(kind, way), store, **HOW)
    filled = xr_cloudfree.to_zarr(opened(kind, way), store, overwrite=True, **HOW)
    assert verify(store).ok
    expected = xr_cloudfree.fill(opened(kind, way).load(), **{k: v for k, v in HOW.items() if k != "shard"})
    np.testing.assert_allclose(filled["reflectance"], expected["reflectance"], atol=1e-6)  # it is packed


def runs_half(ds, store):
    """A run of which the first half is done."""
    run = prepare(ds, store, **HOW)
    with started(run) as missing:
        fill_locally(run, missing[: len(missing) // 2])
    return run


def test_arrays_that_are_held_count_by_their_values(tmp_path):
    """Also those that keep the name of the files that they came from: loaded once, or persisted."""
    kind = Local(tmp_path)

    def loaded():
        ds = xr.open_zarr(kind.path, consolidated=False, decode_coords="all", chunks=None)
        ds["reflectance"].values  # noqa: B018  xarray keeps it
        return ds

    for get in (loaded, lambda: kind.open().persist(), lambda: kind.open().compute()):
        before = stamp(get()["reflectance"].variable)
        assert stamp(get()["reflectance"].variable) == before
        kept = (kind.path / kind.chunk()[0]).read_bytes()
        kind.change()
        assert stamp(get()["reflectance"].variable) != before
        (kind.path / kind.chunk()[0]).write_bytes(kept)


def test_long_indices_are_told_apart(tmp_path):
    """An index of many numbers is cut short where it is printed."""
    ds = xr.Dataset({"a": ("x", np.arange(4000))})
    ds.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    array = xr.open_zarr(tmp_path / "a.zarr", consolidated=False, chunks=None)["a"].variable
    one, other = np.arange(0, 3000), np.arange(0, 3000)
    other[1500] = 3500
    assert stamp(array[one]) != stamp(array[other])
    assert stamp(array[one]) == stamp(array[one.copy()])


def test_rasters_that_rioxarray_opened_count_by_their_files(tmp_path):
    import rioxarray

    image = xr_cloudfree.fill(cube(), "2023-05-05", model="linear")
    io.write(image, tmp_path / "a.tif")
    path = tmp_path / "a.tif"
    for chunks in (None, {}):
        with rioxarray.open_rasterio(path, chunks=chunks) as one:
            before = stamp(one.variable)
            os.utime(path, (1, 1))
            assert stamp(one.variable) != before
        os.utime(path)


def test_what_a_server_tells_of_very_many_objects_is_asked_of_some(monkeypatch, tmp_path):
    kind = Fsspec(tmp_path)
    monkeypatch.setattr(fingerprints, "_MOST_QUERIED", 7)
    array = kind.open()["reflectance"]
    lazy = next(iter(array.data.dask.layers[f"original-{array.data.name}"].values()))
    while not hasattr(lazy, "_array"):
        lazy = lazy.array
    keys = fingerprints._sample_keys(lazy._array, "there")
    assert len(keys) == len(set(keys)) == 7 and all(key.startswith("there/c/") for key in keys)


def test_an_output_is_no_zip_file_that_is_read(tmp_path):
    kind = Zip(tmp_path)
    ds = kind.open()
    os.rename(tmp_path / "kept.zip", tmp_path / "kept.zarr")
    from zarr.storage import ZipStore

    ds = xr.open_zarr(ZipStore(tmp_path / "kept.zarr", mode="r"), consolidated=False, decode_coords="all")
    with pytest.raises(errors.OutputError, match="which it is made from"):
        xr_cloudfree.to_zarr(ds, tmp_path / "kept.zarr", overwrite=True, **HOW)
