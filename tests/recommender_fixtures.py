"""Fixtures of the folders model, train and evaluate; their conftest.py files import what they use."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from synthetic import make_config, make_sequences, tables_of, write_run

from sracl_dist.config import Config
from sracl_dist.model.tables import SemanticTables
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    return make_sequences(40)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, sequences: Sequences) -> RunFolder:
    location: Path = tmp_path_factory.mktemp("run")
    return write_run(location, sequences)


@pytest.fixture
def tables(run: RunFolder, sequences: Sequences) -> SemanticTables:
    return tables_of(run, sequences)


@pytest.fixture
def config() -> Config:
    return make_config()
