"""Locations: what is a URL, what is a path, and the names in them."""

from pathlib import Path

import pytest

from xr_cloudfree import errors
from xr_cloudfree.storage import locations


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("cube.zarr", Path("cube.zarr")),
        ("C:\\data\\cube.zarr", Path("C:\\data\\cube.zarr")),
        ("a:b.zarr", Path("a:b.zarr")),
        ("file:///data/a%20cube.zarr", Path("/data/a cube.zarr")),
        (Path("file:/data/cube.zarr"), Path("/data/cube.zarr")),
        ("s3://bucket/cube.zarr", "s3://bucket/cube.zarr"),
        (Path("s3://bucket/cube.zarr"), "s3://bucket/cube.zarr"),
        (Path("abfs://box/cube.zarr"), "abfs://box/cube.zarr"),
        ("zip::https://host/cube.zarr.zip", "zip::https://host/cube.zarr.zip"),
    ],
)
def test_paths_and_urls(where, found):
    assert locations.parse_location(where) == found
    assert locations.is_url(where) == isinstance(found, str)


def test_a_folder_with_the_name_of_a_scheme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("s3:/bucket").mkdir(parents=True)
    assert locations.parse_location(Path("s3:/bucket/cube.zarr")) == Path("s3:/bucket/cube.zarr")


def test_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locations.absolute("cube.zarr") == str(tmp_path / "cube.zarr")
    assert locations.absolute("s3://bucket/cube.zarr") == "s3://bucket/cube.zarr"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("s3://bucket/a/cube.zarr", "s3a://bucket/a/cube.zarr/"),
        ("gs://bucket/cube.zarr", "gcs://bucket/cube.zarr"),
        ("abfs://box@account.dfs.core.windows.net/cube.zarr", "az://box/cube.zarr"),
    ],
)
def test_two_names_of_one_store(a, b):
    assert locations.bucket_and_key(a) == locations.bucket_and_key(b)
    assert locations.bucket_and_key(a) != locations.bucket_and_key(f"{a}2")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://bucket/out.zarr", "out='out.zarr', then: aws s3 cp --recursive out.zarr s3://bucket/out.zarr"),
        ("gs://bucket/out.tif", "out='out.tif', then: gcloud storage cp out.tif gs://bucket/out.tif"),
        ("https://host/out.zarr", "fs.put('out.zarr', path, recursive=True)"),
    ],
)
def test_an_output_that_needs_a_disk(url, told):
    with pytest.raises(errors.OutputError, match="a local path") as caught:
        locations.local(url)
    assert told in str(caught.value.remedy)
    assert locations.local("file:///data/out.zarr") == Path("/data/out.zarr")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/cube.zarr", "https://host/cube.zarr"),
        ("https://host/cube.nc?sv=1&sig=secret", "https://host/cube.nc?…"),
        ("https://me:secret@host/cube.zarr", "https://host/cube.zarr"),
        ("zip::https://host/cube.zarr.zip?sig=secret", "zip::https://host/cube.zarr.zip?…"),
        ("abfs://box@account.dfs.core.windows.net/cube.zarr", "abfs://box@account.dfs.core.windows.net/cube.zarr"),
    ],
)
def test_secrets_are_not_shown(url, shown):
    assert locations.without_secrets(url) == shown
