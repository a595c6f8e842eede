"""Bundles: what is written is what is read, and nothing is lost on the way."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tests.support.networks import CARD, TINY, make_bundle, state_of  # noqa: E402
from xr_cloudfree import create_model, errors  # noqa: E402
from xr_cloudfree.models.bundles import bundle  # noqa: E402


def test_a_bundle_comes_back_as_it_was_written(tmp_path):
    state = state_of(TINY)
    written = bundle.write(tmp_path / "new" / "tiny", TINY, state, CARD)
    folder = tmp_path / "new" / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "spec.json", "weights.safetensors"]
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    assert written == replace(TINY, weights_sha256=digest) == bundle.read_spec(folder)
    assert (folder / "README.md").read_text() == CARD
    back = bundle.read_weights(folder, written, state)
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor)


def test_equal_weights_make_equal_files(tmp_path):
    made = [make_bundle(tmp_path / name) for name in ("a", "b")]
    assert made[0] == made[1] != make_bundle(tmp_path / "c", seed=1)
    for name in bundle.FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_tensors_that_share_memory_or_are_views_are_written_whole(tmp_path):
    base = torch.arange(12.0)
    state = {"a": base, "b": base, "turned": base.reshape(3, 4).T, "one": torch.tensor(3), "none": torch.zeros(0)}
    spec = bundle.write(tmp_path, TINY, state, CARD)
    back = bundle.read_weights(tmp_path, spec, state)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_the_spec_and_the_hash_need_no_torch(tmp_path):
    make_bundle(tmp_path)
    code = """if True:
        import sys
        for name in ("torch", "safetensors"):
            sys.modules[name] = None  # importing it fails
        from pathlib import Path
        from xr_cloudfree import from_pretrained
        from xr_cloudfree.models.bundles import bundle
        spec = bundle.read_spec(Path(sys.argv[1]))
        print(spec.name, len(bundle.verify(Path(sys.argv[1]), spec)) > 0, from_pretrained("local-dir:" + sys.argv[1]))
    """
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tiny True <PretrainedModel 'tiny' from local-dir:")


class TestWriting:
    def test_the_same_model_is_replaced(self, tmp_path):
        first = make_bundle(tmp_path)
        second = make_bundle(tmp_path, seed=1)
        assert first.weights_sha256 != second.weights_sha256 and bundle.read_spec(tmp_path) == second
        assert len(list(tmp_path.iterdir())) == 3

    def test_another_model_is_kept_unless_asked(self, tmp_path):
        first = make_bundle(tmp_path)
        with pytest.raises(errors.OutputError, match="holds the model 'tiny'") as info:
            make_bundle(tmp_path, name="other")
        assert "overwrite=True" in info.value.remedy
        assert bundle.read_spec(tmp_path) == first
        bundle.write(tmp_path, replace(TINY, name="other"), state_of(TINY), CARD, overwrite=True)
        assert bundle.read_spec(tmp_path).name == "other"

    @pytest.mark.parametrize("name", bundle.FILES)
    def test_a_file_of_something_else_is_kept(self, tmp_path, name):
        (tmp_path / name).write_text("mine")
        with pytest.raises(errors.OutputError, match="not a readable model"):
            make_bundle(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"

    def test_other_files_stay(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        make_bundle(tmp_path)
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_a_full_disk_leaves_the_old_one(self, tmp_path, monkeypatch):
        first = make_bundle(tmp_path)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(bundle.os, "fsync", full)
        with pytest.raises(errors.OutputError, match="No space left") as info:
            make_bundle(tmp_path, seed=1)
        assert isinstance(info.value, OSError)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        assert bundle.read_spec(tmp_path) == first

    @pytest.mark.parametrize("last", [1, 2])
    def test_killed_between_the_files_it_is_no_bundle_and_can_be_written_again(self, tmp_path, monkeypatch, last):
        make_bundle(tmp_path)
        put, done = bundle.Path.replace, []

        def killed(draft, target):
            if len(done) == last:
                raise KeyboardInterrupt
            done.append(target)
            return put(draft, target)

        monkeypatch.setattr(bundle.Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            make_bundle(tmp_path, seed=1)
        monkeypatch.undo()
        # The weights are new, the spec is old: it does not vouch for them.
        with pytest.raises(errors.WeightsError, match="SHA-256"):
            bundle.verify(tmp_path, bundle.read_spec(tmp_path))
        spec = make_bundle(tmp_path, seed=1)
        assert bundle.verify(tmp_path, spec) and len(list(tmp_path.iterdir())) == 3

    def test_a_file_in_place_of_the_folder(self, tmp_path):
        (tmp_path / "taken").write_text("mine")
        with pytest.raises(errors.OutputError, match="taken"):
            make_bundle(tmp_path / "taken")

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
    def test_a_diverged_training_is_not_written(self, tmp_path, bad):
        state = state_of(TINY)
        state["texture.0.weight"][1, 0, 2, 2] = bad
        with pytest.raises(errors.WeightsError, match=r"'texture\.0\.weight' holds NaN or infinity"):
            bundle.write(tmp_path / "new", TINY, state, CARD)
        assert not (tmp_path / "new").exists()

    def test_a_link_is_replaced_and_not_what_it_points_to(self, tmp_path):
        make_bundle(tmp_path / "tiny")
        outside = tmp_path / "outside"
        outside.write_text("mine")
        (tmp_path / "tiny" / bundle.CARD).unlink()
        (tmp_path / "tiny" / bundle.CARD).symlink_to(outside)
        make_bundle(tmp_path / "tiny", seed=1)
        assert outside.read_text() == "mine" and (tmp_path / "tiny" / bundle.CARD).read_text() == CARD


@pytest.mark.parametrize("shared", [False, True], ids=["of the repository", "of the cache"])
def test_the_links_of_a_hubs_cache_are_followed(tmp_path, shared):
    """Its layout: cache/repository/snapshots/revision/file -> ../../blobs/hash, which may lead to cache/blobs."""
    written = make_bundle(tmp_path / "made")
    snapshot = tmp_path / "cache" / "models--org--tiny" / "snapshots" / "0123abcd"
    blobs = tmp_path / "cache" / "models--org--tiny" / "blobs"
    store = tmp_path / "cache" / "blobs" / "ab"
    for folder in (snapshot, blobs, store):
        folder.mkdir(parents=True)
    for name in bundle.FILES:
        real = (store if shared else blobs) / f"of-{name}"
        (tmp_path / "made" / name).rename(real)
        if shared:
            (blobs / f"of-{name}").symlink_to(f"../../blobs/ab/of-{name}")
        (snapshot / name).symlink_to(f"../../blobs/of-{name}")
    assert bundle.read_spec(snapshot) == written
    assert list(bundle.contents(snapshot, written)) == ["weights.safetensors", "README.md", "spec.json"]


def test_no_card_is_no_error(tmp_path):
    spec = make_bundle(tmp_path)
    (tmp_path / bundle.CARD).unlink()
    assert list(bundle.contents(tmp_path, bundle.read_spec(tmp_path))) == ["weights.safetensors", "spec.json"]
    assert json.loads(bundle.contents(tmp_path, spec)["spec.json"])["license"] == "CC0-1.0"


def test_a_folder_without_its_prefix_is_recognised(tmp_path):
    make_bundle(tmp_path / "mine")
    with pytest.raises(errors.ModelNotFoundError) as info:
        create_model(str(tmp_path / "mine"))
    assert info.value.remedy == f"model='local-dir:{tmp_path / 'mine'}'"


def test_a_name_that_no_file_could_have_is_no_model():
    with pytest.raises(errors.ModelNotFoundError, match="no model is called"):
        create_model("x" * 300)
