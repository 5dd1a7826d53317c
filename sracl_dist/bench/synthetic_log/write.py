"""A realistic log of any size with planted structure, written as sharded Parquet, and what was planted.

    <folder>/settings.json                      what the tables depend on; other settings need another folder
    <folder>/items/part-00000.parquet           item_id, title, brand, categories, description
    <folder>/interactions/part-00000.parquet    user_id, item_id, timestamp (int64, milliseconds since 1970)
    <folder>/facts.json                         written last: counts and parameters to check results against

A part is a function of the settings and its own number, is renamed to its name when it is whole, and carries its counts
in the metadata of the Parquet file; so a killed run goes on with the parts that are missing.
"""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from sracl_dist.bench.synthetic_log.events import STEP_SHARES, STEPS, Counts, shard_events
from sracl_dist.bench.synthetic_log.item_texts import ITEMS_PER_SHARD, interest_names, items_table
from sracl_dist.bench.synthetic_log.population import Population
from sracl_dist.bench.synthetic_log.settings import BLOCK_ITEMS, SyntheticLogSettings
from sracl_dist.columns import ITEM_ID, USER_ID
from sracl_dist.errors import ConfigError, StageError, StorageError
from sracl_dist.observe import Progress
from sracl_dist.run_folder.folder import Folder

VERSION = 1
"""Raise it when the same settings give other tables."""
TIMESTAMP = "timestamp"
COUNTS_KEY = b"sracl_dist.counts"
SETTINGS_FILE, FACTS_FILE = "settings.json", "facts.json"


def write_log(folder: str | Path, settings: SyntheticLogSettings) -> dict[str, Any]:
    """Write what is missing of the log and return the facts.

    Memory follows the rows of a shard and the number of items (per process), not the number of events or users.

    Args:
        folder: where the log goes; created when it is missing.
        settings: size and structure.

    Returns:
        What facts.json holds.

    Raises:
        ConfigError: a setting is impossible, or the folder holds a log of other settings.
        StorageError: a file cannot be written or read.
        StageError: a process died.
    """
    try:
        settings.check()
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    output = _output(folder)
    _claim(output, settings)
    num_item_shards = -(-settings.num_items // ITEMS_PER_SHARD)
    there = set(output.files())
    missing_items = [shard for shard in range(num_item_shards) if _part("items", shard) not in there]
    missing = [shard for shard in range(settings.num_shards) if _part("interactions", shard) not in there]
    population = Population(settings)
    _write_items(output, population, missing_items)
    done = settings.num_events - sum(settings.part_of(settings.num_events, shard) for shard in missing)
    progress = Progress("generate", settings.num_events, "events", done=done)
    for num in _write_all(str(folder), population, missing):
        progress.update(num)
    progress.close()
    facts = _facts(output, settings)
    output.write_json(FACTS_FILE, facts)
    return facts


def _output(folder: str | Path) -> Folder:
    path = Path(folder).expanduser().resolve()
    return Folder(fs.LocalFileSystem(), str(path), "OUTPUT_FOLDER", "jobs/generate.py")


def _part(kind: str, shard: int) -> str:
    return f"{kind}/part-{shard:05d}.parquet"


def _claim(output: Folder, settings: SyntheticLogSettings) -> None:
    """Leave the settings in the folder; refuse one with other settings, or with files of something else."""
    wanted = {"version": VERSION, **settings.identity()}
    if output.exists(SETTINGS_FILE):
        found = output.read_json(SETTINGS_FILE)
        for name, value in wanted.items():
            if found.get(name) != value:
                raise ConfigError(
                    f"{output.path()} holds a log with {name}={found.get(name)} where {value} is asked for; name "
                    f"another folder, or delete this one."
                )
        for leftover in Path(output.path()).rglob("part-*.parquet.tmp-*"):
            leftover.unlink(missing_ok=True)
    elif output.files():
        raise ConfigError(f"{output.path()} holds other files; name a new or empty folder.")
    else:
        output.write_json(SETTINGS_FILE, wanted)


def _write_items(output: Folder, population: Population, shards: list[int]) -> None:
    progress = Progress("generate item texts", len(shards), "parts")
    for shard in shards:
        output.write_table(_part("items", shard), items_table(population, shard))
        progress.update(1)
    progress.close()


def _write_all(folder: str, population: Population, shards: list[int]) -> Iterator[int]:
    """Write shards, side by side where the settings say so; yields the rows of each when it is done."""
    if population.settings.num_processes == 1 or len(shards) < 2:
        for shard in shards:
            yield _write_shard(folder, population, shard)
        return
    workers = ProcessPoolExecutor(
        min(population.settings.num_processes, len(shards)),
        mp_context=get_context("spawn"),
        initializer=_start_worker,
        initargs=(folder, population.settings),
    )
    try:
        for future in as_completed([workers.submit(_write_in_worker, shard) for shard in shards]):
            yield future.result()
    except BrokenProcessPool:
        raise StageError(
            "A process that writes the log died, perhaps for lack of memory; use fewer num_processes or a smaller "
            "events_per_shard in a new folder, or run the same command again to go on."
        ) from None
    finally:
        workers.shutdown(cancel_futures=True)


_worker: list[Any] = []
"""Folder and population of a worker process."""


def _start_worker(folder: str, settings: SyntheticLogSettings) -> None:
    _worker[:] = [folder, Population(settings)]


def _write_in_worker(shard: int) -> int:
    folder, population = _worker
    return _write_shard(folder, population, shard)


def _write_shard(folder: str, population: Population, shard: int) -> int:
    events = shard_events(population, shard)
    table = pa.table(
        {
            USER_ID: population.user_ids(events.user),
            ITEM_ID: population.item_ids(events.item),
            TIMESTAMP: pa.array(events.time_ms, pa.int64()),
        },
        metadata={COUNTS_KEY: json.dumps(events.counts.values()).encode()},
    )
    with _output(folder).open_output(_part("interactions", shard)) as stream:
        pq.write_table(table, stream, compression="zstd")
    return events.counts.events


def _facts(output: Folder, settings: SyntheticLogSettings) -> dict[str, Any]:
    """Add up the counts of the parts."""
    counts = Counts()
    shares = []
    for part in _part_counts(output, settings.num_shards):
        counts.add(part)
        shares.append([round(num / max(sum(part["interest_events"]), 1), 4) for num in part["interest_events"]])
    population = Population(settings)
    bots = population.user_ids(np.arange(settings.num_humans, settings.num_users))
    human_events = counts.events - counts.bot_events
    return {
        "num_events": counts.events,
        "num_users": settings.num_users,
        "num_items": settings.num_items,
        "num_duplicates": counts.duplicates,
        "num_out_of_order": counts.out_of_order,
        "out_of_order_share": counts.out_of_order / counts.events,
        "num_bots": settings.num_bots,
        "num_bot_events": counts.bot_events,
        "bot_ids": bots.to_pylist(),
        "num_sessions": counts.sessions,
        "inside_share": counts.inside_events / human_events,
        "item_exponent": settings.item_exponent,
        "user_exponent": settings.user_exponent,
        "num_interests": settings.num_interests,
        "interests": interest_names(settings.num_interests),
        "interest_shares_first_part": shares[0],
        "interest_shares_last_part": shares[-1],
        "follow_share": settings.follow_share,
        "block_items": BLOCK_ITEMS,
        "step_shares": dict(zip(map(str, STEPS.tolist()), STEP_SHARES, strict=True)),
        "first_ms": counts.first_ms,
        "last_ms": counts.last_ms,
        "first_time": _iso(counts.first_ms),
        "last_time": _iso(counts.last_ms),
        "num_parts": settings.num_shards,
        "settings": settings.identity(),
    }


def _part_counts(output: Folder, num_shards: int) -> Iterable[dict[str, Any]]:
    for shard in range(num_shards):
        path = output.path(_part("interactions", shard))
        try:
            yield json.loads(pq.read_schema(path).metadata[COUNTS_KEY])
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            raise StorageError(f"{path} is damaged; delete it and generate again.") from None


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
