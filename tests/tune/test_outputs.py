"""What people read: configurations that train the same, the table of trials, and the plots."""

import csv
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from tune_run import searchable

from sracl_dist.config import Config, flatten, load_config, parse_config, with_values
from sracl_dist.errors import StorageError
from sracl_dist.report.lookups import Source
from sracl_dist.report.search import search_sections
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES
from sracl_dist.train.state import made_from
from sracl_dist.tune.outputs import runnable, write_best, write_table
from sracl_dist.tune.plots import drawings, write_plots
from sracl_dist.tune.proposals import importances
from sracl_dist.tune.records import Records, Trial, made_for
from sracl_dist.tune.space import parse_space

BOTH = ["next_item", "cross_sequence"]


@pytest.fixture
def search(tmp_path: Path) -> tuple[Config, RunFolder]:
    return searchable(tmp_path)


def make_trials(num: int = 12) -> list[Trial]:
    """The learning rate decides what they reach; nothing else matters."""
    trials = []
    for number in range(num):
        rate = 0.001 * 1.1**number
        values: dict[str, Any] = {"train.learning_rate": rate, "model.dropout": (number * 7 % 10) / 30}
        values["objectives.terms"] = BOTH if number % 2 else ["next_item"]
        if number % 2:
            values["objectives.cross_sequence.weight"] = 0.02 * (1 + number * 5 % 7)
        curve = [0.1 + number / 100, 0.15 + number / 100]
        status: Any = "finished" if number % 3 else "stopped"
        trials.append(Trial(number=number, values=values, status=status, curve=curve, wall_s=[1.5, 2.0]))
    trials.append(Trial(number=num, values=trials[0].values, status="failed", reason="The loss, it is nan."))
    return trials


def write_all(run: RunFolder) -> Records:
    records = Records(run.stage("tune"))
    for trial in make_trials():
        records.write(trial)
    return records


def test_a_trial_as_a_file_is_the_configuration_that_was_trained(
    search: tuple[Config, RunFolder], tmp_path: Path
) -> None:
    config, _ = search
    trial = make_trials()[3]
    path = tmp_path / "trial.yaml"
    path.write_text(runnable(config, trial))
    loaded = load_config(path)
    assert made_from(loaded, 1, 1, {}) == made_from(with_values(config, trial.values), 1, 1, {})
    assert flatten(loaded, STAGES["train"].settings) == flatten(
        with_values(config, trial.values), STAGES["train"].settings
    )
    assert flatten(loaded, ["data", "embed", "neighbours"]) == flatten(config, ["data", "embed", "neighbours"])
    assert loaded.run.tables == config.run.dir
    assert loaded.run.dir == f"{config.run.dir}/tune/trials/0003/run"
    assert loaded.tune.space == {}


def test_the_query_of_a_bucket_stays_at_the_end(search: tuple[Config, RunFolder]) -> None:
    config, _ = search
    config.run.dir = "s3://bucket/run?region=eu-west-1"
    assert "s3://bucket/run/tune/trials/0003/run?region=eu-west-1\n" in runnable(config, make_trials()[3])


def test_a_secret_in_a_location_is_not_written_down(search: tuple[Config, RunFolder]) -> None:
    config, _ = search
    config.run.tables = "s3://key:hush-hush@bucket/tables"
    text = runnable(config, make_trials()[0])
    assert "hush-hush" not in text
    assert "tables: ???" in text.replace("'", "").replace('"', "")


def test_a_secret_of_the_environment_is_referred_to(
    search: tuple[Config, RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    plain, run = search
    config = with_values(plain, {"profile.endpoint.request_fields": ['user="hf_0123456789"'], "run.seed": 3})
    run.stage("tune").write_json("search.json", made_for(config, {}))
    write_best(config, run.stage("tune"), make_trials()[3])
    best = tmp_path / "run/tune/best.yaml"
    files = [file for file in (tmp_path / "run/tune").rglob("*") if file.is_file()]
    assert not [file for file in files if b"0123456789" in file.read_bytes()]
    assert load_config(best).profile.endpoint.request_fields == ['user="hf_0123456789"']
    monkeypatch.setenv("HF_TOKEN", "another")
    assert load_config(best).profile.endpoint.request_fields == ['user="another"']


def test_best_yaml_says_what_it_is(search: tuple[Config, RunFolder]) -> None:
    config, run = search
    folder = run.stage("tune")
    write_best(config, folder, make_trials()[9])
    text = folder.read_bytes("best.yaml").decode()
    assert "trial 0009, validation ndcg@20\n# (seen kept) 0.24 after epoch 2 of 2." in text
    assert "The trial was not at its end" in text  # it was stopped
    assert load_config(folder.path("best.yaml")).run.dir == f"{config.run.dir}/tune/best"
    write_best(config, folder, make_trials()[10])
    assert "not at its end" not in folder.read_bytes("best.yaml").decode()


def test_the_table_has_every_trial_with_its_parameters(search: tuple[Config, RunFolder]) -> None:
    config, run = search
    records = write_all(run)
    write_table(config, run.stage("tune"), parse_space(config), records)
    rows = list(csv.DictReader(run.stage("tune").read_bytes("trials.csv").decode().splitlines()))
    assert [row["trial"] for row in rows] == [f"{number:04d}" for number in range(13)]
    assert rows[1] | {"train.learning_rate": ""} == {
        "trial": "0001",
        "status": "finished",
        "ndcg@20": "0.16",
        "best_epoch": "2",
        "epochs": "2",
        "wall_s": "3.5",
        "train.learning_rate": "",
        "model.dropout": repr(7 / 30),
        "objectives.terms": '["next_item", "cross_sequence"]',
        "objectives.cross_sequence.weight": "0.12",
        "reason": "",
    }
    assert float(rows[1]["train.learning_rate"]) == 0.001 * 1.1
    assert rows[2]["objectives.cross_sequence.weight"] == ""
    assert (rows[12]["ndcg@20"], rows[12]["reason"]) == ("", "The loss, it is nan.")


def test_what_decides_is_the_most_important(search: tuple[Config, RunFolder]) -> None:
    shares = importances(parse_space(search[0]), make_trials(30))
    assert next(iter(shares)) == "train.learning_rate"
    assert sum(shares.values()) == pytest.approx(1)
    assert importances(parse_space(search[0]), make_trials(1)) == {}


def test_every_plot_is_a_picture_and_a_drawing(search: tuple[Config, RunFolder]) -> None:
    config, run = search
    write_plots(config, run.stage("tune"), parse_space(config), write_all(run))
    folder = run.stage("tune")
    for name in ("best", "parallel", "importance"):
        assert folder.read_bytes(f"{name}.png").startswith(b"\x89PNG")
        text = folder.read_bytes(f"{name}.svg").decode()
        assert ET.fromstring(text).tag.endswith("svg")


def test_there_are_plots_after_the_first_epoch_only(search: tuple[Config, RunFolder]) -> None:
    config, run = search
    records = Records(run.stage("tune"))
    space = parse_space(config)
    records.write(Trial(number=0, values=make_trials()[0].values))
    assert drawings("ndcg@20", space, records) == []
    records.write(make_trials()[0])
    assert [plot.name for plot in drawings("ndcg@20", space, records)] == ["best", "parallel"]


def section_source(config: Config, run: RunFolder) -> Source:
    unused: Any = None
    return Source(config=config, run=run, sequences=unused, titles=unused, users=unused, item_counts=unused)


def test_the_page_shows_a_search_from_its_own_records(search: tuple[Config, RunFolder]) -> None:
    config, run = search
    assert search_sections(section_source(config, run)) == []
    run.stage("tune").write_json("search.json", made_for(config, {}))
    write_all(run)
    plain = parse_config({"run": {"dir": config.run.dir}, "data": {"source": "movielens-100k"}})
    (section,) = search_sections(section_source(plain, run))
    assert "8 finished, 4 stopped, 1 failed, 0 running" in section.introduction
    assert "validation NDCG@20 (seen items kept)" in section.introduction
    assert len(section.groups[0].figures) == 3
    assert all("#0a0b" not in figure.svg and "var(--series-1)" in figure.svg for figure in section.groups[0].figures)
    table = section.groups[1].tables[0]
    assert table.rows[0][:5] == ["0011", "finished", "0.2600", "2", "2"]
    assert table.rows[-1][1] == "failed"


def test_a_damaged_record_is_told_by_the_page_too(search: tuple[Config, RunFolder]) -> None:
    config, run = search
    run.stage("tune").write_json("search.json", made_for(config, {}))
    run.stage("tune").write_bytes("trials/0000/trial.json", b"{")
    with pytest.raises(StorageError, match="is damaged"):
        search_sections(section_source(config, run))
