"""The records: what they hold, whose they are, and that they alone decide what comes next."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tune_run import searchable

from sracl_dist.config import Config, load_config
from sracl_dist.errors import StageOrderError, StorageError
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, stage_status
from sracl_dist.tune.board import Board
from sracl_dist.tune.records import Records, Trial, fingerprint_of, made_for, require_same_search, search_facts
from sracl_dist.tune.space import parse_space

INPUTS = {"prepare": "one", "embed": "two", "neighbours": "three"}


@pytest.fixture
def search(tmp_path: Path) -> tuple[Config, RunFolder]:
    return searchable(tmp_path)


def open_search(config: Config, run: RunFolder, inputs: dict[str, str] = INPUTS) -> None:
    """What a search does at its beginning."""
    wanted = made_for(config, inputs)
    require_same_search(run.stage("tune"), wanted)
    with run.working_on("tune", fingerprint_of(wanted)) as folder:
        folder.write_json("search.json", wanted)


def board_of(config: Config, run: RunFolder) -> Board:
    return Board(config, parse_space(config), run.stage("tune"), Records(run.stage("tune")))


def values(number: int) -> dict[str, Any]:
    return {"train.learning_rate": 0.01 + number / 1000, "model.dropout": 0.1, "objectives.terms": ["next_item"]}


@given(curve=st.lists(st.floats(0, 1), max_size=8))
def test_a_trial_tells_its_best_epoch(curve: list[float]) -> None:
    trial = Trial(number=3, values={})
    for epoch, value in enumerate(curve, start=1):
        trial.add(epoch, value, 1.0)
    assert trial.best_value == (max(curve) if curve else None)
    assert trial.best_epoch == next((epoch for epoch, value in enumerate(curve, start=1) if value == max(curve)), 0)
    assert len(trial.wall_s) == len(curve)


def test_an_epoch_that_is_told_again_takes_the_place_of_the_old_one() -> None:
    trial = Trial(number=0, values={})
    for epoch, value in ((1, 0.1), (2, 0.3), (3, 0.2), (1, 0.1), (2, 0.3), (3, 0.2), (4, 0.4)):
        trial.add(epoch, value, 1.0)
    assert trial.curve == [0.1, 0.3, 0.2, 0.4]


def test_records_are_read_as_they_were_written(search: tuple[Config, RunFolder]) -> None:
    folder = search[1].stage("tune")
    records = Records(folder)
    for number, status in ((11, "finished"), (2, "running"), (0, "failed")):
        trial = Trial(number=number, values=values(number), status=status, curve=[0.1], wall_s=[2.5])  # type: ignore[arg-type]
        records.write(trial)
    again = Records(folder)
    assert again.trials == records.trials
    assert [trial.number for trial in again] == [0, 2, 11]
    assert (again.count("finished", "failed"), again.count("stopped")) == (2, 0)


@pytest.mark.parametrize(
    "damage", [b"{", b"[]", b'{"number": 1, "values": {}}', b'{"number": 0, "values": {}, "curve": [0.1]}', b'{"x": 1}']
)
def test_a_damaged_record_is_named(search: tuple[Config, RunFolder], damage: bytes) -> None:
    folder = search[1].stage("tune")
    folder.write_bytes("trials/0000/trial.json", damage)
    with pytest.raises(StorageError, match=r"trials/0000/trial\.json is damaged; run jobs/tune"):
        Records(folder)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tune.space={model.dropout: {uniform: [0.0, 0.3]}}", "tune.space.model.dropout was "),
        (
            "tune.space={model.num_layers: {int: [1, 2]}}",
            "tune.space.model.num_layers was 'absent' and is {'int': [1, 2]}",
        ),
        ("train.epochs=5", "train.epochs was 4 and is 5"),
        ("train.metric=mrr", "train.metric was 'ndcg@20' and is 'mrr'"),
        ("run.seed=4", "run.seed was 3 and is 4"),
        ("tune.algorithm=random", "tune.algorithm was 'optuna' and is 'random'"),
        ("tune.reduction_factor=2", "tune.reduction_factor was 3.0 and is 2.0"),
    ],
)
def test_a_folder_for_another_search_is_refused(search: tuple[Config, RunFolder], override: str, message: str) -> None:
    config, run = search
    open_search(config, run)
    other = load_config(Path(run.location).parent / "search.yaml", [override])
    with pytest.raises(StageOrderError) as caught:
        open_search(other, run)
    assert message in str(caught.value)
    assert "set run.dir to another folder" in str(caught.value)


def test_other_tables_are_refused_and_a_longer_search_is_not(search: tuple[Config, RunFolder]) -> None:
    config, run = search
    open_search(config, run)
    with pytest.raises(StageOrderError, match="the stage embed was 'two' and is 'new'"):
        open_search(config, run, {**INPUTS, "embed": "new"})
    overrides = ["tune.num_trials=99", "tune.max_concurrent=1", "tune.time_budget_s=5", "train.num_workers=2"]
    open_search(load_config(Path(run.location).parent / "search.yaml", overrides), run)


@pytest.mark.parametrize("content", [None, b"", b"[]", b"[" * 100_000])
def test_trials_tell_their_search_where_its_file_is_lost(
    search: tuple[Config, RunFolder], content: bytes | None
) -> None:
    config, run = search
    with run.working_on("tune", fingerprint_of(made_for(config, INPUTS))) as folder:
        folder.write_json("trials/0000/trial.json", {})
        folder.write_json("search.json", {})
    place = Path(run.stage("tune").path("search.json"))
    place.unlink()
    if content is not None:
        place.write_bytes(content)
    with pytest.raises(StorageError, match=r"search\.json is damaged or missing beside trials of another search; del"):
        open_search(config, run, {**INPUTS, "embed": "new"})
    open_search(config, run)
    assert run.stage("tune").read_json("search.json") == made_for(config, INPUTS)


def test_what_was_interrupted_comes_before_what_is_new(search: tuple[Config, RunFolder]) -> None:
    config, run = search
    records = Records(run.stage("tune"))
    for number, status in ((0, "finished"), (1, "running"), (2, "stopped"), (4, "running"), (5, "failed")):
        records.write(Trial(number=number, values=values(number), status=status, curve=[0.1], wall_s=[1.0]))  # type: ignore[arg-type]
    board = board_of(config, run)
    assert board.num_left == 3
    assert [board.start().number for _ in range(3)] == [1, 4, 3]
    assert (board.num_left, board.num_training) == (0, 3)
    assert Records(run.stage("tune")).trials[1].values == values(1)


def test_a_resumed_search_proposes_what_an_undisturbed_one_does(search: tuple[Config, RunFolder]) -> None:
    """Also behind the random start, where Optuna learns from what the records hold."""
    config, run = search

    def proposals(*, interrupt: bool) -> list[dict[str, Any]]:
        folder = run.stage("tune")
        folder.delete(folder.files("trials"))
        board, found = board_of(config, run), []
        for number in range(6):
            if interrupt:
                board = board_of(config, run)
            trial = board.start()
            assert trial.number == number
            found.append(trial.values)
            for epoch in (1, 2, 3, 4):
                board.epoch(number, epoch, trial.values["model.dropout"] / epoch, 1.0, is_last=epoch == 4)
            board.end(number)
        return found

    undisturbed = proposals(interrupt=False)
    assert proposals(interrupt=True) == undisturbed
    assert len({json.dumps(each) for each in undisturbed}) == 6


def test_the_board_tells_stopped_from_finished_and_cut_short(
    search: tuple[Config, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = search
    board = board_of(config, run)
    for _ in range(4):
        board.start()
    for number, value in ((0, 0.2), (1, 0.4), (3, 0.3)):
        board.epoch(number, 1, value, 1.0, is_last=number == 1)
    board.end(0)
    board.end(1)
    board.fail(2, "The loss is nan.")
    config.tune.time_budget_s = 1e-9
    assert board.is_over
    board.end(3)
    states = [trial.status for trial in Records(run.stage("tune"))]
    assert states == ["stopped", "finished", "failed", "running"]
    output = capsys.readouterr().err
    assert "tune: best ndcg@20 0.4000 by trial 0001, epoch 1: train.learning_rate=" in output
    assert output.count("tune: best") == 2  # 0.3 was no gain
    assert "tune: trial 0002 failed: The loss is nan (" in output


def test_the_progress_line_leaves_out_what_a_stopped_trial_will_not_do(
    search: tuple[Config, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = search
    board = board_of(config, run)
    board.start()
    board.start()
    board.epoch(0, 1, 0.2, 1.0, is_last=False)
    board.epoch(1, 1, 0.1, 1.0, is_last=False)
    board.end(1)
    assert board._line is not None
    assert (board._line.done, board._line.total) == (2, 2 + 3 + 4 * 4)
    assert "0/6 finished, 1 stopped, 1 running, 0.2000 best ndcg@20" in board._line.line()


def test_the_report_is_made_anew_when_the_search_has_gone_on(search: tuple[Config, RunFolder]) -> None:
    config, run = search
    assert search_facts(config) == {}
    before = stage_status(STAGES["report"], config, run).draft.fingerprint
    run.stage("tune").write_bytes("trials.csv", b"one")
    first = search_facts(config)
    run.stage("tune").write_bytes("trials.csv", b"two")
    assert first != search_facts(config)
    assert stage_status(STAGES["report"], config, run).draft.fingerprint != before
