"""Names whose bytes are not UTF-8: what works, and one sentence for what does not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from programs import JOBS
from small_run import small_values, write_log

from sracl_dist.cluster import connected
from sracl_dist.config import parse_config
from sracl_dist.config.sections import ClusterConfig
from sracl_dist.data.sources import resolve
from sracl_dist.errors import ConfigError, InputError, SetupError, StorageError
from sracl_dist.run_folder import RunFolder
from sracl_dist.secrets import without

ODD = os.fsdecode(b"b\xff")


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with such a name that holds a log."""
    write_log(tmp_path / ODD)
    return tmp_path / ODD


def prepare(config: Path, *overrides: str, folder: Path) -> tuple[int, str]:
    """Status and output of the job, which is UTF-8."""
    command = [sys.executable, str(JOBS / "prepare.py"), "--config", str(config), *overrides]
    environment = os.environ | {"TMPDIR": str(folder)}
    finished = subprocess.run(command, cwd=folder, capture_output=True, env=environment, timeout=120, check=False)
    return finished.returncode, (finished.stdout + finished.stderr).decode()


def test_a_job_runs_though_its_configuration_and_folder_have_such_names(odd: Path, tmp_path: Path) -> None:
    write_log(tmp_path)
    (odd / f"{ODD}.yaml").write_text(yaml.safe_dump(small_values(tmp_path)))
    status, output = prepare(odd / f"{ODD}.yaml", folder=odd)
    assert status == 0, output
    assert "b\\udcff.yaml" in output
    manifest = json.loads((tmp_path / "run" / "prepare" / "manifest.json").read_bytes().decode())
    assert manifest["stage"] == "prepare"


def test_a_job_says_in_one_sentence_that_a_pattern_found_such_a_name(odd: Path, tmp_path: Path) -> None:
    write_log(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(small_values(tmp_path)))
    status, output = prepare(tmp_path / "config.yaml", f"data.interactions=[{tmp_path}/b*/log.csv]", folder=tmp_path)
    assert status == 1
    assert "Traceback" not in output
    assert "error: " in output.splitlines()[-1]
    assert "b\\udcff/log.csv" in output.splitlines()[-1]


@pytest.mark.parametrize("key", ["interactions", "item_texts"])
def test_files_with_such_names_are_refused_before_they_are_read(odd: Path, tmp_path: Path, key: str) -> None:
    write_log(tmp_path)
    values = small_values(tmp_path)
    values["data"][key] = [f"{tmp_path}/b*/*.csv"]
    with pytest.raises(InputError, match=ODD):
        resolve(parse_config(values))


def test_a_public_set_in_such_a_folder_is_refused(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ml-100k.inter", "ml-100k.item"):
        (odd / "movielens-100k").mkdir(exist_ok=True)
        shutil.copy(odd / "log.csv", odd / "movielens-100k" / name)
    monkeypatch.setenv("SRACL_DATA", str(odd))
    with pytest.raises(InputError, match=ODD):
        resolve(parse_config({"run": {"dir": "unused"}, "data": {"source": "movielens-100k"}}))


def test_a_relative_run_folder_in_such_a_folder_is_refused(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(odd)
    with pytest.raises(StorageError, match=f"{ODD}.*run.dir"):
        RunFolder("run")


def test_a_cluster_is_not_started_from_such_a_folder(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # as other tests of this process may have done
    monkeypatch.chdir(odd)
    with pytest.raises(SetupError, match=ODD), connected(ClusterConfig(address="local")):
        pass


def test_a_setting_that_refers_to_such_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", ODD)
    with pytest.raises(ConfigError, match=r"run\.dir"):
        parse_config({"run": {"dir": "${oc.env:PLACE}/run"}})


def test_a_key_of_such_bytes_is_masked() -> None:
    secret = os.fsdecode(b"secret\xffkey")
    assert "secret" not in without(f"the key {secret}", secret)
