"""The Kubernetes resources against the schemas of KubeRay's own definitions, and against this project."""

import functools
import gzip
import importlib.metadata
import json
import os
import runpy
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from sracl_dist.stages import STAGES

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "cluster" / "kuberay"
JOBS = sorted((KUBERAY / "jobs").glob("*.yaml"))


def validate(document: dict[str, Any], kind: str) -> None:
    """Compare with the definition in $SRACL_SCHEMAS; fields that it does not know are refused."""
    folder = os.environ.get("SRACL_SCHEMAS")
    if not folder:
        pytest.skip("SRACL_SCHEMAS does not name a folder with the definitions of KubeRay")
    assert document["kind"] == kind
    validator(Path(folder) / f"{kind.lower()}s.v1.schema.json.gz").validate(document)


@functools.cache
def validator(file: Path) -> Any:
    return jsonschema.Draft202012Validator(strict(json.loads(gzip.decompress(file.read_bytes()))))


def strict(node: Any) -> Any:
    if isinstance(node, list):
        return [strict(value) for value in node]
    if not isinstance(node, dict):
        return node
    node = {name: strict(value) for name, value in node.items()}
    open_ended = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
    if isinstance(node.get("properties"), dict) and "type" in node and not open_ended:
        node["additionalProperties"] = False
    if node.get("x-kubernetes-int-or-string"):
        node.pop("type", None)
    return node


def cluster_documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERAY / "raycluster.yaml").read_text()))


def test_the_cluster_fits_its_definition() -> None:
    validate(cluster_documents()[0], "RayCluster")


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.stem)
def test_a_job_fits_its_definition(file: Path) -> None:
    validate(yaml.safe_load(file.read_text()), "RayJob")


def test_a_misspelt_field_would_be_found() -> None:
    cluster = cluster_documents()[0]
    cluster["spec"]["workerGroupSpecs"][0]["minReplica"] = 0
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        validate(cluster, "RayCluster")


def test_the_cluster_starts_from_zero_with_one_image_and_this_ray() -> None:
    spec = cluster_documents()[0]["spec"]
    assert spec["rayVersion"] == importlib.metadata.version("ray")
    assert spec["enableInTreeAutoscaling"]
    assert 0 < spec["autoscalerOptions"]["idleTimeoutSeconds"] <= 900
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "llm", "train"}
    for group in groups.values():
        assert group["replicas"] == group["minReplicas"] == 0
        assert group["maxReplicas"] > 0
    gpus = {
        name: group["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        for name, group in groups.items()
    }
    assert gpus == {"cpu": None, "llm": "4", "train": "1"}
    tolerated = {
        name: any(one["key"] == "nvidia.com/gpu" for one in group["template"]["spec"]["tolerations"])
        for name, group in groups.items()
    }
    assert tolerated == {"cpu": False, "llm": True, "train": True}, "work without a GPU must keep off GPU nodes"
    pods = [spec["headGroupSpec"]["template"]["spec"], *(group["template"]["spec"] for group in groups.values())]
    assert len({pod["containers"][0]["image"] for pod in pods}) == 1
    assert all(pod["securityContext"]["runAsNonRoot"] for pod in pods)


def test_only_the_namespace_reaches_the_dashboard() -> None:
    cluster, policy = cluster_documents()
    assert cluster["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert policy["kind"] == "NetworkPolicy"
    assert policy["spec"]["podSelector"]["matchLabels"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": {}}]}]


def test_there_is_a_job_for_every_stage_and_the_pipeline() -> None:
    rendered = runpy.run_path(str(KUBERAY / "write_jobs.py"))["render"]()
    assert {file.name: file.read_text() for file in JOBS} == rendered
    assert set(rendered) == {f"{name}.yaml" for name in [*STAGES, "pipeline"]}
    mounts = cluster_documents()[0]["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    for file in JOBS:
        program, script, option, config = shlex.split(yaml.safe_load(file.read_text())["spec"]["entrypoint"])
        assert (program, option) == ("python", "--config")
        assert (ROOT / Path(script).relative_to("/opt/sracl")).is_file()
        assert str(Path(config).parent) in {mount["mountPath"] for mount in mounts}
