"""The table and the choice, on vectors of which it is known what they say."""

import numpy as np
import pytest
from numpy.typing import NDArray
from small_texts import sequences_of

from sracl_dist.meter import sample
from sracl_dist.meter.measures import Measure
from sracl_dist.meter.together import Categories, Common, users_of_both
from sracl_dist.meter.wording import sentence
from sracl_dist.meter.worth import (
    BOTH,
    MEASURES,
    OVERLAP,
    PROFILE,
    RAW,
    Choice,
    Described,
    Truths,
    as_table,
    choose,
    choose_each,
    measure_ways,
)

NUM = 60


def planted(noise: float, seed: int = 0) -> NDArray[np.float32]:
    """Three groups of rows; the less noise, the more of the group is in the vector."""
    random = np.random.default_rng(seed)
    vectors = np.eye(8)[np.arange(NUM) % 3] + noise * random.normal(size=(NUM, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def truths(kind: str = "items", categories: Categories | None = None) -> Truths:
    """Rows of a group have four users in common; each row has 16."""
    rows, groups = np.repeat(np.arange(NUM), 4), np.tile(np.arange(4), NUM) + 10 * np.repeat(np.arange(NUM) % 3, 4)
    return Truths(kind=kind, common=Common(rows, groups, NUM, np.full(NUM, 16)), categories=categories)


def described(vectors: NDArray[np.float32]) -> Described:
    return Described(texts=[f"text {row}" for row in range(NUM)], vectors_ND=vectors)


@pytest.mark.parametrize("kind", ["items", "users"])
def test_the_table(kind: str) -> None:
    good, bad = planted(0.05), planted(5.0, seed=1)
    ways = measure_ways({RAW: described(bad), PROFILE: described(good)}, truths(kind), bad)
    table = as_table(kind, ways)
    share = "chosen_together" if kind == "items" else "item_in_common"
    assert table[share][PROFILE] == 1
    assert table[share]["chance"] == pytest.approx(19 / 59, abs=1e-6)
    assert table["overlap"][PROFILE] == pytest.approx(4 / 16)
    assert table["overlap"]["chance"] == pytest.approx(19 / 59 / 4, abs=1e-6)
    assert table[share][RAW] < 0.6
    assert "same_category" not in table, "without categories there is no such row"
    assert (RAW in table["found_first"]) == (kind == "users"), "an item's raw text finds itself, which says nothing"
    assert "chance" not in table["mean_cosine"]
    assert set(table) <= set(MEASURES[kind])


def test_the_same_category_counts_where_there_is_one() -> None:
    categories = Categories([[str(row % 3)] if row < 30 else [] for row in range(NUM)])
    table = as_table("items", measure_ways({RAW: described(planted(0.05))}, truths("items", categories), planted(0.05)))
    assert table["same_category"]["chance"] == pytest.approx(9 / 59, abs=1e-6)
    assert 0.3 < table["same_category"][RAW] < 0.7, "half of each group lists no category"


def measured(**ways: NDArray[np.float32]) -> dict[str, dict[str, Measure]]:
    return measure_ways({name: described(own) for name, own in ways.items()}, truths(), ways[RAW])


def chosen(**ways: NDArray[np.float32]) -> Choice:
    return choose(measured(**ways), np.arange(NUM))


def test_the_choice() -> None:
    good, bad = planted(0.05), planted(5.0, seed=1)
    assert chosen(raw=bad, profile=good, raw_and_profile=bad).way == PROFILE
    assert chosen(raw=bad, profile=bad, raw_and_profile=good).way == BOTH
    assert chosen(raw=good, profile=bad, raw_and_profile=bad).way == RAW
    assert chosen(raw=good).way == RAW
    assert "no other text" in sentence({"items": chosen(raw=good)})
    same = chosen(raw=bad, profile=bad, raw_and_profile=bad)
    assert (same.way, same.lead, same.error) == (RAW, 0, 0), "what is no better is not taken"


def test_the_lead_and_its_error_by_hand() -> None:
    def measure(value: float, *influence: float) -> dict[str, Measure]:
        return {OVERLAP: Measure(value=value, influence_N=np.array(influence))}

    ways = {RAW: measure(0.25, 1, 2, 3, 4), PROFILE: measure(0.75, 1.2, 2.2, 3.2, 4.4)}
    found = choose(ways, np.arange(4))
    assert found.way == PROFILE
    assert found.lead == pytest.approx(0.5)
    assert found.error == pytest.approx(np.std([0.2, 0.2, 0.2, 0.4], ddof=1) / 2)
    text = sentence({"items": found, "users": Choice(way=RAW, lead=-0.01, error=0.02)})
    assert "items by profile" in text
    assert "+50.00 \u00b1 5.00 points" in text
    assert "users by raw text" in text
    assert "-1.00 \u00b1 2.00 points" in text


def test_users_without_enough_left_follow_the_items() -> None:
    rows = np.arange(NUM)
    few = Truths(kind="users", common=Common(rows[:29], rows[:29], NUM))
    half = Truths(kind="users", common=Common(rows[:30], rows[:30], NUM))
    good, bad = measured(raw=planted(5.0), profile=planted(0.05)), measured(raw=planted(0.05), profile=planted(5.0))
    groups = dict.fromkeys(("items", "users"), rows)

    def ways_of(own: Truths) -> str:
        return choose_each({"items": good, "users": bad}, {"items": truths(), "users": own}, groups)["users"].way

    assert (few.is_enough, half.is_enough) == (False, True)
    assert ways_of(few) == PROFILE
    assert ways_of(half) == RAW
    without_profile = {"items": good, "users": {RAW: bad[RAW]}}
    assert choose_each(without_profile, {"items": truths(), "users": few}, groups)["users"].way == RAW
    assert choose_each({"users": good}, {"users": few}, groups)["users"].way == RAW, "items have finished vectors"
    no_items = Truths(kind="items", common=few.common)
    assert choose_each({"items": good}, {"items": no_items}, groups)["items"].way == RAW


def test_the_error_is_what_the_lead_varies_by() -> None:
    """Over samples from one population, in which the raw text is worth as much as the profile."""
    found = [chosen(raw=planted(1.0, seed), profile=planted(1.0, seed + 500)) for seed in range(60)]
    leads = np.array([choice.lead for choice in found])
    assert abs(leads.mean()) < leads.std() / 2
    assert 0.6 < np.mean([choice.error for choice in found]) / leads.std() < 1.7


def test_items_of_one_user_are_not_taken_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log where users choose by taste, and three ways that know it equally well, with errors that a taste shares.

    Few users bring all the items of the sample, so its rows are far from independent.
    """
    monkeypatch.setattr(sample, "MOST_OF_A_USER", 20)
    num_runs, num_tastes, num_items = 60, 30, 900
    tastes = np.arange(num_items) % num_tastes
    meanings = np.random.default_rng(0).normal(size=(num_tastes, 8))
    num_wrong, num_wrong_by_rows = 0, 0
    for seed in range(num_runs):
        random = np.random.default_rng(seed)
        histories = []
        for _ in range(400):
            own = np.flatnonzero(tastes == random.integers(num_tastes)) + 1
            histories.append([*random.permutation(own)[:22], *random.integers(1, num_items + 1, 4)])
        sequences = sequences_of(histories, num_items)
        drawn = sample.connected_sample(sequences, 120, seed)
        rows = tastes[drawn.items - 1]
        ways = {}
        for name in (RAW, PROFILE, BOTH):
            vectors = meanings[rows] + 1.5 * random.normal(size=(num_tastes, 8))[rows] + random.normal(size=(120, 8))
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            ways[name] = Described(texts=["text"] * 120, vectors_ND=vectors.astype(np.float32))
        facts = Truths(kind="items", common=users_of_both(sequences, drawn.items))
        found = measure_ways(ways, facts, ways[RAW].vectors_ND)
        num_wrong += choose(found, drawn.groups("items")).way != RAW
        num_wrong_by_rows += choose(found, np.arange(120)).way != RAW
    assert num_wrong / num_runs < 0.05
    assert num_wrong_by_rows / num_runs > 0.1, "this log would not show the mistake of counting rows"
