"""The work of the stages on an S3 server that refuses every tenth request, in this process instead of Ray's workers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import map_shards, work_in_this_process
from named_shards import name_shards
from object_store import CREDENTIALS, RefusingProxy, location, s3_server
from small_run import NUM_ITEMS, NUM_USERS, small_config, write_log
from synthetic import make_config, make_sequences, write_best, write_run

from sracl_dist import recommend as recommend_stage
from sracl_dist.evaluate import job as evaluate_stage
from sracl_dist.neighbours import job as neighbours_stage
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, run_stage, stage_status

SEQUENCES = make_sequences(60)


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with s3_server() as port:
        yield port


@pytest.fixture
def proxy(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[RefusingProxy]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with RefusingProxy(server, every=10).running() as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    work_in_this_process(monkeypatch)


def test_prepare(proxy: RefusingProxy, tmp_path: Path) -> None:
    write_log(tmp_path)
    place = location(proxy.port, "prepare")
    config, run = small_config(tmp_path, f"run.dir={place}"), RunFolder(place)
    draft = stage_status(STAGES["prepare"], config, run).draft
    run_stage(STAGES["prepare"], config, run, draft)
    assert run.stage("prepare").read_shards("users/").num_rows == NUM_USERS
    assert run.stage("prepare").read_table("items.parquet").num_rows == NUM_ITEMS
    assert stage_status(STAGES["prepare"], config, run).done
    assert proxy.num_refused >= 3


def test_neighbours_evaluate_and_recommend(proxy: RefusingProxy, tmp_path: Path) -> None:
    """On S3 and on the disk alike."""
    results = []
    for place in (location(proxy.port, "stages"), str(tmp_path / "local")):
        run = write_run(place, SEQUENCES)
        name_shards(run)
        config = make_config(place, "neighbours.num_neighbours=4", "neighbours.query_block_rows=20")
        write_best(run, config, SEQUENCES, tmp_path / f"best-{len(results)}")
        neighbours_stage.build_neighbours(config, run)
        evaluate_stage.evaluate(config, run)
        recommend_stage.recommend(config, run)
        results.append(
            (
                run.stage("neighbours").read_table("users.parquet"),
                run.stage("evaluate").read_shards("ranks/"),
                run.stage("recommend").read_shards("recommendations/"),
                run.stage("evaluate").read_json("metrics.json"),
            )
        )
        assert run.stage("neighbours").files("blocks/") == []
    on_s3, on_disk = results
    assert on_s3 == on_disk
    assert np.array_equal(on_s3[1]["user"].to_numpy(), np.arange(60))
    assert proxy.num_refused >= 10


def test_an_interrupted_stage_goes_on(proxy: RefusingProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = location(proxy.port, "interrupted")
    run = write_run(place, SEQUENCES)
    config = make_config(place, "evaluate.shard_users=10")
    write_best(run, config, SEQUENCES, tmp_path / "best")
    done: list[Any] = []

    def stop_in_the_middle(make: Any, arguments: Any, shards: Sequence[Any], on_result: Any, **_: object) -> None:
        def on_some(shard: Any, result: Any) -> None:
            done.append(shard)
            if len(done) == 3:
                raise KeyboardInterrupt

        map_shards(make, arguments, shards, on_some)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate_stage, "map_shards", stop_in_the_middle)
        with pytest.raises(KeyboardInterrupt):
            evaluate_stage.evaluate(config, run)
    assert run.stage("evaluate").files("ranks/") == [shard.name for shard in done]
    evaluate_stage.evaluate(config, run)
    assert run.stage("evaluate").read_shards("ranks/")["user"].to_pylist() == list(range(60))
