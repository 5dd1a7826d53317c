"""A stage harms nobody's files, never mixes its shards with another program's, and trusts none that it did not write.

On a disk and on an S3 server.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_store import CREDENTIALS, location, s3_server

from sracl_dist import stages
from sracl_dist.cli import run_one
from sracl_dist.config import Config, parse_config
from sracl_dist.embed.vectors import VectorShards, load_vectors
from sracl_dist.errors import SraclError, StageOrderError, StorageError
from sracl_dist.run_folder import RunFolder, StageFolder, owner
from sracl_dist.shards import pending_shards, plan_shards
from sracl_dist.stages import Stage, StageResult, run_stage, stage_status

NUM_ROWS = 12
STEPS: list[Callable[[StageFolder], None]] = []
"""What happens before each shard is written, in order; nothing where none is left."""


def table_of(seed: int, start: int, stop: int, width: int = 4) -> pa.Table:
    values = np.random.default_rng([seed, start]).normal(size=(stop - start, width)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width)
    return pa.table({"key": pa.array(np.arange(start, stop)), "vector": column})


def write_vectors(config: Config, run: RunFolder) -> StageResult:
    """A stage of shards, as embed is one: its content depends on run.seed."""
    folder = run.stage("embed")
    for shard in pending_shards(folder, plan_shards("users", 0, NUM_ROWS, 3)):
        if STEPS:
            STEPS.pop(0)(folder)
        folder.write_table(shard.name, table_of(config.run.seed, shard.start, shard.stop))
    return StageResult(rows={"users": NUM_ROWS})


def read_vectors(config: Config, run: RunFolder) -> StageResult:
    shards = VectorShards(run, "users")
    for start in range(0, NUM_ROWS, 3):
        if STEPS:
            STEPS.pop(0)(run.stage("embed"))
        shards.read(start, start + 3)
    return StageResult(rows={"users": NUM_ROWS})


EMBED = Stage(name="embed", purpose="vectors", function=f"{__name__}:write_vectors", settings=("run.seed",))
READER = Stage(
    name="neighbours", purpose="reads them", function=f"{__name__}:read_vectors", settings=(), inputs=("embed",)
)


@pytest.fixture(autouse=True)
def two_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "STAGES", {stage.name: stage for stage in (EMBED, READER)})
    STEPS.clear()


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with s3_server() as port:
        yield port


@pytest.fixture(params=["disk", "S3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, server: int, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    unique = request.node.name.replace("[", "-").replace("]", "")
    return location(server, unique) if request.param == "S3" else str(tmp_path / "run")


def settings(seed: int) -> Config:
    return parse_config({"run": {"dir": "x", "seed": seed}, "data": {"interactions": ["log.csv"]}})


def finish(place: str, seed: int, stage: Stage = EMBED) -> None:
    config, run = settings(seed), RunFolder(place)
    run_stage(stage, config, run, stage_status(stage, config, run).draft)


def interrupt(folder: StageFolder) -> None:
    raise KeyboardInterrupt


def nothing(folder: StageFolder) -> None:
    pass


def require_vectors_of(place: str, seed: int) -> None:
    run = RunFolder(place)
    expected = [table_of(seed, start, start + 3) for start in range(0, NUM_ROWS, 3)]
    assert run.stage("embed").read_shards("users/").equals(pa.concat_tables(expected))
    assert stage_status(EMBED, settings(seed), run, thorough=True).done


def stop_after(place: str, seed: int, num_shards: int) -> None:
    STEPS[:] = [nothing] * num_shards + [interrupt]
    with pytest.raises(KeyboardInterrupt):
        finish(place, seed)


def test_a_stopped_stage_another_that_ended_and_the_first_again_do_not_mix(place: str) -> None:
    stop_after(place, 1, 2)
    finish(place, 2)
    require_vectors_of(place, 2)
    finish(place, 1)
    require_vectors_of(place, 1)


def test_a_program_that_goes_on_while_another_has_ended_commits_nothing(place: str) -> None:
    """The first was asleep for so long that the second took it for dead."""
    asleep, awake, errors = threading.Event(), threading.Event(), []

    def sleep(folder: StageFolder) -> None:
        folder.plain.delete([".lock"])
        owner.write_started(folder.plain, owner.Started(fingerprint="f1"))
        asleep.set()
        awake.wait(60)

    def first() -> None:
        try:
            finish(place, 1)
        except SraclError as error:
            errors.append(error)

    STEPS[:] = [nothing, sleep]
    thread = threading.Thread(target=first)
    thread.start()
    assert asleep.wait(60)
    finish(place, 2)
    awake.set()
    thread.join()
    assert [type(error) for error in errors] == [StorageError]
    assert "was taken over" in str(errors[0])
    require_vectors_of(place, 2)


def test_the_second_program_stops_while_the_first_works(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "ENDING_S", 0.3)
    reasons = []

    def start_second(folder: StageFolder) -> None:
        with pytest.raises(StorageError) as caught:
            finish(place, 2)
        reasons.append(str(caught.value))

    STEPS[:] = [nothing, start_second]
    finish(place, 1)
    assert re.search(r"/embed is being written by another program \(process \d+ on \S+, since 20.+\); wait", *reasons)
    require_vectors_of(place, 1)


def replaced(place: str, name: str, table: pa.Table) -> None:
    """Put another file in a file's place, as a copy by hand would."""
    folder = RunFolder(place).stage("embed").plain
    with folder.open_output(name) as stream:
        pq.write_table(table, stream)


@pytest.mark.parametrize("width", [4, 5])
def test_a_shard_of_another_run_or_width_is_made_again_by_a_resumed_stage(place: str, width: int) -> None:
    stop_after(place, 1, 3)
    replaced(place, "users/000000000003-000000000006.parquet", table_of(2, 3, 6, width))
    finish(place, 1)
    require_vectors_of(place, 1)


def test_a_shard_of_another_run_with_its_sum_is_made_again(place: str) -> None:
    """All of it copied, sum and mark included: the fingerprint tells."""
    other = f"{place}-other" if "://" not in place else place.replace("?", "-other?")
    finish(other, 2)
    stop_after(place, 1, 3)
    theirs, ours = RunFolder(other).stage("embed"), RunFolder(place).stage("embed")
    name = "users/000000000003-000000000006.parquet"
    ours.delete([name])
    for copied in (name, *(own for own in theirs.infos("sums") if name in own)):
        ours.plain.write_bytes(copied, theirs.read_bytes(copied))
    finish(place, 1)
    require_vectors_of(place, 1)


def test_a_damaged_input_is_named_and_the_advice_repairs_it(place: str) -> None:
    finish(place, 1)
    replaced(place, "users/000000000003-000000000006.parquet", table_of(2, 3, 6))
    with pytest.raises(StorageError, match=r"users/000000000003-000000000006\.parquet .+; run jobs/embed\.py, which"):
        finish(place, 1, READER)
    assert run_one(EMBED, settings(1), RunFolder(place)), "it runs, though its manifest says it is done"
    finish(place, 1, READER)
    require_vectors_of(place, 1)


def test_an_input_that_is_made_anew_while_it_is_read_is_noticed_at_the_next_table(place: str) -> None:
    finish(place, 1)
    STEPS[:] = [nothing, lambda _: finish(place, 2)]
    with pytest.raises(StorageError, match=r"\.parquet was written by other work of the stage embed"):
        finish(place, 1, READER)
    assert RunFolder(place).stage("neighbours").manifest() is None


def test_an_input_that_is_made_anew_after_the_last_table_is_noticed_at_the_end(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(place, 1)
    monkeypatch.setattr(f"{__name__}.VectorShards", lambda run, kind: finish(place, 2) or _Nothing())
    with pytest.raises(StageOrderError, match="embed was made anew while the stage neighbours read it"):
        finish(place, 1, READER)
    assert RunFolder(place).stage("neighbours").manifest() is None


class _Nothing:
    def read(self, start: int, stop: int) -> None:
        pass


def test_files_of_somebody_else_are_not_touched(place: str) -> None:
    folder = RunFolder(place).stage("embed")
    folder.plain.write_bytes("users/my notes.txt", b"mine")
    with pytest.raises(StorageError, match=r"/embed holds 'users/my notes\.txt' and nothing that a stage wrote; move"):
        finish(place, 1)
    assert folder.infos().keys() == {"users/my notes.txt"}


def test_a_folder_of_an_earlier_version_is_refused_with_what_to_do(place: str) -> None:
    finish(place, 1)
    folder = RunFolder(place).stage("embed").plain
    folder.delete(name for name in folder.files() if name.startswith("sums/"))
    before = folder.infos().keys()
    with pytest.raises(
        StorageError, match=r"/embed has no sums/.+; name another run\.dir, or delete .+ and run jobs/emb"
    ):
        finish(place, 2)
    assert folder.infos().keys() == before


def test_what_lies_beside_the_stages_files_stays(place: str) -> None:
    stop_after(place, 1, 1)
    folder = RunFolder(place).stage("embed").plain
    folder.write_bytes("users/my notes.txt", b"mine")
    folder.write_bytes("users/000000000000-000000000099.parquet", b"mine too")
    for seed in (1, 2, 1):
        finish(place, seed)
        require_vectors_of(place, seed)
    assert folder.read_bytes("users/my notes.txt") == b"mine"
    assert folder.read_bytes("users/000000000000-000000000099.parquet") == b"mine too"
    assert np.isfinite(load_vectors(RunFolder(place), "users")).all()


def test_a_file_in_the_way_is_named_and_kept(place: str) -> None:
    stop_after(place, 1, 1)
    folder = RunFolder(place).stage("embed").plain
    folder.write_bytes("users/000000000006-000000000009.parquet", b"mine")
    with pytest.raises(
        StorageError, match=r"000000000006-000000000009\.parquet is in the way, as sums/ does not list it"
    ):
        finish(place, 1)
    assert folder.read_bytes("users/000000000006-000000000009.parquet") == b"mine"
    folder.delete(["users/000000000006-000000000009.parquet"])
    finish(place, 1)
    require_vectors_of(place, 1)


@pytest.mark.parametrize("linked", ["embed", "embed/users", "embed/users/000000000000-000000000003.parquet"])
def test_links_are_not_followed(tmp_path: Path, linked: str) -> None:
    place, theirs = tmp_path / "run", tmp_path / "theirs"
    finish(str(place), 1)
    theirs.mkdir()
    (theirs / "letter.txt").write_text("dear")
    target = theirs / "letter.txt" if linked.endswith(".parquet") else theirs
    for name in sorted((place / linked).rglob("*"), reverse=True) if (place / linked).is_dir() else []:
        with suppress(IsADirectoryError):
            name.unlink()
        with suppress(NotADirectoryError, FileNotFoundError):
            name.rmdir()
    (place / linked).rmdir() if (place / linked).is_dir() else (place / linked).unlink()
    (place / linked).symlink_to(target)
    with pytest.raises(StorageError, match=rf"{linked} is a link, which no stage writes through"):
        finish(str(place), 2)
    assert (theirs / "letter.txt").read_text() == "dear"
    assert {path.name for path in theirs.iterdir()} == {"letter.txt"}


def test_every_shard_carries_the_fingerprint_of_its_stage(place: str) -> None:
    finish(place, 1)
    folder = RunFolder(place).stage("embed")
    manifest = folder.manifest()
    assert manifest is not None
    for name in folder.files():
        with folder.open_input(name) as stream:
            metadata = pq.read_schema(stream).metadata
        assert metadata[b"sracl_dist.fingerprint"] == manifest.fingerprint.encode()
