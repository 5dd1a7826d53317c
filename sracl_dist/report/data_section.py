"""The data: how much there is, what was left out, and how it is divided."""

from typing import Any

import numpy as np

from sracl_dist.columns import REASON, SOURCE
from sracl_dist.report.elements import (
    TITLE_CHARS,
    Column,
    Group,
    Section,
    Table,
    clipped,
    count,
    decimal,
    details_table,
    facts_table,
    moment,
    percent,
    records_table,
)
from sracl_dist.report.lookups import Source
from sracl_dist.report.plots import histogram
from sracl_dist.run_folder import StageFolder

REJECTS = "rejects.parquet"
SPLITS = {
    "leave_last_out": "Leave-last-out: of every user the last item is for test and the one before it for validation; "
    "all earlier ones are for training.",
    "global_time": "Global time: two points in time, the same for everybody, divide training, validation and test; of "
    "every user the first item of a period is ranked.",
}


def data_section(source: Source) -> Section:
    """Counts, distributions, split and rejects."""
    folder = source.run.stage("prepare")
    manifest = folder.manifest()
    details = manifest.details if manifest else {}
    return Section(
        anchor="data",
        title="Data",
        groups=[
            _counts(source, details),
            _distributions(source),
            _split(source, details.get("split", {})),
            _rows(details),
            _rejects(folder),
        ],
    )


def _counts(source: Source, details: dict[str, Any]) -> Group:
    sequences = source.sequences
    lengths = np.diff(sequences.offsets)
    num, cells = len(sequences.items), sequences.num_users * sequences.num_items
    unseen = int((source.item_counts[1:] == 0).sum())
    facts = [
        ("users", count(sequences.num_users)),
        ("items", count(sequences.num_items)),
        ("interactions", count(num)),
        ("density", percent(num, cells)),
        ("items of a user: mean", decimal(float(lengths.mean())) if len(lengths) else count(None)),
        ("items of a user: median", decimal(float(np.median(lengths))) if len(lengths) else count(None)),
        ("items of a user: most", count(lengths.max(initial=0))),
        ("items never seen in training", count(unseen)),
    ]
    times = details.get("statistics", {}).get("time_range")
    if times:
        facts += [("first interaction", moment(times[0])), ("last interaction", moment(times[1]))]
    return Group(tables=[facts_table(facts)])


def _distributions(source: Source) -> Group:
    return Group(
        figures=[
            histogram(
                np.diff(source.sequences.offsets), "Length of histories", x_label="items of a user", y_label="users"
            ),
            histogram(
                source.item_counts[1:],
                "Popularity of items",
                x_label="training interactions of an item",
                y_label="items",
            ),
        ]
    )


def _split(source: Source, details: dict[str, Any]) -> Group:
    sequences, name = source.sequences, source.config.data.split
    num_train, num_validation = int(sequences.num_train.sum()), int(sequences.num_validation.sum())
    parts = (
        ("training", num_train, _num_users(sequences.num_train)),
        ("validation", num_validation, len(sequences.targets("validation")[0])),
        ("test", len(sequences.items) - num_train - num_validation, len(sequences.targets("test")[0])),
    )
    rows = [[part, count(num), percent(num, len(sequences.items)), count(num_users)] for part, num, num_users in parts]
    columns = [Column(title="part")]
    columns += [Column(title=title, numeric=True) for title in ("interactions", "share", "users with a target")]
    notes = [f"{SPLITS[name]} Profiles, vectors and neighbours are made from training interactions only."]
    notes += [
        f"The {part} period starts at {moment(details[key])}."
        for part, key in (("validation", "start_validation"), ("test", "start_test"))
        if key in details
    ]
    return Group(title="Split", notes=notes, tables=[Table(columns=columns, rows=rows)])


def _num_users(num_train: np.ndarray) -> int:
    """Users from whom something is learnt: a target needs an item before it."""
    return int((num_train > 1).sum())


def _rows(details: dict[str, Any]) -> Group:
    """From the files to what is kept: rows, texts, and the rounds of the k-core filter."""
    tables = [
        details_table({name: value for name, value in details[key].items() if name != "rows_rejected"}, caption)
        for key, caption in (("log", "Interaction log"), ("item_texts", "Item texts"))
        if key in details
    ]
    rounds = details.get("k_core_rounds", [])
    if rounds:
        records = [{"round": "start" if num == 0 else str(num), **each} for num, each in enumerate(rounds)]
        tables.append(records_table(records, "k-core: what is left after each round of removal"))
    return Group(title="From files to interactions", tables=tables) if tables else Group()


def _rejects(folder: StageFolder) -> Group:
    title = "Rows that were left out"
    if not folder.exists(REJECTS):
        return Group(title=title, notes=["Rejected rows were not recorded."])
    grouped = folder.read_table(REJECTS, [SOURCE, REASON]).group_by([SOURCE, REASON]).aggregate([([], "count_all")])
    records: list[dict[str, Any]] = sorted(grouped.to_pylist(), key=lambda record: -record["count_all"])
    if not records:
        return Group(title=title, notes=["No row was rejected."])
    rows = [
        [clipped(record[SOURCE], TITLE_CHARS), clipped(record[REASON], TITLE_CHARS), count(record["count_all"])]
        for record in records
    ]
    columns = [Column(title="source"), Column(title="reason"), Column(title="rows", numeric=True)]
    return Group(title=title, tables=[Table(columns=columns, rows=rows)])
