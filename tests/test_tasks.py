"""What runs the tasks of a log: this process for a small one, and never for a large one."""

import pytest
import ray

from sracl_dist.config.sections import ClusterConfig
from sracl_dist.errors import SetupError
from sracl_dist.tasks import open_tasks


def test_a_small_log_is_prepared_in_this_process():
    with open_tasks(ClusterConfig(address="nobody:1"), on_ray=False) as tasks:
        assert tasks.num_workers == 0


@pytest.mark.ray
def test_a_large_log_waits_for_the_first_node_of_a_cluster_that_starts_from_zero(monkeypatch, ray_cluster):
    come = ray.nodes()
    none = [node | {"Resources": {"CPU": 0.0}} for node in come]
    looks = iter([none] * 5)
    monkeypatch.setattr(ray, "nodes", lambda: next(looks, come))
    with open_tasks(ClusterConfig(wait_s=60), on_ray=True) as tasks:
        assert tasks.num_workers == 2
    monkeypatch.setattr(ray, "nodes", lambda: none)
    with (
        pytest.raises(SetupError, match="the cluster has room for 0 workers with 1 CPU each"),
        open_tasks(ClusterConfig(), on_ray=True),
    ):
        pass
