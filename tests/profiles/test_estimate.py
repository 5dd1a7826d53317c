"""The estimate of a run's cost, computed by hand."""

from dataclasses import replace
from typing import Any

import pytest

from sracl_dist.config.sections import EndpointConfig, ProfileConfig
from sracl_dist.profiles.estimate import (
    MAX_SHOWN_CHARS,
    Estimate,
    expected_output_tokens,
    shared_share,
    shown_prompt,
)
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.profiles.rate import Rate

SETTINGS = ProfileConfig(num_replicas=2)
FULL = Estimate(
    num_prompts=1_300,
    num_distinct=1_200,
    num_answered=190,
    num_given_up=10,
    num_to_ask=1_000,
    num_prompt_tokens=300_000,
    max_output_tokens=128_000,
    expected_output_tokens=60_000,
    shared_share=0.2,
    rate=Rate(output_tokens_per_s=500.0, num_answers=190),
    num_replicas=2,
)


def test_everything_is_told() -> None:
    assert FULL.seconds == 60.0  # 60,000 / (500 * 2)
    assert FULL.lines(SETTINGS) == [
        "1,300 prompts, 1,200 distinct: 190 answered before, 10 given up after profile.max_attempts=4, 1,000 to ask",
        "300,000 prompt tokens, about 20% of them in beginnings shared with an earlier prompt (an estimate)",
        "at most 128,000 output tokens, about 60,000 expected (60.0 each, from earlier answers)",
        "about 1m00s on profile.num_replicas=2, at 500 output tokens/s each, measured from 190 answers",
    ]


def test_without_earlier_answers_the_most_is_told() -> None:
    unknown = replace(FULL, expected_output_tokens=None, shared_share=None, num_given_up=0)
    assert unknown.seconds == 128.0
    assert unknown.lines(SETTINGS) == [
        "1,300 prompts, 1,200 distinct: 190 answered before, 1,000 to ask",
        "300,000 prompt tokens",
        "at most 128,000 output tokens, unknown how many are to be expected",
        "at most about 2m08s on profile.num_replicas=2, at 500 output tokens/s each, measured from 190 answers",
    ]


def test_without_a_measurement_it_says_how_to_get_one() -> None:
    unknown = replace(FULL, rate=None)
    assert unknown.seconds is None
    assert unknown.lines(SETTINGS)[-1] == (
        "no rate is known yet, so the time cannot be told; a run with profile.max_items=200 profile.max_users=200 "
        "measures it"
    )


def test_an_endpoint_goes_by_its_address() -> None:
    settings = ProfileConfig(engine="endpoint", endpoint=EndpointConfig(url="http://localhost:8000/v1"))
    assert " on http://localhost:8000/v1, at " in FULL.lines(settings)[-1]


def test_where_nothing_is_to_ask_no_cost_is_told() -> None:
    done = replace(FULL, num_to_ask=0, num_given_up=0)
    assert done.lines(SETTINGS) == ["1,300 prompts, 1,200 distinct: 190 answered before, 0 to ask"]


def test_a_sample_stands_for_all() -> None:
    assert FULL.for_all(1_300) == FULL
    assert FULL.for_all(13_000).lines(SETTINGS) == [
        "13,000 prompts, estimated from 1,300 of them, 12,000 distinct: 1,900 answered before, 100 given up after "
        "profile.max_attempts=4, 10,000 to ask",
        "3,000,000 prompt tokens, about 20% of them in beginnings shared with an earlier prompt (an estimate)",
        "at most 1,280,000 output tokens, about 600,000 expected (60.0 each, from earlier answers)",
        "about 10m00s on profile.num_replicas=2, at 500 output tokens/s each, measured from 190 answers",
    ]
    assert replace(FULL, expected_output_tokens=None).for_all(13_000).seconds == 1_280.0


@pytest.mark.parametrize(
    ("to_ask", "answered", "expected"),
    [
        ({"items": 10, "users": 5}, {"items": (2, 40), "users": (4, 400)}, 700),  # 10 * 20 + 5 * 100
        ({"items": 10, "users": 5}, {"items": (2, 40), "users": (0, 0)}, 300),  # users as items
        ({"users": 5}, {"items": (1, 20), "users": (1, 40)}, 200),
        ({"items": 10}, {"items": (0, 0), "users": (0, 0)}, None),
    ],
)
def test_expected_tokens_follow_the_kind(
    to_ask: dict[str, int], answered: dict[str, tuple[int, int]], expected: int | None
) -> None:
    assert expected_output_tokens(to_ask, answered) == expected


def prompt(*token_ids: int, **fields: Any) -> Prompt:
    return Prompt("items", 1, list(token_ids), "hash", **fields)


def test_the_share_of_shared_beginnings() -> None:
    prompts = [prompt(1, 2, 3, 4, 5), prompt(1, 2, 3, 4, 9), prompt(1, 2, 9, 9, 9), prompt(9, 9, 3, 4, 5)]
    # Blocks of two: of the second prompt [1, 2] and [3, 4] are known, of the third [1, 2]; in the fourth [3, 4] comes
    # behind other tokens.
    assert shared_share(prompts, 2) == 6 / 20
    assert shared_share(prompts[:1], 2) == 0
    assert shared_share([], 2) is None
    # The last token is always computed, so a prompt of whole blocks shares all but its last block.
    assert shared_share([prompt(1, 2, 3, 4), prompt(1, 2, 3, 4)], 2) == 2 / 8


def test_a_shown_prompt_is_escaped_and_cut() -> None:
    class Letters:
        def decode(self, token_ids: list[int]) -> str:
            return "".join(map(chr, token_ids))

    assert shown_prompt(prompt(*map(ord, "a\x1b[2Jb\r\n\u202ec")), Letters()) == "    a\\x1b[2Jb\\r\n    \\u202ec"
    long = shown_prompt(prompt(*[65] * (MAX_SHOWN_CHARS + 1)), Letters())
    assert long == f"    {'A' * MAX_SHOWN_CHARS} ..."
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"})
    assert shown_prompt(prompt(messages=messages), None) == "    [system] Be brief.\n    [user] Who?"
