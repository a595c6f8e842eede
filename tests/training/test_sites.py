"""Sites from cubes: read as the library reads cubes, and separated for validation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import as_dataset, make_cube
from tests.support.sites import make_place
from xr_cloudfree import synthetic
from xr_cloudfree.errors import CloudfreeError, MaskError, OptionError, OptionTypeError, ScalingError
from xr_cloudfree_training.sites import cloud_shapes, find_cubes, read_sites, split

ALL = (slice(None), slice(None))


def read(*cubes, memory=1e9, **reading):
    return read_sites(cubes, reading, memory)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(("east", "west")):
        cube = synthetic.cube(shape=(8, 3, 32, 40), seed=seed)
        cube = cube.assign_coords(x=cube["x"] + 1e5 * seed, band=cube["band"].astype(object))
        cube.to_zarr(tmp_path / f"{name}.zarr", consolidated=False)
    (tmp_path / "notes.txt").write_text("no cube")
    return tmp_path


@pytest.mark.parametrize("memory", [1e9, 0])
def test_values_are_those_that_the_library_reads(memory: float) -> None:
    da, clear = make_cube(dtype="uint16")
    cube = as_dataset(da, clear).isel(time=[3, 0, 1, 2, 6, 5, 4])
    (place,) = read(cube.chunk(y=20), memory=memory, mask="SCL")
    assert place.in_memory == (memory > 0)
    assert place.bands == ("blue", "red", "nir") and place.shape == (53, 61)
    assert (np.diff(place.time) > np.timedelta64(0)).all()
    expected = xr_cloudfree.clear_mask(cube, mask="SCL", repair=False).sortby("time").to_numpy()
    np.testing.assert_array_equal(place.clear(ALL), expected)
    part, dates, bands = (slice(5, 20), slice(30, 61)), np.array([1, 4]), np.array([2, 0])
    got = place.reflectance(part, dates, bands)
    raw = np.stack([cube[b].sortby("time").to_numpy() for b in ("B08", "B02")], axis=1)[dates][:, :, 5:20, 30:61]
    np.testing.assert_allclose(got, np.where(raw == 0, np.nan, raw * 1e-4), rtol=1e-6)
    chosen = place.of_bands(["nir", "blue"])
    assert chosen.common_names == ("nir", "blue")
    np.testing.assert_array_equal(chosen.reflectance(part, dates, np.array([0, 1])), got)


def test_an_array_of_bands_too(portugal: xr.Dataset) -> None:
    (place,) = read(portugal)
    values = place.reflectance(ALL, np.arange(2), np.array([3, 1]))
    np.testing.assert_allclose(values, portugal["reflectance"].isel(time=[0, 1], band=[3, 1]).to_numpy(), rtol=1e-6)
    part = place.cut((slice(10, 50), slice(None)), "part")
    assert part.shape == (40, 128) and part.name == "part"
    np.testing.assert_array_equal(part.clear(ALL), place.clear((slice(10, 50), slice(None))))


def test_cubes_are_found_by_path_folder_and_pattern(folder: Path) -> None:
    east, west = folder / "east.zarr", folder / "west.zarr"
    assert find_cubes([str(folder)]) == [east, west]
    assert find_cubes([f"{folder}/*st.zarr"]) == [east, west]
    assert find_cubes([str(west), east]) == [west, east]
    cube = xr.Dataset()
    assert find_cubes([cube])[0] is cube
    for cubes, found in (
        ([], "no cube is named"),
        ([f"{folder}/*.nc"], r"nothing is called like .*\*\.nc"),
        ([str(folder / "east.zarr" / "reflectance")], "holds"),
    ):
        if found == "holds":
            (folder / "empty").mkdir()
            cubes = [str(folder / "empty")]
        with pytest.raises(OptionError, match=found):
            find_cubes(cubes)


def test_errors_name_the_cube(folder: Path) -> None:
    da, clear = make_cube()
    with pytest.raises(CloudfreeError, match=r"nowhere\.zarr: there is nothing"):
        read(folder / "nowhere.zarr")
    with pytest.raises(MaskError, match="cube1: "):
        read(folder / "east.zarr", as_dataset(da, clear).drop_vars("SCL"))
    with pytest.raises(ScalingError, match="cube0: "):
        read(as_dataset(da * 3e4, clear), mask="SCL")
    with pytest.raises(OptionTypeError, match="no option 'maks'"):
        read(folder / "east.zarr", maks="SCL")


def test_cubes_of_one_name_are_told_apart(folder: Path) -> None:
    names = [place.name for place in read(folder / "east.zarr", folder / "west.zarr", folder / "east.zarr")]
    assert names == ["east-1", "west", "east-2"]


def test_what_is_known_of_a_date_holds_for_all_cubes_of_the_ground() -> None:
    cube = synthetic.cube(shape=(8, 3, 32, 40), seed=0)
    other = cube.isel(y=slice(16, 32))
    marked = cube.assign_coords(suspect=("time", np.arange(8) == 5))
    far = synthetic.cube(shape=(8, 3, 32, 40), seed=1)
    far = far.assign_coords(x=far["x"] + 1e5)
    places = read(marked, other, far)
    assert [place.suspect.tolist().index(True) if place.suspect.any() else None for place in places] == [5, 5, None]
    assert places[0].overlaps(places[1]) and not places[0].overlaps(places[2])


def test_clouds_of_a_cube_that_has_no_bands() -> None:
    da, clear = make_cube()
    index = xr.Dataset({"ndvi": da.isel(band=0, drop=True), "cloud_mask": (~clear).astype("uint8")})
    index["cloud_mask"].attrs = {"flag_values": np.array([0, 1], "uint8"), "flag_meanings": "clear cloud"}
    shapes = cloud_shapes(index, {})
    assert len(shapes) == 7 and all(shape.shape == (53, 61) for shape in shapes)


def test_named_places_are_held_out_with_what_overlaps_them() -> None:
    places = [
        replace(make_place(name), extent=("crs", x, x + 10.0, 0.0, 10.0))
        for name, x in zip("abcd", (0, 5, 30, 12), strict=True)
    ]
    train, held = split(places, ["a"], seed=0)
    # a and b overlap, b and d do too.
    assert [p.name for p in train] == ["c"] and [p.name for p in held] == ["a", "b", "d"]
    assert [p.name for p in split(places, ["c"], seed=0)[1]] == ["c"]
    with pytest.raises(OptionError, match="all sites are held out"):
        split(places, ["c", "d"], seed=0)
    with pytest.raises(OptionError, match=r"holdout names 'e'.*some of a, b, c, d"):
        split(places, ["e"], seed=0)


def test_a_fifth_of_the_places_is_held_out_by_chance() -> None:
    places = [make_place(f"p{i}") for i in range(10)]
    splits = [split(places, None, seed) for seed in (0, 0, 1, 2, 3)]
    held = [[p.name for p in part] for _, part in splits]
    assert held[0] == held[1] and all(len(h) == 2 for h in held) and len({tuple(h) for h in held}) > 1
    assert all(len(train) == 8 and not {p.name for p in train} & {p.name for p in part} for train, part in splits)
    assert len(split(places[:2], None, 0)[1]) == 1


def test_a_single_place_is_split_with_a_buffer() -> None:
    (train,), (held,) = split([make_place("only", shape=(40, 120))], None, 0)
    # A quarter of 120 columns is held out, and 16 lie between.
    assert train.shape == (40, 74) and held.shape == (40, 30)
    assert (train.name, held.name) == ("only-train", "only-held-out")
    whole = make_place("only", shape=(40, 120)).clear(ALL)
    np.testing.assert_array_equal(train.clear(ALL), whole[:, :, :74])
    np.testing.assert_array_equal(held.clear(ALL), whole[:, :, 90:])
    with pytest.raises(OptionError, match=r"has 40 x 46 pixels.*at least 48"):
        split([make_place(shape=(40, 46))], None, 0)
