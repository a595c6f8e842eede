"""Searches of a STAC API on this machine, and items in other containers."""

import pystac
import pystac_client
import pytest

import xr_cloudfree
from tests.support.archive_server import Fault, serving_archive
from tests.support.archives import area, make_item
from xr_cloudfree import errors
from xr_cloudfree.loading import catalogs

DAYS = (3, 8, 13, 18)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving_archive(tmp_path_factory.mktemp("archive")) as archive:
        for day in DAYS:
            for form in ("earth_search_c1", "hls_l30" if day % 2 else "hls_s30"):
                archive.items.append(
                    make_item(
                        archive.folder, form, f"2021-07-{day:02d}T11:21:21", url=archive.url, eo__cloud_cover=5.0 * day
                    )
                )
        yield archive


@pytest.fixture
def archive(server):
    server.faults, server.requests, server.page = [], [], 100
    return server


def test_a_collection_an_area_and_some_months(archive):
    archive.page = 2  # a search comes page by page
    options = {"bbox": area(), "catalog": f"{archive.url}/stac"}
    cube = xr_cloudfree.load("sentinel-2-c1-l2a", time="2021-07", **options)
    assert cube.time.dt.day.values.tolist() == list(DAYS) and (cube.red.compute() > 0).all()
    assert xr_cloudfree.load("sentinel-2-c1-l2a", time="2021-07-05/2021-07-13", **options).sizes["time"] == 2
    few = xr_cloudfree.load("sentinel-2-c1-l2a", max_cloud_cover=40, **options)
    assert few.cloud_cover.values.tolist() == [15.0, 40.0]
    hls = xr_cloudfree.load(["HLSL30_2.0", "HLSS30_2.0"], time="2021-07", **options)
    assert hls.attrs["collection"] == "HLSL30_2.0,HLSS30_2.0" and (hls.red.compute() > 0).all()


def test_a_search_of_pystac_client_and_its_items_in_any_container(archive):
    client = pystac_client.Client.open(f"{archive.url}/stac")
    search = client.search(collections="sentinel-2-c1-l2a", bbox=area(), datetime="2021-07-01/2021-07-10")
    ids = {
        tuple(xr_cloudfree.load(source, bbox=area(), bands=["red"]).item_id.values)
        for source in (
            search,
            search.items(),
            search.item_collection(),
            search.item_collection_as_dict(),
            search.item_collection_as_dict()["features"],
            list(search.items())[::-1],
        )
    }
    assert len(ids) == 1 and len(ids.pop()) == 2
    single = xr_cloudfree.load(next(search.items()).to_dict(), bbox=area(), bands=["red"])
    assert single.sizes["time"] == 1


def test_a_static_catalogue(tmp_path):
    """Items in files, with relative links to their assets."""
    item = make_item(tmp_path / "files", "earth_search_c1", "2021-07-08T11:21:21")
    for asset in item["assets"].values():
        asset["href"] = str((tmp_path / "files" / item["id"] / asset["href"].rsplit("/", 1)[1]).resolve())
    catalog = pystac.Catalog("static", "static")
    catalog.add_item(pystac.Item.from_dict(item))
    catalog.normalize_hrefs(str(tmp_path / "catalog"))
    catalog.make_all_asset_hrefs_relative()
    catalog.save(pystac.CatalogType.SELF_CONTAINED)
    opened = pystac.Catalog.from_file(str(tmp_path / "catalog" / "catalog.json"))
    cube = xr_cloudfree.load(opened.get_items(recursive=True), bbox=area(), bands=["red"])
    assert (cube.red.compute() > 0).all()


def test_a_busy_catalogue_is_asked_again(archive):
    archive.faults = [Fault("429", "/stac/search", times=1), Fault("500", "/stac$", times=1)]
    cube = xr_cloudfree.load("sentinel-2-c1-l2a", bbox=area(), catalog=f"{archive.url}/stac", retries=2)
    assert cube.sizes["time"] == 4


@pytest.mark.parametrize(
    "source, options, error, words",
    [
        ("sentinel-2-c1-l2a", {"bbox": None}, errors.OptionError, "without an area"),
        ("sentinel-2-c1-l2a", {"time": "2020"}, errors.OptionError, "no item in"),
        ("sentinel-2-c1-l2a", {"bbox": (10, 10, 10.1, 10.1)}, errors.OptionError, "no item in"),
        ("sentinel-2-c1-l2", {}, errors.OptionError, "no collection 'sentinel-2-c1-l2'"),
        ("sentinel-2-c1-l2a", {"catalog": "earth-serch"}, errors.OptionError, "catalog is 'earth-serch'"),
        ("sentinel-2", {"catalog": None}, errors.OptionError, "no catalogue is known for the collection"),
        ("sentinel-2-c1-l2a", {"max_cloud_cover": 1}, errors.TimeError, "more than 1 % clouds"),
        ("sentinel-2-c1-l2a", {"max_cloud_cover": "some"}, errors.OptionError, "max_cloud_cover is 'some'"),
        ("sentinel-2-c1-l2a", {"timeout": 0}, errors.OptionError, "timeout is 0"),
        ("sentinel-2-c1-l2a", {"retries": -1}, errors.OptionError, "retries"),
        ("sentinel-2-c1-l2a", {"on_error": "ignore"}, errors.OptionError, "on_error is 'ignore'"),
        ("sentinel-2-c1-l2a", {"resampling": "best"}, errors.OptionError, "resampling is 'best'"),
        ("sentinel-2-c1-l2a", {"chunks": {"band": 1}}, errors.OptionError, "chunks names 'band'"),
        ([], {"catalog": None}, errors.OptionError, "there are no items"),
        (3, {"catalog": None}, errors.OptionTypeError, "the source is a int"),
        ([{"id": "x"}], {}, errors.OptionError, "catalog= is given beside items"),
    ],
)
def test_searches_that_cannot_be_done(archive, source, options, error, words):
    settings = {"bbox": area(), "catalog": f"{archive.url}/stac", "retries": 0} | options
    with pytest.raises(error, match=words) as caught:
        xr_cloudfree.load(source, **settings)
    assert caught.value.remedy


def test_latitudes_first_are_noticed_where_nothing_is_found(archive):
    west, south, east, north = area()
    client = pystac_client.Client.open(f"{archive.url}/stac")
    items = list(client.search(collections="sentinel-2-c1-l2a").items())
    for source, options in (("sentinel-2-c1-l2a", {"catalog": f"{archive.url}/stac"}), (items, {})):
        with pytest.raises(errors.CloudfreeError, match=r"longitude .* latitude") as caught:
            xr_cloudfree.load(source, bbox=(south, west, north, east), **options)
        assert f"bbox={(west, south, east, north)}" in caught.value.remedy
    with pytest.raises(errors.TimeError) as caught:
        xr_cloudfree.load(items, bbox=(50, 10, 50.1, 10.1))
    assert "bbox" not in caught.value.remedy


@pytest.mark.parametrize("kind", ["404", "500"])
def test_a_catalogue_that_does_not_answer(archive, kind):
    archive.faults = [Fault(kind, "/stac")]
    for url in (f"{archive.url}/stac", "http://127.0.0.1:9/stac"):
        with pytest.raises(errors.InputError, match=f"the catalogue {url} cannot be searched") as caught:
            xr_cloudfree.load("sentinel-2-c1-l2a", bbox=area(), catalog=url, retries=0, timeout=2)
        assert "curl" in caught.value.remedy


def test_collections_have_known_catalogues():
    assert set(catalogs.HOMES.values()) <= set(catalogs.CATALOGS)


def test_items_outside_the_area_and_time_are_left_out(archive):
    items = [item for item in archive.items if item["collection"] == "sentinel-2-c1-l2a"]
    far = make_item(archive.folder, "earth_search_c1", "2021-07-09T11:21:21", left=700_020, url=archive.url)
    assert xr_cloudfree.load([*items, far], bbox=area(), bands=["red"]).sizes["time"] == 4
    with pytest.raises(errors.TimeError, match="none of the 1 items is in"):
        xr_cloudfree.load([far], bbox=area())
    with pytest.raises(errors.TimeError, match="in the span 2022-01-01"):
        xr_cloudfree.load(items, bbox=area(), time="2022")
