"""Networks in processes forked from one that has used them, as multiprocessing does on Linux before Python 3.14."""

import os
import subprocess
import sys
import textwrap

import pytest

torch = pytest.importorskip("torch")
from xr_cloudfree import errors, from_pretrained  # noqa: E402
from xr_cloudfree.models.pretrained import runtime  # noqa: E402

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# OpenMP's threads are started by what the parent fills, and a thread of the parent is about to load a network.
CODE = """
import multiprocessing, warnings
from xr_cloudfree import synthetic
from xr_cloudfree.models.pretrained import runtime

cube = synthetic.cube((6, 3, 128, 128), seed=1)

def fill(which):
    return cube.cloudfree.fill("2023-05-20", model="unet").reflectance.values

if __name__ == "__main__":
    here = fill(0)
    with runtime._loading, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a process with threads is forked
        pool = multiprocessing.get_context("fork").Pool(1)
    there = pool.map_async(fill, [0]).get(timeout=100)
    assert here.tobytes() == there[0].tobytes()
    pool.terminate()
"""


def test_a_forked_process_answers_and_to_the_last_bit_as_its_parent():
    code = textwrap.dedent(CODE)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr


def test_a_gpu_that_the_parent_has_used_is_a_typed_error(monkeypatch):
    model = from_pretrained("unet", device="cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    with pytest.raises(errors.ModelError, match="forked from one that had used CUDA") as info:
        model.load()
    assert "spawn" in info.value.remedy and "device='cpu'" in info.value.remedy
    assert not runtime._forked
