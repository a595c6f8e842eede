"""File servers on this machine, for cubes at URLs."""

import functools
import http.server
import re
import threading
from contextlib import contextmanager
from pathlib import Path


class Plain(http.server.SimpleHTTPRequestHandler):
    """Gives files, lists folders."""

    def log_message(self, *told):
        pass


class Ranges(Plain):
    """Gives parts of files too."""

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not asked or not path.is_file():
            return super().do_GET()
        data = path.read_bytes()
        first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(data[first : last + 1])


class Forbidden(Plain):
    """Gives nothing."""

    def do_GET(self):
        self.send_error(403)

    do_HEAD = do_GET


class Failing(Plain):
    """Gives metadata and coordinates, and then fails."""

    def do_GET(self):
        if "/B04/c/" in self.path:
            self.send_error(500)
        else:
            super().do_GET()


@contextmanager
def serving(folder, kind=Plain):
    """The URL of a server of a folder."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(kind, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
