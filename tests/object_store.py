"""An S3 server of its own process for tests, and a proxy before it that refuses requests on purpose."""

import contextlib
import http.client
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

BUCKET = "sracl-runs"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "key-id-of-a-test",
    "AWS_SECRET_ACCESS_KEY": "secret/never+to=be-seen",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.disable()
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # until the test has ended
"""
_NOT_FORWARDED = ("connection", "expect", "transfer-encoding", "keep-alive", "server", "date")


@contextlib.contextmanager
def s3_server() -> Iterator[int]:
    """Port on loopback of a server that has the bucket BUCKET."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            port = int(server.stdout.readline())
            urlopen(Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")).close()
            yield port
        finally:
            server.kill()


def location(port: int, folder: str) -> str:
    """The URI of a folder in the bucket."""
    return f"s3://{BUCKET}/{folder}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"


class RefusingProxy:
    """Hands requests on to the server and answers the last `burst` of every `every` with 500 or 503 in its place."""

    def __init__(self, port: int, every: int, burst: int = 1) -> None:
        self.to, self._every, self._burst, self._numbers = port, every, burst, itertools.count()
        self.num_requests = self.num_refused = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.port = self._server.server_port

    @contextlib.contextmanager
    def running(self) -> Iterator["RefusingProxy"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def refusal(self) -> int | None:
        """The status with which the next request is refused, or None."""
        number = next(self._numbers)
        self.num_requests += 1
        if number % self._every < self._every - self._burst:
            return None
        self.num_refused += 1
        return 500 if self.num_refused % 2 else 503


class _Handler(BaseHTTPRequestHandler):
    """A subclass for each proxy names it."""

    protocol_version = "HTTP/1.1"
    proxy: RefusingProxy

    def handle_any(self) -> None:
        body = b"".join(self.blocks())
        if status := self.proxy.refusal():
            self.answer(status, [], b"")
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_FORWARDED}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.proxy.to, timeout=60)) as server:
            server.request(self.command, self.path, body, headers)
            response = server.getresponse()
            self.answer(response.status, response.getheaders(), response.read())

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    def blocks(self) -> Iterator[bytes]:
        """The body of the request."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            yield self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return
        while num_bytes := int(self.rfile.readline(), 16):
            yield self.rfile.read(num_bytes)
            self.rfile.readline()
        self.rfile.readline()

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _NOT_FORWARDED:
                self.send_header(name, value)
        if "content-length" not in {name.lower() for name, _ in headers}:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
