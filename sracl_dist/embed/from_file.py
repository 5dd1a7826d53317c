"""embed.items and embed.users: vectors that were made elsewhere, taken from files by id; nothing is encoded.

They may be many more than memory holds: their numbers go into a file without a name as they are read, and from there
into the shards.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import ITEM, ITEM_ID, USER, USER_ID, VECTOR
from sracl_dist.config import Config
from sracl_dist.config.sections import EmbedConfig
from sracl_dist.data.by_id import FilesById, IdPlaces, KnownRows, ReadById, known_rows, refuse_unknown, reject
from sracl_dist.data.rejects import NO_VECTOR, SCHEMA
from sracl_dist.embed.vectors import vectors_table
from sracl_dist.errors import InputError, StorageError, brief
from sracl_dist.ids import IdMap, load_item_ids, load_user_ids
from sracl_dist.run_folder import RunFolder
from sracl_dist.shards import Shard

REJECTS = "rejects.parquet"
MIN_WIDTH = 2
_BATCH_ROWS = 1 << 13
"""Rows of a Parquet file read at a time: 32 MB of vectors with 1,024 numbers."""
_SAME = 1e-5
"""Largest difference of a number in two unit vectors that count as equal: numbers are rounded in several ways."""


@dataclass(kw_only=True)
class Taken:
    """What came out of files."""

    kinds: set[str] = field(default_factory=set)
    details: dict[str, Any] = field(default_factory=dict)
    summary: list[str] = field(default_factory=list)


def take_vectors(config: Config, run: RunFolder, pending: Sequence[Shard]) -> Taken:
    """Write those of the pending shards whose vectors are in files, and `rejects.parquet` where there are files.

    Every item, or user, needs one vector; it is scaled to the length 1. Rows of unknown ids and without a vector are
    rejected and counted, and a vector that comes again is counted.

    Raises:
        InputError: a file is missing or damaged or lacks a column; a vector is missing, not finite, zero, or of
            another width than the first; an id has two vectors.
        StorageError: the temporary folder has no room for the vectors.
    """
    folder, taken, rejects = run.stage("embed"), Taken(), [SCHEMA.empty_table()]
    for kind, load_ids in (("items", load_item_ids), ("users", load_user_ids)):
        files = _files(config.embed, kind)
        if not files.patterns:
            continue
        vectors = _Vectors(load_ids(run), files)
        table = vectors.read(f"embed: reading vectors of {kind}")
        for shard in (shard for shard in pending if shard.kind == kind):
            own = table[shard.start - vectors.first_key : shard.stop - vectors.first_key]
            folder.write_table(shard.name, vectors_table(shard, own, config.embed.precision))
        rejects.append(vectors.found.rejects.table())
        taken.kinds.add(kind)
        taken.details[f"{kind}_from_files"] = counts = vectors.counts()
        taken.summary.append(
            f"{kind}: {len(table):,} vectors of {counts['width']:,} numbers taken from files; {counts['rows_read']:,} "
            f"rows read, {counts['rows_repeated']:,} repeated, {sum(counts['rows_rejected'].values()):,} rejected"
        )
    if taken.kinds:
        folder.write_table(REJECTS, pa.concat_tables(rejects))
    return taken


def _files(settings: EmbedConfig, kind: str) -> FilesById:
    id_name, column = (ITEM_ID, settings.item_id_column) if kind == "items" else (USER_ID, settings.user_id_column)
    return FilesById(
        patterns=getattr(settings, kind),
        setting=f"embed.{kind}",
        id_name=id_name,
        columns={id_name: column, VECTOR: settings.vector_column},
        column_setting="embed.{}_column",
        format=settings.format,
        format_setting="embed.format",
        batch_rows=_BATCH_ROWS,
    )


class _Vectors:
    """The unit vectors of all ids of a kind, N of them of width d, in a file without a name."""

    def __init__(self, ids: IdMap, files: FilesById) -> None:
        self.first_key, self._files = ids.first, files
        self._noun = ITEM if files.id_name == ITEM_ID else USER
        self.found = ReadById(ids=IdPlaces(ids.all()))
        self._is_found = np.zeros(len(ids), dtype=np.bool_)
        self._is_zero = np.zeros(len(ids), dtype=np.bool_)
        self._table = np.empty((len(ids), 0), np.float32)  # has no width before the first vector
        self._first_id = ""

    def read(self, label: str) -> NDArray[np.float32]:
        """All of them [N, d].

        Raises:
            InputError: see `take_vectors`.
        """
        for rows in known_rows(self._files, self.found, label):
            self._add(rows)
        if not self._table.shape[1]:
            refuse_unknown(self._files, self.found, "vector")
        for is_wrong, fault in ((self._is_zero, "only zeros in place of a vector"), (~self._is_found, "no vector")):
            if num := int(np.count_nonzero(is_wrong)):
                raise InputError(
                    f"{num:,} of {len(is_wrong):,} {self._noun}s have {fault} in {self._files.setting}, such as "
                    f"{self.found.ids.example(is_wrong)!r}; give every {self._noun} a vector, or leave out "
                    f"{self._files.setting} to encode them."
                )
        return self._table

    def _add(self, rows: KnownRows) -> None:
        lists = rows.columns[VECTOR]
        if pa.types.is_string(lists.type):
            lists = self._parsed(rows, lists)
        widths = pc.list_value_length(lists).fill_null(0).to_numpy()
        why = pl.Series(np.where(widths == 0, NO_VECTOR, "")).replace("", None)
        reject(rows, why, self._files.id_name, self.found)
        rows = rows.filter(widths > 0)
        if len(rows):
            lists = lists.filter(pa.array(widths > 0))
            self._require_width(rows, widths[widths > 0])
            self._put(rows, lists.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1))

    def _parsed(self, rows: KnownRows, texts: pa.Array) -> pa.Array:
        """Lists of numbers out of texts such as `[1, 2]`, `1 2` and `1;2`."""
        texts = pc.replace_substring_regex(texts.cast(pa.large_string()), r"^[\s\[]+|[\s\]]+$", "")
        lists = pc.split_pattern_regex(pc.if_else(pc.equal(texts, ""), None, texts), r"\s*[,;|\s]\s*")
        try:
            numbers = lists.flatten().cast(pa.float32())
        except pa.ArrowInvalid:
            bad = next(row for row in range(len(lists)) if not _are_numbers(lists[row].values))
            raise InputError(
                f"The vector of {self._noun} {self._id(rows, bad)!r} in {rows.file} is {brief(texts[bad].as_py())}; "
                f"write {self._files.columns[VECTOR]!r} as a JSON array, or as numbers with spaces between them."
            ) from None
        offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(lists).fill_null(0).to_numpy())])
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), numbers)

    def _require_width(self, rows: KnownRows, widths: NDArray[np.int64]) -> None:
        """Make room for the vectors where these are the first, and refuse other widths."""
        if not self._table.shape[1]:
            self._first_id, width = self._id(rows, 0), int(widths[0])
            if width < MIN_WIDTH:
                raise InputError(
                    f"The vector of {self._noun} {self._first_id!r} in {rows.file} is one number; check "
                    f"{self._files.column_setting.format(VECTOR)}."
                )
            self._table = _space(len(self._is_found), width)
        others = np.flatnonzero(widths != self._table.shape[1])
        if len(others):
            raise InputError(
                f"The vector of {self._noun} {self._id(rows, others[0])!r} in {rows.file} has {widths[others[0]]:,} "
                f"numbers and that of {self._first_id!r} has {self._table.shape[1]:,}; take all from one encoder."
            )

    def _put(self, rows: KnownRows, vectors: NDArray[np.float32]) -> None:
        """Add vectors [n, d] to the table, of an id that comes again only if it is the same one."""
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(broken):
            number = vectors[broken[0]][~np.isfinite(vectors[broken[0]])][0]
            raise InputError(
                f"The vector of {self._noun} {self._id(rows, broken[0])!r} in {rows.file} holds {number}, which is not "
                f"finite; make it again, or leave out {self._files.setting} to encode the {self._noun}s."
            )
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
        # In double precision: the length of huge numbers does not fit single precision.
        vectors = (vectors / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)
        is_first = np.zeros(len(rows), dtype=np.bool_)
        is_first[np.unique(rows.places, return_index=True)[1]] = True
        is_first &= ~self._is_found[rows.places]
        places = rows.places[is_first]
        self._table[places] = vectors[is_first]
        self._is_found[places], self._is_zero[places] = True, lengths[is_first] == 0
        again = np.flatnonzero(~is_first)
        differences = np.abs(vectors[again] - self._table[rows.places[again]]).max(axis=1, initial=0)
        if (differences > _SAME).any():
            row = again[np.argmax(differences > _SAME)]
            raise InputError(
                f"The {self._noun} {self._id(rows, row)!r} has two different vectors in {self._files.setting}, the "
                f"second in {rows.file}; leave one of them out."
            )
        self.found.num_same += len(again)

    def _id(self, rows: KnownRows, row: int) -> str:
        text: str = rows.columns[self._files.id_name][int(row)].as_py()
        return text

    def counts(self) -> dict[str, Any]:
        """What became of the rows."""
        return {
            "width": self._table.shape[1],
            "rows_read": self.found.rejects.num_read,
            "rows_repeated": self.found.num_same,
            "rows_rejected": dict(self.found.rejects.counts),
        }


def _are_numbers(texts: pa.Array | None) -> bool:
    try:
        return texts is None or texts.cast(pa.float32()) is not None
    except pa.ArrowInvalid:
        return False


def _space(num_rows: int, width: int) -> NDArray[np.float32]:
    """A table in a file without a name, which goes when the process does.

    Raises:
        StorageError: there is no room for it.
    """
    num_bytes = num_rows * width * 4
    try:
        with tempfile.TemporaryFile(prefix="sracl-vectors-") as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)  # else a full disk would end the process while it writes
            return np.memmap(file, np.float32, "r+", shape=(num_rows, width))
    except OSError as error:
        raise StorageError(
            f"{tempfile.gettempdir()} has no room for {num_bytes / 1e9:.1f} GB of vectors ({error.strerror}); name "
            f"another folder in TMPDIR."
        ) from None
