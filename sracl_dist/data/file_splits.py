"""The log's files cut into pieces that are read independently of each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from sracl_dist.data.readers import is_parquet
from sracl_dist.data.rows import reading_errors

TEXT_BYTES_PER_ROW = 40
"""About how long a row of a text file is, to tell a small log from a large one; gzip makes it shorter still."""


@dataclass(frozen=True, kw_only=True)
class FileSplit:
    """A piece of a file: some row groups of a Parquet file, or a whole file of text."""

    index: int
    """Place among all splits; rows of a lower one come first."""
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


def plan_splits(paths: Sequence[Path], sources: Sequence[str], max_rows: int) -> list[FileSplit]:
    """Cut the files, in their order, into pieces of at most `max_rows` rows as far as row groups allow.

    Args:
        paths: the files.
        sources: name of each in the table of rejects.
        max_rows: rows of a piece.

    Raises:
        InputError: a file is missing or damaged.
    """
    splits: list[FileSplit] = []
    for path, source in zip(paths, sources, strict=True):
        for groups, first_row, num_rows, num_bytes in _pieces(path, max_rows):
            splits.append(
                FileSplit(
                    index=len(splits),
                    path=path,
                    source=source,
                    row_groups=groups,
                    first_row=first_row,
                    num_rows=num_rows,
                    num_bytes=num_bytes,
                )
            )
    return splits


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
