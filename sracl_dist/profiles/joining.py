"""From answers to the tables `items` and `users`: each shard of keys finds its answers in the store by hash."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
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
from sracl_dist.profiles import quality
from sracl_dist.profiles.answers import ANSWERS
from sracl_dist.profiles.hashes import places_of
from sracl_dist.profiles.prompt_shards import PromptShard
from sracl_dist.profiles.quality import AnswerRules, failure_of
from sracl_dist.profiles.store_index import BestAnswers
from sracl_dist.profiles.table import KINDS
from sracl_dist.run_folder import StageFolder
from sracl_dist.shards import Shard
from sracl_dist.tasks import Tasks

ROWS = (KEY, PROMPT_HASH, NUM_PROMPT_TOKENS)
"""Columns of the prompts that the tables have too."""
ANSWERS_DIGEST = b"sracl_dist.answers"
"""Key of a table's own metadata: the digest of the answers that it was made from."""


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
    digest: bytes
    """Of the hash of every prompt, which of its attempts counts, and whether that is a failure."""


def write_tables(
    tasks: Tasks,
    folder: StageFolder,
    shards: Sequence[PromptShard],
    hashes: NDArray[np.bytes_],
    best: BestAnswers,
    model: str,
    rules: AnswerRules,
) -> None:
    """Write a shard for each of the prompts' shards, but for those that are there and were made from the same answers.

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

    def is_done(join: Join) -> bool:
        return join.answers.name in committed and digest_in(folder, join.answers) == join.digest

    tasks.run(
        "profile: tables",
        make_joiner,
        (folder, model, rules),
        list(joins(shards, hashes, best)),
        size=lambda join: join.answers.num_rows,
        is_done=is_done,
        unit="keys",
    )


def joins(shards: Sequence[PromptShard], hashes: NDArray[np.bytes_], best: BestAnswers) -> Iterator[Join]:
    """Where the answers of each shard are, given the packed hashes of all prompts in the order of the shards."""
    start = 0
    for shard in shards:
        own = hashes[start : start + shard.num_prompts]
        places = places_of(own, best.hashes)
        found = np.unique(places[places >= 0])
        order = np.lexsort((best.rows[found], best.files[found]))
        numbers, files = np.unique(best.files[found][order], return_inverse=True)
        yield Join(
            prompts=shard.prompts,
            answers=shard.answers,
            names=[best.names[number] for number in numbers],
            files=files.astype(np.int32),
            rows=best.rows[found][order],
            digest=_digest(own, places, best),
        )
        start += shard.num_prompts


def _digest(hashes: NDArray[np.bytes_], places: NDArray[np.int64], best: BestAnswers) -> bytes:
    """Compaction moves rows to other files, so that an answer goes by its prompt and attempt."""
    is_known = places >= 0
    attempts, is_failure = np.zeros(len(places), np.int32), np.zeros(len(places), np.bool_)
    attempts[is_known], is_failure[is_known] = best.attempts[places[is_known]], best.is_failure[places[is_known]]
    return hashlib.sha256(hashes.tobytes() + attempts.tobytes() + is_failure.tobytes()).hexdigest().encode()


def digest_in(folder: StageFolder, table: Shard) -> bytes | None:
    """The digest of the answers that a committed table was made from; see `Join.digest`."""
    metadata: dict[bytes, bytes] = folder.read_table(table.name, [KEY]).schema.metadata or {}
    return metadata.get(ANSWERS_DIGEST)


def make_joiner(folder: StageFolder, model: str, rules: AnswerRules) -> Callable[[Join], None]:
    """What a worker does: read the answers of a shard, judge them and commit its table."""

    def join(task: Join) -> None:
        prompts = folder.read_table(task.prompts.name, list(ROWS))
        table = join_answers(prompts, answers_of(folder, task), model, rules)
        folder.write_table(task.answers.name, table.replace_schema_metadata({ANSWERS_DIGEST: task.digest}))

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
    replies = list(zip(*(found[name].to_pylist() for name in (PROMPT_HASH, TEXT, FINISH_REASON, ERROR)), strict=True))
    errors = [
        (error or failure_of(text, rules)) if hash_ is not None else "no answer was received"
        for hash_, text, _, error in replies
    ]
    # An error of the engine says nothing about the text; one that the text explains was found by earlier rules.
    flaws = [
        quality.flaws_of(text, reason, rules) if (error or "").startswith(failure_of(text, rules) or "") else []
        for (_, text, reason, _), error in zip(replies, errors, strict=True)
    ]
    texts = [quality.profile_of(text, own) for (_, text, _, _), own in zip(replies, flaws, strict=True)]
    failed = pa.array([error is not None for error in errors], pa.bool_())
    counted = pc.if_else(pc.greater(found[NUM_PROMPT_TOKENS], 0), found[NUM_PROMPT_TOKENS], None)
    return pa.table(
        {
            KEY: rows[KEY],
            PROMPT_HASH: rows[PROMPT_HASH],
            TEXT: pc.if_else(failed, None, pa.array(texts, pa.string())),
            FINISH_REASON: found[FINISH_REASON],
            NUM_PROMPT_TOKENS: pc.coalesce(counted, rows[NUM_PROMPT_TOKENS]),
            NUM_OUTPUT_TOKENS: found[NUM_OUTPUT_TOKENS],
            MODEL: pa.array([model] * rows.num_rows, pa.string()),
            FLAWS: pa.array(flaws, pa.list_(pa.string())),
            ERROR: pa.array(errors, pa.string()),
        }
    )
