"""A real web server with files that can be asked for in part, and that breaks off where a test wants it to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What is served, and what was asked for."""

    files: dict[str, bytes]
    url: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    """ETag of a file, or its date; without one it cannot be asked for in part."""
    break_after: dict[str, list[int]] = field(default_factory=dict)
    """Bytes after which each next answer breaks off."""
    lengths: dict[str, int] = field(default_factory=dict)
    """Content-Length where it is to be another one than that of the answer."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and range of each request."""


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[FileServer]:
    served = FileServer(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/")
            served.asked.append((name, self.headers.get("Range")))
            if name not in served.files:
                self.send_error(404)
                return
            body, tag, first = served.files[name], served.tags.get(name), 0
            if tag and self.headers.get("Range") and self.headers.get("If-Range") == tag:
                first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                if first >= len(body):
                    self.send_error(416)
                    return
            self.send_response(206 if first else 200)
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            if tag:
                self.send_header("ETag" if tag.endswith('"') else "Last-Modified", tag)
            self.send_header("Content-Length", str(served.lengths.get(name, len(body) - first)))
            self.end_headers()
            breaks = served.break_after.get(name)
            last = first + breaks.pop(0) if breaks else len(body)
            self.wfile.write(body[first:last])

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
