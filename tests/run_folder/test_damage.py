"""Any file of a run folder damaged in any way: the stages that meet it bring the right result or say one sentence.

Never a trace, never another result; and whoever does what the sentence says gets the right result.
"""

import contextlib
import io
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from damage import DAMAGE, damage, follow, require_sentence
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from in_process import work_in_this_process
from whole_run import NAMES, WholeRun, make_log, profile_server, results

from sracl_dist.errors import SraclError
from sracl_dist.run_folder.folder import Folder
from sracl_dist.stages import STAGES

PHASES = (Phase.generate, Phase.shrink)
NUM_EXAMPLES = [360, pytest.param(1200, marks=(pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(2400)))]
"""Of finished runs; interrupted ones get half as many."""
QUIET = settings(
    deadline=None, database=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False, phases=PHASES
)
TOLD, REPAIRED, HARMLESS = "told in a sentence", "repaired by their stage", "harmless"
MOST_OWN = 0.9
"""Share of the examples in which no sum is damaged, whose content is never read."""
MOST_ADVICE = 12
"""Sentences to follow one after the other; a run has eight stages."""


@dataclass
class Runs:
    """A finished run, another one of another log, what the first brought, and what was left of it when stopped."""

    whole: WholeRun
    other: WholeRun
    expected: dict[str, Any]
    stopped: dict[str, list[Path]]
    """By stage: folders of runs in which it was stopped at some commit."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch, profile_server() as chat, contextlib.redirect_stderr(io.StringIO()):
        work_in_this_process(patch)
        whole = WholeRun(root / "whole", make_log(root / "log"), chat.url)
        other = WholeRun(root / "other", make_log(root / "other-log", seed=1), chat.url)
        whole.do_all()
        other.do_all()
        expected = {name: results(whole.run, name) for name in NAMES}
        yield Runs(whole, other, expected, {name: list(stopped_runs(whole, name, root)) for name in NAMES})


class Stopped(BaseException):
    """Ends a stage as a kill would, between two commits."""


def stopped_runs(whole: WholeRun, name: str, root: Path) -> Iterator[Path]:
    """The stage stopped at the first commit, in the middle and at the last one."""
    num_commits = [0]
    with stopping_at(num_commits, 10**9):
        again(whole, name, root / f"{name}-counted")
    for place in sorted({1, num_commits[0] // 2, num_commits[0] - 1} - {0}):
        home = root / f"{name}-{place}"
        with stopping_at([0], place), contextlib.suppress(Stopped):
            again(whole, name, home)
        yield home


def again(whole: WholeRun, name: str, home: Path) -> None:
    """Do the stage from its beginning in a copy of the run."""
    own = placed(whole, home)
    whole.copy_to(home)
    shutil.rmtree(home / name)
    own.do(name)


@contextlib.contextmanager
def stopping_at(count: list[int], last: int) -> Iterator[None]:
    real = Folder._renamed

    @contextlib.contextmanager
    def counted(folder: Folder, name: str) -> Iterator[Any]:
        if not name.startswith("sums/") and count[0] >= last:
            raise Stopped
        with real(folder, name) as stream:
            yield stream
        count[0] += not name.startswith("sums/")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "_renamed", counted)
        yield


def placed(whole: WholeRun, home: Path) -> WholeRun:
    """The same run in another folder, which is none of its settings."""
    own = object.__new__(WholeRun)
    own.home, own.config = home, whole.config
    return own


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def say_counts(capsys: pytest.CaptureFixture[str], what: str, counts: Counter[str]) -> None:
    with capsys.disabled():
        told = ", ".join(f"{num} {name}" for name, num in sorted(counts.items()))
        sys.stdout.write(f"\n{what}: {counts.total()} examples, {told}\n")


def outcome(own: WholeRun, name: str, expected: Any) -> SraclError | bool:
    """Do the stage: the right result and whether it worked, or its sentence."""
    try:
        worked = own.do(name)
    except SraclError as error:
        require_sentence(error)
        return error
    assert results(own.run, name) == expected
    return worked


def follow_all(own: WholeRun, name: str, found: SraclError | bool, expected: dict[str, Any]) -> None:
    """Do what the sentences say, and those that come meanwhile, until the stage ends."""
    for _ in range(MOST_ADVICE):
        if isinstance(found, bool):
            return
        follow(found, lambda job: follow_all(own, job, outcome(own, job, expected[job]), expected))
        found = outcome(own, name, expected[name])
    raise AssertionError(f"still {found}")


@pytest.mark.parametrize("num_examples", NUM_EXAMPLES)
def test_any_damage_of_a_finished_run(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], num_examples: int
) -> None:
    # The content of a sum is never read, so a few of them will do.
    every = files_below(runs.whole.home)
    names = [name for place, name in enumerate(every) if "/sums/" not in name or place % 8 == 0]
    counts = Counter[str]()

    @settings(parent=QUIET, max_examples=num_examples)
    @given(st.sampled_from(names), DAMAGE, st.integers(0, len(NAMES)), st.booleans(), st.integers(0, 3))
    def check(name: str, how: tuple[str, float], later: int, anew: bool, follows: int) -> None:
        own = placed(runs.whole, tmp_path / "run")
        shutil.rmtree(own.home, ignore_errors=True)
        runs.whole.copy_to(own.home)
        if not damage(own.home, name, *how, runs.other.home):
            counts["no damage"] += 1
            return
        damaged = name.split("/")[0]
        readers = [damaged, *(stage for stage in NAMES if damaged in STAGES[stage].inputs)]
        stage = readers[later % len(readers)]
        anew = anew and stage != damaged
        if anew:
            shutil.rmtree(own.home / stage)
        with contextlib.redirect_stderr(io.StringIO()) as told:
            found = outcome(own, stage, runs.expected[stage])
            if not follows:
                follow_all(own, stage, found, runs.expected)
        assert "Traceback" not in told.getvalue()
        counts[TOLD if isinstance(found, SraclError) else REPAIRED if found and not anew else HARMLESS] += 1

    check()
    say_counts(capsys, "damaged files of finished runs", counts)
    assert counts[TOLD] > 0.2 * counts.total()
    assert counts[REPAIRED] > 0.1 * counts.total()


@pytest.mark.parametrize("num_examples", NUM_EXAMPLES)
def test_any_damage_of_an_interrupted_run(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], num_examples: int
) -> None:
    counts = Counter[str]()
    homes = [(stage, home) for stage, own in runs.stopped.items() for home in own]
    assert len(homes) >= 16

    @settings(parent=QUIET, max_examples=num_examples // 2)
    @given(st.sampled_from(homes), st.floats(0, 1, exclude_max=True), DAMAGE)
    def check(stopped: tuple[str, Path], which: float, how: tuple[str, float]) -> None:
        stage, home = stopped
        own = placed(runs.whole, tmp_path / "run")
        shutil.rmtree(own.home, ignore_errors=True)
        placed(runs.whole, home).copy_to(own.home)
        names = [name for name in files_below(own.home / stage) if not name.startswith("sums/") or which > MOST_OWN]
        name = f"{stage}/{names[int(which * len(names))]}"
        if not damage(own.home, name, *how, runs.other.home):
            counts["no damage"] += 1
            return
        with contextlib.redirect_stderr(io.StringIO()) as told:
            found = outcome(own, stage, runs.expected[stage])
            follow_all(own, stage, found, runs.expected)
        assert "Traceback" not in told.getvalue()
        counts[TOLD if not isinstance(found, bool) else REPAIRED if "made again" in told.getvalue() else HARMLESS] += 1

    check()
    say_counts(capsys, "damaged files of interrupted stages", counts)
