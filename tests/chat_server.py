"""A real HTTP server that speaks as much of OpenAI's chat completions as tests need, and misbehaves as they say."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

MODEL = "served-model"


@dataclass
class Response:
    """What the server sends, and how badly."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    """Time until it is sent; cut short when the server closes."""
    is_cut: bool = False
    """Whether the connection is closed behind half of the body."""
    drip_s: float = 0.0
    """Pause behind every byte of the body."""


Behaviour = Callable[[str, int], Response]
"""From the user's message and the number of the attempt (0, 1, ...) to the response."""


def good(text: str = "A profile.", finish_reason: str | None = "stop", usage: Any = (7, 3)) -> Response:
    answer: dict[str, Any] = {"choices": [{"message": {"content": text}, "finish_reason": finish_reason}]}
    if usage:
        answer["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return Response(body=json.dumps(answer))


def refusal(status: int, message: str, **headers: str) -> Response:
    return Response(status, json.dumps({"error": {"message": message}}), headers)


class ChatServer:
    """Counts what it is asked; `behaviour` decides what it says."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.requests: list[dict[str, Any]] = []
        """Bodies, in the order in which they came."""
        self.times: list[float] = []
        self.authorizations: list[str | None] = []
        self.most_in_flight = 0
        self._in_flight = 0
        self._attempts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @contextmanager
    def running(self) -> Iterator["ChatServer"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.closing.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def asked(self) -> list[str]:
        """The user's message of every request."""
        return [body["messages"][-1]["content"] for body in self.requests]

    def respond(self, path: str, body: dict[str, Any], authorization: str | None) -> Response:
        message = body["messages"][-1]["content"]
        with self._lock:
            self.times.append(time.monotonic())
            self.requests.append(body)
            self.authorizations.append(authorization)
            attempt = self._attempts[message]
            self._attempts[message] += 1
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        response = (
            self.behaviour(message, attempt)
            if urlsplit(path).path == "/v1/chat/completions"
            else Response(404, "no such path")
        )
        if response.wait_s:
            self.closing.wait(response.wait_s)
        with self._lock:  # before it is sent: the client may start the next one as soon as it has this one
            self._in_flight -= 1
        return response

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # headers and body are sent apart, and would wait for each other

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                response = chat.respond(self.path, body, self.headers.get("Authorization"))
                content = response.body.encode("utf-8", "surrogatepass")
                try:
                    self.send_response(response.status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    for name, value in response.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    content = content[: len(content) // 2] if response.is_cut else content
                    pieces = [content[i : i + 1] for i in range(len(content))] if response.drip_s else [content]
                    for piece in pieces:
                        self.wfile.write(piece)
                        chat.closing.wait(response.drip_s)
                except OSError:
                    self.close_connection = True  # the client did not wait
                if response.is_cut:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
