"""A series in parts: the same composite, in a state that does not grow and that can be kept."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from tests.support.series import VARIANTS, close, dates_of, random_batch, random_gate
from xr_cloudfree.errors import ModelError
from xr_cloudfree.models.networks.timegate import TimeGate, TimeGateState, weights_sha256

SHAPE = (2, 6, 7)


def tensors(state, tmp_path):
    """What a state holds, as its file has it."""
    state.save(tmp_path / "state.safetensors")
    with safe_open(tmp_path / "state.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=20)
@given(seed=st.integers(0, 1000), data=st.data())
def test_parts_in_any_order_give_the_composite_of_the_whole(variant, seed, data):
    gate = random_gate(variant, seed=seed)
    batch = random_batch(seed, dates=data.draw(st.integers(1, 9), "dates"))
    order = data.draw(st.permutations(range(batch.bands.shape[1])), "order")
    cuts = sorted(data.draw(st.sets(st.integers(1, len(order))), "cuts") | {len(order)})
    parts = [order[i:j] for i, j in zip([0, *cuts], cuts, strict=False) if j > i]
    states = [TimeGateState.empty(gate, SHAPE)]
    for part in parts:
        if data.draw(st.booleans(), "apart"):
            states.append(TimeGateState.empty(gate, SHAPE))
        states[-1] = states[-1].update(gate, dates_of(batch, part))
    whole = states.pop(data.draw(st.integers(0, len(states) - 1), "first"))
    for state in states:
        whole = whole.merge(gate, state)
    close(whole.composite(gate), gate(batch))
    assert whole.count.tolist() == batch.date_valid.sum(dim=1).tolist()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_state_does_not_grow(variant, tmp_path):
    gate = random_gate(variant)
    state = TimeGateState.empty(gate, SHAPE, target="2021-07-23")
    sizes = set()
    for seed in range(5):
        held, _ = tensors(state, tmp_path)
        sizes.add((sum(t.nbytes for t in held.values()), (tmp_path / "state.safetensors").stat().st_size))
        state = state.update(gate, random_batch(seed, dates=3 + seed))
    assert len(sizes) == 1
    assert not state.weighted.requires_grad


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_scene_can_be_added_later(variant, tmp_path):
    gate = random_gate(variant)
    batch = random_batch(20, dates=6)
    path = tmp_path / "state.safetensors"
    state = TimeGateState.empty(gate, SHAPE, target="2021-07-23")
    state.update(gate, dates_of(batch, [0, 1, 2, 4])).save(path)
    later = TimeGateState.load(path, random_gate(variant)).update(gate, dates_of(batch, [3, 5]))
    assert later.target == "2021-07-23"
    close(later.composite(gate), gate(batch))
    later.save(path)
    close(TimeGateState.load(path, gate).composite(gate), gate(batch))
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]


def test_nothing_seen_is_unknown(tmp_path):
    gate = random_gate("masked")
    state = TimeGateState.empty(gate, SHAPE)
    state.save(tmp_path / "state")
    made = TimeGateState.load(tmp_path / "state", gate).composite(gate)
    assert not made.known.any() and not made.image.any() and not made.features.any()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "damage",
    ["lacks", "extra", "shape", "type", "nan", "inf", "weights", "format", "truncated", "pickle", "absent", "folder"],
)
def test_a_damaged_file_is_refused(variant, damage, tmp_path):
    gate = random_gate(variant)
    path = tmp_path / "state.safetensors"
    held, metadata = tensors(TimeGateState.empty(gate, SHAPE).update(gate, random_batch(1)), tmp_path)
    needed = "TimeGateState.save"
    match damage:
        case "lacks":
            del held["total"]
        case "extra":
            held["more"] = torch.zeros(2)
        case "shape":
            held["peak"] = held["peak"][:, :2].contiguous()
        case "type":
            held["weighted"] = held["weighted"].double()
        case "nan":
            held["weighted"][0, 0, 0, 0] = torch.nan
        case "inf":
            held["total"][0, 0, 0, 0] = -torch.inf
        case "weights":
            metadata["weights"], needed = "0" * 64, "those of this gate"
        case "format":
            metadata["format"] = "xr_cloudfree TimeGateState 2"
    save_file(held, path, metadata=metadata)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "pickle":
        path.write_bytes(pickle.dumps(held))
    elif damage in ("absent", "folder"):
        path.unlink()
        if damage == "folder":
            path.mkdir()
    with pytest.raises(ModelError, match=needed):
        TimeGateState.load(path, gate)


def test_states_that_do_not_go_together():
    gate = random_gate("paper")
    state = TimeGateState.empty(gate, SHAPE, target="2021-07-23")
    batch = random_batch(1)
    with pytest.raises(ModelError, match="those of the state"):
        state.update(random_gate("paper", seed=1), batch)
    with pytest.raises(ModelError, match=r"gate\.eval\(\)"):
        state.update(TimeGate(3), batch)
    with pytest.raises(ModelError, match="1 series of 6 x 7"):
        state.update(gate, random_batch(1, tiles=1))
    with pytest.raises(ModelError, match="2021-07-24"):
        state.merge(gate, replace(state, target="2021-07-24"))
    with pytest.raises(ModelError, match="the same series"):
        state.merge(gate, TimeGateState.empty(gate, (2, 6, 8), target="2021-07-23"))
    with pytest.raises(ModelError, match="those of the state"):
        state.merge(gate, TimeGateState.empty(random_gate("masked"), SHAPE, target="2021-07-23"))
    with pytest.raises(ModelError, match="those of the state"):
        state.composite(random_gate("masked"))


def test_the_weights_hash_tells_modules_apart():
    gate, same, other = random_gate("paper"), random_gate("paper"), random_gate("paper")
    with torch.no_grad():
        other.abstract.bias[0] += 1e-6
    assert weights_sha256(gate) == weights_sha256(same) != weights_sha256(other)
    assert weights_sha256(gate) != weights_sha256(random_gate("masked"))
