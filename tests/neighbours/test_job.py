"""The whole stage on a real Ray cluster: parts, blocks, resume, lists, updates, broken vectors, killed workers."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from brute_force import brute_force, unit
from numpy.typing import NDArray

from sracl_dist.columns import KEY, MISSING, NEIGHBOURS, SCORES, VECTOR
from sracl_dist.config import Config, parse_config
from sracl_dist.embed.vectors import FIRST_KEY, load_vectors
from sracl_dist.errors import StageError
from sracl_dist.neighbours import job, part, plan
from sracl_dist.neighbours.job import build_neighbours
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.shards import Shard
from sracl_dist.stages import STAGES

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
NUM = {"items": 90, "users": 130}
WIDTH = 12


def make_vectors(num: int, seed: int = 5, num_distinct: int = 40) -> NDArray[np.float32]:
    """With many exact duplicates."""
    random = np.random.default_rng(seed)
    return unit(random.normal(size=(num_distinct, WIDTH))[random.integers(num_distinct, size=num)])


def write_vectors(run: RunFolder, kind: str, vectors: NDArray[np.float32]) -> None:
    """In shards of 50, of which the later ones are written first."""
    folder = run.stage("embed")
    folder.delete(folder.files(f"{kind}/"))
    for start in reversed(range(0, len(vectors), 50)):
        rows = vectors[start : start + 50]
        first = start + FIRST_KEY[kind]
        column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), WIDTH)
        table = pa.table({KEY: np.arange(first, first + len(rows)), VECTOR: column})
        folder.write_table(Shard(kind, first, first + len(rows)).name, table)


def make_run(location: Path) -> RunFolder:
    run = RunFolder(str(location))
    for kind, num in NUM.items():
        write_vectors(run, kind, make_vectors(num))
    return run


def make_config(run: RunFolder, *overrides: str) -> Config:
    values = {
        "run": {"dir": run.location},
        "data": {"source": "movielens-100k"},
        "cluster": {"address": "local", "num_cpus": 2, "object_store_bytes": 80_000_000},
        "neighbours": {"num_neighbours": 5, "query_block_rows": 40},
    }
    return parse_config(values, overrides)


def build(run: RunFolder, *overrides: str, fingerprint: str = "same") -> dict[str, Any]:
    """Run the stage as the pipeline does; returns what it measured of each kind."""
    with run.working_on("neighbours", fingerprint, keep=STAGES["neighbours"].keep):
        return build_neighbours(make_config(run, *overrides), run).details["quality"]


def table_of(run: RunFolder, kind: str) -> dict[str, list]:
    return run.stage("neighbours").read_table(f"{kind}.parquet").to_pydict()


def assert_is_definition(run: RunFolder, kind: str) -> None:
    vectors, table = load_vectors(run, kind), table_of(run, kind)
    keys, scores = brute_force(vectors, FIRST_KEY[kind], 5)
    assert table[KEY] == list(range(FIRST_KEY[kind], FIRST_KEY[kind] + len(vectors)))
    assert table[NEIGHBOURS] == keys
    np.testing.assert_allclose(table[SCORES], scores, atol=1e-6)


def test_parts_resume_and_oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "one")
    quality = build(run)
    assert quality["users"]["recall"] == 1
    assert quality["users"]["num_sampled"] == quality["users"]["num_searched"] == 130
    for kind in NUM:
        assert_is_definition(run, kind)

    other = make_run(tmp_path / "two")
    searched = []
    search_block = job._search_block

    def stop_after_two(*arguments: object) -> object:
        if len(searched) == 2:
            raise KeyboardInterrupt
        searched.append(1)
        return search_block(*arguments)

    monkeypatch.setattr(job, "_search_block", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        build(other, "neighbours.num_index_shards=2")
    assert len(other.stage("neighbours").files("blocks/items/")) == 2

    resumed = []
    monkeypatch.setattr(job, "_search_block", lambda *a: resumed.append(1) or search_block(*a))
    build(other, "neighbours.num_index_shards=2")
    assert len(resumed) == 3 - 2 + 4, "blocks that were committed are not searched again"
    for kind in NUM:
        assert table_of(other, kind) == table_of(run, kind), "two parts give the same table as one, bit for bit"
    assert not other.stage("neighbours").files("blocks/")


def test_lists_are_learned_once_and_reach_the_recall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SMALLEST_LISTED", 50)
    overrides = ("neighbours.index=ivf", "neighbours.num_lists=8", "neighbours.min_recall=0.95")
    run = make_run(tmp_path / "one")
    quality = build(run, *overrides)["users"]
    assert quality["recall"] >= 0.95
    assert 1 <= quality["num_probes"] <= 8
    assert quality["index"] == "ivf"

    other = make_run(tmp_path / "two")
    search_block = job._search_block
    monkeypatch.setattr(job, "_search_block", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build(other, *overrides)
    assert other.stage("neighbours").files("index/") == [
        f"index/items.{end}" for end in ("faiss", "json", "origin.json")
    ]
    monkeypatch.setattr(job, "_search_block", search_block)
    learned = []
    train_once = job.train_once

    def note(folder: StageFolder, name: str, *others: Any) -> Any:
        learned.append(folder.exists(name))
        return train_once(folder, name, *others)

    monkeypatch.setattr(job, "train_once", note)
    build(other, *overrides, "neighbours.num_index_shards=2")
    assert learned == [True, False], "those of the items were there, those of the users not"
    assert table_of(other, "items") == table_of(run, "items")
    assert not other.stage("neighbours").files("index/")

    with pytest.raises(StageError, match=r"recall@5 of the items table is 0\.\d+, below neighbours.min_recall=1.0"):
        build(other, *overrides[:2], "neighbours.min_recall=1", "neighbours.num_probes=1", fingerprint="other")


def test_a_higher_recall_makes_lists_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SMALLEST_LISTED", 50)
    run = make_run(tmp_path)
    few = build(run, "neighbours.index=ivf", "neighbours.num_lists=16", "neighbours.min_recall=0.1")
    assert few["users"]["recall"] < 1
    more = build(run, "neighbours.index=ivf", "neighbours.num_lists=16", "neighbours.min_recall=1", fingerprint="more")
    assert more["users"]["recall"] == 1
    assert more["users"]["num_searched"] == 130


def test_blocks_of_another_plan_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SMALLEST_LISTED", 50)
    run = make_run(tmp_path)
    search_block, searched = job._search_block, []

    def stop_after_two(*arguments: object) -> object:
        if len(searched) == 2:
            raise KeyboardInterrupt
        searched.append(1)
        return search_block(*arguments)

    monkeypatch.setattr(job, "_search_block", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        build(run, "neighbours.index=ivf", "neighbours.num_lists=16", "neighbours.num_probes=1")
    assert len(run.stage("neighbours").files("blocks/items/")) == 2
    monkeypatch.setattr(job, "_search_block", search_block)
    build(run)
    assert_is_definition(run, "items")


def test_an_update_equals_a_table_made_anew(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one")
    build(run)
    users = make_vectors(130)
    grown = np.concatenate([users, make_vectors(11, seed=8), users[:3]])
    grown[20] = make_vectors(1, seed=9)[0]
    write_vectors(run, "users", grown)
    quality = build(run, fingerprint="grown")
    assert quality["items"]["num_searched"] == 0, "nothing changed there"
    assert 15 <= quality["users"]["num_searched"] < 100
    assert quality["users"]["recall"] == 1
    assert_is_definition(run, "users")
    assert_is_definition(run, "items")

    write_vectors(run, "users", grown[:120])
    quality = build(run, "neighbours.num_index_shards=2", fingerprint="shrunk")
    assert quality["users"]["num_searched"] < 120
    assert_is_definition(run, "users")

    quality = build(run, "neighbours.max_changed_share=0", fingerprint="shrunk again")
    assert quality["users"]["num_searched"] == 0, "a share of 0 keeps what is the same altogether"
    write_vectors(run, "users", make_vectors(120, seed=77))
    assert build(run, fingerprint="new model")["users"]["num_searched"] == 120
    assert_is_definition(run, "users")


def test_mutual_lists_do_not_spoil_the_next_update(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    build(run, "neighbours.mutual=true")
    table = table_of(run, "users")
    lists = {key: set(row) - {MISSING} for key, row in zip(table[KEY], table[NEIGHBOURS], strict=True)}
    assert all(key in lists[other] for key, others in lists.items() for other in others)
    assert build(run, fingerprint="all")["users"]["num_searched"] == 0
    assert_is_definition(run, "users")


def test_a_worker_killed_in_the_middle_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first query kills its worker, once; the table is complete all the same."""
    run = make_run(tmp_path)
    mark = tmp_path / "killed"
    make_part = job._make_part

    def make_mortal_part(*arguments: Any) -> Any:
        answer = make_part(*arguments)

        def answer_or_die(query: part.Query | str) -> Any:
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return answer(query)

        return answer_or_die

    monkeypatch.setattr(job, "_make_part", make_mortal_part)
    build(run, "neighbours.num_index_shards=2")
    assert mark.exists()
    for kind in NUM:
        assert_is_definition(run, kind)


def test_a_broken_vector_is_refused_with_its_key(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    vectors = make_vectors(130)
    vectors[77, 3] = np.nan
    write_vectors(run, "users", vectors)
    with pytest.raises(StageError, match="The vector of key 77 of users is not finite"):
        build(run)


def test_a_table_beyond_the_budget_is_refused_before_it_starts(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(StageError, match=r"more than neighbours\.budget_bytes=1,000"):
        build(run, "neighbours.budget_bytes=1000")
