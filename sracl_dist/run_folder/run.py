"""The run folder as a whole: where every stage's part is, and how a program begins to work on one."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from sracl_dist.errors import StorageError
from sracl_dist.run_folder.locations import is_object_store, open_location, shown_location
from sracl_dist.run_folder.manifest import MANIFEST, Manifest
from sracl_dist.run_folder.owner import (
    HEARTBEAT,
    LOCK,
    STARTED,
    Started,
    owned,
    read_started,
    require_owner,
    write_started,
)
from sracl_dist.run_folder.resuming import leave_own_files
from sracl_dist.run_folder.stage_folder import BOOKKEEPING, Input, StageFolder, Work
from sracl_dist.run_folder.sums import SUMS, sums_in

TABLE_STAGES = ("prepare", "profile", "embed", "neighbours")
"""Stages that lie below run.tables: what they write does not depend on the model, its training or its seed."""


class RunFolder:
    """Everything one run has made; stages find each other's tables through it.

    Args:
        location: run.dir, a folder or URI.
        tables: run.tables, the folder or URI of the stages in TABLE_STAGES; they lie below `location` without one.

    Raises:
        StorageError: no file system opens one of them.
    """

    def __init__(self, location: str, tables: str | None = None) -> None:
        self.location, self.tables = location, tables
        self._place = open_location(location, "run.dir")
        self._tables_place = self._place if tables is None else open_location(tables, "run.tables")
        self._work: dict[str, Work] = {}
        self._inputs: dict[str, Input] = {}

    @property
    def shown(self) -> str:
        """The location for messages and pages, without the key and secret that a URI may carry."""
        return shown_location(self.location)

    def shown_for(self, stage: str) -> str:
        """The same for the folder that holds this stage."""
        return self.shown if self.tables is None or stage not in TABLE_STAGES else shown_location(self.tables)

    def stage(self, name: str) -> StageFolder:
        """The part that belongs to one stage."""
        is_table = self.tables is not None and name in TABLE_STAGES
        place, key = (self._tables_place, "run.tables") if is_table else (self._place, "run.dir")
        return StageFolder(*place, name, key, self._work.get(name), self._inputs.get(name))

    @contextlib.contextmanager
    def reading(self, inputs: Mapping[str, Manifest]) -> Iterator[None]:
        """Within the block tables of these stages are only read where they belong to these manifests."""
        before = self._inputs
        self._inputs = {name: Input(fingerprint=own.fingerprint, keep=tuple(own.keep)) for name, own in inputs.items()}
        try:
            yield
        finally:
            self._inputs = before

    @contextlib.contextmanager
    def working_on(
        self, name: str, fingerprint: str, *, keep: Sequence[str] = (), libraries: Sequence[str] = ()
    ) -> Iterator[StageFolder]:
        """Own a stage for the duration of the block, which goes on from what killed work of this fingerprint left.

        Files of other work are deleted, but for those in `keep` (names and folders). `libraries` are folders whose
        files have no sums: those of libraries, and checkpoints, which tell if they are whole. What is sent to workers
        within the block may write too, as long as this program owns the stage.

        Raises:
            StorageError: another program works on it, the folder holds files of somebody else alone, or a link.
        """
        folder = self.stage(name)
        plain = folder.plain
        _refuse_foreign(folder, libraries)
        with owned(plain) as owner:
            damaged, before = _left_by(folder, fingerprint)
            write_started(plain, Started(fingerprint=before, owner=owner, damaged=damaged))
            work = Work(owner_id=owner.id, fingerprint=fingerprint, libraries=tuple(libraries))
            self._work[name] = work
            try:
                found, foreign = leave_own_files(self.stage(name), before, fingerprint, keep, libraries)
                damaged += found
                require_owner(plain, owner.id)
                write_started(plain, Started(fingerprint=fingerprint, owner=owner, damaged=damaged))
                self._work[name] = replace(work, damaged=tuple(damaged), foreign=foreign)
                yield self.stage(name)
            finally:
                del self._work[name]


def _left_by(folder: StageFolder, fingerprint: str) -> tuple[list[str], str | None]:
    """What is known to be damaged of this work's files, and the fingerprint of the work whose files are there."""
    started = read_started(folder.plain) or Started()
    damaged = list(started.damaged) if started.fingerprint == fingerprint else []
    manifest = _manifest_of(folder)
    if manifest is None:
        return damaged + [MANIFEST] * folder.exists(MANIFEST), started.fingerprint
    if manifest.fingerprint == fingerprint and not folder.lists_all(manifest):
        damaged.append(SUMS)
    return damaged, started.fingerprint or manifest.fingerprint


def _manifest_of(folder: StageFolder) -> Manifest | None:
    """The manifest; None where it is missing or damaged."""
    with contextlib.suppress(StorageError):
        return folder.manifest()
    return None


def _refuse_foreign(folder: StageFolder, libraries: Sequence[str]) -> None:
    """Refuse to work in a folder that no stage wrote, and to follow links out of one.

    Raises:
        StorageError: names the folder or the link.
    """
    if not is_object_store(folder.filesystem):
        _refuse_links(folder)
    infos = folder.infos()
    # What a program leaves that is killed before it has begun; its lock is empty.
    alone = {STARTED, HEARTBEAT} | {name for name, info in infos.items() if name == LOCK and info.size == 0}
    others = infos.keys() - alone
    if not others or sums_in(infos):
        return
    is_known = read_started(folder.plain) is not None or _manifest_of(folder) is not None
    if not is_known:
        raise StorageError(
            f"{folder.shown()} holds {min(others)!r} and nothing that a stage wrote; move that elsewhere, or set "
            f"{folder.key} to another place."
        )
    if [name for name in others if name not in BOOKKEEPING and not name.startswith(tuple(libraries))]:
        raise StorageError(
            f"{folder.shown()} has no {SUMS}/, as when an earlier version of this program wrote it; name another "
            f"{folder.key}, or {folder.anew}."
        )


def _refuse_links(folder: StageFolder) -> None:
    root = folder.path()
    inside = (f"{place}/{name}" for place, below, files in os.walk(root) for name in (*below, *files))
    for place in chain([root], inside):
        if os.path.islink(place):
            raise StorageError(
                f"{place} is a link, which no stage writes through; put a folder or file in its place, or set "
                f"{folder.key} to another place."
            )
