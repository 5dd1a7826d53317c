"""The table and the choice, on vectors of which it is known what they say."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sracl_dist.meter.measures import Measure
from sracl_dist.meter.worth import BOTH, MEASURES, PROFILE, RAW, Described, Truths, as_table, choose, sentence, weigh

NUM = 60


def planted(noise: float, seed: int = 0) -> NDArray[np.float32]:
    """Three groups of rows; the less noise, the more of the group is in the vector."""
    random = np.random.default_rng(seed)
    vectors = np.eye(8)[np.arange(NUM) % 3] + noise * random.normal(size=(NUM, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def truths() -> Truths:
    """Rows of a group have four users in common; each row has 16."""
    together = np.subtract.outer(np.arange(NUM), np.arange(NUM)) % 3 == 0
    return Truths(in_common_NN=np.where(np.eye(NUM, dtype=bool), 16, np.where(together, 4, 0)).astype(np.int32))


def described(vectors: NDArray[np.float32]) -> Described:
    return Described(texts=[f"text {row}" for row in range(NUM)], vectors_ND=vectors)


@pytest.mark.parametrize("kind", ["items", "users"])
def test_the_table(kind: str) -> None:
    good, bad = planted(0.05), planted(5.0, seed=1)
    ways = weigh(kind, {RAW: described(bad), PROFILE: described(good)}, truths(), bad)
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
    has = np.arange(NUM) < 30
    facts = Truths(in_common_NN=truths().in_common_NN, same_category_NN=truths().in_common_NN > 0, has_category_N=has)
    table = as_table("items", weigh("items", {RAW: described(planted(0.05))}, facts, planted(0.05)))
    assert table["same_category"] == {"chance": pytest.approx(19 / 59, abs=1e-6), RAW: 1}


def chosen(**ways: NDArray[np.float32]) -> tuple[str, float, float]:
    return choose(weigh("items", {name: described(own) for name, own in ways.items()}, truths(), ways[RAW]))


def test_the_choice() -> None:
    good, bad = planted(0.05), planted(5.0, seed=1)
    assert chosen(raw=bad, profile=good, raw_and_profile=bad)[0] == PROFILE
    assert chosen(raw=bad, profile=bad, raw_and_profile=good)[0] == BOTH
    assert chosen(raw=good, profile=bad, raw_and_profile=bad)[0] == RAW
    assert chosen(raw=good) == (RAW, 0, 0)
    assert chosen(raw=bad, profile=bad, raw_and_profile=bad) == (RAW, 0, 0), "what is no better is not taken"
    equal = [chosen(raw=planted(5.0, seed=seed), profile=planted(5.0, seed=seed + 50))[0] for seed in range(20)]
    assert equal.count(RAW) >= 18, "a difference by chance goes to the raw text"


def test_the_lead_and_its_error_by_hand() -> None:
    def measure(value: float, *influence: float) -> dict[str, Measure]:
        return {"overlap": Measure(value=value, influence_N=np.array(influence))}

    way, lead, error = choose({RAW: measure(0.25, 1, 2, 3, 4), PROFILE: measure(0.5, 1.2, 2.2, 3.2, 4.4)})
    assert way == PROFILE
    assert lead == pytest.approx(0.25)
    assert error == pytest.approx(np.std([0.2, 0.2, 0.2, 0.4], ddof=1) / 2)
    text = sentence({"items": (way, lead, error), "users": (RAW, -0.01, 0.02)})
    assert "items by profile" in text
    assert "+25.00 \u00b1 5.00 points" in text
    assert "users by raw text" in text
    assert "-1.00 \u00b1 2.00 points" in text


def test_the_error_is_what_the_lead_varies_by() -> None:
    """Over samples from one population, in which the raw text is worth as much as the profile."""
    found = np.array([chosen(raw=planted(1.0, seed), profile=planted(1.0, seed + 500))[1:] for seed in range(60)])
    assert abs(found[:, 0].mean()) < found[:, 0].std() / 2
    assert 0.6 < found[:, 1].mean() / found[:, 0].std() < 1.7
