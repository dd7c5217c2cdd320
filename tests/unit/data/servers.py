"""Servers of files for tests: HTTP, with or without ranges, and what s3fs asks of an S3."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

LISTING = (
    "<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>"
)
OBJECT = (
    "<Contents><Key>{}</Key><Size>{}</Size><ETag>&quot;{}&quot;</ETag>"
    "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
)


class Files(http.server.SimpleHTTPRequestHandler):
    """A folder over HTTP, a page of links per folder."""

    ranges = True

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not (self.ranges and asked and path.is_file()):
            super().do_GET()
            return
        data = path.read_bytes()
        last = min(int(asked[2] or len(data) - 1), len(data) - 1)
        part = data[int(asked[1]) : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {asked[1]}-{last}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: Any) -> None:
        pass


class WholeFiles(Files):
    """A server that sends a file whole whatever part is asked for."""

    ranges = False


class Busy(Files):
    """A server that is too busy for the first two requests of every path, of either kind."""

    asked: Counter[str] = Counter()

    def _busy(self) -> bool:
        self.asked[f"{self.command} {self.path}"] += 1
        if self.asked[f"{self.command} {self.path}"] > 2:
            return False
        self.send_error(503)
        return True

    def do_HEAD(self) -> None:
        if not self._busy():
            super().do_HEAD()

    def do_GET(self) -> None:
        if not self._busy():
            super().do_GET()


class Bucket(Files):
    """The parts of S3's protocol that reading needs; a bucket is a folder."""

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        query = parse_qs(place.query)
        if "list-type" not in query:
            super().do_GET()
            return
        root = Path(self.translate_path(place.path))
        prefix, deep = query.get("prefix", [""])[0], "delimiter" not in query
        found, folders = "", set()
        for path in sorted(root.rglob("*")):
            key = path.relative_to(root).as_posix()
            if not path.is_file() or not key.startswith(prefix):
                continue
            head, slash, _ = key[len(prefix) :].partition("/")
            if slash and not deep:
                folders.add(f"{prefix}{head}/")
            else:
                found += OBJECT.format(escape(key), path.stat().st_size, path.stat().st_mtime_ns)
        for folder in sorted(folders):
            found += f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
        data = LISTING.format(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def serve(folder: Path, handler: type[Files] = Files) -> Iterator[str]:
    """Serve a folder on the loopback interface; gives the address."""
    made = functools.partial(handler, directory=os.fspath(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), made) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
