"""How prompts are asked again, by hand."""

from sracl_dist.config.sections import ProfileConfig
from sracl_dist.profiles.attempts import Failure, Sampling, next_attempt, sampling_of, was_cut_to_nothing
from sracl_dist.profiles.prompts import Prompt

CONFIG = ProfileConfig(max_prompt_tokens=100, max_output_tokens=20)


def prompt(num_tokens: int) -> Prompt:
    return Prompt("items", 1, list(range(num_tokens)), "hash")


def test_the_first_attempt_is_as_configured() -> None:
    first = next_attempt(prompt(50), None)
    assert first == prompt(50)
    assert sampling_of(first, CONFIG) == Sampling(temperature=0.0, seed=0, max_output_tokens=20)


def test_a_further_attempt_has_another_seed_and_chance() -> None:
    third = next_attempt(prompt(50), Failure(num_attempts=2, num_failures=2, was_cut=False))
    assert third.attempt == 3
    assert third.prompt_hash == "hash", "the answer belongs to the same prompt"
    assert sampling_of(third, CONFIG) == Sampling(temperature=0.7, seed=2, max_output_tokens=20)
    warm = ProfileConfig(temperature=1.2)
    assert sampling_of(third, warm).temperature == 1.2


def test_an_answer_cut_to_nothing_may_be_longer_where_there_is_room() -> None:
    failure = Failure(num_attempts=1, num_failures=1, was_cut=True)
    allowed = [sampling_of(next_attempt(prompt(num), failure), CONFIG).max_output_tokens for num in (50, 90, 100)]
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
