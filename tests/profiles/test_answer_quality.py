"""What is wrong with an answer: texts written by hand, and some that a small model has really written."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sracl_dist.errors import ConfigError
from sracl_dist.profiles.loops import repeated_share, without_loop
from sracl_dist.profiles.quality import (
    COPY,
    EMPTY,
    LANGUAGE,
    MAX_REPEATED_SHARE,
    OFF_FORMAT,
    REFUSAL,
    REPETITIVE,
    THOUGHT,
    TRUNCATED,
    AnswerRules,
    answer_of,
    answer_rules,
    failure_of,
    flaws_of,
    profile_of,
)
from sracl_dist.profiles.template import Chat, Turn

ITEM = "Title: $title\nBrand: $brand\nCategories: $categories\nChosen together with:\n$histories"
USER = "Choices, oldest first:\n$history"
ANSWER = (
    "Kinds: science fiction horror, survival thriller; style: slow build-up, realistic machines, few characters; mood: "
    "dark, tense, lonely; for: adults who like suspense more than action; next: monster films, space thrillers."
)
RULES = answer_rules([Chat(message=ITEM, turns=(Turn(fields={}, answer=ANSWER),)), Chat(message=USER)])
GOOD = "This is a moisturizing shampoo for dry, curly hair; people who look for natural ingredients like it."
LONG = (
    "This person likes slow, atmospheric science fiction that asks questions about memory and identity, from classics "
    "of the seventies to recent independent films. They also return to courtroom dramas with a strong lead, and now "
    "and then to a light comedy from the same decade. Next they may look for quiet space films, for legal thrillers "
    "based on true stories, or for an adaptation of a novel they have already seen in another version. Violence and "
    "horror are rare in what they choose, and sequels of large franchises are missing altogether."
)


def rules_of(message: str, *answers: str, system: str = "", answer_start: str = "") -> AnswerRules:
    turns = tuple(Turn(fields={}, answer=answer) for answer in answers)
    chat = Chat(item_kind="films", system=system, message=message, answer_start=answer_start, turns=turns)
    return answer_rules([chat])


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
    assert flaws_of(text, "stop", RULES) == [REPETITIVE]
    assert failure_of(text, RULES) is None, "it is kept"


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
    assert flaws_of(text, "stop", RULES) == []
    assert failure_of(text, RULES) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("This is <think> something", "<think>"),
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
    reason = failure_of(text, RULES)
    assert reason is not None
    assert repr(found) in reason
    assert OFF_FORMAT in flaws_of(text, "stop", RULES)


def test_the_marks_are_those_of_the_templates() -> None:
    own = rules_of("<film>\nName of it: $title\n$brand: no label\n</film>\nDescribe it.\nKind: of $item_kind")
    assert failure_of("Name of it: Alien", own)
    assert failure_of("<film> Alien", own)
    assert failure_of("Kind: of films", own)
    for fine in ("Title: Alien", "<data>", "name of it: Alien", "What is the Name of it: Alien", ": Alien"):
        assert failure_of(fine, own) is None


@pytest.mark.parametrize("text", [None, "", " \n\t"])
def test_an_empty_answer_is_a_failure(text: str | None) -> None:
    assert failure_of(text, RULES)
    assert flaws_of(text, "stop", RULES) == [EMPTY]
    assert flaws_of(text, "length", RULES) == [EMPTY, TRUNCATED]


def test_an_answer_may_have_several_flaws() -> None:
    assert flaws_of("Title: a b c a b c a b c", "length", RULES) == [OFF_FORMAT, TRUNCATED, REPETITIVE]
    assert flaws_of(GOOD, "length", RULES) == [TRUNCATED]


def test_the_error_quotes_little_of_a_text() -> None:
    error = failure_of(f"{' ' * 300}{'x' * 41}:", rules_of(f"{'x' * 41}: $title"))
    assert error is not None
    assert "x" * 41 in error
    assert len(error) < 120


@given(st.lists(st.sampled_from("abcde"), max_size=40), st.integers(2, 4))
def test_the_share_is_one_for_a_text_said_twice(words: list[str], times: int) -> None:
    share = repeated_share(" ".join(words))
    assert 0 <= share <= 1
    if len(words) >= 3:
        assert repeated_share(" ".join(words * times)) == 1


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("A poignant, touching, touching, Touching, touching, touching", "A poignant, touching"),
        ("It is for the hair, the hair, the hair.", "It is for the hair"),
        ("A gentle wash for dry skin. A gentle wash for dry skin. A gentle", "A gentle wash for dry skin"),
        ("It is a really, really good film.", "It is a really, really good film."),
        ("An action film; next: action films.", "An action film; next: action films."),
        ("The hair is hairy, airy.", "The hair is hairy, airy."),
    ],
)
def test_a_repetitive_answer_ends_where_its_loop_begins(text: str, kept: str) -> None:
    assert without_loop(text) == kept
    assert profile_of(text, [REPETITIVE]) == kept
    assert profile_of(text, []) == text


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=60), st.integers(3, 12))
def test_what_comes_before_a_loop_is_kept(words: list[int], times: int) -> None:
    assert without_loop(" ".join([*map(str, words), *["loop"] * times])) == " ".join([*map(str, words), "loop"])


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=60))
def test_words_that_differ_never_repeat(words: list[int]) -> None:
    assert repeated_share(" ".join(map(str, words))) == 0 < MAX_REPEATED_SHARE


def test_labels_of_the_examples_answers_are_no_marks_of_the_prompt() -> None:
    message = "Title: $title\nAnswer with these two lines:\nKinds:\nMoods:"
    asked = rules_of(message, "Kinds: horror\nMoods: dark")
    assert failure_of("Kinds: drama\nMoods: sad", asked) is None
    assert failure_of("Title: Jaws", asked)
    assert failure_of("Kinds: drama\nMoods: sad", rules_of(message))


@pytest.mark.parametrize(
    "thought",
    [
        "<think>Hm, a film.</think>",
        "<THINKING>\nHm, a film.\n</THINKING>\n\n",
        "<reasoning>Hm.</reasoning><think>Still.</think>",
        "[THINK]Hm.[/THINK]",
        "\n<think>\n\n</think>\n",
        "Hm, this is <b>a film</b>.\n</think>\n",  # opened by the chat template
        "<think>Title: Jaws\nI'm sorry, but I cannot answer.</think>",
    ],
)
def test_a_thought_is_cut_off(thought: str) -> None:
    assert answer_of(thought + GOOD) == GOOD
    assert flaws_of(thought + GOOD, "stop", RULES) == []
    assert flaws_of(thought, "stop", RULES) == [EMPTY]
    assert flaws_of(f"{thought}Title: x", "stop", RULES) == [OFF_FORMAT]


def test_only_one_end_of_a_thought_may_lack_its_beginning() -> None:
    for text in ("<think>x</think>A film about </think> y", "x</think>A film about</think> y"):
        assert flaws_of(text, "stop", RULES) == [OFF_FORMAT]
        assert answer_of(text).startswith("A film about")


def test_a_thought_of_gpt_oss_without_its_control_tokens() -> None:
    assert answer_of(f"analysisWe need one sentence.assistantfinal{GOOD}") == GOOD
    assert flaws_of("analysisWe need it.assistantfinal", "stop", RULES) == [EMPTY]
    for text in ("Analysis of a marriage.", "analysis of a marriage, assistantfinal", "analysisWe need it."):
        assert answer_of(text) == text


@pytest.mark.parametrize("text", ["<think>", "<think>It may be a film", "<think>a</think><think>b", " <Thoughts>\nHm"])
def test_a_thought_that_never_ends_is_a_failure(text: str) -> None:
    assert answer_of(text) == ""
    assert failure_of(text, RULES)
    assert flaws_of(text, "length", RULES) == [THOUGHT, TRUNCATED]


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't describe this item.",
        "I\u2019m sorry, I cannot help with that.",
        "Sorry, but as an AI I have no taste.",
        "I apologize for the inconvenience, but I am unable to write about it.",
        "Apologies, but I don't have enough information.",
        "Unfortunately, I cannot say who likes it.",
        '"As an AI language model, I do not watch films."',
        "As an AI assistant, I have no access to the catalogue.",
        "As a large language model I cannot know.",
        "I cannot provide a description of this product.",
        "I'm unable to provide it.",
        "I am not able to assist with this.",
        "**I can't help with that.**",
        "I'm sorry, but I can't.",
        "I cannot fulfill this request.",
        "I can't help you with this.",
        "I won't be able to describe it.",
        "I cannot do that.",
        "I cannot summarize an item without a title.",
        "I don't have enough information to describe the film.",
        "I do not have access to the catalogue.",
        "There is not enough information to say who likes it.",
        "There's no information about this item.",
        "Not enough information is given.",
        "I'm just a language model and cannot watch films.",
        "I am an AI assistant, and I do not watch films.",
        "I regret that I cannot describe this film.",
        "I regret to inform you that I am unable to answer.",
        "I do not know this film.",
        "I don't recognize that title, so this is a guess.",
        "I'm not familiar with this product.",
    ],
)
def test_a_refusal_is_a_failure(text: str) -> None:
    assert flaws_of(text, "stop", RULES) == [REFUSAL]
    reason = failure_of(text, RULES)
    assert reason is not None
    assert text[:30] in reason
    assert failure_of(f"This is {text}", rules_of("$title", "This is fun.", answer_start="This is"))


@pytest.mark.parametrize(
    "text",
    [
        "Sorry to Bother You is a satire about work.",
        "I'm Sorry, I Love You: a drama series about a lost son.",
        "I Can't Think Straight is a romantic comedy.",
        "As an AI falls in love with its owner, the film asks what a person is.",
        "As a model of its kind, the film is often quoted; the critics say: I'm sorry, but I can't stop watching.",
        "Unfortunately named, this lotion is liked by many.",
        "I Can't Give You Anything but Love, Baby: a jazz standard.",
        "I Won't Be Home for Christmas, punk",
        "I Can't Help Myself (Sugar Pie, Honey Bunch): a soul classic.",
        "I Can't Help It (If I'm Still in Love with You), country",
        "I Can't Describe (The Way I Feel), a ballad",
        "I Will Not Go Quietly: a war story.",
        "I Don't Know How to Love Him, from a musical.",
        "I Don't Have the Heart, a ballad.",
        "I'm Sorry, I Can't Stop: a dance track.",
        "There Is No Evil: a drama of four stories.",
        "I Am an Android: science fiction.",
    ],
)
def test_a_title_is_no_refusal(text: str) -> None:
    assert failure_of(text, RULES) is None


def test_an_answer_in_another_language_is_a_failure() -> None:
    for text in (
        "一部关于鲨鱼的惊悚片",
        "\u0424\u0438\u043b\u044c\u043c \u043e\u0431 \u0430\u043a\u0443\u043b\u0435",
        "서스펜스 영화",
        "映画 Jaws は怖いです",
    ):
        assert flaws_of(text, "stop", RULES) == [LANGUAGE]
    for text in (
        "A film like \u4e03\u4eba\u306e\u4f8d, about seven warriors.",
        "Am\u00e9lie, na\u00efve caf\u00e9",
        "1984!",
        "8 oz., 30 %",
    ):
        assert LANGUAGE not in flaws_of(text, "stop", RULES)
    chinese = rules_of(
        "\u6807\u9898\uff1a$title", system="\u4f60\u4e3a\u63a8\u8350\u7cfb\u7edf\u63cf\u8ff0\u7535\u5f71\u3002"
    )
    assert flaws_of("\u4e00\u90e8\u5173\u4e8e\u9ca8\u9c7c\u7684\u60ca\u609a\u7247", "stop", chinese) == []
    assert flaws_of("A thriller about a shark.", "stop", chinese) == [LANGUAGE]
    asked_for = rules_of(
        "Title: $title", "\u4e00\u90e8\u5173\u4e8e\u9ca8\u9c7c\u7684\u60ca\u609a\u7247", system="Answer in Chinese."
    )
    assert failure_of("\u4e00\u90e8\u611f\u4eba\u7684\u7231\u60c5\u7247", asked_for) is None


CHINESE = "\u4f60\u4e3a\u63a8\u8350\u7cfb\u7edf\u63cf\u8ff0\u7535\u5f71\u3002"


def test_words_decide_the_language_and_not_letters() -> None:
    chinese = rules_of("\u6807\u9898\uff1a$title", system=CHINESE)
    sentence = "\u4e00\u90e8\u5173\u4e8e\u53cb\u8c0a\u548c\u52c7\u6c14\u7684\u7535\u5f71"
    long = "Extraordinary Gentlemen Incorporated"
    assert LANGUAGE not in flaws_of(f"{long} {sentence}", "stop", chinese), "a title in a Chinese sentence"
    assert LANGUAGE in flaws_of(f"{long} {sentence}", "stop", RULES), "a Chinese sentence around a title"
    assert LANGUAGE not in flaws_of(
        "\u3068\u306a\u308a\u306e\u30c8\u30c8\u30ed: an animated film for children and families.", "stop", RULES
    )


def test_japanese_is_one_language_in_three_scripts() -> None:
    japanese = rules_of(
        "\u984c\u540d\uff1a$title", system="\u6620\u753b\u3092\u7d39\u4ecb\u3057\u3066\u304f\u3060\u3055\u3044\u3002"
    )
    assert flaws_of("\u30b5\u30b9\u30da\u30f3\u30b9\u30b9\u30ea\u30e9\u30fc", "stop", japanese) == []
    assert flaws_of("\u30b5\u30e1\u306e\u6050\u6016\u3092\u63cf\u304f\u30b9\u30ea\u30e9\u30fc", "stop", RULES) == [
        LANGUAGE
    ]


def test_words_of_the_form_alone_are_no_copy() -> None:
    example = "A fan of romantic comedy, for warm and witty love stories; next: comedies about couples."
    rules = rules_of("$history", example)
    fine = (
        "A fan of romantic comedy, drama and action, for warm and witty love stories; next: more comedies about "
        "couples and families."
    )
    assert flaws_of(fine, "stop", rules) == []
    for copied in (f"{example} They also like long walks, rain, and songs of the seventies.", example[:60]):
        assert flaws_of(copied, "stop", rules) == [COPY]


def test_a_copied_example_is_a_failure() -> None:
    words = ANSWER.split()
    copies = [
        ANSWER,
        ANSWER.upper().replace(";", "."),
        ANSWER.replace("tense", "sad"),
        " ".join(words[: len(words) * 2 // 3]),  # cut
        f"{ANSWER} It is also about a ship, its crew of seven, a cat and a machine, and a strange signal.",
        f"<think>What now?</think>{ANSWER}",
    ]
    for text in copies:
        assert flaws_of(text, "stop", RULES) == [COPY], text
    own = (
        "Kinds: science fiction comedy, adventure; style: fast, colourful, many characters; mood: light, silly; "
        "for: families who like action more than suspense; next: superhero films, space adventures, cartoons."
    )
    for text in (own, " ".join(words[::-1]), " ".join(words[:6]), "Kinds: thriller"):
        assert failure_of(text, RULES) is None, text
    short = rules_of("$title", "A film.")
    assert failure_of("a film", short)
    assert failure_of("A film about a shark.", short) is None


@pytest.mark.parametrize("answer", ["user: x", "I'm sorry, but I can't.", "<think>x"])
def test_an_example_that_would_be_refused_is_refused(answer: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(answer))):
        rules_of("Title: $title", answer)


@given(st.text(max_size=200), st.sampled_from([None, "stop", "length"]))
def test_any_text_is_judged_alike_by_both(text: str, reason: str | None) -> None:
    failure, flaws = failure_of(text, RULES), flaws_of(text, reason, RULES)
    assert (failure is None) == (not set(flaws) & {EMPTY, THOUGHT, REFUSAL, LANGUAGE, COPY, OFF_FORMAT})
    assert (TRUNCATED in flaws) == (reason == "length")
