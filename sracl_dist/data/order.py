"""Second step over the log: the events of a partition's users in the order of their times, each event once.

work/items/<partition>.parquet     ids of the partition's items, by first appearance
work/rejected/repeated-<partition>.parquet
                                   rows that repeat an earlier one
work/users/<partition>.parquet     ids of the partition's users, and how many events each has
work/events/<partition>.parquet    user after user: item (its place in the partition's list), time
work/events/<partition>.json       what became of the rows; written last
"""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from sracl_dist.columns import ITEM, ITEM_ID, ROW, TIME, USER, USER_ID
from sracl_dist.data.files import FileSplit, places_of_rows, sources_of
from sracl_dist.data.known_ids import KNOWN, load_known_ids
from sracl_dist.data.read import READ, REJECTED, ReadSplit, split_name
from sracl_dist.data.rejects import DUPLICATE, Rejects
from sracl_dist.data.times import rescaled
from sracl_dist.run_folder import StageFolder

ITEM_LISTS, USER_LISTS, EVENTS, REPEATED = "work/items/", "work/users/", "work/events/", f"{REJECTED}repeated-"
LENGTH = "length"
"""Column with the events of a user."""
NUM_KEPT, NUM_REPEATED, NUM_OVER_LIMIT = "num_kept", "num_repeated", "num_over_limit"


def partition_name(folder: str, partition: int, ending: str = "parquet") -> str:
    """Name of a partition's file below a folder of the stage."""
    return f"{folder}{partition:06d}.{ending}"


def names_of_partition(partition: int) -> set[str]:
    """Files of a partition that is in order."""
    tables = {partition_name(kind, partition) for kind in (ITEM_LISTS, REPEATED, USER_LISTS, EVENTS)}
    return tables | {partition_name(EVENTS, partition, "json")}


def make_orderer(
    folder: StageFolder,
    splits: Sequence[FileSplit],
    done: Sequence[ReadSplit],
    num_partitions: int,
    decimals: int | None,
    max_user_events: int | None,
) -> Callable[[int], None]:
    """What a task does: order a partition, leave out its repeated events, and commit what stays.

    Args:
        folder: the stage.
        splits: all of them, read.
        done: what is known of each.
        num_partitions: partitions of users.
        decimals: of the times; None where there are none, so that the order of the files is all there is.
        max_user_events: data.max_user_interactions.
    """
    known, sources = load_known_ids(folder, USER_ID), sources_of(splits)

    def order(partition: int) -> None:
        rows = _gathered(folder, splits, done, num_partitions, partition, decimals or 0)
        events, users, items = _numbered(rows, known)
        del rows
        num_over = 0
        events = events.sort(*([USER] if decimals is None else _time_order(events)), maintain_order=True)
        is_repeated = _repeated(events) if decimals is not None else pl.repeat(value=False, n=len(events), eager=True)
        again = events.filter(is_repeated).sort(ROW).join(items, on=ITEM, maintain_order="left")
        folder.write_table(partition_name(REPEATED, partition), _rejects(again, sources))
        events = events.filter(~is_repeated)
        if max_user_events is not None:
            num_before = len(events)
            events = events.filter(pl.int_range(pl.len(), 0, -1).over(USER) <= max_user_events)
            num_over = num_before - len(events)
        lengths = events.group_by(USER, maintain_order=True).len(LENGTH)
        folder.write_table(partition_name(ITEM_LISTS, partition), _to_arrow(items.select(ITEM_ID)))
        users = users.join(lengths, on=USER, maintain_order="left").select(USER_ID, pl.col(LENGTH).cast(pl.Int32))
        folder.write_table(partition_name(USER_LISTS, partition), _to_arrow(users))
        folder.write_table(
            partition_name(EVENTS, partition), _to_arrow(events.select(pl.col(ITEM).cast(pl.Int32), TIME)), (ITEM, TIME)
        )
        counts = {NUM_KEPT: len(events), NUM_REPEATED: len(again), NUM_OVER_LIMIT: num_over}
        folder.write_json(partition_name(EVENTS, partition, "json"), counts)

    return order


def _gathered(
    folder: StageFolder,
    splits: Sequence[FileSplit],
    done: Sequence[ReadSplit],
    num_partitions: int,
    partition: int,
    decimals: int,
) -> pa.Table:
    """The partition's rows in the order of the files."""
    batches = []
    for split, own in zip(splits, done, strict=True):
        with folder.open_input(split_name(READ, split)) as stream, pa.ipc.open_file(stream) as file:
            for block, block_decimals in enumerate(own.block_decimals):
                batch = file.get_batch(block * num_partitions + partition)
                times = rescaled(batch.column(TIME).to_numpy(), block_decimals, decimals)
                batches.append(batch.set_column(batch.schema.get_field_index(TIME), TIME, pa.array(times)))
    return pa.Table.from_batches(batches).combine_chunks()


def _numbered(rows: pa.Table, known: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Events with numbers for users and items, and the ids of both by number: known users first, else by appearance."""
    columns, ids = {TIME: rows[TIME], ROW: rows[ROW]}, {}
    for name, id_name in ((USER, USER_ID), (ITEM, ITEM_ID)):
        # One pass over the ids; finding the distinct ones and joining them would be two.
        encoded = rows[id_name].combine_chunks().dictionary_encode()
        columns[name], ids[name] = encoded.indices, pl.DataFrame({id_name: pl.from_arrow(encoded.dictionary)})
    events, users = pl.DataFrame(columns), ids[USER].with_row_index("appearance")
    if len(known):
        users = users.join(known, on=USER_ID, how="left").sort(KNOWN, nulls_last=True, maintain_order=True)
        numbers = np.empty(len(users), np.uint32)
        numbers[users["appearance"].to_numpy()] = np.arange(len(users))
        events = events.with_columns(pl.Series(USER, numbers[events[USER].to_numpy()]))
    users = users.select(USER_ID).with_row_index(USER)
    events = events.select(pl.col(USER, ITEM).cast(pl.UInt32), TIME, ROW)
    return events, users, ids[ITEM].with_row_index(ITEM)


def _time_order(events: pl.DataFrame) -> list[pl.Expr]:
    """What to sort by for the order of users and times: one number where both fit, which is faster than two."""
    if not len(events):
        return [pl.col(USER)]
    first, last = events[TIME].min(), events[TIME].max()
    bits = (int(last) - int(first)).bit_length()  # type: ignore[arg-type]
    if int(events[USER].max()).bit_length() + bits > 63:  # type: ignore[arg-type]
        return [pl.col(USER), pl.col(TIME)]
    return [pl.col(USER).cast(pl.Int64) * 2**bits + (pl.col(TIME) - first)]


def _repeated(events: pl.DataFrame) -> pl.Series:
    """[E] events that equal an earlier one; they are sorted by user and time."""
    same = (pl.col(USER) == pl.col(USER).shift(1)) & (pl.col(TIME) == pl.col(TIME).shift(1))
    after = same.fill_null(value=False)
    tied = events.select(tied=after | after.shift(-1, fill_value=False)).to_series()
    # Few events are at the same time as another one of their user, and only those are compared.
    ties = events.with_row_index("place").filter(tied)
    again = ties.filter(~pl.struct(USER, TIME, ITEM).is_first_distinct())["place"]
    return tied.clear(len(tied)).fill_null(value=False).scatter(again, values=True)


def _rejects(rows: pl.DataFrame, sources: Sequence[str]) -> pa.Table:
    """The rows as the table of rejects has them, with the item of each."""
    rejects, (pieces, numbers) = Rejects(), places_of_rows(rows[ROW].to_numpy())
    for piece in np.unique(pieces).tolist():
        own = pieces == piece
        rejects.add(sources[piece], numbers[own], DUPLICATE, rows.filter(own)[ITEM_ID].to_list())
    return rejects.table()


def _to_arrow(frame: pl.DataFrame) -> pa.Table:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())
