"""What every reader of files yields: batches of rows with the wanted columns, and where each row stood."""

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import ITEM_ID, USER_ID
from sracl_dist.data.rejects import Rejects
from sracl_dist.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some rows of a file."""

    columns: dict[str, pa.Array]
    """Arrays by the pipeline's column names; text formats give strings, Parquet also numbers, times and lists."""
    numbers: NDArray[np.int64]
    """1-based number of each row among the file's data rows, or of its line in JSON lines."""

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(kw_only=True)
class Reading:
    """One file that is being read, and what has been found so far."""

    path: Path
    source: str
    """Name of the file in the table of rejects."""
    wanted: dict[str, str]
    """The file's column name by the pipeline's."""
    setting: str
    """Configuration key under which the column names stand, for messages."""
    rejects: Rejects
    separator: str = "|"
    """What separates categories within one string."""
    row_groups: range | None = None
    """Row groups of a Parquet file to read; None reads all."""
    first_row: int = 0
    """Rows of the file before those."""
    num_rows: int = 0
    """Rows read, rejected ones included."""
    num_bytes: int = 0
    """Bytes of the file consumed."""
    seen_columns: dict[str, None] = field(default_factory=dict)
    """Column names of the file, in order."""

    def count(self, num: int) -> None:
        """Count rows that were read, whatever becomes of them."""
        self.num_rows += num
        self.rejects.num_read += num

    def missing(self, name: str) -> InputError:
        """The error for a wanted column that the file lacks."""
        column = self.wanted[name]
        there = ", ".join(list(self.seen_columns)[:20]) or "none"
        mend = "to the right name" if name in (USER_ID, ITEM_ID) else "to the right name, or to null to do without"
        return InputError(f"{self.path} has no column {column!r} (it has: {there}); set {self.setting}.{name} {mend}.")


@contextlib.contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Turn whatever a damaged or missing file raises into one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the name.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path} is not a whole gzip file ({_first_line(error)}); copy or download it again."
        ) from None
    except pa.ArrowException as error:
        raise InputError(f"{path} cannot be read ({_first_line(error)}); check or write the file anew.") from None
    except OSError as error:
        reason = error.strerror or _first_line(error)
        raise InputError(f"{path} cannot be read ({reason}); check the file and its permission.") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
