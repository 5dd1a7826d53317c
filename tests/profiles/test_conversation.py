"""How chats become tokens, with the real tokenizer and chat templates of several models' manners."""

import copy
from pathlib import Path
from typing import Any

import pytest
from small_texts import item_text, sequences_of

from sracl_dist.config.sections import ProfileConfig
from sracl_dist.errors import SetupError
from sracl_dist.profiles.conversation import ChatTokens
from sracl_dist.profiles.prompts import PromptWriter
from sracl_dist.profiles.texts import TrainingTexts

TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REFUSES_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
ALTERNATES = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{% endfor %}"
)
IGNORES_SYSTEM = TURNS.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
THINKS = TURNS + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
OPENS_THOUGHT = TURNS + "{{ '<think>\\n' }}"
TEMPLATE = """
system: You describe $item_kind.
message: $title
answer_start: This is
examples:
  - turns:
      - {fields: {title: Alien}, answer: This is horror.}
"""
TEXTS = TrainingTexts([item_text(1, title="Jaws")], sequences_of([[1, 1, 1]], 1))


@pytest.fixture
def asked(tmp_path: Path, tokenizer: Any) -> Any:
    """Text of the only item's prompt with a chat template, and the first words of its answer."""
    file = tmp_path / "item.yaml"
    file.write_text(TEMPLATE)

    def text_of(chat_template: str | None, **settings: Any) -> tuple[str, str]:
        own = copy.deepcopy(tokenizer)
        own.chat_template = chat_template
        config = ProfileConfig(item_template=str(file), **settings)
        prompt = next(PromptWriter(config, TEXTS, own, "films").items([1]))
        return own.decode(prompt.token_ids), prompt.answer_start

    return text_of


def test_a_chat_of_system_message_examples_and_question(asked: Any) -> None:
    assert asked(TURNS) == (
        "<|im_start|>system\nYou describe films.<|im_end|>\n"
        "<|im_start|>user\nAlien<|im_end|>\n<|im_start|>assistant\nThis is horror.<|im_end|>\n"
        "<|im_start|>user\nJaws<|im_end|>\n<|im_start|>assistant\nThis is",
        "This is",
    )


@pytest.mark.parametrize("chat_template", [REFUSES_SYSTEM + TURNS, REFUSES_SYSTEM + ALTERNATES + TURNS, IGNORES_SYSTEM])
def test_without_a_system_role_its_text_is_in_front_of_the_first_question(asked: Any, chat_template: str) -> None:
    assert asked(chat_template)[0] == (
        "<|im_start|>user\nYou describe films.\n\nAlien<|im_end|>\n<|im_start|>assistant\nThis is horror.<|im_end|>\n"
        "<|im_start|>user\nJaws<|im_end|>\n<|im_start|>assistant\nThis is"
    )


def test_a_model_without_a_chat_template_gets_plain_text(asked: Any) -> None:
    assert asked(None)[0] == "You describe films.\n\nAlien\n\nThis is horror.\n\nJaws\nThis is"


def test_options_reach_the_chat_template(asked: Any) -> None:
    assert "<think>" not in asked(THINKS)[0]
    assert "<think>" not in asked(THINKS, chat_options=["enable_thinking=true"])[0]
    assert asked(THINKS, chat_options=["enable_thinking=false"])[0].endswith("<think>\n\n</think>\n\nThis is")


def test_an_answer_within_an_opened_thought_begins_with_its_mark(asked: Any) -> None:
    text, answer_start = asked(OPENS_THOUGHT)
    assert answer_start == "<think>\n", "so that a thought is known as one although the model does not open it"
    assert text.endswith("<|im_start|>assistant\n<think>\n"), "the answer's first words come behind the thought"


ONE_TURN = "{% if messages | length > 2 %}{{ raise_exception('one turn only') }}{% endif %}" + TURNS


@pytest.mark.parametrize(
    "chat_template",
    [
        "{{ raise_exception('never') }}",
        "{{ 1 + 'a' }}",
        "{% if %}",
        "{{ 1 // 0 }}",
        "{{ messages.missing() }}",
        "{{ (none).upper() }}",
        "hello",  # neither system message nor question
        ONE_TURN,
    ],
)
def test_a_chat_template_that_cannot_be_used_is_refused(asked: Any, chat_template: str) -> None:
    with pytest.raises(SetupError, match=r"\bsome/model\b.*profile\.chat_options"):
        asked(chat_template, model="some/model")


@pytest.mark.parametrize("error", [AttributeError("no strip"), TypeError("not a list"), IndexError("no first")])
def test_whatever_a_chat_template_raises_is_one_sentence(tokenizer: Any, error: Exception) -> None:
    own = copy.deepcopy(tokenizer)
    own.chat_template = TURNS

    def failing(*_: Any, **__: Any) -> str:
        raise error

    own.apply_chat_template = failing
    with pytest.raises(SetupError, match=f"some/model.*{error}"):
        ChatTokens(own, ProfileConfig(model="some/model"))
