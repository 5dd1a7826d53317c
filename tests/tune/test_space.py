"""The space: what is refused before anything starts, and that parameters exist only where they should."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sracl_dist.config import Config, parse_config
from sracl_dist.errors import ConfigError
from sracl_dist.tune.space import Space, parse_space

TERMS = {"choice": [["next_item"], ["next_item", "cross_sequence"], ["next_item", "intra_sequence"]]}
WEIGHT = {"uniform": [0.01, 0.3], "when": {"objectives.terms": "cross_sequence"}}


def make(space: dict[str, Any], *overrides: str, **tune: Any) -> Config:
    values = {"run": {"dir": "unused"}, "data": {"source": "movielens-100k"}, "tune": {"space": space, **tune}}
    return parse_config(values, overrides)


def refusal(space: dict[str, Any], *overrides: str, **tune: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_space(make(space, *overrides, **tune))
    return str(caught.value)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "tune.space is empty; name the keys"),
        ({"train.learning_rte": {"uniform": [0.1, 1]}}, "unknown; did you mean train.learning_rate?"),
        ({"model": {"choice": [1]}}, "has the key model, but it is a section"),
        ({"embed.text": {"choice": ["raw"]}}, "the tables of the stage embed are made once and shared by all trials"),
        ({"neighbours.num_neighbours": {"int": [1, 9]}}, "the tables of the stage neighbours are made once"),
        ({"data.split": {"choice": ["global_time"]}}, "the tables of the stage prepare are made once"),
        ({"run.seed": {"int": [0, 9]}}, "run.seed, but a seed is no setting to choose by"),
        ({"train.metric": {"choice": ["mrr"]}}, "train.metric, but trials are compared by it"),
        ({"train.epochs": {"int": [1, 9]}}, "train.epochs, but it is the length of a whole trial"),
        ({"train.num_workers": {"int": [1, 2]}}, "it does not change what training yields"),
        ({"recommend.num_items": {"int": [1, 2]}}, "it does not change what training yields"),
        ({"model.dropout": 0.3}, "model.dropout is 0.3; give it one of uniform, log_uniform, int, choice"),
        ({"model.dropout": {"normal": [0, 1]}}, "give it one of"),
        ({"model.dropout": {"uniform": [0, 0.5], "choice": [0.1]}}, "give it one of"),
        ({"model.dropout": {"uniform": [0.5, 0.1]}}, "give the lowest and the highest number"),
        ({"model.dropout": {"uniform": [0.1]}}, "give the lowest and the highest number"),
        ({"model.dropout": {"uniform": [0, float("nan")]}}, "give the lowest and the highest number"),
        ({"train.learning_rate": {"log_uniform": [0, 0.1]}}, "both above 0"),
        ({"model.num_layers": {"int": [1, 2.5]}}, "whole number"),
        ({"model.num_layers": {"choice": []}}, "list each value once"),
        ({"model.num_layers": {"choice": [1, 1]}}, "list each value once"),
        ({"model.dropout": {"uniform": [0.1, 1.2]}}, "model.dropout is 1.2; use 0 or more and below 1"),
        ({"model.num_layers": {"choice": [1, "two"]}}, "model.num_layers is 'two'; use a whole number"),
        ({"model.num_layers": {"choice": [1, 0]}}, "model.num_layers is 0; use 1 or more"),
        (
            {"model.width": {"choice": [64, 96]}, "model.num_heads": {"choice": [2, 64]}},
            "with model.width=96, model.num_h",
        ),
        ({"model.dropout": {"uniform": [0, 0.5], "when": 3}}, "when is 3; write {other.key: value}"),
        (
            {"model.dropout": {"uniform": [0, 0.5], "when": {"model.width": 8}}},
            "names model.width, which is not another",
        ),
        ({"model.dropout": {"uniform": [0, 0.5], "when": {"model.dropout": 0}}}, "which is not another key"),
        (
            {"objectives.terms": TERMS, "model.dropout": {**WEIGHT, "when": {"objectives.terms": "x"}}},
            "which never comes",
        ),
        (
            {
                "train.learning_rate": {"uniform": [0.1, 1]},
                "model.dropout": {**WEIGHT, "when": {"train.learning_rate": 1}},
            },
            "depends on train.learning_rate, which is a range of numbers",
        ),
        (
            {
                "model.width": {"choice": [64], "when": {"model.num_layers": 1}},
                "model.num_layers": {"choice": [1], "when": {"model.width": 64}},
            },
            "go in a circle",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(space: dict[str, Any], message: str) -> None:
    found = refusal(space)
    assert message in found
    assert found.count("\n") == 0


def test_a_grid_lists_no_ranges() -> None:
    assert "which a grid cannot list" in refusal({"model.dropout": {"uniform": [0, 0.5]}}, algorithm="grid")


def test_the_grace_is_no_longer_than_a_trial() -> None:
    space = {"model.num_layers": {"int": [1, 2]}}
    assert "tune.grace_epochs is 4; use at most train.epochs=3" in refusal(space, "train.epochs=3", grace_epochs=4)
    parse_space(make(space, "train.epochs=3", grace_epochs=4, scheduler="none"))


def test_a_condition_can_make_a_combination_possible() -> None:
    space = {
        "model.width": {"choice": [64, 96]},
        "model.num_heads": {"choice": [32, 64], "when": {"model.width": 64}},
    }
    assert len(list(parse_space(make(space)).grid())) == 3  # 96 alone, with the base's two heads


def test_parents_come_first_and_the_rest_as_written() -> None:
    space = {
        "objectives.cross_sequence.weight": WEIGHT,
        "model.dropout": {"uniform": [0, 0.5]},
        "objectives.terms": TERMS,
    }
    keys = [parameter.key for parameter in parse_space(make(space)).parameters]
    assert keys == ["model.dropout", "objectives.terms", "objectives.cross_sequence.weight"]


def test_the_grid_has_every_combination_once_and_no_idle_parameters() -> None:
    space = parse_space(
        make(
            {
                "objectives.terms": TERMS,
                "model.num_layers": {"int": [1, 2]},
                "objectives.cross_sequence.num_neighbours": {
                    "choice": [5, 10],
                    "when": {"objectives.terms": ["cross_sequence", "random_views"][:1]},
                },
            }
        )
    )
    expected = []
    for terms, layers in itertools.product(TERMS["choice"], (1, 2)):
        own = {"objectives.terms": terms, "model.num_layers": layers}
        both = [{**own, "objectives.cross_sequence.num_neighbours": num} for num in (5, 10)]
        expected += both if "cross_sequence" in terms else [own]
    assert list(space.grid()) == expected
    assert len(expected) == 8


SPACE = {
    "train.learning_rate": {"log_uniform": [0.001, 0.1]},
    "model.dropout": {"uniform": [0.1, 0.123456789]},
    "model.num_layers": {"int": [1, 3]},
    "objectives.terms": TERMS,
    "objectives.cross_sequence.weight": WEIGHT,
}


@pytest.fixture(scope="module")
def space() -> Space:
    return parse_space(make(SPACE))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_draws_lie_within_the_limits_and_conditions_hold(space: Space, seed: int) -> None:
    values = space.draw(np.random.default_rng(seed))
    assert 0.001 <= values["train.learning_rate"] <= 0.1
    assert 0.1 <= values["model.dropout"] <= 0.123456789
    assert values["model.num_layers"] in (1, 2, 3)
    assert values["objectives.terms"] in TERMS["choice"]
    assert ("objectives.cross_sequence.weight" in values) == ("cross_sequence" in values["objectives.terms"])


def test_a_log_uniform_draw_is_even_over_magnitudes(space: Space) -> None:
    draws = [space.draw(np.random.default_rng(seed)) for seed in range(400)]
    share = np.mean([values["train.learning_rate"] < 0.01 for values in draws])
    assert 0.4 < share < 0.6  # a uniform draw would give 0.09
    assert {values["model.num_layers"] for values in draws} == {1, 2, 3}


def test_a_space_is_a_mapping_whose_keys_are_no_settings(tmp_path: Path) -> None:
    config = make(SPACE, "tune.space={model.dropout: {uniform: [0.0, 0.2]}}")
    assert config.tune.space["model.dropout"] == {"uniform": [0.0, 0.2]}
    assert list(config.tune.space) == list(SPACE)
    with pytest.raises(ConfigError, match=r"tune\.space is 3; use a mapping such as \{a: b\}"):
        make(SPACE, "tune.space=3")
