"""JSON that may be damaged, against the fields of a dataclass."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sracl_dist.run_folder.plain import dataclass_from, fits, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@dataclass(kw_only=True)
class Record:
    name: str
    status: Literal["open", "closed"] = "open"
    share: float = 0.5
    counts: dict[str, int] = field(default_factory=dict)
    lists: list[list[str]] = field(default_factory=list)
    note: str | None = None
    is_right: bool = True


def test_what_was_written_comes_back() -> None:
    record = Record(name="a", status="closed", counts={"b": 2}, lists=[["c"], []], note="d", share=1)
    assert dataclass_from(Record, parse_json(json.dumps(asdict(record)))) == record
    assert dataclass_from(Record, {"name": "a"}) == Record(name="a")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "no mapping"),
        (None, "no mapping"),
        ({}, "name is missing"),
        ({"name": 1}, "name has"),
        ({"name": "a", "status": "ajar"}, "status has"),
        ({"name": "a", "share": "half"}, "share has"),
        ({"name": "a", "share": True}, "share has"),
        ({"name": "a", "counts": {"b": 1.5}}, "counts has"),
        ({"name": "a", "counts": [1]}, "counts has"),
        ({"name": "a", "lists": [["b"], [1]]}, "lists has"),
        ({"name": "a", "note": []}, "note has"),
        ({"name": "a", "is_right": 1}, "is_right has"),
        ({"name": "a", "other": 1}, "'other' is no field"),
    ],
)
def test_other_values_are_refused(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        dataclass_from(Record, value)


@given(st.dictionaries(st.sampled_from(["name", "status", "share", "counts", "lists", "note", "x"]), VALUES) | VALUES)
def test_any_value_is_a_record_or_refused(value: Any) -> None:
    try:
        record = dataclass_from(Record, value)
    except ValueError:
        return
    assert isinstance(record.name, str)
    assert all(isinstance(number, int) for number in record.counts.values())
    assert fits(record.share, float)


@pytest.mark.parametrize("content", ["[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000, "9" * 5_000, ""])
def test_what_is_no_json_is_a_value_error(content: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_json(content)
