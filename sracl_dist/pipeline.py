"""All stages in order, each in a process of its own, each skipped when it is already done.

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

from sracl_dist.artifacts import RunFolder
from sracl_dist.config import Config
from sracl_dist.errors import StageError
from sracl_dist.observe import duration, say
from sracl_dist.stages import STAGES, stage_status

PR_SET_PDEATHSIG = 1


def run_pipeline(config: Config, run: RunFolder, jobs: Path, arguments: Sequence[str]) -> None:
    """Run what is not done; `arguments` (configuration and overrides) are handed to the jobs in the folder `jobs`.

    Raises:
        StageError: a job failed, having said why.
    """
    started = time.monotonic()
    times = {}
    for number, stage in enumerate(STAGES.values(), start=1):
        place = f"[{number}/{len(STAGES)}]"
        if stage_status(stage, config, run).done:
            say(f"{place} {stage.name}: done before")
            continue
        say(f"{place} {stage.name}: {stage.purpose}")
        stage_started = time.monotonic()
        _run_job(jobs / f"{stage.name}.py", arguments)
        times[stage.name] = time.monotonic() - stage_started
    total = duration(time.monotonic() - started)
    split = ", ".join(f"{name} {duration(seconds)}" for name, seconds in times.items())
    say(f"pipeline: finished in {total}" + (f" ({split})" if split else ", every stage was done before"))
    say(f"pipeline: the report is {run.stage('report').path('report.html')}")


def _run_job(job: Path, arguments: Sequence[str]) -> None:
    parent = os.getpid()
    finished = subprocess.run([sys.executable, str(job), *arguments], preexec_fn=lambda: _die_with(parent), check=False)
    if finished.returncode == 128 + signal.SIGINT or finished.returncode == -signal.SIGINT:
        raise KeyboardInterrupt
    if finished.returncode < 0:
        name = signal.Signals(-finished.returncode).name
        raise StageError(f"{job.name} was ended by {name}; run the same command again to go on where it was.")
    if finished.returncode:
        raise StageError(f"{job.name} ended with status {finished.returncode}; mend what it says above and run again.")


def _die_with(parent: int) -> None:
    """Let the kernel end the job when the pipeline is killed, so that no orphan writes beside the next run."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # killed before the kernel was told
        os._exit(1)
