"""One program at a time works on a stage, on a disk and on an S3 server, and a dead one does not block."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from object_store import CREDENTIALS, location, s3_server

from sracl_dist.errors import StorageError
from sracl_dist.run_folder import Manifest, RunFolder
from sracl_dist.run_folder import owner as owner_module
from sracl_dist.run_folder.folder import Folder
from sracl_dist.run_folder.owner import HEARTBEAT, LOCK, STARTED, Owner, Started, read_started, write_started

TABLE = pa.table({"key": [1, 2, 3]})
PROGRAM = """
import sys, time
from sracl_dist.run_folder import RunFolder
with RunFolder(sys.argv[1]).working_on("embed", "f1") as folder:
    folder.write_bytes("items/0.bin", b"theirs")
    print("working", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with s3_server() as port:
        yield port


@pytest.fixture(params=["disk", "S3", "disk without locks"])
def place(request: pytest.FixtureRequest, tmp_path: Path, server: int, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    if request.param == "disk without locks":
        monkeypatch.setattr(fcntl, "flock", _no_locks)
    unique = request.node.name.replace("[", "-").replace("]", "").replace(" ", "-")
    return location(server, unique) if request.param == "S3" else str(tmp_path / "run")


def _no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


@contextlib.contextmanager
def other_program(place: str) -> Iterator[subprocess.Popen]:
    """A program that works on the stage embed until the end of the block, or until it is killed."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM, place], stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "working\n"
            yield program
        finally:
            program.kill()


def manifest() -> Manifest:
    return Manifest(stage="embed", fingerprint="f2", version=1, config={}, external={}, inputs={}, rows={})


def work(place: str) -> None:
    with RunFolder(place).working_on("embed", "f2") as folder:
        folder.write_bytes("items/1.bin", b"ours")
        folder.commit(manifest())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_module, "ENDING_S", 0.3)


@pytest.mark.usefixtures("impatient")
def test_the_second_program_names_the_first_and_stops(place: str) -> None:
    with other_program(place) as program:
        with pytest.raises(StorageError, match=rf"embed is being written by .+process {program.pid} on \S+, since 20"):
            work(place)
        assert RunFolder(place).stage("embed").read_bytes("items/0.bin") == b"theirs"


def test_a_killed_program_does_not_block(place: str) -> None:
    with other_program(place) as program:
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
        started = time.monotonic()
        work(place)
        assert time.monotonic() - started < 20
    folder = RunFolder(place).stage("embed")
    assert folder.files() == ["items/1.bin"]
    assert not any(folder.exists(name) for name in (STARTED, HEARTBEAT))


def test_a_program_that_ends_a_moment_later_does_not_block(place: str) -> None:
    with other_program(place) as program:
        ending = threading.Timer(1.0, program.kill)
        ending.start()
        work(place)
        ending.join()
    assert RunFolder(place).stage("embed").files() == ["items/1.bin"]


@pytest.mark.usefixtures("impatient")
def test_two_at_once_in_one_process_are_two(place: str) -> None:
    with RunFolder(place).working_on("embed", "f1"), pytest.raises(StorageError, match="is being written by"):
        work(place)
    work(place)


def test_who_was_taken_over_commits_nothing_more(place: str) -> None:
    run = RunFolder(place)
    with contextlib.suppress(StorageError), run.working_on("embed", "f1") as folder:
        folder.write_bytes("items/0.bin", b"first")
        started = read_started(folder.plain)
        assert started is not None
        assert started.owner is not None
        other = replace(started.owner, id="other", host="elsewhere")
        write_started(folder.plain, Started(fingerprint="f2", owner=other))
        for attempt in (
            lambda: folder.write_bytes("items/1.bin", b"late"),
            lambda: folder.write_table("items/1.parquet", TABLE),
            lambda: run.stage("embed").write_json("late.json", {}),
            lambda: folder.commit(manifest()),
        ):
            with pytest.raises(StorageError, match=r"was taken over by process \d+ on elsewhere"):
                attempt()
    folder = run.stage("embed")
    assert folder.files() == ["items/0.bin"]
    assert folder.manifest() is None
    after = read_started(folder.plain)
    assert after is not None
    assert after.owner is not None
    assert after.owner.id == "other", "who has lost the stage leaves it to the other"


def test_who_was_taken_over_at_the_beginning_deletes_nothing(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program has begun and ended while the first one looked what lies in the folder."""
    run, others = RunFolder(place), []

    def asleep(*arguments: object) -> dict[str, str]:
        if not others:
            others.append(True)
            run.stage("embed").plain.delete([LOCK])
            write_started(run.stage("embed").plain, Started(fingerprint="f1"))
            work(place)
        return {}

    monkeypatch.setattr("sracl_dist.run_folder.resuming.wrong_sizes", asleep)
    with pytest.raises(StorageError, match="was taken over"), run.working_on("embed", "f1"):
        pass
    folder = run.stage("embed")
    assert folder.read_bytes("items/1.bin") == b"ours"
    assert folder.manifest() is not None


def test_an_error_gives_the_stage_free(place: str) -> None:
    run = RunFolder(place)
    with pytest.raises(KeyboardInterrupt), run.working_on("embed", "f1"):
        raise KeyboardInterrupt
    started = read_started(run.stage("embed").plain)
    assert started is not None
    assert (started.fingerprint, started.owner) == ("f1", None)
    assert not any(run.stage("embed").exists(name) for name in (LOCK, HEARTBEAT))


def elsewhere(folder: Folder) -> Owner:
    """An owner on a machine that cannot be looked into."""
    owner = Owner(id="far", host="far", process=1, machine="far", process_start="1", since="2030-01-01 00:00:00Z")
    write_started(folder, Started(fingerprint="f1", owner=owner))
    return owner


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_module, "LEASE_S", 1.0)
    monkeypatch.setattr(owner_module, "BEAT_S", 0.1)
    monkeypatch.setattr(owner_module, "POLL_S", 0.05)


@pytest.mark.usefixtures("quick")
def test_another_machine_that_gives_no_sign_of_life_is_dead(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    folder = RunFolder(location(server, "silent")).stage("embed").plain
    elsewhere(folder)
    folder.write_json(HEARTBEAT, {"owner": "far", "beat": 7})
    work(location(server, "silent"))
    assert not folder.exists(STARTED)


@pytest.mark.usefixtures("quick")
def test_another_machine_that_gives_one_owns_the_stage(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    folder = RunFolder(location(server, "alive")).stage("embed").plain
    owner, ended = elsewhere(folder), threading.Event()

    def live() -> None:
        with owner_module._beating(folder, owner):
            ended.wait()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(StorageError, match="process 1 on far, since 2030"):
            work(location(server, "alive"))
    finally:
        ended.set()
        thread.join()
