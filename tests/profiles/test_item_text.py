"""Item texts come back from prepare's table as they are in it, whatever the order of its rows."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sracl_dist.errors import StorageError
from sracl_dist.profiles.item_text import StoredItems
from sracl_dist.run_folder import RunFolder

SCHEMA = pa.schema(
    [
        ("item", pa.int32()),
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("brand", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("description", pa.string()),
    ]
)
TEXT = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def stored(folder: Path, rows: list[dict[str, Any]]) -> StoredItems:
    prepare = RunFolder(str(folder)).stage("prepare")
    prepare.write_table("items.parquet", pa.Table.from_pylist(rows, schema=SCHEMA))
    return StoredItems(prepare, len(rows))


@settings(deadline=None, max_examples=20)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "item_id": st.text("abc", min_size=1, max_size=3),
                "title": TEXT,
                "brand": TEXT,
                "categories": st.none() | st.lists(st.text("xy", max_size=3), max_size=3),
                "description": TEXT,
            }
        ),
        max_size=6,
    ),
    st.randoms(),
)
def test_every_text_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], random: Any
) -> None:
    numbered = [{"item": place + 1, **row} for place, row in enumerate(rows)]
    mixed = random.sample(numbered, len(numbered))
    items = stored(tmp_path_factory.mktemp("run"), mixed)
    assert len(items) == len(rows)
    for item, row in zip(items, rows, strict=True):
        assert item.item_id == row["item_id"]
        assert (item.title, item.brand, item.description) == tuple(
            row[name] or "" for name in ("title", "brand", "description")
        )
        assert item.categories == ", ".join(row["categories"] or ())


def test_descriptions_are_read_when_one_is_wanted(tmp_path: Path) -> None:
    row = {"item": 1, "item_id": "a", "description": "Long."}
    items = stored(tmp_path, [row])
    assert items[0].line == "a"
    assert "_descriptions" not in items.__dict__
    assert items[0].description == "Long."


def test_a_missing_item_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not list items"):
        stored(tmp_path, [{"item": 1, "item_id": "a"}, {"item": 3, "item_id": "b"}])
