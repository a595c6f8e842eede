"""Sentinel-1 in `fill`: it changes the result where it was observed and nowhere else, however it is stored."""

from __future__ import annotations

import warnings
from dataclasses import replace
from importlib.util import find_spec

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import xr_cloudfree  # noqa: E402
from tests.support.commands import run  # noqa: E402
from tests.support.cubes import CLASSICAL, as_dataset, make_cube, make_s1, nearly_same  # noqa: E402
from tests.support.networks import RADAR, make_model  # noqa: E402
from tests.support.strategies import chunkings  # noqa: E402
from xr_cloudfree import errors, io  # noqa: E402
from xr_cloudfree.models.bundles import bundle  # noqa: E402
from xr_cloudfree.models.networks.inputs import prepare  # noqa: E402
from xr_cloudfree.models.pretrained.locations import from_pretrained  # noqa: E402
from xr_cloudfree.models.protocol import Observations  # noqa: E402
from xr_cloudfree.models.spec import ModelSpec  # noqa: E402

DATE = "2021-06-03"
CUBE, CLEAR = make_cube()
S1 = make_s1(CUBE)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small network whose answer shows the radar of each pixel, and of its whole tile."""
    return make_model(tmp_path_factory.mktemp("radar") / "radar", **RADAR)


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    """The same network made without Sentinel-1."""
    return make_model(tmp_path_factory.mktemp("blind") / "radar", **RADAR | {"config": (("s1", False),)})


def fill(model, s1=None, cube=CUBE, date=DATE, clear=CLEAR, **how):
    return xr_cloudfree.fill(cube, date, clear=clear, model=model, s1=s1, **how)


class TestAnswer:
    def test_each_pixel_is_shown_what_is_nearest_in_time(self, model):
        """The network adds share x (VV - VH), less the mean over its tile: which observation it was shows."""
        whole = CUBE.isel(y=slice(24), x=slice(24)), CLEAR.isel(y=slice(24), x=slice(24))
        part = S1.isel(y=slice(24), x=slice(24))
        plain, told = (fill(model, s1, whole[0], clear=whole[1], block=32, repair=False) for s1 in (None, part))
        seen = np.isfinite(part.to_numpy()).all(axis=1)
        # 2021-05-30 and 2021-06-07 are equally near, then 2021-05-24; the others are too far away.
        ratio = np.select([seen[2], seen[3], seen[1]], list((part[:, 0] - part[:, 1]).to_numpy()[[2, 3, 1]]), 0.0)
        assert {float(n) for n in (seen[1] & ~seen[2] & ~seen[3], seen[3] & ~seen[2])[0].ravel()} == {0.0, 1.0}
        share = float(bundle.read_weights(model.source.folder(), model.spec, {"share": torch.zeros(())})["share"])
        filled = ~(whole[1].sel(time=DATE).to_numpy()) & np.isfinite(plain.to_numpy()).all(axis=0)
        change = (told - plain).to_numpy()[:, filled]
        tile = np.zeros((24, 24))
        for rows in (slice(0, 16), slice(16, 24)):  # the cores of tiles of 24 that lie 16 apart
            for columns in (slice(0, 16), slice(16, 24)):
                tile[rows, columns] = _tile_mean(ratio, rows, columns)
        np.testing.assert_allclose(change, np.broadcast_to((share * (ratio - tile))[filled], change.shape), atol=2e-6)

    def test_where_there_is_none_the_answer_is_as_without_bit_for_bit(self, model):
        plain = fill(model, layers="all")
        beyond = S1.sel(time=["2021-05-10", "2021-07-30"])  # 24 and 57 days away
        with pytest.warns(errors.CloudfreeWarning, match="no date of s1 is within 12 days"):
            far = fill(model, beyond, layers="all")
        lost = fill(model, S1.where(False), layers="all")
        for other in (far, lost):
            for name in plain.data_vars:
                np.testing.assert_array_equal(other[name], plain[name], err_msg=name)
        half = fill(model, S1.where(S1.x > S1.x[40]), block=16)
        same = (half == fill(model, block=16)) | half.isnull()
        # A tile reaches 4 pixels beyond its core of 16: the third, from column 32 on, is the first that sees any.
        assert same[:, :, :32].all() and not same[:, :, 44:].all()

    def test_the_cubes_own_clear_pixels_come_back(self, model):
        told = fill(model, S1, repair=False).to_numpy()
        seen = CLEAR.sel(time=DATE).to_numpy() & np.isfinite(CUBE.sel(time=DATE)).all("band").to_numpy()
        np.testing.assert_array_equal(told[:, seen], CUBE.sel(time=DATE).to_numpy()[:, seen])

    def test_the_output_says_from_which_dates(self, model):
        told = fill(model, S1, layers=["filled"])
        assert told.attrs["cloudfree_s1"] == "2021-05-24, 2021-05-30, 2021-06-07"
        assert told["reflectance"].attrs["cloudfree_s1"] == told.attrs["cloudfree_s1"]
        assert "cloudfree_s1" not in fill(model).attrs
        every = fill(model, S1, date=None).attrs["cloudfree_s1"]
        assert every == "2021-05-10, 2021-05-24, 2021-05-30, 2021-06-07, 2021-06-20"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", errors.CloudfreeWarning)
            assert fill(model, S1.isel(time=[0])).attrs["cloudfree_s1"] == "none within 12 days"

    def test_several_targets_are_each_alone(self, model):
        together = fill(model, S1, date=[DATE, "2021-06-15", "2021-09-01"], layers=["filled"], window=120)
        for i, date in enumerate([DATE, "2021-06-15"]):
            alone = fill(model, S1, date=date, layers=["filled"], window=120)
            np.testing.assert_array_equal(together["reflectance"][i], alone["reflectance"])
        none = fill(model, date="2021-09-01", window=120)
        np.testing.assert_array_equal(together["reflectance"][2], none)


def _tile_mean(ratio, rows, columns):
    """The mean over the tile whose core this is; beyond the cube lies its mirror image."""
    mirrored = np.pad(ratio, 24, mode="symmetric")
    y, x = rows.start + 20, columns.start + 20
    return mirrored[y : y + 24, x : x + 24].mean()


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    chunks=chunkings(),
    radar=st.tuples(chunkings(), st.integers(1, 6), st.integers(1, 2)),
    order=st.permutations(range(6)),
    date=st.sampled_from([DATE, None]),
)
def test_one_answer_whatever_the_chunks_and_the_order(model, chunks, radar, order, date):
    how = {"layers": "all", "date": date}
    eager = fill(model, S1, **how)
    pieces, dates, bands = radar
    other = S1.isel(time=order).chunk(pieces | {"time": dates, "band": bands})
    lazy = fill(
        model, other, CUBE.chunk(chunks), clear=CLEAR.chunk({d: n for d, n in chunks.items() if d != "band"}), **how
    )
    nearly_same(eager, lazy.compute(scheduler="synchronous"))
    nearly_same(eager, fill(model, other.to_dataset("band"), block=(32, 16), **how).compute(scheduler="threads"))


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(chunks=chunkings(), shard=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_streamed_is_in_memory(model, tmp_path_factory, chunks, shard):
    folder = tmp_path_factory.mktemp("s1")
    how = {"layers": "all", "clear": CLEAR, "model": model, "s1": S1.chunk(y=chunks["y"])}
    shard = (16 * shard[0], 16 * shard[1])
    done = xr_cloudfree.to_zarr(CUBE.chunk(chunks), folder / "out.zarr", DATE, shard=shard, **how)
    expected = fill(model, S1, layers="all")
    assert done.attrs["cloudfree_s1"] == expected.attrs["cloudfree_s1"]
    for name in expected.data_vars:
        np.testing.assert_array_equal(done[name], expected[name], err_msg=name)


def test_only_the_window_and_the_dates_that_are_near_are_read(model):
    """Of a radar that is larger than memory a block reads its own pixels on three dates."""
    read = []

    def block(block_info=None):
        place = block_info[None]["array-location"]
        read.append(place)
        return np.full([b - a for a, b in place], -12.0, np.float32)

    import dask.array as da

    chunks = ((1,) * 6, (2,), (16, 16, 16, 5), (16, 16, 16, 13))
    values = da.map_blocks(block, chunks=chunks, dtype="float32", meta=np.empty((0,) * 4, "float32"))
    how = dict(clear=CLEAR.chunk(y=16, x=16), block=16, repair=False)
    lazy = fill(model, S1.copy(data=values), CUBE.chunk(y=16, x=16), **how)
    assert not read
    lazy.isel(y=slice(16), x=slice(16)).compute(scheduler="synchronous")
    assert {place[0] for place in read} == {(1, 2), (2, 3), (3, 4)}
    assert {place[2:] for place in map(tuple, read)} <= {((a, a + 16), (b, b + 16)) for a in (0, 16) for b in (0, 16)}


def test_nothing_is_added_to_the_graph_without_it(model):
    cube, clear = CUBE.chunk(y=20, x=20).drop_vars("platform"), CLEAR.chunk(y=20, x=20)
    plain = fill(model, None, cube, clear=clear, block=16)
    told = fill(model, S1.chunk(y=20, x=20), cube, clear=clear, block=16)
    assert len(plain.__dask_graph__().layers) == 3 and len(told.__dask_graph__().layers) == 4
    assert plain.data.name != told.data.name
    assert told.data.name == fill(model, S1.chunk(y=20, x=20), cube, clear=clear, block=16).data.name
    assert told.data.npartitions == plain.data.npartitions

    def scheduler(*args, **kwargs):
        raise AssertionError("computed when built")

    with dask.config.set(scheduler=scheduler):
        fill(model, S1.chunk(y=20, x=20), cube, clear=clear)


class TestForms:
    def test_names_of_the_cubes_own_variables(self, model):
        flat = S1.to_dataset("band").rename(VV="s1_vv", VH="s1_vh").reindex(time=CUBE.time, method="nearest")
        expected = fill(model, flat)
        ds = as_dataset(CUBE, CLEAR).assign({name: flat[name].drop_vars("spatial_ref") for name in flat.data_vars})
        for s1 in ("s1_vv,s1_vh", ["s1_vv", "s1_vh"]):
            image = ds.cloudfree.fill(date=DATE, model=model, s1=s1)
            np.testing.assert_array_equal(image["B04"], expected.sel(band="red"))
            assert set(image.data_vars) == {"B02", "B04", "B08"}
        one = xr.Dataset({"cube": CUBE, "radar": flat.to_dataarray("bands").transpose("time", "bands", "y", "x")})
        image = one.cloudfree.fill(date=DATE, model=model, s1="radar", clear=CLEAR)
        np.testing.assert_array_equal(image["cube"], expected)

    @pytest.mark.parametrize("ending", ["zarr", "nc"])
    def test_a_path(self, model, tmp_path, ending):
        ds, path = S1.to_dataset("band"), tmp_path / f"s1.{ending}"
        if ending == "zarr":
            ds.chunk(y=20).to_zarr(path, zarr_format=3, consolidated=False)
        else:
            ds.to_netcdf(path)
        for given_as in (path, str(path)):
            np.testing.assert_array_equal(fill(model, given_as).compute(), fill(model, S1))

    def test_neither_a_file_nor_a_variable(self, model):
        for s1 in ("nothing.zarr", ["vv", "vh"], "", []):
            with pytest.raises(errors.OptionError, match="neither a file nor a variable"):
                fill(model, s1)
        with pytest.raises(errors.OptionTypeError):
            fill(model, 3)

    def test_on_another_grid(self, model):
        with pytest.raises(errors.GridError, match=r"s1\.interp"):
            fill(model, S1.assign_coords(x=S1.x + 5))

    def test_linear_power_is_refused_when_values_are_there(self, model):
        power = 10 ** (S1 / 10)
        with pytest.raises(errors.ScalingError, match=r"10 \* np\.log10\(s1\)"):
            fill(model, power)
        lazy = fill(model, power.chunk())
        with pytest.raises(errors.ScalingError, match=r"10 \* np\.log10\(s1\)"):
            lazy.compute()
        fill(model, power, check=False)


class TestModelsWithoutIt:
    @pytest.mark.parametrize("name", CLASSICAL)
    def test_every_other_model_refuses(self, name):
        with pytest.raises(errors.OptionError, match="does not use Sentinel-1") as info:
            fill(name, S1)
        assert "cloudfree train terramind fit" in info.value.remedy and "--data.s1" in info.value.remedy

    def test_a_learned_one_too(self, blind):
        fill(blind)
        with pytest.raises(errors.OptionError, match="'radar' does not use Sentinel-1"):
            fill(blind, S1)

    def test_a_model_without_it_is_given_none(self, model):
        assert model.spec.takes_s1 and not ModelSpec("mine", "my own").takes_s1
        obs = Observations(np.zeros((1, 3, 4, 4), np.float32), np.ones((1, 4, 4), bool), np.zeros(1))
        assert prepare(obs).features == {}
        with pytest.raises(errors.ModelError, match="s1 has shape"):
            Observations(obs.bands, obs.clear, obs.day_offset, s1=np.zeros((3, 4, 4), np.float32))


class TestEvaluate:
    def test_models_that_take_it_are_given_it(self, model, blind):
        cube, clear = make_cube(shape=(40, 44))
        clear[:] = True
        clear[3, :20] = False
        s1 = make_s1(cube, gaps=0.0)
        how = {"clear": clear, "tracks": ["partial"], "frames": 2, "size": 32}
        plain = xr_cloudfree.evaluate(cube, [model], **how)
        told = xr_cloudfree.evaluate(cube, [model, "linear"], s1=s1, **how)
        assert plain.loc[("partial", "radar"), "MAE"] != told.loc[("partial", "radar"), "MAE"]
        assert np.isfinite(told["MAE"]).all()
        again = xr_cloudfree.evaluate(cube.chunk(y=9), [model], s1=s1.to_dataset("band").chunk(x=7), **how)
        assert again.loc[("partial", "radar"), "MAE"] == pytest.approx(told.loc[("partial", "radar"), "MAE"])
        with pytest.raises(errors.OptionError, match="does not use Sentinel-1"):
            xr_cloudfree.evaluate(cube, ["linear", blind], s1=s1, **how)


class TestCommandLine:
    @pytest.fixture
    def folder(self, model, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        ds = as_dataset(CUBE, CLEAR).drop_vars("platform").chunk({"y": 32, "x": 32})
        ds.to_zarr("cube.zarr", zarr_format=3, consolidated=False)
        S1.to_dataset("band").to_zarr("s1.zarr", zarr_format=3, consolidated=False)
        return f"local-dir:{model.source.folder()}"

    def test_fill_and_batch(self, folder):
        run("fill", "cube.zarr", "--date", DATE, "--model", folder, "--s1", "s1.zarr", "-o", "out.zarr")
        expected = xr_cloudfree.fill(io.open_cube("cube.zarr"), DATE, model=folder, s1="s1.zarr").compute()
        back = xr.open_zarr("out.zarr")
        np.testing.assert_array_equal(back["B04"], expected["B04"])
        assert back.attrs["cloudfree_s1"] == "2021-05-24, 2021-05-30, 2021-06-07"
        run("batch", "cube.zarr", "--date", DATE, "--model", folder, "--s1", "s1.zarr", "-o", "all.zarr", "-q")
        np.testing.assert_array_equal(xr.open_zarr("all.zarr")["B04"], expected["B04"])

    def test_a_layer_of_the_cube_and_a_preview(self, folder):
        pytest.importorskip("matplotlib")
        ds = CUBE.drop_vars("platform").to_dataset().assign(cloud_mask=CLEAR)
        ds["radar"] = S1.reindex(time=CUBE.time, method="nearest").rename(band="bands").drop_vars("spatial_ref")
        ds["cloud_mask"] = xr.where(CLEAR, np.uint8(0), np.uint8(1)).assign_attrs(
            flag_values=np.array([0, 1], np.uint8), flag_meanings="clear cloud"
        )
        ds = ds.rename(reflectance="values")  # two variables with bands: only s1= tells which is the cube
        ds.assign_coords(band=ds.band.astype(object), bands=ds.bands.astype(object)).to_zarr(
            "both.zarr", zarr_format=3, consolidated=False
        )
        how = ["--date", DATE, "--model", folder, "--s1", "radar"]
        run("fill", "both.zarr", *how, "-o", "out.tif", "--preview", "out.png")
        assert io.open_cube("both.zarr").cloudfree.fill(date=DATE, model=folder, s1="radar").attrs["cloudfree_s1"]

    def test_what_cannot_be(self, folder):
        output = run("fill", "cube.zarr", "-d", DATE, "-m", "linear", "--s1", "s1.zarr", "-o", "a.zarr", code=2)
        assert "does not use Sentinel-1" in output and "cloudfree train terramind" in output
        output = run("evaluate", "cube.zarr", "--models", "linear,regress", "--s1", "s1.zarr", code=2)
        assert "does not use Sentinel-1" in output
        output = run("fill", "cube.zarr", "-d", DATE, "-m", folder, "--s1", "no.zarr", "-o", "a.zarr", code=2)
        assert "neither a file nor a variable" in output


@pytest.mark.skipif(find_spec("terratorch") is None, reason="needs terratorch")
def test_the_terramind_network_looks_at_it(tmp_path):
    from tests.support.terramind import BASE, SPEC, make

    spec = replace(SPEC, config=(("base", BASE), ("s1", True)))
    bundle.write(tmp_path / "b", spec, make(s1=True).state_dict(), "# A network for tests\n")
    model = from_pretrained(f"local-dir:{tmp_path / 'b'}", "cpu")
    plain, told = fill(model, layers=["uncertainty"]), fill(model, S1, layers=["uncertainty"])
    hidden = ~CLEAR.sel(time=DATE).to_numpy() & np.isfinite(plain["reflectance"]).all("band").to_numpy()
    assert (plain["reflectance"] != told["reflectance"]).to_numpy()[:, hidden].mean() > 0.9
    xr.testing.assert_equal(fill(model, S1.where(False), layers=["uncertainty"]), plain)
    nearly_same(told, fill(model, S1.chunk(y=11, x=13), layers=["uncertainty"]).compute(scheduler="synchronous"))
    with pytest.raises(errors.ModelError, match="encoder is 'none'"):
        make(s1=True, encoder="none")
