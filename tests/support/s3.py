"""An S3 server on this machine, in a process of its own: that of moto, with switches for faults.

``python -m tests.support.s3`` prints its port and serves until its input is closed.
"""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

SECRET = "n0t-to-be-st0red"
BUCKET = "bucket"
_FAULTS = "/-/faults"
_ERROR = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>on purpose</Message></Error>"


class Faulty:
    """A WSGI application in front of moto's: faults, and one write at a time, so that conditions hold.

    A fault is a mapping: ``method`` and ``path`` (a part of it) say which requests; ``every`` n-th of them, at most
    ``times``. ``status`` is answered, with ``late`` after the request was carried out; ``seconds`` of waiting come
    before; ``unconditional`` removes the conditions from the request; a list has at most ``most`` objects a page.
    """

    def __init__(self, application):
        self.application, self.faults, self.met = application, [], []
        self.writing = threading.Lock()

    def __call__(self, environ, start):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path == _FAULTS:
            self.faults = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            self.met = [0] * len(self.faults)
            start("200 OK", [("Content-Length", "0")])
            return [b""]
        for i, fault in enumerate(self.faults):
            if method not in fault.get("method", method) or fault.get("path", "") not in path:
                continue
            self.met[i] += 1
            hit = self.met[i] % fault.get("every", 1) == 0 and self.met[i] // fault.get("every", 1) <= fault.get(
                "times", 10**9
            )
            if not hit:
                continue
            time.sleep(fault.get("seconds", 0))
            if fault.get("unconditional"):
                environ.pop("HTTP_IF_NONE_MATCH", None)
                environ.pop("HTTP_IF_MATCH", None)
            if "most" in fault:
                environ["QUERY_STRING"] += f"&max-keys={fault['most']}"
            if "status" in fault:
                if fault.get("late"):
                    self.answer(environ, lambda *told: None)
                else:
                    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                body = _ERROR % (b"SlowDown" if fault["status"] == 503 else b"AccessDenied")
                start(f"{fault['status']} Fault", [("Content-Length", str(len(body)))])
                return [body if method != "HEAD" else b""]
        return self.answer(environ, start)

    def answer(self, environ, start):
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self.application(environ, start)
        with self.writing:
            return list(self.application(environ, start))


def main():
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *told):
            pass

    application = Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


class Server:
    """A running server."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"
        # What a user sets, for this process and for others.
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def request(self, method, path, data=None):
        # Moto would wait for the fields of a form, which is what urllib says it sends.
        headers = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def disturb(self, *faults):
        """Answer with these faults from now on; with none, as a server should."""
        self.request("POST", _FAULTS, json.dumps(faults).encode())

    def upload(self, folder, key):
        """Upload a folder with all its files, as `aws s3 cp --recursive` does."""
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                self.request("PUT", f"/{BUCKET}/{key}/{file.relative_to(folder).as_posix()}", file.read_bytes())


@contextmanager
def serving():
    """A server with one empty bucket, whose credentials are in the environment."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.s3"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    before = dict(os.environ)
    try:
        server = Server(int(process.stdout.readline()))
        server.request("PUT", f"/{BUCKET}")
        os.environ.update(server.environment)
        yield server
    finally:
        os.environ.clear()
        os.environ.update(before)
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


if __name__ == "__main__":
    main()
