"""Templates: what a file may say, for which kinds of items, and how a mistake in it is reported."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sracl_dist.config import parse_config
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.errors import ConfigError
from sracl_dist.profiles.quality import answer_rules
from sracl_dist.profiles.template import PLACEHOLDERS, Chat, Turn, load_chats, load_template, template_facts

TEMPLATE = """
system: You describe $item_kind for $$5.
message: |
  Title: $title
  Brand: $brand
  Seen with other $item_kind:
  $histories
answer_start: This is
examples:
  - kinds: [Films, Series]
    turns:
      - fields: {title: Alien, histories: [Jaws; Solaris, The Thing]}
        answer: This is horror.
      - {fields: {brand: Orion}, answer: This is a film.}
  - turns:
      - {fields: {title: A cup}, answer: This is for tea.}
"""


def written(folder: Path, content: str | bytes | dict[str, Any], name: str = "item.yaml") -> str:
    file = folder / name
    content = yaml.safe_dump(content) if isinstance(content, dict) else content
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(file)


def test_a_template_for_each_kind_of_items(tmp_path: Path) -> None:
    template = load_template("item", written(tmp_path, TEMPLATE))
    films = template.chat("films")
    assert films.system_message() == "You describe films for $5."
    assert films.answer_start == "This is"
    assert [turn.answer for turn in films.turns] == ["This is horror.", "This is a film."]
    assert films.question(films.turns[0].fields) == (
        "Title: Alien\nSeen with other films:\n- Jaws; Solaris\n- The Thing"
    )
    assert films.question(films.turns[1].fields) == "Brand: Orion"
    assert template.chat(" SERIES ").turns == films.turns
    assert [turn.answer for turn in template.chat("cups").turns] == ["This is for tea."]
    only_films = {"message": "$title", "examples": [{"kinds": ["films"], "turns": []}]}
    assert load_template("item", written(tmp_path, only_films)).chat("cups").turns == ()
    assert load_template("item", written(tmp_path, {"message": "$title"})).chat("cups") == Chat(
        item_kind="cups", message="$title"
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "Say:\nWho?"),
        ({"title": "t"}, "Title: t\nSay:\nWho?"),
        ({"histories": "- a"}, "Seen:\n- a\nSay:\nWho?"),
        ({"brand": "b"}, "Seen:\nBrand: b\nSay:\nWho?"),
        ({"categories": "c"}, "Say:\nWho?\nLast:\nc"),
    ],
)
def test_empty_lines_and_their_headings_are_left_out(fields: dict[str, str], expected: str) -> None:
    message = "Title: $title\nSeen:\n$histories\nBrand: $brand\nSay:\nWho?\nLast:\n$categories"
    assert Chat(message=message).question(fields) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "Say:\nWho?"),
        ({"histories": "- a"}, "Seen:\n\n- a\nSay:\nWho?"),
        ({"categories": "c"}, "Say:\nWho?\nLast:\n\n\nc"),
        ({"histories": "- a", "categories": "c"}, "Seen:\n\n- a\nSay:\nWho?\nLast:\n\n\nc"),
    ],
)
def test_blank_lines_below_a_heading_go_with_it(fields: dict[str, str], expected: str) -> None:
    message = "Seen:\n\n$histories\nSay:\nWho?\nLast:\n\n\n$categories"
    assert Chat(message=message).question(fields) == expected


@given(st.dictionaries(st.sampled_from(PLACEHOLDERS["item"]), st.text(max_size=20)))
def test_no_data_can_act_as_a_placeholder(fields: dict[str, str]) -> None:
    chat = Chat(message="Title: $title ($categories)\nBrand: $brand\n$description\n$histories\nDone. $$")
    asked = chat.question({name: f"{text}$title${{brand}}$$$" for name, text in fields.items()})
    for text in fields.values():
        assert f"{text}$title${{brand}}$$$" in asked
    assert asked.endswith("Done. $")


@pytest.mark.parametrize("kind", ["films", "beauty products", "anything else"])
def test_the_built_in_templates_are_sound(kind: str) -> None:
    chats = load_chats(ProfileConfig(), kind)
    assert all(2 <= len(chat.turns) <= 3 for chat in chats.values())
    answer_rules(chats.values())
    for chat in chats.values():
        assert kind in chat.system_message()
        assert all(chat.question(turn.fields) for turn in chat.turns)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "UTF-8"),
        (b" " * 1_000_001, "1,000,000"),
        ("a: b: c", "line 1"),
        ("[" * 2_000, "YAML"),
        ("message: !!python/object:os.system x", "YAML"),
        ("", "None.*message, system, answer_start, examples"),
        ("system: s", r"\bmessage\b"),
        ("message: 5", r"message of .*\b5\b"),
        ("{message: $title, sytem: s}", "'sytem'.*system"),
        ("{message: $title, 7: s}", r"\b7\b.*message, system"),
        ("message: $tilte", r"\$tilte\b.*\$title, \$brand"),
        ("message: 5 $ each", r"message of .* \$ "),
        ("{message: $title, system: about $title}", r"system of .*\$title\b.*\$item_kind"),
        ("{message: $title, examples: {turns: []}}", "examples of .*'turns'.*list"),
        ("{message: $title, examples: [{kinds: [a]}]}", r"examples\[0\] of .*\bturns\b"),
        ("{message: $title, examples: [{kinds: films, turns: []}]}", r"examples\[0\]\.kinds of .*'films'"),
        ("{message: m, examples: [{turns: [{answer: a}]}]}", r"examples\[0\]\.turns\[0\] of .*\bfields\b"),
        ("{message: m, examples: [{turns: [{fields: {}, answer: ' '}]}]}", r"turns\[0\]\.answer of "),
        ("{message: m, examples: [{turns: [{fields: {name: a}, answer: a}]}]}", "'name'"),
        ("{message: m, examples: [{turns: [{fields: {titel: a}, answer: a}]}]}", r"'titel'.*\btitle\b"),
        ("{message: m, examples: [{turns: [{fields: {title: 1984}, answer: a}]}]}", r"fields\.title of .*\b1984\b"),
        ("{message: m, examples: [{turns: [{fields: {histories: a}, answer: a}]}]}", r"fields\.histories of .*'a'"),
        ("{message: m, examples: [{turns: []}, {turns: []}]}", "examples of .*two"),
        ("{message: m, examples: [{kinds: [A], turns: []}, {kinds: [a], turns: []}]}", "examples of .*'a'"),
        (
            "{message: m, answer_start: It is, examples: [{turns: [{fields: {}, answer: A cup.}]}]}",
            "answer of .*'It is'",
        ),
        ("message: $brand by $item_kind", r"message of .*\$title\b"),
    ],
)
def test_a_bad_template_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_template("item", path)
    assert path in str(caught.value)


def test_a_missing_template_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml.*profile\.user_template"):
        load_template("user", str(tmp_path / "none.yaml"))


def facts_of(folder: Path, template: dict[str, Any], *overrides: str) -> dict[str, str]:
    path = written(folder, template, "user.yaml")
    values = {"run": {"dir": "r"}, "data": {"source": "yelp"}, "profile": {"user_template": path}}
    return template_facts(parse_config(values, overrides))


def test_what_a_prompt_would_show_changes_the_facts(tmp_path: Path) -> None:
    first = {"system": "one", "message": "$history"}
    facts = facts_of(tmp_path, first)
    changed = [
        {**first, "system": "two"},
        {**first, "message": "Choices: $history"},
        {**first, "answer_start": "They"},
        {**first, "examples": [{"turns": [{"fields": {}, "answer": "a"}]}]},
        {**first, "examples": [{"kinds": ["places and businesses"], "turns": [{"fields": {}, "answer": "a"}]}]},
    ]
    for template in changed:
        other = facts_of(tmp_path, template)
        assert other["template for users"] != facts["template for users"]
        assert other["template for items"] == facts["template for items"]
    unused = {**first, "examples": [{"kinds": ["cups"], "turns": [{"fields": {}, "answer": "a"}]}]}
    assert facts_of(tmp_path, unused) == facts
    cups = facts_of(tmp_path, unused, "data.item_kind=Cups")
    assert all(cups[name] != facts[name] for name in facts), "the built-in template names the kind"


def test_turns_are_equal_by_what_they_say() -> None:
    assert Turn(fields={"title": "a"}, answer="b") == Turn(fields={"title": "a"}, answer="b")
