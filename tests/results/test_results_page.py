"""The page, line by line, from numbers written down here."""

from typing import Any

import pytest

from sracl_dist.evaluate.metrics import METRICS
from sracl_dist.evaluate.paired import PairedTest
from sracl_dist.results.collect import Results, SeedOutcome, Spread, VariantResult
from sracl_dist.results.table import markdown


def groups(num_head: int = 1200) -> dict[str, list[dict[str, Any]]]:
    values = {"seen_kept": dict.fromkeys(METRICS, 0.25), "seen_removed": dict.fromkeys(METRICS, 0.5)}
    values["seen_kept"] |= {"ndcg@20": 0.125}
    zero = dict.fromkeys(values, dict.fromkeys(METRICS, 0.0))
    return {
        "target_popularity": [
            {"name": "head", "num_users": num_head, **values},
            {"name": "never in training", "num_users": 3, **zero},
            {"name": "nobody", "num_users": 0, **zero},
        ]
    }


def variant(name: str, *, num_seeds: int = 2, num_head: int = 1200) -> VariantResult:
    outcome = SeedOutcome(seed=0, folder="x", metrics={}, slices={}, best_epoch=1, num_epochs=2, training_s=3.0)
    kept = {metric: Spread(mean=place / 100, deviation=place / 10000) for place, metric in enumerate(METRICS)}
    return VariantResult(
        name=name,
        file=f"{name}.yaml",
        outcomes=[outcome] * num_seeds,
        metrics={"seen_kept": kept, "seen_removed": dict.fromkeys(METRICS, Spread(mean=0.5, deviation=None))},
        slices=groups(num_head),
        best_epoch=Spread(mean=12.5, deviation=0.70710678),
        num_epochs=Spread(mean=17.5, deviation=0.70710678),
        training_s=Spread(mean=3725.0, deviation=1.0),
    )


def test_the_whole_page() -> None:
    test = PairedTest(num_users=1203, difference=0.0123, low=0.0023, high=0.0223, t=2.41, p_value=0.016)
    worse = PairedTest(num_users=1203, difference=-0.02, low=-0.03, high=-0.01, t=-9.0, p_value=1e-9)
    model = variant("a|b")
    model.tests = {protocol: {"ndcg@20": test, "hr@20": worse} for protocol in ("seen_kept", "seen_removed")}
    lost = VariantResult(name="lost", file="lost.yaml", failures={1: "train.py ended with status 1", 0: "no room"})
    lost.untested = "lost has no ranks"
    page = markdown(Results(seeds=[0, 1], against="base", variants=[variant("base"), model, lost]))
    kept = " | ".join(f"{place / 100:.4f} +- {place / 10000:.4f}" for place in range(7))
    assert page == (
        "# Results\n\n"
        "Means over the seeds 0, 1, +- their sample standard deviation. Test items are ranked among the whole "
        "catalogue; ties count against us.\n\n"
        "## Test metrics, seen items kept\n\n"
        "| configuration | seeds | HR@5 | HR@10 | HR@20 | NDCG@5 | NDCG@10 | NDCG@20 | MRR |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        f"| base | 2 | {kept} |\n"
        f"| a\\|b | 2 | {kept} |\n"
        "| lost | 0 | - | - | - | - | - | - | - |\n\n"
        "## Test metrics, seen items removed\n\n"
        "| configuration | seeds | HR@5 | HR@10 | HR@20 | NDCG@5 | NDCG@10 | NDCG@20 | MRR |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        f"| base | 2 |{' 0.5000 |' * 7}\n"
        f"| a\\|b | 2 |{' 0.5000 |' * 7}\n"
        "| lost | 0 | - | - | - | - | - | - | - |\n\n"
        "## Training\n\n"
        "| configuration | seeds | best epoch | epochs | time of all epochs |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| base | 2 | 12.5 +- 0.7 | 17.5 +- 0.7 | 1h02m |\n"
        "| a\\|b | 2 | 12.5 +- 0.7 | 17.5 +- 0.7 | 1h02m |\n"
        "| lost | 0 | - | - | - |\n\n"
        "## Paired test against base\n\n"
        "Difference of the means over users, each user's metric averaged over the seeds first; t-test over the pairs. "
        "Interval and p cover other users with these very trainings, not trainings with other seeds.\n\n"
        "Seen items kept:\n\n"
        "| configuration | seeds | NDCG@20 difference | 95 % interval | p | HR@20 difference | 95 % interval | p |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| a\\|b | 2 | +0.0123 | +0.0023 to +0.0223 | 0.0160 | -0.0200 | -0.0300 to -0.0100 | <0.0001 |\n"
        "| lost | 0 | - | - | - | - | - | - |\n\n"
        "Seen items removed:\n\n"
        "| configuration | seeds | NDCG@20 difference | 95 % interval | p | HR@20 difference | 95 % interval | p |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| a\\|b | 2 | +0.0123 | +0.0023 to +0.0223 | 0.0160 | -0.0200 | -0.0300 to -0.0100 | <0.0001 |\n"
        "| lost | 0 | - | - | - | - | - | - |\n\n"
        "## Slices by the popularity of the test item in training, seen items kept\n\n"
        "Head, middle and tail hold a third of all training interactions each, popular items first.\n\n"
        "| configuration | seeds | head (1,200 users) HR@20 | head (1,200 users) NDCG@20 | "
        "never in training (3 users) HR@20 | never in training (3 users) NDCG@20 | "
        "nobody (0 users) HR@20 | nobody (0 users) NDCG@20 |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| base | 2 | 0.2500 | 0.1250 | 0.0000 | 0.0000 | - | - |\n"
        "| a\\|b | 2 | 0.2500 | 0.1250 | 0.0000 | 0.0000 | - | - |\n"
        "| lost | 0 | - | - | - | - | - | - |\n\n"
        "## Slices by the popularity of the test item in training, seen items removed\n\n"
        "Head, middle and tail hold a third of all training interactions each, popular items first.\n\n"
        "| configuration | seeds | head (1,200 users) HR@20 | head (1,200 users) NDCG@20 | "
        "never in training (3 users) HR@20 | never in training (3 users) NDCG@20 | "
        "nobody (0 users) HR@20 | nobody (0 users) NDCG@20 |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| base | 2 | 0.5000 | 0.5000 | 0.0000 | 0.0000 | - | - |\n"
        "| a\\|b | 2 | 0.5000 | 0.5000 | 0.0000 | 0.0000 | - | - |\n"
        "| lost | 0 | - | - | - | - | - | - |\n\n"
        "## What is missing\n\n"
        "* lost, seed 0: no room\n"
        "* lost, seed 1: train.py ended with status 1\n"
        "* lost, not tested: lost has no ranks\n"
    )


def test_one_seed_has_no_deviation_and_nobody_to_test_against_no_test() -> None:
    page = markdown(Results(seeds=[4], against=None, variants=[variant("base", num_seeds=1)]))
    assert "Means over the seeds 4. Test items" in page
    assert "Paired test" not in page
    assert "What is missing" not in page
    assert page.splitlines()[-1] == "| base | 1 | 0.5000 | 0.5000 | 0.0000 | 0.0000 | - | - |"


def test_a_group_whose_size_differs_has_no_size() -> None:
    page = markdown(Results(seeds=[0], against=None, variants=[variant("one"), variant("two", num_head=7)]))
    assert "| head HR@20 | head NDCG@20 | never in training (3 users) HR@20 |" in page


def test_nothing_finished_at_all() -> None:
    lost = VariantResult(name="lost", file="lost.yaml", failures={0: "no room"})
    page = markdown(Results(seeds=[0], against=None, variants=[lost]))
    assert "Slices" not in page
    assert page.endswith("## What is missing\n\n* lost, seed 0: no room\n")


def test_nothing_on_the_page_steers_a_terminal_or_is_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "sk-0123456789")
    hostile = "a\x1b[2J\u202e\n\u2028b sk-0123456789"
    lost = VariantResult(name=hostile, file="lost.yaml", failures={0: hostile}, untested=hostile)
    page = markdown(Results(seeds=[0], against=hostile, variants=[lost]))
    assert not set("\x1b\u202e\u2028") & set(page)
    assert "sk-0123456789" not in page
    assert r"| a\x1b[2J\u202e\n\u2028b *** | 0 |" in page
