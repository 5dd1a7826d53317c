"""Files below one folder, on a disk or in an object store; what is written appears whole or not at all.

A reader never sees half a file: on a disk every write goes to a temporary name first and is renamed, and an object
store takes a whole file or none.
"""

import contextlib
import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

from sracl_dist.errors import StorageError
from sracl_dist.run_folder.locations import is_object_store, shown_path, storage_errors
from sracl_dist.run_folder.plain import parse_json

UPLOAD_BLOCK_BYTES = 8 << 20
NUM_REQUESTS = 16
"""Requests to an object store side by side."""
TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{12}$")
"""End of the name of a file that is being written on a disk."""


class Folder:
    """A folder on any file system that `locations.open_location` opens.

    Args:
        filesystem: of the folder.
        root: path within it.
        key: the setting that places it, for messages.
        job: the program that writes it, for messages.
    """

    def __init__(self, filesystem: fs.FileSystem, root: str, key: str, job: str) -> None:
        self._fs, self._root, self.key, self._job = filesystem, root, key, job

    @property
    def filesystem(self) -> fs.FileSystem:
        """The file system that `path` refers to, for libraries that write below the folder themselves."""
        return self._fs

    def path(self, name: str = "") -> str:
        """Path of a file within the file system."""
        return f"{self._root}/{name}" if name else self._root

    def shown(self, name: str = "") -> str:
        """The same for messages: a URI where it is in an object store."""
        return shown_path(self._fs, self.path(name))

    @property
    def anew(self) -> str:
        """What to do about whole files that contradict each other, for messages."""
        return f"delete {self.shown()} and run {self._job}, which makes it anew"

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        with self.errors(name, "read"):
            return bool(self._fs.get_file_info(self.path(name)).type == fs.FileType.File)

    def files(self, prefix: str = "") -> list[str]:
        """Names of the whole files below `prefix` (a folder within this one), sorted."""
        return sorted(name for name in self.infos(prefix) if not TEMPORARY.search(name))

    def infos(self, prefix: str = "", *, recursive: bool = True) -> dict[str, fs.FileInfo]:
        """Everything below `prefix` that is no folder, by name; only what lies right there unless `recursive`."""
        selector = fs.FileSelector(self.path(prefix), allow_not_found=True, recursive=recursive)
        start = len(self._root) + 1
        with self.errors(prefix, "read"):
            infos = self._fs.get_file_info(selector)
        return {info.path[start:]: info for info in infos if info.type == fs.FileType.File}

    @contextlib.contextmanager
    def open_output(self, name: str) -> Iterator[IO[bytes]]:
        """Open a new file for writing; it appears under its name when the block ends without an error."""
        write = self._uploaded if is_object_store(self._fs) else self._renamed
        with self.errors(name, "written"), write(name) as stream:
            yield stream

    @contextlib.contextmanager
    def _renamed(self, name: str) -> Iterator[IO[bytes]]:
        final = self.path(name)
        temporary = final + f".tmp-{uuid.uuid4().hex[:12]}"
        self._fs.create_dir(os.path.dirname(final), recursive=True)
        try:
            with self._fs.open_output_stream(temporary) as stream:
                yield stream
            with self._appearing(name, Path(temporary)):
                self._fs.move(temporary, final)
        except BaseException:
            with contextlib.suppress(OSError):
                self._fs.delete_file(temporary)
            raise

    @contextlib.contextmanager
    def _uploaded(self, name: str) -> Iterator[IO[bytes]]:
        """Closing a stream to an object store commits what it has, also behind an error, and a rename there is a copy.

        Hence a file of the disk is written first, and uploaded when it is whole.
        """
        with tempfile.NamedTemporaryFile(prefix="sracl-") as stream:
            yield cast(IO[bytes], stream)
            stream.flush()
            with self._appearing(name, Path(stream.name)):
                fs.copy_files(
                    stream.name,
                    self.path(name),
                    destination_filesystem=self._fs,
                    chunk_size=UPLOAD_BLOCK_BYTES,
                    use_threads=False,
                )

    @contextlib.contextmanager
    def _appearing(self, name: str, content: Path) -> Iterator[None]:  # noqa: ARG002
        """Around the moment in which a file appears, whose content is in a file of this machine's disk."""
        yield

    @contextlib.contextmanager
    def open_input(self, name: str) -> Iterator[pa.NativeFile]:
        """Open a file for reading at any place of it."""
        with self.errors(name, "read"), self._fs.open_input_file(self.path(name)) as stream:
            yield stream

    def write_table(self, name: str, table: pa.Table, numbers: Sequence[str] = ()) -> None:
        """Commit a Parquet file.

        Args:
            name: of the file.
            table: what it holds.
            numbers: leaf columns of many different numbers, which are smaller and written in half the time when their
                bytes are split instead of looked up; there must be no text beside them.
        """
        split = {"use_dictionary": False, "column_encoding": dict.fromkeys(numbers, "BYTE_STREAM_SPLIT")}
        table = table.replace_schema_metadata(self._metadata(table.schema))
        with self.open_output(name) as stream:
            pq.write_table(table, stream, compression="zstd", **(split if numbers else {}))

    def write_tables(self, name: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
        """Commit a Parquet file piece by piece, so that it may be larger than memory; returns its number of rows."""
        num_rows, schema = 0, schema.with_metadata(self._metadata(schema))
        with self.open_output(name) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table.replace_schema_metadata(schema.metadata))
                num_rows += table.num_rows
        return num_rows

    def _metadata(self, schema: pa.Schema) -> dict[bytes, bytes] | None:
        """What a table of the schema carries when it is written."""
        return dict(schema.metadata or {}) or None

    def read_table(self, name: str, columns: list[str] | None = None, rows: pc.Expression | None = None) -> pa.Table:
        """Read a Parquet file; with `rows`, only those for which the expression holds, in little memory."""
        with self.open_input(name) as stream:  # pyarrow takes a path to a folder for a table of many files
            return pq.read_table(stream, columns=columns, filters=rows)

    def read_rows(self, name: str, rows: NDArray[np.int64], columns: list[str] | None = None) -> pa.Table:
        """Some rows of a Parquet file, by their rising numbers; only the row groups that hold them are read."""
        with self.open_input(name) as stream:
            file = pq.ParquetFile(stream)
            sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
            ends = np.searchsorted(rows, starts)
            pieces = [
                file.read_row_group(number, columns).take(rows[first:last] - starts[number])
                for number, (first, last) in enumerate(pairwise(ends))
                if first < last
            ]
            nothing = file.schema_arrow.empty_table().select(columns or file.schema_arrow.names)
        return pa.concat_tables([nothing, *pieces])

    def read_shards(self, prefix: str, columns: list[str] | None = None, rows: pc.Expression | None = None) -> pa.Table:
        """Read and join all Parquet shards below `prefix`, in the order of their names; arguments as in `read_table`.

        Raises:
            StorageError: there is none.
        """
        names = [name for name in self.files(prefix) if name.endswith(".parquet")]
        if not names:
            raise StorageError(f"{self.shown(prefix)} holds no table; {self.anew}.")
        return pa.concat_tables([self.read_table(name, columns, rows) for name in names])

    def num_values(self, name: str, column: str) -> int:
        """Values that a column of a Parquet file has in all lists, or rows, as its metadata tells; no list is empty."""
        with self.errors(name, "read"):
            metadata = pq.read_metadata(self.path(name), filesystem=self._fs)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        columns = [group.column(place) for group in groups for place in range(group.num_columns)]
        return sum(own.num_values for own in columns if own.path_in_schema.split(".")[0] == column)

    def signature(self, prefixes: Iterable[str]) -> str:
        """Tells apart what lies at some names and below some folders (with a slash behind), at any time."""
        wanted = tuple(prefixes)
        files = [(name, info.size, info.mtime_ns) for name, info in self.infos().items() if name.startswith(wanted)]
        return json.dumps([self.shown(), sorted(own for own in files if not TEMPORARY.search(own[0]))])

    def write_json(self, name: str, value: Any) -> None:
        """Commit a JSON file."""
        self.write_bytes(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Read a JSON file.

        Raises:
            StorageError: it cannot be read, or holds no JSON.
        """
        try:
            return parse_json(self.read_bytes(name))
        except ValueError:
            raise self.damaged(name) from None

    def damaged(self, name: str) -> StorageError:
        """The error that says so of a file."""
        return StorageError(f"{self.shown(name)} is damaged; run {self._job} again, which repairs it.")

    def write_bytes(self, name: str, content: bytes) -> None:
        """Commit a file."""
        with self.open_output(name) as stream:
            stream.write(content)

    def read_bytes(self, name: str) -> bytes:
        """Read a whole file."""
        with self.errors(name, "read"), self._fs.open_input_stream(self.path(name)) as stream:
            return bytes(stream.read())

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; a missing one is fine."""
        names = list(names)
        if is_object_store(self._fs) and len(names) > 1:  # each takes a while to answer
            with ThreadPoolExecutor(NUM_REQUESTS) as pool:
                list(pool.map(self._delete_one, names))
            return
        for name in names:
            self._delete_one(name)

    def _delete_one(self, name: str) -> None:
        with self.errors(name, "deleted"), contextlib.suppress(FileNotFoundError):
            self._fs.delete_file(self.path(name))

    def errors(self, name: str, action: str) -> contextlib.AbstractContextManager[None]:
        """Turns an error of the file system into one sentence about the file that cannot be `action`, a participle."""
        return storage_errors(self.shown(name), action, self.key, missing=self.anew)
