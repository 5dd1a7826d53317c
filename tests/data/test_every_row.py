"""Every row of a log is kept, left out or rejected with its reason, whatever is broken, in every format."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import KEPT, LOW_RATING, OTHER_EVENT, OVER_LIMIT, Row, has_dates, judge

from sracl_dist.data import rejects

LEFT_OUT = {
    OTHER_EVENT: "rows_of_other_events",
    LOW_RATING: "rows_below_min_rating",
    OVER_LIMIT: "rows_over_max_user_interactions",
}


COLUMNS = {"user": "user_id", "item": "item_id", "time": "timestamp", "event": "event", "rating": "rating"}
"""Names of the columns in the files, by cell."""
DAMAGES = {
    ".csv": {rejects.WRONG_FIELDS, rejects.UNCLOSED_QUOTE, rejects.INVALID_UTF8},
    ".jsonl": {rejects.NOT_JSON, rejects.INVALID_UTF8},
    ".parquet": set(),
}
"""What can be wrong with a row of a format."""
_BROKEN_BYTE = "\ue000"  # becomes a byte that is not UTF-8


def written(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Write the rows that the format can express, and return them. The name ends with .csv, .jsonl or .parquet."""
    able = DAMAGES[path.suffix]
    rows = [row for row in rows if row["damage"] is None or row["damage"] in able]
    if path.suffix == ".parquet":
        arrays = {column: pa.array([row[cell] for row in rows], pa.string()) for cell, column in COLUMNS.items()}
        pq.write_table(pa.table(arrays), path)
        return rows
    head = [",".join(COLUMNS.values()).encode()] if path.suffix == ".csv" else []
    line: Callable[[Row], bytes] = _csv_line if path.suffix == ".csv" else _json_line
    path.write_bytes(b"".join(text + b"\n" for text in [*head, *map(line, rows)]))
    return rows


def _csv_line(row: Row) -> bytes:
    cells = [_quoted(cell or "") for cell in _cells(row)]
    if row["damage"] == rejects.WRONG_FIELDS:
        cells = cells[:2] if len(cells[0]) % 2 else [*cells, "one more"]
    if row["damage"] == rejects.UNCLOSED_QUOTE:
        cells = [row["user"] or ""]
    return _bytes(",".join(cells))


def _json_line(row: Row) -> bytes:
    record: dict[str, str | int | None] = dict(zip(COLUMNS.values(), _cells(row), strict=True))
    if re.fullmatch(r"0|-?[1-9]\d{0,17}", row["time"] or "", re.ASCII):
        record[COLUMNS["time"]] = int(row["time"] or "")
    text = json.dumps(record, ensure_ascii=False)
    return _bytes(text[: len(text) // 2] if row["damage"] == rejects.NOT_JSON else text)


def _cells(row: Row) -> list[str | None]:
    user = (row["user"] or "") + _BROKEN_BYTE if row["damage"] == rejects.INVALID_UTF8 else row["user"]
    return [user, *(row[cell] for cell in COLUMNS if cell != "user")]


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if "," in cell or '"' in cell else cell


def _bytes(text: str) -> bytes:
    return text.encode().replace(_BROKEN_BYTE.encode(), b"\xff")


_USERS = ["ann", "ben", "c,d", 'e"f', "ü", " g", "7"]
_ITEMS = ["tea", "cake", "a,b", '"mug"', "茶", "12"]
_TIMES = {
    False: ["0", "5", "1389657600", "1389657600.4", "1389657600.25", "1.3896576e9", "1389657600.000000001", "+5"],
    True: [
        *("2024-03-01", "2024-03-01T00:00:00Z", "2024-03-01 09:00:00 UTC", "2024-03-01T09:00:00.5"),
        *("2024-03-01T11:00:00+02:00", "2024-03-01T09:00:00.123456789Z", "2024-03-01 09:00", "2024/03/01 09:00:00"),
    ],
}
_BROKEN: dict[str, list[str | None]] = {
    "user": ["", None, "  "],
    "item": ["", None, "\t"],
    "time": [
        "",
        None,
        "nan",
        "NULL",
        "soon",
        "2024-02-30",
        "inf",
        "1:30",
        "-3",
        "-0.5",
        "1969-12-31",
        "8",
        "2024-03-02",
    ],
    "rating": ["", None, "good", "nan"],
    "damage": [rejects.WRONG_FIELDS, rejects.NOT_JSON, rejects.INVALID_UTF8],
}
_EVENTS = ["view", "cart", "purchase", None]
_RATINGS = ["1", "3.5", "4", "5e0"]


@st.composite
def logs(draw: st.DrawFn, max_rows: int = 30) -> list[Row]:
    """Rows of a log of numbers or of dates, most of them whole; the quote that stays open is in the last two lines."""
    times = st.sampled_from(_TIMES[draw(st.booleans())])
    whole = st.fixed_dictionaries(
        {
            "user": st.sampled_from(_USERS),
            "item": st.sampled_from(_ITEMS),
            "time": times,
            "event": st.sampled_from(_EVENTS),
            "rating": st.sampled_from(_RATINGS),
            "damage": st.none(),
        }
    )
    breaks = st.sampled_from(sorted(_BROKEN)).flatmap(
        lambda cell: st.sampled_from(_BROKEN[cell]).map(lambda value: {cell: value})
    )
    broken = st.tuples(whole, breaks, st.just({}) | breaks).map(lambda parts: parts[0] | parts[1] | parts[2])
    rows = draw(st.lists(st.one_of(whole, whole, broken), min_size=1, max_size=max_rows))
    if draw(st.booleans()):
        rows += [_open(text) for text in ('"ann,tea', "ben,tea,5")]
    return rows


def _open(line: str) -> Row:
    return {"user": line, "item": None, "time": None, "event": None, "rating": None, "damage": rejects.UNCLOSED_QUOTE}


def sure_rows(*, dates: bool):
    """Enough for every split to be possible, whatever else there is."""
    times = [f"2024-03-01T00:00:0{n}" if dates else str(n) for n in range(4)]
    return [
        {"user": "sure", "item": item, "time": time, "event": "cart", "rating": "5", "damage": None}
        for item, time in zip("abcd", times, strict=True)
    ]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=logs(),
    events=st.sampled_from([[], ["cart", "purchase"]]),
    min_rating=st.sampled_from([None, 3.5]),
    limit=st.sampled_from([None, 3, 4]),
    shard_rows=st.sampled_from([5, 1000]),
)
def test_every_row_is_accounted_for(prepared, tmp_path, ending, rows, events, min_rating, limit, shard_rows):
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    rows = written(tmp_path / f"log{ending}", sure_rows(dates=has_dates(rows)) + rows)
    expected = judge(rows, events=events, min_rating=min_rating, limit=limit)
    done = prepared(
        interactions=[str(tmp_path / f"log{ending}")],
        columns={"rating": "rating", "event": "event"},
        format={"encoding": "utf-8"},
        events=events,
        min_rating=min_rating,
        max_user_interactions=limit,
        shard_rows=shard_rows,
    )
    log, counts = done.manifest.details["log"], Counter(expected.outcomes)
    assert log["rows_read"] == len(rows)
    assert log["rows_kept"] == counts.pop(KEPT)
    assert {reason: log[LEFT_OUT[reason]] for reason in LEFT_OUT} == {
        reason: counts.pop(reason, 0) for reason in LEFT_OUT
    }
    assert log["rows_rejected"] == counts
    rejected = {place: reason for place, reason in enumerate(expected.outcomes, 1) if reason in counts}
    assert {row: reason for _, row, reason, _ in done.rejects()} == rejected
    own, scale = done.histories(), 10 ** done.manifest.details["times"]["decimals"]
    times = done.table("sequences")["times"].to_pylist()
    found = {
        user: [(item, Fraction(moment, scale)) for item, moment in zip(items, moments, strict=True)]
        for (user, items), moments in zip(own.items(), times, strict=True)
    }
    assert found == expected.sequences()
