"""How prompts are asked again, by hand."""

from dataclasses import replace

from sracl_dist.config.sections import ProfileConfig
from sracl_dist.profiles.attempts import Sampling, sampling_of, was_cut_to_nothing
from sracl_dist.profiles.prompts import Prompt

CONFIG = ProfileConfig(max_prompt_tokens=100, max_output_tokens=20)


def prompt(num_tokens: int) -> Prompt:
    return Prompt("items", 1, list(range(num_tokens)), "hash")


def test_the_first_attempt_is_as_configured() -> None:
    assert sampling_of(prompt(50), CONFIG) == Sampling(temperature=0.0, seed=0, max_output_tokens=20)


def test_a_further_attempt_has_another_seed_and_chance() -> None:
    third = replace(prompt(50), attempt=3, num_failures=2)
    assert sampling_of(third, CONFIG) == Sampling(temperature=0.7, seed=2, max_output_tokens=20)
    warm = ProfileConfig(temperature=1.2)
    assert sampling_of(third, warm).temperature == 1.2


def test_an_answer_cut_to_nothing_may_be_longer_where_there_is_room() -> None:
    again = [replace(prompt(num), attempt=2, num_failures=1, wants_room=True) for num in (50, 90, 100)]
    allowed = [sampling_of(one, CONFIG).max_output_tokens for one in again]
    assert allowed == [40, 30, 20], "prompt and answer together have 120 tokens"


def test_what_counts_as_cut_to_nothing() -> None:
    assert was_cut_to_nothing(" \n", "length")
    assert was_cut_to_nothing(None, "length")
    assert was_cut_to_nothing("<think>It may be", "length")
    assert was_cut_to_nothing("<think>It is.</think>", "length")
    assert not was_cut_to_nothing("<think>It is.</think> This", "length")
    assert not was_cut_to_nothing("<think>It may be", "stop")
    assert not was_cut_to_nothing("This", "length")
    assert not was_cut_to_nothing("", "stop")
