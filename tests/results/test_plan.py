"""Which runs there are, where they lie, and what is refused before anything runs."""

import pickle
from pathlib import Path

import pytest
from fake_stages import write_config

from sracl_dist.config import flatten, load_config
from sracl_dist.errors import ConfigError
from sracl_dist.results.plan import plan_runs, tables_path
from sracl_dist.run_folder import TABLE_STAGES
from sracl_dist.stages import STAGES


def test_every_seed_has_a_folder_and_all_share_the_tables(tmp_path: Path) -> None:
    files = [
        write_config(tmp_path / "one.yaml", epochs=1, tables=tmp_path / "tables"),
        write_config(tmp_path / "two.yaml", epochs=2, tables=tmp_path / "tables"),
    ]
    runs = plan_runs(files, [0, 7], ["train.batch_rows=64"])
    assert [run.label for run in runs] == ["one, seed 0", "one, seed 7", "two, seed 0", "two, seed 7"]
    assert [run.config.run.seed for run in runs] == [0, 7, 0, 7]
    assert [run.config.train.epochs for run in runs] == [1, 1, 2, 2]
    assert {run.config.train.batch_rows for run in runs} == {64}
    folders = [run.folder.stage("train").path() for run in runs]
    assert folders == [f"{tmp_path}/{name}/seed-{seed}/train" for name in ("one", "two") for seed in (0, 7)]
    for stage in TABLE_STAGES:
        assert {run.folder.stage(stage).path() for run in runs} == {f"{tmp_path}/tables/{stage}"}
    assert {tables_path(run) for run in runs} == {f"{tmp_path}/tables"}


def test_without_run_tables_they_lie_where_the_configuration_alone_would_put_them(tmp_path: Path) -> None:
    (run,) = plan_runs([write_config(tmp_path / "one.yaml", epochs=1)], [2])
    assert run.folder.stage("embed").path() == f"{tmp_path}/one/embed"
    assert run.folder.stage("evaluate").path() == f"{tmp_path}/one/seed-2/evaluate"


@pytest.mark.parametrize("folder", ["a b", "x: {y} # z", "00", "~", "null", 'it\'s "so"', "\u6771\u4eac \U0001f600"])
def test_jobs_read_the_same_settings_from_the_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_config(tmp_path / "one.yaml", epochs=1)
    (run,) = plan_runs([file], [2], ["train.epochs=5"])
    run.config.run.dir, run.config.run.tables = f"{folder}/seed-2", folder
    option, name, *overrides = run.arguments
    assert (option, name) == ("--config", file)
    assert flatten(load_config(name, overrides)) == flatten(run.config)
    assert flatten(pickle.loads(pickle.dumps(run)).config) == flatten(run.config)


def test_the_arguments_of_a_job_refer_to_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDER_KEY", "hf_0123456789")
    file = write_config(tmp_path / "one.yaml", epochs=1)
    (run,) = plan_runs([file], [2], ["run.dir='runs/${oc.env:FOLDER_KEY}'"])
    _, name, *overrides = run.arguments
    assert "hf_0123456789" not in " ".join(overrides)
    assert load_config(name, overrides).run == run.config.run


def test_configurations_that_share_tables_must_agree_on_them(tmp_path: Path) -> None:
    files = [
        write_config(tmp_path / "one.yaml", epochs=1, tables=tmp_path / "tables"),
        write_config(tmp_path / "two.yaml", epochs=1, tables=tmp_path / "x" / ".." / "tables", items=3),
    ]
    with pytest.raises(ConfigError) as caught:
        plan_runs(files, [0])
    assert str(caught.value) == (
        f"one and two share the tables in {tmp_path}/x/../tables, but data.min_item_interactions is 5 and 3; give each "
        f"its own run.tables."
    )
    plan_runs(files, [0], ["data.min_item_interactions=4"])


@pytest.mark.parametrize(
    ("names", "seeds", "overrides", "sentence"),
    [
        (["one"], [0, 1, 0], [], "--seeds has 0 2 times; name every seed once."),
        (["one"], [-1], [], "run.seed is -1; use 0 to 4294967295."),
        (["one", "one"], [0], [], "2 configurations are named one; name every file once, or rename."),
        (["one", "two"], [0], ["run.dir=runs/x"], "2 configurations have the run.dir {cwd}/runs/x; give each its own."),
        (["one"], [0], ["run.seed=3"], "run.seed is an override, but every run has its own; name the seeds behind --s"),
        (["one"], [0], ["trian.epochs=3"], "The key trian.epochs is unknown; did you mean train.epochs?"),
    ],
)
def test_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    seeds: list[int],
    overrides: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [write_config(tmp_path / f"{name}.yaml", epochs=1) for name in names]
    with pytest.raises(ConfigError) as caught:
        plan_runs(files, seeds, overrides)
    assert str(caught.value).startswith(sentence.format(cwd=tmp_path))


def test_no_setting_of_a_table_depends_on_the_seed() -> None:
    assert not [name for name in TABLE_STAGES if "run.seed" in STAGES[name].settings]
