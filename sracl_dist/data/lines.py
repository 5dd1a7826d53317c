"""Text of a file whatever its packing and encoding: in blocks of valid UTF-8, and in whole lines of bounded length."""

import codecs
import functools
import io
import lzma
from collections.abc import Iterator
from itertools import chain
from typing import IO, cast

import pyarrow as pa

from sracl_dist.data.files import PACKED, DataFile, reading_errors
from sracl_dist.data.rows import INVALID, Reading
from sracl_dist.errors import InputError
from sracl_dist.observe import say

CHUNK_BYTES = 4 << 20
MAX_LINE_BYTES = 1 << 20
TOO_LONG = b"\x00line too long\x00"
"""Begins what stands where a line was too long."""
MARK = "sracl_mark"
"""Name of the way to decode and encode that puts INVALID in the place of what is invalid."""
_KEPT_BYTES = 80
_SNIFFED_BYTES = 1 << 20
_FOREIGN = {
    (0, b"PK\x03\x04"): "a zip archive or an Excel workbook; unpack the archive, or save the workbook as CSV",
    (0, b"PAR1"): "packed Parquet; unpack it",
    (257, b"ustar"): "a tar archive; unpack it",
}
"""Formats that cannot be read, by where which bytes tell them."""
_BYTE_ORDER_MARKS = {  # the longer ones first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def _mark(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError):
        return INVALID.encode(), error.end
    return INVALID, cast(UnicodeDecodeError, error).end


codecs.register_error(MARK, _mark)
_say_once = functools.cache(say)


def text_blocks(reading: Reading) -> Iterator[bytes]:
    """Yield the text in blocks that are not empty and end anywhere, as UTF-8; bytes that are not may be left.

    Raises:
        InputError: the file is missing, unreadable, a damaged packed file, or no text.
    """
    file = reading.file
    with reading_errors(file), file.open() as raw:
        stream = _unpacked(raw)
        head = stream.read(_SNIFFED_BYTES)
        for (at, magic), what in _FOREIGN.items():
            if head.startswith(magic, at):
                raise InputError(f"{file} is {what}.")
        name = codecs.lookup(reading.format.encoding or _encoding(file, head)).name
        is_utf8 = name in ("utf-8", "utf-8-sig")
        decoder = codecs.getincrementaldecoder(name)(MARK)
        only_carriage_returns = None
        for block in chain([head.removeprefix(codecs.BOM_UTF8)], iter(lambda: stream.read(CHUNK_BYTES), b"")):
            text = block if is_utf8 else decoder.decode(block).removeprefix("\ufeff").encode(errors=MARK)
            if only_carriage_returns is None:
                only_carriage_returns = b"\r" in text.rstrip(b"\r") and b"\n" not in text
            reading.num_bytes = raw.tell()
            if text:  # a part of a character gives none
                yield text.replace(b"\r", b"\n") if only_carriage_returns else text
        if not is_utf8 and (rest := decoder.decode(b"", final=True)):
            yield rest.encode(errors=MARK)


def _unpacked(raw: pa.NativeFile) -> IO[bytes]:
    start = raw.read(8)
    raw.seek(0)
    codec = next((codec for magic, codec in PACKED.items() if start.startswith(magic)), None)
    if codec == "xz":  # which Arrow does not know
        return io.BufferedReader(lzma.LZMAFile(raw))
    return cast(IO[bytes], raw if codec is None else pa.CompressedInputStream(raw, codec))


def _encoding(file: DataFile, head: bytes) -> str:
    for mark, name in _BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return name
    # Names of columns, digits and separators are ASCII, which has a zero for every second byte in UTF-16.
    start = head[:1000]
    zeros = [start[first::2].count(0) / max(len(start) / 2, 1) for first in (0, 1)]
    if max(zeros) > 0.3 and min(zeros) < 0.1:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    if head.isascii():
        return "utf-8"
    lines = [line for line in head.split(b"\n")[: -1 if len(head) == _SNIFFED_BYTES else None] if not line.isascii()]
    if 2 * sum(INVALID.encode() in marked_utf8(line) for line in lines) <= len(lines):
        return "utf-8"
    _say_once(f"{file} is not UTF-8 and is read as Latin-1; set the encoding of its format if that is wrong")
    return "latin-1"


def marked_utf8(text: bytes) -> bytes:
    """The text with each byte that is not UTF-8 replaced by `INVALID`."""
    return text if text.isascii() else text.decode("utf-8", errors=MARK).encode()


def whole_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the text in pieces of valid UTF-8 that end with a line feed; memory stays at a few blocks.

    A line over `MAX_LINE_BYTES` becomes `TOO_LONG` and its first bytes.
    """
    pending = b""
    for block in blocks:
        if len(pending) > MAX_LINE_BYTES:  # no more of this line is of use
            block = block[block.find(b"\n") :] if b"\n" in block else b""
        block = pending + block
        cut = block.rfind(b"\n") + 1
        pending = block[cut:][: MAX_LINE_BYTES + 1]
        if cut:
            yield _bounded(block[:cut])
    if pending:
        yield _bounded(pending + b"\n")


def _bounded(text: bytes) -> bytes:
    """Shorten the lines that are too long; looks at one line break per `MAX_LINE_BYTES` where there is none."""
    start = 0
    while len(text) - start > MAX_LINE_BYTES:
        start = text.rfind(b"\n", start, start + MAX_LINE_BYTES + 1) + 1
        if not start:
            lines = text.split(b"\n")
            text = b"\n".join(TOO_LONG + line[:_KEPT_BYTES] if len(line) > MAX_LINE_BYTES else line for line in lines)
            break
    return marked_utf8(text)
