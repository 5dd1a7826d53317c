"""A run folder on a disk."""

from pathlib import Path

import pytest

from sracl_dist.run_folder import RunFolder, StageFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path / "run"))


@pytest.fixture
def folder(run: RunFolder) -> StageFolder:
    return run.stage("train")
