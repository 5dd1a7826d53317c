"""Text files in pieces of whole lines: plain or gzip, of bounded line length, always valid UTF-8."""

import codecs
import contextlib
import gzip
from collections.abc import Callable, Iterator
from typing import IO, cast

from sracl_dist.data.rows import Reading, reading_errors

CHUNK_BYTES = 4 << 20
MAX_LINE_BYTES = 1 << 20
INVALID = "\U0010ffff"
"""Stands where a byte was not UTF-8: a code point that no text may contain."""
TOO_LONG = b"\x00line too long\x00"
"""Begins what stands where a line was too long."""
_KEPT_BYTES = 80

codecs.register_error("sracl_mark", lambda error: (INVALID, cast(UnicodeDecodeError, error).end))


def text_chunks(reading: Reading, shorten: Callable[[bytes], bytes] | None = None) -> Iterator[bytes]:
    """Yield the file in pieces that end with a line break; memory stays at a few pieces.

    A line over `MAX_LINE_BYTES` becomes what `shorten` makes of its beginning, by default `shortened`.

    Raises:
        InputError: the file is missing, unreadable, or not a whole gzip file.
    """
    with reading_errors(reading.path), open(reading.path, "rb") as raw, _decompressed(reading, raw) as stream:
        first = True
        for text in _whole_lines(stream.read, shorten or shortened):
            reading.num_bytes = raw.tell()
            yield text.removeprefix(codecs.BOM_UTF8) if first else text
            first = False


@contextlib.contextmanager
def _decompressed(reading: Reading, raw: IO[bytes]) -> Iterator[IO[bytes]]:
    if reading.path.suffix != ".gz":
        yield raw
        return
    with gzip.GzipFile(fileobj=raw) as stream:
        yield cast(IO[bytes], stream)


def shortened(line: bytes) -> bytes:
    """What stands for a line that is too long."""
    return TOO_LONG + line[:_KEPT_BYTES]


def marked_utf8(text: bytes) -> bytes:
    """The text with each byte that is not UTF-8 replaced by `INVALID`."""
    if text.isascii():
        return text
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode("utf-8", errors="sracl_mark").encode()
    return text


def _whole_lines(read: Callable[[int], bytes], shorten: Callable[[bytes], bytes]) -> Iterator[bytes]:
    pending = too_long = b""
    while block := read(CHUNK_BYTES):
        if too_long:
            end = block.find(b"\n")
            if end < 0:
                continue
            yield shorten(too_long) + b"\n"
            too_long, block = b"", block[end + 1 :]
        block = pending + block
        cut = block.rfind(b"\n") + 1
        pending = block[cut:]
        if cut:
            yield _bounded(block[:cut], shorten)
        if len(pending) > MAX_LINE_BYTES:
            too_long, pending = pending[: 2 * _KEPT_BYTES], b""
    if too_long:
        yield shorten(too_long) + b"\n"
    elif pending:
        yield _bounded(pending + b"\n", shorten)


def _bounded(text: bytes, shorten: Callable[[bytes], bytes]) -> bytes:
    """Shorten the lines that are too long; looks at one line break per `MAX_LINE_BYTES` where there is none."""
    parts: list[bytes] = []
    start = copied = 0
    while len(text) - start > MAX_LINE_BYTES:
        end = text.rfind(b"\n", start, start + MAX_LINE_BYTES + 1)
        if end < 0:
            end = text.index(b"\n", start)
            parts += [text[copied:start], shorten(text[start : start + 2 * _KEPT_BYTES]), b"\n"]
            copied = end + 1
        start = end + 1
    return b"".join([*parts, text[copied:]]) if parts else text
