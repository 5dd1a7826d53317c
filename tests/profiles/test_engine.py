"""What an engine asks of the cluster: nothing that could wait for ever."""

from pathlib import Path
from typing import Any

import pytest
from small_prompts import to_ask

from sracl_dist import cluster as cluster_module
from sracl_dist.cluster import Cluster
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.errors import SetupError
from sracl_dist.profiles import engine
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.run_folder import RunFolder


def make_cluster(num_nodes: int, cpus_per_node: int, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    nodes = [{"Alive": True, "Resources": {"CPU": float(cpus_per_node)}} for _ in range(num_nodes)]
    monkeypatch.setattr(cluster_module.ray, "nodes", lambda: nodes)
    return Cluster(num_gpus=0, is_local=num_nodes == 1)


def bundle(config: ProfileConfig, cluster: Cluster) -> float:
    settings = engine._processor_config("model", config, cluster, engine._require_room(config, cluster))
    return float(settings.placement_group_config["bundles"][0]["CPU"])


@pytest.mark.parametrize(
    ("num_nodes", "cpus_per_node", "num_replicas", "expected"),
    [(1, 2, 1, 1), (1, 1, 1, 0.5), (1, 8, 2, 3), (4, 8, 1, 7), (4, 8, 4, 7), (4, 8, 8, 3)],
)
def test_an_engine_fits_on_one_node_and_leaves_room(
    num_nodes: int, cpus_per_node: int, num_replicas: int, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster(num_nodes, cpus_per_node, monkeypatch)
    config = ProfileConfig(num_replicas=num_replicas)
    assert bundle(config, cluster) == expected
    assert num_replicas * expected < cluster.num_cpus


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_replicas": 2}, "2 engines leave none"),
        ({"cpus_per_replica": 64}, "profile.num_replicas is 1 and the cluster has room for 0 workers with 63 CPU each"),
        ({"num_replicas": 8}, "profile.num_replicas is 8 and the cluster has room for 4 workers with 0.5 CPU each"),
    ],
)
def test_what_could_never_start_is_refused(
    settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster(1, 2, monkeypatch)
    if settings == {"num_replicas": 2}:
        settings = {"num_replicas": 2, "cpus_per_replica": 2}
    with pytest.raises(SetupError, match=message):
        engine._require_room(ProfileConfig(**settings), cluster)


def test_cores_are_named_only_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for num_nodes, named in ((1, True), (2, False)):
        cluster = make_cluster(num_nodes, 2, monkeypatch)
        settings = engine._processor_config("model", ProfileConfig(), cluster, 2)
        environment = settings.runtime_env["env_vars"]
        assert (environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind") is not named
        assert environment["OMP_NUM_THREADS"] == "2"


def test_a_processor_without_bfloat16_gets_float32_where_the_format_is_left_open() -> None:
    for multiplies, chosen in ((True, "bfloat16"), (False, "float32")):
        settings = engine.for_cpu(ProfileConfig(), multiplies_bfloat16=multiplies)
        assert engine.engine_settings(settings, 0)["dtype"] == chosen
        named = engine.for_cpu(ProfileConfig(dtype="float16"), multiplies_bfloat16=multiplies)
        assert engine.engine_settings(named, 0)["dtype"] == "float16"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_prompts_come_in_their_order_and_in_blocks_of_a_batch(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    tokens = {key: [key] * (80 + key % 3) for key in range(70)}
    asked = [Prompt("users", key, token_ids, f"{key:032x}") for key, token_ids in tokens.items()]
    prompts, _ = to_ask(run.stage("profile"), asked, shard_rows=40)
    blocks = engine.prompt_blocks(prompts, ProfileConfig(batch_rows=8))
    tables = list(blocks.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    rows = [row for table in tables for row in table.to_pylist()]
    assert [row["tokens"] for row in rows] == list(tokens.values())
    assert max(table.num_rows for table in tables) <= 2 * 8, "small blocks, so that no answer waits for thousands"
    assert len(tables) <= 70 / 8 + 4
