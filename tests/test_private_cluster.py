"""A cluster that a program starts for itself: who can reach it, and that nothing of it is left."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
from programs import FOLDER, JOBS, Programs, name_of, programs_in_own_folder
from small_run import make_project

pytestmark = pytest.mark.ray

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


@pytest.fixture
def programs() -> Iterator[Programs]:
    with programs_in_own_folder() as programs:
        yield programs


def listening(processes: set[psutil.Process]) -> set[tuple[str, str]]:
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


def start(programs: Programs, how: str) -> subprocess.Popen[str]:
    return programs.start("-c", PROGRAM, how, stdout=subprocess.PIPE)


def read_place(program: subprocess.Popen[str]) -> Path:
    """The folder for temporary files that a worker of the program told of."""
    assert program.stdout is not None
    return Path(program.stdout.readline().strip())


def test_it_listens_on_loopback_alone_and_its_folder_is_gone_at_the_end(programs: Programs) -> None:
    program = start(programs, "wait")
    place = read_place(program)
    assert place.parent == programs.place / FOLDER
    assert list(place.glob("ray-*/session_*/sockets/raylet"))
    sockets = listening(programs.processes())
    assert {"gcs_server", "raylet"} <= {name for _, name in sockets}
    assert [who for who in sockets if not is_loopback(who[0])] == []
    workers = [process for process in programs.processes() if name_of(process).startswith("ray::")]
    assert {process.nice() for process in workers} == {psutil.Process().nice()}, "no thread of an engine stands back"
    program.send_signal(signal.SIGINT)
    assert program.wait(60) == 130
    programs.wait_until_gone()
    assert programs.files() == set()


def test_what_a_killed_program_left_is_gone_after_the_next_and_a_live_one_goes_on(programs: Programs) -> None:
    living = start(programs, "wait")
    kept = read_place(living)
    killed = start(programs, "wait")
    left = read_place(killed)
    killed.kill()
    killed.wait()
    assert left.exists()
    last = start(programs, "end")
    assert read_place(last).parent == left.parent
    assert last.wait(60) == 0
    assert programs.files() == {kept}
    assert list(kept.glob("ray-*/session_*/sockets/raylet"))
    programs.wait_until_gone(left)
    assert living.poll() is None
    living.send_signal(signal.SIGINT)
    assert living.wait(60) == 130
    programs.wait_until_gone()


def test_processes_that_were_starting_when_the_program_was_killed_end_too(programs: Programs) -> None:
    program = start(programs, "wait")
    while not any("default_worker.py --node" in name_of(process) for process in programs.processes()):
        assert program.poll() is None
        time.sleep(0.02)
    program.kill()
    program.wait()
    programs.wait_until_gone()
    assert programs.files() == set()


def test_the_end_of_one_cluster_does_not_touch_the_next_of_the_same_program(programs: Programs) -> None:
    program = start(programs, "again")
    assert read_place(program) == read_place(program)
    assert program.wait(60) == 0


def test_a_long_folder_for_temporary_files_is_no_hindrance(programs: Programs) -> None:
    programs.place /= "x" * 90
    programs.place.mkdir()
    program = start(programs, "end")
    place = read_place(program)
    assert program.wait(60) == 0
    assert place.parent == Path("/tmp", FOLDER)
    assert not place.is_symlink()
    assert programs.files() == set()


@pytest.mark.llm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_stage_listens_on_loopback_alone(programs: Programs, tmp_path: Path) -> None:
    config, _ = make_project(tmp_path)
    space = "tune.space={train.learning_rate: {log_uniform: [0.001, 0.05]}}"
    settings = ("--config", str(config), space, "tune.num_trials=2", "tune.num_random=1")
    found: set[tuple[str, str]] = set()
    for job in ("pipeline", "tune"):
        program = programs.start(str(JOBS / f"{job}.py"), *settings)
        while program.poll() is None:
            found |= listening(programs.processes())
            time.sleep(0.2)
        assert program.returncode == 0
    titles = {name for _, name in found}
    assert any("RayTrainWorker" in title for title in titles), titles
    assert [who for who in found if not is_loopback(who[0])] == []
    programs.wait_until_gone()
    assert programs.files() == set()
