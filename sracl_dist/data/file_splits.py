"""The log's files cut into pieces, and these dealt to tasks that read independently of each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sracl_dist.data.readers import is_parquet
from sracl_dist.data.rows import reading_errors

TEXT_BYTES_PER_ROW = 40
"""About how long a row of a text file is, to tell a small log from a large one; gzip makes it shorter still."""
_ROW_BITS = 40
"""A row of the log is known by the index of its piece above these bits, and its number in the file."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some row groups of a Parquet file, or a whole file of text."""

    index: int
    """Place among all pieces; rows of a lower one come first."""
    path: Path
    source: str
    """Name of the file in the table of rejects."""
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


def plan_splits(paths: Sequence[Path], sources: Sequence[str], max_rows: int) -> list[FileSplit]:
    """Deal the files, in their order, to splits of at most `max_rows` rows as far as row groups and text allow.

    Args:
        paths: the files.
        sources: name of each in the table of rejects.
        max_rows: rows of a split.

    Raises:
        InputError: a file is missing or damaged.
    """
    splits: list[FileSplit] = []
    waiting: list[Piece] = []
    num_waiting = 0
    for piece in _all_pieces(paths, sources, max_rows):
        if waiting and num_waiting + piece.num_rows > max_rows:
            splits.append(FileSplit(index=len(splits), pieces=tuple(waiting)))
            waiting, num_waiting = [], 0
        waiting.append(piece)
        num_waiting += piece.num_rows
    return [*splits, *([FileSplit(index=len(splits), pieces=tuple(waiting))] if waiting else [])]


def sources_of(splits: Sequence[FileSplit]) -> list[str]:
    """Name of the file of each piece, by its index."""
    return [piece.source for split in splits for piece in split.pieces]


def _all_pieces(paths: Sequence[Path], sources: Sequence[str], max_rows: int) -> Iterator[Piece]:
    index = 0
    for path, source in zip(paths, sources, strict=True):
        for groups, first_row, num_rows, num_bytes in _pieces(path, max_rows):
            yield Piece(
                index=index,
                path=path,
                source=source,
                row_groups=groups,
                first_row=first_row,
                num_rows=num_rows,
                num_bytes=num_bytes,
            )
            index += 1


def _pieces(path: Path, max_rows: int) -> list[tuple[range | None, int, int, int]]:
    """Row groups, first row, rows and bytes of each piece of a file."""
    with reading_errors(path):
        num_bytes = path.stat().st_size
        if not is_parquet(path):
            return [(None, 0, num_bytes // TEXT_BYTES_PER_ROW, num_bytes)]
        with pq.ParquetFile(path) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    pieces: list[tuple[range | None, int, int, int]] = []
    total, first_row, start, num_rows = max(sum(sizes), 1), 0, 0, 0
    for group, size in enumerate(sizes):
        if num_rows and num_rows + size > max_rows:
            pieces.append((range(start, group), first_row, num_rows, num_bytes * num_rows // total))
            start, first_row, num_rows = group, first_row + num_rows, 0
        num_rows += size
    return [*pieces, (range(start, len(sizes)), first_row, num_rows, num_bytes * num_rows // total)]
