"""Assets over HTTP: ranges, faults by kind and band, recovery, signatures; what is asked and how many bytes."""

import itertools
import json
import warnings

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import xarray as xr

import xr_cloudfree
from tests.support.archive_server import SECRET, Fault, serving_archive
from tests.support.archives import area, make_item
from xr_cloudfree import errors
from xr_cloudfree.loading.progress import Reads
from xr_cloudfree.loading.reading import sign_planetary_computer

FAULTS = ["403", "404", "429", "500", "reset", "truncated", "wrong length", "html", "slow", "signature"]
# On its own grid, repeated from 20 m, and the mask.
BANDS = ["red", "swir16", "scl"]
_names = (f"item-{i}" for i in itertools.count())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving_archive(tmp_path_factory.mktemp("archive")) as archive:
        yield archive


@pytest.fixture
def archive(server):
    """The server without faults; what GDAL remembers of a URL concerns no other test, because names are new."""
    server.faults, server.requests, server.sent = [], [], 0
    with rasterio.Env(GDAL_HTTP_RETRY_DELAY="0.01"):
        yield server


def items(archive, n=1, form="earth_search_c1"):
    return [
        make_item(archive.folder, form, f"2021-07-{8 + 5 * i:02d}T11:21:21", name=next(_names), url=archive.url)
        for i in range(n)
    ]


def loaded(found, **options):
    settings = {"bands": ["red", "swir16"], "retries": 1, "timeout": 0.7} | options
    return xr_cloudfree.load(found, bbox=area(), **settings)


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_an_error_that_names_the_date_and_goes_with_the_fault(archive, kind, band):
    good, bad = items(archive, 2)
    cube = loaded([good, bad])
    archive.faults = [Fault(kind, f"{bad['id']}/{band}")]
    assert (cube[band].isel(time=0) > 0).all()  # the other date is not affected
    with pytest.raises(errors.InputError, match=f"{band} of 2021-07-13, item {bad['id']}, cannot be read") as caught:
        cube[band].compute()
    assert "on_error='missing'" in caught.value.remedy
    # The remedy: the same call again, in the same process, once the archive is well.
    archive.faults = []
    assert (cube[band].compute() > 0).all()


@pytest.mark.parametrize("kind", ["404", "truncated", "html"])
def test_missing_where_it_was_asked_for(archive, kind):
    good, bad = items(archive, 2)
    cube = loaded([good, bad], on_error="missing")
    archive.faults = [Fault(kind, f"{bad['id']}/(red|scl)")]
    with pytest.warns(errors.CloudfreeWarning) as told:
        values = cube.compute()
    texts = sorted(str(w.message) for w in told if w.category is errors.CloudfreeWarning)
    assert [text.split()[0] for text in texts] == ["red", "scl"] and all("2021-07-13" in text for text in texts)
    assert (values.red[1] == 0).all() and (values.scl[1] == 0).all() and (values.swir16[1] > 0).all()
    assert (values.isel(time=0).to_dataarray() > 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.CloudfreeWarning)
        filled = cube.cloudfree.fill("2021-07-13", model="nearest", layers="filled").compute()
    assert not (filled.filled == 1).any() and (filled.filled == 2).any()


@pytest.mark.parametrize("kind", ["429", "500", "reset", "truncated", "slow"])
def test_a_passing_fault_is_not_noticed(archive, kind):
    (item,) = items(archive)
    archive.faults = [Fault(kind, "red", times=1)]
    assert (loaded([item], bands=["red"], mask=False).red.compute() > 0).all()
    assert archive.faults[0].times == 0


def test_redirects_are_followed(archive):
    (item,) = items(archive)
    archive.faults = [Fault("redirect")]
    assert (loaded([item]).to_dataarray().compute() > 0).all()
    assert any("moved=1" in path for _, path, _ in archive.requests)


def signed(url):
    """Sign a URL as an archive does."""
    return f"{url}?{SECRET}"


def test_signatures_are_made_when_they_are_needed(archive):
    (item,) = items(archive)
    archive.faults = [Fault("signature")]
    cube = loaded([item], sign=signed)
    assert not archive.requests
    assert (cube.to_dataarray().compute() > 0).all()
    assert all(SECRET in path for _, path, _ in archive.requests)


def test_signatures_are_not_told(archive, caplog, capfd):
    (item,) = items(archive)
    archive.faults = [Fault("404")]
    with pytest.raises(errors.InputError) as caught:
        loaded([item], sign=signed).red.compute()
    assert SECRET not in str(caught.value) + caplog.text + "".join(capfd.readouterr())


@pytest.mark.filterwarnings("ignore:Support for class-based")
def test_assets_of_the_planetary_computer_are_signed(archive, monkeypatch):
    """By its own package, with a token of the server of the test; URLs of others stay as they are."""
    computer = pytest.importorskip("planetary_computer")
    token = {"msft:expiry": "2999-01-01T00:00:00Z", "token": "se=2999&sp=r&sig=abc"}
    folder = archive.folder / "token" / "sentinel2l2a01"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sentinel2-l2").write_text(json.dumps(token))
    monkeypatch.setattr(computer.settings.Settings.get(), "sas_url", f"{archive.url}/token")
    url = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/29/T/NE/B04.tif"
    assert sign_planetary_computer(url) == f"{url}?{token['token']}"
    assert sign_planetary_computer(f"{archive.url}/B04.tif") == f"{archive.url}/B04.tif"
    assert [path for _, path, _ in archive.requests] == ["/token/sentinel2l2a01/sentinel2-l2"]


def test_nothing_is_asked_before_values_are_needed_and_little_then(archive):
    found = items(archive, 3)
    cube = loaded(found)
    filled = cube.cloudfree.fill("2021-07-13", model="linear")
    assert archive.requests == []
    assert (filled.red.isel(y=slice(0, 30), x=slice(0, 30)).compute() > 0).any()
    asked = [path for _, path, _ in archive.requests]
    assert not any("green" in path for path in asked)
    files = {path.partition("?")[0] for path in asked}
    sizes = sum((archive.folder / path.lstrip("/")).stat().st_size for path in files)
    # Each file is read once: 1.1 times the bytes of the files, which have one or four blocks, and their headers.
    assert archive.sent <= 1.1 * sizes + 16384 * len(files), (archive.sent, sizes)


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_reads_are_counted(archive, scheduler):
    found = items(archive, 2)
    cube = loaded(found, chunks=64, retries=3, timeout=5)
    archive.faults = [Fault("429", f"{found[0]['id']}/red", times=2)]
    with xr_cloudfree.ReadingProgress() as progress:
        cube.red.compute(scheduler=scheduler)
        first = progress.reads
        (cube.red.isel(y=slice(0, 30)) + 1).compute(scheduler=scheduler)
    rows, columns = (len(chunks) for chunks in cube.red.chunks[1:])
    assert rows > 1 and columns > 1
    # Each chunk needs a part of one file; those of the second computation are read again.
    assert (first.total, first.done, first.in_flight, first.failed) == (2 * rows * columns,) * 2 + (0, 0)
    assert first.pixels == cube.red.size and first.size == cube.red.nbytes
    # Two faults: chunks of one file that are read at the same time wait for the same request.
    assert 1 <= first.retries <= 2
    assert progress.reads.total == progress.reads.done == first.done + 2 * columns
    cube.red.compute(scheduler=scheduler)  # closed by now
    assert progress.reads.done == first.done + 2 * columns


def test_what_a_fill_reads_is_counted_and_what_failed(archive):
    good, bad, last = items(archive, 3)
    cube = loaded([good, bad, last], on_error="missing", retries=0, bands=["red"])
    archive.faults = [Fault("404", f"{bad['id']}/red")]
    image = cube.cloudfree.fill("2021-07-13", model="linear")
    with xr_cloudfree.ReadingProgress() as progress, pytest.warns(errors.CloudfreeWarning, match="cannot be read"):
        image.compute()
    assert progress.reads.total == progress.reads.done == 6 and progress.reads.failed == 1
    loose = loaded([bad], retries=0, bands=["red"], mask=False)
    with pytest.raises(errors.InputError), xr_cloudfree.ReadingProgress() as progress:
        loose.compute()
    assert progress.reads.failed == 1 and progress.reads.in_flight == 0


def test_a_bar_shows_the_counts(archive, monkeypatch, capsys):
    monkeypatch.setattr("xr_cloudfree.loading.progress._can_display", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with xr_cloudfree.ReadingProgress():
        xr.DataArray(np.ones(3)).chunk().compute()  # nothing of an archive
    assert "reading" not in capsys.readouterr().err
    cube = loaded(items(archive, 2))
    with xr_cloudfree.ReadingProgress() as progress:
        cube.compute()
    assert f"{progress.reads.total}/{progress.reads.total} reads, 0 in flight, 0 retries" in capsys.readouterr().err
    with xr_cloudfree.ReadingProgress(display=False):
        cube.compute()
    assert capsys.readouterr().err == ""


def test_reads_of_others_are_not_counted(tmp_path):
    """odc-stac reads with its own driver."""
    item = make_item(tmp_path, "earth_search_c1", "2021-07-08T11:21:21")
    others = odc.stac.load([pystac.Item.from_dict(item)], bands=["red"], chunks={})
    with xr_cloudfree.ReadingProgress() as progress:
        others.compute()
    assert progress.reads == Reads()


def test_files_are_those_that_items_promise(archive):
    (item,) = items(archive)
    path = archive.folder / item["id"] / "red.tif"
    with rasterio.open(path) as file:
        profile, values = file.profile, file.read(1)
    for change, words in (({"crs": None}, "has no CRS"), ({"dtype": "float32"}, "holds float32, not uint16")):
        with rasterio.open(path, "w", **profile | change) as file:
            file.write(values.astype(change.get("dtype", "uint16")), 1)
        with pytest.raises(errors.InputError, match=words):
            loaded([item | {"id": item["id"]}], bands=["red"]).red.compute()


def test_nodata_of_the_file_is_that_of_the_cube(tmp_path):
    item = make_item(tmp_path, "earth_search_c1", "2021-07-08T11:21:21", clouds=False)
    path = tmp_path / item["id"] / "red.tif"
    with rasterio.open(path) as file:
        profile, values = file.profile, file.read(1)
    values[:100] = 7
    with rasterio.open(path, "w", **profile | {"nodata": 7}) as file:
        file.write(values, 1)
    for resampling in ("nearest", "bilinear"):
        for crs in (None, "EPSG:3857"):
            cube = xr_cloudfree.load([item], bbox=area(), bands=["red"], resampling=resampling, crs=crs).compute()
            empty = (cube.red == 0).mean()
            assert 0.4 < empty < 0.8 and not (cube.red == 7).any() and np.isnan(xr.decode_cf(cube).red).any()
