"""When a stage counts as done, why it does not, and what must run before it."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sracl_dist import stages
from sracl_dist.config import Config, parse_config
from sracl_dist.errors import StageOrderError
from sracl_dist.run_folder import TABLE_STAGES, RunFolder
from sracl_dist.stages import STAGES, Stage, StageResult, require_inputs, run_stage, stage_status, stages_up_to

CALLS: list[str] = []
LOG = {"size": "10"}


def work(config: Config, run: RunFolder) -> StageResult:
    CALLS.append(config.run.dir)
    return StageResult(rows={"items": 2}, details={"seen": 1}, summary=["all well"])


def fail(config: Config, run: RunFolder) -> StageResult:
    run.stage("first").write_json("shards/0.json", 1)
    raise RuntimeError("out of memory")


def facts(config: Config) -> dict[str, str]:
    return dict(LOG)


FIRST = Stage(
    name="first",
    purpose="the first",
    function=f"{__name__}:work",
    settings=("neighbours", "run.seed"),
    external=f"{__name__}:facts",
    keep=("kept/",),
)
SECOND = Stage(name="second", purpose="the second", function=f"{__name__}:work", settings=(), inputs=("first",))
THIRD = Stage(name="third", purpose="the third", function=f"{__name__}:work", settings=(), inputs=("second",))


@pytest.fixture(autouse=True)
def three_stages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stages, "STAGES", {stage.name: stage for stage in (FIRST, SECOND, THIRD)})
    CALLS.clear()
    yield
    LOG["size"] = "10"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path))


def settings(*overrides: str) -> Config:
    return parse_config({"run": {"dir": "x"}, "data": {"interactions": ["log.csv"]}}, overrides)


def finish(stage: Stage, run: RunFolder, config: Config | None = None) -> None:
    config = config or settings()
    run_stage(stage, config, run, stage_status(stage, config, run).draft)


def test_a_stage_that_never_ran_is_not_done(run: RunFolder) -> None:
    status = stage_status(FIRST, settings(), run)
    assert (status.done, status.reasons) == (False, ["it has not run yet"])


def test_a_finished_stage_is_done_and_its_manifest_tells_all(run: RunFolder) -> None:
    finish(FIRST, run)
    assert stage_status(FIRST, settings(), run).done
    manifest = run.stage("first").manifest()
    assert manifest is not None
    assert (manifest.rows, manifest.details, manifest.external) == ({"items": 2}, {"seen": 1}, {"size": "10"})
    assert manifest.config["run.seed"] == 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", manifest.finished_at)
    assert {"ray", "torch", "pyarrow"} <= manifest.packages.keys()


def test_a_changed_setting_is_named_with_both_values(run: RunFolder) -> None:
    finish(FIRST, run)
    status = stage_status(FIRST, settings("neighbours.num_neighbours=7", "run.seed=3"), run)
    assert not status.done
    assert status.reasons == ["neighbours.num_neighbours was 10 and is 7", "run.seed was 0 and is 3"]


@pytest.mark.parametrize(
    "override", ["neighbours.num_index_shards=4", "run.dir=elsewhere", "cluster.num_cpus=1", "train.epochs=1"]
)
def test_neutral_keys_and_other_sections_do_not_matter(run: RunFolder, override: str) -> None:
    finish(FIRST, run)
    assert stage_status(FIRST, settings(override), run).done


def test_a_changed_log_is_named(run: RunFolder) -> None:
    finish(FIRST, run)
    LOG["size"] = "11"
    assert stage_status(FIRST, settings(), run).reasons == ["size changed"]


def test_a_new_version_of_the_tables_is_named(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(FIRST, run)
    newer = Stage(**{**vars(FIRST), "version": 2})
    status = stage_status(newer, settings(), run)
    assert status.reasons == ["its tables have version 1 and this program writes version 2"]


def test_settings_that_came_and_went_are_named(run: RunFolder) -> None:
    finish(FIRST, run)
    other = Stage(**{**vars(FIRST), "settings": ("neighbours", "evaluate.shard_users", "report.title")})
    status = stage_status(other, settings("report.title=x"), run)
    assert status.reasons == ["report.title did not exist and is 'x'", "run.seed no longer matters to it"]


def test_a_stage_is_made_anew_when_its_input_was(run: RunFolder) -> None:
    finish(FIRST, run)
    finish(SECOND, run)
    assert stage_status(SECOND, settings(), run).done
    finish(FIRST, run, settings("run.seed=1"))
    assert stage_status(SECOND, settings(), run).reasons == ["the stage first was made anew"]


def test_an_input_made_anew_from_the_same_changes_nothing(run: RunFolder) -> None:
    finish(FIRST, run)
    finish(SECOND, run)
    finish(FIRST, run)
    assert stage_status(SECOND, settings(), run).done


def test_required_inputs_name_the_first_stage_to_run(run: RunFolder) -> None:
    with pytest.raises(StageOrderError) as caught:
        require_inputs(THIRD, settings(), run)
    assert str(caught.value) == (
        f"The stage third needs the stage first, which is not ready in {run.location} "
        "(it has not run yet); run jobs/first.py, or jobs/pipeline.py for all stages."
    )
    finish(FIRST, run)
    with pytest.raises(StageOrderError, match=r"The stage third needs the stage second, .* run jobs/second\.py"):
        require_inputs(THIRD, settings(), run)
    finish(SECOND, run)
    require_inputs(THIRD, settings(), run)


def test_required_inputs_name_a_setting_that_changed_far_upstream(run: RunFolder) -> None:
    finish(FIRST, run)
    finish(SECOND, run)
    with pytest.raises(StageOrderError, match=r"\(run\.seed was 0 and is 5\); run jobs/first\.py"):
        require_inputs(THIRD, settings("run.seed=5"), run)


def test_shared_tables_are_made_once_for_many_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Stage(name="embed", purpose="", function=f"{__name__}:work", settings=("embed",))
    fitted = Stage(name="train", purpose="", function=f"{__name__}:work", settings=("run.seed",), inputs=("embed",))
    monkeypatch.setattr(stages, "STAGES", {stage.name: stage for stage in (table, fitted)})
    runs = [RunFolder(str(tmp_path / str(seed)), str(tmp_path / "tables")) for seed in range(2)]
    with pytest.raises(StageOrderError, match=rf"not ready in {tmp_path}/tables \(it has not run yet\)"):
        require_inputs(fitted, settings(), runs[0])
    finish(table, runs[0])
    for seed, run in enumerate(runs):
        config = settings(f"run.seed={seed}")
        assert stage_status(table, config, run).done
        require_inputs(fitted, config, run)
        assert stage_status(fitted, config, run).reasons == ["it has not run yet"]
        finish(fitted, run, config)
        assert stage_status(fitted, config, run).done
    finish(table, runs[1], settings("embed.max_tokens=9"))
    assert stage_status(fitted, settings(), runs[0]).reasons == ["the stage embed was made anew"]


def test_a_stage_that_fails_is_not_done_and_keeps_its_shards_for_the_next_try(run: RunFolder) -> None:
    failing = Stage(**{**vars(FIRST), "function": f"{__name__}:fail"})
    with pytest.raises(RuntimeError, match="out of memory"):
        finish(failing, run)
    assert not stage_status(FIRST, settings(), run).done
    assert run.stage("first").exists("shards/0.json")
    finish(FIRST, run)
    assert run.stage("first").exists("shards/0.json")
    finish(FIRST, run, settings("run.seed=1"))
    assert not run.stage("first").exists("shards/0.json")


def test_other_settings_keep_the_folders_that_the_stage_keeps(run: RunFolder) -> None:
    finish(FIRST, run)
    run.stage("first").write_json("kept/0.json", 1)
    run.stage("first").write_json("lost/0.json", 1)
    finish(FIRST, run, settings("run.seed=1"))
    assert run.stage("first").files() == ["kept/0.json"]


def test_the_real_stages_read_only_stages_before_them() -> None:
    names = list(STAGES)
    for position, stage in enumerate(STAGES.values()):
        assert all(names.index(name) < position for name in stage.inputs), stage.name


def test_shared_tables_are_made_of_shared_tables_only() -> None:
    assert set(TABLE_STAGES) <= set(STAGES)
    for name in TABLE_STAGES:
        assert set(STAGES[name].inputs) <= set(TABLE_STAGES), name
        assert not [key for key in STAGES[name].settings if key.startswith("run")], "their runs differ in it"


def test_stages_up_to_one_are_all_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "STAGES", STAGES)
    assert stages_up_to("evaluate") == ("prepare", "profile", "embed", "neighbours", "train", "evaluate")
    assert stages_up_to("prepare") == ("prepare",)
    assert stages_up_to("report") == tuple(STAGES)


def test_a_secret_is_kept_nowhere_and_a_new_one_changes_nothing(
    tmp_path: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "STAGES", {"first": (stage := replace(FIRST, settings=("profile",)))})
    override = "profile.endpoint.request_fields=['user=\"${oc.env:USER_TOKEN}\"']"
    monkeypatch.setenv("USER_TOKEN", "hf_0123456789")
    finish(stage, run, settings(override))
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"0123456789" in file.read_bytes()]
    monkeypatch.setenv("USER_TOKEN", "hf_9876543210")
    assert stage_status(stage, settings(override), run).done
    other = "profile.endpoint.request_fields=['user=\"me\"']"
    (reason,) = stage_status(stage, settings(other), run).reasons
    assert "***" in reason
