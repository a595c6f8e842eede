"""Models from and to a hub: a stand-in on this machine answers, hangs, cuts off, lies and refuses."""

import hashlib
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")
huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
file_download = pytest.importorskip("huggingface_hub.file_download")

import xr_cloudfree  # noqa: E402
from tests.support.cubes import make_cube  # noqa: E402
from tests.support.networks import make_bundle  # noqa: E402
from xr_cloudfree import errors  # noqa: E402
from xr_cloudfree.models.bundles import bundle, hub  # noqa: E402

COMMIT, OTHER = "0123456789abcdef" * 2 + "01234567", "f" * 40
SOURCE = "hf-hub:org/tiny"


class StandIn(ThreadingHTTPServer):
    """Serves a bundle as a hub does, and misbehaves when told to."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked = dict(files), []
        self.refs = {"main": COMMIT, "v1": COMMIT, COMMIT: COMMIT}
        self.refuse = None  # a status, and a hub's name of the error
        self.hang = ()  # methods that get no answer
        self.cut = 0  # bytes that lack at the end of the weights
        self.no_commit = False
        self.over = threading.Event()

    def handle_error(self, request, client_address):
        """Whoever waits in vain hangs up; that is part of the tests."""

    def stop(self):
        self.over.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self):
        server = self.server
        server.asked.append((self.command, self.path))
        if self.command in server.hang:
            server.over.wait(20)
            self.close_connection = True
            return
        if server.refuse is not None:
            self.refused(*server.refuse)
            return
        repo, _, rest = self.path.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if repo != "org/tiny":
            self.refused(404, "RepoNotFound")
        elif revision not in server.refs:
            self.refused(404, "RevisionNotFound")
        elif name not in server.files:
            self.refused(404, "EntryNotFound")
        else:
            data = server.files[name]
            self.send_response(200)
            if not server.no_commit:
                self.send_header("X-Repo-Commit", server.refs[revision])
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                lacks = server.cut if name == bundle.WEIGHTS else 0
                self.wfile.write(data[: len(data) - lacks])
                self.close_connection = lacks > 0

    do_HEAD = do_GET = do_POST = answer

    def refused(self, status, code=None):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def spec(tmp_path):
    return make_bundle(tmp_path / "made")


@pytest.fixture
def server(tmp_path, spec, monkeypatch):
    stand_in = StandIn({name: (tmp_path / "made" / name).read_bytes() for name in bundle.FILES})
    threading.Thread(target=stand_in.serve_forever, args=(0.02,), daemon=True).start()
    connect(monkeypatch, tmp_path, f"http://127.0.0.1:{stand_in.server_port}")
    yield stand_in
    stand_in.stop()


def connect(monkeypatch, tmp_path, endpoint):
    """As HF_ENDPOINT and HF_HUB_CACHE do in a fresh process."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # The hub's own waiting between attempts is not what is tested.
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda s: None, time=time.time))


def caught(error, source=SOURCE):
    """The error, which has to come in time and to be of this type."""
    start = time.monotonic()
    with pytest.raises(errors.CloudfreeError) as info:
        xr_cloudfree.from_pretrained(source)
    assert time.monotonic() - start < 5
    assert type(info.value) is error, str(info.value)
    return info.value


class TestFetching:
    def test_a_model_comes_and_its_revision_is_kept(self, server, spec, tmp_path):
        model = xr_cloudfree.from_pretrained(SOURCE, device="cpu")
        assert model.spec == spec and str(model.source) == f"hf-hub:org/tiny@{COMMIT}"
        assert COMMIT in repr(model)
        folder = model.source.folder()
        assert folder == tmp_path / "cache" / "models--org--tiny" / "snapshots" / COMMIT
        assert sorted(path.name for path in folder.iterdir()) == sorted(bundle.FILES)
        da, clear = make_cube()
        out = xr_cloudfree.fill(da, "2021-06-03", clear=clear, model=SOURCE)
        assert out.attrs["cloudfree_weights"] == spec.weights_sha256

    def test_nothing_else_is_fetched(self, server):
        server.files |= {"pytorch_model.bin": b"\x80", "extra.py": b"import os"}
        xr_cloudfree.from_pretrained(SOURCE)
        files = [path for _, path in server.asked if not path.startswith("/api/")]  # huggingface_hub may ask for more
        assert {path.rsplit("/", 1)[-1] for path in files} == set(bundle.FILES)

    @pytest.mark.parametrize("revision", ["v1", COMMIT])
    def test_a_revision(self, server, revision):
        assert str(xr_cloudfree.from_pretrained(f"{SOURCE}@{revision}").source).endswith(f"@{COMMIT}")

    def test_what_was_fetched_is_not_fetched_again(self, server):
        model = xr_cloudfree.from_pretrained(SOURCE)
        server.asked.clear()
        xr_cloudfree.from_pretrained(SOURCE)
        assert server.asked == [("HEAD", "/org/tiny/resolve/main/spec.json")]
        server.asked.clear()
        model.source.folder()
        xr_cloudfree.from_pretrained(f"{SOURCE}@{COMMIT}")
        assert server.asked == []

    def test_the_newest_is_taken(self, server, tmp_path):
        xr_cloudfree.from_pretrained(SOURCE)
        new = make_bundle(tmp_path / "new", seed=1)
        server.files = {name: (tmp_path / "new" / name).read_bytes() for name in bundle.FILES}
        server.refs = {"main": OTHER, OTHER: OTHER}
        model = xr_cloudfree.from_pretrained(SOURCE)
        assert model.spec == new and str(model.source).endswith(f"@{OTHER}")

    def test_a_card_may_lack(self, server):
        del server.files[bundle.CARD]
        assert xr_cloudfree.from_pretrained(SOURCE).spec.name == "tiny"

    def test_the_environment_names_the_hub(self, server, tmp_path):
        code = f"import xr_cloudfree; print(xr_cloudfree.from_pretrained({SOURCE!r}))"
        env = {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "home"),
            "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert f"hf-hub:org/tiny@{COMMIT}" in done.stdout
        assert (tmp_path / "home" / "hub" / "models--org--tiny").is_dir()


class TestUnreachable:
    def two_ways_on(self, error, tmp_path):
        assert isinstance(error, OSError)
        assert "'org/tiny' (revision" in error.found and str(tmp_path / "cache") in error.found
        assert "127.0.0.1:" in error.found
        assert "hf download org/tiny --local-dir PATH" in error.remedy and "model='local-dir:PATH'" in error.remedy
        assert "model='auto'" in error.remedy

    def test_nobody_listens(self, server, tmp_path):
        server.stop()
        self.two_ways_on(caught(errors.HubError), tmp_path)

    def test_nobody_answers(self, server, tmp_path):
        server.hang = ("HEAD", "GET")
        error = caught(errors.HubError)
        self.two_ways_on(error, tmp_path)

    def test_a_name_service_that_hangs(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *a, **k: server.over.wait(20))
        error = caught(errors.HubError)
        assert "no response within 3.5 s" in error.found
        self.two_ways_on(error, tmp_path)

    def test_offline_by_choice(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        self.two_ways_on(caught(errors.HubError), tmp_path)
        assert server.asked == []

    @pytest.mark.parametrize("status", [500, 503, 429])
    def test_it_answers_with_an_error(self, server, tmp_path, status):
        server.refuse = (status,)
        self.two_ways_on(caught(errors.HubError), tmp_path)

    def test_what_answers_is_no_hub(self, server, tmp_path):
        server.no_commit = True
        error = caught(errors.HubError)
        assert "names no commit" in error.found
        self.two_ways_on(error, tmp_path)

    def test_it_goes_away_in_between(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
        server.hang = ("GET",)
        self.two_ways_on(caught(errors.HubError), tmp_path)
        server.hang = ()
        assert xr_cloudfree.from_pretrained(SOURCE).spec.name == "tiny"

    def test_what_is_in_the_cache_is_used_and_that_is_said(self, server, monkeypatch):
        fetched = xr_cloudfree.from_pretrained(SOURCE)
        server.refuse = (503,)
        with pytest.warns(errors.CloudfreeWarning, match=f"the cached copy of org/tiny is used, revision {COMMIT}"):
            model = xr_cloudfree.from_pretrained(SOURCE)
        assert repr(model) == repr(fetched)
        # Asked for by its commit, or offline by choice, there is nothing to say.
        assert repr(xr_cloudfree.from_pretrained(f"{SOURCE}@{COMMIT}")) == repr(fetched)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert repr(xr_cloudfree.from_pretrained(SOURCE)) == repr(fetched)


class TestRefused:
    @pytest.mark.parametrize("refuse", [(404, "RepoNotFound"), (401,), (403, "GatedRepo"), (404,), (403,)])
    def test_no_such_model_or_none_that_one_may_see(self, server, refuse):
        server.refuse = refuse
        error = caught(errors.ModelNotFoundError)
        assert isinstance(error, LookupError)
        assert "'org/tiny'" in error.found and "hf auth login" in error.remedy

    def test_no_such_revision(self, server):
        error = caught(errors.ModelNotFoundError, f"{SOURCE}@v9")
        assert "no revision 'v9'" in error.found and "model='hf-hub:org/tiny'" in error.remedy

    @pytest.mark.parametrize("name", [bundle.SPEC, bundle.WEIGHTS])
    def test_it_is_no_model_of_ours(self, server, name):
        del server.files[name]
        error = caught(errors.WeightsError)
        assert f"has no {name}" in error.found and "push_to_hub" in error.remedy

    @pytest.mark.parametrize(
        "source",
        "hf-hub: hf-hub:tiny hf-hub:org/tiny@ hf-hub:../../etc/x hf-hub:org/.. hf-hub:org/a/b hf-hub:org/tiny@../x "
        "hf-hub:org/tiny@-x hf-hub:/tiny hf-hub:-org/tiny hf-hub:org/a..b".split(),
    )
    def test_names_that_are_none(self, server, source):
        assert "model='hf-hub:organisation/name'" in caught(errors.OptionError, source).remedy
        assert server.asked == []

    def test_weights_that_are_cut_off(self, server, tmp_path):
        server.cut = 100
        error = caught(errors.HubError)
        assert "'org/tiny'" in error.found
        assert not list((tmp_path / "cache").rglob(bundle.WEIGHTS))
        server.cut = 0
        assert xr_cloudfree.from_pretrained(SOURCE).spec.name == "tiny"

    def test_weights_of_another_hash(self, server, tmp_path):
        good = server.files[bundle.WEIGHTS]
        server.files[bundle.WEIGHTS] = good[:-1] + bytes([good[-1] ^ 1])
        error = caught(errors.WeightsError)
        assert str(tmp_path / "cache") in error.found and "SHA-256" in error.found
        # The remedy works: the cache's copy is removed, and a right one is fetched.
        where = error.remedy.removeprefix("rm -r ").split(",")[0]
        assert where == str(tmp_path / "cache" / "models--org--tiny")
        server.files[bundle.WEIGHTS] = good
        assert caught(errors.WeightsError)
        subprocess.run(["rm", "-r", where], check=True)
        assert xr_cloudfree.from_pretrained(SOURCE).spec.name == "tiny"

    def test_without_the_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        assert "pip install huggingface_hub" in caught(errors.MissingDependencyError).remedy


class TestPushing:
    @pytest.fixture
    def sent(self, monkeypatch):
        """What would have been sent; only the two calls that use the network are replaced."""
        calls = {}

        def create_repo(api, repo_id, **how):
            calls["repo"] = repo_id, api.token, how

        def create_commit(api, repo_id, operations, **how):
            files = {op.path_in_repo: op.path_or_fileobj for op in operations}
            calls["commit"] = repo_id, files, how["commit_message"]
            return SimpleNamespace(oid=COMMIT)

        monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
        monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", create_commit)
        return calls

    def test_the_three_files_go_in_one_commit(self, spec, sent, tmp_path):
        (tmp_path / "made" / "notes.txt").write_text("mine")
        model = xr_cloudfree.from_pretrained(f"local-dir:{tmp_path / 'made'}")
        assert model.push_to_hub("org/tiny", token="hf_x", private=True) == f"hf-hub:org/tiny@{COMMIT}"
        assert sent["repo"] == ("org/tiny", "hf_x", {"private": True, "exist_ok": True})
        repo, files, message = sent["commit"]
        assert repo == "org/tiny" and message == f"tiny, weights {spec.weights_sha256[:12]}"
        assert files == {name: (tmp_path / "made" / name).read_bytes() for name in bundle.FILES}

    def test_damaged_weights_are_not_sent(self, spec, sent, tmp_path):
        model = xr_cloudfree.from_pretrained(f"local-dir:{tmp_path / 'made'}")
        (tmp_path / "made" / bundle.WEIGHTS).write_bytes(b"")
        with pytest.raises(errors.WeightsError, match="SHA-256"):
            model.push_to_hub("org/tiny")
        assert not sent

    @pytest.mark.parametrize("repo", ["org/tiny", "not a name"])
    def test_a_hub_that_refuses(self, server, tmp_path, repo):
        server.refuse = (403,)
        model = xr_cloudfree.from_pretrained(f"local-dir:{tmp_path / 'made'}")
        with pytest.raises(errors.HubError, match=f"did not take 'tiny' as '{repo}'") as info:
            model.push_to_hub(repo, token="hf_x")
        assert "hf auth login" in info.value.remedy and "token=" in info.value.remedy


def test_what_a_thread_raises_is_raised_here(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        hub.in_time(lambda: 1 // 0)
    assert hub.in_time(lambda: None) is None
