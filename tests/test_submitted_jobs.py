"""Jobs submitted to a cluster of several nodes on this machine: logs, exit status, and nodes that are lost."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from named_shards import name_shards
from ray_nodes import ROOT, Nodes, log_of, ray_nodes, read_until, wait_until
from small_run import NUM_ITEMS, NUM_USERS, small_values, write_log
from synthetic import make_sequences, tables_of, write_run

from sracl_dist.columns import PROMPT_HASH, TEXT
from sracl_dist.config import load_config
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, stage_status
from sracl_dist.train.loop import fit, make_trainer
from sracl_dist.train.state import Progress
from sracl_dist.train.worker import Worker

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_nodes(2) as started:
        yield started


def write_config(folder: Path, values: dict[str, object]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return str(folder / "config.yaml")


@pytest.fixture
def three_nodes(nodes: Nodes) -> Nodes:
    """Replaces what another test has lost."""
    for number in range(len(nodes.raylets()), 3):
        nodes.add()
        nodes.wait_for(number + 1)
    return nodes


def texts_by_hash(run: RunFolder) -> dict[str, str]:
    """Every answer that is stored."""
    rows = run.stage("profile").read_shards("generated/")
    return dict(zip(rows[PROMPT_HASH].to_pylist(), rows[TEXT].to_pylist(), strict=True))


def curve_of(run: RunFolder) -> list[dict[str, Any]]:
    """The epochs that training has finished."""
    folder = run.stage("train")
    lines = folder.read_bytes("metrics.jsonl").splitlines() if folder.exists("metrics.jsonl") else []
    return [json.loads(line) for line in lines]


def finish_before(stage: str, config_file: str, run: RunFolder) -> None:
    """Give the stages before this one manifests as if they had been made with this configuration."""
    config = load_config(config_file)
    for name in STAGES[stage].inputs:
        for earlier in (*STAGES[name].inputs, name):
            draft = stage_status(STAGES[earlier], config, run).draft
            old = run.stage(earlier).manifest()
            draft.rows, draft.keep = old.rows if old else {}, [""]
            with run.working_on(earlier, draft.fingerprint, keep=[""]) as folder:
                folder.commit(draft)


@pytest.mark.llm
def test_a_pipeline_begins_without_nodes_and_ends_though_it_loses_some(tmp_path: Path) -> None:
    write_log(tmp_path)
    values = small_values(tmp_path) | {"cluster": {"wait_s": 120}}
    values["profile"] |= {"dtype": "float32"}  # processors that do not multiply bfloat16 would take minutes
    values["train"] |= {"epochs": 20, "patience": 20, "min_workers": 1}
    config_file, run = write_config(tmp_path, values), RunFolder(values["run"]["dir"])
    with ray_nodes(0, head_cpus=0) as nodes:
        job = nodes.submit("python", "jobs/pipeline.py", "--config", config_file)
        read_until("cluster: asking for nodes with room for 1 workers with 1 CPU each", job)
        for number in (2, 3, 4):
            nodes.add()
            nodes.wait_for(number)
        wait_until(lambda: bool(run.stage("profile").files("generated/")), job)
        nodes.lose_node("VLLM::EngineCore")
        early = texts_by_hash(run)
        wait_until(lambda: len(curve_of(run)) >= 3, job, timeout_s=400)
        nodes.lose_node("ray::RayTrainWorker")
        told = log_of(job)
    assert job.returncode == 0, told
    assert "pipeline: finished in" in told
    config = load_config(config_file)
    assert all(stage_status(stage, config, run).done for stage in STAGES.values())
    tables = [run.stage("profile").read_table(f"{kind}.parquet") for kind in ("items", "users")]
    assert [table.num_rows for table in tables] == [NUM_ITEMS, NUM_USERS]
    assert all(text for table in tables for text in table[TEXT].to_pylist())
    final = texts_by_hash(run)
    assert 0 < len(early) < len(final)
    assert final.keys() == {hash_ for table in tables for hash_ in table[PROMPT_HASH].to_pylist()}
    assert early.items() <= final.items()
    assert f"profile: answers: {len(final)} rows in" in told, "no answer came twice"
    curve = curve_of(run)
    assert len(curve) == 20
    assert [line["num_workers"] for line in (curve[0], curve[-1])] == [2, 1]


def test_a_job_takes_the_code_along_and_leaves_the_rest(three_nodes: Nodes) -> None:
    program = "import os, sracl_dist; print('HAS', sorted(os.listdir())); print('CODE', sracl_dist.__file__)"
    job = three_nodes.submit("python", "-c", program)
    told = log_of(job)
    assert job.returncode == 0, told
    line = next(line for line in told.splitlines() if line.startswith("HAS"))
    assert {"configs", "jobs", "sracl_dist"} <= set(yaml.safe_load(line.removeprefix("HAS ")))
    assert not {"tests", "docs", "runs", ".git", ".venv", "cluster"} & set(yaml.safe_load(line.removeprefix("HAS ")))
    code = next(line for line in told.splitlines() if line.startswith("CODE"))
    assert str(ROOT) not in code
    assert "working_dir_files" in code


def test_logs_and_exit_status_come_through(three_nodes: Nodes, tmp_path: Path) -> None:
    write_log(tmp_path)
    values = small_values(tmp_path)
    values.pop("cluster")
    config = write_config(tmp_path, values)
    job = three_nodes.submit("python", "jobs/prepare.py", "--config", config)
    told = log_of(job)
    assert job.returncode == 0, told
    assert "prepare: wrote items" in told
    assert RunFolder(values["run"]["dir"]).stage("prepare").read_shards("users/").num_rows == NUM_USERS
    failing = three_nodes.submit("python", "jobs/train.py", "--config", config, "run.dir=" + str(tmp_path / "other"))
    told = log_of(failing)
    assert failing.returncode == 1
    assert "error: The stage train needs the stage prepare, which is not ready" in told
    assert "Traceback" not in told.partition("Job '")[0]


@pytest.mark.fault
def test_a_large_log_is_prepared_on_all_nodes_though_workers_are_killed(three_nodes: Nodes, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    users, items, times = rng.integers(0, (3_000, 800, 100_000), (300_000, 3)).T
    columns = {"user_id": users.astype(str), "item_id": items.astype(str), "timestamp": times}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet", row_group_size=1_000)
    data = {"interactions": [str(tmp_path / "log.parquet")], "shard_rows": 3_000}
    tables = []
    for name, limit in (("alone", 1_000_000), ("shared", 100_000)):
        values = {"run": {"dir": str(tmp_path / name)}, "data": data | {"local_rows": limit}}
        config, folder = write_config(tmp_path / f"config-{name}", values), RunFolder(str(tmp_path / name))
        job = three_nodes.submit("python", "jobs/prepare.py", "--config", config)
        if name == "shared":
            for step in ("read", "events"):
                wait_until(lambda own=folder, step=step: len(own.stage("prepare").files(f"work/{step}/")) > 5, job)
                three_nodes.kill_worker("ray::_Worker.process")
        told = log_of(job)
        assert job.returncode == 0, told
        stage = folder.stage("prepare")
        tables.append({file: stage.read_table(file) for file in stage.files() if file.endswith(".parquet")})
        manifest = stage.manifest()
        assert manifest is not None
        tables[-1]["details"] = manifest.details
    assert len(tables[0]) > 200
    assert tables[0] == tables[1]


def test_a_stage_waits_for_nodes_that_come(three_nodes: Nodes, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_sequences(60))
    values = small_values(tmp_path) | {"cluster": {"wait_s": 120}}
    values["train"] = {"epochs": 1, "num_workers": 4}
    config = write_config(tmp_path, values)
    finish_before("train", config, run)
    refused = three_nodes.submit("python", "jobs/train.py", "--config", config, "cluster.wait_s=1")
    told = log_of(refused)
    assert refused.returncode == 1
    assert "has room for 3 workers with 1 CPU each after 1.0s of waiting (cluster.wait_s)" in told
    job = three_nodes.submit("python", "jobs/train.py", "--config", config)
    read_until("cluster: asking for nodes with room for 4 workers with 1 CPU each", job)
    three_nodes.add()
    told = log_of(job)
    assert job.returncode == 0, told
    assert "cluster: room for: 4 workers" in told
    assert len(curve_of(run)) == 1


def test_training_goes_on_when_a_node_is_lost(three_nodes: Nodes, tmp_path: Path) -> None:
    sequences = make_sequences(400)
    run = write_run(tmp_path / "run", sequences)
    values = small_values(tmp_path) | {"cluster": {}}
    values["train"] = {"epochs": 12, "patience": 12, "batch_rows": 8, "num_workers": 2, "max_failures": 3}
    config = write_config(tmp_path, values)
    finish_before("train", config, run)
    job = three_nodes.submit("python", "jobs/train.py", "--config", config)
    wait_until(lambda: bool(curve_of(run)), job)
    three_nodes.lose_node("ray::RayTrainWorker")
    told = log_of(job)
    assert job.returncode == 0, told
    assert "/12 epochs" in told
    assert len(curve_of(run)) == 12
    assert run.stage("train").manifest() is not None


def test_training_goes_on_with_fewer_workers_when_no_node_comes(three_nodes: Nodes, tmp_path: Path) -> None:
    sequences = make_sequences(400)
    run = write_run(tmp_path / "run", sequences)
    values = small_values(tmp_path) | {"cluster": {}}
    values["model"] |= {"dropout": 0, "attention_dropout": 0}
    values["objectives"] = {"terms": ["next_item", "cross_sequence"]}  # which draw nothing
    values["train"] = {"epochs": 12, "patience": 12, "batch_rows": 8, "num_workers": 3, "min_workers": 1}
    config_file = write_config(tmp_path, values)
    finish_before("train", config_file, run)
    job = three_nodes.submit("python", "jobs/train.py", "--config", config_file)
    wait_until(lambda: len(curve_of(run)) >= 3, job)
    three_nodes.lose_node("ray::RayTrainWorker")
    told = log_of(job)
    assert job.returncode == 0, told
    curve = curve_of(run)
    assert [line["num_workers"] for line in (curve[0], curve[-1])] == [3, 2]
    trainer = make_trainer(load_config(config_file), sequences, tables_of(run, sequences), Worker())
    alone = Progress()
    for _ in fit(trainer, alone):
        pass
    for line, expected in zip(curve, alone.history, strict=True):
        assert line["step"] == expected["step"]
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-3)


def test_training_ends_with_a_sentence_when_its_node_does_not_come_back(three_nodes: Nodes, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_sequences(400))
    values = small_values(tmp_path) | {"cluster": {}}
    values["train"] = {"epochs": 30, "patience": 30, "batch_rows": 8, "num_workers": 3}
    config = write_config(tmp_path, values)
    finish_before("train", config, run)
    shorter = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=45"  # than its minute, and longer than the silence that is told
    job = three_nodes.submit("env", shorter, "python", "jobs/train.py", "--config", config)
    wait_until(lambda: len(curve_of(run)) >= 3, job)
    three_nodes.lose_node("ray::RayTrainWorker")
    told = log_of(job)
    assert job.returncode == 1, told
    assert "train: waiting for a node: there is room for 2 of 3 workers" in told
    assert "error: train.num_workers is 3 and the cluster has room for 2 workers with 1 CPU each" in told
    assert "Traceback" not in told.partition("Job '")[0]
    job = three_nodes.submit("python", "jobs/train.py", "--config", config, "train.num_workers=2")
    told = log_of(job)
    assert job.returncode == 0, told
    num_workers = [line["num_workers"] for line in curve_of(run)]
    assert len(num_workers) == 30
    assert (num_workers[0], num_workers[-1]) == (3, 2)


def test_neighbours_are_complete_when_a_node_is_lost(three_nodes: Nodes, tmp_path: Path) -> None:
    sequences = make_sequences(6000, lengths=(3, 5))
    run = write_run(tmp_path / "run", sequences)
    name_shards(run)
    run.stage("neighbours").delete(run.stage("neighbours").files())
    values = small_values(tmp_path) | {"cluster": {}}
    values["neighbours"] = {"num_neighbours": 4, "num_index_shards": 2, "query_block_rows": 20, "num_sampled": 50}
    config = write_config(tmp_path, values)
    finish_before("neighbours", config, run)
    job = three_nodes.submit("python", "jobs/neighbours.py", "--config", config)
    wait_until(lambda: bool(run.stage("neighbours").files("blocks/users/")), job)
    three_nodes.lose_node("ray::_Worker")
    told = log_of(job)
    assert job.returncode == 0, told
    table = run.stage("neighbours").read_table("users.parquet")
    assert np.array_equal(table["key"].to_numpy(), np.arange(6000))
    quality = run.stage("neighbours").read_json("quality.json")
    assert quality["users"]["recall"] == 1.0
