"""Files of a log or of item texts, by name or pattern, in whatever format their name tells."""

import glob
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sracl_dist.data.delimited import ATOMIC, CSV, TSV, read_delimited
from sracl_dist.data.json_lines import read_json_lines
from sracl_dist.data.movielens import LAYOUTS, U_ITEM, read_u_item
from sracl_dist.data.parquet_rows import read_parquet
from sracl_dist.data.rejects import Rejects
from sracl_dist.data.rows import Reading, Rows
from sracl_dist.errors import InputError
from sracl_dist.observe import Progress

_DELIMITED = {".csv": CSV, ".tsv": TSV, ".inter": ATOMIC, ".item": ATOMIC}
FORMATS = ".csv .tsv .jsonl .json .inter .item (each also with .gz) or .parquet"


def find_files(patterns: Sequence[str], setting: str) -> list[Path]:
    """Files that the names and patterns stand for: in the order of the patterns, each pattern's files sorted.

    Raises:
        InputError: one of them stands for nothing, or for a folder.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        paths = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))
        if not paths:
            raise InputError(f"{pattern} matches no file; check {setting} and the folder you are in.")
        for path in map(Path, paths):
            if path.is_file():
                found[path] = None
            elif len(paths) == 1:
                raise InputError(f"{path} is a folder; name its files in {setting}, for example {path}/*.parquet.")
    return list(found)


def read_files(
    paths: Sequence[Path], wanted: dict[str, str], setting: str, rejects: Rejects, label: str, separator: str = "|"
) -> Iterator[tuple[Reading, Rows]]:
    """Yield all rows of all files in order, a batch at a time, with a progress line.

    Args:
        paths: the files.
        wanted: the files' column name by the pipeline's.
        setting: configuration key of the column names, for messages.
        rejects: takes the rows that cannot even be parsed.
        label: what the progress line says.
        separator: separates categories within one string.

    Raises:
        InputError: a file is missing, damaged, of an unknown format, or lacks a column.
    """
    readers = [reader_of(path) for path in paths]
    sources = short_names(paths)
    sizes = [path.stat().st_size if path.exists() else 0 for path in paths]
    progress = Progress(label, sum(sizes) // 1000, "kB")
    for path, reader, source, size in zip(paths, readers, sources, sizes, strict=True):
        reading = Reading(
            path=path, source=source, wanted=wanted, setting=setting, rejects=rejects, separator=separator
        )
        reported = 0
        for rows in reader(reading):
            yield reading, rows
            reached = min(reading.num_bytes, size) // 1000
            progress.update(reached - reported, rows=rejects.num_read, rejected=len(rejects))
            reported = reached
        progress.update(size // 1000 - reported, rows=rejects.num_read, rejected=len(rejects))
    progress.close()


def reader_of(path: Path) -> Callable[[Reading], Iterator[Rows]]:
    """What reads a file with this name.

    Raises:
        InputError: no format has this ending.
    """
    if is_parquet(path):
        return read_parquet
    name = path.name.removesuffix(".gz")
    suffix = Path(name).suffix.lower()
    if suffix in (".json", ".jsonl"):
        return read_json_lines
    if name == U_ITEM:
        return read_u_item
    layout = LAYOUTS.get(name) or _DELIMITED.get(suffix)
    if layout is None:
        raise InputError(f"{path} has the unknown ending {suffix or 'none'!r}; use {FORMATS}.")
    return lambda reading: read_delimited(reading, layout)


def is_parquet(path: Path) -> bool:
    """Whether the file is read by row groups."""
    return path.suffix.lower() == ".parquet"


def short_names(paths: Sequence[Path]) -> list[str]:
    """Names of the files for messages and tables: without the folder where that tells them apart."""
    counts = Counter(path.name for path in paths)
    return [path.name if counts[path.name] == 1 else str(path) for path in paths]
