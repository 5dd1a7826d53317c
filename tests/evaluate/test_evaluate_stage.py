"""The stage without a cluster: shards, their resumption and the summary; with one, see tests/train/test_launch.py."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import from_histories, make_config, make_sequences, write_best, write_run

from sracl_dist.config import Config
from sracl_dist.errors import StageError
from sracl_dist.evaluate import job
from sracl_dist.evaluate.ranking import rank_targets
from sracl_dist.evaluate.scores import CatalogueScores
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences
from sracl_dist.shards import Shard
from sracl_dist.train.state import load_best_encoder


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[Shard]:
    """Shards are done here, one after the other; returns those that were."""
    done: list[Shard] = []

    def map_shards(
        make: Callable[..., Callable[[Shard], Any]],
        arguments: tuple[Any, ...],
        shards: Sequence[Shard],
        on_result: Callable[[Shard, Any], None],
        **_: Any,
    ) -> None:
        process = make(*arguments)
        for shard in shards:
            on_result(shard, process(shard))
            done.append(shard)

    class Connected:
        num_gpus = 0

        def __init__(self, config: object) -> None: ...
        def __enter__(self) -> "Connected":
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(job, "map_shards", map_shards)
    monkeypatch.setattr(job, "connected", Connected)
    return done


def prepare(location: Path, sequences: Sequences) -> tuple[Config, RunFolder]:
    run = write_run(location / "run", sequences)
    write_best(run, make_config(), sequences, location, num_epochs=1)
    return make_config(location / "run"), run


def test_every_user_is_ranked_once_and_as_in_one_go(tmp_path: Path, in_process: list[Shard]) -> None:
    sequences = make_sequences(80)
    config, run = prepare(tmp_path, sequences)
    result = job.evaluate(config, run)
    assert result.rows == {"ranks": 80}
    assert [shard.start for shard in in_process] == [0, 37, 74]
    table = run.stage("evaluate").read_shards("ranks").sort_by("user")
    users, targets = sequences.targets("test")
    scores = CatalogueScores(load_best_encoder(run, sequences.num_items, torch.device("cpu")), torch.device("cpu"))
    ranks = rank_targets(scores, [sequences.context(user, "test") for user in users], targets)
    assert table["user"].to_pylist() == users.tolist()
    assert table["target"].to_pylist() == targets.tolist()
    assert table["rank_seen_kept"].to_pylist() == ranks.seen_kept.tolist()
    assert table["rank_seen_removed"].to_pylist() == ranks.seen_removed.tolist()
    report = run.stage("evaluate").read_json("metrics.json")
    assert report["num_users"] == 80
    assert report["seen_kept"]["mrr"] == pytest.approx(float(np.mean(1 / ranks.seen_kept)))
    assert set(report["slices"]) == {"num_training_items", "target_popularity"}
    assert result.details["seen_removed"] == report["seen_removed"]


def test_finished_shards_are_not_done_again(tmp_path: Path, in_process: list[Shard]) -> None:
    config, run = prepare(tmp_path, make_sequences(80))
    job.evaluate(config, run)
    run.stage("evaluate").delete([in_process[1].name])
    expected = run.stage("evaluate").read_json("metrics.json")
    in_process.clear()
    job.evaluate(config, run)
    assert [shard.start for shard in in_process] == [37]
    assert run.stage("evaluate").read_json("metrics.json") == expected
    config.evaluate.shard_users = 80  # an interrupted run may be continued with other shards
    assert job.evaluate(config, run).rows == {"ranks": 80}


def test_users_without_a_target_are_counted_by_reason(tmp_path: Path, in_process: list[Shard]) -> None:
    sequences = make_sequences(40)
    num_train, num_validation = sequences.num_train.copy(), sequences.num_validation.copy()
    num_train[3] += 1  # nothing is left for test
    num_train[5], num_validation[5] = 0, 0  # everything is in the test period
    sequences = replace(sequences, num_train=num_train, num_validation=num_validation)
    config, run = prepare(tmp_path, sequences)
    assert job.evaluate(config, run).rows == {"ranks": 38}
    report = run.stage("evaluate").read_json("metrics.json")
    assert report["not_evaluated"] == {"no test item": 1, "no item before it": 1}


def test_a_user_ranked_twice_is_noticed(tmp_path: Path, in_process: list[Shard]) -> None:
    config, run = prepare(tmp_path, make_sequences(40))
    job.evaluate(config, run)
    folder = run.stage("evaluate")
    first, second = (shard.name for shard in in_process)
    folder.write_table(second, folder.read_table(first))
    with pytest.raises(StageError, match="74 ranks were made of 37 users where 40 have a test item"):
        job.evaluate(config, run)


def test_nobody_to_evaluate_is_said(tmp_path: Path, in_process: list[Shard]) -> None:
    sequences = from_histories([[1, 2, 3, 4]] * 8, num_items=48)
    sequences = replace(sequences, num_train=np.full(8, 3, np.int32))
    config, run = prepare(tmp_path, sequences)
    with pytest.raises(StageError, match="No user has a test item"):
        job.evaluate(config, run)
