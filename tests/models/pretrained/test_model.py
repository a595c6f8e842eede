"""Pretrained models: what the engine gets from a network, what travels, and what is loaded how often."""

import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

import xr_cloudfree  # noqa: E402
from tests.support.cubes import DATES, make_cube  # noqa: E402
from tests.support.networks import TINY, make_bundle, make_model, state_of  # noqa: E402
from xr_cloudfree import errors  # noqa: E402
from xr_cloudfree.models import registry  # noqa: E402
from xr_cloudfree.models.auto import _warn_without_torch  # noqa: E402
from xr_cloudfree.models.bundles import bundle  # noqa: E402
from xr_cloudfree.models.networks import architectures  # noqa: E402
from xr_cloudfree.models.networks.batch import Batch, Output  # noqa: E402
from xr_cloudfree.models.networks.inputs import prepare  # noqa: E402
from xr_cloudfree.models.pretrained import locations, runtime  # noqa: E402
from xr_cloudfree.models.pretrained import model as pretrained  # noqa: E402
from xr_cloudfree.models.pretrained.model import PretrainedModel, _batches  # noqa: E402
from xr_cloudfree.models.protocol import Observations  # noqa: E402
from xr_cloudfree.models.spec import ModelSpec  # noqa: E402

TARGET = "2021-06-03"
DAYS = np.array([-30.0, -8.0, 0.0, 3.0, 21.0])


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch):
    monkeypatch.setattr(runtime, "_networks", {})


def observe(seed=0, n_bands=3, shape=(24, 24), target=2, common_names=()):
    rng = np.random.default_rng(seed)
    bands = rng.uniform(0.02, 0.4, (len(DAYS), n_bands, *shape)).astype(np.float32)
    clear = rng.random((len(DAYS), *shape)) > 0.5
    clear[:, :3, :3] = False
    bands[~np.broadcast_to(clear[:, None], bands.shape)] = np.nan
    return Observations(bands, clear, DAYS, target, common_names=common_names)


def replaced(monkeypatch, model, forward):
    """The model with another forward pass: `forward` is given the network's own and the batch."""
    network, _ = model._network()
    own = network.forward
    monkeypatch.setattr(network, "forward", lambda batch: forward(own, batch))


class TestAnswer:
    def test_it_is_the_networks(self, tmp_path):
        model = make_model(tmp_path)
        network = architectures.build(TINY)
        network.load_state_dict(state_of(TINY))
        tiles = [observe(seed) for seed in range(3)]
        for obs, answer in zip(tiles, model.predict(tiles), strict=True):
            with torch.no_grad():
                expected = network.eval()(Batch.of([prepare(obs)]))
            known = obs.clear[[0, 1, 3, 4]].any(axis=0)
            np.testing.assert_array_equal(answer.known, known)
            assert answer.bands.dtype == answer.uncertainty.dtype == answer.gate.dtype == np.float32
            image = np.where(known, expected.reflectance[0].numpy(), 0)
            np.testing.assert_allclose(answer.bands, image, atol=1e-6)
            sigma = np.where(known, expected.uncertainty[0].numpy(), 0)
            np.testing.assert_allclose(answer.uncertainty, sigma, atol=1e-6)

    def test_the_gate_lies_on_the_dates_of_the_tile(self, tmp_path):
        obs = observe()
        obs.clear[1] = False  # a date that the network is not given
        answer = make_model(tmp_path, max_dates=2).predict([obs])[0]
        gate = answer.gate
        assert gate.shape == obs.clear.shape
        # Of the clear ones the nearest two are 3 and 21 days away. The target's own pixels stand for those that lack.
        assert (gate[[0, 1]] == 0).all() and gate[3].any() and gate[4].any()
        assert (gate[3][~obs.clear[3]] == 0).all()
        others = obs.clear[3] | obs.clear[4]
        np.testing.assert_allclose(gate[[3, 4]].sum(axis=0)[others], 1, atol=1e-6)
        np.testing.assert_allclose(gate[2], obs.clear[2] & ~others, atol=1e-6)
        assert (answer.source[obs.clear[3] & ~obs.clear[4]] == 3).all()
        assert (answer.source[~others] == np.where(obs.clear[2], 2, -1)[~others]).all()

    @pytest.mark.parametrize("target", [-1, 2])
    def test_without_another_date_only_the_target_is_known(self, tmp_path, target):
        obs = observe(target=target)
        obs.clear[[0, 1, 3, 4]] = False
        if target < 0:
            obs.clear[2] = False
        answer = make_model(tmp_path).predict([obs])[0]
        np.testing.assert_array_equal(answer.known, obs.clear[2])
        assert np.isfinite(answer.bands).all() and answer.gate.shape == obs.clear.shape
        np.testing.assert_array_equal(answer.bands[:, answer.known], obs.bands[2][:, answer.known])

    def test_nan_never_leaves(self, tmp_path, monkeypatch):
        model = make_model(tmp_path)

        def sick(own, batch):
            out = own(batch)
            out.reflectance[:, 1, 4:6] = torch.nan
            out.reflectance[:, 0, 9] = torch.inf
            return out

        healthy = model.predict([observe()])[0]
        replaced(monkeypatch, model, sick)
        answer = model.predict([observe()])[0]
        assert np.isfinite(answer.bands).all() and not answer.known[[4, 5, 9]].any()
        keep = [y for y in range(24) if y not in (4, 5, 9)]
        np.testing.assert_array_equal(answer.known[keep], healthy.known[keep])

    def test_the_answer_for_a_tile_does_not_depend_on_the_others(self, tmp_path):
        model = make_model(tmp_path)
        tiles = [observe(0), observe(1, shape=(16, 20)), observe(2), observe(3, n_bands=2)]
        tiles[2].clear[[0, 1, 3, 4]] = False  # is not given to the network
        tiles[0].clear[4] = False  # has a date less
        together = model.predict(tiles)
        for obs, answer in zip(tiles, together, strict=True):
            alone = model.predict([obs])[0]
            assert answer.bands.shape == obs.bands.shape[1:]
            for name in ("bands", "uncertainty", "gate"):
                np.testing.assert_allclose(getattr(answer, name), getattr(alone, name), atol=1e-6)
            np.testing.assert_array_equal(answer.known, alone.known)

    def test_bands_go_to_their_places(self, tmp_path):
        order = ("blue", "green", "red", "nir")
        spec = dict(architecture="x-per-band", config=(("bands", 4),), bands=order, layers=())
        model = make_model(tmp_path, **spec)
        level = dict(zip(order, model.predict([observe(n_bands=4, common_names=order)])[0].bands[:, 9, 9], strict=True))
        assert len(set(level.values())) == 4
        common_names = ("nir", "red", "blue", "green")
        answer = model.predict([observe(n_bands=4, common_names=common_names)])[0]
        for i, role in enumerate(common_names):
            np.testing.assert_array_equal(answer.bands[i][answer.known], level[role])
        with pytest.raises(errors.BandError, match="needs band 'blue'"):
            model.predict([observe(n_bands=4)])

    def test_a_network_may_prepare_its_tiles_itself(self, tmp_path):
        obs = observe()
        answer = make_model(tmp_path, architecture="x-own", config=(), layers=()).predict([obs])[0]
        others = np.where(obs.clear[[0, 1, 3, 4], None], obs.bands[[0, 1, 3, 4]], 0)
        factor = state_of(answer_spec := bundle.read_spec(tmp_path))["one"].item()
        assert answer_spec.architecture == "x-own"
        expected = 2 * factor * others.max(axis=0)
        np.testing.assert_allclose(answer.bands[:, answer.known], expected[:, answer.known], rtol=1e-5)

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda own, batch: Output(own(batch).reflectance[..., :-1], batch.known()),
            lambda own, batch: Output(own(batch).reflectance, batch.known()),
        ],
        ids=["smaller", "without the layers of its spec"],
    )
    def test_a_network_that_answers_something_else_is_an_error(self, tmp_path, monkeypatch, wrong):
        model = make_model(tmp_path)
        replaced(monkeypatch, model, wrong)
        with pytest.raises(errors.ModelError, match="'x-tiny' returned"):
            model.predict([observe()])

    def test_bf16_is_near(self, tmp_path):
        exact = make_model(tmp_path).predict([observe()])[0]
        rough = xr_cloudfree.from_pretrained(f"local-dir:{tmp_path}", "cpu", "bf16").predict([observe()])[0]
        assert rough.bands.dtype == np.float32
        error = np.abs(rough.bands - exact.bands).max()
        assert 0 < error < 2e-3

    def test_what_other_packages_allow_torch_changes_nothing(self, tmp_path):
        """Importing terratorch lets torch multiply float32 as bfloat16 where the CPU can."""
        exact = make_model(tmp_path).predict([observe()])[0]
        torch.set_float32_matmul_precision("medium")
        again = make_model(tmp_path).predict([observe()])[0]
        assert torch.get_float32_matmul_precision() == "medium"
        np.testing.assert_array_equal(again.bands, exact.bands)

    @pytest.mark.parametrize(("threads", "batch", "at_once"), [(1, 1, 1), (2, 1, 2), (5, 2, 4), (1, 4, 4), (8, 3, 6)])
    def test_where_nothing_else_runs_each_thread_has_a_tile(self, tmp_path, threads, batch, at_once):
        before = torch.get_num_threads()
        model = make_model(tmp_path, batch=batch)
        try:
            torch.set_num_threads(threads)
            assert model.tiles_at_once == at_once
        finally:
            torch.set_num_threads(before)

    def test_where_torch_is_missing_it_says_what_to_install(self, tmp_path, monkeypatch):
        model = make_model(tmp_path)
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(errors.MissingDependencyError, match="torch"):
            _ = model.tiles_at_once

    def test_on_a_gpu_tiles_of_one_size_go_through_in_batches(self):
        small, large = (8, 8), (16, 16)
        tiles = [(small, 0), (small, 1), (large, 2), ((8, 16), 3), (small, 4), (large, 5)]
        assert list(_batches(tiles, 2)) == [[0, 1], [2, 5], [3], [4]]
        assert list(_batches(tiles[:2], 1)) == [[0], [1]]

    def test_a_batch_runs_while_the_next_tiles_are_prepared(self):
        prepared = []

        def tiles():
            for i in range(4):
                prepared.append(i)
                yield (8, 8), i

        batches = _batches(tiles(), 2)
        assert next(batches) == [0, 1] and prepared == [0, 1]


class TestMemory:
    @pytest.mark.parametrize("fits", [1, 2, 3, 5])
    def test_what_does_not_fit_is_halved(self, tmp_path, monkeypatch, fits):
        model = make_model(tmp_path)
        tiles = [observe(seed) for seed in range(5)]
        expected = model.predict(tiles)
        sizes = []

        def small(own, batch):
            sizes.append(len(batch.bands))
            if len(batch.bands) > fits:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
            return own(batch)

        replaced(monkeypatch, model, small)
        monkeypatch.setattr(pretrained, "_batches", lambda tiles, batch: [[tile for _, tile in tiles]])  # as on a GPU
        for found, answer in zip(model.predict(tiles), expected, strict=True):
            np.testing.assert_allclose(found.bands, answer.bands, atol=1e-6)
        assert sizes[0] == 5 and sum(size for size in sizes if size <= fits) == 5

    def test_a_tile_that_does_not_fit_by_itself_is_a_typed_error(self, tmp_path, monkeypatch):
        model = make_model(tmp_path)

        def never(own, batch):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

        replaced(monkeypatch, model, never)
        with pytest.raises(errors.SizeError, match="4 dates, 3 bands and 24 x 24 pixels") as info:
            model.predict([observe(), observe(1)])
        assert isinstance(info.value, MemoryError) and "device='cpu'" in info.value.remedy


class TestTravel:
    def test_it_is_small_and_answers_the_same(self, tmp_path):
        model = make_model(tmp_path)
        answer = model.predict([observe()])[0]
        data = pickle.dumps(model)
        assert len(data) < 2048
        runtime._networks.clear()
        back = pickle.loads(data)
        assert repr(back) == repr(model)
        np.testing.assert_array_equal(back.predict([observe()])[0].bands, answer.bands)

    def test_equal_weights_have_equal_names_wherever_they_lie(self, tmp_path):
        first, copy = make_model(tmp_path / "a"), make_model(tmp_path / "b")
        assert tokenize(first) == tokenize(copy) == tokenize(pickle.loads(pickle.dumps(first)))
        others = [
            make_model(tmp_path / "c", seed=1),
            make_model(tmp_path / "d", name="renamed"),
            make_model(tmp_path / "e", precision="bf16"),
            make_model(tmp_path / "f", device=None),
        ]
        assert len({tokenize(model) for model in (first, *others)}) == 5

    def test_the_graph_gets_the_same_names_again(self, tmp_path):
        da, clear = (array.chunk(y=20) for array in make_cube())
        names = {
            xr_cloudfree.fill(da, TARGET, clear=clear, model=make_model(tmp_path / name)).data.name for name in "ab"
        }
        assert len(names) == 1

    def test_a_relative_path_means_the_same_in_another_folder(self, tmp_path, monkeypatch):
        make_bundle(tmp_path / "tiny")
        monkeypatch.chdir(tmp_path)
        model = xr_cloudfree.from_pretrained("local-dir:tiny", device="cpu")
        monkeypatch.chdir("/")
        assert model.predict([observe()])[0].known.any()


class TestLoading:
    def test_once_per_process_whatever_the_threads(self, tmp_path, monkeypatch):
        made, build = [], architectures.build
        monkeypatch.setattr(architectures, "build", lambda spec: made.append(spec) or build(spec))
        copies = [make_model(tmp_path / "a"), make_model(tmp_path / "b")]
        made.clear()
        start = threading.Barrier(8)
        tiles = [observe(seed) for seed in range(8)]

        def run(i):
            start.wait()
            return [copies[i % 2].predict([tiles[(i + k) % 8]])[0] for k in range(8)]

        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(run, range(8)))
        assert len(made) == 1 and len(runtime._networks) == 1
        expected = [copies[0].predict([obs])[0] for obs in tiles]
        for i, answers in enumerate(done):
            for k, answer in enumerate(answers):
                np.testing.assert_array_equal(answer.bands, expected[(i + k) % 8].bands)

    def test_other_weights_are_another_network_and_few_are_kept(self, tmp_path):
        models = [make_model(tmp_path / str(seed), seed) for seed in range(6)]
        answers = [model.predict([observe()])[0].bands for model in models]
        assert len({answer.tobytes() for answer in answers}) == 6
        assert len(runtime._networks) == runtime._KEPT < 6
        np.testing.assert_array_equal(models[0].predict([observe()])[0].bands, answers[0])

    def test_the_same_weights_with_another_config_are_another_network(self, tmp_path):
        one, other = (make_model(tmp_path / str(c), config=(("hidden", 4), ("context", c))) for c in (0.1, 0.3))
        assert one.spec.weights_sha256 == other.spec.weights_sha256
        assert not np.allclose(one.predict([observe()])[0].bands, other.predict([observe()])[0].bands)

    def test_nothing_of_torch_is_switched(self, tmp_path):
        model = make_model(tmp_path)
        torch.manual_seed(7)
        expected = torch.rand(3)
        torch.manual_seed(7)
        model.predict([observe()])
        assert torch.equal(torch.rand(3), expected)
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        network, _ = model._network()
        assert not network.training and not any(p.requires_grad for p in network.parameters())

    def test_torch_is_imported_when_it_predicts_and_not_before(self, tmp_path):
        make_bundle(tmp_path)
        code = """if True:
            import sys
            import xr_cloudfree
            from tests.support.cubes import make_cube
            from xr_cloudfree.models.networks import architectures
            architectures.ARCHITECTURES["x-tiny"] = architectures.Architecture("tests.support.networks:Tiny")
            da, clear = (array.chunk(y=20) for array in make_cube())
            model = "local-dir:" + sys.argv[1]
            image = xr_cloudfree.fill(da, "2021-06-03", clear=clear, model=model, layers="all")
            xr_cloudfree.list_models()
            print("torch" in sys.modules)
            image.compute(scheduler="synchronous")
            print("torch" in sys.modules)
        """
        done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["False", "True"], done.stderr

    def test_weights_that_change_under_a_model_are_refused(self, tmp_path):
        model = make_model(tmp_path)
        make_bundle(tmp_path, seed=1)
        with pytest.raises(errors.WeightsError, match="SHA-256"):
            model.predict([observe()])


class TestOptions:
    @pytest.mark.parametrize("device", ["gpu", "cuda:x", 0, "", "mps"])
    def test_devices_that_there_are_not(self, tmp_path, device):
        make_bundle(tmp_path)
        with pytest.raises(errors.OptionError, match="device is") as info:
            xr_cloudfree.from_pretrained(f"local-dir:{tmp_path}", device)
        assert "device='cpu'" in info.value.remedy

    @pytest.mark.parametrize("precision", ["fp16", 32, None, []])
    def test_precisions_that_there_are_not(self, tmp_path, precision):
        make_bundle(tmp_path)
        with pytest.raises(errors.OptionError, match="precision is"):
            xr_cloudfree.from_pretrained(f"local-dir:{tmp_path}", precision=precision)

    def test_a_gpu_that_is_not_in_this_machine(self, tmp_path):
        model = make_model(tmp_path, device="cuda:99")
        with pytest.raises(errors.OptionError, match="'cuda:99', and torch finds"):
            model.predict([observe()])

    @pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it is taken")
    def test_by_default_the_cpu_where_there_is_no_gpu(self, tmp_path):
        _, device = make_model(tmp_path, device=None)._network()
        assert device == torch.device("cpu")

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_a_gpu_answers_as_the_cpu(self, tmp_path, precision):
        on_cpu = make_model(tmp_path).predict([observe()])[0]
        model = make_model(tmp_path, device=None, precision=precision)
        assert model._network()[1].type == "cuda"
        np.testing.assert_allclose(model.predict([observe()])[0].bands, on_cpu.bands, atol=2e-3)


class TestFill:
    def test_attributes_name_the_weights(self, tmp_path):
        da, clear = make_cube()
        model = make_model(tmp_path)
        out = xr_cloudfree.fill(da, TARGET, clear=clear, model=f"local-dir:{tmp_path}", layers="all")
        assert set(out.data_vars) >= {"reflectance", "filled", "uncertainty", "gate", "source_time"}
        for attrs in (out.attrs, out["reflectance"].attrs):
            assert attrs["cloudfree_model"] == "tiny"
            assert attrs["cloudfree_weights"] == model.spec.weights_sha256
            assert attrs["cloudfree_version"] == xr_cloudfree.__version__
        assert "cloudfree_weights" not in xr_cloudfree.fill(da, TARGET, clear=clear, model="linear").attrs

    def test_the_output_contract(self, tmp_path):
        da, clear = make_cube()
        out = xr_cloudfree.fill(da, TARGET, clear=clear, model=make_model(tmp_path), layers="all", repair=False)
        valid = clear & da.notnull().all("band")
        own = valid.sel(time=TARGET, drop=True)
        image = out["reflectance"]
        np.testing.assert_array_equal(image.where(own), da.sel(time=TARGET).where(own))
        np.testing.assert_array_equal(image.notnull().all("band"), valid.any("time"))
        assert (out["filled"].values == np.where(own, 1, np.where(valid.any("time"), 2, 0))).all()
        seen = (out["filled"] == 2).values
        assert (out["uncertainty"].values[:, seen] > 0).all() and (out["uncertainty"].values[:, own] == 0).all()

    def test_a_window_in_which_nothing_is_clear_is_nodata(self, tmp_path):
        da, clear = make_cube()
        model = make_model(tmp_path)
        none = clear & (clear.time != DATES[3])
        out = xr_cloudfree.fill(da, TARGET, clear=none, model=model, window=2, layers=["filled"], repair=False)
        assert out["reflectance"].isnull().all() and (out["filled"] == 0).all()
        with pytest.raises(errors.TimeError, match="no observation within 2 days"):
            xr_cloudfree.fill(da, "2021-06-15", clear=clear, model=model, window=2)

    def test_bands_are_looked_at_before_anything_is_computed(self, tmp_path):
        da, clear = (array.chunk(y=20) for array in make_cube())
        model = make_model(tmp_path, bands=("blue", "red", "swir16"))
        with pytest.raises(errors.BandError, match="model 'tiny' needs band 'swir16', cube has"):
            xr_cloudfree.fill(da, TARGET, clear=clear, model=model)
        with pytest.raises(errors.BandError, match="takes 4 bands, cube has 3"):
            xr_cloudfree.fill(da, TARGET, clear=clear, model=make_model(tmp_path / "four", min_bands=4, max_bands=4))

    def test_without_torch_it_is_refused_before_anything_is_computed(self, tmp_path, monkeypatch):
        da, clear = (array.chunk(y=20) for array in make_cube())
        model = make_model(tmp_path)
        monkeypatch.setattr(runtime, "installed", lambda: False)
        with pytest.raises(errors.MissingDependencyError, match=r"pip install 'xr-cloudfree\[torch\]'"):
            xr_cloudfree.fill(da, TARGET, clear=clear, model=model)

    def test_create_takes_places_and_settings(self, tmp_path):
        make_bundle(tmp_path)
        made = xr_cloudfree.create_model(f"local-dir:{tmp_path}", device="cpu", precision="bf16")
        assert isinstance(made, PretrainedModel) and (made.device, made.precision) == ("cpu", "bf16")


class TestSaving:
    def test_a_saved_model_answers_the_same(self, tmp_path):
        model = make_model(tmp_path / "made")
        model.save_pretrained(tmp_path / "kept" / "here")
        again = xr_cloudfree.from_pretrained(f"local-dir:{tmp_path / 'kept' / 'here'}")
        assert again.spec == model.spec
        for name in bundle.FILES:
            assert (tmp_path / "kept" / "here" / name).read_bytes() == (tmp_path / "made" / name).read_bytes()

    def test_into_its_own_folder(self, tmp_path):
        model = make_model(tmp_path)
        model.save_pretrained(tmp_path)
        assert bundle.verify(tmp_path, model.spec)

    def test_another_model_is_kept_unless_asked(self, tmp_path):
        model = make_model(tmp_path / "a")
        make_bundle(tmp_path / "b", name="other")
        with pytest.raises(errors.OutputError, match="'other'"):
            model.save_pretrained(tmp_path / "b")
        model.save_pretrained(tmp_path / "b", overwrite=True)
        assert bundle.read_spec(tmp_path / "b") == model.spec


class TestShipped:
    """With weights that come with the package: here those of a small network, under the default's name."""

    @pytest.fixture
    def spec(self, tmp_path, monkeypatch):
        monkeypatch.setattr(locations, "_SHIPPED", tmp_path)
        return make_bundle(tmp_path / "unet", name="unet", min_bands=2)

    def fill(self, **how):
        da, clear = make_cube()
        bands = how.pop("bands", None)
        return xr_cloudfree.fill(da, how.pop("date", TARGET), clear=clear, bands=bands, **how)

    def used(self, **how):
        return self.fill(**how).attrs["cloudfree_model"]

    def test_by_name(self, spec):
        assert locations.shipped() == ["unet"]
        for model in (xr_cloudfree.from_pretrained("unet"), registry.create("unet", device="cpu")):
            assert model.spec == spec and "from unet," in repr(model)
        assert self.used(model="unet") == "unet"

    def test_another_installation_has_them_elsewhere(self, spec, tmp_path, monkeypatch):
        data = pickle.dumps(xr_cloudfree.from_pretrained("unet"))
        assert str(tmp_path).encode() not in data
        moved = tmp_path / "moved"
        moved.mkdir()
        (tmp_path / "unet").rename(moved / "unet")
        monkeypatch.setattr(locations, "_SHIPPED", moved)
        assert pickle.loads(data).predict([observe()])[0].known.any()

    def test_it_is_listed(self, spec):
        row = xr_cloudfree.list_models().loc["unet"]
        assert row["kind"] == "learned" and row["bands"] == "at least 2" and row["license"] == "CC0-1.0"
        assert row["weights"] == spec.weights_sha256[:12] and "gate" in row["layers"]
        assert xr_cloudfree.list_models()["kind"].value_counts().to_dict() == {"classical": 7, "rule": 1, "learned": 1}

    @pytest.mark.parametrize("date", [TARGET, "2021-06-15", None])
    @pytest.mark.parametrize("layers", [None, "all", ["uncertainty", "filled"]])
    def test_it_is_the_default(self, spec, date, layers):
        out = self.fill(date=date, layers=layers)
        assert out.attrs["cloudfree_model"] == "unet" and out.attrs["cloudfree_weights"] == spec.weights_sha256

    def test_where_it_cannot_be_used_a_classical_one_is(self, spec, tmp_path):
        assert self.used(bands=["red"]) == "regress"
        assert self.used(bands=["red"], date="2021-06-15") == "regress"
        make_bundle(tmp_path / "unet", name="unet", layers=())
        assert self.used(layers=["filled"]) == self.used(layers="all") == "unet"
        assert self.used(layers=["uncertainty"]) == self.used(layers=["source_time"], date="2021-06-15") == "regress"

    def test_without_torch_it_is_said_once(self, spec, monkeypatch):
        monkeypatch.setattr(runtime, "installed", lambda: False)
        _warn_without_torch.cache_clear()
        xr_cloudfree.list_models()  # does not say so: nothing is filled
        with pytest.warns(errors.CloudfreeWarning, match=r"pip install 'xr-cloudfree\[torch\]'") as said:
            assert self.used() == "regress"
        assert len(said) == 1 and said[0].filename == __file__
        assert self.used(date="2021-06-15") == "regress"
        assert xr_cloudfree.list_models().loc["unet", "kind"] == "learned"

    def test_without_torch_the_layers_are_those_of_what_is_used(self, spec, monkeypatch):
        monkeypatch.setattr(runtime, "installed", lambda: False)
        _warn_without_torch.cache_clear()
        with pytest.warns(errors.CloudfreeWarning):
            assert "gate" not in self.fill(layers="all")

    def test_damaged_weights_are_an_error_and_not_a_fallback(self, spec, tmp_path):
        (tmp_path / "unet" / bundle.WEIGHTS).write_bytes(b"")
        with pytest.raises(errors.WeightsError, match="SHA-256"):
            self.fill()

    def test_auto_by_itself_answers_as_what_it_chooses(self, spec):
        obs = observe()
        expected = xr_cloudfree.from_pretrained("unet").predict([obs])[0]
        answer = registry.create("auto").predict([obs])[0]
        np.testing.assert_array_equal(answer.bands, expected.bands)


def test_a_model_on_the_sample_is_lazy_and_one_answer(portugal, tmp_path):
    model = make_model(tmp_path)
    part = portugal.isel(x=slice(0, 70), y=slice(0, 50))
    eager = xr_cloudfree.fill(part, "2021-07-23", model=model)
    lazy = xr_cloudfree.fill(part.chunk(x=33, y=21, time=4), "2021-07-23", model=model, block=32)
    xr.testing.assert_allclose(eager, lazy.compute(scheduler="threads"), atol=1e-5)


@pytest.fixture
def paper(tmp_path):
    """The paper's network, small and untrained: one that every process of the package knows."""
    pytest.importorskip("timm")
    spec = ModelSpec(
        "paper",
        "untrained",
        units="reflectance",
        tile=64,
        stride=32,
        batch=2,
        layers=("gate",),
        architecture="unet-paper",
        config=(("bands", 3), ("encoder", "mnasnet_small")),
        bands=("blue", "red", "nir"),
    )
    bundle.write(tmp_path / "paper", spec, architectures.build(spec).state_dict(), "# Untrained\n")
    return f"local-dir:{tmp_path / 'paper'}"


def test_the_papers_network_fills(paper):
    da, clear = make_cube()
    out = xr_cloudfree.fill(da, TARGET, clear=clear, model=paper, layers="all", repair=False)
    seen = (clear & da.notnull().all("band")).any("time")
    np.testing.assert_array_equal(out["filled"] > 0, seen)
    np.testing.assert_array_equal(out["reflectance"].notnull().all("band"), seen)
    # What the others' weights lack to 1 is that of the target's own clear pixels.
    own = clear.sel(time=TARGET, drop=True) & seen
    np.testing.assert_allclose(out["gate"].sum("observation").where(own, 1), 1, atol=1e-4)
    turned = xr_cloudfree.fill(da[:, [2, 0, 1]], TARGET, clear=clear, model=paper, repair=False)
    xr.testing.assert_allclose(turned[[1, 2, 0]], out["reflectance"], atol=1e-5)
    with pytest.raises(errors.BandError, match="needs band 'red'"):
        xr_cloudfree.fill(da, TARGET, clear=clear, model=paper, bands=["blue", "nir"])


@pytest.mark.slow
def test_other_processes_load_their_own(paper):
    da, clear = make_cube()
    eager = xr_cloudfree.fill(da, TARGET, clear=clear, model=paper, block=32)
    lazy = xr_cloudfree.fill(da.chunk(y=20, x=20), TARGET, clear=clear, model=paper, block=32)
    xr.testing.assert_allclose(eager, lazy.compute(scheduler="processes", num_workers=2), atol=1e-5)
