"""TerraMind's weights: from a hub that answers, hangs, breaks off or sends something else."""

import hashlib
import io
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import pytest

torch = pytest.importorskip("torch")
if find_spec("terratorch") is None:  # importing all of it is what is to be spared
    pytest.skip("needs terratorch", allow_module_level=True)
constants = pytest.importorskip("huggingface_hub.constants")
safetensors = pytest.importorskip("safetensors.torch")

import xr_cloudfree  # noqa: E402
from xr_cloudfree import errors  # noqa: E402
from xr_cloudfree.models.bundles import hub  # noqa: E402
from xr_cloudfree.models.networks.terramind import weights  # noqa: E402
from xr_cloudfree.models.networks.terramind.encoder import S1, S2, build_encoder  # noqa: E402

REPO, FILE, COMMIT = "ibm-esa-geospatial/TerraMind-1.0-tiny", "TerraMind_v1_tiny.pt", "0123456789" * 4


class StandIn(ThreadingHTTPServer):
    """Serves one file as a hub does, and misbehaves when told to."""

    daemon_threads = True

    def __init__(self, data):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.announced, self.asked = data, hashlib.sha256(data).hexdigest(), []
        self.hang = ()  # methods that get no answer
        self.cut = []  # after how many bytes each of the next answers breaks off
        self.stall = False  # whether it stops without hanging up
        self.ranges = True
        self.over = threading.Event()

    def handle_error(self, request, client_address):
        """Whoever waits in vain hangs up; that is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self):
        server = self.server
        server.asked.append((self.command, self.headers.get("Range")))
        if self.command in server.hang:
            server.over.wait(20)
            self.close_connection = True
            return
        if self.path != f"/{REPO}/resolve/{COMMIT}/{FILE}":
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        if self.command == "GET" and server.ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-ETag", f'"{server.announced}"')
        self.send_header("ETag", f'"{server.announced}"')
        self.send_header("Content-Length", str(len(server.data) - start))
        self.end_headers()
        if self.command == "GET":
            end = server.cut.pop(0) if server.cut else len(server.data)
            self.wfile.write(server.data[start:end])
            if server.stall and end < len(server.data):
                server.over.wait(20)
            self.close_connection = True

    do_HEAD = do_GET = answer


def pickled(state):
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()


@pytest.fixture(scope="module")
def published():
    """An encoder with the weights that are to come, and the file of them, with what the encoder does not need."""
    torch.manual_seed(1)
    encoder = build_encoder("tiny", (S2, S1))
    state = encoder.state_dict() | {"decoder.0.weight": torch.zeros(3), "mask_token": torch.zeros(1)}
    return encoder, pickled(state)


@pytest.fixture
def server(published, tmp_path, monkeypatch):
    stand_in = StandIn(published[1])
    threading.Thread(target=stand_in.serve_forever, args=(0.02,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{stand_in.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights, "_folder", lambda library, release: _made(tmp_path / "assets" / release.sha256[:16]))
    sent(monkeypatch, published[1])
    yield stand_in
    stand_in.over.set()
    stand_in.shutdown()
    stand_in.server_close()


def _made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sent(monkeypatch, data):
    """Make this file the release."""
    release = weights.Release(REPO, FILE, COMMIT, hashlib.sha256(data).hexdigest(), len(data))
    monkeypatch.setitem(weights.RELEASES, "tiny", release)


def caught(error, call=lambda: weights.fetch("tiny"), within=5.0):
    start = time.monotonic()
    with pytest.raises(errors.CloudfreeError) as info:
        call()
    assert time.monotonic() - start < within
    assert type(info.value) is error, str(info.value)
    return info.value


def two_ways_on(error, tmp_path):
    assert isinstance(error, OSError)
    assert f"{REPO}/{FILE}" in error.found and str(tmp_path / "cache") in error.found and "127.0.0.1:" in error.found
    assert f"hf download {REPO} {FILE} --revision {COMMIT}" in error.remedy and "HF_HUB_CACHE=PATH" in error.remedy
    assert "terramind-tiny-scratch" in error.remedy and "model='terramind'" in error.remedy


class TestFetching:
    def test_they_come_and_are_kept_as_safetensors(self, server, published, tmp_path, capsys):
        path = weights.fetch("tiny")
        assert "downloading ibm-esa-geospatial/TerraMind-1.0-tiny" in capsys.readouterr().err
        kept = safetensors.load_file(path)
        assert kept.keys() == published[0].state_dict().keys()
        assert sorted(p.name for p in path.parent.iterdir()) == ["tiny.json", "tiny.safetensors"]
        server.asked.clear()
        assert weights.fetch("tiny") == path and server.asked == []

    def test_every_weight_arrives_and_changes_the_answer(self, server, published):
        torch.manual_seed(2)
        encoder = build_encoder("tiny").eval()
        image = torch.randn(1, 12, 32, 32)
        with torch.inference_mode():
            before = encoder({"S2L2A": image})[-1]
            weights.load(encoder, weights.fetch("tiny"))
            after = encoder({"S2L2A": image})[-1]
            expected = published[0].eval()({"S2L2A": image})[-1]
        assert torch.equal(after, expected) and not torch.equal(before, after)
        for name, tensor in encoder.state_dict().items():
            assert torch.equal(tensor, published[0].state_dict()[name]), name

    def test_what_is_kept_is_checked(self, server):
        path = weights.fetch("tiny")
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        weights.fetch("tiny")
        assert path.read_bytes() == data

    def test_the_cache_of_the_hub_serves(self, server, tmp_path):
        place = tmp_path / "cache" / ("models--" + REPO.replace("/", "--")) / "snapshots" / COMMIT
        place.mkdir(parents=True)
        (place / FILE).write_bytes(server.data)
        weights.fetch("tiny")
        assert server.asked == []
        assert (place / FILE).exists()

    def test_another_file_in_the_cache_of_the_hub_does_not(self, server, tmp_path):
        place = tmp_path / "cache" / ("models--" + REPO.replace("/", "--")) / "snapshots" / COMMIT
        place.mkdir(parents=True)
        (place / FILE).write_bytes(server.data[:-1])
        weights.fetch("tiny")
        assert ("GET", "bytes=0-") in server.asked

    def test_a_download_goes_on_where_it_stopped(self, server):
        cut = len(server.data) // 2
        server.cut = [cut]
        weights.fetch("tiny")
        assert [asked for asked in server.asked if asked[0] == "GET"] == [("GET", "bytes=0-"), ("GET", f"bytes={cut}-")]

    def test_a_hub_that_cannot_go_on_sends_all_of_it(self, server):
        server.cut, server.ranges = [len(server.data) // 2], False
        weights.fetch("tiny")

    def test_the_next_call_goes_on_too(self, server, tmp_path):
        server.cut = [1000, 1001, 1002, 1003]
        two_ways_on(caught(errors.HubError), tmp_path)
        server.asked.clear()
        weights.fetch("tiny")
        assert ("GET", "bytes=0-") not in server.asked

    def test_the_pinned_releases(self):
        for size, release in weights.RELEASES.items():
            assert release.repo.endswith(size) and release.file == f"TerraMind_v1_{size}.pt"
            assert len(release.sha256) == 64 and release.size > 2e8


class TestUnreachable:
    def test_nobody_listens(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}"
        )
        two_ways_on(caught(errors.HubError), tmp_path)

    def test_nobody_answers(self, server, tmp_path):
        server.hang = ("HEAD", "GET")
        two_ways_on(caught(errors.HubError), tmp_path)

    def test_offline_by_choice(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        two_ways_on(caught(errors.HubError), tmp_path)
        assert server.asked == []

    def test_it_stops_without_hanging_up(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr(weights, "STALL", 0.2)
        server.cut, server.stall = [5000] * 9, True
        error = caught(errors.HubError)
        two_ways_on(error, tmp_path)
        assert f"stopped after 5000 of {len(server.data)} bytes" in error.found

    def test_it_is_asked_before_anything_heavy_is_imported(self, tmp_path):
        code = (
            "import sys; from xr_cloudfree import errors\n"
            "from xr_cloudfree.models.networks.terramind import weights as w\n"
            "try: w.fetch('base')\n"
            "except errors.HubError: pass\n"
            "else: raise SystemExit('it was fetched')\n"
            "assert not {'torch', 'terratorch', 'lightning'} & sys.modules.keys()\n"
        )
        env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
        subprocess.run([sys.executable, "-c", code], env=env, check=True)


class TestWrong:
    def test_a_hub_that_announces_another_file(self, server):
        server.announced = "f" * 64
        error = caught(errors.WeightsError)
        assert "ffffffffffff" in error.found and ("GET", "bytes=0-") not in server.asked

    def test_a_hub_that_sends_another_file(self, server, tmp_path):
        good = server.data
        server.data = bytes([good[0] ^ 1]) + good[1:]
        error = caught(errors.WeightsError)
        assert hashlib.sha256(server.data).hexdigest()[:12] in error.found
        assert not list(tmp_path.rglob("*.partial"))
        server.data = good
        weights.fetch("tiny")

    def test_a_shorter_file_is_not_taken(self, server, monkeypatch):
        server.data = server.data[:-10]
        caught(errors.WeightsError)

    @pytest.mark.parametrize("state", [{"state_dict": {"encoder.0.norm1.weight": torch.ones(2)}}, {"a": 1}, [1]])
    def test_other_keys(self, server, monkeypatch, state):
        server.data = pickled(state)
        server.announced = hashlib.sha256(server.data).hexdigest()
        sent(monkeypatch, server.data)
        assert "untok_sen2l2a@224.proj.weight" in caught(errors.WeightsError).found

    def test_a_pickle_that_would_run_something(self, server, monkeypatch, tmp_path):
        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "ran"), "w"))

        server.data = pickled({weights._FIRST: Evil()})
        server.announced = hashlib.sha256(server.data).hexdigest()
        sent(monkeypatch, server.data)
        assert "cannot be read as tensors" in caught(errors.WeightsError).found
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            (lambda s: s.pop("encoder.3.mlp.fc1.weight"), "lacks 1 of"),
            (lambda s: s.update({"encoder.12.norm1.weight": torch.ones(192)}), "of a larger encoder"),
            (lambda s: s.update({"encoder_norm.weight": torch.ones(384)}), "has shape (384,)"),
            (lambda s: s["encoder_norm.weight"].fill_(torch.nan), "NaN"),
        ],
    )
    def test_weights_that_do_not_fit(self, published, tmp_path, change, what):
        state = {name: tensor.clone() for name, tensor in published[0].state_dict().items()}
        change(state)
        safetensors.save_file(state, tmp_path / "tiny.safetensors")
        encoder = build_encoder("tiny")
        before = encoder.state_dict()["encoder_norm.weight"].clone()
        error = caught(errors.WeightsError, lambda: weights.load(encoder, tmp_path / "tiny.safetensors"), within=60)
        assert what in error.found
        assert torch.equal(encoder.state_dict()["encoder_norm.weight"], before)

    def test_what_is_computed_may_lack(self, published, tmp_path):
        state = {n: t for n, t in published[0].state_dict().items() if not n.endswith(("pos_emb", "norm1.bias"))}
        safetensors.save_file(state, tmp_path / "tiny.safetensors")
        weights.load(build_encoder("tiny"), tmp_path / "tiny.safetensors")

    def test_a_size_that_there_is_not(self):
        assert "tiny, small, base, large" in caught(errors.ModelError, lambda: weights.fetch("huge")).needed


class TestTheEncoderAlone:
    def test_without_a_network(self, server, tmp_path):
        server.hang = ("HEAD",)
        two_ways_on(caught(errors.HubError, lambda: xr_cloudfree.from_pretrained(f"hf-hub:{REPO}")), tmp_path)

    @pytest.mark.parametrize("revision", ["", "@main"])
    def test_with_a_network(self, server, revision):
        error = caught(errors.WeightsError, lambda: xr_cloudfree.from_pretrained(f"hf-hub:{REPO}{revision}"))
        assert "encoder alone" in error.found
        assert "cloudfree train terramind fit --config terramind-tiny" in error.remedy
        assert "model='terramind'" in error.remedy

    def test_other_repositories_are_none_of_its_business(self, server):
        weights.refuse_alone("org/tiny")
        assert server.asked == []


def test_the_release_is_frozen():
    with pytest.raises(AttributeError):
        weights.RELEASES["tiny"].sha256 = ""
    assert replace(weights.RELEASES["tiny"], size=1).size == 1 and hub.PATIENCE < 5
