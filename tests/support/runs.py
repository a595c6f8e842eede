"""Runs in processes of their own that can be killed, and checks of the stores that they leave.

The processes are forked from a server that has imported everything, which saves the start of Python. They die by
SIGKILL, from outside or by themselves at a chosen moment, so that nothing is cleaned up.
"""

import errno
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import contents
from xr_cloudfree import io, synthetic
from xr_cloudfree.models.kernels import compiled  # noqa: F401  (slow to import)
from xr_cloudfree.runner import regions  # noqa: F401
from xr_cloudfree.runner.verify import verify
from xr_cloudfree.storage.locations import journal_folder

EDGE, SHARD = 192, 32
N = (EDGE // SHARD) ** 2
HOW = {"date": "2023-05-05", "model": "linear", "shard": SHARD, "layers": ["filled"]}


def make_cube(path):
    """A small cube in files; each of its chunks is read by four regions."""
    ds = synthetic.cube(shape=(6, 2, EDGE, EDGE), seed=3)
    ds = io.for_zarr(ds)
    crs = {"grid_mapping": "spatial_ref"}
    chunks = {"reflectance": {"chunks": (1, 2, 64, 64)} | crs, "cloud_mask": {"chunks": (1, 64, 64)} | crs}
    ds.to_zarr(path, encoding=chunks, zarr_format=3, consolidated=False)


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    """A cube in a store, which each test leaves as it is."""
    path = tmp_path_factory.mktemp("cube") / "cube.zarr"
    make_cube(path)
    return path


def open_cube(path):
    return xr.open_zarr(path, mask_and_scale=False, decode_coords="all", consolidated=False)


def fill(cube, store, **options):
    return xr_cloudfree.to_zarr(open_cube(cube), store, **HOW | options)


def fill_file(cube, store, **options):
    """The same from the path alone, so that the run can be opened again from its journal."""
    return xr_cloudfree.to_zarr(cube, store, **HOW | options)


def without_locks(number=errno.ENOLCK):
    """Return a `fcntl.flock` that fails as on a file system without locks."""

    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    return flock


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # a thread may live for a moment


def _named(file):
    return os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else os.fspath(file)


def fill_until(cube, store, call, where, n, after):
    """Fill until the n-th `call` (os.fsync, os.replace) of a file in whose name is `where`; die before or after it."""
    real, met = getattr(os, call), []

    def deadly(file, *more):
        hit = where in _named(file)
        met.extend([1] * hit)
        if hit and len(met) == n and not after:
            kill_self()
        done = real(file, *more)
        if hit and len(met) == n and after:
            kill_self()
        return done

    setattr(os, call, deadly)
    fill(cube, store)


def overwrite_until(cube, store, n):
    """Fill anew, and die before the n-th file or folder is removed."""
    import shutil

    met = []

    def deadly(real):
        def remove(*arguments, **options):
            met.append(1)
            if len(met) == n:
                kill_self()
            return real(*arguments, **options)

        return remove

    shutil.rmtree, os.unlink = deadly(shutil.rmtree), deadly(os.unlink)
    fill(cube, store, overwrite=True)


CONTEXT = multiprocessing.get_context("forkserver") if hasattr(os, "fork") else None
if CONTEXT is not None:
    CONTEXT.set_forkserver_preload(["tests.support.runs"])


def _tell(pipe, function, arguments, options):
    # Tests that a shell has sent to the background ignore it, and so would what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        function(*arguments, **options)
        pipe.send(None)
    except Exception as error:
        pipe.send(error)


class Child:
    """A function in a process of its own."""

    def __init__(self, function, *arguments, **options):
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_tell, args=(theirs, function, arguments, options))
        self.process.start()
        theirs.close()

    def wait(self, seconds=600):
        """The exit code: -9 after SIGKILL."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, "the process hangs"
        return self.process.exitcode

    def error(self, seconds=600):
        """What was raised, None if nothing was."""
        assert self.pipe.poll(seconds), "the process hangs"
        told = self.pipe.recv()
        self.wait()
        return told

    def send(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        self.send(signal.SIGKILL)
        return self.wait()


def markers(store):
    """Markers that are there, whole or not."""
    return sorted(journal_folder(store).glob("done/*/*.json"))


def wait_for_markers(store, n, child, seconds=600):
    end = time.monotonic() + seconds
    while len(markers(store)) < n:
        assert time.monotonic() < end and child.process.is_alive(), f"{len(markers(store))} markers"
        time.sleep(0.001)


def part_done(cube, store, n):
    """A store of which n regions are done, left by a driver that was killed."""
    child = Child(fill_until, cube, store, "replace", f"{os.sep}done{os.sep}", n, True)
    assert child.wait() == -signal.SIGKILL
    assert len(markers(store)) == n


def check_whole(store, clean):
    """The store is byte by byte that of the clean run, and verify says so."""
    found = verify(store)
    assert found.ok and not found.unfinished, found
    assert contents(store) == clean
    image = xr.open_zarr(store, mask_and_scale=False, decode_coords="all").load()
    assert image.rio.crs.to_epsg() == 32629
    assert np.isin(image["filled"], (0, 1, 2)).all()
