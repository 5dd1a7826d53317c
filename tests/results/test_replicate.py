"""Every configuration with every seed, as processes: tables once, failures apart, nothing twice, side by side."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_stages import calls, finish, write_config, write_jobs

from sracl_dist.errors import ConfigError, StageError
from sracl_dist.results.job import make_results
from sracl_dist.results.plan import plan_runs
from sracl_dist.results.replicate import replicate

TABLES = ["prepare", "profile", "embed", "neighbours"]


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return write_jobs(tmp_path / "jobs")


def files_below(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_tables_are_made_once_and_what_is_done_is_not_done_again(
    tmp_path: Path, jobs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shared = tmp_path / "shared"
    files = [write_config(tmp_path / f"{name}.yaml", epochs=1, tables=shared) for name in ("one", "two")]
    assert replicate(plan_runs(files[:1], [3]), jobs) == {}
    expected = [f"{stage} one/seed-3" for stage in (*TABLES, "train", "evaluate")]
    assert calls(tmp_path) == expected
    told = capfd.readouterr().err
    assert f"results: [1/1] tables {shared}: prepare, profile, embed, neighbours\n" in told
    assert "results: [1/1] one, seed 3: train, evaluate\n[1/2] train: fit the recommender\n" in told
    assert f"evaluate: reads {shared}/prepare, {tmp_path}/one/seed-3/train; writes {tmp_path}/one/seed-3/e" in told

    runs = plan_runs(files, [0, 3])
    assert replicate(runs, jobs) == {}
    expected += [
        f"{stage} {run}" for run in ("one/seed-0", "two/seed-0", "two/seed-3") for stage in ("train", "evaluate")
    ]
    assert calls(tmp_path) == expected
    told = capfd.readouterr().err
    assert f"results: done before: tables {shared}\nresults: done before: one, seed 3\nresults: [1/4] one, s" in told
    assert {path.name for path in shared.iterdir()} == set(TABLES)
    for name in ("one", "two"):
        assert {path.name for path in (tmp_path / name).iterdir()} == {"seed-0", "seed-3"}
        assert {path.name for path in (tmp_path / name / "seed-3").iterdir()} == {"train", "evaluate"}

    before = files_below(tmp_path)
    assert replicate(runs, jobs) == {}
    assert files_below(tmp_path) == before
    assert "[1/" not in capfd.readouterr().err


def test_a_failing_run_is_named_while_the_others_go_on(
    tmp_path: Path, jobs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shared = tmp_path / "shared"
    files = [write_config(tmp_path / f"{name}.yaml", epochs=1, tables=shared) for name in ("good", "base")]
    files.append(write_config(tmp_path / "bad.yaml", epochs=1, items=6))
    base = plan_runs(files[1:2], [0, 1])
    finish(base[0], TABLES)
    for run in base:
        finish(run, ("train", "evaluate"))
    (tmp_path / "fail-train-good-seed-0").touch()
    (tmp_path / "fail-prepare-bad-seed-0").touch()
    output = tmp_path / "out" / "page.md"
    with pytest.raises(StageError) as caught:
        make_results(files, [0, 1], jobs, str(output), against=files[1])
    assert str(caught.value).startswith("3 of 6 runs failed (good seed 0, bad seed 0, bad seed 1); mend what ")
    told, errors = capfd.readouterr()
    assert "error: train was told to fail; delete the file that says so.\n" in errors
    page = output.read_text()
    assert told == page
    for row in ("| good | 1 | ", "| base | 2 | ", "| bad | 0 | - | - |"):
        assert row in page
    assert "* good, seed 0: train.py ended with status 1; mend what it says above and run again\n" in page
    assert f"* bad, seed 1: tables {tmp_path}/bad: prepare.py ended with status 1; " in page
    assert "* bad, not tested: bad has no ranks to average; run its stage evaluate\n" in page

    (tmp_path / "fail-train-good-seed-0").unlink()
    num_calls = len(calls(tmp_path))
    results = make_results(files[:1], [0, 1], jobs, str(output), against=files[1])
    assert [len(variant.outcomes) for variant in results.variants] == [2, 2]
    assert calls(tmp_path)[num_calls:] == ["train good/seed-0", "evaluate good/seed-0"]
    assert "What is missing" not in output.read_text()


def test_side_by_side_runs_wait_for_the_tables_and_are_told_apart(
    tmp_path: Path, jobs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "meet-2").touch()
    runs = plan_runs([write_config(tmp_path / "one.yaml", epochs=1)], [0, 1])
    finish(runs[0], TABLES[:3])
    assert replicate(runs, jobs, parallel=2) == {}
    made = calls(tmp_path)
    assert made[:4] == [f"{stage} one/seed-0" for stage in TABLES]
    assert sorted(made[4:6]) == ["train one/seed-0", "train one/seed-1"]
    lines = capfd.readouterr().err.splitlines()
    for seed in (0, 1):
        assert f"[one, seed {seed}] [1/2] train: fit the recommender" in lines
        assert any(line.startswith(f"[one, seed {seed}] evaluate: wrote ranks 6 in ") for line in lines)


def test_a_run_whose_process_is_killed_is_a_failure_and_takes_its_job_along(tmp_path: Path, jobs: Path) -> None:
    """The process that leads the run dies, and with it the job, which waits for a training that never comes."""
    (tmp_path / "meet-2").touch()
    file = write_config(tmp_path / "one.yaml", epochs=1)
    finish(plan_runs([file], [0])[0], TABLES)
    program = (
        "import sys, pathlib\n"
        "from sracl_dist.results.plan import plan_runs\n"
        "from sracl_dist.results.replicate import replicate\n"
        "if __name__ == '__main__':\n"
        f"    print(replicate(plan_runs([{file!r}], [0]), pathlib.Path({str(jobs)!r})))\n"
    )
    (tmp_path / "program.py").write_text(program)
    process = subprocess.Popen([sys.executable, str(tmp_path / "program.py")], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while "train one/seed-0" not in calls(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    leader = next(pid for pid in children(process.pid) if children(pid))
    job = children(leader)[0]
    os.kill(leader, signal.SIGKILL)
    told, _ = process.communicate(timeout=120)
    assert told == "{'one, seed 0': 'its process ended with status -9; run the same command again to go on'}\n"
    while is_running(job):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """A process that ended and was not waited for has no command line any more."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def children(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize(
    ("output", "parallel", "sentence"),
    [
        ("page.txt", 1, "--output is 'page.txt'; name a file on this machine that ends with .md."),
        (
            "s3://bucket/page.md",
            1,
            "--output is 's3://bucket/page.md'; name a file on this machine that ends with .md.",
        ),
        (
            "log.csv/page.md",
            1,
            "--output is 'log.csv/page.md', whose folder cannot be made (File exists); name another.",
        ),
        ("page.md", 0, "--parallel is 0; use 1 or more."),
    ],
)
def test_wrong_arguments_are_found_before_anything_runs(
    tmp_path: Path, jobs: Path, monkeypatch: pytest.MonkeyPatch, output: str, parallel: int, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_config(tmp_path / "one.yaml", epochs=1)
    with pytest.raises(ConfigError) as caught:
        make_results([file], [0], jobs, output, parallel=parallel)
    assert str(caught.value) == sentence
    assert calls(tmp_path) == []
