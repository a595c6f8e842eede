"""The journal: every file has a checksum, and a marker counts only while its region's files are there."""

import itertools
import json
import os

import numpy as np
import pytest

from xr_cloudfree import errors
from xr_cloudfree.runner.journal import RUN, Journal, in_threads
from xr_cloudfree.runner.store import Layout

LAYOUT = Layout((64, 64), (32, 32), (("red", (2,)), ("filled", ())))


@pytest.fixture
def journal(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    return Journal(tmp_path / "out.zarr")


def fill(journal, index, run="a"):
    for key in LAYOUT.keys(index):
        journal.store.write(key, b"12345")
    keys = LAYOUT.keys(index)
    journal.mark(index, {"region": index, "run": run, "files": dict.fromkeys(keys, "0"), "bytes": 5 * len(keys)})


def test_files_are_read_as_they_were_written(journal):
    content = {"a": 1, "b": [1.5, None, "ü"]}
    journal.write(RUN, content)
    assert journal.read(RUN) == content and journal.begun() == content
    assert "check" in json.loads(journal.folder.read(RUN))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"a": 1}', b'"text"', b"null", b"\xff\xfe"])
def test_what_is_no_file_of_a_journal(journal, data):
    journal.folder.write(RUN, data)
    assert journal.read(RUN) is None
    with pytest.raises(errors.StoreError, match=r"run\.json is damaged") as caught:
        journal.begun()
    assert "overwrite=True" in caught.value.remedy


def test_each_flipped_bit_and_each_truncation_is_noticed(journal):
    journal.write(RUN, {"region": 7, "files": {"red/c/0/0/0": "ab"}})
    data = journal.folder.read(RUN)
    for place in range(len(data)):
        spoiled = bytearray(data)
        spoiled[place] ^= 1 << place % 8
        for changed in (bytes(spoiled), data[:place]):
            journal.folder.path.joinpath(RUN).write_bytes(changed)
            assert journal.read(RUN) is None


def test_without_a_journal(journal):
    assert journal.begun() is None
    with pytest.raises(errors.StoreError, match="no journal"):
        journal.needed()
    assert not journal.folder.path.exists()


def test_regions_that_are_done_or_lost(journal):
    for index in (0, 2, 3):
        fill(journal, index)
    fill(journal, 1, run="b")
    journal.store.write("red/c/0/9/9", b"stray")
    done, lost = journal.regions(LAYOUT, "a")
    assert done.tolist() == [True, False, True, True] and not lost.any()
    assert journal.regions(LAYOUT)[0].all()
    journal.store.remove([LAYOUT.keys(2)[0]])
    journal.store.write(LAYOUT.keys(3)[0], b"123456")
    done, lost = journal.regions(LAYOUT, "a")
    assert done.tolist() == [True, False, False, False] and lost.tolist() == [False, False, True, True]
    assert [index for index, _ in journal.markers(LAYOUT, "a")] == [0]


def test_a_marker_of_another_region_does_not_count(journal):
    fill(journal, 0)
    journal.folder.write(journal.marker(1), journal.folder.read(journal.marker(0)))
    assert journal.regions(LAYOUT)[0].tolist() == [True, False, False, False]
    journal.folder.write(journal.marker(10**6), journal.folder.read(journal.marker(0)))  # of a larger store
    assert journal.regions(LAYOUT)[0].sum() == 1


def test_markers_of_another_run_stay(journal):
    fill(journal, 0, "a")
    with pytest.raises(errors.StoreError, match="belongs to another run"):
        fill(journal, 0, "b")
    journal.mark(0, {"run": "b", "region": 0}, extends="a")
    journal.mark(0, {"run": "b", "region": 0, "again": True})
    assert journal.read(journal.marker(0))["again"]
    journal.folder.write(journal.marker(0), b"damaged")
    fill(journal, 0, "c")


def test_a_folder_holds_a_thousand_markers(journal):
    assert journal.marker(0) == "done/0000/0000000.json"
    assert journal.marker(4_999_999) == "done/4999/4999999.json"


def test_a_journal_that_cannot_be_written(tmp_path):
    (tmp_path / "out.zarr.journal").write_text("a file")
    with pytest.raises(errors.OutputError, match=r"lock cannot be written"), Journal(tmp_path / "out.zarr").lock():
        pass


@pytest.mark.parametrize("threads", [1, 4])
def test_in_threads_keeps_the_order_and_is_only_a_little_ahead(threads):
    taken = itertools.count()
    items = (next(taken) for _ in range(1000))
    results = in_threads(threads, lambda n: n * n, items)
    assert list(itertools.islice(results, 5)) == [0, 1, 4, 9, 16]
    assert next(taken) < 50
    assert len(list(results)) == 995
    assert list(in_threads(threads, np.sqrt, [])) == []
    with pytest.raises(ZeroDivisionError):
        list(in_threads(threads, lambda n: 1 / n, [1, 0]))
