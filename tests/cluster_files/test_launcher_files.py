"""The cluster launcher's files against Ray's own validation, and the image against the lock that it installs."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
CLOUDS = ("aws", "gcp")


def load(cloud: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CLUSTER / f"{cloud}.yaml").read_text()))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_accepts_the_file_and_fills_in_the_rest(cloud: str) -> None:
    prepared = prepare_config(load(cloud))
    validate_config(prepared)
    assert prepared["provider"]["type"] == cloud
    assert "pip install -U" not in str(prepared["setup_commands"]), "Ray's own default would install another version"


@pytest.mark.parametrize("cloud", CLOUDS)
def test_workers_start_from_zero_on_spot_and_end_when_idle(cloud: str) -> None:
    config = load(cloud)
    workers = {name: node for name, node in config["available_node_types"].items() if name != config["head_node_type"]}
    assert set(workers) == {"cpu", "llm", "train"}
    for name, node in workers.items():
        assert node["min_workers"] == 0, name
        assert node["max_workers"] > 0, name
        assert "spot" in str(node["node_config"]).lower(), name
    assert "spot" not in str(config["available_node_types"]["head"]).lower()
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert config["max_workers"] >= max(node["max_workers"] for node in workers.values())


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_dashboard_is_on_loopback(cloud: str) -> None:
    config = load(cloud)
    start = next(line for line in config["head_start_ray_commands"] if "ray start" in line)
    words = shlex.split(start)
    assert "--dashboard-host=127.0.0.1" in words
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in words
    assert "0.0.0.0" not in (CLUSTER / f"{cloud}.yaml").read_text()


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_container_sees_the_gpus_of_its_node(cloud: str) -> None:
    assert "--env NVIDIA_VISIBLE_DEVICES=all" in load(cloud)["docker"]["run_options"]


def test_every_node_of_aws_has_the_image_with_a_driver_for_this_cuda() -> None:
    images = {node["node_config"].get("ImageId") for node in load("aws")["available_node_types"].values()}
    assert images == {"AMI"}, "Ray's own choice has a driver that is too old"


def docker_lines() -> list[str]:
    text = (CLUSTER / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def copied() -> set[str]:
    lines = [shlex.split(line)[1:] for line in docker_lines() if line.startswith("COPY")]
    return {word for line in lines for word in line[:-1] if not word.startswith("--")}


def test_everything_that_the_image_copies_is_there_and_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    for path in copied():
        assert (ROOT / path).exists(), path
        assert f"!{path.split('/')[0]}" in ignored, path
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    assert let_through == {path.split("/")[0] for path in copied()}


def test_the_image_has_both_targets_from_the_locks_and_no_root() -> None:
    lines = docker_lines()
    targets = re.findall(r"^FROM (\S+) AS (\S+)$", "\n".join(lines), re.MULTILINE)
    python = next(image for image, name in targets if name == "base")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    minor = python.removeprefix("python:").split("-")[0]
    assert project["requires-python"].startswith(f">={minor}")
    assert [name for _, name in targets] == ["base", "cpu", "gpu"]
    for extra in ("cpu", "gpu"):
        assert any(f"requirements/install.sh /home/ray/venv {extra}" in line for line in lines)
        assert (ROOT / "requirements" / f"{extra}.lock").exists()
        assert extra in project["optional-dependencies"]
    users = [line for line in lines if line.startswith("USER")]
    assert users == ["USER ray"]
    assert not [line for line in lines if "pip install" in line], "packages come from the lock only"
