"""What a person sees of a job: help, one sentence for an error, exit codes, and the command that comes next."""

import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sracl_dist
from sracl_dist import cli, stages
from sracl_dist.cli import Work, job, stage_job
from sracl_dist.config import Config
from sracl_dist.errors import ConfigError, InputError, StorageError, was_interrupted
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import Stage, StageResult

ROOT = Path(sracl_dist.__file__).parent.parent
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if path.stem != "__init__")


def work(config: Config, run: RunFolder) -> StageResult:
    if config.data.interactions == ["bad.csv"]:
        raise InputError("bad.csv has no column user_id; name it in data.columns.user_id.")
    return StageResult(rows={"items": 1234}, summary=["12 rows were rejected"])


@pytest.fixture(autouse=True)
def two_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    function = f"{__name__}:work"
    prepare = Stage(name="prepare", purpose="read the log", function=function, settings=("data",))
    train = Stage(name="train", purpose="fit", function=function, settings=("train",), inputs=("prepare",))
    for module in (cli, stages):
        monkeypatch.setattr(module, "STAGES", {"prepare": prepare, "train": train})


@pytest.fixture
def config_file(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(f"run: {{dir: {tmp_path}/run}}\ndata: {{interactions: [log.csv]}}\n")
    return str(path)


def test_a_stage_tells_what_it_reads_writes_and_what_comes_next(
    config_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["jobs/prepare.py", "--config", config_file, "data.interactions=[a b.csv]"])
    assert stage_job("prepare", None, ["--config", config_file, "data.interactions=[a b.csv]"]) == 0
    assert re.sub(r"in \d+\.\ds", "in 0.0s", capsys.readouterr().err).splitlines() == [
        "prepare: read the log (it has not run yet)",
        f"prepare: reads the raw log; writes {tmp_path}/run/prepare",
        "prepare: 12 rows were rejected",
        "prepare: wrote items 1,234 in 0.0s",
        f"prepare: next is python jobs/train.py --config {config_file} 'data.interactions=[a b.csv]'",
    ]


def test_a_stage_that_is_done_is_skipped_and_a_changed_key_is_named(
    config_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage_job("prepare", None, ["--config", config_file]) == 0
    capsys.readouterr()
    assert stage_job("prepare", None, ["--config", config_file]) == 0
    assert "prepare: done before, " in capsys.readouterr().err
    assert stage_job("prepare", None, ["--config", config_file, "data.min_user_interactions=3"]) == 0
    assert "(data.min_user_interactions was 5 and is 3)" in capsys.readouterr().err


def test_the_last_stage_names_no_next_one(config_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert stage_job("prepare", None, ["--config", config_file]) == 0
    assert stage_job("train", None, ["--config", config_file]) == 0
    assert capsys.readouterr().err.count("next is") == 1


@pytest.mark.parametrize(
    ("name", "override", "sentence"),
    [
        ("prepare", "data.interactions=[bad.csv]", "bad.csv has no column user_id; name it in data.columns.user_id."),
        ("prepare", "trian.epochs=3", "The key trian.epochs is unknown; did you mean train.epochs?"),
        ("train", "train.epochs=3", "The stage train needs the stage prepare, which is not ready in "),
    ],
)
def test_a_users_error_is_one_sentence_and_status_1(
    config_file: str, capsys: pytest.CaptureFixture[str], name: str, override: str, sentence: str
) -> None:
    assert stage_job(name, None, ["--config", config_file, override]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {sentence}")


def test_tables_may_lie_elsewhere(config_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--config", config_file, f"run.tables={tmp_path}/tables"]
    assert stage_job("prepare", None, argv) == 0
    assert f"writes {tmp_path}/tables/prepare\n" in capsys.readouterr().err
    assert stage_job("train", None, argv) == 0
    assert f"train: reads {tmp_path}/tables/prepare; writes {tmp_path}/run/train\n" in capsys.readouterr().err


def test_the_next_command_hides_the_secret_of_a_uri(
    config_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["jobs/prepare.py", "--config", config_file, "run.dir=s3://KEY:SECRET@bucket/run"])
    assert stage_job("prepare", None, ["--config", config_file]) == 0
    assert f"--config {config_file} 'run.dir=s3://***@bucket/run'" in capsys.readouterr().err


def test_overrides_of_results_may_stand_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    parse = importlib.import_module("jobs.results").parse
    words = "--configs a.yaml b=c/d.yaml --seeds 0 7 train.epochs=3 --output x.md run.tables=t"
    arguments = parse(words.split())
    assert arguments.configs == ["a.yaml", "b=c/d.yaml"]
    assert (arguments.seeds, arguments.overrides) == ([0, 7], ["train.epochs=3", "run.tables=t"])
    assert (arguments.output, arguments.against, arguments.parallel) == ("x.md", None, 1)
    assert parse(["--configs", "a.yaml"]).seeds == [0, 1, 2]


def test_a_dry_run_takes_the_place_of_the_stage(
    config_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []

    def tell(config: Config, run: RunFolder) -> None:
        told.append((config.train.epochs, run.location))

    argv = ["--config", config_file, "--dry-run", "train.epochs=3"]
    assert stage_job("train", None, argv, dry_run=tell) == 1
    assert "The stage train needs the stage prepare, which is not ready in " in capsys.readouterr().err
    assert stage_job("prepare", None, ["--config", config_file]) == 0
    assert stage_job("train", None, argv, dry_run=tell) == 0
    assert told == [(3, f"{tmp_path}/run")]
    assert not (tmp_path / "run/train").exists()
    assert stage_job("train", None, ["--config", config_file], dry_run=tell) == 0
    assert len(told) == 1
    assert (tmp_path / "run/train/manifest.json").exists()


def test_other_jobs_have_no_dry_run(config_file: str) -> None:
    with pytest.raises(SystemExit) as caught:
        stage_job("prepare", None, ["--config", config_file, "--dry-run"])
    assert caught.value.code == 2


def test_a_bug_is_not_hidden(config_file: str) -> None:
    def broken(config: Config, run: RunFolder) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        job(None, ["--config", config_file], broken)


def interrupted(config: Config, run: RunFolder) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def interrupted_in_a_library(config: Config, run: RunFolder) -> None:
    """As OmegaConf does when Ctrl-C comes while it reads a configuration."""
    try:
        try:
            interrupted(config, run)
        finally:
            raise UnboundLocalError
    except UnboundLocalError as error:
        raise error.with_traceback(None) from None


def interrupted_in_a_call(config: Config, run: RunFolder) -> None:
    try:
        interrupted(config, run)
    except KeyboardInterrupt as error:
        raise RuntimeError("the call was cancelled") from error


def interrupted_while_a_shard_is_open(config: Config, run: RunFolder) -> None:
    try:
        interrupted(config, run)
    finally:
        raise StorageError("the shard cannot be written")


@pytest.mark.parametrize(
    "work", [interrupted, interrupted_in_a_library, interrupted_in_a_call, interrupted_while_a_shard_is_open]
)
def test_an_interrupt_ends_with_130_and_says_how_to_go_on(
    work: Work, config_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Programs in the background of a shell ignore the signal unless they say otherwise.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert job(None, ["--config", config_file], work) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\n"


@pytest.mark.parametrize("argv", [[], ["train.epochs=3"], ["--config"], ["--config", "x", "--unknown"]])
def test_wrong_arguments_end_with_2_and_the_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        stage_job("prepare", None, argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ")


HOSTILE = "\x1b[2J\u202e\nerror: all is well"


@pytest.mark.parametrize("argv", [["--\x1b[2J\u202e"], ["x=1", "--unknown=sk-0123456789\x1b[2J\u202e"]])
def test_wrong_arguments_are_repeated_clean(
    argv: list[str], config_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "sk-0123456789")
    with pytest.raises(SystemExit):
        stage_job("prepare", None, ["--config", config_file, *argv])
    said = capsys.readouterr().err
    assert r"\x1b[2J\u202e" in said
    assert not {"\x1b", "\u202e"} & set(said)
    assert "sk-0123456789" not in said


@pytest.mark.parametrize("error", [InputError(f"the column {HOSTILE} of sk-0123456789"), OSError(28, "full", HOSTILE)])
def test_an_error_is_one_clean_line(
    error: Exception, config_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "sk-0123456789")

    def fail(config: Config, run: RunFolder) -> None:
        raise error

    assert job(None, ["--config", config_file], fail) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert r"\x1b[2J\u202e\nerror: all is well" in line
    assert "sk-0123456789" not in line


@pytest.mark.parametrize(
    ("name", "argv"), [("bench", ["train"]), ("bench", []), ("generate", ["x"]), ("results", ["--configs", "x"])]
)
def test_jobs_with_arguments_of_their_own_repeat_them_clean(
    name: str, argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    with pytest.raises(SystemExit):
        importlib.import_module(f"jobs.{name}").main([*argv, "--\x1b[2J"])
    said = capsys.readouterr().err
    assert r"\x1b[2J" in said or not argv
    assert "\x1b" not in said


@pytest.mark.parametrize("name", JOBS)
def test_every_job_has_a_help_with_an_example(name: str) -> None:
    command = [sys.executable, f"jobs/{name}.py", "--help"]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr
    assert f"python jobs/{name}.py" in finished.stdout


@pytest.mark.parametrize("name", JOBS)
def test_every_job_can_be_imported_without_doing_anything(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    module = importlib.import_module(f"jobs.{name}")
    assert callable(module.main)


def test_errors_that_follow_from_others_are_no_interrupt() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, first.__context__ = second, TypeError("third")
    second.__context__ = first
    assert not was_interrupted(first)
    second.__cause__ = KeyboardInterrupt()
    assert was_interrupted(first)


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("", []),
        ("profile.model=a", ["profile.model=a"]),
        ('profile.stop=[". "]', ['profile.stop=[". "]']),
        (
            ' profile.model=a   profile.stop=[". ", x=y] profile.endpoint.url=http://h/?a=b ',
            ["profile.model=a", 'profile.stop=[". ", x=y]', "profile.endpoint.url=http://h/?a=b"],
        ),
        ("profile.model=it's", ["profile.model=it's"]),
        ("profile.item_template=my file.yaml", ["profile.item_template=my file.yaml"]),
    ],
)
def test_a_variant_is_a_list_of_overrides_word_for_word(text: str, overrides: list[str]) -> None:
    assert cli._of_stage("profile", text) == overrides


@pytest.mark.parametrize("text", ["embed.text=raw", "profile.model=a embed.text=raw", "model=a"])
def test_a_variant_is_about_its_stage(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text.split()[-1])):
        cli._of_stage("profile", text)
