"""What `ray job submit --working-dir .` takes along, as Ray itself packs it."""

import shutil
import zipfile
from pathlib import Path

from ray._private.runtime_env.packaging import create_package

ROOT = Path(__file__).parents[2]
LEFT = (
    ".git/objects/ab/cd",
    ".pytest_cache/v",
    ".venv/lib/python3.11/site-packages/torch/lib.so",
    "data/events.csv",
    "docs/report.png",
    "runs/mine/train/best/model.safetensors",
    "sracl_dist.egg-info/PKG-INFO",
    "sracl_dist/data/__pycache__/rows.cpython-311.pyc",
    "tests/test_pipeline.py",
)
TAKEN = ("configs/mine.yaml", "jobs/train.py", "sracl_dist/data/rows.py", "sracl_dist/profiles/templates/item.txt")


def test_code_and_settings_travel_and_data_and_results_stay(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for name in (*LEFT, *TAKEN):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(name)
    for name in (".gitignore", ".rayignore"):
        shutil.copy(ROOT / name, checkout / name)
    create_package(str(checkout), tmp_path / "package.zip", include_gitignore=True)
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        files = {name for name in package.namelist() if not name.endswith("/")}
    assert files == {*TAKEN, ".gitignore", ".rayignore"}


def test_this_checkout_is_far_below_what_ray_takes(tmp_path: Path) -> None:
    create_package(str(ROOT), tmp_path / "package.zip", include_gitignore=True)
    assert (tmp_path / "package.zip").stat().st_size < 5_000_000
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        assert {"jobs/train.py", "sracl_dist/train/launch.py", "configs/demo.yaml"} <= set(package.namelist())
