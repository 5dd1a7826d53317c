"""What tests of the run folder share: a table, what lies on the disk, and a disk of its own."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from sracl_dist.run_folder import StageFolder

TABLE = pa.table({"key": [1, 2, 3]})


def names_on_disk(folder: StageFolder) -> set[str]:
    """Without the sums."""
    root = Path(folder.path())
    names = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith("sums/")}


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow mounting")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
