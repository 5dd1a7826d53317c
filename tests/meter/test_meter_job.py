"""The meter within embed: what it finds on a log where profiles are known to be better or worse, and resuming."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from in_process import work_in_this_process
from small_run import GENRES, NUM_ITEMS, NUM_USERS, small_config, write_log
from word_counter import WordCounter

from sracl_dist.columns import KEY, TEXT
from sracl_dist.config import Config
from sracl_dist.embed.job import embed_texts
from sracl_dist.embed.vectors import load_vectors
from sracl_dist.meter.job import METER_FILE
from sracl_dist.profiles.table import write_profiles
from sracl_dist.profiles.texts import load_training_texts
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, run_stage, stage_status


@pytest.fixture
def nameless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Config, RunFolder]:
    """Items go by numbers, and only their profiles tell their genre."""
    work_in_this_process(monkeypatch)
    monkeypatch.setattr("sracl_dist.embed.encoder.TextEncoder", WordCounter)
    write_log(tmp_path)
    lines = [f"i{item:02d},number {item},,{GENRES[item % 4]}" for item in range(NUM_ITEMS)]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title,brand,categories", *lines]) + "\n")
    config = small_config(tmp_path, "embed.text=auto", "data.item_columns.categories=null")
    run = RunFolder(config.run.dir)
    run_stage(STAGES["prepare"], config, run, stage_status(STAGES["prepare"], config, run).draft)
    return config, run


def describe(run: RunFolder, *, are_good: bool) -> None:
    texts = load_training_texts(run)
    random = np.random.default_rng(0)

    def genre(item: int) -> str:
        number = int(texts.item(item).title.split()[-1]) if are_good else int(random.integers(4))
        return GENRES[number % 4]

    items = [f"A very fine {genre(item)}." for item in range(1, NUM_ITEMS + 1)]
    users = [", ".join(genre(item) for item in texts.history(user)) for user in range(NUM_USERS)]
    folder = run.stage("profile")
    write_profiles(folder, "items", [pa.table({KEY: range(1, NUM_ITEMS + 1), TEXT: items})])
    write_profiles(folder, "users", [pa.table({KEY: range(NUM_USERS), TEXT: users})])


def test_good_profiles_are_chosen(nameless: tuple[Config, RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    config, run = nameless
    describe(run, are_good=True)
    meter = embed_texts(config, run).details["meter"]
    items = meter["table"]["items"]
    assert items["overlap"]["profile"] > items["overlap"]["raw"]
    assert items["chosen_together"]["profile"] > items["chosen_together"]["chance"]
    assert "same_category" not in items
    assert meter["chosen"]["items"] in ("profile", "raw_and_profile")
    assert meter["num_rows"]["users"] == NUM_USERS
    assert meter["num_with_profile"] == meter["num_rows"]
    assert meter["num_left"]["users"] == 0, "raw texts show all that these users chose"
    assert "overlap" not in meter["table"]["users"]
    assert meter["chosen"]["users"] == meter["chosen"]["items"], "so they follow the items"
    assert meter["why"] in capsys.readouterr().err
    assert run.stage("embed").read_json(METER_FILE) == meter


def test_bad_profiles_are_not(nameless: tuple[Config, RunFolder]) -> None:
    config, run = nameless
    describe(run, are_good=False)
    meter = embed_texts(config, run).details["meter"]
    assert meter["num_with_profile"] == {"items": NUM_ITEMS, "users": NUM_USERS}
    assert set(meter["table"]["items"]["overlap"]) == {"chance", "raw", "profile", "raw_and_profile"}
    assert meter["chosen"] == {"items": "raw", "users": "raw"}


def test_a_resumed_stage_takes_the_same_text(nameless: tuple[Config, RunFolder]) -> None:
    """Whatever the meter would find now."""
    config, run = nameless
    describe(run, are_good=True)
    chosen = embed_texts(config, run).details["meter"]["chosen"]["items"]
    before = load_vectors(run, "items")
    folder = run.stage("embed")
    stored: dict[str, Any] = folder.read_json(METER_FILE)
    describe(run, are_good=False)
    folder.delete(folder.files("items/")[:1])
    embed_texts(config, run)
    assert folder.read_json(METER_FILE) == stored
    assert stored["chosen"]["items"] == chosen
    describe(run, are_good=True)
    folder.delete(folder.files("items/"))
    embed_texts(config, run)
    np.testing.assert_allclose(load_vectors(run, "items"), before, atol=1e-5)
    folder.write_json(METER_FILE, stored | {"chosen": {"items": "raw", "users": "raw"}})
    folder.delete(folder.files("items/"))
    embed_texts(config, run)
    assert np.abs(load_vectors(run, "items") - before).max() > 0.01


def test_without_profiles_there_is_raw_text_alone(nameless: tuple[Config, RunFolder]) -> None:
    config, run = nameless
    meter = embed_texts(config, run).details["meter"]
    assert meter["num_with_profile"] == {"items": 0, "users": 0}
    assert meter["chosen"] == {"items": "raw", "users": "raw"}
    assert set(meter["table"]["items"]["overlap"]) == {"chance", "raw"}
    assert "found_first" not in meter["table"]["items"]


def test_users_speak_for_themselves_where_texts_show_little(nameless: tuple[Config, RunFolder], tmp_path: Path) -> None:
    _, run = nameless
    describe(run, are_good=True)
    narrow = ["embed.items_per_user=1", "profile.items_per_user=2", "embed.text=auto"]
    meter = embed_texts(small_config(tmp_path, *narrow, "data.item_columns.categories=null"), run).details["meter"]
    assert meter["num_left"]["users"] == NUM_USERS
    assert meter["table"]["users"]["overlap"]["profile"] > meter["table"]["users"]["overlap"]["chance"]


def test_items_of_which_prompts_show_everybody_are_raw(nameless: tuple[Config, RunFolder], tmp_path: Path) -> None:
    _, run = nameless
    describe(run, are_good=True)
    meter = embed_texts(small_config(tmp_path, "profile.histories_per_item=24", "embed.text=auto"), run).details[
        "meter"
    ]
    assert meter["num_left"]["items"] == 0
    assert meter["chosen"] == {"items": "raw", "users": "raw"}


def test_only_what_is_encoded_is_measured(nameless: tuple[Config, RunFolder], tmp_path: Path) -> None:
    config, run = nameless
    describe(run, are_good=True)
    rows = [f'{{"item_id": "i{item:02d}", "vector": [1, {item}]}}' for item in range(NUM_ITEMS)]
    (tmp_path / "vectors.jsonl").write_text("\n".join(rows) + "\n")
    config.embed.items = [str(tmp_path / "vectors.jsonl")]
    meter = embed_texts(config, run).details["meter"]
    assert set(meter["table"]) == set(meter["chosen"]) == set(meter["num_rows"]) == {"users"}


def test_too_few_rows_are_told_without_a_choice_that_nobody_asked_for(
    nameless: tuple[Config, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = nameless
    monkeypatch.setattr("sracl_dist.meter.sample.MIN_ROWS", 1000)
    assert "raw text" in embed_texts(config, run).details["meter"]["why"]
    run.stage("embed").delete([METER_FILE])
    config.embed.text = "profile"
    assert "raw text" not in embed_texts(config, run).details["meter"]["why"]


def test_the_size_of_the_sample_matters_where_it_decides(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path / "run"))

    def made_from(*overrides: str) -> str:
        return stage_status(STAGES["embed"], small_config(tmp_path, *overrides), run).draft.fingerprint

    assert made_from("embed.meter_rows=20") == made_from("embed.meter_rows=40") == made_from("embed.meter_rows=0")
    auto = "embed.text=auto"
    assert made_from(auto, "embed.meter_rows=20") != made_from(auto, "embed.meter_rows=40")


def test_it_can_be_turned_off(nameless: tuple[Config, RunFolder], tmp_path: Path) -> None:
    _, run = nameless
    describe(run, are_good=True)
    result = embed_texts(small_config(tmp_path, "embed.meter_rows=0", "embed.text=raw"), run)
    assert "meter" not in result.details
    assert not run.stage("embed").exists(METER_FILE)
