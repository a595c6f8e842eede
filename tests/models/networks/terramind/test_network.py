"""The TerraMind pathway: it starts as its base, and what is not seen reaches no token."""

import pickle
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

if find_spec("terratorch") is None:  # importing all of it is what is to be spared
    pytest.skip("needs terratorch", allow_module_level=True)

import xr_cloudfree
from tests.support.cubes import make_cube
from tests.support.season import observations
from tests.support.terramind import BASE, NOTE, SPEC, TEN, make
from xr_cloudfree import errors
from xr_cloudfree.models.bundles import bundle
from xr_cloudfree.models.networks import architectures
from xr_cloudfree.models.networks.batch import Batch
from xr_cloudfree.models.networks.terramind import encoder
from xr_cloudfree.models.networks.terramind.bands import interpolation_weights
from xr_cloudfree.models.networks.terramind.network import TerraMindNet
from xr_cloudfree.models.pretrained import locations


@pytest.fixture(scope="module")
def net():
    return make()


@pytest.fixture(scope="module")
def radar_net():
    return make(s1=True)


def tile(net, obs, common_names=TEN, **features):
    """A prepared tile with its bands' names, and Sentinel-1 where it is given."""
    made = net.make_input(replace(obs, common_names=tuple(common_names[: obs.n_bands])))
    return replace(made, features=made.features | features)


@torch.inference_mode()
def answer(net, *tiles):
    return net(Batch.of(tiles))


def radar(seed=0, edge=48, seen=1.0):
    rng = np.random.default_rng(seed)
    values = np.stack([rng.normal(-12, 4, (edge, edge)), rng.normal(-20, 5, (edge, edge))]).astype(np.float32)
    return {"s1": values, "s1 seen": np.full((1, edge, edge), seen, np.float32)}


class TestStart:
    @pytest.mark.parametrize("encoder", ["terramind", "none"])
    @pytest.mark.parametrize(("bands", "edge", "common_names"), [(3, 48, TEN), (10, 45, TEN), (4, 32, ())])
    def test_untrained_it_is_its_base_bit_for_bit(self, encoder, bands, edge, common_names):
        net = make(random=False, encoder=encoder)
        given = tile(net, observations(bands=bands, edge=edge), common_names)
        out = answer(net, given)
        with torch.inference_mode():
            expected = net.base(Batch.of([given]))
        assert torch.equal(out.reflectance, expected.reflectance) and torch.equal(out.known, expected.known)
        assert torch.equal(out.uncertainty, expected.uncertainty)

    @pytest.mark.parametrize("shape", [(224, 224), (48, 80), (256, 256)])
    def test_untrained_the_encoder_sees_what_it_was_trained_on(self, shape):
        net = make(random=False)
        image = torch.randn(1, 12, *shape)
        with torch.inference_mode():
            told = net.told(torch.randn(1, net.told.in_channels, *(n // 16 for n in shape)))
            levels = net.tokens(image, told)
            expected = [net.encoder({"S2L2A": image})[i] for i in (2, 5, 8, 11)]
        for level, tokens in zip(levels, expected, strict=True):
            assert torch.equal(level.flatten(2).mT, tokens)

    def test_two_modalities_are_merged_as_the_encoder_does(self):
        net = make(random=False, s1=True)
        image, other = torch.randn(2, 12, 32, 48), torch.randn(2, 2, 32, 48)
        with torch.inference_mode():
            levels = net.tokens(image, None, other)
            expected = net.encoder({"S2L2A": image, "S1GRD": other})
        for level, i in zip(levels, net.levels, strict=True):
            torch.testing.assert_close(level.flatten(2).mT, expected[i])

    def test_large_has_other_levels(self):
        assert encoder.find_size("large").levels == (5, 11, 17, 23)

    def test_its_size(self):
        parameters = sum(p.numel() for p in make().encoder.parameters())
        assert parameters == 5_923_968  # terramind_v1_tiny with Sentinel-2

    @pytest.mark.parametrize("config", [{"size": "huge"}, {"encoder": "resnet"}])
    def test_what_there_is_not(self, config):
        with pytest.raises(errors.ModelError):
            TerraMindNet(base=BASE, **config)


class TestUnits:
    def test_standardised_digital_numbers_by_hand(self, net):
        image = torch.full((1, 2, 1, 2), 0.1)
        image[0, 1] = 0.3
        shares = torch.from_numpy(interpolation_weights(["red", "swir22"]))[None]
        seen = torch.tensor([[[[True, False]]]])
        out = net.standard(image, seen, shares)[0, :, 0]
        assert out[3, 0] == pytest.approx((1000 - 1853.910) / 2134.138, rel=1e-6)
        assert out[11, 0] == pytest.approx((3000 - 1857.648) / 1334.311, rel=1e-6)
        assert (out[:, 1] == 0).all()

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf])
    def test_one_pixel_that_is_no_number_stays_one_pixel(self, net, bad):
        image = torch.full((1, 2, 32, 32), 0.1)
        expected = net.standard(image, torch.ones(1, 1, 32, 32, dtype=bool), torch.ones(1, 2, 12) / 2)
        image[0, 1, 5, 7] = bad
        out = net.standard(image, torch.ones(1, 1, 32, 32, dtype=bool), torch.ones(1, 2, 12) / 2)
        assert out.isfinite().all() and (out[0, :, 5, 7] == 0).all()
        assert (out != expected).any(dim=1).sum() == 1
        with torch.inference_mode():
            assert all(level.isfinite().all() for level in net.tokens(out))


class TestAnswers:
    def test_all_of_it_matters(self, net):
        obs = observations(bands=10)
        out, hidden = answer(net, tile(net, obs)), ~obs.clear[obs.target]
        with torch.inference_mode():
            base = net.base(Batch.of([tile(net, obs)]))
        assert (out.reflectance != base.reflectance)[0][:, hidden].float().mean() > 0.9
        assert (out.uncertainty > 0).all()
        changed = make()
        with torch.no_grad():
            changed.encoder.encoder[6].mlp.fc2.weight.mul_(1.5)
        assert not torch.equal(answer(changed, tile(net, obs)).reflectance, out.reflectance)

    def test_the_targets_clear_pixels_come_back(self, net):
        obs = observations()
        out, seen = answer(net, tile(net, obs)), obs.clear[obs.target]
        np.testing.assert_array_equal(out.reflectance[0].numpy()[:, seen], obs.bands[obs.target][:, seen])

    @pytest.mark.parametrize("junk", [np.nan, np.inf, -1e6])
    def test_what_is_not_clear_never_reaches_the_answer(self, net, junk):
        obs = observations()
        expected = answer(net, tile(net, obs))
        bands = np.where(obs.clear[:, None], obs.bands, np.float32(junk))
        out = answer(net, tile(net, replace(obs, bands=bands)))
        known = expected.known.expand_as(expected.reflectance)
        assert torch.equal(out.reflectance[known], expected.reflectance[known])
        assert out.reflectance.isfinite().all() and out.uncertainty.isfinite().all()

    def test_a_tile_of_which_nothing_is_known_has_finite_tokens(self, net):
        obs = observations(edge=32)
        clear = np.zeros_like(obs.clear)
        clear[0, 0, 0] = True
        out = answer(net, tile(net, replace(obs, clear=clear)))
        assert out.reflectance.isfinite().all() and out.known.sum() == 1

    def test_companions_in_a_batch_change_nothing(self, net):
        few, many = tile(net, observations(bands=3)), tile(net, observations(seed=1, bands=10))
        together = answer(net, few, many)
        for i, (alone, bands) in enumerate(((few, 3), (many, 10))):
            out = answer(net, alone)
            for name in ("reflectance", "uncertainty"):
                np.testing.assert_allclose(
                    getattr(together, name)[i, :bands], getattr(out, name)[0], rtol=0, atol=1e-5, err_msg=name
                )

    def test_the_order_of_the_bands_changes_nothing(self, net):
        order = [2, 0, 3, 1]
        given = tile(net, observations())
        features = {n: part if n == "shared" else part[order] for n, part in given.features.items()}
        other = replace(given, bands=given.bands[:, order], target=given.target[order], features=features)
        first, second = answer(net, given), answer(net, other)
        np.testing.assert_allclose(second.reflectance, first.reflectance[:, order], atol=1e-5)

    @pytest.mark.parametrize("common_names", [("blue", "green", "red", "nir08"), (None, None, "red", "lwir11"), ()])
    def test_bands_of_any_name_go_through(self, net, common_names):
        obs = observations()
        out = answer(net, tile(net, obs, common_names))
        assert out.reflectance.isfinite().all()
        # Names matter: they are all that tells TerraMind's bands.
        assert not torch.equal(out.reflectance, answer(net, tile(net, obs, TEN)).reflectance)

    @pytest.mark.parametrize("edge", [16, 45, 64])
    def test_sizes_that_16_does_not_divide(self, net, edge):
        out = answer(net, tile(net, observations(edge=edge)))
        assert out.reflectance.shape == (1, 4, edge, edge) == out.uncertainty.shape

    def test_half_precision_is_near(self):
        net = make(random=False)
        with torch.no_grad():
            for part in (net.bands.out, net.told):
                part.weight.add_(0.02 * torch.randn_like(part.weight))
        given = Batch.of([tile(net, observations(bands=10, edge=64))])
        with torch.inference_mode():
            exact = net(given)
            with torch.autocast("cpu", torch.bfloat16):
                near = net(given)
        assert near.reflectance.dtype == torch.float32
        assert (near.reflectance - exact.reflectance).abs().max() < 2e-3
        assert (near.reflectance != exact.reflectance).any()

    def test_gradients_reach_every_weight(self):
        net = make(s1=True).train()
        torch.manual_seed(0)  # of these tiles one is shown with Sentinel-1, and three without
        given = [tile(net, observations(), **radar(i)) for i in range(4)]
        out = net(Batch.of(given))
        (out.reflectance.mean() + out.uncertainty.mean()).backward()
        still = [n for n, weight in net.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0]
        assert still == []

    def test_uncertainties_are_calibrated(self):
        obs = observations()
        plain, wider = make(random=False), make(random=False, calibration=(1.5, 3.0))
        weight = tile(plain, obs).features["evidence"][:, 1, None, None]  # of the tile's own evidence
        expected = (1.5 ** (1 - weight) * answer(plain, tile(plain, obs)).uncertainty.numpy()[0])[None]
        np.testing.assert_allclose(answer(wider, tile(wider, obs)).uncertainty, expected, rtol=1e-5)


class TestSentinel1:
    def test_none_is_the_same_as_none_seen(self, radar_net):
        plain = tile(radar_net, observations())
        unseen = tile(radar_net, observations(), **radar(seen=0.0))
        assert torch.equal(answer(radar_net, plain).reflectance, answer(radar_net, unseen).reflectance)

    def test_it_matters(self, radar_net):
        plain, with_it = (tile(radar_net, observations(), **radar(seen=seen)) for seen in (0.0, 1.0))
        assert not torch.equal(answer(radar_net, plain).reflectance, answer(radar_net, with_it).reflectance)

    def test_what_is_not_seen_of_it_does_not_matter(self, radar_net):
        told = radar()
        told["s1 seen"][:, :9] = 0
        junk = {**told, "s1": told["s1"].copy()}
        junk["s1"][:, :9] = np.nan
        junk["s1"][0, 3, 3] = np.inf
        one, other = (answer(radar_net, tile(radar_net, observations(), **part)) for part in (told, junk))
        assert torch.equal(one.reflectance, other.reflectance) and one.reflectance.isfinite().all()

    def test_tiles_with_and_without_it_in_one_batch(self, radar_net):
        tiles = [tile(radar_net, observations(seed=i), **radar(i, seen=float(i % 2))) for i in range(3)]
        together = answer(radar_net, *tiles)
        for i, alone in enumerate(tiles):
            out = answer(radar_net, alone).reflectance[0]
            np.testing.assert_allclose(together.reflectance[i], out, rtol=0, atol=1e-5)

    def test_a_network_without_it_takes_no_notice(self, net):
        plain, with_it = tile(net, observations()), tile(net, observations(), **radar())
        assert torch.equal(answer(net, plain).reflectance, answer(net, with_it).reflectance)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle of the network, kept in 16 bits."""
    made = tmp_path_factory.mktemp("shipped") / "terramind"
    bundle.write(made, SPEC, make().state_dict(), "# A network for tests\n", half=True)
    return made


class TestBundle:
    def test_kept_in_16_bits_it_is_half_as_large_and_nearly_the_same(self, folder, net):
        spec = bundle.read_spec(folder)
        parameters = sum(tensor.numel() for tensor in net.state_dict().values())
        assert (folder / bundle.WEIGHTS).stat().st_size < 2.02 * parameters
        read = bundle.read_weights(folder, spec, net.state_dict())
        for name, tensor in net.state_dict().items():
            assert read[name].dtype == tensor.dtype == torch.float32
            np.testing.assert_allclose(read[name], tensor, rtol=2**-11, atol=1e-7)

    def test_the_name_fills_and_the_output_says_what_it_is_not(self, folder, monkeypatch):
        monkeypatch.setattr(locations, "_SHIPPED", folder.parent)
        model = locations.terramind(device="cpu")
        assert model.spec.name == "terramind" and len(pickle.dumps(model)) < 2500
        da, clear = make_cube()
        out = xr_cloudfree.fill(da, "2021-06-03", clear=clear, model=model, layers=["uncertainty"])
        assert out.attrs["cloudfree_note"] == NOTE and out.attrs["cloudfree_model"] == "terramind"
        assert out["reflectance"].attrs["cloudfree_note"] == NOTE
        assert np.isfinite(out["reflectance"].to_numpy()).mean() > 0.9

    def test_without_weights_there_is_no_such_model(self, tmp_path, monkeypatch):
        monkeypatch.setattr(locations, "_SHIPPED", tmp_path)
        with pytest.raises(errors.ModelNotFoundError, match="terramind"):
            locations.terramind()

    def test_without_terratorch_it_says_what_to_install(self, folder, monkeypatch):
        monkeypatch.setattr(locations, "_SHIPPED", folder.parent)
        monkeypatch.setattr(architectures, "find_spec", lambda name: None)
        with pytest.raises(errors.MissingDependencyError, match=r"pip install 'xr-cloudfree\[terramind\]'"):
            locations.terramind().check_installed()
        monkeypatch.setattr(encoder, "find_spec", lambda name: None)
        monkeypatch.delitem(sys.modules, "terratorch", raising=False)  # another test may have imported all of it
        with pytest.raises(errors.MissingDependencyError, match=r"pip install 'xr-cloudfree\[terramind\]'"):
            TerraMindNet()
        TerraMindNet(encoder="none")  # which needs none


@pytest.mark.skipif("terramind" not in locations.shipped(), reason="this version comes without these weights")
def test_what_ships_says_what_it_is_not():
    model = xr_cloudfree.from_pretrained("terramind")  # which checks the hash
    assert "random start" in model.spec.summary and "not the weights that IBM and ESA" in model.spec.note
    card = (model.source.folder() / bundle.CARD).read_text()
    assert "random start" in card and model.spec.architecture == "terramind"
    row = xr_cloudfree.list_models().loc["terramind"]
    assert row["kind"] == "learned" and row["bands"] == "3 to 12" and "random start" in row["summary"]


class TestImport:
    def test_it_is_light_and_leaves_no_empty_packages_behind(self):
        code = """if True:
            import sys
            from xr_cloudfree.models.networks.terramind.encoder import build_encoder
            assert "terratorch" not in sys.modules
            encoder = build_encoder("tiny")
            heavy = {"lightning", "torchgeo", "diffusers", "transformers", "segmentation_models_pytorch", "rasterio"}
            assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
            assert "terratorch" not in sys.modules and "terratorch.models" not in sys.modules
            assert build_encoder("tiny") is not encoder
        """
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_it_says_so_if_it_takes_long(self, monkeypatch, capsys):
        monkeypatch.setattr(encoder, "_PATIENCE", 0.02)
        with encoder._announced("loading"):
            time.sleep(0.3)
        assert capsys.readouterr().err == "xr_cloudfree: loading …\n"
        monkeypatch.setattr(encoder, "_PATIENCE", 10.0)
        with encoder._announced("loading"):
            pass
        assert capsys.readouterr().err == ""

    def test_versions_that_do_not_go_together(self):
        with (
            pytest.raises(errors.MissingDependencyError, match="terramind_vit"),
            encoder._bare_parents(),
        ):
            raise ImportError("cannot import name 'TerraMindViT' from 'terramind_vit'")
        assert "terratorch.models.backbones.terramind.model" not in sys.modules or "terratorch" in sys.modules

    @pytest.mark.slow
    def test_it_is_what_terratorch_builds_bit_for_bit(self, tmp_path):
        """And the whole of terratorch can still be imported afterwards."""
        code = """if True:
            import torch
            from xr_cloudfree.models.networks.terramind.encoder import build_encoder
            torch.manual_seed(0)
            light = build_encoder("SIZE", ("S2L2A", "S1GRD")).eval()
            from terratorch.registry import BACKBONE_REGISTRY
            full = BACKBONE_REGISTRY.build("terramind_v1_SIZE", pretrained=False, modalities=["S2L2A", "S1GRD"]).eval()
            names = list(full.state_dict())
            assert names == list(light.state_dict())
            full.load_state_dict(light.state_dict())
            given = {"S2L2A": torch.randn(1, 12, 224, 224), "S1GRD": torch.randn(1, 2, 224, 224)}
            with torch.inference_mode():
                one, other = light(dict(given)), full(dict(given))
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True)) and len(one) == 12
            assert type(light) is type(full)
        """
        for size in ("tiny", "small", "base"):
            subprocess.run([sys.executable, "-W", "ignore", "-c", code.replace("SIZE", size)], check=True)
