"""SRA-CL on a log where texts say what histories are too short to say.

Users and items belong to hidden groups. A user takes items of its group in any order, and trains a single target; an
item is seen about once. Who belongs together cannot be learnt from so little, but the texts know it.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import from_histories, make_config, tables_of, write_run

from sracl_dist.evaluate.metrics import mean_metrics
from sracl_dist.evaluate.ranking import rank_targets
from sracl_dist.evaluate.scores import CatalogueScores
from sracl_dist.model.encoders import SequenceEncoder
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences
from sracl_dist.train.loop import fit, make_trainer
from sracl_dist.train.state import Progress
from sracl_dist.train.worker import Worker

NUM_GROUPS = 8
ITEMS_PER_GROUP = 40
USERS_PER_GROUP = 20
SEEDS = (0, 1, 2)
SETTINGS = (
    "model.width=32",
    "train.epochs=30",
    "train.patience=30",
    "train.learning_rate=0.003",
    "train.protocol=seen_removed",
    *(
        f"objectives.{term}.{setting}"
        for term in ("cross_sequence", "intra_sequence")
        for setting in ("weight=1", "similarity=cosine", "temperature=0.2")
    ),
)


def grouped_log(seed: int = 0) -> Sequences:
    """Four items each: the first two are for training."""
    random = np.random.default_rng(seed)
    histories = []
    for user in range(NUM_GROUPS * USERS_PER_GROUP):
        places = random.permutation(ITEMS_PER_GROUP)[:4]
        histories.append(1 + user % NUM_GROUPS + NUM_GROUPS * places)
    return from_histories(histories, num_items=NUM_GROUPS * ITEMS_PER_GROUP)


class Log:
    """The log, its texts' tables, and what was measured on it."""

    def __init__(self, location: Path, seed: int = 0) -> None:
        self.sequences = grouped_log(seed)
        self.run: RunFolder = write_run(
            location,
            self.sequences,
            num_neighbours=8,
            user_groups=np.arange(self.sequences.num_users) % NUM_GROUPS,
            item_groups=np.arange(self.sequences.num_items) % NUM_GROUPS,
        )
        self.measure = cache(self._measure)

    def _measure(self, *terms: str, neighbours: str = "semantic") -> float:
        """Mean over seeds of the test metric in the epoch that validation selects."""
        values = []
        for seed in SEEDS:
            config = make_config("unused", *SETTINGS, f"objectives.terms=[{','.join(terms)}]", f"run.seed={seed}")
            config.objectives.cross_sequence.neighbours = neighbours  # type: ignore[assignment]
            config.objectives.intra_sequence.neighbours = neighbours  # type: ignore[assignment]
            trainer = make_trainer(config, self.sequences, tables_of(self.run, self.sequences), Worker())
            value = 0.0
            for progress in fit(trainer, Progress()):
                if progress.best_epoch == progress.epoch:
                    value = self._test_metric(trainer.model.encoder)
            values.append(value)
        return float(np.mean(values))

    def _test_metric(self, encoder: SequenceEncoder) -> float:
        users, targets = self.sequences.targets("test")
        contexts = [self.sequences.context(int(user), "test") for user in users]
        ranks = rank_targets(CatalogueScores(encoder, torch.device("cpu")), contexts, targets)
        return mean_metrics(ranks.seen_removed, self.sequences.num_items)["ndcg@20"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    location: Path = tmp_path_factory.mktemp("planted")
    return Log(location)


def test_meaning_makes_up_for_short_histories(log: Log) -> None:
    backbone = log.measure("next_item")
    assert log.measure("next_item", "cross_sequence", "intra_sequence") > 1.5 * backbone


@pytest.mark.parametrize("term", ["cross_sequence", "intra_sequence"])
def test_each_term_does_so_alone(log: Log, term: str) -> None:
    assert log.measure("next_item", term) > 1.2 * log.measure("next_item")


def test_it_is_not_the_contrast_as_such(log: Log) -> None:
    terms = ("next_item", "cross_sequence", "intra_sequence")
    backbone = log.measure("next_item")
    assert log.measure(*terms, neighbours="random") - backbone < (log.measure(*terms) - backbone) / 3
