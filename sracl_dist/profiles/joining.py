"""From answers to the tables `items` and `users`: each shard of keys finds its answers in the store by hash."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import (
    ERROR,
    FINISH_REASON,
    FLAWS,
    KEY,
    MODEL,
    NUM_OUTPUT_TOKENS,
    NUM_PROMPT_TOKENS,
    PROMPT_HASH,
    TEXT,
)
from sracl_dist.errors import StageError
from sracl_dist.profiles import quality
from sracl_dist.profiles.answers import ANSWERS
from sracl_dist.profiles.hashes import places_of
from sracl_dist.profiles.prompt_shards import KINDS, PromptShard
from sracl_dist.profiles.quality import AnswerRules, answer_of, failure_of
from sracl_dist.profiles.store_index import BestAnswers
from sracl_dist.run_folder import StageFolder
from sracl_dist.shards import Shard, committed_shards
from sracl_dist.tasks import Tasks

ROWS = (KEY, PROMPT_HASH, NUM_PROMPT_TOKENS)
"""Columns of the prompts that the tables have too."""
COUNTED = (ERROR, FLAWS, NUM_PROMPT_TOKENS, NUM_OUTPUT_TOKENS)


@dataclass(frozen=True, kw_only=True)
class Join:
    """A shard of prompts, and where in the store their answers are."""

    prompts: Shard
    answers: Shard
    names: Sequence[str]
    """Files of the store that hold them."""
    files: NDArray[np.int32]
    """Number of each answer's file, rising; every answer once."""
    rows: NDArray[np.int32]
    """Rows in the files, rising within one."""


def write_tables(
    tasks: Tasks,
    folder: StageFolder,
    shards: Sequence[PromptShard],
    hashes: NDArray[np.bytes_],
    best: BestAnswers,
    model: str,
    rules: AnswerRules,
) -> None:
    """Write the tables that are not there yet, a shard for each of the prompts.

    Args:
        tasks: who does it.
        folder: of the stage.
        shards: all prompts.
        hashes: theirs, packed, in the same order.
        best: the answer of each.
        model: who answered, for the tables.
        rules: see `quality`.
    """
    committed = {name for kind in KINDS for name in folder.files(f"{kind}/")}
    folder.delete(committed - {shard.answers.name for shard in shards})
    tasks.run(
        "profile: tables",
        make_joiner,
        (folder, model, rules),
        list(joins(shards, hashes, best)),
        size=lambda join: join.answers.num_rows,
        is_done=lambda join: join.answers.name in committed,
        unit="keys",
    )


def joins(shards: Sequence[PromptShard], hashes: NDArray[np.bytes_], best: BestAnswers) -> Iterator[Join]:
    """Where the answers of each shard are, given the packed hashes of all prompts in the order of the shards."""
    start = 0
    for shard in shards:
        found = np.unique(places_of(hashes[start : start + shard.num_prompts], best.hashes))
        found = found[found >= 0]
        order = np.lexsort((best.rows[found], best.files[found]))
        numbers, files = np.unique(best.files[found][order], return_inverse=True)
        yield Join(
            prompts=shard.prompts,
            answers=shard.answers,
            names=[best.names[number] for number in numbers],
            files=files.astype(np.int32),
            rows=best.rows[found][order],
        )
        start += shard.num_prompts


def make_joiner(folder: StageFolder, model: str, rules: AnswerRules) -> Callable[[Join], None]:
    """What a worker does: read the answers of a shard, judge them and commit its table."""

    def join(task: Join) -> None:
        prompts = folder.read_table(task.prompts.name, list(ROWS))
        folder.write_table(task.answers.name, join_answers(prompts, answers_of(folder, task), model, rules))

    return join


class HasRows(Protocol):
    """Where files of the store are read."""

    def read_rows(self, name: str, rows: NDArray[np.int64], columns: list[str] | None = None) -> pa.Table:
        """Some rows of a file."""


def answers_of(folder: HasRows, task: Join) -> pa.Table:
    """The answers of a shard, with the columns of `ANSWERS`, from the store in the folder; each once."""
    ends = np.searchsorted(task.files, np.arange(len(task.names) + 1))
    pieces = [
        folder.read_rows(name, task.rows[ends[number] : ends[number + 1]].astype(np.int64), ANSWERS.names)
        for number, name in enumerate(task.names)
    ]
    return pa.concat_tables([ANSWERS.empty_table(), *(piece.cast(ANSWERS) for piece in pieces)])


def join_answers(rows: pa.Table, answers: pa.Table, model: str, rules: AnswerRules) -> pa.Table:
    """One row per prompt with what the store says about it; a failed one has an error and no text.

    Args:
        rows: the columns ROWS.
        answers: the columns of `ANSWERS`, a prompt at most once.
        model: who answered.
        rules: see `quality`.
    """
    found = answers.take(pc.index_in(rows[PROMPT_HASH], value_set=answers[PROMPT_HASH].combine_chunks()))
    told = list(zip(*(found[name].to_pylist() for name in (PROMPT_HASH, TEXT, FINISH_REASON, ERROR)), strict=True))
    errors = [
        (error or failure_of(text, rules)) if hash_ is not None else "no answer was received"
        for hash_, text, _, error in told
    ]
    # An error of the engine says nothing about the text; one that the text explains was found by earlier rules.
    flaws = [
        quality.flaws_of(text, reason, rules) if (error or "").startswith(failure_of(text, rules) or "") else []
        for (_, text, reason, _), error in zip(told, errors, strict=True)
    ]
    failed = pa.array([error is not None for error in errors], pa.bool_())
    counted = pc.if_else(pc.greater(found[NUM_PROMPT_TOKENS], 0), found[NUM_PROMPT_TOKENS], None)
    return pa.table(
        {
            KEY: rows[KEY],
            PROMPT_HASH: rows[PROMPT_HASH],
            TEXT: pc.if_else(failed, None, pa.array([answer_of(text) for _, text, _, _ in told], pa.string())),
            FINISH_REASON: found[FINISH_REASON],
            NUM_PROMPT_TOKENS: pc.coalesce(counted, rows[NUM_PROMPT_TOKENS]),
            NUM_OUTPUT_TOKENS: found[NUM_OUTPUT_TOKENS],
            MODEL: pa.array([model] * rows.num_rows, pa.string()),
            FLAWS: pa.array(flaws, pa.list_(pa.string())),
            ERROR: pa.array(errors, pa.string()),
        }
    )


def written_tables(folder: StageFolder) -> Iterator[pa.Table]:
    """The columns COUNTED of all shards, one after the other."""
    for kind in KINDS:
        for shard in committed_shards(folder, kind):
            yield folder.read_table(shard.name, list(COUNTED))


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What the tables hold."""

    num_rows: int
    errors: Counter[str]
    """How often each occurs."""
    details: dict[str, int]
    """Failures, flaws and tokens, for the manifest."""

    def why_failed(self) -> str:
        """The failures that the texts explain, in brackets."""
        numbers = {flaw: self.details[_count_name(flaw)] for flaw in quality.FAILURES}
        told = ", ".join(f"{num:,} {flaw}" for flaw, num in numbers.items() if num)
        return f" ({told})" if told else ""

    def refuse_failures(self, max_failed_share: float) -> None:
        """Raise StageError where too many rows have no answer, with the commonest reasons."""
        num_failed = self.errors.total()
        if num_failed > max_failed_share * self.num_rows:
            commonest = "; ".join(f"{num:,} times: {error}" for error, num in self.errors.most_common(3))
            raise StageError(
                f"{num_failed:,} of {self.num_rows:,} prompts have no answer ({commonest}); mend the cause and run the "
                f"stage again, which asks only those that have failed less than profile.max_attempts times, or raise "
                f"profile.max_failed_share={max_failed_share}."
            )


def counts(tables: Iterable[pa.Table]) -> Counts:
    """Failures, flaws and tokens of all rows; one table is held at a time."""
    num_rows, errors, flaws, tokens = 0, Counter[str](), Counter[str](), Counter[str]()
    for table in tables:
        num_rows += table.num_rows
        for name, counter in ((ERROR, errors), (FLAWS, flaws)):
            values = pc.list_flatten(table[name]) if name == FLAWS else table[name].drop_null()
            counter.update({row["values"]: row["counts"] for row in values.value_counts().to_pylist()})
        for name in (NUM_PROMPT_TOKENS, NUM_OUTPUT_TOKENS):
            tokens[name] += pc.sum(table[name]).as_py() or 0
    details = {
        "num_failed": errors.total(),
        **{_count_name(flaw): flaws[flaw] for flaw in quality.FLAWS},
        **{name: tokens[name] for name in (NUM_PROMPT_TOKENS, NUM_OUTPUT_TOKENS)},
    }
    return Counts(num_rows=num_rows, errors=errors, details=details)


def _count_name(flaw: str) -> str:
    return f"num_{flaw.replace('-', '_')}"
