"""embed: which text stands for whom, and the stage on a real cluster with the real encoder."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from small_run import NUM_ITEMS, NUM_USERS, small_config, write_log
from small_texts import item_text, sequences_of

from sracl_dist.columns import HAS_PROFILE, KEY, TEXT, VECTOR
from sracl_dist.embed.encoder import TextEncoder
from sracl_dist.embed.job import embed_texts
from sracl_dist.embed.texts import text_of, text_to_embed
from sracl_dist.embed.vectors import load_vectors
from sracl_dist.errors import StorageError
from sracl_dist.profiles.models import resolve_model
from sracl_dist.profiles.table import write_profiles
from sracl_dist.profiles.texts import TrainingTexts, load_training_texts
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, run_stage, stage_status


def test_the_text_of_items_and_users() -> None:
    items = [item_text(1), item_text(2, description="A long story."), item_text(3)]
    texts = TrainingTexts(items, sequences_of([[1, 2, 3, 1, 2], [3, 3, 2, 2]], 3))
    assert text_of(texts, "items", 1, None, "raw", 20) == "Film number 1 (Studio; Drama)"
    assert text_of(texts, "items", 2, None, "raw", 20) == "Film number 2 (Studio; Drama). A long story."
    history = "Film number 3 (Studio; Drama). Film number 2 (Studio; Drama)"
    assert text_of(texts, "users", 0, None, "raw", 2) == history, (
        "newest first, without descriptions, held-out items never"
    )


@pytest.mark.parametrize(
    ("choice", "profile", "before", "behind", "expected"),
    [
        ("raw", "P.", "A", "Z", "A. Z"),
        ("raw", None, "Who?", "Z", "Who? Z"),
        ("profile", "P.", "A", "Z", "P."),
        ("profile", None, "A", "", "A"),
        ("raw_and_profile", "P.", "A", "Z", "A. P. Z"),
        ("raw_and_profile", "P.", "", "Z", "P. Z"),
        ("raw_and_profile", None, "A", "Z", "A. Z"),
        ("raw_and_profile", None, "", "", ""),
    ],
)
def test_the_choice_of_text(choice: str, profile: str | None, before: str, behind: str, expected: str) -> None:
    assert text_to_embed(before, behind, profile, choice) == expected


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_the_stage_resumes_and_joins_by_key(tmp_path: Path) -> None:
    write_log(tmp_path)
    config = small_config(tmp_path)
    run = RunFolder(config.run.dir)
    run_stage(STAGES["prepare"], config, run, stage_status(STAGES["prepare"], config, run).draft)
    profiles = run.stage("profile")
    write_profiles(profiles, "items", [pa.table({KEY: [1, 3], TEXT: [None, "Third profile"]})])
    write_profiles(profiles, "users", [pa.table({KEY: pa.array([5]), TEXT: ["Fifth user"]})])

    result = embed_texts(config, run)
    assert result.rows == {"items": NUM_ITEMS, "users": NUM_USERS}
    meter = result.details.pop("meter")
    assert result.details == {"num_items_with_profile": 1, "num_users_with_profile": 1}
    assert meter["num_with_profile"] == {"items": 1, "users": 1}
    assert set(meter["table"]["items"]["overlap"]) == {"chance", "raw", "profile", "raw_and_profile"}
    texts = load_training_texts(run)
    encoder = TextEncoder(config.embed, resolve_model(config.embed.model))
    vectors = {kind: load_vectors(run, kind) for kind in ("items", "users")}
    for kind, key, row, profile in (
        ("items", 3, 2, "Third profile"),
        ("items", 1, 0, None),
        ("users", 5, 5, "Fifth user"),
        ("users", 23, 23, None),
    ):
        raw = text_of(texts, kind, key, None, "raw", config.embed.items_per_user)
        before, behind = (raw, "") if kind == "items" else ("", raw)
        text = text_to_embed(before, behind, profile, "raw_and_profile")
        np.testing.assert_allclose(vectors[kind][row], encoder.encode([text])[0], atol=1e-5)

    folder = run.stage("embed")
    names = folder.files("users/")
    assert len(names) == 2
    assert folder.read_table(names[0], [KEY], pc.field(HAS_PROFILE))[KEY].to_pylist() == [5]
    kept = (tmp_path / "run/embed" / names[1]).stat().st_mtime_ns
    folder.delete(names[:1])
    with pytest.raises(StorageError, match="does not hold every key once"):
        load_vectors(run, "users")
    assert embed_texts(config, run).details == result.details | {"meter": meter}, "those of committed shards count too"
    assert (tmp_path / "run/embed" / names[1]).stat().st_mtime_ns == kept, "a committed shard is not made again"
    np.testing.assert_array_equal(load_vectors(run, "users"), vectors["users"])

    embed_texts(small_config(tmp_path, "embed.shard_rows=7"), run)
    np.testing.assert_allclose(load_vectors(run, "users"), vectors["users"], atol=1e-5)

    embed_texts(small_config(tmp_path, "embed.shard_rows=9", "embed.precision=float16"), run)
    assert "halffloat" in str(folder.read_table(folder.files("users/")[0]).schema.field(VECTOR).type)
    halves = load_vectors(run, "users")
    assert halves.dtype == np.float32
    np.testing.assert_allclose(halves, vectors["users"], atol=1e-3)
