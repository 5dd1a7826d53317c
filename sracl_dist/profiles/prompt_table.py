"""Millions of prompts in little memory: columns of Arrow instead of objects of Python, beyond some size on disk."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from sracl_dist.profiles.prompts import Prompt

ROWS_PER_BATCH = 4096
MAX_BYTES_IN_MEMORY = 256_000_000
"""Of one table; what comes then is written to a temporary folder, which goes with the table."""


class RowBuilder:
    """Collects rows and packs them, so that only the latest few are objects of Python."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._batches: list[pa.RecordBatch | Path] = []
        self._rows: list[tuple[Any, ...]] = []
        self._num_bytes = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._latest: tuple[Path | None, pa.RecordBatch | None] = (None, None)

    def __len__(self) -> int:
        return ROWS_PER_BATCH * len(self._batches) + len(self._rows)

    def append(self, *row: Any) -> None:
        """Add a row, its values in the order of the schema."""
        self._rows.append(row)
        if len(self._rows) == ROWS_PER_BATCH:
            batch = self._packed()
            self._num_bytes += batch.nbytes
            self._batches.append(batch if self._num_bytes <= MAX_BYTES_IN_MEMORY else self._on_disk(batch))
            self._rows = []

    def row(self, index: int) -> tuple[Any, ...]:
        """One row as it was appended."""
        number, place = divmod(index, ROWS_PER_BATCH)
        if number == len(self._batches):
            return self._rows[place]
        return tuple(column[place].as_py() for column in self._loaded(self._batches[number]).columns)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, some at a time."""
        yield from map(self._loaded, self._batches)
        yield self._packed()

    def table(self) -> pa.Table:
        """All rows."""
        return pa.Table.from_batches(self.batches(), schema=self._schema)

    def _packed(self) -> pa.RecordBatch:
        columns = zip(*self._rows, strict=True) if self._rows else [() for _ in self._schema]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _on_disk(self, batch: pa.RecordBatch) -> Path:
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="sracl-rows-")
        path = Path(self._folder.name) / f"{len(self._batches):08d}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, self._schema) as writer:
            writer.write_batch(batch)
        return path

    def _loaded(self, batch: pa.RecordBatch | Path) -> pa.RecordBatch:
        """The batch, out of its file where it has one; the latest stays, since rows are read in order."""
        if not isinstance(batch, Path):
            return batch
        if self._latest[0] != batch:
            with pa.OSFile(str(batch)) as source:
                self._latest = batch, pa.ipc.open_file(source).get_batch(0)
        return self._latest[1]


class PromptTable(Sequence[Prompt]):
    """Prompts that are packed when they are added and become objects again one by one, when they are asked for."""

    def __init__(self) -> None:
        self._rows = RowBuilder(
            pa.schema(
                [
                    ("kind", pa.string()),
                    ("key", pa.int64()),
                    ("token_ids", pa.list_(pa.int32())),
                    ("prompt_hash", pa.string()),
                    ("answer_start", pa.string()),
                    ("messages", pa.string()),
                    ("num_estimated_tokens", pa.int32()),
                    ("attempt", pa.int32()),
                    ("num_failures", pa.int32()),
                    ("wants_room", pa.bool_()),
                ]
            )
        )

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, prompt: Prompt) -> None:
        """Add a prompt behind the others."""
        self._rows.append(
            prompt.kind,
            prompt.key,
            prompt.token_ids,
            prompt.prompt_hash,
            prompt.answer_start,
            json.dumps(prompt.messages),
            prompt.num_estimated_tokens,
            prompt.attempt,
            prompt.num_failures,
            prompt.wants_room,
        )

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | list[Prompt]:
        places = range(len(self))
        if isinstance(index, slice):
            return [self._prompt(place) for place in places[index]]
        return self._prompt(places[index])

    def __iter__(self) -> Iterator[Prompt]:
        return (self._prompt(place) for place in range(len(self)))

    def part(self, start: int, stop: int) -> "PromptTable":
        """The prompts `start` to `stop` - 1."""
        part = PromptTable()
        for place in range(start, stop):
            part.append(self._prompt(place))
        return part

    def later_attempts(self) -> dict[str, tuple[int, int]]:
        """Number of the attempt and of earlier failures by hash, of the prompts that have been asked before."""
        attempts: dict[str, tuple[int, int]] = {}
        for batch in self._rows.batches():
            later = batch.filter(pc.greater(batch["attempt"], 1))
            numbers = zip(later["attempt"].to_pylist(), later["num_failures"].to_pylist(), strict=True)
            attempts.update(zip(later["prompt_hash"].to_pylist(), numbers, strict=True))
        return attempts

    def _prompt(self, place: int) -> Prompt:
        kind, key, token_ids, prompt_hash, answer_start, messages, num_tokens, *attempt, wants_room = self._rows.row(
            place
        )
        return Prompt(
            kind=kind,
            key=key,
            token_ids=token_ids,
            prompt_hash=prompt_hash,
            answer_start=answer_start,
            messages=tuple(json.loads(messages)),
            num_estimated_tokens=num_tokens,
            attempt=attempt[0],
            num_failures=attempt[1],
            wants_room=wants_room,
        )
