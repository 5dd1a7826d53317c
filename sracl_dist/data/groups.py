"""Files of array groups: the form in which the tasks of prepare hand rows to each other.

A file is an Arrow IPC file in which each record batch has one row and a list per array, so that arrays of different
lengths lie together and a reader fetches the groups and arrays that it needs, and no more.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.run_folder import StageFolder

Group = Mapping[str, NDArray | pa.Array]


def write_groups(folder: StageFolder, name: str, groups: Iterable[Group]) -> None:
    """Commit a file with the groups, all with the same names and types of arrays.

    Raises:
        StorageError: the file cannot be written.
    """
    with folder.open_output(name) as stream, contextlib.ExitStack() as stack:
        writer = None
        for group in groups:
            batch = _batch(group)
            if writer is None:
                writer = stack.enter_context(pa.ipc.new_file(stream, batch.schema))
            writer.write_batch(batch)
        if writer is None:
            stack.enter_context(pa.ipc.new_file(stream, pa.schema([])))


class GroupReader:
    """An open file of groups."""

    def __init__(self, file: pa.ipc.RecordBatchFileReader) -> None:
        self._file = file
        self._index = -1
        self._batch: pa.RecordBatch | None = None

    def __len__(self) -> int:
        return int(self._file.num_record_batches)

    def has(self, name: str) -> bool:
        """Whether the file has an array of this name among those that are read."""
        return name in self._file.schema.names

    def arrow(self, index: int, name: str) -> pa.Array:
        """One array of a group."""
        if self._batch is None or index != self._index:
            self._index, self._batch = index, self._file.get_batch(index)
        return self._batch.column(name)[0].values

    def numpy(self, index: int, name: str) -> NDArray:
        """One array of numbers of a group."""
        values: NDArray = self.arrow(index, name).to_numpy(zero_copy_only=False)
        return values


@contextlib.contextmanager
def open_groups(folder: StageFolder, name: str, names: Sequence[str]) -> Iterator[GroupReader]:
    """Open a file of groups to read the arrays of these names.

    Raises:
        StorageError: the file is missing or damaged.
    """
    with folder.open_input(name) as stream, pa.ipc.open_file(stream) as whole:
        fields = [place for place, field in enumerate(whole.schema) if field.name in names]
        if len(fields) == len(whole.schema):
            yield GroupReader(whole)
            return
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        with pa.ipc.open_file(stream, options=options) as some:
            yield GroupReader(some)


def _batch(group: Group) -> pa.RecordBatch:
    arrays = {}
    for name, values in group.items():
        column = values if isinstance(values, pa.Array) else pa.array(np.ascontiguousarray(values))
        arrays[name] = pa.LargeListArray.from_arrays(pa.array([0, len(column)], pa.int64()), column)
    return pa.record_batch(list(arrays.values()), list(arrays))
