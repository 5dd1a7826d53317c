"""What is wrong with an answer: texts written by hand, and some that a small model has really written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sracl_dist.profiles.prompts import load_template
from sracl_dist.profiles.quality import (
    EMPTY,
    MAX_REPEATED_SHARE,
    OFF_FORMAT,
    REPETITIVE,
    TRUNCATED,
    failure_of,
    flaws_of,
    off_format_pattern,
    repeated_share,
)

BUILT_IN = off_format_pattern(load_template(kind, None).message for kind in ("item", "user"))
GOOD = "This is a moisturizing shampoo for dry, curly hair; people who look for natural ingredients like it."
LONG = (
    "This person likes slow, atmospheric science fiction that asks questions about memory and identity, from classics "
    "of the seventies to recent independent films. They also return to courtroom dramas with a strong lead, and now "
    "and then to a light comedy from the same decade. Next they may look for quiet space films, for legal thrillers "
    "based on true stories, or for an adaptation of a novel they have already seen in another version. Violence and "
    "horror are rare in what they choose, and sequels of large franchises are missing altogether."
)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("one two", 0.0),
        ("a must-watch, a must-watch", 1.0),
        ("bespoke bespoke bespoke", 0.0),  # one phrase, once
        ("Bespoke, bespoke. BESPOKE - bespoke!", 1.0),  # the phrase at words 1 and 2
        ("one two three four one two three", 6 / 7),
        ("we like one two three and also one two three too", 6 / 11),
        ("one two three four five six seven one two eight", 0.0),
        ("好看的电影好看的电影", 1.0),  # five characters twice
        ("一部好看的电影", 0.0),
    ],
)
def test_the_share_of_words_in_repeated_phrases(text: str, share: float) -> None:
    assert repeated_share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    "text",
    [
        "This is a bespoke, bespoke, bespoke, bespoke, bespoke, bespoke, bespoke, bespoke, bespoke,",
        "This person likes to use a variety of products, including a range of products, including a range of products.",
        "This is a product that is made with a natural ingredient that is made with a natural ingredient that is made",
        "This is a product that is designed to help with skin care, and it is made with a product that is designed to "
        "help with skin care.",
    ],
)
def test_loops_are_repetitive(text: str) -> None:
    assert flaws_of(text, "stop", BUILT_IN) == [REPETITIVE]
    assert failure_of(text, BUILT_IN) is None, "it is kept"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        LONG,
        "This person likes to use a variety of products, including a variety of products, and they are very particular "
        "about what they use.",
        "This is a system: user friendly, with a human touch.",
        "This is an assistant for the kitchen, and the title: it is in the name.",
        "This person likes:\n- Human anatomy\n- User interfaces",
        "Users like it because the price < 5 and the volume > 3.",
    ],
)
def test_fluent_texts_have_no_flaw(text: str) -> None:
    assert flaws_of(text, "stop", BUILT_IN) == []
    assert failure_of(text, BUILT_IN) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("This is\n<data>\nNight cream", "<data>"),
        ("This is it. </data>", "</data>"),
        ("Title: Night cream\nIt is a cream.", "Title:"),
        ("This is a cream.\n  Categories: Skin care", "Categories:"),
        ("This is popular.\n- Brand: Olay", "- Brand:"),
        ("This is liked.\nChosen together with:\n- Soap", "Chosen together with:"),
        ("Choices, oldest first:\n- Soap", "Choices, oldest first:"),
        ("assistant: This is a cream.", "assistant:"),
        ("This is a cream.\nUser: And who likes it?", "User:"),
        ("This is a cream.\nuser\nWho likes it?", "user"),
        ("### Human: who likes it", "### Human:"),
        ("This is a cream.<|im_end|>", "<|im_end|>"),
        ("This is <|im_start|>user", "<|im_start|>"),
    ],
)
def test_what_belongs_to_the_prompt_is_off_format(text: str, found: str) -> None:
    assert failure_of(text, BUILT_IN) == f"the answer is off-format: it holds {found!r}"
    assert OFF_FORMAT in flaws_of(text, "stop", BUILT_IN)


def test_the_marks_are_those_of_the_templates() -> None:
    own = off_format_pattern(["<film>\nName of it: $title\n$brand: no label\n</film>\nDescribe it."])
    assert failure_of("Name of it: Alien", own)
    assert failure_of("<film> Alien", own)
    for fine in ("Title: Alien", "<data>", "name of it: Alien", "What is the Name of it: Alien", ": Alien"):
        assert failure_of(fine, own) is None


@pytest.mark.parametrize("text", [None, "", " \n\t"])
def test_an_empty_answer_is_a_failure(text: str | None) -> None:
    assert failure_of(text, BUILT_IN) == "the answer is empty"
    assert flaws_of(text, "stop", BUILT_IN) == [EMPTY]
    assert flaws_of(text, "length", BUILT_IN) == [EMPTY, TRUNCATED]


def test_an_answer_may_have_several_flaws() -> None:
    assert flaws_of("Title: a b c a b c a b c", "length", BUILT_IN) == [TRUNCATED, REPETITIVE, OFF_FORMAT]
    assert flaws_of(GOOD, "length", BUILT_IN) == [TRUNCATED]


def test_the_error_quotes_little_of_a_text() -> None:
    pattern = off_format_pattern([f"{'x' * 41}: $title"])
    error = failure_of(f"{' ' * 300}{'x' * 41}:", pattern)
    assert error == f"the answer is off-format: it holds {'x' * 41 + ':'!r}"


@given(st.lists(st.sampled_from("abcde"), max_size=40), st.integers(2, 4))
def test_the_share_is_one_for_a_text_said_twice(words: list[str], times: int) -> None:
    share = repeated_share(" ".join(words))
    assert 0 <= share <= 1
    if len(words) >= 3:
        assert repeated_share(" ".join(words * times)) == 1


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=60))
def test_words_that_differ_never_repeat(words: list[int]) -> None:
    assert repeated_share(" ".join(map(str, words))) == 0 < MAX_REPEATED_SHARE
