"""cluster/README.md names only files and settings that there are."""

import re
from pathlib import Path

from sracl_dist.config.schema import all_keys

ROOT = Path(__file__).parents[2]
MANUAL = (ROOT / "cluster" / "README.md").read_text()


def test_every_file_is_there() -> None:
    named = set(re.findall(r"\b(?:cluster|configs|jobs|requirements)/[\w./-]*\w", MANUAL))
    assert {"cluster/aws.yaml", "cluster/slurm.sh", "jobs/pipeline.py"} <= named
    assert {name for name in named if not (ROOT / name).exists()} == {"configs/mine.yaml"}


def test_every_setting_exists() -> None:
    known = {key.name for key in all_keys()}
    sections = {name.split(".")[0] for name in known}
    named = {f"{section}.{key}" for section, key in re.findall(r"\b([a-z]+)\.([a-z_]+)(?=[=`])", MANUAL)}
    named = {name for name in named if name.split(".")[0] in sections and not name.endswith((".py", ".yaml"))}
    assert {"cluster.wait_s", "cluster.use_gpus", "train.max_failures"} <= named
    assert named <= known
