"""What the store of answers holds, without the texts: where each answer lies, and which one of a prompt counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import ATTEMPT, ERROR, FINISH_REASON, NUM_OUTPUT_TOKENS, PROMPT_HASH, TEXT
from sracl_dist.profiles.answers import UNAVAILABLE
from sracl_dist.profiles.attempts import was_cut_to_nothing
from sracl_dist.profiles.hashes import HASH, packed
from sracl_dist.profiles.quality import AnswerRules, failure_of

INDEXED = (PROMPT_HASH, ATTEMPT, TEXT, FINISH_REASON, NUM_OUTPUT_TOKENS, ERROR)
ROWS_AT_ONCE = 4096
JUDGED = np.dtype(
    [
        ("hash", HASH),
        ("attempt", np.int32),
        ("num_output_tokens", np.int32),
        ("is_failure", np.bool_),
        ("was_seen", np.bool_),
        ("was_cut", np.bool_),
    ]
)
"""What is known of a row of the store; an outage is not seen by any model."""


def judge(answers: pa.Table, rules: AnswerRules) -> NDArray[np.void]:
    """[n] of `JUDGED` for the rows of a table that has the columns INDEXED."""
    rows = np.empty(answers.num_rows, JUDGED)
    rows["hash"] = packed(answers[PROMPT_HASH])
    rows["attempt"] = answers[ATTEMPT].to_numpy()
    rows["num_output_tokens"] = answers[NUM_OUTPUT_TOKENS].fill_null(0).to_numpy()
    start = 0
    for batch in answers.select([TEXT, FINISH_REASON, ERROR]).to_batches(ROWS_AT_ONCE):
        replies = list(zip(*(column.to_pylist() for column in batch.columns), strict=True))
        own = rows[start : start + len(replies)]
        own["is_failure"] = [bool(error or failure_of(text, rules)) for text, _, error in replies]
        own["was_seen"] = [reason != UNAVAILABLE for _, reason, _ in replies]
        own["was_cut"] = [was_cut_to_nothing(text, reason) for text, reason, _ in replies]
        start += len(replies)
    return rows


@dataclass(frozen=True, kw_only=True)
class BestAnswers:
    """The answer that counts of every prompt: its first usable one, or else its last failure."""

    names: Sequence[str]
    """Files of the store."""
    hashes: NDArray[np.bytes_]
    """Packed, rising; everything else is parallel to it."""
    files: NDArray[np.int32]
    """Number of the answer's file."""
    rows: NDArray[np.int32]
    """Row in the file."""
    attempts: NDArray[np.int32]
    """Which attempt the answer is of."""
    is_failure: NDArray[np.bool_]
    was_cut: NDArray[np.bool_]
    num_output_tokens: NDArray[np.int32]
    num_attempts: NDArray[np.int32]
    """Number of the prompt's latest attempt."""
    num_failures: NDArray[np.int32]
    """Failures of the prompt that a model has seen."""


def best_answers(names: Sequence[str], judged: Sequence[NDArray[np.void]]) -> BestAnswers:
    """What counts of the files, of which each has the rows of `judged` that `judge` gave.

    An attempt may occur twice, after a kill; the first of them counts.
    """
    sizes = [len(own) for own in judged]
    files = np.repeat(np.arange(len(names), dtype=np.int32), sizes)
    rows = np.concatenate([np.zeros(0, np.int32), *(np.arange(size, dtype=np.int32) for size in sizes)])
    judged_rows = np.concatenate([np.zeros(0, JUDGED), *judged])
    hashes, codes = np.unique(judged_rows["hash"], return_inverse=True)
    attempts, is_failure = judged_rows["attempt"], judged_rows["is_failure"]
    _, once = np.unique(codes << 32 | attempts, return_index=True)
    codes, attempts, is_failure = codes[once], attempts[once], is_failure[once]
    # Usable answers first, the earliest of them; then failures, the latest first.
    order = np.lexsort((np.where(is_failure, -attempts, attempts), is_failure, codes))
    best = once[order[np.flatnonzero(np.diff(codes[order], prepend=-1))]]
    num_attempts = np.zeros(len(hashes), np.int32)
    np.maximum.at(num_attempts, codes, attempts)
    num_failures = np.bincount(codes[is_failure & judged_rows["was_seen"][once]], minlength=len(hashes))
    return BestAnswers(
        names=names,
        hashes=hashes,
        files=files[best],
        rows=rows[best],
        attempts=judged_rows["attempt"][best],
        is_failure=judged_rows["is_failure"][best],
        was_cut=judged_rows["was_cut"][best],
        num_output_tokens=judged_rows["num_output_tokens"][best],
        num_attempts=num_attempts,
        num_failures=num_failures.astype(np.int32),
    )
