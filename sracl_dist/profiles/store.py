"""The store of answers, which outlives every change of settings: `generated/`, one row per prompt and attempt.

It holds what the engine said. What is wrong with a text is told anew at every reading, so that better rules reach old
answers too.
"""

import contextlib
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import ATTEMPT, ERROR, FINISH_REASON, PROMPT_HASH, TEXT
from sracl_dist.errors import StorageError
from sracl_dist.profiles.answers import ANSWERS, UNAVAILABLE
from sracl_dist.profiles.quality import AnswerRules, failure_of
from sracl_dist.profiles.rate import Rate
from sracl_dist.run_folder import StageFolder
from sracl_dist.run_folder.plain import dataclass_from

STORE = "generated/"
RATES = f"{STORE}rates.json"
STORED = ANSWERS.append(pa.field(ATTEMPT, pa.int32()))
NUM_ATTEMPTS, NUM_FAILURES = "num_attempts", "num_failures"
BEST = STORED.append(pa.field(NUM_ATTEMPTS, pa.int32())).append(pa.field(NUM_FAILURES, pa.int32()))
"""The row of a prompt that counts, the number of its latest attempt, and how many failures a model has seen."""


class AnswerStore:
    """Reads and adds to the answers; `rules` say what makes an answer unusable."""

    def __init__(self, folder: StageFolder, rules: AnswerRules) -> None:
        self._folder, self._rules = folder, rules

    def commit(self, tables: Sequence[pa.Table]) -> None:
        """Add answers with the columns of `STORED`."""
        if tables:
            self._folder.write_table(f"{STORE}{time.time_ns():020d}.parquet", pa.concat_tables(tables))

    def best(self) -> pa.Table:
        """One row of `BEST` per prompt: its first usable answer, or else its last failure, its reason in `error`."""
        rows = self._folder.read_shards(STORE, STORED.names) if self._files() else STORED.empty_table()
        return best_answers(rows, self._rules)

    def asked(self) -> set[tuple[str, int]]:
        """Hash and attempt of every answer."""
        rows = self._folder.read_shards(STORE, [PROMPT_HASH, ATTEMPT]) if self._files() else STORED.empty_table()
        return set(zip(rows[PROMPT_HASH].to_pylist(), rows[ATTEMPT].to_pylist(), strict=True))

    def compact(self) -> None:
        """Replace many small files by one; a kill in between leaves doubles, which reading resolves."""
        names = self._files()
        if len(names) > 1:
            self._folder.write_table(
                f"{STORE}{time.time_ns():020d}.parquet", _without_doubles(self._folder.read_shards(STORE, STORED.names))
            )
            self._folder.delete(names)

    def rate(self, engine: str) -> Rate | None:
        """How fast an engine was when it last answered many prompts, or None."""
        with contextlib.suppress(StorageError, ValueError):  # of a stage that has not begun, which may be damaged
            rates = self._folder.read_json(RATES) if self._folder.exists(RATES) else {}
            return dataclass_from(Rate, rates[engine]) if engine in rates else None
        return None

    def keep_rate(self, engine: str, rate: Rate) -> None:
        """Remember how fast an engine is, for the next estimate."""
        rates = self._folder.read_json(RATES) if self._folder.exists(RATES) else {}
        self._folder.write_json(RATES, {**rates, engine: rate.to_dict()})

    def _files(self) -> list[str]:
        return [name for name in self._folder.files(STORE) if name.endswith(".parquet")]


def best_answers(rows: pa.Table, rules: AnswerRules) -> pa.Table:
    """What counts of rows with the columns of `STORED`, as a table of `BEST`."""
    if not rows.num_rows:
        return BEST.empty_table()
    rows = _without_doubles(rows)
    errors = [
        error or failure_of(text, rules)
        for batch in rows.select([ERROR, TEXT]).to_batches()
        for error, text in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    ]
    rows = rows.set_column(rows.schema.get_field_index(ERROR), STORED.field(ERROR), pa.array(errors, pa.string()))
    failed = np.array([error is not None for error in errors])
    codes, attempts = _codes(rows), rows[ATTEMPT].to_numpy()
    # Usable answers first, the earliest of them; then failures, the latest first.
    order = np.lexsort((np.where(failed, -attempts, attempts), failed, codes))
    first = order[np.flatnonzero(np.diff(codes[order], prepend=-1))]
    was_seen = pc.fill_null(pc.not_equal(rows[FINISH_REASON], UNAVAILABLE), True).to_numpy()
    num_failures = np.bincount(codes[failed & was_seen], minlength=len(first)).astype(np.int32)
    num_attempts = np.zeros(len(first), np.int32)
    np.maximum.at(num_attempts, codes, attempts)
    best = rows.take(first).append_column(BEST.field(NUM_ATTEMPTS), pa.array(num_attempts))
    return best.append_column(BEST.field(NUM_FAILURES), pa.array(num_failures))


def _without_doubles(rows: pa.Table) -> pa.Table:
    """Every attempt once."""
    keys = _codes(rows) << 32 | rows[ATTEMPT].to_numpy()
    _, first = np.unique(keys, return_index=True)
    return rows if len(first) == rows.num_rows else rows.take(np.sort(first))


def _codes(rows: pa.Table) -> NDArray[np.int64]:
    """A number per distinct prompt, for every row."""
    hashes = rows[PROMPT_HASH].combine_chunks()
    codes: NDArray[np.int64] = hashes.dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes
