"""`~` is the home of the user in every path that a person may write."""

from pathlib import Path

import pytest

from sracl_dist import cli, packaged
from sracl_dist.config import load_config, parse_config
from sracl_dist.data.sources import resolve
from sracl_dist.profiles.template import load_template
from sracl_dist.run_folder import RunFolder

LOG = "user_id,item_id,timestamp\n" + "".join(f"u,{item},{time}\n" for time, item in enumerate("abcd"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_configuration_the_log_and_the_run_folder(home: Path) -> None:
    (home / "log.csv").write_text(LOG)
    data = "{interactions: [~/log*.csv], min_user_interactions: 1, min_item_interactions: 1}"
    (home / "mine.yaml").write_text(f"run: {{dir: ~/run}}\ndata: {data}\n")
    assert load_config("~/mine.yaml").run.dir == "~/run"
    assert cli.stage_job("prepare", "manual", ["--config", "~/mine.yaml"]) == 0
    assert RunFolder(str(home / "run")).stage("prepare").manifest() is not None


def test_a_template(home: Path) -> None:
    (home / "item.yaml").write_text("{system: You describe., message: $title}")
    assert "describe" in load_template("item", "~/item.yaml").system


@pytest.mark.parametrize("variable", [None, "SRACL_DATA"])
def test_a_public_set(home: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None) -> None:
    folder = home / "sets" / "retailrocket"
    folder.mkdir(parents=True)
    (folder / "events.csv").write_text("timestamp,visitorid,event,itemid,transactionid\n")
    if variable:
        monkeypatch.setenv(variable, "~/sets")
    data = {"source": "retailrocket", "path": None if variable else "~/sets/retailrocket"}
    found = resolve(parse_config({"run": {"dir": "run"}, "data": data}))
    assert [str(file) for file in found.log_files] == [str(folder / "events.csv")]


def test_the_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRACL_CACHE", "~/cache")
    assert packaged.cache_dir() == home / "cache"
