"""Files of a log or of item texts: found by name or pattern, here or in an object store, and cut for tasks."""

import contextlib
import fnmatch
import glob
import os
import re
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

from sracl_dist.errors import InputError, StorageError, first_line
from sracl_dist.run_folder.locations import open_location, storage_errors
from sracl_dist.visible import is_utf8

TEXT_BYTES_PER_ROW = 40
"""About how long a row of a text file is, to tell a small log from a large one."""
_PACKED_BYTES_PER_ROW = 8
PARQUET_MAGIC = b"PAR1"
PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ\x00": "xz",
    **{bytes([number]) + b"\x2a\x4d\x18": "zstd" for number in range(0x50, 0x60)},  # a frame to be skipped
}
"""Ways of packing by how their files begin."""
_ROW_BITS = 40
"""A row of the log is known by the index of its piece above these bits, and its number in the file."""


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A file as it was found; it can be sent to other processes."""

    location: str
    """Path or URI as the user wrote it."""
    source: str
    """Name of the file in the table of rejects, which no other file of the same search has."""
    filesystem: fs.FileSystem
    path: str
    """Where it is in the file system."""
    size: int
    """Bytes."""
    mtime_ns: int

    def __str__(self) -> str:
        return self.location

    @property
    def fact(self) -> str:
        """What tells whether the file has changed."""
        return f"{self.size}/{self.mtime_ns}"

    def open(self) -> pa.NativeFile:
        """The file for reading; use it within `reading_errors`."""
        return self.filesystem.open_input_file(self.path)

    def is_parquet(self) -> bool:
        """Whether the file is Parquet, which its ending or its first bytes tell."""
        return self.path.lower().endswith(".parquet") or self._begins_with(PARQUET_MAGIC)

    def is_packed(self) -> bool:
        """Whether the file is a packed one that is read, as its first bytes tell."""
        return self._begins_with(*PACKED)

    def _begins_with(self, *magics: bytes) -> bool:
        with reading_errors(self), self.open() as stream:
            return bytes(stream.read(max(map(len, magics)))).startswith(magics)


@contextlib.contextmanager
def reading_errors(file: DataFile) -> Iterator[None]:
    """Turn whatever a damaged or missing file raises into one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{file} does not exist; check the name.") from None
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or first_line(error).rstrip(".")
        if re.search("compress|inflate|end-of-stream|LZMA|ZSTD|BZ2|LZ4", str(error)):
            raise InputError(f"{file} is not a whole packed file ({reason}); copy or download it again.") from None
        raise InputError(f"{file} cannot be read ({reason}); check the file, its permission and its origin.") from None


def find_files(patterns: Sequence[str], setting: str) -> list[DataFile]:
    """Files that the names and patterns stand for: in the order of the patterns, each pattern's files sorted.

    Args:
        patterns: paths, or URIs such as s3://bucket/logs/*.csv; `**` stands for folders of any depth. What follows
            the first question mark of a URI are options of its file system.
        setting: configuration key of the patterns, for messages.

    Raises:
        InputError: one of them stands for nothing, or for a folder, or the file system cannot be read.
    """
    found: dict[tuple[str, str], DataFile] = {}
    for pattern in map(os.path.expanduser, patterns):
        matches = list(_remote(pattern, setting) if "://" in pattern else _local(pattern))
        if not matches:
            raise InputError(f"{pattern} matches no file; check {setting} and the folder you are in.")
        folders = [location for location, _, info in matches if not info.is_file]
        if len(folders) == len(matches):
            raise InputError(f"{folders[0]} is a folder; name its files in {setting}, such as {folders[0]}/*.parquet.")
        for location, filesystem, info in matches:
            if info.is_file:
                facts = {"path": info.path, "size": info.size, "mtime_ns": info.mtime_ns or 0}
                file = DataFile(location=location, source=info.base_name, filesystem=filesystem, **facts)
                found.setdefault((filesystem.type_name, info.path), file)
    counts = Counter(file.source for file in found.values())
    return [file if counts[file.source] == 1 else replace(file, source=file.location) for file in found.values()]


def _local(pattern: str) -> Iterator[tuple[str, fs.FileSystem, fs.FileInfo]]:
    filesystem = fs.LocalFileSystem()
    paths = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
    for path in paths or [pattern]:
        if not is_utf8(path):
            raise InputError(f"{path} has a name that is not UTF-8; rename the file, or the folder in which it lies.")
    for path in paths:
        yield path, filesystem, filesystem.get_file_info(os.path.abspath(path))


def _remote(pattern: str, setting: str) -> Iterator[tuple[str, fs.FileSystem, fs.FileInfo]]:
    place, mark, query = pattern.partition("?")
    scheme, _, rest = place.partition("://")
    bucket, _, key = rest.partition("/")
    try:
        filesystem, root = open_location(f"{scheme}://{bucket}/{mark}{query}", setting)
        path = f"{root.rstrip('/')}/{key}".rstrip("/")
        with storage_errors(pattern, "listed", setting, ""):
            infos = [filesystem.get_file_info(path)]
            if infos[0].type == fs.FileType.NotFound:
                folder = re.split(r"[*\[]", path)[0].rpartition("/")[0]
                infos = filesystem.get_file_info(fs.FileSelector(folder or "/", recursive=True, allow_not_found=True))
                infos = [info for info in infos if info.is_file and _matches(info.path.split("/"), path.split("/"))]
            if not infos and not filesystem.get_file_info(root.rstrip("/") or "/").type:
                raise InputError(f"{pattern} cannot be listed: there is no bucket {bucket}; check {setting}.")
    except StorageError as error:
        raise InputError(str(error)) from None
    for info in sorted(infos, key=lambda info: info.path):
        yield f"{scheme}://{info.path.lstrip('/') if bucket else info.path}{mark}{query}", filesystem, info


def _matches(path: list[str], pattern: list[str]) -> bool:
    if not pattern or not path:
        return not path and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _matches(path, pattern[1:]) or _matches(path[1:], pattern)
    return fnmatch.fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some row groups of a Parquet file, or a whole file of text."""

    index: int
    """Place among all pieces; rows of a lower one come first."""
    file: DataFile
    row_groups: range | None
    """None where the file is text."""
    first_row: int
    """Rows of the file before this piece."""
    num_rows: int
    """Rows of the piece; an estimate where the file is text."""
    num_bytes: int

    def row_ids(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """What rows with these numbers in the file are known by."""
        return (self.index << _ROW_BITS) + numbers


def places_of_rows(row_ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index of the piece, and number in the file, of each row."""
    return row_ids >> _ROW_BITS, row_ids & ((1 << _ROW_BITS) - 1)


@dataclass(frozen=True, kw_only=True)
class FileSplit:
    """Pieces that one task reads: one large, or several small ones."""

    index: int
    """Place among all splits."""
    pieces: tuple[Piece, ...]

    @property
    def num_rows(self) -> int:
        """Rows of all pieces; an estimate where files are text."""
        return sum(piece.num_rows for piece in self.pieces)

    @property
    def num_bytes(self) -> int:
        """Bytes of all pieces."""
        return sum(piece.num_bytes for piece in self.pieces)


def plan_splits(files: Sequence[DataFile], max_rows: int) -> list[FileSplit]:
    """Deal the files, in their order, to splits of at most `max_rows` rows as far as row groups and text allow.

    Raises:
        InputError: a file is missing or damaged.
    """
    splits: list[list[Piece]] = []
    num_rows = 0
    for index, piece in enumerate(piece for file in files for piece in _pieces(file, max_rows)):
        if not splits or num_rows + piece.num_rows > max_rows:
            splits.append([])
            num_rows = 0
        splits[-1].append(replace(piece, index=index))
        num_rows += piece.num_rows
    return [FileSplit(index=index, pieces=tuple(pieces)) for index, pieces in enumerate(splits)]


def sources_of(splits: Sequence[FileSplit]) -> list[str]:
    """Name of the file of each piece, by its index."""
    return [piece.file.source for split in splits for piece in split.pieces]


def _pieces(file: DataFile, max_rows: int) -> Iterator[Piece]:
    """Pieces of a file, all with the index 0."""
    if not file.is_parquet():
        num_rows = file.size // (_PACKED_BYTES_PER_ROW if file.is_packed() else TEXT_BYTES_PER_ROW)
        yield Piece(index=0, file=file, row_groups=None, first_row=0, num_rows=num_rows, num_bytes=file.size)
        return
    with reading_errors(file), file.open() as stream, pq.ParquetFile(stream) as parquet:
        sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.metadata.num_row_groups)]
    firsts, stop = [0, *accumulate(sizes)], 0
    while True:
        start, stop = stop, bisect_right(firsts, firsts[stop] + max_rows) - 1
        stop = min(max(stop, start + 1), len(sizes))
        groups, first_row, num_rows = range(start, stop), firsts[start], firsts[stop] - firsts[start]
        num_bytes = file.size * num_rows // max(firsts[-1], 1)
        yield Piece(index=0, file=file, row_groups=groups, first_row=first_row, num_rows=num_rows, num_bytes=num_bytes)
        if stop == len(sizes):
            return
