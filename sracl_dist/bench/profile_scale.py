"""How the stage profile carries millions of prompts: rate and memory, killed twice on the way.

A log is generated and prepared; the stage asks a server in a program of its own that answers at once, so that what is
measured is the stage. It is killed with its process group twice, while it asks, and started again each time; then its
tables are looked through.

    prompts_per_s            answers of the last start, over the time that it asked
    num_prompts              items and users together
    num_asked_again          prompts that were asked although their answer was committed; 0 is right
    num_lost                 keys without a profile; 0 is right
    driver_gb, worker_gb     largest memory of the stage's own process, and of any of Ray's workers
    driver_private_gb, worker_private_gb     the same without pages of files, which processes share
    wall_s                   of all three starts
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from sracl_dist.bench.process_tree import Peaks
from sracl_dist.bench.synthetic_log import SyntheticLogSettings, write_log
from sracl_dist.columns import PROMPT_HASH
from sracl_dist.config import parse_config
from sracl_dist.config.sections import require
from sracl_dist.errors import StageError
from sracl_dist.observe import duration, say
from sracl_dist.profiles.hashes import HASH, packed
from sracl_dist.profiles.table import KINDS, num_profiles
from sracl_dist.run_folder import Manifest, RunFolder
from sracl_dist.stages import STAGES, run_stage, stage_status

NUM_KILLS = 2
POLL_S = 0.2
SERVER_TIMEOUT_S = 60.0
PROGRAM = "import sys; from sracl_dist.cli import stage_job; sys.exit(stage_job('profile', None))"
_BYTES_PER_GB = 1e9


@dataclass(kw_only=True)
class ProfileScaleSettings:
    """The log, and how it is asked about."""

    num_users: int = 200_000
    """Users of the log, each of whom is described."""
    num_items: int = 50_000
    """Items of the log, each of which is described."""
    events_per_user: int = 20
    """Events of the log for each user."""
    concurrency: int = 64
    """As in profile.endpoint.concurrency."""
    histories_per_item: int = 10
    """As in profile.histories_per_item."""
    folder: str | None = None
    """Folder that keeps the generated log for the next time; null makes it each time."""
    num_processes: int = 2
    """Processes that generate, and CPUs of the private Ray cluster."""
    quick: bool = False
    """A small log: shows that it runs, and measures nothing."""

    def __post_init__(self) -> None:
        if self.quick:
            self.num_users, self.num_items = 2_000, 500

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("num_users", "num_items", "events_per_user", "concurrency", "num_processes"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use 1 or more")


def measure(settings: ProfileScaleSettings) -> dict[str, float]:
    """Figures by name; see the module."""
    peaks, started = Peaks(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sracl-bench-") as scratch, _server(Path(scratch)) as url:
        config, run = _prepared(settings, Path(scratch), url)
        num_prompts = sum(_manifest(run, "prepare").rows[kind] for kind in KINDS)
        started = time.monotonic()
        for number in range(1, NUM_KILLS + 1):
            _run(config, peaks, _moment(run, url, num_prompts * number // (NUM_KILLS + 1)))
            say(f"killed after {_num_asked(url):,} requests, of which {len(_committed(run)):,} answers are committed")
        committed, num_asked = _committed(run), _num_asked(url)
        _run(config, peaks, lambda: False)
        wall_s, details = time.monotonic() - started, _manifest(run, "profile").details
        num_distinct = len(set(_hashes(run, KINDS).tolist()))
        num_asked_again = _num_asked(url) - num_asked - (num_distinct - len(set(committed.tolist())))
        num_asked_again += len(committed) - len(set(committed.tolist()))
        num_lost = num_prompts - sum(num_profiles(run, kind) for kind in KINDS)
    figures = {
        "prompts_per_s": details["num_generated"] / max(details["generate_s"], 0.1),
        "num_prompts": num_prompts,
        "num_asked_again": num_asked_again,
        "num_lost": num_lost,
        "driver_gb": peaks.driver / _BYTES_PER_GB,
        "driver_private_gb": peaks.driver_private / _BYTES_PER_GB,
        "worker_gb": peaks.worker / _BYTES_PER_GB,
        "worker_private_gb": peaks.worker_private / _BYTES_PER_GB,
        "wall_s": wall_s,
    }
    say(
        f"{num_prompts:,} prompts, {NUM_KILLS} kills: {figures['prompts_per_s']:,.0f} answers/s, {duration(wall_s)}; "
        f"driver {figures['driver_gb']:.2f} GB, largest worker {figures['worker_gb']:.2f} GB; {num_lost:,} lost, "
        f"{num_asked_again:,} asked again"
    )
    return figures


def _moment(run: RunFolder, url: str, num_asked: int) -> Callable[[], bool]:
    """Tells whether the server was asked so often, and one more file of answers is committed than now."""
    before = _commits(run)
    return lambda: _num_asked(url) >= num_asked and bool(_commits(run) - before)


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[str]:
    """The address of a server of its own, for the duration of the block."""
    with subprocess.Popen([sys.executable, "-m", "sracl_dist.bench.chat_server", str(folder)]) as process:
        try:
            deadline = time.monotonic() + SERVER_TIMEOUT_S
            while not (folder / "port").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise StageError("The server that answers does not start.")
                time.sleep(POLL_S)
            yield f"http://127.0.0.1:{(folder / 'port').read_text()}/v1"
        finally:
            process.kill()


def _prepared(settings: ProfileScaleSettings, scratch: Path, url: str) -> tuple[Path, RunFolder]:
    """The file of a configuration whose stage prepare is done."""
    name = f"log-{settings.num_users}-{settings.num_items}-{settings.events_per_user}"
    log = Path(settings.folder or scratch).expanduser() / name
    write_log(
        log,
        SyntheticLogSettings(
            num_events=settings.num_users * settings.events_per_user,
            num_users=settings.num_users,
            num_items=settings.num_items,
            num_processes=settings.num_processes,
        ),
    )
    values = {
        "run": {"dir": str(scratch / "run")},
        "cluster": {"address": "local", "num_cpus": settings.num_processes},
        "data": {"interactions": [f"{log}/interactions/*.parquet"], "item_texts": [f"{log}/items/*.parquet"]},
        "profile": {
            "engine": "endpoint",
            "model": "a server that answers at once",
            "endpoint": {"url": url, "concurrency": settings.concurrency},
            "histories_per_item": settings.histories_per_item,
            "commit_interval_s": 0.5 if settings.quick else 5.0,
        },
    }
    (scratch / "config.yaml").write_text(yaml.safe_dump(values))
    config, run = parse_config(values, []), RunFolder(str(scratch / "run"))
    run_stage(STAGES["prepare"], config, run, stage_status(STAGES["prepare"], config, run).draft)
    return scratch / "config.yaml", run


def _run(config: Path, peaks: Peaks, is_moment: Callable[[], bool]) -> None:
    """Start the stage in a program of its own, and kill it with all that it started when the moment has come.

    Raises:
        StageError: it ended by itself before, or failed.
    """
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    arguments = [sys.executable, "-c", PROGRAM, "--config", str(config)]
    with subprocess.Popen(arguments, start_new_session=True, env=environment) as process:
        while process.poll() is None:
            peaks.look(process.pid)
            if is_moment():
                os.killpg(process.pid, signal.SIGKILL)
                return
            time.sleep(POLL_S)
    if process.returncode:
        raise StageError(f"The stage ended with status {process.returncode}.")


def _num_asked(url: str) -> int:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url) as response:
        return int(response.read())


def _hashes(run: RunFolder, folders: Sequence[str]) -> NDArray[np.bytes_]:
    """Packed hashes of all tables below some folders of the stage."""
    stage = run.stage("profile")
    names = [name for own in folders for name in stage.files(f"{own}/") if name.endswith(".parquet")]
    hashes = [packed(stage.read_table(name, [PROMPT_HASH])[PROMPT_HASH]) for name in names]
    return np.concatenate([np.zeros(0, HASH), *hashes])


def _committed(run: RunFolder) -> NDArray[np.bytes_]:
    """Of every answer in the store."""
    return _hashes(run, ["generated"])


def _commits(run: RunFolder) -> set[str]:
    """Files of the store."""
    return set(run.stage("profile").files("generated/"))


def _manifest(run: RunFolder, stage: str) -> Manifest:
    manifest = run.stage(stage).manifest()
    if manifest is None:
        raise StageError(f"The stage {stage} has not finished.")
    return manifest
