"""The answers of a trial: new ones lie in a folder of their own until the end, and the run's store is only read.

So a trial that is killed leaves the run as it was. Its answers are lost then; those of a trial that ends in any other
way, by an error or an interrupt too, are moved into the run's store in one short step.
"""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import ATTEMPT, FINISH_REASON, NUM_OUTPUT_TOKENS, NUM_PROMPT_TOKENS, PROMPT_HASH
from sracl_dist.config import Config
from sracl_dist.errors import StorageError
from sracl_dist.observe import say
from sracl_dist.profiles.answers import UNAVAILABLE
from sracl_dist.profiles.hashes import packed
from sracl_dist.profiles.plan import Plan
from sracl_dist.profiles.quality import AnswerRules
from sracl_dist.profiles.rate import Rate
from sracl_dist.profiles.store import AnswerStore
from sracl_dist.profiles.store_index import BestAnswers, best_answers
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.run_folder.owner import read_started
from sracl_dist.stages import STAGES, stage_status

STAGE = STAGES["profile"]


class TrialStore:
    """What is known of a trial's prompts: the answers of earlier runs, and those of the trial.

    Args:
        earlier: the stage's folder, which is read only.
        own: a folder for the trial alone.
        rules: see `quality`.
    """

    def __init__(self, earlier: StageFolder, own: StageFolder, rules: AnswerRules) -> None:
        self._folders = (earlier, own)
        self._stores = tuple(AnswerStore(folder, rules) for folder in self._folders)
        self.new = self._stores[1]
        """Where answers are committed."""

    def best(self) -> BestAnswers:
        """What counts of every prompt in both."""
        judged = [pair for store in self._stores for pair in store.judged().items()]
        return best_answers([name for name, _ in judged], [rows for _, rows in judged])

    def read_rows(self, name: str, rows: NDArray[np.int64], columns: list[str] | None = None) -> pa.Table:
        """Some rows of a file of either; their names differ, as they are times."""
        earlier, own = self._folders
        return (own if own.exists(name) else earlier).read_rows(name, rows, columns)

    def rate(self, engine: str) -> Rate | None:
        """How fast an engine was in the trial, or else before."""
        earlier, own = self._stores
        return own.rate(engine) or earlier.rate(engine)

    def tokens(self, plan: Plan, later_than: NDArray[np.int32]) -> NDArray[np.int64]:
        """[m, 2]: tokens of the prompt and of its answers for each row of the plan's ledger, failed attempts included.

        An attempt of which an engine has counted no prompt has the plan's length; one that no model has seen has none.

        Args:
            plan: of the prompts.
            later_than: [m]: only attempts with higher numbers count.
        """
        parts = [np.zeros((0, 4), np.int64)]
        for store in self._stores:
            for table in store.tables([PROMPT_HASH, ATTEMPT, FINISH_REASON, NUM_PROMPT_TOKENS, NUM_OUTPUT_TOKENS]):
                rows, attempts = plan.ledger.find(packed(table[PROMPT_HASH])), table[ATTEMPT].to_numpy()
                counts = [table[name].fill_null(0).to_numpy() for name in (NUM_PROMPT_TOKENS, NUM_OUTPUT_TOKENS)]
                was_seen = [reason not in (None, UNAVAILABLE) for reason in table[FINISH_REASON].to_pylist()]
                estimates = np.where(was_seen, plan.num_tokens[plan.ledger.places[rows]], 0)
                counts[0] = np.where(counts[0] > 0, counts[0], estimates)
                is_wanted = (rows >= 0) & (attempts > later_than[rows])
                parts.append(np.stack([rows, attempts, *counts], axis=1)[is_wanted])
        told = np.concatenate(parts)
        _, once = np.unique(told[:, :2], axis=0, return_index=True)  # a killed compaction leaves doubles
        tokens = np.zeros((len(plan.ledger), 2), np.int64)
        np.add.at(tokens, told[once, 0], told[once, 2:])
        return tokens


def keep_answers(config: Config, run: RunFolder, own: StageFolder, rules: AnswerRules, engines: Sequence[str]) -> None:
    """Move the trial's answers into the run's store; the stage's tables remain as they are.

    The manifest lists the files of the store too and is written again. A kill within this step leaves the stage
    unfinished; run again, it finds all its answers and asks nothing.

    Args:
        config: of the run.
        run: whose store it is.
        own: the trial's folder.
        rules: see `quality`.
        engines: names of the rates to keep.
    """
    new = AnswerStore(own, rules)
    if not new.judged():
        return
    new.compact()
    try:
        with _as_it_is(config, run) as folder:
            store = AnswerStore(folder, rules)
            for table in new.tables(None):
                store.commit([table])
            for engine in engines:
                if (rate := new.rate(engine)) is not None:
                    store.keep_rate(engine, rate)
    except StorageError as error:
        say(f"profile: the answers of the trial are not kept: {error}")


@contextlib.contextmanager
def _as_it_is(config: Config, run: RunFolder) -> Iterator[StageFolder]:
    """The stage's folder to write into; a stage that was finished is finished again afterwards."""
    manifest = None
    with contextlib.suppress(StorageError):  # the stage itself reports a damaged one
        manifest = run.stage(STAGE.name).manifest()
    started = read_started(run.stage(STAGE.name).plain)
    fingerprint = stage_status(STAGE, config, run).draft.fingerprint
    if manifest is not None:
        fingerprint = manifest.fingerprint
    elif started is not None and started.fingerprint is not None:
        fingerprint = started.fingerprint
    # With the fingerprint of the work that is there: with any other its files would be deleted.
    with run.working_on(STAGE.name, fingerprint, keep=STAGE.keep) as folder:
        try:
            yield folder
        finally:
            if manifest is not None and not folder.damaged_before:
                folder.commit(manifest)
