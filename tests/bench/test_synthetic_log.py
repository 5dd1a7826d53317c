import importlib
import itertools
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sracl_dist.bench.synthetic_log import SyntheticLogSettings, write, write_log
from sracl_dist.bench.synthetic_log.item_texts import ITEMS_PER_SHARD, items_table
from sracl_dist.bench.synthetic_log.population import Population
from sracl_dist.bench.synthetic_log.settings import BLOCK_ITEMS
from sracl_dist.bench.synthetic_log.words import MAX_INTERESTS, THEMES
from sracl_dist.errors import ConfigError, StageError, StorageError

SMALL = SyntheticLogSettings(
    num_events=6_000,
    num_users=500,
    num_items=260,
    num_interests=6,
    events_per_shard=1_700,
    days=8,
    late_share=0.1,
    late_hours=20,
    bot_share=0.05,
    duplicate_share=0.02,
    seed=5,
)
HALF = SyntheticLogSettings(
    num_events=400_000, num_users=20_000, num_items=20_000, num_interests=4, events_per_shard=100_000, seed=2
)


def tables(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def rows_in_order(folder: Path) -> list[tuple[str, str, int]]:
    parts = [pq.read_table(path) for path in sorted((folder / "interactions").glob("*.parquet"))]
    table = pa.concat_tables(parts)
    return list(zip(*(table[name].to_pylist() for name in ("user_id", "item_id", "timestamp")), strict=True))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "log"
    write_log(folder, SMALL)
    return folder


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "log"
    write_log(folder, HALF)
    return folder


def facts_of(folder: Path) -> dict:
    return json.loads((folder / "facts.json").read_text())


def require_counts(folder: Path) -> None:
    """What facts.json says is what counting row by row gives."""
    rows, facts = rows_in_order(folder), facts_of(folder)
    assert len(rows) == facts["num_events"] == facts["settings"]["num_events"]
    assert len({user for user, _, _ in rows}) == facts["num_users"] == facts["settings"]["num_users"]
    assert len({item for _, item, _ in rows}) == facts["num_items"] == facts["settings"]["num_items"]
    assert len(rows) - len(set(rows)) == facts["num_duplicates"]
    latest, out_of_order = -1, 0
    for _, _, time in rows:
        out_of_order += time < latest
        latest = max(latest, time)
    assert out_of_order == facts["num_out_of_order"]
    events = Counter(user for user, _, _ in rows)
    assert sum(events[bot] for bot in facts["bot_ids"]) == facts["num_bot_events"]
    assert len(set(facts["bot_ids"])) == facts["num_bots"]
    times = [time for _, _, time in rows]
    assert (min(times), max(times)) == (facts["first_ms"], facts["last_ms"])


def test_the_facts_are_what_brute_force_counts(small: Path) -> None:
    require_counts(small)
    facts = facts_of(small)
    assert facts["num_duplicates"] == int(0.02 * 6_000)
    assert 0.06 < facts["out_of_order_share"] < 0.16
    assert facts["last_ms"] - facts["first_ms"] < SMALL.days * 86_400_000


@pytest.mark.parametrize(
    "change",
    [
        {"num_bots": 0, "bot_share": 0.0, "duplicate_share": 0.0, "late_share": 0.0},
        {"interests_per_user": 1, "session_events": 1.0, "follow_share": 0.0, "outside_share": 0.0},
        {"session_events": 60.0, "gap_s": 4_000.0, "late_share": 0.9, "late_hours": 500.0},
        {"events_per_shard": 6_000, "num_interests": 2, "user_exponent": 1.0, "item_exponent": 0.0},
        {"start": "2020-02-29T12:00:00+02:00", "days": 0.002, "duplicate_share": 0.2, "new_item_share": 0.99},
    ],
)
def test_the_counts_hold_at_the_edges_of_the_settings(change: dict, tmp_path: Path) -> None:
    facts = write_log(tmp_path / "log", replace(SMALL, **change))
    require_counts(tmp_path / "log")
    if change.get("late_share") == 0:
        assert facts["num_out_of_order"] == facts["num_duplicates"] == facts["num_bot_events"] == 0
    if change.get("outside_share") == 0:
        assert facts["inside_share"] == 1


def test_the_job_reads_settings_and_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate = importlib.import_module("jobs.generate")
    words = [f"{name}={value}" for name, value in SMALL.identity().items()]
    assert generate.main([str(tmp_path / "log"), *words, "start=2023-05-06"]) == 0
    assert "wrote 6,000 events of 500 users and 260 items from 2023-05-06 to 2023-05-13" in capsys.readouterr().err
    assert generate.main([str(tmp_path / "other"), "num_user=5"]) == 1
    assert "The setting num_user is unknown; did you mean num_users?" in capsys.readouterr().err


def test_bots_have_the_longest_histories(half: Path) -> None:
    rows, facts = rows_in_order(half), facts_of(half)
    events = Counter(user for user, _, _ in rows)
    assert min(events[bot] for bot in facts["bot_ids"]) > 60 * len(rows) / facts["num_users"]


def test_some_rows_arrive_in_a_later_file(small: Path) -> None:
    population = Population(SMALL)
    for shard, path in enumerate(sorted((small / "interactions").glob("*.parquet"))):
        early = np.sum(pq.read_table(path)["timestamp"].to_numpy() < population.start_ms(shard))
        assert (early > 20) == (shard > 0), (shard, early)


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(small: Path, tmp_path: Path) -> None:
    write_log(tmp_path / "same", SMALL)
    assert tables(tmp_path / "same") == tables(small)
    write_log(tmp_path / "other", replace(SMALL, seed=6))
    other, same = tables(tmp_path / "other"), tables(small)
    assert other.keys() == same.keys()
    assert all(other[name] != same[name] for name in same)


def test_processes_do_not_change_what_is_written(small: Path, tmp_path: Path) -> None:
    facts = write_log(tmp_path / "log", replace(SMALL, num_processes=2))
    assert tables(tmp_path / "log") == tables(small)
    assert facts == facts_of(small)


def test_a_killed_run_goes_on_with_the_missing_parts(small: Path, tmp_path: Path, monkeypatch) -> None:
    real, written = write.shard_events, []

    def dies_at_the_third(population: Population, shard: int):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(shard)
        return real(population, shard)

    folder = tmp_path / "log"
    monkeypatch.setattr(write, "shard_events", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        write_log(folder, SMALL)
    assert not (folder / "facts.json").exists()
    (folder / "interactions" / "part-00000.parquet").unlink()
    leftover = folder / "interactions" / "part-00002.parquet.tmp-0123456789ab"
    leftover.write_bytes(b"half a file")
    kept = (folder / "interactions" / "part-00001.parquet").stat().st_mtime_ns
    written.clear()
    monkeypatch.setattr(
        write, "shard_events", lambda population, shard: (written.append(shard), real(population, shard))[1]
    )
    write_log(folder, SMALL)
    assert written == [0, 2, 3]
    assert (folder / "interactions" / "part-00001.parquet").stat().st_mtime_ns == kept
    assert tables(folder) == tables(small)
    assert not leftover.exists()


def test_a_process_that_dies_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_start_worker", os._exit)
    with pytest.raises(StageError, match="A process that writes the log died"):
        write_log(tmp_path / "log", replace(SMALL, num_processes=2))


def test_a_folder_with_another_log_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds a log with num_users=500 where 501 is asked for"):
        write_log(small, replace(SMALL, num_users=501))
    for name in ("letter.txt", "letter.tmp-1"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        write_log(tmp_path, SMALL)
    assert all((tmp_path / name).read_text() == "mine" for name in ("letter.txt", "letter.tmp-1"))


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    write_log(tmp_path / "log", SMALL)
    (tmp_path / "log" / "interactions" / "part-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(StorageError, match=r"part-00001\.parquet is damaged; delete it"):
        write_log(tmp_path / "log", SMALL)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_events": 0}, "num_events is 0; use 1 or more"),
        ({"num_events": 1_000}, "num_events is 1000; a file would have 1,000 rows"),
        ({"events_per_shard": 50}, "num_events is 6000; a file would have 50 rows"),
        ({"late_share": 1.0}, "late_share is 1.0; use a share"),
        ({"num_interests": 1}, f"num_interests is 1; use 2 to {MAX_INTERESTS}"),
        ({"num_bots": 0}, "num_bots is 0; use 1 or more, or bot_share=0"),
        ({"bot_share": 0.0}, r"bot_share is 0.0; use a larger one, or num_bots=0"),
        ({"start": "yesterday"}, "start is 'yesterday'; use an ISO date"),
        ({"days": 1e-6}, "days is 1e-06; use"),
        ({"user_exponent": -1.0}, r"user_exponent is -1.0; use 0 or more"),
    ],
)
def test_bad_settings_are_refused_with_a_sentence(change: dict, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        write_log(tmp_path / "log", replace(SMALL, **change))
    assert not (tmp_path / "log").exists()


def test_ids_are_unique_and_lead_back_to_their_numbers() -> None:
    for num in (500, 200_000_000):
        population = Population(replace(SMALL, num_users=num))
        users = np.concatenate([np.arange(400), num - 1 - np.arange(50)])
        ids = population.user_ids(users)
        assert len(set(ids.to_pylist())) == len(users)
        assert population.users_of(ids).tolist() == users.tolist()
    assert ids[0].as_py() == "user000000000000"


def test_every_human_is_certain_in_one_shard() -> None:
    population = Population(SMALL)
    users = np.concatenate([population.certain_users(shard) for shard in range(SMALL.num_shards)])
    assert sorted(users.tolist()) == list(range(SMALL.num_humans))


def exponent_of(counts: Counter, ranks: slice) -> float:
    sizes = np.sort(np.array(list(counts.values())))[::-1]
    rank = np.arange(1, len(sizes) + 1)
    return -float(np.polyfit(np.log(rank[ranks]), np.log(sizes[ranks]), 1)[0])


def test_popularity_and_activity_follow_their_power_laws(half: Path) -> None:
    population = Population(HALF)
    table = pq.read_table(half / "interactions")
    users, items = population.users_of(table["user_id"]), population.items_of(table["item_id"])
    is_human = users < HALF.num_humans
    popularity = exponent_of(Counter(items[is_human].tolist()), slice(150, 4_000))
    assert abs(popularity - HALF.item_exponent) < 0.1
    activity = np.bincount(users[is_human], minlength=HALF.num_humans) - 1.0
    edges = np.geomspace(10, HALF.num_humans, 12).astype(int)
    means = [activity[start:stop].mean() for start, stop in itertools.pairwise(edges)]
    slope = np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(means), 1)[0]
    assert abs(-slope - HALF.user_exponent) < 0.04


def test_the_share_inside_the_users_interests_is_found(half: Path) -> None:
    population, facts = Population(HALF), facts_of(half)
    table = pq.read_table(half / "interactions")
    users, items = population.users_of(table["user_id"]), population.items_of(table["item_id"])
    is_human = users < HALF.num_humans
    interests = population.user_interests(users[is_human])
    inside = np.mean((interests == (items[is_human] % HALF.num_interests)[:, None]).any(axis=1))
    assert inside == pytest.approx(facts["inside_share"], abs=1e-12)
    assert 0.9 < inside < 1


def test_sessions_stay_within_an_interest_and_follow_successors(half: Path) -> None:
    population = Population(HALF)
    table = pq.read_table(half / "interactions").sort_by([("user_id", "ascending"), ("timestamp", "ascending")])
    users, items = population.users_of(table["user_id"]), population.items_of(table["item_id"])
    gaps_ms = np.diff(table["timestamp"].to_numpy())
    near = (users[1:] == users[:-1]) & (users[1:] < HALF.num_humans) & (gaps_ms > 0) & (gaps_ms < 120_000)
    before, after = items[:-1][near], items[1:][near]
    assert np.mean(before % 4 == after % 4) > 0.97
    rank_before, rank_after = before // 4, after // 4
    same_block = (before % 4 == after % 4) & (rank_before // BLOCK_ITEMS == rank_after // BLOCK_ITEMS)
    step = (rank_after - rank_before) % BLOCK_ITEMS
    shares = [np.mean(same_block & (step == each)) for each in (1, 2, 3, 4, 5)]
    assert np.allclose(shares[:3], np.array([0.7, 0.2, 0.1]) * HALF.follow_share, atol=0.025)
    assert max(shares[3:]) < 0.02


def test_events_come_in_bursts(half: Path) -> None:
    table = pq.read_table(half / "interactions").sort_by([("user_id", "ascending"), ("timestamp", "ascending")])
    users = table["user_id"].to_numpy()
    gaps_ms = np.diff(table["timestamp"].to_numpy())[users[1:] == users[:-1]]
    short, long = np.mean(gaps_ms < 300_000), np.mean(gaps_ms > 86_400_000)
    assert short > 0.6
    assert long > 0.15
    assert short + long > 0.9


def test_items_are_born_and_fade_and_interests_shift() -> None:
    population = Population(replace(HALF, events_per_shard=50_000))
    first, last = population.weights(0), population.weights(7)
    is_new = first == 0
    assert 0.2 < np.mean(is_new) < 0.35
    assert (last[is_new] > 0).all()
    assert (last[~is_new] <= first[~is_new]).all()
    assert np.mean(last[~is_new] / first[~is_new]) < 0.6
    trends = np.stack([population.trend(shard) for shard in range(8)])
    assert (trends.max(axis=0) / trends.min(axis=0) > 2).all()


def test_no_item_is_seen_before_its_birth(half: Path) -> None:
    population = Population(HALF)
    paths = sorted((half / "interactions").glob("*.parquet"))
    seen_before_birth = 0
    for shard, path in enumerate(paths):
        items = np.unique(population.items_of(pq.read_table(path)["item_id"]))
        places = population.first_G[items % 4] + items // 4
        seen_before_birth += np.sum(~population.is_born(shard)[places])
    assert seen_before_birth == 0
    assert not population.is_born(0).all()


def test_texts_reveal_the_interest() -> None:
    settings = replace(HALF, num_items=4_000, num_interests=40)
    table = items_table(Population(settings), 0)
    interest = Population(settings).items_of(table["item_id"]) % 40
    texts = [" ".join([row["title"], row["brand"], row["description"]]).lower().split() for row in table.to_pylist()]
    words = {word: place for place, word in enumerate(sorted({word for text in texts for word in text}))}
    counts = np.zeros((len(texts), len(words)))
    for row, text in enumerate(texts):
        np.add.at(counts[row], [words[word] for word in text], 1)
    counts /= np.linalg.norm(counts, axis=1, keepdims=True)
    learn = np.arange(len(texts)) // 40 % 2 == 0
    centroids = np.stack([counts[learn & (interest == each)].mean(axis=0) for each in range(40)])
    found = np.argmax(counts[~learn] @ centroids.T, axis=1)
    assert np.mean(found == interest[~learn]) > 0.9


def test_items_of_a_block_share_a_subcategory() -> None:
    settings = replace(HALF, num_items=1_000)
    table = items_table(Population(settings), 0)
    categories = table["categories"].to_pylist()
    rank = np.arange(1_000) // 4
    blocks = {(item % 4, rank[item] // BLOCK_ITEMS): categories[item] for item in range(1_000)}
    assert all(categories[item] == blocks[item % 4, rank[item] // BLOCK_ITEMS] for item in range(1_000))
    assert len({tuple(each) for each in categories}) == 4 * 8


def test_items_are_written_in_shards_of_their_own() -> None:
    population = Population(replace(HALF, num_items=ITEMS_PER_SHARD + 3, num_events=4_000_000))
    table = items_table(population, 1)
    assert table.num_rows == 3
    assert population.items_of(table["item_id"]).tolist() == [ITEMS_PER_SHARD + each for each in range(3)]


def test_themes_have_words_of_their_own() -> None:
    assert {len(theme.products) for theme in THEMES} == {8}
    for kind in ("adjectives", "uses", "brands"):
        assert len({len(getattr(theme, kind)) for theme in THEMES}) == 1, kind
    brands = [brand for theme in THEMES for brand in theme.brands]
    assert len(set(brands)) == len(brands)
