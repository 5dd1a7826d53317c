"""Stages in order, each in a process of its own, each skipped when it is already done.

A process per stage gives back the memory and accelerators of a language model before training starts, and a crash
costs one stage.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sracl_dist.config import Config
from sracl_dist.errors import StageError
from sracl_dist.observe import duration, say
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, stage_status

PR_SET_PDEATHSIG = 1


def run_pipeline(
    config: Config,
    run: RunFolder,
    jobs: Path,
    arguments: Sequence[str],
    *,
    stages: Sequence[str] | None = None,
    label: str = "",
) -> None:
    """Run what is not done.

    Args:
        config: settings of the run.
        run: its folder.
        jobs: folder with a program per stage.
        arguments: configuration and overrides, which are handed to the jobs.
        stages: names of the stages to run, in their order; all by default.
        label: put before every line, of the jobs too, where several pipelines run side by side.

    Raises:
        StageError: a job failed, having said why.
    """
    started = time.monotonic()
    # By name: where several nodes of Ray share a disk, the folder of a submitted job may be made anew meanwhile.
    here = os.getcwd()
    times = {}
    names = list(STAGES) if stages is None else list(stages)
    for number, stage in enumerate((STAGES[name] for name in names), start=1):
        place = f"{label}[{number}/{len(names)}]"
        if stage_status(stage, config, run, thorough=True).done:
            say(f"{place} {stage.name}: done before")
            continue
        say(f"{place} {stage.name}: {stage.purpose}")
        stage_started = time.monotonic()
        _run_job(jobs / f"{stage.name}.py", arguments, here, label)
        times[stage.name] = time.monotonic() - stage_started
    total = duration(time.monotonic() - started)
    split = ", ".join(f"{name} {duration(seconds)}" for name, seconds in times.items())
    say(f"{label}pipeline: finished in {total}" + (f" ({split})" if split else ", every stage was done before"))
    if "report" in names:
        say(f"{label}pipeline: the report is {run.stage('report').shown('report.html')}")


def _run_job(job: Path, arguments: Sequence[str], folder: str, label: str) -> None:
    parent = os.getpid()
    with subprocess.Popen(
        [sys.executable, str(job), *arguments],
        cwd=folder,
        preexec_fn=lambda: die_with(parent),
        stderr=subprocess.PIPE if label else None,
        text=True,
        errors="replace",
    ) as process:
        try:
            for line in process.stderr or ():
                say(label + line.rstrip("\n"))
            status = process.wait()
        except BaseException:
            process.kill()
            raise
    if status in (128 + signal.SIGINT, -signal.SIGINT):
        raise KeyboardInterrupt
    if status < 0:
        name = signal.Signals(-status).name
        raise StageError(f"{job.name} was ended by {name}; run the same command again to go on where it was.")
    if status:
        raise StageError(f"{job.name} ended with status {status}; mend what it says above and run again.")


def die_with(parent: int) -> None:
    """Let the kernel end this process when its parent is killed, so that no orphan writes beside the next run."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # killed before the kernel was told
        os._exit(1)
