"""An archive on this machine: files by HTTP with range requests, a small STAC API, and faults on demand."""

import json
import re
import socket
import struct
import threading
import time
import urllib.parse
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

SECRET = "sig=still-valid"


@dataclass
class Fault:
    """What happens to requests for files whose path matches a pattern.

    Parameters
    ----------
    kind : str
        A status ("404"), or "reset", "truncated", "wrong length", "html", "slow", "redirect", "signature".
    pattern : str
        Regular expression of paths.
    times : int
        How many requests are affected; all by default.
    """

    kind: str
    pattern: str = r"\.tif"
    times: int = 10**9


@dataclass
class Archive:
    """A server of a folder and of items: what it is to do, and what it has done."""

    folder: Path
    items: list = field(default_factory=list)
    url: str = ""
    faults: list = field(default_factory=list)
    page: int = 100
    requests: list = field(default_factory=list)
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_of(self, path):
        """The fault that a request meets, None if it meets none; counts it."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault.kind
        return None

    def found(self, query):
        """The items that a search asks for."""
        items = [item for item in self.items if item["collection"] in query.get("collections", [item["collection"]])]
        if query.get("ids"):
            items = [item for item in items if item["id"] in query["ids"]]
        if box := query.get("bbox"):
            items = [i for i in items if i["bbox"][0] <= box[2] and box[0] <= i["bbox"][2]]
            items = [i for i in items if i["bbox"][1] <= box[3] and box[1] <= i["bbox"][3]]
        if span := query.get("datetime"):
            first, _, last = span.partition("/")
            ends = [None if end in ("", "..") else as_time(end) for end in (first, last or first)]
            times = [as_time(item["properties"]["datetime"]) for item in items]
            kept = [(ends[0] is None or t >= ends[0]) and (ends[1] is None or t <= ends[1]) for t in times]
            items = [item for item, keep in zip(items, kept, strict=True) if keep]
        return items


def as_time(text):
    return np.datetime64(text.removesuffix("Z"))


class Handler(BaseHTTPRequestHandler):
    """One request to an `Archive`."""

    archive: Archive

    def log_message(self, *told):
        pass

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        parts = urllib.parse.urlsplit(self.path)
        self.archive.requests.append((self.command, self.path, self.headers.get("Range")))
        if self.path.startswith("/stac"):
            return self.api(parts.path, dict(urllib.parse.parse_qsl(parts.query)))
        file = self.archive.folder / urllib.parse.unquote(parts.path).lstrip("/")
        kind = None if "moved=1" in parts.query else self.archive.fault_of(self.path)
        if kind == "signature":
            kind = None if SECRET in parts.query else "403"
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", f"{self.archive.url}{parts.path}?moved=1")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        if kind == "reset":
            # Closed at once, with RST: the other end sees a connection reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return None
        if kind == "slow":
            time.sleep(1.5)
        if kind is not None and kind.isdecimal():
            return self.send_error(int(kind))
        if not file.is_file():
            return self.send_error(404)
        data = file.read_bytes()
        if kind == "html":
            data = b"<html><body>Please log in</body></html>"
            return self.answer(200, data, "text/html", body=body)
        if kind == "wrong length":  # a file that was not copied to its end
            data = data[: len(data) // 2]
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not asked:
            return self.answer(200, data, "image/tiff", body=body, cut=kind == "truncated")
        first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
        if first >= len(data):
            return self.send_error(416)
        where = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        return self.answer(206, data[first : last + 1], "image/tiff", where, body, kind == "truncated")

    def do_POST(self):
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.archive.requests.append((self.command, self.path, None))
        self.api(urllib.parse.urlsplit(self.path).path, query)

    def answer(self, status, data, kind, headers=(), body=True, cut=False):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            sent = data[: len(data) // 2] if cut else data
            self.archive.sent += len(sent)
            self.wfile.write(sent)

    def api(self, path, query):
        """A STAC API: its landing page, its collections, and its search, page by page."""
        kind = self.archive.fault_of(path)
        if kind is not None:
            return self.send_error(int(kind))
        root = f"{self.archive.url}/stac"
        collections = [
            {
                "type": "Collection",
                "stac_version": "1.0.0",
                "id": name,
                "description": name,
                "license": "proprietary",
                "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
                "links": [],
            }
            for name in sorted({item["collection"] for item in self.archive.items})
        ]
        classes = [f"https://api.stacspec.org/v1.0.0/{name}" for name in ("core", "collections", "item-search")]
        if path == "/stac":
            links = [
                {"rel": rel, "href": f"{root}{end}", "type": "application/json"}
                for rel, end in (("self", ""), ("root", ""), ("data", "/collections"))
            ]
            links += [
                {"rel": "search", "href": f"{root}/search", "type": "application/geo+json", "method": method}
                for method in ("GET", "POST")
            ]
            page = {
                "type": "Catalog",
                "stac_version": "1.0.0",
                "id": "tests",
                "description": "tests",
                "conformsTo": classes,
                "links": links,
            }
        elif path == "/stac/collections":
            page = {"collections": collections, "links": []}
        elif path.startswith("/stac/collections/"):
            page = next((c for c in collections if c["id"] == path.rsplit("/", 1)[1]), None)
        elif path == "/stac/search":
            found, start = self.archive.found(query), int(query.get("token", 0))
            end = start + min(self.archive.page, int(query.get("limit") or 10**6))
            links = (
                [
                    {
                        "rel": "next",
                        "href": f"{root}/search",
                        "method": "POST",
                        "type": "application/geo+json",
                        "body": query | {"token": str(end)},
                    }
                ]
                if end < len(found)
                else []
            )
            page = {"type": "FeatureCollection", "features": found[start:end], "links": links}
        else:
            page = None
        if page is None:
            return self.send_error(404)
        return self.answer(200, json.dumps(page).encode(), "application/geo+json")


@contextmanager
def serving_archive(folder):
    """An `Archive` of a folder while its server runs."""
    archive = Archive(Path(folder))
    handler = type("Handler", (Handler,), {"archive": archive})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    archive.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
