"""Products of Sentinel-2 in the Zarr format of EOPF: the values of the ground, on the right pixels and dates."""

import shutil
import warnings

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.eopf import BANDS, EDGE, LEFT, REFLECTANCE, TOP, classes, make_tree, stored, write_product
from xr_cloudfree import errors, open_eopf

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata")
TIMES = [f"2025-06-{day:02d}T10:10:41.024Z" for day in (2, 7, 12, 17, 22, 27)]
NATIVE_20 = ["blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir08", "swir16", "swir22"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A product in both formats of Zarr, which tests leave as it is."""
    return {version: write_product(tmp_path_factory.mktemp(f"zarr{version}"), version) for version in (2, 3)}


@pytest.fixture(scope="module")
def path(paths):
    return paths[2]


def opened_as(how, paths, folder):
    """The product in one of the forms in which a user has it."""
    if how in ("zarr 2", "zarr 3"):
        return paths[int(how[-1])]
    if how == "url":
        return f"file://{paths[2]}"
    if how == "zip":
        return shutil.make_archive(str(folder / "product.zarr"), "zip", paths[3])
    decoded = "decoded" in how
    options = {"chunks": {}} if "dask" in how else {}
    tree = xr.open_datatree(paths[2], engine="zarr", mask_and_scale=decoded, consolidated=True, **options)
    assert (tree["measurements/reflectance/r10m/b02"].dtype.kind == "f") == decoded
    return tree


FORMS = ["zarr 2", "zarr 3", "url", "zip", "tree", "tree, decoded", "tree, dask", "tree, dask, decoded"]


@pytest.mark.parametrize("how", FORMS)
def test_known_answer(paths, tmp_path, how):
    cube = open_eopf(opened_as(how, paths, tmp_path))
    assert list(cube.data_vars) == ["blue", "green", "red", "nir", "scl"]
    for name, band in {"blue": "b02", "green": "b03", "red": "b04", "nir": "b08"}.items():
        assert cube[name].dims == ("time", "y", "x") and cube[name].dtype == "uint16"
        np.testing.assert_array_equal(cube[name][0], stored(band, 10, -0.1))
        assert cube[name].attrs["common_name"] == name
    np.testing.assert_array_equal(cube.scl[0], classes(20).repeat(2, 0).repeat(2, 1))
    assert cube.rio.crs.to_epsg() == 32632
    np.testing.assert_array_equal(cube.x, LEFT + 5 + 10 * np.arange(48))
    np.testing.assert_array_equal(cube.y, TOP - 5 - 10 * np.arange(48))
    assert cube.time.values[0] == np.datetime64("2025-06-27T10:10:41.024")
    assert cube.platform.item() == "sentinel-2b" and cube.baseline.item() == "05.11" and cube.cloud_cover.item() == 0
    assert cube.item_id.item().startswith("S2B_MSIL2A_20250627T101041_N0511")


@pytest.mark.parametrize("how", FORMS)
def test_the_offset_is_applied_once(paths, tmp_path, how):
    """Values off by 1000 are the known trap: the offset is in the attributes, and xarray applies it by itself."""
    cube = open_eopf(opened_as(how, paths, tmp_path))
    ground = REFLECTANCE["b04"] + 0.1 * (np.arange(48) + 0.5) / 48
    decoded = xr.decode_cf(cube).red[0]
    assert np.isnan(decoded[:12, :6]).all()
    np.testing.assert_allclose(decoded[20], ground, atol=5.1e-5)
    image = cube.cloudfree.fill(date="2025-06-27", model="nearest", bands=["blue", "green", "red", "nir"])
    np.testing.assert_allclose(xr.decode_cf(image).red[20], ground, atol=5.1e-5)


@pytest.mark.parametrize("encode", ["cf", "eopf", "nowhere"])
def test_baselines_of_two_offsets_get_one_encoding(tmp_path, encode):
    """Without metadata of bands the baseline tells; a baseline before 04.00 has no offset."""
    old = write_product(tmp_path, when=TIMES[0], baseline="0301", offset=0.0, encode=encode)
    new = write_product(tmp_path, when=TIMES[1], baseline="0511", offset=-0.1, encode=encode)
    cube = open_eopf([new, old])
    assert cube.baseline.values.tolist() == ["03.01", "05.11"]
    np.testing.assert_array_equal(cube.red[0], cube.red[1])
    np.testing.assert_array_equal(cube.red[1], stored("b04", 10, -0.1))
    given = open_eopf([new, old], offset={cube.item_id.values[0]: -0.1})
    np.testing.assert_array_equal(given.red[0], stored("b04", 10, 0.0))


def test_a_series_is_filled(tmp_path):
    paths = [
        write_product(tmp_path, when=when, cloud=240 if i == 3 else 0, bright=0.01 * i) for i, when in enumerate(TIMES)
    ]
    cube = open_eopf(paths[::-1], bands=["b04", "b08"])
    assert list(cube.data_vars) == ["b04", "b08", "scl"]
    assert (np.diff(cube.time) > np.timedelta64(0)).all() and cube.sizes["time"] == 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = cube.cloudfree.fill(date="2025-06-17", model="linear", layers="filled")
    assert (image.filled[:24, 6:] == 2).all() and (image.filled[24:] == 1).all()
    # The ground brightens evenly, so that the linear model knows it under the cloud.
    expected = REFLECTANCE["b04"] + 0.03 + 0.1 * (np.arange(48) + 0.5) / 48
    np.testing.assert_allclose(xr.decode_cf(image).b04[12:24, 6:], np.tile(expected[6:], (12, 1)), atol=2e-4)
    stored_by_run = xr_cloudfree.to_zarr(cube, tmp_path / "out.zarr", "2025-06-17", model="linear", layers="filled")
    np.testing.assert_array_equal(stored_by_run.filled, image.filled)


def test_native_bands_of_each_resolution(path):
    for size, names in ((20, NATIVE_20), (60, NATIVE_20)):
        cube = open_eopf(path, resolution=size, mask=False)
        assert list(cube.data_vars) == names and cube.sizes["x"] == EDGE // size
        np.testing.assert_array_equal(cube.swir16[0], stored("b11", size, -0.1))
        assert cube.x[1] - cube.x[0] == size and cube.x[0] == LEFT + size / 2 and cube.y[0] == TOP - size / 2
    named = open_eopf(path, resolution=60, bands=["b09", "coastal"])
    np.testing.assert_array_equal(named.b09[0], stored("b09", 60, -0.1))
    np.testing.assert_array_equal(named.scl[0], classes(60))


def test_other_resolutions_are_asked_for(path):
    with pytest.raises(errors.BandError, match="'b11' at 20 m, not at 10 m") as caught:
        open_eopf(path, bands=["b04", "b11"])
    assert "resolution=20" in caught.value.remedy and "resampling='nearest'" in caught.value.remedy
    cube = open_eopf(path, bands=["b04", "b11"], resampling="nearest")
    np.testing.assert_array_equal(cube.b11[0], stored("b11", 20, -0.1).repeat(2, 0).repeat(2, 1))
    with pytest.raises(errors.BandError, match="'nir' at 10 m, not at 20 m"):
        open_eopf(path, bands=["nir"], resolution=20)
    fine = stored("b08", 10, -0.1)
    for how, expected in (("average", averaged(fine, 2)), ("nearest", fine[1::2, 1::2])):
        cube = open_eopf(path, bands=["nir"], resolution=20, resampling=how)
        np.testing.assert_array_equal(cube.nir[0], expected)


def averaged(values, factor):
    """The average of valid pixels, pixel by pixel."""
    n = values.shape[0] // factor
    out = np.zeros((n, n), "uint16")
    for row in range(n):
        for column in range(n):
            part = values[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            out[row, column] = np.rint(part[part != 0].mean()) if part.any() else 0
    return out


@pytest.mark.parametrize("chunk", [5, 7, 48])
def test_chunks_do_not_matter(tmp_path, chunk):
    """Also where chunks are no whole number of coarse pixels, and an average has missing pixels."""
    path = write_product(tmp_path, chunk=chunk, zarr_format=3)
    values = stored("b08", 10, -0.1)
    for size in (20, 60):
        cube = open_eopf(path, bands=["nir"], resolution=size, resampling="average")
        np.testing.assert_array_equal(cube.nir[0], averaged(values, size // 10))
    tree = make_tree()
    tree["measurements/reflectance/r10m"].dataset = tree["measurements/reflectance/r10m"].to_dataset().map(holes)
    cube = open_eopf(tree, bands=["nir"], resolution=60, resampling="average")
    np.testing.assert_array_equal(cube.nir[0], averaged(holes(values), 6))


def holes(values):
    values = values.copy()
    values[::5, 1::4] = 0
    return values


def test_nothing_is_read_before(tmp_path):
    path = write_product(tmp_path)
    cube = open_eopf(path, bands=["b04", "b05"], resampling="nearest")
    shutil.rmtree(path / "measurements" / "reflectance" / "r20m" / "b05")
    assert cube.b04.compute().any() and all(cube[name].chunks for name in ("b04", "b05", "scl"))


def test_of_one_acquisition_the_newest_baseline(tmp_path):
    old = write_product(tmp_path, baseline="0510", bright=0.1)
    new = write_product(tmp_path, baseline="0511")
    for order in ([old, new], [new, old], (path for path in (old, new))):
        cube = open_eopf(order)
        assert cube.baseline.values.tolist() == ["05.11"]
        np.testing.assert_array_equal(cube.red[0], stored("b04", 10, -0.1))


def test_crs_from_wherever_it_is(tmp_path):
    tree = make_tree()
    del tree.attrs["other_metadata"]
    assert open_eopf(tree).rio.crs.to_epsg() == 32632
    del tree.attrs["stac_discovery"]["properties"]["proj:epsg"]
    assert open_eopf(tree).rio.crs.to_epsg() == 32632
    for node in tree.subtree:
        for array in node.data_vars.values():
            array.attrs.pop("proj:epsg", None)
    with pytest.raises(errors.GridError, match="does not say its CRS"):
        open_eopf(tree)


def test_tiles_are_not_mixed(tmp_path):
    first, other = make_tree(when=TIMES[0]), make_tree(when=TIMES[1])
    other.attrs["other_metadata"] = {"horizontal_CRS_code": "EPSG:32633"}
    with pytest.raises(errors.GridError, match=r"EPSG:32632.*EPSG:32633"):
        open_eopf([first, other])
    moved = make_tree(when=TIMES[1])
    for size in BANDS:
        group = moved[f"measurements/reflectance/r{size}m"]
        group.dataset = group.to_dataset().assign_coords(x=group.x.values + 60)
    with pytest.raises(errors.GridError, match="different grids"):
        open_eopf([first, moved])


def test_part_of_a_tree():
    tree = make_tree()
    tree["measurements/reflectance/r20m"].dataset = tree["measurements/reflectance/r20m"].to_dataset().isel(x=slice(12))
    with pytest.raises(errors.GridError, match="pixels of 20 m"):
        open_eopf(tree, bands=["b05"], resampling="nearest")


def without(path):
    tree = make_tree()
    folder, _, name = path.rpartition("/")
    del tree[folder][name]
    return tree


def floats():
    tree = make_tree()
    group = tree["measurements/reflectance/r10m"]
    group.dataset = (group.to_dataset() * 1e-4).astype("float32")
    return tree


def described_as(**attrs):
    tree = make_tree(encode="nowhere")
    for array in tree["measurements/reflectance/r10m"].data_vars.values():
        array.attrs |= attrs
    return tree


@pytest.mark.parametrize(
    ("make", "how", "error", "found"),
    [
        (lambda: "nowhere.zarr", {}, errors.OptionError, "nowhere.zarr does not exist"),
        (lambda: [], {}, errors.OptionError, "there are no products"),
        (lambda: 3, {}, errors.OptionTypeError, "a product is a int"),
        (lambda: [make_tree(), None], {}, errors.OptionTypeError, "a product is a NoneType"),
        (lambda: make_tree().to_dataset(), {}, errors.OptionTypeError, "a product is a"),
        (lambda: xr.DataTree(), {}, errors.InputError, "has no group measurements/reflectance"),
        (make_tree, {"resolution": 30}, errors.OptionError, "resolution is 30"),
        (make_tree, {"resampling": "cubic"}, errors.OptionError, "resampling is 'cubic'"),
        (make_tree, {"bands": ["b99"]}, errors.BandError, "no item has the band 'b99'"),
        (lambda: without("conditions/mask"), {}, errors.MaskError, "lack the quality layer 'scl'"),
        (
            lambda: without("measurements/reflectance/r60m"),
            {"resolution": 60},
            errors.BandError,
            "no band in common at 60 m",
        ),
        (floats, {}, errors.ScalingError, "its encoding is gone"),
        (lambda: described_as(scale_factor=1e-4, add_offset=-1000.0), {}, errors.ScalingError, "offset -1000"),
        (lambda: described_as(scale_factor=1.0, add_offset=-0.1), {}, errors.ScalingError, "have scale 1"),
        (lambda: described_as(_FillValue=9999), {}, errors.ScalingError, "nodata value 9999"),
    ],
)
def test_errors_say_what_is_wrong(make, how, error, found):
    with pytest.raises(error, match=found):
        open_eopf(make(), **how)


def test_no_time():
    tree = make_tree()
    tree.attrs["stac_discovery"]["properties"]["datetime"] = None
    with pytest.raises(errors.TimeError, match="no datetime"):
        open_eopf(tree)
    tree.attrs["stac_discovery"]["properties"]["start_datetime"] = TIMES[2]
    assert open_eopf(tree).time.values[0] == np.datetime64(TIMES[2].rstrip("Z"))


def test_a_damaged_chunk_is_an_error(tmp_path):
    path = write_product(tmp_path)
    chunk = path / "measurements" / "reflectance" / "r10m" / "b04" / "1.1"
    chunk.write_bytes(b"none")
    with pytest.raises(errors.InputError, match="b04"):
        open_eopf(path).red.compute()


def test_other_functions_lead_here(path):
    for call in (
        lambda: xr_cloudfree.io.open_cube(path),
        lambda: xr_cloudfree.io.open_cube(f"file://{path}"),
        lambda: xr_cloudfree.fill(make_tree(), "2025-06-27"),
        lambda: xr_cloudfree.load(path),
        lambda: xr_cloudfree.load([str(path)]),
    ):
        with pytest.raises(errors.CloudfreeError) as caught:
            call()
        assert "xr_cloudfree.open_eopf(" in caught.value.remedy
