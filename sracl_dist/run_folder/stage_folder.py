"""One stage's folder: its tables and files, which it knows by their checksums, and its manifest."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import fs

from sracl_dist.errors import StorageError
from sracl_dist.run_folder.folder import Folder
from sracl_dist.run_folder.locations import is_object_store
from sracl_dist.run_folder.manifest import MANIFEST, Manifest
from sracl_dist.run_folder.owner import NAMES as OWNER_NAMES
from sracl_dist.run_folder.owner import STARTED, require_owner
from sracl_dist.run_folder.sums import (
    SUMS,
    Sum,
    digest_of_all,
    digest_of_tables,
    sha256_of,
    sum_of_file,
    sums_in,
    wrong_contents,
    wrong_sizes,
)

WRITTEN_BY = b"sracl_dist.fingerprint"
"""Key of a table's own metadata: the fingerprint of the work that wrote it."""
NO_FINGERPRINT = "none"
"""That of a file that was written outside any stage's work."""
BOOKKEEPING = (MANIFEST, *OWNER_NAMES)
MOST_NAMED = 3
"""Damaged files that a message names."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A stage's work in progress, as its processes know it."""

    owner_id: str
    fingerprint: str
    libraries: tuple[str, ...] = ()
    """Folders whose files have no sums."""
    damaged: tuple[str, ...] = ()
    """Files that were found damaged at the beginning, and deleted."""
    foreign: frozenset[str] = frozenset()
    """Files that lay there at the beginning and are not the stage's; a look at each one's sum would be a listing."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """A finished stage as it was when the reading stage began."""

    fingerprint: str
    keep: tuple[str, ...]


class StageFolder(Folder):
    """One stage's part of the run folder.

    Args:
        filesystem: of the run folder.
        root: path of the run folder within it.
        name: of the stage.
        key: the setting that places it, for messages.
        work: what is in progress, where this program does it.
        read_as: what its tables must belong to, where another stage's work reads them.
    """

    def __init__(
        self,
        filesystem: fs.FileSystem,
        root: str,
        name: str,
        key: str = "run.dir",
        work: Work | None = None,
        read_as: Input | None = None,
    ) -> None:
        super().__init__(filesystem, f"{root}/{name}", key, f"jobs/{name}.py")
        self.name, self._work, self._read_as = name, work, read_as

    @property
    def damaged_before(self) -> tuple[str, ...]:
        """Files that were found damaged when the work in progress began, and deleted."""
        return () if self._work is None else self._work.damaged

    def exists(self, name: str) -> bool:
        """Whether the file is there, and the stage's own."""
        if not super().exists(name):
            return False
        if self._work is not None:
            return name not in self._work.foreign
        return self._has_no_sum(name) or bool(self._sums_of(name))

    def _has_no_sum(self, name: str) -> bool:
        return name in BOOKKEEPING or (self._work is not None and name.startswith(self._work.libraries))

    def files(self, prefix: str = "") -> list[str]:
        """Names of the stage's whole files below `prefix` (a folder within the stage), sorted."""
        marked = sums_in(self.infos(f"{SUMS}/{prefix}"))
        return sorted(marked.keys() & self.infos(prefix).keys())

    def fingerprints(self, prefix: str) -> set[str]:
        """Those of the works that wrote the files below `prefix`."""
        return {own.fingerprint for several in sums_in(self.infos(f"{SUMS}/{prefix}")).values() for own in several}

    def library_files(self, prefix: str) -> list[str]:
        """Names of all files below one of the stage's folders without sums."""
        return super().files(prefix)

    @contextlib.contextmanager
    def _appearing(self, name: str, content: Path) -> Iterator[None]:
        """Leave the sum of a file before the file itself, and that of the file it replaces until then."""
        if self._has_no_sum(name):
            self.require_owner()
            yield
            return
        there = self._type_of(name)
        before = self._sums_of(name) if there == fs.FileType.File else set()
        if not before and there != fs.FileType.NotFound:
            raise StorageError(
                f"{self.shown(name)} is in the way, as {SUMS}/ does not list it among the stage's own; move it "
                f"elsewhere and run {self._job} again, or {self.anew}."
            )
        own = sum_of_file(content, NO_FINGERPRINT if self._work is None else self._work.fingerprint)
        self.require_owner()
        if own not in before:
            self.plain.write_bytes(own.file_name(name), own.line(name))
        yield
        self.plain.delete(other.file_name(name) for other in before - {own})

    def require_owner(self) -> None:
        """Refuse to go on where the stage has another owner by now; see `owner.require_owner`."""
        if self._work is not None:
            require_owner(self.plain, self._work.owner_id)

    @property
    def plain(self) -> Folder:
        """The same folder, without sums."""
        return Folder(self._fs, self._root, self.key, self._job)

    def _type_of(self, name: str) -> fs.FileType:
        with self.errors(name, "read"):
            return self._fs.get_file_info(self.path(name)).type

    def _sums_of(self, name: str) -> set[Sum]:
        folder, _, _ = f"{SUMS}/{name}".rpartition("/")
        return sums_in(self.infos(folder, recursive=False)).get(name, set())

    def _metadata(self, schema: pa.Schema) -> dict[bytes, bytes] | None:
        """A table carries the fingerprint of its work."""
        own = {} if self._work is None else {WRITTEN_BY: self._work.fingerprint.encode()}
        return {**(schema.metadata or {}), **own} or None

    def read_table(self, name: str, columns: list[str] | None = None, rows: pc.Expression | None = None) -> pa.Table:
        """Read a Parquet file; with `rows`, only those for which the expression holds, in little memory.

        Raises:
            StorageError: it cannot be read, or belongs to other work than this program reads.
        """
        return self._own(name, super().read_table(name, columns, rows))

    def read_rows(self, name: str, rows: NDArray[np.int64], columns: list[str] | None = None) -> pa.Table:
        """See `Folder.read_rows`; errors as in `read_table`."""
        return self._own(name, super().read_rows(name, rows, columns))

    def _own(self, name: str, table: pa.Table) -> pa.Table:
        """The table without its mark, if it is that of the work that is read."""
        metadata = dict(table.schema.metadata or {})
        mark = metadata.pop(WRITTEN_BY, None)
        wanted = self._read_as
        if wanted is not None and not name.startswith(wanted.keep) and mark != wanted.fingerprint.encode():
            raise StorageError(
                f"{self.shown(name)} was written by other work of the stage {self.name} than this program began to "
                f"read; run the same command again, which takes the tables as they are then."
            )
        return table.replace_schema_metadata(metadata or None)

    def delete(self, names: Iterable[str]) -> None:
        """Delete files of the stage; a missing one is fine."""
        names = list(names)
        # The sums go last: a file without one would stay for ever.
        super().delete(names)
        self.delete_sums(names)

    def delete_sums(self, names: Iterable[str]) -> None:
        """Forget files that are not there."""
        names = list(names)
        sums: dict[str, set[Sum]] = {}
        for folder in {f"{SUMS}/{name}".rpartition("/")[0] for name in names}:
            sums |= sums_in(self.infos(folder, recursive=False))
        self.plain.delete(own.file_name(name) for name in names for own in sums.get(name, ()))

    def delete_folder(self, name: str) -> None:
        """Delete the stage's files below a folder, and the folders that are empty then."""
        self.delete(self.files(name))
        if not is_object_store(self._fs):  # there a folder is no more than the names of its files
            for root in (self.path(name), self.path(f"{SUMS}/{name}")):
                for folder, _, _ in os.walk(root, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(folder)

    def manifest(self) -> Manifest | None:
        """Manifest of the finished stage, or None.

        Raises:
            StorageError: it is damaged.
        """
        if not self.exists(MANIFEST):
            return None
        try:
            manifest = Manifest.of(self.read_bytes(MANIFEST))
        except ValueError:
            raise self.damaged(MANIFEST) from None
        if manifest.stage != self.name:
            raise self.damaged(MANIFEST)
        return manifest

    def damage(self, manifest: Manifest | None, *, thorough: bool) -> dict[str, str]:
        """What is wrong with the stage's files, by name: what a listing tells, or all contents too.

        With the manifest of a finished stage, its files must also be the ones that it describes.
        """
        infos = self.infos()
        sums = sums_in(infos)
        damage = wrong_sizes(infos, sums)
        if manifest is not None:
            damage |= _wrong_work(sums, manifest)
        if thorough:
            damage |= self.wrong_contents({name: own for name, own in sums.items() if name not in damage})
        return damage

    def wrong_contents(self, sums: dict[str, set[Sum]]) -> dict[str, str]:
        """What is wrong with the contents of files, by name; `sums` are those that each may have."""
        with self.errors("", "read"):
            return wrong_contents(self._fs, {name: self.path(name) for name in sums}, sums, f"{self.name}: checking")

    def lists_all(self, manifest: Manifest) -> bool:
        """Whether the sums are those of the files that the manifest describes."""
        return digest_of_all(sums_in(self.infos(SUMS))) == manifest.sums

    def require_whole(self, manifest: Manifest | None) -> None:
        """Read all files and refuse them where one is not what the stage wrote; see `damage`.

        Raises:
            StorageError: names what is damaged.
        """
        if damage := self.damage(manifest, thorough=True):
            raise StorageError(f"{self.shown()} is damaged ({in_words(damage)}); run {self._job}, which repairs it.")

    def commit(self, manifest: Manifest) -> None:
        """Declare the stage done."""
        sums = self._one_sum_each(manifest.fingerprint)
        tables = digest_of_tables(sums, tuple(manifest.keep))
        self.write_bytes(MANIFEST, replace(manifest, sums=digest_of_all(sums), tables=tables).to_bytes())
        self.plain.delete([STARTED])

    def _one_sum_each(self, fingerprint: str) -> dict[str, set[Sum]]:
        """All sums, without those that killed writers left beside that of the whole file."""
        sums = sums_in(self.infos(SUMS))
        for name in [name for name, own in sums.items() if len(own) > 1]:
            sha256 = sha256_of(self._fs, self.path(name))
            right = max(sums[name], key=lambda own: (own.sha256 == sha256, own.fingerprint == fingerprint))
            self.plain.delete(own.file_name(name) for own in sums[name] - {right})
            sums[name] = {right}
        return sums


def _wrong_work(sums: Mapping[str, set[Sum]], manifest: Manifest) -> dict[str, str]:
    """Files that are not of the work that the manifest describes."""
    wanted, keep = {manifest.fingerprint}, tuple(manifest.keep)
    works = {name: {own.fingerprint for own in several} for name, several in sums.items()}
    wrong = {
        name: "belongs to other work" for name, own in works.items() if own != wanted and not name.startswith(keep)
    }
    return wrong or (
        {} if digest_of_all(sums) == manifest.sums else {SUMS: "does not list the files that were written"}
    )


def in_words(damage: Mapping[str, str]) -> str:
    """The first of the damaged files and what is wrong with them, and how many more there are."""
    named = [f"{name} {what}" for name, what in sorted(damage.items())[:MOST_NAMED]]
    more = len(damage) - len(named)
    return "; ".join(named) + (f"; and {more:,} more" if more else "")
