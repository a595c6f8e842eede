"""What items say: offsets by precedence, baselines however they are written, bands, and what is refused."""

import numpy as np
import pystac
import pytest

from tests.support.archives import FORMS, an_item
from xr_cloudfree import errors
from xr_cloudfree.loading.products import PRODUCTS
from xr_cloudfree.loading.scenes import check_bands, parse_scenes

# What is added to values so that they have the offset -0.1.
SUBTRACTED, WITH_OFFSET = 1000, 0


def the_scene(*args, offset=None, **properties):
    (scene,) = parse_scenes([an_item(*args, **properties)], offset)
    return scene


@pytest.mark.parametrize(
    "form, properties, shift",
    [
        # What the archive says it did to the values counts more than its description of the bands, always -0.1.
        ("earth_search_v1", {"earthsearch__boa_offset_applied": True}, SUBTRACTED),
        ("earth_search_v1", {"earthsearch__boa_offset_applied": False}, WITH_OFFSET),
        ("earth_search_v1", {"earthsearch__boa_offset_applied": False, "s2__processing_baseline": "03.01"}, SUBTRACTED),
        ("earth_search_v1", {"earthsearch__boa_offset_applied": "false"}, WITH_OFFSET),
        # The description of the bands, then the baseline.
        ("earth_search_c1", {"s2__processing_baseline": "02.14"}, WITH_OFFSET),
        ("cdse", {}, WITH_OFFSET),
        ("planetary_computer_s2", {}, SUBTRACTED),
        ("planetary_computer_s2", {"s2__processing_baseline": "04.00"}, WITH_OFFSET),
        ("planetary_computer_s2", {"s2__processing_baseline": "03.01"}, SUBTRACTED),
    ],
)
def test_the_offset_of_sentinel_2_by_item(form, properties, shift):
    assert the_scene(form, **properties).shift == shift


@pytest.mark.parametrize("form", [name for name in FORMS if name.startswith(("landsat", "hls"))])
def test_others_have_the_encoding_of_their_product(form):
    assert the_scene(form).shift == 0


def test_an_option_counts_more_than_metadata():
    assert the_scene(offset=-0.1).shift == WITH_OFFSET and the_scene(offset=0).shift == SUBTRACTED
    items = [an_item(name="a"), an_item(name="b")]
    assert [s.shift for s in parse_scenes(items, {"b": -0.1})] == [SUBTRACTED, WITH_OFFSET]
    with pytest.raises(errors.OptionError, match="offset= names 'c'"):
        parse_scenes(items, {"c": -0.1})


def test_only_flags_on_baselines_with_an_offset_are_doubtful():
    assert the_scene().doubtful and not the_scene(offset=0).doubtful and not the_scene("earth_search_c1").doubtful
    assert not the_scene(s2__processing_baseline="03.01").doubtful


@pytest.mark.parametrize(
    "properties, drop, baseline",
    [
        ({"s2__processing_baseline": "05.10"}, (), "05.10"),
        ({"s2__processing_baseline": 5.1}, (), "05.10"),
        ({"s2__processing_baseline": "0510"}, (), "05.10"),
        ({"s2__processing_baseline": "N0214"}, (), "02.14"),
        ({"processing__version": "05.11"}, ("s2:processing_baseline",), "05.11"),
        ({}, ("s2:processing_baseline",), "05.10"),  # of the product's name
        ({}, ("s2:processing_baseline", "s2:product_uri"), ""),
    ],
)
def test_baselines_however_written(properties, drop, baseline):
    properties = {key: value for key, value in properties.items()}
    assert the_scene(drop=drop, **properties).baseline == baseline


def test_an_unknown_offset_is_an_error_not_a_guess():
    with pytest.raises(errors.ScalingError, match="neither the bands nor the processing baseline") as caught:
        the_scene("planetary_computer_s2", name="S2A_29TNE", drop=("s2:processing_baseline",))
    assert caught.value.remedy == "offset=-0.1 or offset=0"
    assert (
        the_scene("planetary_computer_s2", offset=0, name="S2A_29TNE", drop=("s2:processing_baseline",)).shift == 1000
    )


def with_bands(key, value, form="earth_search_c1"):
    item = an_item(form)
    item["assets"][key]["raster:bands"] = [value]
    return item


@pytest.mark.parametrize(
    "item, words",
    [
        (with_bands("red", {"scale": 1e-4, "offset": -0.2}), "several encodings: .* red"),
        (with_bands("red", {"scale": 1e-3, "offset": -0.1}), "several encodings"),
    ],
)
def test_bands_in_several_encodings_are_refused(item, words):
    with pytest.raises(errors.ScalingError, match=words):
        parse_scenes([item])


def test_encodings_that_lose_values_are_refused():
    item = an_item("cdse")
    for asset in item["assets"].values():
        asset["raster:offset"] = -0.2
    with pytest.raises(errors.ScalingError, match=r"offset -0\.2"):
        parse_scenes([item])
    for asset in item["assets"].values():
        asset["raster:scale"] = 1e-3
    with pytest.raises(errors.ScalingError, match=r"scale 0\.001"):
        parse_scenes([item])


def test_scenes_of_all_forms():
    """Time in UTC, CRS, platform, and each asset under its common name, the finest where there are several."""
    for form, sensor in (("cdse", "sentinel-2"), ("landsat_tm", "landsat"), ("hls_l30", "hls")):
        scene = the_scene(form)
        assert scene.product.family == sensor and scene.when == np.datetime64("2021-07-08T11:21:21", "ns")
        assert set(scene.assets) <= {*scene.product.bands, scene.product.mask}
    scene = the_scene("cdse")
    assert scene.crs == "EPSG:32629" and scene.assets["blue"]["gsd"] == 10
    assert scene.assets["scl"]["gsd"] == 20 and the_scene("hls_s30").crs is None
    assert the_scene("planetary_computer_s2").platform == "sentinel-2a"
    assert the_scene(datetime="2021-07-08T23:30:00-02:00").when == np.datetime64("2021-07-09T01:30", "ns")
    assert the_scene(datetime=None, start_datetime="2021-07-08T10:00:00Z").when == np.datetime64("2021-07-08T10", "ns")


def test_pystac_items_and_their_geojson_are_the_same():
    item = an_item()
    item["geometry"], item["bbox"] = {"type": "Point", "coordinates": [-8.4, 40.1]}, [-8.4, 40.1, -8.4, 40.1]
    (a,), (b,) = parse_scenes([item]), parse_scenes([pystac.Item.from_dict(item)])
    assert (a.id, a.when, a.shift, a.crs, a.bbox) == (b.id, b.when, b.shift, b.crs, b.bbox)
    assert set(a.assets) == set(b.assets)
    assert len(parse_scenes([item, item, pystac.Item.from_dict(item)])) == 1


@pytest.mark.parametrize(
    "items, error, words",
    [
        (["sentinel-2-l2a"], errors.OptionTypeError, "an item is a str"),
        ([{"id": "a"}], errors.OptionTypeError, "an item is a dict"),
        ([an_item(), an_item("landsat_tm")], errors.OptionError, "several products"),
        ([an_item(datetime=None)], errors.TimeError, "no datetime"),
        ([an_item(datetime="yesterday noon")], errors.TimeError, "'yesterday noon'"),
        ([{"id": "a", "collection": "naip", "properties": {}, "assets": {"image": {}}}], errors.OptionError, "unknown"),
    ],
)
def test_items_that_cannot_be_used(items, error, words):
    with pytest.raises(error, match=words):
        parse_scenes(items)


def without(form, *keys, name="bare"):
    item = an_item(form, name=name)
    for key in keys:
        del item["assets"][key]
    return item


def test_bands_that_items_lack():
    scenes = parse_scenes([an_item(), without("earth_search_v1", "red")])
    assert "red" not in check_bands(scenes, None, True) and list(check_bands(scenes, ["B08"], False)) == ["B08"]
    with pytest.raises(errors.BandError, match="1 of 2 items lack the band 'red': bare") as caught:
        check_bands(scenes, ["red"], True)
    assert "'nir'" in caught.value.remedy and "'red'" not in caught.value.remedy
    with pytest.raises(errors.BandError, match="no item has the band 'pan'"):
        check_bands(scenes, ["pan"], True)
    blue = [key for key in FORMS["earth_search_c1"]["assets"] if key not in ("blue", "scl")]
    others = parse_scenes([without("earth_search_c1", *blue), without("earth_search_c1", "blue", name="other")])
    with pytest.raises(errors.BandError, match="no band in common"):
        check_bands(others, None, True)


def test_items_without_a_mask():
    scenes = parse_scenes([an_item(), without("earth_search_v1", "scl")])
    with pytest.raises(errors.MaskError, match="1 of 2 items lack the quality layer 'scl': bare") as caught:
        check_bands(scenes, None, True)
    assert caught.value.remedy.startswith("mask=False")
    assert "scl" not in check_bands(scenes, None, False)


def test_products_agree_with_the_table_of_sensors():
    for product in PRODUCTS:
        names = {name for sensor in [product.sensor] for name in sensor.bands.values()}
        assert set(product.bands) - names <= {"rededge071", "rededge075", "rededge078", "nir", "nir08", "nir09"}
        assert product.mask in product.sensor.layers
        assert np.iinfo(product.dtype).min <= product.encoding.nodata <= np.iinfo(product.dtype).max
