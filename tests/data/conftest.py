"""Fixtures for prepare: files of a log in a scratch folder, and the whole stage run on them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sracl_dist.config import parse_config
from sracl_dist.run_folder import Manifest, RunFolder
from sracl_dist.stages import STAGES, run_stage, stage_status


@dataclass
class Prepared:
    run: RunFolder
    manifest: Manifest

    def table(self, name: str) -> pa.Table:
        folder = self.run.stage("prepare")
        return (
            folder.read_shards(f"{name}/") if name in ("users", "sequences") else folder.read_table(f"{name}.parquet")
        )

    def rejects(self) -> list[tuple[str, int, str, str]]:
        return [tuple(row.values()) for row in self.table("rejects").to_pylist()]

    def histories(self) -> dict[str, list[str]]:
        """The users' own ids with the own ids of their items."""
        items = dict(
            zip(self.table("items")["item"].to_pylist(), self.table("items")["item_id"].to_pylist(), strict=True)
        )
        lists = self.table("sequences")["items"].to_pylist()
        users = self.table("users")["user_id"].to_pylist()
        return {user: [items[item] for item in history] for user, history in zip(users, lists, strict=True)}


@pytest.fixture(autouse=True)
def _no_local_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SRACL_DATA", raising=False)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], str]:
    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., Prepared]:
    """Run the stage as a job does, with settings of `data`."""

    def prepared(**data: Any) -> Prepared:
        data = {"min_user_interactions": 1, "min_item_interactions": 1, "max_reject_share": 1.0, **data}
        config = parse_config({"run": {"dir": str(tmp_path / "run")}, "data": data})
        run = RunFolder(config.run.dir)
        status = stage_status(STAGES["prepare"], config, run)
        run_stage(STAGES["prepare"], config, run, status.draft)
        assert stage_status(STAGES["prepare"], config, run).done
        manifest = run.stage("prepare").manifest()
        assert manifest is not None
        return Prepared(run, manifest)

    return prepared
