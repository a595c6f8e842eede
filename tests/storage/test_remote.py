"""Cubes at URLs and in zip files: the same answers as from a folder, and errors that name the URL."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.commands import run
from tests.support.cubes import as_dataset, make_cube, make_s1
from tests.support.servers import Failing, Forbidden, Plain, Ranges, serving
from xr_cloudfree import errors, io, stores
from xr_cloudfree.runner import runs
from xr_cloudfree.runner.journal import Journal
from xr_cloudfree.runner.origins import origin
from xr_cloudfree.storage import locations

pytest.importorskip("aiohttp")
DATE = "2021-05-15"
HOW = {"model": "linear", "layers": "filled"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a cube as a store, of both formats, with and without consolidated metadata, and zipped."""
    folder = tmp_path_factory.mktemp("served")
    cube = as_dataset(*make_cube()).drop_vars("platform").chunk({"y": 32, "x": 32})
    io.for_zarr(cube).to_zarr(folder / "cube.zarr", zarr_format=3, consolidated=False)
    cube.to_zarr(folder / "two.zarr", zarr_format=2, consolidated=True)
    shutil.make_archive(str(folder / "cube.zarr"), "zip", folder / "cube.zarr")
    shutil.make_archive(str(folder / "within"), "zip", folder, "cube.zarr")
    make_s1(cube["B04"]).to_dataset(name="s1").to_zarr(folder / "s1.zarr", zarr_format=2, consolidated=True)
    (folder / "bad.zip").write_text("no zip file")
    with zipfile.ZipFile(folder / "other.zip", "w") as other:
        other.writestr("readme.txt", "nothing but words " * 200)
    return folder


@pytest.fixture(scope="module")
def url(files):
    with serving(files, Ranges) as url:
        yield url


@pytest.fixture(scope="module")
def expected(files):
    return xr_cloudfree.fill(io.open_cube(files / "cube.zarr").load(), DATE, **HOW)


@pytest.fixture
def memory(files):
    """The URL of the cube in memory."""
    held = fsspec.filesystem("memory")
    held.put(str(files / "cube.zarr"), "/held.zarr", recursive=True)
    yield "memory://held.zarr"
    held.rm("/held.zarr", recursive=True)


def cubes_of(files, url):
    """All ways to name the cube."""
    return [
        f"{url}/cube.zarr",
        f"{url}/two.zarr",
        f"{url}/cube.zarr.zip",
        f"zip::{url}/cube.zarr.zip",
        f"{url}/within.zip",
        f"zip://cube.zarr::{url}/within.zip",
        files / "cube.zarr.zip",
        files / "within.zip",
        f"zip::{files}/cube.zarr.zip",
        f"file://{files}/cube.zarr",
        Path(f"{url}/cube.zarr"),  # two slashes have become one
    ]


def test_one_answer_from_everywhere(files, url, memory, expected):
    for where in [*cubes_of(files, url), memory]:
        cube = io.open_cube(where)
        assert cube["B04"].chunks is not None and cube.rio.crs.to_epsg() == 32629, where
        image = xr_cloudfree.fill(cube, DATE, **HOW)
        assert image["B04"].chunks is not None
        xr.testing.assert_equal(image.compute(), expected)


def test_a_server_without_parts_of_files(files, expected):
    with serving(files, Plain) as url:
        xr.testing.assert_equal(xr_cloudfree.fill(io.open_cube(f"{url}/within.zip"), DATE, **HOW).compute(), expected)


def test_to_zarr_and_resume(tmp_path, monkeypatch, files, url, memory, expected):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    for where in (f"{url}/cube.zarr", files / "cube.zarr.zip", f"{url}/cube.zarr.zip", memory):
        made = xr_cloudfree.to_zarr(where, tmp_path / "out.zarr", DATE, shard=32, overwrite=True, **HOW)
        xr.testing.assert_equal(made.compute(), expected)
        assert made.rio.crs.to_epsg() == 32629
        assert Journal(tmp_path / "out.zarr").begun()["call"]["cube"] == str(where)
        shutil.rmtree(tmp_path / "out.zarr.journal" / "done")
        xr.testing.assert_equal(stores.resume(tmp_path / "out.zarr", progress=False).compute(), expected)


def test_a_url_with_a_signature_is_neither_stored_nor_shown(tmp_path, monkeypatch, url, expected):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    made = xr_cloudfree.to_zarr(f"{url}/cube.zarr.zip?sig=n0t-shown", tmp_path / "out.zarr", DATE, shard=32, **HOW)
    xr.testing.assert_equal(made.compute(), expected)
    assert Journal(tmp_path / "out.zarr").begun()["call"] is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"n0t-shown" in path.read_bytes()]
    with pytest.raises(errors.OptionError, match="nothing at") as caught:
        io.open_cube(f"{url}/nothing.nc?sig=n0t-shown")
    assert "n0t-shown" not in str(caught.value)


def test_origin_of_what_was_opened_by_xarray(url, memory):
    for where in (f"{url}/two.zarr", memory):
        for scaled in (True, False):
            cube = xr.open_zarr(where, decode_coords="all", mask_and_scale=scaled, consolidated=where != memory)
            found = origin(cube)
            assert found is not None and found.path == where
            xr.testing.assert_equal(found.open()["B04"].compute(), cube["B04"].compute())


def test_in_other_processes(url, memory, expected):
    for where in (f"{url}/cube.zarr", f"{url}/cube.zarr.zip"):
        image = xr_cloudfree.fill(io.open_cube(where), DATE, **HOW)
        xr.testing.assert_equal(image.compute(scheduler="processes", num_workers=1), expected)
    # Elsewhere its chunks would be missing, and so nodata.
    with pytest.raises(errors.InputError, match="memory of another process"):
        xr_cloudfree.fill(io.open_cube(memory), DATE, **HOW).compute(scheduler="processes", num_workers=1)


def test_what_lies_in_memory_is_not_sent_to_other_machines(memory):
    from distributed.protocol.pickle import dumps

    from xr_cloudfree.runner.cluster import _unpack

    plain = xr.open_zarr(memory, decode_coords="all", consolidated=False)
    for cube in (plain, plain.assign(B04=plain["B04"] * 1), io.open_cube(memory)):
        packed = dumps(runs.prepare(cube, "out.zarr", DATE, **HOW).plan)
        with pytest.raises(errors.InputError, match="memory://"):
            _unpack(packed, False, 1, ("elsewhere", 1))


def test_s1_at_a_url(url):
    from xr_cloudfree import inputs

    s1, cube = inputs.open_s1(f"{url}/s1.zarr", xr.Dataset())
    assert s1["s1"].chunks is not None and not cube


def test_commands(tmp_path, url, expected):
    command = [sys.executable, "-c", "from xr_cloudfree.cli.app import app; app()"]
    made = subprocess.run(
        [*command, "fill", f"{url}/cube.zarr", "--date", DATE, "-m", "linear", "--out", "out.zarr"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    xr.testing.assert_equal(io.open_store(tmp_path / "out.zarr").compute(), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zarr"]


def test_info_and_batch_and_evaluate(tmp_path, monkeypatch, url, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda file: None)
    assert "EPSG:32629" in run("info", f"{url}/cube.zarr.zip")
    assert "not usable" not in run("info", f"{url}/two.zarr", "--dates")
    run("batch", f"{url}/cube.zarr", "--dates", DATE, "-m", "linear", "--out", "out.zarr", "-q")
    xr.testing.assert_equal(io.open_store("out.zarr").compute(), expected)
    assert "56% clear" in run("evaluate", f"{url}/cube.zarr", "-m", "nearest", code=2)
    assert "nothing at" in run("info", f"{url}/nix.zarr", code=2)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("nix.zarr", errors.OptionError, "nothing at"),
        ("nix.zip", errors.OptionError, "nothing at"),
        ("nix.nc", errors.OptionError, "nothing at"),
        ("bad.zip", errors.OptionError, "not a zip file"),
        ("other.zip", errors.OptionError, "no Zarr store"),
        ("", errors.OptionError, "nothing at"),
    ],
)
def test_nothing_there(files, url, name, error, says):
    with pytest.raises(error, match=says) as caught:
        io.open_cube(f"{url}/{name}")
    assert url in caught.value.found
    if name.endswith(".zip"):
        with pytest.raises(error, match="nothing at" if "nix" in name else says):
            io.open_cube(files / name)


def test_servers_that_refuse_or_fail(tmp_path, files):
    with serving(files, Forbidden) as url:
        for name in ("cube.zarr", "cube.zarr.zip", "cube.nc"):
            with pytest.raises(errors.InputError, match="403") as caught:
                io.open_cube(f"{url}/{name}")
            assert f"{url}/{name}" in caught.value.found and isinstance(caught.value, OSError)
    for name in ("cube.zarr", "cube.zarr.zip", "cube.nc"):  # it is down by now
        with pytest.raises(errors.InputError, match="cannot be read"):
            io.open_cube(f"{url}/{name}")
    with serving(files, Failing) as url:
        cube = io.open_cube(f"{url}/cube.zarr")
        with pytest.raises(errors.InputError, match="500"):
            xr_cloudfree.fill(cube, DATE, **HOW).compute()
        with pytest.raises(errors.CloudfreeError, match="500"):
            xr_cloudfree.to_zarr(cube, tmp_path / "out.zarr", DATE, **HOW)


def test_a_server_that_does_not_answer_in_time(files):
    from tests.support.servers import Plain

    class Slow(Plain):
        def do_GET(self):
            gone.wait(10)

    import threading

    gone = threading.Event()
    with serving(files, Slow) as url:
        before = dict(fsspec.config.conf)
        fsspec.config.conf["http"] = {"client_kwargs": {"read_timeout": 0.2, "conn_timeout": 0.2}}
        try:
            with pytest.raises(errors.InputError, match=url):
                io.open_cube(f"{url}/cube.zarr")
        finally:
            gone.set()
            fsspec.config.conf.clear()
            fsspec.config.conf.update(before)


@pytest.mark.parametrize(
    ("url", "package"), [("s3://b/c.zarr", "s3fs"), ("gs://b/c.zarr.zip", "gcsfs"), ("az://b/c.zarr", "adlfs")]
)
def test_packages_that_are_missing(monkeypatch, url, package):
    for name in (package, "obstore"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(errors.MissingDependencyError, match=f"pip install {package}") as caught:
        io.open_cube(url)
    assert url in caught.value.found


def test_netcdf_at_a_url_needs_h5netcdf(tmp_path, monkeypatch, files):
    cube = xr.open_zarr(files / "two.zarr").drop_encoding()
    cube.to_netcdf(tmp_path / "cube.nc")
    with serving(tmp_path, Ranges) as url:
        if "h5netcdf" in xr.backends.list_engines():
            xr.testing.assert_equal(io.open_cube(f"{url}/cube.nc")["B04"].compute(), cube["B04"].compute())
        monkeypatch.setattr(xr.backends, "list_engines", dict)
        with pytest.raises(errors.MissingDependencyError, match="pip install h5netcdf"):
            io.open_cube(f"{url}/cube.nc")


def test_a_scheme_that_nobody_knows():
    with pytest.raises(errors.OptionError, match=r"weird://host/cube\.zarr"):
        io.open_cube("weird://host/cube.zarr")


@pytest.mark.parametrize(
    "where", ["C:\\cubes\\a.zarr", "a:b.zarr", "zip/a.zarr", "s3:/a.zarr", "./http:/a", "a::b.zarr"]
)
def test_paths_are_no_urls(where):
    assert not locations.is_url(where) and locations.local(where) == Path(where)


def test_names_with_colons_are_written(tmp_path, files):
    image = xr_cloudfree.fill(io.open_cube(files / "cube.zarr"), DATE, **HOW)
    for name in ("a:b.zarr", "a:b.tif"):
        [file, *_] = io.write(image, tmp_path / name)
        assert file == tmp_path / name and file.exists()
    [file] = io.write(image, f"file://{tmp_path}/of_url.zarr")
    np.testing.assert_array_equal(io.open_cube(file)["B04"], image["B04"])
