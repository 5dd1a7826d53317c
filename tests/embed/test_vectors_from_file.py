"""embed.items and embed.users: vectors come from files by id, are checked and scaled, and replace the encoder."""

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_run import NUM_ITEMS, NUM_USERS, small_config, write_log

from sracl_dist.cluster import Cluster
from sracl_dist.columns import HAS_PROFILE, KEY, REASON, VALUE, VECTOR
from sracl_dist.config import Config
from sracl_dist.data.rejects import NO_VECTOR, UNKNOWN_ID
from sracl_dist.embed import from_file
from sracl_dist.embed.job import embed_texts
from sracl_dist.embed.vectors import load_vectors, vectors_table
from sracl_dist.errors import InputError, StorageError
from sracl_dist.ids import load_item_ids, load_user_ids
from sracl_dist.profiles.generate import generate_profiles
from sracl_dist.run_folder import RunFolder
from sracl_dist.shards import Shard
from sracl_dist.stages import STAGES, run_stage, stage_status

Rows = list[tuple[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared run without profiles, and files `items.parquet` and `users.parquet` of 3 and 5 numbers."""
    folder = tmp_path_factory.mktemp("vectors")
    write_log(folder)
    config = config_of(folder)
    run = RunFolder(config.run.dir)
    run_stage(STAGES["prepare"], config, run, stage_status(STAGES["prepare"], config, run).draft)
    generate_profiles(config, run)
    write_rows(folder, "items.parquet", item_rows(), "item_id")
    random = np.random.default_rng(1).standard_normal((NUM_USERS, 5))
    write_rows(
        folder, "users.parquet", [(f"u{user:02d}", random[user].tolist()) for user in range(NUM_USERS)], "user_id"
    )
    return folder


def item_rows() -> Rows:
    """A vector of each item, in no order."""
    return [(f"i{item:02d}", [float(item + 1), 2.0, -0.5]) for item in np.random.default_rng(0).permutation(NUM_ITEMS)]


def config_of(folder: Path, items: list[str] | None = None, users: list[str] | None = None, *more: str) -> Config:
    items, users = ([str(folder / name) for name in names or ()] for names in (items, users))
    lists = [
        f"embed.items={json.dumps(items)}",
        f"embed.users={json.dumps(users)}",
        "embed.text=raw",
        "embed.meter_rows=0",
    ]
    return small_config(folder, "profile.engine=file", *lists, *more)


def write_rows(folder: Path, name: str, rows: Rows, column: str = "item_id", kind: pa.DataType | None = None) -> str:
    ids, vectors = [own for own, _ in rows], [vector for _, vector in rows]
    ending = name.rpartition(".")[2]
    if ending == "parquet":
        kind = kind or pa.list_(pa.float32())
        pq.write_table(pa.table({column: ids, "vector": pa.array(vectors, kind)}), folder / name)
    elif ending == "jsonl":
        (folder / name).write_text("".join(json.dumps({column: own, "vector": vector}) + "\n" for own, vector in rows))
    elif ending == "tsv":
        (folder / name).write_text(
            f"{column}\tvector\n" + "".join(f"{own}\t{json.dumps(vector)}\n" for own, vector in rows)
        )
    else:
        lines = (f"{own},{' '.join(map(repr, vector))}\n" for own, vector in rows)
        (folder / name).write_text(f"{column},vector\n" + "".join(lines))
    return name


def taken(folder: Path, items: list[str], *more: str) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Vectors of all items, and what was counted; those of the users come from their file."""
    config = config_of(folder, items, ["users.parquet"], *more)
    run = RunFolder(config.run.dir)
    run.stage("embed").delete_folder("items")
    result = embed_texts(config, run)
    return load_vectors(run, "items"), result.details["items_from_files"]


def unit(vectors: Any) -> NDArray[np.float64]:
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def expected_items(folder: Path) -> NDArray[np.float64]:
    ids = load_item_ids(RunFolder(config_of(folder).run.dir)).all().to_pylist()
    return unit([dict(item_rows())[own] for own in ids])


def test_both_replace_the_encoder_and_may_differ_in_width(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("no model and no cluster is needed")

    monkeypatch.setattr("sracl_dist.embed.job.resolve_model", fail)
    monkeypatch.setattr("sracl_dist.embed.job.connected", fail)
    vectors, counts = taken(folder, ["items.parquet"])
    np.testing.assert_allclose(vectors, expected_items(folder), atol=1e-6)
    assert counts == {"width": 3, "rows_read": NUM_ITEMS, "rows_repeated": 0, "rows_rejected": {}}
    run = RunFolder(config_of(folder).run.dir)
    users = dict(zip(*pq.read_table(folder / "users.parquet").to_pydict().values(), strict=True))
    ids = load_user_ids(run).all().to_pylist()
    np.testing.assert_allclose(load_vectors(run, "users"), unit([users[own] for own in ids]), atol=1e-6)


def test_what_has_no_file_is_encoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(_: Any, __: Any, shards: list[Shard], commit: Any, **___: Any) -> None:
        for shard in shards:
            assert shard.kind == "users"
            table = vectors_table(shard, np.eye(shard.num_rows, 7, dtype=np.float32), "float32")
            commit(shard, table.append_column(HAS_PROFILE, pa.array([False] * shard.num_rows)))

    monkeypatch.setattr(
        "sracl_dist.embed.job.connected", lambda _: contextlib.nullcontext(Cluster(num_gpus=1, is_local=True))
    )
    monkeypatch.setattr("sracl_dist.embed.workers.map_shards", encode)
    run = RunFolder(str(folder / "run"))
    run.stage("embed").delete_folder("users")
    result = embed_texts(config_of(folder, ["items.parquet"]), run)
    assert result.rows == {"items": NUM_ITEMS, "users": NUM_USERS}
    assert (load_vectors(run, "items").shape[1], load_vectors(run, "users").shape[1]) == (3, 7)
    run.stage("embed").delete_folder("users")


@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_order_and_format_of_files_do_not_matter(folder: Path, data: Any) -> None:
    rows = [*item_rows(), ("stranger", [1.0, math.pi, 1e-7]), ("i03", [4.0, 2.0, -0.5])]
    rows = [rows[place] for place in data.draw(st.permutations(range(len(rows))))]
    cut = data.draw(st.integers(1, len(rows) - 1))
    endings = [data.draw(st.sampled_from(["parquet", "jsonl", "tsv", "csv"])) for _ in range(2)]
    parts = (rows[:cut], rows[cut:])
    names = [write_rows(folder, f"part{n}.{endings[n]}", parts[n]) for n in range(2)]
    vectors, counts = taken(folder, names)
    np.testing.assert_allclose(vectors, expected_items(folder), atol=1e-6)
    assert counts["rows_rejected"] == {UNKNOWN_ID: 1}
    assert (counts["rows_repeated"], counts["rows_read"]) == (1, NUM_ITEMS + 2)


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float16()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 3)],
)
def test_types_of_lists(folder: Path, kind: pa.DataType) -> None:
    vectors, _ = taken(folder, [write_rows(folder, "typed.parquet", item_rows(), kind=kind)])
    np.testing.assert_allclose(vectors, expected_items(folder), atol=1e-6)


@pytest.mark.parametrize(
    ("own", "vector", "named"),
    [
        ("i03", [1.0, math.nan, 2.0], ["'i03'", "nan"]),
        ("i03", [1.0, math.inf, 2.0], ["'i03'", "inf"]),
        ("i03", [0.0, 0.0, 0.0], ["1 of 20", "zeros", "'i03'"]),
        ("i03", [1.0, 2.0], ["'i03'", "has 2 numbers", "has 3"]),
        ("i03", None, ["1 of 20", "'i03'"]),
        ("stranger", [1.0, 2.0, 3.0], ["1 of 20", "no vector", "'i03'"]),
        ("i04", [1.0, 2.0, 3.0], ["'i04'", "two different"]),
    ],
)
@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_wrong_vector_is_refused(folder: Path, own: str, vector: Any, named: list[str], ending: str) -> None:
    rows = [(name, own_vector) for name, own_vector in item_rows() if name != "i03"]
    with pytest.raises(InputError) as refused:
        taken(folder, [write_rows(folder, f"wrong.{ending}", [*rows, (own, vector)])])
    # JSON's NaN and Infinity are read as missing numbers.
    assert all(word in str(refused.value) or (word == "inf" and ending == "jsonl") for word in named)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("item_id,vector\n3,1 2\n", ["'3'", "'i", "embed.item_id_column"]),
        ("item_id,vector\n", ["no row"]),
        ("item_id,vector\ni03,\n", [NO_VECTOR]),
        ("item_id,vector\ni03,[]\n", [NO_VECTOR]),
        ("item_id,vector\ni03,1 two\n", ["'i03'", "'1 two'"]),
        ("item_id,vector\ni03,7\n", ["'i03'", "one number"]),
        ("item_id,numbers\ni03,1 2\n", ["embed.vector_column"]),
        ("id,vector\ni03,1 2\n", ["embed.item_id_column"]),
        ("i03,1 2\n", ["embed.format.header"]),
    ],
)
def test_files_without_vectors_are_refused(folder: Path, content: str, named: list[str]) -> None:
    (folder / "none.csv").write_text(content)
    with pytest.raises(InputError) as refused:
        taken(folder, ["none.csv"])
    assert all(word in str(refused.value) for word in named)


def test_lists_of_something_else_are_refused(folder: Path) -> None:
    write_rows(folder, "texts.parquet", [("i03", ["a"])], kind=pa.list_(pa.string()))
    with pytest.raises(InputError, match="'vector' of type list"):
        taken(folder, ["texts.parquet"])


def test_a_stage_that_was_killed_writes_only_what_is_missing(folder: Path) -> None:
    stranger: Rows = [("stranger", [1.0, 2.0, 3.0]), ("i05", None)]
    name = write_rows(folder, "more.parquet", [*stranger, *item_rows()])
    whole, _ = taken(folder, [name])
    run = RunFolder(config_of(folder).run.dir)
    embed = run.stage("embed")
    first, second = embed.files("items/")
    kept = os.stat(folder / "run/embed" / second).st_mtime_ns
    embed.delete([first])
    result = embed_texts(config_of(folder, [name], ["users.parquet"]), run)
    assert os.stat(folder / "run/embed" / second).st_mtime_ns == kept
    np.testing.assert_array_equal(load_vectors(run, "items"), whole)
    assert result.details["items_from_files"]["rows_rejected"] == {UNKNOWN_ID: 1, NO_VECTOR: 1}
    rejects = embed.read_table("rejects.parquet").to_pylist()
    assert [(row[REASON], row[VALUE]) for row in rejects] == [(UNKNOWN_ID, "stranger"), (NO_VECTOR, "i05")]


def test_precision_and_shards_are_those_of_the_encoder(folder: Path) -> None:
    vectors, _ = taken(folder, ["items.parquet"], "embed.precision=float16", "embed.shard_rows=6")
    embed = RunFolder(config_of(folder).run.dir).stage("embed")
    names = embed.files("items/")
    assert len(names) == 4
    table = embed.read_table(names[1])
    assert table.schema.field(VECTOR).type == pa.list_(pa.float16(), 3)
    assert table[KEY].to_pylist() == list(range(7, 13))
    np.testing.assert_allclose(vectors, expected_items(folder), atol=1e-3)


def test_a_changed_file_makes_the_stage_run_again(folder: Path) -> None:
    name = write_rows(folder, "changing.jsonl", item_rows())
    config, stage = config_of(folder, [name], ["users.parquet"]), STAGES["embed"]
    run = RunFolder(config.run.dir)
    run_stage(stage, config, run, stage_status(stage, config, run).draft)
    assert stage_status(stage, config, run).done
    with (folder / name).open("a") as file:
        file.write("\n")
    assert not stage_status(stage, config, run).done


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match="TMPDIR"):
        from_file._space(1000, 1000)
