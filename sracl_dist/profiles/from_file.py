"""profile.engine=file: profiles that were written elsewhere, taken from files by id; no model is loaded.

They may be more than memory holds: their texts go into a temporary file as they are read, from there into the shards.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import (
    ERROR,
    FINISH_REASON,
    FLAWS,
    ITEM_ID,
    KEY,
    MODEL,
    NUM_OUTPUT_TOKENS,
    NUM_PROMPT_TOKENS,
    PROMPT_HASH,
    TEXT,
    USER_ID,
)
from sracl_dist.config import Config
from sracl_dist.config.sections import ProfileFilesConfig
from sracl_dist.data.by_id import FilesById, IdPlaces, KnownRows, ReadById, known_rows, refuse_unknown, reject
from sracl_dist.data.item_texts import clean_texts
from sracl_dist.data.rejects import EMPTY_TEXT, OTHER_TEXT, SCHEMA
from sracl_dist.ids import IdMap, load_item_ids, load_user_ids
from sracl_dist.profiles.table import KEYS_PER_SHARD, write_profiles
from sracl_dist.profiles.text_spill import TextSpill
from sracl_dist.run_folder import RunFolder
from sracl_dist.secrets import masked
from sracl_dist.stages import StageResult

PROFILES = pa.schema(
    [
        (KEY, pa.int64()),
        (PROMPT_HASH, pa.string()),
        (TEXT, pa.string()),
        (FINISH_REASON, pa.string()),
        (NUM_PROMPT_TOKENS, pa.int32()),
        (NUM_OUTPUT_TOKENS, pa.int32()),
        (MODEL, pa.string()),
        (FLAWS, pa.list_(pa.string())),
        (ERROR, pa.string()),
    ]
)
"""The columns of a model's profiles; what only a model can tell is null, and `model` is the file's name."""
REJECTS = "rejects.parquet"
LOADERS = {"items": load_item_ids, "users": load_user_ids}


def take_profiles(config: Config, run: RunFolder) -> StageResult:
    """Write the tables of profiles out of the files, one row per item or user that has one, and `rejects.parquet`.

    Rows of unknown ids, without a text, and with another text of an id than its first are rejected and counted.

    Raises:
        InputError: a file is missing or damaged or lacks a column, or holds no profile of anybody in the log.
        StorageError: the temporary folder has no room for the texts.
    """
    folder = run.stage("profile")
    rows: dict[str, int] = {}
    details: dict[str, Any] = {}
    summary, rejects = [], [SCHEMA.empty_table()]
    for kind in LOADERS:
        texts = _read(config, run, kind)
        write_profiles(folder, kind, texts.tables())
        rejects.append(texts.found.rejects.table())
        rows[kind], details[kind] = texts.num_found, texts.counts()
        summary.append(_summary(kind, details[kind]))
    folder.write_table(REJECTS, pa.concat_tables(rejects))
    return StageResult(rows=rows, details=details, summary=summary)


def finished_profiles(config: Config, run: RunFolder, kind: str, keys: NDArray[np.int64]) -> pa.Table:
    """The profiles of some keys of a kind in the files, null where there is none; see `take_profiles` for the errors.

    Returns:
        The columns of PROFILES, a row per key in that order.
    """
    texts = _read(config, run, kind)
    found = pa.concat_tables([PROFILES.empty_table(), *texts.tables(keys)])
    return found.take(pc.index_in(pa.array(keys), value_set=found[KEY].combine_chunks()))


def _read(config: Config, run: RunFolder, kind: str) -> "_Texts":
    texts = _Texts(LOADERS[kind](run), config.data.max_text_chars)
    source = _files(config.profile.files, kind)
    if source.patterns:
        texts.read(source, kind)
    return texts


def _files(files: ProfileFilesConfig, kind: str) -> FilesById:
    id_name, column = (ITEM_ID, files.item_id_column) if kind == "items" else (USER_ID, files.user_id_column)
    return FilesById(
        patterns=getattr(files, kind),
        setting=f"profile.files.{kind}",
        id_name=id_name,
        columns={id_name: column, TEXT: files.text_column},
        column_setting="profile.files.{}_column",
        format=files.format,
        format_setting="profile.files.format",
    )


def _summary(kind: str, counts: dict[str, Any]) -> str:
    reasons = ", ".join(f"{num:,} {reason}" for reason, num in counts["rows_rejected"].items())
    return (
        f"{kind}: {counts['with_profile']:,} with a profile, {counts['without_profile']:,} without; "
        f"{counts['rows_read']:,} rows read, {counts['rows_repeated']:,} repeated, "
        f"{sum(counts['rows_rejected'].values()):,} rejected{f' ({reasons})' if reasons else ''}"
    )


class _Texts:
    """The first text of every id of a kind, N of them."""

    def __init__(self, ids: IdMap, max_chars: int) -> None:
        self._max_chars, self._first_key = max_chars, ids.first
        self.found = ReadById(ids=IdPlaces(ids.all()))
        self._texts = TextSpill(len(ids))
        self._hashes = np.zeros(len(ids), dtype=np.uint64)
        """[N] hash of each id's text, to tell whether another one is the same."""
        self._files = np.zeros(len(ids), dtype=np.int32)
        """[N] number of the file that each text is from."""
        self._names: dict[str, int] = {}
        """Number of each file, by name."""

    @property
    def num_found(self) -> int:
        """How many ids have a text."""
        return int(np.count_nonzero(self._texts.has_text))

    def read(self, files: FilesById, kind: str) -> None:
        for rows in known_rows(files, self.found, f"profile: reading {kind}"):
            self._add(rows, files.id_name)
        if not self.num_found:
            refuse_unknown(files, self.found, "profile")

    def _add(self, rows: KnownRows, id_name: str) -> None:
        texts = clean_texts(rows.columns[TEXT], self._max_chars)
        is_empty = texts.is_null().to_numpy(zero_copy_only=False)
        hashes = pl.Series(texts).hash(seed=0).to_numpy()
        is_first = np.zeros(len(rows), dtype=np.bool_)
        usable = np.flatnonzero(~is_empty & ~self._texts.has_text[rows.places])
        is_first[usable[np.unique(rows.places[usable], return_index=True)[1]]] = True
        places = rows.places[is_first]
        self._texts.put(places, texts.filter(pa.array(is_first)))
        self._hashes[places] = hashes[is_first]
        self._files[places] = self._names.setdefault(masked(rows.file.source), len(self._names))
        is_same = hashes == self._hashes[rows.places]
        why = pl.Series(np.select([is_empty, is_first | is_same], [EMPTY_TEXT, ""], OTHER_TEXT)).replace("", None)
        reject(rows, why, id_name, self.found)
        self.found.num_same += int(np.count_nonzero(~is_empty & ~is_first & is_same))

    def tables(self, keys: NDArray[np.int64] | None = None) -> Iterator[pa.Table]:
        """The profiles of all keys, or of some, with the columns of PROFILES, by rising key; a shard at a time."""
        has_text = self._texts.has_text
        if keys is not None:
            has_text = has_text & np.isin(np.arange(len(has_text)), keys - self._first_key)
        places = np.flatnonzero(has_text)
        names = pa.array(list(self._names), pa.string())
        for start in range(0, len(places), KEYS_PER_SHARD):
            own = places[start : start + KEYS_PER_SHARD]
            columns = {
                KEY: pa.array(own + self._first_key),
                TEXT: self._texts.get(own),
                MODEL: names.take(pa.array(self._files[own])),
                FLAWS: pa.array([[]], PROFILES.field(FLAWS).type).take(pa.array(np.zeros(len(own), np.int64))),
            }
            arrays = [columns.get(field.name, pa.nulls(len(own), field.type)) for field in PROFILES]
            yield pa.Table.from_arrays(arrays, schema=PROFILES)

    def counts(self) -> dict[str, Any]:
        """What became of the ids, and of the rows; these add up."""
        return {
            "with_profile": self.num_found,
            "without_profile": len(self._texts) - self.num_found,
            "rows_read": self.found.rejects.num_read,
            "rows_repeated": self.found.num_same,
            "rows_rejected": dict(self.found.rejects.counts),
        }
