"""Texts that may be more than memory holds: they lie in a temporary file, and memory has where."""

import os
import tempfile

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.errors import StorageError


class TextSpill:
    """One text for each of N places, in a file without a name, which goes when the process does."""

    def __init__(self, num_places: int) -> None:
        self._file = tempfile.TemporaryFile(prefix="sracl-texts-")  # noqa: SIM115 - lives as long as this object
        self._starts = np.full(num_places, -1, np.int64)
        self._lengths = np.zeros(num_places, np.int32)
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def has_text(self) -> NDArray[np.bool_]:
        """[N] whether the place has a text."""
        return self._starts >= 0

    def put(self, places: NDArray[np.int64], texts: pa.Array) -> None:
        """Keep texts without nulls, each at its place.

        Raises:
            StorageError: the temporary folder has no room for them.
        """
        texts = texts.cast(pa.large_binary())
        offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
        try:
            if offsets[-1] > offsets[0]:
                self._file.write(memoryview(texts.buffers()[2])[offsets[0] : offsets[-1]])
                self._file.flush()
        except OSError as error:
            raise StorageError(
                f"{tempfile.gettempdir()} has no room for {self._num_bytes / 1e9:.1f} GB of texts and more "
                f"({error.strerror}); name another folder in TMPDIR."
            ) from None
        self._starts[places] = offsets[:-1] - offsets[0] + self._num_bytes
        self._lengths[places] = np.diff(offsets)
        self._num_bytes += int(offsets[-1] - offsets[0])

    def get(self, places: NDArray[np.int64]) -> pa.Array:
        """The texts of places that have one; together they must fit into 2 GB."""
        lengths = self._lengths[places]
        number = self._file.fileno()
        starts = self._starts[places].tolist()
        content = b"".join(
            os.pread(number, length, start) for length, start in zip(lengths.tolist(), starts, strict=True)
        )
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.StringArray.from_buffers(len(places), pa.py_buffer(offsets), pa.py_buffer(content))
