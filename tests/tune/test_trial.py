"""A trial in this process: what it refuses, and what it then tells to do."""

from pathlib import Path
from typing import Any

import pytest
from tune_run import searchable

from sracl_dist.config import Config
from sracl_dist.errors import StageError, StorageError
from sracl_dist.run_folder import RunFolder
from sracl_dist.train import start
from sracl_dist.train.worker import Worker
from sracl_dist.tune.trial import train_trial


@pytest.fixture
def search(tmp_path: Path) -> tuple[Config, RunFolder]:
    return searchable(tmp_path, "train.epochs=1")


def nothing(*_: Any) -> None:
    """A listener that does not listen."""


def test_a_truncated_checkpoint_is_named_where_it_lies(search: tuple[Config, RunFolder]) -> None:
    config, run = search
    train_trial(config, run, 3, Worker(), 0, nothing)
    folder, name = run.stage("tune"), "trials/0003/last-1/optimiser.safetensors"
    folder.write_bytes(name, folder.read_bytes(name)[:100])
    message = r"^The checkpoint \S+/trials/0003/last-1/? is damaged .*; .*delete \S+/trials/0003/ to have another trial"
    with pytest.raises(StorageError, match=message):
        train_trial(config, run, 3, Worker(), 0, nothing)


def test_a_trial_that_does_not_fit_into_memory_is_refused(
    search: tuple[Config, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = search
    monkeypatch.setattr(start, "available_bytes", lambda: 1_000_000)
    with pytest.raises(
        StageError, match=r"Training needs about 0\.\d GB of memory for 2 workers and 0\.0 GB are there"
    ):
        train_trial(config, run, 0, Worker(), 0, nothing, workers_here=2)
    assert not run.stage("tune").files("trials/0000")
