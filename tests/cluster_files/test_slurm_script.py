"""The Slurm script with Slurm and Ray replaced by programs that run its commands here and tell what they were asked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm.sh"
PROGRAMS = {
    "scontrol": "echo node7; echo node8",
    "srun": 'while [[ "$1" == -* ]]; do shift; done\n[ "$1" != hostname ] || exec echo "10.0.0.7 fe80::1"\nexec "$@"',
    "ray": 'echo "$*" >> ray.log\nwhile [ "$1" != -- ]; do shift; done\nshift\n[ -e no-ray ] || exec "$@"',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (programs / name).chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    (tmp_path / "job.py").write_text(
        "import os, sys\nprint(os.environ['RAY_ADDRESS'], sys.argv[1:])\nsys.exit(int(sys.argv[1]))\n"
    )
    return tmp_path


def submit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    slurm = {"SUBMIT_DIR": str(folder), "JOB_ID": "1234567", "JOB_NODELIST": "node[7-8]", "JOB_NUM_NODES": "2"}
    environment = {
        **os.environ,
        **{f"SLURM_{name}": value for name, value in slurm.items()},
        "SLURM_CPUS_ON_NODE": "48",
    }
    environment.pop("VENV", None)
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], env=environment, cwd="/", capture_output=True, text=True, check=False
    )


def test_the_program_runs_on_a_cluster_of_all_nodes(folder: Path) -> None:
    job = submit(folder, "job.py", "0", "a b")
    assert job.returncode == 0, job.stderr
    assert job.stdout == "10.0.0.7:24567 ['0', 'a b']\n"
    asked = (folder / "ray.log").read_text()
    assert asked.startswith(
        "symmetric-run --address 10.0.0.7:24567 --min-nodes 2 --num-cpus 48 --dashboard-host 127.0.0.1 --"
    )
    assert not list(folder.glob(".slurm-*"))


def test_the_exit_status_is_the_programs(folder: Path) -> None:
    assert submit(folder, "job.py", "3").returncode == 3


def test_ray_that_does_not_start_is_a_failure(folder: Path) -> None:
    (folder / "no-ray").touch()
    job = submit(folder, "job.py", "0")
    assert job.returncode == 1
    assert "Ray has not started" in job.stderr


def test_a_program_must_be_named(folder: Path) -> None:
    job = submit(folder)
    assert job.returncode == 2
    assert job.stderr == "error: name a program, for example jobs/pipeline.py --config configs/mine.yaml.\n"
