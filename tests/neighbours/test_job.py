"""The whole stage on a real Ray cluster: parts, blocks, resume, broken vectors."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sracl_dist.artifacts import RunFolder
from sracl_dist.columns import KEY, NEIGHBOURS, SCORES, VECTOR
from sracl_dist.config import Config, parse_config
from sracl_dist.errors import StageError
from sracl_dist.neighbours import job
from sracl_dist.neighbours.job import build_neighbours

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
NUM = {"items": 90, "users": 130}
WIDTH = 12


def make_run(location: Path, *, broken_user: int | None = None) -> RunFolder:
    """Vectors with many exact duplicates, in shards whose order on disk is not that of the keys."""
    random = np.random.default_rng(5)
    run = RunFolder(str(location))
    for kind, num in NUM.items():
        vectors = random.normal(size=(40, WIDTH))[random.integers(40, size=num)]
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        if kind == "users" and broken_user is not None:
            vectors[broken_user] = np.nan
        keys = np.arange(num) + (kind == "items")
        for name, rows in (("b", slice(0, 50)), ("a", slice(50, None))):
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors[rows].ravel()), WIDTH)
            run.stage("embed").write_table(f"{kind}/{name}.parquet", pa.table({KEY: keys[rows], VECTOR: column}))
    return run


def make_config(run: RunFolder, *overrides: str) -> Config:
    values = {
        "run": {"dir": run.location},
        "data": {"source": "movielens-100k"},
        "cluster": {"address": "local", "num_cpus": 2, "object_store_bytes": 80_000_000},
        "neighbours": {"num_neighbours": 5, "query_block_rows": 40},
    }
    return parse_config(values, overrides)


def table_of(run: RunFolder, kind: str) -> dict[str, list]:
    return run.stage("neighbours").read_table(f"{kind}.parquet").to_pydict()


def test_parts_resume_and_oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "one")
    result = build_neighbours(make_config(run), run)
    assert result.rows == NUM
    assert result.details["quality"]["users"] == {"recall": 1.0, "num_sampled": 130}

    vectors = job.load_vectors(run, "users").astype(np.float64)
    table = table_of(run, "users")
    assert table[KEY] == list(range(130))
    for user in (0, 57, 129):
        scores = (vectors * vectors[user]).sum(axis=1).astype(np.float32)
        others = sorted((-scores[other], other) for other in range(130) if other != user)[:5]
        assert table[NEIGHBOURS][user] == [other for _, other in others]
        np.testing.assert_allclose(table[SCORES][user], [-score for score, _ in others], atol=1e-6)

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
        build_neighbours(make_config(other, "neighbours.num_index_shards=2"), other)
    assert len(other.stage("neighbours").files("blocks/items/")) == 2

    resumed = []
    monkeypatch.setattr(job, "_search_block", lambda *a: resumed.append(1) or search_block(*a))
    build_neighbours(make_config(other, "neighbours.num_index_shards=2"), other)
    assert len(resumed) == 3 - 2 + 4, "blocks that were committed are not searched again"
    for kind in NUM:
        assert table_of(other, kind) == table_of(run, kind), "two parts give the same table as one, bit for bit"
    assert not other.stage("neighbours").files("blocks/")


def test_a_broken_vector_is_refused_with_its_key(tmp_path: Path) -> None:
    run = make_run(tmp_path, broken_user=77)
    with pytest.raises(StageError, match="1 vectors of users are not finite, the first with key 77"):
        build_neighbours(make_config(run), run)
