"""Bundles that are damaged, incomplete, unsafe or made for something else raise one typed error each.

The faults are applied to the files of a bundle that works. Each message names the file, what was found, what is needed,
and something that can be typed.
"""

import hashlib
import json
import os
import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
from safetensors.torch import load, save  # noqa: E402

import xr_cloudfree  # noqa: E402
from tests.support.cubes import make_cube  # noqa: E402
from tests.support.networks import TINY, make_bundle, state_of  # noqa: E402
from xr_cloudfree import errors  # noqa: E402
from xr_cloudfree.models.bundles import bundle  # noqa: E402
from xr_cloudfree.models.pretrained import runtime  # noqa: E402
from xr_cloudfree.models.protocol import Observations  # noqa: E402

SPEC, WEIGHTS = bundle.SPEC, bundle.WEIGHTS
GOOD = save(state_of(TINY), {"format": "pt"})
TARGET = "2021-06-03"


@dataclass(frozen=True)
class Row:
    """One fault: how it is made in the folder of a good bundle, and words of the message."""

    name: str
    spoil: Callable
    says: tuple
    late: bool = False
    """Whether only the network can tell, so that it shows when the model first predicts."""
    error: type = errors.WeightsError


def weights(change, *, vouch=False):
    """Change the file of weights; with `vouch` the spec takes over its hash."""

    def spoil(folder):
        data = change((folder / WEIGHTS).read_bytes())
        (folder / WEIGHTS).write_bytes(data)
        if vouch:
            fields(weights_sha256=hashlib.sha256(data).hexdigest())(folder)

    return spoil


def state(change):
    """Change the tensors and write them well, with the hash that they have."""

    def changed(data):
        tensors = load(data)
        change(tensors)
        return save(tensors)

    return weights(changed, vouch=True)


def text(change):
    return lambda folder: (folder / SPEC).write_bytes(change((folder / SPEC).read_bytes()))


def fields(**changes):
    """Change fields of the spec; None of a field that is ... removes it."""

    def spoil(folder):
        told = json.loads((folder / SPEC).read_text()) | changes
        (folder / SPEC).write_text(json.dumps({name: value for name, value in told.items() if value is not ...}))

    return spoil


def cut(n):
    return lambda data: data[:n]


def flip(position, bit=0):
    def change(data):
        at = position if position >= 0 else len(data) + position
        return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]

    return change


def header(change):
    """Change the header of the safetensors file, which is JSON behind eight bytes of its length."""

    def changed(data):
        (length,) = struct.unpack("<Q", data[:8])
        new = change(data[8 : 8 + length])
        return struct.pack("<Q", len(new)) + new + data[8 + length :]

    return changed


def rename(old, new):
    return state(lambda tensors: tensors.update({new: tensors.pop(old)}))


def put(name, value):
    return state(lambda tensors: tensors.update({name: value(tensors.get(name))}))


def moved(name, to):
    def spoil(folder):
        (folder / name).rename(folder.parent / to)
        (folder / name).symlink_to(folder.parent / to)

    return spoil


def in_place_of(name, make):
    def spoil(folder):
        (folder / name).unlink()
        make(folder / name)

    return spoil


class Bomb:
    """Unpickling it would leave a mark."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def torch_saved(tensors):
    import io

    out = io.BytesIO()
    torch.save(tensors, out)
    return out.getvalue()


def nested(data):
    return b'{"a":' * 100_000 + b"1" + b"}" * 100_000


def bad(value):
    def change(tensor):
        tensor.view(-1)[3] = value
        return tensor

    return change


CONV = "texture.0.weight"
LENGTHS = [0, 1, 7, 8, 9, 100, len(GOOD) // 2, len(GOOD) - 1]

TRUNCATED = [Row(f"cut to {n} bytes", weights(cut(n)), (WEIGHTS, f"({n} bytes)", "SHA-256")) for n in LENGTHS] + [
    # As if whoever cut it had written the hash down afterwards: the form of the file tells it.
    Row(f"cut to {n} bytes, vouched for", weights(cut(n), vouch=True), (WEIGHTS, "not a safetensors file"), True)
    for n in LENGTHS
]
FLIPPED = [
    Row(f"bit {bit} of byte {at}", weights(flip(at, bit)), (WEIGHTS, "SHA-256"))
    for at, bit in ((0, 0), (7, 7), (8, 0), (40, 3), (len(GOOD) // 2, 5), (-1, 7))
]
FORM = [
    Row("longer by a byte", weights(lambda data: data + b"\0"), (WEIGHTS, "SHA-256")),
    Row(
        "longer, vouched for", weights(lambda data: data + b"\0", vouch=True), (WEIGHTS, "not a safetensors file"), True
    ),
    Row(
        "header beyond the end",
        weights(lambda d: b"\xff" * 6 + b"\0\0" + d[8:], vouch=True),
        ("not a safetensors file",),
        True,
    ),
    Row(
        "header of no JSON",
        weights(header(lambda h: b"[" + h[1:]), vouch=True),
        (WEIGHTS, "not a safetensors file"),
        True,
    ),
    Row(
        "unknown type",
        weights(header(lambda h: h.replace(b"F32", b"F33")), vouch=True),
        ("not a safetensors file",),
        True,
    ),
    Row(
        "offsets beyond the end",
        weights(header(lambda h: re.sub(rb"\[0,\d+\]", b"[0,999999]", h, count=1)), vouch=True),
        (WEIGHTS, "not a safetensors file"),
        True,
    ),
    Row("another bundle's weights", lambda f: (f / WEIGHTS).write_bytes(save(state_of(TINY, 9))), ("SHA-256",)),
    Row("no weights", lambda f: (f / WEIGHTS).unlink(), (f"has no {WEIGHTS}",)),
    Row("a folder of that name", in_place_of(WEIGHTS, lambda path: path.mkdir()), (WEIGHTS, "is not a file")),
    Row("a pipe of that name", in_place_of(WEIGHTS, os.mkfifo), (WEIGHTS, "is not a file")),
]
PICKLES = [
    Row("a pickle", weights(lambda d: pickle.dumps(Bomb())), (WEIGHTS, "is a pickle", "save_pretrained")),
    Row("a pickle, vouched for", weights(lambda d: pickle.dumps(Bomb()), vouch=True), (WEIGHTS, "is a pickle")),
    Row(
        "an old pickle",
        weights(lambda d: pickle.dumps(Bomb(), 0), vouch=True),
        (WEIGHTS, "not a safetensors file"),
        True,
    ),
    Row("torch.save", weights(lambda d: torch_saved(load(d)), vouch=True), (WEIGHTS, "zip archive", "torch.save()")),
    Row(
        "a pickle beside",
        lambda f: (f / WEIGHTS).rename(f / "model.pt"),
        (f"has no {WEIGHTS}, but model.pt, a pickle", "save_pretrained"),
    ),
    Row(
        "a checkpoint beside",
        lambda f: (f / WEIGHTS).rename(f / "last.ckpt"),
        (f"has no {WEIGHTS}, but last.ckpt, a pickle",),
    ),
]
KEYS = [
    Row("a key lacks", state(lambda t: t.pop("reach")), (WEIGHTS, "lacks 1 of the tensors: 'reach'"), True),
    Row("all lack", state(dict.clear), (WEIGHTS, "lacks 10 of the tensors", "…"), True),
    Row("one too many", put("extra", lambda t: torch.ones(2)), (WEIGHTS, "has besides 1", "'extra'"), True),
    Row("renamed", rename(CONV, "module." + CONV), (WEIGHTS, f"lacks 1 of the tensors: '{CONV}'"), True),
    Row("reshaped", put(CONV, lambda t: t.flatten()), (f"'{CONV}' has shape (36,)", "(4, 1, 3, 3)"), True),
    Row("turned", put("texture.2.weight", lambda t: t.permute(1, 0, 2, 3).contiguous()), ("(4, 1, 1, 1)",), True),
    Row(
        "another half precision",
        put(CONV, lambda t: t.bfloat16()),
        (f"'{CONV}'", "torch.bfloat16", "torch.float32"),
        True,
    ),
    Row("double precision", put(CONV, lambda t: t.double()), ("torch.float64", "torch.float32"), True),
    Row("whole numbers", put(CONV, lambda t: t.int()), ("torch.int32", "torch.float32"), True),
    Row("NaN", put(CONV, bad(np.nan)), (WEIGHTS, f"'{CONV}' holds NaN or infinity"), True),
    Row("infinity", put(CONV, bad(np.inf)), (WEIGHTS, f"'{CONV}' holds NaN or infinity"), True),
    Row("NaN in a statistic", put("texture.1.running_var", bad(np.nan)), ("'texture.1.running_var' holds",), True),
]
SPECS = [
    Row("no spec", lambda f: (f / SPEC).unlink(), (f"has no {SPEC}",)),
    Row("empty", text(lambda d: b""), (SPEC, "not valid JSON")),
    Row("cut off", text(cut(100)), (SPEC, "not valid JSON")),
    Row("a comma too many", text(lambda d: d.rstrip()[:-1] + b",}"), (SPEC, "not valid JSON")),
    Row("no text", text(lambda d: b"\xff\xfe" + d), (SPEC, "is not text")),
    Row("a list", text(lambda d: b"[" + d + b"]"), (SPEC, "JSON object")),
    Row("nested without end", text(nested), (SPEC, "not valid JSON")),
    Row("two mebibytes", text(lambda d: d + b" " * 2**21), (SPEC, "bytes", "mebibyte")),
    Row("a field twice", text(lambda d: d.replace(b'"name"', b'"name": "other", "name"')), (SPEC, "occurs twice")),
    Row("NaN for a number", text(lambda d: d.replace(b'"batch": 3', b'"batch": NaN')), (SPEC, "NaN")),
    Row("unknown field", fields(command="rm"), (SPEC, "unknown field 'command'")),
    Row("misspelt field", fields(licence="MIT"), (SPEC, "unknown field 'licence'", '"license"')),
    Row("newer schema", fields(schema=2), (SPEC, "schema is 2", "pip install --upgrade xr-cloudfree")),
    Row("no schema", fields(schema=...), (SPEC, "schema is None")),
    Row("schema in words", fields(schema="1"), (SPEC, "schema is '1'")),
    Row("schema true", fields(schema=True), (SPEC, "schema is True")),
    Row("no name", fields(name=...), (SPEC, "no field 'name'")),
    Row("no summary", fields(summary=...), (SPEC, "no field 'summary'")),
    Row("a name that is a path", fields(name="../../unet"), (SPEC, "name is '../../unet'", "small letters")),
    Row("a name with a blank", fields(name="my model"), (SPEC, "name is 'my model'")),
    Row("units unknown", fields(units="dB"), (SPEC, "units is 'dB'", "'reflectance'")),
    Row("units of storage", fields(units="storage"), (SPEC, "units is 'storage'", '"units": "reflectance"')),
    Row("tile in words", fields(tile="24"), (SPEC, "tile is '24'", '"tile": 256')),
    Row("tile beyond all", fields(tile=10**9, stride=10**9), (SPEC, "tile is 1000000000", "4096")),
    Row("tile without stride", fields(stride=None), (SPEC, "tile and stride go together")),
    Row("odd halo", fields(stride=15), (SPEC, "even difference")),
    Row("batch of none", fields(batch=0), (SPEC, "batch is 0")),
    Row("window below zero", fields(window_days=-3), (SPEC, "window_days is -3")),
    Row("unknown layer", fields(layers=["magic"]), (SPEC, "layers is ['magic']")),
    Row("layers in a text", fields(layers="gate"), (SPEC, "layers is 'gate'")),
    Row("no bands", fields(bands=[]), (SPEC, "bands is []")),
    Row("bands twice", fields(bands=["red", "red"]), (SPEC, "named twice")),
    Row("fewer than the fewest", fields(min_bands=4, max_bands=3), (SPEC, "max_bands is less")),
    Row("config in a list", fields(config=[1, 2]), (SPEC, "config is [1, 2]")),
    Row("config with objects", fields(config={"hidden": {"a": 1}}), (SPEC, "config is")),
    Row("no architecture", fields(architecture=None), (SPEC, "has no architecture")),
    Row("no hash", fields(weights_sha256=None), (SPEC, "has no weights_sha256")),
    Row("a hash that is none", fields(weights_sha256="abc"), (SPEC, "weights_sha256 is 'abc'", "64 hex")),
    Row("another hash", fields(weights_sha256="0" * 64), (WEIGHTS, "SHA-256", "000000000000…")),
    Row("a folder as spec", in_place_of(SPEC, lambda path: path.mkdir()), (SPEC, "is not a file")),
]
NETWORKS = [
    Row("unknown architecture", fields(architecture="unet-9"), (SPEC, "'unet-9'", "unet-paper"), True),
    Row("a path as architecture", fields(architecture="os:system"), (SPEC, "'os:system'"), True),
    Row("an unknown argument", fields(config={"depth": 3}), (SPEC, "depth"), True),
    Row("an argument in words", fields(config={"hidden": "four"}), (SPEC, "{'hidden': 'four'}"), True),
    Row("an argument below zero", fields(config={"hidden": -4}), (SPEC, "{'hidden': -4}"), True),
    Row("a config of another size", fields(config={"hidden": 8}), (WEIGHTS, "(4, 1, 3, 3)", "(8, 1, 3, 3)"), True),
    Row("another architecture", fields(architecture="x-own", config={}), (WEIGHTS, "lacks 1", "'x-own'"), True),
]
LINKS = [
    Row("weights by a link", moved(WEIGHTS, "elsewhere"), (WEIGHTS, "is a link to", "elsewhere")),
    Row("spec by a link", moved(SPEC, "elsewhere"), (SPEC, "is a link to")),
    Row("a link to nowhere", in_place_of(WEIGHTS, lambda path: path.symlink_to("/nowhere/at/all")), ("is a link to",)),
    Row("a link to itself", in_place_of(WEIGHTS, lambda path: path.symlink_to(WEIGHTS)), (WEIGHTS, "is not a file")),
    Row("a link upwards", in_place_of(SPEC, lambda path: path.symlink_to("../../../etc/passwd")), ("is a link to",)),
]
ROWS = [*TRUNCATED, *FLIPPED, *FORM, *PICKLES, *KEYS, *SPECS, *NETWORKS, *LINKS]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "_networks", {})
    monkeypatch.chdir(tmp_path)  # where a pickle would leave its mark
    make_bundle(tmp_path / "made" / "tiny")
    return tmp_path / "made" / "tiny"


def observed():
    bands = np.full((2, 3, 24, 24), 0.2, np.float32)
    return Observations(bands, np.ones((2, 24, 24), bool), np.array([-5.0, 5.0]))


def use(folder, late):
    """What a user does: load it, and if that is let pass, predict."""
    model = xr_cloudfree.from_pretrained(f"local-dir:{folder}", device="cpu")
    assert late, "the fault was not seen when the model was loaded"
    model.predict([observed()])


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_the_error_teaches(row, folder):
    row.spoil(folder)
    with pytest.raises(errors.CloudfreeError) as info:
        use(folder, row.late)
    error = info.value
    assert type(error) is row.error and isinstance(error, ValueError), repr(error)
    assert str(folder) in error.found
    for words in row.says:
        assert words in str(error)
    for part in (error.found, error.needed, error.remedy):
        assert part.strip() and len(part) < 700
    assert re.search(r"\w+\.\w+\(|\w+=|pip install|cp |\"\w+\": ", error.remedy), error.remedy
    assert not (folder.parent.parent / "unpickled").exists()
    assert type(pickle.loads(pickle.dumps(error))) is row.error


def test_the_table_is_long_and_the_bundle_that_is_spoilt_is_good(folder):
    assert len({row.name for row in ROWS}) == len(ROWS) >= 90
    assert (folder / WEIGHTS).read_bytes() == GOOD
    use(folder, late=True)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.late][::7], ids=lambda row: row.name)
def test_fill_refuses_it_before_anything_is_computed(row, folder):
    row.spoil(folder)
    da, clear = (array.chunk(y=20) for array in make_cube())
    with pytest.raises(errors.WeightsError):
        xr_cloudfree.fill(da, TARGET, clear=clear, model=f"local-dir:{folder}")


@pytest.mark.parametrize("row", NETWORKS[:2], ids=lambda row: row.name)
def test_an_unknown_architecture_is_refused_before_anything_is_computed(row, folder):
    row.spoil(folder)
    da, clear = (array.chunk(y=20) for array in make_cube())
    with pytest.raises(errors.WeightsError, match="pip install --upgrade"):
        xr_cloudfree.fill(da, TARGET, clear=clear, model=f"local-dir:{folder}")


@pytest.mark.parametrize("row", [KEYS[0], NETWORKS[3]], ids=lambda row: row.name)
def test_what_only_the_network_tells_is_the_same_error_when_computed(row, folder):
    row.spoil(folder)
    da, clear = (array.chunk(y=20) for array in make_cube())
    image = xr_cloudfree.fill(da, TARGET, clear=clear, model=f"local-dir:{folder}")
    for scheduler in ("synchronous", "threads"):
        with pytest.raises(errors.WeightsError) as info:
            image.compute(scheduler=scheduler)
        assert all(words in str(info.value) for words in row.says)


@pytest.mark.parametrize("n", range(0, len(GOOD), max(len(GOOD) // 60, 1)))
def test_every_truncation_is_seen(n, folder):
    (folder / WEIGHTS).write_bytes(GOOD[:n])
    with pytest.raises(errors.WeightsError, match="SHA-256"):
        use(folder, late=False)


def test_every_flipped_bit_is_seen(folder):
    rng = np.random.default_rng(0)
    for position in rng.integers(0, 8 * len(GOOD), 150):
        at, bit = divmod(int(position), 8)
        (folder / WEIGHTS).write_bytes(flip(at, bit)(GOOD))
        with pytest.raises(errors.WeightsError, match="SHA-256"):
            use(folder, late=False)


PLACES = [
    ("local-dir:", errors.OptionError, "names no folder"),
    ("local-dir:  ", errors.OptionError, "names no folder"),
    ("local-dir:a\0b", errors.OptionError, "names no folder"),
    ("local-dir:not/there", errors.WeightsError, "not/there does not exist"),
    ("local-dir:made", errors.WeightsError, f"has no {SPEC}"),
    (f"local-dir:made/tiny/{WEIGHTS}", errors.WeightsError, "is a file"),
    ("local-dir:made/tiny/../../../../..", errors.WeightsError, f"has no {SPEC}"),
    ("tiny", errors.ModelNotFoundError, "'tiny'"),
    ("../../tiny", errors.ModelNotFoundError, "'../../tiny'"),
    ("", errors.ModelNotFoundError, "''"),
    ("linear", errors.ModelNotFoundError, "'linear'"),
]


@pytest.mark.parametrize(("source", "error", "says"), PLACES, ids=[repr(source) for source, _, _ in PLACES])
def test_places_where_no_model_is(source, error, says, folder):
    with pytest.raises(errors.CloudfreeError) as info:
        xr_cloudfree.from_pretrained(source)
    assert type(info.value) is error and says in info.value.found
    assert "local-dir:" in info.value.remedy or "save_pretrained" in info.value.remedy


@pytest.mark.parametrize("source", [None, 3, b"unet", ["unet"]])
def test_sources_that_are_no_text(source):
    with pytest.raises(errors.OptionTypeError, match="source is"):
        xr_cloudfree.from_pretrained(source)


def test_a_path_is_told_how_it_is_written(folder):
    with pytest.raises(errors.OptionTypeError) as info:
        xr_cloudfree.from_pretrained(folder)
    assert info.value.remedy == f"'local-dir:{folder}'"
    xr_cloudfree.from_pretrained(eval(info.value.remedy))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_weights_that_one_may_not_read(folder):
    (folder / WEIGHTS).chmod(0)
    with pytest.raises(errors.WeightsError, match="cannot be read"):
        use(folder, late=False)
