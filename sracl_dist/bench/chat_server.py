"""A chat endpoint that answers at once, in a program of its own: what it takes is the asking, and nothing else.

    python -m sracl_dist.bench.chat_server FOLDER

writes its port to FOLDER/port once it listens. A POST is answered with a hash of what was asked, a GET with the number
of POSTs so far.
"""

import asyncio
import hashlib
import json
import sys
from pathlib import Path
from typing import cast

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"
ANSWER = json.dumps(
    {
        "choices": [{"message": {"content": "Likes %s more than anything else."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 8},
    }
)


class Chat(asyncio.Protocol):
    """One connection, which stays open."""

    num_asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport, self._received = cast(asyncio.Transport, transport), b""

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._received += data
        while (end := self._received.find(HEAD_END)) >= 0:
            head = self._received[:end].lower()
            place = head.find(LENGTH)
            num_bytes = int(head[place + len(LENGTH) :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            stop = end + len(HEAD_END) + num_bytes
            if len(self._received) < stop:
                return
            body, self._received = self._received[end + len(HEAD_END) : stop], self._received[stop:]
            self._answer(body, is_question=head.startswith(b"post"))

    def _answer(self, body: bytes, *, is_question: bool) -> None:
        if is_question:
            Chat.num_asked += 1
            content = (ANSWER % hashlib.blake2b(body, digest_size=12).hexdigest()).encode()
        else:
            content = str(Chat.num_asked).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        self._transport.write(head.encode() + content)


async def serve(folder: Path) -> None:
    """Answer until the program is ended."""
    server = await asyncio.get_running_loop().create_server(Chat, "127.0.0.1", 0)
    (folder / "port.new").write_text(str(server.sockets[0].getsockname()[1]))
    (folder / "port.new").rename(folder / "port")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
