"""A pipeline that is killed at random moments, of every stage, has the results of one that is not, and leaves nothing.

A moment is a share of the time that the stage took undisturbed. The shares depend on a seed, which is printed; with
SEED=<that number> in the environment they are the same again.
"""

import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from programs import JOBS, SHARED_MEMORY, Programs, name_of, programs_in_own_folder
from small_run import make_project
from whole_run import results

from sracl_dist.columns import KEY, PROMPT_HASH, TEXT
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES

pytestmark = [pytest.mark.ray, pytest.mark.llm, pytest.mark.slow, pytest.mark.fault]
KILLS_OF_EACH_STAGE = 5
STAGE_TIMEOUT_S = 600.0
END = "pipeline: finished"
NUM_TRIES = 10
"""How often a program may end before its moment came, which only the last stage's can."""


class Pipeline:
    """A running pipeline and the times at which its lines came."""

    def __init__(self, programs: Programs, config: Path) -> None:
        self.process = programs.pipeline(config)
        self.lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append((time.monotonic(), line))

    @property
    def told(self) -> str:
        return "".join(line for _, line in self.lines)

    def start_of(self, stage: str) -> float | None:
        """When the pipeline started the stage's job, or passed by its place."""
        place = END if stage == END else f"[{list(STAGES).index(stage) + 1}/{len(STAGES)}]"
        return next((at for at, line in self.lines if line.startswith(place)), None)

    def wait_for_end(self) -> None:
        """Until it has finished by itself."""
        self.process.wait(STAGE_TIMEOUT_S)
        self._reader.join(STAGE_TIMEOUT_S)
        assert self.process.returncode == 0, self.told

    def wait_for(self, stage: str, after_s: float) -> bool:
        """Until so long after the start of the stage, or until the stage has ended; whether it still runs then."""
        deadline = time.monotonic() + STAGE_TIMEOUT_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.told
            started, now = self.start_of(stage), time.monotonic()
            if (started is not None and now >= started + after_s) or self.start_of(following(stage)) is not None:
                return True
            left_s = 1.0 if started is None else started + after_s - now
            time.sleep(min(0.02, max(0.0, left_s)))
        self._reader.join(STAGE_TIMEOUT_S)
        assert self.process.returncode == 0, self.told
        return False

    def kill(self, whole_group: bool) -> None:
        """As an out-of-memory killer does with a process, and a terminal that is closed by force with a group."""
        if whole_group:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()


def following(stage: str) -> str:
    names = [*STAGES, END]
    return names[names.index(stage) + 1]


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One of the moments."""

    stage: str
    after_s: float
    duration_s: float
    """Of the stage in the undisturbed run."""
    whole_group: bool
    restart_at_once: bool
    """Or once all processes of the killed pipeline are gone."""

    def __str__(self) -> str:
        what = "group" if self.whole_group else "pipeline alone"
        then = "restarted at once" if self.restart_at_once else "restarted later"
        return f"{self.stage} after {self.after_s:.2f} of {self.duration_s:.1f} s, {what}, {then}"


def draw_kills(seed: int, durations_s: dict[str, float]) -> list[Kill]:
    """Uniformly random moments in the order of the stages."""
    chance = random.Random(seed)
    return [
        Kill(
            stage=stage,
            after_s=chance.random() * duration_s,
            duration_s=duration_s,
            whole_group=chance.random() < 0.5,
            restart_at_once=chance.random() < 0.5,
        )
        for stage, duration_s in durations_s.items()
        for _ in range(KILLS_OF_EACH_STAGE)
    ]


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What a pipeline has on the machine."""

    processes: set[psutil.Process]
    paths: set[Path]
    """Objects in shared memory, and temporary files and folders."""

    def __str__(self) -> str:
        num_shared = sum(path.is_relative_to(SHARED_MEMORY) for path in self.paths)
        num_files = len(self.paths) - num_shared
        return f"{len(self.processes)} processes, {num_shared} objects in shared memory, {num_files} temporary files"


NOTHING = Traces(processes=set(), paths=set())


class Tell:
    """Prints with the time since the start, also where the test passes."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys, self._started = capsys, time.monotonic()

    def __call__(self, line: str) -> None:
        with self._capsys.disabled():
            sys.stdout.write(f"[{time.monotonic() - self._started:4.0f} s] {line}\n")
            sys.stdout.flush()


@pytest.fixture
def programs() -> Iterator[Programs]:
    with programs_in_own_folder() as programs:
        yield programs


@pytest.mark.timeout(3600)
def test_a_pipeline_killed_at_random_moments_equals_an_undisturbed_one_and_leaves_nothing(
    programs: Programs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell, seed = Tell(capsys), int(os.environ.get("SEED", random.SystemRandom().randrange(1_000_000)))
    tell(f"SEED={seed}")
    config, undisturbed = make_project(tmp_path)
    durations_s = run_undisturbed(programs, config)
    tell(", ".join(f"{stage} {duration_s:.1f} s" for stage, duration_s in durations_s.items()))
    run = RunFolder(str(tmp_path / "killed"))
    config = tmp_path / "killed.yaml"
    config.write_text((tmp_path / "config.yaml").read_text().replace(undisturbed.location, run.location))
    had: list[Traces] = []
    for number, kill in enumerate(draw_kills(seed, durations_s), start=1):
        if number == list(STAGES).index("embed") * KILLS_OF_EACH_STAGE + 1:
            finish_profiles(programs, config, run, undisturbed)
        had.append(kill_once(kill, programs, config, run))
        tell(f"{number}: {kill}; it had {had[-1]}")
        if number > 1:
            require_nothing_left(had[-2], had[-1], programs, tell)
    Pipeline(programs, config).wait_for_end()
    require_nothing_left(had[-1], NOTHING, programs, tell)
    programs.wait_until_gone()
    paths = {path for one in had for path in one.paths if path.exists()} | programs.files()
    left = Traces(processes=programs.processes(), paths=paths)
    tell(f"left at the end, after {len(had)} kills: {left}")
    assert left == NOTHING
    for stage in STAGES:
        assert results(run, stage) == results(undisturbed, stage), stage
        own, other = run.stage(stage).manifest(), undisturbed.stage(stage).manifest()
        assert own is not None
        assert other is not None
        assert (own.rows, own.fingerprint) == (other.rows, other.fingerprint), stage


def run_undisturbed(programs: Programs, config: Path) -> dict[str, float]:
    """Run all stages; returns how long each took."""
    pipeline = Pipeline(programs, config)
    pipeline.wait_for_end()
    programs.wait_until_gone()
    assert programs.files() == set()
    starts = {name: pipeline.start_of(name) or 0.0 for name in (*STAGES, END)}
    return {stage: starts[following(stage)] - starts[stage] for stage in STAGES}


def kill_once(kill: Kill, programs: Programs, config: Path, run: RunFolder) -> Traces:
    """Start the pipeline, with that stage not done, and kill it at that moment."""
    for _ in range(NUM_TRIES):
        if run.stage(kill.stage).manifest() is not None:
            shutil.rmtree(run.stage(kill.stage).path())
        pipeline = Pipeline(programs, config)
        if pipeline.wait_for(kill.stage, kill.after_s):
            processes, paths = programs.processes(), programs.shared_memory()
            pipeline.kill(whole_group=kill.whole_group)
            had = Traces(processes=processes | programs.processes(), paths=paths | programs.files())
            if not kill.restart_at_once:
                programs.wait_until_gone()
            return had
    raise AssertionError(f"{kill}: it always ended before")


def require_nothing_left(had: Traces, had_next: Traces, programs: Programs, tell: Tell) -> None:
    """See that nothing that a killed pipeline had is there any more, once the next one was started and has ended."""
    programs.wait_until_gone(had.processes)
    processes = {process for process in had.processes if process.is_running() and name_of(process)}
    # Arrays that processes share have the same name in the next program; whether they are gone is asked at the end.
    own = had.paths - {path for path in had_next.paths if path.is_file()}
    left = Traces(processes=processes, paths={path for path in own if path.exists()})
    tell(f"   left of the one before: {left}")
    assert left == NOTHING


def finish_profiles(programs: Programs, config: Path, run: RunFolder, undisturbed: RunFolder) -> None:
    """Finish the stage, and go on with the other run's texts, since no two runs of an engine give the same ones."""
    programs.wait_until_gone()
    folder = run.stage("profile")
    answered = set(folder.read_shards("generated/")[PROMPT_HASH].to_pylist()) if folder.files("generated/") else set()
    is_done = folder.manifest() is not None
    programs.start(str(JOBS / "profile.py"), "--config", str(config)).wait(STAGE_TIMEOUT_S)
    manifest = folder.manifest()
    assert manifest is not None
    hashes = set()
    for name in ("items/", "users/"):
        own, other = (one.stage("profile").read_shards(name) for one in (run, undisturbed))
        assert own.select([KEY, PROMPT_HASH]).equals(other.select([KEY, PROMPT_HASH]))
        assert all(own[TEXT].to_pylist())
        hashes |= set(own[PROMPT_HASH].to_pylist())
    assert sorted(folder.read_shards("generated/")[PROMPT_HASH].to_pylist()) == sorted(hashes), "each has one answer"
    assert is_done or manifest.details["num_generated"] == len(hashes - answered)
    shutil.rmtree(run.stage("embed").path(), ignore_errors=True)  # the last kill may have come when it had begun
    shutil.rmtree(folder.path())
    shutil.copytree(undisturbed.stage("profile").path(), folder.path())
