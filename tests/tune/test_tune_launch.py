"""What is told to Ray Tune, without a cluster: schedulers that know what was recorded, and room for the trials."""

from pathlib import Path
from typing import Any

import pytest
import ray
import ray.util
from ray.tune.schedulers import ASHAScheduler
from tune_run import searchable

from sracl_dist.cluster import Cluster
from sracl_dist.config import Config, load_config
from sracl_dist.errors import ConfigError, SetupError, StageError, StageOrderError
from sracl_dist.run_folder import RunFolder
from sracl_dist.tune.board import Board
from sracl_dist.tune.job import _room, tune
from sracl_dist.tune.launch import BEST_VALUE, EPOCH, _Known, _make_scheduler, count_placement_groups, num_brackets
from sracl_dist.tune.records import Records, Trial
from sracl_dist.tune.space import parse_space
from sracl_dist.tune.workers import _sentence_of


@pytest.fixture
def search(tmp_path: Path) -> tuple[Config, RunFolder]:
    return searchable(tmp_path, "train.epochs=9", "tune.num_trials=20")


def scheduler_of(config: Config, run: RunFolder) -> Any:
    return _make_scheduler(config, Board(config, parse_space(config), run.stage("tune"), Records(run.stage("tune"))))


def test_the_scheduler_compares_with_what_was_recorded(search: tuple[Config, RunFolder]) -> None:
    """ASHA with grace 1 and factor 3: after the first epoch a trial must be among the best third of those before."""
    config, run = search
    records = Records(run.stage("tune"))
    for number in range(6):
        status: Any = "finished" if number == 5 else "stopped"
        records.write(Trial(number=number, values={}, status=status, curve=[0.1 * (number + 1)], wall_s=[1.0]))
    controller: Any = None
    for value, action in ((0.2, "STOP"), (0.59, "CONTINUE")):
        scheduler = scheduler_of(config, run)
        assert isinstance(scheduler, ASHAScheduler)
        trial: Any = _Known(Trial(number=9, values={}))
        scheduler.on_trial_add(controller, trial)
        assert scheduler.on_trial_result(controller, trial, {EPOCH: 1, BEST_VALUE: value}) == action


def test_what_is_still_running_is_not_counted_before_it_is_told_again(search: tuple[Config, RunFolder]) -> None:
    config, run = search
    Records(run.stage("tune")).write(Trial(number=0, values={}, curve=[0.9], wall_s=[1.0]))
    scheduler, controller = scheduler_of(config, run), None
    trial: Any = _Known(Trial(number=9, values={}))
    scheduler.on_trial_add(controller, trial)
    assert scheduler.on_trial_result(controller, trial, {EPOCH: 1, BEST_VALUE: 0.1}) == "CONTINUE"


@pytest.mark.parametrize(
    ("epochs", "grace", "factor", "expected"), [(9, 1, 3, 3), (8, 1, 3, 2), (16, 2, 2, 4), (3, 3, 2, 1)]
)
def test_hyperband_has_a_bracket_for_every_grace_period(
    search: tuple[Config, RunFolder], epochs: int, grace: int, factor: float, expected: int
) -> None:
    config, run = search
    config.train.epochs, config.tune.grace_epochs, config.tune.reduction_factor = epochs, grace, factor
    config.tune.scheduler = "hyperband"
    assert num_brackets(config) == expected
    brackets = scheduler_of(config, run)._brackets
    assert [bracket._rungs[-1][0] for bracket in brackets] == [grace * factor**place for place in range(expected)]


@pytest.mark.ray
@pytest.mark.parametrize(("workers", "most", "expected"), [(1, None, 2), (2, None, 1), (1, 1, 1), (1, 9, 2)])
def test_as_many_trials_as_fit(
    search: tuple[Config, RunFolder], ray_cluster: Cluster, workers: int, most: int | None, expected: int
) -> None:
    config, _ = search
    config.train.num_workers, config.tune.max_concurrent = workers, most
    assert _room(config, use_gpu=False) == expected


@pytest.mark.ray
def test_a_trial_that_never_fits_is_refused(search: tuple[Config, RunFolder], ray_cluster: Cluster) -> None:
    config, _ = search
    config.train.num_workers = 3
    with pytest.raises(SetupError, match=r"train\.num_workers is 3 and the cluster has room for 2 workers"):
        _room(config, use_gpu=False)


def test_nothing_starts_with_a_wrong_space_or_without_tables(search: tuple[Config, RunFolder], tmp_path: Path) -> None:
    config, run = search
    config.tune.space = {"embed.text": {"choice": ["raw"]}}
    with pytest.raises(ConfigError, match="made once and shared"):
        tune(config, run)
    changed = load_config(tmp_path / "search.yaml", ["neighbours.num_neighbours=7"])
    with pytest.raises(StageOrderError, match=r"the stage neighbours, which is not ready .*num_neighbours was"):
        tune(changed, run)
    assert not run.stage("tune").files()


@pytest.mark.ray
def test_a_placement_group_that_was_left_over_is_counted(ray_cluster: Cluster) -> None:
    group = ray.util.placement_group([{"CPU": 1}])
    assert group.wait(30)
    assert count_placement_groups(wait_s=0.2) == 1
    ray.util.remove_placement_group(group)
    assert count_placement_groups(wait_s=20) == 0


@pytest.mark.ray
def test_the_sentence_with_which_a_peer_ended_is_found(ray_cluster: Cluster) -> None:
    @ray.remote(num_cpus=0)
    def end(error: Exception) -> None:
        raise error

    told, untold = end.remote(StageError("There is no room; make some.")), end.remote(KeyError("x"))
    found = _sentence_of([untold, told])
    assert isinstance(found, StageError)
    assert str(found) == "There is no room; make some."
    assert _sentence_of([untold]) is None
    assert _sentence_of([]) is None
