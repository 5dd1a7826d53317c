"""The run folder: tables and files of every stage, committed atomically, described by a manifest.

    <run.dir>/<stage>/            tables and files of the stage
    <run.dir>/<stage>/manifest.json    written last: the stage is done when it exists
    <run.dir>/<stage>/started.json     fingerprint of the work in progress; shards beside it belong to it

Where run.tables is set, the stages of TABLE_STAGES lie below it instead, so that many runs share them.

The folder may be a local path or a URI that pyarrow.fs opens (s3://, gs://). A reader never sees half a file: on a disk
every write goes to a temporary name first and is renamed, and an object store takes a whole file or none.
"""

import contextlib
import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

from sracl_dist.errors import StorageError
from sracl_dist.storage import is_object_store, open_location, shown_location, shown_path, storage_errors

MANIFEST = "manifest.json"
STARTED = "started.json"
TABLE_STAGES = ("prepare", "profile", "embed", "neighbours")
"""Stages that lie below run.tables: what they write does not depend on the model, its training or its seed."""
UPLOAD_BLOCK_BYTES = 8 << 20
_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{12}$")


@dataclass(kw_only=True)
class Manifest:
    """What a finished stage is: what it was made from, with what, and what it holds."""

    stage: str
    fingerprint: str
    """Hash of everything below that can change the result: version, config, external and inputs."""
    version: int
    config: dict[str, Any]
    external: dict[str, str]
    """Facts about things outside the run folder, such as size and time of the log's files."""
    inputs: dict[str, str]
    """Fingerprint of each stage that was read."""
    rows: dict[str, int]
    """Rows of each table that was written."""
    details: dict[str, Any] = field(default_factory=dict)
    """Counts and measurements particular to the stage."""
    packages: dict[str, str] = field(default_factory=dict)
    finished_at: str = ""
    wall_s: float = 0.0


class StageFolder:
    """One stage's part of the run folder; `key` is the setting that places it, for messages."""

    def __init__(self, filesystem: fs.FileSystem, root: str, name: str, key: str = "run.dir") -> None:
        self._fs = filesystem
        self._root = f"{root}/{name}"
        self._key = key
        self.name = name

    @property
    def filesystem(self) -> fs.FileSystem:
        """The filesystem that `path` refers to, for libraries that write below the stage themselves."""
        return self._fs

    def path(self, name: str = "") -> str:
        """Path of a file within the filesystem of the run folder."""
        return f"{self._root}/{name}" if name else self._root

    def shown(self, name: str = "") -> str:
        """The same for messages: a URI where it is in an object store."""
        return shown_path(self._fs, self.path(name))

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        with self._errors(name, "read"):
            return bool(self._fs.get_file_info(self.path(name)).type == fs.FileType.File)

    def files(self, prefix: str = "") -> list[str]:
        """Names of the committed files below `prefix` (a folder within the stage), sorted."""
        return [name for name in self._all_files(prefix) if not _TEMPORARY.search(name)]

    def _all_files(self, prefix: str = "") -> list[str]:
        start = len(self._root) + 1
        return sorted(info.path[start:] for info in self._file_infos(prefix))

    def _file_infos(self, prefix: str = "") -> list[fs.FileInfo]:
        selector = fs.FileSelector(self.path(prefix), allow_not_found=True, recursive=True)
        with self._errors(prefix, "read"):
            infos = self._fs.get_file_info(selector)
        return [info for info in infos if info.type == fs.FileType.File]

    @contextlib.contextmanager
    def open_output(self, name: str) -> Iterator[IO[bytes]]:
        """Open a new file for writing; it appears under its name when the block ends without an error."""
        write = self._uploaded if is_object_store(self._fs) else self._renamed
        with self._errors(name, "written"), write(self.path(name)) as stream:
            yield stream

    @contextlib.contextmanager
    def _renamed(self, final: str) -> Iterator[IO[bytes]]:
        temporary = final + f".tmp-{uuid.uuid4().hex[:12]}"
        self._fs.create_dir(os.path.dirname(final), recursive=True)
        try:
            with self._fs.open_output_stream(temporary) as stream:
                yield stream
            self._fs.move(temporary, final)
        except BaseException:
            with contextlib.suppress(OSError):
                self._fs.delete_file(temporary)
            raise

    @contextlib.contextmanager
    def _uploaded(self, final: str) -> Iterator[IO[bytes]]:
        """Closing a stream to an object store commits what it has, also behind an error, and a rename there is a copy.

        Hence a file of the disk is written first, and uploaded when it is whole.
        """
        with tempfile.NamedTemporaryFile(prefix="sracl-") as stream:
            yield cast(IO[bytes], stream)
            stream.flush()
            fs.copy_files(
                stream.name, final, destination_filesystem=self._fs, chunk_size=UPLOAD_BLOCK_BYTES, use_threads=False
            )

    @contextlib.contextmanager
    def open_input(self, name: str) -> Iterator[pa.NativeFile]:
        """Open a file for reading at any place of it."""
        with self._errors(name, "read"), self._fs.open_input_file(self.path(name)) as stream:
            yield stream

    def write_table(
        self, name: str, table: pa.Table, numbers: Sequence[str] = (), group_rows: int | None = None
    ) -> None:
        """Commit a Parquet file.

        Args:
            name: of the file.
            table: what it holds.
            numbers: leaf columns of many different numbers, which are smaller and written in half the time when their
                bytes are split instead of looked up; there must be no text beside them.
            group_rows: rows of a row group, which is what `read_rows` reads or leaves; null makes large ones.
        """
        split = {"use_dictionary": False, "column_encoding": dict.fromkeys(numbers, "BYTE_STREAM_SPLIT")}
        with self.open_output(name) as stream:
            pq.write_table(table, stream, row_group_size=group_rows, compression="zstd", **(split if numbers else {}))

    def read_table(self, name: str, columns: list[str] | None = None, rows: pc.Expression | None = None) -> pa.Table:
        """Read a Parquet file; with `rows`, only those for which the expression holds, in little memory."""
        with self._errors(name, "read"):
            return pq.read_table(self.path(name), filesystem=self._fs, columns=columns, filters=rows)

    def read_rows(self, name: str, wanted: NDArray[np.bool_], columns: list[str]) -> pa.Table:
        """The rows of a Parquet file that are wanted; row groups without any are not read.

        Args:
            name: of the file.
            wanted: [N] of its rows, which ones.
            columns: to read.

        Raises:
            StorageError: the file has another number of rows, or cannot be read.
        """
        with self._errors(name, "read"), pq.ParquetFile(self.path(name), filesystem=self._fs) as file:
            sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            if sum(sizes) != len(wanted):
                raise StorageError(
                    f"{self.shown(name)} has {sum(sizes):,} rows and should have {len(wanted):,}; run the stage "
                    f"{self.name} again."
                )
            parts = np.split(wanted, np.cumsum(sizes)[:-1])
            read = [number for number, part in enumerate(parts) if part.any()]
            table = file.read_row_groups(read, columns)
        rows = np.concatenate([wanted[:0], *(parts[number] for number in read)])
        return table if rows.all() else table.filter(pa.array(rows))

    def read_shards(self, prefix: str, columns: list[str] | None = None, rows: pc.Expression | None = None) -> pa.Table:
        """Read and join all Parquet shards below `prefix`, in the order of their names; arguments as in `read_table`.

        Raises:
            StorageError: there is none.
        """
        names = [name for name in self.files(prefix) if name.endswith(".parquet")]
        if not names:
            raise StorageError(f"{self.shown(prefix)} holds no table; run the stage {self.name} again.")
        return pa.concat_tables([self.read_table(name, columns, rows) for name in names])

    def num_values(self, name: str, column: str) -> int:
        """Values that a column of a Parquet file has in all lists, or rows, as its metadata tells; no list is empty."""
        with self._errors(name, "read"):
            metadata = pq.read_metadata(self.path(name), filesystem=self._fs)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        columns = [group.column(place) for group in groups for place in range(group.num_columns)]
        return sum(own.num_values for own in columns if own.path_in_schema.split(".")[0] == column)

    def signature(self, prefixes: Iterable[str]) -> str:
        """Tells apart what lies at some names and below some folders (with a slash behind), at any time."""
        wanted, start = tuple(prefixes), len(self._root) + 1
        infos = ((info.path[start:], info) for info in self._file_infos())
        files = [(name, info.size, info.mtime_ns) for name, info in infos if name.startswith(wanted)]
        return json.dumps([self.shown(), sorted(own for own in files if not _TEMPORARY.search(own[0]))])

    def write_json(self, name: str, value: Any) -> None:
        """Commit a JSON file."""
        self.write_bytes(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Read a JSON file."""
        try:
            return json.loads(self.read_bytes(name))
        except ValueError:
            raise StorageError(
                f"{self.shown(name)} is damaged; delete it and run the stage {self.name} again."
            ) from None

    def write_bytes(self, name: str, content: bytes) -> None:
        """Commit a file."""
        with self.open_output(name) as stream:
            stream.write(content)

    def read_bytes(self, name: str) -> bytes:
        """Read a whole file."""
        with self._errors(name, "read"), self._fs.open_input_stream(self.path(name)) as stream:
            return bytes(stream.read())

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; a missing one is fine."""
        for name in names:
            with self._errors(name, "deleted"), contextlib.suppress(FileNotFoundError):
                self._fs.delete_file(self.path(name))

    def delete_folder(self, name: str) -> None:
        """Delete a folder and all that is in it; a missing one is fine."""
        self.delete(self._all_files(name))
        if not is_object_store(self._fs):  # there a folder is no more than the names of its files
            with self._errors(name, "deleted"), contextlib.suppress(FileNotFoundError):
                self._fs.delete_dir(self.path(name))

    def manifest(self) -> Manifest | None:
        """Manifest of the finished stage, or None.

        Raises:
            StorageError: it is damaged.
        """
        if not self.exists(MANIFEST):
            return None
        try:
            return Manifest(**self.read_json(MANIFEST))
        except TypeError:
            raise StorageError(
                f"{self.shown(MANIFEST)} is damaged; delete it and run the stage {self.name} again."
            ) from None

    def begin(self, fingerprint: str, keep: Iterable[str] = ()) -> bool:
        """Prepare for work with this fingerprint; shards of other work are removed, except below the folders `keep`.

        Returns:
            Whether shards of an interrupted run with the same fingerprint may be there.
        """
        resumes = self.exists(STARTED) and self._started_fingerprint() == fingerprint
        self.delete([MANIFEST, *(name for name in self._all_files() if _TEMPORARY.search(name))])
        if not resumes:
            self.delete(name for name in self.files() if not name.startswith(tuple(keep)) and name != STARTED)
            self.write_json(STARTED, {"fingerprint": fingerprint})
        return resumes

    def _started_fingerprint(self) -> str:
        started = self.read_json(STARTED)
        if not isinstance(started, dict) or "fingerprint" not in started:
            raise StorageError(f"{self.shown(STARTED)} is damaged; delete it and run the stage {self.name} again.")
        return str(started["fingerprint"])

    def commit(self, manifest: Manifest) -> None:
        """Declare the stage done."""
        self.write_json(MANIFEST, asdict(manifest))
        self.delete([STARTED])

    def _errors(self, name: str, action: str) -> contextlib.AbstractContextManager[None]:
        return storage_errors(self.shown(name), action, self._key)


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

    @property
    def shown(self) -> str:
        """The location for messages and pages, without the key and secret that a URI may carry."""
        return shown_location(self.location)

    def shown_for(self, stage: str) -> str:
        """The same for the folder that holds this stage."""
        return self.shown if self.tables is None or stage not in TABLE_STAGES else shown_location(self.tables)

    def stage(self, name: str) -> StageFolder:
        """The part that belongs to one stage."""
        if self.tables is None or name not in TABLE_STAGES:
            return StageFolder(*self._place, name)
        return StageFolder(*self._tables_place, name, "run.tables")
