"""Checkpoints of Ray Train, whose files a stage knows by no sums, damaged: the same weights, or one sentence."""

import contextlib
import io
import shutil
from pathlib import Path

import pytest
from damage import damage, follow, require_sentence
from synthetic import make_config, make_manifest, make_sequences, write_run

from sracl_dist.errors import SraclError
from sracl_dist.run_folder import RunFolder
from sracl_dist.train.launch import train

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.timeout(1200),
    pytest.mark.usefixtures("ray_cluster"),
]
KINDS = ("cut", "other byte", "other type", "missing")


def train_in(home: Path) -> None:
    """The work of the stage, which goes on from the checkpoints that are there."""
    run = RunFolder(str(home))
    config = make_config(run.location, "train.epochs=3")
    with run.working_on("train", "f1", libraries=["checkpoints/", "local/"]) as folder:
        result = train(config, run)
        folder.commit(make_manifest("train", result.rows))


def weights(home: Path) -> tuple[bytes, bytes]:
    return tuple((home / "train" / "best" / f"{name}.safetensors").read_bytes() for name in ("model", "encoder"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("checkpoints") / "run"
    write_run(home, make_sequences(60))
    train_in(home)
    return home


@pytest.mark.parametrize("kind", KINDS)
def test_any_file_of_the_checkpoints(finished: Path, tmp_path: Path, kind: str) -> None:
    expected, home = weights(finished), tmp_path / "run"
    names = sorted(path for path in (finished / "train/checkpoints").rglob("*") if path.is_file())
    assert len(names) >= 7
    for number, path in enumerate(names):
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(finished, home)
        shutil.rmtree(home / "train/best")
        if not damage(home, str(path.relative_to(finished)), kind, (number * 0.37 + 0.11) % 1, finished):
            continue
        with contextlib.redirect_stderr(io.StringIO()) as told:
            try:
                train_in(home)
            except SraclError as error:
                require_sentence(error)
                follow(error, lambda _: train_in(home))
        assert weights(home) == expected, path
        assert "Traceback" not in told.getvalue()
