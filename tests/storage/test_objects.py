"""Folders in an object store keep the same promises as folders on a disk: the same tests for both."""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.support import s3
from xr_cloudfree import errors
from xr_cloudfree.storage import files, objects
from xr_cloudfree.storage.folders import LocalFolder, folder_at, is_zarr
from xr_cloudfree.storage.objects import ObjectFolder

pytest.importorskip("obstore")
pytest.importorskip("moto")
NOTE = {"host": "here", "since": "now"}


@pytest.fixture(scope="module")
def server():
    with s3.serving() as server:
        yield server


@pytest.fixture
def faults(server):
    yield server.disturb
    server.disturb()


@pytest.fixture(params=["disk", "object store"])
def folder(request, tmp_path, server):
    if request.param == "disk":
        return LocalFolder(tmp_path / "out.zarr")
    return folder_at(f"s3://{s3.BUCKET}/{tmp_path.name}/out.zarr")


@pytest.fixture
def remote(tmp_path, server):
    return folder_at(f"s3://{s3.BUCKET}/{tmp_path.name}/out.zarr")


@pytest.fixture
def impatient(monkeypatch):
    """Clients that repeat a request twice at once."""
    backoff = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=2), "base": 2}
    monkeypatch.setattr(objects, "RETRY", {"max_retries": 2, "backoff": backoff})
    objects.client.cache_clear()
    yield
    objects.client.cache_clear()


def test_files(folder):
    assert folder.is_empty() and folder.read("a") is None and not folder.exists("a") and not list(folder.list())
    folder.write("a", b"one")
    folder.write("done/0000/1.json", b"two!")
    folder.write("done/0001/2.json", b"")
    folder.write("a", b"three")
    assert folder.read("a") == b"three" and folder.exists("a") and not folder.exists("done") and not folder.is_empty()
    assert sorted(folder.list()) == [("a", 5), ("done/0000/1.json", 4), ("done/0001/2.json", 0)]
    assert sorted(folder.list("done")) == [("done/0000/1.json", 4), ("done/0001/2.json", 0)]
    assert list(folder.list("don")) == []
    folder.remove(["a", "a", "nothing"])
    assert folder.read("a") is None


def test_large_files_are_written_at_once(folder):
    data = os.urandom(6 * 2**20)  # clients divide files of more than five MiB unless told otherwise
    folder.write("large", data)
    assert folder.read("large") == data


def test_clear_keeps_what_it_is_told_to(folder):
    for key in ("lock", "lock.held", "run.json", "done/0000/1.json"):
        folder.write(key, b"1")
    beside = folder_at(f"{folder.location}2")
    beside.write("kept", b"1")
    folder.clear(keep="lock")
    assert sorted(key for key, _ in folder.list()) == ["lock", "lock.held"]
    folder.clear()
    assert folder.is_empty() and beside.exists("kept")
    folder.clear()


def test_more_objects_than_one_request_lists_or_removes(remote, faults, monkeypatch):
    monkeypatch.setattr(objects, "_MOST_REMOVED", 3)
    faults({"method": ["GET"], "most": 2})
    keys = [f"c/{i}" for i in range(7)]
    for key in keys:
        remote.write(key, b"1")
    assert [key for key, _ in remote.list("c")] == keys
    remote.clear(keep="c/3")
    assert list(remote.list()) == [("c/3", 1)]


def test_update_gets_what_is_there(folder):
    folder.update("counter", lambda data: b"1" if data is None else b"wrong")
    folder.update("counter", lambda data: str(int(data) + 1).encode())
    assert folder.read("counter") == b"2"
    with pytest.raises(ZeroDivisionError):
        folder.update("counter", lambda data: 1 / 0)
    assert folder.read("counter") == b"2"


def test_no_update_is_lost(remote, monkeypatch):
    monkeypatch.setattr(objects, "_ATTEMPTS", 1000)
    start = threading.Barrier(4)

    def count(_):
        start.wait()
        for _ in range(5):
            remote.update("counter", lambda data: str(int(data or 0) + 1).encode())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert remote.read("counter") == b"20"


def test_an_object_that_changes_all_the_time_is_given_up(remote):
    def change(data):
        remote.write("restless", os.urandom(8))
        return b"mine"

    with pytest.raises(errors.OutputError, match="change it all the time"):
        remote.update("restless", change)


def test_the_journal_lies_beside_the_store(folder):
    journal = folder.journal()
    assert str(journal.location) == f"{folder.location}.journal"
    journal.write("run.json", b"{}")
    assert folder.is_empty() and not journal.is_empty()


def test_is_zarr(folder):
    assert not is_zarr(folder)
    folder.write("zarr.json", b"{}")
    assert is_zarr(folder)


HOLDERS = {
    "of another machine": ({"machine": "other", "pid": 1, "began": "1", "by": "x"}, True),
    "of this process": (files.process_note(), True),
    "of a process that has died": (files.process_note() | {"pid": 2**22 + 1}, False),
    "of a process whose number another one has by now": (files.process_note() | {"began": "1"}, False),
    "that nobody understands": ([1], False),
}


class TestLock:
    def test_it_has_one_owner(self, folder):
        assert folder.holder("lock") is None
        with folder.hold("lock", NOTE):
            assert NOTE.items() <= folder.holder("lock").items()
            with pytest.raises(BlockingIOError), folder.hold("lock", NOTE):
                pass
        assert folder.holder("lock") is None
        with pytest.raises(ZeroDivisionError), folder.hold("lock", NOTE):
            raise ZeroDivisionError
        with folder.hold("lock", NOTE):
            pass
        assert [key for key, _ in folder.list()] == ["lock"] and folder.read("lock") == b""

    @pytest.mark.parametrize("released", [False, True])
    def test_of_many_that_try_one_gets_it(self, remote, released):
        if released:
            remote.write("lock", b"")
        start, held = threading.Barrier(6), threading.Barrier(6)

        def hold(_):
            start.wait()
            try:
                with remote.hold("lock", NOTE):
                    held.wait(60)
                    return 1
            except BlockingIOError:
                held.wait(60)
                return 0

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(hold, range(6))) == 1

    @pytest.mark.parametrize("whose", HOLDERS)
    def test_whose_owner_has_ended(self, remote, whose, monkeypatch):
        note, holds = HOLDERS[whose]
        remote.write("lock", json.dumps(note).encode())
        if holds:
            with pytest.raises(BlockingIOError), remote.hold("lock", NOTE):
                pass
            assert json.loads(remote.read("lock")) == note
            monkeypatch.setattr(objects, "STALE", -5)  # the store's clock tells whole seconds
        if note == HOLDERS["of this process"][0]:
            return  # it lives, and may only have been suspended
        with remote.hold("lock", NOTE):
            assert json.loads(remote.read("lock"))["pid"] == os.getpid()

    def test_its_owner_renews_it(self, remote, monkeypatch):
        monkeypatch.setattr(objects, "BEAT", 0.01)
        with remote.hold("lock", NOTE):
            end = time.monotonic() + 30
            while json.loads(remote.read("lock"))["beat"] < 3:
                assert time.monotonic() < end
                time.sleep(0.01)
        assert remote.read("lock") == b""

    def test_one_that_was_taken_meanwhile_is_left_to_its_new_owner(self, remote, monkeypatch):
        monkeypatch.setattr(objects, "BEAT", 0.01)
        other = json.dumps({"by": "other"}).encode()
        with remote.hold("lock", NOTE):
            remote.write("lock", other)
            time.sleep(0.1)
        assert remote.read("lock") == other

    @pytest.mark.parametrize("n", range(1, 6))
    def test_answers_that_are_lost(self, remote, faults, impatient, n):
        """The store has carried out the n-th write and says that it has not: the client repeats it, and is refused."""
        faults(
            {
                "method": ["PUT"],
                "path": remote.url.rpartition("/")[2],
                "every": n,
                "times": 1,
                "status": 503,
                "late": True,
            }
        )
        with remote.hold("lock", NOTE), pytest.raises(BlockingIOError), remote.hold("lock", NOTE):
            pass
        assert remote.read("lock") == b""

    def test_a_store_that_ignores_conditions_is_refused(self, remote, faults):
        faults({"method": ["PUT"], "unconditional": True})
        with pytest.raises(errors.OutputError, match="ignores If-None-Match") as caught, remote.hold("lock", NOTE):
            pass
        assert "--icechunk" in caught.value.remedy
        assert remote.is_empty()


class TestFaults:
    def test_errors_of_the_server_that_pass(self, remote, faults, impatient):
        faults({"every": 2, "status": 503})
        for i in range(10):
            remote.write(f"{i}", b"%d" % i)
        assert len(list(remote.list())) == 10 and all(remote.read(f"{i}") == b"%d" % i for i in range(10))

    @pytest.mark.parametrize("status", [503, 403])
    def test_errors_that_stay_are_typed(self, remote, faults, impatient, status):
        remote.write("a", b"1")
        faults({"status": status})
        for call in (
            lambda: remote.write("a", b"2"),
            lambda: remote.read("a"),
            lambda: remote.exists("a"),
            lambda: remote.remove(["a"]),
            lambda: remote.clear(),
            lambda: list(remote.list()),
            lambda: remote.update("a", lambda data: b"2"),
            lambda: remote.hold("lock", NOTE).__enter__(),
        ):
            with pytest.raises(
                errors.OutputError, match=f"{remote.url}.* cannot be (read|written|listed|removed)"
            ) as caught:
                call()
            assert s3.SECRET not in str(caught.value) and "AWS_ACCESS_KEY_ID" in caught.value.remedy
        faults()
        assert remote.read("a") == b"1"

    def test_a_bucket_that_does_not_exist(self, server):
        nowhere = folder_at("s3://no-such-bucket/out.zarr")
        assert nowhere.read("a") is None
        with pytest.raises(errors.OutputError, match="404 Not Found: The specified bucket does not exist"):
            nowhere.is_empty()
        for call in (nowhere.write, lambda key, data: nowhere.update(key, lambda before: data)):
            with pytest.raises(errors.OutputError, match=r"no-such-bucket/out\.zarr/a cannot be written"):
                call("a", b"1")
        with pytest.raises(errors.OutputError, match="The specified bucket does not exist"), nowhere.hold("lock", NOTE):
            pass


class TestLocations:
    @pytest.mark.parametrize(
        ("url", "found"),
        [
            ("https://host/out.zarr", "scheme https"),
            ("memory://out.zarr", "scheme memory"),
            ("s3://bucket", "names no folder"),
            ("s3://user:secret@bucket/out.zarr", "query or a password"),
            ("az://box/out.zarr?sig=secret", "query or a password"),
        ],
    )
    def test_what_cannot_be_an_output(self, url, found):
        with pytest.raises(errors.OutputError, match=found) as caught:
            folder_at(url)
        assert "secret" not in str(caught.value)

    def test_kinds_of_clients(self, monkeypatch):
        from obstore.store import AzureStore, GCSStore, S3Store

        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
        monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
        for url, kind in {
            "s3a://bucket/a/out.zarr": S3Store,
            "gs://bucket/a/out.zarr": GCSStore,
            "az://box/a/out.zarr": AzureStore,
            "abfs://box@account.dfs.core.windows.net/a/out.zarr": AzureStore,
        }.items():
            made = objects.client(url, 0)
            assert type(made) is kind and made.prefix == "a/out.zarr", url
        objects.client.cache_clear()

    def test_without_the_package(self, monkeypatch):
        monkeypatch.setattr(objects, "find_spec", lambda name: None)
        with pytest.raises(errors.MissingDependencyError, match=r"xr-cloudfree\[object-store\]"):
            ObjectFolder.at("s3://bucket/out.zarr", "store")
