"""The store of answers, which outlives every change of settings: `generated/`, one row per prompt and attempt.

It holds what the engine said. What is wrong with a text is judged again at every reading, so that better rules
reach old answers too.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import ATTEMPT, PROMPT_HASH
from sracl_dist.errors import StorageError
from sracl_dist.profiles.answers import ANSWERS
from sracl_dist.profiles.quality import AnswerRules
from sracl_dist.profiles.rate import Rate
from sracl_dist.profiles.store_index import INDEXED, BestAnswers, best_answers, judge
from sracl_dist.run_folder import StageFolder
from sracl_dist.run_folder.plain import dataclass_from
from sracl_dist.tasks import Tasks

STORE = "generated/"
RATES = f"{STORE}rates.json"
STORED = ANSWERS.append(pa.field(ATTEMPT, pa.int32()))
SMALL_BYTES = 8 << 20
"""A smaller file is joined with its neighbours, up to `LARGE_BYTES` together."""
LARGE_BYTES = 32 << 20
MAX_COMMITS = 500
"""Files that are committed between two compactions."""
ROWS_PER_GROUP = 8192
"""Of a Parquet file that joins others; a reader of some rows reads the groups that hold them."""
NO_RAY = Tasks(num_workers=0)


class AnswerStore:
    """Reads and adds to the answers; `rules` say what makes an answer unusable."""

    def __init__(self, folder: StageFolder, rules: AnswerRules) -> None:
        self._folder, self._rules = folder, rules
        self._num_commits = 0

    def commit(self, tables: Sequence[pa.Table]) -> None:
        """Add answers with the columns of `STORED`."""
        if not tables:
            return
        self._folder.write_table(_new_name(), pa.concat_tables(tables))
        self._num_commits += 1
        if self._num_commits % MAX_COMMITS == 0:
            self.compact()

    def best(self, tasks: Tasks = NO_RAY) -> BestAnswers:
        """What counts of every prompt in the store."""
        judged = self.judged(tasks)
        return best_answers(list(judged), list(judged.values()))

    def judged(self, tasks: Tasks = NO_RAY) -> dict[str, NDArray[np.void]]:
        """What `judge` says of the rows of each file; each file is read and judged by a task."""
        names, judged = self._files(), dict[str, NDArray[np.void]]()
        infos = self._folder.infos(STORE)
        tasks.run(
            "profile: earlier answers",
            make_judge,
            (self._folder, self._rules),
            names,
            size=lambda name: infos[name].size,
            is_done=lambda _: False,
            unit="bytes",
            on_result=lambda name, rows: judged.update({name: rows}),
        )
        return {name: judged[name] for name in names}

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Some columns of all attempts, one file after the other."""
        for name in self._files():
            yield self._folder.read_table(name, columns)

    def compact(self) -> None:
        """Join small files; a kill in between leaves doubles, which reading resolves."""
        infos = self._folder.infos(STORE)
        group: list[str] = []
        for name in [*self._files(), None]:
            num_bytes = sum(infos[own].size for own in group)
            if name is not None and infos[name].size < SMALL_BYTES and num_bytes < LARGE_BYTES:
                group.append(name)
                continue
            if len(group) > 1:
                self._folder.write_tables(_new_name(), STORED, self._joined(group))
                self._folder.delete(group)
            group = [name] if name is not None and infos[name].size < SMALL_BYTES else []

    def _joined(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of the files, every attempt once, so many at a time that a reader can pass over some."""
        seen: set[tuple[str, int]] = set()
        waiting: list[pa.Table] = []
        for name in names:
            table = self._folder.read_table(name, STORED.names)
            keys = list(zip(table[PROMPT_HASH].to_pylist(), table[ATTEMPT].to_pylist(), strict=True))
            is_new = [key not in seen and not seen.add(key) for key in keys]  # type: ignore[func-returns-value]
            waiting.append(table.filter(pa.array(is_new, pa.bool_())))
            if sum(own.num_rows for own in waiting) >= ROWS_PER_GROUP:
                yield pa.concat_tables(waiting).combine_chunks()
                waiting = []
        yield pa.concat_tables([*waiting, STORED.empty_table()]).combine_chunks()

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


def make_judge(folder: StageFolder, rules: AnswerRules) -> Callable[[str], NDArray[np.void]]:
    """What a worker does: judge each row of a file of the store."""
    return lambda name: judge(folder.read_table(name, list(INDEXED)), rules)


def _new_name() -> str:
    return f"{STORE}{time.time_ns():020d}.parquet"
