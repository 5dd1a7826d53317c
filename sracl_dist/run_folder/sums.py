"""Checksums of a stage's files, by which it knows its own, whole ones, and its readers damaged ones.

    sums/<name>~<bytes>~<sha256>~<fingerprint>    one for every file `name` of the stage

All is in the name, so that one listing of the folder tells it, on a disk and in an object store alike. The content is a
line for `sha256sum --check`. A sum is written before its file appears, so a file without one is not the stage's.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from sracl_dist.observe import Progress

SUMS = "sums"
BLOCK_BYTES = 8 << 20
NUM_THREADS = 8
"""Hashing leaves Python's lock, and an object store answers many readers at a time."""


@dataclass(frozen=True, kw_only=True, order=True)
class Sum:
    """What a file holds, and the work that wrote it."""

    num_bytes: int
    sha256: str
    fingerprint: str

    def file_name(self, name: str) -> str:
        """Where the sum of the file `name` is kept."""
        return f"{SUMS}/{name}~{self.num_bytes}~{self.sha256}~{self.fingerprint}"

    def line(self, name: str) -> bytes:
        """What is in it."""
        return f"{self.sha256}  {name}\n".encode()


def sum_of_file(path: Path, fingerprint: str) -> Sum:
    """The sum of a file on this machine's disk."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Sum(num_bytes=file.tell(), sha256=digest, fingerprint=fingerprint)


def sums_in(names: Iterable[str]) -> dict[str, set[Sum]]:
    """The sums of every file, from the names of all files of a stage."""
    found: dict[str, set[Sum]] = {}
    for name in names:
        parts = name.removeprefix(f"{SUMS}/").rsplit("~", 3)
        if name.startswith(f"{SUMS}/") and len(parts) == 4 and parts[1].isdecimal():
            own = Sum(num_bytes=int(parts[1]), sha256=parts[2], fingerprint=parts[3])
            found.setdefault(parts[0], set()).add(own)
    return found


def digest_of_all(sums: Mapping[str, Collection[Sum]]) -> str:
    """Tells two sets of files apart."""
    names = sorted(own.file_name(name) for name, several in sums.items() for own in several)
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def digest_of_tables(sums: Mapping[str, Collection[Sum]], keep: tuple[str, ...]) -> str:
    """Tells the contents of two sets of tables apart; those that begin with `keep` do not count."""
    tables = [name for name in sums if name.endswith(".parquet") and not name.startswith(keep)]
    contents = sorted((name, own.sha256) for name in tables for own in sums[name])
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def wrong_sizes(infos: Mapping[str, fs.FileInfo], sums: Mapping[str, Collection[Sum]]) -> dict[str, str]:
    """What is wrong with the files that have these sums, as far as a listing tells; by name."""
    damage = {}
    for name, several in sums.items():
        if name not in infos:
            damage[name] = "is missing"
        elif infos[name].size not in {own.num_bytes for own in several}:
            wanted = max(several).num_bytes
            damage[name] = f"has {infos[name].size:,} bytes where {wanted:,} were written"
    return damage


def sha256_of(filesystem: fs.FileSystem, path: str) -> str:
    """The SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with filesystem.open_input_stream(path) as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def wrong_contents(
    filesystem: fs.FileSystem, paths: Mapping[str, str], sums: Mapping[str, Collection[Sum]], label: str
) -> dict[str, str]:
    """What is wrong with the contents of files, each of which is read as a whole.

    Args:
        filesystem: where they are.
        paths: of the files, by name.
        sums: which one of a file's sums it must have.
        label: of the progress line, which comes where this takes long.
    """
    total = sum(max(own.num_bytes for own in sums[name]) for name in paths)
    progress = Progress(label, total // 1000, "kB")

    def is_right(name: str) -> bool:
        return sha256_of(filesystem, paths[name]) in {own.sha256 for own in sums[name]}

    damage = {}
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for name, right in zip(paths, pool.map(is_right, paths), strict=True):
            progress.update(max(own.num_bytes for own in sums[name]) // 1000)
            if not right:
                damage[name] = "holds something else than was written"
    return damage
