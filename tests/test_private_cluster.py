"""A cluster that a program starts for itself: who can reach it, and that nothing of it is left."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
import yaml
from small_run import small_values, write_log

from sracl_dist.artifacts import RunFolder
from sracl_dist.reaper import processes_of

pytestmark = pytest.mark.ray

JOBS = Path(__file__).parent.parent / "jobs"
NAME = f"sracl-{os.getuid()}"
GONE_S = 15.0
PROGRAM = """
import sys, tempfile, time
from sracl_dist.cli import exit_status
from sracl_dist.cluster import connected, map_shards
from sracl_dist.config.sections import ClusterConfig

def make():
    def process(shard):
        tempfile.mkdtemp()
        if shard == "wait":
            time.sleep(600)
        return tempfile.gettempdir()
    return process

def work():
    if sys.argv[1] == "again":
        with connected(ClusterConfig(address="local", num_cpus=1, object_store_bytes=80_000_000)):
            pass
    with connected(ClusterConfig(address="local", num_cpus=2, object_store_bytes=80_000_000)):
        map_shards(make, (), ["first"], lambda _, place: print(place, flush=True), num_workers=1)
        if sys.argv[1] == "wait":
            map_shards(make, (), ["wait"] * 2, lambda *_: None, num_workers=2)
        if sys.argv[1] == "again":
            time.sleep(8)
            map_shards(make, (), ["last"], lambda _, place: print(place, flush=True), num_workers=1)

sys.exit(exit_status(work))
"""


class Programs:
    """Starts programs whose temporary files lie in a folder of the test's own, and knows all that they start."""

    def __init__(self, place: Path) -> None:
        self.place, self._mark = place, f"SRACL_TEST_MARK={uuid.uuid4().hex}"

    def start(self, *command: str) -> subprocess.Popen[str]:
        name, value = self._mark.split("=")
        environment = {**os.environ, name: value, "TMPDIR": str(self.place)}
        return subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True)

    def processes(self) -> list[psutil.Process]:
        found = []
        for folder in Path("/proc").iterdir():
            with suppress(OSError, psutil.Error):
                if folder.name.isdigit() and self._mark.encode() in (folder / "environ").read_bytes():
                    found.append(psutil.Process(int(folder.name)))
        return found

    def wait_until_gone(self) -> None:
        deadline = time.monotonic() + GONE_S
        while names := [name for process in self.processes() if (name := name_of(process))]:
            assert time.monotonic() < deadline, f"still running: {names}"
            time.sleep(0.1)

    def stop(self) -> None:
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()


@pytest.fixture
def programs() -> Iterator[Programs]:
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as place:
        programs = Programs(Path(place))
        yield programs
        programs.stop()


def name_of(process: psutil.Process) -> str:
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return ""


def listening(processes: list[psutil.Process]) -> set[tuple[str, str]]:
    """Who listens where, by address."""
    found = set()
    for process in processes:
        with suppress(psutil.Error):
            sockets = process.net_connections("tcp")
            found |= {(one.laddr.ip, process.name()) for one in sockets if one.status == psutil.CONN_LISTEN}
    return found


def is_loopback(address: str) -> bool:
    parsed = ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def read_place(program: subprocess.Popen[str]) -> Path:
    """The folder for temporary files that a worker of the program told of."""
    assert program.stdout is not None
    return Path(program.stdout.readline().strip())


def test_it_listens_on_loopback_alone_and_its_folder_is_gone_at_the_end(programs: Programs) -> None:
    program = programs.start("-c", PROGRAM, "wait")
    place = read_place(program)
    assert place.parent == programs.place / NAME
    assert list(place.glob("ray-*/session_*/sockets/raylet"))
    sockets = listening(programs.processes())
    assert {"gcs_server", "raylet"} <= {name for _, name in sockets}
    assert [who for who in sockets if not is_loopback(who[0])] == []
    program.send_signal(signal.SIGINT)
    assert program.wait(60) == 130
    programs.wait_until_gone()
    assert list((programs.place / NAME).iterdir()) == []


def test_what_a_killed_program_left_is_gone_after_the_next_and_a_live_one_goes_on(programs: Programs) -> None:
    living = programs.start("-c", PROGRAM, "wait")
    kept = read_place(living)
    killed = programs.start("-c", PROGRAM, "wait")
    left = read_place(killed)
    killed.kill()
    killed.wait()
    assert left.exists()
    last = programs.start("-c", PROGRAM, "end")
    assert read_place(last).parent == left.parent
    assert last.wait(60) == 0
    assert list((programs.place / NAME).iterdir()) == [kept]
    assert list(kept.glob("ray-*/session_*/sockets/raylet"))
    deadline = time.monotonic() + GONE_S
    while others := processes_of(str(left)):
        assert time.monotonic() < deadline, others
        time.sleep(0.1)
    assert living.poll() is None
    living.send_signal(signal.SIGINT)
    assert living.wait(60) == 130
    programs.wait_until_gone()


def test_processes_that_were_starting_when_the_program_was_killed_end_too(programs: Programs) -> None:
    program = programs.start("-c", PROGRAM, "wait")
    while not any("default_worker.py --node" in name_of(process) for process in programs.processes()):
        assert program.poll() is None
        time.sleep(0.02)
    program.kill()
    program.wait()
    programs.wait_until_gone()
    assert list((programs.place / NAME).iterdir()) == []


def test_the_end_of_one_cluster_does_not_touch_the_next_of_the_same_program(programs: Programs) -> None:
    program = programs.start("-c", PROGRAM, "again")
    assert read_place(program) == read_place(program)
    assert program.wait(60) == 0


def test_a_long_folder_for_temporary_files_is_no_hindrance(programs: Programs) -> None:
    programs.place /= "x" * 90
    programs.place.mkdir()
    program = programs.start("-c", PROGRAM, "end")
    place = read_place(program)
    assert program.wait(60) == 0
    assert place.parent == Path("/tmp", NAME)
    assert not place.is_symlink()
    assert list((programs.place / NAME).iterdir()) == []


def write_project(folder: Path) -> tuple[str, RunFolder]:
    write_log(folder)
    values = small_values(folder)
    space = {"train.learning_rate": {"log_uniform": [0.001, 0.05]}}
    values["tune"] = {"space": space, "num_trials": 2, "num_random": 1}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return str(folder / "config.yaml"), RunFolder(values["run"]["dir"])


@pytest.mark.llm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_stage_listens_on_loopback_alone(programs: Programs, tmp_path: Path) -> None:
    config, _ = write_project(tmp_path)
    found: set[tuple[str, str]] = set()
    for job in ("pipeline", "tune"):
        program = programs.start(str(JOBS / f"{job}.py"), "--config", config)
        while program.poll() is None:
            found |= listening(programs.processes())
            time.sleep(0.2)
        assert program.returncode == 0
    titles = {name for _, name in found}
    assert any("RayTrainWorker" in title for title in titles), titles
    assert [who for who in found if not is_loopback(who[0])] == []
    programs.wait_until_gone()
    assert list((programs.place / NAME).iterdir()) == []


def shared_memory(processes: list[psutil.Process]) -> set[Path]:
    """Files of shared memory that the processes use."""
    found = set()
    for process in processes:
        with suppress(OSError):
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            found |= {Path(name) for name in re.findall(r"(/dev/shm/\S+)$", maps, re.MULTILINE)}
    return found


@pytest.mark.llm
@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(900)
def test_nothing_is_left_of_a_run_that_was_killed_and_then_finished(programs: Programs, tmp_path: Path) -> None:
    config, run = write_project(tmp_path)
    command = (str(JOBS / "pipeline.py"), "--config", config, "train.epochs=30", "train.patience=30")
    profile, train = run.stage("profile"), run.stage("train")
    # The second pipeline finishes the profiles on its way, so that an engine ends as it should.
    for is_reached in (lambda: profile.files("generated/"), lambda: train.exists("metrics.jsonl")):
        program = programs.start(*command)
        used: set[Path] = set()
        while not is_reached():
            assert program.poll() is None
            used |= shared_memory(programs.processes())
            time.sleep(0.1)
        program.kill()
        program.wait()
        programs.wait_until_gone()
        assert list((programs.place / NAME).iterdir()) == []
        assert used
        assert not [path for path in used if path.exists()]
    assert programs.start(*command).wait(600) == 0
    programs.wait_until_gone()
    assert list((programs.place / NAME).iterdir()) == []
